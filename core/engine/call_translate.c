#include "call_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- life -------------------------------------------------------------------------------------------------- */

static void free_translator(struct call_translation *translation)
{
  struct call_translator *translator = translation->translator;
  translation->translator = NULL;
  if (!translator)
    return;
  pry_buffer_fini(&translator->memory);
  pry_buffer_fini(&translator->out);
  pry_buffer_fini(&translator->stripped);
  pry_sse_fini(&translator->parser);
  free(translator);
}

/* The attempt's; false: memory is short. */
static bool need_translator(struct pry_call *call, struct pry_failure *failure)
{
  struct call_translation *translation = &call->translation;
  if (translation->translator)
    return true;
  struct call_translator *translator = calloc(1, sizeof *translator);
  if (!translator) {
    *failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
    return false;
  }
  pry_buffer_init(&translator->memory, PRY_TRANSLATE_MEMORY_MAX);
  pry_buffer_init(&translator->out, PRY_TRANSLATED_OUT_MAX);
  pry_buffer_init(&translator->stripped, 0);
  pry_sse_init(&translator->parser, PRY_TRANSLATED_ANSWER_MAX + 1);
  translation->translator = translator;
  return true;
}

void pry_call_free_translation(struct pry_call *call)
{
  free_translator(&call->translation);
}

void pry_call_set_home(struct pry_call *call, const struct pry_provider *provider)
{
  snprintf(call->translation.home, sizeof call->translation.home, "%s", provider->name);
}

void pry_call_begin_translation(struct pry_call *call)
{
  const struct pry_dialect *dialect = call->view.target.provider->dialect;
  const struct pry_config *config = call->generation->config;
  const char *pair;
  free_translator(&call->translation);
  call->translation.active = call->is_json && !pry_config_carries(config, dialect, call->client_dialect) &&
                             pry_config_translator(config, dialect, call->client_dialect, &pair);
  call->translation.to = dialect->name;
}

void pry_call_end_translation(struct pry_call *call)
{
  call->translation.active = false;
  if (!call->cancelled) /* else the sink may be reading what was made: pry_call_free_translation() */
    free_translator(&call->translation);
}

const char *pry_call_translated_path(const struct pry_call *call)
{
  const struct call_translator *translator = call->translation.translator;
  return translator && translator->path[0] ? translator->path : NULL;
}

const char *pry_call_dialect_complaint(const struct pry_call *call, const struct pry_provider *provider)
{
  const struct pry_config *config = call->script->generation->config;
  const char *pair;
  if (pry_config_carries(config, provider->dialect, call->client_dialect))
    return NULL;
  if (!call->is_json || !pry_config_translator(config, provider->dialect, call->client_dialect, &pair))
    return "the target's provider speaks another dialect than the client";
  if (provider->auth.kind == PRY_AUTH_PASSTHROUGH)
    return "the target would get the client's own credential, which is for another dialect";
  return call->upload.streamed ? "the body is not kept, and so cannot be translated for the target's dialect" : NULL;
}

/* ---- failures ------------------------------------------------------------------------------------------------ */

