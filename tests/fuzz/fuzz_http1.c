/* What a request means must not depend on how its bytes arrive, and no accepted head may carry a line break or two
 * framings. The first byte chooses the size of the pieces and the limits; with pieces of one byte, what is short is also
 * cut in two at every place.
 * The corpus holds, among others, the rows of e2e/test_smuggling.py. */
#include "fuzz.h"

#include "http1.h"

static const struct pry_http1_limits small = {
    .target = 16, .header_bytes = 64, .header_lines = 4, .chunk_line = 16, .chunk_extensions = 24, .body = 8};

static void write_slice(struct pry_buffer *out, char mark, struct pry_slice text)
{
  REQUIRE(pry_buffer_append_format(out, "%c%zu:", mark, text.size));
  REQUIRE(pry_buffer_append_slice(out, text));
}

static void check_text(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    REQUIRE(((unsigned char)text.data[i] >= 0x20 || text.data[i] == '\t') && text.data[i] != 0x7F);
}

static size_t count_lines(const struct pry_headers *headers, struct pry_slice name)
{
  size_t count = 0;
  for (size_t i = 0; i < headers->count; i++)
    count += pry_slice_equal_nocase(pry_headers_at(headers, i).name, name);
  return count;
}

static void check_head(const struct pry_http1_parser *parser)
{
  const struct pry_http1_head *head = &parser->head;
  size_t lengths = count_lines(&head->headers, PRY_SLICE("content-length"));
  size_t encodings = count_lines(&head->headers, PRY_SLICE("transfer-encoding"));
  size_t hosts = count_lines(&head->headers, PRY_SLICE("host"));
  REQUIRE(lengths + encodings <= 1);
  REQUIRE((head->framing == PRY_HTTP1_LENGTH) == (lengths == 1));
  REQUIRE((head->framing == PRY_HTTP1_CHUNKED) == (encodings == 1));
  REQUIRE(hosts == 1 || (hosts == 0 && head->minor == 0));
  REQUIRE(head->headers.count <= parser->limits.header_lines);
  REQUIRE(head->content_length <= parser->limits.body);
  REQUIRE(head->target.size && (head->target.data[0] == '/' || pry_slice_equal(head->target, PRY_SLICE("*"))));
  REQUIRE(!memchr(head->target.data, ' ', head->target.size));
  REQUIRE(head->path.size + head->query.size <= head->target.size);
  check_text(head->method);
  check_text(head->target);
  check_text(head->authority);
  for (size_t i = 0; i < head->headers.count; i++) {
    check_text(pry_headers_at(&head->headers, i).name);
    check_text(pry_headers_at(&head->headers, i).value);
  }
}

static void write_head(struct pry_buffer *out, const struct pry_http1_head *head)
{
  write_slice(out, 'm', head->method);
  write_slice(out, 't', head->target);
  write_slice(out, 'p', head->path);
  write_slice(out, 'q', head->query);
  write_slice(out, 'a', head->authority);
  REQUIRE(pry_buffer_append_format(out, "%d %d %llu %d %d %d", head->minor, (int)head->framing,
                                   (unsigned long long)head->content_length, head->keep_alive, head->expect_continue,
                                   head->is_head));
  for (size_t i = 0; i < head->headers.count; i++) {
    write_slice(out, 'n', pry_headers_at(&head->headers, i).name);
    write_slice(out, 'v', pry_headers_at(&head->headers, i).value);
  }
}

/* False after an error. */
static bool feed(struct pry_http1_parser *parser, struct pry_slice piece, struct pry_buffer *out, uint64_t *body)
{
  struct pry_slice copy = fuzz_copy(piece), rest = copy;
  struct pry_http1_event event;
  do {
    size_t consumed;
    pry_http1_feed(parser, rest, &consumed, &event);
    REQUIRE(consumed <= rest.size);
    rest.data += consumed;
    rest.size -= consumed;
    if (event.type == PRY_HTTP1_HEAD) {
      check_head(parser);
      write_head(out, &parser->head);
      *body = 0;
    } else if (event.type == PRY_HTTP1_BODY) {
      REQUIRE(event.body.size > 0);
      *body += event.body.size;
      REQUIRE(*body <= parser->limits.body);
      REQUIRE(pry_buffer_append_slice(out, event.body));
    } else if (event.type == PRY_HTTP1_END) {
      REQUIRE(parser->head.framing != PRY_HTTP1_LENGTH || *body == parser->head.content_length);
      REQUIRE(pry_buffer_append_text(out, "$"));
    } else if (event.type == PRY_HTTP1_ERROR) {
      REQUIRE(event.status >= 400 && event.status <= 505 && event.reason);
      REQUIRE(pry_buffer_append_format(out, "!%d %s", event.status, event.reason));
    }
  } while (event.type != PRY_HTTP1_NEED_MORE && event.type != PRY_HTTP1_ERROR);
  REQUIRE(event.type == PRY_HTTP1_ERROR || rest.size == 0);
  fuzz_release(copy);
  return event.type != PRY_HTTP1_ERROR;
}

enum { CUT_EVERYWHERE = 1024 }; /* bytes of input up to which that is cheap */

/* The transcript when `first` bytes come at once, and then `step` at a time. */
static struct pry_buffer run(struct pry_slice input, size_t first, size_t step, const struct pry_http1_limits *limits)
{
  struct pry_buffer out;
  struct pry_http1_parser parser;
  uint64_t body = 0;
  pry_buffer_init(&out, 0);
  pry_http1_init(&parser, limits);
  bool good = true;
  for (size_t offset = 0, size = first; good && offset < input.size; offset += size, size = step) {
    if (size > input.size - offset)
      size = input.size - offset;
    good = feed(&parser, (struct pry_slice){input.data + offset, size}, &out, &body);
  }
  pry_http1_fini(&parser);
  return out;
}

static void compare(const struct pry_buffer *whole, struct pry_buffer split)
{
  REQUIRE(pry_slice_equal(pry_buffer_slice(whole), pry_buffer_slice(&split)));
  pry_buffer_fini(&split);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 1)
    return 0;
  const struct pry_http1_limits *limits = data[0] & 0x80 ? &small : NULL;
  struct pry_slice input = {(const char *)data + 1, size - 1};
  struct pry_buffer whole = run(input, size, size, limits);
  size_t step = 1 + (data[0] & 0x1F);
  compare(&whole, run(input, step, step, limits));
  for (size_t first = 1; step == 1 && first < input.size && input.size <= CUT_EVERYWHERE; first++)
    compare(&whole, run(input, first, size, limits));
  pry_buffer_fini(&whole);
  return 0;
}
