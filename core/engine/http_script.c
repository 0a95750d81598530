#include "http_script.h"

#include "list.h"

#include <stdlib.h>

struct step {
  struct pry_list link;
  int status;
  struct pry_headers headers;
  struct pry_buffer body; /* all chunks, one after the other */
  size_t *chunk_ends;     /* offsets into body */
  size_t chunk_count;
  int curl_code;
  bool after_body, cut, hang_connect, hang, unsent, early, not_public;
  pry_time delay, chunk_delay, take_delay;
  size_t takes;
  char *url_part;
  unsigned references; /* the script's and one per exchange */
};

struct pry_http_script {
  struct pry_http base;
  struct pry_loop *loop;
  struct pry_list steps; /* unused */
  struct step *fallback;
  struct pry_list open;
  struct pry_http_seen **seen; /* each by itself, so that a pointer stays valid */
  size_t seen_count, seen_capacity;
};

enum phase { PHASE_HEAD, PHASE_BODY, PHASE_END, PHASE_OVER };

struct exchange {
  struct pry_http_exchange base;
  struct pry_list link;
  struct pry_http_script *script;
  const struct pry_http_ops *ops;
  void *user;
  struct step *step; /* NULL: the script had run out */
  struct pry_http_seen *seen;
  struct pry_timer timer;
  enum phase phase;
  size_t chunk;     /* being delivered */
  size_t delivered; /* bytes of the body */
  bool inside_chunk;
  bool no_body; /* the answer to HEAD */
  bool connected, sent, head_received;
  bool uploading;    /* a body is to be asked for */
  bool upload_waits; /* its sender had nothing */
  bool paused;
  bool due_while_paused;
  bool calling; /* inside a callback: cancel must leave the memory */
  bool cancelled;
};

static const struct pry_http_driver driver;

/* ---- Steps ------------------------------------------------------------------------------------------- */

static void step_unref(struct step *step)
{
  if (!step || --step->references)
    return;
  pry_headers_fini(&step->headers);
  pry_buffer_fini(&step->body);
  free(step->chunk_ends);
  free(step->url_part);
  free(step);
}

static bool step_copy_chunks(struct step *step, const struct pry_http_step *from)
{
  if (!from->chunk_count)
    return true;
  step->chunk_ends = calloc(from->chunk_count, sizeof *step->chunk_ends);
  if (!step->chunk_ends)
    return false;
  for (size_t i = 0; i < from->chunk_count; i++) {
    if (!pry_buffer_append_slice(&step->body, from->chunks[i]))
      return false;
    step->chunk_ends[i] = step->body.size;
  }
  step->chunk_count = from->chunk_count;
  return true;
}

static struct step *step_new(const struct pry_http_step *from)
{
  struct step *step = calloc(1, sizeof *step);
  if (!step)
    return NULL;
  pry_list_init(&step->link);
  pry_headers_init(&step->headers);
  pry_buffer_init(&step->body, 0);
  step->references = 1;
  step->status = from->status ? from->status : 200;
  step->curl_code = from->curl_code ? from->curl_code : from->cut ? PRY_HTTP_CUT : PRY_HTTP_OK;
  step->after_body = from->after_body || from->cut;
  step->hang_connect = from->hang_connect;
  step->hang = from->hang;
  step->unsent = from->unsent;
  step->not_public = from->not_public;
  step->delay = pry_time_from_seconds(from->delay);
  step->chunk_delay = pry_time_from_seconds(from->chunk_delay);
  step->take_delay = pry_time_from_seconds(from->take_delay);
  step->takes = from->takes;
  step->early = from->early;
  step->url_part = from->url_part ? strdup(from->url_part) : NULL;
  if ((from->url_part && !step->url_part) || (from->headers && !pry_headers_add_all(&step->headers, from->headers)) ||
      !step_copy_chunks(step, from)) {
    step_unref(step);
    return NULL;
  }
  return step;
}

