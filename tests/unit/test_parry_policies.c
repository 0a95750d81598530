/* Policies of an engine of a host: from a folder or a text, reloaded when asked and by themselves, refused, rolled back;
 * what is told about it. Both drives, nothing sleeps. */
#include "parry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define INIT                                                                                                           \
  "provider \"p\" { base_url = \"http://127.0.0.1:1/v1\", dialect = \"openai\", auth = bearer(secret \"HOST_KEY\") "   \
  "}\n"                                                                                                                \
  "route \"/v1/*\" { to = \"p\", chain = { %s } }\n"

struct host {
  char folder[64];
  parry *engine;
  unsigned told, refused, rolled_back;
  char findings[1024], generation[65];
};

static void write_file(const struct host *host, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void write_file(const struct host *host, const char *name, const char *format, ...)
{
  char path[128];
  va_list arguments;
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  va_start(arguments, format);
  assert_true(vfprintf(file, format, arguments) >= 0);
  va_end(arguments);
  assert_int_equal(fclose(file), 0);
}

static void reloaded(void *user, const struct parry_reload_info *info)
{
  struct host *host = user;
  host->told++;
  host->refused += info->error == PARRY_EPOLICY;
  host->rolled_back += info->rolled_back != 0;
  snprintf(host->findings, sizeof host->findings, "%s", info->findings);
  snprintf(host->generation, sizeof host->generation, "%s", info->generation);
}

static struct parry_options options_of(struct host *host)
{
  static const struct parry_header secret = {"HOST_KEY", "sesame-opens"};
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.policy_dir = host->folder;
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  options.secrets = &secret;
  options.secret_count = 1;
  options.reloaded = reloaded;
  options.user = host;
  return options;
}

static int set_up(void **state)
{
  static struct host host;
  host = (struct host){.folder = "/tmp/test_parry_policies.XXXXXX"};
  assert_non_null(mkdtemp(host.folder));
  write_file(&host, "init.lua", INIT, "use \"retry\" { base = 0.5 }");
  *state = &host;
  return 0;
}

static int tear_down(void **state)
{
  struct host *host = *state;
  char command[96];
  parry_free(host->engine);
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  return system(command);
}

static void start(struct host *host, const struct parry_options *options)
{
  int error = parry_new(&host->engine, options);
  char findings[1024];
  parry_findings(host->engine, findings, sizeof findings);
  assert_string_equal(findings, "");
  assert_int_equal(error, PARRY_OK);
}

static int action(struct host *host)
{
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  event.status = 503;
  event.target = "p/m";
  assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
  return decision.action;
}

static struct parry_status status_of(struct host *host)
{
  struct parry_status status = PARRY_STATUS_INIT;
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  return status;
}

static void run_until_told(struct host *host, unsigned told)
{
  for (unsigned i = 0; i < 1000 && host->told < told; i++)
    assert_true(parry_run(host->engine, 10) >= 0);
  assert_int_equal(host->told, told);
}

/* ---- the first load ---------------------------------------------------------------------------------------- */

static void a_folder_needs_only_an_init_lua(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  start(host, &options);
  assert_int_equal(action(host), PARRY_RETRY);
  struct parry_status status = status_of(host);
  assert_int_equal(strlen(status.generation), 64);
  assert_string_equal(status.version, PARRY_VERSION);
  assert_true(status.policies >= 1 && status.loaded_at > 0);
}

static void a_text_needs_no_folder(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  char init[512];
  snprintf(init, sizeof init, INIT, "use \"retry\"");
  options.policy_dir = NULL;
  options.init_lua = init;
  options.watch = 1; /* of nothing */
  start(host, &options);
  memset(init, 0, sizeof init); /* copied */
  assert_int_equal(action(host), PARRY_RETRY);
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  assert_int_equal(status_of(host).reloads, 0); /* nothing had changed */
}

static void a_folder_or_a_text_and_not_both(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  options.init_lua = "x";
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  options.policy_dir = options.init_lua = NULL;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  assert_null(host->engine);
}

static void without_shipped_policies_a_folder_is_alone(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  char findings[1024];
  options.share_dir = "";
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EPOLICY);
  size_t length = parry_findings(host->engine, findings, sizeof findings);
  assert_int_equal(length, strlen(findings));
  assert_non_null(strstr(findings, "init.lua:2: "));
  assert_non_null(strstr(findings, "retry"));
  char cut[8];
  assert_int_equal(parry_findings(host->engine, cut, sizeof cut), length);
  assert_int_equal(strlen(cut), 7);
  assert_int_equal(parry_findings(host->engine, NULL, 0), length);
  assert_int_equal(parry_reload(host->engine, 1), PARRY_EPOLICY);
}

