'use strict';
// Nanoseconds of a decision asked from Node, with the chain that is shipped. Usage: node bench.js PACKAGE [ROUNDS]

const path = require('node:path');

const { Engine } = require(path.resolve(process.argv[2] ?? 'parry-engine'));

const rounds = Number(process.argv[3] ?? 200000);
const parry = new Engine({ init: `
provider "p" { base_url = "http://127.0.0.1:9", dialect = "openai" }
route "/*" { to = "p", chain = { use "circuit_breaker", use "token_refresh", use "retry", use "fallback_model", use "alert" } }` });

/** The median of five, in nanoseconds for each. */
function measure(work) {
  const times = [];
  for (let i = 0; i < 6; i++) {
    const began = process.hrtime.bigint();
    for (let j = 0; j < rounds; j++) work();
    times.push(Number(process.hrtime.bigint() - began) / rounds);
  }
  return Math.round(times.slice(1).sort((a, b) => a - b)[2]); // the first warms up
}

const failure = { target: 'p/m', status: 503 };
const good = { target: 'p/m', ok: true, seconds: 0.1 };
console.log(`node.decide ${measure(() => parry.decide(failure))} ns`);
console.log(`node.report ${measure(() => parry.report(good))} ns`);
console.log(`node.status ${measure(() => parry.status())} ns`);
parry.close();
