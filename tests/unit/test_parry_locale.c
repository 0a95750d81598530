/* A host that speaks German: setlocale(LC_ALL, "") gave it decimal commas, and with them every number that policies put
 * into text or JSON, all metrics with a fraction, and log lines that were no JSON any more. */
#include "parry_rig.h"

#include <locale.h>
#include <sys/stat.h>

static const char numbers[] =
    "return policy { name = 'again',\n"
    "  on_error = function(self, call, err)\n"
    "    log.info('numbers', { third = 1 / 3, big = 1e300 })\n"
    "    local answer = host.call('ask', { half = 0.5 })\n"
    "    local text = ('%s %.2f %s %s %s'):format(0.5, 0.25, 2.0, json.encode(0.125), tonumber('1.5') + "
    "json.decode('0.25'))\n"
    "    return retry { after = 1.5, why = text .. ' ' .. tostring(answer and answer.quarter) }\n"
    "  end }\n";

#define WHY "0.5 0.25 2.0 0.125 1.75 0.25"

static char locales[64]; /* a folder */

/* Debian has the sources of all locales in the package `locales`, which may be absent; then there is nothing to see. */
static int make_locale(void **state)
{
  char command[256];
  (void)state;
  strcpy(locales, "/tmp/test_parry_locale.XXXXXX");
  assert_non_null(mkdtemp(locales));
  snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >%s/said 2>&1", locales, locales);
  (void)!system(command);
  setenv("LOCPATH", locales, 1);
  return 0;
}

static int drop_locale(void **state)
{
  char command[96];
  (void)state;
  setlocale(LC_ALL, "C");
  snprintf(command, sizeof command, "rm -r %s", locales);
  return system(command);
}

static bool has_commas(void)
{
  char text[8];
  snprintf(text, sizeof text, "%.1f", 0.5);
  return strcmp(text, "0,5") == 0;
}

static void need_commas(void)
{
  setlocale(LC_ALL, "de_DE.UTF-8");
  if (!has_commas())
    skip();
}

/* ---- what the host is told ----------------------------------------------------------------------------------- */

struct seen {
  parry *engine;
  unsigned lines, wrong_lines, calls_with_commas, readies;
  char arguments[64], why[256];
};

static void on_log(void *user, int level, const char *line, size_t size)
{
  struct seen *seen = user;
  (void)level, (void)size;
  if (!strstr(line, "\"numbers\""))
    return;
  seen->lines++;
  seen->wrong_lines += !strstr(line, "\"third\":0.333333333333333") || !strstr(line, "1e+300");
  RIG_CHECK(has_commas()); /* the host's locale is its own in its callbacks */
}

static void on_ask(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct seen *seen = user;
  (void)size;
  seen->calls_with_commas += has_commas();
  snprintf(seen->arguments, sizeof seen->arguments, "%s", arguments);
  RIG_CHECK(parry_reply(seen->engine, request, "{\"quarter\":0.25}", NULL) == PARRY_OK);
}

static void on_ready(void *user, const struct parry_decision *decision)
{
  struct seen *seen = user;
  RIG_CHECK(decision->action == PARRY_RETRY && decision->after == 1.5);
  snprintf(seen->why, sizeof seen->why, "%s", decision->why);
  seen->readies++;
}

struct samples {
  bool bound, fraction;
};

static void see_sample(void *user, const struct parry_sample *sample)
{
  struct samples *samples = user;
  RIG_CHECK(!strstr(sample->labels, "le=\"0,"));
  samples->bound = samples->bound || strstr(sample->labels, "le=\"0.");
  samples->fraction = samples->fraction || (sample->value > 0 && sample->value < 1);
}

static void start(struct rig_host *host, struct seen *seen)
{
  struct parry_options options = rig_options(host);
  options.log = on_log;
  options.user = seen;
  need_commas();
  rig_write_file(host, "again.lua", numbers);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  assert_true(has_commas());
  seen->engine = host->engine;
}

static void finish(struct rig_host *host, struct seen *seen)
{
  RIG_RUN_UNTIL(host, seen->lines);
  assert_int_equal(seen->wrong_lines, 0);
  assert_string_equal(seen->arguments, "{\"half\":0.5}");
  assert_string_equal(seen->why, WHY);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
  assert_true(has_commas());
}

static void decisions_have_points(void **state)
{
  struct rig_host *host = *state;
  struct seen seen = {0};
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  start(host, &seen);
  event.status = 503;
  event.target = "p/m";
  assert_int_equal(parry_register(host->engine, "ask", on_ask, &seen, 0), PARRY_OK);
  assert_int_equal(parry_decide(host->engine, &event, &decision, on_ready, &seen), PARRY_PENDING);
  assert_true(has_commas());
  RIG_RUN_UNTIL(host, seen.readies);
  assert_int_equal(seen.calls_with_commas, 1);
  assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
  assert_true(has_commas());
  finish(host, &seen);
}

static void decisions_at_once_have_points(void **state)
{
  struct rig_host *host = *state;
  struct seen seen = {0};
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  start(host, &seen);
  event.status = 503;
  assert_int_equal(parry_register(host->engine, "ask", on_ask, &seen, PARRY_ANY_THREAD), PARRY_OK);
  assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
  assert_true(has_commas());
  assert_int_equal(seen.calls_with_commas, 0); /* as on parry's own threads */
  on_ready(&seen, &decision);
  finish(host, &seen);
}

/* Calls, and a reload in between: policies' tests run on threads of their own. */
static void calls_have_points(void **state)
{
  struct rig_host *host = *state;
  struct seen seen = {0};
  struct samples samples = {0};
  start(host, &seen);
  rig_write_file(host, "again_test.lua", "test('numbers', function(t) t:eq(tostring(0.5), '0.5') end)\n");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  assert_true(has_commas());
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
  rig_run_until_done(host);
  assert_string_equal(host->category, "none");
  assert_int_equal(parry_metrics(host->engine, see_sample, &samples), PARRY_OK);
  assert_true(samples.bound && samples.fraction);
  assert_true(has_commas());
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIG_TEST_ALL(decisions_have_points),
      RIG_TEST_ALL(decisions_at_once_have_points),
      RIG_TEST_ALL(calls_have_points),
  };
  return cmocka_run_group_tests(tests, make_locale, drop_locale);
}
