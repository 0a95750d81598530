/* What the answers to health checks mean, and how results are told. Declared in health_internal.h and health.h. */
#include "health_internal.h"

#include "http.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- judging ---------------------------------------------------------------------------------------------- */

static const char *network_hint(int curl_code)
{
  switch (curl_code) {
  case PRY_HTTP_COULDNT_RESOLVE:
    return "the name does not resolve: look at base_url and at DNS";
  case PRY_HTTP_COULDNT_CONNECT:
    return "nobody listens there, or a firewall is in the way: look at base_url";
  case PRY_HTTP_TIMED_OUT:
    return "no answer in time: a firewall that drops, or a provider that hangs";
  default:
    return pry_http_code_is_tls(curl_code) ? "TLS failed: look at the scheme in base_url, the clock, the list of CAs"
                                           : "the connection broke: is that an HTTP server?";
  }
}

static const char *hint_of(enum pry_category category)
{
  switch (category) {
  case PRY_AUTH:
    return "the key is missing, wrong or expired: see parry check -v";
  case PRY_PERMISSION:
    return "the key may not do this: ask the provider for access";
  case PRY_BILLING:
    return "credit or quota is used up: look at the provider's billing page";
  case PRY_NOT_FOUND:
    return "the provider does not have this model, or not for this key";
  case PRY_RATE_LIMIT:
    return "it works, but the rate limit is reached just now";
  case PRY_SERVER:
  case PRY_OVERLOADED:
  case PRY_TIMEOUT:
    return "the provider has trouble: see its status page";
  default:
    return "";
  }
}

static void note(struct pry_health_result *result, const struct pry_failure *failure, const char *hint)
{
  result->category = failure->category;
  snprintf(result->code, sizeof result->code, "%s", failure->code);
  result->hint = hint;
}

/* Is `model` among the ids of {"data": [{"id": …}, …]}? */
static bool is_listed(struct pry_slice body, struct pry_slice model)
{
  struct pry_json_value list, element, id;
  struct pry_json_iterator iterator;
  struct pry_slice key;
  if (!pry_json_get(body, "data", &list) || list.type != PRY_JSON_ARRAY)
    return false;
  pry_json_iterate(&iterator, list.raw);
  while (pry_json_next(&iterator, &key, &element))
    if (pry_json_get(element.raw, "id", &id) && id.type == PRY_JSON_STRING && pry_json_equals(id.raw, model))
      return true;
  return false;
}

static bool judge_good(struct pry_health_result *result, const struct pry_health_answer *answer, struct pry_slice model)
{
  bool list = answer->question == PRY_ASK_LIST;
  if (answer->question == PRY_ASK_CONNECT)
    return false;
  result->hint = ""; /* of a list that was none */
  if (answer->credential || answer->auth == PRY_AUTH_NONE)
    result->auth = PRY_HEALTH_GOOD;
  if (!model.size)
    return false;
  if (list && !is_listed(answer->body, model))
    return true;
  result->model = PRY_HEALTH_GOOD;
  return false;
}

/* A redirect or a web page: a login, a captive portal, or base_url is not the API's. Neither says that the credential or the
 * model is good. Where the list of models would be, that alone is no illness: some servers show a page there. */
static bool is_no_answer(const struct pry_health_answer *answer)
{
  struct pry_slice body = answer->body;
  if (pry_slice_starts_with(body, PRY_SLICE("\xEF\xBB\xBF"))) /* a byte order mark */
    body = (struct pry_slice){body.data + 3, body.size - 3};
  while (body.size && (unsigned char)body.data[0] <= ' ')
    body = (struct pry_slice){body.data + 1, body.size - 1};
  return answer->failure.status >= 300 || (body.size && body.data[0] == '<');
}

static bool judge_no_answer(struct pry_health_result *result, const struct pry_health_answer *answer,
                            struct pry_slice model)
{
  static const char hint[] = "a redirect or a web page came, not an API's answer: look at base_url";
  struct pry_failure failure = {.category = PRY_UNKNOWN};
  pry_failure_set_code(&failure, PRY_SLICE("no_api"));
  if (answer->question == PRY_ASK_COMPLETION)
    note(result, &failure, hint);
  else
    result->hint = hint;
  return answer->question == PRY_ASK_LIST && model.size;
}

