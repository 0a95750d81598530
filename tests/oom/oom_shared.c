/* What calls share, with each allocation and system call failing: nothing crashes, leaks or gets lost. */
#include "alert.h"
#include "budget.h"
#include "credential.h"
#include "credential_file.h"
#include "event.h"
#include "fail.h"
#include "http_script.h"
#include "policy.h"
#include "queue.h"
#include "registry.h"
#include "store.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the parts ------------------------------------------------------------------------------------------ */

static void visit_breaker(void *user, struct pry_slice key, enum pry_breaker_state state)
{
  (void)user;
  (void)key;
  (void)state;
}

static void use_breaker(struct pry_store *store, struct pry_slice key, struct pry_list *permits)
{
  struct pry_breaker_parameters parameters = {1, 1, 1, PRY_SECOND, .ratio = 0.5, .min_calls = 1};
  struct pry_breaker_entry entry;
  enum pry_breaker_state state;
  bool changed;
  enum pry_store_status status = pry_breaker_enter(store, key, &parameters, 0, &entry);
  FAIL_CHECK((entry.permit != NULL) == (status == PRY_STORE_OK));
  if (entry.permit)
    pry_permits_add(permits, entry.permit);
  pry_breaker_record(store, key, &parameters, permits, false, 0, 0, &state, &changed);
  FAIL_CHECK(changed == (entry.permit != NULL));
}

static void use_store(void)
{
  struct pry_store *store = pry_store_new(0, 0);
  if (!store)
    return;
  struct pry_list permits;
  struct pry_buffer value;
  double total;
  unsigned count;
  pry_list_init(&permits);
  pry_buffer_init(&value, 0);
  for (int i = 0; i < 20; i++) {
    char name[16];
    snprintf(name, sizeof name, "key %d", i);
    struct pry_slice key = pry_slice_of(name);
    switch (i % 4) {
    case 0:
      pry_store_set(store, key, PRY_SLICE("value"), 0, 0);
      pry_store_set(store, key, PRY_SLICE("a longer value"), 0, 0);
      pry_store_get(store, key, &value, 0);
      break;
    case 1:
      pry_store_count(store, key, 1, 0, 0, &total);
      break;
    case 2:
      for (int j = 0; j < 20; j++)
        pry_store_window_add(store, key, PRY_SECOND, 100, j, &count);
      break;
    default:
      use_breaker(store, key, &permits);
    }
  }
  pry_store_each_breaker(store, 0, visit_breaker, NULL);
  pry_permits_release(&permits);
  pry_buffer_fini(&value);
  pry_store_free(store);
}

static void take_grant(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  (void)waiter;
  *(struct pry_permit **)user = permit;
}

static void use_queue(void)
{
  enum { ASKERS = 5 };
  struct pry_loop *loop = pry_loop_new_virtual(0);
  struct pry_mailbox *mailbox = loop ? pry_mailbox_new(loop) : NULL;
  struct pry_queue_set *set = mailbox ? pry_queue_set_new(0, 0) : NULL;
  struct pry_queue_waiter waiters[ASKERS];
  struct pry_permit *permits[ASKERS] = {NULL};
  struct pry_queue_rule rule = pry_queue_places(1);
  struct pry_queue_answer answer;
  for (int i = 0; set && i < ASKERS; i++) {
    pry_queue_enter(set, mailbox, PRY_SLICE("key"), &rule, &waiters[i], take_grant, &permits[i], &answer);
    permits[i] = answer.permit;
  }
  for (int round = 0; set && round < ASKERS; round++) {
    for (int i = 0; i < ASKERS; i++) {
      if (permits[i])
        permits[i]->release(permits[i]);
      permits[i] = NULL;
    }
    pry_loop_advance(loop, 0);
  }
  if (set)
    FAIL_CHECK(pry_queue_key_count(set) == 0); /* whoever got in line got a place */
  pry_queue_set_free(set);
  pry_mailbox_free(mailbox);
  pry_loop_free(loop);
}

/* Lines that time opens, and what is remembered when nobody is there. */
static void use_gates(void)
{
  enum { ASKERS = 4 };
  struct pry_loop *loop = pry_loop_new_virtual(0);
  struct pry_mailbox *mailbox = loop && pry_loop_reserve(loop, ASKERS) ? pry_mailbox_new(loop) : NULL;
  struct pry_queue_set *set = mailbox ? pry_queue_set_new(0, 0) : NULL;
  struct pry_queue_waiter waiters[ASKERS];
  struct pry_permit *permits[ASKERS] = {NULL};
  struct pry_queue_rule rule = {.gate = {.limit = 2, .per = PRY_SECOND, .rate = 1, .burst = 2},
                                .max_waiting = PRY_QUEUE_ANY,
                                .longest = PRY_TIME_NEVER};
  struct pry_queue_answer answer;
  if (set)
    pry_queue_pause(set, PRY_SLICE("key"), PRY_SECOND, 0);
  for (int i = 0; set && i < ASKERS; i++) {
    pry_queue_enter(set, mailbox, PRY_SLICE("key"), &rule, &waiters[i], take_grant, &permits[i], &answer);
    permits[i] = answer.permit;
  }
  for (int round = 0; set && round < 8; round++) {
    pry_loop_advance(loop, PRY_SECOND);
    for (int i = 0; i < ASKERS; i++) {
      if (permits[i])
        permits[i]->sent(permits[i]);
      if (permits[i])
        permits[i]->release(permits[i]);
      permits[i] = NULL;
    }
  }
  if (set) {
    FAIL_CHECK(pry_queue_waiting_total(set) == 0);
    pry_queue_sweep(set, 100 * PRY_SECOND);
    FAIL_CHECK(pry_queue_key_count(set) == 0);
  }
  pry_queue_set_free(set);
  pry_mailbox_free(mailbox);
  pry_loop_free(loop);
}

