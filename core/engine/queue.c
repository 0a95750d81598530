#include "queue.h"

#include "table.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { WAITING_DEFAULT = 1024, TOTAL_DEFAULT = 65536, KEYS_MAX = 100000, PLACES_MAX = 1000000, SWEEP_AT_ONCE = 1024 };

/* A key that somebody holds or waits for, or whose gate remembers something. */
struct pry_queue {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_queue_set *set;
  struct pry_gate gate;
  struct pry_list line;    /* of waiters, first come first */
  struct pry_list starved; /* in the set's list while only stuck workers wait */
  struct pry_list timed;   /* in the set's list while the first in line was told when to look */
  struct pry_list resting; /* in the set's list while nobody is there, but something is remembered */
  size_t waiting;
  double waiting_cost;
  char key[];
};

struct pry_queue_set {
  pthread_mutex_t lock;
  struct pry_table table;
  struct pry_list coming;  /* waiters whose grants are on their way, first granted first */
  struct pry_list starved; /* queues, first starved first: a table's order would differ from run to run */
  struct pry_list timed, resting;
  size_t max_waiting, max_total, waiting;
  size_t places;  /* in anybody's hands, or remembered */
  bool abandoned; /* freed by its owner; the last permit frees it */
};

struct place {
  struct pry_permit permit;
  struct pry_gate_place gate;
  struct pry_queue *queue; /* lives while any of its places is held */
  const struct pry_loop *clock;
};

static void free_set(struct pry_queue_set *set)
{
  pry_table_fini(&set->table);
  pthread_mutex_destroy(&set->lock);
  free(set);
}

struct pry_queue_set *pry_queue_set_new(size_t max_waiting, size_t max_total)
{
  struct pry_queue_set *set = calloc(1, sizeof *set);
  if (!set)
    return NULL;
  set->max_waiting = max_waiting ? max_waiting : WAITING_DEFAULT;
  set->max_total = max_total ? max_total : TOTAL_DEFAULT;
  pry_list_init(&set->coming);
  pry_list_init(&set->starved);
  pry_list_init(&set->timed);
  pry_list_init(&set->resting);
  pthread_mutex_init(&set->lock, NULL); /* cannot fail without attributes on Linux */
  if (!pry_table_init(&set->table)) {
    free_set(set);
    return NULL;
  }
  return set;
}

/* ---- keys ---------------------------------------------------------------------------------------------- */

static void free_place(struct pry_queue_set *set, struct pry_gate_place *place)
{
  set->places--;
  free(PRY_CONTAINER_OF(place, struct place, gate));
}

static void forget_expired(struct pry_queue *queue, pry_time now)
{
  struct pry_gate_place *place;
  while ((place = pry_gate_expired(&queue->gate, now)))
    free_place(queue->set, place);
}

static void free_queue(struct pry_queue *queue)
{
  struct pry_gate_place *place;
  while ((place = pry_gate_forget(&queue->gate)))
    free_place(queue->set, place);
  pry_list_remove(&queue->starved);
  pry_list_remove(&queue->timed);
  pry_list_remove(&queue->resting);
  pry_table_remove(&queue->set->table, &queue->node);
  free(queue);
}

static void forget_if_empty(struct pry_queue *queue, pry_time now)
{
  if (queue->gate.inside || queue->waiting)
    return;
  forget_expired(queue, now);
  if (queue->set->abandoned || pry_gate_is_idle(&queue->gate, now))
    free_queue(queue);
  else if (pry_list_empty(&queue->resting))
    pry_list_push(&queue->set->resting, &queue->resting);
}

/* In turns: those that go on remembering come last next time. */
static void sweep(struct pry_queue_set *set, pry_time now)
{
  struct pry_list *last = set->resting.previous, *link = set->resting.next;
  for (unsigned i = 0; i < SWEEP_AT_ONCE && link != &set->resting; i++) {
    struct pry_queue *queue = PRY_CONTAINER_OF(link, struct pry_queue, resting);
    bool was_last = link == last;
    pry_list_remove(link);
    forget_if_empty(queue, now);
    if (was_last)
      return;
    link = set->resting.next;
  }
}

