/*
 * declare_form.h: reading the tables of a declaration, with a finding for everything that does not fit.
 *
 * A form is a Lua table with a closed set of fields. Reading one never stops at the first mistake: a getter that
 * finds something wrong says so in the report and answers as if the field were absent.
 *
 * Everything here runs inside the door; memory that runs out is raised as a Lua error. Texts that getters return live
 * in the configuration's arena.
 */
#ifndef PRY_DECLARE_FORM_H
#define PRY_DECLARE_FORM_H

#include "declare.h"
#include "declare_text.h"

#include <lua.h>

/* Where something was declared. */
struct pry_place {
  const struct pry_policy_file *file; /* NULL: not known */
  int line;                           /* 0: not known */
};

/* Pointers that grow in the arena. */
struct pry_pointers {
  void **items;
  size_t count, capacity;
};

/* One load of one set; on its caller's stack. */
struct pry_declaration {
  struct pry_script *script;
  const struct pry_policy_set *set;
  const struct pry_declare_options *options;
  struct pry_report *report;
  struct pry_config *config; /* lies in its own arena */
  /* All in the order of declaration. */
  struct pry_pointers policies;    /* struct pry_declared_policy */
  struct pry_pointers dialects;    /* struct pry_dialect */
  struct pry_pointers secrets;     /* struct pry_declared_secret */
  struct pry_pointers providers;   /* struct pry_declared_provider */
  struct pry_pointers services;    /* struct pry_declared_service */
  struct pry_pointers credentials; /* struct pry_declared_credential */
  struct pry_pointers sinks;       /* struct pry_declared_sink */
  struct pry_pointers routes;      /* struct pry_declared_route */
  struct pry_pointers instances;   /* struct pry_declared_instance */
  struct pry_pointers jobs;        /* struct pry_job_config */
  struct pry_pointers references;  /* struct pry_reference */
  struct pry_pointers heads;       /* struct pry_object: `provider "x"` and so on, waiting for their tables */
  struct pry_place clients;        /* of clients { }, when config->clients_file is set */
};

/* The load that is going on; raises "… is for loading only" when there is none. */
struct pry_declaration *pry_declaration_of(lua_State *L, const char *function);

/* Zeroed memory of the configuration; raises when it is short. */
void *pry_declare_take(lua_State *L, struct pry_declaration *d, size_t size);
char *pry_declare_copy(lua_State *L, struct pry_declaration *d, struct pry_slice text);
void pry_declare_push(lua_State *L, struct pry_declaration *d, struct pry_pointers *pointers, void *item);

/* The line of the policy file that called the running C function. */
struct pry_place pry_place_here(lua_State *L, struct pry_declaration *d);

void pry_complain(struct pry_declaration *d, struct pry_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void pry_warn(struct pry_declaration *d, struct pry_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A value as findings show it: 40, "text", true, a table. */
enum { PRY_SHOWN_MAX = 64 };
const char *pry_show_value(lua_State *L, int index, char shown[PRY_SHOWN_MAX]);
/* The same where a secret may have been pasted: a text is only "a text". */
const char *pry_show_kind(lua_State *L, int index, char shown[PRY_SHOWN_MAX]);

/* `; did you mean "x"?`, or `; it takes a, b, c`, for somebody who wrote `wrong`. `intro` begins the second form. */
enum { PRY_HINT_MAX = 320 };
const char *pry_hint(const char *wrong, const char *const *names, size_t count, const char *intro,
                     char hint[PRY_HINT_MAX]);

/* ---- forms --------------------------------------------------------------------------------------------- */

struct pry_form {
  struct pry_declaration *d;
  lua_State *L;
  int table; /* absolute index; 0 for a form whose table was no table: every field is absent */
  struct pry_place place;
  const char *subject; /* begins every finding: `provider "kimi"` */
  const char *prefix;  /* path of a table inside the declaration: "timeouts.", or "" */
  const char *noun;    /* what its fields are called: "field", or "parameter" */
};

/* Makes the stack slot `index` hold what lua_next() and lua_rawget() can read, if it is a table: files may declare with
 * tables of a library, and those are frozen (freeze.h). */
void pry_form_readable(lua_State *L, int index);

/* A form over the value at `index`; a finding when it is no table. The slot is made readable. */
struct pry_form pry_form_open(struct pry_declaration *d, lua_State *L, int index, struct pry_place place,
                              const char *subject);

/* A form over the table in a field, which is pushed (something is pushed in any case). False: absent or no table. */
bool pry_form_enter(const struct pry_form *form, const char *key, const char *prefix, struct pry_form *inner);

/* Where the field is written, as far as that can be seen. */
struct pry_place pry_form_place(const struct pry_form *form, const char *key);

/* "file:line: subject: prefix.key what", at the line of the field. */
void pry_form_complain(const struct pry_form *form, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A finding for every field that is not in `known`. `allow_list`: elements 1..n are somebody else's business. */
void pry_form_known(const struct pry_form *form, const char *const *known, size_t count, bool allow_list);

enum pry_need { PRY_OPTIONAL, PRY_REQUIRED };

/* NULL: absent (a finding when required), empty or no text. */
const char *pry_form_text(const struct pry_form *form, const char *key, enum pry_need need);

/* False: absent, no number, or not within min..max (both ends included; `unit` stands behind them in the finding). */
bool pry_form_number(const struct pry_form *form, const char *key, double min, double max, const char *unit,
                     double *value);
bool pry_form_integer(const struct pry_form *form, const char *key, long min, long max, long *value);

/* False: absent or no boolean. */
bool pry_form_boolean(const struct pry_form *form, const char *key, bool *value);

/* A list of texts; count 0 when absent. `what` names an element in the finding. */
struct pry_text_list pry_form_texts(const struct pry_form *form, const char *key, const char *what);

/* Pushes the function in a field; false (nothing pushed) when absent or no function. */
bool pry_form_function(const struct pry_form *form, const char *key);

/* The names of a table's text keys, sorted bytewise, in the arena; other keys give a finding. */
const char *const *pry_form_keys(const struct pry_form *form, size_t *count);

#endif
