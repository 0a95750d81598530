#include "queue.h"

#include "table.h"

#include <pthread.h>
#include <stdlib.h>

enum { WAITING_DEFAULT = 1024, TOTAL_DEFAULT = 65536 };

/* A key that somebody holds or waits for. */
struct pry_queue {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_queue_set *set;
  struct pry_list line;    /* of waiters, first come first */
  struct pry_list starved; /* in the set's list while a place is free and only stuck workers wait */
  size_t slots, held, waiting;
  char key[];
};

struct pry_queue_set {
  pthread_mutex_t lock;
  struct pry_table table;
  struct pry_list coming;  /* waiters whose grants are on their way, first granted first */
  struct pry_list starved; /* queues, first starved first: a table's order would differ from run to run */
  size_t max_waiting, max_total, waiting;
  bool abandoned; /* freed by its owner; the last permit frees it */
};

struct place {
  struct pry_permit permit;
  struct pry_queue *queue; /* lives while any of its places is held */
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
  pthread_mutex_init(&set->lock, NULL); /* cannot fail without attributes on Linux */
  if (!pry_table_init(&set->table)) {
    free_set(set);
    return NULL;
  }
  return set;
}

void pry_queue_set_free(struct pry_queue_set *set)
{
  if (!set)
    return;
  pthread_mutex_lock(&set->lock);
  bool unused = set->table.count == 0;
  set->abandoned = true;
  pthread_mutex_unlock(&set->lock);
  if (unused)
    free_set(set);
}

static struct pry_queue *find_queue(struct pry_queue_set *set, struct pry_slice key)
{
  struct pry_table_node *node = pry_table_find(&set->table, key);
  return node ? PRY_CONTAINER_OF(node, struct pry_queue, node) : NULL;
}

static struct pry_queue *find_or_make_queue(struct pry_queue_set *set, struct pry_slice key)
{
  struct pry_queue *queue = find_queue(set, key);
  if (queue)
    return queue;
  queue = calloc(1, sizeof *queue + key.size);
  if (!queue)
    return NULL;
  if (key.size)
    memcpy(queue->key, key.data, key.size);
  queue->node.key = (struct pry_slice){queue->key, key.size};
  queue->set = set;
  pry_list_init(&queue->line);
  pry_list_init(&queue->starved);
  pry_table_add(&set->table, &queue->node);
  return queue;
}

static void forget_if_empty(struct pry_queue *queue)
{
  if (queue->held || queue->waiting)
    return;
  pry_table_remove(&queue->set->table, &queue->node);
  free(queue);
}

/* ---- the line ------------------------------------------------------------------------------------------ */

static void leave_line(struct pry_queue_waiter *waiter)
{
  pry_list_remove(&waiter->link);
  waiter->queue->waiting--;
  waiter->queue->set->waiting--;
}

/* Before `where`, which is a waiter's link or the line itself. */
static void join_line(struct pry_queue *queue, struct pry_list *where, struct pry_queue_waiter *waiter)
{
  pry_list_push(where, &waiter->link);
  queue->waiting++;
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

static void deliver_grant(struct pry_message *message)
{
  struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(message, struct pry_queue_waiter, grant);
  struct pry_permit *permit = waiter->permit;
  struct pry_queue_set *set = waiter->queue->set; /* lives: it has a place that is held */
  pthread_mutex_lock(&set->lock);
  pry_list_remove(&waiter->link);
  waiter->coming = false;
  waiter->queue = NULL;
  pthread_mutex_unlock(&set->lock);
  waiter->permit = NULL;
  waiter->granted(waiter, permit, waiter->user);
}

/* Hands free places to those in front. The permit was made when they joined: nothing here can fail. */
static void serve(struct pry_queue *queue)
{
  struct pry_queue_set *set = queue->set;
  struct pry_queue_waiter *next = NULL;
  while (queue->held < queue->slots && (next = first_that_turns(queue))) {
    leave_line(next);
    queue->held++;
    next->coming = true;
    pry_list_push(&set->coming, &next->link);
    pry_mailbox_post(next->mailbox, &next->grant);
  }
  bool starved = queue->held < queue->slots && queue->waiting;
  if (!starved)
    pry_list_remove(&queue->starved);
  else if (pry_list_empty(&queue->starved))
    pry_list_push(&set->starved, &queue->starved);
}

/* ---- places --------------------------------------------------------------------------------------------- */

/* True when this was the last that an abandoned set waited for. */
static bool give_back(struct pry_queue *queue)
{
  struct pry_queue_set *set = queue->set;
  queue->held--;
  serve(queue);
  forget_if_empty(queue);
  return set->abandoned && set->table.count == 0;
}

static void release_place(struct pry_permit *permit)
{
  struct place *place = PRY_CONTAINER_OF(permit, struct place, permit);
  struct pry_queue_set *set = place->queue->set;
  pthread_mutex_lock(&set->lock);
  bool last = give_back(place->queue);
  pthread_mutex_unlock(&set->lock);
  free(place);
  if (last)
    free_set(set);
}

static struct place *new_place(void)
{
  struct place *place = calloc(1, sizeof *place);
  if (!place)
    return NULL;
  pry_list_init(&place->permit.link);
  place->permit.release = release_place;
  return place;
}

static enum pry_queue_status enter(struct pry_queue *queue, struct pry_queue_waiter *waiter, struct place *place)
{
  struct pry_queue_set *set = queue->set;
  place->queue = queue;
  /* With a place free, those in line have just been served: who is left there is stuck. */
  if (queue->held < queue->slots && !waits(queue, waiter->mailbox)) {
    queue->held++;
    return PRY_QUEUE_GRANTED;
  }
  if (queue->waiting >= set->max_waiting || set->waiting >= set->max_total)
    return PRY_QUEUE_FULL;
  waiter->permit = &place->permit;
  waiter->queue = queue;
  join_line(queue, &queue->line, waiter);
  serve(queue);
  return PRY_QUEUE_WAITING;
}

enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_mailbox *mailbox, struct pry_slice key,
                                      unsigned slots, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_permit **permit)
{
  *permit = NULL;
  *waiter =
      (struct pry_queue_waiter){.grant.deliver = deliver_grant, .mailbox = mailbox, .granted = granted, .user = user};
  pry_list_init(&waiter->link);
  struct place *place = new_place();
  if (!place)
    return PRY_QUEUE_NO_MEMORY;
  pthread_mutex_lock(&set->lock);
  enum pry_queue_status status = PRY_QUEUE_NO_MEMORY;
  struct pry_queue *queue = find_or_make_queue(set, key);
  if (queue) {
    queue->slots = slots ? slots : 1;
    serve(queue);
    status = enter(queue, waiter, place);
    forget_if_empty(queue);
  }
  pthread_mutex_unlock(&set->lock);
  if (status == PRY_QUEUE_GRANTED)
    *permit = &place->permit;
  else if (status != PRY_QUEUE_WAITING)
    free(place);
  return status;
}