void pry_queue_sweep(struct pry_queue_set *set, pry_time now)
{
  pthread_mutex_lock(&set->lock);
  sweep(set, now);
  pthread_mutex_unlock(&set->lock);
}

static struct pry_queue *find_queue(struct pry_queue_set *set, struct pry_slice key)
{
  struct pry_table_node *node = pry_table_find(&set->table, key);
  return node ? PRY_CONTAINER_OF(node, struct pry_queue, node) : NULL;
}

/* Only windows remember more than there are calls. */
static bool has_room(struct pry_queue_set *set, bool is_window, pry_time now)
{
  if (set->table.count >= KEYS_MAX || set->places >= PLACES_MAX)
    sweep(set, now);
  return set->table.count < KEYS_MAX && (set->places < PLACES_MAX || !is_window);
}

static struct pry_queue *find_or_make_queue(struct pry_queue_set *set, struct pry_slice key)
{
  struct pry_queue *queue = find_queue(set, key);
  if (queue) {
    pry_list_remove(&queue->resting);
    return queue;
  }
  queue = calloc(1, sizeof *queue + key.size);
  if (!queue)
    return NULL;
  if (key.size)
    memcpy(queue->key, key.data, key.size);
  queue->node.key = (struct pry_slice){queue->key, key.size};
  queue->set = set;
  pry_gate_init(&queue->gate);
  pry_list_init(&queue->line);
  pry_list_init(&queue->starved);
  pry_list_init(&queue->timed);
  pry_list_init(&queue->resting);
  pry_table_add(&set->table, &queue->node);
  return queue;
}

void pry_queue_set_free(struct pry_queue_set *set)
{
  if (!set)
    return;
  pthread_mutex_lock(&set->lock);
  while (!pry_list_empty(&set->resting))
    free_queue(PRY_CONTAINER_OF(set->resting.next, struct pry_queue, resting));
  bool unused = set->table.count == 0;
  set->abandoned = true;
  pthread_mutex_unlock(&set->lock);
  if (unused)
    free_set(set);
}

/* ---- the line ------------------------------------------------------------------------------------------ */

static void leave_line(struct pry_queue_waiter *waiter)
{
  struct pry_queue *queue = waiter->queue;
  pry_list_remove(&waiter->link);
  queue->waiting--;
  queue->waiting_cost = queue->waiting ? queue->waiting_cost - waiter->cost : 0;
  queue->set->waiting--;
}

/* Before `where`, which is a waiter's link or the line itself. */
static void join_line(struct pry_queue *queue, struct pry_list *where, struct pry_queue_waiter *waiter)
{
  pry_list_push(where, &waiter->link);
  waiter->look_at = PRY_TIME_NEVER;
  queue->waiting++;
  queue->waiting_cost += waiter->cost;
  queue->set->waiting++;
}

static struct pry_queue_waiter *first_that_turns(const struct pry_queue *queue)
{
  for (struct pry_list *link = queue->line.next; link != &queue->line; link = link->next) {
    struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_queue_waiter, link);
    if (!pry_mailbox_is_stuck(waiter->mailbox))
      return waiter;
  }
  return NULL;
}

/* Somebody of this worker is in line. */
static bool waits(const struct pry_queue *queue, const struct pry_mailbox *mailbox)
{
  for (struct pry_list *link = queue->line.next; link != &queue->line; link = link->next)
    if (PRY_CONTAINER_OF(link, struct pry_queue_waiter, link)->mailbox == mailbox)
      return true;
  return false;
}

static void leave_set(struct pry_queue_waiter *waiter)
{
  waiter->coming = false;
  waiter->queue = NULL;
  waiter->set = NULL;
  waiter->permit = NULL;
}

