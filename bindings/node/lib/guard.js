'use strict';
// Any function under the policies: parry_call() with attempts that are made here.

const { native } = require('./native.js');
const { ParryError } = require('./errors.js');
const plain = require('./plain.js');

/** One call whose attempts are calls of a function. */
class Guarded {
  #make;
  #settle;
  #signal;
  #onAbort;
  #attempts = new Map(); // number: AbortController
  #good = null; // {value} of the attempt that was good
  #lastThrown;
  #chunks = [];
  #ended = false;

  constructor(make, signal, settle) {
    this.#make = make;
    this.#settle = settle;
    if (signal) {
      this.#signal = signal;
      this.#onAbort = () => {
        this.#settle.reject(signal.reason);
        for (const controller of this.#attempts.values()) controller.abort(signal.reason);
        native.cancel(this);
      };
    }
  }

  begin(handle, request) {
    native.call(handle, this, request);
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  // From the engine.

  onAttempt({ number, target, provider, model, deadlineLeft }) {
    const controller = new AbortController();
    this.#attempts.set(number, controller);
    this.#run(number, { target, provider, model, attempt: number, deadlineLeft, signal: controller.signal });
  }

  async #run(number, context) {
    const began = performance.now();
    let event;
    try {
      const value = await this.#make(context);
      event = { ok: true };
      if (this.#attempts.has(number)) this.#good = { value };
    } catch (error) {
      event = { error };
      if (this.#attempts.has(number)) this.#lastThrown = { error };
    }
    if (!this.#attempts.delete(number) || this.#ended) return;
    event.seconds = (performance.now() - began) / 1000;
    try {
      native.attemptDone(this, number, ...plain.event(event));
    } catch (error) {
      // What the exception said of itself cannot be told: that it failed can.
      native.attemptDone(this, number, ...plain.event({ ok: event.ok, message: String(error.message) }));
    }
  }

  onAbandon(number) {
    const controller = this.#attempts.get(number);
    this.#attempts.delete(number);
    controller?.abort(new DOMException('the attempt is not wanted any more', 'AbortError'));
  }

  onHeaders() {}

  onData(chunk) {
    this.#chunks.push(chunk);
    native.took(this, chunk.length);
  }

  onDone(outcome) {
    this.#ended = true;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    for (const number of [...this.#attempts.keys()]) this.onAbandon(number);
    if (outcome.ok) {
      this.#settle.resolve(this.#good ? this.#good.value : readAnswer(Buffer.concat(this.#chunks).toString('utf8')));
    } else {
      this.#settle.reject(new ParryError(outcome, {}, this.#lastThrown && { cause: this.#lastThrown.error }));
    }
  }
}

// A policy answered instead of an attempt (`respond`).
function readAnswer(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const OPTIONS = new Set(['path', 'json', 'signal']);

function guard(handleOf, target, make, options = {}) {
  if (typeof make !== 'function') throw new TypeError('what is guarded must be a function');
  if (target !== undefined && target !== null && typeof target !== 'string') throw new TypeError('target must be a string');
  plain.known(options, OPTIONS, 'guard');
  if (!target && !options.path) throw new TypeError('a guard needs a target, a path, or both');
  const { path = `/${target}`, json = {}, signal } = options;
  const request = { ...plain.request({ path, json, target: target ?? undefined }), wantsAttempts: true };
  return async (...args) => {
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const guarded = new Guarded((context) => make(context, ...args), signal, { resolve, reject });
      guarded.begin(handleOf(), request);
    });
  };
}

module.exports = { guard };
