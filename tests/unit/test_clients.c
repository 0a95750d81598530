/* Clients and their limits: what a file may say and how each mistake in it is told, look-ups, the bucket, concurrency
 * and expiry on a clock in the test's hand, and all of it from many threads while the table is swapped under them. */
#include "clients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_A "sk-parry-aaaaaaaaaaaaaaaa"
#define KEY_B "sk-parry-bbbbbbbbbbbbbbbb"

static const double NOON = 1800000000;

/* `%s` is the digest of KEY_A, so that examples stay readable. */
static struct pry_client_table *parse(struct pry_clients *clients, const char *format, struct pry_report *report)
{
  char digest[PRY_CLIENT_DIGEST_TEXT], text[4096];
  assert_true(pry_client_digest(PRY_SLICE(KEY_A), digest));
  snprintf(text, sizeof text, format, digest);
  return pry_client_table_parse(clients, pry_slice_of(text), "clients.json", false, report);
}

static struct pry_clients *clients_of(const char *format)
{
  struct pry_report report;
  struct pry_clients *clients = pry_clients_new();
  assert_non_null(clients);
  pry_report_init(&report);
  struct pry_client_table *table = parse(clients, format, &report);
  if (!table)
    fail_msg("%s: %s", report.findings[0].where, report.findings[0].what);
  pry_clients_install(clients, table);
  pry_report_fini(&report);
  return clients;
}

static enum pry_admission knock(struct pry_clients *clients, const char *key, const char *path, double seconds,
                                struct pry_lease *lease, double *retry_after)
{
  struct pry_slice slice = pry_slice_of(key);
  struct pry_knock at = {.keys = &slice,
                         .key_count = key != NULL,
                         .path = pry_slice_of(path),
                         .now = PRY_SECOND + pry_time_from_seconds(seconds),
                         .unix_time = NOON + seconds};
  return pry_clients_admit(clients, &at, lease, retry_after);
}

/* A call that is over at once. */
static enum pry_admission call_at(struct pry_clients *clients, double seconds, double *retry_after)
{
  struct pry_lease lease;
  enum pry_admission admission = knock(clients, KEY_A, "/v1/chat/completions", seconds, &lease, retry_after);
  pry_lease_release(&lease);
  return admission;
}

/* ---- the file --------------------------------------------------------------------------------------------- */

