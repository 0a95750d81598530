/*
 * proxy_status.h: the Proxy-Status field: was it the provider, or parry?
 *
 * RFC 9209. The field is a list of structured-field items (RFC 8941), one per proxy, in the order in which the answer
 * passed them: what stands there came from the provider's side, and parry's member is appended behind it. Parry's says
 * which target was asked, which status it gave, and, only when parry made the answer itself, which kind of error.
 *
 * Pure functions; any thread.
 */
#ifndef PRY_PROXY_STATUS_H
#define PRY_PROXY_STATUS_H

#include "failure.h"
#include "headers.h"

struct pry_proxy_status {
  const char *next_hop; /* "provider/model"; NULL or "": nobody was asked */
  int received_status;  /* of the last answer; 0: there was none */
  const char *error;    /* a type of RFC 9209 §2.3; NULL: the answer is the provider's */
  const char *details;  /* a word for people, never a provider's or client's text; NULL: none */
};

/* The answer was made here without asking anybody (§2.3.30): what a policy's respond{} is. */
#define PRY_PROXY_LOCAL "proxy_internal_response"

/* The registered type (§2.3) for a failure that parry tells with an answer of its own. */
const char *pry_proxy_error(const struct pry_failure *failure);

/* Sets the field: the lines of it that are there, joined, then parry's member. Lines that are no list of items are
 * dropped, since one broken member makes readers drop the whole field (RFC 8941 §4.2). False: memory or room. */
bool pry_proxy_status_set(struct pry_headers *headers, const struct pry_proxy_status *status);

/* Is it a list of tokens or strings with parameters (RFC 8941 §3.1, §3.1.2; no inner lists, which the field has not)? */
bool pry_proxy_status_valid(struct pry_slice value);

#endif
