/* What reads and builds text, with each allocation failing: headers, buffers, tables, JSON, event streams, the HTTP
 * parser, metrics, log. A failure is told to the caller and leaves what was there before. */
#include "dialect.h"
#include "error_body.h"
#include "fail.h"
#include "headers.h"
#include "http1.h"
#include "json.h"
#include "log.h"
#include "log_output.h"
#include "metrics.h"
#include "registry.h"
#include "retry_after.h"
#include "sse.h"
#include "stream.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void use_buffer(void)
{
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 100000);
  for (int i = 0; i < 200; i++) {
    size_t before = buffer.size;
    bool ok = i % 2 ? pry_buffer_append_format(&buffer, "number %d, ", i)
                    : pry_buffer_append_json(&buffer, PRY_SLICE("a \"quoted\" text\n"));
    FAIL_CHECK(ok == (buffer.size > before));
  }
  const char *text = pry_buffer_text(&buffer);
  FAIL_CHECK(!text || strlen(text) == buffer.size);
  pry_buffer_consume(&buffer, 10);
  size_t size;
  free(pry_buffer_take(&buffer, &size));
  FAIL_CHECK(buffer.size == 0 || size == 0);
  pry_buffer_fini(&buffer);
}

static void use_headers(void)
{
  struct pry_headers headers, copy;
  struct pry_slice value;
  pry_headers_init(&headers);
  pry_headers_init(&copy);
  for (int i = 0; i < 40; i++) {
    char name[32];
    snprintf(name, sizeof name, "X-Name-%d", i);
    size_t before = headers.count;
    bool ok = pry_headers_add(&headers, pry_slice_of(name), PRY_SLICE("a value"));
    FAIL_CHECK(ok == (headers.count > before));
    FAIL_CHECK(pry_headers_get(&headers, pry_slice_of(name), &value) == ok);
  }
  size_t count = headers.count;
  if (pry_headers_set(&headers, PRY_SLICE("x-name-3"), PRY_SLICE("another, longer value")))
    FAIL_CHECK(pry_headers_get(&headers, PRY_SLICE("X-Name-3"), &value) && value.size > 10);
  FAIL_CHECK(headers.count + 1 >= count);
  if (pry_headers_add_all(&copy, &headers))
    FAIL_CHECK(copy.count == headers.count);
  pry_headers_remove(&copy, PRY_SLICE("x-name-5"));
  pry_headers_fini(&copy);
  pry_headers_fini(&headers);
}

struct element {
  struct pry_table_node node;
  char key[16];
};

static void use_table(void)
{
  static struct element elements[200];
  struct pry_table table;
  if (!pry_table_init(&table))
    return;
  for (int i = 0; i < 200; i++) {
    snprintf(elements[i].key, sizeof elements[i].key, "key %d", i);
    elements[i].node.key = pry_slice_of(elements[i].key);
    pry_table_add(&table, &elements[i].node);
  }
  for (int i = 0; i < 200; i++)
    FAIL_CHECK(pry_table_find(&table, pry_slice_of(elements[i].key)) == &elements[i].node);
  for (int i = 0; i < 200; i++)
    pry_table_remove(&table, &elements[i].node);
  FAIL_CHECK(table.count == 0);
  pry_table_fini(&table);
}

#define BODY "{\"stream\":true,\"model\":\"a\\u0062c\",\"messages\":[{\"content\":\"\\ud83d\\ude00 hi\"}],\"n\":1.5}"

static void use_json(void)
{
  struct pry_json_request request;
  struct pry_json_value value;
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  FAIL_CHECK(pry_json_request(PRY_SLICE(BODY), &request) == PRY_JSON_OK);
  FAIL_CHECK(pry_json_get(PRY_SLICE(BODY), "messages.0.content", &value));
  bool ok = pry_json_string(value.raw, &out);
  FAIL_CHECK(ok == (out.size > 0));
  size_t before = out.size;
  enum pry_json_result result = pry_json_splice_model(PRY_SLICE(BODY), PRY_SLICE("an \"other\" model"), &out);
  FAIL_CHECK((result == PRY_JSON_OK) == (out.size > before));
  FAIL_CHECK(result == PRY_JSON_OK || result == PRY_JSON_NO_MEMORY);
  pry_buffer_fini(&out);
}

