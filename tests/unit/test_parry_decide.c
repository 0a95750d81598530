/* parry_decide() and parry_report() as hosts meet them: over real policy files, what handlers see, how they wait, what is
 * refused. */
#include "decide_rig.h"

#include <sys/stat.h>

enum { EVENT_TEXT_MAX = 64 * 1024 };

/* ---- what handlers see ----------------------------------------------------------------------------------------- */

static void err_is_what_the_answer_says_and_then_what_the_host_says(void **state)
{
  struct host *host = started(state, "use 'again'");
  static const char body[] = "{\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}";
  struct parry_header headers[] = {{"Retry-After", "2"}};
  struct parry_event event = PARRY_EVENT_INIT;
  event.target = "p/m", event.status = 429, event.body = body, event.body_size = sizeof body - 1;
  event.headers = headers, event.header_count = 1;
  struct parry_decision decision = decided(host, &event);
  assert_string_equal(decision.why, "rate_limit rate_limit_exceeded 429 2.0 true provider slow down");
  assert_true(decision.after == 2); /* never sooner than the server asked */
  event.code = "E7", event.message = "mine", event.retry_after = 3, event.not_sent = 1, event.category = "overloaded";
  decision = decided(host, &event);
  assert_string_equal(decision.why, "overloaded E7 429 3.0 false provider mine");
  assert_string_equal(decision.category, "overloaded");
  assert_string_equal(decision.policy, "again");
  assert_true(decision.after == 3);
}

static void count_line(void *user, int level, const char *line, size_t line_size)
{
  struct host *host = user;
  (void)level, (void)line_size;
  if (strstr(line, "classified by hand"))
    host->lines++;
}

static const char *message_of(struct host *host, const char *target, int status, const struct parry_event *more)
{
  static struct parry_decision decision;
  struct parry_event event = more ? *more : (struct parry_event)PARRY_EVENT_INIT;
  event.target = target, event.status = status;
  decision = decided(host, &event);
  return decision.why;
}

/* What classify says of a status alone is kept (ask_dialect.c): for that provider, status and dialect; not where there was
 * more to read, and not where the script looked at the clock or wrote to the log. */
static void what_is_said_of_a_status_is_said_again(void **state)
{
  static const char dialect[] =
      "return dialect { name = 'mine', classify = function(a)\n"
      "  if a.status == 501 then return { message = a:header('x-why') or a:json() and 'body' or a.provider } end\n"
      "  if a.status == 502 then log.info('classified by hand') return nil end\n"
      "  if a.status == 503 then return { message = ('%.6f'):format(now()) } end\n"
      "  if a.status == 504 then error('no') end\n"
      "  return { category = a.status == 418 and 'conflict' or nil, message = a.provider }\n"
      "end }\n";
  static const char init[] = "provider 'p' { base_url = 'http://up.test/v1', dialect = 'mine' }\n"
                             "provider 'q' { base_url = 'http://up.test/v1', dialect = 'mine' }\n"
                             "route '/v1/*' { to = 'p', chain = { use 'says' } }\n";
  static const char says[] = "return policy { name = 'says', on_error = function(self, call, err)\n"
                             "  return retry { why = err.category .. ' ' .. err.message } end }\n";
  struct host *host = *state;
  struct parry_options options = PARRY_OPTIONS_INIT;
  char folder[80], first[256];
  snprintf(folder, sizeof folder, "%s/dialects", host->folder);
  assert_int_equal(mkdir(folder, 0700), 0);
  write_file(host, "dialects/mine.lua", dialect);
  write_file(host, "says.lua", says);
  write_file(host, "init.lua", init);
  options.policy_dir = host->folder, options.share_dir = PARRY_SOURCE_DIR "/policies";
  options.log = count_line, options.user = host;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  struct parry_header headers[] = {{"X-Why", "header"}};
  struct parry_event with_header = PARRY_EVENT_INIT, with_body = PARRY_EVENT_INIT;
  with_header.headers = headers, with_header.header_count = 1;
  with_body.body = "{}", with_body.body_size = 2;
  for (int i = 0; i < 3; i++) {
    assert_string_equal(message_of(host, "p/m", 501, NULL), "server p");
    assert_string_equal(message_of(host, "q/m", 501, NULL), "server q");
    assert_string_equal(message_of(host, "p/m", 501, &with_header), "server header");
    assert_string_equal(message_of(host, "q/m", 501, &with_body), "server body");
    assert_string_equal(message_of(host, "p/m", 418, NULL), "conflict p");
    assert_string_equal(message_of(host, "p/m", 402, NULL), "billing p"); /* the same place as 418 */
    assert_string_equal(message_of(host, "p/m", 502, NULL), "server ");
    assert_string_equal(message_of(host, "p/m", 504, NULL), "timeout ");
  }
  snprintf(first, sizeof first, "%s", message_of(host, "p/m", 503, NULL));
  bool later = false;
  for (int i = 0; i < 100000 && !later; i++)
    later = strcmp(message_of(host, "p/m", 503, NULL), first) != 0;
  assert_true(later);
  for (unsigned i = 0; i < 1000 && host->lines < 3; i++)
    assert_true(parry_run(host->engine, 0.01) >= 0);
  assert_int_equal(host->lines, 3);
}

