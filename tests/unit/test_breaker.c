/* Circuit breakers: scripts of what happens when, and a small model to compare with at random. */
#include "store.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY PRY_SLICE("target")

enum { ATTEMPTS_MAX = 64 };

struct world {
  struct pry_store *store;
  struct pry_breaker_parameters parameters;
  pry_time now;
  struct pry_list permits[ATTEMPTS_MAX]; /* one list per attempt, as calls have them */
  unsigned attempts;
};

static struct world *new_world(struct pry_breaker_parameters parameters)
{
  struct world *world = calloc(1, sizeof *world);
  world->store = pry_store_new(0, 0);
  world->parameters = parameters;
  for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
    pry_list_init(&world->permits[i]);
  return world;
}

static void free_world(struct world *world)
{
  for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
    pry_permits_release(&world->permits[i]);
  pry_store_free(world->store);
  free(world);
}

static struct pry_breaker_entry enter(struct world *world, unsigned attempt)
{
  struct pry_breaker_entry entry;
  assert_int_equal(pry_breaker_enter(world->store, KEY, &world->parameters, world->now, &entry), PRY_STORE_OK);
  assert_int_equal(entry.allowed, entry.permit != NULL);
  assert_true(entry.retry_in >= 0);
  if (entry.permit)
    pry_permits_add(&world->permits[attempt], entry.permit);
  return entry;
}

static enum pry_breaker_state record(struct world *world, unsigned attempt, enum pry_breaker_outcome outcome,
                                     pry_time at_least, bool *changed)
{
  enum pry_breaker_state breaker_state;
  assert_int_equal(pry_breaker_record(world->store, KEY, &world->parameters, &world->permits[attempt], outcome,
                                      at_least, world->now, &breaker_state, changed),
                   PRY_STORE_OK);
  return breaker_state;
}

static enum pry_breaker_state peek(struct world *world, pry_time *retry_in)
{
  enum pry_breaker_state breaker_state;
  assert_int_equal(pry_breaker_peek(world->store, KEY, world->now, &breaker_state, retry_in), PRY_STORE_OK);
  return breaker_state;
}

/* The scripts' words:
 *   e      enters, must be let through; attempts are numbered 0, 1, …
 *   x      enters, must be refused;  x10: and told to come back in 10 s
 *   s0 f0  success, failure of attempt 0;  S0 F0: and this must change the state
 *   l0 L0  slow success of attempt 0; L0: and this must change the state
 *   f0/20  failure, and the server said 20 s
 *   r0     attempt 0 ends without an outcome (cancelled, ignored)
 *   +10    ten seconds pass
 *   =c =o =h   the state is closed, open, half-open
 *   k      the key is removed */
static long number(const char **at)
{
  char *end;
  long value = strtol(*at, &end, 10);
  *at = end;
  return value;
}

static void run_outcome(struct world *world, const char **at, const char *script)
{
  char kind = *(*at)++;
  long attempt = number(at);
  pry_time at_least = 0;
  if (**at == '/') {
    ++*at;
    at_least = number(at) * PRY_SECOND;
  }
  bool changed, must_change = kind == 'S' || kind == 'F' || kind == 'L';
  enum pry_breaker_outcome outcome = kind == 's' || kind == 'S'   ? PRY_BREAKER_SUCCESS
                                     : kind == 'l' || kind == 'L' ? PRY_BREAKER_SLOW_SUCCESS
                                                                  : PRY_BREAKER_FAILURE;
  record(world, (unsigned)attempt, outcome, at_least, &changed);
  if (changed != must_change)
    fail_msg("'%s': attempt %ld %s the state", script, attempt, changed ? "changed" : "did not change");
}

static void run_enter(struct world *world, const char **at, const char *script)
{
  char kind = *(*at)++;
  struct pry_breaker_entry entry = enter(world, world->attempts);
  if (entry.allowed != (kind == 'e'))
    fail_msg("'%s' at '%s': %s", script, *at, entry.allowed ? "let through" : "refused");
  world->attempts += kind == 'e';
  if (kind == 'x' && **at >= '0' && **at <= '9')
    assert_int_equal(entry.retry_in, number(at) * PRY_SECOND);
}

