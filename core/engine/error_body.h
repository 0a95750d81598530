/*
 * error_body.h: what the body of an error says, whatever shape it came in.
 *
 * Providers, their gateways and the proxies in front of them do not agree on one shape, and what arrives may be cut,
 * repeated inside itself, or no JSON at all. This reader finds the few texts that classification goes by, and decides
 * nothing: which of them counts for what is the dialect's business (policies/lib/answer.lua). Understood are
 *
 *   {"error": {"message", "type", "code"}}            OpenAI and most others; `code` a text or a number
 *   {"type": "error", "error": {"type", "message"}}   Anthropic
 *   {"response": {"error": {"code", "message"}}}      OpenAI's Responses API, when a response failed
 *   {"error": {"code", "innererror": {"code"}}}       Azure
 *   [{"error": {"code", "status", "details": [{"reason"}, {"retryDelay"}, {"violations": [{"quotaId"}]}]}}]   Google
 *   {"errcode", "errmsg"}, {"error_type"}, {"code", "msg"}, {"error_code", "error_msg"}, {"base_resp": {"status_code"}}
 *   {"error": "text"}, {"message": ...}, {"detail": ...}, {"errors": [...]}, {"fault": {"faultstring"}}
 *   errors in a text: {"message": "{\"error\": ...}"}, {"error": {"metadata": {"raw": "..."}}}, "\"{...}\"", data: {...}
 *   an HTML page (its title), a short plain text
 *
 * The innermost object that is about the error wins, and what it does not say comes from those around it; only a code
 * that is a mere HTTP status gives way to one that is not. Of repeated keys the first counts. The reader is lenient on
 * purpose: it takes what is there of a text that was cut, and goes over raw control bytes in strings. A value whose end
 * is missing counts when it is a text, not when it is a number.
 *
 * Work is linear in the body for each of at most PRY_ERROR_BODY_DEPTH levels, memory is bounded by the body, and bytes
 * that are not UTF-8 pass as they are (what writes them out repairs them). Pure functions; any thread.
 */
#ifndef PRY_ERROR_BODY_H
#define PRY_ERROR_BODY_H

#include "slice.h"

enum { PRY_ERROR_BODY_DEPTH = 8, PRY_ERROR_WORD_MAX = 96, PRY_ERROR_MESSAGE_MAX = 1024 };

/* Texts are NUL-terminated, "" for what is not said, cut where they do not fit. */
struct pry_error_body {
  char code[PRY_ERROR_WORD_MAX]; /* numbers as texts */
  char type[PRY_ERROR_WORD_MAX];
  char state[PRY_ERROR_WORD_MAX];  /* a text in `status`: Google's name of the error, "RESOURCE_EXHAUSTED" */
  char inner[PRY_ERROR_WORD_MAX];  /* Azure's innererror.code */
  char reason[PRY_ERROR_WORD_MAX]; /* Google's ErrorInfo.reason */
  char quota[256];                 /* Google's QuotaFailure: the ids of the quotas, a space behind each */
  char message[PRY_ERROR_MESSAGE_MAX];
  double
      wait; /* seconds that Google's RetryInfo.retryDelay names, else the message ("try again in 6m0s"); negative: none */
  bool html; /* a page; its title is the message */
  bool cut;  /* it began like JSON, and its end is missing */
};

void pry_error_body_read(struct pry_error_body *error, struct pry_slice body);

/* "34s", "1.5 seconds", "6m0s", "500ms", "02:11:14" at the beginning of a text, in seconds; negative: none of them. Units
 * in small letters. */
double pry_error_body_duration(struct pry_slice text);

/* What a message says about that: "Please try again in 6m0s", "Retry after 7 seconds", "... be replenished in 02:11:14". */
double pry_error_body_wait(struct pry_slice message);

#endif
