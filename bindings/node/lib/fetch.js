'use strict';
// fetch() for SDKs: the WHATWG one's arguments and results, with the policies in between.

const { Exchange } = require('./exchange.js');
const { ParryError } = require('./errors.js');

// Those that are about a connection which is not ours to speak of. What is compressed could not be judged.
const NOT_PASSED = new Set(['accept-encoding', 'connection', 'content-length', 'host', 'keep-alive', 'te', 'trailer',
  'transfer-encoding', 'upgrade']);
const BODYLESS = new Set([204, 205, 304]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]); // never followed: where calls go is said by routes

const BODY_MOST = 16 * 1024 * 1024; // of parry_call()

/** All of a stream, as long as nobody aborts and it does not get too long. */
async function bytesOf(stream, signal) {
  const reader = stream.getReader();
  const leave = () => reader.cancel(signal.reason).catch(() => {}); // ends a read that waits
  const chunks = [];
  let size = 0;
  signal?.addEventListener('abort', leave, { once: true });
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      size += read.value.byteLength;
      if (size > BODY_MOST) {
        reader.cancel().catch(() => {});
        throw new TypeError('fetch failed', { cause: new RangeError(`the body is longer than ${BODY_MOST} bytes`) });
      }
      chunks.push(read.value);
    }
  } finally {
    signal?.removeEventListener('abort', leave);
  }
  signal?.throwIfAborted();
  return Buffer.concat(chunks, size);
}

async function bodyOf(input, init, signal) {
  const body = init?.body;
  if (typeof body === 'string' || body instanceof Uint8Array) return { body };
  if ((body === undefined || body === null) && !(input instanceof Request && input.body)) return {};
  // FormData, Blob, URLSearchParams, streams: what they are as bytes, and of which type, is known to Request.
  const whole = input instanceof Request && (body === undefined || body === null)
    ? input.clone()
    : new Request('http://parry/', { method: 'POST', body, duplex: 'half' });
  return { body: await bytesOf(whole.body, signal), type: whole.headers.get('content-type') };
}

function urlOf(input) {
  const text = input instanceof Request ? input.url : String(input);
  return text.startsWith('/') ? new URL(text, 'http://parry') : new URL(text);
}

async function requestOf(input, init, signal) {
  const url = urlOf(input);
  const { body, type } = await bodyOf(input, init, signal);
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

/** Whoever drops an answer unread leaves: the call would be open, and the process kept, until its deadline. */
const forgotten = new FinalizationRegistry((exchange) => exchange.abort(new DOMException('nobody reads', 'AbortError')));

/** The body of a Response: pieces are read when somebody pulls. */
function streamOf(exchange) {
  const stream = new ReadableStream({
    async pull(controller) {
      const chunk = await exchange.read();
      if (chunk) {
        controller.enqueue(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
        return;
      }
      forgotten.unregister(exchange);
      if (exchange.outcome.truncated) {
        controller.error(new TypeError('terminated', { cause: new ParryError(exchange.outcome) }));
      } else {
        controller.close();
      }
    },
    cancel(reason) {
      exchange.abort(reason ?? new DOMException('the reader left', 'AbortError'));
    },
  }, { highWaterMark: 0 });
  forgotten.register(stream, exchange, exchange);
  return stream;
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

/** A Response that knows where it came from, and whose clones do. */
function withUrl(response, url) {
  return Object.defineProperties(response, {
    url: { value: url },
    clone: { value: () => withUrl(Response.prototype.clone.call(response), url) },
  });
}

async function fetch(handleOf, input, init) {
  const signal = init?.signal ?? (input instanceof Request ? input.signal : undefined);
  signal?.throwIfAborted();
  const { url, request } = await requestOf(input, init, signal);
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
  if (init?.redirect === 'error' && REDIRECTS.has(status)) {
    exchange.abort();
    throw new TypeError('fetch failed', { cause: new Error('unexpected redirect') });
  }
  // The policies have tried what there was to try; an SDK that tries again would multiply it.
  if (status >= 400) headers.set('x-should-retry', 'false');
  const body = BODYLESS.has(status) || request.method === 'HEAD' ? null : decoded(streamOf(exchange), headers);
  return withUrl(new Response(body, { status, headers }), url.href);
}

module.exports = { fetch };