static const struct {
  const char *text, *findings;
} MISTAKES[] = {
    {"", "clients.json: is not JSON that can be read: not valid JSON\n"},
    {"{\"clients\": [\n{\"name\": \"a\", \"key\": \"%s\"},\n{\"name\": \"b\" \"key\": 1}\n]}",
     "clients.json:3: from here on this cannot be read: not valid JSON\n"},
    {"{\"clients\": [] ,,\n}", "clients.json:1: from here on this cannot be read: not valid JSON\n"},
    {"[]", "clients.json: must be an object with a list: { \"clients\": [ { \"name\": ..., \"key\": ... } ] }\n"},
    {"{\"clients\": {}}",
     "clients.json: must be an object with a list: { \"clients\": [ { \"name\": ..., \"key\": ... } ] }\n"},
    {"{\"clients\": [], \"clients\": []}", "clients.json:1: \"clients\" is there twice\n"},
    {"{\"clients\": [],\n\"client\": []}", "clients.json:2: the file has one field, \"clients\"; this is another\n"},
    {"{\"clients\": [\n\n7]}",
     "clients.json:3: clients[0] must be an object, like { \"name\": \"team-a\", \"key\": \"sha256:...\" }\n"},
    {"{\"clients\": [{\"key\": \"%s\"}]}", "clients.json:1: clients[0] has no name\n"},
    {"{\"clients\": [{\"name\": \"-\", \"key\": \"%s\"}]}",
     "clients.json:1: name may hold letters, digits, '.', '_' and '-', and begins with a letter or digit\n"},
    {"{\"clients\": [{\"name\": \"a\"}]}", "clients.json:1: client \"a\": has no key; `parry client add` makes one\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"secret7\"}]}",
     "clients.json:1: client \"a\": a key must be \"sha256:\" and 64 hexadecimal digits, or 16..512 printable "
     "characters "
     "without spaces; `parry client add` makes one\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"a key with several spaces\"}]}",
     "clients.json:1: client \"a\": a key must be \"sha256:\" and 64 hexadecimal digits, or 16..512 printable "
     "characters "
     "without spaces; `parry client add` makes one\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"sha256:12\"}]}",
     "clients.json:1: client \"a\": a key that begins with \"sha256:\" goes on with 64 hexadecimal digits\n"},
    {"{\"clients\": [{\"name\": \"a\", \"keys\": []}]}", "clients.json:1: client \"a\": keys is empty\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\",\n\"rpm\": 0}]}",
     "clients.json:2: client \"a\": rpm must be a whole number 1..10000000; leave it out for no limit\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\",\n\"rmp\": 5}]}",
     "clients.json:2: client \"a\": this field does not exist; did you mean \"rpm\"?\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\",\n\"zzzzzzzzzz\": 5}]}",
     "clients.json:2: client \"a\": this field does not exist; a client has name, key, keys, rpm, burst, concurrent, "
     "models, routes, expires, enabled, note\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"rpm\": 5, \"rpm\": 6}]}",
     "clients.json:1: client \"a\": has rpm twice\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"burst\": 5}]}",
     "clients.json:1: client \"a\": burst does nothing without rpm\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"models\": []}]}",
     "clients.json:1: client \"a\": models is empty, so nothing would be allowed; leave it out to allow all, or say "
     "\"enabled\": false\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"models\": \"gpt\"}]}",
     "clients.json:1: client \"a\": models must be a list of texts, like [\"gpt-4o*\"]\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"expires\": \"2027-06-31\"}]}",
     "clients.json:1: client \"a\": expires must be a date in UTC, \"2027-01-31\" or \"2027-01-31T12:00:00Z\", or Unix "
     "seconds\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"enabled\": 1}]}",
     "clients.json:1: client \"a\": enabled must be true or false\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"" KEY_A "\"},\n{\"name\": \"b\", \"key\": \"%s\"}]}",
     "clients.json:2: a key is there twice: of \"a\" and of \"b\"\n"},
    {"{\"clients\": [{\"name\": \"a\", \"key\": \"%s\"},\n{\"name\": \"a\", \"key\": \"" KEY_B "\"}]}",
     "clients.json: two clients are named \"a\"\n"},
};

static void each_mistake_is_told_with_its_line(void **unused)
{
  (void)unused;
  struct pry_clients *clients = pry_clients_new();
  for (size_t i = 0; i < sizeof MISTAKES / sizeof *MISTAKES; i++) {
    struct pry_report report;
    struct pry_buffer text;
    pry_report_init(&report);
    pry_buffer_init(&text, 0);
    assert_null(parse(clients, MISTAKES[i].text, &report));
    assert_true(pry_report_text(&report, &text));
    if (strcmp(pry_buffer_text(&text), MISTAKES[i].findings) != 0)
      fail_msg("%s\n--- expected\n%s--- got\n%s", MISTAKES[i].text, MISTAKES[i].findings, pry_buffer_text(&text));
    assert_null(strstr(pry_buffer_text(&text), "secret7"));
    assert_null(strstr(pry_buffer_text(&text), KEY_A));
    pry_buffer_fini(&text);
    pry_report_fini(&report);
  }
  assert_int_equal(pry_clients_open(clients, "a"), 0);
  pry_clients_free(clients);
}

/* What is read of an unfinished file is refused, never taken in part. */
static void every_cut_of_a_file_is_refused(void **unused)
{
  (void)unused;
  static const char WHOLE[] = "{\"clients\": [{\"name\": \"a\", \"keys\": [\"" KEY_A "\"], \"rpm\": 60, \"models\": "
                              "[\"x*\"], \"expires\": \"2027-01-31\", \"enabled\": true, \"note\": \"\\u00e4\"}]}";
  struct pry_clients *clients = pry_clients_new();
  for (size_t size = 0; size <= sizeof WHOLE - 1; size++) {
    struct pry_report report;
    pry_report_init(&report);
    char *copy = malloc(size + 1); /* on the heap, so that a sanitizer sees a byte too many */
    assert_non_null(copy);
    memcpy(copy, WHOLE, size);
    struct pry_client_table *table =
        pry_client_table_parse(clients, (struct pry_slice){copy, size}, "c", false, &report);
    assert_int_equal(table != NULL, size == sizeof WHOLE - 1);
    pry_client_table_unref(table);
    free(copy);
    pry_report_fini(&report);
  }
  pry_clients_free(clients);
}