static void a_target_need_not_be_a_provider(void **state)
{
  struct host *host =
      started(state, "use 'again', use 'alert' { rules = { { category = 'server', count = 1, window = 9 } } }");
  struct parry_event event = PARRY_EVENT_INIT;
  event.target = "db-primary", event.category = "server", event.code = "57P01";
  assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
  assert_string_equal(decided(host, &event).why, "server 57P01 0 nil true provider ");
  struct parry_status status = {.size = sizeof status};
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  assert_int_equal(status.policy_faults, 0);
}

static void events_with_a_name_are_asked_of_on_event(void **state)
{
  struct host *host = started(state, "use 'asks'");
  struct parry_event event = PARRY_EVENT_INIT;
  event.name = "full", event.fields = "{\"n\":7}";
  struct parry_decision decision = decided(host, &event);
  assert_int_equal(decision.action, PARRY_FAIL);
  assert_int_equal(decision.status, 599);
  assert_string_equal(decision.why, "full7");
}

static void the_time_that_is_left_bounds_waits(void **state)
{
  struct host *host = started(state, "use 'again'");
  struct parry_event event = event_503;
  event.deadline_left = 0.2;
  assert_int_equal(decided(host, &event).action, PARRY_FAIL);
  event.deadline_left = 5;
  assert_int_equal(decided(host, &event).action, PARRY_RETRY);
  event.not_repeatable = 1;
  assert_int_equal(decided(host, &event).action, PARRY_FAIL);
  event.not_sent = 1;
  assert_int_equal(decided(host, &event).action, PARRY_RETRY);
}

/* parry_decide() knew a refusal by 429 alone: a job whose database said "rate_limit" or "permission", which has no status, was
 * never tried again nor anywhere else when it must not be done twice, though nothing had been done; parry_attempt_done()
 * let it. */
static void what_was_refused_is_not_done_twice(void **state)
{
  static const struct {
    const char *category;
    double retry_after;
    int status, action;
  } cases[] = {{"rate_limit", 0, 0, PARRY_RETRY}, {"permission", 0, 0, PARRY_RETRY}, {"auth", 0, 401, PARRY_RETRY},
               {"overloaded", 1, 0, PARRY_RETRY}, {"overloaded", 0, 0, PARRY_FAIL},  {"server", 1, 0, PARRY_FAIL}};
  struct host *host = started(state, "use 'again'");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct parry_event event = PARRY_EVENT_INIT;
    event.target = "db", event.category = cases[i].category, event.status = cases[i].status;
    event.retry_after = cases[i].retry_after, event.not_repeatable = 1;
    assert_int_equal(decided(host, &event).action, cases[i].action);
  }
}

static void a_body_is_cut_to_what_is_lent(void **state)
{
  struct host *host = started(state, "use 'answers'");
  struct parry_decision decision = PARRY_DECISION_INIT;
  char lent[6] = "......";
  decision.body = lent, decision.body_capacity = 5;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, NULL, NULL), PARRY_OK);
  assert_int_equal(decision.action, PARRY_RESPOND);
  assert_int_equal(decision.status, 203);
  assert_int_equal(decision.body_size, 8);
  assert_ptr_equal(decision.body, lent);
  assert_memory_equal(lent, "abcde.", 6);
  decision = (struct parry_decision)PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, NULL, NULL), PARRY_OK);
  assert_int_equal(decision.body_size, 8);
}

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

