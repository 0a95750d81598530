/*
 * host_function.h: what policies ask the application that parry is a part of.
 *
 * The host makes functions known by name (parry_register); a handler asks one with JSON and gets JSON back. Between them
 * stands a question:
 *
 *   asked → (told to the host) → answered → taken
 *
 * An ordinary function is called on the host's thread: the question goes there through the outbox, and its answer, which
 * may come from any thread and at any time, through the mailbox of whoever asked. A function for any thread is called
 * at once, by whoever asks; when it answers inside, the question is answered when pry_question_new() returns.
 *
 * Names of open questions are a slot and how often it was used, so that an answer that comes late finds nobody instead of
 * somebody else. Bounded: so many open questions, each with at most PRY_FUNCTION_JSON_MAX bytes there and back. A host
 * that never looks keeps nobody waiting for ever: who asks has a time of its own, and drops the question.
 *
 * Thread: any. A question belongs to who asked; while it is listened to, to the thread that its mailbox delivers on. The one
 * lock is never held while a function of the host's runs.
 */
#ifndef PRY_HOST_FUNCTION_H
#define PRY_HOST_FUNCTION_H

#include "mailbox.h"
#include "parry.h"
#include "slice.h"

enum { PRY_FUNCTION_NAME_MAX = 63, PRY_FUNCTIONS_MAX = 256, PRY_FUNCTION_JSON_MAX = 64 * 1024 };

struct pry_functions;
struct pry_question;

/* outbox: where ordinary functions are called from; outlives the functions. open_max: questions. NULL: no memory. */
struct pry_functions *pry_functions_new(struct pry_mailbox *outbox, size_t open_max);

/* Nobody can ask from now on, and what was asked is told to nobody any more. */
void pry_functions_close(struct pry_functions *functions);

/* When nobody asks and every question was dropped. NULL is fine. */
void pry_functions_free(struct pry_functions *functions);

/* What parry_register() does. When it returns, the function that had the name before runs on no other thread. */
int pry_functions_set(struct pry_functions *functions, const char *name, parry_function function, void *user,
                      bool any_thread);

/* NULL functions: nobody is known. */
bool pry_functions_has(struct pry_functions *functions, struct pry_slice name);

/* What parry_reply() does. */
int pry_functions_answer(struct pry_functions *functions, uint64_t request, const char *json, const char *error);

/* ---- asking ------------------------------------------------------------------------------------------------------ */

struct pry_asker {
  struct pry_mailbox *mailbox;  /* the answer comes through it */
  void (*answered)(void *user); /* once, on its thread, while the question is listened to */
  void *user;
};

struct pry_answer {
  const char *category;  /* NULL: there is a value. Else "unknown", "busy", "failed", "invalid_json" or "memory" */
  struct pry_slice text; /* the value as JSON, checked; or what went wrong, for people */
};

/* Asks. arguments: JSON, copied. What cannot be asked is answered at once. NULL: no memory. */
struct pry_question *pry_question_new(struct pry_functions *functions, struct pry_slice name,
                                      struct pry_slice arguments, const struct pry_asker *asker);

/* False: there is none yet. The texts live as long as the question. */
bool pry_question_answer(struct pry_question *question, struct pry_answer *answer);

/* `answered` is called when there is an answer. False: there is one, and nothing is called. */
bool pry_question_listen(struct pry_question *question);

/* `answered` is not called any more. On the mailbox's thread; harmless when nobody listens. */
void pry_question_ignore(struct pry_question *question);

/* Whether there is an answer or not, it is not wanted any more. NULL is fine. */
void pry_question_drop(struct pry_question *question);

#endif
