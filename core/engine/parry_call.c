/* Calls of a host's: what parry.h says of them, and what the host is told. */
#include "http_head.h"
#include "parry_call_internal.h"

#include <stdlib.h>

enum { SPARE_MAX = 64 * 1024, FIRST_SLOTS = 64 };

/* Where an id leads. A slot is used again under another id. */
struct slot {
  struct pry_host_call *call; /* NULL: free */
  uint32_t use;
  uint32_t next_free; /* index + 1; 0: none */
};

struct pry_host_calls {
  pthread_mutex_t lock; /* may be held when a call's is taken, not the other way */
  struct slot *slots;
  uint32_t slot_count, first_free;
  struct pry_list all; /* struct pry_host_call, also those without a slot any more */
  atomic_uint next_worker;
};

/* ---- holding ------------------------------------------------------------------------------------------------ */

static void free_call(struct pry_host_call *call)
{
  pry_buffer_fini(&call->text);
  pry_buffer_fini(&call->body);
  pry_headers_fini(&call->headers);
  pry_buffer_fini(&call->data);
  pry_buffer_fini(&call->spare);
  free(call->head);
  pry_host_attempts_fini(&call->attempts);
  pthread_mutex_destroy(&call->lock);
  free(call);
}

static void hold(struct pry_host_call *call)
{
  atomic_fetch_add(&call->holders, 1);
}

void pry_host_call_let_go(struct pry_host_call *call)
{
  if (atomic_fetch_sub(&call->holders, 1) != 1)
    return;
  struct pry_host_calls *calls = call->host->calls;
  pthread_mutex_lock(&calls->lock);
  pry_list_remove(&call->link);
  pthread_mutex_unlock(&calls->lock);
  free_call(call);
}

/* ---- ids ---------------------------------------------------------------------------------------------------- */

static bool grow(struct pry_host_calls *calls)
{
  uint32_t count = calls->slot_count ? 2 * calls->slot_count : FIRST_SLOTS;
  struct slot *slots = count > calls->slot_count ? realloc(calls->slots, count * sizeof *slots) : NULL;
  if (!slots)
    return false;
  for (uint32_t i = calls->slot_count; i < count; i++)
    slots[i] = (struct slot){.next_free = i + 1 < count ? i + 2 : 0};
  calls->first_free = calls->slot_count + 1;
  calls->slots = slots;
  calls->slot_count = count;
  return true;
}

/* Gives the call its id. False: no memory. */
static bool enter(struct pry_host_call *call)
{
  struct pry_host_calls *calls = call->host->calls;
  pthread_mutex_lock(&calls->lock);
  bool entered = calls->first_free || grow(calls);
  if (entered) {
    uint32_t place = calls->first_free;
    struct slot *slot = &calls->slots[place - 1];
    calls->first_free = slot->next_free;
    slot->call = call;
    slot->use++;
    call->id.value = (uint64_t)slot->use << 32 | place;
    pry_list_push(&calls->all, &call->link);
  }
  pthread_mutex_unlock(&calls->lock);
  return entered;
}

static void leave(struct pry_host_call *call)
{
  struct pry_host_calls *calls = call->host->calls;
  uint32_t place = (uint32_t)call->id.value;
  pthread_mutex_lock(&calls->lock);
  struct slot *slot = &calls->slots[place - 1];
  slot->call = NULL;
  slot->next_free = calls->first_free;
  calls->first_free = place;
  pthread_mutex_unlock(&calls->lock);
}

/* The call with its lock held, or NULL. The lock keeps it from ending. */
struct pry_host_call *pry_host_call_find(struct pry_host *host, parry_call_id id)
{
  struct pry_host_calls *calls = host->calls;
  uint32_t place = (uint32_t)id.value;
  pthread_mutex_lock(&calls->lock);
  struct pry_host_call *call = place && place <= calls->slot_count ? calls->slots[place - 1].call : NULL;
  if (call && call->id.value != id.value)
    call = NULL;
  if (call)
    pthread_mutex_lock(&call->lock);
  pthread_mutex_unlock(&calls->lock);
  return call;
}

/* ---- between the two threads: all with the call's lock held --------------------------------------------------- */

void pry_host_call_order(struct pry_host_call *call, unsigned order)
{
  call->orders |= order;
  hold(call);
  if (!pry_mailbox_post(call->worker->mailbox, &call->ordered))
    atomic_fetch_sub(&call->holders, 1); /* one is on its way, and holds it */
}

void pry_host_call_tell(struct pry_host_call *call)
{
  pry_mailbox_post(call->host->outbox, &call->due);
}

static void drop_data(struct pry_host_call *call)
{
  atomic_fetch_sub(&call->host->buffered, call->data.size);
  pry_buffer_fini(&call->data);
}

/* ---- on the dispatching thread ----------------------------------------------------------------------------------- */

/* Each with the lock held, and let go of while the host's callback runs: it may cancel, pause and resume. */

