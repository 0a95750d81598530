/* Credentials: one renewal however many wait, versions, cooldown, expiry, rotation on disk, reload. */
#include "credential.h"

#include "credential_file.h"
#include "registry.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PLANS_MAX = 32, WAITERS_MAX = 32 };

/* What one renewal does. */
struct plan {
  const char *token, *refresh_token, *error, *fault;
  double expires_in;
  pry_time delay; /* 0: answers at once; NEVER: not at all */
};

struct world;

struct fake_state {
  struct pry_state state;
  struct world *world;
  struct pry_ask *pending;
  struct plan plan;
  struct pry_timer timer;
};

struct waiter {
  struct pry_token_waiter waiter;
  struct world *world;
  unsigned calls;
  bool renewed;
  char why[256];
};

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_credentials *credentials;
  struct pry_secret secrets[4];
  struct pry_credential_config declared[2];
  struct pry_config config;
  struct pry_generation generation;
  struct pry_state *serving;
  unsigned states, asks, cancels, failed, recovered;
  pry_time asked_at[PLANS_MAX];
  char given[PLANS_MAX][32]; /* the refresh tokens that renewals were given */
  struct plan plans[PLANS_MAX];
  struct waiter waiters[WAITERS_MAX];
  struct pry_buffer logged;
  char folder[64];
};

/* ---- a state that renews as planned ------------------------------------------------------------------- */

static enum pry_ask_status answer(struct pry_ask *ask, const struct plan *plan)
{
  struct pry_renewal *renewal = ask->renewal;
  pry_buffer_append_text(&renewal->token, plan->token ? plan->token : "");
  pry_buffer_append_text(&renewal->new_refresh_token, plan->refresh_token ? plan->refresh_token : "");
  renewal->expires_in = plan->expires_in;
  snprintf(renewal->error, sizeof renewal->error, "%s", plan->error ? plan->error : "");
  snprintf(ask->fault, sizeof ask->fault, "%s", plan->fault ? plan->fault : "");
  return plan->fault ? PRY_ASK_FAULT : PRY_ASK_DONE;
}

static void answer_late(void *user)
{
  struct fake_state *fake = user;
  struct pry_ask *ask = fake->pending;
  fake->pending = NULL;
  ask->ready(ask, answer(ask, &fake->plan));
}

static enum pry_ask_status fake_ask(struct pry_state *state, struct pry_ask *ask)
{
  struct fake_state *fake = PRY_CONTAINER_OF(state, struct fake_state, state);
  struct world *world = fake->world;
  assert_int_equal(ask->handler, PRY_REFRESH);
  assert_null(fake->pending); /* one at a time */
  assert_true(world->asks < PLANS_MAX);
  unsigned i = world->asks++;
  world->asked_at[i] = pry_loop_now(world->loop);
  snprintf(world->given[i], sizeof world->given[i], "%.*s", (int)ask->renewal->refresh_token.size,
           ask->renewal->refresh_token.size ? ask->renewal->refresh_token.data : "");
  fake->plan = world->plans[i];
  if (!fake->plan.delay)
    return answer(ask, &fake->plan);
  fake->pending = ask;
  if (fake->plan.delay != PRY_TIME_NEVER)
    assert_true(pry_timer_start(world->loop, &fake->timer, fake->plan.delay, answer_late, fake));
  return PRY_ASK_PENDING;
}

static void fake_cancel(struct pry_state *state, struct pry_ask *ask)
{
  struct fake_state *fake = PRY_CONTAINER_OF(state, struct fake_state, state);
  assert_ptr_equal(fake->pending, ask);
  fake->pending = NULL;
  pry_timer_cancel(&fake->timer);
  fake->world->cancels++;
}

static void fake_free(struct pry_state *state)
{
  struct fake_state *fake = PRY_CONTAINER_OF(state, struct fake_state, state);
  assert_null(fake->pending);
  fake->world->states--;
  free(fake);
}

static const struct pry_state_ops fake_ops = {.ask = fake_ask, .cancel = fake_cancel, .free = fake_free};

static void serve_new_state(struct world *world)
{
  struct fake_state *fake = calloc(1, sizeof *fake);
  fake->state = (struct pry_state){.ops = &fake_ops, .generation = &world->generation, .references = 1};
  fake->world = world;
  world->states++;
  pry_state_unref(world->serving);
  world->serving = &fake->state;
}

