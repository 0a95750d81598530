#include "sse.h"

enum { DEFAULT_LIMIT = 1024 * 1024, RETRY_DIGITS_MAX = 9 };

void pry_sse_init(struct pry_sse_parser *parser, size_t limit)
{
  *parser = (struct pry_sse_parser){.limit = limit ? limit : DEFAULT_LIMIT, .retry_ms = -1, .at_start = true};
  pry_buffer_init(&parser->line, 0);
  pry_buffer_init(&parser->name, 0);
  pry_buffer_init(&parser->data, 0);
  pry_buffer_init(&parser->id, 0);
}

void pry_sse_fini(struct pry_sse_parser *parser)
{
  pry_buffer_fini(&parser->line);
  pry_buffer_fini(&parser->name);
  pry_buffer_fini(&parser->data);
  pry_buffer_fini(&parser->id);
}

bool pry_sse_pending(const struct pry_sse_parser *parser)
{
  return parser->block_size > 0;
}

static void begin_block(struct pry_sse_parser *parser)
{
  pry_buffer_clear(&parser->name);
  pry_buffer_clear(&parser->data);
  parser->retry_ms = -1;
  parser->has_data = false;
  parser->known = false;
  parser->reset = false;
}

/* Where the first LF or CR is, or `size`. In windows, so that a stream of short CR lines does not make each search
 * for an LF run through the whole input again. */
static size_t find_line_end(const char *data, size_t size)
{
  enum { WINDOW = 256 };
  for (size_t start = 0; start < size; start += WINDOW) {
    size_t length = size - start < WINDOW ? size - start : WINDOW;
    const char *lf = memchr(data + start, '\n', length);
    const char *cr = memchr(data + start, '\r', lf ? (size_t)(lf - data) - start : length);
    if (cr || lf)
      return (size_t)((cr ? cr : lf) - data);
  }
  return size;
}

static long parse_retry(struct pry_slice value)
{
  if (!value.size || value.size > RETRY_DIGITS_MAX)
    return -1;
  long retry = 0;
  for (size_t i = 0; i < value.size; i++) {
    if (value.data[i] < '0' || value.data[i] > '9')
      return -1;
    retry = retry * 10 + (value.data[i] - '0');
  }
  return retry;
}

static bool replace(struct pry_buffer *buffer, struct pry_slice value)
{
  pry_buffer_clear(buffer);
  return pry_buffer_append_slice(buffer, value);
}

/* A comment is a line whose field name is empty, which no field has. */
static bool is_known(struct pry_slice field)
{
  return !field.size || pry_slice_equal(field, PRY_SLICE("data")) || pry_slice_equal(field, PRY_SLICE("event")) ||
         pry_slice_equal(field, PRY_SLICE("id")) || pry_slice_equal(field, PRY_SLICE("retry"));
}

/* False only when memory is short. */
static bool take_field(struct pry_sse_parser *parser, struct pry_slice field, struct pry_slice value)
{
  parser->known = parser->known || is_known(field);
  if (pry_slice_equal(field, PRY_SLICE("data"))) {
    if (parser->has_data && !pry_buffer_append(&parser->data, "\n", 1))
      return false;
    parser->has_data = true;
    return pry_buffer_append_slice(&parser->data, value);
  }
  if (pry_slice_equal(field, PRY_SLICE("event")))
    return replace(&parser->name, value);
  if (pry_slice_equal(field, PRY_SLICE("id")))
    return (value.size && memchr(value.data, '\0', value.size)) || replace(&parser->id, value);
  if (pry_slice_equal(field, PRY_SLICE("retry"))) {
    long retry = parse_retry(value);
    if (retry >= 0)
      parser->retry_ms = retry;
  }
  return true;
}

static bool take_line(struct pry_sse_parser *parser, struct pry_slice line)
{
  const char *colon = memchr(line.data, ':', line.size);
  if (!colon)
    return take_field(parser, line, (struct pry_slice){NULL, 0});
  size_t name_size = (size_t)(colon - line.data);
  struct pry_slice value = {colon + 1, line.size - name_size - 1};
  if (value.size && value.data[0] == ' ') {
    value.data++;
    value.size--;
  }
  return take_field(parser, (struct pry_slice){line.data, name_size}, value);
}

static enum pry_sse_result fail(struct pry_sse_parser *parser, enum pry_sse_result why)
{
  parser->failed = why;
  return why;
}

static enum pry_sse_result end_block(struct pry_sse_parser *parser, struct pry_sse_event *event)
{
  parser->block_size = 0;
  parser->reset = true;
  event->name = pry_buffer_slice(&parser->name);
  event->data = pry_buffer_slice(&parser->data);
  event->id = pry_buffer_slice(&parser->id);
  event->known = parser->known;
  event->retry_ms = parser->retry_ms;
  return parser->has_data ? PRY_SSE_EVENT : PRY_SSE_BLOCK;
}

static struct pry_slice without_mark(struct pry_sse_parser *parser, struct pry_slice line)
{
  if (parser->at_start && pry_slice_starts_with(line, PRY_SLICE("\xEF\xBB\xBF"))) {
    line.data += 3;
    line.size -= 3;
  }
  parser->at_start = false;
  return line;
}

