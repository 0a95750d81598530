/* Which client answers is its driver's business: curl (http.c) or a script (http_script.c). */
#include "http.h"

void pry_http_free(struct pry_http *http)
{
  if (http)
    http->driver->free(http);
}

struct pry_http_exchange *pry_http_start(struct pry_http *http, const struct pry_http_request *request,
                                         const struct pry_http_ops *ops, void *user)
{
  return http->driver->start(http, request, ops, user);
}

void pry_http_resume(struct pry_http_exchange *exchange)
{
  exchange->driver->resume(exchange);
}

void pry_http_upload(struct pry_http_exchange *exchange)
{
  exchange->driver->upload(exchange);
}

void pry_http_cancel(struct pry_http_exchange *exchange)
{
  exchange->driver->cancel(exchange);
}

size_t pry_http_open_count(const struct pry_http *http)
{
  return http->driver->open_count(http);
}
