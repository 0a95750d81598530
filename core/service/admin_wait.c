/* Requests to the admin listener whose answer takes time. Declared in admin_internal.h. */
#include "admin_internal.h"

#include <stdlib.h>

#define ROUND_LIMIT (500 * PRY_MILLISECOND)

void pry_admin_add_request(struct pry_admin_request *request, struct pry_admin *admin, struct pry_exchange *exchange,
                           void (*abandon)(struct pry_admin_request *request))
{
  request->admin = admin;
  request->exchange = exchange;
  request->abandon = abandon;
  pry_list_init(&request->link);
  pry_list_push(&admin->waiting, &request->link);
}

static void answer_no_memory(struct pry_exchange *exchange)
{
  pry_admin_problem(exchange, 503, "Service Unavailable", "memory is short", PRY_SLICE(""), NULL);
}

/* ---- a reload ---------------------------------------------------------------------------------------------------- */

struct reload_request {
  struct pry_admin_request request;
  struct pry_reload_waiter waiter;
  struct pry_timer timer;
};

static void abandon_reload(struct pry_admin_request *request)
{
  struct reload_request *reload = PRY_CONTAINER_OF(request, struct reload_request, request);
  pry_list_remove(&request->link);
  pry_reload_leave(&reload->waiter);
  pry_timer_cancel(&reload->timer);
  free(reload);
}

static void answer_reload(struct reload_request *reload, const struct pry_reload_outcome *outcome)
{
  const struct pry_admin *admin = reload->request.admin;
  struct pry_exchange *exchange = reload->request.exchange;
  struct pry_buffer body;
  int status = !outcome ? 202 : outcome->result == PRY_RELOAD_REFUSED ? 409 : 200;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_reload(admin, outcome, &body);
  abandon_reload(&reload->request);
  pry_admin_reply(exchange, status, PRY_ADMIN_JSON, built, &body);
}

static void reload_ended(void *user, const struct pry_reload_outcome *outcome)
{
  answer_reload(user, outcome);
}

static void reload_took_too_long(void *user)
{
  answer_reload(user, NULL);
}

struct pry_admin_request *pry_admin_start_reload(struct pry_admin *admin, struct pry_exchange *exchange, double wait)
{
  struct reload_request *reload = admin->reloader ? calloc(1, sizeof *reload) : NULL;
  if (!reload || !pry_timer_start(admin->engine->control->loop, &reload->timer, pry_time_from_seconds(wait),
                                  reload_took_too_long, reload)) {
    free(reload);
    pry_admin_problem(exchange, 503, "Service Unavailable", "nothing here can be reloaded, or memory is short",
                      PRY_SLICE(""), NULL);
    return NULL;
  }
  pry_admin_add_request(&reload->request, admin, exchange, abandon_reload);
  pry_reloader_request(admin->reloader, &reload->waiter, reload_ended, reload);
  return &reload->request;
}

/* ---- a test of a sink --------------------------------------------------------------------------------------------- */

struct alert_request {
  struct pry_admin_request request;
  struct pry_alert_test *test;
  char sink[64];
};

static void free_alert_request(struct alert_request *asked)
{
  pry_list_remove(&asked->request.link);
  free(asked);
}

static void abandon_alert_test(struct pry_admin_request *request)
{
  struct alert_request *asked = PRY_CONTAINER_OF(request, struct alert_request, request);
  pry_alert_test_cancel(asked->test);
  free_alert_request(asked);
}

static void reply_alert_test(struct pry_exchange *exchange, int status, struct pry_slice sink, bool accepted,
                             const char *why)
{
  struct pry_buffer body;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_buffer_append_text(&body, "{\"sink\":\"") && pry_buffer_append_json(&body, sink) &&
               pry_buffer_append_format(&body, "\",\"accepted\":%s,\"error\":\"", accepted ? "true" : "false") &&
               pry_buffer_append_json(&body, pry_slice_of(why)) && pry_buffer_append_text(&body, "\"}\n");
  pry_admin_reply(exchange, status, PRY_ADMIN_JSON, built, &body);
}

