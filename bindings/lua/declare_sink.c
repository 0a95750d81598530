/* sink "ops" { … }: which kind it is, and what goes with it. Declared in declare_internal.h. */
#include "declare_internal.h"

#include "sink.h"

#include <stdio.h>

#include <lauxlib.h>

enum { DIGEST_MAX = 300, ADDRESS_MAX = 254, URL_MAX = 512 };

#define PAGERDUTY "https://events.pagerduty.com/v2/enqueue"

static const char *const kinds[] = {"webhook", "slack", "feishu", "dingtalk", "wecom", "pagerduty", "sentry", "smtp"};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Fields that not every kind takes. */
static const struct {
  const char *name, *takers;
} extras[] = {{"sign", "webhook feishu dingtalk"},
              {"url", "pagerduty"},
              {"from", "smtp"},
              {"to", "smtp"},
              {"user", "smtp"},
              {"password", "smtp"},
              {"tls", "smtp"}};
enum { EXTRAS = sizeof extras / sizeof *extras };

static bool has(const struct pry_form *form, const char *key)
{
  lua_pushstring(form->L, key);
  bool has = lua_rawget(form->L, form->table) != LUA_TNIL;
  lua_pop(form->L, 1);
  return has;
}

/* NULL: there is none, or more than one, which is a finding. */
static const char *read_kind(const struct pry_form *form)
{
  const char *kind = NULL;
  for (size_t i = 0; i < KINDS; i++) {
    if (!has(form, kinds[i]))
      continue;
    if (kind) {
      pry_form_complain(form, kinds[i], "and %s exclude each other; declare a sink for each", kind);
      return NULL;
    }
    kind = kinds[i];
  }
  if (!kind)
    pry_complain(form->d, form->place,
                 "%s: needs one of webhook, slack, feishu, dingtalk, wecom, pagerduty, sentry = secret \"...\", or "
                 "smtp = \"smtps://host:465\"",
                 form->subject);
  return kind;
}

static void check_extras(const struct pry_form *form, const char *kind)
{
  for (size_t i = 0; i < EXTRAS; i++)
    if (has(form, extras[i].name) && !strstr(extras[i].takers, kind))
      pry_form_complain(form, extras[i].name, "does not go with %s, only with %s", kind, extras[i].takers);
}

/* ---- mail -------------------------------------------------------------------------------------------------- */

