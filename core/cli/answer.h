/*
 * answer.h: reading and printing what the admin listener answered.
 *
 * Everything in an answer is text from elsewhere (file names, messages of providers): what could steer a terminal is
 * replaced by spaces before it is printed.
 */
#ifndef PRY_ANSWER_H
#define PRY_ANSWER_H

#include "json.h"

#include <stdio.h>

/* A member as a number; NaN when it is not there. */
double pry_answer_number(struct pry_slice object, const char *path);

bool pry_answer_is_true(struct pry_slice object, const char *path);

/* A member as text, cut at `size`; "" when it is not there. Gives `text`. */
const char *pry_answer_text(struct pry_slice object, const char *path, char *text, size_t size);

/* Prints a text member, at most `most` bytes of it; `otherwise` when there is none. */
void pry_answer_print(FILE *out, struct pry_slice object, const char *path, size_t most, const char *otherwise);

/* Calls `visit` for each element of a list; how many there were. */
size_t pry_answer_each(struct pry_slice object, const char *path, void (*visit)(void *user, struct pry_slice element),
                       void *user);

/* Prints the findings of an answer's `report` as "where: what" lines to stderr. */
void pry_answer_print_findings(struct pry_slice answer);

#endif
