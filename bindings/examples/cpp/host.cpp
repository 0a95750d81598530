// A whole host in C++: one call to a provider that answers 503 once, and one question about a failure of its own.
// Usage: host BASE_URL, e.g. of `parry sim`: http://127.0.0.1:8421/v1
#include <iostream>
#include <parry.hpp>

int main(int argc, char **argv)
try {
  const std::string url = argc > 1 ? argv[1] : "http://127.0.0.1:8421/v1";
  parry::options options;
  options.init_lua = "provider \"sim\" { base_url = \"" + url +
                     "\", dialect = \"openai\" }\n"
                     "route \"/v1/*\" { to = \"sim\", chain = { use \"retry\" { base = 0.1 } } }\n";
  parry::engine engine(std::move(options));

  bool recovered = false;
  parry::request request;
  request.path = "/v1/chat/completions";
  request.headers = {{"Content-Type", "application/json"}, {"x-sim-fault", "code=503;times=1"}};
  request.body = R"({"model":"sim-ok","messages":[{"role":"user","content":"hello"}]})";
  parry::call_ops ops;
  ops.on_done = [&](const parry::outcome &outcome) {
    std::cout << "ok=" << outcome.ok << " attempts=" << outcome.attempts << " target=" << outcome.target << '\n';
    recovered = outcome.ok && outcome.attempts == 2;
  };
  engine.call(request, std::move(ops));
  while (engine.run(-1) > 0)
    ;

  parry::event failure;
  failure.target = "sim/sim-ok", failure.status = 503;
  const parry::decision decision = engine.decide(failure);
  std::cout << decision.policy() << ": " << decision.why() << '\n';
  return recovered && decision.action() == PARRY_RETRY ? 0 : 1;
} catch (const parry::error &error) {
  std::cerr << error.what() << '\n';
  return 1;
}
