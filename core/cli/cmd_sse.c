#include "call.h"
#include "cli.h"
#include "dialects.h"
#include "options.h"
#include "places.h"
#include "records.h"
#include "shipped.h"
#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* As the gateway: how much of an error a dialect sees, and what is held back of a stream. */
enum { CLASSIFY_BODY_MAX = 64 * 1024, HOLD_LIMIT = 256 * 1024 };

static const char DOC[] =
    "Reads recorded event streams and says what the gateway would see in each, with the engine's\n"
    "own code and the dialects of the policies: every event, how the stream ended, and whether\n"
    "another attempt would have been safe.\n\n"
    "FILE or stdin holds one stream a line; with --dialect it is one stream as it came over the wire:\n"
    "  curl -sN ... | parry sse --dialect openai";

static const char AFTER[] =
    "in:  {\"id\", \"dialect\", \"provider\"?, \"chunks_b64\": [...], \"end\": \"eof\"|\"reset\"|\"timeout\"}\n"
    "     one per line, at most 16 MiB; an unknown dialect is generic, no end is eof\n"
    "out: {\"id\", \"events\": [{\"event\", \"data\"}], \"verdict\", \"safe_to_retry\", \"error\"}\n"
    "     event    \"message\" where the stream names none; \"cut\": true: too long to be held, its beginning\n"
    "     verdict  clean_end, error_before_first_token, error_mid_stream (an error that the provider reports,\n"
    "              or what cannot be read), truncated (cut, stalled, or without an end marker)\n"
    "     safe_to_retry  it failed, and nothing of it had been given to the client\n"
    "     error    null, or the failure as `parry classify` prints it\n"
    "     A line that cannot be read gives {\"id\": null, \"error\": \"line N: ...\"}, and exit code 1 at the end.";

enum connection_end { END_EOF, END_RESET, END_TIMEOUT };

static const char *const end_names[] = {"eof", "reset", "timeout"};

/* One recorded stream. */
struct recording {
  struct pry_slice id; /* raw JSON */
  struct pry_buffer dialect, provider;
  struct pry_slice chunks; /* raw JSON array; empty: `bytes` are the stream */
  struct pry_slice bytes;
  enum connection_end end;
};

struct judgement {
  struct pry_stream stream;
  struct pry_buffer *out;
  size_t events;
  bool written; /* false: memory was short */
  bool given;   /* something had gone to the client */
  bool over;    /* the stream has failed: what follows is only listed */
  const char *verdict;
  struct pry_failure failure; /* category PRY_NONE: none */
};

/* One run over a file. */
struct reading {
  struct pry_dialects *dialects;
  unsigned long line;
  struct pry_buffer out, chunk;
};

/* ---- what was seen ----------------------------------------------------------------------------------------- */

static void write_event(struct judgement *judgement, const struct pry_sse_event *event, bool whole)
{
  struct pry_buffer *out = judgement->out;
  judgement->written = judgement->written &&
                       pry_buffer_append_text(out, judgement->events++ ? ",{\"event\":\"" : "{\"event\":\"") &&
                       pry_buffer_append_json(out, event->name.size ? event->name : PRY_SLICE("message")) &&
                       pry_buffer_append_text(out, "\",\"data\":\"") && pry_buffer_append_json(out, event->data) &&
                       pry_buffer_append_text(out, whole ? "\"}" : "\",\"cut\":true}");
}

static void on_event(void *user, const struct pry_sse_event *event, enum pry_stream_class meaning, bool whole)
{
  (void)meaning;
  write_event(user, event, whole);
}

static void fail(struct judgement *judgement, const char *verdict, const struct pry_failure *failure)
{
  judgement->over = true;
  judgement->verdict = verdict;
  judgement->failure = *failure;
}

static const char *error_verdict(const struct judgement *judgement)
{
  return judgement->given ? "error_mid_stream" : "error_before_first_token";
}

static void fail_reported(struct judgement *judgement, struct reading *reading, const struct recording *recording,
                          const struct pry_stream_output *output)
{
  static const struct pry_headers no_headers;
  const char *provider = recording->provider.data;
  struct pry_slice data = output->data;
  struct pry_answer_view answer = {.provider = provider ? provider : "",
                                   .status = 200,
                                   .headers = &no_headers,
                                   .body = {data.data, data.size < CLASSIFY_BODY_MAX ? data.size : CLASSIFY_BODY_MAX},
                                   .in_stream = true,
                                   .event_type = output->type};
  struct pry_failure failure =
      pry_classify(pry_dialects_state(reading->dialects), judgement->stream.dialect, &answer, (double)time(NULL));
  fail(judgement, error_verdict(judgement), &failure);
}

