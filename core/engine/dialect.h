/*
 * dialect.h: how one provider family spells errors and streams, as data for the hot path.
 *
 * policies/dialects/NAME.lua declares it; the Lua binding compiles the declaration into the structures here.
 * What happens per SSE event or per answer is done in C from this data; Lua is entered for errors only
 * (classify) and for final errors (render), through policy.h. Immutable after load, part of a generation.
 */
#ifndef PRY_DIALECT_H
#define PRY_DIALECT_H

#include "json.h"
#include "slice.h"
#include "usage.h"

/* What one SSE event means for recovery. */
enum pry_stream_class {
  PRY_STREAM_LIFECYCLE, /* nothing the client would miss: held back before the commit point */
  PRY_STREAM_CONTENT,   /* the client has something: commits */
  PRY_STREAM_ERROR,     /* the provider reports a failure inside the stream */
  PRY_STREAM_END,       /* the stream ends well here */
  PRY_STREAM_NONSENSE   /* no JSON where the dialect has nothing else: no client could read on */
};

enum { PRY_DIALECT_PATHS_MAX = 8 };

struct pry_text_list {
  const char *const *items;
  size_t count;
};

struct pry_path_list {
  struct pry_json_path items[PRY_DIALECT_PATHS_MAX];
  size_t count;
};

/* "This field says error unless it has one of these raw JSON values", e.g. errcode unless 0. A name is that of a
 * top-level field, or a path of json.h whose last step is a name: promptFeedback.blockReason. */
struct pry_error_field {
  const char *name;
  struct pry_text_list fine; /* raw JSON texts that mean no error; null, {} and [] always do */
};

enum { PRY_DIALECT_ERROR_FIELDS_MAX = 8 };

struct pry_error_fields {
  struct pry_error_field items[PRY_DIALECT_ERROR_FIELDS_MAX];
  size_t count;
};

/* What health.c may ask; each path begins with '/' and is put behind base_url. NULL: there is no such request. */
struct pry_dialect_health {
  const char *models;     /* GET: {"data": [{"id": …}, …]}; with "/" and a model behind it: that model, or 404 */
  const char *completion; /* POST {"model", "max_tokens", "messages"} */
  const char *without;    /* what base_url may end with and these paths do not begin with, "/messages" */
  struct pry_text_list headers; /* "name: value" */
};

/* The calls of one client dialect that this one can answer by translation. */
struct pry_translation_pair {
  const char *client;
  struct pry_text_list opaque; /* members of JSON objects that scripts pass on without reading them: tool schemas, … */
};

enum { PRY_DIALECT_PAIRS_MAX = 8 };

struct pry_dialect {
  const char *name;
  const char *file; /* "dialects/openai.lua" */
  size_t index;     /* in the config; how a state finds classify and render */
  bool has_classify, has_render;
  const char
      *speaks; /* the client dialect whose requests and answers it carries (kimi: "openai"); NULL: its own name */

  struct pry_dialect_health health; /* empty: that of the dialect it speaks */

  /* A 2xx JSON object with one of these fields is an error all the same. */
  struct pry_error_fields error_in_200;

  /* What an answer, or an event of a stream, says about tokens. */
  struct pry_usage usage;

  /* Streams. The rules are tried in this order; what fits none is LIFECYCLE when `default_lifecycle`, else
   * CONTENT. An event's type is its `event:` line, else the JSON field `type_field` of its data. */
  const char *type_field;        /* NULL: none */
  struct pry_text_list end_data; /* whole data that ends the stream, e.g. [DONE] */
  struct pry_text_list error_types;
  struct pry_error_fields error_in_data; /* fields of the data object that say error */
  struct pry_text_list end_types;
  struct pry_text_list lifecycle_types;
  struct pry_text_list content_types;
  struct pry_path_list content_paths; /* a non-empty value at one of these is content */
  struct pry_path_list finish_paths;  /* a non-null value: from here on EOF is a clean end, too */
  bool default_lifecycle;
  bool json;        /* every event's data is JSON, but for end_data; blank data is a heartbeat */
  bool open_end;    /* the connection's good end is the stream's, whatever markers there are */
  bool bare_errors; /* its clients see an error by `error_in_data`, else by the type in the `event:` line */

  /* Translation, when a client speaks something else. */
  struct pry_translation_pair pairs[PRY_DIALECT_PAIRS_MAX];
  size_t pair_count;
  bool has_strip;
  struct pry_text_list strip_opaque;
  struct pry_text_list bound; /* strip.words: others than bodies with one of them, quoted, are not shown to `strip` */
};

/* Does the body hold, quoted, one of the words of strip.words? A search, not a reading: it may be wrong in this direction. */
bool pry_dialect_may_be_bound(const struct pry_dialect *dialect, struct pry_slice body);

/* The pair of that name, or NULL. */
const struct pry_translation_pair *pry_dialect_pair(const struct pry_dialect *dialect, const char *client);

/* Classifies one event: `type` is its `event:` line, empty when it had none. `finish` is set when a finish path
 * matched. */
enum pry_stream_class pry_dialect_stream_class(const struct pry_dialect *dialect, struct pry_slice type,
                                               struct pry_slice data, bool *finish);

/* Will a client of this very dialect take this event, which is an ERROR, for one? Its SDK throws for some of what a
 * provider may send, and passes over the rest as if the stream went on. `typed`: it reads events by their type, as
 * clients of OpenAI's Responses API do. */
bool pry_dialect_error_is_plain(const struct pry_dialect *dialect, struct pry_slice type, struct pry_slice data,
                                bool typed);

/* Does a 2xx JSON body carry an error by this dialect's fields? Not an object, or not JSON: no. */
bool pry_dialect_error_in_200(const struct pry_dialect *dialect, struct pry_slice body);

/* Can a client of `client_dialect` be answered by this dialect without translation? The generic one: always. */
bool pry_dialect_carries(const struct pry_dialect *dialect, const char *client_dialect);

/* A dialect that knows nothing: status table only, every event is content. What "generic" means where a folder of
 * policies has no dialects/generic.lua. Static. */
extern const struct pry_dialect pry_dialect_generic;

#endif