/* An error. What the provider says about a request that carried no credential of ours says nothing about ours. */
static void judge_error(struct pry_health_result *result, const struct pry_health_answer *answer)
{
  const struct pry_failure *failure = &answer->failure;
  bool ours = answer->credential || answer->auth == PRY_AUTH_NONE;
  if (!ours)
    result->hint = "clients bring their own credentials: no more can be asked without one";
  switch (failure->category) {
  case PRY_AUTH:
  case PRY_PERMISSION:
  case PRY_BILLING:
    if (ours) {
      result->auth = PRY_HEALTH_BAD;
      note(result, failure, hint_of(failure->category));
    }
    return;
  case PRY_SERVER:
  case PRY_OVERLOADED:
  case PRY_TIMEOUT:
  case PRY_NETWORK:
    note(result, failure, hint_of(failure->category));
    return;
  case PRY_RATE_LIMIT:
    result->auth = ours ? PRY_HEALTH_GOOD : PRY_HEALTH_UNKNOWN;
    result->hint = hint_of(PRY_RATE_LIMIT);
    return;
  case PRY_NOT_FOUND:
    if (answer->question != PRY_ASK_LIST && ours) {
      result->auth = PRY_HEALTH_GOOD; /* who may not ask is not told what there is */
      result->model = PRY_HEALTH_BAD;
      note(result, failure, hint_of(PRY_NOT_FOUND));
      return;
    }
    if (ours)
      result->hint = "there is no list of models here: only a completion can tell more";
    return;
  default:
    if (ours)
      result->hint = answer->question == PRY_ASK_COMPLETION
                         ? "the provider did not like the request, which says nothing about its health"
                         : "the provider did not understand the question: only a completion can tell more";
    return;
  }
}

bool pry_health_judge(struct pry_health_result *result, const struct pry_health_answer *answer, struct pry_slice model)
{
  const struct pry_failure *failure = &answer->failure;
  if (answer->answered && answer->question != PRY_ASK_CONNECT)
    result->status = failure->status;
  if (!answer->answered) {
    result->connectivity = PRY_HEALTH_BAD;
    note(result, failure, network_hint(failure->curl_code));
    return false;
  }
  result->connectivity = PRY_HEALTH_GOOD;
  if (answer->question == PRY_ASK_CONNECT)
    return false; /* whatever it said: somebody is there */
  if (failure->category == PRY_NONE)
    return is_no_answer(answer) ? judge_no_answer(result, answer, model) : judge_good(result, answer, model);
  judge_error(result, answer);
  return false;
}

void pry_health_no_credential(struct pry_health_result *result, const char *code, const char *hint)
{
  result->auth = PRY_HEALTH_BAD;
  result->category = PRY_AUTH;
  snprintf(result->code, sizeof result->code, "%s", code);
  result->hint = hint;
}

void pry_health_conclude(struct pry_health_result *result)
{
  bool bad =
      result->connectivity == PRY_HEALTH_BAD || result->auth == PRY_HEALTH_BAD || result->model == PRY_HEALTH_BAD;
  result->ok = !bad && result->category == PRY_NONE;
}

/* ---- telling ---------------------------------------------------------------------------------------------- */

bool pry_health_probe_from_name(struct pry_slice name, enum pry_health_probe *probe)
{
  static const char *const names[] = {
#define X(enumerator, text) text,
      PRY_HEALTH_PROBES(X)
#undef X
  };
  for (size_t i = 0; i < PRY_HEALTH_PROBE_COUNT; i++)
    if (pry_slice_equal(name, pry_slice_of(names[i]))) {
      *probe = (enum pry_health_probe)i;
      return true;
    }
  return false;
}

static bool append_mark(struct pry_buffer *out, const char *name, enum pry_health_mark mark)
{
  return pry_buffer_append_format(out, ",\"%s\":%s", name,
                                  mark == PRY_HEALTH_GOOD  ? "true"
                                  : mark == PRY_HEALTH_BAD ? "false"
                                                           : "null");
}

static bool append_seconds(struct pry_buffer *out, const char *name, double seconds)
{
  return seconds < 0 ? pry_buffer_append_format(out, ",\"%s\":null", name)
                     : pry_buffer_append_format(out, ",\"%s\":%.6f", name, seconds);
}