static void what_is_wrong_is_refused(void **state)
{
  struct host *host = started(state, "use 'again'");
  static char long_fields[EVENT_TEXT_MAX + 16];
  struct parry_decision decision = PARRY_DECISION_INIT;
  struct parry_event cases[11];
  memset(long_fields, ' ', sizeof long_fields - 1);
  long_fields[0] = '{', long_fields[sizeof long_fields - 2] = '}';
  for (size_t i = 0; i < 11; i++)
    cases[i] = event_503;
  cases[0].size = 3;
  cases[1].header_count = 1;
  cases[2].body_size = 1;
  cases[3].route = "/no/such/route";
  cases[4].category = "bad_luck";
  cases[5].name = "n", cases[5].fields = "[1]";
  cases[6].name = "n", cases[6].fields = "{\"a\":";
  cases[7].name = "n", cases[7].fields = long_fields;
  cases[8].status = 12850; /* was the status that the decision said to answer with */
  cases[9].status = -4;
  cases[10].status = 99;
  for (size_t i = 0; i < 11; i++) {
    assert_int_equal(parry_decide(host->engine, &cases[i], &decision, NULL, NULL), PARRY_EINVAL);
    assert_int_equal(parry_report(host->engine, &cases[i]), PARRY_EINVAL);
  }
  assert_int_equal(parry_decide(host->engine, NULL, &decision, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_decide(host->engine, &event_503, NULL, NULL, NULL), PARRY_EINVAL);
  decision.size = 1;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_report(host->engine, NULL), PARRY_EINVAL);
  assert_int_equal(parry_decide(NULL, &event_503, &decision, NULL, NULL), PARRY_EFREED);
  assert_int_equal(parry_report(NULL, &event_503), PARRY_EFREED);
}

static void without_policies_there_is_nobody_to_ask(void **state)
{
  struct host *host = *state;
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  options.policy_dir = host->folder;
  write_file(host, "init.lua", "nonsense(");
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EPOLICY);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, NULL, NULL), PARRY_EPOLICY);
  assert_int_equal(parry_report(host->engine, &event_503), PARRY_EPOLICY);
}

/* ---- handlers that wait ------------------------------------------------------------------------------------------- */

static void one_that_waits_is_delivered_once(void **state)
{
  struct host *host = started(state, "use 'asks'");
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  assert_int_equal(host->readies, 0);
  run_until_ready(host, 1);
  assert_int_equal(host->told.action, PARRY_RETRY);
  assert_string_equal(host->told.why, "fine");
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(host->readies, 1);
}

static void its_body_is_whole(void **state)
{
  struct host *host = started(state, "use 'both'");
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  run_until_ready(host, 1);
  assert_int_equal(host->told.body_size, 8);
  assert_memory_equal(host->body, "abcdefgh", 8);
}

static void who_cannot_wait_hears_the_next_policy(void **state)
{
  struct host *host = started(state, "use 'asks', use 'answers'");
  for (int i = 0; i < 10; i++)
    assert_string_equal(decided(host, &event_503).policy, "answers");
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(parry_run(host->engine, 0.01), 0);
  assert_int_equal(atomic_load(&host->server.served), 0); /* nothing was begun */
}

static void what_a_faulty_handler_would_wait_for_is_not_begun(void **state)
{
  struct host *host = started(state, "use 'cheats', use 'answers'");
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_OK);
  assert_string_equal(decision.policy, "answers");
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(parry_run(host->engine, 0.01), 0);
  assert_int_equal(atomic_load(&host->server.served), 0);
}

static void what_is_open_is_bounded(void **state)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct host *host = *state;
  options.max_calls = 2;
  start_with(host, "use 'asks'", options);
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_BUSY);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, NULL, NULL), PARRY_OK); /* needs no room */
  run_until_ready(host, 2);
  assert_int_equal(atomic_load(&host->server.served), 2);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
}

static void decide_again(void *user, const struct parry_decision *told)
{
  struct host *host = user;
  struct parry_decision decision = PARRY_DECISION_INIT;
  ready(user, told);
  host->nested = parry_decide(host->engine, &event_503, &decision, ready, host);
}

