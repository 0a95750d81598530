#include "call_internal.h"

#include <stdio.h>

/* ---- life -------------------------------------------------------------------------------------------------- */

void pry_call_init_translation(struct pry_call *call)
{
  struct call_translation *translation = &call->translation;
  *translation = (struct call_translation){0};
  pry_buffer_init(&translation->memory, PRY_TRANSLATE_MEMORY_MAX);
  pry_buffer_init(&translation->out, PRY_TRANSLATED_OUT_MAX);
  pry_buffer_init(&translation->stripped, 0);
}

static void forget(struct call_translation *translation)
{
  pry_buffer_fini(&translation->memory);
  pry_buffer_fini(&translation->out);
  pry_buffer_fini(&translation->stripped);
  if (translation->parsing)
    pry_sse_fini(&translation->parser);
  translation->parsing = false;
  translation->path[0] = '\0';
}

void pry_call_fini_translation(struct pry_call *call)
{
  forget(&call->translation);
}

void pry_call_begin_translation(struct pry_call *call)
{
  const struct pry_dialect *dialect = call->view.target.provider->dialect;
  const struct pry_config *config = call->generation->config;
  const char *pair;
  forget(&call->translation);
  call->translation.active = call->is_json && !pry_config_carries(config, dialect, call->client_dialect) &&
                             pry_config_translator(config, dialect, call->client_dialect, &pair);
  call->translation.to = dialect->name;
}

void pry_call_end_translation(struct pry_call *call)
{
  call->translation.active = false;
  if (!call->cancelled) /* else the sink may be reading what was made: pry_call_fini_translation() */
    forget(&call->translation);
}

const char *pry_call_dialect_complaint(const struct pry_call *call, const struct pry_provider *provider)
{
  const struct pry_config *config = call->script->generation->config;
  const char *pair;
  if (pry_config_carries(config, provider->dialect, call->client_dialect))
    return NULL;
  if (!call->is_json || !pry_config_translator(config, provider->dialect, call->client_dialect, &pair))
    return "the target's provider speaks another dialect than the client";
  return call->upload.streamed ? "the body is not kept, and so cannot be translated for the target's dialect" : NULL;
}

/* ---- failures ------------------------------------------------------------------------------------------------ */

/* What the call has failed with at another target, if it did. */
static enum pry_category earlier_category(const struct pry_call *call)
{
  for (size_t i = call->view.ledger_count; i-- > 0;)
    if (call->ledger[i].category && !call->ledger[i].refused && call->ledger[i].ended > 0)
      return call->ledger[i].category;
  return PRY_NONE;
}

static struct pry_failure own_failure(enum pry_category category, const char *code, const char *message)
{
  struct pry_failure failure = pry_call_own_failure(category, code, message);
  failure.fallback = true;
  failure.retryable = false;
  failure.refresh_token = false;
  return failure;
}

static struct pry_failure refusal(const struct pry_call *call, enum pry_category category, const char *code,
                                  const char *message)
{
  enum pry_category earlier = earlier_category(call);
  return own_failure(earlier ? earlier : category, code, message);
}

static bool is_request(const struct pry_translation *step)
{
  return step->step == PRY_TRANSLATE_REQUEST || step->step == PRY_TRANSLATE_STRIP;
}

/* "a request from openai to anthropic/claude" */
static void describe(const struct pry_call *call, const struct pry_translation *step, char *text, size_t size)
{
  if (step->step == PRY_TRANSLATE_STRIP)
    snprintf(text, size, "the request is bound to the provider it was made for and cannot go to %.100s",
             call->view.target.name);
  else
    snprintf(text, size, "the %s cannot be translated between %.40s and %.40s (%.100s)",
             is_request(step) ? "request" : "answer", call->client_dialect, call->translation.to,
             call->view.target.name);
}

static struct pry_failure failure_of(const struct pry_call *call, enum pry_translate_result result,
                                     const struct pry_translation *step)
{
  char what[PRY_FAILURE_MESSAGE_MAX / 2], message[PRY_FAILURE_MESSAGE_MAX];
  struct pry_failure failure;
  describe(call, step, what, sizeof what);
  snprintf(message, sizeof message, "%s: %.*s", what, (int)(sizeof message - sizeof what - 3), step->why);
  if (result == PRY_TRANSLATE_REFUSED)
    failure = is_request(step) ? refusal(call, PRY_INVALID_REQUEST, "untranslatable", message)
                               : own_failure(PRY_SERVER, "untranslatable", message);
  else if (result == PRY_TRANSLATE_TOO_LARGE)
    failure = is_request(step) ? refusal(call, PRY_PAYLOAD_TOO_LARGE, "too_large_to_translate", message)
                               : own_failure(PRY_SERVER, "too_large_to_translate", message);
  else
    failure = own_failure(PRY_SERVER, "translation_failed", message);
  failure.sent = call->state == CALL_SEND || call->state == CALL_HEAD || call->state == CALL_RELAY;
  return failure;
}

struct pry_failure pry_call_answer_too_long(const struct pry_call *call)
{
  char message[PRY_FAILURE_MESSAGE_MAX];
  snprintf(message, sizeof message, "the answer of %.200s is too large to translate: more than %d bytes",
           call->view.target.name, PRY_TRANSLATED_ANSWER_MAX);
  struct pry_failure failure = own_failure(PRY_SERVER, "too_large_to_translate", message);
  failure.sent = true;
  return failure;
}

/* ---- running a step ------------------------------------------------------------------------------------------- */

