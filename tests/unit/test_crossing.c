/* Where workers meet: alerts, and the small things they all use, on four real loops at once. */
#include "alert.h"
#include "budget.h"
#include "event.h"
#include "http_script.h"
#include "json.h"
#include "registry.h"

#include "worker_rig.h"

/* ---- alerts: worker 0 delivers ------------------------------------------------------------------------------ */

enum { ALERT_KEYS = 40, TELLINGS = 250 };

struct newsroom {
  struct rig_worker workers[RIG_WORKERS];
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_alerts *alerts;
};

static void no_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user, (void)level, (void)line, (void)size;
}

static const struct pry_secret hook = {.name = "HOOK", .value = "http://hooks.test/"};
static const struct pry_sink_config ops = {.name = "ops", .kind = "webhook", .url = &hook};

static void make_http(struct rig_worker *worker, void *user)
{
  struct newsroom *room = user;
  room->script = pry_http_script_new(worker->loop);
  room->http = pry_http_script_client(room->script);
  RIG_CHECK(pry_http_script_set_default(room->script, &(struct pry_http_step){.status = 204}));
  room->alerts = pry_alerts_new(worker->mailbox, room->http, room->log, room->metrics, room->scrubber);
}

static struct newsroom *new_newsroom(void)
{
  struct newsroom *room = calloc(1, sizeof *room);
  rig_make(room->workers, RIG_WORKERS);
  room->log = pry_log_new(no_line, NULL, PRY_LOG_DEBUG, NULL, NULL);
  room->metrics = pry_metrics_new();
  room->scrubber = pry_scrubber_new();
  rig_go(room->workers, RIG_WORKERS);
  rig_do(&room->workers[0], make_http, room);
  assert_non_null(room->alerts);
  return room;
}

static void end_newsroom(struct newsroom *room)
{
  pry_alerts_free(room->alerts);
  pry_http_free(room->http);
  pry_log_free(room->log);
  pry_metrics_free(room->metrics);
  pry_scrubber_free(room->scrubber);
  rig_free(room->workers, RIG_WORKERS);
  free(room);
}

static void notify(struct newsroom *room, struct rig_worker *worker, unsigned i, bool resolve)
{
  char key[16];
  snprintf(key, sizeof key, "key-%u", i);
  const struct pry_alert alert = {.key = pry_slice_of(key), .text = PRY_SLICE("it is bad"), .resolve = resolve};
  pry_alerts_notify(room->alerts, worker->loop, &ops, &alert);
}

static void raise_often(struct rig_worker *worker, void *user)
{
  for (unsigned n = 0; n < TELLINGS; n++)
    for (unsigned i = 0; i < ALERT_KEYS; i++)
      notify(user, worker, i, false);
}

static void resolve_each(struct rig_worker *worker, void *user)
{
  for (unsigned i = 0; i < ALERT_KEYS; i++)
    notify(user, worker, i, true);
}

/* Half of the workers raise, half resolve; fewer in all than a sink's queue holds. */
static void quarrel(struct rig_worker *worker, void *user)
{
  for (unsigned n = 0; n < PRY_ALERT_QUEUE_MAX / RIG_WORKERS; n++)
    notify(user, worker, rig_random(worker, 4), worker->index % 2);
}

static void await_delivery(struct newsroom *room)
{
  while (pry_alerts_queued(room->alerts))
    sched_yield();
}

static void all_at_once(struct newsroom *room, void (*run)(struct rig_worker *, void *))
{
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&room->workers[i], run, room);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_wait(&room->workers[i]);
  await_delivery(room);
}

/* The member's text in what was sent as the i-th. */
static void sent_member(struct newsroom *room, size_t i, const char *name, char *text, size_t size)
{
  struct pry_json_value value;
  assert_true(pry_json_get(pry_http_script_seen(room->script, i)->body, name, &value));
  snprintf(text, size, "%.*s", (int)value.raw.size, value.raw.data);
}