static void give_head(struct pry_host_call *call)
{
  struct parry_header *head = call->head;
  call->has_head = false;
  call->head = NULL;
  pthread_mutex_unlock(&call->lock);
  call->ops.on_headers(call->user, call->status, head, call->head_count);
  free(head);
  pthread_mutex_lock(&call->lock);
}

/* There is room again. */
static void go_on(struct pry_host_call *call)
{
  if (call->held && !call->paused && !call->cancelled) {
    call->held = false;
    pry_host_call_order(call, PRY_ORDER_RESUME);
  }
}

static void give_data(struct pry_host_call *call)
{
  struct pry_buffer data = call->data;
  call->data = call->spare;
  call->resumed = false;
  pthread_mutex_unlock(&call->lock);
  bool pause = call->ops.on_data(call->user, data.data, data.size) == PARRY_PAUSE;
  atomic_fetch_sub(&call->host->buffered, data.size);
  pry_buffer_clear(&data);
  if (data.capacity > SPARE_MAX)
    pry_buffer_fini(&data);
  call->spare = data;
  pthread_mutex_lock(&call->lock);
  call->paused = pause && !call->resumed && !call->cancelled && !atomic_load(&call->host->freeing);
  go_on(call);
}

static void give_done(struct pry_host_call *call)
{
  struct pry_last_words *last = &call->last;
  if (call->data.size)
    last->outcome.truncated = true;
  drop_data(call);
  pthread_mutex_unlock(&call->lock);
  leave(call);
  pthread_mutex_lock(&call->lock); /* whoever had found it before has finished now */
  pry_mailbox_withdraw(call->host->outbox, &call->due);
  pthread_mutex_unlock(&call->lock);
  pry_host_close(call->host);
  if (call->ops.on_done)
    call->ops.on_done(call->user, &last->outcome);
  pry_host_call_let_go(call);
}

/* What comes while a callback runs is told the next time. */
static void deliver(struct pry_message *message)
{
  struct pry_host_call *call = PRY_CONTAINER_OF(message, struct pry_host_call, due);
  pthread_mutex_lock(&call->lock);
  if (call->attempts.abandoned)
    pry_host_give_abandon(call);
  if (call->attempts.asked && !call->cancelled)
    pry_host_give_attempt(call);
  if (call->has_head && !call->cancelled)
    give_head(call);
  if (call->data.size && !call->cancelled && !call->paused)
    give_data(call);
  if (call->has_done && !call->attempts.abandoned && (call->cancelled || (!call->paused && !call->data.size))) {
    give_done(call);
    return;
  }
  pthread_mutex_unlock(&call->lock);
}

/* ---- what the host calls ------------------------------------------------------------------------------------------ */

static bool copy_text(struct pry_host_call *call, const struct parry_request *request)
{
  const char *method = request->method ? request->method : "POST";
  const char *first_target = request->target ? request->target : "";
  size_t method_size = strlen(method), target_size = strlen(request->path);
  if (!pry_buffer_append(&call->text, method, method_size) ||
      !pry_buffer_append(&call->text, request->path, target_size) || !pry_buffer_append_text(&call->text, first_target))
    return false;
  const char *path = call->text.data + method_size;
  const char *query = memchr(path, '?', target_size);
  call->method = (struct pry_slice){call->text.data, method_size};
  call->path = (struct pry_slice){path, query ? (size_t)(query - path) : target_size};
  call->query = query ? (struct pry_slice){query + 1, target_size - call->path.size - 1} : (struct pry_slice){NULL, 0};
  call->target = (struct pry_slice){path + target_size, strlen(first_target)};
  return true;
}

static int copy_request(struct pry_host_call *call, const struct parry_request *request)
{
  int error = pry_host_headers(request->headers, request->header_count, &call->headers);
  if (error)
    return error;
  if (!copy_text(call, request) || (request->body_size && !pry_buffer_reserve(&call->body, request->body_size)) ||
      !pry_buffer_append(&call->body, request->body, request->body_size))
    return PARRY_ENOMEM;
  return PARRY_OK;
}

static struct pry_host_call *new_call(struct pry_host *host, const struct parry_call_ops *ops, void *user)
{
  struct pry_host_call *call = calloc(1, sizeof *call);
  if (!call)
    return NULL;
  call->host = host;
  call->ops = *ops;
  call->user = user;
  call->ordered.deliver = pry_host_call_take_orders;
  call->due.deliver = deliver;
  atomic_init(&call->holders, 2); /* the worker and the host's side */
  pry_list_init(&call->link);
  pry_buffer_init(&call->text, 0);
  pry_buffer_init(&call->body, host->engine->options.replay_limit);
  pry_headers_init(&call->headers);
  pry_buffer_init(&call->data, 0);
  pry_buffer_init(&call->spare, 0);
  pthread_mutex_init(&call->lock, NULL); /* cannot fail without attributes on Linux */
  unsigned turn = atomic_fetch_add(&host->calls->next_worker, 1);
  call->worker = pry_engine_serving_worker(host->engine, turn % pry_engine_serving_count(host->engine));
  return call;
}