static void ten_thousand_clients_are_read_and_found(void **unused)
{
  (void)unused;
  struct pry_clients *clients = pry_clients_new();
  struct pry_report report;
  struct pry_buffer text;
  struct pry_lease lease;
  double retry_after;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  pry_buffer_append_text(&text, "{\"clients\": [");
  for (int i = 0; i < PRY_CLIENTS_MAX; i++)
    pry_buffer_append_format(&text, "%s\n{\"name\": \"c%d\", \"key\": \"sk-parry-0123456-%d\"}", i ? "," : "", i, i);
  size_t good = text.size;
  pry_buffer_append_text(&text, "]}");
  struct pry_client_table *table =
      pry_client_table_parse(clients, pry_buffer_slice(&text), "clients.json", true, &report);
  assert_non_null(table);
  assert_int_equal(pry_client_table_count(table), PRY_CLIENTS_MAX);
  assert_int_equal(report.count, 1);
  assert_string_equal(
      report.findings[0].what,
      "10000 keys are written out, and other users of this machine can read the file (chmod 600); write "
      "\"sha256:...\" instead (`parry client add` does)");
  pry_clients_install(clients, table);
  for (int i = 0; i < PRY_CLIENTS_MAX; i += 331) {
    char key[64], name[16];
    snprintf(key, sizeof key, "sk-parry-0123456-%d", i);
    snprintf(name, sizeof name, "c%d", i);
    assert_int_equal(knock(clients, key, "/v1/x", 0, &lease, &retry_after), PRY_ADMITTED);
    assert_string_equal(lease.client->name, name);
    pry_lease_release(&lease);
  }
  text.size = good;
  pry_buffer_append_text(&text, ",\n{\"name\": \"more\", \"key\": \"" KEY_A "\"}]}");
  assert_null(pry_client_table_parse(clients, pry_buffer_slice(&text), "clients.json", true, &report));
  assert_string_equal(report.findings[1].what, "has 10001 clients; at most 10000");
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  pry_clients_free(clients);
}

static void a_file_that_cannot_be_read_says_so(void **unused)
{
  (void)unused;
  static const struct {
    const char *path, *what;
  } PLACES[] = {
      {"/nonexistent/clients.json", "cannot be read: No such file or directory; `parry client add NAME` makes it"},
      {"/tmp", "is not a regular file of at most 4 MiB"},
      {"/dev/zero", "is not a regular file of at most 4 MiB"}};
  struct pry_clients *clients = pry_clients_new();
  for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
    struct pry_report report;
    pry_report_init(&report);
    assert_null(pry_client_table_read(clients, PLACES[i].path, "clients.json", &report));
    assert_int_equal(report.count, 1);
    assert_string_equal(report.findings[0].what, PLACES[i].what);
    pry_report_fini(&report);
  }
  pry_clients_free(clients);
}

