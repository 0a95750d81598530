'use strict';
// Decisions, reports, events, host functions, guards, and policies that are edited under a running process.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { before, test } = require('node:test');

const { Engine, ParryError, PolicyError, version } = require('parry-engine');
const { CHAIN, atEnd, chat, engine, folder, initFor, sim, until } = require('./helper.js');

const JOBS = `
provider "jobs" { host = true }
route "/jobs/*" { to = "jobs/nightly", repeatable = true, chain = ${CHAIN} }`;

let provider;

before(async () => {
  provider = await sim();
});

test('decide: what it takes and gives', () => {
  const parry = engine({ init: initFor(provider.url) });
  const decision = parry.decide({ target: 'p/m', status: 503 });
  assert.strictEqual(decision.action, 'retry');
  assert.strictEqual(decision.policy, 'retry');
  assert.strictEqual(decision.category, 'overloaded');
  assert.ok(decision.after >= 0 && decision.after < 1 && decision.why);
  const late = parry.decide({ target: 'p/m', status: 429, headers: { 'retry-after': '3' } });
  assert.ok(late.after >= 3, 'never before the other side said');
  assert.strictEqual(parry.decide({ target: 'p/m', status: 400 }).action, 'fail');
  assert.strictEqual(parry.decide({ target: 'p/m', status: 503, attempt: 4 }).action, 'fail');
  const refused = Object.assign(new Error('connect failed'), { code: 'ECONNREFUSED' });
  assert.strictEqual(parry.decide({ target: 'p/m', error: refused }).category, 'network');
});

test('decideAsync waits for what a handler waits for; decide does not', async () => {
  const parry = engine({ init: `
provider "p" { base_url = "http://127.0.0.1:9", dialect = "generic" }
route "/*" { to = "p", chain = { use "asker" } }`, shareDir: folder({ 'asker.lua': `
return policy { name = "asker", on_error = function(self, call, err)
  local answer, problem = host.call("advice", { code = err.code })
  if answer then return respond { status = 200, body = answer.text } end
  return fail { status = 503, message = problem and problem.message or "?" }
end }` }) });
  assert.strictEqual(parry.decide({ target: 'p/m', status: 500, code: 'x' }).action, 'fail');
  parry.register('advice', async ({ code }) => {
    await new Promise(setImmediate);
    return { text: `about ${code}` };
  });
  const decision = await parry.decideAsync({ target: 'p/m', status: 500, code: 'x' });
  assert.deepStrictEqual([decision.action, decision.status, decision.body], ['respond', 200, 'about x']);
  parry.register('advice', () => { throw new Error('no advice'); });
  assert.strictEqual((await parry.decideAsync({ target: 'p/m', status: 500 })).action, 'fail');
  parry.register('advice', () => ({ text: 'x'.repeat(100 * 1024) }));
  assert.strictEqual((await parry.decideAsync({ target: 'p/m', status: 500 })).action, 'fail', 'too long an answer');
});

test('report: what a program sees opens the breaker that calls stop at', async () => {
  const parry = engine({ init: initFor(provider.url).replaceAll('failures = 50', 'failures = 3') });
  for (let i = 0; i < 3; i++) parry.report({ target: 'p/reported', status: 500, seconds: 0.1 });
  await assert.rejects(parry.call({ path: '/v1/chat/completions', json: { model: 'reported', messages: [] } }),
    { code: 'circuit_open', attempts: 0 });
});

test('emit: what happened reaches the policies', async () => {
  const alerts = [];
  const parry = engine({ init: `
sink "ops" { webhook = secret "HOOK" }
provider "p" { base_url = "http://127.0.0.1:9", dialect = "generic" }
route "/*" { to = "p", chain = { use "watcher" } }`, secrets: { HOOK: `${provider.url}/nowhere` }, onAlert: (alert) => alerts.push(alert),
  shareDir: folder({ 'watcher.lua': `
return policy { name = "watcher", on_event = function(self, event)
  notify { key = "db", to = "ops", text = event.name .. ": " .. event.fields.host }
end }` }) });
  parry.emit('database_failed_over', { host: 'db2' });
  await until(() => alerts.length > 0, 'an alert');
  assert.match(alerts[0].text, /database_failed_over: db2/);
  assert.strictEqual(alerts[0].resolved, false);
});

test('guard: any function, again and elsewhere', async () => {
  const parry = engine({ init: initFor(provider.url, JOBS) });
  const seen = [];
  const job = parry.guard('jobs/nightly', async ({ provider: name, model, attempt, signal }, x, y) => {
    assert.ok(signal instanceof AbortSignal);
    seen.push([name, model, attempt]);
    if (attempt < 3) throw Object.assign(new Error('busy'), { status: 503 });
    return { sum: x + y };
  });
  assert.deepStrictEqual(await job(1, 2), { sum: 3 });
  assert.deepStrictEqual(seen, [1, 2, 3].map((n) => ['jobs', 'nightly', n]));
});

test('guard: exceptions that cannot be told fail the call all the same', async () => {
  const parry = engine({ init: initFor(provider.url, JOBS) });
  const odd = [undefined, null, 'text', Symbol('x'), Object.create(null), { get status() { throw new Error('no'); } },
    { message: { toString() { throw new Error('no'); } } }, { headers: { a: Object.create(null) } }, { headers: { [Symbol.iterator]: 7 } },
    { category: 'no such' }, { status: 503.5 }, { status: 999, code: 'a\0b' }, { message: '\ud800' }, { headers: { 'a\0': 'b' } },
    new Proxy({}, { get() { throw new Error('no'); } })];
  for (const thrown of odd) {
    await assert.rejects(parry.guard('jobs/odd', () => { throw thrown; })(), (error) => error instanceof ParryError &&
      error.attempts === 1 && error.cause === thrown);
  }
  assert.strictEqual(parry.status().open, 0);
});

