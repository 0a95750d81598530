#include "verdict.h"

#include <stdio.h>

struct handler_row {
  const char *name, *doc;
};

static const struct handler_row handlers[PRY_HANDLER_COUNT] = {
#define X(name, text, doc) [name] = {text, doc},
    PRY_HANDLERS(X)
#undef X
};

struct verdict_row {
  const char *name;
  unsigned handlers;
};

static const struct verdict_row verdicts[PRY_VERDICT_COUNT] = {[PRY_VERDICT_NONE] = {"none", ~0u},
#define X(name, text, handlers) [name] = {text, handlers},
                                                               PRY_VERDICTS(X)
#undef X
};

const struct pry_verdict_field pry_verdict_fields[] = {
#define X(name, type, kinds, required, min, max)                                                                       \
  {#name, type, kinds, required, min, max, offsetof(struct pry_verdict, name), sizeof(((struct pry_verdict *)0)->name)},
    PRY_VERDICT_FIELDS(X)
#undef X
};

const size_t pry_verdict_field_count = sizeof pry_verdict_fields / sizeof *pry_verdict_fields;

const char *pry_handler_name(enum pry_handler handler)
{
  return handlers[handler].name;
}

const char *pry_handler_doc(enum pry_handler handler)
{
  return handlers[handler].doc;
}

const char *pry_verdict_name(enum pry_verdict_kind kind)
{
  return verdicts[kind].name;
}

bool pry_handler_decides(enum pry_handler handler)
{
  return handler != PRY_ON_OUTCOME && handler != PRY_ON_DONE;
}

bool pry_verdict_allowed(enum pry_handler handler, enum pry_verdict_kind kind)
{
  return verdicts[kind].handlers & PRY_HANDLER_BIT(handler);
}

const char *pry_verdict_allowed_names(enum pry_handler handler, char *text, size_t size)
{
  size_t used = 0;
  snprintf(text, size, "nothing");
  for (enum pry_verdict_kind kind = PRY_VERDICT_NONE + 1; kind < PRY_VERDICT_COUNT; kind++) {
    if (!pry_verdict_allowed(handler, kind) || used >= size)
      continue;
    int length = snprintf(text + used, size - used, "%s%s", used ? ", " : "", verdicts[kind].name);
    used += length > 0 ? (size_t)length : 0;
  }
  return text;
}

void pry_verdict_init(struct pry_verdict *verdict)
{
  /* Member by member: zeroing the texts whole would be most of what a handler without a verdict costs. */
  verdict->kind = PRY_VERDICT_NONE;
  verdict->after = verdict->max_wait = -1;
  verdict->category = PRY_NONE;
  verdict->status = verdict->slots = verdict->limit = verdict->line = 0;
  verdict->per = verdict->rate = verdict->burst = verdict->cost = verdict->until_time = verdict->delay = 0;
  verdict->max_waiting = -1;
  verdict->strip = verdict->has_body = false;
  verdict->policy = NULL;
  verdict->code[0] = verdict->message[0] = verdict->target[0] = verdict->key[0] = verdict->curl[0] = verdict->why[0] =
      '\0';
  pry_headers_init(&verdict->headers);
  pry_buffer_init(&verdict->body, PRY_RESPOND_MAX);
}

void pry_verdict_fini(struct pry_verdict *verdict)
{
  pry_headers_fini(&verdict->headers);
  pry_buffer_fini(&verdict->body);
  pry_verdict_init(verdict);
}

static const char *hold_complaint(const struct pry_verdict *verdict)
{
  bool gate = verdict->slots || verdict->limit || verdict->per > 0 || verdict->rate > 0 || verdict->burst > 0;
  if (!verdict->key[0] && !(verdict->until_time > 0))
    return "hold{} needs a key or an until_time";
  if (!verdict->key[0] && gate)
    return "hold{} needs a key for its places";
  if ((verdict->limit != 0) != (verdict->per > 0))
    return "hold{} needs both limit and per, or neither";
  if (verdict->burst > 0 && !(verdict->rate > 0))
    return "hold{} needs a rate for its burst";
  return NULL;
}

const char *pry_verdict_complaint(const struct pry_verdict *verdict)
{
  switch (verdict->kind) {
  case PRY_VERDICT_HOLD:
    return hold_complaint(verdict);
  case PRY_VERDICT_INJECT:
    if (verdict->status && verdict->curl[0])
      return "inject{} takes a status or a curl failure, not both";
    return verdict->status || verdict->curl[0] || verdict->delay > 0
               ? NULL
               : "inject{} needs a status, a curl failure or a delay";
  case PRY_VERDICT_FAIL:
    return verdict->category || verdict->status >= 400 ? NULL : "fail{} needs a category, or a status from 400";
  case PRY_VERDICT_ROUTE:
    return verdict->target[0] || verdict->headers.count ? NULL : "route{} needs a target or headers";
  default:
    return NULL;
  }
}