/* ---- the world ---------------------------------------------------------------------------------------- */

static struct pry_state *current_state(void *user)
{
  struct world *world = user;
  if (world->serving)
    pry_state_ref(world->serving);
  return world->serving;
}

static void renewal_failed(void *user, const char *credential, const char *why)
{
  struct world *world = user;
  assert_string_equal(credential, "kimi");
  assert_true(why[0]);
  world->failed++;
}

static void renewal_recovered(void *user, const char *credential)
{
  struct world *world = user;
  assert_string_equal(credential, "kimi");
  world->recovered++;
}

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct world *world = user;
  (void)level;
  pry_buffer_append(&world->logged, line, size);
}

static void make_credentials(struct world *world)
{
  struct pry_credentials_environment environment = {.loop = world->loop,
                                                    .mailbox = world->mailbox,
                                                    .log = world->log,
                                                    .metrics = world->metrics,
                                                    .scrubber = world->scrubber,
                                                    .state_dir = world->folder[0] ? world->folder : NULL,
                                                    .current_state = current_state,
                                                    .failed = renewal_failed,
                                                    .recovered = renewal_recovered,
                                                    .user = world};
  world->credentials = pry_credentials_new(&environment);
  assert_non_null(world->credentials);
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
}

/* access: NULL for none declared. */
static struct world *new_world(const char *access, bool with_folder)
{
  struct world *world = calloc(1, sizeof *world);
  if (with_folder) {
    snprintf(world->folder, sizeof world->folder, "/tmp/parry-credential-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
  }
  world->loop = pry_loop_new_virtual(1000000);
  world->mailbox = pry_mailbox_new(world->loop);
  world->log = pry_log_new(take_line, world, PRY_LOG_DEBUG, NULL, NULL);
  world->metrics = pry_metrics_new();
  world->scrubber = pry_scrubber_new();
  pry_log_set_scrubber(world->log, world->scrubber);
  world->secrets[0] = (struct pry_secret){.name = "KIMI_REFRESH", .value = "configured-refresh"};
  world->secrets[1] = (struct pry_secret){.name = "KIMI_ACCESS", .value = access};
  world->declared[0] = (struct pry_credential_config){.name = "kimi",
                                                      .refresh_token = &world->secrets[0],
                                                      .access_token = access ? &world->secrets[1] : NULL,
                                                      .grant = "kimi"};
  world->config.credentials = world->declared;
  world->config.credential_count = 1;
  world->generation.config = &world->config;
  for (unsigned i = 0; i < PLANS_MAX; i++)
    world->plans[i] = (struct plan){.token = "unplanned-token", .expires_in = 3600};
  for (unsigned i = 0; i < WAITERS_MAX; i++)
    world->waiters[i].world = world;
  serve_new_state(world);
  make_credentials(world);
  return world;
}

static void remove_file(struct world *world, const char *name)
{
  char path[128];
  snprintf(path, sizeof path, "%s/credentials/%s", world->folder, name);
  unlink(path);
}

static void free_world(struct world *world)
{
  pry_credentials_free(world->credentials);
  pry_state_unref(world->serving);
  assert_int_equal(world->states, 0);
  char left[] = "configured-refresh"; /* everything the scrubber was told to know it was told to forget */
  pry_scrubber_apply_text(world->scrubber, left);
  assert_string_equal(left, "configured-refresh");
  pry_log_free(world->log);
  pry_metrics_free(world->metrics);
  pry_scrubber_free(world->scrubber);
  pry_mailbox_free(world->mailbox);
  pry_loop_free(world->loop);
  pry_buffer_fini(&world->logged);
  if (world->folder[0]) {
    char path[128];
    snprintf(path, sizeof path, "%s/credentials", world->folder);
    remove_file(world, "kimi.json");
    rmdir(path);
    assert_int_equal(rmdir(world->folder), 0); /* nothing else was left there */
  }
  free(world);
}

static void on_ready(struct pry_token_waiter *token_waiter, bool renewed, const char *why, void *user)
{
  struct waiter *waiter = user;
  assert_ptr_equal(token_waiter, &waiter->waiter);
  assert_null(token_waiter->credential);
  waiter->calls++;
  waiter->renewed = renewed;
  snprintf(waiter->why, sizeof waiter->why, "%s", why);
}

/* Expected token NULL: must not be READY. */
static enum pry_token_status get(struct world *world, unsigned i, const char *expected, uint64_t expected_version)
{
  struct pry_buffer token;
  pry_buffer_init(&token, 0);
  uint64_t version;
  const char *why;
  struct waiter *waiter = &world->waiters[i];
  unsigned asks = world->asks, calls = waiter->calls;
  enum pry_token_status status = pry_credential_token(world->credentials, world->mailbox, "kimi", &token, &version,
                                                      &waiter->waiter, on_ready, waiter, &why);
  assert_int_equal(world->asks, asks); /* nothing runs from inside */
  assert_int_equal(waiter->calls, calls);
  assert_int_equal(status == PRY_TOKEN_READY, expected != NULL);
  if (expected) {
    assert_string_equal(pry_buffer_text(&token), expected);
    assert_int_equal(version, expected_version);
  }
  if (status == PRY_TOKEN_FAILED)
    snprintf(waiter->why, sizeof waiter->why, "%s", why);
  pry_buffer_fini(&token);
  return status;
}

static enum pry_token_status renew(struct world *world, unsigned i, uint64_t bad_version)
{
  const char *why;
  struct waiter *waiter = &world->waiters[i];
  enum pry_token_status status = pry_credential_renew(world->credentials, world->mailbox, "kimi", bad_version,
                                                      &waiter->waiter, on_ready, waiter, &why);
  if (status == PRY_TOKEN_FAILED)
    snprintf(waiter->why, sizeof waiter->why, "%s", why);
  return status;
}

static void advance(struct world *world, double seconds)
{
  pry_loop_advance(world->loop, pry_time_from_seconds(seconds));
}

static void copy_state(void *user, const struct pry_credential_status *status)
{
  snprintf(user, 16, "%s", status->state);
}

static void assert_state(struct world *world, const char *expected)
{
  char state[16] = "none";
  pry_credentials_each(world->credentials, world->loop, copy_state, state);
  assert_string_equal(state, expected);
}

static void assert_known_to_scrubber(struct world *world, const char *secret, bool known)
{
  char text[64];
  snprintf(text, sizeof text, "%s", secret);
  pry_scrubber_apply_text(world->scrubber, text);
  assert_string_equal(text, known ? "***" : secret);
}

/* ---- renewing ----------------------------------------------------------------------------------------- */

static void test_first_use_renews_once_for_all(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = 3600, .delay = 2 * PRY_SECOND};
  assert_state(world, "absent");
  for (unsigned i = 0; i < 20; i++)
    assert_int_equal(get(world, i, NULL, 0), PRY_TOKEN_WAITING);
  assert_state(world, "renewing");
  advance(world, 1);
  assert_int_equal(world->asks, 1);
  assert_string_equal(world->given[0], "configured-refresh");
  advance(world, 1);
  assert_int_equal(world->asks, 1);
  for (unsigned i = 0; i < 20; i++) {
    assert_int_equal(world->waiters[i].calls, 1);
    assert_true(world->waiters[i].renewed);
  }
  assert_state(world, "valid");
  assert_int_equal(get(world, 0, "first-token", 1), PRY_TOKEN_READY);
  assert_known_to_scrubber(world, "first-token", true);
  assert_true(pry_metrics_value(world->metrics, PRY_M_RENEWALS, "kimi", "ok") == 1);
  assert_true(pry_metrics_value(world->metrics, PRY_M_TOKEN_EXPIRY, "kimi", NULL) == 1003602);
  free_world(world);
}

