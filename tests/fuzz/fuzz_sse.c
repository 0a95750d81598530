/* Events must not depend on how the bytes arrive, must be those of a plain reading of the standard, and the blocks'
 * bytes together must be the stream. The first byte chooses the size of the pieces and the limit. */
#include "fuzz.h"

#include "sse.h"

static void write_slice(struct pry_buffer *out, struct pry_slice text)
{
  REQUIRE(pry_buffer_append_format(out, "%zu:", text.size));
  REQUIRE(pry_buffer_append_slice(out, text));
}

/* Blocks without data leave no trace in the transcript, so that it can be compared with the plain reading. False: a block
 * was too large. */
static bool feed(struct pry_sse_parser *parser, struct pry_slice piece, struct pry_buffer *events,
                 struct pry_buffer *bytes)
{
  struct pry_slice copy = fuzz_copy(piece), rest = copy;
  enum pry_sse_result result;
  bool whole = true;
  do {
    size_t consumed;
    struct pry_sse_event event;
    result = pry_sse_feed(parser, rest, &consumed, &event);
    REQUIRE(consumed <= rest.size);
    REQUIRE(result != PRY_SSE_NO_MEMORY);
    REQUIRE(pry_buffer_append(bytes, rest.data, consumed));
    rest.data += consumed;
    rest.size -= consumed;
    if (result == PRY_SSE_EVENT) {
      write_slice(events, event.name);
      write_slice(events, event.data);
      write_slice(events, event.id);
    }
    if (result == PRY_SSE_EVENT || result == PRY_SSE_BLOCK) {
      REQUIRE(consumed > 0 && !pry_sse_pending(parser));
      REQUIRE(bytes->data[bytes->size - 1] == '\n' || bytes->data[bytes->size - 1] == '\r');
    }
    if (result == PRY_SSE_TOO_LARGE) {
      whole = false;
      REQUIRE(pry_buffer_append_text(events, "~"));
      write_slice(events, event.data);
      REQUIRE(pry_sse_pending(parser));
    }
  } while (result != PRY_SSE_NEED_MORE);
  REQUIRE(rest.size == 0);
  fuzz_release(copy);
  return whole;
}

/* True when no block was too large. */
static bool run(struct pry_slice input, size_t step, size_t limit, struct pry_buffer *events)
{
  struct pry_sse_parser parser;
  struct pry_buffer bytes;
  pry_buffer_init(events, 0);
  pry_buffer_init(&bytes, 0);
  pry_sse_init(&parser, limit);
  bool good = true;
  for (size_t offset = 0; offset < input.size; offset += step) {
    size_t size = input.size - offset < step ? input.size - offset : step;
    good &= feed(&parser, (struct pry_slice){input.data + offset, size}, events, &bytes);
  }
  REQUIRE(pry_slice_equal(pry_buffer_slice(&bytes), input));
  pry_buffer_fini(&bytes);
  pry_sse_fini(&parser);
  return good;
}

/* The standard read without any cleverness: the whole stream, line by line. */
struct plain {
  struct pry_buffer name, data, id, *events;
};

static void plain_line(struct plain *plain, struct pry_slice line)
{
  if (!line.size) {
    if (plain->data.size) {
      write_slice(plain->events, pry_buffer_slice(&plain->name));
      write_slice(plain->events, (struct pry_slice){plain->data.data, plain->data.size - 1});
      write_slice(plain->events, pry_buffer_slice(&plain->id));
    }
    pry_buffer_clear(&plain->name);
    pry_buffer_clear(&plain->data);
    return;
  }
  size_t colon = 0;
  while (colon < line.size && line.data[colon] != ':')
    colon++;
  struct pry_slice field = {line.data, colon}, value = {NULL, 0};
  if (colon < line.size) {
    size_t start = colon + 1 < line.size && line.data[colon + 1] == ' ' ? colon + 2 : colon + 1;
    value = (struct pry_slice){line.data + start, line.size - start};
  }
  struct pry_buffer *target = NULL;
  if (pry_slice_equal(field, PRY_SLICE("event")))
    target = &plain->name;
  if (pry_slice_equal(field, PRY_SLICE("id")) && !(value.size && memchr(value.data, 0, value.size)))
    target = &plain->id;
  if (target) {
    pry_buffer_clear(target);
    REQUIRE(pry_buffer_append_slice(target, value));
  }
  if (pry_slice_equal(field, PRY_SLICE("data"))) {
    REQUIRE(pry_buffer_append_slice(&plain->data, value));
    REQUIRE(pry_buffer_append_text(&plain->data, "\n"));
  }
}

static void run_plain(struct pry_slice input, struct pry_buffer *events)
{
  struct plain plain = {.events = events};
  pry_buffer_init(events, 0);
  size_t start = pry_slice_starts_with(input, PRY_SLICE("\xEF\xBB\xBF")) ? 3 : 0;
  for (size_t i = start; i < input.size; i++) {
    if (input.data[i] != '\n' && input.data[i] != '\r')
      continue;
    plain_line(&plain, (struct pry_slice){input.data + start, i - start});
    if (input.data[i] == '\r' && i + 1 < input.size && input.data[i + 1] == '\n')
      i++;
    start = i + 1;
  }
  pry_buffer_fini(&plain.name);
  pry_buffer_fini(&plain.data);
  pry_buffer_fini(&plain.id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 1)
    return 0;
  size_t limit = data[0] & 0x80 ? 24 : 0;
  struct pry_slice input = {(const char *)data + 1, size - 1};
  struct pry_buffer whole, split, plain;
  bool whole_good = run(input, size, limit, &whole);
  bool split_good = run(input, 1 + (data[0] & 0x1F), limit, &split);
  REQUIRE(whole_good == split_good);
  REQUIRE(pry_slice_equal(pry_buffer_slice(&whole), pry_buffer_slice(&split)));
  run_plain(input, &plain);
  if (whole_good)
    REQUIRE(pry_slice_equal(pry_buffer_slice(&whole), pry_buffer_slice(&plain)));
  pry_buffer_fini(&whole);
  pry_buffer_fini(&split);
  pry_buffer_fini(&plain);
  return 0;
}
