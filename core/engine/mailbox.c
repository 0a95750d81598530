#include "mailbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct pry_mailbox {
  struct pry_loop *loop; /* NULL: it is collected, and `announced` is told */
  void (*announced)(void *user);
  void *announced_user;
  pthread_mutex_t lock;
  struct pry_list messages; /* announced when the first came */
  struct pry_list arrived;  /* taken from there, to be delivered in this turn; still open to withdrawal */
  struct pry_timer timer;   /* virtual loops only: parked, or due now */
  atomic_bool stuck;
};

/* Only when all that arrived before was delivered. */
static void take_in(struct pry_mailbox *mailbox)
{
  pthread_mutex_lock(&mailbox->lock);
  if (!pry_list_empty(&mailbox->messages)) {
    mailbox->arrived = mailbox->messages;
    mailbox->arrived.next->previous = &mailbox->arrived;
    mailbox->arrived.previous->next = &mailbox->arrived;
    pry_list_init(&mailbox->messages);
  }
  pthread_mutex_unlock(&mailbox->lock);
}

static struct pry_message *take_first(struct pry_mailbox *mailbox)
{
  struct pry_message *message = NULL;
  pthread_mutex_lock(&mailbox->lock);
  if (!pry_list_empty(&mailbox->arrived)) {
    message = PRY_CONTAINER_OF(mailbox->arrived.next, struct pry_message, link);
    pry_list_remove(&message->link);
    message->posted = false;
  }
  pthread_mutex_unlock(&mailbox->lock);
  return message;
}

/* One at a time: a delivery may withdraw the next, and another thread may, for as long as this one is stuck. */
static bool deliver_arrived(struct pry_mailbox *mailbox)
{
  bool any = false;
  take_in(mailbox);
  for (struct pry_message *message; (message = take_first(mailbox)); any = true)
    message->deliver(message);
  return any;
}

static void deliver_all(void *user)
{
  struct pry_mailbox *mailbox = user;
  if (mailbox->loop && pry_loop_is_virtual(mailbox->loop))
    pry_timer_start(mailbox->loop, &mailbox->timer, PRY_TIME_NEVER, deliver_all, mailbox); /* its place is still free */
  deliver_arrived(mailbox);
}

static void announce(struct pry_mailbox *mailbox)
{
  if (!mailbox->loop)
    mailbox->announced(mailbox->announced_user);
  else if (pry_loop_is_virtual(mailbox->loop))
    pry_timer_start(mailbox->loop, &mailbox->timer, 0, deliver_all, mailbox); /* runs already: cannot fail */
  else
    pry_loop_wake(mailbox->loop);
}

static struct pry_mailbox *new_mailbox(void)
{
  struct pry_mailbox *mailbox = calloc(1, sizeof *mailbox);
  if (!mailbox)
    return NULL;
  pry_list_init(&mailbox->messages);
  pry_list_init(&mailbox->arrived);
  atomic_init(&mailbox->stuck, false);
  pthread_mutex_init(&mailbox->lock, NULL); /* cannot fail without attributes on Linux */
  return mailbox;
}

struct pry_mailbox *pry_mailbox_new_collected(void (*announced)(void *user), void *user)
{
  struct pry_mailbox *mailbox = new_mailbox();
  if (mailbox) {
    mailbox->announced = announced;
    mailbox->announced_user = user;
  }
  return mailbox;
}

bool pry_mailbox_collect(struct pry_mailbox *mailbox)
{
  return deliver_arrived(mailbox);
}

struct pry_mailbox *pry_mailbox_new(struct pry_loop *loop)
{
  struct pry_mailbox *mailbox = new_mailbox();
  if (!mailbox)
    return NULL;
  mailbox->loop = loop;
  if (!pry_loop_is_virtual(loop)) {
    pry_loop_on_wake(loop, deliver_all, mailbox);
  } else if (!pry_timer_start(loop, &mailbox->timer, PRY_TIME_NEVER, deliver_all, mailbox)) {
    pry_mailbox_free(mailbox);
    return NULL;
  }
  return mailbox;
}

void pry_mailbox_free(struct pry_mailbox *mailbox)
{
  if (!mailbox)
    return;
  take_in(mailbox);
  while (take_first(mailbox))
    ;
  if (mailbox->loop && !pry_loop_is_virtual(mailbox->loop))
    pry_loop_on_wake(mailbox->loop, NULL, NULL);
  pry_timer_cancel(&mailbox->timer);
  pthread_mutex_destroy(&mailbox->lock);
  free(mailbox);
}

struct pry_loop *pry_mailbox_loop(const struct pry_mailbox *mailbox)
{
  return mailbox->loop;
}

bool pry_mailbox_post(struct pry_mailbox *mailbox, struct pry_message *message)
{
  pthread_mutex_lock(&mailbox->lock);
  bool fresh = !message->posted;
  bool first = fresh && pry_list_empty(&mailbox->messages);
  if (fresh) {
    message->posted = true;
    pry_list_push(&mailbox->messages, &message->link);
  }
  pthread_mutex_unlock(&mailbox->lock);
  if (first) /* otherwise somebody has announced it already */
    announce(mailbox);
  return fresh;
}

bool pry_mailbox_withdraw(struct pry_mailbox *mailbox, struct pry_message *message)
{
  pthread_mutex_lock(&mailbox->lock);
  bool found = message->posted;
  if (found) {
    message->posted = false;
    pry_list_remove(&message->link);
  }
  pthread_mutex_unlock(&mailbox->lock);
  return found;
}

void pry_mailbox_set_stuck(struct pry_mailbox *mailbox, bool stuck)
{
  atomic_store_explicit(&mailbox->stuck, stuck, memory_order_relaxed);
}

bool pry_mailbox_is_stuck(const struct pry_mailbox *mailbox)
{
  return atomic_load_explicit(&mailbox->stuck, memory_order_relaxed);
}