static void a_delivery_may_ask_the_next_question(void **state)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct host *host = *state;
  options.max_calls = 1;
  start_with(host, "use 'asks'", options);
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, decide_again, host), PARRY_PENDING);
  run_until_ready(host, 1);
  assert_int_equal(host->nested, PARRY_PENDING);
  run_until_ready(host, 2);
}

static void free_cancels_what_waits(void **state)
{
  struct host *host = *state;
  atomic_store(&host->server.silent, true);
  started(state, "use 'asks'");
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  run_until_served(host, 1);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, decide_again, host),
                   PARRY_PENDING); /* not begun */
  assert_int_equal(parry_report(host->engine, &event_503), PARRY_OK);
  parry_free(host->engine);
  host->engine = NULL;
  assert_int_equal(host->readies, 2);
  assert_int_equal(host->told.action, PARRY_FAIL);
  assert_string_equal(host->told.category, "cancelled");
  assert_int_equal(host->nested, PARRY_EREENTRANT);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void an_observer_that_waits_goes_on_in_the_background(void **state)
{
  struct host *host = started(state, "use 'asks'");
  assert_int_equal(parry_report(host->engine, &event_503), PARRY_OK);
  assert_int_equal(parry_report(host->engine, &event_503), PARRY_OK);
  for (unsigned i = 0; i < 1000 && parry_run(host->engine, 0.01) > 0; i++)
    ;
  struct parry_event count = PARRY_EVENT_INIT;
  count.name = "count";
  assert_string_equal(decided(host, &count).why, "2");
}

#define BREAKER "use 'circuit_breaker' { failures = 5, cooldown = 10 }"

static void report(struct host *host, int times, int status)
{
  struct parry_event event = event_503;
  event.status = status;
  event.ok = status < 400;
  event.seconds = 0.1;
  for (int i = 0; i < times; i++)
    assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
}

static void failures_that_are_reported_open_a_breaker(void **state)
{
  struct host *host = started(state, BREAKER ", use 'again'");
  report(host, 4, 503);
  assert_string_equal(decided(host, &event_503).policy, "again");
  report(host, 1, 503);
  struct parry_decision decision = decided(host, &event_503);
  assert_int_equal(decision.action, PARRY_RETRY); /* not before it half-opens */
  assert_string_equal(decision.policy, "circuit_breaker");
  assert_true(decision.after > 9 && decision.after <= 10);
  assert_non_null(strstr(decision.why, "circuit of p/m is open"));
  struct parry_event event = event_503;
  event.deadline_left = 5;
  decision = decided(host, &event);
  assert_int_equal(decision.action, PARRY_FAIL);
  assert_string_equal(decision.policy, "circuit_breaker");
  event = event_503;
  event.target = "p/other";
  assert_string_equal(decided(host, &event).policy, "again");
}

static void successes_that_are_reported_keep_it_closed(void **state)
{
  struct host *host = started(state, BREAKER ", use 'again'");
  report(host, 4, 503);
  report(host, 1, 200);
  report(host, 4, 503);
  assert_string_equal(decided(host, &event_503).policy, "again");
}

static void an_open_breaker_is_gone_round(void **state)
{
  struct host *host = started(
      state, BREAKER ", use 'again', use 'fallback_model' { models = { ['m'] = { 'p/n' }, ['n'] = { 'p/m' } } }");
  report(host, 5, 503);
  struct parry_decision decision = decided(host, &event_503);
  assert_int_equal(decision.action, PARRY_FALLBACK);
  assert_string_equal(decision.target, "p/n");
  struct parry_event event = event_503;
  event.target = "p/n";
  for (int i = 0; i < 5; i++)
    assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
  decision = decided(host, &event); /* its fallback is open, too */
  assert_int_equal(decision.action, PARRY_RETRY);
  assert_string_equal(decision.policy, "circuit_breaker");
}

static unsigned retries(struct host *host, unsigned asked)
{
  unsigned count = 0;
  for (unsigned i = 0; i < asked; i++)
    count += decided(host, &event_503).action == PARRY_RETRY;
  return count;
}

