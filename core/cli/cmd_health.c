#include "cli.h"

#include "admin_options.h"
#include "answer.h"
#include "engine.h"
#include "health.h"
#include "loader.h"
#include "policies.h"
#include "shipped.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char DOC[] =
    "Asks the providers, now, whether they work: can they be reached, do they take the key, do\n"
    "they have the model? TARGET is a provider or provider/model; without one, what the routes of\n"
    "init.lua name. Asks the running parry to do it, with what it runs on; with --policies this\n"
    "process does it itself, with the secrets of its own environment.";

static const char AFTER[] = "probes: models      the list of models; costs nothing\n"
                            "        completion  one token per target: costs money, and sees what no list tells\n"
                            "        connect     name, connection and TLS only, without a key\n"
                            "marks:  ✓ good, ✗ bad, - could not be found out\n"
                            "exit codes: 0 all fine; 1 something is not; 2 usage; 3 no running parry reached";

struct health {
  struct pry_admin_options_given admin;
  const char *policies, *probe;
  double timeout;
  bool json;
  char **targets;
  size_t target_count;
};

/* ---- telling -------------------------------------------------------------------------------------------------- */

static const char *mark_of(struct pry_slice target, const char *name)
{
  struct pry_json_value value;
  if (!pry_json_get(target, name, &value))
    return "-";
  return value.type == PRY_JSON_TRUE ? "✓" : value.type == PRY_JSON_FALSE ? "✗" : "-";
}

static void print_time(struct pry_slice target, const char *name)
{
  double seconds = pry_answer_number(target, name);
  if (seconds >= 0)
    printf(" %s %.*f ms", name, seconds < 0.01 ? 1 : 0, seconds * 1000);
}

static void find_widest(void *user, struct pry_slice target)
{
  int *widest = user;
  char name[PRY_TARGET_MAX];
  int size = (int)strlen(pry_answer_text(target, "target", name, sizeof name));
  if (size > *widest)
    *widest = size;
}

static void print_trouble(struct pry_slice target)
{
  char text[PRY_TARGET_MAX];
  if (pry_answer_text(target, "category", text, sizeof text)[0])
    printf("  %s", text);
  double status = pry_answer_number(target, "status");
  if (*text && status > 0)
    printf(" %.0f", status);
  if (pry_answer_text(target, "code", text, sizeof text)[0])
    printf(" %s", text);
  if (pry_answer_text(target, "hint", text, sizeof text)[0])
    printf("  (%s)", text);
}

static void print_target(void *user, struct pry_slice target)
{
  const int *widest = user;
  char name[PRY_TARGET_MAX];
  printf("%s %-*s  connectivity %s  auth %s  model %s ", pry_answer_is_true(target, "ok") ? "✓" : "✗", *widest,
         pry_answer_text(target, "target", name, sizeof name), mark_of(target, "connectivity"), mark_of(target, "auth"),
         mark_of(target, "model"));
  print_time(target, "dns");
  print_time(target, "tcp");
  print_time(target, "tls");
  double seconds = pry_answer_number(target, "seconds");
  if (seconds >= 0)
    printf(" in all %.0f ms", ceil(seconds * 1000));
  print_trouble(target);
  printf("\n");
}

