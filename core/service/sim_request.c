#include "sim_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Bodies --------------------------------------------------------------------------------------------- */

struct pry_sim_body *pry_sim_body_new(void)
{
  struct pry_sim_body *body = calloc(1, sizeof *body);
  if (!body)
    return NULL;
  body->references = 1;
  pry_buffer_init(&body->bytes, PRY_SIM_BODY_MAX);
  return body;
}

struct pry_sim_body *pry_sim_body_ref(struct pry_sim_body *body)
{
  body->references++;
  return body;
}

void pry_sim_body_unref(struct pry_sim_body *body)
{
  if (!body || --body->references)
    return;
  pry_buffer_fini(&body->bytes);
  free(body);
}

/* ---- Small things --------------------------------------------------------------------------------------- */

bool pry_sim_query_get(struct pry_slice query, const char *name, struct pry_slice *value)
{
  struct pry_slice wanted = pry_slice_of(name);
  size_t start = 0;
  for (size_t i = 0; i <= query.size; i++) {
    if (i < query.size && query.data[i] != '&')
      continue;
    struct pry_slice part = {query.data + start, i - start};
    start = i + 1;
    if (part.size > wanted.size && pry_slice_starts_with(part, wanted) && part.data[wanted.size] == '=') {
      *value = (struct pry_slice){part.data + wanted.size + 1, part.size - wanted.size - 1};
      return true;
    }
  }
  return false;
}

double pry_sim_number(struct pry_slice text, double fallback)
{
  double number;
  return pry_json_number(pry_slice_trim(text), &number) ? number : fallback;
}

static void copy_name(char name[PRY_SIM_NAME_MAX], struct pry_slice text)
{
  snprintf(name, PRY_SIM_NAME_MAX, "%.*s", text.size < PRY_SIM_NAME_MAX ? (int)text.size : PRY_SIM_NAME_MAX, text.data);
}

static bool copy_json_name(char name[PRY_SIM_NAME_MAX], struct pry_slice raw)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool ok = pry_json_string(raw, &text);
  if (ok)
    copy_name(name, pry_buffer_slice(&text));
  pry_buffer_fini(&text);
  return ok;
}

/* ---- The head ------------------------------------------------------------------------------------------- */

static bool ends_with(struct pry_slice text, const char *end)
{
  struct pry_slice tail = pry_slice_of(end);
  return text.size >= tail.size && memcmp(text.data + text.size - tail.size, tail.data, tail.size) == 0;
}

static enum pry_sim_shape shape_of(struct pry_slice method, struct pry_slice path)
{
  static const struct {
    const char *end;
    enum pry_sim_shape shape;
  } SHAPES[] = {
      {"/chat/completions", PRY_SIM_CHAT}, {"/responses", PRY_SIM_RESPONSES},      {"/embeddings", PRY_SIM_EMBEDDINGS},
      {"/messages", PRY_SIM_MESSAGES},     {"/token/refresh", PRY_SIM_TOKEN_KIMI}, {"/token", PRY_SIM_TOKEN},
  };
  if (pry_slice_starts_with(path, PRY_SLICE("/sim/")) || pry_slice_equal(path, PRY_SLICE("/")))
    return PRY_SIM_CONTROL;
  if (ends_with(path, ":generateContent") || ends_with(path, ":streamGenerateContent"))
    return pry_slice_equal(method, PRY_SLICE("POST")) ? PRY_SIM_GENERATE : PRY_SIM_UNKNOWN;
  if (ends_with(path, "/models"))
    return pry_slice_equal(method, PRY_SLICE("GET")) ? PRY_SIM_MODELS : PRY_SIM_UNKNOWN;
  if (!pry_slice_equal(method, PRY_SLICE("POST")))
    return PRY_SIM_UNKNOWN;
  for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
    if (ends_with(path, SHAPES[i].end))
      return SHAPES[i].shape;
  return PRY_SIM_UNKNOWN;
}

static bool has_segment(struct pry_slice path, struct pry_slice beginning)
{
  for (size_t i = 0; i < path.size; i++) {
    struct pry_slice rest = {path.data + i + 1, path.size - i - 1};
    if (path.data[i] == '/' && pry_slice_starts_with(rest, beginning))
      return true;
  }
  return false;
}

/* From behind `start` to one of `ends`, or to the end; empty when `start` is not there. */
static struct pry_slice part_of(struct pry_slice path, const char *start, const char *ends)
{
  const char *found = memmem(path.data, path.size, start, strlen(start));
  if (!found)
    return (struct pry_slice){NULL, 0};
  struct pry_slice part = {found + strlen(start), path.size - (size_t)(found + strlen(start) - path.data)};
  size_t size = 0;
  while (size < part.size && !strchr(ends, part.data[size]))
    size++;
  part.size = size;
  return part;
}

static void take_model(struct pry_sim_call *call, struct pry_slice name)
{
  if (!name.size || name.size > PRY_SIM_NAME_MAX - 1 || memchr(name.data, '"', name.size) ||
      memchr(name.data, '\\', name.size))
    return;
  copy_name(call->model, name);
  snprintf(call->path_model, sizeof call->path_model, "\"%s\"", call->model);
  call->model_json = pry_slice_of(call->path_model);
}

