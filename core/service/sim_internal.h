/*
 * sim_internal.h: what the files of the fault simulator share. Nobody else includes it.
 *
 *   sim.c          the object, its requests from head to end, and reporting
 *   sim_control.c  /sim/…
 *   sim_token.c    the token endpoints and who may pass
 *   sim_fault.c    reading fault specifications and deciding whether one strikes
 *   sim_table.c    bounded counts by name
 *   sim_text.c     putting JSON together
 *   sim_request.c  what a request asks: shape, dialect, model, text, tools
 *   sim_answer.c   the good answers: JSON bodies and stream events
 *   sim_error.c    the bad ones, by dialect
 *   sim_play.c     sending an answer, and breaking it where the fault says
 */
#ifndef PRY_SIM_INTERNAL_H
#define PRY_SIM_INTERNAL_H

#include "server.h"
#include "sim.h"

#include "../engine/json.h"
#include "../engine/list.h"

enum {
  PRY_SIM_NAME_MAX = 128,
  PRY_SIM_PROBLEM_MAX = 384,
  PRY_SIM_NAMES_MAX = 10000,
  PRY_SIM_BUCKETS = 1024,
  PRY_SIM_RECENT_MAX = 50,
  PRY_SIM_BODY_MAX = 64 * 1024 * 1024,
  PRY_SIM_SIZE_MAX = 256 * 1024 * 1024,
  PRY_SIM_BODY_SIZE_MAX = 16 * 1024 * 1024
};

/* ---- sim_text.c: text that is put together from many pieces, with one look at the end whether all went in  */

struct pry_sim_text {
  struct pry_buffer *out;
  bool ok;
};

