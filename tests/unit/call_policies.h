/*
 * call_policies.h: what several call tests share: requests, stream events, and policies as C functions.
 *
 * Each policy does what its name says, whatever the call. Header only.
 */
#ifndef CALL_POLICIES_H
#define CALL_POLICIES_H

#include "call_rig.h"

#define STREAM_BODY "{\"model\":\"m\",\"stream\":true,\"messages\":[]}"
#define BODY "{\"model\":\"m\",\"n\":9007199254740993,\"messages\":[]}"

static const char *const json[] = {"Content-Type", "application/json", NULL};
static const char *const sse[] = {"Content-Type", "text/event-stream", NULL};

#define ROLE "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n"
#define CONTENT "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"
#define FINISH "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define STREAM_ERROR "data: {\"error\":{\"message\":\"x\"}}\n\n"
#define DONE "data: [DONE]\n\n"

static inline enum pry_ask_status silent(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  (void)ask;
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status retry_twice(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  if (ask->call->target.attempts < 3) {
    ask->verdict.kind = PRY_VERDICT_RETRY;
    ask->verdict.after = 0.5;
  }
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status retry_always(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_RETRY;
  ask->verdict.after = 0.01;
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status fall_back(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "q/m2");
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status renew(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  if (ask->failure->refresh_token)
    ask->verdict.kind = PRY_VERDICT_RENEW;
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status respond(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_RESPOND;
  ask->verdict.status = 203;
  pry_buffer_append_text(&ask->verdict.body, "{\"from\":\"policy\"}");
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status hold_one(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_HOLD;
  ask->verdict.slots = 1;
  ask->verdict.max_wait = 10;
  snprintf(ask->verdict.key, sizeof ask->verdict.key, "q/one");
  return PRY_ASK_DONE;
}

static inline enum pry_ask_status hold_until(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_HOLD;
  ask->verdict.until_time = RIG_UNIX_TIME + 3;
  return PRY_ASK_DONE;
}

/* Waits until rig_pending_done(). */
static inline enum pry_ask_status wait_for_it(struct rig *rig, struct pry_ask *ask)
{
  rig->counter++;
  rig->pending = ask;
  return PRY_ASK_PENDING;
}

/* The same, but only the first time. */
static inline enum pry_ask_status wait_once(struct rig *rig, struct pry_ask *ask)
{
  return rig->counter ? PRY_ASK_DONE : wait_for_it(rig, ask);
}

#endif
