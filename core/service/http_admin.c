#include "http_admin.h"

#include <curl/curl.h>
#include <stdio.h>

enum { ANSWER_MAX = 64 * 1024 * 1024 };

#define UNIX_PREFIX "unix:"

static size_t keep(char *data, size_t size, size_t count, void *user)
{
  return pry_buffer_append(user, data, size * count) ? size * count : 0;
}

/* The header curl sends; NULL: no memory. */
static struct curl_slist *authorization(const char *token)
{
  struct pry_buffer line;
  pry_buffer_init(&line, 16 * 1024);
  bool ok = pry_buffer_append_text(&line, "Authorization: Bearer ") && pry_buffer_append_text(&line, token) &&
            pry_buffer_text(&line);
  struct curl_slist *list = ok ? curl_slist_append(NULL, line.data) : NULL;
  if (line.data)
    memset(line.data, 0, line.size);
  pry_buffer_fini(&line);
  return list;
}

static bool append_url(struct pry_buffer *url, const struct pry_admin_request *request, bool is_unix)
{
  const char *scheme = strncmp(request->address, "http://", 7) == 0 ? "" : "http://";
  return (is_unix ? pry_buffer_append_text(url, "http://localhost")
                  : pry_buffer_append_text(url, scheme) && pry_buffer_append_text(url, request->address)) &&
         pry_buffer_append_text(url, request->path) && pry_buffer_text(url);
}

static bool set_options(CURL *curl, const struct pry_admin_request *request, struct pry_buffer *url,
                        struct curl_slist *headers, struct pry_buffer *body)
{
  bool is_unix = strncmp(request->address, UNIX_PREFIX, sizeof UNIX_PREFIX - 1) == 0;
  if (!append_url(url, request, is_unix))
    return false;
  bool ok = !is_unix || curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, request->address + 5) == CURLE_OK;
  /* A method with a body would make curl wait for one. */
  return ok && curl_easy_setopt(curl, CURLOPT_URL, url->data) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_WRITEDATA, body) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(request->timeout * 1000)) == CURLE_OK;
}

bool pry_admin_ask(const struct pry_admin_request *request, int *status, struct pry_buffer *body, char *error,
                   size_t error_size)
{
  struct pry_buffer url;
  pry_buffer_init(&url, 8 * 1024);
  pry_buffer_init(body, ANSWER_MAX);
  struct curl_slist *headers = request->token ? authorization(request->token) : NULL;
  CURL *curl = curl_easy_init();
  long code = 0;
  CURLcode result = CURLE_OUT_OF_MEMORY;
  if (curl && (headers || !request->token) && set_options(curl, request, &url, headers, body))
    result = curl_easy_perform(curl);
  if (result == CURLE_OK)
    result = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
  if (result == CURLE_OPERATION_TIMEDOUT)
    snprintf(error, error_size, "the parry at %s gave no answer within %.3g s; is it very busy? look at its log",
             request->address, request->timeout);
  else if (result != CURLE_OK)
    snprintf(error, error_size,
             "cannot reach a running parry at %s: %s; start one with `parry serve`, or name its admin address with "
             "--admin or PARRY_ADMIN",
             request->address, curl_easy_strerror(result));
  *status = (int)code;
  curl_easy_cleanup(curl);
  curl_slist_free_all(headers);
  pry_buffer_fini(&url);
  return result == CURLE_OK;
}
