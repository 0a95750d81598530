#include "event.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY_DEFAULT = 1024 };

struct pry_event_ring {
  struct pry_event_count *count;
  size_t capacity;
  atomic_uint_least64_t last; /* position of the newest record, 0 before the first; written by the worker only */
  struct pry_event_record records[];
};

struct pry_event_ring *pry_event_ring_new(size_t capacity, struct pry_event_count *count)
{
  if (!capacity)
    capacity = CAPACITY_DEFAULT;
  if (capacity > (SIZE_MAX - sizeof(struct pry_event_ring)) / sizeof(struct pry_event_record))
    return NULL;
  struct pry_event_ring *ring = calloc(1, sizeof *ring + capacity * sizeof *ring->records);
  if (!ring)
    return NULL;
  ring->count = count;
  ring->capacity = capacity;
  atomic_init(&ring->last, 0);
  for (size_t i = 0; i < capacity; i++)
    pry_buffer_init(&ring->records[i].reads, PRY_EVENT_READS_MAX);
  return ring;
}

void pry_event_ring_free(struct pry_event_ring *ring)
{
  if (!ring)
    return;
  for (size_t i = 0; i < ring->capacity; i++)
    pry_buffer_fini(&ring->records[i].reads);
  free(ring);
}

static uint64_t last_position(const struct pry_event_ring *ring)
{
  return atomic_load_explicit(&ring->last, memory_order_relaxed);
}

static struct pry_event_record *place_of(struct pry_event_ring *ring, uint64_t position)
{
  return &ring->records[(position - 1) % ring->capacity];
}

/* Member by member: zeroing the texts whole would be a good part of what an event costs. `reads` keeps its memory. */
static void empty(struct pry_event_record *record)
{
  record->time = 0;
  record->seed = 0;
  record->handler = PRY_ON_REQUEST;
  record->attempt = 0;
  record->call_id[0] = record->target[0] = record->policy[0] = record->generation[0] = record->code[0] =
      record->key[0] = record->verdict_target[0] = record->why[0] = record->fault[0] = '\0';
  record->category = record->verdict_category = PRY_NONE;
  record->source = PRY_SOURCE_PROVIDER;
  record->status = record->curl_code = record->verdict_status = record->line = 0;
  record->retryable = record->reads_cut = false;
  record->retry_after = record->deadline_left = record->after = -1;
  record->spent = (struct pry_spending){0};
  pry_buffer_clear(&record->reads);
  record->reads_end = 0;
  record->result = PRY_RUN_OK;
  record->verdict = PRY_VERDICT_NONE;
}

struct pry_event_record *pry_event_next(struct pry_event_ring *ring)
{
  uint64_t position = last_position(ring) + 1;
  atomic_store_explicit(&ring->last, position, memory_order_relaxed);
  struct pry_event_record *record = place_of(ring, position);
  record->sequence = atomic_fetch_add_explicit(&ring->count->last, 1, memory_order_relaxed) + 1;
  record->position = position;
  empty(record);
  return record;
}

struct pry_event_record *pry_event_find(struct pry_event_ring *ring, uint64_t position)
{
  uint64_t last = last_position(ring);
  if (position == 0 || position > last || last - position >= ring->capacity)
    return NULL;
  return place_of(ring, position);
}

void pry_event_visit(struct pry_event_ring *ring, size_t limit,
                     bool (*visit)(void *user, const struct pry_event_record *), void *user)
{
  uint64_t last = last_position(ring);
  uint64_t kept = last < ring->capacity ? last : ring->capacity;
  for (uint64_t i = 0; i < kept && i < limit; i++)
    if (!visit(user, place_of(ring, last - i)))
      return;
}

uint64_t pry_event_overwritten(const struct pry_event_ring *ring)
{
  uint64_t last = last_position(ring);
  return last > ring->capacity ? last - ring->capacity : 0;
}

/* ---- reads ----------------------------------------------------------------------------------------------- */

/* A function's name as a pointer, a value as its bytes; texts with their size before them. */
enum read_tag {
  READ_FUNCTION = 'F',
  READ_TEXT = 'T',
  READ_JSON = 'J',
  READ_NUMBER = 'N',
  READ_TRUE = '1',
  READ_FALSE = '0',
  READ_NULL = '-'
};

/* Room for a tag and `size` bytes behind it; NULL: from here on nothing is recorded, because a gap in the middle would be
 * replayed as if it were none. */
