#!/usr/bin/env python3
"""An asyncio service in front of a provider: many calls at once, streams, policies that ask the program, and edits that go
live. It serves itself a few requests and ends.

    parry sim &
    PROVIDER=http://127.0.0.1:8421/v1 python3 service.py
"""

import asyncio
import os
import pathlib
import tempfile

import parry

INIT = """
provider "sim" { base_url = "%s", dialect = "openai" }
route "/v1/*" { to = "sim", chain = { use "only_paying", use "circuit_breaker", use "retry" { base = 0.1 } } }
"""
ONLY_PAYING = """
return policy {
  name = "only_paying",
  on_request = function(self, call)
    local plan = host.call("plan_of", call:header("x-user"))
    if plan == "none" then return respond { status = 402, body = "no plan" } end
  end,
}
"""
PLANS = {"ada": "pro", "eve": "none"}


async def main(folder):
    (folder / "init.lua").write_text(INIT % os.environ["PROVIDER"])
    (folder / "only_paying.lua").write_text(ONLY_PAYING)
    edited = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reloaded(info):
        print("policies:", "taken over" if info.ok else info.findings[0])
        loop.call_soon_threadsafe(edited.set)

    async with parry.Engine(folder, watch=True, reloaded=reloaded) as engine:
        @engine.function("plan_of")
        async def plan_of(user):
            await asyncio.sleep(0)  # a database would be asked here
            return PLANS.get(user, "none")

        async def ask(user, number):
            question = {"model": "sim-ok", "messages": [{"role": "user", "content": f"hello {number}"}], "stream": True}
            fault = {"x-sim-fault": "reset;times=1", "x-sim-key": str(number)} if number == 0 else {}
            async with engine.astream("/v1/chat/completions", json=question, headers={"x-user": user, **fault}) as answer:
                return len([chunk async for chunk in answer]) > 0 and answer.outcome.attempts

        print("streams:", await asyncio.gather(*(ask("ada", number) for number in range(8))))
        try:
            await ask("eve", 9)
        except parry.CallError as error:
            print("refused:", error.status, error.body.decode())

        (folder / "only_paying.lua").write_text(ONLY_PAYING.replace('"none"', '"nobody"'))
        await edited.wait()
        print("after the edit:", await ask("eve", 10))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="parry-service-") as made:
        asyncio.run(main(pathlib.Path(made)))