/* Ends in NO_MEMORY or in as many events as there are, never in fewer. */
static void use_sse(void)
{
  static const char text[] =
      "event: a\r\ndata: one\r\ndata: two\r\n\r\nid: 7\ndata: {\"x\":1}\n\n: comment\n\ndata: end\n\n";
  struct pry_sse_parser parser;
  struct pry_sse_event event;
  unsigned events = 0;
  bool short_of_memory = false;
  pry_sse_init(&parser, 0);
  for (size_t at = 0; at < sizeof text - 1 && !short_of_memory; at += 5) {
    struct pry_slice input = {text + at, sizeof text - 1 - at < 5 ? sizeof text - 1 - at : 5};
    for (;;) {
      size_t taken;
      enum pry_sse_result result = pry_sse_feed(&parser, input, &taken, &event);
      input.data += taken;
      input.size -= taken;
      events += result == PRY_SSE_EVENT;
      short_of_memory |= result == PRY_SSE_NO_MEMORY;
      if (result == PRY_SSE_NEED_MORE || short_of_memory)
        break;
    }
  }
  FAIL_CHECK(short_of_memory || events == 3);
  pry_sse_fini(&parser);
}

/* What goes to the client is a prefix of what came, however memory fails. */
static void use_stream(void)
{
  static const char text[] =
      "data: {\"role\":1}\n\ndata: {\"content\":\"hi\"}\n\ndata: {\"content\":\"there\"}\n\ndata: [DONE]\n\n";
  struct pry_stream stream;
  struct pry_stream_output output;
  char given[sizeof text + 1];
  size_t size = 0;
  bool going = true;
  pry_stream_init(&stream, &pry_dialect_generic, 4096);
  for (size_t at = 0; at < sizeof text - 1 && going; at += 7) {
    struct pry_slice input = {text + at, sizeof text - 1 - at < 7 ? sizeof text - 1 - at : 7};
    enum pry_stream_step step;
    while ((step = pry_stream_feed(&stream, &input, &output)) == PRY_STREAM_OUTPUT) {
      FAIL_CHECK(size + output.out.size < sizeof given);
      memcpy(given + size, output.out.data, output.out.size);
      size += output.out.size;
    }
    going = step == PRY_STREAM_MORE;
  }
  FAIL_CHECK(memcmp(given, text, size) == 0);
  FAIL_CHECK(!going || size == sizeof text - 1);
  pry_stream_fini(&stream);
}

/* A request is read whole, or refused with 503. */
static void use_http1(void)
{
  static const char text[] = "POST http://h.test/p/a?q=1 HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n"
                             "X-Long: 0123456789012345678901234567890123456789\r\n\r\n"
                             "5;e=1\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: yes\r\n\r\n";
  struct pry_http1_parser parser;
  struct pry_http1_event event = {.type = PRY_HTTP1_NEED_MORE};
  size_t body = 0;
  bool ended = false;
  pry_http1_init(&parser, NULL);
  for (size_t at = 0; at < sizeof text - 1 && event.type != PRY_HTTP1_ERROR && !ended; at += 11) {
    struct pry_slice input = {text + at, sizeof text - 1 - at < 11 ? sizeof text - 1 - at : 11};
    do {
      size_t taken;
      pry_http1_feed(&parser, input, &taken, &event);
      input.data += taken;
      input.size -= taken;
      body += event.type == PRY_HTTP1_BODY ? event.body.size : 0;
      ended |= event.type == PRY_HTTP1_END;
    } while (event.type != PRY_HTTP1_NEED_MORE && event.type != PRY_HTTP1_ERROR && !ended);
  }
  FAIL_CHECK(ended ? body == 8 : event.type == PRY_HTTP1_ERROR && event.status == 503);
  pry_http1_fini(&parser);
}