static void the_files_mode_matters_for_plain_keys(void **unused)
{
  (void)unused;
  char path[] = "/tmp/parry-clients-XXXXXX";
  int fd = mkstemp(path);
  static const char TEXT[] = "{\"clients\": [{\"name\": \"a\", \"key\": \"" KEY_A "\"}]}";
  struct pry_clients *clients = pry_clients_new();
  assert_int_equal(write(fd, TEXT, sizeof TEXT - 1), sizeof TEXT - 1);
  for (int open = 0; open < 2; open++) {
    struct pry_report report;
    pry_report_init(&report);
    assert_int_equal(fchmod(fd, open ? 0644 : 0600), 0);
    struct pry_client_table *table = pry_client_table_read(clients, path, "clients.json", &report);
    assert_non_null(table);
    assert_int_equal(report.count, 1);
    assert_int_equal(strstr(report.findings[0].what, "other users") != NULL, open);
    pry_client_table_unref(table);
    pry_report_fini(&report);
  }
  close(fd);
  unlink(path);
  pry_clients_free(clients);
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

static void keys_are_found_hashed_or_plain_and_no_others(void **unused)
{
  (void)unused;
  struct pry_clients *clients =
      clients_of("{\"clients\": [{\"name\": \"a\", \"key\": \"%s\"}, {\"name\": \"b\", \"keys\": "
                 "[\"" KEY_B "\", \"sk-parry-the-old-one-of-b\"]}]}");
  static const struct {
    const char *key, *name;
  } KEYS[] = {{KEY_A, "a"},      {KEY_B, "b"},        {"sk-parry-the-old-one-of-b", "b"},
              {KEY_A "a", NULL}, {"sk-parry-", NULL}, {"sha256:", NULL}};
  struct pry_lease lease;
  double retry_after;
  for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
    enum pry_admission admission = knock(clients, KEYS[i].key, "/v1/x", 0, &lease, &retry_after);
    assert_int_equal(admission, KEYS[i].name ? PRY_ADMITTED : PRY_ADMISSION_UNKNOWN_KEY);
    if (KEYS[i].name)
      assert_string_equal(lease.client->name, KEYS[i].name);
    pry_lease_release(&lease);
  }
  char digest[PRY_CLIENT_DIGEST_TEXT]; /* what stands in the file is no key */
  pry_client_digest(PRY_SLICE(KEY_A), digest);
  assert_int_equal(knock(clients, digest, "/v1/x", 0, &lease, &retry_after), PRY_ADMISSION_UNKNOWN_KEY);
  pry_lease_release(&lease);
  assert_int_equal(knock(clients, NULL, "/v1/x", 0, &lease, &retry_after), PRY_ADMISSION_NO_KEY);
  pry_lease_release(&lease);
  char *long_key = calloc(1, PRY_CLIENT_KEY_MAX + 2);
  memset(long_key, 'k', PRY_CLIENT_KEY_MAX + 1);
  assert_int_equal(knock(clients, long_key, "/v1/x", 0, &lease, &retry_after), PRY_ADMISSION_UNKNOWN_KEY);
  pry_lease_release(&lease);
  free(long_key);
  pry_clients_free(clients);
}

static void before_a_file_was_read_nobody_is_known(void **unused)
{
  (void)unused;
  struct pry_clients *clients = pry_clients_new();
  struct pry_lease lease;
  double retry_after;
  assert_int_equal(knock(clients, KEY_A, "/v1/x", 0, &lease, &retry_after), PRY_ADMISSION_NOT_LOADED);
  pry_lease_release(&lease);
  assert_false(pry_clients_loaded(clients));
  pry_clients_free(clients);
}

/* ---- limits ----------------------------------------------------------------------------------------------- */

static void the_bucket_gives_its_burst_then_its_rate(void **unused)
{
  (void)unused;
  double retry_after;
  struct pry_clients *clients =
      clients_of("{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"rpm\": 30, \"burst\": 3}]}");
  for (int i = 0; i < 3; i++)
    assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMITTED);
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_RATE);
  assert_true(fabs(retry_after - 2) < 1e-6);
  assert_int_equal(call_at(clients, 1.5, &retry_after), PRY_ADMISSION_RATE);
  assert_true(fabs(retry_after - 0.5) < 1e-6);
  assert_int_equal(call_at(clients, 2, &retry_after), PRY_ADMITTED);
  assert_int_equal(call_at(clients, 1.9, &retry_after), PRY_ADMISSION_RATE); /* another worker's clock */
  int admitted = 0;
  for (int i = 0; i < 6000; i++) /* 60 s in steps of 10 ms: exactly the rate */
    admitted += call_at(clients, 2 + i / 100.0, &retry_after) == PRY_ADMITTED;
  assert_in_range(admitted, 29, 30);
  for (int i = 0; i < 3; i++) /* a quiet hour fills the bucket, not more */
    assert_int_equal(call_at(clients, 4000, &retry_after), PRY_ADMITTED);
  assert_int_equal(call_at(clients, 4000, &retry_after), PRY_ADMISSION_RATE);
  pry_clients_free(clients);
}

