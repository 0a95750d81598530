/*
 * json.h: finds things in JSON text without building anything from it.
 *
 * The gateway must know a request's `model`, change it, and see in each stream event whether it holds content;
 * it must pass all other bytes as they came. So this is a scanner: it walks the text once per path step, in
 * place, and answers with spans of the text. No tokens, no tree, no allocation (pry_json_string and splice
 * write to the caller's buffer). Work is linear in the text; nesting deeper than PRY_JSON_DEPTH_MAX is refused
 * as soon as it is met, so brackets cost nothing.
 *
 * Syntax is strict RFC 8259: no comments, trailing commas, byte order mark, NaN or leading zeros; no raw control
 * bytes in strings. Bytes from 0x80 up inside strings pass unchecked: whether they are UTF-8 is for those who
 * read the text, and refusing them here would refuse bodies that providers accept. Keys are compared as decoded,
 * byte by byte: "\u006dodel" is `model`. Numbers keep every digit, because nobody converts them.
 *
 * Pure functions; any thread. All spans point into the text given and live as long as it does.
 */
#ifndef PRY_JSON_H
#define PRY_JSON_H

#include "buffer.h"
#include "slice.h"

#include <stdint.h>

enum { PRY_JSON_DEPTH_MAX = 64, PRY_JSON_STEPS_MAX = 8, PRY_JSON_PATH_MAX = 128 };

enum pry_json_type {
  PRY_JSON_NONE, /* no value: not found */
  PRY_JSON_NULL,
  PRY_JSON_FALSE,
  PRY_JSON_TRUE,
  PRY_JSON_NUMBER,
  PRY_JSON_STRING,
  PRY_JSON_ARRAY,
  PRY_JSON_OBJECT
};

enum pry_json_result {
  PRY_JSON_OK,
  PRY_JSON_SYNTAX,     /* not JSON, or cut short, or bytes behind the value */
  PRY_JSON_DEPTH,      /* nested deeper than PRY_JSON_DEPTH_MAX */
  PRY_JSON_NOT_OBJECT, /* JSON, but not an object at the top */
  PRY_JSON_DUPLICATE,  /* `model` or `stream` twice: two readers could see two different requests */
  PRY_JSON_NOT_FOUND,  /* no such member */
  PRY_JSON_NO_MEMORY   /* the buffer's limit, or memory */
};

/* One line for people, e.g. "nested too deeply". */
const char *pry_json_result_text(enum pry_json_result result);

struct pry_json_value {
  enum pry_json_type type;
  struct pry_slice raw; /* as in the text, without white space around it; a string with its quotes */
};

/* ---- reading a whole text ---- */

/* The one value of the text, checked to its last byte. `value` may be NULL when only validity matters. */
enum pry_json_result pry_json_parse(struct pry_slice text, struct pry_json_value *value);

/* Walks the members of an object or the elements of an array.
 *
 *   pry_json_iterate(&it, text);
 *   while (pry_json_next(&it, &key, &value)) …
 *   if (it.result != PRY_JSON_OK) …
 *
 * The text may have white space around the container. When the walk has ended with PRY_JSON_OK, the whole text was
 * valid. Treat the fields other than `result` and `type` as private. */
struct pry_json_iterator {
  enum pry_json_result result; /* NOT_OBJECT here: neither object nor array */
  enum pry_json_type type;     /* PRY_JSON_OBJECT or PRY_JSON_ARRAY */
  const char *cursor, *end;
  size_t index; /* elements given so far */
  bool done;
};

void pry_json_iterate(struct pry_json_iterator *iterator, struct pry_slice text);

/* False at the end or at an error. `key` is the raw key with its quotes (compare with pry_json_equals, decode
 * with pry_json_string); empty in arrays. */
bool pry_json_next(struct pry_json_iterator *iterator, struct pry_slice *key, struct pry_json_value *value);

/* ---- the request body of a call ---- */

