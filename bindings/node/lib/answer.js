'use strict';
// Whole answers, and answers as they come.

const { Exchange } = require('./exchange.js');
const { ParryError } = require('./errors.js');

const BODY_MOST = 256 * 1024 * 1024;

class Answer {
  constructor(head, body, outcome) {
    this.status = head.status;
    this.headers = head.headers;
    this.body = body;
    this.attempts = outcome.attempts;
    this.target = outcome.target;
    this.callId = outcome.callId;
    this.generation = outcome.generation;
  }

  text() {
    return this.body.toString('utf8');
  }

  json() {
    return JSON.parse(this.text());
  }
}

async function readAll(exchange) {
  const chunks = [];
  let size = 0;
  for (let chunk = await exchange.read(); chunk; chunk = await exchange.read()) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > BODY_MOST) exchange.abort(new RangeError(`the answer is longer than ${BODY_MOST} bytes: use stream()`));
  }
  return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size);
}

async function call(handle, request, signal) {
  const exchange = new Exchange(handle, request, signal);
  const body = await readAll(exchange);
  const head = await exchange.head;
  if (!exchange.outcome.ok) throw new ParryError(exchange.outcome, { headers: head.headers, body });
  return new Answer(head, body, exchange.outcome);
}

/** Who drops a stream in the middle has left it, too. */
const forgotten = new FinalizationRegistry((exchange) => exchange.abort(new DOMException('the reader left', 'AbortError')));

/** The pieces of an answer, with `status` and `headers` once the first has come, and `outcome` after the last. */
class Stream {
  #begin;
  #exchange = null;
  #over = false;

  constructor(begin) {
    this.#begin = begin;
    this.status = undefined;
    this.headers = undefined;
    this.outcome = undefined;
  }

  /** Resolves when the head is there. Rejects for an answer that is a failure. */
  async start() {
    if (this.#exchange) return this;
    this.#exchange = this.#begin();
    forgotten.register(this, this.#exchange, this.#exchange);
    const { status, headers } = await this.#exchange.head;
    this.status = status;
    this.headers = headers;
    if (status >= 400) {
      this.#over = true;
      const body = await readAll(this.#exchange);
      this.outcome = this.#exchange.outcome;
      if (!this.outcome.ok) throw new ParryError(this.outcome, { headers, body });
    }
    return this;
  }

  async next() {
    if (this.#over) return { value: undefined, done: true };
    await this.start();
    const value = await this.#exchange.read();
    if (value) return { value, done: false };
    this.#over = true;
    forgotten.unregister(this.#exchange);
    this.outcome = this.#exchange.outcome;
    if (!this.outcome.ok) throw new ParryError(this.outcome, { headers: this.headers });
    return { value: undefined, done: true };
  }

  async return(value) {
    this.#over = true;
    if (this.#exchange) forgotten.unregister(this.#exchange);
    this.#exchange?.abort(new DOMException('the reader left', 'AbortError'));
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

module.exports = { call, Stream };