static void test_alerts_are_counted_exactly(void **state)
{
  (void)state;
  struct newsroom *room = new_newsroom();
  all_at_once(room, raise_often);
  assert_int_equal(pry_alerts_open(room->alerts), ALERT_KEYS);
  rig_do(&room->workers[RIG_WORKERS - 1], resolve_each, room);
  await_delivery(room);
  rig_end(room->workers, RIG_WORKERS);
  assert_int_equal(pry_alerts_open(room->alerts), 0);
  size_t sent = pry_http_script_seen_count(room->script);
  assert_int_equal(sent, 2 * ALERT_KEYS); /* each told once, resolved once */
  for (size_t i = 0; i < sent; i++) {
    char state_text[32], count[32], expected[32];
    sent_member(room, i, "state", state_text, sizeof state_text);
    sent_member(room, i, "count", count, sizeof count);
    bool firing = i < ALERT_KEYS;
    snprintf(expected, sizeof expected, "%d", firing ? 1 : RIG_WORKERS * TELLINGS);
    assert_string_equal(state_text, firing ? "\"firing\"" : "\"resolved\"");
    assert_string_equal(count, expected);
  }
  assert_true(pry_metrics_value(room->metrics, PRY_M_ALERTS, "ops", "delivered") == 2 * ALERT_KEYS);
  end_newsroom(room);
}

/* Whoever raises and whoever resolves: what the sink hears of a key is raised, resolved, raised, ... */
static void test_alerts_keep_the_order_of_a_key(void **state)
{
  (void)state;
  struct newsroom *room = new_newsroom();
  for (int round = 0; round < 20; round++)
    all_at_once(room, quarrel);
  rig_end(room->workers, RIG_WORKERS);
  bool open[4] = {false};
  size_t sent = pry_http_script_seen_count(room->script);
  for (size_t i = 0; i < sent; i++) {
    char key[32], state_text[32];
    sent_member(room, i, "key", key, sizeof key);
    sent_member(room, i, "state", state_text, sizeof state_text);
    unsigned which = (unsigned)(key[strlen("\"key-")] - '0');
    assert_int_equal(strcmp(state_text, "\"firing\"") == 0, !open[which]);
    open[which] = !open[which];
  }
  assert_true(sent > 100);
  assert_true(pry_metrics_value(room->metrics, PRY_M_ALERTS, "ops", "delivered") == (double)sent);
  end_newsroom(room);
}

/* ---- small things that all workers use ---------------------------------------------------------------------- */

enum { STEPS = 5000, SERIES = PRY_METRICS_SERIES_MAX + 100 };

struct commons {
  struct rig_worker workers[RIG_WORKERS];
  struct pry_metrics *metrics;
  struct pry_log *log;
  struct pry_scrubber *scrubber;
  struct pry_budgets *budgets;
  struct pry_generation *generation;
  struct pry_event_count events;
  uint64_t sequences[RIG_WORKERS][STEPS];
  atomic_uint lines, secrets;
};

static void read_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct commons *commons = user;
  (void)level;
  RIG_CHECK(strlen(line) == size);
  atomic_fetch_add(&commons->lines, 1);
  if (strstr(line, "always-secret"))
    atomic_fetch_add(&commons->secrets, 1);
}

static void use_budget(struct commons *commons)
{
  struct pry_permit *call = pry_budget_call(commons->budgets, PRY_SLICE("p/m"), false);
  struct pry_permit *retry = pry_budget_retry(commons->budgets, PRY_SLICE("p/m"));
  RIG_CHECK(call);
  call->release(call);
  if (retry)
    retry->release(retry);
}

static void use_metrics(struct commons *commons, unsigned step)
{
  char label[16];
  snprintf(label, sizeof label, "t%u", step % SERIES);
  pry_metrics_add(commons->metrics, PRY_M_ATTEMPTS, label, "none", 1);
  pry_metrics_add(commons->metrics, PRY_M_CALLS, "/v1/*", "ok", 2);
  pry_metrics_add(commons->metrics, PRY_M_CALL_DURATION, "/v1/*", NULL, 0.02);
  pry_metrics_add(commons->metrics, PRY_M_OPEN_CALLS, NULL, NULL, step % 2 ? 1 : -1);
}

