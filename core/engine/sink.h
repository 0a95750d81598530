/*
 * sink.h: the places that alerts go to, and how each wants to be told.
 *
 * A table of kinds. Each kind renders notes into one request (or one mail) and judges what came back, because chat services
 * answer 200 with an error code in the body. The files:
 *
 *   sink_webhook.c    a JSON object for programs, signed when a secret is given
 *   sink_chat.c       Slack, Feishu (Lark), DingTalk, WeCom: lines for people
 *   sink_incident.c   PagerDuty's events, Sentry's envelopes: one alert each, under a key
 *   sink_mail.c       a mail, for mail.h
 *   sink_sign.c       signatures
 *
 * Rendering and judging are pure: no clock, no network, nothing remembered. Everything secret is in struct pry_sink, whose
 * memory is wiped; none of it gets into `why`.
 *
 * Limits come from the services' documents, and stay below them: what goes over DingTalk's 20 a minute is refused for 10
 * minutes. Wherever it matters the window slides, so that no minute, wherever it begins, holds more.
 *
 * Thread: any.
 */
#ifndef PRY_SINK_H
#define PRY_SINK_H

#include "config.h"
#include "headers.h"
#include "note.h"

enum { PRY_SINK_RATE_MAX = 600, PRY_SINK_TO_MAX = 16 };

struct pry_sink_kind;

/* A sink as init.lua declares it, copied, because generations come and go. */
struct pry_sink {
  const struct pry_sink_kind *kind;
  pry_time digest;     /* alerts that come within this time are one message; 0: each is its own */
  unsigned per_minute; /* messages in any minute; 0: no limit */
  bool plain;          /* of mail: without TLS */
  const char *name;
  const char *url;       /* of pagerduty the routing key, of sentry the DSN; NULL for mail */
  const char *sign;      /* what signs; of mail the password; NULL: nothing does */
  const char *user;      /* of mail; NULL: no login */
  const char *endpoint;  /* of mail and pagerduty */
  const char *from;      /* of mail */
  const char *const *to; /* of mail */
  size_t to_count;
  size_t size; /* of all this */
};

/* NULL, or why nothing can be sent: "the sink's secret is missing", "its DSN is none". */
const char *pry_sink_complaint(const struct pry_sink_config *config);

/* A copy of a sink that has no complaint. NULL: memory. */
struct pry_sink *pry_sink_new(const struct pry_sink_config *config);

/* Wipes and frees. NULL is fine. */
void pry_sink_free(struct pry_sink *sink);

/* ---- a message --------------------------------------------------------------------------------------------- */

struct pry_sink_message {
  const struct pry_sink *sink;
  const struct pry_list *notes; /* struct pry_note, at least one */
  unsigned long lost;           /* notes that found no place since the last message */
  double now;                   /* Unix seconds: of signatures and dates */
  uint64_t random[2];           /* of ids */
  /* what was rendered */
  struct pry_buffer url, body; /* url NUL-terminated; secret */
  struct pry_headers headers;
};

/* False: memory. Fill in the first part of `message`; pry_sink_message_fini() in any case. */
bool pry_sink_render(struct pry_sink_message *message);
void pry_sink_message_fini(struct pry_sink_message *message);

enum pry_sink_verdict {
  PRY_SINK_TOOK,    /* it has the message */
  PRY_SINK_REFUSED, /* and would refuse it again */
  PRY_SINK_FAILED,  /* worth another try */
  PRY_SINK_BUSY     /* too many messages: wait, then try again */
};

struct pry_sink_answer {
  enum pry_sink_verdict verdict;
  pry_time wait; /* what the kind asks for when it is busy; 0: nothing */
  char why[200]; /* for people: the service's own words, cut and cleaned, not yet scrubbed; "" when it took it */
};

/* `status`: HTTP's, or SMTP's for mail. */
void pry_sink_judge(const struct pry_sink *sink, int status, struct pry_slice body, struct pry_sink_answer *answer);

/* ---- the kinds ---------------------------------------------------------------------------------------------- */

struct pry_sink_kind {
  const char *name;    /* its field in init.lua */
  unsigned per_minute; /* 0: no limit */
  pry_time gap;        /* at least so long between two messages */
  pry_time digest;
  pry_time mute;    /* how long a service that is busy is left alone, when it does not say */
  unsigned merge;   /* notes in one message, at most */
  bool keyed;       /* it knows alerts by their key: one note a message */
  bool no_resolved; /* it has no use for the end of an alert */
  bool answers;     /* the body decides, so all of it must arrive */
  bool (*render)(struct pry_sink_message *message);
  void (*judge)(int status, struct pry_slice body, struct pry_sink_answer *answer);
};

extern const struct pry_sink_kind pry_sink_webhook, pry_sink_slack, pry_sink_feishu, pry_sink_dingtalk, pry_sink_wecom,
    pry_sink_pagerduty, pry_sink_sentry, pry_sink_mail;

/* NULL: there is none of that name. */
const struct pry_sink_kind *pry_sink_kind_named(const char *name);

/* ---- shared by the kinds ------------------------------------------------------------------------------------- */

/* The first note of a message. */
const struct pry_note *pry_sink_first(const struct pry_sink_message *message);

/* How many notes it has. */
size_t pry_sink_note_count(const struct pry_sink_message *message);

typedef bool (*pry_sink_escape)(struct pry_buffer *out, struct pry_slice text);

/* Appends the message's notes as lines for people, escaped, at most `most` bytes, cut between characters and notes;
 * what was left out is counted in the last line. */
bool pry_sink_append_lines(const struct pry_sink_message *message, struct pry_buffer *out, size_t most,
                           pry_sink_escape escape);

/* Adds content-type and user-agent. */
bool pry_sink_add_headers(struct pry_sink_message *message, const char *type);

/* The verdict by an HTTP status alone: any 2xx is good; a 4xx will not get better, except where it says "not now". */
void pry_sink_judge_status(int status, struct pry_sink_answer *answer);

/* `why`, from text that a service sent. */
void pry_sink_set_why(struct pry_sink_answer *answer, int status, struct pry_slice text);

/* SCHEME://KEY@HOST/PROJECT? (sink_incident.c) */
bool pry_sink_dsn_is_good(const char *text);

/* ---- sink_sign.c --------------------------------------------------------------------------------------------- */

enum { PRY_SIGNATURE_BYTES = 32 };

/* HMAC-SHA256 (RFC 2104). False: memory. */
bool pry_sign(struct pry_slice key, struct pry_slice message, unsigned char signature[PRY_SIGNATURE_BYTES]);

/* RFC 4648 §4, lower-case hex, and RFC 3986's percent-encoding of all that is not unreserved. */
bool pry_append_base64(struct pry_buffer *out, const void *bytes, size_t size);
bool pry_append_hex(struct pry_buffer *out, const void *bytes, size_t size);
bool pry_append_percent(struct pry_buffer *out, struct pry_slice text);

#endif
