/* TLS with each allocation and system call failing: a pair of files is taken whole or refused with words, and what is in
 * use stays; a handshake or a request over TLS that fails costs its connection, and the next one is good. */
#include "../unit/tls_rig.h"
#include "fail.h"
#include "server.h"
#include "tls.h"
#include "wire.h"

#include <openssl/err.h>
#include <signal.h>

static struct tls_files files;

/* ---- a client: never fails --------------------------------------------------------------------------------------------- */

struct tls_client {
  struct wire wire;
  SSL *session;
  char text[1024];
  size_t size;
  bool ended;
};

static SSL_CTX *client_context;

static void client_open(struct tls_client *client, const char *address)
{
  fail_quiet();
  *client = (struct tls_client){.ended = false};
  wire_open(&client->wire, address);
  client->session = SSL_new(client_context);
  FAIL_CHECK(client->session && SSL_set_fd(client->session, client->wire.fd) == 1);
  SSL_set_connect_state(client->session);
  fail_loud();
}

/* Shakes hands, says what it has to, hears what there is. */
static void client_go_on(struct tls_client *client, const char **say)
{
  int result = 1;
  fail_quiet();
  sighandler_t before = signal(SIGPIPE, SIG_IGN); /* OpenSSL writes as it likes */
  ERR_clear_error();
  if (!SSL_is_init_finished(client->session))
    result = SSL_do_handshake(client->session);
  if (result == 1 && *say) {
    result = SSL_write(client->session, *say, (int)strlen(*say));
    *say = result > 0 ? NULL : *say;
  } else if (result == 1) {
    result = SSL_read(client->session, client->text + client->size, (int)(sizeof client->text - 1 - client->size));
    client->size += result > 0 ? (size_t)result : 0;
  }
  int error = result > 0 ? SSL_ERROR_NONE : SSL_get_error(client->session, result);
  client->ended = error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
  client->text[client->size] = '\0';
  ERR_clear_error();
  signal(SIGPIPE, before);
  fail_loud();
}

static void client_close(struct tls_client *client)
{
  fail_quiet();
  SSL_free(client->session);
  client->session = NULL;
  wire_close(&client->wire);
  fail_loud();
}

/* ---- the server -------------------------------------------------------------------------------------------------------- */

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  (void)user;
  FAIL_CHECK(request->secure);
  return exchange;
}

static void on_body(void *user, struct pry_slice data)
{
  (void)user, (void)data;
}

static void on_end(void *user)
{
  pry_reply_text(user, 200, "text/plain", PRY_SLICE("hello"));
}

static void on_gone(void *user)
{
  (void)user;
}

static const struct pry_server_ops ops = {on_head, on_body, on_end, NULL, on_gone};

#define ASK "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"

/* Until there is an answer or an end; in a struck run, while things fail, for a moment only. */
static bool exchange(struct pry_loop *loop, struct tls_client *client, bool may_fail)
{
  const char *say = ASK;
  pry_time started = pry_loop_now(loop);
  while (!client->ended && !strstr(client->text, "\r\n\r\nhello")) {
    pry_time waited = pry_loop_now(loop) - started;
    if (may_fail && fail_struck() && waited > 5 * WIRE_DOUBT)
      return false;
    FAIL_CHECK(waited < WIRE_PATIENCE);
    client_go_on(client, &say);
    pry_loop_turn(loop, PRY_MILLISECOND);
  }
  return !client->ended;
}

static void use_server(void)
{
  struct pry_server_options options = {.head_deadline = 0.2, .body_idle = 0.2, .keep_alive = 0.2, .write_idle = 0.2};
  struct tls_client client;
  char message[512] = "";
  struct pry_loop *loop = pry_loop_new();
  fail_quiet();
  struct pry_tls *tls = options.tls = pry_tls_new(files.certificate, files.key, message, sizeof message);
  FAIL_CHECK(tls);
  fail_loud();
  struct pry_server *server =
      loop ? pry_server_new(loop, "127.0.0.1:0", &options, &ops, NULL, message, sizeof message) : NULL;
  FAIL_CHECK(server || fail_struck());
  if (server) {
    client_open(&client, pry_server_address(server));
    bool answered = exchange(loop, &client, true);
    FAIL_CHECK(answered || fail_struck());
    client_close(&client);
    pry_loop_turn(loop, 0);
    fail_over();
    client_open(&client, pry_server_address(server));
    FAIL_CHECK(exchange(loop, &client, false));
    client_close(&client);
  }
  pry_server_free(server);
  pry_tls_unref(tls);
  pry_loop_free(loop);
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

static void use_load(void)
{
  char message[512] = "";
  struct pry_tls *tls = pry_tls_new(files.certificate, files.key, message, sizeof message);
  FAIL_CHECK(tls || (fail_struck() && message[0]));
  FAIL_CHECK(!ERR_peek_error()); /* the queue is the thread's, and curl looks at it, too */
  if (tls) {
    struct ssl_st *session = pry_tls_session_new(tls);
    FAIL_CHECK(session || fail_struck());
    fail_quiet();
    SSL_free(session);
    fail_loud();
  }
  fail_over();
  pry_tls_unref(tls);
  tls = pry_tls_new(files.certificate, files.key, message, sizeof message);
  FAIL_CHECK(tls);
  pry_tls_unref(tls);
}

static void use_reload(void)
{
  char message[512] = "";
  fail_quiet();
  struct pry_tls *tls = pry_tls_new(files.certificate, files.key, message, sizeof message);
  FAIL_CHECK(tls);
  double expires = pry_tls_expires_at(tls);
  fail_loud();
  bool taken = pry_tls_reload(tls, message, sizeof message);
  FAIL_CHECK(taken || (fail_struck() && message[0]));
  FAIL_CHECK(!ERR_peek_error());
  fail_over();
  FAIL_CHECK(pry_tls_expires_at(tls) == expires);
  struct ssl_st *session = pry_tls_session_new(tls);
  FAIL_CHECK(session);
  SSL_free(session);
  FAIL_CHECK(pry_tls_reload(tls, message, sizeof message));
  pry_tls_unref(tls);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"pair loaded", use_load, FAIL_BOTH, 15},
      {"pair reloaded", use_reload, FAIL_BOTH, 15},
      {"server over TLS", use_server, FAIL_BOTH, 15},
  };
  tls_files_make(&files, "oom");
  client_context = SSL_CTX_new(TLS_client_method());
  int code = client_context ? fail_main(scenarios, sizeof scenarios / sizeof *scenarios) : 1;
  SSL_CTX_free(client_context);
  tls_files_remove(&files);
  return code;
}