void pry_sim_say(struct pry_sim_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The inside of a JSON string. */
void pry_sim_say_json(struct pry_sim_text *text, struct pry_slice inside);

/* ---- sim_table.c: counts by name; beyond PRY_SIM_NAMES_MAX the oldest name is forgotten ----------------- */

struct pry_sim_count {
  struct pry_list in_bucket, in_order;
  char name[PRY_SIM_NAME_MAX];
  unsigned long calls;
  unsigned long chances; /* requests that a fault with `times` or `every` looked at */
};

struct pry_sim_table {
  struct pry_list buckets[PRY_SIM_BUCKETS];
  struct pry_list order; /* oldest first */
  size_t count;
};

void pry_sim_table_init(struct pry_sim_table *table);
void pry_sim_table_clear(struct pry_sim_table *table);

/* The count of that name (cut to PRY_SIM_NAME_MAX - 1 bytes), made when new. NULL: memory. */
struct pry_sim_count *pry_sim_table_get(struct pry_sim_table *table, struct pry_slice name);

/* Appends {"name":calls,…}. */
bool pry_sim_table_json(const struct pry_sim_table *table, struct pry_buffer *out);

/* ---- sim_fault.c ---------------------------------------------------------------------------------------- */

enum pry_sim_fault_kind {
  PRY_SIM_NO_FAULT,
  PRY_SIM_STATUS, /* code: HTTP status; name: which kind of it, or "" */
  PRY_SIM_KIMI,   /* code: errcode */
  PRY_SIM_RESET,
  PRY_SIM_HANG,
  PRY_SIM_CUT,
  PRY_SIM_CUT_AFTER,
  PRY_SIM_STALL_AFTER,
  PRY_SIM_ERROR_200,
  PRY_SIM_ERROR_AFTER,
  PRY_SIM_SLOW,
  PRY_SIM_GARBAGE,
  PRY_SIM_HTML_502
};

struct pry_sim_fault {
  enum pry_sim_fault_kind kind;
  int code;
  char name[32];
  char retry_after[40], retry_after_ms[24]; /* "" for none */
  double delay;                             /* seconds; negative: not said */
  long times;                               /* negative: always */
  long every;                               /* 0: not said */
  bool by_turns;                            /* a scripted model without a key */
};

struct pry_sim_rule {
  struct pry_list link;
  struct pry_sim_fault fault;
  char model[PRY_SIM_NAME_MAX];
};

/* False: `error` names the part that is wrong and what there is instead, in less than PRY_SIM_PROBLEM_MAX bytes. */
bool pry_sim_fault_parse(struct pry_sim_fault *fault, struct pry_slice spec, char *error, size_t error_size);

/* Sets kind and code from one code word. False: no such code. */
bool pry_sim_fault_set_code(struct pry_sim_fault *fault, struct pry_slice code);

/* Counts this request as one that the fault looked at, and says whether it strikes. */
bool pry_sim_fault_strikes(const struct pry_sim_fault *fault, struct pry_sim_count *count);

/* ---- sim_request.c -------------------------------------------------------------------------------------- */

enum pry_sim_shape {
  PRY_SIM_UNKNOWN,
  PRY_SIM_CHAT,
  PRY_SIM_RESPONSES,
  PRY_SIM_EMBEDDINGS,
  PRY_SIM_MODELS,
  PRY_SIM_MESSAGES,
  PRY_SIM_GENERATE,
  PRY_SIM_TOKEN,
  PRY_SIM_TOKEN_KIMI,
  PRY_SIM_CONTROL
};

enum pry_sim_dialect { PRY_SIM_OPENAI, PRY_SIM_ANTHROPIC, PRY_SIM_KIMI_DIALECT, PRY_SIM_AZURE, PRY_SIM_GEMINI };

/* Kept while a request, or /sim/last, needs it. */
struct pry_sim_body {
  int references;
  struct pry_buffer bytes;
  char content_type[128];
};

struct pry_sim_body *pry_sim_body_new(void);
struct pry_sim_body *pry_sim_body_ref(struct pry_sim_body *body);
void pry_sim_body_unref(struct pry_sim_body *body); /* NULL is fine */

/* A piece of the answer to a stream: one event, `repeat` times. */
struct pry_sim_event {
  size_t start, size; /* in the call's `answer` */
  size_t repeat;
  bool content;
};

enum { PRY_SIM_EVENTS_MAX = 64 };

/* What /sim/stats tells of one request. */
struct pry_sim_recent {
  char path[96], model[64], key[64], digest[9];
  int status; /* 0: no answer */
  bool cancelled;
};

struct pry_sim_call {
  struct pry_list link; /* in the sim's `calls` */
  struct pry_sim *sim;
  struct pry_exchange *exchange;
  const struct pry_server_request *request;
  struct pry_sim_body *body;
  enum pry_sim_shape shape;
  enum pry_sim_dialect dialect;
  bool kimi_real_status;
  bool in_array; /* Gemini's stream without alt=sse: one JSON array */
  bool counted;  /* a provider request, not a token or control request */
  bool hanging;
  unsigned long id;
  struct pry_sim_recent recent; /* of a counted call, as far as it is known */
  struct pry_timer timer;

  /* what the body asks; spans point into body->bytes */
  char model[PRY_SIM_NAME_MAX], key[PRY_SIM_NAME_MAX];
  char path_model[PRY_SIM_NAME_MAX + 2]; /* where the path names the model: as JSON */
  struct pry_slice model_json, messages, tools, input;
  bool stream, include_usage, wants_tool;
  struct pry_buffer text;                 /* what to answer */
  char tool[PRY_SIM_NAME_MAX];            /* the tool to call */
  size_t filler;                          /* x-sim-size: bytes, 0 when not said */
  const char *refusal;                    /* why the request is invalid, NULL when it is not */
  char problem[PRY_SIM_PROBLEM_MAX + 64]; /* where `refusal` points when it is about the x-sim-fault header */

  struct pry_sim_fault fault; /* what strikes this request */
  double pace;

  struct pry_buffer answer; /* the body, or all events of the stream */
  struct pry_sim_event events[PRY_SIM_EVENTS_MAX];
  size_t event_count, event_next, event_repeated;
  size_t contents_sent;
  bool paused;
};

/* Shape and dialect, from the head. */
void pry_sim_request_read_head(struct pry_sim_call *call, bool kimi);

/* All else, from head and body; sets `refusal`. False: memory. */
bool pry_sim_request_read_body(struct pry_sim_call *call);

/* Reads the body's simulateError and its like. False: there is none. An unknown errorCode is a 400 of that name. */
bool pry_sim_request_read_fault(const struct pry_sim_call *call, struct pry_sim_fault *fault);

/* The value of a query parameter, or false. Not decoded. */
bool pry_sim_query_get(struct pry_slice query, const char *name, struct pry_slice *value);

/* Decimal text to a number; `fallback` when it is none. */
double pry_sim_number(struct pry_slice text, double fallback);

/* ---- sim_answer.c --------------------------------------------------------------------------------------- */

/* Fills call->answer with the body, and call->events with pieces of it. False: memory. */
bool pry_sim_answer_json(struct pry_sim_call *call);

/* Fills call->answer and call->events. False: memory. */
bool pry_sim_answer_stream(struct pry_sim_call *call);

/* ---- sim_error.c ---------------------------------------------------------------------------------------- */

/* Appends the error object that the fault stands for, in the dialect of the call; `*status` is its HTTP status. */
bool pry_sim_error_json(const struct pry_sim_call *call, const struct pry_sim_fault *fault, struct pry_buffer *out,
                        int *status);

/* The same as one event of a stream, for an error that comes in a 200. */
bool pry_sim_error_event(const struct pry_sim_call *call, const struct pry_sim_fault *fault, struct pry_buffer *out);

/* ---- sim_play.c ----------------------------------------------------------------------------------------- */

/* Answers, or fails, as call->fault says; the call is freed when it is over. */
void pry_sim_play(struct pry_sim_call *call);

/* The client reads again. */
void pry_sim_play_on(struct pry_sim_call *call);

/* ---- sim_token.c ---------------------------------------------------------------------------------------- */

struct pry_sim_tokens {
  unsigned long version; /* of the newest pair; 0: none was given out */
  bool expired;          /* by /sim/expire */
  pry_time valid_until;
  size_t renewals, requests;
  long fail, hang; /* so many of the next renewals */
  double delay, expires_in;
};

void pry_sim_tokens_init(struct pry_sim_tokens *tokens);

/* True when the call's path wants no token, or its token is the valid one. */
bool pry_sim_token_allows(const struct pry_sim_call *call);

/* Answers a token request. */
void pry_sim_token_serve(struct pry_sim_call *call);

/* ---- sim_control.c -------------------------------------------------------------------------------------- */

void pry_sim_control_serve(struct pry_sim_call *call);

/* The first 8 hex digits of the SHA-256, or "" for an empty text. */
void pry_sim_digest(struct pry_slice text, char digest[9]);

/* ---- sim.c ---------------------------------------------------------------------------------------------- */

struct pry_sim {
  struct pry_loop *loop;
  struct pry_server *server;
  struct pry_sim_options options;
  struct pry_list calls, rules;
  struct pry_sim_table models, keys;
  size_t total, open, cancelled;
  unsigned long next_id;
  struct pry_sim_tokens tokens;
  struct pry_sim_recent recent[PRY_SIM_RECENT_MAX];
  size_t recent_count; /* ever; the ring holds the last ones */
  struct pry_sim_body *last_body;
  struct pry_buffer last_head; /* what /sim/last-headers answers */
};

/* Starts the reply with the headers every answer has, and those that the fault adds. False: as pry_reply_start(). */
bool pry_sim_start(struct pry_sim_call *call, int status, const char *content_type, int64_t size);

/* Replies with a whole body and ends the call. */
void pry_sim_reply(struct pry_sim_call *call, int status, const char *content_type, struct pry_slice body);

/* The call is over: counted, reported, freed. The exchange must have ended. */
void pry_sim_call_done(struct pry_sim_call *call);

/* Memory was short: one call is lost. */
void pry_sim_call_fail(struct pry_sim_call *call);

#endif
