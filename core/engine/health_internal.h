/*
 * health_internal.h: what health.c (asking) and health_answer.c (judging, telling) share; nobody else includes it.
 */
#ifndef PRY_HEALTH_INTERNAL_H
#define PRY_HEALTH_INTERNAL_H

#include "health.h"

/* What was asked. */
enum pry_health_question {
  PRY_ASK_LIST,       /* the models */
  PRY_ASK_MODEL,      /* one model */
  PRY_ASK_COMPLETION, /* one token */
  PRY_ASK_CONNECT     /* anything */
};

/* What came back. */
struct pry_health_answer {
  enum pry_health_question question;
  bool answered;              /* with HTTP; else failure says why not */
  bool credential;            /* one was sent */
  enum pry_auth_kind auth;    /* of the provider */
  struct pry_failure failure; /* category PRY_NONE: a good answer */
  struct pry_slice body;
};

/* Puts an answer into the result. True: the model is not in the list, ask for it by name. */
bool pry_health_judge(struct pry_health_result *result, const struct pry_health_answer *answer, struct pry_slice model);

/* The credential is not to be had: nothing was sent with it. code: constant or copied. */
void pry_health_no_credential(struct pry_health_result *result, const char *code, const char *hint);

/* After the last answer: `ok`, and a hint when there is none yet. */
void pry_health_conclude(struct pry_health_result *result);

#endif
