'use strict';
// What programs do wrong, and how processes and threads end: an error in words, never a crash, never a lost process.

const assert = require('node:assert');
const { before, test } = require('node:test');

const { chat, engine, initFor, run, sim, until } = require('./helper.js');

let provider;
before(async () => {
  provider = await sim();
});

const START = `
const { Engine } = require('parry-engine');
const { chat, initFor } = require('./requests.js');
const url = process.argv[1];
const make = (more) => new Engine({ init: initFor(url), secrets: { KEY: 'x' }, ...more });
`;
const script = (text) => run(START + text, provider.url);

test('use after close', async () => {
  const parry = engine({ init: initFor(provider.url) });
  const stream = parry.stream(chat());
  parry.close();
  parry.close();
  const freed = { code: 'PARRY_EFREED' };
  await assert.rejects(parry.call(chat()), freed);
  await assert.rejects(stream.next(), freed);
  await assert.rejects(parry.decideAsync({ status: 503 }), freed);
  await assert.rejects(parry.reload(), freed);
  await assert.rejects(parry.guard('p/m', () => {})(), freed);
  for (const use of [() => parry.decide({ status: 503 }), () => parry.report({ ok: true }), () => parry.emit('x'),
    () => parry.register('x', () => {}), () => parry.status(), () => parry.metrics(), () => parry.findings()]) assert.throws(use, freed);
});

test('close ends what is open, also while it is told', async () => {
  const parry = engine({ init: initFor(provider.url), logLevel: 'debug', onLog: () => parry.close() });
  const open = [chat('hang'), chat('hang'), chat('slow;delay=1')].map((request) => parry.call(request));
  for (const one of open) await assert.rejects(one, { category: 'cancelled' });
  const other = engine({ init: initFor(provider.url) });
  const reloading = other.reload();
  other.close();
  await assert.rejects(reloading, { code: 'PARRY_EFREED' });
});

test('a callback that throws is an uncaught exception of the program; the engine goes on', async () => {
  const { code, out } = await script(`
    let caught = 0;
    process.on('uncaughtException', (error) => { caught += error.message === 'thrown'; });
    const parry = make({ logLevel: 'debug', onLog: () => { throw new Error('thrown'); } });
    parry.call(chat('503;times=1')).then((answer) => {
      parry.close();
      setImmediate(() => console.log(answer.attempts, caught > 0));
    });`);
  assert.deepStrictEqual([code, out], [0, '2 true\n']);
  const died = await script(`
    make({ logLevel: 'debug', onLog: () => { throw new Error('thrown'); } }).call(chat('hang'));`);
  assert.strictEqual(died.code, 1);
  assert.match(died.out, /Error: thrown/);
});

test('a process ends whatever is open', async () => {
  for (const [text, code] of [
    ['make().call(chat("hang")).catch(() => {}); setTimeout(() => process.exit(3), 50);', 3],
    ['make({ logLevel: "debug", onLog: () => process.exit(4) }).call(chat()).catch(() => {});', 4],
    ['make().guard("p/m", () => process.exit(5), { path: "/v1/chat/completions" })();', 5],
    ['make().call(chat("hang")); setTimeout(() => { throw new Error("x"); }, 50);', 1],
    ['make({ watch: true, threads: 3 });', 0],
    ['const parry = make(); parry.call(chat()).then(() => {});', 0],
    ['process.on("exit", () => { parry.close(); }); const parry = make();', 0],
  ]) {
    const ended = await script(text);
    assert.deepStrictEqual([ended.code, ended.signal], [code, null], `${text}: ${ended.out}`);
  }
});

test('engines that nobody holds are freed; calls hold theirs', async () => {
  const { code, out } = await script(`
    const fs = require('node:fs');
    const threads = () => fs.readdirSync('/proc/self/task').length;
    (async () => {
      const before = threads();
      for (let i = 0; i < 20; i++) make();
      const most = threads();
      let answer = 'none';
      (() => make().call(chat('slow;delay=0.1')).then((given) => { answer = given.status; }))();
      for (const end = Date.now() + 15000; (threads() > before || answer === 'none') && Date.now() < end;) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      console.log(most >= before + 20, threads() <= before, answer);
    })();`);
  assert.deepStrictEqual([code, out], [0, 'true true 200\n']);
});

test('threads: an engine each, ended from inside and from outside', async () => {
  const { code, signal, out } = await script(`
    const { Worker } = require('node:worker_threads');
    const text = ${JSON.stringify(START.replace('process.argv[1]', 'require("node:worker_threads").workerData'))} + \`
      const { parentPort } = require('node:worker_threads');
      const parry = make({ logLevel: 'debug', onLog: () => {} });
      parry.call(chat('503;times=1')).then((answer) => parentPort.postMessage(answer.attempts));
      parry.call(chat('hang')).catch(() => {});\`;
    (async () => {
      for (let round = 0; round < 3; round++) {
        const workers = [1, 2, 3].map(() => new Worker(text, { eval: true, workerData: url }));
        const attempts = await Promise.all(workers.map((worker) => new Promise((resolve, reject) => {
          worker.once('message', resolve);
          worker.once('error', reject);
        })));
        await Promise.all(workers.map((worker) => worker.terminate()));
        console.log(attempts.join());
      }
      new Worker(text, { eval: true, workerData: url }).once('message', () => process.exit(0)); // while it works
    })();`);
  assert.deepStrictEqual([code, signal, out], [0, null, '2,2,2\n2,2,2\n2,2,2\n']);
});

test('no memory is lost in calls, streams, decisions and guards', async (t) => {
  const calls = Number(process.env.PARRY_CALLS ?? 3000);
  const { code, out } = await script(`
    const parry = make({ onLog: () => {} });
    const guarded = parry.guard('p/m', ({ attempt }) => { if (attempt < 2) throw new Error('x'); }, { path: '/v1/chat/completions' });
    const decision = () => parry.decide({ target: 'p/m', status: 503, message: 'x'.repeat(200), headers: { a: 'b' }, body: 'c' });
    const one = async (i) => {
      decision();
      if (i % 8 === 0) await guarded().catch(() => {});
      else if (i % 8 === 1) { for await (const chunk of parry.stream(chat(null, { stream: true, model: 'm' }))) if (i % 16 === 1) break; }
      else await parry.call(chat(null, { model: 'm' }));
    };
    const many = async (count) => {
      for (let i = 0; i < count; i += 32) await Promise.all(Array.from({ length: 32 }, (_, j) => one(i + j)));
      for (let i = 0; i < 3; i++) { gc(); await new Promise(setImmediate); }
      return process.memoryUsage.rss() / 1048576;
    };
    (async () => {
      await many(${calls / 2});
      const before = await many(${calls / 2});
      const after = await many(${calls});
      console.log(JSON.stringify({ before, after, open: parry.status().open }));
    })();`);
  assert.strictEqual(code, 0, out);
  const { before: first, after: last, open } = JSON.parse(out);
  const told = `${first.toFixed(1)} MiB after ${calls} calls, ${last.toFixed(1)} after ${calls} more`;
  t.diagnostic(told);
  assert.strictEqual(open, 0);
  assert.ok(last - first < 16, told);
});

test('what a signal handler and a timer do meanwhile is done', async () => {
  const parry = engine({ init: initFor(provider.url) });
  let ticks = 0;
  const timer = setInterval(() => { ticks += 1; }, 1);
  await parry.call(chat('slow;delay=0.02', { text: 'a b c d' }));
  clearInterval(timer);
  assert.ok(ticks > 5, 'the event loop goes on while a call waits');
  await until(() => parry.status().open === 0, 'nothing to be open');
});
