#include "lib_http.h"

#include "sandbox.h"

#include <stdio.h>

/*
 *   ---@class http
 *   http = {}
 *   ---@param v { url?: string, service?: string, path?: string, method?: string, headers?: table, json?: any,
 *                 form?: table, body?: string, timeout?: number }
 *   ---@return { status: integer, headers: table<string, string>, body: string, json: fun(): any }? answer
 *   ---@return { category: string, message: string }? err
 *   Waits for the answer, at most 10 seconds in all per handler. Any status is an answer; err is for what gave none.
 *   function http.request(v) end
 */

static const char OPERATION_KEY = 0;

/* ---- the operation -------------------------------------------------------------------------------------------- */

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

/* Stops the I/O. Safe to call twice. */
static void stop(struct pry_http_operation *operation)
{
  pry_timer_cancel(&operation->timer);
  pry_token_leave(&operation->waiter);
  if (operation->exchange)
    pry_http_cancel(operation->exchange);
  operation->exchange = NULL;
}

static void release(struct pry_http_operation *operation)
{
  pry_list_remove(&operation->leftover.link);
  pry_decision_forget(operation->decision, &operation->beginning);
  stop(operation);
  wipe(&operation->url);
  wipe(&operation->body);
  wipe(&operation->headers.text);
  pry_headers_fini(&operation->headers);
  pry_headers_fini(&operation->answer_headers);
  wipe(&operation->answer);
}

static void release_leftover(struct pry_leftover *leftover)
{
  release(PRY_CONTAINER_OF(leftover, struct pry_http_operation, leftover));
}

static int operation_gc(lua_State *L)
{
  release(lua_touserdata(L, 1));
  return 0;
}

static struct pry_http_operation *new_operation(lua_State *L, struct pry_decision *decision)
{
  struct pry_http_operation *operation = lua_newuserdatauv(L, sizeof *operation, 0);
  *operation = (struct pry_http_operation){.decision = decision};
  pry_buffer_init(&operation->url, PRY_HTTP_URL_MAX);
  pry_buffer_init(&operation->body, PRY_HTTP_BODY_MAX);
  pry_buffer_init(&operation->answer, PRY_HTTP_ANSWER_MAX);
  pry_headers_init(&operation->headers);
  pry_headers_init(&operation->answer_headers);
  pry_list_init(&operation->waiter.link);
  pry_decision_leftover(L, &operation->leftover, release_leftover);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &OPERATION_KEY);
  lua_setmetatable(L, -2);
  return operation;
}

static void set_failure(struct pry_http_operation *operation, const char *category, const char *message)
{
  snprintf(operation->category, sizeof operation->category, "%s", category);
  snprintf(operation->message, sizeof operation->message, "%s", message);
}

/* The last act on an operation: the handler goes on, and may end with everything it belongs to. */
static void deliver(struct pry_http_operation *operation)
{
  struct pry_decision *decision = operation->decision;
  pry_time now = pry_loop_clock(pry_decision_worker(decision)->loop);
  stop(operation);
  decision->http_left -= now - operation->started;
  pry_decision_wake(decision, operation->ticket);
}

static void timed_out(void *user)
{
  struct pry_http_operation *operation = user;
  if (!operation->category[0])
    set_failure(operation, "timeout", "no answer in time");
  deliver(operation);
}

/* From inside a callback of the exchange: it is stopped, and the handler told from the loop. */
static void fail_soon(struct pry_http_operation *operation, const char *category, const char *message)
{
  stop(operation);
  set_failure(operation, category, message);
  pry_timer_start(pry_decision_worker(operation->decision)->loop, &operation->timer, 0, timed_out, operation);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_http_operation *operation = user;
  operation->status = status;
  if (!pry_headers_add_all(&operation->answer_headers, headers))
    fail_soon(operation, "network", "the answer's head is too long");
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_http_operation *operation = user;
  if (!pry_buffer_append_slice(&operation->answer, data))
    fail_soon(operation, "network", "the answer has more than 256 KiB");
  return PRY_HTTP_CONTINUE;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct pry_http_operation *operation = user;
  operation->exchange = NULL; /* it frees itself */
  if (result->curl_code)
    set_failure(operation, result->curl_code == PRY_HTTP_TIMED_OUT ? "timeout" : "network",
                result->message ? result->message : pry_http_code_text(result->curl_code));
  deliver(operation);
}

/* False: no memory. */
static bool send_request(struct pry_http_operation *operation)
{
  static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};
  const char *url = pry_buffer_text(&operation->url);
  if (!url)
    return false;
  struct pry_http_request request = {.method = operation->method,
                                     .url = url,
                                     .headers = &operation->headers,
                                     .body = pry_buffer_slice(&operation->body),
                                     .has_body = operation->has_body};
  operation->exchange = pry_http_start(pry_decision_worker(operation->decision)->http, &request, &ops, operation);
  return operation->exchange != NULL;
}

/* ---- a service's own credential -------------------------------------------------------------------------------- */

static void take_token(struct pry_http_operation *operation);

static void token_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  struct pry_http_operation *operation = user;
  (void)waiter;
  if (renewed)
    take_token(operation);
  else
    fail_soon(operation, "auth", why);
}

