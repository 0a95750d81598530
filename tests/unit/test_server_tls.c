/* TLS alone: certificates and their reload, handshakes that fail, clients that misbehave inside it, real clients. What
 * requests and replies do over it is shown by the server's own tests, which run over TLS once more. */
#define SERVER_RIG_TLS 1
#include "server_rig.h"

#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- Certificates --------------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static void test_bad_files_are_explained(void **state)
{
  (void)state;
  struct tls_files one, two;
  char message[512];
  tls_files_make(&one, "one");
  tls_files_make(&two, "two");
  assert_null(pry_tls_new("/nonexistent/certificate.pem", one.key, message, sizeof message));
  assert_non_null(strstr(message, "/nonexistent/certificate.pem: No such file"));
  assert_null(pry_tls_new(one.certificate, one.directory, message, sizeof message));
  assert_non_null(strstr(message, one.directory));
  assert_null(pry_tls_new(one.certificate, two.key, message, sizeof message));
  assert_non_null(strstr(message, "it does not belong to the certificate"));
  assert_non_null(strstr(message, two.key));
  write_text(two.certificate, "this is no PEM\n");
  assert_null(pry_tls_new(two.certificate, two.key, message, sizeof message));
  assert_non_null(strstr(message, "it must be PEM"));
  write_text(one.key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n");
  assert_null(pry_tls_new(one.certificate, one.key, message, sizeof message)); /* and nobody was asked to type */
  assert_non_null(strstr(message, "without a passphrase"));
  tls_files_remove(&one);
  tls_files_remove(&two);
}

static void test_dates_are_a_warning(void **state)
{
  (void)state;
  static const struct {
    long from, until;
    const char *word;
  } CASES[] = {{-200, -100, "has expired"}, {100, 200, "is not valid yet"}, {-100, 200, ""}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    struct tls_files files;
    char message[512] = "left over";
    tls_files_make(&files, "dates");
    tls_write_pair(&files, "dates", CASES[i].from, CASES[i].until);
    struct pry_tls *tls = pry_tls_new(files.certificate, files.key, message, sizeof message);
    assert_non_null(tls);
    if (*CASES[i].word)
      assert_non_null(strstr(message, CASES[i].word));
    else
      assert_string_equal(message, "");
    double left = pry_tls_expires_at(tls) - (double)time(NULL);
    assert_true(left > (double)CASES[i].until - 60 && left <= (double)CASES[i].until);
    pry_tls_unref(pry_tls_ref(tls));
    pry_tls_unref(tls);
    tls_files_remove(&files);
  }
}

static void check_served_by(struct bench *b, const char *name)
{
  struct pry_buffer text = {0};
  char seen[64];
  int fd = dial(b);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(b, fd, &text, "world");
  tls_peer_name(tls_sessions[fd], seen, sizeof seen);
  assert_string_equal(seen, name);
  pry_buffer_fini(&text);
  client_close(fd);
}

static void test_reload(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  char message[512];
  bench_start(&b, "127.0.0.1:0", NULL);
  int old = dial(&b);
  say(old, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, old, &text, "200 OK");
  tls_write_pair(&b.files, "renewed", -60, 3600);
  assert_true(pry_tls_reload(b.tls, message, sizeof message));
  assert_string_equal(message, "");
  check_served_by(&b, "renewed");
  write_text(b.files.key, "half-written");
  assert_false(pry_tls_reload(b.tls, message, sizeof message));
  assert_non_null(strstr(message, b.files.key));
  check_served_by(&b, "renewed");
  tls_write_pair(&b.files, "expired", -200, -100);
  assert_true(pry_tls_reload(b.tls, message, sizeof message));
  assert_non_null(strstr(message, "has expired"));
  pry_buffer_clear(&text);
  say(old, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n"); /* through two reloads */
  hear_part(&b, old, &text, "world");
  tls_peer_name(tls_sessions[old], message, sizeof message);
  assert_string_equal(message, "rig");
  pry_buffer_fini(&text);
  client_close(old);
  bench_stop(&b);
}

struct reloading {
  struct pry_tls *tls;
  atomic_bool stop;
  int reloads;
};

static void *reload_on_and_on(void *user)
{
  struct reloading *reloading = user;
  char message[256];
  while (!atomic_load(&reloading->stop))
    reloading->reloads += pry_tls_reload(reloading->tls, message, sizeof message);
  return NULL;
}

static void test_reload_from_another_thread(void **state)
{
  (void)state;
  struct bench b;
  pthread_t thread;
  bench_start(&b, "127.0.0.1:0", NULL);
  struct reloading reloading = {.tls = b.tls};
  assert_int_equal(pthread_create(&thread, NULL, reload_on_and_on, &reloading), 0);
  for (int i = 0; i < 40; i++)
    check_served_by(&b, "rig");
  atomic_store(&reloading.stop, true);
  pthread_join(thread, NULL);
  assert_true(reloading.reloads > 0);
  bench_stop(&b);
}

/* ---- Handshakes ----------------------------------------------------------------------------------------- */

/* Shakes hands with what `prepare` set; the version, or what the other side said against it. */
static const char *shake(struct bench *b, void (*prepare)(SSL *session))
{
  static char said[256];
  int fd = dial(b);
  SSL *session = tls_sessions[fd];
  prepare(session);
  pry_time started = pry_loop_now(b->loop);
  int result;
  while ((result = SSL_do_handshake(session)) != 1 && SSL_get_error(session, result) == SSL_ERROR_WANT_READ)
    assert_true(turn(b, started));
  /* In 1.3 the client is done first; the server's opinion comes with the first read. */
  char byte;
  while (result == 1 && (result = SSL_read(session, &byte, 1)) < 0 &&
         SSL_get_error(session, result) == SSL_ERROR_WANT_READ) {
    if (pry_loop_now(b->loop) - started > 100 * PRY_MILLISECOND)
      break;
    assert_true(turn(b, started));
    result = 1;
  }
  const unsigned char *protocol;
  unsigned size;
  SSL_get0_alpn_selected(session, &protocol, &size);
  unsigned long code = ERR_get_error();
  if (code)
    snprintf(said, sizeof said, "%s", ERR_reason_error_string(code));
  else
    snprintf(said, sizeof said, "%s %s %.*s", SSL_get_version(session), SSL_get_cipher_name(session), (int)size,
             size ? (const char *)protocol : "");
  ERR_clear_error();
  client_close(fd);
  return said;
}

static void want_nothing_special(SSL *session)
{
  (void)session;
}

static void want_tls_1_2(SSL *session)
{
  SSL_set_max_proto_version(session, TLS1_2_VERSION);
}

static void want_tls_1_1(SSL *session)
{
  SSL_set_security_level(session, 0);
  SSL_set_min_proto_version(session, TLS1_1_VERSION);
  SSL_set_max_proto_version(session, TLS1_1_VERSION);
}

static void want_weak_suite(SSL *session)
{
  SSL_set_max_proto_version(session, TLS1_2_VERSION);
  SSL_set_cipher_list(session, "ECDHE-ECDSA-AES128-SHA");
}

static void offer(SSL *session, const char *protocols)
{
  assert_int_equal(SSL_set_alpn_protos(session, (const unsigned char *)protocols, (unsigned)strlen(protocols)), 0);
}

static void offer_both(SSL *session)
{
  offer(session, "\x02h2\x08http/1.1");
}

static void offer_h2(SSL *session)
{
  offer(session, "\x02h2");
}

static void test_handshakes(void **state)
{
  (void)state;
  static const struct {
    void (*prepare)(SSL *session);
    const char *outcome;
  } CASES[] = {
      {want_nothing_special, "TLSv1.3 TLS_"},
      {want_tls_1_2, "TLSv1.2 ECDHE-ECDSA-"},
      {want_tls_1_1, "tlsv1 alert protocol version"},
      {want_weak_suite, "alert handshake failure"},
      {offer_both, " http/1.1"},
      {offer_h2, "no application protocol"},
  };
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    const char *said = shake(&b, CASES[i].prepare);
    if (!strstr(said, CASES[i].outcome))
      fail_msg("case %zu: \"%s\" instead of \"%s\"", i, said, CASES[i].outcome);
    UNTIL(&b, pry_server_connection_count(b.server) == 0);
  }
  assert_int_equal(b.count, 0);
  bench_stop(&b);
}

static int dial_plain(struct bench *b)
{
  int fd = dial(b);
  client_forget(fd);
  return fd;
}

static enum hearing hear_plain_end(struct bench *b, int fd, char *text, size_t size)
{
  pry_time started = pry_loop_now(b->loop);
  size_t used = 0;
  for (;;) {
    ssize_t got = recv(fd, text + used, size - used - 1, MSG_DONTWAIT);
    text[used += got > 0 ? (size_t)got : 0] = '\0';
    if (got == 0)
      return ENDED;
    if (got < 0 && errno != EAGAIN)
      return RESET;
    assert_true(turn(b, started));
  }
}

static void test_plain_http_is_told_so(void **state)
{
  (void)state;
  struct bench b;
  char text[1024];
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial_plain(&b);
  static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
  assert_int_equal(send(fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL), sizeof REQUEST - 1);
  assert_int_equal(hear_plain_end(&b, fd, text, sizeof text), ENDED);
  assert_ptr_equal(strstr(text, "HTTP/1.1 400 "), text);
  assert_non_null(strstr(text, "this port speaks TLS"));
  close(fd);
  fd = dial_plain(&b); /* neither TLS nor HTTP: nothing that it could understand */
  assert_int_equal(send(fd, "SSH-2.0-x\r\n........", 19, MSG_NOSIGNAL), 19);
  assert_int_equal(hear_plain_end(&b, fd, text, sizeof text), ENDED);
  close(fd);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  assert_int_equal(b.count, 0);
  bench_stop(&b);
}

static void test_the_deadline_counts_the_handshake(void **state)
{
  (void)state;
  struct bench b;
  char text[1024];
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.head_deadline = 0.1});
  int silent = dial_plain(&b), half = dial_plain(&b), shaken = dial(&b);
  pry_time started = pry_loop_now(b.loop);
  assert_int_equal(send(half, "\x16\x03\x01\x02\x00\x01", 6, MSG_NOSIGNAL), 6);
  assert_int_equal(client_send(shaken, "G", 1), 1);
  assert_int_equal(hear_plain_end(&b, silent, text, sizeof text), ENDED);
  assert_int_equal(hear_plain_end(&b, half, text, sizeof text), ENDED);
  struct pry_buffer answer = {0};
  assert_int_equal(hear_end(&b, shaken, &answer), ENDED);
  assert_non_null(strstr(pry_buffer_text(&answer), " 408 "));
  assert_true(pry_loop_now(b.loop) - started >= 90 * PRY_MILLISECOND);
  pry_buffer_fini(&answer);
  close(silent);
  close(half);
  client_close(shaken);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  bench_stop(&b);
}

