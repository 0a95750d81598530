/* What a host hands over: events, reports, answers of its functions and of its attempts. Whatever it is, it is taken or
 * refused by the rules of parry.h, what policies make of it is a decision that can be carried out, and each log line about
 * it is JSON. */
#include "fuzz.h"

#include "failure.h"
#include "json.h"
#include "parry.h"
#include "retry_after.h"

#include <math.h>
#include <unistd.h>

enum { FIELDS_MAX = 64 * 1024, NAME_MAX_SIZE = 128, HEADERS_MAX = 8, TEXTS_MAX = 32 };

static const char init[] = "provider 'p' { host = true }\n"
                           "provider 'q' { host = true }\n"
                           "route '/v1/*' { to = 'p/m', repeatable = true, chain = { use 'seer' } }\n"
                           "route '/w/*' { to = 'q', chain = { use 'seer' } }\n";
static const char seer[] =
    "return policy { name = 'seer',\n"
    "  on_event = function(self, event)\n"
    "    local value, err = host.call('quick', event.fields)\n"
    "    log.info(event.name, { fields = event.fields, value = value, err = err })\n"
    "    if err then return fail { category = 'server', why = err.message } end\n"
    "    return respond { status = 200, body = json.encode(event.fields) }\n"
    "  end,\n"
    "  on_error = function(self, call, err)\n"
    "    log.warn(err.message, { code = err.code, target = call.target.name, headers = err.headers['content-type'] })\n"
    "    if err.code == 'elsewhere' then return fallback { target = err.message, why = err.code } end\n"
    "    return retry { after = err.retry_after or 0, why = err.message }\n"
    "  end,\n"
    "  on_outcome = function(self, call, outcome)\n"
    "    log.info(outcome.target, { category = outcome.category, seconds = outcome.seconds })\n"
    "  end }\n";

static parry *engine;

/* ---- the input ---------------------------------------------------------------------------------------------- */

struct input {
  struct pry_slice left;
  char *texts[TEXTS_MAX]; /* each exactly as long as it is, for the sanitizer */
  size_t count;
};

static void take_bytes(struct input *input, void *to, size_t size)
{
  size_t there = size < input->left.size ? size : input->left.size;
  memset(to, 0, size);
  memcpy(to, input->left.data, there);
  input->left.data += there;
  input->left.size -= there;
}

static unsigned take_byte(struct input *input)
{
  unsigned char byte;
  take_bytes(input, &byte, 1);
  return byte;
}

/* Up to the next NUL. */
static char *take_text(struct input *input)
{
  size_t size = strnlen(input->left.data, input->left.size);
  char *text = strndup(input->left.data, size);
  REQUIRE(text && input->count < TEXTS_MAX);
  size += size < input->left.size;
  input->left.data += size;
  input->left.size -= size;
  return input->texts[input->count++] = text;
}

static void free_texts(struct input *input)
{
  while (input->count)
    free(input->texts[--input->count]);
}

static bool is_json(const char *text, bool object)
{
  struct pry_json_value value;
  size_t size = strlen(text);
  return size <= FIELDS_MAX && pry_json_parse((struct pry_slice){text, size}, &value) == PRY_JSON_OK &&
         (!object || value.type == PRY_JSON_OBJECT);
}

/* ---- the host ------------------------------------------------------------------------------------------------ */

static const char *answer; /* of the function: JSON, or what is none */
static bool answer_fails;

static void quick(void *user, parry_request_id request, const char *arguments, size_t size)
{
  (void)user;
  REQUIRE(strlen(arguments) == size && is_json(arguments, false));
  int error = answer_fails ? parry_reply(engine, request, NULL, answer) : parry_reply(engine, request, answer, NULL);
  REQUIRE(error == PARRY_OK || (error == PARRY_EINVAL && !answer_fails && !is_json(answer, false)));
  REQUIRE(parry_reply(engine, request, NULL, NULL) == PARRY_ENOENT);
}

static void check_line(void *user, int level, const char *line, size_t size)
{
  struct pry_json_value value;
  (void)user;
  REQUIRE(level >= PARRY_LOG_DEBUG && level <= PARRY_LOG_ERROR);
  size -= size && line[size - 1] == '\n';
  REQUIRE(pry_json_parse((struct pry_slice){line, size}, &value) == PRY_JSON_OK && value.type == PRY_JSON_OBJECT);
}