/* /openai/deployments/NAME/chat/completions?api-version=..., /openai/v1/...; /v1beta/models/NAME:generateContent */
static void read_family(struct pry_sim_call *call)
{
  struct pry_slice path = call->request->path, alt;
  if (call->shape == PRY_SIM_GENERATE) {
    call->dialect = PRY_SIM_GEMINI;
    call->stream = ends_with(path, ":streamGenerateContent");
    bool sse = pry_sim_query_get(call->request->query, "alt", &alt) && pry_slice_equal(alt, PRY_SLICE("sse"));
    call->in_array = call->stream && !sse;
    call->stream = call->stream && sse;
    take_model(call, part_of(path, "/models/", ":"));
  } else if (has_segment(path, PRY_SLICE("openai/deployments/")) || has_segment(path, PRY_SLICE("openai/v1/"))) {
    call->dialect = PRY_SIM_AZURE;
    take_model(call, part_of(path, "/openai/deployments/", "/"));
  } else if (call->shape == PRY_SIM_MESSAGES) {
    call->dialect = PRY_SIM_ANTHROPIC;
  }
}

void pry_sim_request_read_head(struct pry_sim_call *call, bool kimi)
{
  const struct pry_server_request *request = call->request;
  struct pry_slice value;
  call->shape = shape_of(request->method, request->path);
  if (kimi || has_segment(request->path, PRY_SLICE("kimi")))
    call->dialect = PRY_SIM_KIMI_DIALECT;
  else
    read_family(call);
  if (pry_headers_get(request->headers, PRY_SLICE("x-sim-dialect"), &value) &&
      pry_slice_equal(value, PRY_SLICE("kimi")))
    call->dialect = PRY_SIM_KIMI_DIALECT;
  if (pry_headers_get(request->headers, PRY_SLICE("x-sim-kimi-status"), &value))
    call->kimi_real_status = pry_slice_equal(value, PRY_SLICE("real"));
  if (pry_headers_get(request->headers, PRY_SLICE("x-sim-key"), &value))
    copy_name(call->key, value);
  if (pry_headers_get(request->headers, PRY_SLICE("x-sim-size"), &value)) {
    double size = pry_sim_number(value, 0);
    call->filler = size >= 1 && size <= PRY_SIM_SIZE_MAX ? (size_t)size : 0;
  }
  call->pace = call->filler ? 0 : 0.001;
  if (pry_headers_get(request->headers, PRY_SLICE("x-sim-pace"), &value))
    call->pace = pry_sim_number(value, call->pace);
  if (pry_headers_get(request->headers, PRY_SLICE("content-type"), &value))
    snprintf(call->body->content_type, sizeof call->body->content_type, "%.*s",
             value.size < 127 ? (int)value.size : 127, value.data);
}

/* ---- The body ------------------------------------------------------------------------------------------- */

/* Appends what a `content` says: a string, or the `text` of its parts. */
static void append_content(struct pry_buffer *text, struct pry_json_value content)
{
  if (content.type == PRY_JSON_STRING)
    pry_json_string(content.raw, text);
  if (content.type != PRY_JSON_ARRAY)
    return;
  struct pry_json_iterator parts;
  struct pry_slice key;
  struct pry_json_value part, piece;
  pry_json_iterate(&parts, content.raw);
  while (pry_json_next(&parts, &key, &part))
    if (pry_json_get(part.raw, "text", &piece) && piece.type == PRY_JSON_STRING)
      pry_json_string(piece.raw, text);
}

/* OpenAI: a message of role `tool`, or an item function_call_output; Anthropic: a content part tool_result; Gemini: a
 * part functionResponse. */
static bool is_tool_result(struct pry_slice message)
{
  struct pry_json_value value;
  if ((pry_json_get(message, "role", &value) && pry_json_equals(value.raw, PRY_SLICE("tool"))) ||
      (pry_json_get(message, "type", &value) && pry_json_equals(value.raw, PRY_SLICE("function_call_output"))))
    return true;
  if (pry_json_get(message, "parts.0.functionResponse", &value))
    return true;
  return pry_json_get(message, "content.0.type", &value) && pry_json_equals(value.raw, PRY_SLICE("tool_result"));
}

static void read_messages(struct pry_sim_call *call, struct pry_slice messages)
{
  struct pry_json_iterator it;
  struct pry_slice key, last_user = {NULL, 0}, last = {NULL, 0};
  struct pry_json_value message, value;
  pry_json_iterate(&it, messages);
  while (pry_json_next(&it, &key, &message)) {
    last = message.raw;
    bool gemini = call->dialect == PRY_SIM_GEMINI; /* there a message without a role is the user's */
    if (pry_json_get(message.raw, "role", &value) ? pry_json_equals(value.raw, PRY_SLICE("user")) : gemini)
      last_user = message.raw;
  }
  if (last.size && is_tool_result(last))
    call->wants_tool = false;
  if (last_user.size && (pry_json_get(last_user, "content", &value) || pry_json_get(last_user, "parts", &value)))
    append_content(&call->text, value);
}