static void use_commons(struct rig_worker *worker, void *user)
{
  struct commons *commons = user;
  struct pry_event_ring *ring = pry_event_ring_new(16, &commons->events);
  for (unsigned step = 0; step < STEPS; step++) {
    use_metrics(commons, step);
    use_budget(commons);
    commons->sequences[worker->index][step] = pry_event_next(ring)->sequence;
    pry_generation_ref(commons->generation);
    RIG_CHECK(commons->generation->policies == 7);
    pry_generation_unref(commons->generation);
    if (step % 10)
      continue;
    pry_scrubber_add(commons->scrubber, PRY_SLICE("sometimes-secret"));
    pry_log(commons->log, PRY_LOG_WARN, "step", pry_log_text("text", "this is always-secret"));
    pry_scrubber_remove(commons->scrubber, PRY_SLICE("sometimes-secret"));
  }
  RIG_CHECK(pry_event_overwritten(ring) == STEPS - 16);
  pry_event_ring_free(ring);
  pry_generation_unref(commons->generation); /* the last one frees it */
}

static int by_sequence(const void *a, const void *b)
{
  uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
  return (first > second) - (first < second);
}

/* The sum of all series of the metric, those beyond the bound included. */
static double sum_of_attempts(struct commons *commons)
{
  double sum = pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, "other", "other");
  for (unsigned i = 0; i < SERIES; i++) {
    char label[16];
    snprintf(label, sizeof label, "t%u", i);
    sum += pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, label, "none");
  }
  return sum;
}

static void test_small_things_add_up(void **state)
{
  (void)state;
  struct commons *commons = calloc(1, sizeof *commons);
  rig_make(commons->workers, RIG_WORKERS);
  commons->metrics = pry_metrics_new();
  commons->scrubber = pry_scrubber_new();
  commons->budgets = pry_budgets_new();
  commons->log = pry_log_new(read_line, commons, PRY_LOG_DEBUG, NULL, NULL);
  commons->generation = pry_generation_new(pry_policy_set_new(), NULL);
  commons->generation->policies = 7;
  pry_log_set_scrubber(commons->log, commons->scrubber);
  pry_scrubber_add(commons->scrubber, PRY_SLICE("always-secret"));
  for (unsigned i = 1; i < RIG_WORKERS; i++)
    pry_generation_ref(commons->generation);
  rig_go(commons->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&commons->workers[i], use_commons, commons);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    do { /* a scrape now and then */
      pry_buffer_clear(&text);
      assert_true(pry_metrics_render(commons->metrics, &text));
    } while (atomic_load(&commons->workers[i].busy));
  pry_buffer_fini(&text);
  rig_end(commons->workers, RIG_WORKERS);
  const double steps = (double)RIG_WORKERS * STEPS;
  assert_true(pry_metrics_value(commons->metrics, PRY_M_CALLS, "/v1/*", "ok") == 2 * steps);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_CALL_DURATION, "/v1/*", NULL) == steps);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_OPEN_CALLS, NULL, NULL) == 0);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, "other", "other") > 0);
  assert_true(sum_of_attempts(commons) == steps);
  assert_int_equal(atomic_load(&commons->lines), RIG_WORKERS * STEPS / 10);
  assert_int_equal(atomic_load(&commons->secrets), 0);
  assert_true(pry_budget_remaining(commons->budgets, PRY_SLICE("p/m")) == 1);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    for (unsigned step = 1; step < STEPS; step++)
      assert_true(commons->sequences[i][step] > commons->sequences[i][step - 1]);
  uint64_t *sequences = &commons->sequences[0][0];
  qsort(sequences, (size_t)RIG_WORKERS * STEPS, sizeof(uint64_t), by_sequence);
  for (unsigned i = 0; i < RIG_WORKERS * STEPS; i++)
    assert_int_equal(sequences[i], i + 1);
  pry_log_free(commons->log);
  pry_budgets_free(commons->budgets);
  pry_scrubber_free(commons->scrubber);
  pry_metrics_free(commons->metrics);
  rig_free(commons->workers, RIG_WORKERS);
  free(commons);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alerts_are_counted_exactly),
      cmocka_unit_test(test_alerts_keep_the_order_of_a_key),
      cmocka_unit_test(test_small_things_add_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
