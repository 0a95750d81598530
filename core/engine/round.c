#include "round.h"

#include "engine.h"

#include <stdlib.h>

/* One worker's part. */
struct part {
  struct pry_message message; /* to the worker, and back to the control worker */
  struct pry_round *round;
  struct pry_worker *worker;
  struct pry_buffer text;
  bool answered; /* its message has come back */
  bool ok;
};

struct pry_round {
  struct pry_list link; /* in engine->rounds */
  struct pry_engine *engine;
  struct pry_round_ops ops;
  void *user;
  void *question;
  struct pry_timer timer;
  size_t out;    /* messages that have not come back */
  bool finished; /* done was called, or never will be */
  struct part parts[];
};

static void free_round(struct pry_round *round)
{
  pry_timer_cancel(&round->timer);
  pry_list_remove(&round->link);
  for (unsigned i = 0; i < pry_engine_worker_total(round->engine); i++)
    pry_buffer_fini(&round->parts[i].text);
  free(round->question);
  free(round);
}

static void free_when_back(struct pry_round *round)
{
  if (round->finished && !round->out)
    free_round(round);
}

static void finish(struct pry_round *round)
{
  struct pry_round_answer answers[PRY_WORKERS_MAX + PRY_DECIDERS_MAX + 1];
  size_t count = pry_engine_worker_total(round->engine);
  pry_timer_cancel(&round->timer);
  for (size_t i = 0; i < count; i++) {
    const struct part *part = &round->parts[i];
    bool there = part->answered && part->ok;
    answers[i] = (struct pry_round_answer){part->worker, there,
                                           there ? pry_buffer_slice(&part->text) : (struct pry_slice){"", 0}};
  }
  round->finished = true;
  round->ops.done(round->user, answers, count);
}

static void came_back(struct pry_message *message)
{
  struct part *part = PRY_CONTAINER_OF(message, struct part, message);
  struct pry_round *round = part->round;
  part->answered = true;
  round->out--;
  if (!round->finished && !round->out)
    finish(round);
  free_when_back(round);
}

static void visit(struct pry_message *message)
{
  struct part *part = PRY_CONTAINER_OF(message, struct part, message);
  part->ok = part->round->ops.visit(part->worker, part->round->question, &part->text);
  part->message.deliver = came_back;
  pry_mailbox_post(part->round->engine->control->mailbox, &part->message);
}

static void too_late(void *user)
{
  struct pry_round *round = user;
  finish(round);
  free_when_back(round);
}

struct pry_round *pry_round_start(struct pry_engine *engine, const struct pry_round_ops *ops, const void *question,
                                  size_t size, size_t most, pry_time timeout, void *user)
{
  struct pry_round *round = calloc(1, sizeof *round + pry_engine_worker_total(engine) * sizeof *round->parts);
  void *copy = malloc(size ? size : 1);
  if (!round || !copy || !pry_timer_start(engine->control->loop, &round->timer, timeout, too_late, round)) {
    free(copy);
    free(round);
    return NULL;
  }
  if (size)
    memcpy(copy, question, size);
  round->engine = engine;
  round->ops = *ops;
  round->user = user;
  round->question = copy;
  round->out = pry_engine_worker_total(engine);
  pry_list_push(&engine->rounds, &round->link);
  for (unsigned i = 0; i < pry_engine_worker_total(engine); i++) {
    struct part *part = &round->parts[i];
    part->round = round;
    part->worker = engine->workers[i];
    part->message.deliver = visit;
    pry_buffer_init(&part->text, most);
    pry_mailbox_post(part->worker->mailbox, &part->message);
  }
  return round;
}

void pry_round_cancel(struct pry_round *round)
{
  pry_timer_cancel(&round->timer);
  round->finished = true;
  free_when_back(round); /* else the last of its messages to come back does */
}

void pry_rounds_end(struct pry_engine *engine)
{
  while (!pry_list_empty(&engine->rounds)) {
    struct pry_round *round = PRY_CONTAINER_OF(engine->rounds.next, struct pry_round, link);
    for (unsigned i = 0; i < pry_engine_worker_total(engine); i++) {
      struct part *part = &round->parts[i];
      if (!pry_mailbox_withdraw(engine->control->mailbox, &part->message))
        pry_mailbox_withdraw(part->worker->mailbox, &part->message);
    }
    free_round(round);
  }
}