static void test_versions(void **state)
{
  (void)state;
  struct world *world = new_world("configured-access", false);
  world->plans[0] = (struct plan){.token = "second-token", .expires_in = -1};
  assert_int_equal(get(world, 0, "configured-access", 1), PRY_TOKEN_READY);
  assert_int_equal(renew(world, 0, 1), PRY_TOKEN_WAITING);
  assert_int_equal(get(world, 1, NULL, 0), PRY_TOKEN_WAITING); /* not the one that was just refused */
  advance(world, 1);
  assert_true(world->waiters[0].renewed && world->waiters[1].renewed);
  assert_int_equal(world->asks, 1);
  assert_int_equal(renew(world, 0, 1), PRY_TOKEN_READY); /* a late 401 for the old token renews nothing */
  advance(world, 100);
  assert_int_equal(world->asks, 1);
  assert_int_equal(get(world, 0, "second-token", 2), PRY_TOKEN_READY);
  assert_known_to_scrubber(world, "configured-access", true); /* late answers may still quote it */
  assert_int_equal(renew(world, 0, 2), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_int_equal(get(world, 0, "unplanned-token", 3), PRY_TOKEN_READY);
  assert_known_to_scrubber(world, "second-token", true);
  free_world(world);
}

/* When the second renewal comes by itself, after one at 0 s whose token lives so long; 0: never. */
static void test_renewed_in_the_background(void **state)
{
  (void)state;
  static const struct {
    double expires_in;
    double again;
  } cases[] = {{3600, 3540}, {120, 60}, {300, 240}, {100, 50}, {60, 30},
               {20, 30},     {0, 30},   {-1, 0},    {NAN, 0},  {INFINITY, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct world *world = new_world(NULL, false);
    world->plans[0] = (struct plan){.token = "first-token", .expires_in = cases[i].expires_in};
    world->plans[1] = (struct plan){.token = "second-token", .expires_in = -1, .delay = 3 * PRY_SECOND};
    get(world, 0, NULL, 0);
    advance(world, 4);
    get(world, 0, "first-token", 1); /* usable for a while, whatever its expiry said */
    advance(world, cases[i].again ? cases[i].again - 4.001 : 100000);
    assert_int_equal(world->asks, 1);
    if (cases[i].again) {
      advance(world, 0.002);
      assert_int_equal(world->asks, 2);
      assert_int_equal(world->asked_at[1], pry_time_from_seconds(cases[i].again));
      if (cases[i].expires_in > cases[i].again)
        assert_int_equal(get(world, 0, "first-token", 1), PRY_TOKEN_READY); /* nobody waits for that */
      advance(world, 3);
      assert_int_equal(get(world, 0, "second-token", 2), PRY_TOKEN_READY);
    }
    free_world(world);
  }
}

static void test_expired_token_is_not_used(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = 100};
  world->plans[1] = (struct plan){.error = "down"};
  world->plans[2] = (struct plan){.error = "still down"};
  get(world, 0, NULL, 0);
  advance(world, 99.9);
  assert_int_equal(world->asks, 3); /* in the background at 50 s, and after the cooldown at 80 s */
  assert_int_equal(get(world, 0, "first-token", 1), PRY_TOKEN_READY);
  advance(world, 0.1);
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_FAILED);
  advance(world, 1000);
  assert_int_equal(world->asks, 3); /* nobody needs it, nobody asks */
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_int_equal(get(world, 0, "unplanned-token", 2), PRY_TOKEN_READY);
  free_world(world);
  world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = 20};
  get(world, 0, NULL, 0);
  advance(world, 19.9);
  get(world, 0, "first-token", 1);
  advance(world, 0.1);
  assert_state(world, "absent");
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_int_equal(get(world, 0, "unplanned-token", 2), PRY_TOKEN_READY);
  free_world(world);
}

