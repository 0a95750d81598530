#include "mailbox.h"

#include <pthread.h>
#include <stdlib.h>

struct pry_mailbox {
  struct pry_loop *loop;
  pthread_mutex_t lock;
  struct pry_list messages;
  size_t count;
  struct pry_timer timer; /* virtual loops only: parked, or due now */
};

static struct pry_message *take_first(struct pry_mailbox *mailbox)
{
  struct pry_message *message = NULL;
  pthread_mutex_lock(&mailbox->lock);
  if (!pry_list_empty(&mailbox->messages)) {
    message = PRY_CONTAINER_OF(mailbox->messages.next, struct pry_message, link);
    pry_list_remove(&message->link);
    message->posted = false;
    mailbox->count--;
  }
  pthread_mutex_unlock(&mailbox->lock);
  return message;
}

static size_t count_messages(struct pry_mailbox *mailbox)
{
  pthread_mutex_lock(&mailbox->lock);
  size_t count = mailbox->count;
  pthread_mutex_unlock(&mailbox->lock);
  return count;
}

static void announce(struct pry_mailbox *mailbox);

/* One at a time: a delivery may withdraw the next. Not more than were there at first: two who answer each other must
 * not keep the loop to themselves. */
static void deliver_all(void *user)
{
  struct pry_mailbox *mailbox = user;
  if (pry_loop_is_virtual(mailbox->loop))
    pry_timer_start(mailbox->loop, &mailbox->timer, PRY_TIME_NEVER, deliver_all, mailbox);
  for (size_t left = count_messages(mailbox); left; left--) {
    struct pry_message *message = take_first(mailbox);
    if (!message)
      return;
    message->deliver(message);
  }
  if (count_messages(mailbox))
    announce(mailbox);
}

static void announce(struct pry_mailbox *mailbox)
{
  if (pry_loop_is_virtual(mailbox->loop))
    pry_timer_start(mailbox->loop, &mailbox->timer, 0, deliver_all, mailbox); /* runs already: cannot fail */
  else
    pry_loop_wake(mailbox->loop);
}

struct pry_mailbox *pry_mailbox_new(struct pry_loop *loop)
{
  struct pry_mailbox *mailbox = calloc(1, sizeof *mailbox);
  if (!mailbox)
    return NULL;
  mailbox->loop = loop;
  pry_list_init(&mailbox->messages);
  pthread_mutex_init(&mailbox->lock, NULL); /* cannot fail without attributes on Linux */
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
  while (take_first(mailbox))
    ;
  if (!pry_loop_is_virtual(mailbox->loop))
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
  if (fresh) {
    message->posted = true;
    pry_list_push(&mailbox->messages, &message->link);
    mailbox->count++;
  }
  bool first = fresh && mailbox->count == 1;
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
    mailbox->count--;
  }
  pthread_mutex_unlock(&mailbox->lock);
  return found;
}