static void alert_test_ended(void *user, const struct pry_alert_test_result *result)
{
  struct alert_request *asked = user;
  reply_alert_test(asked->request.exchange, 200, pry_slice_of(asked->sink), result->accepted, result->why);
  free_alert_request(asked);
}

struct pry_admin_request *pry_admin_start_alert_test(struct pry_admin *admin, struct pry_exchange *exchange,
                                                     struct pry_slice sink)
{
  char why[200] = "there is no sink of that name in init.lua";
  struct alert_request *asked = calloc(1, sizeof *asked);
  if (!asked) {
    answer_no_memory(exchange);
    return NULL;
  }
  if (sink.size >= sizeof asked->sink)
    sink.size = sizeof asked->sink - 1; /* no name is so long */
  memcpy(asked->sink, sink.data, sink.size);
  const struct pry_generation *generation = pry_engine_generation(admin->engine);
  const struct pry_sink_config *config = generation ? pry_config_sink(generation->config, asked->sink) : NULL;
  if (config)
    asked->test = pry_alerts_test(admin->engine->alerts, config, why, alert_test_ended, asked);
  if (!asked->test) {
    free(asked);
    reply_alert_test(exchange, 409, sink, false, why);
    return NULL;
  }
  pry_admin_add_request(&asked->request, admin, exchange, abandon_alert_test);
  return &asked->request;
}

/* ---- what every worker is asked for ------------------------------------------------------------------------------- */

struct round_request {
  struct pry_admin_request request;
  struct pry_round *round;
  size_t limit; /* of events */
};

static void free_round_request(struct round_request *asked)
{
  pry_list_remove(&asked->request.link);
  free(asked);
}

static void abandon_round(struct pry_admin_request *request)
{
  struct round_request *asked = PRY_CONTAINER_OF(request, struct round_request, request);
  pry_round_cancel(asked->round);
  free_round_request(asked);
}

static void reply_round(struct round_request *asked, bool built, struct pry_buffer *body)
{
  struct pry_exchange *exchange = asked->request.exchange;
  free_round_request(asked);
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, body);
}

static void status_gathered(void *user, const struct pry_round_answer *answers, size_t count)
{
  struct round_request *asked = user;
  struct pry_buffer body;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_status(asked->request.admin, answers, count, &body);
  reply_round(asked, built, &body);
}

static void events_gathered(void *user, const struct pry_round_answer *answers, size_t count)
{
  struct round_request *asked = user;
  struct pry_buffer body;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_events(answers, count, asked->limit, &body);
  reply_round(asked, built, &body);
}

static struct pry_admin_request *start_round(struct pry_admin *admin, struct pry_exchange *exchange,
                                             const struct pry_round_ops *ops, size_t limit)
{
  struct round_request *asked = calloc(1, sizeof *asked);
  if (asked)
    asked->round = pry_round_start(admin->engine, ops, &limit, sizeof limit, PRY_ADMIN_ANSWER_MAX, ROUND_LIMIT, asked);
  if (!asked || !asked->round) {
    free(asked);
    answer_no_memory(exchange);
    return NULL;
  }
  asked->limit = limit;
  pry_admin_add_request(&asked->request, admin, exchange, abandon_round);
  return &asked->request;
}

struct pry_admin_request *pry_admin_start_status(struct pry_admin *admin, struct pry_exchange *exchange)
{
  static const struct pry_round_ops ops = {pry_admin_visit_status, status_gathered};
  return start_round(admin, exchange, &ops, 0);
}

struct pry_admin_request *pry_admin_start_events(struct pry_admin *admin, struct pry_exchange *exchange, size_t limit)
{
  static const struct pry_round_ops ops = {pry_admin_visit_events, events_gathered};
  return start_round(admin, exchange, &ops, limit);
}
