import parry from './index.js';

export const { Engine, ParryError, PolicyError, version } = parry;
