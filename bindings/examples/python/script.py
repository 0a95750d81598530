#!/usr/bin/env python3
"""A script that makes calls, guards a function of its own, and asks what to do about a failure.

    parry sim &
    PROVIDER=http://127.0.0.1:8421/v1 python3 script.py
"""

import os

import parry

POLICIES = """
provider "sim" { base_url = "%s", dialect = "openai" }
provider "db"  { host = true }
route "/v1/*" { to = "sim", chain = { use "circuit_breaker", use "retry" { base = 0.1 } } }
route "/db/*" { to = "db", repeatable = true, chain = {
  use "retry" { base = 0.05 }, use "fallback_model" { models = { primary = { "db/replica" } } } } }
"""


def main():
    with parry.Engine(init_lua=POLICIES % os.environ["PROVIDER"]) as engine:
        # A call that fails twice at the provider, and not here.
        answer = engine.call("/v1/chat/completions", headers={"x-sim-fault": "code=503;times=2"},
                             json={"model": "sim-ok", "messages": [{"role": "user", "content": "hello"}]})
        print("call:", answer.status, "after", answer.attempts, "attempts")

        # Anything else that can fail.
        @engine.guard(target="db/primary")
        def load(user):
            if parry.attempt().target == "db/primary":
                raise ConnectionResetError("the primary is gone")
            return f"{user}, from {parry.attempt().target}"

        print("guard:", load("ada"))

        # Or keep everything to yourself, and only ask.
        decision = engine.decide(target="queue/jobs", status=429, retry_after=2.5)
        print("decide:", decision.action.name.lower(), f"in {decision.after:.1f} s,", decision.why)


if __name__ == "__main__":
    main()
