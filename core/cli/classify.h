/*
 * classify.h: one line of an error log, as `parry classify` reads it.
 *
 * Lenient where old logs differ (a body that was logged as JSON, headers as lists, null for what is not known), strict
 * where guessing would give a wrong answer.
 */
#ifndef PRY_CLASSIFY_H
#define PRY_CLASSIFY_H

#include "buffer.h"
#include "headers.h"

#include <stdint.h>

struct pry_classify_record {
  struct pry_slice id; /* raw JSON, points into the line */
  struct pry_buffer dialect, provider, body;
  struct pry_headers headers;
  int64_t status, curl_code;
  bool has_status, has_curl_code;
  bool no_answer; /* http_status: null */
  double now;     /* Unix seconds */
};

void pry_classify_record_init(struct pry_classify_record *record);
void pry_classify_record_fini(struct pry_classify_record *record);

/* Reads one JSON object into a new record. False: `problem` says why. */
bool pry_classify_record_read(struct pry_classify_record *record, struct pry_slice line, char *problem,
                              size_t problem_size);

#endif