static void use_retry_after(void)
{
  struct pry_headers headers;
  double seconds = -1;
  pry_headers_init(&headers);
  if (pry_headers_add(&headers, PRY_SLICE("Retry-After"), PRY_SLICE("Wed, 21 Oct 2065 07:28:00 GMT")) &&
      pry_headers_add(&headers, PRY_SLICE("retry-after"), PRY_SLICE("12")))
    FAIL_CHECK(pry_retry_after(&headers, 0, &seconds) && seconds > 12);
  pry_headers_fini(&headers);
}

static unsigned lines;

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  lines++;
  FAIL_CHECK(strlen(line) == size && line[0] == '{' && line[size - 1] == '}');
  FAIL_CHECK(!strstr(line, "very-secret")); /* not even when memory fails while it is taken out */
  pry_log_output_write(user, level, line, size);
}

static void use_log(void)
{
  struct pry_log_output output = {.format = PRY_LOG_FOR_PEOPLE, .fd = -1};
  struct pry_scrubber *scrubber = pry_scrubber_new();
  struct pry_log *log = pry_log_new(take_line, &output, PRY_LOG_INFO, NULL, NULL);
  char text[] = "a very-secret b";
  bool added = scrubber && pry_scrubber_add(scrubber, PRY_SLICE("very-secret"));
  added = added && pry_scrubber_add(scrubber, PRY_SLICE("another \"quoted\" one"));
  pry_log_set_scrubber(log, scrubber);
  for (int i = 0; i < 3 && added; i++)
    pry_log(log, PRY_LOG_WARN, "message", pry_log_text("a", "with very-secret inside"), pry_log_integer("b", i));
  if (added) {
    pry_scrubber_apply_text(scrubber, text);
    FAIL_CHECK(!strstr(text, "very-secret"));
    pry_scrubber_remove(scrubber, PRY_SLICE("very-secret"));
  }
  pry_log_free(log);
  pry_scrubber_free(scrubber);
}

static void use_metrics(void)
{
  struct pry_metrics *metrics = pry_metrics_new();
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  for (int i = 0; i < 20; i++) {
    char label[16];
    snprintf(label, sizeof label, "label %d", i);
    for (int metric = 0; metric < PRY_METRIC_COUNT; metric++)
      pry_metrics_add(metrics, (enum pry_metric)metric, label, "second", 1);
  }
  if (metrics && pry_metrics_render(metrics, &text))
    FAIL_CHECK(text.size > 1000);
  pry_buffer_fini(&text);
  pry_metrics_free(metrics);
}

/* A report that cannot keep a finding still says that there were errors. */
static void use_report(void)
{
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  for (int i = 0; i < 120; i++)
    pry_report_add(&report, i % 3 ? PRY_FINDING_ERROR : PRY_FINDING_WARNING, "retry.lua:1", "finding %d", i);
  FAIL_CHECK(report.errors == 80 && report.count + report.more == 120);
  pry_report_text(&report, &text);
  pry_buffer_fini(&text);
  pry_report_fini(&report);
}

/* Without memory a text inside of a text is not looked into; what stands around it is read all the same. */
static void use_error_body(void)
{
  struct pry_error_body error;
  pry_error_body_read(&error,
                      PRY_SLICE("{\"error\":{\"type\":\"t\",\"message\":"
                                "\"{\\\"error\\\":{\\\"code\\\":\\\"inner\\\",\\\"message\\\":\\\"m\\\"}}\"}}"));
  FAIL_CHECK(strcmp(error.code, "inner") == 0 || fail_struck());
  FAIL_CHECK(*error.type || *error.code);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"buffer", use_buffer, FAIL_MEMORY, 0}, {"headers", use_headers, FAIL_MEMORY, 0},
      {"table", use_table, FAIL_BOTH, 0},     {"json", use_json, FAIL_MEMORY, 0},
      {"sse", use_sse, FAIL_MEMORY, 0},       {"stream", use_stream, FAIL_MEMORY, 0},
      {"http1", use_http1, FAIL_MEMORY, 0},   {"retry-after", use_retry_after, FAIL_MEMORY, 0},
      {"log", use_log, FAIL_BOTH, 0},         {"metrics", use_metrics, FAIL_MEMORY, 0},
      {"report", use_report, FAIL_MEMORY, 0}, {"an error's body", use_error_body, FAIL_MEMORY, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
