#include "classify.h"

#include "call.h"
#include "cli.h"
#include "http_script.h"
#include "loader.h"
#include "nearest.h"
#include "options.h"
#include "places.h"
#include "reloader.h"
#include "stream.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LINE_MAX_BYTES = 16 * 1024 * 1024, CLASSIFY_BODY_MAX = 64 * 1024, HOLD_LIMIT = 256 * 1024 };

static const char DOC[] = "Reads failures as JSON lines on stdin and says what each one is, with the engine's own\n"
                          "code and the dialects of the policies. Pipe an old error log through it.";

static const char AFTER[] =
    "in:  {\"id\", \"dialect\", \"provider\"?, \"http_status\"|null, \"curl_code\"?, \"headers\",\n"
    "      \"body\"|\"body_base64\", \"now\"?}   one per line, at most 16 MiB; now: Unix seconds\n"
    "out: {\"id\", \"category\", \"origin\", \"retryable\", \"retry_after\", \"refresh_token\", \"fallback\",\n"
    "      \"code\", \"message\"}; category \"none\": not an error. A line that cannot be read gives\n"
    "     {\"id\": null, \"error\": \"line N: ...\"}, and exit code 1 at the end.";

/* One run over stdin. */
struct reading {
  struct pry_state *state;
  unsigned long line; /* the one at hand, from 1 */
  bool told_unknown;  /* that a dialect is unknown: once is enough */
};

/* ---- what it is --------------------------------------------------------------------------------------------- */

static bool is_event_stream(const struct pry_headers *headers)
{
  struct pry_slice type, wanted = PRY_SLICE("text/event-stream");
  return pry_headers_get(headers, PRY_SLICE("content-type"), &type) && type.size >= wanted.size &&
         pry_slice_equal_nocase((struct pry_slice){type.data, wanted.size}, wanted);
}

static struct pry_slice bounded(struct pry_slice body)
{
  return (struct pry_slice){body.data, body.size < CLASSIFY_BODY_MAX ? body.size : CLASSIFY_BODY_MAX};
}

/* An error that the provider reported inside a stream which began well. */
static bool classify_stream(struct pry_state *state, const struct pry_dialect *dialect,
                            const struct pry_classify_record *record, struct pry_answer_view *answer,
                            struct pry_failure *failure)
{
  struct pry_stream stream;
  struct pry_stream_output output;
  struct pry_slice input = pry_buffer_slice(&record->body);
  enum pry_stream_step step;
  pry_stream_init(&stream, dialect, HOLD_LIMIT);
  do
    step = pry_stream_feed(&stream, &input, &output);
  while (step == PRY_STREAM_OUTPUT);
  if (step == PRY_STREAM_BROKEN) {
    answer->in_stream = true;
    answer->event_type = output.type;
    answer->body = bounded(output.data);
    *failure = pry_classify(state, dialect, answer, record->now);
  }
  pry_stream_fini(&stream);
  return step == PRY_STREAM_BROKEN;
}