test('guard: what fails, what is given up, what is aborted', async () => {
  const parry = engine({ init: initFor(provider.url, JOBS) });
  const thrown = Object.assign(new Error('wrong'), { status: 400 });
  await assert.rejects(parry.guard('jobs/a', () => { throw thrown; })(), (error) => error instanceof ParryError &&
    error.category === 'invalid_request' && error.attempts === 1 && error.cause === thrown);
  const controller = new AbortController();
  let inner;
  const open = parry.guard('jobs/b', ({ signal }) => {
    inner = signal;
    return new Promise(() => {});
  }, { signal: controller.signal })();
  await until(() => inner, 'the attempt to be made');
  controller.abort(new Error('enough'));
  await assert.rejects(open, { message: 'enough' });
  assert.ok(inner.aborted);
  await until(() => parry.status().open === 0, 'nothing to be open');
});

test('an edit on disk changes what a running process decides', async () => {
  const policies = folder({ 'init.lua': initFor(provider.url) });
  const told = [];
  const parry = engine({ policyDir: policies, watch: true, onReload: (info) => told.push(info) });
  assert.strictEqual(parry.decide({ target: 'p/m', status: 503, attempt: 2 }).action, 'retry');
  const before = parry.status().generation;
  fs.writeFileSync(path.join(policies, 'init.lua'), initFor(provider.url).replaceAll('max_attempts = 4', 'max_attempts = 2'));
  await until(() => told.length === 1, 'the edit to be taken over');
  assert.ok(told[0].ok && told[0].generation !== before);
  assert.strictEqual(parry.status().generation, told[0].generation);
  assert.strictEqual(parry.decide({ target: 'p/m', status: 503, attempt: 2 }).action, 'fail');
  fs.writeFileSync(path.join(policies, 'init.lua'), initFor(provider.url).replaceAll('max_attempts = 4', 'max_attempts = 40'));
  await until(() => told.length === 2, 'the next edit to be refused');
  assert.ok(!told[1].ok && told[1].generation === told[0].generation);
  assert.match(told[1].findings.join(), /init\.lua:\d+: retry: max_attempts must be 1\.\.16, got 40/);
});

test('reload: taken over, refused', async () => {
  const policies = folder({ 'init.lua': initFor(provider.url) });
  const parry = engine({ policyDir: policies });
  const before = parry.status().generation;
  assert.strictEqual((await parry.reload()).generation, before);
  fs.writeFileSync(path.join(policies, 'init.lua'), `-- edited\n${initFor(provider.url)}`);
  assert.notStrictEqual((await parry.reload()).generation, before);
  fs.writeFileSync(path.join(policies, 'init.lua'), 'provider "p" {');
  await assert.rejects(parry.reload(), (error) => error instanceof PolicyError && /init\.lua:1/.test(error.findings[0]));
  assert.strictEqual(parry.status().reloadsRefused, 1);
  assert.match(parry.findings()[0], /init\.lua:1/);
});

test('status and metrics', async () => {
  const parry = engine({ init: initFor(provider.url) });
  await parry.call(chat());
  const status = parry.status();
  assert.strictEqual(status.version, version);
  assert.match(status.generation, /^[0-9a-f]{64}$/);
  const calls = parry.metrics().find((sample) => sample.name === 'parry_calls_total' && sample.value === 1);
  assert.strictEqual(calls?.type, 'counter');
});

test('what is wrong is refused with words', async () => {
  assert.throws(() => new Engine(), TypeError);
  assert.throws(() => new Engine({}), /policyDir/);
  assert.throws(() => new Engine({ init: '', policydir: '/x' }), /no such property as "policydir"/);
  assert.throws(() => new Engine({ init: 'provider "p" {' }), (error) => error instanceof PolicyError &&
    error.code === 'PARRY_EPOLICY' && /init\.lua:1/.test(error.findings[0]));
  await assert.rejects(Engine.create({ policyDir: '/nowhere' }), PolicyError);
  assert.throws(() => new Engine({ init: '', threads: -1 }), /threads must be a whole number/);
  assert.throws(() => new Engine({ init: 'a\0b' }), /NUL/);
  const parry = engine({ init: initFor(provider.url) });
  await assert.rejects(parry.call({ path: 'v1' }), /begins with/);
  await assert.rejects(parry.call({ path: '/v1/x', json: {}, body: '' }), /either body or json/);
  await assert.rejects(parry.call({ path: '/v1/x', body: 7 }), /body must be/);
  await assert.rejects(parry.call({ path: '/v1/x', body: Buffer.alloc(17 * 1024 * 1024) }), { code: 'PARRY_EINVAL' });
  assert.throws(() => parry.decide({ statuss: 503 }), /no such property/);
  assert.throws(() => parry.decide({ status: '503' }), /status must be/);
  assert.throws(() => parry.register('no spaces please', () => {}), { code: 'PARRY_EINVAL' });
  assert.throws(() => parry.register('f', 1), TypeError);
  assert.throws(() => parry.guard('jobs/x'), TypeError);
  assert.throws(() => parry.emit('x', { text: 'x'.repeat(100 * 1024) }), { code: 'PARRY_EINVAL' });
});
