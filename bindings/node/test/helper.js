'use strict';
// What the tests share: a simulated provider, engines on it, folders. All that a file starts ends with it.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const { createRequire } = require('node:module');
const os = require('node:os');
const path = require('node:path');
const { after } = require('node:test');

const { Engine } = require('parry-engine');
const { CHAIN, chat, initFor } = require('./requests.js');

const endings = [];
/** At the end of the file's tests, the last first. */
const atEnd = (ending) => endings.push(ending);
after(async () => {
  while (endings.length) await endings.pop()();
});

const sdk = createRequire(path.join(process.env.PARRY_SDK, 'package.json'));

/** Resolves with what `condition` gives as soon as that is true. */
async function until(condition, what, seconds = 20) {
  for (const end = Date.now() + seconds * 1000; ;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > end) throw new Error(`waited ${seconds} s in vain: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}

/** `parry ARGUMENTS…`, once it has said where it listens. */
async function program(...args) {
  const child = spawn(process.env.PARRY_BIN, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.on('data', (data) => { text += data; });
  atEnd(() => new Promise((resolve) => {
    child.on('exit', resolve);
    if (!child.kill()) resolve();
  }));
  const found = await until(() => {
    if (child.exitCode !== null) throw new Error(text);
    return /ready on (http\S+)/.exec(text) ?? /"gateway":"([^"]+)"/.exec(text);
  }, `parry ${args[0]} to start`);
  return { url: found[1], child };
}

const sim = () => program('sim', '--listen', '127.0.0.1:0', '--quiet');

/** An engine that is closed when the file's tests are over. */
function engine(options) {
  const made = new Engine({ secrets: { KEY: 'sk-of-the-engine-123456' }, ...options });
  atEnd(() => made.close());
  return made;
}

function folder(files) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'parry-node-'));
  atEnd(() => fs.rmSync(made, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(made, name), text);
  return made;
}

/** Runs a script, a file or a text, in a process of its own: {code, signal, out}. The last argument may say `cwd`. */
function run(script, ...args) {
  const { cwd = __dirname } = typeof args.at(-1) === 'object' ? args.pop() : {};
  const { NODE_TEST_CONTEXT: _, ...env } = process.env; // it is no test
  const what = fs.existsSync(script) ? [script] : ['-e', script];
  const child = spawn(process.execPath, ['--expose-gc', ...what, ...args], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  child.stdout.on('data', (data) => { out += data; });
  child.stderr.on('data', (data) => { out += data; });
  return new Promise((resolve) => { child.on('close', (code, signal) => resolve({ code, signal, out })); });
}

module.exports = { atEnd, until, program, sim, initFor, engine, folder, chat, run, sdk, CHAIN };
