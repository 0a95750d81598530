#include "lib_http.h"

#include "freeze.h"
#include "sandbox.h"

#include <ctype.h>
#include <stdio.h>

static const char FUNCTION[] = "http.request";

/* ---- where to ----------------------------------------------------------------------------------------------- */

static bool read_port(struct pry_slice *authority, struct pry_http_origin *origin)
{
  const char *bracket = memchr(authority->data, ']', authority->size);
  size_t from = bracket ? (size_t)(bracket - authority->data) : 0;
  const char *colon = memchr(authority->data + from, ':', authority->size - from);
  origin->port = origin->secure ? 443 : 80;
  if (!colon)
    return true;
  const char *end = authority->data + authority->size;
  if (end - colon < 2 || end - colon > 6)
    return false;
  origin->port = 0;
  for (const char *digit = colon + 1; digit < end; digit++) {
    if (*digit < '0' || *digit > '9')
      return false;
    origin->port = origin->port * 10 + (unsigned long)(*digit - '0');
  }
  authority->size = (size_t)(colon - authority->data);
  return origin->port > 0 && origin->port < 65536;
}

bool pry_http_read_origin(struct pry_slice url, struct pry_http_origin *origin)
{
  origin->secure = pry_slice_starts_with(url, PRY_SLICE("https://"));
  if (!origin->secure && !pry_slice_starts_with(url, PRY_SLICE("http://")))
    return false;
  size_t start = origin->secure ? 8 : 7, end = start;
  while (end < url.size && !strchr("/?#", url.data[end]))
    end++;
  struct pry_slice authority = {url.data + start, end - start};
  for (size_t i = 0; i < authority.size; i++)
    if (!isalnum((unsigned char)authority.data[i]) && !strchr(".-:[]_", authority.data[i]))
      return false;
  if (!read_port(&authority, origin))
    return false;
  origin->host = authority;
  return authority.size > 0;
}

static bool same_origin(const struct pry_http_origin *origin, const char *declared)
{
  struct pry_http_origin other;
  return declared && pry_http_read_origin(pry_slice_of(declared), &other) && other.secure == origin->secure &&
         other.port == origin->port && pry_slice_equal_nocase(other.host, origin->host);
}

static bool is_declared(const struct pry_config *config, const struct pry_http_origin *origin)
{
  for (size_t i = 0; i < config->provider_count; i++)
    if (same_origin(origin, config->providers[i].base_url))
      return true;
  for (size_t i = 0; i < config->service_count; i++)
    if (same_origin(origin, config->services[i].base_url))
      return true;
  for (size_t i = 0; i < config->credential_count; i++)
    if (same_origin(origin, config->credentials[i].token_url))
      return true;
  return false;
}

static void check_bytes(lua_State *L, struct pry_slice text, const char *name)
{
  for (size_t i = 0; i < text.size; i++)
    if ((unsigned char)text.data[i] <= 0x20 || (unsigned char)text.data[i] >= 0x7F || text.data[i] == '\\')
      luaL_error(L, "%s{}: %s must not hold spaces, backslashes, control characters or bytes above 0x7E", FUNCTION,
                 name);
}

static void read_url(lua_State *L, struct pry_http_operation *operation, struct pry_slice url)
{
  struct pry_http_origin origin;
  check_bytes(L, url, "url");
  if (!pry_http_read_origin(url, &origin))
    luaL_error(L, "%s{}: url must be http:// or https:// with a host and no user name", FUNCTION);
  if (!is_declared(pry_decision_config(operation->decision), &origin)) {
    lua_pushlstring(L, origin.host.data, origin.host.size);
    luaL_error(L, "%s{}: the host %s is not declared; declare a service in init.lua", FUNCTION, lua_tostring(L, -1));
  }
  if (!pry_buffer_append_slice(&operation->url, url))
    luaL_error(L, "%s{}: the url is too long", FUNCTION);
}

static void read_service(lua_State *L, struct pry_http_operation *operation, struct pry_slice name)
{
  const struct pry_service *service = pry_config_service(pry_decision_config(operation->decision), name.data);
  struct pry_slice path = pry_lua_text_field(L, 1, FUNCTION, "path");
  if (!service)
    luaL_error(L, "%s{}: there is no service \"%s\"; declare it in init.lua", FUNCTION, name.data);
  check_bytes(L, path, "path");
  operation->auth = service->auth.kind == PRY_AUTH_NONE ? NULL : &service->auth;
  if (!pry_join_url(&operation->url, service->base_url, path, (struct pry_slice){NULL, 0}))
    luaL_error(L, "%s{}: the url is too long", FUNCTION);
}