static void a_missing_secret_is_a_finding_and_a_given_one_is_none(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  char findings[1024];
  options.secret_count = 0;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  assert_true(parry_findings(host->engine, findings, sizeof findings) > 0);
  assert_non_null(strstr(findings, "HOST_KEY"));
  parry_free(host->engine);
  struct parry_header half = {"HOST_KEY", NULL};
  options.secrets = &half;
  options.secret_count = 1;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
}

/* ---- reloading --------------------------------------------------------------------------------------------- */

static void take_over_and_refuse(struct host *host)
{
  char before[65];
  snprintf(before, sizeof before, "%s", status_of(host).generation);
  write_file(host, "init.lua", INIT, "");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  assert_int_equal(action(host), PARRY_FAIL);
  assert_string_not_equal(status_of(host).generation, before);
  assert_int_equal(status_of(host).reloads, 1);

  char findings[1024];
  write_file(host, "init.lua", INIT, "use \"retry\" { base = -1 }");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_EPOLICY);
  parry_findings(host->engine, findings, sizeof findings);
  assert_non_null(strstr(findings, "init.lua:2: "));
  assert_int_equal(action(host), PARRY_FAIL);
  assert_int_equal(status_of(host).reloads_refused, 1);
  run_until_told(host, 2);
  assert_int_equal(host->refused, 1);
  assert_string_equal(host->findings, findings);
  assert_string_equal(host->generation, status_of(host).generation);
}

static void a_reload_is_waited_for(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  start(host, &options);
  take_over_and_refuse(host);
}

static void a_reload_is_waited_for_with_threads(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  options.threads = 2;
  start(host, &options);
  take_over_and_refuse(host);
}

static void a_reload_that_nobody_waits_for_is_told(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  start(host, &options);
  write_file(host, "init.lua", INIT, "");
  assert_int_equal(parry_reload(host->engine, 0), PARRY_OK);
  run_until_told(host, 1);
  assert_int_equal(host->refused, 0);
  assert_int_equal(action(host), PARRY_FAIL);
}

static void a_save_goes_live_by_itself(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  options.watch = 1;
  start(host, &options);
  assert_int_equal(action(host), PARRY_RETRY);
  write_file(host, "init.lua", INIT, "");
  run_until_told(host, 1);
  assert_int_equal(action(host), PARRY_FAIL);
  write_file(host, "init.lua", INIT, "use \"no_such\"");
  run_until_told(host, 2);
  assert_int_equal(host->refused, 1);
  assert_int_equal(action(host), PARRY_FAIL);
}

/* 20 faults of 20 runs, within a second of the guard's: the set before comes back, and the bad one stays out. */
static void a_set_that_faults_is_rolled_back_and_kept_out(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  start(host, &options);
  write_file(host, "bad.lua", "return policy { name = \"bad\", on_error = function() error \"no\" end }\n");
  write_file(host, "init.lua", INIT, "use \"bad\"");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  run_until_told(host, 1);
  for (unsigned i = 0; i < 25; i++)
    assert_int_equal(action(host), PARRY_FAIL);
  assert_true(status_of(host).policy_faults >= 25);
  run_until_told(host, 2);
  assert_int_equal(host->rolled_back, 1);
  assert_non_null(strstr(host->findings, "rolled back"));
  assert_int_equal(action(host), PARRY_RETRY);
  assert_int_equal(status_of(host).rollbacks, 1);
  assert_int_equal(parry_reload(host->engine, 1), PARRY_EPOLICY);
  assert_int_equal(action(host), PARRY_RETRY);
}

static void reload_in_a_callback(void *user, const struct parry_reload_info *info)
{
  struct host *host = user;
  (void)info;
  host->told++;
  host->refused = parry_reload(host->engine, 1) == PARRY_EREENTRANT;
}

static void a_callback_may_not_wait_for_what_it_drives(void **state)
{
  struct host *host = *state;
  struct parry_options options = options_of(host);
  options.reloaded = reload_in_a_callback;
  start(host, &options);
  write_file(host, "init.lua", INIT, "");
  assert_int_equal(parry_reload(host->engine, 0), PARRY_OK);
  run_until_told(host, 1);
  assert_int_equal(host->refused, 1);
}

#define HOST_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      HOST_TEST(a_folder_needs_only_an_init_lua),
      HOST_TEST(a_text_needs_no_folder),
      HOST_TEST(a_folder_or_a_text_and_not_both),
      HOST_TEST(without_shipped_policies_a_folder_is_alone),
      HOST_TEST(a_missing_secret_is_a_finding_and_a_given_one_is_none),
      HOST_TEST(a_reload_is_waited_for),
      HOST_TEST(a_reload_is_waited_for_with_threads),
      HOST_TEST(a_reload_that_nobody_waits_for_is_told),
      HOST_TEST(a_save_goes_live_by_itself),
      HOST_TEST(a_set_that_faults_is_rolled_back_and_kept_out),
      HOST_TEST(a_callback_may_not_wait_for_what_it_drives),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
