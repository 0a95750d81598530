'use strict';
// Nanoseconds of a decision asked from Node, with the chain that is shipped. Usage: node bench.js PACKAGE [ROUNDS] [--json]
// Of processor time, so that what else runs on the machine is not measured.

const path = require('node:path');

const words = process.argv.slice(2).filter((word) => word !== '--json');
const { Engine } = require(path.resolve(words[0] ?? 'parry-engine'));

const rounds = Number(words[1] ?? 200000);
const parry = new Engine({ init: `
provider "p" { base_url = "http://127.0.0.1:9", dialect = "openai" }
route "/*" { to = "p", chain = { use "circuit_breaker", use "token_refresh", use "retry", use "fallback_model", use "alert" } }` });

/** The median of five, in nanoseconds for each. */
function measure(work, count = rounds) {
  const times = [];
  for (let i = 0; i < 6; i++) {
    const began = process.cpuUsage();
    for (let j = 0; j < count; j++) work();
    const { user, system } = process.cpuUsage(began);
    times.push((user + system) * 1000 / count);
  }
  return Math.round(times.slice(1).sort((a, b) => a - b)[2]); // the first warms up
}

const silent = new Engine({ init: `
provider "p" { base_url = "http://127.0.0.1:9", dialect = "openai" }
route "/*" { to = "p", chain = {} }` });
const failure = { target: 'p/m', status: 503 };
const classified = { target: 'p/m', category: 'overloaded' };
const good = { target: 'p/m', ok: true, seconds: 0.1 };
const told = {
  'node.decide': measure(() => parry.decide(failure)),
  'node.report': measure(() => parry.report(good)),
  'node.overhead': measure(() => silent.decide(classified)), // nobody to ask: what is left is the binding's
  'node.status': measure(() => parry.status(), rounds / 10),
};
if (process.argv.includes('--json')) console.log(JSON.stringify(told));
else for (const [name, ns] of Object.entries(told)) console.log(`${name} ${ns} ns`);
parry.close();
silent.close();
