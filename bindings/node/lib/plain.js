'use strict';
// What programs pass, checked and made plain for the addon.

/** Refuses what is misspelt. */
function known(object, names, what) {
  if (object === null || typeof object !== 'object') throw new TypeError(`${what} must be an object`);
  for (const name of Object.keys(object)) {
    if (!names.has(name)) throw new TypeError(`${what}: no such property as "${name}"; there are ${[...names].join(', ')}`);
  }
}

/** Headers, an object or pairs as one flat array. */
function pairs(headers) {
  if (headers === undefined || headers === null) return undefined;
  const entries = typeof headers[Symbol.iterator] === 'function' ? headers : Object.entries(headers);
  const flat = [];
  for (const [name, value] of entries) {
    if (value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) flat.push(String(name), String(one));
  }
  return flat;
}

/** The other way. What no header may hold is left out: a provider wrote it. */
function headersOf(flat) {
  const headers = new Headers();
  for (let i = 0; i < flat.length; i += 2) {
    try {
      headers.append(flat[i], flat[i + 1]);
    } catch {
      // not a header that could be read again
    }
  }
  return headers;
}

/** A string or a Uint8Array. */
function bytes(body) {
  if (body === undefined || body === null || typeof body === 'string' || body instanceof Uint8Array) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  throw new TypeError('body must be a string, an ArrayBuffer or a view of one; `json` takes anything else');
}

const REQUEST = new Set(['path', 'method', 'headers', 'body', 'json', 'target', 'signal']);

function request(given) {
  known(given, REQUEST, 'request');
  const { path, method, target, json } = given;
  if (typeof path !== 'string' || !path.startsWith('/')) throw new TypeError('path must be a string that begins with "/"');
  let headers = pairs(given.headers);
  let body = bytes(given.body);
  if (json !== undefined) {
    if (body !== undefined && body !== null) throw new TypeError('either body or json');
    body = JSON.stringify(json);
    if (!headers?.some((text, i) => i % 2 === 0 && text.toLowerCase() === 'content-type')) {
      headers = ['content-type', 'application/json', ...(headers ?? [])];
    }
  }
  return { path, method, target, headers, body };
}

const EVENT = new Set(['ok', 'status', 'curlCode', 'category', 'code', 'message', 'retryAfter', 'notSent', 'headers',
  'body', 'route', 'target', 'attempt', 'deadlineLeft', 'notRepeatable', 'seconds', 'name', 'fields', 'error']);

// What Node says when nothing can have reached the other side, and when something may have.
const NOT_SENT = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT']);
const NETWORK = new Set(['ECONNRESET', 'EPIPE', 'ECONNABORTED', 'UND_ERR_SOCKET']);
const TIMEOUT = new Set(['ETIMEDOUT', 'ESOCKETTIMEDOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_CONNECT_TIMEOUT']);

/** What an exception says about a failure. Its own `category`, `status`, `code`, `retryAfter`, `headers` are believed. */
function describe(thrown) {
  const error = thrown !== null && typeof thrown === 'object' ? thrown : { message: String(thrown) };
  const inner = error.cause !== null && typeof error.cause === 'object' ? error.cause : {};
  const code = [error.code, inner.code].find((one) => typeof one === 'string' || typeof one === 'number');
  const status = [error.status, error.statusCode].find((one) => Number.isInteger(one) && one >= 100 && one <= 999);
  const event = { message: String(error.message ?? ''), status, code: code === undefined ? undefined : String(code) };
  if (typeof error.category === 'string') event.category = error.category;
  else if (error.name === 'AbortError') event.category = 'cancelled';
  else if (error.name === 'TimeoutError' || TIMEOUT.has(code)) event.category = 'timeout';
  else if (NETWORK.has(code) || NOT_SENT.has(code)) event.category = 'network';
  if (NOT_SENT.has(code)) event.notSent = true;
  if (typeof error.retryAfter === 'number' && error.retryAfter > 0) event.retryAfter = error.retryAfter;
  if (error.headers !== null && typeof error.headers === 'object') event.headers = error.headers;
  return event;
}

// Texts of exceptions may hold NUL; C's do not.
const clean = (text) => (typeof text === 'string' && text.includes('\0') ? text.replaceAll('\0', ' ') : text);

function withError({ error, ...rest }) {
  return { ...describe(error), ...rest };
}

/** An event as the arguments that take_event() in ../addon/value.c takes. */
function event(given) {
  known(given, EVENT, 'event');
  const whole = given.error === undefined ? given : withError(given);
  const { ok, status, curlCode, category, code, message, retryAfter, notSent, headers, body, route, target, attempt,
    deadlineLeft, notRepeatable, seconds, name, fields } = whole;
  return [ok, status, curlCode, category, typeof code === 'number' ? String(code) : clean(code), clean(message), retryAfter,
    notSent, pairs(headers), bytes(body), route, target, attempt, deadlineLeft, notRepeatable, seconds, name,
    fields === undefined || fields === null ? undefined : JSON.stringify(fields)];
}

const ACTIONS = ['fail', 'retry', 'fallback', 'renew', 'respond']; // enum parry_action

/** What tell_decision() in ../addon/decide.c tells. */
function decision(told) {
  const [action, status, after, target, category, policy, why, body] = told;
  const decided = { action: ACTIONS[action] ?? 'fail', status, after, target, category, policy, why };
  if (body !== undefined) decided.body = body;
  return decided;
}

module.exports = { known, pairs, headersOf, request, event, decision };
