/* An engine whose workers have threads of their own, with each allocation and system call failing: it starts whole or not
 * at all, a generation is taken over by all of its workers or by none, and whoever asks them hears. */
#include "engine.h"
#include "fail.h"
#include "job.h"
#include "loader.h"
#include "round.h"
#include "wire.h"

enum { WORKERS = 2, FIRST_WORKER = 1 };

/* What a set declares beside its policy differs from one to the next, so that each commit brings and takes away. */
#define INIT                                                                                                           \
  "provider 'p' { base_url = 'http://127.0.0.1:1', dialect = 'd', auth = bearer(credential 'c%d') }\n"                 \
  "credential 'c%d' { refresh_token = secret 'OOM_KEY', access_token = secret 'OOM_KEY',\n"                            \
  "  token_url = 'http://127.0.0.1:1/t', refresh = function(cred) return nil, 'no' end }\n"                            \
  "route '/v1/*' { to = 'p', chain = { use 'p' { n = %d } } }\n"
#define POLICY                                                                                                         \
  "return policy { name = 'p', params = { n = param { 1, min = 0, max = 99 } },\n"                                     \
  "  every = { { seconds = 60, run = function(self) log.info('job') end } },\n"                                        \
  "  on_error = function(self, call, err) return retry { after = self.n } end }\n"
#define DIALECT "return dialect { name = 'd', stream = { default = 'content' } }\n"

struct stand {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_engine *engine;
  unsigned rollbacks;
};

static void rolled_back(void *user, const struct pry_rollback *rollback)
{
  (void)rollback;
  ((struct stand *)user)->rollbacks++;
}

static struct pry_engine *new_engine(struct stand *stand)
{
  struct pry_engine_options options = {.loop = stand->loop,
                                       .http = stand->http,
                                       .workers = WORKERS,
                                       .loader = &pry_lua_loader,
                                       .limits = {.wall = -1},
                                       .rolled_back = rolled_back,
                                       .user = stand};
  return stand->loop && stand->http ? pry_engine_new(&options) : NULL;
}

static void open_stand(struct stand *stand)
{
  static char key[] = "OOM_KEY=the-secret-key";
  *stand = (struct stand){.loop = pry_loop_new()};
  stand->http = stand->loop ? pry_http_new(stand->loop, NULL) : NULL;
  FAIL_CHECK(putenv(key) == 0);
}

static void close_stand(struct stand *stand)
{
  pry_engine_free(stand->engine);
  pry_http_free(stand->http);
  pry_loop_free(stand->loop);
}

static struct pry_policy_set *make_set(int n)
{
  char init[512];
  snprintf(init, sizeof init, INIT, n, n, n);
  struct pry_policy_set *set = pry_policy_set_new();
  bool ok = set && pry_policy_set_add(set, "init.lua", pry_slice_of(init)) &&
            pry_policy_set_add(set, "p.lua", PRY_SLICE(POLICY)) &&
            pry_policy_set_add(set, "dialects/d.lua", PRY_SLICE(DIALECT)) && pry_policy_set_seal(set);
  if (ok)
    return set;
  pry_policy_set_free(set);
  return NULL;
}

/* False: refused, and the report says so as far as there was memory for words. */
static bool load(struct stand *stand, int n)
{
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = make_set(n);
  bool ok = set && pry_engine_load(stand->engine, set, false, &report);
  FAIL_CHECK(ok || fail_struck());
  pry_report_fini(&report);
  return ok;
}

static void load_well(struct stand *stand, int n)
{
  struct pry_report report;
  pry_report_init(&report);
  bool ok = pry_engine_load(stand->engine, make_set(n), false, &report);
  if (!ok && report.count)
    fprintf(stderr, "%s: %s\n", report.findings[0].where, report.findings[0].what);
  FAIL_CHECK(ok);
  pry_report_fini(&report);
}

/* Until all have adopted what serves; a thread that fails is waited for like any other. */
static void await_adoption(struct stand *stand)
{
  pry_time started = pry_loop_now(stand->loop);
  while (!pry_engine_adopted(stand->engine)) {
    FAIL_CHECK(pry_loop_now(stand->loop) - started < WIRE_PATIENCE);
    pry_loop_turn(stand->loop, PRY_MILLISECOND);
  }
}