static pry_time clock_of(const struct pry_queue_waiter *waiter)
{
  return pry_loop_clock(pry_mailbox_loop(waiter->mailbox));
}

static struct place *place_of(const struct pry_queue_waiter *waiter)
{
  return PRY_CONTAINER_OF(waiter->permit, struct place, permit);
}

/* ---- grants -------------------------------------------------------------------------------------------- */

/* Puts a queue into a list of its set, or takes it out. */
static void enlist(struct pry_list *list, struct pry_list *link, bool belongs)
{
  if (!belongs)
    pry_list_remove(link);
  else if (pry_list_empty(link))
    pry_list_push(list, link);
}

/* Lets those in front in. Their places were made when they joined: nothing here can fail. */
static void serve(struct pry_queue *queue, pry_time now)
{
  struct pry_queue_set *set = queue->set;
  struct pry_queue_waiter *next;
  pry_time due = PRY_TIME_NEVER;
  forget_expired(queue, now);
  while ((next = first_that_turns(queue)) && (due = pry_gate_due(&queue->gate, next->cost, now)) <= now) {
    leave_line(next);
    pry_gate_take(&queue->gate, &place_of(next)->gate, next->cost);
    next->coming = true;
    pry_list_push(&set->coming, &next->link);
    pry_mailbox_post(next->mailbox, &next->grant);
  }
  if (next && due < next->look_at) {
    next->look_at = due;
    pry_mailbox_post(next->mailbox, &next->grant); /* its timer is its own thread's to start */
  }
  enlist(&set->timed, &queue->timed, next && due != PRY_TIME_NEVER);
  enlist(&set->starved, &queue->starved, !next && queue->waiting);
}

static void look_again(void *user)
{
  struct pry_queue_waiter *waiter = user;
  struct pry_queue_set *set = waiter->set;
  pthread_mutex_lock(&set->lock);
  waiter->look_at = PRY_TIME_NEVER;
  if (waiter->queue)
    serve(waiter->queue, clock_of(waiter));
  pthread_mutex_unlock(&set->lock);
}

/* A grant, that it will be none, or the time to look again. */
static void deliver_word(struct pry_message *message)
{
  struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(message, struct pry_queue_waiter, grant);
  struct pry_permit *permit = NULL;
  struct pry_queue_set *set = waiter->set;
  pthread_mutex_lock(&set->lock);
  bool over = waiter->coming || !waiter->queue;
  if (over) {
    if (waiter->coming)
      permit = waiter->permit;
    else
      free_place(set, &place_of(waiter)->gate);
    pry_list_remove(&waiter->link);
    leave_set(waiter);
    pry_mailbox_withdraw(waiter->mailbox, &waiter->grant); /* this overtook the word about the time */
  } else if (waiter->look_at != PRY_TIME_NEVER) {
    struct pry_loop *loop = pry_mailbox_loop(waiter->mailbox);
    pry_time now = pry_loop_now(loop);
    pry_timer_start(loop, &waiter->timer, waiter->look_at > now ? waiter->look_at - now : 0, look_again, waiter);
  }
  pthread_mutex_unlock(&set->lock);
  if (!over)
    return;
  pry_timer_cancel(&waiter->timer);
  waiter->granted(waiter, permit, waiter->user);
}

/* ---- places --------------------------------------------------------------------------------------------- */

/* Frees the place, unless a window remembers it. True when this was the last that an abandoned set waited for. */
static bool give_back(struct place *place)
{
  struct pry_queue *queue = place->queue;
  struct pry_queue_set *set = queue->set;
  pry_time now = set->abandoned ? 0 : pry_loop_clock(place->clock);
  if (pry_gate_leave(&queue->gate, &place->gate, now))
    free_place(set, &place->gate);
  serve(queue, now);
  forget_if_empty(queue, now);
  return set->abandoned && set->table.count == 0;
}

