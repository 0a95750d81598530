/* parry.hpp against libparry, without a network: calls go to a port nobody listens on, or are the host's own attempts. */
#include <parry.hpp>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <type_traits>

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      std::fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, current, #condition);                        \
      failures++;                                                                                                      \
    }                                                                                                                  \
  } while (0)

namespace
{
const char *current = "";
int failures = 0;

parry::options usual()
{
  const char *source = std::getenv("PARRY_SOURCE");
  parry::options options;
  options.policy_dir = std::string(source ? source : ".") + "/tests/install/policies";
  return options;
}

parry::request to_nobody()
{
  parry::request request;
  request.path = "/v1/chat/completions";
  request.headers = {{"Content-Type", "application/json"}};
  request.body = R"({"model":"m","messages":[{"role":"user","content":"hello"}]})";
  return request;
}

parry::event failed(int status)
{
  parry::event event;
  event.route = "/jobs", event.target = "own/job", event.status = status;
  return event;
}

/* Runs until nothing is open; what callbacks threw is counted. */
unsigned run_out(parry::engine &engine, std::string *said = nullptr)
{
  unsigned thrown = 0;
  for (int open = 1; open > 0;)
    try {
      open = engine.run(1);
    } catch (const std::exception &error) {
      thrown++;
      if (said)
        *said = error.what();
    }
  return thrown;
}

template <class Act> int code_of(Act &&act)
{
  try {
    act();
  } catch (const parry::error &error) {
    return error.code();
  }
  return PARRY_OK;
}

/* ---- errors and decisions ---- */

void errors_have_codes_and_findings()
{
  CHECK(code_of([] { parry::engine engine{parry::options{}}; }) == PARRY_EINVAL);
  parry::options broken;
  broken.init_lua = "route (";
  try {
    parry::engine engine(broken);
    CHECK(!"refused");
  } catch (const parry::policy_error &error) {
    CHECK(error.code() == PARRY_EPOLICY);
    CHECK(std::strstr(error.what(), "init.lua:1"));
  }
}

void decisions_are_values()
{
  parry::engine engine(usual());
  parry::decision first = engine.decide(failed(503));
  CHECK(first.action() == PARRY_RETRY);
  CHECK(first.policy() == "retry");
  CHECK(first.category() == "server" || first.category() == "overloaded");
  const parry::decision second = engine.decide(failed(400));
  CHECK(second.action() == PARRY_FAIL && second.policy().empty());
  first = second;
  CHECK(first.status() == 400);
  parry::event asking = failed(503);
  asking.route = "/asks";
  CHECK(engine.decide(asking).action() == PARRY_RESPOND);
  CHECK(engine.decide(asking).body().find("nobody to ask") != std::string_view::npos);
}

void texts_need_no_nul_and_may_have_none_inside()
{
  parry::engine engine(usual());
  const std::string target = "own/job, and more", route = "/jobs/";
  parry::event event = failed(503);
  event.target = std::string_view(target).substr(0, 7);
  event.route = std::string_view(route).substr(0, 5);
  CHECK(engine.decide(event).action() == PARRY_RETRY);
  const std::string longer(3000, 'x');
  event.message = longer, event.code = longer;
  event.headers = {{"a", longer}, {"b", longer}, {"retry-after", "7"}};
  CHECK(engine.decide(event).after() >= 7);
  event.code = std::string_view("a\0b", 3);
  CHECK(code_of([&] { engine.decide(event); }) == PARRY_EINVAL);
}

/* ---- calls ---- */

void a_call_tells_headers_data_and_its_end()
{
  parry::engine engine(usual());
  std::string body, category;
  int status = 0;
  parry::call_ops ops;
  ops.on_headers = [&](int given, const std::vector<parry::header_view> &headers) {
    status = given;
    CHECK(!headers.empty());
  };
  ops.on_data = [&](std::string_view data) {
    body += data;
    return parry::flow::go_on;
  };
  ops.on_done = [&](const parry::outcome &outcome) {
    category = outcome.category;
    CHECK(!outcome.ok && outcome.attempts == 1 && outcome.target == "nobody/m");
  };
  parry::call call = engine.call(to_nobody(), std::move(ops));
  CHECK(call.id().value != 0);
  CHECK(run_out(engine) == 0);
  CHECK(category == "network" || category == "connect");
  CHECK(status >= 500 && !body.empty());
  CHECK(!call.resume() && !call.cancel());
}

void a_call_outlives_its_name_and_its_engine()
{
  parry::call call;
  CHECK(!call.cancel());
  auto held = std::make_shared<int>(0);
  std::string category;
  {
    parry::engine engine(usual());
    parry::call_ops ops;
    ops.on_done = [&category, held](const parry::outcome &outcome) { category = outcome.category; };
    (void)engine.call(to_nobody(), ops);
    ops = {};
    call = engine.call(to_nobody(), {});
    CHECK(held.use_count() == 2);
  }
  CHECK(category == "cancelled");
  CHECK(held.use_count() == 1);
  CHECK(!call.cancel() && !call.resume());
}

void a_cancelled_call_says_so()
{
  parry::engine engine(usual());
  std::string category;
  parry::call_ops ops;
  ops.on_headers = [](int, const std::vector<parry::header_view> &) { CHECK(!"cancelled"); };
  ops.on_done = [&](const parry::outcome &outcome) { category = outcome.category; };
  CHECK(engine.call(to_nobody(), std::move(ops)).cancel());
  CHECK(run_out(engine) == 0);
  CHECK(category == "cancelled");
}

/* ---- exceptions ---- */

void what_callbacks_throw_comes_out_of_run()
{
  parry::engine engine(usual());
  unsigned done = 0;
  std::string said;
  parry::call_ops ops;
  ops.on_headers = [](int, const std::vector<parry::header_view> &) { throw std::runtime_error("headers"); };
  ops.on_data = [](std::string_view) -> parry::flow {
    CHECK(!"after on_headers threw");
    return parry::flow::go_on;
  };
  ops.on_done = [&](const parry::outcome &) { done++; };
  engine.call(to_nobody(), ops);
  CHECK(run_out(engine, &said) == 1);
  CHECK(done == 1 && said == "headers");
  ops = {};
  ops.on_done = [&](const parry::outcome &) {
    done++;
    throw std::runtime_error("done");
  };
  engine.call(to_nobody(), ops);
  CHECK(run_out(engine, &said) == 1);
  CHECK(done == 2 && said == "done");
  CHECK(engine.run(0) == 0);
}

void a_handler_gets_every_exception()
{
  unsigned thrown = 0;
  parry::options options = usual();
  options.on_exception = [&](std::exception_ptr error) {
    thrown += error != nullptr;
    throw 1;
  };
  parry::engine engine(std::move(options));
  parry::call_ops ops;
  ops.on_headers = [](int, const std::vector<parry::header_view> &) { throw 2; };
  ops.on_done = [](const parry::outcome &) { throw 3; };
  engine.call(to_nobody(), ops);
  engine.call(to_nobody(), ops);
  CHECK(run_out(engine) == 0);
  CHECK(thrown == 4);
}

void close_throws_what_the_last_callbacks_threw()
{
  parry::engine engine(usual());
  parry::call_ops ops;
  ops.on_done = [](const parry::outcome &) { throw std::runtime_error("late"); };
  engine.call(to_nobody(), ops);
  try {
    engine.close();
    CHECK(!"thrown");
  } catch (const std::runtime_error &error) {
    CHECK(std::string_view(error.what()) == "late");
  }
  CHECK(engine.get() == nullptr);
  engine.close();
  CHECK(code_of([&] { engine.run(0); }) == PARRY_EFREED);
  {
    parry::engine dropped(usual());
    dropped.call(to_nobody(), ops); /* its destructor does not throw */
  }
}

/* ---- misuse and lifetime ---- */

void callbacks_cannot_run_or_close()
{
  parry::engine engine(usual());
  int run = 0, close = 0;
  parry::call_ops ops;
  ops.on_done = [&](const parry::outcome &) {
    run = code_of([&] { engine.run(0); });
    close = code_of([&] { engine.close(); });
    CHECK(engine.decide(failed(503)).action() == PARRY_RETRY);
  };
  engine.call(to_nobody(), ops);
  CHECK(run_out(engine) == 0);
  CHECK(run == PARRY_EREENTRANT && close == PARRY_EREENTRANT);
}

void an_engine_may_be_destroyed_by_its_callback()
{
  auto engine = std::make_unique<parry::engine>(usual());
  unsigned done = 0;
  parry::call_ops ops;
  ops.on_done = [&](const parry::outcome &) {
    done++;
    engine.reset();
  };
  engine->call(to_nobody(), ops);
  ops.on_done = [&](const parry::outcome &) { done++; };
  engine->call(to_nobody(), ops);
  while (engine)
    engine->run(1);
  CHECK(done == 2);
}

void engines_move()
{
  static_assert(!std::is_copy_constructible_v<parry::engine> && std::is_nothrow_move_constructible_v<parry::engine>);
  static_assert(!std::is_copy_constructible_v<parry::question>);
  unsigned done = 0, cancelled = 0;
  parry::call_ops ops;
  ops.on_done = [&](const parry::outcome &outcome) {
    done++;
    cancelled += outcome.category == "cancelled";
  };
  parry::engine first(usual());
  first.call(to_nobody(), ops);
  parry::engine second(std::move(first));
  CHECK(code_of([&] { first.run(0); }) == PARRY_EFREED); // NOLINT(bugprone-use-after-move)
  CHECK(code_of([&] { first.decide(failed(503)); }) == PARRY_EFREED);
  CHECK(run_out(second) == 0 && done == 1 && cancelled == 0);
  parry::engine third(usual());
  third.call(to_nobody(), ops);
  third = std::move(second);
  CHECK(done == 2 && cancelled == 1);
  CHECK(third.decide(failed(503)).action() == PARRY_RETRY);
  std::vector<parry::engine> several;
  several.push_back(std::move(third));
  several.emplace_back(usual());
  CHECK(several[0].decide(failed(503)).action() == PARRY_RETRY);
}

/* ---- policies and figures ---- */

void status_findings_and_metrics()
{
  parry::engine engine(usual());
  engine.reload();
  const parry::status status = engine.status();
  CHECK(status.policies >= 2 && status.open == 0 && std::strlen(status.generation) > 8);
  CHECK(engine.findings().empty());
  parry::event event = failed(503);
  event.seconds = 0.1;
  engine.report(event);
  unsigned samples = 0;
  engine.metrics([&](const parry::sample &sample) { samples += sample.name.substr(0, 6) == "parry_"; });
  CHECK(samples > 0);
  try {
    engine.metrics([](const parry::sample &) { throw 4; });
    CHECK(!"thrown");
  } catch (int) {
  }
}

/* ---- attempts of the host's own ---- */

void the_host_makes_the_attempts()
{
  parry::engine engine(usual());
  std::string answer;
  unsigned attempts = 0;
  parry::call_ops ops;
  ops.on_attempt = [&](const parry::attempt &attempt) {
    attempts++;
    parry::event event;
    event.ok = attempt.number == 2;
    event.status = event.ok ? 0 : 503;
    event.body = event.ok ? "done" : "";
    CHECK(engine.attempt_done(attempt.call, attempt.number, event));
    CHECK(!engine.attempt_done(attempt.call, attempt.number + 7, event));
  };
  ops.on_data = [&](std::string_view data) {
    answer += data;
    return parry::flow::go_on;
  };
  parry::request request;
  request.path = "/jobs", request.target = "own/job";
  engine.call(request, std::move(ops));
  CHECK(run_out(engine) == 0);
  CHECK(attempts == 2 && answer == "done");
}

/* ---- host functions ---- */

parry::event to_ask()
{
  parry::event event = failed(503);
  event.route = "/asks", event.code = "E17";
  return event;
}

void policies_ask_the_host()
{
  parry::engine engine(usual());
  engine.provide("now_what", [](std::string_view arguments) {
    CHECK(arguments.find("E17") != std::string_view::npos);
    return std::string(R"({"after":3})");
  });
  double after = 0;
  CHECK(!engine.decide(to_ask(), [&](const parry::decision &decision) { after = decision.after(); }));
  CHECK(run_out(engine) == 0);
  CHECK(after == 3);
  CHECK(engine.decide(to_ask()).action() == PARRY_FAIL); /* which does not wait */
  engine.provide(
      "now_what", [](std::string_view) { return std::string(R"({"after":4})"); }, PARRY_ANY_THREAD);
  CHECK(engine.decide(to_ask()).after() == 4);
  engine.withdraw("now_what");
  CHECK(engine.decide(to_ask()).action() == PARRY_RESPOND);
}

void host_functions_fail_with_words()
{
  parry::engine engine(usual());
  std::string why, said;
  auto ready = [&](const parry::decision &decision) { why = decision.why(); };
  engine.provide("now_what", [](std::string_view) -> std::string { throw parry::failure("not today"); });
  engine.decide(to_ask(), ready);
  CHECK(run_out(engine) == 0);
  CHECK(why == "not today");
  engine.provide("now_what", [](std::string_view) -> std::string { throw std::logic_error("a bug"); });
  engine.decide(to_ask(), ready);
  CHECK(run_out(engine, &said) == 1);
  CHECK(why == "a bug" && said == "a bug");
  engine.provide("now_what", [](std::string_view) { return std::string("{"); });
  engine.decide(to_ask(), ready);
  CHECK(run_out(engine, &said) == 1);
  CHECK(why.find("JSON") != std::string::npos);
  engine.provide_later("now_what", [](parry::question) {});
  engine.decide(to_ask(), ready);
  CHECK(run_out(engine) == 0);
  CHECK(why == "the host dropped the question");
}

void answers_may_come_later()
{
  parry::engine engine(usual());
  std::optional<parry::question> kept;
  double after = 0;
  engine.provide_later("now_what", [&](parry::question question) { kept.emplace(std::move(question)); });
  engine.decide(to_ask(), [&](const parry::decision &decision) { after = decision.after(); });
  while (!kept)
    engine.run(1);
  std::thread([&] { CHECK(kept->reply(R"({"after":5})")); }).join();
  CHECK(run_out(engine) == 0);
  CHECK(after == 5);
  CHECK(!kept->reply("1"));
}

void events_reach_policies()
{
  std::string lines;
  parry::options options = usual();
  options.log = [&](int, std::string_view line) { lines += line; };
  parry::engine engine(std::move(options));
  engine.emit("database_failover", R"({"to":"b"})");
  CHECK(code_of([&] { engine.emit("x", "{"); }) == PARRY_EINVAL);
  run_out(engine);
  engine.run(0);
  CHECK(lines.find("database_failover") != std::string::npos);
}

/* ---- threads of parry's ---- */

/* An empty function was called, and run() threw std::bad_function_call. */
void who_gives_no_function_does_not_wait()
{
  parry::engine engine(usual());
  engine.provide("now_what", [](std::string_view) { return std::string(R"({"after":3})"); });
  CHECK(engine.decide(to_ask(), std::function<void(const parry::decision &)>{}));
  CHECK(run_out(engine) == 0);
}

/* Whatever is thrown, also what is no std::exception, from every kind of callback. */
void anything_may_be_thrown()
{
  unsigned numbers = 0, others = 0;
  parry::options options = usual();
  options.log = [](int, std::string_view) { throw 1; };
  options.on_exception = [&](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (int) {
      numbers++;
      throw; /* its own is dropped */
    } catch (...) {
      others++;
    }
  };
  parry::engine engine(options);
  unsigned done = 0;
  parry::call_ops ops;
  ops.on_headers = [](int, const std::vector<parry::header_view> &) { throw 2; };
  ops.on_done = [&](const parry::outcome &) {
    done++;
    throw 3;
  };
  (void)engine.call(to_nobody(), ops);
  parry::request job;
  job.path = "/jobs", job.target = "own/job";
  parry::call_ops attempts;
  attempts.on_attempt = [](const parry::attempt &) { throw 4; };
  attempts.on_abandon = [](parry_call_id, unsigned) { throw 5; };
  attempts.on_done = [&](const parry::outcome &) { done++; };
  (void)engine.call(job, attempts);
  engine.provide("now_what", [](std::string_view) -> std::string { throw 6; });
  bool told = false;
  CHECK(!engine.decide(to_ask(), [&](const parry::decision &) {
    told = true;
    throw 7;
  }));
  CHECK(run_out(engine) == 0);
  CHECK(done == 2 && told && numbers >= 5 && others == 0);
  try {
    engine.metrics([](const parry::sample &) { throw 8; });
    CHECK(!"thrown");
  } catch (int number) {
    CHECK(number == 8);
  }
}

/* Engines, names of calls and questions end in any order, also inside each other's last callbacks. */
void ends_come_in_any_order()
{
  auto first = std::make_unique<parry::engine>(usual()), second = std::make_unique<parry::engine>(usual());
  std::vector<parry::question> kept;
  first->provide_later("now_what", [&](parry::question asked) {
    kept.push_back(std::move(asked));
    second.reset();
  });
  unsigned ended = 0;
  CHECK(!first->decide(to_ask(), [&](const parry::decision &) { ended++; }));
  parry::call_ops ops;
  ops.on_done = [&ended, at_end = std::make_shared<int>(1)](const parry::outcome &outcome) {
    ended += outcome.category == "cancelled" ? 1u : 0u;
  };
  parry::call name = second->call(to_nobody(), ops), same = name;
  const parry::call_ops copy = ops;
  while (kept.empty())
    (void)first->run(1);
  CHECK(!second && ended == 1 && !name.cancel() && !same.resume());
  auto third = std::make_shared<parry::engine>(usual());
  ops.on_done = [&ended, third](const parry::outcome &) { ended++; }; /* whose copy is the engine's last holder */
  parry::engine *last = third.get();
  (void)last->call(to_nobody(), std::move(ops));
  third.reset();
  while (ended == 1)
    (void)last->run(1);
  first.reset();
  CHECK(ended == 3);
  CHECK(!kept.front().reply("1"));
  kept.clear();
}

void with_threads_run_and_dispatch_deliver()
{
  parry::options options = usual();
  options.threads = 2;
  parry::engine engine(std::move(options));
  CHECK(engine.fd() >= 0);
  unsigned done = 0;
  const std::thread::id here = std::this_thread::get_id();
  for (int i = 0; i < 20; i++) {
    parry::call_ops ops;
    ops.on_done = [&](const parry::outcome &) {
      CHECK(std::this_thread::get_id() == here);
      done++;
    };
    engine.call(to_nobody(), std::move(ops));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; i++)
    threads.emplace_back([&] { CHECK(engine.decide(failed(503)).action() == PARRY_RETRY); });
  for (std::thread &thread : threads)
    thread.join();
  CHECK(run_out(engine) == 0);
  CHECK(done == 20);
}

struct test {
  const char *name;
  void (*run)();
};

#define TEST(name)                                                                                                     \
  {                                                                                                                    \
#name, name                                                                                                        \
  }

const test tests[] = {
    TEST(errors_have_codes_and_findings),
    TEST(decisions_are_values),
    TEST(texts_need_no_nul_and_may_have_none_inside),
    TEST(a_call_tells_headers_data_and_its_end),
    TEST(a_call_outlives_its_name_and_its_engine),
    TEST(a_cancelled_call_says_so),
    TEST(what_callbacks_throw_comes_out_of_run),
    TEST(a_handler_gets_every_exception),
    TEST(close_throws_what_the_last_callbacks_threw),
    TEST(callbacks_cannot_run_or_close),
    TEST(an_engine_may_be_destroyed_by_its_callback),
    TEST(engines_move),
    TEST(status_findings_and_metrics),
    TEST(the_host_makes_the_attempts),
    TEST(policies_ask_the_host),
    TEST(host_functions_fail_with_words),
    TEST(answers_may_come_later),
    TEST(events_reach_policies),
    TEST(who_gives_no_function_does_not_wait),
    TEST(anything_may_be_thrown),
    TEST(ends_come_in_any_order),
    TEST(with_threads_run_and_dispatch_deliver),
};
} // namespace

int main(int argc, char **argv)
{
  unsigned passed = 0, failed = 0;
  for (const test &each : tests) {
    if (argc > 1 && !std::strstr(each.name, argv[1]))
      continue;
    current = each.name;
    const int before = failures;
    try {
      each.run();
    } catch (const std::exception &error) {
      std::fprintf(stderr, "%s: threw: %s\n", current, error.what());
      failures++;
    }
    std::printf("%s %s\n", failures == before ? "ok" : "FAILED", each.name);
    ++(failures == before ? passed : failed);
  }
  std::printf("%u passed, %u failed\n", passed, failed);
  return failed || !passed;
}