static char *add_part(struct pry_event_record *record, enum read_tag tag, size_t size)
{
  struct pry_buffer *reads = &record->reads;
  if (record->reads_cut || !pry_buffer_reserve(reads, size + 1)) {
    record->reads_cut = true;
    return NULL;
  }
  char *part = reads->data + reads->size;
  part[0] = (char)tag;
  reads->size += size + 1;
  return part + 1;
}

void pry_event_read_begin(struct pry_event_record *record, const char *function)
{
  record->reads.size = record->reads_end;
  char *part = add_part(record, READ_FUNCTION, sizeof function);
  if (part)
    memcpy(part, &function, sizeof function);
}

static void read_bytes(struct pry_event_record *record, enum read_tag tag, struct pry_scrubber *scrubber,
                       struct pry_slice value)
{
  uint32_t size = (uint32_t)value.size;
  char *part = value.size <= PRY_EVENT_READS_MAX ? add_part(record, tag, sizeof size + value.size) : NULL;
  if (!part) {
    record->reads_cut = true;
    return;
  }
  if (size)
    memcpy(part + sizeof size, value.data, size);
  struct pry_buffer copy = {.data = part + sizeof size, .size = size, .capacity = size, .limit = size};
  pry_scrubber_apply(scrubber, &copy);
  record->reads.size -= size - copy.size;
  size = (uint32_t)copy.size;
  memcpy(part, &size, sizeof size);
}

void pry_event_read_text(struct pry_event_record *record, struct pry_scrubber *scrubber, struct pry_slice value)
{
  read_bytes(record, READ_TEXT, scrubber, value);
}

void pry_event_read_json(struct pry_event_record *record, struct pry_scrubber *scrubber, struct pry_slice json)
{
  read_bytes(record, READ_JSON, scrubber, json);
}

void pry_event_read_number(struct pry_event_record *record, double number)
{
  char *part = add_part(record, READ_NUMBER, sizeof number);
  if (part)
    memcpy(part, &number, sizeof number);
}

void pry_event_read_boolean(struct pry_event_record *record, bool value)
{
  add_part(record, value ? READ_TRUE : READ_FALSE, 0);
}

void pry_event_read_null(struct pry_event_record *record)
{
  add_part(record, READ_NULL, 0);
}

void pry_event_read_end(struct pry_event_record *record)
{
  if (!record->reads_cut)
    record->reads_end = record->reads.size;
}

/* ---- as JSON ------------------------------------------------------------------------------------------- */

static const char *run_result_name(enum pry_run_result result)
{
  static const char *const names[] = {"ok", "error", "over_budget", "no_memory", "bad_verdict", "cancelled"};
  return names[result];
}

static bool add_text(struct pry_buffer *text, const char *name, const char *value)
{
  return pry_buffer_append_format(text, ",\"%s\":\"", name) && pry_buffer_append_json(text, pry_slice_of(value)) &&
         pry_buffer_append_text(text, "\"");
}

static bool add_text_if_any(struct pry_buffer *text, const char *name, const char *value)
{
  return !value[0] || add_text(text, name, value);
}

/* The shortest form that reads back as the same double: replay compares bytes. */
static bool append_number(struct pry_buffer *text, double value)
{
  if (!isfinite(value))
    return pry_buffer_append_text(text, "null");
  char digits[32];
  for (int precision = 15; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, value);
    if (strtod(digits, NULL) == value)
      break;
  }
  for (char *comma = digits; (comma = strchr(comma, ',')) != NULL;) /* whatever the host program's locale */
    *comma = '.';
  return pry_buffer_append_text(text, digits);
}

static bool add_number(struct pry_buffer *text, const char *name, double value)
{
  return pry_buffer_append_format(text, ",\"%s\":", name) && append_number(text, value);
}

static bool add_number_if_said(struct pry_buffer *text, const char *name, double value)
{
  return value < 0 || add_number(text, name, value);
}

static bool add_failure(const struct pry_event_record *record, struct pry_buffer *text)
{
  if (record->category == PRY_NONE)
    return true;
  return pry_buffer_append_format(
             text, ",\"err\":{\"category\":\"%s\",\"source\":\"%s\",\"status\":%d,\"curl_code\":%d",
             pry_category_name(record->category), pry_source_name(record->source), record->status, record->curl_code) &&
         add_text_if_any(text, "code", record->code) && add_number_if_said(text, "retry_after", record->retry_after) &&
         pry_buffer_append_format(text, ",\"retryable\":%s}", record->retryable ? "true" : "false");
}

