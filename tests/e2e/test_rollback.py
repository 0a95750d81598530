"""What a rollback, or a start that is refused, leaves behind for later: which sets are kept out, and what is the last good
one; and what an end in the middle of a reload waits for.

Shows: a set that a person has gone back to by name is let in again when it is saved; a set that was never served is not
kept as the last good one.
"""

from harness import ok, run_parry, wait_until


def init_for(url, more=""):
    return f'provider "p" {{ base_url = "{url}/v1", dialect = "openai" }}\nroute "/v1/*" {{ to = "p", chain = {{}} }}\n{more}'


def serving(gateway):
    return gateway.status()["generation"]["id"]


def save(gateway, text):
    """Saves init.lua and waits until something new serves."""
    before = serving(gateway)
    gateway.folder.write("init.lua", text)
    wait_until(lambda: serving(gateway) != before, "the saved set serves")
    return serving(gateway)


def test_a_set_that_a_person_went_back_to_is_let_in_again(start):
    """It stayed in the reloader's quarantine, though not in the one on disk: saved again it was refused until a restart."""
    provider = start.provider(otherwise=ok("served"))
    second_text = init_for(provider.url, "-- second\n")
    gateway = start.gateway(init_for(provider.url))
    second = save(gateway, second_text)
    assert gateway.command("rollback").returncode == 0
    assert gateway.command("rollback", second[:12]).returncode == 0 and serving(gateway) == second
    save(gateway, init_for(provider.url, "-- third\n"))
    assert save(gateway, second_text) == second


def test_a_set_that_was_refused_at_the_start_is_not_the_last_good_one(start):
    """It was written to --state before it was asked whether its clients file can be read."""
    provider = start.provider(otherwise=ok("served"))
    state = start.directory / "state"
    gateway = start.gateway(init_for(provider.url), "--state", state)
    good = serving(gateway)
    gateway.stop()
    folder = gateway.folder
    folder.write("init.lua", init_for(provider.url, 'clients { file = "missing.json" }\n'))
    refused = run_parry("serve", "--policies", folder.path, "--listen", "127.0.0.1:0", "--admin",
                        f"unix:{start.directory}/admin.sock", "--state", state)
    assert refused.returncode == 78 and "missing.json" in refused.stderr, refused
    folder.write("init.lua", "nonsense(\n")
    again = start.gateway(folder, "--state", state)
    assert serving(again) == good


SLOW = """
for n = 1, 1000 do
  test("slow " .. n, function(t)
    local sum = 0
    for i = 1, 200000 do sum = sum + i % 7 end
    t:ok(sum > 0)
  end)
end
"""


def test_tests_of_the_policies_do_not_hold_up_the_end(start):
    """SIGTERM in the middle of a reload waited for all tests of the new set, however many, and called worker 0 stuck."""
    provider = start.provider(otherwise=ok("served"))
    gateway = start.gateway(init_for(provider.url))
    for number in range(8):
        gateway.folder.write(f"slow{number}_test.lua", SLOW)
    assert gateway.ask("POST", "/api/v1/reload?wait=0.5").status == 202
    gateway.stop(seconds=30)
    assert not gateway.log("worker is stuck")