/* The step for `url`, with a reference for the caller; NULL: the script has run out. */
static struct step *take_step(struct pry_http_script *script, const char *url)
{
  for (struct pry_list *link = script->steps.next; link != &script->steps; link = link->next) {
    struct step *step = PRY_CONTAINER_OF(link, struct step, link);
    if (step->url_part && !strstr(url, step->url_part))
      continue;
    pry_list_remove(link);
    return step;
  }
  if (script->fallback)
    script->fallback->references++;
  return script->fallback;
}

/* ---- What was seen ------------------------------------------------------------------------------------ */

static void seen_free(struct pry_http_seen *seen)
{
  if (!seen)
    return;
  free((char *)seen->method);
  free((char *)seen->url);
  free((char *)seen->body.data);
  pry_headers_fini(&seen->headers);
  free(seen);
}

static struct pry_http_seen *seen_new(const struct pry_http_request *request, pry_time now)
{
  struct pry_http_seen *seen = calloc(1, sizeof *seen);
  if (!seen)
    return NULL;
  pry_headers_init(&seen->headers);
  seen->method = strdup(request->method);
  seen->url = strdup(request->url);
  seen->started = now;
  char *body = malloc(request->body.size + 1);
  if (body && request->body.size)
    memcpy(body, request->body.data, request->body.size);
  seen->body = (struct pry_slice){body, request->body.size};
  if (!seen->method || !seen->url || !body ||
      (request->headers && !pry_headers_add_all(&seen->headers, request->headers))) {
    seen_free(seen);
    return NULL;
  }
  return seen;
}

static bool reserve_seen(struct pry_http_script *script)
{
  if (script->seen_count < script->seen_capacity)
    return true;
  size_t capacity = script->seen_capacity ? script->seen_capacity * 2 : 16;
  struct pry_http_seen **seen = realloc(script->seen, capacity * sizeof(struct pry_http_seen *));
  if (!seen)
    return false;
  script->seen = seen;
  script->seen_capacity = capacity;
  return true;
}

/* ---- Exchanges ---------------------------------------------------------------------------------------- */

static void exchange_free(struct exchange *exchange)
{
  pry_timer_cancel(&exchange->timer);
  pry_list_remove(&exchange->link);
  step_unref(exchange->step);
  free(exchange);
}

static void finish(struct exchange *exchange, int curl_code, const char *message)
{
  struct pry_http_result result = {
      .curl_code = curl_code,
      .connected = exchange->connected,
      .sent = exchange->sent,
      .head_received = exchange->head_received,
      .not_public = exchange->step && exchange->step->not_public,
      .message = message,
  };
  exchange->phase = PHASE_OVER;
  exchange->seen->finished = true;
  pry_list_remove(&exchange->link);
  exchange->ops->on_done(exchange->user, &result);
}

/* One piece per turn of the loop. True: no more is wanted, or to come; the answer may begin. */
static bool take_piece(struct exchange *exchange)
{
  struct pry_http_seen *seen = exchange->seen;
  size_t most = exchange->step->takes ? exchange->step->takes - seen->body.size : PRY_HTTP_CHUNK_MAX;
  size_t room = most < PRY_HTTP_CHUNK_MAX ? most : PRY_HTTP_CHUNK_MAX;
  char *body = realloc((char *)seen->body.data, seen->body.size + room + 1);
  if (!body) {
    finish(exchange, PRY_HTTP_NO_MEMORY, "memory is short");
    return false;
  }
  seen->body.data = body;
  ptrdiff_t size = exchange->ops->on_upload(exchange->user, body + seen->body.size, room);
  if (exchange->cancelled)
    return false;
  exchange->upload_waits = size == PRY_HTTP_UPLOAD_WAIT;
  if (size == PRY_HTTP_UPLOAD_FAILED)
    finish(exchange, PRY_HTTP_UPLOAD_ENDED, "the request's body broke off");
  if (size < 0)
    return exchange->upload_waits && exchange->step->early && exchange->phase == PHASE_HEAD;
  seen->body.size += (size_t)size;
  /* With a length, as in life, it is not asked whether that was all. */
  seen->uploaded = size == PRY_HTTP_UPLOAD_END || (int64_t)seen->body.size == seen->upload_size;
  exchange->uploading = !seen->uploaded && seen->body.size != exchange->step->takes;
  return !exchange->uploading;
}

