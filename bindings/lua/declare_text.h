/*
 * declare_text.h: what good findings are made of: names, the line a field stands on, URLs, globs.
 *
 * Pure functions over text; any thread.
 */
#ifndef PRY_DECLARE_TEXT_H
#define PRY_DECLARE_TEXT_H

#include "slice.h"

enum { PRY_NAME_MAX = 64 };

/* May something be called so? 1..63 letters, digits, '_', '-', '.'. NULL, or what is wrong, as a constant text. */
const char *pry_name_complaint(struct pry_slice name);

/* The line on which the field `path` ("deadline", "timeouts.connect") of a table constructor is written. `line`: where
 * the expression with the constructor begins. That line itself when the field cannot be seen (a table from
 * elsewhere). */
int pry_source_field_line(struct pry_slice text, int line, const char *path);

/* NULL when it can be a base_url: http or https, a host, at most a port and a path. Else what is wrong, as a constant
 * text. */
const char *pry_base_url_complaint(struct pry_slice url);

/* Is there a text that both globs match? */
bool pry_globs_overlap(struct pry_slice a, struct pry_slice b);

#endif
