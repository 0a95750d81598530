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

/** A server that gives all it is asked, and an engine on it. */
async function served(handler, more) {
  const server = http.createServer(handler);
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  atEnd(() => server.close());
  return engine({ init: `provider "b" { base_url = "http://127.0.0.1:${server.address().port}", dialect = "generic" }
route "/*" { to = "b", chain = {}, deadline = 120 }`, ...more });
}

const echo = (request, response) => {
  let size = 0;
  request.on('data', (data) => { size += data.length; });
  request.on('end', () => response.end(JSON.stringify({ size, type: request.headers['content-type'], method: request.method })));
};

test('fetch: every kind of body', async () => {
  const there = await served(echo);
  const form = new FormData();
  form.set('a', new Blob(['b']), 'c.txt');
  const bytes = new Uint8Array(8);
  const kinds = [['text', 4, /^text\/plain/], [new URLSearchParams({ a: 'b' }), 3, /^application\/x-www-form-urlencoded/],
    [form, undefined, /^multipart\/form-data; boundary=/], [new Blob(['b'], { type: 'x/y' }), 1, /^x\/y$/],
    [bytes.subarray(2, 5), 3], [bytes.buffer, 8], [new DataView(bytes.buffer, 1, 2), 2], [new Blob(['ab']).stream(), 2],
    [new Uint8Array(16 * 1024 * 1024), 16 * 1024 * 1024]];
  for (const [body, size, type] of kinds) {
    const told = await (await there.fetch('/x', { method: 'PUT', body })).json();
    if (size) assert.strictEqual(told.size, size);
    if (type) assert.match(told.type, type);
    assert.strictEqual(told.method, 'PUT');
  }
  const request = new Request('http://parry/x', { method: 'POST', body: 'of a request' });
  assert.strictEqual((await (await there.fetch(request)).json()).size, 12);
  assert.strictEqual((await (await there.fetch(new URL('http://parry/x?y'))).json()).method, 'GET');
});

test('fetch: a body that never ends is given up', async () => {
  const there = await served(echo);
  let left = 0;
  const silent = new ReadableStream({ cancel() { left += 1; } });
  await assert.rejects(there.fetch('/x', { method: 'POST', body: silent, signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
  let pulled = 0;
  const endless = new ReadableStream({ pull: (controller) => {
    pulled += 1;
    controller.enqueue(new Uint8Array(1024 * 1024));
  }, cancel() { left += 1; } });
  await assert.rejects(there.fetch('/x', { method: 'POST', body: endless }), (error) => error instanceof TypeError &&
    /longer than 16777216 bytes/.test(error.cause.message));
  assert.ok(pulled < 20, `${pulled} MiB were read`);
  assert.strictEqual(left, 2);
});

test('a header of any bytes', async () => {
  const there = await served((request, response) => {
    response.writeHead(200, { 'x-odd': 'a\xe9b', 'x-utf8': Buffer.from('é').toString('latin1') });
    response.end();
  });
  const { headers } = await there.call({ path: '/x' });
  assert.deepStrictEqual([headers.get('x-odd'), headers.get('x-utf8')], ['a\xe9b', '\xc3\xa9']);
});

test('fetch: clones, redirects, answers without a body', async () => {
  const there = await served((request, response) => {
    response.writeHead(request.url === '/go' ? 302 : 200, { location: '/there' });
    response.end('body');
  });
  const answer = await there.fetch('/x');
  const clone = answer.clone();
  assert.deepStrictEqual([await answer.text(), await clone.text(), clone.url, clone.clone === answer.clone],
    ['body', 'body', 'http://parry/x', false]);
  assert.strictEqual((await there.fetch('/go')).status, 302, 'routes say where calls go, not providers');
  await assert.rejects(there.fetch('/go', { redirect: 'error' }), { name: 'TypeError', message: 'fetch failed' });
  assert.strictEqual(await (await there.fetch('/x', { method: 'HEAD' })).text(), '');
  await until(() => there.status().open === 0, 'nothing to be open');
});

test('answers and streams that nobody reads are left', async () => {
  const there = await served((request, response) => {
    response.writeHead(200);
    const more = () => { while (response.write(Buffer.alloc(65536))); };
    response.on('drain', more);
    more();
  });
  await there.fetch('/x');
  await there.stream({ path: '/x' }).start();
  await until(() => {
    gc();
    return there.status().open === 0;
  }, 'both to be left');
  const [held, stream] = [await there.fetch('/x'), there.stream({ path: '/x' })];
  await stream.start();
  const reading = held.body.getReader();
  for (let i = 0; i < 20; i++) {
    gc();
    await new Promise(setImmediate);
    assert.ok((await reading.read()).value.length && (await stream.next()).value.length, 'what somebody holds goes on');
  }
  await Promise.all([reading.cancel(), stream.return()]);
});

test('abort at every moment', async () => {
  const there = await served((request, response) => {
    let pieces = 0;
    response.writeHead(200);
    const timer = setInterval(() => {
      response.write('piece');
      if (++pieces === 20) response.end();
    }, 2);
    response.on('close', () => clearInterval(timer));
  });
  const ended = { text: 0, AbortError: 0, TimeoutError: 0 };
  const count = (promise) => promise.then(() => 'text', (error) => error.name).then((name) => { ended[name] += 1; });
  for (let ticks = 0; ticks < 20; ticks++) {
    const controller = new AbortController();
    const asked = count(there.fetch('/x', { method: 'POST', body: new Blob(['x']), signal: controller.signal }).then((got) => got.text()));
    for (let i = 0; i < ticks; i++) await null;
    controller.abort();
    await asked;
  }
  await Promise.all(Array.from({ length: 40 }, (_, i) => count(there.fetch('/x', { signal: AbortSignal.timeout(i * 3) })
    .then((got) => got.text()))));
  assert.deepStrictEqual([ended.AbortError, ended.text + ended.TimeoutError, Object.keys(ended).length], [20, 40, 3]);
  await until(() => there.status().open === 0, 'nothing to be open');
});

test('close is quick, whatever is open', async () => {
  const there = await served((request, response) => { if (request.url === '/head') response.writeHead(200).flushHeaders(); });
  const open = [];
  for (let i = 0; i < 50; i++) {
    open.push(there.call({ path: '/hang' }), there.fetch('/head').then((got) => got.text()),
      (async () => { for await (const chunk of there.stream({ path: '/head' })) assert.fail(chunk); })());
  }
  await until(() => there.status().open === 150, 'all to be open');
  const began = process.cpuUsage();
  there.close();
  const { user, system } = process.cpuUsage(began);
  assert.ok(user + system < 2e6, `${user + system} µs of work`);
  for (const { status } of await Promise.allSettled(open)) assert.strictEqual(status, 'rejected');
});