/* ---- Inside the session --------------------------------------------------------------------------------- */

static void test_renegotiation_is_refused(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  want_tls_1_2(tls_sessions[fd]);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  assert_int_equal(SSL_renegotiate(tls_sessions[fd]), 1);
  pry_time started = pry_loop_now(b.loop);
  int result;
  while ((result = SSL_do_handshake(tls_sessions[fd])) != 1 &&
         SSL_get_error(tls_sessions[fd], result) == SSL_ERROR_WANT_READ)
    assert_true(turn(&b, started));
  assert_int_not_equal(result, 1);
  ERR_clear_error();
  pry_buffer_fini(&text);
  client_close(fd);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  bench_stop(&b);
}

/* TLS 1.3's key update is legal at any time, and each is answered by one of ours. */
static void test_key_updates(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 20; i++) {
    pry_buffer_clear(&text);
    say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    hear_part(&b, fd, &text, "200 OK");
    assert_int_equal(SSL_key_update(tls_sessions[fd], SSL_KEY_UPDATE_REQUESTED), 1);
  }
  assert_int_equal(b.count, 20);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_garbage_ends_it(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
                                         "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n",
                                         "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"};
  for (size_t i = 0; i < 3; i++) {
    struct bench b;
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, REQUESTS[i]);
    UNTIL(&b, b.count == 1);
    static const char GARBAGE[] = "\x17\x03\x03\x00\x20zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzGET / HTTP/1.1\r\n\r\n";
    assert_int_equal(send(fd, GARBAGE, sizeof GARBAGE - 1, MSG_NOSIGNAL), sizeof GARBAGE - 1);
    pry_time sent = pry_loop_now(b.loop);
    UNTIL(&b, pry_server_connection_count(b.server) == 0);
    assert_true(pry_loop_now(b.loop) - sent < 1 * PRY_SECOND); /* nothing to linger for */
    assert_int_equal(b.gones, i == 1 ? 0 : 1);
    assert_int_equal(b.count, 1);
    client_close(fd);
    bench_stop(&b);
  }
}

