#include "http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Every row is fed whole, byte by byte and cut in two at every place; each must give the same transcript. Pieces are
 * copied to memory of exactly their size and freed at once, so that a sanitizer sees any byte read beside them. */

struct row {
  const char *name;
  struct pry_slice input;
  const char *expected;
};

#define ROW(name, input, expected)                                                                                     \
  {                                                                                                                    \
    name, {input, sizeof(input) - 1}, expected                                                                         \
  }

static void write_head(struct pry_buffer *out, const struct pry_http1_head *head)
{
  static const char framing[] = {'-', 'L', 'C'};
  pry_buffer_append_format(out, "%.*s %.*s [%.*s][%.*s] %.*s 1.%d %c%llu%s%s%s\n", (int)head->method.size,
                           head->method.data, (int)head->target.size, head->target.data, (int)head->path.size,
                           head->path.data, (int)head->query.size, head->query.size ? head->query.data : "",
                           (int)head->authority.size, head->authority.size ? head->authority.data : "", head->minor,
                           framing[head->framing], (unsigned long long)head->content_length,
                           head->keep_alive ? " keep" : " close", head->expect_continue ? " expect" : "",
                           head->is_head ? " head" : "");
  for (size_t i = 0; i < head->headers.count; i++) {
    struct pry_header line = pry_headers_at(&head->headers, i);
    if (pry_slice_equal_nocase(line.name, PRY_SLICE("host")))
      continue;
    pry_buffer_append_slice(out, line.name);
    pry_buffer_append_text(out, ":");
    pry_buffer_append_slice(out, line.value);
    pry_buffer_append_text(out, "\n");
  }
}

static void write_event(struct pry_buffer *out, const struct pry_http1_parser *parser,
                        const struct pry_http1_event *event)
{
  switch (event->type) {
  case PRY_HTTP1_NEED_MORE:
    break;
  case PRY_HTTP1_HEAD:
    write_head(out, &parser->head);
    break;
  case PRY_HTTP1_BODY:
    assert_true(event->body.size > 0);
    pry_buffer_append_slice(out, event->body);
    break;
  case PRY_HTTP1_END:
    pry_buffer_append_text(out, "$\n");
    break;
  case PRY_HTTP1_ERROR:
    assert_non_null(event->reason);
    pry_buffer_append_format(out, "%d", event->status);
    break;
  }
}

/* Feeds one piece to its end; false after an error. */
static bool feed(struct pry_http1_parser *parser, struct pry_slice piece, struct pry_buffer *out)
{
  char *copy = malloc(piece.size ? piece.size : 1);
  assert_non_null(copy);
  if (piece.size)
    memcpy(copy, piece.data, piece.size);
  struct pry_slice rest = {copy, piece.size};
  struct pry_http1_event event;
  do {
    size_t consumed;
    pry_http1_feed(parser, rest, &consumed, &event);
    assert_true(consumed <= rest.size);
    rest.data += consumed;
    rest.size -= consumed;
    write_event(out, parser, &event);
  } while (event.type != PRY_HTTP1_NEED_MORE && event.type != PRY_HTTP1_ERROR);
  assert_true(event.type == PRY_HTTP1_ERROR || rest.size == 0);
  free(copy);
  return event.type != PRY_HTTP1_ERROR;
}

/* first: size of the first piece; step: of every other one. */
static void run(struct pry_slice input, size_t first, size_t step, const struct pry_http1_limits *limits,
                struct pry_buffer *out)
{
  struct pry_http1_parser parser;
  pry_http1_init(&parser, limits);
  pry_buffer_clear(out);
  bool good = true;
  size_t size = first;
  for (size_t offset = 0; good && offset < input.size; offset += size, size = step) {
    if (size > input.size - offset)
      size = input.size - offset;
    good = feed(&parser, (struct pry_slice){input.data + offset, size}, out);
  }
  if (!good) {
    size_t consumed;
    struct pry_http1_event event;
    pry_http1_feed(&parser, PRY_SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &consumed, &event);
    assert_int_equal(event.type, PRY_HTTP1_ERROR);
    assert_int_equal(consumed, 0);
    assert_false(pry_http1_idle(&parser));
  }
  pry_http1_fini(&parser);
}

