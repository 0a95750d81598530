/*
 * store.h: all state that policies share.
 *
 * Typed objects under text keys: counters, values, windows and circuit breakers. State lives here and not in Lua, so it
 * survives reload, is the same for all workers, and is bounded. Each operation is atomic (a lock per shard, never
 * held across a callback). A key has one type for its life; using it as another is an error that the policy sees.
 *
 * Bounded: at most max_keys objects and max_bytes of keys and values. When full, what has expired goes first; when
 * nothing has, creating fails with PRY_STORE_FULL: live state is never evicted to make room (a forgotten breaker
 * would close). Every object has a time to live, renewed by each write; 0 means the default of one hour, so that
 * nothing lives for ever by accident.
 *
 * Time: the caller's `now`, from its loop; all workers' loops share one clock source.
 * Thread: any.
 */
#ifndef PRY_STORE_H
#define PRY_STORE_H

#include "buffer.h"
#include "loop.h"
#include "permit.h"
#include "slice.h"

struct pry_store;

enum pry_store_status {
  PRY_STORE_OK,
  PRY_STORE_ABSENT,     /* no such key */
  PRY_STORE_FULL,       /* bound reached, nothing expired */
  PRY_STORE_WRONG_TYPE, /* the key is of another type */
  PRY_STORE_TOO_LONG,   /* key over PRY_STORE_KEY_MAX or value over PRY_STORE_VALUE_MAX */
  PRY_STORE_NO_MEMORY
};

enum { PRY_STORE_KEY_MAX = 512, PRY_STORE_VALUE_MAX = 4096, PRY_STORE_WINDOW_MAX = 1024 };

/* Bounds; 0 takes the default (100000 keys, 64 MiB). NULL: no memory. */
struct pry_store *pry_store_new(size_t max_keys, size_t max_bytes);
void pry_store_free(struct pry_store *store);

const char *pry_store_status_text(enum pry_store_status status); /* for policy authors */
size_t pry_store_key_count(struct pry_store *store);

/* Drops what has expired, a bounded number at a time; call about once a second. */
void pry_store_sweep(struct pry_store *store, pry_time now);

/* Removes a key of any type. */
enum pry_store_status pry_store_remove(struct pry_store *store, struct pry_slice key, pry_time now);

/* ---- value: text, a number or a boolean, as encoded by the caller (the Lua binding uses JSON scalars) ---- */

enum pry_store_status pry_store_set(struct pry_store *store, struct pry_slice key, struct pry_slice value, pry_time ttl,
                                    pry_time now);
/* Sets only when absent: PRY_STORE_OK and *stored true when it was. How one of many claims something. */
enum pry_store_status pry_store_add(struct pry_store *store, struct pry_slice key, struct pry_slice value, pry_time ttl,
                                    pry_time now, bool *stored);
enum pry_store_status pry_store_get(struct pry_store *store, struct pry_slice key, struct pry_buffer *value,
                                    pry_time now);

/* ---- counter ---------------------------------------------------------------------------------------- */

/* Adds `by` (may be negative) to a counter that starts at 0; *total is the new value. */
enum pry_store_status pry_store_count(struct pry_store *store, struct pry_slice key, double by, pry_time ttl,
                                      pry_time now, double *total);
/* Reads without changing; an absent counter is 0. */
enum pry_store_status pry_store_counter(struct pry_store *store, struct pry_slice key, pry_time now, double *total);

/* ---- quota: a counter of what is used, between 0 and a capacity --------------------------------------- */

/* Uses `amount` when that leaves at least `reserve` of `capacity`, else nothing: *taken says which, *left what is left
 * afterwards. An unknown quota is full, and so is one that nobody used or gave back to for its time to live: a quota
 * refuses, it never waits (botocore's retry quota, gRPC A6). Reads as a counter of what is used. */
enum pry_store_status pry_store_take(struct pry_store *store, struct pry_slice key, double amount, double capacity,
                                     double reserve, pry_time ttl, pry_time now, bool *taken, double *left);
/* Gives back up to what is used. Creates nothing: giving to a full quota costs a look. */
enum pry_store_status pry_store_give(struct pry_store *store, struct pry_slice key, double amount, pry_time ttl,
                                     pry_time now);

/* ---- window: how many happened within the last `length` --------------------------------------------- */

/* A sliding window of at most `limit` remembered instants (<= PRY_STORE_WINDOW_MAX). It lives for `length` after its
 * last instant. pry_store_window_add() records one and gives the number now within the window, itself included; with
 * more than `limit` the oldest are forgotten, so counts above `limit` read as `limit`. Changing length or limit between
 * calls keeps what still fits. */
enum pry_store_status pry_store_window_add(struct pry_store *store, struct pry_slice key, pry_time length,
                                           unsigned limit, pry_time now, unsigned *count);
