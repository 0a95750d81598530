/* Messages between workers: order, withdrawal, never from inside a post, and nothing lost between real threads. */
#include "worker_rig.h"

enum { NOTES_MAX = 32 };

struct world;

struct note {
  struct pry_message message;
  struct world *world;
  struct note *posts, *withdraws; /* when delivered */
  unsigned times;                 /* delivered */
};

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailbox, *other;
  struct note notes[NOTES_MAX];
  unsigned order[64], delivered;
  bool inside;
};

static void on_note(struct pry_message *message)
{
  struct note *note = PRY_CONTAINER_OF(message, struct note, message);
  struct world *world = note->world;
  assert_false(world->inside);
  note->times++;
  world->order[world->delivered++] = (unsigned)(note - world->notes);
  if (note->withdraws)
    assert_true(pry_mailbox_withdraw(world->mailbox, &note->withdraws->message));
  world->inside = true;
  if (note->posts)
    assert_true(pry_mailbox_post(world->mailbox, &note->posts->message));
  world->inside = false;
}

static struct world *new_world(void)
{
  struct world *world = calloc(1, sizeof *world);
  world->loop = pry_loop_new_virtual(0);
  world->mailbox = pry_mailbox_new(world->loop);
  world->other = pry_mailbox_new(world->loop);
  assert_non_null(world->other);
  assert_ptr_equal(pry_mailbox_loop(world->mailbox), world->loop);
  for (unsigned i = 0; i < NOTES_MAX; i++) {
    world->notes[i].world = world;
    world->notes[i].message.deliver = on_note;
  }
  return world;
}

static void free_world(struct world *world)
{
  pry_mailbox_free(world->mailbox);
  pry_mailbox_free(world->other);
  pry_loop_free(world->loop);
  free(world);
}

static bool post(struct world *world, unsigned i)
{
  world->inside = true;
  bool fresh = pry_mailbox_post(world->mailbox, &world->notes[i].message);
  world->inside = false;
  return fresh;
}

static void assert_order(struct world *world, const char *expected)
{
  char order[65] = "";
  for (unsigned i = 0; i < world->delivered; i++)
    order[i] = (char)('0' + world->order[i]);
  assert_string_equal(order, expected);
}

static void test_order(void **state)
{
  (void)state;
  struct world *world = new_world();
  for (unsigned i = 0; i < 4; i++)
    assert_true(post(world, 3 - i));
  assert_false(post(world, 3)); /* on its way: it keeps its place */
  pry_loop_turn(world->loop, 0);
  assert_order(world, "3210");
  assert_true(post(world, 2));
  pry_loop_turn(world->loop, 0);
  assert_order(world, "32102");
  assert_false(pry_loop_turn(world->loop, PRY_TIME_NEVER)); /* nothing left, and no time passed */
  assert_int_equal(pry_loop_now(world->loop), 0);
  free_world(world);
}

/* What a delivery posts comes in a later turn, whatever else is taken back meanwhile: the place of a message that was
 * withdrawn was once given to the next that was posted, in the same turn. */
static void test_posted_while_delivering(void **state)
{
  (void)state;
  struct world *world = new_world();
  world->notes[0].posts = &world->notes[3];
  world->notes[0].withdraws = &world->notes[1];
  world->notes[3].posts = &world->notes[3]; /* for ever */
  for (unsigned i = 0; i < 3; i++)
    post(world, i);
  pry_loop_turn(world->loop, 0);
  assert_order(world, "02");
  for (int i = 0; i < 3; i++)
    pry_loop_turn(world->loop, 0);
  assert_order(world, "02333");
  free_world(world); /* with one on its way */
}

static void test_withdraw(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_false(pry_mailbox_withdraw(world->mailbox, &world->notes[0].message)); /* never posted */
  for (unsigned i = 0; i < 3; i++)
    post(world, i);
  assert_true(pry_mailbox_withdraw(world->mailbox, &world->notes[1].message));
  assert_false(pry_mailbox_withdraw(world->mailbox, &world->notes[1].message));
  assert_true(post(world, 1)); /* at the end now */
  pry_loop_turn(world->loop, 0);
  assert_order(world, "021");
  assert_false(pry_mailbox_withdraw(world->mailbox, &world->notes[0].message)); /* delivered */
  post(world, 0);
  pry_mailbox_withdraw(world->mailbox, &world->notes[0].message);
  pry_loop_turn(world->loop, 0);
  assert_true(post(world, 4)); /* an empty mailbox that was announced is announced again */
  pry_loop_turn(world->loop, 0);
  assert_order(world, "0214");
  free_world(world);
}

static void test_two_on_one_virtual_loop(void **state)
{
  (void)state;
  struct world *world = new_world();
  pry_mailbox_post(world->other, &world->notes[5].message);
  post(world, 1);
  pry_mailbox_post(world->other, &world->notes[6].message);
  pry_loop_turn(world->loop, 0);
  assert_order(world, "561");
  pry_mailbox_set_stuck(world->other, true);
  assert_true(pry_mailbox_is_stuck(world->other));
  assert_false(pry_mailbox_is_stuck(world->mailbox));
  pry_mailbox_set_stuck(world->other, false);
  assert_false(pry_mailbox_is_stuck(world->other));
  free_world(world);
}

