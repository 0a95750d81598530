/* The curl client and TLS: whom it does not believe it does not talk to. Certificates are made here. */
#include "http_rig.h"

#include <signal.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct certificate {
  EVP_PKEY *key;
  X509 *x509;
};

/* What the server shows, and what it does; set before it starts. */
static struct certificate shown;
static enum { SPEAKS_TLS, SPEAKS_PLAIN, CLOSES_IN_HANDSHAKE } manner;
static atomic_int asked; /* requests that came through */

static struct certificate certificate_new(const char *names, const struct certificate *issuer, bool is_issuer,
                                          long days)
{
  struct certificate made = {.key = EVP_EC_gen("P-256"), .x509 = X509_new()};
  assert_non_null(made.key);
  assert_true(X509_set_version(made.x509, 2));
  ASN1_INTEGER_set(X509_get_serialNumber(made.x509), is_issuer ? 1 : 2);
  X509_gmtime_adj(X509_getm_notBefore(made.x509), -10L * 86400);
  X509_gmtime_adj(X509_getm_notAfter(made.x509), days * 86400);
  X509_set_pubkey(made.x509, made.key);
  X509_NAME *subject = X509_get_subject_name(made.x509);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)(is_issuer ? "issuer" : "server"), -1,
                             -1, 0);
  X509_set_issuer_name(made.x509, issuer ? X509_get_subject_name(issuer->x509) : subject);
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer ? issuer->x509 : made.x509, made.x509, NULL, NULL, 0);
  X509_EXTENSION *extension = is_issuer ? X509V3_EXT_conf_nid(NULL, &context, NID_basic_constraints, "critical,CA:TRUE")
                                        : X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names);
  assert_non_null(extension);
  assert_true(X509_add_ext(made.x509, extension, -1));
  X509_EXTENSION_free(extension);
  assert_true(X509_sign(made.x509, issuer ? issuer->key : made.key, EVP_sha256()));
  return made;
}

static void certificate_free(struct certificate *certificate)
{
  X509_free(certificate->x509);
  EVP_PKEY_free(certificate->key);
}

static void serve_tls(SSL *tls)
{
  char request[REQUEST_MAX];
  static const char whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  if (SSL_accept(tls) <= 0)
    return;
  while (SSL_read(tls, request, sizeof request) > 0) {
    atomic_fetch_add(&asked, 1);
    SSL_write(tls, whole, sizeof whole - 1);
  }
}

static void serve(struct server *server, int fd)
{
  if (manner == SPEAKS_PLAIN) {
    char hello[512];
    if (recv(fd, hello, sizeof hello, 0) > 0)
      send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return;
  }
  if (manner == CLOSES_IN_HANDSHAKE)
    return;
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate(context, shown.x509);
  SSL_CTX_use_PrivateKey(context, shown.key);
  SSL *tls = SSL_new(context);
  SSL_set_fd(tls, fd);
  serve_tls(tls);
  SSL_free(tls);
  SSL_CTX_free(context);
  ERR_clear_error();
  atomic_fetch_add(&server->eof_seen, 1);
}

/* One request to https://127.0.0.1, by a client that believes `trusted` (NULL: the system's list). */
static struct probe ask(const struct certificate *trusted)
{
  struct world world = {.loop = pry_loop_new()};
  char file[] = "/tmp/parry-ca-XXXXXX";
  int fd = mkstemp(file);
  assert_true(fd >= 0);
  FILE *pem = fdopen(fd, "w");
  if (trusted)
    assert_true(PEM_write_X509(pem, trusted->x509));
  fclose(pem);
  struct pry_http_options options = {.size = sizeof options, .ca_file = trusted ? file : NULL};
  world.http = pry_http_new(world.loop, &options);
  server_start(&world.server, serve);
  char url[64];
  snprintf(url, sizeof url, "https://127.0.0.1:%d/", world.server.port);
  struct pry_http_request request = {.method = "POST", .url = url, .body = PRY_SLICE("a secret")};
  struct probe probe = {0};
  start_request(&world, &probe, &request);
  until(&world, &probe.dones, 1);
  pry_http_free(world.http);
  server_stop(&world.server);
  pry_loop_free(world.loop);
  unlink(file);
  probe.world = NULL;
  return probe;
}

/* Nothing of the request left, so that a policy may try another target. */
static void refused(const struct probe *probe)
{
  assert_true(pry_http_code_is_tls(probe->result.curl_code));
  assert_int_equal(probe->connected, 0);
  assert_false(probe->result.sent);
  assert_int_equal(probe->heads, 0);
  assert_int_equal(atomic_load(&asked), 0);
}

static struct certificate issuer, stranger;

static void expect_refusal(const char *names, const struct certificate *by, long days)
{
  shown = certificate_new(names, by, false, days);
  struct probe probe = ask(&issuer);
  refused(&probe);
  certificate_free(&shown);
}

static void test_the_right_certificate(void **unused)
{
  (void)unused;
  shown = certificate_new("IP:127.0.0.1", &issuer, false, 10);
  struct probe probe = ask(&issuer);
  assert_int_equal(probe.result.curl_code, 0);
  assert_string_equal(probe.body, "ok");
  assert_int_equal(atomic_load(&asked), 1);
  certificate_free(&shown);
}

static void test_a_name_that_is_another_s(void **unused)
{
  (void)unused;
  expect_refusal("DNS:api.example", &issuer, 10);
  expect_refusal("IP:127.0.0.2", &issuer, 10);
  expect_refusal("DNS:127.0.0.1", &issuer, 10); /* an address is no name (RFC 9110 §4.3.5) */
}

static void test_nobody_we_know_signed_it(void **unused)
{
  (void)unused;
  expect_refusal("IP:127.0.0.1", NULL, 10); /* itself */
  expect_refusal("IP:127.0.0.1", &stranger, 10);
  shown = certificate_new("IP:127.0.0.1", &issuer, false, 10);
  struct probe probe = ask(NULL); /* nor does the system's list */
  refused(&probe);
  certificate_free(&shown);
}

static void test_an_expired_certificate(void **unused)
{
  (void)unused;
  expect_refusal("IP:127.0.0.1", &issuer, -1);
}

static void test_no_tls_behind_https(void **unused)
{
  (void)unused;
  manner = SPEAKS_PLAIN;
  struct probe plain = ask(&issuer);
  refused(&plain);
  manner = CLOSES_IN_HANDSHAKE;
  struct probe closed = ask(&issuer);
  refused(&closed);
}

static int reset_manner(void **state)
{
  (void)state;
  manner = SPEAKS_TLS;
  atomic_store(&asked, 0);
  return 0;
}

static int make_issuers(void **state)
{
  (void)state;
  signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to its sockets without MSG_NOSIGNAL */
  issuer = certificate_new(NULL, NULL, true, 10);
  stranger = certificate_new(NULL, NULL, true, 10);
  return 0;
}

static int free_issuers(void **state)
{
  (void)state;
  certificate_free(&issuer);
  certificate_free(&stranger);
  return 0;
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_the_right_certificate, reset_manner),
      cmocka_unit_test_setup(test_a_name_that_is_another_s, reset_manner),
      cmocka_unit_test_setup(test_nobody_we_know_signed_it, reset_manner),
      cmocka_unit_test_setup(test_an_expired_certificate, reset_manner),
      cmocka_unit_test_setup(test_no_tls_behind_https, reset_manner),
  };
  return cmocka_run_group_tests(tests, make_issuers, free_issuers);
}