static void stop(void)
{
  parry_free(engine);
}

/* The policy's folder is needed only until it was read. */
static void start(void)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  char folder[] = "/tmp/fuzz_host.XXXXXX", path[64], findings[1024];
  REQUIRE(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/seer.lua", folder);
  FILE *file = fopen(path, "w");
  REQUIRE(file && fputs(seer, file) >= 0 && fclose(file) == 0);
  options.init_lua = init;
  options.share_dir = folder;
  options.log = check_line;
  int error = parry_new(&engine, &options);
  REQUIRE(unlink(path) == 0 && rmdir(folder) == 0);
  if (parry_findings(engine, findings, sizeof findings))
    fprintf(stderr, "%s: %s\n", parry_strerror(error), findings);
  REQUIRE(error == PARRY_OK);
  REQUIRE(parry_register(engine, "quick", quick, NULL, PARRY_ANY_THREAD) == PARRY_OK);
  atexit(stop);
}

/* ---- what it tells -------------------------------------------------------------------------------------------- */

static void check_decision(const struct parry_event *event, const struct parry_decision *decision)
{
  REQUIRE(decision->action >= PARRY_FAIL && decision->action <= PARRY_RESPOND);
  REQUIRE(decision->status >= 100 && decision->status < 600);
  REQUIRE(isfinite(decision->after) && decision->after >= 0);
  REQUIRE(memchr(decision->target, 0, sizeof decision->target));
  REQUIRE(memchr(decision->category, 0, sizeof decision->category));
  REQUIRE(memchr(decision->policy, 0, sizeof decision->policy));
  REQUIRE(memchr(decision->why, 0, sizeof decision->why));
  REQUIRE(decision->target[0] || decision->action != PARRY_FALLBACK);
  REQUIRE(event->name || pry_category_from_name(pry_slice_of(decision->category)));
  if (!event->name && decision->action == PARRY_RETRY && event->retry_after > 0)
    REQUIRE(decision->after >= (event->retry_after < PRY_RETRY_AFTER_MAX ? event->retry_after : PRY_RETRY_AFTER_MAX));
}

/* Of what is wrong with an event but its headers and numbers. */
static bool is_good(const struct parry_event *event)
{
  bool route = !event->route || strcmp(event->route, "/v1/*") == 0 || strcmp(event->route, "/w/*") == 0;
  bool category = !event->category || pry_category_from_name(pry_slice_of(event->category));
  bool status = !event->status || (event->status >= 100 && event->status < 600);
  return route && category && status && (!event->name || !event->fields || is_json(event->fields, true));
}

static void take_event(struct input *input, struct parry_event *event, struct parry_header headers[HEADERS_MAX])
{
  static const char *const routes[] = {NULL, NULL, "/v1/*", "/w/*"};
  unsigned flags = take_byte(input), more = take_byte(input);
  int16_t numbers[2];
  double seconds[3];
  *event = (struct parry_event)PARRY_EVENT_INIT;
  take_bytes(input, numbers, sizeof numbers);
  take_bytes(input, seconds, sizeof seconds);
  take_bytes(input, &event->attempt, more & 1 ? sizeof event->attempt : 1);
  event->ok = (flags & 1) != 0;
  event->not_sent = (flags & 2) != 0;
  event->not_repeatable = (flags & 4) != 0;
  event->status = numbers[0];
  event->curl_code = more & 2 ? numbers[1] : 0;
  event->retry_after = seconds[0], event->deadline_left = seconds[1], event->seconds = seconds[2];
  event->category = flags & 8 ? take_text(input) : NULL;
  event->code = flags & 16 ? take_text(input) : NULL;
  event->message = flags & 32 ? take_text(input) : NULL;
  event->target = flags & 64 ? take_text(input) : NULL;
  event->route = more & 4 ? take_text(input) : routes[more >> 6];
  event->name = flags & 128 ? take_text(input) : NULL;
  event->fields = more & 8 ? take_text(input) : NULL;
  event->header_count = (more >> 4) & 3;
  event->headers = headers;
  for (size_t i = 0; i < event->header_count; i++) {
    headers[i].name = take_text(input);
    headers[i].value = take_text(input);
  }
}

