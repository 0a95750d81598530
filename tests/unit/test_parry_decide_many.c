/* parry_decide() on many threads while policies change, and a decider that is busy. */
#include "decide_rig.h"
#include "decider.h"

enum { THREADS = 6, DECISIONS = 300, RELOADS = 20 };

/* ---- many at once ----------------------------------------------------------------------------------------------- */

struct crowd {
  struct host *host;
  atomic_uint wrong, readies, pending, done;
};

static void count_ready(void *user, const struct parry_decision *decision)
{
  struct crowd *crowd = user;
  atomic_fetch_add(&crowd->readies, 1);
  if (decision->action != PARRY_RETRY || strcmp(decision->why, "fine") != 0)
    atomic_fetch_add(&crowd->wrong, 1);
}

static void *ask_often(void *user)
{
  struct crowd *crowd = user;
  struct parry_event waits = event_503, report_of = event_503;
  struct parry_event asks_says = event_503;
  waits.route = "/wait/*";
  asks_says.route = report_of.route = "/v1/*";
  for (unsigned i = 0; i < DECISIONS; i++) {
    struct parry_decision decision = PARRY_DECISION_INIT;
    int error = parry_decide(crowd->host->engine, &asks_says, &decision, NULL, NULL);
    bool known = strcmp(decision.why, "one") == 0 || strcmp(decision.why, "two") == 0;
    bool well = error == PARRY_OK && decision.action == PARRY_RETRY && known;
    report_of.target = i % 2 ? "q/m" : "q/n";
    well = parry_report(crowd->host->engine, &report_of) == PARRY_OK && well;
    if (i % 16 == 0) {
      error = parry_decide(crowd->host->engine, &waits, &decision, count_ready, crowd);
      well = error == PARRY_PENDING && well;
      atomic_fetch_add(&crowd->pending, 1);
    }
    if (!well)
      atomic_fetch_add(&crowd->wrong, 1);
  }
  atomic_fetch_add(&crowd->done, 1);
  return NULL;
}

static void write_crowd(const struct host *host, const char *why)
{
  char text[1024];
  snprintf(text, sizeof text,
           "provider 'p' { base_url = 'http://127.0.0.1:%u/v1', dialect = 'openai' }\n"
           "service 's' { base_url = 'http://127.0.0.1:%u' }\n"
           "route '/v1/*' { to = 'p', chain = { use 'says' } }\n"
           "route '/wait/*' { to = 'p', chain = { use 'asks' } }\n",
           host->server.port, host->server.port);
  write_file(host, "init.lua", text);
  snprintf(text, sizeof text,
           "return policy { name = 'says',\n"
           "  on_error = function(self, call, err) return retry { after = 1, why = '%s' } end,\n"
           "  on_outcome = function(self, call, attempt) store.count(call.target.name, 1) end }\n",
           why);
  write_file(host, "says.lua", text);
}

/* One thread drives, several ask, and the policies change under them. */
static void decide_while_policies_change(struct host *host, unsigned own_threads)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct crowd crowd = {.host = host};
  pthread_t threads[THREADS];
  write_crowd(host, "one");
  options.policy_dir = host->folder;
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  options.deciders = 3;
  options.threads = own_threads;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  for (unsigned i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &crowd), 0);
  for (unsigned i = 0; i < RELOADS || atomic_load(&crowd.done) < THREADS; i++) {
    if (i < RELOADS) {
      write_crowd(host, i % 2 ? "one" : "two");
      assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
    }
    assert_true(parry_run(host->engine, 0.002) >= 0);
  }
  for (unsigned i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  for (unsigned i = 0; i < 1000 && atomic_load(&crowd.readies) < atomic_load(&crowd.pending); i++)
    assert_true(parry_run(host->engine, 10) >= 0);
  assert_int_equal(atomic_load(&crowd.wrong), 0);
  assert_int_equal(atomic_load(&crowd.readies), atomic_load(&crowd.pending));
  int error;
  struct pry_engine *engine = pry_host_of(host->engine, &error)->engine;
  for (unsigned i = 0; i < 1000 && !pry_engine_adopted(engine); i++) /* the deciders, too */
    parry_run(host->engine, 0.01);
  assert_true(pry_engine_adopted(engine));
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void threads_decide_while_policies_change(void **state)
{
  decide_while_policies_change(*state, 0);
}

static void threads_decide_beside_threads_of_the_engine(void **state)
{
  decide_while_policies_change(*state, 3);
}

static const char slow[] = "return policy { name = 'slow',\n"
                           "  on_error = function(self, call, err)\n"
                           "    for i = 1, 200 do string.rep('x', 1000):find('y') end\n"
                           "    return retry { after = 1, why = 'slow' }\n"
                           "  end }\n";

/* Nobody waits for who is inside: the control worker's loop goes on, and a commit is done when it is done. */
static void a_decider_that_is_busy_keeps_nobody(void **state)
{
  struct host *host = *state;
  write_file(host, "slow.lua", slow);
  started(state, "use 'slow'");
  int error;
  struct pry_engine *engine = pry_host_of(host->engine, &error)->engine;
  struct pry_worker *decider = engine->workers[engine->worker_count];
  pry_decider_enter(decider); /* somebody asks */
  write_init(host, "use 'again'");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  assert_true(parry_run(host->engine, 0) >= 0);
  assert_false(pry_engine_adopted(engine));
  assert_true(pry_engine_is_behind(engine, decider));
  pry_decider_leave(decider);
  assert_false(pry_engine_is_behind(engine, decider)); /* who leaves adopts */
  assert_true(parry_run(host->engine, 0) >= 0);
  assert_true(pry_engine_adopted(engine));
  assert_string_equal(decided(host, &event_503).policy, "again");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      WITH_HOST(threads_decide_while_policies_change),
      WITH_HOST(threads_decide_beside_threads_of_the_engine),
      WITH_HOST(a_decider_that_is_busy_keeps_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
