/*
 * records.h: JSON lines, as the commands that judge recorded failures and streams read and write them.
 *
 * One record a line in, one line out; a line that cannot be read gives {"id": null, "error": "line N: ..."} and the rest
 * goes on. A line is at most PRY_LINE_MAX_BYTES long, so that one record costs a bounded amount of memory.
 */
#ifndef PRY_RECORDS_H
#define PRY_RECORDS_H

#include "buffer.h"
#include "failure.h"
#include "json.h"

#include <stdio.h>

enum { PRY_LINE_MAX_BYTES = 16 * 1024 * 1024 };

enum pry_line_result { PRY_LINE_READ, PRY_LINE_TOO_LONG, PRY_LINE_NONE };

/* The next line without its end; `line` holds it up to the buffer's limit. One that is too long is read to its end and
 * thrown away. */
enum pry_line_result pry_next_line(FILE *in, struct pry_buffer *line);

bool pry_line_is_blank(struct pry_slice line);

/* A value into `out`, which is emptied first; null is empty text. NULL, or what is wrong, to stand behind the name of the
 * field: "is not a text". */
const char *pry_record_text(struct pry_json_value value, struct pry_buffer *out);
const char *pry_record_base64(struct pry_json_value value, struct pry_buffer *out);

/* The members "category" to "message" of a failure, with commas between and without braces. False: memory. */
bool pry_append_failure(struct pry_buffer *out, const struct pry_failure *failure);

/* The line for a record that cannot be read. */
bool pry_append_problem(struct pry_buffer *out, unsigned long line, const char *problem);

#endif