static void read_tools(struct pry_sim_call *call)
{
  struct pry_json_value name;
  if (!call->wants_tool)
    return;
  call->wants_tool =
      (pry_json_get(call->tools, "0.function.name", &name) || pry_json_get(call->tools, "0.name", &name) ||
       pry_json_get(call->tools, "0.functionDeclarations.0.name", &name)) &&
      copy_json_name(call->tool, name.raw);
}

static void read_member(struct pry_sim_call *call, struct pry_slice key, struct pry_json_value value)
{
  struct pry_json_value inner;
  if (pry_json_equals(key, PRY_SLICE("model")) && !call->path_model[0] && copy_json_name(call->model, value.raw))
    call->model_json = value.raw;
  else if (pry_json_equals(key, call->dialect == PRY_SIM_GEMINI ? PRY_SLICE("contents") : PRY_SLICE("messages")) &&
           value.type == PRY_JSON_ARRAY)
    call->messages = value.raw;
  else if (pry_json_equals(key, PRY_SLICE("input")))
    call->input = value.raw;
  else if (pry_json_equals(key, PRY_SLICE("stream")) && call->dialect != PRY_SIM_GEMINI)
    call->stream = value.type == PRY_JSON_TRUE;
  else if (pry_json_equals(key, PRY_SLICE("stream_options")))
    call->include_usage = pry_json_get(value.raw, "include_usage", &inner) && inner.type == PRY_JSON_TRUE;
  else if (pry_json_equals(key, PRY_SLICE("tools")) && value.type == PRY_JSON_ARRAY) {
    call->tools = value.raw;
    call->wants_tool = true;
  } else if (pry_json_equals(key, PRY_SLICE("simKey")) && !call->key[0])
    copy_json_name(call->key, value.raw);
}

static const char *find_refusal(const struct pry_sim_call *call)
{
  if (!call->model_json.size)
    return "you must provide a model parameter";
  if (call->shape == PRY_SIM_GENERATE)
    return call->messages.size ? NULL : "* GenerateContentRequest.contents: contents is not specified";
  bool has_input = call->shape == PRY_SIM_RESPONSES || call->shape == PRY_SIM_EMBEDDINGS;
  if (has_input ? !call->input.size : !call->messages.size)
    return has_input ? "Missing required parameter: 'input'." : "Missing required parameter: 'messages'.";
  return NULL;
}

bool pry_sim_request_read_body(struct pry_sim_call *call)
{
  struct pry_slice body = pry_buffer_slice(&call->body->bytes), key;
  struct pry_json_iterator it;
  struct pry_json_value value;
  pry_json_iterate(&it, body);
  if (it.type == PRY_JSON_OBJECT)
    while (pry_json_next(&it, &key, &value))
      read_member(call, key, value);
  if (it.result != PRY_JSON_OK || it.type != PRY_JSON_OBJECT) {
    call->refusal = "We could not parse the JSON body of your request.";
    return true;
  }
  call->refusal = find_refusal(call);
  struct pry_slice tool_choice = {NULL, 0};
  if (pry_json_get(body, "tool_choice", &value))
    tool_choice = value.raw;
  if (pry_json_equals(tool_choice, PRY_SLICE("none")))
    call->wants_tool = false;
  if (call->messages.size)
    read_messages(call, call->messages);
  else if (call->shape == PRY_SIM_RESPONSES && call->input.size && call->input.data[0] == '[')
    read_messages(call, call->input);
  else if (call->shape == PRY_SIM_RESPONSES && call->input.size)
    append_content(&call->text, (struct pry_json_value){PRY_JSON_STRING, call->input});
  read_tools(call);
  return call->text.size || pry_buffer_append_text(&call->text, "Hello from parry sim.");
}

bool pry_sim_request_read_fault(const struct pry_sim_call *call, struct pry_sim_fault *fault)
{
  struct pry_slice body = pry_buffer_slice(&call->body->bytes);
  struct pry_json_value value;
  if (!pry_json_get(body, "simulateError", &value) || value.type != PRY_JSON_TRUE)
    return false;
  *fault = (struct pry_sim_fault){.kind = PRY_SIM_NO_FAULT, .delay = -1, .times = -1};
  double number;
  if (pry_json_get(body, "delay", &value) && pry_json_number(value.raw, &number) && number >= 0)
    fault->delay = number / 1000;
  if (pry_json_get(body, "times", &value) && pry_json_number(value.raw, &number) && number >= 0 && number < 1e9)
    fault->times = (long)number;
  if (!pry_json_get(body, "errorCode", &value))
    return true;
  char word[PRY_SIM_NAME_MAX];
  if (!copy_json_name(word, value.raw))
    copy_name(word, value.raw);
  if (!pry_sim_fault_set_code(fault, pry_slice_of(word))) {
    fault->kind = PRY_SIM_STATUS;
    fault->code = 400;
    snprintf(fault->name, sizeof fault->name, "unknown");
  }
  return true;
}
