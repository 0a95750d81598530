/*
 * note.h: one thing to tell people about an alert.
 *
 * Alerts (alert.h) decide what is told and when; sinks (sink.h) say how it looks at each kind of place. A note is what
 * passes between them: plain data of a fixed size, so that nothing about it can fail once it is made, with every text
 * scrubbed of live secrets, free of control characters, valid UTF-8 and cut. It holds no prompt, no completion and no
 * message of a provider; whoever makes one gives it none.
 *
 * Owner: whoever holds it. Thread: any, one at a time.
 */
#ifndef PRY_NOTE_H
#define PRY_NOTE_H

#include "event.h"
#include "list.h"
#include "log.h"
#include "loop.h"

enum {
  PRY_NOTE_TEXT_MAX = 2048, /* bytes of the text */
  PRY_NOTE_LINE_MAX = 200,  /* of everything else that is shown */
  PRY_NOTE_FIELDS_MAX = 8,
  PRY_NOTE_MANY = 64 /* clients and sessions are counted so far; then "64 or more" */
};

/* X(enumerator, name in Lua and in messages). PagerDuty's four, which the others are mapped from. */
#define PRY_ALERT_SEVERITIES(X)                                                                                        \
  X(PRY_ALERT_UNSAID, "error")                                                                                         \
  X(PRY_ALERT_INFO, "info")                                                                                            \
  X(PRY_ALERT_WARNING, "warning")                                                                                      \
  X(PRY_ALERT_ERROR, "error")                                                                                          \
  X(PRY_ALERT_CRITICAL, "critical")

enum pry_alert_severity {
#define X(name, text) name,
  PRY_ALERT_SEVERITIES(X)
#undef X
      PRY_ALERT_SEVERITY_COUNT
};

/* "error" when it was not said. */
const char *pry_alert_severity_name(enum pry_alert_severity severity);

/* False: no such name. */
bool pry_alert_severity_from_name(struct pry_slice name, enum pry_alert_severity *severity);

enum pry_note_state {
  PRY_NOTE_OPENED,   /* told for the first time */
  PRY_NOTE_AGAIN,    /* it goes on: told again, with how many since */
  PRY_NOTE_RESOLVED, /* it is over */
  PRY_NOTE_TEST      /* somebody tries the sink */
};

struct pry_note_field {
  char name[PRY_NOTE_LINE_MAX / 4], value[PRY_NOTE_LINE_MAX];
};

struct pry_note {
  struct pry_list link;
  enum pry_note_state state;
  enum pry_alert_severity severity;
  unsigned long count;        /* since the alert was opened */
  unsigned long since;        /* of them, since it was last told */
  unsigned long cause_count;  /* how many had the most frequent cause */
  unsigned clients, sessions; /* different ones, up to PRY_NOTE_MANY; 0: none is known */
  double opened, time;        /* Unix seconds */
  pry_time queued;            /* on the control worker's clock */
  size_t field_count;
  char generation[PRY_GENERATION_ID_MAX]; /* "": not told */
  char key[PRY_NOTE_LINE_MAX], title[PRY_NOTE_LINE_MAX], cause[PRY_NOTE_LINE_MAX], sample[PRY_NOTE_LINE_MAX];
  char text[PRY_NOTE_TEXT_MAX + 1];
  struct pry_note_field fields[PRY_NOTE_FIELDS_MAX];
};

/* Copies `text` into an array of `size` bytes: scrubbed first and cut then, so that no half of a secret is left at the end;
 * a line has no line ends. False: memory; the array holds "". */
bool pry_note_set_text(struct pry_scrubber *scrubber, char *to, size_t size, struct pry_slice text);
bool pry_note_set_line(struct pry_scrubber *scrubber, char *to, size_t size, struct pry_slice text);

/* "FIRING", "STILL FIRING", "RESOLVED", "TEST". */
const char *pry_note_state_word(const struct pry_note *note);

/* What stands for the whole: the title, or the first line of the text, or the key. */
struct pry_slice pry_note_title(const struct pry_note *note);

/* Appends "FIRING (error): title". */
bool pry_note_append_head(struct pry_buffer *out, const struct pry_note *note);

/* Appends what there is to say besides the head, a line each, ended by '\n': text, counts, cause, whom it concerns, sample,
 * fields, generation. */
bool pry_note_append_body(struct pry_buffer *out, const struct pry_note *note);

/* Appends "2026-11-21T18:02:10Z" (RFC 3339). */
bool pry_note_append_time(struct pry_buffer *out, double unix_time);

/* Appends `"name":"text",` of a JSON object. */
bool pry_note_append_member(struct pry_buffer *out, const char *name, const char *text);

/* Appends the note's facts as members of a JSON object: "severity":…,"count":…,…, without a comma at the end. */
bool pry_note_append_facts(struct pry_buffer *out, const struct pry_note *note);

#endif