static void decide_and_report(struct input *input)
{
  struct parry_header headers[HEADERS_MAX];
  struct parry_event event;
  struct parry_decision decision = PARRY_DECISION_INIT;
  char body[64];
  take_event(input, &event, headers);
  struct pry_slice answered = fuzz_copy(input->left);
  event.body = answered.data;
  event.body_size = answered.size;
  decision.body = body;
  decision.body_capacity = sizeof body;
  answer = event.fields ? event.fields : "17";
  answer_fails = event.not_sent;
  int error = parry_decide(engine, &event, &decision, NULL, NULL);
  REQUIRE(error == PARRY_OK || error == PARRY_EINVAL);
  REQUIRE(error == PARRY_EINVAL || is_good(&event));
  REQUIRE(error == PARRY_OK || !is_good(&event) || event.header_count);
  if (error == PARRY_OK)
    check_decision(&event, &decision);
  REQUIRE(parry_report(engine, &event) == error);
  REQUIRE(parry_run(engine, 0) == 0);
  fuzz_release(answered);
}

static void emit(struct input *input)
{
  char *name = take_text(input), *fields = take_text(input);
  answer = take_text(input);
  answer_fails = input->left.size & 1;
  int error = parry_emit(engine, name, fields);
  bool good = name[0] && strlen(name) < NAME_MAX_SIZE && is_json(fields, true);
  REQUIRE(error == (good ? PARRY_OK : PARRY_EINVAL));
  REQUIRE(parry_run(engine, 0) >= 0);
}

/* ---- attempts ---------------------------------------------------------------------------------------------------- */

struct call {
  struct input *input;
  bool told;
  int status;
  size_t size;
  unsigned dones;
};

static void on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  struct call *call = user;
  REQUIRE(status >= 100 && status < 600);
  for (size_t i = 0; i < count; i++)
    REQUIRE(headers[i].name[0] && !strpbrk(headers[i].value, "\r\n"));
  call->status = status;
}

static int on_data(void *user, const void *data, size_t size)
{
  REQUIRE(data && size);
  ((struct call *)user)->size += size;
  return 0;
}

static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct call *call = user;
  struct parry_header headers[HEADERS_MAX];
  struct parry_event end = PARRY_EVENT_INIT;
  struct pry_slice body = {NULL, 0};
  REQUIRE(attempt->deadline_left >= 0 && attempt->target[0] && attempt->provider[0]);
  if (!call->told) {
    take_event(call->input, &end, headers);
    body = fuzz_copy(call->input->left);
    end.body = body.data;
    end.body_size = body.size;
  }
  int error = parry_attempt_done(engine, attempt->call, attempt->number, &end);
  REQUIRE(error == PARRY_OK || (error == PARRY_EINVAL && !call->told));
  call->told = true;
  if (error)
    REQUIRE(parry_call_cancel(engine, attempt->call) == PARRY_OK);
  fuzz_release(body);
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct call *call = user;
  REQUIRE(outcome->category && outcome->message && outcome->why && outcome->status >= 100 && outcome->status < 600);
  REQUIRE(!isnan(outcome->retry_after));
  call->dones++;
}

static void call(struct input *input)
{
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  struct parry_request request = PARRY_REQUEST_INIT;
  struct call called = {.input = input};
  parry_call_id id;
  ops.on_headers = on_headers;
  ops.on_data = on_data;
  ops.on_done = on_done;
  ops.on_attempt = on_attempt;
  request.path = take_byte(input) & 1 ? "/v1/chat/completions" : "/w/work";
  request.body = "{\"model\":\"m\"}";
  request.body_size = 13;
  REQUIRE(parry_call(engine, &request, &ops, &called, &id) == PARRY_OK);
  for (unsigned i = 0; i < 16 && !called.dones; i++)
    REQUIRE(parry_run(engine, 0) >= 0);
  if (!called.dones) /* it waits, as it was told to */
    REQUIRE(parry_call_cancel(engine, id) == PARRY_OK);
  while (!called.dones)
    REQUIRE(parry_run(engine, 1) >= 0);
  REQUIRE(called.dones == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct input input = {.left = {(const char *)data, size}};
  if (!engine)
    start();
  switch (take_byte(&input) % 3) {
  case 0:
    emit(&input);
    break;
  case 1:
    decide_and_report(&input);
    break;
  default:
    call(&input);
  }
  free_texts(&input);
  return 0;
}
