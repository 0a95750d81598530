"""A policy that attacks the process costs its own verdict and nothing else.

Shows: each of the fifteen attacks (and a decode loop at the memory cap), run as an on_error handler on live calls, is ended and
counted as a fault of that policy; the next policy of the chain still recovers the very call; calls that were under way
meanwhile are unharmed; the process lives on and leaks nothing.
"""

import threading

import pytest

from harness import wait_until

ATTACKS = {
    "loop": "while true do end",
    "pcall_loop": "while true do pcall(function() while true do end end) end",
    "pattern": "return (('a'):rep(300)):find('.-.-.-.-.-b')",
    "rep_of_nothing": "return (''):rep(1 << 62)",
    "move": "return table.move({}, 1, 1 << 62, 2)",
    "rep_of_much": "return ('x'):rep(1 << 30)",
    "rep_in_pcall": "for i = 1, 1e9 do pcall(string.rep, 'x', 1 << 30) end",
    "sort": "local t = {} for i = 1, 200000 do t[i] = -i end table.sort(t, function() return true end)",
    "coroutine": "return coroutine.wrap(function() while true do end end)()",
    "gc": "setmetatable({}, { __gc = function() while true do end end })",
    "xpcall": "xpcall(error, function() while true do end end)",
    "close": "local x <close> = setmetatable({}, { __close = function() while true do end end }) error('x')",
    "string_metatable": "getmetatable('').__index = function() while true do end end return ('x').y",
    "bytecode": "return load(string.dump(function() end))",
    "table_growth": "local t = {} for i = 1, 1e9 do t[i] = { i } end",
    "decode_loop": "local s = '[' .. ('1,'):rep(50000) .. '1]' local keep = {} for i = 1, 1e6 do keep[i] = json.decode(s) end",
}

CASES = "\n".join(f"  {name} = function() {code} end," for name, code in ATTACKS.items())

POLICY = f"""
local attacks = {{
{CASES}
}}

return policy {{
  name = "attack",
  on_error = function(self, call, err)
    local attack = attacks[call:header("x-attack") or ""]
    if attack then
      attack()
      error("the attack ran to its end: " .. call:header("x-attack"))
    end
  end,
}}
"""


@pytest.fixture(scope="module")
def gateway(start_once):
    sim = start_once.sim()
    folder = start_once.folder(f"""
provider "sim" {{ base_url = "{sim.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "sim", chain = {{ use "attack", use "retry" {{ base = 0.01, cap = 0.02 }} }} }}
""")
    folder.write("attack.lua", POLICY)
    return start_once.gateway(folder)


def faults(gateway):
    return sum(value for name, value in gateway.metrics().items()
               if name.startswith("parry_policy_faults_total") and 'policy="attack"' in name)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_its_own_verdict_only(gateway, name):
    before = faults(gateway)
    honest = []

    def honest_call():
        honest.append(gateway.chat("sim-ok").status)

    threads = [threading.Thread(target=honest_call) for _ in range(4)]
    for thread in threads:
        thread.start()
    reply = gateway.chat("sim-ok", headers={"x-attack": name, "x-sim-key": name, "x-sim-fault": "code=503;times=1"})
    for thread in threads:
        thread.join()
    assert reply.status == 200, reply
    assert reply.attempts == 2, reply
    assert honest == [200] * 4
    wait_until(lambda: faults(gateway) == before + 1, "the fault to be counted")


def test_faults_are_named(gateway):
    gateway.chat("sim-ok", headers={"x-attack": "loop", "x-sim-key": "named", "x-sim-fault": "code=503;times=1"})
    entry = gateway.wait_log("policy fault", lambda entry: entry.get("policy") == "attack")
    assert "attack.lua:" in str(entry), entry