static void test_failure_and_cooldown(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.error = "status 500 for configured-refresh", .delay = PRY_SECOND};
  world->plans[1] = (struct plan){.fault = "init.lua:3: boom"};
  world->plans[2] = (struct plan){0};
  world->plans[3] = (struct plan){.token = "good-token", .expires_in = -1};
  static const char *const errors[] = {"status 500 for ***", "init.lua:3: boom", "the renewal gave no token"};
  for (unsigned i = 0; i < 3; i++) {
    assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
    assert_int_equal(get(world, 1, NULL, 0), PRY_TOKEN_WAITING);
    advance(world, 1);
    assert_int_equal(world->asks, i + 1);
    for (unsigned j = 0; j < 2; j++) {
      assert_int_equal(world->waiters[j].calls, i + 1);
      assert_false(world->waiters[j].renewed);
      assert_string_equal(world->waiters[j].why, errors[i]);
    }
    assert_state(world, "failed");
    assert_int_equal(get(world, 2, NULL, 0), PRY_TOKEN_FAILED); /* at once, and nobody starts another */
    assert_string_equal(world->waiters[2].why, errors[i]);
    advance(world, 28.5);
    assert_int_equal(renew(world, 2, 0), PRY_TOKEN_FAILED);
    assert_int_equal(world->asks, i + 1);
    advance(world, 1.5);
  }
  assert_int_equal(world->failed, 3);
  assert_int_equal(world->recovered, 0);
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_int_equal(get(world, 0, "good-token", 1), PRY_TOKEN_READY);
  assert_int_equal(world->recovered, 1);
  assert_state(world, "valid");
  assert_true(pry_metrics_value(world->metrics, PRY_M_RENEWALS, "kimi", "failed") == 3);
  assert_non_null(pry_buffer_text(&world->logged));
  assert_null(strstr(world->logged.data, "configured-refresh"));
  assert_null(strstr(world->logged.data, "good-token"));
  free_world(world);
}

