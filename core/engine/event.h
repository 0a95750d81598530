/*
 * event.h: what one decision read and said.
 *
 * Every run of a handler leaves one event record in a bounded ring: sequence, time, seed, the inputs, every
 * result of a host function that the handler read, the verdict, the policy and the generation. Fed back to the
 * same generation a record must reproduce its verdict byte for byte; `explain`, the journal and replay stand on it.
 *
 * The ring is allocated once. A new record overwrites the oldest; how many were lost is counted. Secrets are
 * recorded as handles, never as values; the inputs hold no prompt and no completion.
 *
 * Each worker has its ring. Their records share one count: the sequence is unique in the engine and grows along each
 * ring, so that rings can be merged by it.
 *
 * Thread: a ring belongs to its worker's thread, except pry_event_overwritten(). The common count is any thread's.
 */
#ifndef PRY_EVENT_H
#define PRY_EVENT_H

#include "buffer.h"
#include "log.h"
#include "loop.h"
#include "usage.h"
#include "verdict.h"

#include <stdatomic.h>

enum { PRY_EVENT_READS_MAX = 4096, PRY_CALL_ID_MAX = 32, PRY_GENERATION_ID_MAX = 65 };

/* How a handler's run ended. */
enum pry_run_result {
  PRY_RUN_OK,
  PRY_RUN_ERROR,
  PRY_RUN_OVER_BUDGET,
  PRY_RUN_NO_MEMORY,
  PRY_RUN_BAD_VERDICT,
  PRY_RUN_CANCELLED
};

struct pry_event_record {
  uint64_t sequence; /* global, from 1 */
  uint64_t position; /* in its ring, from 1: the name to find it by */
  double time;       /* Unix seconds; what now() said */
  uint64_t seed;     /* of random() */
  enum pry_handler handler;
  char call_id[PRY_CALL_ID_MAX];
  unsigned attempt;
  char target[PRY_TARGET_MAX];
  char policy[64];
  char generation[PRY_GENERATION_ID_MAX];
  /* inputs: what `err` said */
  enum pry_category category;
  enum pry_source source;
  int status, curl_code;
  bool retryable;
  double retry_after, deadline_left;
  char code[PRY_FAILURE_CODE_MAX];
  char key[64];              /* name of the key of the attempt that on_outcome saw */
  struct pry_spending spent; /* of that attempt; of the call for on_done */
  /* reads: what pry_event_read_begin() to pry_event_read_end() wrote, in order; the first reads_end bytes are whole
   * reads. Cut at PRY_EVENT_READS_MAX. Many records are written for each that is looked at, so this is no JSON yet. */
  struct pry_buffer reads;
  size_t reads_end;
  bool reads_cut;
  /* result */
  enum pry_run_result result;
  enum pry_verdict_kind verdict;
  double after;
  char verdict_target[PRY_TARGET_MAX];
  enum pry_category verdict_category;
  int verdict_status;
  int line;
  char why[PRY_WHY_MAX];
  char fault[256]; /* file:line: message, when result is not OK */
};

struct pry_event_ring;

/* How many records were begun in all rings that draw from it. Zero-initialise; outlives the rings. */
struct pry_event_count {
  atomic_uint_least64_t last;
};

/* capacity: records kept; 0: 1024. NULL: no memory. */
struct pry_event_ring *pry_event_ring_new(size_t capacity, struct pry_event_count *count);
void pry_event_ring_free(struct pry_event_ring *ring);

/* The next record to fill, emptied, with its sequence set; never NULL. It counts as written at once; its pointer
 * is valid until `capacity` more records have begun in this ring, so whoever waits in between keeps the position and
 * asks again with pry_event_find(). */
struct pry_event_record *pry_event_next(struct pry_event_ring *ring);

/* One read: begin, its arguments and its result in order, end. The first that does not fit (or finds no memory) sets
 * reads_cut, and nothing is added any more: what is there is a prefix of what was read. A read without an end, because an
 * error passed by, is forgotten.
 *
 * function: a text that lives for ever. Texts are copied and scrubbed at once: a secret that is known now may be
 * forgotten when somebody looks. scrubber may be NULL. json: one valid JSON value, which appears as it is. */
void pry_event_read_begin(struct pry_event_record *record, const char *function);
void pry_event_read_text(struct pry_event_record *record, struct pry_scrubber *scrubber, struct pry_slice value);
void pry_event_read_json(struct pry_event_record *record, struct pry_scrubber *scrubber, struct pry_slice json);
void pry_event_read_number(struct pry_event_record *record, double number);
void pry_event_read_boolean(struct pry_event_record *record, bool value);
void pry_event_read_null(struct pry_event_record *record);
void pry_event_read_end(struct pry_event_record *record);

/* Appends the reads, each a JSON array [function, arguments…, result], with commas between. False: no memory, or `text` is
 * full. */
bool pry_event_append_reads(const struct pry_event_record *record, struct pry_buffer *text);

/* The record at that position, or NULL when it was overwritten. */
struct pry_event_record *pry_event_find(struct pry_event_ring *ring, uint64_t position);

/* Newest first, at most `limit`; stops when `visit` returns false. */
void pry_event_visit(struct pry_event_ring *ring, size_t limit,
                     bool (*visit)(void *user, const struct pry_event_record *), void *user);

/* Any thread. */
uint64_t pry_event_overwritten(const struct pry_event_ring *ring);

/* Appends the record as one JSON object (no line end). */
bool pry_event_json(const struct pry_event_record *record, struct pry_buffer *text);

#endif