static int start_call(struct pry_host *host, const struct parry_request *request, const struct parry_call_ops *ops,
                      void *user, parry_call_id *id)
{
  struct pry_host_call *call = new_call(host, ops, user);
  if (!call)
    return PARRY_ENOMEM;
  int error = copy_request(call, request);
  if (!error && !enter(call))
    error = PARRY_ENOMEM;
  if (error) {
    free_call(call);
    return error;
  }
  if (id)
    *id = call->id; /* before it may have ended */
  pthread_mutex_lock(&call->lock);
  pry_host_call_order(call, PRY_ORDER_START);
  pthread_mutex_unlock(&call->lock);
  return PARRY_OK;
}

/* As a client of the gateway can say it: what curl would cut off or refuse would look like the provider's failure. */
static bool is_http(const struct parry_request *request)
{
  struct pry_slice method = pry_slice_of(request->method ? request->method : "POST");
  for (const char *path = request->path; *path; path++)
    if ((unsigned char)*path <= ' ' || (unsigned char)*path >= 0x7F || *path == '#' || *path == '\\')
      return false;
  return pry_http_is_token(method) && !pry_slice_equal(method, PRY_SLICE("CONNECT"));
}

static bool is_complete(const struct pry_host *host, const struct parry_request *request)
{
  return request->path && request->path[0] == '/' && (!request->body_size || request->body) &&
         (!request->header_count || request->headers) && request->body_size <= host->engine->options.replay_limit;
}

int parry_call(parry *handle, const struct parry_request *request, const struct parry_call_ops *ops, void *user,
               parry_call_id *id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_request asked;
  struct parry_call_ops told;
  if (id)
    id->value = 0;
  if (!host)
    return error;
  if (!request || !pry_host_take(&asked, sizeof asked, request) || !ops || !pry_host_take(&told, sizeof told, ops) ||
      !is_complete(host, &asked) || (!told.on_attempt && !is_http(&asked)))
    return PARRY_EINVAL;
  if (atomic_load(&host->freeing))
    return PARRY_EREENTRANT;
  if (!pry_engine_ready(host->engine))
    return PARRY_EPOLICY;
  if (atomic_load(&host->buffered) > host->options.max_buffered || pry_host_open(host) != PARRY_OK)
    return PARRY_BUSY;
  error = start_call(host, &asked, &told, user, id);
  if (error)
    pry_host_close(host);
  return error;
}

int parry_call_resume(parry *handle, parry_call_id id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct pry_host_call *call = host ? pry_host_call_find(host, id) : NULL;
  if (!call)
    return host ? PARRY_ENOENT : error;
  call->paused = false;
  call->resumed = true;
  if (call->data.size || call->has_done)
    pry_host_call_tell(call);
  else
    go_on(call);
  pthread_mutex_unlock(&call->lock);
  return PARRY_OK;
}

int parry_call_cancel(parry *handle, parry_call_id id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct pry_host_call *call = host ? pry_host_call_find(host, id) : NULL;
  if (!call)
    return host ? PARRY_ENOENT : error;
  if (!call->cancelled) {
    call->cancelled = true;
    if (call->has_done && call->data.size)
      call->last.outcome.truncated = true;
    drop_data(call);
    if (call->has_done)
      pry_host_call_tell(call);
    else
      pry_host_call_order(call, PRY_ORDER_CANCEL);
  }
  pthread_mutex_unlock(&call->lock);
  return PARRY_OK;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

bool pry_host_calls_init(struct pry_host *host)
{
  struct pry_host_calls *calls = calloc(1, sizeof *calls);
  host->calls = calls;
  if (!calls)
    return false;
  pthread_mutex_init(&calls->lock, NULL); /* cannot fail without attributes on Linux */
  pry_list_init(&calls->all);
  return true;
}

void pry_host_calls_end(struct pry_host *host)
{
  struct pry_host_calls *calls = host->calls;
  for (unsigned i = 0; i < host->engine->worker_count; i++)
    pry_calls_destroy(host->engine->workers[i]);
  for (uint32_t i = 0; i < calls->slot_count; i++) {
    struct pry_host_call *call = calls->slots[i].call;
    if (call && !call->has_done) /* its worker never heard of it */
      pry_host_call_begin(call, true);
    if (call) {
      pthread_mutex_lock(&call->lock);
      call->cancelled = call->cancelled || call->paused; /* nobody is going to resume it */
      pry_host_call_tell(call);
      pthread_mutex_unlock(&call->lock);
    }
  }
}

void pry_host_calls_fini(struct pry_host *host)
{
  struct pry_host_calls *calls = host->calls;
  if (!calls)
    return;
  while (!pry_list_empty(&calls->all)) { /* held by orders that nobody took */
    struct pry_host_call *call = PRY_CONTAINER_OF(calls->all.next, struct pry_host_call, link);
    pry_list_remove(&call->link);
    free_call(call);
  }
  free(calls->slots);
  pthread_mutex_destroy(&calls->lock);
  free(calls);
  host->calls = NULL;
}

size_t pry_host_calls_buffered(struct pry_host *host)
{
  return atomic_load(&host->buffered);
}
