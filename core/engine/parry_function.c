/* Host functions and events: what policies ask the host, and what it tells them unasked. */
#include "parry_internal.h"

#include "host_function.h"
#include "json.h"

#include <stdlib.h>

enum { EVENTS_MAX = 1024, FIELDS_MAX = 64 * 1024, EVENT_NAME_MAX = 128 };

struct pry_host_functions {
  struct pry_functions *known;
  pthread_mutex_t lock;
  struct pry_list events; /* struct event, on their way to the control worker */
  atomic_size_t event_count;
};

/* What parry_emit() told, until the control worker takes it. */
struct event {
  struct pry_list link;
  struct pry_message message;
  struct pry_host *host;
  const char *fields; /* behind the name */
  size_t fields_size;
  char name[];
};

/* ---- life ---------------------------------------------------------------------------------------------------- */

bool pry_host_functions_init(struct pry_host *host)
{
  struct pry_host_functions *functions = calloc(1, sizeof *functions);
  if (!functions)
    return false;
  host->functions = functions;
  pry_list_init(&functions->events);
  pthread_mutex_init(&functions->lock, NULL);
  functions->known = pry_functions_new(host->outbox, host->options.max_calls);
  host->engine->functions = functions->known;
  return functions->known;
}

void pry_host_functions_end(struct pry_host *host)
{
  if (host->functions->known)
    pry_functions_close(host->functions->known);
}

void pry_host_functions_fini(struct pry_host *host)
{
  struct pry_host_functions *functions = host->functions;
  if (!functions)
    return;
  while (!pry_list_empty(&functions->events)) {
    struct event *event = PRY_CONTAINER_OF(functions->events.next, struct event, link);
    pry_list_remove(&event->link);
    free(event);
  }
  pry_functions_free(functions->known);
  pthread_mutex_destroy(&functions->lock);
  free(functions);
  host->functions = NULL;
}

/* ---- functions ------------------------------------------------------------------------------------------------ */

int parry_register(parry *handle, const char *name, parry_function function, void *user, unsigned flags)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (!name || (flags & ~(unsigned)PARRY_ANY_THREAD))
    return PARRY_EINVAL;
  return pry_functions_set(host->functions->known, name, function, user, flags & PARRY_ANY_THREAD);
}

int parry_reply(parry *handle, parry_request_id request, const char *json, const char *failure)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  return host ? pry_functions_answer(host->functions->known, request.value, json, failure) : error;
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static void tell_policies(struct pry_message *message)
{
  struct event *event = PRY_CONTAINER_OF(message, struct event, message);
  struct pry_host_functions *functions = event->host->functions;
  pthread_mutex_lock(&functions->lock);
  pry_list_remove(&event->link);
  pthread_mutex_unlock(&functions->lock);
  pry_engine_emit(event->host->engine, event->name, (struct pry_slice){event->fields, event->fields_size});
  atomic_fetch_sub(&functions->event_count, 1); /* counted as one of the engine's by now */
  free(event);
}

static struct event *new_event(struct pry_host *host, const char *name, const char *fields)
{
  size_t name_size = strlen(name) + 1, fields_size = strlen(fields);
  struct event *event = calloc(1, sizeof *event + name_size + fields_size);
  if (!event)
    return NULL;
  event->host = host;
  event->message.deliver = tell_policies;
  event->fields_size = fields_size;
  memcpy(event->name, name, name_size);
  event->fields = memcpy(event->name + name_size, fields, fields_size);
  pry_list_init(&event->link);
  return event;
}

static bool are_fields(const char *fields)
{
  struct pry_json_value value;
  size_t size = strnlen(fields, FIELDS_MAX + 1);
  return size <= FIELDS_MAX && pry_json_parse((struct pry_slice){fields, size}, &value) == PRY_JSON_OK &&
         value.type == PRY_JSON_OBJECT;
}

/* Those that wait, and those whose handlers do. */
static bool take_place(struct pry_host *host)
{
  size_t before = atomic_fetch_add(&host->functions->event_count, 1);
  if (before + atomic_load(&host->engine->emission_count) < EVENTS_MAX)
    return true;
  atomic_fetch_sub(&host->functions->event_count, 1);
  return false;
}

int parry_emit(parry *handle, const char *name, const char *fields)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (!name || !name[0] || strnlen(name, EVENT_NAME_MAX) == EVENT_NAME_MAX || (fields && !are_fields(fields)))
    return PARRY_EINVAL;
  if (!pry_engine_ready(host->engine))
    return PARRY_EPOLICY;
  if (!take_place(host))
    return PARRY_BUSY;
  struct event *event = new_event(host, name, fields ? fields : "{}");
  if (!event) {
    atomic_fetch_sub(&host->functions->event_count, 1);
    return PARRY_ENOMEM;
  }
  pthread_mutex_lock(&host->functions->lock);
  pry_list_push(&host->functions->events, &event->link);
  pthread_mutex_unlock(&host->functions->lock);
  pry_mailbox_post(host->engine->control->mailbox, &event->message);
  return PARRY_OK;
}
