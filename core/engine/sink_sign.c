/* Signatures, and the texts they travel in. Declared in sink.h. */
#include "sink.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

bool pry_sign(struct pry_slice key, struct pry_slice message, unsigned char signature[PRY_SIGNATURE_BYTES])
{
  unsigned size = 0;
  return HMAC(EVP_sha256(), key.data, (int)key.size, (const unsigned char *)(message.data ? message.data : ""),
              message.size, signature, &size) &&
         size == PRY_SIGNATURE_BYTES;
}

bool pry_append_base64(struct pry_buffer *out, const void *bytes, size_t size)
{
  if (!pry_buffer_reserve(out, (size + 2) / 3 * 4 + 1)) /* EVP writes a NUL, too */
    return false;
  out->size += (size_t)EVP_EncodeBlock((unsigned char *)out->data + out->size, bytes, (int)size);
  return true;
}

bool pry_append_hex(struct pry_buffer *out, const void *bytes, size_t size)
{
  const unsigned char *byte = bytes;
  bool ok = true;
  for (size_t i = 0; ok && i < size; i++)
    ok = pry_buffer_append_format(out, "%02x", byte[i]);
  return ok;
}

static bool is_unreserved(unsigned char c)
{
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("-._~", c));
}

bool pry_append_percent(struct pry_buffer *out, struct pry_slice text)
{
  bool ok = true;
  for (size_t i = 0; ok && i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    ok = is_unreserved(c) ? pry_buffer_append(out, &c, 1) : pry_buffer_append_format(out, "%%%02X", c);
  }
  return ok;
}