static void fail_found(struct judgement *judgement, const char *verdict, enum pry_stream_fault fault)
{
  struct pry_failure failure = pry_stream_failure(fault);
  fail(judgement, verdict, &failure);
}

/* The gateway reads no further; people want to see what came. */
static void list_rest(struct judgement *judgement, struct pry_slice bytes)
{
  struct pry_sse_event event;
  size_t consumed;
  enum pry_sse_result result;
  do {
    result = pry_sse_feed(&judgement->stream.parser, bytes, &consumed, &event);
    bytes = (struct pry_slice){bytes.data + consumed, bytes.size - consumed};
    if (result == PRY_SSE_EVENT || result == PRY_SSE_TOO_LARGE)
      write_event(judgement, &event, result == PRY_SSE_EVENT);
    judgement->written = judgement->written && result != PRY_SSE_NO_MEMORY;
  } while (result != PRY_SSE_NEED_MORE && result != PRY_SSE_NO_MEMORY);
}

static void feed(struct judgement *judgement, struct reading *reading, const struct recording *recording,
                 struct pry_slice bytes)
{
  while (!judgement->over) {
    struct pry_stream_output output;
    enum pry_stream_step step = pry_stream_feed(&judgement->stream, &bytes, &output);
    if (step == PRY_STREAM_MORE)
      return;
    if (step == PRY_STREAM_OUTPUT)
      judgement->given = judgement->given || output.out.size;
    else if (step == PRY_STREAM_BROKEN)
      fail_reported(judgement, reading, recording, &output);
    else if (step == PRY_STREAM_MALFORMED)
      fail_found(judgement, error_verdict(judgement), PRY_STREAM_FAULT_MALFORMED);
    else
      judgement->written = !(judgement->over = true);
  }
  list_rest(judgement, bytes);
}

static void end(struct judgement *judgement, struct reading *reading, const struct recording *recording)
{
  struct pry_stream_output output;
  enum pry_stream_ending ending = pry_stream_finish(&judgement->stream, recording->end == END_EOF, &output);
  switch (ending) {
  case PRY_STREAM_CLEAN:
    judgement->verdict = "clean_end";
    return;
  case PRY_STREAM_REPORTED:
    fail_reported(judgement, reading, recording, &output);
    return;
  case PRY_STREAM_UNREADABLE:
    fail_found(judgement, error_verdict(judgement), PRY_STREAM_FAULT_MALFORMED);
    return;
  case PRY_STREAM_UNTERMINATED:
    fail_found(judgement, "truncated", PRY_STREAM_FAULT_UNTERMINATED);
    return;
  case PRY_STREAM_CUT:
    fail_found(judgement, "truncated", recording->end == END_TIMEOUT ? PRY_STREAM_FAULT_STALLED : PRY_STREAM_FAULT_CUT);
    return;
  case PRY_STREAM_LOST:
    judgement->written = false;
    return;
  }
}

/* NULL, or what is wrong with a chunk. */
static const char *feed_chunks(struct judgement *judgement, struct reading *reading, const struct recording *recording)
{
  struct pry_json_iterator chunks;
  struct pry_json_value chunk;
  struct pry_slice none;
  pry_json_iterate(&chunks, recording->chunks);
  while (pry_json_next(&chunks, &none, &chunk)) {
    if (pry_record_base64(chunk, &reading->chunk))
      return "chunks_b64 must hold texts in base64";
    feed(judgement, reading, recording, pry_buffer_slice(&reading->chunk));
  }
  return NULL;
}

