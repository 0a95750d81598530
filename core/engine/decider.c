#include "decider.h"

#include "engine.h"

enum { ROUNDS_MAX = 4 };

static void look_inside(struct pry_message *message)
{
  pry_decider_look(PRY_CONTAINER_OF(message, struct pry_worker, entry.look));
}

/* The poster may hold a lock, so nothing is delivered here. */
static void announced(void *user)
{
  struct pry_worker *worker = user;
  atomic_fetch_or(&worker->entry.wanted, 1);
  pry_mailbox_post(worker->engine->workers[0]->mailbox, &worker->entry.look);
}

void pry_decider_entry_init(struct pry_worker *worker)
{
  struct pry_entry *entry = &worker->entry;
  pthread_mutex_init(&entry->lock, NULL); /* cannot fail without attributes on Linux */
  atomic_init(&entry->wanted, 0);
  entry->look.deliver = look_inside;
  pry_list_init(&entry->beginnings);
  worker->mailbox = pry_mailbox_new_collected(announced, worker);
}

static void set_clock(struct pry_worker *worker)
{
  worker->entry.now = pry_loop_clock(worker->loop);
  worker->entry.unix_time = pry_loop_unix_time(worker->loop);
}

void pry_decider_enter(struct pry_worker *worker)
{
  pthread_mutex_lock(&worker->entry.lock);
  set_clock(worker);
  pry_worker_adopt(worker);
}

bool pry_decider_try_enter(struct pry_worker *worker)
{
  if (pthread_mutex_trylock(&worker->entry.lock) != 0)
    return false;
  set_clock(worker);
  pry_worker_adopt(worker);
  return true;
}

static void begin_all(struct pry_worker *worker)
{
  while (!pry_list_empty(&worker->entry.beginnings)) {
    struct pry_message *message = PRY_CONTAINER_OF(worker->entry.beginnings.next, struct pry_message, link);
    pry_list_remove(&message->link);
    pry_mailbox_post(worker->engine->control->mailbox, message);
  }
}

/* The mark is a read-modify-write on both sides: who sets it after this one read it finds the lock free, and who set it
 * before is seen here. So nothing stays in the mailbox with nobody to deliver it. */
void pry_decider_leave(struct pry_worker *worker)
{
  struct pry_entry *entry = &worker->entry;
  for (int round = 1;; round++) {
    if (atomic_load_explicit(&entry->wanted, memory_order_relaxed) && atomic_exchange(&entry->wanted, 0)) {
      set_clock(worker);
      pry_mailbox_collect(worker->mailbox);
    }
    begin_all(worker);
    pthread_mutex_unlock(&entry->lock);
    if (!atomic_fetch_or(&entry->wanted, 0))
      return;
    if (round == ROUNDS_MAX) { /* who asked has waited long enough for others */
      pry_mailbox_post(worker->engine->control->mailbox, &entry->look);
      return;
    }
    if (pthread_mutex_trylock(&entry->lock) != 0)
      return; /* that one will see it */
  }
}

void pry_decider_look(struct pry_worker *worker)
{
  if (atomic_load(&worker->entry.wanted) && pry_decider_try_enter(worker))
    pry_decider_leave(worker);
}

void pry_decider_begin(struct pry_worker *worker, struct pry_message *message)
{
  pry_list_push(&worker->entry.beginnings, &message->link);
}

void pry_decider_forget(struct pry_worker *worker, struct pry_message *message)
{
  if (!pry_mailbox_withdraw(worker->engine->control->mailbox, message) && message->link.next)
    pry_list_remove(&message->link);
}