/* A 401 may be about something else: when nothing newer can be had, the old token is still the best there is. */
static void test_failed_renewal_of_a_valid_token(void **state)
{
  (void)state;
  struct world *world = new_world("configured-access", false);
  world->plans[0] = (struct plan){.error = "down", .delay = PRY_SECOND};
  assert_int_equal(renew(world, 0, 1), PRY_TOKEN_WAITING);
  assert_int_equal(get(world, 1, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 2);
  assert_false(world->waiters[0].renewed);
  assert_int_equal(get(world, 1, "configured-access", 1), PRY_TOKEN_READY);
  assert_int_equal(renew(world, 0, 1), PRY_TOKEN_FAILED);
  assert_int_equal(get(world, 1, "configured-access", 1), PRY_TOKEN_READY); /* a refused renewal rejects nothing */
  advance(world, 30);
  assert_int_equal(renew(world, 0, 1), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_int_equal(get(world, 1, "unplanned-token", 2), PRY_TOKEN_READY);
  free_world(world);
}

static void test_failed_in_the_background_tries_again(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = 600};
  world->plans[1] = (struct plan){.error = "down"};
  get(world, 0, NULL, 0);
  advance(world, 545);
  assert_int_equal(world->asks, 2);
  assert_int_equal(get(world, 0, "first-token", 1), PRY_TOKEN_READY);
  advance(world, 30);
  assert_int_equal(world->asks, 3);
  assert_int_equal(world->asked_at[2], 570 * PRY_SECOND);
  assert_int_equal(get(world, 0, "unplanned-token", 2), PRY_TOKEN_READY);
  free_world(world);
}

static void test_job_limit(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.delay = PRY_TIME_NEVER};
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 29.9);
  assert_int_equal(world->waiters[0].calls, 0);
  advance(world, 0.2);
  assert_int_equal(world->cancels, 1);
  assert_int_equal(world->waiters[0].calls, 1);
  assert_string_equal(world->waiters[0].why, "no answer within 30 s");
  assert_state(world, "failed");
  free_world(world);
}

static void test_job_outlives_its_starter(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = -1, .delay = PRY_SECOND};
  get(world, 0, NULL, 0);
  pry_token_leave(&world->waiters[0].waiter);
  pry_token_leave(&world->waiters[0].waiter); /* safe twice */
  advance(world, 2);
  assert_int_equal(world->waiters[0].calls, 0);
  assert_int_equal(get(world, 1, "first-token", 1), PRY_TOKEN_READY);
  pry_token_leave(&world->waiters[1].waiter); /* and when nothing was waited for */
  free_world(world);
}

static void test_tokens_that_cannot_be_sent(void **state)
{
  (void)state;
  static char huge[PRY_TOKEN_MAX + 2];
  memset(huge, 'x', sizeof huge - 1);
  const char *const tokens[] = {"two\r\nlines", "a b", "tab\t", "\x7f", "\xC3\xA4", huge};
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    struct world *world = new_world(NULL, false);
    world->plans[0] = (struct plan){.token = tokens[i], .expires_in = 3600};
    get(world, 0, NULL, 0);
    advance(world, 1);
    assert_int_equal(world->waiters[0].calls, 1);
    assert_false(world->waiters[0].renewed);
    assert_state(world, "failed");
    free_world(world);
  }
  assert_false(pry_token_valid(PRY_SLICE("")));
  assert_true(pry_token_valid((struct pry_slice){huge, PRY_TOKEN_MAX}));
}