/* NULL, or why there is no result. */
static const char *judge(struct reading *reading, const struct recording *recording)
{
  struct judgement judgement = {.out = &reading->out, .written = true};
  const struct pry_dialect *dialect = pry_dialects_find(reading->dialects, recording->dialect.data, reading->line);
  pry_buffer_clear(&reading->out);
  judgement.written = pry_buffer_append_text(&reading->out, "{\"id\":") &&
                      pry_buffer_append_slice(&reading->out, recording->id) &&
                      pry_buffer_append_text(&reading->out, ",\"events\":[");
  pry_stream_init(&judgement.stream, dialect, HOLD_LIMIT);
  judgement.stream.observe = on_event;
  judgement.stream.observer = &judgement;
  const char *problem = NULL;
  if (recording->chunks.size)
    problem = feed_chunks(&judgement, reading, recording);
  else
    feed(&judgement, reading, recording, recording->bytes);
  if (!problem && !judgement.over)
    end(&judgement, reading, recording);
  pry_stream_fini(&judgement.stream);
  if (problem)
    return problem;
  bool failed = judgement.failure.category != PRY_NONE;
  bool ok = judgement.written && judgement.verdict &&
            pry_buffer_append_format(&reading->out, "],\"verdict\":\"%s\",\"safe_to_retry\":%s,\"error\":%s",
                                     judgement.verdict, failed && !judgement.given ? "true" : "false",
                                     failed ? "{" : "null") &&
            (!failed ||
             (pry_append_failure(&reading->out, &judgement.failure) && pry_buffer_append_text(&reading->out, "}"))) &&
            pry_buffer_append_text(&reading->out, "}\n");
  return ok ? NULL : "memory is short";
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static bool find_end(struct pry_slice name, enum connection_end *found)
{
  for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++)
    if (pry_slice_equal(name, pry_slice_of(end_names[i]))) {
      *found = (enum connection_end)i;
      return true;
    }
  return false;
}

static const char *read_end(struct pry_json_value value, enum connection_end *found)
{
  struct pry_buffer name;
  pry_buffer_init(&name, 0);
  bool known =
      value.type == PRY_JSON_NULL || (!pry_record_text(value, &name) && find_end(pry_buffer_slice(&name), found));
  pry_buffer_fini(&name);
  return known ? NULL : "is none of eof, reset, timeout";
}

/* Text that is used as a NUL-terminated string. */
static const char *read_name(struct pry_json_value value, struct pry_buffer *out)
{
  const char *wrong = pry_record_text(value, out);
  if (!wrong && !pry_buffer_text(out))
    wrong = "does not fit into memory";
  return wrong;
}

static const char *read_member(struct recording *recording, struct pry_slice key, struct pry_json_value value)
{
  if (pry_json_equals(key, PRY_SLICE("id")))
    recording->id = value.raw;
  else if (pry_json_equals(key, PRY_SLICE("dialect")))
    return read_name(value, &recording->dialect);
  else if (pry_json_equals(key, PRY_SLICE("provider")))
    return read_name(value, &recording->provider);
  else if (pry_json_equals(key, PRY_SLICE("end")))
    return read_end(value, &recording->end);
  else if (pry_json_equals(key, PRY_SLICE("chunks_b64"))) {
    recording->chunks = value.raw;
    return value.type == PRY_JSON_ARRAY ? NULL : "is not a list";
  }
  return NULL;
}

/* False: `problem` says why. */
static bool read_recording(struct recording *recording, struct pry_slice line, char *problem, size_t problem_size)
{
  struct pry_json_iterator members;
  struct pry_json_value value;
  struct pry_slice key;
  const char *wrong = NULL;
  pry_json_iterate(&members, line);
  if (members.result == PRY_JSON_OK && members.type != PRY_JSON_OBJECT)
    members.result = PRY_JSON_NOT_OBJECT;
  while (members.result == PRY_JSON_OK && !wrong && pry_json_next(&members, &key, &value)) {
    wrong = read_member(recording, key, value);
    if (wrong)
      snprintf(problem, problem_size, "%.*s %s", (int)(key.size < 64 ? key.size : 64), key.data, wrong);
  }
  if (!wrong && members.result != PRY_JSON_OK)
    snprintf(problem, problem_size, "%s", wrong = pry_json_result_text(members.result));
  if (!wrong && !recording->chunks.size)
    snprintf(problem, problem_size, "%s", wrong = "chunks_b64 is not there");
  return !wrong;
}

static void print(struct reading *reading, const char *problem)
{
  if (problem) {
    pry_buffer_clear(&reading->out);
    pry_append_problem(&reading->out, reading->line, problem);
  }
  fwrite(reading->out.data, 1, reading->out.size, stdout);
}

/* False: the line was bad. */
static bool judge_line(struct reading *reading, struct pry_slice line)
{
  struct recording recording = {.id = PRY_SLICE("null")};
  char text[256];
  const char *problem = text;
  pry_buffer_init(&recording.dialect, 0);
  pry_buffer_init(&recording.provider, 0);
  if (read_recording(&recording, line, text, sizeof text))
    problem = judge(reading, &recording);
  print(reading, problem);
  pry_buffer_fini(&recording.dialect);
  pry_buffer_fini(&recording.provider);
  return !problem;
}

