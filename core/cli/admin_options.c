#include "admin_options.h"

#include "answer.h"
#include "cli.h"
#include "http_admin.h"
#include "json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKEN_MAX = 4096 };

static bool read_token_file(const char *path, struct pry_buffer *token)
{
  char bytes[TOKEN_MAX];
  FILE *file = fopen(path, "re");
  if (!file) {
    fprintf(stderr, "parry: --admin-token-file %s: %s\n", path, strerror(errno));
    return false;
  }
  size_t size = fread(bytes, 1, sizeof bytes, file);
  bool ok = !ferror(file) && size < sizeof bytes;
  fclose(file);
  while (size && (bytes[size - 1] == '\n' || bytes[size - 1] == '\r'))
    size--;
  ok = ok && size && !memchr(bytes, '\n', size) && !memchr(bytes, '\0', size) && pry_buffer_append(token, bytes, size);
  explicit_bzero(bytes, sizeof bytes);
  if (!ok)
    fprintf(stderr, "parry: --admin-token-file %s: it must hold one line, the token, and nothing else\n", path);
  return ok;
}

bool pry_admin_place_init(struct pry_admin_place *place, const struct pry_admin_options_given *given, bool client)
{
  const char *token = getenv("PARRY_ADMIN_TOKEN");
  pry_buffer_init(&place->token, TOKEN_MAX);
  if (!pry_place_admin(given->address, client, place->address, sizeof place->address)) {
    fprintf(stderr, "parry: the admin address is longer than %d bytes\n", PRY_PLACE_MAX);
    return false;
  }
  if (given->token_file)
    return read_token_file(given->token_file, &place->token);
  if (token && !pry_buffer_append_text(&place->token, token)) {
    fprintf(stderr, "parry: PARRY_ADMIN_TOKEN is longer than %d bytes\n", TOKEN_MAX);
    return false;
  }
  return true;
}

void pry_admin_place_fini(struct pry_admin_place *place)
{
  if (place->token.data)
    explicit_bzero(place->token.data, place->token.capacity);
  pry_buffer_fini(&place->token);
}

const char *pry_admin_place_token(struct pry_admin_place *place)
{
  return place->token.size ? pry_buffer_text(&place->token) : NULL;
}

static void print_problem(const char *address, int status, struct pry_slice body)
{
  struct pry_json_value detail;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  if (!pry_json_get(body, "detail", &detail) || !pry_json_string(detail.raw, &text))
    pry_buffer_append_text(&text, "it does not look like a parry's admin listener");
  fprintf(stderr, "parry: %s answered %d: %s\n", address, status, text.size ? pry_buffer_text(&text) : "");
  pry_buffer_fini(&text);
}

int pry_admin_call(const struct pry_admin_options_given *given, const char *method, const char *path, double timeout,
                   int *status, struct pry_buffer *body)
{
  struct pry_admin_place place;
  char error[PRY_PLACE_MAX + 512];
  int code = PRY_EXIT_USAGE;
  pry_buffer_init(body, 0);
  if (!pry_admin_place_init(&place, given, true))
    goto done;
  struct pry_admin_request request = {.address = place.address,
                                      .token = pry_admin_place_token(&place),
                                      .method = method,
                                      .path = path,
                                      .timeout = timeout};
  code = PRY_EXIT_UNREACHABLE;
  if (!pry_admin_ask(&request, status, body, error, sizeof error))
    fprintf(stderr, "parry: %s\n", error);
  else if (*status == 401 || *status == 403 || *status == 404 || *status == 405 || *status >= 500)
    print_problem(place.address, *status, pry_buffer_slice(body));
  else
    code = -1;
done:
  if (code >= 0)
    pry_buffer_fini(body);
  pry_admin_place_fini(&place);
  return code;
}

int pry_admin_show(const struct pry_admin_options_given *given, const char *path, bool json,
                   void (*print)(struct pry_slice answer))
{
  char detail[300];
  int status;
  struct pry_buffer body;
  int code = pry_admin_call(given, "GET", path, 10, &status, &body);
  if (code >= 0)
    return code;
  struct pry_slice answer = pry_buffer_slice(&body);
  if (json)
    fwrite(answer.data, 1, answer.size, stdout);
  else if (status == 200)
    print(answer);
  if (status != 200)
    fprintf(stderr, "parry: %s\n", pry_answer_text(answer, "detail", detail, sizeof detail));
  pry_buffer_fini(&body);
  return status == 200 ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}
