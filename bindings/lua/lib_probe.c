#include "lib_http.h"

#include "sandbox.h"

#include <stdio.h>

/*
 *   ---@class probe
 *   ---@field status integer                   any: 404 is an answer, too
 *   ---@field headers table<string, string>    of content-type, content-length, content-range, content-disposition, location
 *   ---@field url string                       that answered: another one after redirects
 *   ---@param v { url: string, method?: "HEAD"|"GET", redirects?: integer, timeout?: number }
 *   ---@return probe? answer
 *   ---@return { category: string, message: string }? err
 *   Looks at a URL that nobody vouches for, as one in a client's request. Only public addresses are asked, judged by the
 *   address that is connected to, so a name that leads into the inside network is refused however it got there
 *   (err.category "permission"); http and https, no user name, no credentials, no port below 1024 but 80 and 443. Nothing
 *   of a body is read: GET asks for one byte (Range) and leaves after the head. Redirects are followed up to `redirects`
 *   times (0; at most 3), each checked as the first URL was; never from https to http. What is wrong with the URL itself
 *   is returned, too (err.category "invalid_request"): it is somebody else's mistake. Waits, at most 10 seconds in all
 *   per handler.
 *   function http.probe(v) end
 */

enum { REDIRECTS_MAX = 3, COST = 1000 };

static const char FUNCTION[] = "http.probe", PROBE_KEY = 0;

/* One probe of one handler: a userdata on the coroutine's stack. */
struct probe {
  struct pry_leftover leftover;
  struct pry_decision *decision;
  struct pry_ticket ticket;
  const char *method;
  struct pry_buffer url, next;
  int redirects_left;
  pry_time timeout;
  /* under way */
  struct pry_message beginning;
  struct pry_http_exchange *exchange;
  struct pry_timer timer;
  pry_time started;
  /* what came */
  int status;
  struct pry_headers headers;
  char category[24], message[160]; /* of a failure; category "": none */
};

/* Safe to call twice. */
static void stop(struct probe *probe)
{
  pry_timer_cancel(&probe->timer);
  if (probe->exchange)
    pry_http_cancel(probe->exchange);
  probe->exchange = NULL;
}

static void release(struct probe *probe)
{
  pry_list_remove(&probe->leftover.link);
  pry_decision_forget(probe->decision, &probe->beginning);
  stop(probe);
  pry_buffer_fini(&probe->url);
  pry_buffer_fini(&probe->next);
  pry_headers_fini(&probe->headers);
}

static void release_leftover(struct pry_leftover *leftover)
{
  release(PRY_CONTAINER_OF(leftover, struct probe, leftover));
}

static int probe_gc(lua_State *L)
{
  release(lua_touserdata(L, 1));
  return 0;
}

static struct probe *new_probe(lua_State *L, struct pry_decision *decision)
{
  struct probe *probe = lua_newuserdatauv(L, sizeof *probe, 0);
  *probe = (struct probe){.decision = decision};
  pry_buffer_init(&probe->url, PRY_HTTP_URL_MAX);
  pry_buffer_init(&probe->next, PRY_HTTP_URL_MAX);
  pry_headers_init(&probe->headers);
  pry_decision_leftover(L, &probe->leftover, release_leftover);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &PROBE_KEY);
  lua_setmetatable(L, -2);
  return probe;
}

static void set_failure(struct probe *probe, const char *category, const char *message)
{
  snprintf(probe->category, sizeof probe->category, "%s", category);
  snprintf(probe->message, sizeof probe->message, "%s", message);
}

/* ---- under way ------------------------------------------------------------------------------------------------- */

/* The last act on a probe: the handler goes on, and may end with everything it belongs to. */
static void deliver(struct probe *probe)
{
  struct pry_decision *decision = probe->decision;
  pry_time now = pry_loop_clock(pry_decision_worker(decision)->loop);
  stop(probe);
  decision->http_left -= now - probe->started;
  pry_decision_wake(decision, probe->ticket);
}

static void timed_out(void *user)
{
  struct probe *probe = user;
  if (!probe->category[0])
    set_failure(probe, "timeout", "no answer in time");
  deliver(probe);
}

/* From where nothing may be delivered: the handler is told from the loop. */
static void fail_soon(struct probe *probe, const char *category, const char *message)
{
  stop(probe);
  set_failure(probe, category, message);
  pry_timer_start(pry_decision_worker(probe->decision)->loop, &probe->timer, 0, timed_out, probe);
}

