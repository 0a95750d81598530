/*
 * declare_internal.h: what the declare_*.c files share: what was declared, before its names are resolved.
 *
 * Declarations may come in any order, so each keeps the names it refers to and the place it stands at;
 * pry_declare_resolve() looks them up at the end and builds the configuration.
 */
#ifndef PRY_DECLARE_INTERNAL_H
#define PRY_DECLARE_INTERNAL_H

#include "declare_form.h"

enum { PRY_JOBS_MAX = 16, PRY_PARAMS_MAX = 64 };

/* ---- objects: what the DSL's functions return ---------------------------------------------------------- */

enum pry_object_kind {
  PRY_OBJECT_PARAM,      /* user value: its table */
  PRY_OBJECT_POLICY,     /* data: struct pry_declared_policy */
  PRY_OBJECT_DIALECT,    /* data: struct pry_dialect */
  PRY_OBJECT_AUTH,       /* data: struct pry_declared_auth */
  PRY_OBJECT_BY_MODEL,   /* user value: its table */
  PRY_OBJECT_USE,        /* data: struct pry_declared_instance */
  PRY_OBJECT_CREDENTIAL, /* a reference by name, and the head of a declaration */
  PRY_OBJECT_PROVIDER,   /* heads only: wait for their table */
  PRY_OBJECT_SERVICE,
  PRY_OBJECT_SINK,
  PRY_OBJECT_ROUTE
};

/* A userdata. It may outlive the load in a variable of some file; then it is of no use any more, and data is never
 * touched again. */
struct pry_object {
  enum pry_object_kind kind;
  struct pry_place place;
  const char *name; /* of a head: in the arena */
  const char *word; /* "provider": begins findings */
  void *data;
  bool complete; /* of a head: its table came */
};

/* The load that pry_declaration_of() finds from here on; NULL: none. */
void pry_declaration_set(lua_State *L, struct pry_declaration *d);

struct pry_object *pry_object_push(lua_State *L, struct pry_declaration *d, enum pry_object_kind kind, const char *word,
                                   void *data);
/* NULL when the value is no object of that kind. */
struct pry_object *pry_object_at(lua_State *L, int index, enum pry_object_kind kind);

/* The table of `head "name" { … }`, at index 2. */
void pry_object_complete(lua_State *L, struct pry_declaration *d, struct pry_object *object);

/* ---- policies and their instances ---------------------------------------------------------------------- */

enum pry_param_type {
  PRY_PARAM_ANY,
  PRY_PARAM_NUMBER,
  PRY_PARAM_INTEGER,
  PRY_PARAM_STRING,
  PRY_PARAM_BOOLEAN,
  PRY_PARAM_LIST,
  PRY_PARAM_MAP,
  PRY_PARAM_SECRET,
  PRY_PARAM_CATEGORY,
  PRY_PARAM_SINKS,    /* a sink's name, a list of them, or { severity = one or a list } */
  PRY_PARAM_PROVIDER, /* from here on: names that are resolved at the end */
  PRY_PARAM_TARGET,
  PRY_PARAM_SINK,
  PRY_PARAM_SERVICE,
  PRY_PARAM_CREDENTIAL,
  PRY_PARAM_TYPE_COUNT
};

/* The names of failure.h, in its order, from the first after PRY_NONE. */
enum { PRY_DECLARE_CATEGORIES = PRY_CATEGORY_COUNT - 1 };
extern const char *const pry_declare_categories[PRY_DECLARE_CATEGORIES];

struct pry_param {
  const char *name, *unit;
  enum pry_param_type type, of, of_of;
  bool required, optional, has_min, has_max;
  double min, max;
  struct pry_text_list values;   /* allowed texts; count 0: all */
  const double *allowed_numbers; /* allowed numbers */
  size_t allowed_number_count;
};

struct pry_declared_policy {
  const char *name;
  struct pry_place place;
  const struct pry_param *params;
  const char *const *param_names; /* parallel to params, sorted */
  size_t param_count;
  struct pry_when when;
  unsigned handlers;
  const char *only_with[PRY_HANDLER_COUNT]; /* the parameter that a handler is there for; NULL: always there */
  pry_time periods[PRY_JOBS_MAX];
  size_t job_count;
};

struct pry_declared_instance {
  struct pry_instance instance; /* first: what the configuration points at */
  struct pry_place place;
  struct pry_declared_policy *policy; /* NULL: unknown; only findings remain to be made */
  bool called, chained;
};

/* A name in a parameter that must exist. */
struct pry_reference {
  enum pry_param_type type;
  const char *name;
  const char *what; /* `alert: to` */
  struct pry_place place;
};

int pry_declare_param(lua_State *L);  /* the DSL's `param` */
int pry_declare_policy(lua_State *L); /* `policy` */
int pry_declare_use(lua_State *L);    /* `use` */
/* The table of `use "x" { … }` at `index`; 0: none, all defaults. Runs once per instance. */
void pry_declare_use_params(lua_State *L, struct pry_declaration *d, struct pry_declared_instance *use, int index);