static void connect_to_peer(struct exchange *exchange)
{
  exchange->connected = true;
  exchange->sent = true;
  if (exchange->ops->on_connected)
    exchange->ops->on_connected(exchange->user);
}

static void answer_head(struct exchange *exchange)
{
  const struct step *step = exchange->step;
  bool fails_now = step->curl_code && !step->after_body;
  if (step->hang_connect)
    return;
  if (!(fails_now && step->unsent) && !exchange->connected)
    connect_to_peer(exchange);
  if (exchange->cancelled || (exchange->uploading && !(fails_now && !step->takes) && !take_piece(exchange)))
    return;
  if (fails_now) {
    finish(exchange, step->curl_code, pry_http_code_text(step->curl_code));
    return;
  }
  if (step->hang && !step->chunk_count)
    return;
  exchange->head_received = true;
  exchange->phase = exchange->no_body || !step->chunk_count ? PHASE_END : PHASE_BODY;
  exchange->ops->on_head(exchange->user, step->status, &step->headers);
}

/* One piece per turn of the loop, at most what curl would hand over at once. */
static void answer_piece(struct exchange *exchange)
{
  const struct step *step = exchange->step;
  size_t end = step->chunk_ends[exchange->chunk];
  size_t size = end - exchange->delivered < PRY_HTTP_CHUNK_MAX ? end - exchange->delivered : PRY_HTTP_CHUNK_MAX;
  struct pry_slice piece = {step->body.data + exchange->delivered, size};
  exchange->delivered += size;
  exchange->inside_chunk = exchange->delivered < end;
  if (!exchange->inside_chunk && ++exchange->chunk == step->chunk_count)
    exchange->phase = PHASE_END;
  if (size)
    exchange->paused = exchange->ops->on_data(exchange->user, piece) == PRY_HTTP_PAUSE;
}

static void proceed(void *user);

/* Restarting the timer that has just fired needs no memory: its place in the heap is free. */
static void wait_for(struct exchange *exchange, pry_time delay)
{
  pry_timer_start(exchange->script->loop, &exchange->timer, delay, proceed, exchange);
}

static bool hangs_here(const struct exchange *exchange)
{
  if (exchange->phase == PHASE_HEAD)
    return !exchange->uploading || exchange->upload_waits || !exchange->connected;
  return exchange->phase == PHASE_END && (exchange->step->hang || exchange->upload_waits);
}

static pry_time delay_before_next(const struct exchange *exchange)
{
  if (exchange->uploading && exchange->phase != PHASE_BODY)
    return exchange->step->take_delay;
  return exchange->phase == PHASE_BODY && !exchange->inside_chunk ? exchange->step->chunk_delay : 0;
}

static void advance(struct exchange *exchange)
{
  if (!exchange->step)
    finish(exchange, PRY_HTTP_COULDNT_CONNECT, "the script has run out of answers");
  else if (exchange->phase == PHASE_HEAD)
    answer_head(exchange);
  else if (exchange->phase == PHASE_BODY)
    answer_piece(exchange);
  else if (!exchange->uploading || !exchange->step->early || take_piece(exchange))
    finish(exchange, exchange->step->curl_code, pry_http_code_text(exchange->step->curl_code));
}

static void proceed(void *user)
{
  struct exchange *exchange = user;
  if (exchange->paused) {
    exchange->due_while_paused = true;
    return;
  }
  exchange->calling = true;
  advance(exchange);
  exchange->calling = false;
  if (exchange->cancelled || exchange->phase == PHASE_OVER)
    exchange_free(exchange);
  else if (!hangs_here(exchange))
    wait_for(exchange, delay_before_next(exchange));
}