static void check_splits(const char *name, struct pry_slice input, const char *expected,
                         const struct pry_http1_limits *limits)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  for (size_t cut = 0; cut <= input.size; cut++) {
    if (cut == 0)
      run(input, 1, 1, limits, &out);
    else
      run(input, cut, input.size, limits, &out);
    const char *text = pry_buffer_text(&out);
    if (strcmp(text, expected) != 0)
      fail_msg("%s, cut at %zu:\n--- expected\n%s\n--- got\n%s", name, cut, expected, text);
  }
  pry_buffer_fini(&out);
}

static void check_rows(const struct row *rows, size_t count)
{
  for (size_t i = 0; i < count; i++)
    check_splits(rows[i].name, rows[i].input, rows[i].expected, NULL);
}

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define POST_HEAD "POST / [/][] a 1.1 "
#define CHUNKED_HEAD POST_HEAD "C0 keep\nTransfer-Encoding:chunked\n"

static const struct row legal[] = {
    ROW("plain", GET "Host: a\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n"),
    ROW("query", "GET /v1/x?a=b?c HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET /v1/x?a=b?c [/v1/x][a=b?c] a:80 1.1 -0 keep\n$\n"),
    ROW("empty query", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? [/][] a 1.1 -0 keep\n$\n"),
    ROW("escapes stay", "GET /%2e%2F/../a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%2e%2F/../a [/%2e%2F/../a][] a 1.1 -0 keep\n$\n"),
    ROW("two slashes", "GET //a HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a [//a][] a 1.1 -0 keep\n$\n"),
    ROW("any method", "x-Y!1 / HTTP/1.1\r\nHost: a\r\n\r\n", "x-Y!1 / [/][] a 1.1 -0 keep\n$\n"),
    ROW("head", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / [/][] a 1.1 -0 keep head\n$\n"),
    ROW("length", POST "Content-Length: 2\r\n\r\nhi", POST_HEAD "L2 keep\nContent-Length:2\nhi$\n"),
    ROW("length zero", POST "Content-Length: 0\r\n\r\n", POST_HEAD "L0 keep\nContent-Length:0\n$\n"),
    ROW("length with zeros", POST "Content-Length: 0000000000000000000000002\r\n\r\nhi",
        POST_HEAD "L2 keep\nContent-Length:0000000000000000000000002\nhi$\n"),
    ROW("binary body", POST "Content-Length: 3\r\n\r\n\r\n\x80", POST_HEAD "L3 keep\nContent-Length:3\n\r\n\x80$\n"),
    ROW("tabs around a value", GET "Host:\ta \t\r\nX:\t b\tc \r\n\r\n", "GET / [/][] a 1.1 -0 keep\nX:b\tc\n$\n"),
    ROW("no space, empty value", GET "Host:a\r\nX:\r\nY: \r\n\r\n", "GET / [/][] a 1.1 -0 keep\nX:\nY:\n$\n"),
    ROW("bytes above ASCII in a value", GET "Host:a\r\nX: \xC3\xA9\xFF\r\n\r\n",
        "GET / [/][] a 1.1 -0 keep\nX:\xC3\xA9\xFF\n$\n"),
    ROW("other headers twice", GET "Host: a\r\nX: 1\r\nx: 2\r\n\r\n", "GET / [/][] a 1.1 -0 keep\nX:1\nx:2\n$\n"),
    ROW("one empty line first", "\r\n" GET "Host: a\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n"),
    ROW("two empty lines first", "\r\n\r\n" GET "Host: a\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n"),
    ROW("pipelined", POST "Content-Length: 1\r\n\r\nA\r\n" GET "Host: b\r\n\r\n" GET "Host: c\r\n\r\n",
        POST_HEAD "L1 keep\nContent-Length:1\nA$\nGET / [/][] b 1.1 -0 keep\n$\nGET / [/][] c 1.1 -0 keep\n$\n"),
    ROW("close", GET "Host: a\r\nConnection: x, Close\r\n\r\n", "GET / [/][] a 1.1 -0 close\nConnection:x, Close\n$\n"),
    ROW("close beats keep-alive", GET "Host: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        "GET / [/][] a 1.1 -0 close\nConnection:keep-alive\nConnection:close\n$\n"),
    ROW("1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET / [/][]  1.0 -0 close\n$\n"),
    ROW("1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "GET / [/][]  1.0 -0 keep\nConnection:Keep-Alive\n$\n"),
    ROW("1.0 with length", "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nA",
        "POST / [/][]  1.0 L1 close\nContent-Length:1\nA$\n"),
    ROW("1.2 is read as 1.1", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n"),
    ROW("absolute-form", "GET http://A.b:80/x?y HTTP/1.1\r\nHost: a.b\r\n\r\n",
        "GET /x?y [/x][y] A.b:80 1.1 -0 keep\n$\n"),
    ROW("absolute-form, https", "GET HTTPS://a/x HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET /x [/x][] a 1.1 -0 keep\n$\n"),
    ROW("absolute-form, no path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n"),
    ROW("absolute-form, query only", "GET http://a?b=/c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?b=/c [/][b=/c] a 1.1 -0 keep\n$\n"),
    ROW("absolute-form, 1.0", "GET http://a/ HTTP/1.0\r\n\r\n", "GET / [/][] a 1.0 -0 close\n$\n"),
    ROW("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * [*][] a 1.1 -0 keep\n$\n"),
    ROW("OPTIONS absolute", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * [*][] a 1.1 -0 keep\n$\n"),
    ROW("IPv6 host", GET "Host: [::1]:8080\r\n\r\n", "GET / [/][] [::1]:8080 1.1 -0 keep\n$\n"),
    ROW("empty port", GET "Host: a:\r\n\r\n", "GET / [/][] a: 1.1 -0 keep\n$\n"),
    ROW("expect", POST "Content-Length: 1\r\nExpect: 100-Continue\r\n\r\nA",
        POST_HEAD "L1 keep expect\nContent-Length:1\nExpect:100-Continue\nA$\n"),
    ROW("expect without body", POST "Expect: 100-continue\r\n\r\n", POST_HEAD "-0 keep\nExpect:100-continue\n$\n"),
    ROW("expect on 1.0", "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nA",
        "POST / [/][]  1.0 L1 close\nContent-Length:1\nExpect:100-continue\nA$\n"),
    ROW("chunked", CHUNKED "3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n", CHUNKED_HEAD "abc0123456789$\n"),
    ROW("chunked in any case", POST "transfer-encoding:  CHUNKED \r\n\r\n1\r\na\r\n000\r\n\r\n",
        POST_HEAD "C0 keep\ntransfer-encoding:CHUNKED\na$\n"),
    ROW("chunked, empty", CHUNKED "0\r\n\r\n", CHUNKED_HEAD "$\n"),
    ROW("chunked, expect", POST "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
        POST_HEAD "C0 keep expect\nTransfer-Encoding:chunked\nExpect:100-continue\n$\n"),
    ROW("chunk holding line ends", CHUNKED "4\r\n\r\n0\r\r\n0\r\n\r\n", CHUNKED_HEAD "\r\n0\r$\n"),
    ROW("chunk extensions", CHUNKED "1;a\r\nx\r\n1 ; b = c;d=\"e;\\\"\t\"\r\ny\r\n0;z\r\n\r\n", CHUNKED_HEAD "xy$\n"),
    ROW("trailers", CHUNKED "1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\n\r\n" GET "Host: b\r\n\r\n",
        CHUNKED_HEAD "a$\nGET / [/][] b 1.1 -0 keep\n$\n"),
    ROW("incomplete head", GET "Host: a\r\n", ""),
    ROW("incomplete body", POST "Content-Length: 3\r\n\r\nhi", POST_HEAD "L3 keep\nContent-Length:3\nhi"),
    ROW("nothing", "", ""),
};

#define BAD(name, input) ROW(name, input, "400")
#define BAD_CHUNK(name, input, before) ROW(name, CHUNKED input, CHUNKED_HEAD before "400")

static const struct row refused[] = {
    BAD("length and chunked", POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked and length, a request inside",
        POST "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" GET "Host: a\r\n\r\n"),
    BAD("two lengths, equal", POST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
    BAD("two lengths, different", POST "Content-Length: 2\r\ncontent-length: 20\r\n\r\nhi"),
    BAD("length -1", POST "Content-Length: -1\r\n\r\n"),
    BAD("length +2", POST "Content-Length: +2\r\n\r\nhi"),
    BAD("length list", POST "Content-Length: 2, 2\r\n\r\nhi"),
    BAD("length 2x", POST "Content-Length: 2x\r\n\r\nhi"),
    BAD("length 0x2", POST "Content-Length: 0x2\r\n\r\nhi"),
    BAD("length 2.0", POST "Content-Length: 2.0\r\n\r\nhi"),
    BAD("length 1e1", POST "Content-Length: 1e1\r\n\r\nhi"),
    BAD("length with a space inside", POST "Content-Length: 1 2\r\n\r\nhi"),
    BAD("length empty", POST "Content-Length:\r\n\r\n"),
    BAD("length 2^63", POST "Content-Length: 9223372036854775808\r\n\r\n"),
    BAD("length 2^64+2", POST "Content-Length: 18446744073709551618\r\n\r\nhi"),
    BAD("length of 40 digits", POST "Content-Length: 9999999999999999999999999999999999999999\r\n\r\n"),
    BAD("length in other digits", POST "Content-Length: \xD9\xA2\r\n\r\nhi"),
    BAD("xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n"),
    BAD("vertical tab before chunked", POST "Transfer-Encoding: \x0B"
                                            "chunked\r\n\r\n"),
    BAD("gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n"),
    BAD("chunked, chunked", POST "Transfer-Encoding: chunked, chunked\r\n\r\n"),
    BAD("chunked, identity on two lines", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    BAD("chunked on two lines", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    BAD("identity", POST "Transfer-Encoding: identity\r\n\r\n"),
    BAD("gzip alone", POST "Transfer-Encoding: gzip\r\n\r\n"),
    BAD("empty transfer encoding", POST "Transfer-Encoding:\r\n\r\n"),
    BAD("chunked with a parameter", POST "Transfer-Encoding: chunked;q=1\r\n\r\n"),
    BAD("quoted chunked", POST "Transfer-Encoding: \"chunked\"\r\n\r\n"),
    BAD("chunked on 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("space before the colon", POST "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nhi"),
    BAD("tab before the colon", POST "Content-Length\t: 2\r\n\r\nhi"),
    BAD("space inside a name", POST "Content Length: 2\r\n\r\nhi"),
    BAD("empty name", GET "Host: a\r\n: b\r\n\r\n"),
    BAD("no colon", GET "Host: a\r\nnonsense\r\n\r\n"),
    BAD("a name beyond ASCII", GET "Host: a\r\nX\xC3\xA9: b\r\n\r\n"),
    BAD("a separator in a name", GET "Host: a\r\nX(y): b\r\n\r\n"),
    BAD("NUL in a name", GET "Host: a\r\nX\0: b\r\n\r\n"),
    BAD("NUL in a value", GET "Host: a\r\nX: b\0c\r\n\r\n"),
    BAD("control byte in a value", GET "Host: a\r\nX: b\x01"
                                       "c\r\n\r\n"),
    BAD("escape in a value", GET "Host: a\r\nX: \x1B[0m\r\n\r\n"),
    BAD("DEL in a value", GET "Host: a\r\nX: b\x7F\r\n\r\n"),
    BAD("bare CR in a value", GET "Host: a\r\nX: b\rY: c\r\n\r\n"),
    BAD("CR CR LF", GET "Host: a\r\nX: b\r\r\n\r\n"),
    BAD("bare LF in the headers", GET "Host: a\nX: b\r\n\r\n"),
    BAD("bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    BAD("bare LF ends the headers", GET "Host: a\r\n\n"),
    BAD("folded line", GET "Host: a\r\nX: b\r\n c\r\n\r\n"),
    BAD("folded by a tab", GET "Host: a\r\nX: b\r\n\tc\r\n\r\n"),
    BAD("folded before the first header", GET " X: b\r\nHost: a\r\n\r\n"),
    BAD("line of spaces", GET "Host: a\r\n  \r\n\r\n"),
    BAD("missing Host", GET "\r\n"),
    BAD("two Hosts", GET "Host: a\r\nHost: b\r\n\r\n"),
    BAD("two equal Hosts", GET "Host: a\r\nhost: a\r\n\r\n"),
    BAD("two Hosts on 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    BAD("empty Host", GET "Host:\r\n\r\n"),
    BAD("Host with a user", GET "Host: u@a\r\n\r\n"),
    BAD("Host with a path", GET "Host: a/b\r\n\r\n"),
    BAD("Host with a space", GET "Host: a b\r\n\r\n"),
    BAD("Host as a list", GET "Host: a,b\r\n\r\n"),
    BAD("Host with only a port", GET "Host: :80\r\n\r\n"),
    BAD("Host with a bad port", GET "Host: a:8x\r\n\r\n"),
    BAD("Host with a port too large", GET "Host: a:65536\r\n\r\n"),
    BAD("Host with a broken literal", GET "Host: [::1\r\n\r\n"),
    BAD("Host with an empty literal", GET "Host: []\r\n\r\n"),
    BAD("Host with bytes behind the literal", GET "Host: [::1]a\r\n\r\n"),
    BAD("Host beyond ASCII", GET "Host: \xC3\xA9\r\n\r\n"),
    BAD("Host contradicts target", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    BAD("Host's port contradicts target", "GET http://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    BAD("absolute-form without Host", "GET http://a/ HTTP/1.1\r\n\r\n"),
    BAD("absolute-form with a user", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("absolute-form without authority", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("authority-form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("relative target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("GET *", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("backslash in the target", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("DEL in the target", "GET /a\x7F HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("target beyond ASCII", "GET /\xC3\xA9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    BAD("space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("method no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("three empty lines first", "\r\n\r\n\r\n" GET "Host: a\r\n\r\n"),
    BAD("bare LF first", "\n" GET "Host: a\r\n\r\n"),
    BAD("bare CR first", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("HTTP/0.9", "GET /\r\n"),
    BAD("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    BAD("HTTP/1", "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    BAD("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    BAD("HTTP/+1.1", "GET / HTTP/+1.1\r\nHost: a\r\n\r\n"),
    BAD("TLS on a plain port", "\x16\x03\x01\x02"),
    ROW("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
    ROW("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ROW("HTTP/0.9 spelled out", "GET / HTTP/0.9\r\n\r\n", "505"),
    ROW("HTTP/3.0", "GET / HTTP/3.0\r\n\r\n", "505"),
    ROW("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "501"),
    ROW("long method", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
    ROW("expect something else", POST "Expect: 200-maybe\r\n\r\n", "417"),
    ROW("expect twice", POST "Expect: 200-maybe\r\nExpect: 100-continue\r\n\r\n", "417"),
    ROW("body announced over the limit", POST "Content-Length: 67108865\r\n\r\n", "413"),
    ROW("body announced, 2^63-1", POST "Content-Length: 9223372036854775807\r\n\r\n", "413"),
    ROW("second request refused", GET "Host: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", "GET / [/][] a 1.1 -0 keep\n$\n400"),
    BAD_CHUNK("size 0x2", "0x2\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size 2 zz", "2 zz\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size with a space behind", "2 \r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size with a space before", " 2\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size +2", "+2\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size -1", "-1\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size no digits", "\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size g", "g\r\n", ""),
    BAD_CHUNK("size of 17 digits", "10000000000000002\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("size 2^63", "8000000000000000\r\n", ""),
    BAD_CHUNK("size 2^64-1", "FFFFFFFFFFFFFFFF\r\n", ""),
    BAD_CHUNK("bare LF behind the size", "2\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("bare CR behind the size", "2\rhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("NUL in the size", "2\0\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("no CRLF behind the data", "2\r\nhi0\r\n\r\n", "hi"),
    BAD_CHUNK("bare LF behind the data", "2\r\nhi\n0\r\n\r\n", "hi"),
    BAD_CHUNK("longer than its size", "2\r\nhiho\r\n0\r\n\r\n", "hi"),
    BAD_CHUNK("bare LF behind the last chunk", "0\n\r\n", ""),
    BAD_CHUNK("bare LF for the end", "0\r\n\n", ""),
    BAD_CHUNK("extension without a name", "2;\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("extension without a value", "2;a=\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("extension with an open quote", "2;a=\"b\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("extension with bytes behind", "2;a=b c\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("extension with a control byte", "2;a=\"\x01\"\r\nhi\r\n0\r\n\r\n", ""),
    BAD_CHUNK("folded trailer", "0\r\nA: b\r\n c\r\n\r\n", ""),
    BAD_CHUNK("trailer with a space before the colon", "0\r\nA : b\r\n\r\n", ""),
    BAD_CHUNK("bare LF behind a trailer", "0\r\nA: b\n\r\n", ""),
    BAD_CHUNK("NUL in a trailer", "0\r\nA: \0\r\n\r\n", ""),
    ROW("chunk over the limit", CHUNKED "4000001\r\n", CHUNKED_HEAD "413"),
    ROW("chunk of 2^63-1", CHUNKED "1\r\na\r\n7FFFFFFFFFFFFFFF\r\n", CHUNKED_HEAD "a413"),
};

static void test_serves_what_is_legal(void **state)
{
  (void)state;
  check_rows(legal, COUNT(legal));
}

static void test_refuses_what_is_ambiguous(void **state)
{
  (void)state;
  check_rows(refused, COUNT(refused));
}

/* ---- limits, exactly at and one past ---- */

static const struct pry_http1_limits small = {
    .target = 8, .header_bytes = 32, .header_lines = 3, .chunk_line = 12, .chunk_extensions = 12, .body = 4};

static const struct row limited[] = {
    ROW("longest target", "GET /2345678 HTTP/1.0\r\n\r\n", "GET /2345678 [/2345678][]  1.0 -0 close\n$\n"),
    ROW("target too long", "GET /23456789 HTTP/1.0\r\n\r\n", "414"),
    ROW("request line without end", "GET /2345678901234567890123456789012345678901234567890", "414"),
    /* 30 bytes of a field line and 2 of the empty line */
    ROW("headers fit", "GET / HTTP/1.0\r\nA: 4567890123456789012345678\r\n\r\n",
        "GET / [/][]  1.0 -0 close\nA:4567890123456789012345678\n$\n"),
    ROW("headers too large", "GET / HTTP/1.0\r\nA: 45678901234567890123456789\r\n\r\n", "431"),
    ROW("headers without end", "GET / HTTP/1.0\r\nA: 2345678901234567890123456789012", "431"),
    ROW("lines fit", "GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\n\r\n", "GET / [/][]  1.0 -0 close\nA:\nB:\nC:\n$\n"),
    ROW("too many lines", "GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n", "431"),
    ROW("body fits", "GET / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody",
        "GET / [/][]  1.0 L4 close\nContent-Length:4\nbody$\n"),
    ROW("body too large", "GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\nbody!", "413"),
};

static const struct pry_http1_limits small_chunks = {
    .target = 8, .header_bytes = 48, .header_lines = 3, .chunk_line = 12, .chunk_extensions = 12, .body = 4};

static const struct row limited_chunks[] = {
    ROW("chunks fit", CHUNKED "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", CHUNKED_HEAD "body$\n"),
    ROW("chunks too large", CHUNKED "2\r\nbo\r\n3\r\ndy!\r\n0\r\n\r\n", CHUNKED_HEAD "bo413"),
    ROW("size line fits", CHUNKED "1;a=567890\r\nb\r\n0\r\n\r\n", CHUNKED_HEAD "b$\n"),
    ROW("size line too long", CHUNKED "1;a=5678901\r\nb\r\n0\r\n\r\n", CHUNKED_HEAD "400"),
    ROW("size line without end", CHUNKED "0000000000000", CHUNKED_HEAD "400"),
    ROW("extensions fit together", CHUNKED "1;a=56\r\nb\r\n1;abcdef\r\nc\r\n0\r\n\r\n", CHUNKED_HEAD "bc$\n"),
    ROW("extensions too long together", CHUNKED "1;a=56\r\nb\r\n1;abcdefg\r\nc\r\n0\r\n\r\n", CHUNKED_HEAD "b400"),
    ROW("too many trailers", CHUNKED "0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n", CHUNKED_HEAD "431"),
    ROW("trailers too large", CHUNKED "0\r\nA: 01234567890123456789012345678901234567890123456789\r\n\r\n",
        CHUNKED_HEAD "431"),
};

static void test_keeps_limits(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(limited); i++)
    check_splits(limited[i].name, limited[i].input, limited[i].expected, &small);
  for (size_t i = 0; i < COUNT(limited_chunks); i++)
    check_splits(limited_chunks[i].name, limited_chunks[i].input, limited_chunks[i].expected, &small_chunks);
}

static void append_lines(struct pry_buffer *out, const char *line, size_t count)
{
  for (size_t i = 0; i < count; i++)
    pry_buffer_append_text(out, line);
}

static int status_of(struct pry_slice input)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  run(input, input.size, input.size, NULL, &out);
  int status = atoi(pry_buffer_text(&out));
  pry_buffer_fini(&out);
  return status;
}

static void test_default_limits(void **state)
{
  (void)state;
  struct pry_buffer input;
  pry_buffer_init(&input, 0);
  pry_buffer_append_text(&input, GET "Host: a\r\n");
  append_lines(&input, "X: y\r\n", 127);
  pry_buffer_append_text(&input, "\r\n");
  assert_int_equal(status_of(pry_buffer_slice(&input)), 0);
  pry_buffer_clear(&input);
  append_lines(&input, "X: y\r\n", 128);
  pry_buffer_append_text(&input, "\r\n");
  struct pry_buffer whole;
  pry_buffer_init(&whole, 0);
  pry_buffer_append_text(&whole, GET "Host: a\r\n");
  pry_buffer_append_slice(&whole, pry_buffer_slice(&input));
  assert_int_equal(status_of(pry_buffer_slice(&whole)), 431);

  pry_buffer_clear(&whole);
  pry_buffer_append_text(&whole, GET "Host: a\r\nX: ");
  append_lines(&whole, "0123456789abcdef", 64 * 1024 / 16);
  assert_int_equal(status_of(pry_buffer_slice(&whole)), 431);

  pry_buffer_clear(&whole);
  pry_buffer_append_text(&whole, "GET /");
  append_lines(&whole, "0123456789abcdef", 1024);
  assert_int_equal(status_of(pry_buffer_slice(&whole)), 414);
  pry_buffer_fini(&whole);
  pry_buffer_fini(&input);
}

static void test_idle(void **state)
{
  (void)state;
  struct pry_http1_parser parser;
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  pry_http1_init(&parser, NULL);
  assert_true(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("\r\n"), &out);
  assert_true(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("G"), &out);
  assert_false(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("ET / HTTP/1.1\r\n"), &out);
  assert_false(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("Host: a\r\n\r"), &out);
  assert_false(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("\n"), &out);
  assert_true(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE(POST "Content-Length: 2\r\n\r\na"), &out);
  assert_false(pry_http1_idle(&parser));
  feed(&parser, PRY_SLICE("b"), &out);
  assert_true(pry_http1_idle(&parser));
  pry_http1_fini(&parser);
  pry_buffer_fini(&out);
}

static void test_head_lives_until_the_feed_after_end(void **state)
{
  (void)state;
  struct pry_http1_parser parser;
  struct pry_http1_event event;
  struct pry_slice input = PRY_SLICE("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
  size_t consumed;
  pry_http1_init(&parser, NULL);
  pry_http1_feed(&parser, input, &consumed, &event);
  assert_int_equal(event.type, PRY_HTTP1_HEAD);
  input.data += consumed;
  input.size -= consumed;
  pry_http1_feed(&parser, input, &consumed, &event);
  assert_int_equal(event.type, PRY_HTTP1_END);
  assert_int_equal(consumed, 0);
  assert_true(pry_slice_equal(parser.head.target, PRY_SLICE("/first")));
  pry_http1_feed(&parser, input, &consumed, &event);
  assert_int_equal(event.type, PRY_HTTP1_HEAD);
  assert_int_equal(consumed, input.size);
  assert_true(pry_slice_equal(parser.head.target, PRY_SLICE("/second")));
  pry_http1_fini(&parser);
}

static void test_memory_goes_back_between_requests(void **state)
{
  (void)state;
  struct pry_http1_parser parser;
  struct pry_buffer out, line;
  pry_buffer_init(&out, 0);
  pry_buffer_init(&line, 0);
  pry_http1_init(&parser, NULL);
  feed(&parser, PRY_SLICE(GET "Host: a\r\nX: "), &out);
  append_lines(&line, "0123456789abcdef", 3000);
  feed(&parser, pry_buffer_slice(&line), &out);
  feed(&parser, PRY_SLICE("\r\n"), &out);
  assert_true(parser.head.headers.text.capacity > 32 * 1024);
  feed(&parser, PRY_SLICE("\r\n"), &out);
  assert_true(parser.head.headers.text.capacity <= 4096);
  assert_true(parser.line.capacity <= 4096);
  pry_http1_fini(&parser);
  pry_buffer_fini(&line);
  pry_buffer_fini(&out);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_serves_what_is_legal),
      cmocka_unit_test(test_refuses_what_is_ambiguous),
      cmocka_unit_test(test_keeps_limits),
      cmocka_unit_test(test_default_limits),
      cmocka_unit_test(test_idle),
      cmocka_unit_test(test_head_lives_until_the_feed_after_end),
      cmocka_unit_test(test_memory_goes_back_between_requests),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
