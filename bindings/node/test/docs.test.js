'use strict';
// Every snippet of the page, the example, the types and the package are what they say.

const assert = require('node:assert');
const fs = require('node:fs');
const { builtinModules } = require('node:module');
const path = require('node:path');
const { before, test } = require('node:test');

const parry = require('parry-engine');
const { folder, run, sim } = require('./helper.js');

const PACKAGE = process.env.PARRY_PACKAGE;
const page = fs.readFileSync(path.join(PACKAGE, 'README.md'), 'utf8');
const blocks = (language) => page.split(`\`\`\`${language}\n`).slice(1).map((text) => text.split('```')[0]);
const snippets = blocks('js');
const EXPECTED = [/^hello$/, /^hello 1 openai\/gpt-4o\ndata: /, /^\[ 'select 1' \]\n$/, /^retry true attempt 1 of \d+\n$/];

let provider;
before(async () => {
  provider = await sim();
});

test('every snippet has its test', () => assert.strictEqual(snippets.length, EXPECTED.length));

snippets.forEach((snippet, i) => {
  test(`snippet ${i + 1} of README.md`, async () => {
    const made = folder({ 'snippet.mjs': snippet });
    fs.mkdirSync(path.join(made, 'policies'));
    fs.writeFileSync(path.join(made, 'policies', 'init.lua'), blocks('lua')[0].replace('https://api.openai.com', provider.url));
    fs.mkdirSync(path.join(made, 'node_modules'));
    fs.symlinkSync(PACKAGE, path.join(made, 'node_modules', 'parry-engine'));
    fs.symlinkSync(path.join(process.env.PARRY_SDK, 'node_modules', 'openai'), path.join(made, 'node_modules', 'openai'));
    process.env.KEY = 'sk-of-a-snippet-123456';
    const { code, out } = await run(path.join(made, 'snippet.mjs'), { cwd: made });
    assert.match(out, EXPECTED[i]);
    assert.strictEqual(code, 0);
  });
});

test('the example', async () => {
  const { code, out } = await run(path.join(__dirname, '..', 'examples', 'script.mjs'), provider.url);
  assert.strictEqual(out, 'one two three (2 attempts at sim/plain)\na stream (2 attempts)\na 503 elsewhere: retry, says retry\n');
  assert.strictEqual(code, 0);
});

test('the types name what there is', () => {
  const types = fs.readFileSync(path.join(PACKAGE, 'lib', 'index.d.ts'), 'utf8');
  const engine = types.slice(types.indexOf('class Engine'), types.indexOf('\n}\n'));
  const methods = Object.getOwnPropertyNames(parry.Engine.prototype).filter((name) => name !== 'constructor');
  for (const name of [...methods, 'fetch']) assert.match(engine, new RegExp(`\\n  ${name}(<[^>]*>)?[(:]`), name);
  for (const name of Object.keys(parry)) assert.match(types, new RegExp(`export (class|const) ${name}\\b`));
});

test('ESM and CommonJS give the same', async () => {
  const esm = await import('parry-engine');
  for (const name of Object.keys(parry)) assert.strictEqual(esm[name], parry[name]);
});

test('the package is whole, small, and needs no other', () => {
  const description = JSON.parse(fs.readFileSync(path.join(PACKAGE, 'package.json'), 'utf8'));
  assert.deepStrictEqual([description.dependencies, description.scripts], [undefined, undefined]);
  assert.strictEqual(description.version, parry.version);
  for (const name of ['LICENSE', 'README.md', 'policies/retry.lua', 'lib/index.d.ts']) assert.ok(fs.existsSync(path.join(PACKAGE, name)), name);
  for (const name of fs.readdirSync(path.join(PACKAGE, 'lib')).filter((file) => file.endsWith('.js'))) {
    const text = fs.readFileSync(path.join(PACKAGE, 'lib', name), 'utf8');
    for (const [, wanted] of text.matchAll(/require\('([^']+)'\)/g)) {
      assert.ok(wanted.startsWith('./') || builtinModules.includes(wanted.replace('node:', '')), wanted);
    }
  }
});