static int tell(const struct health *health, struct pry_slice answer)
{
  int widest = 0;
  if (health->json) {
    fwrite(answer.data, 1, answer.size, stdout);
  } else {
    pry_answer_each(answer, "targets", find_widest, &widest);
    if (!pry_answer_each(answer, "targets", print_target, &widest))
      printf("nothing to check: no route names a provider\n");
  }
  return pry_answer_is_true(answer, "ok") ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

/* ---- the running parry ------------------------------------------------------------------------------------------ */

static bool append_encoded(struct pry_buffer *path, const char *text)
{
  bool ok = true;
  for (; ok && *text; text++) {
    bool plain = (*text >= '0' && *text <= '9') || (*text >= 'A' && *text <= 'Z') || (*text >= 'a' && *text <= 'z') ||
                 strchr("-._~/:", *text);
    ok = plain ? pry_buffer_append(path, text, 1) : pry_buffer_append_format(path, "%%%02X", (unsigned char)*text);
  }
  return ok;
}

static int ask_running(const struct health *health)
{
  struct pry_buffer path, body;
  int code = PRY_EXIT_FINDINGS, status;
  pry_buffer_init(&path, 0);
  bool ok = pry_buffer_append_format(&path, "/api/v1/health?timeout=%.3f&probe=", health->timeout) &&
            append_encoded(&path, health->probe);
  for (size_t i = 0; ok && i < health->target_count; i++)
    ok = pry_buffer_append_text(&path, "&target=") && append_encoded(&path, health->targets[i]);
  /* So many are checked at a time; the rest waits for its turn. */
  double rounds = 1 + (double)PRY_HEALTH_TARGETS_MAX / PRY_HEALTH_AT_ONCE;
  if (!ok || !pry_buffer_text(&path)) {
    fprintf(stderr, "parry: memory is short\n");
  } else {
    code = pry_admin_call(&health->admin, "POST", pry_buffer_text(&path), health->timeout * rounds + 5, &status, &body);
    if (code < 0) {
      struct pry_slice answer = pry_buffer_slice(&body);
      char detail[300];
      if (status == 200)
        code = tell(health, answer);
      else
        fprintf(stderr, "parry: %s\n", pry_answer_text(answer, "detail", detail, sizeof detail));
      code = status == 200 ? code : status == 400 ? PRY_EXIT_USAGE : PRY_EXIT_FINDINGS;
      pry_buffer_fini(&body);
    }
  }
  pry_buffer_fini(&path);
  return code;
}

/* ---- by ourselves ------------------------------------------------------------------------------------------------ */

/* No engine serves here: no job of the policies runs, nothing is renewed, no alert leaves. */
struct alone {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_engine *engine;
  struct pry_worker *worker; /* its */
  struct pry_generation *generation;
  struct pry_state *state;
  struct pry_report report;
  const char *targets[PRY_HEALTH_TARGETS_MAX];
  char *listed[PRY_HEALTH_TARGETS_MAX];
  size_t count;
  struct pry_buffer answer;
  bool built, done;
};

static void list_target(void *user, const char *target)
{
  struct alone *alone = user;
  if (alone->count < PRY_HEALTH_TARGETS_MAX && (alone->listed[alone->count] = strdup(target))) {
    alone->targets[alone->count] = alone->listed[alone->count];
    alone->count++;
  }
}

static void checked(void *user, const struct pry_health_result *results, size_t count)
{
  struct alone *alone = user;
  alone->built = pry_health_json(results, count, &alone->answer);
  alone->done = true;
}

/* False: stderr has been told. */
static bool load(struct alone *alone, const char *folder)
{
  static const struct pry_script_limits limits = {0};
  struct pry_buffer text;
  pry_buffer_init(&text, 4096);
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_policy_set *set = pry_policy_set_read(folder, pry_shipped_folder(shipped), &text);
  alone->loop = pry_loop_new();
  alone->http = alone->loop ? pry_http_new(alone->loop, NULL) : NULL;
  struct pry_engine_options options = {.loop = alone->loop, .http = alone->http, .loader = &pry_lua_loader};
  alone->engine = set && alone->http ? pry_engine_new(&options) : NULL;
  alone->worker = alone->engine ? alone->engine->control : NULL;
  if (alone->worker)
    alone->generation = pry_lua_loader.load(set, &limits, &alone->report);
  if (alone->generation)
    alone->state = pry_lua_loader.warm(alone->generation, alone->worker, &limits, &alone->report);
  else
    pry_policy_set_free(set);
  if (!alone->state) {
    const char *why = pry_buffer_text(&text);
    fprintf(stderr, "%s", why && *why ? why : "");
    pry_print_findings(folder, &alone->report);
    fprintf(stderr, "parry: the policies in %s cannot be used; see: parry check %s\n", folder, folder);
  }
  pry_buffer_fini(&text);
  return alone->state;
}

static void run_checks(const struct health *health, struct alone *alone, enum pry_health_probe probe)
{
  struct pry_health_options options = {
      .probe = probe, .timeout = pry_time_from_seconds(health->timeout), .borrowed = true};
  for (size_t i = 0; i < health->target_count && i < PRY_HEALTH_TARGETS_MAX; i++)
    alone->targets[alone->count++] = health->targets[i];
  if (!alone->count)
    pry_health_targets(alone->generation->config, list_target, alone);
  if (!pry_health_start(alone->worker, alone->state, &options, alone->targets, alone->count, checked, alone))
    return;
  while (!alone->done)
    pry_loop_turn(alone->loop, PRY_TIME_NEVER);
}

static int ask_alone(const struct health *health, enum pry_health_probe probe)
{
  struct alone alone = {0};
  int code = PRY_EXIT_FINDINGS;
  pry_report_init(&alone.report);
  pry_buffer_init(&alone.answer, 0);
  if (load(&alone, health->policies)) {
    run_checks(health, &alone, probe);
    if (alone.built)
      code = tell(health, pry_buffer_slice(&alone.answer));
    else
      fprintf(stderr, "parry: memory is short\n");
  }
  pry_state_unref(alone.state);
  pry_engine_free(alone.engine);
  pry_generation_unref(alone.generation);
  pry_http_free(alone.http);
  pry_loop_free(alone.loop);
  for (size_t i = 0; i < PRY_HEALTH_TARGETS_MAX; i++)
    free(alone.listed[i]);
  pry_buffer_fini(&alone.answer);
  pry_report_fini(&alone.report);
  return code;
}

int pry_cmd_health(int argc, char **argv)
{
  struct health health = {.probe = "models", .timeout = 5};
  const struct pry_option options[] = {
      {"probe", 0, PRY_OPTION_TEXT, "PROBE", "models, completion or connect (models)", &health.probe},
      {"timeout", 0, PRY_OPTION_SECONDS, "SECONDS", "of one target in all (5)", &health.timeout},
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "check those that this folder names, without a running parry",
       &health.policies},
      PRY_OPTIONS_ADMIN(health.admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&health.json),
  };
  const struct pry_command_line line = {"parry health [OPTIONS] [TARGET...]", DOC, options,
                                        sizeof options / sizeof *options,     64,  AFTER};
  size_t operands = 0;
  int code = pry_options_parse(&line, argc, argv, &operands);
  if (code >= 0)
    return code;
  enum pry_health_probe probe = PRY_PROBE_MODELS;
  if (!pry_health_probe_from_name(pry_slice_of(health.probe), &probe) ||
      !(health.timeout > 0 && health.timeout <= 60)) {
    fprintf(stderr, "parry health: --probe is models, completion or connect; --timeout is more than 0, at most 60 s\n");
    return PRY_EXIT_USAGE;
  }
  health.targets = argv + 1;
  health.target_count = operands;
  for (size_t i = 0; i < operands; i++)
    if (!*health.targets[i] || strlen(health.targets[i]) >= PRY_TARGET_MAX) {
      fprintf(stderr, "parry health: a target is \"provider\" or \"provider/model\"\n");
      return PRY_EXIT_USAGE;
    }
  return health.policies ? ask_alone(&health, probe) : ask_running(&health);
}
