"""The fields that say what happened on the way: Proxy-Status for every kind of ending, read by a parser of structured
fields that is not parry's, and traceparent, which passes as it came and names the call in the log."""

import re
import socket
import threading

import pytest

from harness import answer, chain, failure, ok, refused_port, then_close, then_hang

KEY = {"KEY": "sk-fields-0123456789"}

# RFC 9209 §2.3, the registered types.
TYPES = set("""dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
http_request_error http_request_denied http_response_incomplete http_response_header_section_size
http_response_header_size http_response_body_size http_response_trailer_section_size http_response_trailer_size
http_response_transfer_coding http_response_content_coding http_response_timeout http_upgrade_failed
http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error
proxy_loop_detected""".split())

ITEM = re.compile(r'''"(?P<string>(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"
                    | (?P<token>[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*)
                    | (?P<integer>-?[0-9]{1,15})(?![.0-9])''', re.X)
PARAMETER = re.compile(r";\x20*(?P<key>[a-z*][a-z0-9_.*-]*)(?P<value>=)?")


def members(field):
    """[(name, {parameter: value})] of a Proxy-Status field; raises when it is none."""
    found, at = [], 0

    def item():
        nonlocal at
        match = ITEM.match(field, at)
        assert match, f"no item at {field[at:]!r} of {field!r}"
        at = match.end()
        if match["integer"]:
            return int(match["integer"])
        return re.sub(r"\\(.)", r"\1", match["string"]) if match["string"] is not None else match["token"]

    while True:
        name, parameters = item(), {}
        while match := PARAMETER.match(field, at):
            at = match.end()
            parameters[match["key"]] = item() if match["value"] else True
        found.append((name, parameters))
        rest = field[at:].lstrip(" \t")
        if not rest:
            return found
        assert rest[0] == ",", field
        at = len(field) - len(rest[1:].lstrip(" \t"))
        assert at < len(field), field


def parry_says(reply):
    name, said = members(reply.headers["proxy-status"])[-1]
    assert name == "parry", reply
    assert set(said) <= {"error", "next-hop", "received-status", "details"}, said
    assert said.get("error") is None or said["error"] in TYPES, said
    return said