/* ---- headers ------------------------------------------------------------------------------------------------ */

static bool is_ours(struct pry_slice name)
{
  static const char *const ours[] = {"connection", "content-length",    "expect", "host", "te",
                                     "trailer",    "transfer-encoding", "upgrade"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (pry_slice_equal_nocase(name, pry_slice_of(ours[i])))
      return true;
  return false;
}

static void add_header(lua_State *L, struct pry_http_operation *operation, struct pry_slice name,
                       struct pry_slice value)
{
  if (!pry_headers_add(&operation->headers, name, value))
    luaL_error(L, "%s{}: the header %s holds a line break, or there are too many headers", FUNCTION, name.data);
}

/* Texts, secrets, and lists of them: { authorization = { "Bearer ", secret } }. The table is on top of the stack. */
static void read_headers(lua_State *L, struct pry_http_operation *operation)
{
  int table = lua_gettop(L);
  if (lua_type(L, table) != LUA_TTABLE)
    luaL_error(L, "%s{}: headers must be a table", FUNCTION);
  lua_Integer count = pry_sandbox_keys(L, table);
  pry_freeze_contents(L, table);
  struct pry_buffer *value = pry_lua_buffer(L, PRY_HEADERS_BYTES_MAX);
  for (lua_Integer i = 1; i <= count; i++) {
    pry_buffer_clear(value);
    if (lua_rawgeti(L, table + 1, i) != LUA_TSTRING)
      luaL_error(L, "%s{}: headers have names", FUNCTION);
    struct pry_slice name = pry_lua_text(L, table + 4);
    if (is_ours(name))
      luaL_error(L, "%s{}: the header %s is parry's own", FUNCTION, name.data);
    lua_pushvalue(L, table + 4);
    lua_rawget(L, table + 2);
    if (pry_lua_append_parts(L, -1, operation->decision, "a header", value, &operation->missing))
      add_header(L, operation, name, pry_buffer_slice(value));
    lua_settop(L, table + 3);
  }
  if (value->data)
    explicit_bzero(value->data, value->capacity);
  pry_buffer_fini(value);
}

static void set_content_type(lua_State *L, struct pry_http_operation *operation, struct pry_slice type)
{
  struct pry_slice given;
  if (!pry_headers_get(&operation->headers, PRY_SLICE("content-type"), &given))
    add_header(L, operation, PRY_SLICE("content-type"), type);
}

/* ---- body --------------------------------------------------------------------------------------------------- */

static void read_json(lua_State *L, struct pry_http_operation *operation)
{
  char complaint[128];
  const char *missing = NULL;
  if (!pry_lua_json_append(L, -1, &operation->body, operation->decision, &missing, complaint, sizeof complaint) &&
      !missing)
    luaL_error(L, "%s{}: json: %s", FUNCTION, complaint);
  if (missing)
    operation->missing = missing;
  set_content_type(L, operation, PRY_SLICE("application/json"));
}

/* WHATWG URL, application/x-www-form-urlencoded: what is not in this set is a %XX. */
static bool append_form(struct pry_buffer *out, struct pry_slice text)
{
  static const char digits[] = "0123456789ABCDEF";
  bool appended = true;
  for (size_t i = 0; appended && i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
    bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("*-._", c));
    appended = plain ? pry_buffer_append(out, &text.data[i], 1) : pry_buffer_append(out, escape, sizeof escape);
  }
  return appended;
}

static void read_form(lua_State *L, struct pry_http_operation *operation)
{
  int table = lua_gettop(L);
  if (lua_type(L, table) != LUA_TTABLE)
    luaL_error(L, "%s{}: form must be a table", FUNCTION);
  lua_Integer count = pry_sandbox_keys(L, table);
  pry_freeze_contents(L, table);
  struct pry_buffer *value = pry_lua_buffer(L, PRY_HTTP_BODY_MAX);
  for (lua_Integer i = 1; i <= count; i++) {
    pry_buffer_clear(value);
    if (lua_rawgeti(L, table + 1, i) != LUA_TSTRING)
      luaL_error(L, "%s{}: the fields of form have names", FUNCTION);
    struct pry_slice name = pry_lua_text(L, table + 4);
    lua_pushvalue(L, table + 4);
    lua_rawget(L, table + 2);
    if (pry_lua_append_parts(L, -1, operation->decision, "a form field", value, &operation->missing) &&
        !((i == 1 || pry_buffer_append(&operation->body, "&", 1)) && append_form(&operation->body, name) &&
          pry_buffer_append(&operation->body, "=", 1) && append_form(&operation->body, pry_buffer_slice(value))))
      luaL_error(L, "%s{}: the form is too long", FUNCTION);
    lua_settop(L, table + 3);
  }
  if (value->data)
    explicit_bzero(value->data, value->capacity);
  pry_buffer_fini(value);
  set_content_type(L, operation, PRY_SLICE("application/x-www-form-urlencoded"));
}