/* What on_outcome and on_done were told beside the failure. */
static bool add_spending(const struct pry_event_record *record, struct pry_buffer *text)
{
  const struct pry_tokens *tokens = &record->spent.tokens;
  bool ok = add_text_if_any(text, "key", record->key);
  if (ok && tokens->known)
    ok = pry_buffer_append_format(text, ",\"tokens\":{\"input\":%lld,\"output\":%lld,\"cached\":%lld}",
                                  (long long)tokens->input, (long long)tokens->output, (long long)tokens->cached);
  return ok && (!record->spent.priced || add_number(text, "cost", record->spent.cost));
}

static bool add_verdict(const struct pry_event_record *record, struct pry_buffer *text)
{
  bool ok = add_text(text, "result", run_result_name(record->result)) &&
            add_text(text, "verdict", pry_verdict_name(record->verdict)) &&
            add_number_if_said(text, "after", record->after) &&
            add_text_if_any(text, "verdict_target", record->verdict_target);
  if (ok && record->verdict_category != PRY_NONE)
    ok = add_text(text, "verdict_category", pry_category_name(record->verdict_category));
  if (ok && record->verdict_status)
    ok = pry_buffer_append_format(text, ",\"verdict_status\":%d", record->verdict_status);
  if (ok && record->line)
    ok = pry_buffer_append_format(text, ",\"line\":%d", record->line);
  return ok && add_text_if_any(text, "why", record->why) && add_text_if_any(text, "fault", record->fault);
}

/* The value behind `tag`, as JSON; `at` moves behind it. */
static bool append_value(struct pry_buffer *text, enum read_tag tag, const char **at)
{
  uint32_t size;
  double number;
  switch (tag) {
  case READ_TEXT:
  case READ_JSON:
    memcpy(&size, *at, sizeof size);
    struct pry_slice value = {*at + sizeof size, size};
    *at += sizeof size + size;
    if (tag == READ_JSON)
      return pry_buffer_append_slice(text, value);
    return pry_buffer_append_text(text, "\"") && pry_buffer_append_json(text, value) &&
           pry_buffer_append_text(text, "\"");
  case READ_NUMBER:
    memcpy(&number, *at, sizeof number);
    *at += sizeof number;
    return append_number(text, number);
  case READ_TRUE:
    return pry_buffer_append_text(text, "true");
  case READ_FALSE:
    return pry_buffer_append_text(text, "false");
  default:
    return pry_buffer_append_text(text, "null");
  }
}

bool pry_event_append_reads(const struct pry_event_record *record, struct pry_buffer *text)
{
  const char *at = record->reads.data, *end = at ? at + record->reads_end : NULL;
  const char *open = "[\"";
  bool ok = true;
  while (ok && at < end) {
    enum read_tag tag = (enum read_tag) * at++;
    if (tag != READ_FUNCTION) {
      ok = pry_buffer_append_text(text, ",") && append_value(text, tag, &at);
      continue;
    }
    const char *function;
    memcpy(&function, at, sizeof function);
    at += sizeof function;
    ok = pry_buffer_append_text(text, open) && pry_buffer_append_text(text, function) &&
         pry_buffer_append_text(text, "\"");
    open = "],[\"";
  }
  return ok && (!record->reads_end || pry_buffer_append_text(text, "]"));
}

bool pry_event_json(const struct pry_event_record *record, struct pry_buffer *text)
{
  size_t before = text->size;
  /* The seed is text: a JSON number holds 53 bits in most readers. */
  bool ok = pry_buffer_append_format(text, "{\"sequence\":%llu", (unsigned long long)record->sequence) &&
            add_number(text, "time", record->time) &&
            pry_buffer_append_format(text, ",\"seed\":\"%016llx\"", (unsigned long long)record->seed) &&
            add_text(text, "handler", pry_handler_name(record->handler)) &&
            add_text_if_any(text, "call", record->call_id) &&
            pry_buffer_append_format(text, ",\"attempt\":%u", record->attempt) &&
            add_text_if_any(text, "target", record->target) && add_text_if_any(text, "policy", record->policy) &&
            add_text_if_any(text, "generation", record->generation) &&
            add_number_if_said(text, "deadline_left", record->deadline_left) && add_failure(record, text) &&
            add_spending(record, text) && pry_buffer_append_text(text, ",\"reads\":[") &&
            pry_event_append_reads(record, text) &&
            pry_buffer_append_format(text, "],\"reads_cut\":%s", record->reads_cut ? "true" : "false") &&
            add_verdict(record, text) && pry_buffer_append_text(text, "}");
  if (!ok)
    text->size = before;
  return ok;
}