static void run_script(struct world *world, const char *script)
{
  for (const char *at = script; *at;) {
    pry_time retry_in;
    switch (*at) {
    case ' ':
      at++;
      break;
    case 'e':
    case 'x':
      run_enter(world, &at, script);
      break;
    case 'r':
      at++;
      pry_permits_release(&world->permits[number(&at)]);
      break;
    case '+':
      at++;
      world->now += number(&at) * PRY_SECOND;
      break;
    case 'k':
      at++;
      pry_store_remove(world->store, KEY, world->now);
      break;
    case '=':
      if (pry_breaker_state_name(peek(world, &retry_in))[0] != at[1])
        fail_msg("'%s': at '%s' it is %s", script, at, pry_breaker_state_name(peek(world, &retry_in)));
      at += 2;
      break;
    default:
      run_outcome(world, &at, script);
    }
  }
}

/* failures 3, successes 2, one permit, cooldown 10 s */
static void test_scripts(void **state)
{
  (void)state;
  static const char *const scripts[] = {
      /* closed: consecutive failures */
      "=c e e e f0 f1 =c F2 =o x10",
      "e e e e e f0 f1 s2 f3 f4 =c",
      "e f0 f0 f0 f0 =c",        /* an outcome counts once */
      "e e e f0 f1 r2 =c f2 =c", /* released without an outcome: nothing */
      "e e e f0 f1 e r3 F2 =o",  /* and it is neutral, not a success */
      /* open: cooldown */
      "e e e f0 f1 F2 +4 x6 +6 e =h",
      "e e e f0 f1 F2/30 x30 +10 x20 +20 e =h", /* the server's time is longer */
      "e e e f0 f1 F2/5 x10",                   /* or shorter */
      "e e e e f0 f1 F2 x10 f3/25 x25 =o",      /* a late failure: the server's time moves the end later */
      "e e e e f0 f1 F2 +3 f3 x7",              /* but a plain one does not extend it */
      "e e e e f0 f1 F2 f3/5 x10",              /* nor makes it shorter */
      "e e e e f0 f1 F2 s3 =o x10",             /* a late success does not close it */
      "e e e e f0 f1 F2 s3/40 x10",             /* and says nothing about time */
      /* half-open: one permit */
      "e e e f0 f1 F2 +10 e x1 s3 =h e S4 =c",
      "e e e f0 f1 F2 +10 e F3 =o x10",      /* one failure re-opens */
      "e e e f0 f1 F2 +10 e s3 e F4 =o x10", /* also after a success */
      "e e e f0 f1 F2 +10 e s3 e F4 +10 e s5 =h e S6 =c",
      "e e e f0 f1 F2 +10 e x r3 e =h x r4 e s5 =h", /* cancelled probes are neutral */
      "e e e f0 f1 F2 +10 e r3 r3 e x",              /* a place is given back once */
      "e e e f0 f1 F2 +10 e s3 r3 e x",              /* recorded, then released: once */
      /* late results of an earlier state */
      "e e e e e f0 f1 F2 +10 e s3 f4 =h x s5 e S6 =c",
      "e e e e f0 f1 F2 +10 e s4 e S5 =c f3 e f6 e f7 =c e F8 =o",
      "e e e f0 f1 F2 +10 e +10 s3 e S4 =c", /* a slow probe is still a probe */
      /* a permit that never comes back */
      "e e e f0 f1 F2 +10 e +59 x1 +1 e x =h",
      "e e e f0 f1 F2 +10 e +60 e r3 x s4 e S5 =c",
      "e e e f0 f1 F2 +10 e +60 e F3 =o", /* its failure is still true */
      /* the key goes while attempts are under way */
      "e e k f0 f1 =c e f2 e f3 =c e F4 =o",
      "e e e f0 f1 F2 +10 e k =c r3 e =c",
      "e e e f0 f1 F2 +10 e k e e e f4 f5 F6 s3 =o",
      /* forgotten after an hour without use, but never before the cooldown */
      "e e e f0 f1 F2 +3609 =o",
      "e e e f0 f1 F2/9000 +8999 =o x1",
      "e e f0 f1 +3600 =c e f2 =c",
  };
  for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
    struct world *world = new_world((struct pry_breaker_parameters){3, 2, 1, 10 * PRY_SECOND, .half_open_limit = 0});
    run_script(world, scripts[i]);
    free_world(world);
  }
}

