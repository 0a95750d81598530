// A program that calls a model through parry's policies, with no gateway. Try it:
//
//   parry sim &
//   node script.mjs http://127.0.0.1:8421
//
// The provider fails the first call with 503 and cuts the first stream; neither is noticed.

import { Engine } from 'parry-engine';

const provider = process.argv[2] ?? 'http://127.0.0.1:8421';
const parry = new Engine({
  init: `
    provider "sim" { base_url = "${provider}/v1", dialect = "openai" }
    route "/v1/*" { to = "sim", chain = { use "circuit_breaker", use "retry" { base = 0.1 }, use "fallback_model" } }`,
  onAlert: (alert) => console.error(`alert: ${alert.text}`),
});

const path = '/v1/chat/completions';
const messages = [{ role: 'user', content: 'one two three' }];

const answer = await parry.call({
  path,
  headers: { 'x-sim-fault': 'code=503;times=1' },
  json: { model: 'plain', messages },
});
console.log(`${answer.json().choices[0].message.content} (${answer.attempts} attempts at ${answer.target})`);

const stream = parry.stream({
  path,
  headers: { 'x-sim-fault': 'code=cut;times=1' },
  json: { model: 'streamed', messages, stream: true },
});
let events = 0;
for await (const chunk of stream) events += chunk.toString().split('data: ').length - 1;
console.log(`${events > 2 ? 'a stream' : 'no stream'} (${stream.outcome.attempts} attempts)`);

const decision = parry.decide({ target: 'sim/plain', status: 503 });
console.log(`a 503 elsewhere: ${decision.action}, says ${decision.policy}`);
