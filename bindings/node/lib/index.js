'use strict';

const { Engine, ParryError, PolicyError, version } = require('./engine.js');

module.exports = { Engine, ParryError, PolicyError, version };
