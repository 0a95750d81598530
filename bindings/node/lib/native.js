'use strict';
// Opens the addon, and with it libparry. Both lie in ../native/PLATFORM-ARCH; LD_LIBRARY_PATH names another libparry.
//
// RTLD_DEEPBIND: node exports the OpenSSL it was built with, and without this the libcurl that libparry uses would call
// that one with the structures of the system's.

const os = require('node:os');
const path = require('node:path');
const fs = require('node:fs');

const directory = path.join(__dirname, '..', 'native', `${process.platform}-${process.arch}`);

function open() {
  const file = path.join(directory, 'parry.node');
  if (!fs.existsSync(file)) {
    throw new Error(`parry: this package was built without ${process.platform}-${process.arch}: ${file} is missing`);
  }
  const { RTLD_NOW, RTLD_DEEPBIND } = os.constants.dlopen;
  const module = { exports: {} };
  try {
    process.dlopen(module, file, RTLD_NOW | RTLD_DEEPBIND);
  } catch (error) {
    throw new Error(`parry: ${error.message} (Debian: apt-get install libcurl4 libevent-core-2.1-7 liblua5.4-0 libssl3)`,
      { cause: error });
  }
  return module.exports;
}

exports.native = open();

const shipped = path.join(__dirname, '..', 'policies');
// The policies that came with the package; undefined in a package without, where libparry's own are used.
exports.shipped = fs.existsSync(shipped) ? shipped : undefined;