/* What a policy may need of a head; the rest is the server's and nobody's here. */
static bool keep_headers(struct probe *probe, const struct pry_headers *headers)
{
  static const struct pry_slice names[] = {PRY_SLICE_INIT("content-type"), PRY_SLICE_INIT("content-length"),
                                           PRY_SLICE_INIT("content-range"), PRY_SLICE_INIT("content-disposition"),
                                           PRY_SLICE_INIT("location")};
  struct pry_slice value;
  pry_headers_clear(&probe->headers);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (pry_headers_get(headers, names[i], &value) && !pry_headers_add(&probe->headers, names[i], value))
      return false;
  return true;
}

static void ask(struct probe *probe);

static bool leads_on(const struct probe *probe, struct pry_slice *location)
{
  static const int statuses[] = {301, 302, 303, 307, 308};
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
    if (probe->status == statuses[i])
      return probe->redirects_left > 0 && pry_headers_get(&probe->headers, PRY_SLICE("location"), location);
  return false;
}

static void head_is_complete(struct probe *probe)
{
  struct pry_slice location;
  if (!leads_on(probe, &location)) {
    deliver(probe);
    return;
  }
  probe->redirects_left--;
  if (probe->exchange)
    pry_http_cancel(probe->exchange);
  probe->exchange = NULL;
  if (!pry_probe_redirect(pry_buffer_slice(&probe->url), location, &probe->next)) {
    fail_soon(probe, "permission", "the redirect is too long, or leads from https to http");
    return;
  }
  ask(probe);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct probe *probe = user;
  probe->status = status;
  if (!keep_headers(probe, headers))
    fail_soon(probe, "network", "the answer's head is too long");
  else if (strcmp(probe->method, "GET") == 0)
    head_is_complete(probe); /* a HEAD ends by itself, and its connection may be used again */
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  (void)user, (void)data;
  return PRY_HTTP_CONTINUE;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct probe *probe = user;
  probe->exchange = NULL; /* it frees itself */
  if (!result->curl_code) {
    head_is_complete(probe);
    return;
  }
  if (result->not_public)
    set_failure(probe, "permission", "the url leads into a network that is not public");
  else
    set_failure(probe, result->curl_code == PRY_HTTP_TIMED_OUT ? "timeout" : "network",
                pry_http_code_text(result->curl_code)); /* not its message, which names addresses */
  deliver(probe);
}

/* Asks probe->next. */
static void ask(struct probe *probe)
{
  static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};
  const struct pry_text_list *allowed = &pry_decision_engine(probe->decision)->options.probe_hosts;
  struct pry_probe_refusal refusal;
  struct pry_headers headers;
  if (!pry_probe_check_url(pry_buffer_slice(&probe->next), allowed, &probe->url, &refusal)) {
    fail_soon(probe, refusal.category, refusal.message);
    return;
  }
  const char *url = pry_buffer_text(&probe->url);
  pry_headers_init(&headers);
  bool ok =
      url && pry_headers_add(&headers, PRY_SLICE("Accept"), PRY_SLICE("*/*")) &&
      pry_headers_add(&headers, PRY_SLICE("User-Agent"), PRY_SLICE("parry")) &&
      (strcmp(probe->method, "GET") != 0 || pry_headers_add(&headers, PRY_SLICE("Range"), PRY_SLICE("bytes=0-0")));
  struct pry_http_request request = {.method = probe->method,
                                     .url = url,
                                     .headers = &headers,
                                     .public_only = !pry_probe_is_allowed(pry_buffer_slice(&probe->url), allowed)};
  if (ok)
    probe->exchange = pry_http_start(pry_decision_worker(probe->decision)->http, &request, &ops, probe);
  pry_headers_fini(&headers);
  if (!probe->exchange)
    fail_soon(probe, "network", "not enough memory");
}

static bool start_timer(struct probe *probe)
{
  struct pry_loop *loop = pry_decision_worker(probe->decision)->loop;
  return pry_timer_start(loop, &probe->timer, probe->category[0] ? 0 : probe->timeout, timed_out, probe);
}

/* The timer first: it has the last word, and later starts of it cannot fail. */
static void start(struct pry_message *message)
{
  struct probe *probe = PRY_CONTAINER_OF(message, struct probe, beginning);
  if (!pry_timer_running(&probe->timer) && !start_timer(probe)) {
    set_failure(probe, "network", "not enough memory");
    deliver(probe);
  } else if (!probe->category[0]) {
    ask(probe);
  }
}