static void test_what_cannot_be_renewed(void **state)
{
  (void)state;
  struct world *world = new_world("configured-access", false);
  struct pry_buffer token;
  pry_buffer_init(&token, 0);
  uint64_t version;
  const char *why;
  struct waiter *waiter = &world->waiters[0];
  assert_int_equal(pry_credential_token(world->credentials, world->mailbox, "nobody", &token, &version, &waiter->waiter,
                                        on_ready, waiter, &why),
                   PRY_TOKEN_FAILED);
  assert_string_equal(why, "no such credential");
  assert_int_equal(
      pry_credential_renew(world->credentials, world->mailbox, "nobody", 1, &waiter->waiter, on_ready, waiter, &why),
      PRY_TOKEN_FAILED);
  world->secrets[0].value = NULL;
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(get(world, 0, "configured-access", 2), PRY_TOKEN_READY);
  assert_int_equal(renew(world, 0, 2), PRY_TOKEN_FAILED);
  assert_string_equal(waiter->why, "the secret of its refresh token is missing");
  world->declared[0].refresh_token = NULL;
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(renew(world, 0, 2), PRY_TOKEN_FAILED);
  assert_string_equal(waiter->why, "it has no refresh token");
  world->declared[0].grant = "lua"; /* a refresh function of one's own may need none */
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(renew(world, 0, 2), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_string_equal(world->given[0], "");
  assert_true(waiter->renewed);
  free_world(world);
}

static void test_no_policies(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  pry_state_unref(world->serving);
  world->serving = NULL;
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_string_equal(world->waiters[0].why, "no policies are serving");
  free_world(world);
}

/* ---- reload ------------------------------------------------------------------------------------------- */

static void test_job_keeps_its_state_over_a_reload(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .expires_in = -1, .delay = 2 * PRY_SECOND};
  get(world, 0, NULL, 0);
  advance(world, 1);
  serve_new_state(world);
  assert_int_equal(world->states, 2); /* the old one is still needed */
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  advance(world, 2);
  assert_true(world->waiters[0].renewed);
  assert_int_equal(world->asks, 1);
  assert_int_equal(world->states, 1);
  free_world(world);
}

static void test_reload_ends_the_cooldown(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.error = "wrong url"};
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_FAILED);
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(get(world, 0, NULL, 0), PRY_TOKEN_WAITING);
  advance(world, 1);
  assert_true(world->waiters[0].renewed);
  free_world(world);
}

static void test_changed_secrets(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "of-the-old-secret", .delay = 5 * PRY_SECOND};
  world->plans[1] = (struct plan){.token = "of-the-new-secret", .expires_in = -1};
  get(world, 0, NULL, 0);
  get(world, 1, NULL, 0);
  advance(world, 1);
  world->secrets[0].value = "another-refresh";
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(world->cancels, 1);
  assert_int_equal(world->waiters[0].calls, 0); /* who waited waits on */
  advance(world, 1);
  assert_int_equal(world->asks, 2);
  assert_string_equal(world->given[1], "another-refresh");
  assert_true(world->waiters[0].renewed && world->waiters[1].renewed);
  assert_int_equal(get(world, 0, "of-the-new-secret", 1), PRY_TOKEN_READY);
  assert_known_to_scrubber(world, "configured-refresh", false);
  assert_known_to_scrubber(world, "another-refresh", true);
  world->declared[0].access_token = &world->secrets[1]; /* now with an access token of its own */
  world->secrets[1].value = "configured-access";
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(get(world, 0, "configured-access", 2), PRY_TOKEN_READY);
  free_world(world);
}

/* A failure that was told but not yet heard when the secrets changed was about the old ones. */
static void test_changed_between_telling_and_hearing(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.error = "old"};
  get(world, 0, NULL, 0);
  while (world->failed == 0)
    pry_loop_turn(world->loop, 0);
  assert_int_equal(world->waiters[0].calls, 0);
  world->secrets[0].value = "another-refresh";
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  advance(world, 1);
  assert_int_equal(world->waiters[0].calls, 1);
  assert_true(world->waiters[0].renewed);
  free_world(world);
}