static void test_several_permits(void **state)
{
  (void)state;
  static const char *const scripts[] = {
      "e F0 +10 e e e x s1 e x s2 e S3 =c", "e F0 +10 e e e F2 =o s1 s3 =o x10", "e F0 +10 e e e +7 x r2 e x",
      "e F0 +10 e +2 e +2 e +3 x +1 e x1 +1 x1 +1 e x", /* places lapse one by one, oldest first */
  };
  for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
    struct world *world =
        new_world((struct pry_breaker_parameters){1, 3, 3, 10 * PRY_SECOND, .half_open_limit = 8 * PRY_SECOND});
    run_script(world, scripts[i]);
    free_world(world);
  }
}

static void run_scripts(const char *const *scripts, size_t count, struct pry_breaker_parameters parameters)
{
  for (size_t i = 0; i < count; i++) {
    struct world *world = new_world(parameters);
    run_script(world, scripts[i]);
    free_world(world);
  }
}

/* Half of at least four within 10 s; no rule about failures in a row. Moments are multiples of a second, buckets, too. */
static void test_ratio_of_failures(void **state)
{
  (void)state;
  static const char *const scripts[] = {
      "e e e f0 f1 f2 =c",                                /* below min_calls nothing is said, not even by 3 of 3 */
      "e e e e f0 f1 f2 F3 =o x10",                       /* from there on */
      "e e e e e e s0 s1 s2 f3 f4 F5 =o",                 /* exactly the ratio opens */
      "e e e e e e e s0 s1 s2 s3 f4 f5 f6 =c",            /* 3 of 7 is below it */
      "e e e e e e f0 s1 f2 s3 =c s4 F5 =o",              /* 3 of 6, not in a row */
      "e e e e f0 f1 f2 +10 f3 =c",                       /* what is older than the window is forgotten */
      "e e e e f0 f1 f2 +9 F3 =o",                        /* and what is within it is not */
      "e e e e e e e e f0 +4 f1 f2 +6 s3 s4 s5 s6 f7 =c", /* one by one: f0 has left */
      "e e e e f0 f1 f2 r3 e e r4 r5 =c",                 /* released without an outcome: not among the calls */
      "e e e e f0 f1 f2 F3 +10 e s4 e S5 =c e e e f6 f7 f8 =c",               /* closed: it counts from nothing */
      "e e e e e f0 f1 f2 F3 +10 e s5 e S6 =c e e e f7 f8 f4 f9 =c e F10 =o", /* a late one is not among the calls */
      "e e e e f0 f1 f2 F3 +10 e F4 =o",                                      /* half-open: one failure, no ratio */
  };
  run_scripts(scripts, sizeof scripts / sizeof *scripts,
              (struct pry_breaker_parameters){.successes = 2,
                                              .permits = 1,
                                              .cooldown = 10 * PRY_SECOND,
                                              .ratio = 0.5,
                                              .window = 10 * PRY_SECOND,
                                              .min_calls = 4});
}

static void test_row_and_ratio_together(void **state)
{
  (void)state;
  static const char *const scripts[] = {"e e e f0 f1 F2 =o", "e e e e f0 s1 f2 =c F3 =o"};
  run_scripts(scripts, 2,
              (struct pry_breaker_parameters){.failures = 3,
                                              .successes = 1,
                                              .permits = 1,
                                              .cooldown = PRY_SECOND,
                                              .ratio = 0.6,
                                              .window = 10 * PRY_SECOND,
                                              .min_calls = 4});
}

static void test_ratio_of_slow_successes(void **state)
{
  (void)state;
  static const char *const scripts[] = {
      "e e e e l0 s1 s2 L3 =o x10",              /* half of them slow */
      "e e e e e e l0 s1 s2 s3 l4 s5 =c",        /* a third */
      "e e e e e e e e f0 f1 f2 f3 f4 f5 l6 =c", /* slow is slow, failed is failed: one of seven */
      "e e e e l0 s1 s2 L3 +10 e L4 =o x10",     /* still slow in half-open */
      "e e e e l0 s1 s2 L3 +10 e s4 e S5 =c",    /* quick again */
  };
  run_scripts(scripts, sizeof scripts / sizeof *scripts,
              (struct pry_breaker_parameters){.successes = 2,
                                              .permits = 1,
                                              .cooldown = 10 * PRY_SECOND,
                                              .slow_ratio = 0.5,
                                              .window = 10 * PRY_SECOND,
                                              .min_calls = 4});
  static const char *const without[] = {
      "e e e f0 f1 l2 =c e f3 e f4 e F5 =o", /* it ends a row of failures */
      "e e e f0 f1 F2 +10 e l3 e L4 =c"};    /* and is a success where slow does not count */
  run_scripts(without, 2, (struct pry_breaker_parameters){3, 2, 1, 10 * PRY_SECOND, .half_open_limit = 0});
}