/* RFC 5321 §4.1.2 without quoted and source-routed forms: what cannot be mistaken for anything else in a header. */
static const char *address_complaint(const char *address)
{
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.";
  size_t local = strspn(address, allowed), size = strlen(address);
  const char *domain = address + local + (address[local] == '@');
  if (size > ADDRESS_MAX)
    return "is too long for a mail address";
  if (!local || address[local] != '@' || !*domain ||
      domain[strspn(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")])
    return "must be a bare mail address, such as ops@example.com";
  return NULL;
}

static bool is_loopback(const char *host)
{
  size_t size = strcspn(host, ":/");
  return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 ||
         (size == 9 && strncmp(host, "localhost", 9) == 0);
}

/* The host behind "smtp://" or "smtps://"; NULL: neither. */
static const char *host_of(const char *url)
{
  return strncmp(url, "smtps://", 8) == 0 ? url + 8 : strncmp(url, "smtp://", 7) == 0 ? url + 7 : NULL;
}

static const char *server_complaint(const char *url)
{
  const char *host = host_of(url);
  if (!host || !*host || strlen(url) > URL_MAX)
    return "must be \"smtps://host:465\" or \"smtp://host:587\"";
  if (strchr(host, '@')) /* not shown */
    return "holds a login; use user = secret \"...\", password = secret \"...\"";
  return host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]")]
             ? "must be \"smtps://host:465\" or \"smtp://host:587\", and nothing else"
             : NULL;
}

static void read_recipients(const struct pry_form *form, struct pry_sink_config *sink)
{
  struct pry_text_list list = {0};
  lua_pushliteral(form->L, "to");
  bool one = lua_rawget(form->L, form->table) == LUA_TSTRING;
  lua_pop(form->L, 1);
  if (one) {
    const char **items = pry_declare_take(form->L, form->d, sizeof *items);
    items[0] = pry_form_text(form, "to", PRY_REQUIRED);
    list = (struct pry_text_list){items, items[0] ? 1 : 0};
  } else {
    list = pry_form_texts(form, "to", "mail addresses");
  }
  if (list.count == 0 || list.count > PRY_SINK_TO_MAX)
    pry_form_complain(form, "to", "needs 1 to %d mail addresses", PRY_SINK_TO_MAX);
  for (size_t i = 0; i < list.count; i++) {
    const char *wrong = address_complaint(list.items[i]);
    if (wrong)
      pry_form_complain(form, "to", "[%zu] %s", i + 1, wrong);
  }
  sink->to = list.items;
  sink->to_count = list.count < PRY_SINK_TO_MAX ? list.count : PRY_SINK_TO_MAX;
}

static void read_tls(const struct pry_form *form, struct pry_declared_sink *declared)
{
  const char *url = declared->sink.endpoint, *tls = pry_form_text(form, "tls", PRY_OPTIONAL);
  bool local = is_loopback(host_of(url)), plain = tls ? strcmp(tls, "none") == 0 : local;
  if (tls && !plain && strcmp(tls, "required") != 0)
    pry_form_complain(form, "tls", "must be \"required\" or \"none\"");
  if (tls && plain && strncmp(url, "smtps:", 6) == 0)
    pry_form_complain(form, "tls", "cannot be \"none\" with smtps://");
  if (plain && !local && declared->user)
    pry_form_complain(form, "tls", "must be \"required\": without TLS the password could be read on its way");
  declared->sink.plain = plain && strncmp(url, "smtps:", 6) != 0;
}

static void read_mail(const struct pry_form *form, struct pry_declared_sink *declared)
{
  struct pry_sink_config *sink = &declared->sink;
  const char *url = pry_form_text(form, "smtp", PRY_REQUIRED), *wrong = url ? server_complaint(url) : NULL;
  if (wrong)
    pry_form_complain(form, "smtp", "%s", wrong);
  sink->from = pry_form_text(form, "from", PRY_REQUIRED);
  wrong = sink->from ? address_complaint(sink->from) : NULL;
  if (wrong)
    pry_form_complain(form, "from", "%s", wrong);
  read_recipients(form, sink);
  declared->user = pry_declare_secret_field(form, "user");
  declared->sign = pry_declare_secret_field(form, "password");
  if (has(form, "user") != has(form, "password"))
    pry_form_complain(form, has(form, "user") ? "user" : "password", "needs %s, too",
                      has(form, "user") ? "password = secret \"...\"" : "user = secret \"...\"");
  if (!url || server_complaint(url))
    return;
  sink->endpoint = url;
  read_tls(form, declared);
}

/* ---- all ------------------------------------------------------------------------------------------------------- */

static void read_endpoint(const struct pry_form *form, struct pry_sink_config *sink)
{
  const char *url = pry_form_text(form, "url", PRY_OPTIONAL);
  const char *wrong = url ? pry_base_url_complaint(pry_slice_of(url)) : NULL;
  if (wrong)
    pry_form_complain(form, "url", "%s", wrong);
  sink->endpoint = url ? url : PAGERDUTY;
}

static void read_pace(const struct pry_form *form, struct pry_sink_config *sink)
{
  double digest;
  long per_minute;
  if (pry_form_number(form, "digest", 0, DIGEST_MAX, "s", &digest))
    sink->digest = digest > 0 ? pry_time_from_seconds(digest) : -1;
  if (pry_form_integer(form, "per_minute", 1, PRY_SINK_RATE_MAX, &per_minute))
    sink->per_minute = (unsigned)per_minute;
}

void pry_declare_sink_fields(const struct pry_form *form, struct pry_declared_sink *declared)
{
  static const char *const known[] = {"webhook", "slack",    "feishu", "dingtalk", "wecom",     "pagerduty",
                                      "sentry",  "smtp",     "sign",   "url",      "from",      "to",
                                      "user",    "password", "tls",    "digest",   "per_minute"};
  struct pry_sink_config *sink = &declared->sink;
  sink->kind = kinds[0];
  if (!form->table)
    return;
  pry_form_known(form, known, sizeof known / sizeof *known, false);
  const char *kind = read_kind(form);
  if (!kind)
    return;
  sink->kind = kind;
  check_extras(form, kind);
  read_pace(form, sink);
  if (strcmp(kind, "smtp") == 0) {
    read_mail(form, declared);
    return;
  }
  declared->url = pry_declare_secret_field(form, kind);
  if (strcmp(kind, "pagerduty") == 0)
    read_endpoint(form, sink);
  else
    declared->sign = pry_declare_secret_field(form, "sign");
}