/* Finds the pair in the generation of the script that judges now, and runs the step. */
static bool run(struct pry_call *call, struct pry_translation *step, struct pry_failure *failure)
{
  const struct pry_dialect *ours = call->view.target.provider->dialect;
  const struct pry_dialect *theirs = pry_call_dialect(call, ours);
  const struct pry_config *config = call->script->generation->config;
  enum pry_translate_result result = PRY_TRANSLATE_FAILED;
  snprintf(step->why, sizeof step->why, "the policies that serve now have no such translation");
  step->call_id = call->view.id;
  step->dialect = theirs ? pry_config_translator(config, theirs, call->client_dialect, &step->client) : NULL;
  if (step->dialect && call->script->ops->translate)
    result = call->script->ops->translate(call->script, step);
  if (result == PRY_TRANSLATED)
    return true;
  *failure = failure_of(call, result, step);
  return false;
}

/* ---- the request ---------------------------------------------------------------------------------------------- */

bool pry_call_translate_request(struct pry_call *call, struct pry_slice *body, struct pry_failure *failure)
{
  struct call_translation *translation = &call->translation;
  if (call->upload.streamed) {
    *failure = refusal(call, PRY_PAYLOAD_TOO_LARGE, "too_large_to_translate",
                       "the body is longer than what is kept, and a body that is not kept cannot be translated");
    return false;
  }
  struct pry_buffer out;
  pry_buffer_init(&out, pry_buffer_slice(&call->body).size * 2 + PRY_TRANSLATED_ANSWER_MAX);
  struct pry_translation step = {.step = PRY_TRANSLATE_REQUEST,
                                 .model = call->view.target.model,
                                 .path = call->view.path,
                                 .data = pry_buffer_slice(&call->body),
                                 .out = &out,
                                 .memory = &translation->memory,
                                 .headers = &call->out_headers};
  bool ok = run(call, &step, failure);
  if (ok) {
    pry_buffer_fini(&call->out_body);
    call->out_body = out;
    *body = pry_buffer_slice(&call->out_body);
    memcpy(translation->path, step.target_path, sizeof translation->path);
  } else {
    pry_buffer_fini(&out);
  }
  return ok;
}

bool pry_call_strip_request(struct pry_call *call, struct pry_slice *body, struct pry_failure *failure)
{
  const struct pry_dialect *dialect = pry_call_dialect(call, call->view.target.provider->dialect);
  const struct pry_config *config = call->script->generation->config;
  if (dialect && !dialect->has_strip && dialect->speaks)
    dialect = pry_config_dialect(config, dialect->speaks);
  if (!call->translation.strip || !call->is_json || !dialect || !dialect->has_strip || !call->script->ops->translate ||
      !pry_dialect_may_be_bound(dialect, *body))
    return true;
  struct pry_buffer *out = &call->translation.stripped;
  pry_buffer_fini(out);
  pry_buffer_init(out, body->size + PRY_TRANSLATED_ANSWER_MAX);
  struct pry_translation step = {
      .step = PRY_TRANSLATE_STRIP, .dialect = dialect, .call_id = call->view.id, .data = *body, .out = out};
  enum pry_translate_result result = call->script->ops->translate(call->script, &step);
  if (result == PRY_TRANSLATED)
    *body = pry_buffer_slice(out);
  if (result == PRY_TRANSLATED || result == PRY_TRANSLATE_UNCHANGED)
    return true;
  *failure = failure_of(call, result, &step);
  return false;
}

/* ---- the answer ----------------------------------------------------------------------------------------------- */

bool pry_call_translate_answer(struct pry_call *call, struct pry_slice body, struct pry_failure *failure)
{
  pry_buffer_clear(&call->translation.out);
  struct pry_translation step = {
      .step = PRY_TRANSLATE_ANSWER, .data = body, .out = &call->translation.out, .memory = &call->translation.memory};
  return run(call, &step, failure);
}

static bool translate_event(struct pry_call *call, const struct pry_sse_event *event, struct pry_failure *failure)
{
  struct pry_translation step = {.step = PRY_TRANSLATE_EVENT,
                                 .type = event->name,
                                 .data = event->data,
                                 .out = &call->translation.out,
                                 .memory = &call->translation.memory};
  return run(call, &step, failure);
}

/* The stream has cut them at their ends already; here they are read once more, which keeps that reader free of Lua. */
bool pry_call_translate_stream(struct pry_call *call, struct pry_slice blocks, struct pry_slice *out,
                               struct pry_failure *failure)
{
  struct call_translation *translation = &call->translation;
  if (call->stream.state == PRY_STREAM_OPAQUE) {
    *failure = pry_call_answer_too_long(call);
    return false;
  }
  if (!translation->parsing)
    pry_sse_init(&translation->parser, PRY_TRANSLATED_ANSWER_MAX + 1);
  translation->parsing = true;
  pry_buffer_clear(&translation->out);
  while (blocks.size) {
    struct pry_sse_event event;
    size_t consumed = 0;
    enum pry_sse_result result = pry_sse_feed(&translation->parser, blocks, &consumed, &event);
    blocks.data += consumed;
    blocks.size -= consumed;
    if (result == PRY_SSE_TOO_LARGE || result == PRY_SSE_NO_MEMORY) {
      *failure = pry_call_answer_too_long(call);
      return false;
    }
    if (result == PRY_SSE_EVENT && !translate_event(call, &event, failure))
      return false;
  }
  *out = pry_buffer_slice(&translation->out);
  return true;
}

bool pry_call_finish_translation(struct pry_call *call, struct pry_slice *out, struct pry_failure *failure)
{
  struct call_translation *translation = &call->translation;
  pry_buffer_clear(&translation->out);
  struct pry_translation step = {
      .step = PRY_TRANSLATE_FINISH, .out = &translation->out, .memory = &translation->memory};
  bool ok = run(call, &step, failure);
  *out = pry_buffer_slice(&translation->out);
  return ok;
}