def init_for(url, route="", policies="{ }", auth='bearer(secret "KEY")', extra=""):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = {auth} }}
{extra}
route "/v1/*" {{ to = "p", deadline = 20, {route} chain = {policies} }}
"""


def test_the_providers_answers_are_the_providers(start):
    provider = start.provider(ok(), failure(429, code="slow_down"), failure(404),
                              answer(200, {}, {"Proxy-Status": "origin.example; error=dns_error"}),
                              answer(500, {"error": {"message": "m"}}, {"Proxy-Status": 'cdn; details="un'}))
    gateway = start.gateway(init_for(provider.url), env=KEY)
    for status in (200, 429, 404):
        assert parry_says(gateway.chat("m")) == {"next-hop": "p/m", "received-status": status}
    appended = gateway.chat("m")
    assert members(appended.headers["proxy-status"])[0] == ("origin.example", {"error": "dns_error"})
    assert parry_says(appended) == {"next-hop": "p/m", "received-status": 200}
    assert members(gateway.chat("m").headers["proxy-status"]) == [("parry", {"next-hop": "p/m", "received-status": 500})]


def test_a_fallback_names_who_answered(start):
    provider = start.provider(failure(404, code="model_not_found"), ok())
    gateway = start.gateway(init_for(provider.url, policies=chain('models = { m = { "p/other" } }')), env=KEY)
    reply = gateway.chat("m")
    assert reply.attempts == 2 and parry_says(reply) == {"next-hop": "p/other", "received-status": 200}


@pytest.mark.parametrize("model", ['m"\\;x', "ä 你", "a\u0001b"])
def test_any_model_gives_a_field_that_can_be_read(start, model):
    provider = start.provider(ok())
    gateway = start.gateway(init_for(provider.url), env=KEY)
    said = parry_says(gateway.chat(model))
    assert said["next-hop"].startswith("p/") and said["received-status"] == 200


def test_a_refused_connection(start):
    port, holder = refused_port()
    with holder:
        gateway = start.gateway(init_for(f"http://127.0.0.1:{port}"), env=KEY)
        said = parry_says(gateway.chat("m"))
    assert said["error"] == "connection_refused" and "received-status" not in said


def test_a_name_that_does_not_exist(start):
    gateway = start.gateway(init_for("http://nobody.invalid"), env=KEY)
    assert parry_says(gateway.chat("m"))["error"] == "dns_error"


def test_a_server_that_speaks_no_tls(start):
    def greet(listener):
        made, _ = listener.accept()
        with made:
            made.sendall(b"220 this is something else\r\n")
            made.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeter = threading.Thread(target=greet, args=(listener,))
        greeter.start()
        gateway = start.gateway(init_for("https://127.0.0.1:%d" % listener.getsockname()[1]), env=KEY)
        assert parry_says(gateway.chat("m"))["error"] == "tls_protocol_error"
        greeter.join()


ENDINGS = {
    "silence": (then_hang(), "http_response_timeout"),
    "closed without an answer": (then_close(b""), "connection_terminated"),
    "cut in the body": (then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "http_response_incomplete"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_broke_is_said(start, name):
    step, error = ENDINGS[name]
    provider = start.provider(step)
    gateway = start.gateway(init_for(provider.url, "timeouts = { first_byte = 0.3 },"), env=KEY)
    reply = gateway.chat("m")
    assert reply.status in (502, 504) and parry_says(reply)["error"] == error, reply


def test_parrys_own_refusals(start):
    provider = start.provider(failure(503), otherwise=failure(503))
    breaker = '{ use "circuit_breaker" { failures = 1, cooldown = 60 } }'
    gateway = start.gateway(init_for(provider.url, policies=breaker), env=KEY)
    assert parry_says(gateway.chat("m")) == {"next-hop": "p/m", "received-status": 503}
    refused = parry_says(gateway.chat("m"))
    assert refused["error"] == "destination_unavailable" and "received-status" not in refused
    assert parry_says(gateway.post("/v1/chat/completions", b"{", {"content-type": "application/json"}))[
        "error"] == "http_request_error"
    assert parry_says(gateway.chat("m", path="/elsewhere")) == {"error": "http_request_error", "details": "no_route"}


def test_a_missing_secret_is_the_gateways_fault(start):
    gateway = start.gateway(init_for("http://127.0.0.1:1", auth='bearer(secret "NOWHERE")'))
    assert parry_says(gateway.chat("m"))["error"] == "proxy_configuration_error"


def test_the_deadline_of_a_waiting_call_is_no_connection_timeout(start):
    provider = start.provider(otherwise=failure(503))
    patient = '{ use "retry" { max_attempts = 16, base = 0.2, cap = 0.2, jitter = "none" } }'
    gateway = start.gateway(init_for(provider.url, policies=patient).replace("deadline = 20", "deadline = 0.5"), env=KEY)
    said = parry_says(gateway.chat("m"))
    assert said.get("error", "http_response_timeout") == "http_response_timeout", said


def test_a_policys_own_answer_is_local(start):
    folder = start.folder(init_for("http://127.0.0.1:1", policies='{ use "local" }'))
    folder.write("local.lua", """
return policy { name = "local", on_request = function() return respond { status = 200, body = { fine = true } } end }
""")
    gateway = start.gateway(folder, env=KEY)
    assert parry_says(gateway.chat("m"))["error"] == "proxy_internal_response"


# --- traceparent ----------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_the_trace_passes_as_it_came_and_is_in_the_log(start):
    provider = start.provider(failure(503), ok(), ok(), ok())
    gateway = start.gateway(init_for(provider.url, policies=chain()), env=KEY)
    reply = gateway.chat("m", headers={"traceparent": PARENT, "tracestate": "a=1,b=2"})
    assert reply.status == 200 and reply.attempts == 2
    for asked in provider.asked:
        assert (asked.headers["traceparent"], asked.headers["tracestate"]) == (PARENT, "a=1,b=2")
    line = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert line["trace_id"] == TRACE
    reply = gateway.chat("m")
    assert "traceparent" not in provider.asked[2].headers, "none is invented"
    line = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert "trace_id" not in line
    reply = gateway.chat("m", headers={"traceparent": "nonsense"})
    assert provider.asked[3].headers["traceparent"] == "nonsense", "not ours to judge"
    line = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert "trace_id" not in line