static struct pry_http_exchange *script_start(struct pry_http *http, const struct pry_http_request *request,
                                              const struct pry_http_ops *ops, void *user)
{
  struct pry_http_script *script = (struct pry_http_script *)http;
  struct exchange *exchange = calloc(1, sizeof *exchange);
  struct pry_http_seen *seen = seen_new(request, pry_loop_now(script->loop));
  if (!exchange || !seen || !reserve_seen(script) ||
      !pry_timer_start(script->loop, &exchange->timer, PRY_TIME_NEVER, proceed, exchange)) {
    free(exchange);
    seen_free(seen);
    return NULL;
  }
  script->seen[script->seen_count++] = seen;
  exchange->base.driver = &driver;
  exchange->script = script;
  exchange->ops = ops;
  exchange->user = user;
  exchange->seen = seen;
  exchange->no_body = strcmp(request->method, "HEAD") == 0;
  exchange->uploading = request->upload;
  seen->upload_size = request->upload ? request->upload_size : 0;
  exchange->step = take_step(script, request->url);
  pry_list_push(&script->open, &exchange->link);
  wait_for(exchange, exchange->step ? exchange->step->delay : 0);
  return &exchange->base;
}

static void script_resume(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (!exchange->paused)
    return;
  exchange->paused = false;
  if (exchange->due_while_paused)
    wait_for(exchange, 0);
  exchange->due_while_paused = false;
}

static void script_upload(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (exchange->upload_waits && exchange->phase != PHASE_BODY)
    wait_for(exchange, 0);
  exchange->upload_waits = false;
}

static void script_cancel(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (exchange->phase == PHASE_OVER || exchange->cancelled)
    return;
  exchange->seen->cancelled = true;
  exchange->cancelled = true;
  pry_list_remove(&exchange->link);
  if (!exchange->calling)
    exchange_free(exchange);
}

static size_t script_open_count(const struct pry_http *http)
{
  const struct pry_http_script *script = (const struct pry_http_script *)http;
  size_t count = 0;
  for (const struct pry_list *link = script->open.next; link != &script->open; link = link->next)
    count++;
  return count;
}

static void script_free(struct pry_http *http)
{
  struct pry_http_script *script = (struct pry_http_script *)http;
  while (!pry_list_empty(&script->open))
    exchange_free(PRY_CONTAINER_OF(script->open.next, struct exchange, link));
  while (!pry_list_empty(&script->steps)) {
    struct step *step = PRY_CONTAINER_OF(script->steps.next, struct step, link);
    pry_list_remove(&step->link);
    step_unref(step);
  }
  step_unref(script->fallback);
  for (size_t i = 0; i < script->seen_count; i++)
    seen_free(script->seen[i]);
  free(script->seen);
  free(script);
}

static const struct pry_http_driver driver = {
    .start = script_start,
    .resume = script_resume,
    .upload = script_upload,
    .cancel = script_cancel,
    .open_count = script_open_count,
    .free = script_free,
};

/* ---- The test's side ---------------------------------------------------------------------------------- */

struct pry_http_script *pry_http_script_new(struct pry_loop *loop)
{
  struct pry_http_script *script = calloc(1, sizeof *script);
  if (!script)
    return NULL;
  script->base.driver = &driver;
  script->loop = loop;
  pry_list_init(&script->steps);
  pry_list_init(&script->open);
  return script;
}

struct pry_http *pry_http_script_client(struct pry_http_script *script)
{
  return &script->base;
}

bool pry_http_script_push(struct pry_http_script *script, const struct pry_http_step *step)
{
  struct step *copy = step_new(step);
  if (!copy)
    return false;
  pry_list_push(&script->steps, &copy->link);
  return true;
}

bool pry_http_script_set_default(struct pry_http_script *script, const struct pry_http_step *step)
{
  struct step *copy = step ? step_new(step) : NULL;
  if (step && !copy)
    return false;
  step_unref(script->fallback);
  script->fallback = copy;
  return true;
}

size_t pry_http_script_seen_count(const struct pry_http_script *script)
{
  return script->seen_count;
}

const struct pry_http_seen *pry_http_script_seen(const struct pry_http_script *script, size_t i)
{
  return i < script->seen_count ? script->seen[i] : NULL;
}

size_t pry_http_script_unused(const struct pry_http_script *script)
{
  size_t count = 0;
  for (const struct pry_list *link = script->steps.next; link != &script->steps; link = link->next)
    count++;
  return count;
}
