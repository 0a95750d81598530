#include "queue.h"

#include "table.h"

#include <pthread.h>
#include <stdlib.h>

enum { WAITING_DEFAULT = 1024, TOTAL_DEFAULT = 65536 };

/* A key that somebody holds or waits for. */
struct pry_queue {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_queue_set *set;
  struct pry_list line; /* of waiters, first come first */
  size_t slots, held, waiting;
  char key[];
};

struct pry_queue_set {
  pthread_mutex_t lock;
  struct pry_table table;
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

static void leave_line(struct pry_queue_waiter *waiter)
{
  pry_list_remove(&waiter->link);
  waiter->queue->waiting--;
  waiter->queue->set->waiting--;
}

static bool in_line(const struct pry_queue_waiter *waiter)
{
  return !pry_list_empty(&waiter->link);
}

static void grant(void *user)
{
  struct pry_queue_waiter *waiter = user;
  struct pry_permit *permit = waiter->permit;
  waiter->permit = NULL;
  waiter->queue = NULL;
  waiter->granted(waiter, permit, waiter->user);
}

/* Hands free places to those in front. The waiter's timer has been running since it joined, parked, and its permit is
 * ready: nothing here can fail. */
static void serve(struct pry_queue *queue)
{
  while (queue->held < queue->slots && queue->waiting) {
    struct pry_queue_waiter *first = PRY_CONTAINER_OF(queue->line.next, struct pry_queue_waiter, link);
    leave_line(first);
    queue->held++;
    pry_timer_start(first->loop, &first->grant_timer, 0, grant, first);
  }
}

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

static struct pry_permit *new_place(struct pry_queue *queue)
{
  struct place *place = calloc(1, sizeof *place);
  if (!place)
    return NULL;
  pry_list_init(&place->permit.link);
  place->permit.release = release_place;
  place->queue = queue;
  return &place->permit;
}

static enum pry_queue_status join_line(struct pry_queue *queue, struct pry_queue_waiter *waiter, struct pry_loop *loop,
                                       struct pry_permit *permit)
{
  struct pry_queue_set *set = queue->set;
  if (queue->waiting >= set->max_waiting || set->waiting >= set->max_total)
    return PRY_QUEUE_FULL;
  /* Parked now, so that it has its place in the loop's heap when the grant comes. */
  if (!pry_timer_start(loop, &waiter->grant_timer, PRY_TIME_NEVER, grant, waiter))
    return PRY_QUEUE_NO_MEMORY;
  waiter->loop = loop;
  waiter->permit = permit;
  waiter->queue = queue;
  pry_list_push(&queue->line, &waiter->link);
  queue->waiting++;
  set->waiting++;
  return PRY_QUEUE_WAITING;
}

static enum pry_queue_status enter(struct pry_queue *queue, struct pry_queue_waiter *waiter, struct pry_loop *loop,
                                   struct pry_permit **permit)
{
  struct pry_permit *place = new_place(queue);
  if (!place)
    return PRY_QUEUE_NO_MEMORY;
  if (queue->held < queue->slots) { /* then nobody is in line: they have just been served */
    queue->held++;
    *permit = place;
    return PRY_QUEUE_GRANTED;
  }
  enum pry_queue_status status = join_line(queue, waiter, loop, place);
  if (status != PRY_QUEUE_WAITING)
    free(PRY_CONTAINER_OF(place, struct place, permit));
  return status;
}

enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_loop *loop, struct pry_slice key,
                                      unsigned slots, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_permit **permit)
{
  *permit = NULL;
  *waiter = (struct pry_queue_waiter){.granted = granted, .user = user};
  pry_list_init(&waiter->link);
  pthread_mutex_lock(&set->lock);
  enum pry_queue_status status = PRY_QUEUE_NO_MEMORY;
  struct pry_queue *queue = find_or_make_queue(set, key);
  if (queue) {
    queue->slots = slots ? slots : 1;
    serve(queue);
    status = enter(queue, waiter, loop, permit);
    forget_if_empty(queue);
  }
  pthread_mutex_unlock(&set->lock);
  return status;
}

void pry_queue_leave(struct pry_queue_waiter *waiter)
{
  struct pry_queue *queue = waiter->queue;
  if (!queue)
    return;
  struct pry_queue_set *set = queue->set;
  pthread_mutex_lock(&set->lock);
  bool last = false;
  if (in_line(waiter)) {
    leave_line(waiter);
    forget_if_empty(queue);
  } else {
    last = give_back(queue);
  }
  pthread_mutex_unlock(&set->lock);
  pry_timer_cancel(&waiter->grant_timer);
  free(PRY_CONTAINER_OF(waiter->permit, struct place, permit));
  waiter->permit = NULL;
  waiter->queue = NULL;
  if (last)
    free_set(set);
}

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