/* The attempt that the call has failed with at another target, if it did. */
static const struct pry_attempt *earlier_failure(const struct pry_call *call)
{
  for (size_t i = call->view.ledger_count; i-- > 0;)
    if (call->ledger[i].category && !call->ledger[i].refused && call->ledger[i].ended > 0)
      return &call->ledger[i];
  return NULL;
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
  const struct pry_attempt *earlier = earlier_failure(call);
  struct pry_failure failure = own_failure(earlier ? earlier->category : category, code, message);
  if (earlier && earlier->failure.retry_after >= 0) {
    double left = earlier->ended + earlier->failure.retry_after - pry_loop_unix_time(call->worker->loop);
    failure.retry_after = left > 0 ? left : 0;
  }
  return failure;
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
  if (call->view.target.provider->auth.kind == PRY_AUTH_PASSTHROUGH) {
    *failure = refusal(call, PRY_INVALID_REQUEST, "untranslatable",
                       "the target would get the client's own credential, which is for another dialect");
    return false;
  }
  if (call->upload.streamed) {
    *failure = refusal(call, PRY_PAYLOAD_TOO_LARGE, "too_large_to_translate",
                       "the body is longer than what is kept, and a body that is not kept cannot be translated");
    return false;
  }
  if (!need_translator(call, failure))
    return false;
  struct pry_buffer out;
  pry_buffer_init(&out, pry_buffer_slice(&call->body).size * 2 + PRY_TRANSLATED_ANSWER_MAX);
  struct pry_translation step = {.step = PRY_TRANSLATE_REQUEST,
                                 .model = call->view.target.model,
                                 .path = call->view.path,
                                 .data = pry_buffer_slice(&call->body),
                                 .out = &out,
                                 .memory = &call->translation.translator->memory,
                                 .headers = &call->out_headers};
  bool ok = run(call, &step, failure);
  if (ok) {
    pry_buffer_fini(&call->out_body);
    call->out_body = out;
    *body = pry_buffer_slice(&call->out_body);
    memcpy(call->translation.translator->path, step.target_path, sizeof step.target_path);
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
  if (!need_translator(call, failure))
    return false;
  struct pry_buffer *out = &call->translation.translator->stripped;
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

/* A step on what the target sent. */
static bool run_on_answer(struct pry_call *call, enum pry_translate_step kind, struct pry_slice type,
                          struct pry_slice data, struct pry_failure *failure)
{
  struct call_translator *translator = call->translation.translator;
  struct pry_translation step = {
      .step = kind, .type = type, .data = data, .out = &translator->out, .memory = &translator->memory};
  return run(call, &step, failure);
}

/* Room for what the next step, or some of them, will make. */
static bool begin_out(struct pry_call *call, struct pry_failure *failure)
{
  if (!need_translator(call, failure)) /* an injected answer is the first that needs one */
    return false;
  pry_buffer_clear(&call->translation.translator->out);
  return true;
}

bool pry_call_translate_answer(struct pry_call *call, struct pry_slice body, struct pry_slice *out,
                               struct pry_failure *failure)
{
  if (!begin_out(call, failure) || !run_on_answer(call, PRY_TRANSLATE_ANSWER, PRY_SLICE(""), body, failure))
    return false;
  *out = pry_buffer_slice(&call->translation.translator->out);
  return true;
}

/* The end of the client's stream was made. */
static bool has_ended(const struct pry_call *call)
{
  return call->translation.translator && call->translation.translator->finished;
}

static bool make_end(struct pry_call *call, struct pry_failure *failure)
{
  struct pry_slice nothing = {NULL, 0};
  struct call_translator *translator = call->translation.translator;
  if (!translator->finished && !run_on_answer(call, PRY_TRANSLATE_FINISH, nothing, nothing, failure))
    return false;
  translator->finished = true;
  return true;
}

/* The stream has cut them at their ends already; here they are read once more, which keeps that reader free of Lua. */
bool pry_call_translate_stream(struct pry_call *call, struct pry_slice blocks, struct pry_slice *out,
                               struct pry_failure *failure)
{
  if (has_ended(call)) { /* the client's has: whatever comes behind is for nobody */
    *out = (struct pry_slice){NULL, 0};
    return true;
  }
  if (call->stream.inside) { /* an event too long to be held comes in pieces */
    *failure = pry_call_answer_too_long(call);
    return false;
  }
  if (!begin_out(call, failure))
    return false;
  struct call_translator *translator = call->translation.translator;
  while (blocks.size) {
    struct pry_sse_event event;
    size_t consumed = 0;
    enum pry_sse_result result = pry_sse_feed(&translator->parser, blocks, &consumed, &event);
    blocks.data += consumed;
    blocks.size -= consumed;
    if (result == PRY_SSE_TOO_LARGE || result == PRY_SSE_NO_MEMORY) {
      *failure = pry_call_answer_too_long(call);
      return false;
    }
    if (result == PRY_SSE_EVENT && !run_on_answer(call, PRY_TRANSLATE_EVENT, event.name, event.data, failure))
      return false;
  }
  if (call->stream.state == PRY_STREAM_ENDED && !make_end(call, failure))
    return false;
  *out = pry_buffer_slice(&translator->out);
  return true;
}

bool pry_call_finish_translation(struct pry_call *call, struct pry_slice *out, struct pry_failure *failure)
{
  *out = (struct pry_slice){NULL, 0};
  if (has_ended(call))
    return true;
  if (!begin_out(call, failure) || !make_end(call, failure))
    return false;
  *out = pry_buffer_slice(&call->translation.translator->out);
  return true;
}
