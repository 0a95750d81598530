'use strict';
// fetch() for SDKs: the WHATWG one's arguments and results, with the policies in between.

const { Exchange } = require('./exchange.js');
const { ParryError } = require('./errors.js');

// Those that are about a connection which is not ours to speak of. What is compressed could not be judged.
const NOT_PASSED = new Set(['accept-encoding', 'connection', 'content-length', 'host', 'keep-alive', 'te', 'trailer',
  'transfer-encoding', 'upgrade']);
const BODYLESS = new Set([204, 205, 304]);

async function bodyOf(input, init) {
  const body = init?.body;
  if (typeof body === 'string' || body instanceof Uint8Array) return { body };
  if ((body === undefined || body === null) && !(input instanceof Request && input.body)) return {};
  // FormData, Blob, URLSearchParams, streams: what they are as bytes, and of which type, is known to Request.
  const whole = input instanceof Request && (body === undefined || body === null)
    ? input.clone()
    : new Request('http://parry/', { method: 'POST', body, duplex: 'half' });
  return { body: new Uint8Array(await whole.arrayBuffer()), type: whole.headers.get('content-type') };
}

function urlOf(input) {
  const text = input instanceof Request ? input.url : String(input);
  return text.startsWith('/') ? new URL(text, 'http://parry') : new URL(text);
}

async function requestOf(input, init) {
  const url = urlOf(input);
  const { body, type } = await bodyOf(input, init);
  const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
  if (!headers.has('content-type')) {
    if (type) headers.set('content-type', type);
    else if (typeof body === 'string') headers.set('content-type', 'text/plain;charset=UTF-8');
  }
  const flat = [];
  for (const [name, value] of headers) if (!NOT_PASSED.has(name)) flat.push(name, value);
  const method = String(init?.method ?? (input instanceof Request ? input.method : 'GET'));
  return { url, request: { path: url.pathname + url.search, method: method.toUpperCase(), headers: flat, body } };
}

/** The body of a Response: pieces are read when somebody pulls. */
function streamOf(exchange) {
  return new ReadableStream({
    async pull(controller) {
      const chunk = await exchange.read();
      if (chunk) {
        controller.enqueue(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      } else if (exchange.outcome.truncated) {
        controller.error(new TypeError('terminated', { cause: new ParryError(exchange.outcome) }));
      } else {
        controller.close();
      }
    },
    cancel(reason) {
      exchange.abort(reason ?? new DOMException('the reader left', 'AbortError'));
    },
  }, { highWaterMark: 0 });
}

/** An answer that came encoded though nobody asked for it, as fetch() gives it: decoded. */
function decoded(stream, headers) {
  const encoding = headers.get('content-encoding')?.trim().toLowerCase();
  const format = { gzip: 'gzip', 'x-gzip': 'gzip', deflate: 'deflate' }[encoding];
  if (!format) return stream;
  headers.delete('content-encoding');
  headers.delete('content-length');
  return stream.pipeThrough(new DecompressionStream(format));
}

async function fetch(handleOf, input, init) {
  const signal = init?.signal ?? (input instanceof Request ? input.signal : undefined);
  signal?.throwIfAborted();
  const { url, request } = await requestOf(input, init);
  let exchange;
  try {
    exchange = new Exchange(handleOf(), request, signal);
  } catch (error) {
    if (signal?.aborted || (error instanceof TypeError && error.code !== 'PARRY_EFREED')) throw error;
    throw new TypeError('fetch failed', { cause: error });
  }
  let { status, headers } = await exchange.head;
  if (exchange.outcome && exchange.outcome.category === 'cancelled') {
    throw new TypeError('fetch failed', { cause: new ParryError(exchange.outcome) });
  }
  if (status < 200 || status > 599) status = 502;
  // The policies have tried what there was to try; an SDK that tries again would multiply it.
  if (status >= 400) headers.set('x-should-retry', 'false');
  const body = BODYLESS.has(status) || request.method === 'HEAD' ? null : decoded(streamOf(exchange), headers);
  const response = new Response(body, { status, headers });
  Object.defineProperty(response, 'url', { value: url.href });
  return response;
}

module.exports = { fetch };
