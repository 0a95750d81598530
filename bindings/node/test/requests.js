'use strict';
// What tests, and scripts that tests start, ask the simulator.

const CHAIN = `{ use "circuit_breaker" { failures = 50 }, use "token_refresh",
  use "retry" { max_attempts = 4, base = 0.02, cap = 0.1 }, use "fallback_model", use "alert" }`;

function initFor(url, more = '') {
  const options = `deadline = 30, timeouts = { first_byte = 2, idle = 1 }, chain = ${CHAIN}`;
  return `
provider "p" { base_url = "${url}/v1", dialect = "openai", auth = bearer(secret "KEY") }
provider "claude" { base_url = "${url}/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }
route "/v1/*" { to = "p", ${options} }
route "/v1/messages*" { to = "claude", ${options} }
${more}`;
}

const own = Math.random().toString(36).slice(2);
let number = 0;
/** A chat request with a model and a count of faults of its own. */
function chat(fault, more = {}) {
  number += 1;
  const { text = 'hello', headers, signal, ...rest } = more;
  return {
    path: '/v1/chat/completions',
    headers: { 'x-sim-key': `${own}${number}`, ...(fault ? { 'x-sim-fault': fault } : {}), ...headers },
    json: { model: `m${number}`, messages: [{ role: 'user', content: text }], ...rest },
    signal,
  };
}

module.exports = { CHAIN, chat, initFor };