static bool judge_lines(struct reading *reading, FILE *in)
{
  struct pry_buffer line;
  enum pry_line_result result;
  bool good = true;
  pry_buffer_init(&line, PRY_LINE_MAX_BYTES);
  while ((result = pry_next_line(in, &line)) != PRY_LINE_NONE && !ferror(stdout)) {
    reading->line++;
    if (result == PRY_LINE_TOO_LONG) {
      print(reading, "longer than 16 MiB");
      good = false;
    } else if (!pry_line_is_blank(pry_buffer_slice(&line))) {
      good &= judge_line(reading, pry_buffer_slice(&line));
    }
  }
  pry_buffer_fini(&line);
  return good;
}

/* The whole input is one stream. */
static bool judge_bytes(struct reading *reading, FILE *in, const struct recording *options)
{
  struct recording recording = *options;
  struct pry_buffer bytes;
  char piece[16 * 1024];
  size_t size;
  bool fits = true;
  pry_buffer_init(&bytes, PRY_LINE_MAX_BYTES);
  while (fits && (size = fread(piece, 1, sizeof piece, in)) > 0)
    fits = pry_buffer_append(&bytes, piece, size);
  recording.bytes = pry_buffer_slice(&bytes);
  reading->line = 1;
  const char *problem = fits ? judge(reading, &recording) : "longer than 16 MiB";
  print(reading, problem);
  pry_buffer_fini(&bytes);
  return !problem;
}

static int run(struct pry_dialects *dialects, const struct recording *options, const char *path)
{
  struct reading reading = {.dialects = dialects};
  FILE *in = path ? fopen(path, "re") : stdin;
  if (!in) {
    fprintf(stderr, "parry: %s: %s\n", path, strerror(errno));
    return PRY_EXIT_FINDINGS;
  }
  pry_buffer_init(&reading.out, 0);
  pry_buffer_init(&reading.chunk, 0);
  bool good = options->dialect.data ? judge_bytes(&reading, in, options) : judge_lines(&reading, in);
  if (ferror(in)) {
    fprintf(stderr, "parry: reading %s failed: %s\n", path ? path : "stdin", strerror(errno));
    good = false;
  }
  pry_buffer_fini(&reading.out);
  pry_buffer_fini(&reading.chunk);
  if (path)
    fclose(in);
  return good ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

static bool keep_option(const char *text, struct pry_buffer *out)
{
  return !text || (pry_buffer_append_text(out, text) && pry_buffer_text(out));
}

int pry_cmd_sse(int argc, char **argv)
{
  char shipped[PRY_SHIPPED_PATH_MAX];
  const char *folder = NULL, *dialect = NULL, *provider = NULL, *end_name = NULL;
  bool json = false;
  size_t operands = 0;
  const struct pry_option options[] = {
      {"dialect", 'd', PRY_OPTION_TEXT, "NAME", "the input is one stream as it came, in this dialect", &dialect},
      {"end", 0, PRY_OPTION_TEXT, "HOW", "how its connection ended: eof, reset or timeout (eof)", &end_name},
      {"provider", 0, PRY_OPTION_TEXT, "NAME", "who sent it, for dialects that go by that", &provider},
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "whose dialects count (those that came with parry)", &folder},
      {"json", 0, PRY_OPTION_FLAG, NULL, NULL, &json},
      {"output", 'o', PRY_OPTION_OUTPUT, "FORMAT", NULL, &json},
  };
  const struct pry_command_line line = {.usage = "parry sse [OPTIONS] [FILE]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .operands_max = 1,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, &operands);
  if (code >= 0)
    return code;
  struct recording given = {.id = PRY_SLICE("null")};
  if (end_name && !find_end(pry_slice_of(end_name), &given.end)) {
    fprintf(stderr, "parry sse: --end is eof, reset or timeout, not '%s'\n", end_name);
    return PRY_EXIT_USAGE;
  }
  if ((end_name || provider) && !dialect) {
    fprintf(stderr, "parry sse: --end and --provider belong to --dialect; lines say it themselves\n");
    return PRY_EXIT_USAGE;
  }
  signal(SIGPIPE, SIG_DFL); /* a filter whose reader has left ends without words */
  struct pry_dialects dialects;
  code = PRY_EXIT_CONFIG;
  pry_buffer_init(&given.dialect, 0);
  pry_buffer_init(&given.provider, 0);
  bool room = !dialect || (keep_option(dialect, &given.dialect) && keep_option(provider, &given.provider));
  if (pry_dialects_load(&dialects, folder ? folder : pry_shipped_folder(shipped), "sse") && room)
    code = run(&dialects, &given, operands ? argv[1] : NULL);
  pry_dialects_free(&dialects);
  pry_buffer_fini(&given.dialect);
  pry_buffer_fini(&given.provider);
  return code;
}