static void release_place(struct pry_permit *permit)
{
  struct place *place = PRY_CONTAINER_OF(permit, struct place, permit);
  struct pry_queue_set *set = place->queue->set;
  pthread_mutex_lock(&set->lock);
  bool last = give_back(place);
  pthread_mutex_unlock(&set->lock);
  if (last)
    free_set(set);
}

static void place_sent(struct pry_permit *permit)
{
  struct place *place = PRY_CONTAINER_OF(permit, struct place, permit);
  struct pry_queue *queue = place->queue;
  struct pry_queue_set *set = queue->set;
  pthread_mutex_lock(&set->lock);
  if (!set->abandoned) {
    pry_time now = pry_loop_clock(place->clock);
    pry_gate_sent(&queue->gate, &place->gate, now);
    serve(queue, now); /* now it is known when the place comes back */
  }
  pthread_mutex_unlock(&set->lock);
}

static struct place *new_place(const struct pry_loop *clock)
{
  struct place *place = calloc(1, sizeof *place);
  if (!place)
    return NULL;
  pry_list_init(&place->permit.link);
  pry_list_init(&place->gate.link);
  place->permit.release = release_place;
  place->permit.sent = place_sent;
  place->clock = clock;
  return place;
}

/* ---- entering ------------------------------------------------------------------------------------------- */

static enum pry_queue_status enter(struct pry_queue *queue, const struct pry_queue_rule *rule,
                                   struct pry_queue_waiter *waiter, struct place *place, pry_time now,
                                   pry_time *retry_in)
{
  struct pry_queue_set *set = queue->set;
  place->queue = queue;
  /* Those in line have just been served: who is left waits for the gate, or is stuck. */
  if (!first_that_turns(queue) && !waits(queue, waiter->mailbox) &&
      pry_gate_due(&queue->gate, waiter->cost, now) <= now) {
    pry_gate_take(&queue->gate, &place->gate, waiter->cost);
    return PRY_QUEUE_GRANTED;
  }
  pry_time wait = pry_gate_estimate(&queue->gate, queue->waiting, queue->waiting_cost, waiter->cost, now) - now;
  *retry_in = wait > 0 ? wait : -1;
  if (wait > rule->longest || !rule->longest)
    return PRY_QUEUE_LATE;
  if (queue->waiting >= set->max_waiting || set->waiting >= set->max_total ||
      (rule->max_waiting >= 0 && queue->waiting >= (size_t)rule->max_waiting))
    return PRY_QUEUE_FULL;
  waiter->permit = &place->permit;
  waiter->set = set;
  waiter->queue = queue;
  waiter->until = rule->longest < PRY_TIME_NEVER - now ? now + rule->longest : PRY_TIME_NEVER;
  join_line(queue, &queue->line, waiter);
  serve(queue, now);
  return PRY_QUEUE_WAITING;
}

enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_mailbox *mailbox, struct pry_slice key,
                                      const struct pry_queue_rule *rule, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_queue_answer *answer)
{
  *answer = (struct pry_queue_answer){.retry_in = -1};
  *waiter = (struct pry_queue_waiter){.grant.deliver = deliver_word,
                                      .mailbox = mailbox,
                                      .granted = granted,
                                      .user = user,
                                      .cost = rule->cost > 0 ? rule->cost : 1,
                                      .look_at = PRY_TIME_NEVER};
  pry_list_init(&waiter->link);
  struct place *place = new_place(pry_mailbox_loop(mailbox));
  if (!place)
    return PRY_QUEUE_NO_MEMORY;
  pthread_mutex_lock(&set->lock);
  pry_time now = clock_of(waiter);
  enum pry_queue_status status = has_room(set, rule->gate.limit, now) ? PRY_QUEUE_NO_MEMORY : PRY_QUEUE_FULL;
  struct pry_queue *queue = status == PRY_QUEUE_FULL ? NULL : find_or_make_queue(set, key);
  if (queue) {
    forget_expired(queue, now); /* by the old rule */
    pry_gate_set(&queue->gate, &rule->gate, now);
    serve(queue, now);
    status = enter(queue, rule, waiter, place, now, &answer->retry_in);
    if (status == PRY_QUEUE_GRANTED || status == PRY_QUEUE_WAITING)
      set->places++;
    forget_if_empty(queue, now);
  }
  pthread_mutex_unlock(&set->lock);
  if (status == PRY_QUEUE_GRANTED)
    answer->permit = &place->permit;
  else if (status != PRY_QUEUE_WAITING)
    free(place);
  return status;
}

