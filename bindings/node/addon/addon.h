/*
 * addon.h: libparry for Node, the part in C. Private to ../lib, which makes of it what programs see.
 *
 * The rule that keeps it simple: JavaScript never runs inside libparry. What libparry has for us (data, outcomes,
 * decisions, log lines) is written into an array while parry_dispatch() or parry_free() runs, and the array is handed
 * over afterwards: four elements for each event, its kind, what it is about, and two values. So whatever a callback of
 * the program's does (throw, close the engine, leave the process), libparry is not on the stack.
 *
 * Engines always have threads of their own (parry.h); the event loop polls their descriptor, and is held up only while
 * a call or a pending decision is open. One instance of the addon for each thread of Node's that loads it; an engine
 * belongs to the thread that made it. parry_reload(), which waits, runs on Node's thread pool.
 *
 * Node-API 8: the same file serves Node 18 and everything newer. libparry comes as a library this one needs, beside it
 * in the package; it must be opened with RTLD_DEEPBIND (../lib/native.js), or its libcurl would use Node's OpenSSL.
 *
 * Thread: the JavaScript thread of the engine, unless said otherwise.
 */
#ifndef PARRY_NODE_ADDON_H
#define PARRY_NODE_ADDON_H

#include <node_api.h>
#include <parry.h>
#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

/* What an element of the array is about, and its two values. The numbers are also in ../lib/engine.js. */
enum event_kind {
  EVENT_HEADERS,  /* a call: status, [name, value, …] */
  EVENT_DATA,     /* a call: Buffer */
  EVENT_DONE,     /* a call: outcome */
  EVENT_ATTEMPT,  /* a call: attempt */
  EVENT_ABANDON,  /* a call: number of the attempt */
  EVENT_DECISION, /* what was given to decide(): decision */
  EVENT_FUNCTION, /* name: id of the request, arguments as JSON */
  EVENT_LOG,      /* undefined: level, line */
  EVENT_ALERT,    /* undefined: alert */
  EVENT_RELOAD    /* undefined: info */
};

/* Behind the object that create() gives. Counted: that object, the poll handle, each call and piece of work. */
struct engine {
  unsigned refs;
  napi_env env;
  parry *parry;     /* NULL: closed */
  napi_ref object;  /* strong while something is open, so that nobody collects what still has work to tell */
  napi_ref deliver; /* held by the object, too: a weak reference */
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  uv_poll_t poll;
  bool polling;
  bool leaving;        /* the thread ends: JavaScript must not be called */
  size_t open;         /* calls and pending decisions */
  napi_value events;   /* the array being filled; NULL: nobody collects, events are dropped */
  uint32_t count;      /* its length */
  struct named *names; /* of host functions */
  pthread_mutex_t lock;
  pthread_cond_t idle;
  unsigned reloading; /* guarded by lock: threads inside parry_reload() */
  bool closing;       /* guarded by lock: no more of them */
};

/* Behind the object that stands for one call, or one pending decision. */
struct work {
  unsigned refs; /* that object, and libparry until the end */
  struct engine *engine;
  napi_ref object; /* strong until the end */
  parry_call_id id;
  size_t unread; /* bytes given to JavaScript and not yet taken */
  bool paused;
  bool ended;
};

/* ---- engine.c ---- */

napi_value create_engine(napi_env env, napi_callback_info info);
napi_value close_engine(napi_env env, napi_callback_info info);
void engine_unref(struct engine *engine);
/* The engine behind an argument. NULL: an exception is pending, e.g. PARRY_EFREED after close(). */
struct engine *engine_of(napi_env env, napi_value value);
/* One more, one less thing is open: the event loop is held up by the first, let go by the last. */
void engine_opened(struct engine *engine);
void engine_closed(struct engine *engine);
/* Throws an Error with code "PARRY_EINVAL" and its sentence. */
void throw_parry(napi_env env, int error);

/* ---- events.c ---- */

/* Adds an event to the array. A scope for the values must be open; NULL is undefined. */
void add_event(struct engine *engine, enum event_kind kind, napi_value about, napi_value first, napi_value second);
/* Runs parry_dispatch(), or parry_free() when `freeing`, and gives the array. */
napi_value collect_events(struct engine *engine, bool freeing);
/* Calls the function `deliver` with what there is. From the event loop. */
void deliver_events(struct engine *engine);
void on_log(void *user, int level, const char *line, size_t size);
void on_alert(void *user, const struct parry_alert *alert);
void on_reloaded(void *user, const struct parry_reload_info *info);

/* ---- call.c, decide.c, function.c, status.c: one function each of JavaScript's ---- */

napi_value start_call(napi_env env, napi_callback_info info);
napi_value cancel_call(napi_env env, napi_callback_info info);
napi_value took_data(napi_env env, napi_callback_info info);
napi_value attempt_done(napi_env env, napi_callback_info info);
/* Makes `object` stand for a new piece of work. NULL: an exception is pending. */
struct work *work_new(struct engine *engine, napi_value object);
/* libparry has told the last of it, or never took it on. */
void work_end(struct work *work);

napi_value decide(napi_env env, napi_callback_info info);
napi_value report(napi_env env, napi_callback_info info);
napi_value emit(napi_env env, napi_callback_info info);

napi_value register_function(napi_env env, napi_callback_info info);
napi_value reply(napi_env env, napi_callback_info info);
void names_free(struct named *names);

napi_value status(napi_env env, napi_callback_info info);
napi_value metrics(napi_env env, napi_callback_info info);
napi_value findings(napi_env env, napi_callback_info info);
napi_value reload(napi_env env, napi_callback_info info);

#endif