/* Envoy's way: base times the number of openings, bounded; from the start once it was well for a while. */
static void test_growing_cooldown(void **state)
{
  (void)state;
  static const char *const scripts[] = {
      "e F0 x10 +10 e F1 x20 +20 e F2 x25 +25 e F3 x25",
      "e F0 x10 +10 e F1 x20 +20 e S2 =c +24 e F3 x25", /* it was not well for long */
      "e F0 x10 +10 e F1 x20 +20 e S2 =c +25 e F3 x10", /* it was */
      "e F0/60 x60 +60 e F1 x20",                       /* what the server asks for is kept, and is no step */
  };
  run_scripts(scripts, sizeof scripts / sizeof *scripts,
              (struct pry_breaker_parameters){1, 1, 1, 10 * PRY_SECOND, .cooldown_most = 25 * PRY_SECOND});
}

/* There is room for the breaker, but not for its window: it still counts failures in a row, or nothing. */
static void test_no_room_for_a_window(void **state)
{
  (void)state;
  struct world *world = new_world((struct pry_breaker_parameters){.failures = 2, .ratio = 0.1, .min_calls = 1});
  pry_store_free(world->store);
  world->store = pry_store_new(0, 300);
  run_script(world, "e e f0 =c F1 =o");
  free_world(world);
}

static void test_parameters_come_with_each_call(void **state)
{
  (void)state;
  struct world *world = new_world((struct pry_breaker_parameters){5, 1, 1, 10 * PRY_SECOND, .half_open_limit = 0});
  run_script(world, "e e e f0 f1");
  world->parameters.failures = 3;
  run_script(world, "F2 =o x10");
  world->parameters.cooldown = PRY_SECOND; /* one that has begun stays */
  run_script(world, "x10 +10 e x");
  world->parameters.permits = 2;
  run_script(world, "e x");
  world->parameters.permits = 1;
  run_script(world, "x r3 x r4 e");
  free_world(world);
  world = new_world((struct pry_breaker_parameters){0}); /* zeros count as one, and a cooldown of nothing is allowed */
  run_script(world, "e F0 =o e =h x S1 =c");
  free_world(world);
}

static void test_unknown_key(void **state)
{
  (void)state;
  struct world *world = new_world((struct pry_breaker_parameters){1, 1, 1, PRY_SECOND, .half_open_limit = 0});
  pry_time retry_in = 5;
  bool changed = true;
  assert_int_equal(peek(world, &retry_in), PRY_BREAKER_CLOSED);
  assert_int_equal(retry_in, 0);
  assert_int_equal(record(world, 0, false, 0, &changed), PRY_BREAKER_CLOSED);
  assert_false(changed);
  assert_int_equal(pry_store_key_count(world->store), 0);
  /* The permit of another breaker does not count here. */
  struct pry_breaker_entry entry;
  pry_breaker_enter(world->store, PRY_SLICE("other"), &world->parameters, 0, &entry);
  pry_permits_add(&world->permits[0], entry.permit);
  enter(world, 1);
  assert_int_equal(record(world, 0, false, 0, &changed), PRY_BREAKER_CLOSED);
  assert_false(changed);
  free_world(world);
}

static void test_full_store(void **state)
{
  (void)state;
  struct pry_store *store = pry_store_new(1, 0);
  double total;
  struct pry_breaker_parameters parameters = {1, 1, 1, PRY_SECOND, .half_open_limit = 0};
  struct pry_breaker_entry entry;
  pry_store_count(store, PRY_SLICE("counter"), 1, PRY_SECOND, 0, &total);
  assert_int_equal(pry_breaker_enter(store, KEY, &parameters, 0, &entry), PRY_STORE_FULL);
  assert_false(entry.allowed);
  assert_null(entry.permit);
  assert_int_equal(pry_breaker_enter(store, KEY, &parameters, PRY_SECOND, &entry), PRY_STORE_OK);
  entry.permit->release(entry.permit);
  pry_store_free(store);
}

/* resilience4j #1432: becoming half-open must not let more through than there are permits, whoever asks at the same time.
 * 4 threads, 25 callers each; everybody holds what it got until all have asked. */
enum { THREADS = 4, CALLERS = 25, PERMITS = 3 };

struct crowd {
  struct pry_store *store;
  struct pry_breaker_parameters parameters;
  pry_time now;
  pthread_barrier_t begin, asked;
  atomic_uint allowed, changed;
};