static void visit_budget(void *user, struct pry_slice target, double remaining)
{
  (void)user;
  (void)target;
  (void)remaining;
}

static void use_budget(void)
{
  struct pry_budgets *budgets = pry_budgets_new();
  if (!budgets)
    return;
  struct pry_permit *call = pry_budget_call(budgets, PRY_SLICE("t"), false);
  struct pry_permit *retry = pry_budget_retry(budgets, PRY_SLICE("t"));
  pry_budget_each(budgets, visit_budget, NULL);
  if (call)
    call->release(call);
  if (retry)
    retry->release(retry);
  FAIL_CHECK(pry_budget_remaining(budgets, PRY_SLICE("t")) == 1);
  pry_budgets_free(budgets);
}

static void use_vars_and_events(void)
{
  struct pry_vars *vars = pry_vars_new();
  for (int i = 0; vars && i < 10; i++) {
    char name[32];
    struct pry_slice value;
    snprintf(name, sizeof name, "name %d", i);
    bool set = pry_vars_set(vars, pry_slice_of(name), PRY_SLICE("v"));
    FAIL_CHECK(pry_vars_get(vars, pry_slice_of(name), &value) == set);
  }
  pry_vars_free(vars);
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(3, &count);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  for (int i = 0; ring && i < 5; i++) {
    struct pry_event_record *record = pry_event_next(ring);
    pry_event_read_begin(record, "now");
    pry_event_read_text(record, NULL, PRY_SLICE("1"));
    pry_event_read_end(record);
    FAIL_CHECK((record->reads_end > 0) == !record->reads_cut);
    pry_event_json(record, &text);
  }
  pry_buffer_fini(&text);
  pry_event_ring_free(ring);
}

/* ---- alerts and credentials, with what they need -------------------------------------------------------- */

struct surroundings {
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_http *http;
  struct pry_scrubber *scrubber;
  struct pry_metrics *metrics;
  struct pry_log *log;
};

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user;
  (void)level;
  FAIL_CHECK(strlen(line) == size);
}

static bool make_surroundings(struct surroundings *around)
{
  *around = (struct surroundings){.loop = pry_loop_new_virtual(0)};
  struct pry_http_script *script = around->loop ? pry_http_script_new(around->loop) : NULL;
  around->http = script ? pry_http_script_client(script) : NULL;
  around->mailbox = around->loop ? pry_mailbox_new(around->loop) : NULL;
  around->scrubber = pry_scrubber_new();
  around->metrics = pry_metrics_new();
  around->log = pry_log_new(take_line, NULL, PRY_LOG_DEBUG, NULL, NULL);
  pry_log_set_scrubber(around->log, around->scrubber);
  return around->http && around->mailbox && around->scrubber;
}

static void free_surroundings(struct surroundings *around)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  pry_metrics_render(around->metrics, &text);
  pry_buffer_fini(&text);
  pry_http_free(around->http);
  pry_log_free(around->log);
  pry_metrics_free(around->metrics);
  pry_scrubber_free(around->scrubber);
  pry_mailbox_free(around->mailbox);
  pry_loop_free(around->loop);
}

static void use_alerts(void)
{
  static const struct pry_secret url = {.name = "HOOK", .value = "http://key@hooks.test/1"};
  static const struct pry_sink_config sinks[] = {{.name = "ops", .kind = "webhook", .url = &url, .sign = &url},
                                                 {.name = "cn", .kind = "feishu", .url = &url, .sign = &url},
                                                 {.name = "issues", .kind = "sentry", .url = &url}};
  struct surroundings around;
  struct pry_alerts *alerts = make_surroundings(&around) ? pry_alerts_new(around.mailbox, around.http, around.log,
                                                                          around.metrics, around.scrubber)
                                                         : NULL;
  for (size_t i = 0; alerts && i < sizeof sinks / sizeof *sinks; i++) {
    struct pry_alert alert = {.key = PRY_SLICE("a"), .text = PRY_SLICE("t"), .title = PRY_SLICE("hook: HOOK")};
    pry_alerts_notify(alerts, around.loop, &sinks[i], &alert);
    alert.resolve = true;
    if (i == 0)
      pry_alerts_notify(alerts, around.loop, &sinks[i], &alert);
    pry_loop_advance(around.loop, i ? 6 * PRY_SECOND : 100 * PRY_SECOND); /* nobody answers: the first goes through all
                                                                             its tries, the others end in theirs */
    FAIL_CHECK(i || pry_alerts_queued(alerts) == 0);
  }
  pry_alerts_free(alerts);
  free_surroundings(&around);
}