void pry_queue_leave(struct pry_queue_waiter *waiter)
{
  struct pry_queue_set *set = waiter->set;
  if (!set)
    return;
  bool last = false;
  pry_timer_cancel(&waiter->timer);
  pthread_mutex_lock(&set->lock);
  struct pry_queue *queue = waiter->queue;
  pry_mailbox_withdraw(waiter->mailbox, &waiter->grant); /* cannot be too late: this is the thread it goes to */
  if (waiter->coming) {
    pry_list_remove(&waiter->link);
    last = give_back(place_of(waiter));
  } else if (!queue) {
    free_place(set, &place_of(waiter)->gate);
  } else {
    pry_time now = clock_of(waiter);
    leave_line(waiter);
    free_place(set, &place_of(waiter)->gate);
    serve(queue, now); /* somebody else is first, or nobody is starved any more */
    forget_if_empty(queue, now);
  }
  leave_set(waiter);
  pthread_mutex_unlock(&set->lock);
  if (last)
    free_set(set);
}

/* ---- stuck workers -------------------------------------------------------------------------------------- */

/* A place that nobody had yet. */
static void take_back(struct pry_queue_waiter *waiter, pry_time now)
{
  struct pry_queue *queue = waiter->queue;
  pry_list_remove(&waiter->link);
  waiter->coming = false;
  join_line(queue, queue->line.next, waiter);
  pry_gate_leave(&queue->gate, &place_of(waiter)->gate, now); /* nothing was sent: it remembers nothing */
  serve(queue, now);
}

/* Empties a list of queues, first to last, into another. */
static void move_all(struct pry_list *from, struct pry_list *to)
{
  pry_list_init(to);
  while (!pry_list_empty(from)) {
    struct pry_list *link = from->next;
    pry_list_remove(link);
    pry_list_push(to, link);
  }
}

/* From the youngest grant to the oldest, so that of several in one line the oldest ends in front. What serve() adds
 * meanwhile comes behind and goes to others. Then those before gates that time opens: whoever looked may be stuck. */
void pry_queue_reclaim(struct pry_queue_set *set, struct pry_mailbox *mailbox)
{
  struct pry_list timed;
  pthread_mutex_lock(&set->lock);
  pry_time now = pry_loop_clock(pry_mailbox_loop(mailbox));
  pry_mailbox_set_stuck(mailbox, true);
  for (struct pry_list *link = set->coming.previous, *before; link != &set->coming; link = before) {
    struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_queue_waiter, link);
    before = link->previous;
    if (waiter->mailbox == mailbox && pry_mailbox_withdraw(mailbox, &waiter->grant))
      take_back(waiter, now);
  }
  move_all(&set->timed, &timed);
  while (!pry_list_empty(&timed)) {
    struct pry_queue *queue = PRY_CONTAINER_OF(timed.next, struct pry_queue, timed);
    pry_list_remove(&queue->timed);
    serve(queue, now);
  }
  pthread_mutex_unlock(&set->lock);
}

