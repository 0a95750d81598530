'use strict';
// node has an OpenSSL of its own and exports it; libparry must use the system's, and does TLS with it.

const assert = require('node:assert');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const https = require('node:https');
const path = require('node:path');
const { test } = require('node:test');

const { atEnd, folder, run } = require('./helper.js');

function certificate() {
  const made = folder({});
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
    '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', path.join(made, 'key'), '-out',
    path.join(made, 'cert')], { stdio: 'ignore' });
  return { key: path.join(made, 'key'), cert: path.join(made, 'cert') };
}

test('HTTPS with a certificate of our own, beside node’s own TLS in the same process', async () => {
  const { key, cert } = certificate();
  const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end('{"over":"tls"}');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  atEnd(() => server.close());
  const url = `https://localhost:${server.address().port}`;
  const script = (caFile) => `
    const { Engine } = require('parry-engine');
    const https = require('node:https');
    const init = 'provider "p" { base_url = "${url}", dialect = "generic" } route "/*" { to = "p", chain = {} }';
    const parry = new Engine({ init, caFile: ${JSON.stringify(caFile)} });
    const ca = require('node:fs').readFileSync('${cert}');
    const own = () => new Promise((resolve, reject) => https.get('${url}', { ca }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode));
    }).on('error', reject));
    const ours = () => parry.call({ path: '/x', method: 'GET' }).then((answer) => answer.json().over, (error) => error.message);
    Promise.all([own(), ours(), own(), ours()]).then((all) => console.log(all.join()));`;
  const refused = await run(script());
  const why = 'SSL certificate problem: self-signed certificate'; // libcurl's words: nobody vouches for it
  assert.deepStrictEqual([refused.code, refused.out], [0, `200,${why},200,${why}\n`]);
  const trusted = await run(script(cert));
  assert.deepStrictEqual([trusted.code, trusted.out], [0, '200,tls,200,tls\n']);
});

test('every symbol of OpenSSL that libcurl and libparry bind is the system’s', (t) => {
  const script = 'const { Engine } = require("parry-engine"); new Engine({ init: "" }).close();';
  const { stderr } = spawnSync(process.execPath, ['-e', script], { cwd: __dirname, encoding: 'utf8', maxBuffer: 1 << 30,
    env: { ...process.env, LD_DEBUG: 'bindings', LD_BIND_NOW: '1' } });
  const bound = stderr.split('\n').map((line) => /binding file (\S+) \[\d+\] to (\S+) \[\d+\]: normal symbol `((?:SSL|EVP|CRYPTO|X509|TLS|BIO)_\w+)'/.exec(line))
    .filter((found) => found && /lib(curl|parry|ssl|crypto)/.test(path.basename(found[1])));
  assert.ok(bound.length > 100, `only ${bound.length} bindings seen`);
  const wrong = bound.filter(([, , to]) => !/^lib(ssl|crypto)\.so\.3$/.test(path.basename(to)));
  assert.deepStrictEqual(wrong.map((found) => found.slice(1)), []);
  t.diagnostic(`${bound.length} symbols of OpenSSL, all of libssl.so.3 and libcrypto.so.3`);
});