static enum pry_ask_status renew(struct pry_state *state, struct pry_ask *ask)
{
  (void)state;
  pry_buffer_append_text(&ask->renewal->token, "new-token-value");
  pry_buffer_append_text(&ask->renewal->new_refresh_token, "rotated-token-value");
  ask->renewal->expires_in = 100;
  return PRY_ASK_DONE;
}

static struct pry_state *serving(void *user)
{
  struct pry_state *state = user;
  pry_state_ref(state);
  return state;
}

static unsigned tokens_given;

static void count_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  (void)why;
  tokens_given += renewed;
  ++*(unsigned *)user;
}

static void wait_for_tokens(struct pry_credentials *credentials, struct pry_mailbox *mailbox)
{
  struct pry_token_waiter waiters[3];
  struct pry_buffer token;
  uint64_t version;
  const char *why;
  unsigned waiting = 0, ready = 0;
  pry_buffer_init(&token, 0);
  for (int i = 0; i < 3; i++)
    waiting += pry_credential_token(credentials, mailbox, "kimi", &token, &version, &waiters[i], count_ready, &ready,
                                    &why) == PRY_TOKEN_WAITING;
  pry_loop_advance(pry_mailbox_loop(mailbox), 200 * PRY_SECOND);
  FAIL_CHECK(ready == waiting); /* whoever waits hears */
  pry_buffer_fini(&token);
}

static const struct pry_secret secret = {.name = "REFRESH", .value = "configured-refresh"};
static const struct pry_credential_config declared = {.name = "kimi", .refresh_token = &secret, .grant = "kimi"};

static void renew_once(const char *state_dir)
{
  static const struct pry_state_ops ops = {.ask = renew};
  struct pry_config config = {.credentials = &declared, .credential_count = 1};
  struct pry_generation generation = {.config = &config};
  struct pry_state state = {.ops = &ops, .generation = &generation, .references = 1};
  struct surroundings around;
  bool made = make_surroundings(&around);
  struct pry_credentials_environment environment = {.loop = around.loop,
                                                    .mailbox = around.mailbox,
                                                    .log = around.log,
                                                    .metrics = around.metrics,
                                                    .scrubber = around.scrubber,
                                                    .state_dir = state_dir,
                                                    .current_state = serving,
                                                    .user = &state};
  struct pry_credentials *credentials = made ? pry_credentials_new(&environment) : NULL;
  if (credentials && pry_credentials_adopt(credentials, &config))
    wait_for_tokens(credentials, around.mailbox);
  pry_credentials_free(credentials);
  FAIL_CHECK(state.references == 1);
  free_surroundings(&around);
}

static void use_credentials(void)
{
  renew_once(NULL);
  fail_over();
  renew_once(NULL);
}

/* ---- the refresh token on disk -------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *place)
{
  (void)about, (void)type, (void)place;
  return remove(path);
}

/* Appends what is persisted; that it can be read is part of what is shown. */
static void read_persisted(const char *folder, struct pry_buffer *token)
{
  const char *why;
  pry_buffer_init(token, 0);
  FAIL_CHECK(pry_credential_file_read(folder, "kimi", pry_slice_of(secret.value), token, &why));
}

static void check_persisted(const char *folder, bool new_one_only)
{
  struct pry_buffer token;
  read_persisted(folder, &token);
  bool is_new = pry_slice_equal(pry_buffer_slice(&token), PRY_SLICE("rotated-token-value"));
  bool is_old = pry_slice_equal(pry_buffer_slice(&token), PRY_SLICE("old-token-value"));
  FAIL_CHECK(is_new || (is_old && !new_one_only));
  pry_buffer_fini(&token);
}

/* Whatever fails while a rotated token is persisted: on disk is the old one or the new one, whole. */
static void use_persisted_credentials(void)
{
  char folder[] = "/tmp/parry-oom-XXXXXX";
  const char *why;
  fail_quiet();
  FAIL_CHECK(mkdtemp(folder));
  FAIL_CHECK(pry_credential_file_write(folder, "kimi", pry_slice_of(secret.value), PRY_SLICE("old-token-value"), &why));
  fail_loud();
  tokens_given = 0;
  renew_once(folder);
  FAIL_CHECK(fail_memory() || tokens_given == 3); /* a disk that fails costs no call its token */
  fail_quiet();
  check_persisted(folder, !fail_struck());
  fail_loud();
  fail_over();
  renew_once(folder);
  check_persisted(folder, true);
  nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"store", use_store, FAIL_BOTH, 0},
      {"queue", use_queue, FAIL_BOTH, 0},
      {"gates", use_gates, FAIL_BOTH, 0},
      {"budget", use_budget, FAIL_BOTH, 0},
      {"vars and events", use_vars_and_events, FAIL_BOTH, 0},
      {"alerts", use_alerts, FAIL_BOTH, 0},
      {"credentials", use_credentials, FAIL_BOTH, 0},
      {"persisted credentials", use_persisted_credentials, FAIL_BOTH, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
