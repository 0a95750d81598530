/*
 * http_internal.h: the inside of the curl client, shared by the two files that make it. Nobody else includes it.
 *
 *   http.c          the client, and an exchange from its start to its end
 *   http_request.c  what goes to the peer: what curl is told about a request, and its body
 */
#ifndef PRY_HTTP_INTERNAL_H
#define PRY_HTTP_INTERNAL_H

#include "http.h"

#include "http_head.h"
#include "http_sockets.h"
#include "list.h"

#include <curl/curl.h>

struct client {
  struct pry_http base;
  struct pry_loop *loop;
  CURLM *multi;
  char *ca_file;
  char *proxy;
  struct pry_timer curl_timer;     /* what curl asked to be called back for */
  struct pry_timer deferred_timer; /* for exchanges in `deferred` */
  bool inside_curl;                /* no multi function may be called now */
  struct pry_list open;            /* exchanges */
  struct pry_list deferred;        /* exchanges that need settle() */
  struct pry_list end_of_pass;     /* in `deferred` while settle_deferred() runs */
  struct pry_list cancelled;       /* exchanges to free once curl has returned */
  struct pry_list idle;            /* exchanges that ended well, with their curl handles, for the next ones */
  size_t open_count, idle_count;
  struct pry_http_sockets sockets;
};

enum exchange_state {
  STATE_NEW,     /* not with curl yet */
  STATE_RUNNING, /* with curl */
  STATE_COMPLETE /* curl is through with it; on_done is due when not paused */
};

struct exchange {
  struct pry_http_exchange base;
  struct client *client;
  struct pry_list link;  /* in client->open */
  struct pry_list queue; /* in client->deferred, client->cancelled or client->idle */
  const struct pry_http_ops *ops;
  void *user;
  CURL *easy;
  struct pry_buffer line_text; /* the lines of the request's head, each with a NUL behind it */
  struct curl_slist *lines;    /* an array, linked in order, whose data lie in line_text */
  size_t line_count, line_capacity;
  enum exchange_state state;
  bool repeatable; /* curl may send it again when a kept connection turns out dead */
  bool public_only;
  bool refused; /* an address was not public */
  bool connected, cancelled, finished;
  bool repeated;       /* curl has sent it a second time */
  bool fresh;          /* curl opened a socket for it */
  bool timed;          /* on a connection of its own, and how long that took is told */
  bool stale;          /* it was to go out on a kept connection that cannot be trusted */
  bool paused;         /* by on_data */
  bool curl_paused;    /* curl was told so and waits */
  bool upload_paused;  /* curl was told that more of the body is to come, and waits */
  bool upload_ready;   /* and now there is more */
  int64_t upload_left; /* of a streamed body; -1: its length was not said */
  int code;            /* how it ended; valid when complete */
  int fault;           /* our own reason to end it; wins over curl's */
  const char *fault_message;
  struct pry_http_head head;
  char error[CURL_ERROR_SIZE];
};

/* The first reason wins. `message`: constant, or NULL for what curl says about the code. */
static inline void pry_http_set_fault(struct exchange *exchange, int code, const char *message)
{
  if (exchange->fault)
    return;
  exchange->fault = code;
  exchange->fault_message = message;
}

static inline bool pry_http_unwelcome(const struct exchange *exchange)
{
  return exchange->cancelled || exchange->fault;
}

/* Tells the exchange's curl handle, once, how requests are made: what is the same for all of them. */
CURLcode pry_http_set_transport(struct exchange *exchange);

/* Takes back what was said about one request, and whatever it pointed at. False: the handle is of no more use. */
bool pry_http_forget_request(struct exchange *exchange);

/* Tells the exchange's curl handle what to send and how. False: memory is short. What else is wrong becomes the
 * exchange's fault. */
bool pry_http_prepare_request(struct exchange *exchange, const struct pry_http_request *request);

#endif