static void test_free_forgets(void **state)
{
  (void)state;
  struct world *world = new_world();
  post(world, 0);
  post(world, 1);
  pry_mailbox_free(world->mailbox);
  world->mailbox = pry_mailbox_new(world->loop);
  pry_loop_turn(world->loop, 0);
  assert_int_equal(world->delivered, 0);
  assert_true(post(world, 1)); /* and the message can go again */
  pry_loop_turn(world->loop, 0);
  assert_order(world, "1");
  free_world(world);
  pry_mailbox_free(NULL);
}

/* ---- real threads --------------------------------------------------------------------------------------- */

enum { SENDERS = 4, LETTERS = 50, ROUNDS = 400 };

/* One of a sender's letters to worker 0. */
struct letter {
  struct pry_message message;
  struct sender *sender;
  unsigned number; /* of this posting, in the order of the sender's postings */
  atomic_bool free;
};

struct sender {
  pthread_t thread;
  struct pry_mailbox *to;
  struct letter letters[LETTERS];
  unsigned posted, withdrawn;
  /* the receiver's */
  unsigned received, last;
};

static void on_letter(struct pry_message *message)
{
  struct letter *letter = PRY_CONTAINER_OF(message, struct letter, message);
  struct sender *sender = letter->sender;
  RIG_CHECK(letter->number > sender->last); /* in the order of posting */
  sender->last = letter->number;
  sender->received++;
  atomic_store(&letter->free, true);
}

static void *send_letters(void *user)
{
  struct sender *sender = user;
  for (unsigned round = 0; round < ROUNDS; round++) {
    for (unsigned i = 0; i < LETTERS; i++) {
      struct letter *letter = &sender->letters[i];
      while (!atomic_load(&letter->free))
        sched_yield();
      atomic_store(&letter->free, false);
      letter->number = ++sender->posted;
      RIG_CHECK(pry_mailbox_post(sender->to, &letter->message));
    }
    /* The answer decides whose it is: taken back here, or delivered there. */
    struct letter *last = &sender->letters[LETTERS - 1];
    if (pry_mailbox_withdraw(sender->to, &last->message)) {
      sender->withdrawn++;
      atomic_store(&last->free, true);
    }
  }
  return NULL;
}

static void test_real_threads(void **state)
{
  (void)state;
  struct rig_worker worker;
  static struct sender senders[SENDERS];
  memset(senders, 0, sizeof senders);
  rig_make(&worker, 1);
  rig_go(&worker, 1);
  for (unsigned i = 0; i < SENDERS; i++) {
    senders[i].to = worker.mailbox;
    for (unsigned j = 0; j < LETTERS; j++) {
      struct letter *letter = &senders[i].letters[j];
      *letter = (struct letter){.message.deliver = on_letter, .sender = &senders[i]};
      atomic_init(&letter->free, true);
    }
    assert_int_equal(pthread_create(&senders[i].thread, NULL, send_letters, &senders[i]), 0);
  }
  for (unsigned i = 0; i < SENDERS; i++)
    pthread_join(senders[i].thread, NULL);
  for (unsigned i = 0; i < SENDERS; i++)
    for (unsigned j = 0; j < LETTERS; j++)
      while (!atomic_load(&senders[i].letters[j].free))
        sched_yield();
  rig_end(&worker, 1);
  for (unsigned i = 0; i < SENDERS; i++) {
    assert_int_equal(senders[i].posted, LETTERS * ROUNDS);
    assert_int_equal(senders[i].received + senders[i].withdrawn, senders[i].posted);
  }
  rig_free(&worker, 1);
}

/* Two workers who answer each other, and each other's timers, go on side by side. */
struct rally {
  struct pry_message ball[2];
  struct rig_worker *workers;
  unsigned hits; /* whoever has the ball has this */
  atomic_bool over;
};

static void hit(struct rally *rally, unsigned to)
{
  if (++rally->hits == 10000)
    atomic_store(&rally->over, true);
  else
    RIG_CHECK(pry_mailbox_post(rally->workers[to].mailbox, &rally->ball[to]));
}

static void hit_by_first(struct pry_message *message)
{
  hit(PRY_CONTAINER_OF(message, struct rally, ball[0]), 1);
}

static void hit_by_second(struct pry_message *message)
{
  hit(PRY_CONTAINER_OF(message, struct rally, ball[1]), 0);
}

static void test_rally(void **state)
{
  (void)state;
  struct rig_worker workers[2];
  struct rally rally = {.workers = workers, .ball = {{.deliver = hit_by_first}, {.deliver = hit_by_second}}};
  rig_make(workers, 2);
  rig_go(workers, 2);
  pry_mailbox_post(workers[0].mailbox, &rally.ball[0]);
  while (!atomic_load(&rally.over))
    sched_yield();
  rig_end(workers, 2);
  assert_int_equal(rally.hits, 10000);
  rig_free(workers, 2);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_order),        cmocka_unit_test(test_posted_while_delivering),
      cmocka_unit_test(test_withdraw),     cmocka_unit_test(test_two_on_one_virtual_loop),
      cmocka_unit_test(test_free_forgets), cmocka_unit_test(test_real_threads),
      cmocka_unit_test(test_rally),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
