#include "classify.h"
#include "shipped.h"

#include "call.h"
#include "cli.h"
#include "dialects.h"
#include "options.h"
#include "places.h"
#include "records.h"
#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { CLASSIFY_BODY_MAX = 64 * 1024, HOLD_LIMIT = 256 * 1024 };

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
  struct pry_dialects *dialects;
  unsigned long line; /* the one at hand, from 1 */
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

static struct pry_failure classify(struct reading *reading, struct pry_classify_record *record)
{
  struct pry_state *state = pry_dialects_state(reading->dialects);
  const struct pry_dialect *dialect =
      pry_dialects_find(reading->dialects, pry_buffer_text(&record->dialect), reading->line);
  const char *provider = pry_buffer_text(record->provider.size ? &record->provider : &record->dialect);
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

static bool append_result(struct pry_buffer *out, const struct pry_classify_record *record,
                          const struct pry_failure *failure)
{
  return pry_buffer_append_text(out, "{\"id\":") && pry_buffer_append_slice(out, record->id) &&
         pry_buffer_append_text(out, ",") && pry_append_failure(out, failure) && pry_buffer_append_text(out, "}\n");
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
    pry_append_problem(out, reading->line, problem);
  }
  fwrite(out->data, 1, out->size, stdout);
  pry_classify_record_fini(&record);
  return ok;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int classify_all(struct pry_dialects *dialects, FILE *in)
{
  struct reading reading = {.dialects = dialects};
  struct pry_buffer line, out;
  bool good = true;
  enum pry_line_result result;
  pry_buffer_init(&line, PRY_LINE_MAX_BYTES);
  pry_buffer_init(&out, 0);
  while ((result = pry_next_line(in, &line)) != PRY_LINE_NONE && !ferror(stdout)) {
    reading.line++;
    if (result == PRY_LINE_TOO_LONG) {
      printf("{\"id\":null,\"error\":\"line %lu: longer than 16 MiB\"}\n", reading.line);
      good = false;
    } else if (!pry_line_is_blank(pry_buffer_slice(&line))) {
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

int pry_cmd_classify(int argc, char **argv)
{
  char shipped[PRY_SHIPPED_PATH_MAX];
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
  struct pry_dialects dialects;
  code = PRY_EXIT_CONFIG;
  if (pry_dialects_load(&dialects, folder ? folder : pry_shipped_folder(shipped), "classify"))
    code = classify_all(&dialects, stdin);
  pry_dialects_free(&dialects);
  return code;
}