static void test_forgotten(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, false);
  world->plans[0] = (struct plan){.token = "first-token", .delay = 5 * PRY_SECOND};
  get(world, 0, NULL, 0);
  get(world, 1, NULL, 0);
  get(world, 2, NULL, 0);
  advance(world, 1);
  pry_token_leave(&world->waiters[1].waiter);
  world->config.credential_count = 0;
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  assert_int_equal(world->cancels, 1);
  assert_int_equal(world->waiters[0].calls, 0); /* not from inside */
  pry_token_leave(&world->waiters[2].waiter);
  assert_int_equal(get(world, 3, NULL, 0), PRY_TOKEN_FAILED);
  advance(world, 1);
  assert_int_equal(world->waiters[0].calls, 1);
  assert_string_equal(world->waiters[0].why, "the credential is no longer declared");
  assert_int_equal(world->waiters[1].calls + world->waiters[2].calls, 0);
  assert_state(world, "none");
  world->config.credential_count = 1; /* and back: versions are never used twice */
  assert_true(pry_credentials_adopt(world->credentials, &world->config));
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_int_equal(get(world, 0, "unplanned-token", 1), PRY_TOKEN_READY);
  free_world(world);
}

/* ---- rotation ----------------------------------------------------------------------------------------- */

static void restart(struct world *world)
{
  pry_credentials_free(world->credentials);
  make_credentials(world);
}

static void test_rotation_survives_a_restart(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, true);
  world->plans[0] = (struct plan){.token = "first-token", .refresh_token = "rotated-1", .expires_in = -1};
  world->plans[1] = (struct plan){.token = "second-token", .refresh_token = "rotated-2", .expires_in = -1};
  get(world, 0, NULL, 0);
  advance(world, 1);
  char path[128];
  struct stat about;
  snprintf(path, sizeof path, "%s/credentials/kimi.json", world->folder);
  assert_int_equal(stat(path, &about), 0);
  assert_int_equal(about.st_mode & 0777, 0600);
  assert_known_to_scrubber(world, "rotated-1", true);
  renew(world, 0, 1);
  advance(world, 1);
  assert_string_equal(world->given[1], "rotated-1");
  assert_known_to_scrubber(world, "rotated-1", false);
  restart(world);
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_string_equal(world->given[2], "rotated-2");
  world->secrets[0].value = "another-refresh"; /* ops put in a new one: it wins */
  restart(world);
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_string_equal(world->given[3], "another-refresh");
  free_world(world);
}

static void test_persisting_fails(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, true);
  assert_int_equal(rmdir(world->folder), 0);
  world->plans[0] = (struct plan){.token = "first-token", .refresh_token = "rotated-1", .expires_in = -1};
  get(world, 0, NULL, 0);
  advance(world, 1);
  assert_int_equal(get(world, 0, "first-token", 1), PRY_TOKEN_READY); /* used all the same */
  assert_non_null(pry_buffer_text(&world->logged));
  assert_non_null(strstr(world->logged.data, "rotated refresh token not kept"));
  renew(world, 0, 1);
  advance(world, 1);
  assert_string_equal(world->given[1], "rotated-1"); /* in memory at least */
  assert_int_equal(mkdir(world->folder, 0700), 0);
  free_world(world);
}

static void write_file(struct world *world, const char *text, size_t size)
{
  char path[128];
  snprintf(path, sizeof path, "%s/credentials", world->folder);
  mkdir(path, 0700);
  snprintf(path, sizeof path, "%s/credentials/kimi.json", world->folder);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(text, 1, size, file), size);
  fclose(file);
}

/* Whatever is in the file, it is refused with a word, or ignored. */
static void test_hostile_files(void **state)
{
  (void)state;
#define HEAD                                                                                                           \
  "{\"secret_sha256\":\"d284ed475d57ae2e8d5e8d19a7c1d1ee2f3b8dd1a4d53b2db3d2ee2a4a8a1d12\",\"refresh_token\":"
  static char brackets[20000], large[100000];
  memset(brackets, '[', sizeof brackets);
  memset(large, ' ', sizeof large);
  static const struct {
    const char *text;
    size_t size;
    bool complaint;
  } cases[] = {
      {"", 0, true},
      {"{", 1, true},
      {"null", 4, true},
      {"{}", 2, true},
      {"{\"refresh_token\":\"x\"}", 21, true},
      {brackets, sizeof brackets, true},
      {large, sizeof large, true},
      {HEAD "\"other\"}", sizeof HEAD + 7, false}, /* of another secret */
      {HEAD "5}", sizeof HEAD + 1, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct world *world = new_world(NULL, true);
    write_file(world, cases[i].text, cases[i].size);
    restart(world);
    pry_buffer_append_text(&world->logged, ".");
    assert_non_null(pry_buffer_text(&world->logged));
    assert_int_equal(strstr(world->logged.data, "persisted refresh token not read") != NULL, cases[i].complaint);
    get(world, 0, NULL, 0);
    advance(world, 1);
    assert_string_equal(world->given[0], "configured-refresh");
    free_world(world);
  }
  /* The right secret, and tokens that no header can carry. */
  static const char *const tokens[] = {"", "a b", "a\r\nb", "\xC3\xA4"};
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    struct world *world = new_world(NULL, true);
    const char *why;
    assert_true(pry_credential_file_write(world->folder, "kimi", PRY_SLICE("configured-refresh"),
                                          pry_slice_of(tokens[i]), &why));
    restart(world);
    get(world, 0, NULL, 0);
    advance(world, 1);
    assert_string_equal(world->given[0], "configured-refresh");
    free_world(world);
  }
}

