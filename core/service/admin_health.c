/* POST /api/v1/health: checks of targets, now; a few at once, more are 429. Declared in admin_internal.h. */
#include "admin_internal.h"

#include "health.h"

#include <stdlib.h>

/* RUNS_MAX: each asks PRY_HEALTH_AT_ONCE targets at a time, with the operator's credentials and, for completions, money.
 * Whoever asks in a loop, or from a hundred machines at once, must not become the providers' problem. */
enum { TIMEOUT_DEFAULT = 5, TIMEOUT_MAX = 60, RUNS_MAX = 4 };

struct health_request {
  struct pry_admin_request request;
  struct pry_health_run *run;
};

/* Texts, each with a NUL behind it. */
struct names {
  struct pry_buffer text;
  size_t count;
  bool ok;
};

static void add_name(void *user, const char *target)
{
  struct names *names = user;
  names->ok = names->ok && pry_buffer_append(&names->text, target, strlen(target) + 1);
  names->count++;
}

static int hex_digit(char c)
{
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

/* RFC 3986 §2.1. False: no target could be called so. */
static bool decode(struct pry_slice given, char *text, size_t size)
{
  size_t length = 0;
  for (size_t i = 0; i < given.size; i++) {
    char c = given.data[i];
    if (c == '%') {
      int high = i + 2 < given.size ? hex_digit(given.data[i + 1]) : -1;
      int low = high >= 0 ? hex_digit(given.data[i + 2]) : -1;
      if (low < 0)
        return false;
      c = (char)(high * 16 + low);
      i += 2;
    }
    if (!c || length + 1 >= size)
      return false;
    text[length++] = c;
  }
  text[length] = '\0';
  return length > 0;
}

/* Every target= of the query. False: one of them is none. */
static bool read_targets(struct pry_slice query, struct names *names)
{
  struct pry_slice value;
  while (pry_admin_query_text(query, "target", &value)) {
    char target[PRY_TARGET_MAX];
    if (names->count == PRY_HEALTH_TARGETS_MAX || !decode(value, target, sizeof target))
      return false;
    add_name(names, target);
    size_t used = (size_t)(value.data + value.size - query.data);
    query = (struct pry_slice){query.data + used, query.size - used};
  }
  return true;
}

static void abandon(struct pry_admin_request *request)
{
  struct health_request *asked = PRY_CONTAINER_OF(request, struct health_request, request);
  pry_list_remove(&request->link);
  request->admin->health_runs--;
  pry_health_cancel(asked->run);
  free(asked);
}

static void checked(void *user, const struct pry_health_result *results, size_t count)
{
  struct health_request *asked = user;
  struct pry_exchange *exchange = asked->request.exchange;
  struct pry_buffer body;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_health_json(results, count, &body);
  asked->run = NULL; /* it frees itself */
  abandon(&asked->request);
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, &body);
}

static struct pry_health_run *begin(struct pry_admin *admin, const struct pry_health_options *options,
                                    const struct names *names, struct health_request *asked)
{
  const char *targets[PRY_HEALTH_TARGETS_MAX];
  size_t count = 0;
  for (size_t at = 0; at < names->text.size; at += strlen(names->text.data + at) + 1)
    targets[count++] = names->text.data + at;
  struct pry_worker *control = admin->engine->control;
  return pry_health_start(control, control->state, options, targets, count, checked, asked);
}

/* NULL, or what is wrong with the question. */
static const char *read_query(struct pry_slice query, struct pry_health_options *options, struct names *names)
{
  struct pry_slice probe;
  double timeout;
  if (pry_admin_query_text(query, "probe", &probe) && !pry_health_probe_from_name(probe, &options->probe))
    return "probe is models, completion or connect";
  if (!pry_admin_query_number(query, "timeout", TIMEOUT_DEFAULT, TIMEOUT_MAX, &timeout))
    return "timeout is seconds, such as 5 or 0.5";
  options->timeout = pry_time_from_seconds(timeout);
  if (!read_targets(query, names))
    return "target is \"provider\" or \"provider/model\", percent-encoded; at most 256 of them";
  return NULL;
}

struct pry_admin_request *pry_admin_start_health(struct pry_admin *admin, struct pry_exchange *exchange,
                                                 struct pry_slice query)
{
  struct pry_health_options options = {.probe = PRY_PROBE_MODELS};
  struct names names = {.ok = true};
  pry_buffer_init(&names.text, 0);
  struct health_request *asked = NULL;
  pry_worker_adopt(admin->engine->control);
  struct pry_state *state = admin->engine->control->state;
  const char *wrong = read_query(query, &options, &names);
  if (wrong) {
    pry_admin_problem(exchange, 400, "Bad Request", wrong, PRY_SLICE(""), NULL);
    goto done;
  }
  if (admin->health_runs == RUNS_MAX) {
    pry_admin_problem(exchange, 429, "Too Many Requests",
                      "as many checks as may run at once are running; ask again soon", PRY_SLICE("Retry-After"), "1");
    goto done;
  }
  if (state && !names.count)
    pry_health_targets(state->generation->config, add_name, &names);
  asked = state && names.ok ? calloc(1, sizeof *asked) : NULL;
  if (asked)
    asked->run = begin(admin, &options, &names, asked);
  if (asked && asked->run) {
    pry_admin_add_request(&asked->request, admin, exchange, abandon);
    admin->health_runs++;
  } else {
    free(asked);
    asked = NULL;
    pry_admin_problem(exchange, 503, "Service Unavailable", "no policies are loaded, or memory is short", PRY_SLICE(""),
                      NULL);
  }
done:
  pry_buffer_fini(&names.text);
  return asked ? &asked->request : NULL;
}