static void without_a_burst_a_minute_fits_in_at_once(void **unused)
{
  (void)unused;
  double retry_after;
  struct pry_clients *clients = clients_of("{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"rpm\": 7}]}");
  for (int i = 0; i < 7; i++)
    assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMITTED);
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_RATE);
  pry_clients_free(clients);
}

static void open_calls_are_counted_and_refused_ones_cost_no_rate(void **unused)
{
  (void)unused;
  double retry_after;
  struct pry_lease leases[2], lease;
  struct pry_clients *clients =
      clients_of("{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"rpm\": 3, \"concurrent\": 2}]}");
  for (int i = 0; i < 2; i++)
    assert_int_equal(knock(clients, KEY_A, "/v1/x", 0, &leases[i], &retry_after), PRY_ADMITTED);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(knock(clients, KEY_A, "/v1/x", 0, &lease, &retry_after), PRY_ADMISSION_CONCURRENT);
    assert_true(retry_after == 1);
    assert_string_equal(lease.client->name, "a");
    pry_lease_release(&lease);
    pry_lease_release(&lease); /* safe twice */
  }
  assert_int_equal(pry_clients_open(clients, "a"), 2);
  pry_lease_release(&leases[0]);
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMITTED);
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_RATE);
  pry_lease_release(&leases[1]);
  assert_int_equal(pry_clients_open(clients, "a"), 0);
  pry_clients_free(clients);
}

static void who_is_disabled_expired_or_elsewhere_is_told_apart(void **unused)
{
  (void)unused;
  double retry_after;
  struct pry_lease lease;
  struct pry_clients *clients = clients_of(
      "{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"expires\": 1800000100, \"routes\": [\"/v1/chat/*\"]}, "
      "{\"name\": \"b\", \"key\": \"" KEY_B "\", \"enabled\": false}, "
      "{\"name\": \"c\", \"key\": \"sk-parry-cccccccccccccccc\", \"expires\": \"2027-01-15T07:59:59Z\"}]}");
  assert_int_equal(knock(clients, KEY_A, "/v1/chat/completions", 99, &lease, &retry_after), PRY_ADMITTED);
  pry_lease_release(&lease);
  assert_int_equal(knock(clients, KEY_A, "/v1/embeddings", 99, &lease, &retry_after), PRY_ADMISSION_PATH);
  pry_lease_release(&lease);
  assert_int_equal(knock(clients, KEY_A, "/v1/chat/completions", 100, &lease, &retry_after), PRY_ADMISSION_EXPIRED);
  pry_lease_release(&lease);
  assert_int_equal(knock(clients, KEY_B, "/v1/chat/completions", 0, &lease, &retry_after), PRY_ADMISSION_DISABLED);
  assert_string_equal(lease.client->name, "b");
  pry_lease_release(&lease);
  /* NOON is 2027-01-15T08:00:00Z */
  assert_int_equal(knock(clients, "sk-parry-cccccccccccccccc", "/v1/x", -2, &lease, &retry_after), PRY_ADMITTED);
  pry_lease_release(&lease);
  assert_int_equal(knock(clients, "sk-parry-cccccccccccccccc", "/v1/x", -1, &lease, &retry_after),
                   PRY_ADMISSION_EXPIRED);
  pry_lease_release(&lease);
  pry_clients_free(clients);
}

static void counters_survive_a_new_table(void **unused)
{
  (void)unused;
  double retry_after;
  struct pry_lease lease;
  struct pry_report report;
  static const char FIRST[] = "{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"rpm\": 2, \"concurrent\": 1}]}";
  struct pry_clients *clients = clients_of(FIRST);
  pry_report_init(&report);
  assert_int_equal(knock(clients, KEY_A, "/v1/x", 0, &lease, &retry_after), PRY_ADMITTED);
  pry_clients_install(clients, parse(clients, FIRST, &report)); /* the lease holds the old one */
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_CONCURRENT);
  pry_lease_release(&lease);
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMITTED);
  pry_clients_install(clients, parse(clients, FIRST, &report));
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_RATE);
  /* Gone while a call is open, and its end finds its counters. */
  assert_int_equal(knock(clients, KEY_A, "/v1/x", 30, &lease, &retry_after), PRY_ADMITTED);
  pry_clients_install(clients, parse(clients, "{\"clients\": []}", &report));
  assert_int_equal(call_at(clients, 0, &retry_after), PRY_ADMISSION_UNKNOWN_KEY);
  assert_int_equal(pry_clients_open(clients, "a"), 1);
  pry_lease_release(&lease);
  assert_int_equal(pry_clients_open(clients, "a"), 0);
  pry_report_fini(&report);
  pry_clients_free(clients);
}

