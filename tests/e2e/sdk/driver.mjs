// The official SDKs, driven over stdin: one JSON object a line in, one out, in the order the cases end.
//
// In:  {id, sdk: "openai" | "anthropic", api, baseURL, body, headers, abort, raw, big}
//   api    "chat", "responses", "messages", or "helper" (the SDK's own accumulating stream)
//   abort  "content": leave after the first content; a number: leave after so many milliseconds
//   raw    give back the text of the answer as it came
//   big    put this number, which JavaScript cannot hold, where the body says "@big"
// Out: {id, data | error, chunks, sent: {size, sha256}, headers}
//
// The SDKs are as published. `fetch` is one of their public options; here it only looks at what is sent.

import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const CLASSES = { openai: OpenAI, anthropic: Anthropic };

function clientOf(test, sent) {
  const look = async (url, init) => {
    if (test.big) init = { ...init, body: init.body.replace('"@big"', test.big) };
    const bytes = Buffer.from(init.body);
    sent.size = bytes.length;
    sent.sha256 = createHash('sha256').update(bytes).digest('hex');
    return fetch(url, init);
  };
  return new CLASSES[test.sdk]({ apiKey: 'sk-of-the-client', baseURL: test.baseURL, maxRetries: 0, fetch: look });
}

function start(client, test, signal) {
  const options = { headers: test.headers, signal };
  switch (test.api) {
    case 'chat':
      return client.chat.completions.create(test.body, options);
    case 'responses':
      return client.responses.create(test.body, options);
    case 'messages':
      return client.messages.create(test.body, options);
  }
  throw new Error(`no such api: ${test.api}`);
}

// The SDKs' helpers put the stream together again.
async function help(client, test) {
  const options = { headers: test.headers };
  const { stream: _, ...body } = test.body;
  return test.sdk === 'openai'
    ? await client.chat.completions.stream(body, options).finalChatCompletion()
    : await client.messages.stream(body, options).finalMessage();
}

function hasContent(chunk) {
  const delta = chunk.choices?.[0]?.delta;
  return Boolean(delta?.content || delta?.tool_calls || chunk.type === 'content_block_delta' ||
    chunk.type === 'response.output_text.delta');
}

async function run(test, result) {
  const client = clientOf(test, result.sent);
  if (test.api === 'helper') {
    result.data = await help(client, test);
    return;
  }
  const controller = new AbortController();
  if (typeof test.abort === 'number') setTimeout(() => controller.abort(), test.abort);
  const promise = start(client, test, controller.signal);
  if (test.raw) {
    const response = await promise.asResponse();
    result.data = await response.text();
    return;
  }
  const { data, response } = await promise.withResponse();
  result.headers = Object.fromEntries(response.headers);
  if (!test.body.stream) {
    result.data = data;
    return;
  }
  for await (const chunk of data) {
    result.chunks.push(chunk);
    if (test.abort === 'content' && hasContent(chunk)) controller.abort();
  }
}

function describe(error, test) {
  const { APIError, APIUserAbortError, APIConnectionError } = CLASSES[test.sdk];
  return {
    name: error.constructor.name,
    isAPIError: error instanceof APIError,
    isAbort: error instanceof APIUserAbortError,
    isConnection: error instanceof APIConnectionError,
    status: error.status ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    message: error.message,
    body: error.error ?? null,
    headers: error.headers instanceof Headers ? Object.fromEntries(error.headers) : null,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const test = JSON.parse(line);
  const result = { id: test.id, chunks: [], sent: {} };
  run(test, result)
    .catch((error) => { result.error = describe(error, test); })
    .then(() => process.stdout.write(JSON.stringify(result) + '\n'));
}