static void retries_of_what_is_reported_have_a_budget(void **state)
{
  struct host *host = started(state, "use 'again'");
  assert_int_equal(retries(host, 20), 20); /* nothing is known of it */
  report(host, 1, 200);
  assert_int_equal(retries(host, 20), 3);
  report(host, 29, 200);
  assert_int_equal(retries(host, 20), 3); /* a fifth of 30, three of them taken */
}

static void attempts_are_counted(void **state)
{
  struct host *host = started(state, "use 'again'");
  int error;
  struct pry_buffer text;
  report(host, 2, 503);
  report(host, 1, 200);
  decided(host, &event_503);
  pry_buffer_init(&text, 0);
  assert_true(pry_engine_metrics(pry_host_of(host->engine, &error)->engine, &text));
  assert_non_null(strstr(pry_buffer_text(&text), "parry_attempts_total{target=\"p/m\",category=\"overloaded\"} 2"));
  assert_non_null(strstr(pry_buffer_text(&text), "parry_attempts_total{target=\"p/m\",category=\"ok\"} 1"));
  assert_non_null(strstr(pry_buffer_text(&text), "parry_verdicts_total{policy=\"again\",verdict=\"retry\"} 1"));
  pry_buffer_fini(&text);
}

/* ---- host functions ---------------------------------------------------------------------------------------------- */

static const char calls_host[] = "return policy { name = 'calls',\n"
                                 "  on_error = function(self, call, err)\n"
                                 "    local answer, e = host.call('ask', { n = 1 })\n"
                                 "    return retry { after = 1, why = answer or e.category }\n"
                                 "  end }\n";

static void reply_now(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct host *host = user;
  assert_int_equal(size, strlen("{\"n\":1}"));
  assert_memory_equal(arguments, "{\"n\":1}", size);
  assert_int_equal(parry_reply(host->engine, request, "\"yes\"", NULL), PARRY_OK);
}

static void a_handler_may_ask_the_host(void **state)
{
  struct parry_decision decision = PARRY_DECISION_INIT;
  write_file(*state, "calls.lua", calls_host);
  struct host *host = started(state, "use 'calls'");
  assert_int_equal(parry_register(host->engine, "ask", reply_now, host, 0), PARRY_OK);
  assert_int_equal(parry_decide(host->engine, &event_503, &decision, ready, host), PARRY_PENDING);
  run_until_ready(host, 1);
  assert_string_equal(host->told.why, "yes");
  assert_int_equal(parry_register(host->engine, "ask", reply_now, host, PARRY_ANY_THREAD), PARRY_OK);
  assert_string_equal(decided(host, &event_503).why, "yes"); /* at once */
  assert_int_equal(parry_run(host->engine, 0), 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      WITH_HOST(err_is_what_the_answer_says_and_then_what_the_host_says),
      WITH_HOST(what_is_said_of_a_status_is_said_again),
      WITH_HOST(a_target_need_not_be_a_provider),
      WITH_HOST(events_with_a_name_are_asked_of_on_event),
      WITH_HOST(the_time_that_is_left_bounds_waits),
      WITH_HOST(what_was_refused_is_not_done_twice),
      WITH_HOST(a_body_is_cut_to_what_is_lent),
      WITH_HOST(what_is_wrong_is_refused),
      WITH_HOST(without_policies_there_is_nobody_to_ask),
      WITH_HOST(one_that_waits_is_delivered_once),
      WITH_HOST(its_body_is_whole),
      WITH_HOST(who_cannot_wait_hears_the_next_policy),
      WITH_HOST(what_a_faulty_handler_would_wait_for_is_not_begun),
      WITH_HOST(what_is_open_is_bounded),
      WITH_HOST(a_delivery_may_ask_the_next_question),
      WITH_HOST(free_cancels_what_waits),
      WITH_HOST(an_observer_that_waits_goes_on_in_the_background),
      WITH_HOST(failures_that_are_reported_open_a_breaker),
      WITH_HOST(successes_that_are_reported_keep_it_closed),
      WITH_HOST(an_open_breaker_is_gone_round),
      WITH_HOST(retries_of_what_is_reported_have_a_budget),
      WITH_HOST(attempts_are_counted),
      WITH_HOST(a_handler_may_ask_the_host),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