/* The credential's token, now or after its renewal; then the request goes out. */
static void take_token(struct pry_http_operation *operation)
{
  struct pry_credentials *credentials = pry_decision_engine(operation->decision)->credentials;
  struct pry_buffer token;
  uint64_t version;
  const char *why = "no token";
  pry_buffer_init(&token, 0);
  enum pry_token_status status =
      pry_credential_token(credentials, pry_decision_mailbox(operation->decision), operation->auth->credential->name,
                           &token, &version, &operation->waiter, token_ready, operation, &why);
  if (status == PRY_TOKEN_FAILED)
    fail_soon(operation, "auth", why);
  else if (status == PRY_TOKEN_READY &&
           !(pry_http_add_auth(operation, operation->auth, pry_buffer_slice(&token)) && send_request(operation)))
    fail_soon(operation, "network", "not enough memory");
  wipe(&token);
}

static void begin(struct pry_http_operation *operation)
{
  const struct pry_auth *auth = operation->auth;
  if (operation->missing)
    fail_soon(operation, "auth", operation->missing);
  else if (auth && auth->credential)
    take_token(operation);
  else if (auth && auth->secret && !auth->secret->value)
    fail_soon(operation, "auth", "the service's secret is missing; see `parry check`");
  else if ((auth && auth->secret && !pry_http_add_auth(operation, auth, pry_slice_of(auth->secret->value))) ||
           !send_request(operation))
    fail_soon(operation, "network", "not enough memory");
}

static bool start_timer(struct pry_http_operation *operation)
{
  struct pry_loop *loop = pry_decision_worker(operation->decision)->loop;
  return pry_timer_start(loop, &operation->timer, operation->timeout, timed_out, operation);
}

/* The timer first: it has the last word, and later starts of it cannot fail. */
static void start(struct pry_message *message)
{
  struct pry_http_operation *operation = PRY_CONTAINER_OF(message, struct pry_http_operation, beginning);
  if (pry_timer_running(&operation->timer) || start_timer(operation)) {
    begin(operation);
    return;
  }
  set_failure(operation, "network", "not enough memory");
  deliver(operation);
}

/* ---- what the script gets ------------------------------------------------------------------------------------------ */

static int answer_json(lua_State *L)
{
  return pry_lua_json_decode(L, pry_lua_text(L, lua_upvalueindex(1)));
}

void pry_http_push_headers(lua_State *L, const struct pry_headers *headers)
{
  lua_newtable(L);
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    luaL_Buffer name;
    char *text = luaL_buffinitsize(L, &name, line.name.size);
    for (size_t j = 0; j < line.name.size; j++)
      text[j] = (char)pry_ascii_lower((unsigned char)line.name.data[j]);
    luaL_pushresultsize(&name, line.name.size);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_pushlstring(L, line.value.data, line.value.size);
    } else {
      lua_pushliteral(L, ", ");
      lua_pushlstring(L, line.value.data, line.value.size);
      lua_concat(L, 3);
    }
    lua_rawset(L, -3);
  }
}

static void record(struct pry_http_operation *operation)
{
  struct pry_read read = pry_read_begin(operation->decision, "http.request");
  pry_read_text(&read, pry_slice_of(operation->method));
  pry_read_text(&read, pry_buffer_slice(&operation->url));
  if (operation->category[0]) {
    pry_read_null(&read);
    pry_read_text(&read, pry_slice_of(operation->category));
    pry_read_text(&read, pry_slice_of(operation->message));
  } else {
    pry_read_number(&read, operation->status);
    pry_read_text(&read, operation->sealed ? PRY_SLICE("***") : pry_buffer_slice(&operation->answer));
  }
  pry_read_end(&read);
}

/* A body that asks to have "secrets" in JSON… is the script's own business: it asked for it. */
static int finish(lua_State *L, void *user)
{
  struct pry_http_operation *operation = user;
  record(operation);
  if (operation->category[0]) {
    int count = pry_lua_failed(L, operation->category, operation->message);
    release(operation);
    return count;
  }
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, operation->status);
  lua_setfield(L, -2, "status");
  pry_http_push_headers(L, &operation->answer_headers);
  lua_setfield(L, -2, "headers");
  lua_pushlstring(L, operation->answer.data ? operation->answer.data : "", operation->answer.size);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "body");
  lua_pushcclosure(L, answer_json, 1);
  lua_setfield(L, -2, "json");
  release(operation);
  return 1;
}

static void cancel(void *user)
{
  release(user);
}

static const struct pry_wait request_wait = {"http.request", finish, cancel};

static int http_request(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, "http.request");
  struct pry_ticket ticket = pry_task_ticket(L, "http.request");
  lua_settop(L, 1);
  struct pry_http_operation *operation = new_operation(L, decision);
  pry_http_read_request(L, operation);
  if (decision->http_left <= 0)
    return pry_lua_failed(L, "timeout", "this handler has waited for HTTP as long as it may");
  operation->ticket = ticket;
  operation->sealed = decision->ask->handler == PRY_REFRESH;
  operation->started = pry_loop_clock(pry_decision_worker(decision)->loop);
  operation->beginning.deliver = start;
  lua_settop(L, 2);
  if (!pry_decision_worker(decision)->decides && !start_timer(operation))
    return pry_lua_failed(L, "network", "not enough memory");
  pry_decision_begin(decision, &operation->beginning);
  return pry_task_wait(L, &request_wait, operation);
}

void pry_lib_http_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"request", http_request}, {"probe", pry_http_probe}, {NULL, NULL}};
  pry_lib_keep_metatable(L, &OPERATION_KEY, operation_gc);
  pry_http_probe_open(L);
  luaL_newlib(L, functions);
  pry_sandbox_set_global(L, "http");
}