/* Takes one whole line (without its end). NEED_MORE when the block goes on. */
static enum pry_sse_result end_line(struct pry_sse_parser *parser, struct pry_slice line, struct pry_sse_event *event)
{
  line = without_mark(parser, line);
  if (!line.size)
    return end_block(parser, event);
  return take_line(parser, line) ? PRY_SSE_NEED_MORE : fail(parser, PRY_SSE_NO_MEMORY);
}

/* How much of `input` a line end takes that begins at `at`; the LF of a CRLF may come later. */
static size_t line_end_size(struct pry_sse_parser *parser, struct pry_slice input, size_t at)
{
  if (input.data[at] == '\n')
    return 1;
  parser->after_cr = at + 1 == input.size;
  return !parser->after_cr && input.data[at + 1] == '\n' ? 2 : 1;
}

/* The beginning of a data line, behind the name and its space. */
static struct pry_slice data_of(struct pry_slice line)
{
  size_t name = sizeof "data:" - 1;
  line = (struct pry_slice){line.data + name, line.size - name};
  return line.size && line.data[0] == ' ' ? (struct pry_slice){line.data + 1, line.size - 1} : line;
}

/* The block's last bytes that are still read. The name of a field is not known from its beginning, its value is; it is
 * not copied, as it may be all that the limit allows. */
static enum pry_sse_result overflow(struct pry_sse_parser *parser, struct pry_slice bytes, size_t *taken,
                                    struct pry_sse_event *event)
{
  *taken = bytes.size;
  if (!pry_buffer_append_slice(&parser->line, bytes))
    return fail(parser, PRY_SSE_NO_MEMORY);
  parser->skipping = true;
  parser->on_line = parser->line.size > 0;
  struct pry_slice line = without_mark(parser, pry_buffer_slice(&parser->line));
  bool has_data = pry_slice_starts_with(line, PRY_SLICE("data:"));
  end_block(parser, event);
  parser->block_size = parser->limit;
  event->known = event->known || has_data || pry_slice_starts_with(line, PRY_SLICE(":"));
  if (has_data && !parser->has_data)
    event->data = data_of(line);
  return PRY_SSE_TOO_LARGE;
}

static enum pry_sse_result skip_line(struct pry_sse_parser *parser, struct pry_slice input, size_t *taken,
                                     struct pry_sse_event *event)
{
  size_t length = find_line_end(input.data, input.size);
  parser->on_line = parser->on_line || length > 0;
  *taken = length;
  if (length == input.size)
    return PRY_SSE_NEED_MORE;
  *taken += line_end_size(parser, input, length);
  bool goes_on = parser->on_line;
  parser->on_line = false;
  parser->skipping = goes_on;
  return goes_on ? PRY_SSE_NEED_MORE : end_block(parser, event);
}

/* Takes the rest of one line from `input`. NEED_MORE: either the line goes on in the block, or its end has not
 * come and all input was taken. */
static enum pry_sse_result read_line(struct pry_sse_parser *parser, struct pry_slice input, size_t *taken,
                                     struct pry_sse_event *event)
{
  size_t length = find_line_end(input.data, input.size), room = parser->limit - parser->block_size;
  bool ended = length < input.size;
  if (length + (ended ? 1 : 0) > room)
    return overflow(parser, (struct pry_slice){input.data, room}, taken, event);
  parser->block_size += length + (ended ? 1 : 0);
  struct pry_slice line = {input.data, length};
  if (!ended || parser->line.size) {
    if (!pry_buffer_append_slice(&parser->line, line))
      return fail(parser, PRY_SSE_NO_MEMORY);
    line = pry_buffer_slice(&parser->line);
  }
  *taken = length;
  if (!ended)
    return PRY_SSE_NEED_MORE;
  *taken += line_end_size(parser, input, length);
  enum pry_sse_result result = end_line(parser, line, event);
  pry_buffer_clear(&parser->line);
  return result;
}

enum pry_sse_result pry_sse_feed(struct pry_sse_parser *parser, struct pry_slice input, size_t *consumed,
                                 struct pry_sse_event *event)
{
  *consumed = 0;
  *event = (struct pry_sse_event){.retry_ms = -1};
  if (parser->failed)
    return parser->failed;
  if (parser->reset && parser->skipping) { /* what was kept of the block was much, and the stream may go on for long */
    pry_buffer_fini(&parser->line);
    pry_buffer_fini(&parser->data);
  }
  if (parser->reset)
    begin_block(parser);
  size_t offset = 0;
  if (parser->after_cr && input.size) {
    parser->after_cr = false;
    offset = input.data[0] == '\n';
  }
  enum pry_sse_result result = PRY_SSE_NEED_MORE;
  while (result == PRY_SSE_NEED_MORE && offset < input.size) {
    size_t taken = 0;
    struct pry_slice rest = {input.data + offset, input.size - offset};
    result = parser->skipping ? skip_line(parser, rest, &taken, event) : read_line(parser, rest, &taken, event);
    offset += taken;
  }
  *consumed = parser->failed ? 0 : offset;
  return result;
}
