#include "tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char SUITES_OF_1_2[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

struct pry_tls {
  atomic_uint references;
  char *certificate_path, *key_path;
  pthread_mutex_t lock; /* of what follows */
  SSL_CTX *context;
};

struct message {
  char *text;
  size_t size;
};

/* ---- What can be wrong ---------------------------------------------------------------------------------- */

static bool complain(struct message message, const char *what, const char *path, const char *advice)
{
  unsigned long code = ERR_peek_last_error();
  const char *reason = code ? ERR_reason_error_string(code) : NULL;
  snprintf(message.text, message.size, "%s %s: %s; %s", what, path, reason ? reason : "unknown error", advice);
  ERR_clear_error();
  return false;
}

/* OpenSSL's own words for a file it cannot open do not help. */
static bool check_readable(const char *path, const char *what, struct message message)
{
  char byte;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool good = fd >= 0 && read(fd, &byte, 1) >= 0;
  int code = errno;
  if (fd >= 0)
    close(fd);
  if (!good)
    snprintf(message.text, message.size, "cannot read the %s %s: %s; name a PEM file that this user may read", what,
             path, strerror(code));
  return good;
}

static int refuse_passphrase(char *buffer, int size, int writing, void *user)
{
  (void)buffer, (void)size, (void)writing, (void)user;
  return -1;
}

static void warn_of_dates(SSL_CTX *context, const char *path, struct message message)
{
  const X509 *certificate = SSL_CTX_get0_certificate(context);
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    snprintf(message.text, message.size, "the certificate %s has expired; clients will refuse it until it is renewed",
             path);
  else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    snprintf(message.text, message.size,
             "the certificate %s is not valid yet; clients will refuse it: check its dates and this machine's clock",
             path);
}

/* ---- Contexts ------------------------------------------------------------------------------------------- */

static int choose_protocol(SSL *session, const unsigned char **out, unsigned char *out_size, const unsigned char *in,
                           unsigned in_size, void *user)
{
  static const unsigned char OURS[] = "\x08http/1.1\x08http/1.0";
  (void)session, (void)user;
  unsigned char *chosen;
  if (SSL_select_next_proto(&chosen, out_size, OURS, sizeof OURS - 1, in, in_size) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

static bool set_policy(SSL_CTX *context)
{
  static const unsigned char SESSION_CONTEXT[] = "parry";
  /* An end without close_notify is the end all the same: a request's length never depends on where TLS ends. */
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                   SSL_OP_PRIORITIZE_CHACHA | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(context,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 1);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
  SSL_CTX_set_default_passwd_cb(context, refuse_passphrase);
  return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
         SSL_CTX_set_cipher_list(context, SUITES_OF_1_2) == 1 &&
         SSL_CTX_set_session_id_context(context, SESSION_CONTEXT, sizeof SESSION_CONTEXT - 1) == 1;
}

static bool load(SSL_CTX *context, const struct pry_tls *tls, struct message message)
{
  const char *chain = tls->certificate_path, *key = tls->key_path;
  if (!check_readable(chain, "certificate", message) || !check_readable(key, "private key", message))
    return false;
  if (SSL_CTX_use_certificate_chain_file(context, chain) != 1)
    return complain(message, "cannot use the certificate", chain,
                    "it must be PEM: the server's certificate first, then its intermediates");
  if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
    unsigned long code = ERR_peek_last_error();
    bool mismatch = ERR_GET_LIB(code) == ERR_LIB_X509 && (ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                                                          ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH);
    return complain(message, "cannot use the private key", key,
                    mismatch ? "it does not belong to the certificate: give the pair that was issued together"
                             : "it must be PEM without a passphrase");
  }
  return SSL_CTX_check_private_key(context) == 1 ||
         complain(message, "cannot use the private key", key,
                  "it does not belong to the certificate: give the pair that was issued together");
}

/* Short of memory even this leaves errors in the queue, which is the thread's: curl looks at it, too. */
static void free_context(SSL_CTX *context)
{
  SSL_CTX_free(context);
  ERR_clear_error();
}

static SSL_CTX *new_context(const struct pry_tls *tls, struct message message)
{
  if (message.size)
    message.text[0] = '\0';
  ERR_clear_error();
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (!context || !set_policy(context)) {
    complain(message, "cannot set up TLS with", tls->certificate_path, "check memory and OpenSSL's configuration");
  } else if (load(context, tls, message)) {
    warn_of_dates(context, tls->certificate_path, message);
    ERR_clear_error(); /* what OpenSSL got over is told all the same */
    return context;
  }
  free_context(context);
  return NULL;
}

/* ---- Sharing -------------------------------------------------------------------------------------------- */

static void tls_free(struct pry_tls *tls)
{
  free_context(tls->context);
  pthread_mutex_destroy(&tls->lock);
  free(tls->certificate_path);
  free(tls->key_path);
  free(tls);
}

struct pry_tls *pry_tls_new(const char *certificate_path, const char *key_path, char *message, size_t message_size)
{
  struct pry_tls *tls = calloc(1, sizeof *tls);
  if (!tls || pthread_mutex_init(&tls->lock, NULL) != 0) {
    free(tls);
    snprintf(message, message_size, "cannot use the certificate %s: out of memory; free some", certificate_path);
    return NULL;
  }
  atomic_init(&tls->references, 1);
  tls->certificate_path = strdup(certificate_path);
  tls->key_path = strdup(key_path);
  if (tls->certificate_path && tls->key_path)
    tls->context = new_context(tls, (struct message){message, message_size});
  else
    snprintf(message, message_size, "cannot use the certificate %s: out of memory; free some", certificate_path);
  if (tls->context)
    return tls;
  tls_free(tls);
  return NULL;
}

bool pry_tls_reload(struct pry_tls *tls, char *message, size_t message_size)
{
  SSL_CTX *fresh = new_context(tls, (struct message){message, message_size});
  if (!fresh)
    return false;
  pthread_mutex_lock(&tls->lock);
  SSL_CTX *old = tls->context;
  tls->context = fresh;
  pthread_mutex_unlock(&tls->lock);
  free_context(old); /* sessions made from it hold it */
  return true;
}

double pry_tls_expires_at(struct pry_tls *tls)
{
  struct tm parts = {0};
  pthread_mutex_lock(&tls->lock);
  bool good = ASN1_TIME_to_tm(X509_get0_notAfter(SSL_CTX_get0_certificate(tls->context)), &parts) == 1;
  pthread_mutex_unlock(&tls->lock);
  return good ? (double)timegm(&parts) : 0;
}

struct pry_tls *pry_tls_ref(struct pry_tls *tls)
{
  atomic_fetch_add_explicit(&tls->references, 1, memory_order_relaxed);
  return tls;
}

void pry_tls_unref(struct pry_tls *tls)
{
  if (tls && atomic_fetch_sub_explicit(&tls->references, 1, memory_order_acq_rel) == 1)
    tls_free(tls);
}

struct ssl_st *pry_tls_session_new(struct pry_tls *tls)
{
  pthread_mutex_lock(&tls->lock);
  SSL *session = SSL_new(tls->context);
  pthread_mutex_unlock(&tls->lock);
  if (session)
    SSL_set_accept_state(session);
  else
    ERR_clear_error();
  return session;
}