void pry_queue_leave(struct pry_queue_waiter *waiter)
{
  struct pry_queue *queue = waiter->queue;
  if (!queue)
    return;
  struct pry_queue_set *set = queue->set;
  bool last = false;
  pthread_mutex_lock(&set->lock);
  if (waiter->coming) {
    pry_mailbox_withdraw(waiter->mailbox, &waiter->grant); /* cannot be too late: this is the thread it goes to */
    pry_list_remove(&waiter->link);
    waiter->coming = false;
    last = give_back(queue);
  } else {
    leave_line(waiter);
    serve(queue); /* only to see whether it is starved any more */
    forget_if_empty(queue);
  }
  waiter->queue = NULL;
  pthread_mutex_unlock(&set->lock);
  free(PRY_CONTAINER_OF(waiter->permit, struct place, permit));
  waiter->permit = NULL;
  if (last)
    free_set(set);
}

/* ---- stuck workers -------------------------------------------------------------------------------------- */

/* A place that nobody had yet. */
static void take_back(struct pry_queue_waiter *waiter)
{
  struct pry_queue *queue = waiter->queue;
  pry_list_remove(&waiter->link);
  waiter->coming = false;
  join_line(queue, queue->line.next, waiter);
  queue->held--;
  serve(queue);
}

/* From the youngest grant to the oldest, so that of several in one line the oldest ends in front. What serve() adds
 * meanwhile comes behind and goes to others. */
void pry_queue_reclaim(struct pry_queue_set *set, struct pry_mailbox *mailbox)
{
  pthread_mutex_lock(&set->lock);
  pry_mailbox_set_stuck(mailbox, true);
  for (struct pry_list *link = set->coming.previous, *before; link != &set->coming; link = before) {
    struct pry_queue_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_queue_waiter, link);
    before = link->previous;
    if (waiter->mailbox == mailbox && pry_mailbox_withdraw(mailbox, &waiter->grant))
      take_back(waiter);
  }
  pthread_mutex_unlock(&set->lock);
}

void pry_queue_readmit(struct pry_queue_set *set, struct pry_mailbox *mailbox)
{
  struct pry_list starved;
  pry_list_init(&starved);
  pthread_mutex_lock(&set->lock);
  pry_mailbox_set_stuck(mailbox, false);
  while (!pry_list_empty(&set->starved)) { /* serve() puts back those that still are */
    struct pry_list *link = set->starved.next;
    pry_list_remove(link);
    pry_list_push(&starved, link);
  }
  while (!pry_list_empty(&starved)) {
    struct pry_queue *queue = PRY_CONTAINER_OF(starved.next, struct pry_queue, starved);
    pry_list_remove(&queue->starved);
    serve(queue);
  }
  pthread_mutex_unlock(&set->lock);
}

/* ---- figures -------------------------------------------------------------------------------------------- */

void pry_queue_count(struct pry_queue_set *set, struct pry_slice key, size_t *held, size_t *waiting)
{
  pthread_mutex_lock(&set->lock);
  const struct pry_queue *queue = find_queue(set, key);
  *held = queue ? queue->held : 0;
  *waiting = queue ? queue->waiting : 0;
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