struct pry_json_request {
  struct pry_json_value
      model; /* PRY_JSON_NONE when absent; check type for PRY_JSON_STRING, decode with pry_json_string */
  struct pry_json_value stream; /* PRY_JSON_NONE when absent; the client wants a stream when type is PRY_JSON_TRUE */
  const char *duplicate;        /* with PRY_JSON_DUPLICATE: "model" or "stream" */
};

/* One pass over the whole text. OK, or why it is refused: SYNTAX, DEPTH, NOT_OBJECT, DUPLICATE (also when a key is
 * spelled with escapes). Other duplicate keys are nobody's business here. */
enum pry_json_result pry_json_request(struct pry_slice text, struct pry_json_request *request);

/* ---- paths ---- */

/* A compiled path, plain data, copied by value, e.g. `error.message`, `choices.*.delta.content`,
 * `choices.*.delta.!role`. Steps are split at ".":
 *   name   the member of that name (compared as decoded; a "." in a name cannot be written)
 *   12     digits: also the element of that index, from 0
 *   *      every element or member
 *   !name  every member except that one */
struct pry_json_path {
  char text[PRY_JSON_PATH_MAX];
  struct pry_json_step {
    unsigned char start, size; /* the name in `text` */
    char kind;                 /* '=', '*' or '!' */
  } steps[PRY_JSON_STEPS_MAX];
  size_t count;
};

/* NULL, or why the path is bad, as a constant text: empty, empty step, too long, too many steps. */
const char *pry_json_path_compile(struct pry_json_path *path, struct pry_slice text);

/* The first match in the order of the text. False: none, or the text is not JSON up to there (the rest behind the
 * match is not checked). `value` may be NULL. */
bool pry_json_find(struct pry_slice text, const struct pry_json_path *path, struct pry_json_value *value);

/* True when some match holds something: not null, false, "", [] or {}. What "this event has content" means. */
bool pry_json_match_content(struct pry_slice text, const struct pry_json_path *path);

/* For code that knows its path: compiles and finds in one go. False for a bad path, too. */
bool pry_json_get(struct pry_slice text, const char *path, struct pry_json_value *value);

/* ---- values ---- */

/* Appends a raw JSON string, decoded: escapes become UTF-8, a lone surrogate becomes U+FFFD, \u0000 becomes a NUL
 * byte, bytes from 0x80 up are copied as they are. False: not a string, or no room; nothing was appended. */
bool pry_json_string(struct pry_slice raw, struct pry_buffer *out);

/* Decodes the inside of a JSON string (without its quotes) into `out`, as much as there is and as fits; nothing is
 * checked but the escapes, and a malformed one, or one that was cut, ends the text. For texts that are read as far as
 * they go. Returns the bytes written; no NUL. */
size_t pry_json_unescape(struct pry_slice inside, char *out, size_t size);

/* True when the raw JSON string decodes to exactly `text`. Allocates nothing. */
bool pry_json_equals(struct pry_slice raw, struct pry_slice text);

/* A JSON number as the nearest double. False: not a number, out of a double's range, or longer than 400 bytes. */
bool pry_json_number(struct pry_slice raw, double *value);

/* A JSON number written as a plain integer (no fraction, no exponent), exact. False: otherwise, or out of range. */
bool pry_json_integer(struct pry_slice raw, int64_t *value);

/* ---- changing one value ---- */

/* Appends `text` with the bytes of `span` (a slice of that same text) replaced by `replacement`, which must be JSON
 * itself. Every other byte passes as it is; `text` must not live in `out`. False: span outside text, or no room;
 * nothing was appended. */
bool pry_json_splice(struct pry_slice text, struct pry_slice span, struct pry_slice replacement,
                     struct pry_buffer *out);

/* Appends `text` with its top-level `model` set to `model` (plain UTF-8, escaped here). Refuses what
 * pry_json_request refuses; NOT_FOUND when there is no `model`. On refusal nothing was appended. */
enum pry_json_result pry_json_splice_model(struct pry_slice text, struct pry_slice model, struct pry_buffer *out);

#endif