/* Reads the fields of param's table into `param`; leaves the default (or nil) on the stack. */
void pry_param_read(const struct pry_form *form, struct pry_param *param);
/* Does the value at `index` fit? A finding at the field `param->name` of `form` when not. `keep_names`: names of
 * providers, sinks and so on in it must exist in the end. */
bool pry_param_accepts(const struct pry_form *form, const struct pry_param *param, int index, bool keep_names);

/* ---- init.lua ------------------------------------------------------------------------------------------ */

struct pry_declared_secret {
  const char *name;
  struct pry_place place; /* of the first use */
};

struct pry_declared_auth {
  enum pry_auth_kind kind;
  const char *header, *secret, *credential;
  struct pry_place place;
};

struct pry_declared_provider {
  struct pry_provider provider; /* first */
  struct pry_place place;
  const char *dialect;
  struct pry_declared_auth auth;
  const char **keys; /* names of secrets */
  size_t key_count;
};

struct pry_declared_service {
  struct pry_service service; /* first */
  struct pry_place place;
  struct pry_declared_auth auth;
};

struct pry_declared_credential {
  struct pry_credential_config credential; /* first */
  struct pry_place place;
  const char *refresh_token, *access_token;
};

struct pry_declared_sink {
  struct pry_sink_config sink; /* first */
  struct pry_place place;
  const char *url, *sign, *user; /* names of secrets; NULL: none */
};

struct pry_declared_rule {
  const char *pattern, *target;
};

struct pry_declared_route {
  struct pry_route route; /* first */
  struct pry_place place;
  struct pry_form form; /* only for the places of fields; its table is gone */
  struct pry_declared_rule *rules;
  size_t rule_count;
  struct pry_declared_instance **chain;
};

int pry_declare_head(lua_State *L); /* provider, credential, service, sink, route; upvalues: kind, word */
void pry_declare_provider(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index);
void pry_declare_credential(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index);
void pry_declare_service(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index);
void pry_declare_sink(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index);
/* What a sink is and how it is reached: all of its fields (declare_sink.c). */
void pry_declare_sink_fields(const struct pry_form *form, struct pry_declared_sink *declared);
/* A secret's name in a field; NULL: absent, or no secret (a finding; what stands there is not repeated). */
const char *pry_declare_secret_field(const struct pry_form *form, const char *key);
void pry_declare_route(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index);
int pry_declare_bearer(lua_State *L);
int pry_declare_header(lua_State *L);
int pry_declare_passthrough(lua_State *L);
int pry_declare_by_model(lua_State *L);
int pry_declare_clients(lua_State *L);

/* ---- declare_keys.c: models, keys and rotate of a provider ---- */

void pry_declare_models(const struct pry_form *form, struct pry_provider *provider);
void pry_declare_keys(const struct pry_form *form, struct pry_declared_provider *declared);
/* The pool: the secret of auth, then the others, each once. After the secrets have their places in the configuration. */
void pry_declare_resolve_keys(lua_State *L, struct pry_declaration *d, const struct pry_declared_provider *declared,
                              struct pry_provider *provider);

/* timeouts = { … } of a provider or a route. */
struct pry_timeouts pry_declare_timeouts(const struct pry_form *form);

/* ---- dialects ------------------------------------------------------------------------------------------ */

int pry_declare_dialect(lua_State *L); /* `dialect` */

/* ---- the end ------------------------------------------------------------------------------------------- */

/* Looks all names up, checks what only the whole can show, and fills d->config. Inside the door. */
void pry_declare_resolve(lua_State *L, struct pry_declaration *d);

/* Reads the secrets' values, after pry_declare_resolve(). Outside the door. */
void pry_declare_read_secrets(struct pry_declaration *d);

/* ---- functions kept for run time, in the registry ------------------------------------------------------ */

enum pry_function_table {
  PRY_FUNCTIONS_INSTANCES = 1,
  PRY_FUNCTIONS_DIALECTS,
  PRY_FUNCTIONS_CREDENTIALS,
  PRY_FUNCTIONS_POLICIES,
  PRY_FUNCTIONS_COUNT
};

/* Slots of an instance's table: handler + 1, then self, then its jobs. Of a dialect's: classify, render, then a table
 * of its pairs' functions, strip. Of a
 * credential's: refresh. */
enum { PRY_SLOT_SELF = PRY_HANDLER_COUNT + 1, PRY_SLOT_JOBS };
enum { PRY_SLOT_CLASSIFY = 1, PRY_SLOT_RENDER = 2, PRY_SLOT_TRANSLATE = 3, PRY_SLOT_STRIP = 4, PRY_SLOT_REFRESH = 1 };

/* After everything was declared: freezes what handlers can reach. */
void pry_functions_seal(lua_State *L);

/* Makes the empty tables of a fresh state. */
void pry_functions_open(lua_State *L);
/* Pushes one of the tables. */
void pry_functions_push(lua_State *L, enum pry_function_table which);

#endif