static void read_plain(lua_State *L, struct pry_http_operation *operation)
{
  if (!pry_lua_append_parts(L, -1, operation->decision, "the body", &operation->body, &operation->missing))
    return;
  set_content_type(L, operation, PRY_SLICE("text/plain; charset=utf-8"));
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

/* Calls `read` with the field on top of the stack, if there is one. */
static bool with_field(lua_State *L, struct pry_http_operation *operation, const char *name,
                       void (*read)(lua_State *L, struct pry_http_operation *operation))
{
  int top = lua_gettop(L);
  lua_pushstring(L, name);
  bool present = lua_rawget(L, 1) != LUA_TNIL;
  if (present)
    read(L, operation);
  lua_settop(L, top);
  return present;
}

static void read_method(lua_State *L, struct pry_http_operation *operation)
{
  struct pry_slice method = pry_lua_text_field(L, 1, FUNCTION, "method");
  if (!method.size)
    method = operation->has_body ? PRY_SLICE("POST") : PRY_SLICE("GET");
  for (size_t i = 0; i < method.size; i++)
    if (method.data[i] < 'A' || method.data[i] > 'Z')
      luaL_error(L, "%s{}: method must be upper-case letters", FUNCTION);
  if (method.size >= sizeof operation->method || pry_slice_equal(method, PRY_SLICE("CONNECT")))
    luaL_error(L, "%s{}: this method cannot be sent", FUNCTION);
  snprintf(operation->method, sizeof operation->method, "%.*s", (int)method.size, method.data);
}

static void read_timeout(lua_State *L, struct pry_http_operation *operation)
{
  double seconds =
      pry_lua_number_field(L, 1, FUNCTION, "timeout", PRY_DECISION_HTTP_SECONDS, 0.001, PRY_DECISION_HTTP_SECONDS);
  operation->timeout = pry_time_from_seconds(seconds);
  if (operation->timeout > operation->decision->http_left)
    operation->timeout = operation->decision->http_left;
}

void pry_http_read_request(lua_State *L, struct pry_http_operation *operation)
{
  static const char *const names[] = {"method", "url",  "service", "path",    "headers",
                                      "json",   "form", "body",    "timeout", NULL};
  pry_lua_options(L, 1, FUNCTION, names, false);
  struct pry_slice url = pry_lua_text_field(L, 1, FUNCTION, "url");
  struct pry_slice service = pry_lua_text_field(L, 1, FUNCTION, "service");
  if (!url.size == !service.size)
    luaL_error(L, "%s{} needs a url, or a service with a path", FUNCTION);
  if (url.size)
    read_url(L, operation, url);
  else
    read_service(L, operation, service);
  with_field(L, operation, "headers", read_headers);
  int bodies = with_field(L, operation, "json", read_json) + with_field(L, operation, "form", read_form) +
               with_field(L, operation, "body", read_plain);
  if (bodies > 1)
    luaL_error(L, "%s{}: json, form and body exclude each other", FUNCTION);
  operation->has_body = bodies;
  read_method(L, operation);
  read_timeout(L, operation);
}

bool pry_http_add_auth(struct pry_http_operation *operation, const struct pry_auth *auth, struct pry_slice token)
{
  if (auth->kind == PRY_AUTH_HEADER)
    return pry_headers_set(&operation->headers, pry_slice_of(auth->header), token);
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  bool added = pry_buffer_append_text(&value, "Bearer ") && pry_buffer_append_slice(&value, token) &&
               pry_headers_set(&operation->headers, PRY_SLICE("authorization"), pry_buffer_slice(&value));
  if (value.data)
    explicit_bzero(value.data, value.capacity);
  pry_buffer_fini(&value);
  return added;
}