static bool append_text(struct pry_buffer *out, const char *name, const char *text)
{
  if (!*text)
    return pry_buffer_append_format(out, ",\"%s\":null", name);
  return pry_buffer_append_format(out, ",\"%s\":\"", name) && pry_buffer_append_json(out, pry_slice_of(text)) &&
         pry_buffer_append_text(out, "\"");
}

static bool append_result(struct pry_buffer *out, const struct pry_health_result *result)
{
  return pry_buffer_append_text(out, "{\"target\":\"") && pry_buffer_append_json(out, pry_slice_of(result->target)) &&
         pry_buffer_append_format(out, "\",\"ok\":%s", result->ok ? "true" : "false") &&
         append_mark(out, "connectivity", result->connectivity) && append_mark(out, "auth", result->auth) &&
         append_mark(out, "model", result->model) && append_seconds(out, "dns", result->dns) &&
         append_seconds(out, "tcp", result->tcp) && append_seconds(out, "tls", result->tls) &&
         append_seconds(out, "seconds", result->seconds) &&
         pry_buffer_append_format(out, ",\"status\":%d", result->status) &&
         append_text(out, "category", result->category ? pry_category_name(result->category) : "") &&
         append_text(out, "code", result->code) && append_text(out, "hint", result->hint) &&
         pry_buffer_append_text(out, "}");
}

bool pry_health_json(const struct pry_health_result *results, size_t count, struct pry_buffer *out)
{
  bool all = true;
  for (size_t i = 0; i < count; i++)
    all = all && results[i].ok;
  bool ok = pry_buffer_append_format(out, "{\"ok\":%s,\"targets\":[", all ? "true" : "false");
  for (size_t i = 0; ok && i < count; i++)
    ok = (!i || pry_buffer_append_text(out, ",")) && append_result(out, &results[i]);
  return ok && pry_buffer_append_text(out, "]}\n");
}

/* ---- which targets ------------------------------------------------------------------------------------------ */

struct listing {
  void (*visit)(void *user, const char *target);
  void *user;
  char (*seen)[PRY_TARGET_MAX];
  size_t count;
};

static void list_target(struct listing *listing, const char *provider, const char *model)
{
  char target[PRY_TARGET_MAX];
  int size = snprintf(target, sizeof target, "%s%s%s", provider, model ? "/" : "", model ? model : "");
  if (size < 0 || (size_t)size >= sizeof target || listing->count == PRY_HEALTH_TARGETS_MAX)
    return;
  for (size_t i = 0; i < listing->count; i++)
    if (strcmp(listing->seen[i], target) == 0)
      return;
  memcpy(listing->seen[listing->count++], target, sizeof target);
  listing->visit(listing->user, target);
}

/* Models that a rule or the provider spells out. */
static size_t list_models(struct listing *listing, const struct pry_config *config, const struct pry_provider *provider)
{
  size_t found = provider->model_count;
  for (size_t i = 0; i < provider->model_count; i++)
    list_target(listing, provider->name, provider->models[i]);
  for (size_t i = 0; i < config->route_count; i++)
    for (size_t j = 0; j < config->routes[i].rule_count; j++) {
      const struct pry_model_rule *rule = &config->routes[i].rules[j];
      const char *model = rule->model ? rule->model : strchr(rule->pattern, '*') ? NULL : rule->pattern;
      if (rule->provider != provider || !model)
        continue;
      list_target(listing, provider->name, model);
      found++;
    }
  return found;
}

static bool is_used(const struct pry_config *config, const struct pry_provider *provider)
{
  for (size_t i = 0; i < config->route_count; i++)
    for (size_t j = 0; j < config->routes[i].rule_count; j++)
      if (config->routes[i].rules[j].provider == provider)
        return true;
  return false;
}

void pry_health_targets(const struct pry_config *config, void (*visit)(void *user, const char *target), void *user)
{
  char(*seen)[PRY_TARGET_MAX] = calloc(PRY_HEALTH_TARGETS_MAX, sizeof *seen);
  struct listing listing = {visit, user, seen, 0};
  for (size_t i = 0; seen && i < config->provider_count; i++)
    if (!config->providers[i].host && is_used(config, &config->providers[i]) &&
        !list_models(&listing, config, &config->providers[i]))
      list_target(&listing, config->providers[i].name, NULL);
  free(seen);
}
