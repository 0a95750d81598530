'use strict';
// The official SDKs over engine.fetch, no gateway anywhere: what passes is not noticed, what does not is their own error.

const assert = require('node:assert');
const { before, test } = require('node:test');

const { chat, engine, initFor, sdk, sim, until } = require('./helper.js');

const OpenAI = sdk('openai');
const Anthropic = sdk('@anthropic-ai/sdk');
const TEXT = 'grüße 你好 🚀 " \\ end';

let parry;
let renewing; // with a token that expires
let provider;
let openai;
let anthropic;

before(async () => {
  provider = await sim();
  parry = engine({ init: initFor(provider.url) });
  renewing = engine({ init: initFor(`${provider.url}/auth`, `
credential "c" { refresh_token = secret "KEY", token_url = "${provider.url}/token", grant = "oauth" }`)
    .replace('header("x-api-key", secret "KEY")', 'bearer(credential "c")').replace('bearer(secret "KEY")', 'bearer(credential "c")') });
  openai = new OpenAI({ apiKey: 'x', baseURL: 'http://parry/v1', fetch: parry.fetch });
  anthropic = new Anthropic({ apiKey: 'x', baseURL: 'http://parry', fetch: parry.fetch });
});

const stats = async () => (await fetch(`${provider.url}/sim/stats`)).json();

let number = 0;
const options = (fault) => ({ headers: { 'x-sim-key': `s${++number}`, ...(fault ? { 'x-sim-fault': fault } : {}) } });

const messages = [{ role: 'user', content: TEXT }];
/** What an SDK was told, `stream`ed or not, and in how many attempts. */
const apis = {
  async chat(fault, stream, client = openai) {
    const { data, response } = await client.chat.completions.create({ model: `gpt-${number}`, messages, stream },
      options(fault)).withResponse();
    let text = stream ? '' : data.choices[0].message.content;
    if (stream) for await (const chunk of data) text += chunk.choices[0]?.delta?.content ?? '';
    return [text, response.headers.get('parry-attempts')];
  },
  async messages(fault, stream, client = anthropic) {
    const { data, response } = await client.messages.create({ model: `claude-${number}`, max_tokens: 100, messages, stream },
      options(fault)).withResponse();
    let text = stream ? '' : data.content.map((part) => part.text).join('');
    if (stream) for await (const chunk of data) text += chunk.delta?.text ?? '';
    return [text, response.headers.get('parry-attempts')];
  },
};

const FAULTS = [undefined, '429;retry-after=0.1', '503', 'reset', 'error-200', 'cut'];
for (const api of Object.keys(apis)) {
  for (const stream of [false, true]) {
    const how = `${api}, ${stream ? 'stream' : 'plain'}`;
    for (const fault of FAULTS) {
      test(`${how}: ${fault ?? 'no fault'} is not noticed`, async () => {
        assert.deepStrictEqual(await apis[api](fault && `${fault};times=1`, stream), [TEXT, fault ? '2' : '1']);
      });
    }
    test(`${how}: an expired token is renewed`, async () => {
      const client = { chat: new OpenAI({ apiKey: 'x', baseURL: 'http://parry/v1', fetch: renewing.fetch }),
        messages: new Anthropic({ apiKey: 'x', baseURL: 'http://parry', fetch: renewing.fetch }) }[api];
      assert.strictEqual((await apis[api](undefined, stream, client))[0], TEXT); // whatever token there is by now
      const { renewals } = await stats();
      await fetch(`${provider.url}/sim/expire`, { method: 'POST' });
      assert.deepStrictEqual(await apis[api](undefined, stream, client), [TEXT, '2']);
      assert.strictEqual((await stats()).renewals, renewals + 1);
    });
  }
}

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
