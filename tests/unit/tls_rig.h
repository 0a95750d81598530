/*
 * tls_rig.h: certificates made for a test, and TLS clients. For the tests of tls.h and of servers that use it.
 */
#ifndef TLS_RIG_H
#define TLS_RIG_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

struct tls_files {
  char directory[64];
  char certificate[96], key[96];
};

static inline void tls_write(const char *path, EVP_PKEY *key, X509 *certificate)
{
  char fresh[128];
  snprintf(fresh, sizeof fresh, "%s.new", path);
  FILE *file = fopen(fresh, "w");
  bool good = file && (certificate ? PEM_write_X509(file, certificate)
                                   : PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL)) == 1;
  if (!file || fclose(file) != 0 || !good || rename(fresh, path) != 0)
    abort();
}

/* A self-signed certificate for 127.0.0.1 and its key, valid from `from` to `until` seconds from now. */
static inline void tls_write_pair(const struct tls_files *files, const char *name, long from, long until)
{
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *certificate = X509_new();
  X509_NAME *subject = X509_get_subject_name(certificate);
  X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), from);
  X509_gmtime_adj(X509_getm_notAfter(certificate), until);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_add_ext(certificate, names, -1);
  if (!key || X509_sign(certificate, key, EVP_sha256()) <= 0)
    abort();
  tls_write(files->key, key, NULL);
  tls_write(files->certificate, NULL, certificate);
  X509_EXTENSION_free(names);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

static inline void tls_files_make(struct tls_files *files, const char *name)
{
  snprintf(files->directory, sizeof files->directory, "/tmp/parry-tls-XXXXXX");
  if (!mkdtemp(files->directory))
    abort();
  snprintf(files->certificate, sizeof files->certificate, "%s/certificate.pem", files->directory);
  snprintf(files->key, sizeof files->key, "%s/key.pem", files->directory);
  tls_write_pair(files, name, -60, 3600);
}

static inline void tls_files_remove(const struct tls_files *files)
{
  unlink(files->certificate);
  unlink(files->key);
  rmdir(files->directory);
}

/* The common name of the certificate that the other side showed. */
static inline void tls_peer_name(SSL *session, char *name, size_t size)
{
  X509 *certificate = SSL_get1_peer_certificate(session);
  name[0] = '\0';
  if (certificate)
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, (int)size);
  X509_free(certificate);
}

#endif
