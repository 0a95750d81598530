/* Alerts on their way to each kind of sink, with each allocation and system call failing: whoever notifies goes on, what
 * was queued is delivered or given up, a test is answered once, and when all works again, so do alerts. */
#include "../unit/sink_rig.h"
#include "fail.h"

static const struct pry_sink_config webhook = {.name = "ops", .kind = "webhook", .url = &hook, .sign = &signing};

/* The mailer is not what is tested, but it may have no memory. */
static struct pry_mail_sending *start_mail(struct pry_mailer *base, const struct pry_mail *given, pry_mail_done done,
                                           void *user)
{
  void *needed = malloc(1);
  if (!needed)
    return NULL;
  free(needed);
  fail_quiet();
  struct pry_mail_sending *sending = fake_start(base, given, done, user);
  fail_loud();
  return sending;
}

static const struct pry_mail_driver mailing = {start_mail, fake_cancel, fake_free};

static struct world *open_world(const char *answer)
{
  fail_quiet();
  struct world *world = new_world();
  world->mailer->base.driver = &mailing;
  always(world, 200, answer);
  fail_loud();
  return world;
}

static void raise(struct world *world, const struct pry_sink_config *sink, const char *key)
{
  static const struct pry_alert_field fields[] = {{PRY_SLICE_INIT("route"), PRY_SLICE_INIT("/v1/*")}};
  notify(world, sink,
         (struct pry_alert){.key = pry_slice_of(key),
                            .text = PRY_SLICE("it is \"bad\""),
                            .title = PRY_SLICE("p fails"),
                            .cause = PRY_SLICE("server, HTTP 500"),
                            .sample = PRY_SLICE("c_0_1"),
                            .client = PRY_SLICE("somebody"),
                            .fields = fields,
                            .field_count = 1,
                            .severity = PRY_ALERT_CRITICAL,
                            .generation = "abcdef"});
}

/* Raised, raised again, resolved, and all of it listed; then the same without a failure. */
static void tell(const struct pry_sink_config *sink, const char *answer)
{
  struct world *world = open_world(answer);
  struct pry_buffer list;
  pry_buffer_init(&list, 0);
  for (int i = 0; i < 2; i++)
    raise(world, sink, i ? "b" : "a");
  wait(world, 2 * MINUTE);
  raise(world, sink, "a");
  if (pry_alerts_list(world->alerts, &list))
    FAIL_CHECK(pry_json_parse(pry_buffer_slice(&list), NULL) == PRY_JSON_OK);
  resolve(world, sink, "a");
  wait(world, 10 * MINUTE);
  FAIL_CHECK(pry_alerts_queued(world->alerts) == 0);
  fail_over();
  double delivered = counted(world, "delivered");
  raise(world, sink, "c");
  wait(world, 10 * MINUTE);
  FAIL_CHECK(counted(world, "delivered") > delivered && pry_alerts_queued(world->alerts) == 0);
  pry_buffer_fini(&list);
  free_world(world);
}

#define DONE_WELL "{\"StatusCode\":0,\"code\":0,\"errcode\":0,\"errmsg\":\"ok\"}"

static void tell_webhook(void)
{
  tell(&webhook, NULL);
}

static void tell_slack(void)
{
  tell(&slack, "ok");
}

static void tell_feishu(void)
{
  tell(&feishu, DONE_WELL);
}

static void tell_dingtalk(void)
{
  tell(&dingtalk, DONE_WELL);
}

static void tell_wecom(void)
{
  tell(&wecom, DONE_WELL);
}

static void tell_pagerduty(void)
{
  tell(&pagerduty, "{\"status\":\"success\"}");
}

static void tell_sentry(void)
{
  tell(&sentry, "{\"id\":\"x\"}");
}

static void tell_by_mail(void)
{
  tell(&mail, NULL);
}

/* ---- a sink that is tried ---------------------------------------------------------------------------------- */

static void on_tried(void *user, const struct pry_alert_test_result *result)
{
  FAIL_CHECK(result->accepted || *result->why);
  ++*(unsigned *)user;
}

static void try_sinks(void)
{
  const struct pry_sink_config *const sinks[] = {&webhook, &feishu, &mail};
  struct world *world = open_world(DONE_WELL);
  for (size_t i = 0; i < sizeof sinks / sizeof *sinks; i++) {
    char why[200] = "";
    unsigned told = 0;
    struct pry_alert_test *test = pry_alerts_test(world->alerts, sinks[i], why, on_tried, &told);
    FAIL_CHECK(test || (fail_struck() && *why));
    wait(world, 2 * MINUTE);
    FAIL_CHECK(told == (test != NULL));
  }
  fail_over();
  char why[200] = "";
  unsigned told = 0;
  FAIL_CHECK(pry_alerts_test(world->alerts, &feishu, why, on_tried, &told));
  wait(world, 2 * MINUTE);
  FAIL_CHECK(told == 1);
  free_world(world);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"webhook", tell_webhook, FAIL_BOTH, 200},   {"slack", tell_slack, FAIL_MEMORY, 200},
      {"feishu", tell_feishu, FAIL_BOTH, 200},     {"dingtalk", tell_dingtalk, FAIL_MEMORY, 200},
      {"wecom", tell_wecom, FAIL_MEMORY, 200},     {"pagerduty", tell_pagerduty, FAIL_MEMORY, 200},
      {"sentry", tell_sentry, FAIL_MEMORY, 200},   {"mail", tell_by_mail, FAIL_MEMORY, 200},
      {"a sink tried", try_sinks, FAIL_BOTH, 200},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
