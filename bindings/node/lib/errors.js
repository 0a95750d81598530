'use strict';

/** A call that failed for good: the failure in the words of the policies (see index.d.ts). */
class ParryError extends Error {
  constructor(outcome, answer = {}, options) {
    super(outcome.message || `the call failed: ${outcome.category}`, options);
    this.category = outcome.category;
    this.status = outcome.status;
    this.code = outcome.code;
    this.why = outcome.why;
    this.retryAfter = outcome.retryAfter >= 0 ? outcome.retryAfter : undefined;
    this.attempts = outcome.attempts;
    this.target = outcome.target;
    this.callId = outcome.callId;
    this.generation = outcome.generation;
    this.truncated = outcome.truncated;
    this.headers = answer.headers;
    this.body = answer.body;
  }
}
ParryError.prototype.name = 'ParryError';

/** Policies that were refused: `findings` says why, "file:line: text" each. */
class PolicyError extends Error {
  constructor(findings) {
    const lines = findings.split('\n').filter(Boolean);
    super(`the policies were refused: ${lines.join('; ')}`);
    this.code = 'PARRY_EPOLICY';
    this.findings = lines;
  }
}
PolicyError.prototype.name = 'PolicyError';

module.exports = { ParryError, PolicyError };