static void count_job(void *user, const struct pry_job_status *status)
{
  (void)status;
  ++*(unsigned *)user;
}

struct credentials_seen {
  unsigned count;
  char name[16];
};

static void see_credential(void *user, const struct pry_credential_status *status)
{
  struct credentials_seen *seen = user;
  seen->count++;
  snprintf(seen->name, sizeof seen->name, "%s", status->name);
}

/* Set n and nothing else: on every worker, its credential, its job. Nothing fails while it looks. */
static void serves(struct stand *stand, int n)
{
  struct pry_engine *engine = stand->engine;
  struct credentials_seen seen = {0};
  unsigned jobs = 0;
  char credential[16];
  fail_quiet();
  await_adoption(stand);
  struct pry_policy_set *set = make_set(n);
  const struct pry_generation *serving = pry_engine_generation(engine);
  FAIL_CHECK(serving && strcmp(serving->id, set->id) == 0);
  pry_policy_set_free(set);
  for (unsigned i = 0; i < engine->worker_count; i++)
    FAIL_CHECK(engine->workers[i]->state && engine->workers[i]->state->generation == serving);
  snprintf(credential, sizeof credential, "c%d", n);
  pry_credentials_each(engine->credentials, stand->loop, see_credential, &seen);
  FAIL_CHECK(seen.count == 1 && strcmp(seen.name, credential) == 0);
  pry_jobs_each(engine->jobs, count_job, &jobs);
  FAIL_CHECK(jobs == 1);
  fail_loud();
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static void use_life(void)
{
  struct stand stand = {0};
  fail_quiet();
  open_stand(&stand);
  fail_loud();
  stand.engine = new_engine(&stand);
  FAIL_CHECK(stand.engine || fail_struck());
  bool started = stand.engine && pry_engine_start(stand.engine);
  FAIL_CHECK(started || fail_struck());
  if (started) {
    pry_loop_turn(stand.loop, 0);
    pry_engine_stop(stand.engine);
    FAIL_CHECK(pry_engine_start(stand.engine) || fail_struck()); /* and again, as far as there are threads */
  }
  pry_engine_free(stand.engine);
  fail_over();
  stand.engine = new_engine(&stand);
  FAIL_CHECK(stand.engine && pry_engine_start(stand.engine));
  load_well(&stand, 1);
  serves(&stand, 1);
  close_stand(&stand);
}

/* ---- generations ------------------------------------------------------------------------------------------------------ */

static void open_with(struct stand *stand, int sets)
{
  fail_hold();
  open_stand(stand);
  stand->engine = new_engine(stand);
  FAIL_CHECK(stand->engine && pry_engine_start(stand->engine));
  for (int n = 1; n <= sets; n++) {
    load_well(stand, n);
    serves(stand, n);
  }
  fail_go();
}

static void use_commit(void)
{
  struct stand stand;
  open_with(&stand, 1);
  bool taken = load(&stand, 2);
  serves(&stand, taken ? 2 : 1);
  fail_over();
  load_well(&stand, 3);
  serves(&stand, 3);
  close_stand(&stand);
}

/* The instant of it by itself, every call of it. A set that was refused at its last allocation had taken the place of the
 * old one's credentials already: what served had none, or had lost its renewed token and those who waited for it. */
static void use_taking_over(void)
{
  struct stand stand;
  struct pry_report report;
  open_with(&stand, 1);
  fail_hold();
  pry_report_init(&report);
  struct pry_engine *engine = stand.engine;
  struct pry_generation *generation =
      pry_generation_stage(&pry_lua_loader, make_set(2), &engine->options.limits, false, NULL, &report);
  struct pry_rollout *rollout = generation ? pry_rollout_new(engine, generation, &report) : NULL;
  FAIL_CHECK(rollout);
  fail_go();
  bool taken = pry_engine_commit(engine, rollout, &report);
  FAIL_CHECK(taken || (fail_struck() && (report.count || fail_for_good())));
  serves(&stand, taken ? 2 : 1);
  fail_over();
  load_well(&stand, 3);
  serves(&stand, 3);
  pry_report_fini(&report);
  close_stand(&stand);
}

static void use_rollback(void)
{
  struct stand stand;
  struct pry_report report;
  open_with(&stand, 2);
  pry_report_init(&report);
  bool back = pry_engine_rollback(stand.engine, NULL, &report);
  FAIL_CHECK(back || fail_struck());
  FAIL_CHECK(stand.rollbacks == back);
  serves(&stand, back ? 1 : 2);
  fail_over();
  if (!back)
    FAIL_CHECK(pry_engine_rollback(stand.engine, NULL, &report));
  serves(&stand, 1);
  load_well(&stand, 3);
  serves(&stand, 3);
  pry_report_fini(&report);
  close_stand(&stand);
}

static void use_automatic_rollback(void)
{
  struct stand stand;
  struct pry_report report;
  open_with(&stand, 2);
  pry_report_init(&report);
  bool back = pry_engine_roll_back_bad(stand.engine, (struct pry_guard_sample){100, 50}, &report);
  FAIL_CHECK(back || fail_struck());
  serves(&stand, back ? 1 : 2);
  fail_over();
  load_well(&stand, 3);
  serves(&stand, 3);
  pry_report_fini(&report);
  close_stand(&stand);
}

/* ---- rounds ----------------------------------------------------------------------------------------------------------- */

struct round_heard {
  unsigned times, there;
};

static bool visit(struct pry_worker *worker, const void *question, struct pry_buffer *text)
{
  return pry_buffer_append_format(text, "%u:%s", worker->index, (const char *)question);
}

static void heard(void *user, const struct pry_round_answer *answers, size_t count)
{
  struct round_heard *told = user;
  FAIL_CHECK(count == WORKERS + 1);
  told->times++;
  for (size_t i = 0; i < count; i++) {
    told->there += answers[i].there;
    FAIL_CHECK(!answers[i].there || pry_slice_equal(answers[i].text, pry_slice_of(i ? i == 1 ? "1:q" : "2:q" : "0:q")));
  }
}

static struct pry_round *ask(struct stand *stand, struct round_heard *told)
{
  static const struct pry_round_ops ops = {visit, heard};
  *told = (struct round_heard){0};
  return pry_round_start(stand->engine, &ops, "q", 2, 100, WIRE_PATIENCE / 4, told);
}

static void await_round(struct stand *stand, const struct round_heard *told)
{
  pry_time started = pry_loop_now(stand->loop);
  while (!told->times) {
    FAIL_CHECK(pry_loop_now(stand->loop) - started < WIRE_PATIENCE);
    pry_loop_turn(stand->loop, PRY_MILLISECOND);
  }
  FAIL_CHECK(told->times == 1);
}

static void use_round(void)
{
  struct stand stand;
  struct round_heard told, cancelled;
  open_with(&stand, 0);
  struct pry_round *round = ask(&stand, &told);
  FAIL_CHECK(round || fail_struck());
  struct pry_round *other = ask(&stand, &cancelled);
  if (other)
    pry_round_cancel(other);
  if (round)
    await_round(&stand, &told);
  FAIL_CHECK(!round || told.there == WORKERS + 1 || fail_struck());
  fail_over();
  FAIL_CHECK(ask(&stand, &told));
  await_round(&stand, &told);
  FAIL_CHECK(told.there == WORKERS + 1 && cancelled.times == 0);
  close_stand(&stand);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"engine with workers", use_life, FAIL_BOTH, 60},
      {"commit over workers", use_commit, FAIL_BOTH, 50},
      {"taking over", use_taking_over, FAIL_BOTH, 0},
      {"adopting", use_commit, FAIL_BOTH | FAIL_IN_THREAD(FIRST_WORKER), 60},
      {"rollback over workers", use_rollback, FAIL_BOTH, 40},
      {"automatic rollback", use_automatic_rollback, FAIL_BOTH, 20},
      {"rounds", use_round, FAIL_BOTH, 60},
      {"rounds, a worker", use_round, FAIL_BOTH | FAIL_IN_THREAD(FIRST_WORKER), 60},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