/* ---- what the script says and gets --------------------------------------------------------------------------------- */

static void read_options(lua_State *L, struct probe *probe)
{
  static const char *const names[] = {"url", "method", "redirects", "timeout", NULL};
  pry_lua_options(L, 1, FUNCTION, names, false);
  struct pry_slice url = pry_lua_text_field(L, 1, FUNCTION, "url");
  struct pry_slice method = pry_lua_text_field(L, 1, FUNCTION, "method");
  if (!url.data)
    luaL_error(L, "%s{} needs a url", FUNCTION);
  if (method.size && !pry_slice_equal(method, PRY_SLICE("HEAD")) && !pry_slice_equal(method, PRY_SLICE("GET")))
    luaL_error(L, "%s{}: method is \"HEAD\" or \"GET\"", FUNCTION);
  probe->method = pry_slice_equal(method, PRY_SLICE("GET")) ? "GET" : "HEAD";
  probe->redirects_left = (int)pry_lua_number_field(L, 1, FUNCTION, "redirects", 0, 0, REDIRECTS_MAX);
  double seconds =
      pry_lua_number_field(L, 1, FUNCTION, "timeout", PRY_DECISION_HTTP_SECONDS, 0.001, PRY_DECISION_HTTP_SECONDS);
  probe->timeout = pry_time_from_seconds(seconds);
  if (probe->timeout > probe->decision->http_left)
    probe->timeout = probe->decision->http_left;
  if (!pry_buffer_append_slice(&probe->next, url))
    set_failure(probe, "invalid_request", "the url is too long");
}

/* Queries hold signatures: they are nobody's business later on. */
static struct pry_slice without_query(struct pry_slice url)
{
  const char *query = url.size ? memchr(url.data, '?', url.size) : NULL;
  return (struct pry_slice){url.data, query ? (size_t)(query - url.data) : url.size};
}

static void record_headers(struct pry_read *read, const struct pry_headers *headers)
{
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    pry_read_text(read, line.name);
    pry_read_text(read, without_query(line.value));
  }
}

static void record(struct probe *probe)
{
  struct pry_read read = pry_read_begin(probe->decision, FUNCTION);
  pry_read_text(&read, pry_slice_of(probe->method));
  pry_read_text(&read, without_query(pry_buffer_slice(&probe->url)));
  if (probe->category[0]) {
    pry_read_null(&read);
    pry_read_text(&read, pry_slice_of(probe->category));
    pry_read_text(&read, pry_slice_of(probe->message));
  } else {
    pry_read_number(&read, probe->status);
    record_headers(&read, &probe->headers);
  }
  pry_read_end(&read);
}

static int finish(lua_State *L, void *user)
{
  struct probe *probe = user;
  record(probe);
  if (probe->category[0]) {
    int count = pry_lua_failed(L, probe->category, probe->message);
    release(probe);
    return count;
  }
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, probe->status);
  lua_setfield(L, -2, "status");
  pry_http_push_headers(L, &probe->headers);
  lua_setfield(L, -2, "headers");
  lua_pushlstring(L, probe->url.data ? probe->url.data : "", probe->url.size);
  lua_setfield(L, -2, "url");
  release(probe);
  return 1;
}

static void cancel(void *user)
{
  release(user);
}

static const struct pry_wait probe_wait = {"http.probe", finish, cancel};

int pry_http_probe(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, FUNCTION);
  struct pry_ticket ticket = pry_task_ticket(L, FUNCTION);
  lua_settop(L, 1);
  pry_script_charge(L, COST);
  struct probe *probe = new_probe(L, decision);
  read_options(L, probe);
  if (decision->http_left <= 0)
    return pry_lua_failed(L, "timeout", "this handler has waited for HTTP as long as it may");
  probe->ticket = ticket;
  probe->started = pry_loop_clock(pry_decision_worker(decision)->loop);
  probe->beginning.deliver = start;
  lua_settop(L, 2);
  if (!pry_decision_worker(decision)->decides && !start_timer(probe))
    return pry_lua_failed(L, "network", "not enough memory");
  pry_decision_begin(decision, &probe->beginning);
  return pry_task_wait(L, &probe_wait, probe);
}

void pry_http_probe_open(lua_State *L)
{
  pry_lib_keep_metatable(L, &PROBE_KEY, probe_gc);
}
