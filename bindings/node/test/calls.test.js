'use strict';
// Calls and streams: recovery, errors, abort, backpressure.

const assert = require('node:assert');
const http = require('node:http');
const { before, test } = require('node:test');

const { ParryError } = require('parry-engine');
const { atEnd, chat, engine, initFor, sim, until } = require('./helper.js');

let provider;
let parry;
const logged = [];

before(async () => {
  provider = await sim();
  parry = engine({ init: initFor(provider.url), logLevel: 'debug', onLog: (line, level) => logged.push({ level, ...JSON.parse(line) }) });
});

test('a call that recovers', async () => {
  const answer = await parry.call(chat('503;times=1'));
  assert.strictEqual(answer.status, 200);
  assert.strictEqual(answer.json().choices[0].message.content, 'hello');
  assert.strictEqual(answer.headers.get('content-type'), 'application/json');
  assert.strictEqual(answer.attempts, 2);
  assert.match(answer.target, /^p\/m\d+$/);
  assert.strictEqual(answer.generation, parry.status().generation);
  await until(() => logged.some((line) => line.call_id === answer.callId), 'a log line of the call');
});

test('a call that fails says why', async () => {
  await assert.rejects(parry.call(chat('429;retry-after=100')), (error) => {
    assert.ok(error instanceof ParryError && error instanceof Error);
    assert.strictEqual(error.category, 'rate_limit');
    assert.strictEqual(error.status, 429);
    assert.strictEqual(error.retryAfter, 100);
    assert.strictEqual(error.attempts, 1);
    assert.ok(error.message && error.callId && error.target);
    assert.ok(JSON.parse(error.body).error);
    return true;
  });
  await assert.rejects(parry.call({ path: '/nowhere', json: {} }), { status: 404, category: 'not_found', attempts: 0 });
});

test('a stream, piece by piece', async () => {
  let text = '';
  const stream = parry.stream(chat('cut;times=1', { stream: true, text: 'a b c d e' }));
  for await (const chunk of stream) {
    assert.ok(Buffer.isBuffer(chunk));
    text += chunk;
  }
  assert.match(text, /data: \[DONE\]/);
  assert.strictEqual(stream.status, 200);
  assert.strictEqual(stream.outcome.attempts, 2);
});

test('a stream that fails before and after content', async () => {
  await assert.rejects(async () => {
    for await (const chunk of parry.stream(chat('400', { stream: true }))) assert.fail(chunk);
  }, { status: 400, category: 'invalid_request' });
  let pieces = 0;
  await assert.rejects(async () => {
    for await (const chunk of parry.stream(chat('cut-after', { stream: true, text: 'a b c d e f' }))) pieces += chunk.length > 0;
  }, (error) => error instanceof ParryError && error.code === 'stream_cut');
  assert.ok(pieces > 0);
});

const cancelled = async () => (await (await fetch(`${provider.url}/sim/stats`)).json()).cancelled;

test('abort: before, while waiting, while streaming, by leaving the loop', async () => {
  await assert.rejects(parry.call(chat(null, { signal: AbortSignal.abort() })), { name: 'AbortError' });
  const seen = await cancelled();
  await assert.rejects(parry.call(chat('hang', { signal: AbortSignal.timeout(100) })), { name: 'TimeoutError' });
  await until(async () => await cancelled() === seen + 1, 'the provider to see the first leave');
  const controller = new AbortController();
  const reason = new Error('enough');
  await assert.rejects(async () => {
    for await (const chunk of parry.stream(chat('slow;delay=0.2', { stream: true, text: 'a b c d e', signal: controller.signal }))) {
      if (chunk) controller.abort(reason);
    }
  }, reason);
  for await (const chunk of parry.stream(chat('slow;delay=0.2', { stream: true, text: 'a b c d e' }))) if (chunk) break;
  await until(async () => await cancelled() === seen + 3, 'the provider to see all of them leave');
  await until(() => parry.status().open === 0, 'nothing to be open');
});

test('a slow reader holds the provider back', async () => {
  const size = 64 * 1024 * 1024;
  let sent = 0;
  const server = http.createServer((request, response) => {
    request.resume();
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
    const more = () => {
      while (sent < size) {
        sent += 65536;
        if (!response.write(Buffer.alloc(65536, 'x'))) return response.once('drain', more);
      }
      response.end();
      return undefined;
    };
    more();
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  atEnd(() => server.close());
  const slow = engine({ init: `provider "b" { base_url = "http://127.0.0.1:${server.address().port}", dialect = "generic" }
route "/b/*" { to = "b", chain = {} }`, maxBuffered: 1024 * 1024 });
  const stream = slow.stream({ path: '/b/x', method: 'GET' });
  let got = (await stream.next()).value.length;
  let last = -1;
  await until(() => { // until the provider gets no further
    const still = sent === last;
    last = sent;
    return still;
  }, 'the provider to be held back');
  assert.ok(sent < size / 2, `${sent} bytes were sent to nobody`);
  for await (const chunk of stream) got += chunk.length;
  assert.strictEqual(got, size);
  assert.strictEqual(sent, size);
});

test('many at once, and the bound on them', async () => {
  const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => parry.call(chat(null, { text: `t${i}` }))));
  answers.forEach((answer, i) => assert.strictEqual(answer.json().choices[0].message.content, `t${i}`));
  const small = engine({ init: initFor(provider.url), maxCalls: 2 });
  const open = [1, 2].map(() => small.call(chat('hang')));
  await assert.rejects(small.call(chat()), { code: 'PARRY_BUSY' });
  small.close();
  for (const one of open) await assert.rejects(one, { category: 'cancelled' });
});