/* Counts without recording; an absent window is 0. */
enum pry_store_status pry_store_window_count(struct pry_store *store, struct pry_slice key, pry_time length,
                                             pry_time now, unsigned *count);
/* Forgets all instants: "reset after firing". An absent window is OK. */
enum pry_store_status pry_store_window_clear(struct pry_store *store, struct pry_slice key, pry_time now);

/* ---- breaker: closed → open → half-open → closed ----------------------------------------------------- */

enum pry_breaker_state { PRY_BREAKER_CLOSED, PRY_BREAKER_OPEN, PRY_BREAKER_HALF_OPEN };

/* Parameters come with every call, so that an edited policy counts from its next event. A closed breaker opens when one
 * of its rules says so:
 *   failures    so many failures in a row
 *   ratio       that share of the outcomes within the window failed, when there were at least min_calls
 *   slow_ratio  that share of them succeeded, but slowly; min_calls as above
 * A success never opens it: a share is looked at when it grows.
 * The window is kept in PRY_BREAKER_BUCKETS parts, so it is between 9/10 of `window` and all of it. It is empty after
 * each change of state. Changing `window` empties it, too. */
struct pry_breaker_parameters {
  unsigned failures;        /* consecutive failures that open it; 0: this rule is off, or 1 when there is no other */
  unsigned successes;       /* successes in half-open that close it; >= 1 */
  unsigned permits;         /* attempts let through at once in half-open; >= 1 */
  pry_time cooldown;        /* open for this long */
  pry_time half_open_limit; /* a permit not returned for this long counts as given back; 0: 60 s */
  double ratio;             /* 0 < ratio <= 1; 0: off */
  double slow_ratio;        /* the same */
  pry_time window;          /* of both; 0: 60 s */
  unsigned min_calls;       /* outcomes in the window below which a ratio says nothing; 0: 1 */
  pry_time cooldown_most;   /* above `cooldown`: it grows. The nth opening lasts n times `cooldown`, at most this; n
                               starts over once the breaker was closed for this long. Otherwise: no growth */
};

enum { PRY_BREAKER_BUCKETS = 10 };

/* How an attempt went. A slow success is no failure: it ends a row of failures. In half-open it opens again, when
 * slow_ratio is in use, because that is what the breaker may have opened for; otherwise it is a success. */
enum pry_breaker_outcome { PRY_BREAKER_FAILURE, PRY_BREAKER_SUCCESS, PRY_BREAKER_SLOW_SUCCESS };

/* What pry_breaker_enter() found. */
struct pry_breaker_entry {
  bool allowed;
  enum pry_breaker_state state; /* after entering */
  bool changed;                 /* entering made it half-open */
  pry_time retry_in;            /* when not allowed: until the soonest chance; >= 0. With all half-open places out
                                   nobody knows: 1 s, or less when one lapses sooner */
  struct pry_permit *permit;    /* when allowed: to be put on the attempt's list; its release without a
                                   recorded outcome is neutral (cancelled, ignored: the half-open place is free
                                   again, nothing counts) */
};

/* Asks to pass. Open and past its cooldown, it becomes half-open here. A breaker nobody uses for an hour after its
 * cooldown is forgotten like any other object. The permit may be released after its key has gone, but not after the
 * store. */
enum pry_store_status pry_breaker_enter(struct pry_store *store, struct pry_slice key,
                                        const struct pry_breaker_parameters *parameters, pry_time now,
                                        struct pry_breaker_entry *entry);

/* Records the outcome of the attempt that holds `permit` (found on its list by key). Outcomes of attempts that entered
 * before the breaker's last change of state count for nothing (a late success does not close it, a late failure does
 * not re-open it), and each permit's outcome counts once. `cooldown_at_least`: a longer time the server asked for, 0
 * for none; it is honoured in a late failure, too: while open, the cooldown's end moves later, never sooner. *changed:
 * the state changed; *state: the state after. Without a permit, or for a key that has gone, nothing counts and the
 * status is OK. */
enum pry_store_status pry_breaker_record(struct pry_store *store, struct pry_slice key,
                                         const struct pry_breaker_parameters *parameters, struct pry_list *permits,
                                         enum pry_breaker_outcome outcome, pry_time cooldown_at_least, pry_time now,
                                         enum pry_breaker_state *state, bool *changed);

/* State without entering; an unknown key is closed. */
enum pry_store_status pry_breaker_peek(struct pry_store *store, struct pry_slice key, pry_time now,
                                       enum pry_breaker_state *state, pry_time *retry_in);
const char *pry_breaker_state_name(enum pry_breaker_state state); /* "closed", "open", "half_open" */

/* Calls `visit` for each breaker, on copies, without a lock held; for metrics and status. */
void pry_store_each_breaker(struct pry_store *store, pry_time now,
                            void (*visit)(void *user, struct pry_slice key, enum pry_breaker_state state), void *user);

#endif