static void test_what_ends_whole_says_so(void **state)
{
  (void)state;
  static const struct {
    const char *request;
    bool abort;
    bool whole;
  } CASES[] = {
      {"GET /chunked HTTP/1.0\r\n\r\n", false, true}, /* until close: only close_notify shows that it is all */
      {"GET /begin HTTP/1.1\r\nHost: h\r\n\r\n", true, false},
      {"GET /begin HTTP/1.0\r\n\r\n", true, false},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    struct bench b;
    struct pry_buffer text = {0};
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, CASES[i].request);
    UNTIL(&b, b.count == 1 && b.handled[0].ends);
    if (CASES[i].abort) {
      b.handled[0].finished = true;
      pry_reply_abort(b.handled[0].exchange);
    }
    hear_end(&b, fd, &text);
    assert_int_equal((SSL_get_shutdown(tls_sessions[fd]) & SSL_RECEIVED_SHUTDOWN) != 0, CASES[i].whole);
    pry_buffer_fini(&text);
    client_close(fd);
    bench_stop(&b);
  }
}

/* A write to a client that is gone must not raise SIGPIPE: it is not ours to mask in somebody's process. */
static void test_no_signal(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  signal(SIGPIPE, SIG_DFL);
  reset_close(fd);
  static char piece[512 * 1024];
  for (int i = 0; i < 4 && !b.gones; i++)
    pry_reply_write(b.handled[0].exchange, (struct pry_slice){piece, sizeof piece});
  UNTIL(&b, b.gones == 1);
  bench_stop(&b);
}