/* ---- threads ---------------------------------------------------------------------------------------------- */

enum { WORKERS = 4, CALLS = 3000, SWAPS = 300, CONCURRENT = 3 };

struct shared {
  struct pry_clients *clients;
  atomic_int inside, most, admitted, working;
};

static void *work(void *user)
{
  struct shared *shared = user;
  for (int i = 0; i < CALLS; i++) {
    struct pry_lease lease;
    double retry_after;
    enum pry_admission admission = knock(shared->clients, KEY_A, "/v1/x", i / 1000.0, &lease, &retry_after);
    if (admission == PRY_ADMITTED) {
      int inside = atomic_fetch_add(&shared->inside, 1) + 1, most = atomic_load(&shared->most);
      while (inside > most && !atomic_compare_exchange_weak(&shared->most, &most, inside))
        ;
      atomic_fetch_add(&shared->admitted, 1);
      if (strcmp(lease.client->name, "a") != 0)
        abort();
      if (i % 7 == 0)
        sched_yield();
      atomic_fetch_sub(&shared->inside, 1);
    } else if (admission != PRY_ADMISSION_CONCURRENT) {
      abort();
    }
    pry_lease_release(&lease);
  }
  atomic_fetch_sub(&shared->working, 1);
  return NULL;
}

static void limits_are_exact_over_threads_while_tables_change(void **unused)
{
  (void)unused;
  static const char FILE_TEXT[] =
      "{\"clients\": [{\"name\": \"a\", \"key\": \"%s\", \"concurrent\": 3, \"rpm\": 10000000}]}";
  struct shared shared = {.clients = clients_of(FILE_TEXT)};
  pthread_t threads[WORKERS];
  struct pry_report report;
  pry_report_init(&report);
  atomic_store(&shared.working, WORKERS);
  for (int i = 0; i < WORKERS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, work, &shared), 0);
  int swaps = 0;
  for (; swaps < SWAPS || atomic_load(&shared.working) == WORKERS; swaps++)
    pry_clients_install(shared.clients, parse(shared.clients, FILE_TEXT, &report));
  for (int i = 0; i < WORKERS; i++)
    pthread_join(threads[i], NULL);
  assert_in_range(atomic_load(&shared.most), 1, CONCURRENT);
  assert_true(atomic_load(&shared.admitted) >= CALLS);
  assert_int_equal(pry_clients_open(shared.clients, "a"), 0);
  pry_report_fini(&report);
  pry_clients_free(shared.clients);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_mistake_is_told_with_its_line),
      cmocka_unit_test(every_cut_of_a_file_is_refused),
      cmocka_unit_test(ten_thousand_clients_are_read_and_found),
      cmocka_unit_test(a_file_that_cannot_be_read_says_so),
      cmocka_unit_test(the_files_mode_matters_for_plain_keys),
      cmocka_unit_test(keys_are_found_hashed_or_plain_and_no_others),
      cmocka_unit_test(before_a_file_was_read_nobody_is_known),
      cmocka_unit_test(the_bucket_gives_its_burst_then_its_rate),
      cmocka_unit_test(without_a_burst_a_minute_fits_in_at_once),
      cmocka_unit_test(open_calls_are_counted_and_refused_ones_cost_no_rate),
      cmocka_unit_test(who_is_disabled_expired_or_elsewhere_is_told_apart),
      cmocka_unit_test(counters_survive_a_new_table),
      cmocka_unit_test(limits_are_exact_over_threads_while_tables_change),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