static void *ask_at_once(void *argument)
{
  struct crowd *crowd = argument;
  struct pry_list permits;
  pry_list_init(&permits);
  pthread_barrier_wait(&crowd->begin);
  for (unsigned i = 0; i < CALLERS; i++) {
    struct pry_breaker_entry entry;
    pry_breaker_enter(crowd->store, KEY, &crowd->parameters, crowd->now, &entry);
    atomic_fetch_add(&crowd->allowed, entry.allowed);
    atomic_fetch_add(&crowd->changed, entry.changed);
    if (entry.permit)
      pry_permits_add(&permits, entry.permit);
  }
  pthread_barrier_wait(&crowd->asked);
  pry_permits_release(&permits);
  return NULL;
}

static void test_exactly_the_permits_get_through(void **state)
{
  (void)state;
  struct world *world = new_world((struct pry_breaker_parameters){1, 2, PERMITS, PRY_SECOND, .half_open_limit = 0});
  run_script(world, "e F0");
  for (unsigned round = 1; round <= 50; round++) {
    struct crowd crowd = {.store = world->store, .parameters = world->parameters, .now = round * 2 * PRY_SECOND};
    pthread_t threads[THREADS];
    pthread_barrier_init(&crowd.begin, NULL, THREADS);
    pthread_barrier_init(&crowd.asked, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
      assert_int_equal(pthread_create(&threads[i], NULL, ask_at_once, &crowd), 0);
    for (unsigned i = 0; i < THREADS; i++)
      pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&crowd.begin);
    pthread_barrier_destroy(&crowd.asked);
    assert_int_equal(crowd.allowed, PERMITS); /* all came back unused, so that it is the same again */
    assert_int_equal(crowd.changed, round == 1);
  }
  free_world(world);
}

struct listed {
  struct pry_store *store;
  unsigned states[3], count;
};

static void list_breaker(void *user, struct pry_slice key, enum pry_breaker_state breaker_state)
{
  struct listed *listed = user;
  listed->states[breaker_state]++;
  listed->count++;
  assert_true(pry_slice_starts_with(key, PRY_SLICE("target ")));
  pry_store_remove(listed->store, key, 0); /* allowed: no lock is held */
}

static void test_each_breaker(void **state)
{
  (void)state;
  struct pry_store *store = pry_store_new(0, 0);
  struct pry_breaker_parameters parameters = {1, 1, 1, PRY_SECOND, .half_open_limit = 0};
  double total;
  pry_store_count(store, PRY_SLICE("not a breaker"), 1, 0, 0, &total);
  for (unsigned i = 0; i < 50; i++) {
    char key[32];
    struct pry_breaker_entry entry;
    struct pry_list permits;
    enum pry_breaker_state breaker_state;
    bool changed;
    snprintf(key, sizeof key, "target %u", i);
    pry_list_init(&permits);
    pry_breaker_enter(store, pry_slice_of(key), &parameters, 0, &entry);
    pry_permits_add(&permits, entry.permit);
    pry_breaker_record(store, pry_slice_of(key), &parameters, &permits, i % 5 != 0, 0, 0, &breaker_state, &changed);
    pry_permits_release(&permits);
  }
  struct listed listed = {.store = store};
  pry_store_each_breaker(store, 0, list_breaker, &listed);
  assert_int_equal(listed.count, 50);
  assert_int_equal(listed.states[PRY_BREAKER_OPEN], 10);
  assert_int_equal(listed.states[PRY_BREAKER_CLOSED], 40);
  assert_int_equal(pry_store_key_count(store), 1);
  pry_store_free(store);
}

/* ---- the model ------------------------------------------------------------------------------------------ */

/* Everything in plain arrays and one linear search each: slow, and easy to believe. */
struct model_attempt {
  bool open, recorded, place;
  unsigned era; /* number of the change of state it entered after */
  pry_time since;
};

struct model {
  enum pry_breaker_state state;
  unsigned era, failures, successes;
  pry_time until;
  struct model_attempt attempts[ATTEMPTS_MAX];
};

static void model_change(struct model *model, enum pry_breaker_state breaker_state)
{
  model->state = breaker_state;
  model->era++;
  model->failures = model->successes = 0;
  for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
    model->attempts[i].place = false;
}