void pry_queue_readmit(struct pry_queue_set *set, struct pry_mailbox *mailbox)
{
  struct pry_list starved;
  pthread_mutex_lock(&set->lock);
  pry_time now = pry_loop_clock(pry_mailbox_loop(mailbox));
  pry_mailbox_set_stuck(mailbox, false);
  move_all(&set->starved, &starved); /* serve() puts back those that still are */
  while (!pry_list_empty(&starved)) {
    struct pry_queue *queue = PRY_CONTAINER_OF(starved.next, struct pry_queue, starved);
    pry_list_remove(&queue->starved);
    serve(queue, now);
  }
  pthread_mutex_unlock(&set->lock);
}

/* ---- what a provider said ------------------------------------------------------------------------------- */

/* Nobody passes before `opens`: whoever does not wait so long need not wait at all. */
static void dismiss_late(struct pry_queue *queue, pry_time opens, pry_time now)
{
  struct pry_list *next;
  for (struct pry_list *link = queue->line.next; link != &queue->line; link = next) {
    struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_queue_waiter, link);
    next = link->next;
    if (waiter->until >= opens)
      continue;
    leave_line(waiter);
    waiter->queue = NULL;
    pry_mailbox_post(waiter->mailbox, &waiter->grant);
  }
  serve(queue, now);
  forget_if_empty(queue, now);
}

bool pry_queue_pause(struct pry_queue_set *set, struct pry_slice key, pry_time until, pry_time now)
{
  pthread_mutex_lock(&set->lock);
  struct pry_queue *queue = has_room(set, false, now) ? find_or_make_queue(set, key) : NULL;
  if (queue) {
    pry_gate_pause(&queue->gate, until, now);
    dismiss_late(queue, queue->gate.paused_until, now);
  }
  pthread_mutex_unlock(&set->lock);
  return queue;
}

bool pry_queue_allow(struct pry_queue_set *set, struct pry_slice key, double remaining, pry_time reset, pry_time now)
{
  pthread_mutex_lock(&set->lock);
  struct pry_queue *queue = has_room(set, false, now) ? find_or_make_queue(set, key) : NULL;
  if (queue) {
    pry_gate_allow(&queue->gate, remaining, reset, now);
    dismiss_late(queue, queue->gate.allowed > 0 ? now : queue->gate.allowed_until, now);
  }
  pthread_mutex_unlock(&set->lock);
  return queue;
}

bool pry_queue_spend(struct pry_queue_set *set, struct pry_slice key, double tokens, pry_time now)
{
  pthread_mutex_lock(&set->lock);
  struct pry_queue *queue = find_queue(set, key);
  if (queue) {
    pry_gate_spend(&queue->gate, tokens, now);
    serve(queue, now);
  }
  pthread_mutex_unlock(&set->lock);
  return true;
}

/* ---- figures -------------------------------------------------------------------------------------------- */

void pry_queue_look(struct pry_queue_set *set, struct pry_slice key, pry_time now, struct pry_queue_state *state)
{
  *state = (struct pry_queue_state){.available = HUGE_VAL};
  pthread_mutex_lock(&set->lock);
  struct pry_queue *queue = find_queue(set, key);
  if (queue) {
    forget_expired(queue, now);
    state->held = queue->gate.inside;
    state->waiting = queue->waiting;
    state->available = pry_gate_available(&queue->gate, now);
    state->next_in = pry_gate_estimate(&queue->gate, queue->waiting, queue->waiting_cost, 1, now) - now;
    state->paused = queue->gate.paused_until > now ? queue->gate.paused_until - now : 0;
  }
  pthread_mutex_unlock(&set->lock);
}

size_t pry_queue_waiting_total(struct pry_queue_set *set)
{
  pthread_mutex_lock(&set->lock);
  size_t waiting = set->waiting;
  pthread_mutex_unlock(&set->lock);
  return waiting;
}

size_t pry_queue_key_count(struct pry_queue_set *set)
{
  pthread_mutex_lock(&set->lock);
  size_t count = set->table.count;
  pthread_mutex_unlock(&set->lock);
  return count;
}