/* A link where the file should be is not followed, and a name cannot leave the folder. */
static void test_file_names(void **state)
{
  (void)state;
  struct world *world = new_world(NULL, true);
  const char *why;
  struct pry_buffer token;
  pry_buffer_init(&token, 0);
  static const struct {
    const char *name, *file;
  } cases[] = {
      {"../../etc/x", "%2E%2E%2F%2E%2E%2Fetc%2Fx.json"}, {".hidden", "%2Ehidden.json"}, {"a_b-C9", "a_b-C9.json"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[192];
    assert_true(pry_credential_file_write(world->folder, cases[i].name, PRY_SLICE("s"), PRY_SLICE("token"), &why));
    snprintf(path, sizeof path, "%s/credentials/%s", world->folder, cases[i].file);
    assert_int_equal(access(path, F_OK), 0);
    pry_buffer_clear(&token);
    assert_true(pry_credential_file_read(world->folder, cases[i].name, PRY_SLICE("s"), &token, &why));
    assert_string_equal(pry_buffer_text(&token), "token");
    remove_file(world, cases[i].file);
  }
  char long_name[300];
  memset(long_name, 'n', sizeof long_name);
  long_name[sizeof long_name - 1] = '\0';
  assert_false(pry_credential_file_write(world->folder, long_name, PRY_SLICE("s"), PRY_SLICE("token"), &why));
  assert_false(pry_credential_file_read(world->folder, long_name, PRY_SLICE("s"), &token, &why));
  char path[128];
  snprintf(path, sizeof path, "%s/credentials/kimi.json", world->folder);
  assert_true(pry_credential_file_write(world->folder, "other", PRY_SLICE("s"), PRY_SLICE("token"), &why));
  assert_int_equal(symlink("other.json", path), 0);
  assert_false(pry_credential_file_read(world->folder, "kimi", PRY_SLICE("s"), &token, &why));
  assert_true(pry_credential_file_write(world->folder, "kimi", PRY_SLICE("s"), PRY_SLICE("token"), &why));
  struct stat about;
  assert_int_equal(lstat(path, &about), 0);
  assert_true(S_ISREG(about.st_mode)); /* replaced, not written through */
  remove_file(world, "other.json");
  pry_buffer_fini(&token);
  free_world(world);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_use_renews_once_for_all),
      cmocka_unit_test(test_versions),
      cmocka_unit_test(test_renewed_in_the_background),
      cmocka_unit_test(test_expired_token_is_not_used),
      cmocka_unit_test(test_failure_and_cooldown),
      cmocka_unit_test(test_failed_renewal_of_a_valid_token),
      cmocka_unit_test(test_failed_in_the_background_tries_again),
      cmocka_unit_test(test_job_limit),
      cmocka_unit_test(test_job_outlives_its_starter),
      cmocka_unit_test(test_tokens_that_cannot_be_sent),
      cmocka_unit_test(test_what_cannot_be_renewed),
      cmocka_unit_test(test_no_policies),
      cmocka_unit_test(test_job_keeps_its_state_over_a_reload),
      cmocka_unit_test(test_reload_ends_the_cooldown),
      cmocka_unit_test(test_changed_secrets),
      cmocka_unit_test(test_changed_between_telling_and_hearing),
      cmocka_unit_test(test_forgotten),
      cmocka_unit_test(test_rotation_survives_a_restart),
      cmocka_unit_test(test_persisting_fails),
      cmocka_unit_test(test_hostile_files),
      cmocka_unit_test(test_file_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