static void tell_unknown_dialect(struct reading *reading, const char *name)
{
  enum { NAMES_MAX = 64 };
  const struct pry_config *config = reading->state->generation->config;
  const char *names[NAMES_MAX];
  size_t count = 0;
  for (; count < config->dialect_count && count < NAMES_MAX; count++)
    names[count] = config->dialects[count]->name;
  const char *nearest = pry_nearest_name(name, names, count);
  fprintf(stderr, "parry classify: line %lu: there is no dialect '%.64s'%s%s%s; such lines are taken as generic\n",
          reading->line, name, nearest ? ", did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
  reading->told_unknown = true;
}

/* What a folder that has no dialects/generic.lua means by "generic" is judged by the status alone. */
static const struct pry_dialect *generic(const struct reading *reading)
{
  const struct pry_dialect *named = pry_config_dialect(reading->state->generation->config, pry_dialect_generic.name);
  return named ? named : &pry_dialect_generic;
}

/* Never NULL. */
static const struct pry_dialect *find_dialect(struct reading *reading, struct pry_classify_record *record)
{
  const char *name = pry_buffer_text(&record->dialect);
  if (!name || !*name || strcmp(name, pry_dialect_generic.name) == 0)
    return generic(reading);
  const struct pry_dialect *dialect = pry_config_dialect(reading->state->generation->config, name);
  if (!dialect && !reading->told_unknown)
    tell_unknown_dialect(reading, name);
  return dialect ? dialect : generic(reading);
}

static struct pry_failure classify(struct reading *reading, struct pry_classify_record *record)
{
  struct pry_state *state = reading->state;
  const struct pry_dialect *dialect = find_dialect(reading, record);
  const char *provider = pry_buffer_text(&record->provider);
  struct pry_failure failure = {.retry_after = -1};
  struct pry_answer_view answer = {.provider = provider ? provider : "",
                                   .status = (int)record->status,
                                   .headers = &record->headers,
                                   .body = bounded(pry_buffer_slice(&record->body))};
  bool told = record->has_status && record->status < 300 && is_event_stream(&record->headers) &&
              classify_stream(state, dialect, record, &answer, &failure);
  if (record->has_status && !told)
    failure = pry_classify(state, dialect, &answer, record->now);
  if (!record->has_status && !record->curl_code) /* no answer, and nobody noted why */
    return pry_failure_of(PRY_NETWORK);
  /* A good status that came before the transport broke is no answer. */
  if (failure.category == PRY_NONE && record->curl_code)
    failure = pry_failure_from_curl((int)record->curl_code, pry_curl_code_sent((int)record->curl_code));
  return failure;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static bool append_text(struct pry_buffer *out, const char *name, const char *text, bool or_null)
{
  if (or_null && !text[0])
    return pry_buffer_append_format(out, ",\"%s\":null", name);
  return pry_buffer_append_format(out, ",\"%s\":\"", name) && pry_buffer_append_json(out, pry_slice_of(text)) &&
         pry_buffer_append_text(out, "\"");
}

/* Always with a point, so that every reader sees a float. */
static bool append_seconds(struct pry_buffer *out, double seconds)
{
  char text[40];
  if (seconds < 0 || !isfinite(seconds))
    return pry_buffer_append_text(out, ",\"retry_after\":null");
  snprintf(text, sizeof text, "%.15g", seconds);
  return pry_buffer_append_format(out, ",\"retry_after\":%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static bool append_booleans(struct pry_buffer *out, const struct pry_failure *failure)
{
  return pry_buffer_append_format(out, ",\"refresh_token\":%s,\"fallback\":%s",
                                  failure->refresh_token ? "true" : "false", failure->fallback ? "true" : "false");
}

static bool append_result(struct pry_buffer *out, const struct pry_classify_record *record,
                          const struct pry_failure *failure)
{
  const char *origin = failure->category ? pry_origin_name(failure->origin) : "";
  return pry_buffer_append_text(out, "{\"id\":") && pry_buffer_append_slice(out, record->id) &&
         append_text(out, "category", pry_category_name(failure->category), false) &&
         append_text(out, "origin", origin, true) &&
         pry_buffer_append_format(out, ",\"retryable\":%s", failure->retryable ? "true" : "false") &&
         append_seconds(out, failure->retry_after) && append_booleans(out, failure) &&
         append_text(out, "code", failure->code, true) && append_text(out, "message", failure->message, false) &&
         pry_buffer_append_text(out, "}\n");
}

static bool append_problem(struct pry_buffer *out, unsigned long line, const char *problem)
{
  return pry_buffer_append_format(out, "{\"id\":null,\"error\":\"line %lu: ", line) &&
         pry_buffer_append_json(out, pry_slice_of(problem)) && pry_buffer_append_text(out, "\"}\n");
}

/* False: the line was bad. */
static bool classify_line(struct reading *reading, struct pry_slice line, struct pry_buffer *out)
{
  struct pry_classify_record record;
  char problem[256];
  pry_classify_record_init(&record);
  pry_buffer_clear(out);
  bool ok = pry_classify_record_read(&record, line, problem, sizeof problem);
  if (ok) {
    struct pry_failure failure = classify(reading, &record);
    ok = append_result(out, &record, &failure);
    snprintf(problem, sizeof problem, "memory is short");
  }
  if (!ok) {
    pry_buffer_clear(out);
    append_problem(out, reading->line, problem);
  }
  fwrite(out->data, 1, out->size, stdout);
  pry_classify_record_fini(&record);
  return ok;
}

/* ---- reading lines --------------------------------------------------------------------------------------------- */

enum line_result { LINE_READ, LINE_TOO_LONG, LINE_NONE };

/* The next line without its end. One that is too long is read to its end and thrown away. */
static enum line_result next_line(FILE *in, struct pry_buffer *line)
{
  char piece[16 * 1024];
  size_t size = 0;
  bool fits = true;
  int byte = getc_unlocked(in);
  pry_buffer_clear(line);
  if (byte == EOF)
    return LINE_NONE;
  for (; byte != EOF && byte != '\n'; byte = getc_unlocked(in)) {
    piece[size++] = (char)byte;
    if (size == sizeof piece) {
      fits = fits && pry_buffer_append(line, piece, size);
      size = 0;
    }
  }
  fits = fits && pry_buffer_append(line, piece, size);
  return fits ? LINE_READ : LINE_TOO_LONG;
}

static bool is_blank(struct pry_slice line)
{
  for (size_t i = 0; i < line.size; i++)
    if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
      return false;
  return true;
}

static int classify_all(struct pry_state *state, FILE *in)
{
  struct reading reading = {.state = state};
  struct pry_buffer line, out;
  bool good = true;
  enum line_result result;
  pry_buffer_init(&line, LINE_MAX_BYTES);
  pry_buffer_init(&out, 0);
  while ((result = next_line(in, &line)) != LINE_NONE && !ferror(stdout)) {
    reading.line++;
    if (result == LINE_TOO_LONG) {
      printf("{\"id\":null,\"error\":\"line %lu: longer than 16 MiB\"}\n", reading.line);
      good = false;
    } else if (!is_blank(pry_buffer_slice(&line))) {
      good &= classify_line(&reading, pry_buffer_slice(&line), &out);
    }
  }
  if (ferror(in)) {
    fprintf(stderr, "parry: reading stdin failed: %s\n", strerror(errno));
    good = false;
  }
  pry_buffer_fini(&line);
  pry_buffer_fini(&out);
  return good ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

/* ---- the dialects ------------------------------------------------------------------------------------------------ */

/* Only dialects decide what a failure is: an init.lua that lacks a secret or is being edited is no obstacle. */
static const char INIT[] = "provider \"any\" { base_url = \"http://127.0.0.1\", dialect = \"generic\" }\n"
                           "route \"/*\" { to = \"any\", chain = {} }\n";

static struct pry_policy_set *read_dialects(const char *folder, struct pry_report *report)
{
  struct pry_policy_set *all = pry_reload_read(folder, report);
  struct pry_policy_set *set = all ? pry_policy_set_new() : NULL;
  bool ok = set && pry_policy_set_add(set, "init.lua", PRY_SLICE(INIT));
  for (size_t i = 0; ok && i < all->count; i++) {
    const struct pry_policy_file *file = &all->files[i];
    bool wanted = strncmp(file->path, "dialects/", 9) == 0 || strncmp(file->path, "lib/", 4) == 0;
    size_t length = strlen(file->path);
    if (wanted && !(length > 9 && strcmp(file->path + length - 9, "_test.lua") == 0))
      ok = pry_policy_set_add(set, file->path, (struct pry_slice){file->text, file->size});
  }
  ok = ok && pry_policy_set_seal(set);
  pry_policy_set_free(all);
  if (ok)
    return set;
  if (all)
    pry_report_add(report, PRY_FINDING_ERROR, folder, "memory is short");
  pry_policy_set_free(set);
  return NULL;
}

static struct pry_engine *load_dialects(struct pry_loop *loop, struct pry_http *http, const char *folder)
{
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  struct pry_policy_set *set = read_dialects(folder, &report);
  struct pry_engine_options options = {.loop = loop, .http = http, .loader = &pry_lua_loader};
  struct pry_engine *engine = set ? pry_engine_new(&options) : NULL;
  if (set && !engine) {
    pry_policy_set_free(set);
    fprintf(stderr, "parry: memory is short\n");
  } else if (!set || !pry_engine_load(engine, set, false, &report)) {
    pry_engine_free(engine);
    engine = NULL;
    pry_report_text(&report, &text);
    fprintf(stderr, "%sparry: the dialects in %s cannot be used; name a folder of policies with --policies DIR\n",
            text.size ? pry_buffer_text(&text) : "", folder);
  }
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  return engine;
}

static int run(const char *folder)
{
  struct pry_loop *loop = pry_loop_new_virtual((double)time(NULL));
  struct pry_http_script *script = loop ? pry_http_script_new(loop) : NULL;
  struct pry_engine *engine = script ? load_dialects(loop, pry_http_script_client(script), folder) : NULL;
  int code = PRY_EXIT_CONFIG;
  if (!script)
    fprintf(stderr, "parry: memory is short\n");
  if (engine)
    code = classify_all(engine->control->state, stdin);
  pry_engine_free(engine);
  if (script)
    pry_http_free(pry_http_script_client(script));
  pry_loop_free(loop);
  return code;
}

int pry_cmd_classify(int argc, char **argv)
{
  char shipped[PRY_PLACE_MAX];
  const char *folder = NULL;
  bool json = false;
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "whose dialects count (those that came with parry)", &folder},
      {"json", 0, PRY_OPTION_FLAG, NULL, NULL, &json},
      {"output", 'o', PRY_OPTION_OUTPUT, "FORMAT", NULL, &json},
  };
  const struct pry_command_line line = {.usage = "parry classify [OPTIONS] < LOG",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  signal(SIGPIPE, SIG_DFL); /* a filter whose reader has left ends without words */
  return run(folder ? folder : pry_place_shipped(PARRY_POLICY_DIR, PARRY_POLICY_DIR_BESIDE, shipped, sizeof shipped));
}
