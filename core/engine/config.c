#include "config.h"

bool pry_glob_match(struct pry_slice pattern, struct pry_slice text)
{
  size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;
  while (t < text.size) {
    if (p < pattern.size && pattern.data[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size && pattern.data[p] == text.data[t]) {
      p++;
      t++;
    } else if (star != SIZE_MAX) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size && pattern.data[p] == '*')
    p++;
  return p == pattern.size;
}

size_t pry_glob_rank(struct pry_slice pattern)
{
  size_t literal = 0;
  for (size_t i = 0; i < pattern.size; i++)
    literal += pattern.data[i] != '*';
  return literal * 2 + (literal == pattern.size);
}

/* What the first '*' of the pattern matched: all between the literal before it and the literal after it. */
static struct pry_slice star_part(struct pry_slice pattern, struct pry_slice path)
{
  const char *star = memchr(pattern.data, '*', pattern.size);
  if (!star)
    return (struct pry_slice){path.data + path.size, 0};
  size_t before = (size_t)(star - pattern.data);
  const char *last = star;
  for (size_t i = before; i < pattern.size; i++)
    if (pattern.data[i] == '*')
      last = pattern.data + i;
  size_t after = (size_t)(pattern.data + pattern.size - last - 1);
  return (struct pry_slice){path.data + before, path.size - before - after};
}

const struct pry_route *pry_config_route(const struct pry_config *config, struct pry_slice path, struct pry_slice *rest)
{
  for (size_t i = 0; i < config->route_count; i++) {
    struct pry_slice pattern = pry_slice_of(config->routes[i].pattern);
    if (!pry_glob_match(pattern, path))
      continue;
    *rest = star_part(pattern, path);
    return &config->routes[i];
  }
  return NULL;
}

const struct pry_route *pry_config_route_by_pattern(const struct pry_config *config, const char *pattern)
{
  for (size_t i = 0; i < config->route_count; i++)
    if (strcmp(config->routes[i].pattern, pattern) == 0)
      return &config->routes[i];
  return NULL;
}

const struct pry_model_rule *pry_route_rule(const struct pry_route *route, struct pry_slice model)
{
  for (size_t i = 0; i < route->rule_count; i++) {
    struct pry_slice pattern = pry_slice_of(route->rules[i].pattern);
    bool fits = model.size ? pry_glob_match(pattern, model) : pry_slice_equal(pattern, PRY_SLICE("*"));
    if (fits)
      return &route->rules[i];
  }
  return NULL;
}

const struct pry_provider *pry_config_provider(const struct pry_config *config, struct pry_slice name)
{
  for (size_t i = 0; i < config->provider_count; i++)
    if (pry_slice_equal(pry_slice_of(config->providers[i].name), name))
      return &config->providers[i];
  return NULL;
}

const struct pry_dialect *pry_config_dialect(const struct pry_config *config, const char *name)
{
  for (size_t i = 0; i < config->dialect_count; i++)
    if (strcmp(config->dialects[i]->name, name) == 0)
      return config->dialects[i];
  return NULL;
}

const struct pry_credential_config *pry_config_credential(const struct pry_config *config, const char *name)
{
  for (size_t i = 0; i < config->credential_count; i++)
    if (strcmp(config->credentials[i].name, name) == 0)
      return &config->credentials[i];
  return NULL;
}

const struct pry_sink_config *pry_config_sink(const struct pry_config *config, const char *name)
{
  for (size_t i = 0; i < config->sink_count; i++)
    if (strcmp(config->sinks[i].name, name) == 0)
      return &config->sinks[i];
  return NULL;
}

const struct pry_service *pry_config_service(const struct pry_config *config, const char *name)
{
  for (size_t i = 0; i < config->service_count; i++)
    if (strcmp(config->services[i].name, name) == 0)
      return &config->services[i];
  return NULL;
}

const char *pry_client_dialect(const struct pry_route *route, struct pry_slice path)
{
  if (route && route->client_dialect)
    return route->client_dialect;
  return pry_slice_starts_with(path, PRY_SLICE("/v1/messages")) ? "anthropic" : "openai";
}

static int hex_value(char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  char lower = (char)(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The byte at *i as the next server may read it: a dot or a slash may be percent-encoded, once. */
static char decoded_at(struct pry_slice path, size_t *i)
{
  const char *text = path.data + *i;
  int high = -1, low = -1;
  if (text[0] == '%' && path.size - *i >= 3) {
    high = hex_value(text[1]);
    low = hex_value(text[2]);
  }
  bool encoded = high >= 0 && low >= 0;
  *i += encoded ? 3 : 1;
  return encoded ? (char)(high << 4 | low) : text[0];
}

static bool is_dots(size_t size, bool only_dots)
{
  return only_dots && (size == 1 || size == 2);
}

bool pry_path_has_dot_segment(struct pry_slice path)
{
  size_t size = 0;
  bool only_dots = true;
  for (size_t i = 0; i < path.size;) {
    char c = decoded_at(path, &i);
    bool end = c == '/' || c == '\\' || c == ';';
    if (end && is_dots(size, only_dots))
      return true;
    size = end ? 0 : size + 1;
    only_dots = end ? c != ';' : only_dots && c == '.'; /* what follows ";" is a parameter, no segment */
  }
  return is_dots(size, only_dots);
}

const struct pry_price *pry_provider_price(const struct pry_provider *provider, const char *model)
{
  for (size_t i = 0; i < provider->price_count; i++)
    if (pry_glob_match(pry_slice_of(provider->prices[i].model), pry_slice_of(model)))
      return &provider->prices[i];
  return NULL;
}

bool pry_join_url(struct pry_buffer *url, const char *base_url, struct pry_slice rest, struct pry_slice query)
{
  struct pry_slice base = pry_slice_of(base_url);
  while (base.size && base.data[base.size - 1] == '/')
    base.size--;
  while (rest.size && rest.data[0] == '/') {
    rest.data++;
    rest.size--;
  }
  return pry_buffer_append_slice(url, base) && (!rest.size || pry_buffer_append_text(url, "/")) &&
         pry_buffer_append_slice(url, rest) &&
         (!query.size || (pry_buffer_append_text(url, "?") && pry_buffer_append_slice(url, query)));
}

/* ---- other dialects ---------------------------------------------------------------------------------------- */

/* What the client's dialect is said to speak; NULL: only itself. */
static const char *spoken_by(const struct pry_config *config, const char *client)
{
  const struct pry_dialect *dialect = pry_config_dialect(config, client);
  return dialect ? dialect->speaks : NULL;
}

bool pry_config_carries(const struct pry_config *config, const struct pry_dialect *target, const char *client)
{
  const char *spoken;
  return pry_dialect_carries(target, client) ||
         ((spoken = spoken_by(config, client)) && pry_dialect_carries(target, spoken));
}

static const char *pair_for(const struct pry_config *config, const struct pry_dialect *dialect, const char *client)
{
  const struct pry_translation_pair *pair = pry_dialect_pair(dialect, client);
  const char *spoken = pair ? NULL : spoken_by(config, client);
  if (spoken)
    pair = pry_dialect_pair(dialect, spoken);
  return pair ? pair->client : NULL;
}

const struct pry_dialect *pry_config_translator(const struct pry_config *config, const struct pry_dialect *target,
                                                const char *client, const char **pair)
{
  *pair = pair_for(config, target, client);
  if (*pair)
    return target;
  const struct pry_dialect *family = target->speaks ? pry_config_dialect(config, target->speaks) : NULL;
  *pair = family ? pair_for(config, family, client) : NULL;
  return *pair ? family : NULL;
}

static bool is_version(struct pry_slice segment)
{
  return segment.size >= 2 && segment.data[0] == 'v' && segment.data[1] >= '0' && segment.data[1] <= '9';
}

static struct pry_slice cut_front(struct pry_slice text, size_t size)
{
  return (struct pry_slice){text.data + size, text.size - size};
}

/* "/v1" of "/v1/messages"; empty when it begins with none. */
static struct pry_slice first_segment(struct pry_slice path)
{
  const char *slash = path.size > 1 ? memchr(path.data + 1, '/', path.size - 1) : NULL;
  return (struct pry_slice){path.data, slash ? (size_t)(slash - path.data) : path.size};
}

static bool has_version(struct pry_slice url)
{
  const char *host = memmem(url.data, url.size, "://", 3);
  if (host)
    url = cut_front(url, (size_t)(host + 3 - url.data));
  const char *slash = memchr(url.data, '/', url.size);
  if (!slash)
    return false;
  for (url = cut_front(url, (size_t)(slash - url.data)); url.size;) {
    struct pry_slice segment = first_segment(url);
    if (is_version(cut_front(segment, 1)))
      return true;
    url = cut_front(url, segment.size);
  }
  return false;
}

bool pry_join_api_url(struct pry_buffer *url, const char *base_url, const char *path)
{
  struct pry_slice base = pry_slice_of(base_url), rest = pry_slice_of(path);
  while (base.size && base.data[base.size - 1] == '/')
    base.size--;
  struct pry_slice version = first_segment(rest);
  if (version.size > 1 && !is_version(cut_front(version, 1)))
    version.size = 0;
  size_t common = rest.size;
  for (; common; common--) {
    bool at_end = common == rest.size || rest.data[common] == '/';
    if (at_end && base.size >= common && memcmp(base.data + base.size - common, rest.data, common) == 0)
      break;
  }
  if (!common && has_version(base))
    common = version.size;
  rest = cut_front(rest, common);
  struct pry_slice bare = cut_front(pry_slice_of(path), version.size); /* "https://h/v2/messages" is whole, too */
  if (bare.size > 1 && base.size >= bare.size && memcmp(base.data + base.size - bare.size, bare.data, bare.size) == 0)
    rest.size = 0;
  return pry_buffer_append_slice(url, base) && pry_buffer_append_slice(url, rest);
}

void pry_config_free(struct pry_config *config)
{
  if (!config)
    return;
  struct pry_arena arena = config->arena; /* the struct lies in its own arena */
  pry_arena_fini(&arena);
}
