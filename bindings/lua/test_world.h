/*
 * test_world.h: what one policy test runs in: an engine on a virtual clock, scripted providers, an init.lua.
 *
 * No Lua of the test in here: lib_test.c reads what the test says and tells the world, test_host.c makes and ends
 * it. The configuration is written as Lua text and loaded as any other, so that a test meets the same checks as ops;
 * it is loaded before the next call when something was declared since.
 *
 * Errors are returned as a text in world->error.
 */
#ifndef PRY_TEST_WORLD_H
#define PRY_TEST_WORLD_H

#include "call.h"
#include "engine.h"
#include "host_function.h"
#include "http_script.h"

enum { PRY_WORLD_FIELDS_MAX = 16, PRY_WORLD_LEDGER_MAX = 128 };

/* One declaration of the generated init.lua: provider "q" { key = text, … }. */
struct pry_world_item {
  struct pry_list link;
  const char *word; /* "provider" */
  char name[64];
  struct {
    const char *key; /* constant text, or owned by the copy below */
    char *key_copy, *text;
  } fields[PRY_WORLD_FIELDS_MAX];
  size_t field_count;
};

struct pry_world {
  const struct pry_policy_set *set; /* borrowed */
  struct pry_loop *loop;
  struct pry_http_script *script;
  struct pry_engine *engine;
  struct pry_list items;
  struct pry_buffer chain, declared; /* Lua text */
  bool dirty;                        /* declared something that is not loaded yet */
  bool hosts;                        /* a provider is a host's, so calls are made by one */
  bool messages;                     /* a call spoke Anthropic's Messages API, so its dialect is loaded */
  struct pry_functions *functions;   /* of the host that the test plays; NULL: there is none */
  struct pry_list replies;           /* its answers that take their time */
  struct pry_list calls;             /* struct pry_world_call, oldest first */
  unsigned call_count, check_count;  /* made; passed or not */
  char refusal[700];                 /* the finding for which the configuration was refused last: "init.lua:2: …" */
  char fake_error[256];              /* what a function of the test's host raised; "": nothing */
  char error[768];
};

/* One call of a test; lives as long as the world. */
struct pry_world_call {
  struct pry_list link;
  struct pry_world *world;
  struct pry_call *call; /* NULL once it has ended */
  char id[PRY_CALL_ID_MAX];
  int status; /* 0: no head came */
  struct pry_headers headers;
  struct pry_buffer body;
  bool done, truncated;
  bool lost; /* some of the answer did not fit in memory */
  struct pry_outcome outcome;
  pry_time started, ended;
  size_t seen_before, seen_after; /* requests of the HTTP script */
  struct pry_world_attempt {      /* that the test's host is at */
    unsigned number;
    struct pry_http_exchange *exchange; /* where its script says how it goes; NULL: none */
    int status;
    struct pry_headers headers;
    struct pry_buffer body;
  } attempt;
  struct pry_attempt *ledger; /* a copy */
  size_t ledger_count;
  int result;     /* Lua's: reference to the result table */
  bool delivered; /* the result table is filled */
};

/* NULL: no memory. */
struct pry_world *pry_world_new(const struct pry_policy_set *set, const struct pry_script_limits *limits);
void pry_world_free(struct pry_world *world); /* NULL is fine */

/* The declaration of that name, made when it is new. NULL: no memory. */
struct pry_world_item *pry_world_item(struct pry_world *world, const char *word, const char *name);
/* Sets a field to a Lua expression. False: too many, or no memory. */
bool pry_world_set(struct pry_world *world, struct pry_world_item *item, const char *key, struct pry_slice text);
/* Appends to the chain, or to the declarations. */
bool pry_world_chain(struct pry_world *world, struct pry_slice text);
bool pry_world_declare(struct pry_world *world, struct pry_slice text);

/* Appends a text as a Lua string. */
bool pry_world_quote(struct pry_buffer *out, struct pry_slice text);

/* Loads what was declared; nothing to do when nothing was. False: refused, `error` says why. */
bool pry_world_load(struct pry_world *world);

/* The fields of a scripted answer in which a test's host finds what no answer over HTTP could say: see t:provider. */
#define PRY_WORLD_HOST_FIELD "parry-test-host-"

/* Starts a call; NULL: `error`. The body is taken. `hosted`: its attempts are made by a host, which does what the scripts of
 * the providers say (test_world_host.c). */
struct pry_world_call *pry_world_start(struct pry_world *world, const struct pry_call_request *request, bool hosted);

/* How that host makes attempts; the user is a struct pry_world_call. */
extern const struct pry_host_ops pry_world_host;

/* Lets time pass until `call` has ended, or with NULL every call. False: `error`: it would take more than a day. */
bool pry_world_run(struct pry_world *world, const struct pry_world_call *call);

/* Runs what is due at this very moment: deliveries, jobs, what follows a call's end. */
void pry_world_settle(struct pry_world *world);

enum pry_world_peer { PRY_PEER_PROVIDER, PRY_PEER_TOKEN, PRY_PEER_SINK, PRY_PEER_SERVICE, PRY_PEER_PROBE };
enum pry_world_peer pry_world_peer(const char *url);

/* Requests of one kind among from..to of the HTTP script. */
size_t pry_world_count(const struct pry_world *world, enum pry_world_peer peer, size_t from, size_t to);

/* A host's event through the route's chain. `verdict` is NONE when nobody had one; only its plain fields are given, so
 * that it needs no pry_verdict_fini(). False: `error`. */
bool pry_world_emit(struct pry_world *world, const char *name, struct pry_slice fields, struct pry_verdict *verdict,
                    const char **policy);

/* Makes a function of the host known that policies can ask; it is called from the loop. False: `error`. */
bool pry_world_function(struct pry_world *world, const char *name, parry_function function, void *user);

/* Its answer, as for parry_reply(), after `delay` seconds. False: memory. */
bool pry_world_reply(struct pry_world *world, parry_request_id request, double delay, const char *json,
                     const char *failure);

#endif