static bool model_enter(struct model *model, const struct pry_breaker_parameters *parameters, pry_time now, unsigned i)
{
  if (model->state == PRY_BREAKER_OPEN && now >= model->until)
    model_change(model, PRY_BREAKER_HALF_OPEN);
  unsigned places = 0;
  for (unsigned j = 0; j < ATTEMPTS_MAX; j++) {
    struct model_attempt *attempt = &model->attempts[j];
    if (attempt->place && attempt->since + parameters->half_open_limit <= now)
      attempt->place = false;
    places += attempt->place;
  }
  if (model->state == PRY_BREAKER_OPEN || (model->state == PRY_BREAKER_HALF_OPEN && places >= parameters->permits))
    return false;
  model->attempts[i] = (struct model_attempt){
      .open = true, .era = model->era, .since = now, .place = model->state == PRY_BREAKER_HALF_OPEN};
  return true;
}

static void model_record(struct model *model, const struct pry_breaker_parameters *parameters, pry_time now, unsigned i,
                         bool success, pry_time at_least)
{
  struct model_attempt *attempt = &model->attempts[i];
  if (!attempt->open || attempt->recorded)
    return;
  attempt->recorded = true;
  attempt->place = false;
  pry_time end = now + (parameters->cooldown > at_least ? parameters->cooldown : at_least);
  if (attempt->era != model->era) {
    if (model->state == PRY_BREAKER_OPEN && !success && at_least && now + at_least > model->until)
      model->until = now + at_least;
  } else if (model->state == PRY_BREAKER_HALF_OPEN && success) {
    if (++model->successes == parameters->successes)
      model_change(model, PRY_BREAKER_CLOSED);
  } else if (success) {
    model->failures = 0;
  } else if (model->state == PRY_BREAKER_HALF_OPEN || ++model->failures == parameters->failures) {
    model_change(model, PRY_BREAKER_OPEN);
    model->until = end;
  }
}

static void test_random_against_model(void **state)
{
  (void)state;
  unsigned visited[3] = {0};
  for (unsigned seed = 1; seed <= 40; seed++) {
    srandom(seed);
    struct world *world = new_world((struct pry_breaker_parameters){
        1 + (unsigned)random() % 4, 1 + (unsigned)random() % 3, 1 + (unsigned)random() % 3, 5 * PRY_SECOND,
        .half_open_limit = (1 + random() % 10) * PRY_SECOND});
    struct model *model = calloc(1, sizeof *model);
    for (int step = 0; step < 5000; step++) {
      unsigned i = (unsigned)random() % ATTEMPTS_MAX;
      bool success = random() % 3 != 0, changed;
      pry_time at_least = random() % 8 ? 0 : random() % 20 * PRY_SECOND;
      enum pry_breaker_state before = model->state;
      switch (random() % 4) {
      case 0:
        world->now += random() % (3 * PRY_SECOND);
        break;
      case 1:
        pry_permits_release(&world->permits[i]);
        model->attempts[i] = (struct model_attempt){0};
        assert_int_equal(enter(world, i).allowed, model_enter(model, &world->parameters, world->now, i));
        break;
      case 2:
        model_record(model, &world->parameters, world->now, i, success, at_least);
        assert_int_equal(record(world, i, success, at_least, &changed), model->state);
        assert_int_equal(changed, model->state != before);
        break;
      default:
        pry_permits_release(&world->permits[i]);
        model->attempts[i] = (struct model_attempt){0};
      }
      pry_time retry_in, expected = model->state == PRY_BREAKER_OPEN ? model->until - world->now : 0;
      assert_int_equal(peek(world, &retry_in), model->state);
      assert_int_equal(retry_in, expected > 0 ? expected : 0);
      visited[model->state]++;
    }
    free(model);
    free_world(world);
  }
  for (int i = 0; i < 3; i++)
    assert_true(visited[i] > 1000); /* the walk must have been everywhere */
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_scripts),
      cmocka_unit_test(test_several_permits),
      cmocka_unit_test(test_ratio_of_failures),
      cmocka_unit_test(test_row_and_ratio_together),
      cmocka_unit_test(test_ratio_of_slow_successes),
      cmocka_unit_test(test_growing_cooldown),
      cmocka_unit_test(test_no_room_for_a_window),
      cmocka_unit_test(test_parameters_come_with_each_call),
      cmocka_unit_test(test_unknown_key),
      cmocka_unit_test(test_full_store),
      cmocka_unit_test(test_exactly_the_permits_get_through),
      cmocka_unit_test(test_each_breaker),
      cmocka_unit_test(test_random_against_model),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
