'use strict';
// One call on its way: what libparry tells of it, to be read at the reader's pace. Behind call(), stream() and fetch().

const { native } = require('./native.js');
const { headersOf } = require('./plain.js');

class Exchange {
  #chunks = [];
  #waiting = null; // of read()
  #failure = null; // {reason}: what read() rejects with
  #ended = false;
  #signal;
  #onAbort;
  #settleHead;

  /** Throws when the call cannot be begun. Of `head` and read() the first rejects what nobody else is told. */
  constructor(handle, request, signal) {
    signal?.throwIfAborted();
    this.outcome = null;
    this.head = new Promise((resolve, reject) => { this.#settleHead = { resolve, reject }; });
    this.head.catch(() => {}); // whoever only reads hears of it there
    native.call(handle, this, request);
    if (signal) {
      this.#signal = signal;
      this.#onAbort = () => this.abort(signal.reason);
      signal.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  abort(reason) {
    if (this.#ended) return;
    this.#end({ reason });
    native.cancel(this);
  }

  /** The next piece, or null after the last. One reader at a time. */
  read() {
    const chunk = this.#chunks.shift();
    if (chunk) {
      native.took(this, chunk.length);
      return Promise.resolve(chunk);
    }
    if (this.#failure) return Promise.reject(this.#failure.reason);
    if (this.#ended) return Promise.resolve(null);
    if (this.#waiting) return Promise.reject(new TypeError('one reader at a time'));
    return new Promise((resolve, reject) => { this.#waiting = { resolve, reject }; });
  }

  #end(failure) {
    this.#ended = true;
    this.#failure = failure;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    const waiting = this.#waiting;
    this.#waiting = null;
    if (failure) {
      this.#chunks = [];
      this.#settleHead.reject(failure.reason);
      waiting?.reject(failure.reason);
    } else {
      waiting?.resolve(null);
    }
  }

  // From the engine.

  onHeaders(status, flat) {
    this.#settleHead.resolve({ status, headers: headersOf(flat) });
  }

  onData(chunk) {
    if (this.#ended || chunk.length === 0) return;
    const waiting = this.#waiting;
    if (!waiting) {
      this.#chunks.push(chunk);
      return;
    }
    this.#waiting = null;
    native.took(this, chunk.length);
    waiting.resolve(chunk);
  }

  onDone(outcome) {
    this.outcome = outcome;
    if (this.#ended) return;
    this.#settleHead.resolve({ status: outcome.status, headers: new Headers() }); // when there was none
    this.#end(null);
  }
}

module.exports = { Exchange };