/* Nothing to do means no turns of the loop, whatever state a connection waits in. */
static void test_waiting_costs_nothing(void **state)
{
  (void)state;
  struct bench b;
  static const char *const REQUESTS[] = {"GET /wait HTTP/1.1\r\nHost: h\r\n\r\nGET /behind HTTP/1.1\r\n",
                                         "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n",
                                         "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\nzzz",
                                         "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n", "GE"};
  int fds[6];
  bench_start(&b, "127.0.0.1:0", NULL);
  for (size_t i = 0; i < 5; i++) {
    fds[i] = dial(&b);
    say(fds[i], REQUESTS[i]);
  }
  fds[5] = dial_plain(&b);
  for (int i = 0; i < 50; i++)
    pry_loop_turn(b.loop, 2 * PRY_MILLISECOND);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  int turns = 0;
  for (pry_time start = pry_loop_now(b.loop); pry_loop_now(b.loop) - start < 100 * PRY_MILLISECOND; turns++)
    pry_loop_turn(b.loop, 50 * PRY_MILLISECOND);
  getrusage(RUSAGE_SELF, &after);
  assert_true(turns < 20);
  for (size_t i = 0; i < 5; i++)
    client_close(fds[i]);
  close(fds[5]);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  bench_stop(&b);
}

static long resident_kib(void)
{
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Both ends live in this process, so the figure is for two; what it guards against is a kept pair of record buffers,
 * 32 KiB and more a side. */
static void test_idle_connections_are_small(void **state)
{
  (void)state;
  enum { MANY = 200 };
  struct bench b;
  int fds[MANY];
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  long before = 0;
  for (int i = 0; i < MANY; i++) {
    if (i == 20)
      before = resident_kib();
    fds[i] = dial(&b);
    pry_buffer_clear(&text);
    say(fds[i], "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    hear_part(&b, fds[i], &text, "200 OK");
  }
  long each = (resident_kib() - before) / (MANY - 20);
  print_message("%ld KiB for both ends of an idle connection\n", each);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  assert_true(each < 128);
#endif
  for (int i = 0; i < MANY; i++)
    client_close(fds[i]);
  pry_buffer_fini(&text);
  bench_stop(&b);
}

/* ---- Programs that others wrote ------------------------------------------------------------------------- */

extern char **environ;

/* Runs a shell command while the loop turns; its output and exit status. False: not installed here. */
static bool run(struct bench *b, const char *command, struct pry_buffer *output, int *status)
{
  int ends[2];
  pid_t child;
  char *arguments[] = {"sh", "-c", (char *)(uintptr_t)command, NULL};
  posix_spawn_file_actions_t actions;
  assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  assert_int_equal(posix_spawn(&child, "/bin/sh", &actions, NULL, arguments, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  pry_time started = pry_loop_now(b->loop);
  char piece[4096];
  ssize_t size;
  while ((size = read(ends[0], piece, sizeof piece)) != 0) {
    if (size > 0)
      assert_true(pry_buffer_append(output, piece, (size_t)size));
    pry_loop_turn(b->loop, 2 * PRY_MILLISECOND);
    assert_true(pry_loop_now(b->loop) - started < 60 * PRY_SECOND);
  }
  close(ends[0]);
  assert_int_equal(waitpid(child, status, 0), child);
  assert_non_null(pry_buffer_text(output));
  return WEXITSTATUS(*status) != 127;
}

static void check_program(const char *format, const char *expected)
{
  struct bench b;
  struct pry_buffer output = {0};
  char command[1024];
  int status;
  bench_start(&b, "127.0.0.1:0", NULL);
  snprintf(command, sizeof command, format, b.files.certificate, pry_server_address(b.server));
  if (!run(&b, command, &output, &status))
    print_message("not installed: %s\n", command);
  else if (!WIFEXITED(status) || WEXITSTATUS(status) || !strstr(pry_buffer_text(&output), expected))
    fail_msg("%s\n%s", command, pry_buffer_text(&output));
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  pry_buffer_fini(&output);
  bench_stop(&b);
}

static void test_curl(void **state)
{
  (void)state;
  check_program("curl -sS --cacert %s https://%s/chunked", "hello world");
  check_program("curl -sS --http1.0 --cacert %s https://%s/chunked", "hello world");
  check_program("curl -sS --tls-max 1.2 --cacert %s --data-binary @/etc/services https://%s/echo", "tcp");
  check_program("curl -sS --http2 --cacert %s https://%s/large -o /dev/null -w '%%{size_download} %%{http_version}'",
                "1048576 1.1");
}

static void test_openssl(void **state)
{
  (void)state;
  check_program("printf 'GET /chunked HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -no_ign_eof -ign_eof "
                "-verify_return_error -CAfile %s -connect %s",
                "hello world");
  /* A ticket is taken and resumed. */
  check_program("cat %s >/dev/null; printf 'GET /chunked HTTP/1.0\\r\\n\\r\\n' | openssl s_client -tls1_2 -reconnect "
                "-ign_eof -connect %s 2>&1",
                "Reused, TLSv1.2");
}

static void test_python(void **state)
{
  (void)state;
  check_program("python3 -c '\n"
                "import ssl, socket, sys\n"
                "context = ssl.create_default_context(cafile=sys.argv[1])\n"
                "host, port = sys.argv[2].split(\":\")\n"
                "s = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)\n"
                "s.sendall(b\"GET /stream HTTP/1.1\\r\\nHost: h\\r\\nConnection: close\\r\\n\\r\\n\")\n"
                "size = 0\n"
                "while piece := s.recv(1 << 20): size += len(piece)\n"
                "print(\"enough\" if size > 64 << 20 else size, s.version())' %s %s",
                "enough TLSv1.3");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bad_files_are_explained),
      cmocka_unit_test(test_dates_are_a_warning),
      cmocka_unit_test(test_reload),
      cmocka_unit_test(test_reload_from_another_thread),
      cmocka_unit_test(test_handshakes),
      cmocka_unit_test(test_plain_http_is_told_so),
      cmocka_unit_test(test_the_deadline_counts_the_handshake),
      cmocka_unit_test(test_renegotiation_is_refused),
      cmocka_unit_test(test_key_updates),
      cmocka_unit_test(test_garbage_ends_it),
      cmocka_unit_test(test_what_ends_whole_says_so),
      cmocka_unit_test(test_no_signal),
      cmocka_unit_test(test_waiting_costs_nothing),
      cmocka_unit_test(test_idle_connections_are_small),
      cmocka_unit_test(test_curl),
      cmocka_unit_test(test_openssl),
      cmocka_unit_test(test_python),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
