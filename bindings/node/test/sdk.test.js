'use strict';
// The official SDKs over engine.fetch, no gateway anywhere: what passes is not noticed, what does not is their own error.

const assert = require('node:assert');
const { before, test } = require('node:test');

const { chat, engine, initFor, sdk, sim } = require('./helper.js');

const OpenAI = sdk('openai');
const Anthropic = sdk('@anthropic-ai/sdk');
const TEXT = 'grüße 你好 🚀 " \\ end';

let parry;
let provider;
let openai;
let anthropic;

before(async () => {
  provider = await sim();
  parry = engine({ init: initFor(provider.url, `
credential "c" { refresh_token = secret "KEY", token_url = "${provider.url}/token", grant = "oauth" }
provider "renewed" { base_url = "${provider.url}/auth/v1", dialect = "openai", auth = credential "c" }
route "/renewed/*" { to = "renewed", chain = { use "token_refresh", use "retry" { base = 0.02 } } }`.replaceAll(
    'auth = credential "c"', 'auth = bearer(credential "c")')) });
  openai = new OpenAI({ apiKey: 'x', baseURL: 'http://parry/v1', fetch: parry.fetch });
  anthropic = new Anthropic({ apiKey: 'x', baseURL: 'http://parry', fetch: parry.fetch });
});

const stats = async () => (await fetch(`${provider.url}/sim/stats`)).json();

let number = 0;
const options = (fault) => ({ headers: { 'x-sim-key': `s${++number}`, ...(fault ? { 'x-sim-fault': fault } : {}) } });

const messages = [{ role: 'user', content: TEXT }];
const apis = {
  async chat(fault, stream) {
    const done = await openai.chat.completions.create({ model: `gpt-${number}`, messages, stream }, options(fault));
    if (!stream) return done.choices[0].message.content;
    let text = '';
    for await (const chunk of done) text += chunk.choices[0]?.delta?.content ?? '';
    return text;
  },
  async messages(fault, stream) {
    const done = await anthropic.messages.create({ model: `claude-${number}`, max_tokens: 100, messages, stream }, options(fault));
    if (!stream) return done.content.map((part) => part.text).join('');
    let text = '';
    for await (const chunk of done) text += chunk.delta?.text ?? '';
    return text;
  },
};

const FAULTS = [undefined, '429;retry-after=0.1', '503', 'reset', 'error-200', 'cut'];
for (const api of Object.keys(apis)) {
  for (const stream of [false, true]) {
    for (const fault of FAULTS) {
      test(`${api}, ${stream ? 'stream' : 'plain'}: ${fault ?? 'no fault'} is not noticed`, async () => {
        assert.strictEqual(await apis[api](fault && `${fault};times=1`, stream), TEXT);
      });
    }
  }
}

test('an expired token is renewed', async () => {
  const client = new OpenAI({ apiKey: 'x', baseURL: 'http://parry/renewed', fetch: parry.fetch });
  const ask = () => client.chat.completions.create({ model: 'm', messages });
  assert.strictEqual((await ask()).choices[0].message.content, TEXT);
  await fetch(`${provider.url}/sim/expire`, { method: 'POST' });
  const { data, response } = await client.chat.completions.create({ model: 'm', messages }).withResponse();
  assert.strictEqual(data.choices[0].message.content, TEXT);
  assert.strictEqual(response.headers.get('parry-attempts'), '2');
});

test('what stays broken is the SDK’s own error, and the SDK does not try it all again', async () => {
  const before = (await stats()).total;
  await assert.rejects(apis.chat('503'), (error) => error instanceof OpenAI.InternalServerError && error.status === 503 &&
    error.headers.get('x-should-retry') === 'false');
  assert.strictEqual((await stats()).total, before + 4, 'the policies make 4 attempts; the SDK’s own two would make 12');
  await assert.rejects(apis.messages('400'), Anthropic.BadRequestError);
  assert.strictEqual((await stats()).total, before + 5);
});

test('a stream that fails after content is the SDK’s typed error', async () => {
  for (const fault of ['cut-after', 'error-after']) {
    await assert.rejects(apis.chat(fault, true), OpenAI.APIError, fault);
    await assert.rejects(apis.messages(fault, true), Anthropic.APIError, fault);
  }
});

test('an abort reaches the provider', async () => {
  const before = (await stats()).cancelled;
  const stream = await openai.chat.completions.create({ model: 'slow', messages, stream: true }, options('slow;delay=0.2'));
  await assert.doesNotReject(async () => {
    for await (const chunk of stream) if (chunk) stream.controller.abort();
  });
  const { until } = require('./helper.js');
  await until(async () => (await stats()).cancelled === before + 1, 'the provider to see the client leave');
});

test('fetch itself: its arguments, its errors', async () => {
  const { path, json, headers } = chat();
  const answer = await parry.fetch(new Request(`http://parry${path}`, { method: 'POST', body: JSON.stringify(json),
    headers: { ...headers, 'content-type': 'application/json' } }));
  assert.ok(answer instanceof Response);
  assert.strictEqual(answer.status, 200);
  assert.strictEqual(answer.url, `http://parry${path}`);
  assert.strictEqual((await answer.json()).choices[0].message.content, 'hello');
  const listed = await parry.fetch('/v1/models');
  assert.ok((await listed.json()).data.length > 0);
  await assert.rejects(parry.fetch('/v1/models', { signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.strictEqual((await parry.fetch('/nowhere')).status, 404);
  await assert.rejects(parry.fetch('not a url'), TypeError);
  const closed = engine({ init: initFor(provider.url) });
  closed.close();
  await assert.rejects(closed.fetch('/v1/models'), (error) => error instanceof TypeError && error.cause.code === 'PARRY_EFREED');
});
