'use strict';

const { native, shipped } = require('./native.js');
const { ParryError, PolicyError } = require('./errors.js');
const { call, Stream } = require('./answer.js');
const { Exchange } = require('./exchange.js');
const { fetch } = require('./fetch.js');
const { guard } = require('./guard.js');
const plain = require('./plain.js');

const LEVELS = ['debug', 'info', 'warn', 'error'];
const OPTIONS = new Set(['policyDir', 'init', 'shareDir', 'stateDir', 'caFile', 'secrets', 'watch', 'threads', 'deciders',
  'maxCalls', 'maxBuffered', 'logLevel', 'onLog', 'onAlert', 'onReload']);

// At the end of the process its engines are closed, as their threads must not outlive what they stand on.
const alive = new Set();
const forget = new FinalizationRegistry((reference) => alive.delete(reference));
process.on('exit', () => {
  for (const reference of alive) {
    const handle = reference.deref();
    if (handle) native.close(handle);
  }
});

/** The program's own fault is thrown where nothing of ours is on the stack: an uncaught exception, as in any callback. */
function raise(error) {
  process.nextTick(() => { throw error; });
}

function nativeOptions(options) {
  plain.known(options, OPTIONS, 'options');
  for (const name of ['onLog', 'onAlert', 'onReload']) {
    if (options[name] !== undefined && typeof options[name] !== 'function') throw new TypeError(`${name} must be a function`);
  }
  if ((options.policyDir === undefined) === (options.init === undefined)) {
    throw new TypeError('options: policyDir (a folder with init.lua) or init (the text of one), and not both');
  }
  const level = LEVELS.indexOf(options.logLevel ?? 'info');
  if (level < 0) throw new TypeError(`logLevel must be one of ${LEVELS.join(', ')}`);
  const { onLog, onAlert, onReload, ...rest } = options;
  return {
    ...rest,
    policyDir: options.policyDir === undefined ? undefined : String(options.policyDir),
    shareDir: options.shareDir ?? shipped,
    secrets: plain.pairs(options.secrets),
    logLevel: level,
    wantsLog: Boolean(onLog),
    wantsAlert: Boolean(onAlert),
    wantsReload: Boolean(onReload),
  };
}

/** One set of policies at work: see index.d.ts for what each method promises. */
class Engine {
  #handle;
  #reference;
  #callbacks;
  #functions = new Map();
  #queue = [];
  #delivering = false;

  constructor(options) {
    const wanted = nativeOptions(options);
    this.#callbacks = { log: options.onLog, alert: options.onAlert, reload: options.onReload };
    try {
      this.#handle = native.create(wanted, (events) => this.#deliver(events));
    } catch (error) {
      throw error.code === 'PARRY_EPOLICY' ? new PolicyError(error.message) : error;
    }
    this.#reference = new WeakRef(this.#handle);
    alive.add(this.#reference);
    forget.register(this.#handle, this.#reference);
    /** A fetch() for SDKs; it needs no `this`. */
    this.fetch = (input, init) => fetch(() => this.#handle, input, init);
  }

  static async create(options) {
    return new Engine(options);
  }

  async call(request) {
    return call(this.#handle, plain.request(request), request.signal);
  }

  stream(request) {
    const wanted = plain.request(request);
    return new Stream(() => new Exchange(this.#handle, wanted, request.signal));
  }

  guard(target, make, options) {
    return guard(() => this.#handle, target, make, options);
  }

  decide(event) {
    return plain.decision(native.decide(this.#handle, undefined, ...plain.event(event)));
  }

  async decideAsync(event) {
    const wanted = plain.event(event);
    return new Promise((resolve) => {
      const told = native.decide(this.#handle, { onDecision: (late) => resolve(plain.decision(late)) }, ...wanted);
      if (told) resolve(plain.decision(told));
    });
  }

  report(event) {
    native.report(this.#handle, ...plain.event(event));
  }

  emit(name, fields) {
    native.emit(this.#handle, String(name), fields === undefined ? undefined : JSON.stringify(fields));
  }

  register(name, answer) {
    if (answer !== null && typeof answer !== 'function') throw new TypeError('what is registered must be a function, or null');
    native.register(this.#handle, name, answer !== null);
    if (answer) this.#functions.set(name, answer);
    else this.#functions.delete(name);
  }

  status() {
    return native.status(this.#handle);
  }

  metrics() {
    return native.metrics(this.#handle);
  }

  findings() {
    return native.findings(this.#handle).split('\n').filter(Boolean);
  }

  async reload() {
    const error = await native.reload(this.#handle);
    const status = native.status(this.#handle);
    if (error === -3) throw new PolicyError(native.findings(this.#handle));
    if (error) throw Object.assign(new Error(`reload failed (${error})`), { code: 'PARRY_ESYSTEM' });
    return status;
  }

  close() {
    const events = native.close(this.#handle);
    alive.delete(this.#reference);
    if (events) this.#deliver(events);
  }

  // In the order in which things happened, also when what is told closes the engine, which tells more.
  #deliver(events) {
    this.#queue.push(events);
    if (this.#delivering) return;
    this.#delivering = true;
    for (let batch = this.#queue.shift(); batch; batch = this.#queue.shift()) {
      for (let i = 0; i < batch.length; i += 4) {
        try {
          this.#tell(batch[i], batch[i + 1], batch[i + 2], batch[i + 3]);
        } catch (error) {
          raise(error);
        }
      }
    }
    this.#delivering = false;
  }

  // The numbers are those of enum event_kind in ../addon/addon.h.
  #tell(kind, about, first, second) {
    switch (kind) {
      case 0: return about.onHeaders(first, second);
      case 1: return about.onData(first);
      case 2: return about.onDone(first);
      case 3: return about.onAttempt(first);
      case 4: return about.onAbandon(first);
      case 5: return about.onDecision(first);
      case 6: return this.#answer(about, first, second);
      case 7: return this.#callbacks.log(second, LEVELS[first]);
      case 8: return this.#callbacks.alert(first);
      case 9: return this.#callbacks.reload({ ...first, findings: first.findings.split('\n').filter(Boolean) });
    }
  }

  async #answer(name, id, args) {
    let json;
    let message;
    try {
      const answer = this.#functions.get(name);
      if (!answer) throw new Error(`no function ${name}`);
      json = JSON.stringify(await answer(JSON.parse(args)));
    } catch (error) {
      message = String(error?.message ?? error).replaceAll('\0', ' ') || 'failed';
    }
    try {
      native.reply(this.#handle, id, json, message);
    } catch (error) {
      if (error.code === 'PARRY_EFREED') return; // nobody waits any more
      native.reply(this.#handle, id, undefined, `the answer of ${name} cannot be told: ${error.message}`);
    }
  }
}
if (Symbol.dispose) Engine.prototype[Symbol.dispose] = Engine.prototype.close;

module.exports = { Engine, ParryError, PolicyError, version: native.version };
