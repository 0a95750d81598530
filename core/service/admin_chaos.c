/* Faults on purpose, seen and steered from outside. Declared in admin_internal.h.
 *
 * What is armed, and what may be, is the business of policies/chaos.lua: an order goes to it as the event "chaos", and it
 * answers in the store, under INSTANCE:report, with the number of the order. What is armed it keeps under
 * INSTANCE:armed. */
#include "admin_internal.h"

#include <math.h>

enum { TEXT_MAX = PRY_STORE_VALUE_MAX };

static const char POLICY[] = "chaos";

/* The JSON that an instance keeps under `key`, which the store holds as a JSON text. False: there is none. */
static bool kept_json(struct pry_engine *engine, const char *instance, const char *key, struct pry_buffer *json)
{
  struct pry_buffer name, value;
  pry_buffer_init(&name, PRY_STORE_KEY_MAX);
  pry_buffer_init(&value, TEXT_MAX);
  pry_buffer_clear(json);
  bool found = pry_buffer_append_format(&name, "%s:%s", instance, key) &&
               pry_store_get(engine->store, pry_buffer_slice(&name), &value, pry_loop_now(engine->control->loop)) ==
                   PRY_STORE_OK &&
               pry_json_string(pry_buffer_slice(&value), json) &&
               pry_json_parse(pry_buffer_slice(json), NULL) == PRY_JSON_OK;
  pry_buffer_fini(&name);
  pry_buffer_fini(&value);
  return found;
}

/* Instances of the policy, those of one name once: they share what they keep. NULL: that was the last. */
static const struct pry_instance *next_instance(const struct pry_config *config, size_t *i)
{
  while (*i < config->instance_count) {
    const struct pry_instance *instance = config->instances[(*i)++];
    bool first = strcmp(instance->policy, POLICY) == 0;
    for (size_t j = 0; j + 1 < *i && first; j++)
      first = strcmp(config->instances[j]->name, instance->name) != 0;
    if (first)
      return instance;
  }
  return NULL;
}

static bool put_experiment(const struct pry_instance *instance, struct pry_slice name, struct pry_slice row, double now,
                           struct pry_buffer *out, bool *first)
{
  struct pry_json_value rate, until;
  double share = 0, end = 0;
  if (!pry_json_get(row, "rate", &rate) || !pry_json_number(rate.raw, &share) || !pry_json_get(row, "until", &until) ||
      !pry_json_number(until.raw, &end) || end <= now || share <= 0)
    return true;
  bool ok = pry_buffer_append_text(out, *first ? "{\"instance\":\"" : ",{\"instance\":\"") &&
            pry_buffer_append_json(out, pry_slice_of(instance->name)) &&
            pry_buffer_append_text(out, "\",\"experiment\":") && pry_buffer_append_slice(out, name) &&
            pry_buffer_append_format(out, ",\"rate\":%.6g,\"until\":%.3f}", share, end);
  *first = false;
  return ok;
}

bool pry_admin_put_chaos(const struct pry_admin *admin, struct pry_buffer *out)
{
  struct pry_engine *engine = admin->engine;
  const struct pry_generation *serving = pry_engine_generation(engine);
  const struct pry_instance *instance;
  struct pry_buffer armed;
  size_t i = 0;
  bool ok = pry_buffer_append_text(out, "["), first = true;
  pry_buffer_init(&armed, TEXT_MAX);
  while (ok && serving && (instance = next_instance(serving->config, &i))) {
    struct pry_json_iterator it;
    struct pry_json_value row;
    struct pry_slice name;
    if (!kept_json(engine, instance->name, "armed", &armed))
      continue;
    pry_json_iterate(&it, pry_buffer_slice(&armed));
    while (ok && pry_json_next(&it, &name, &row))
      ok = name.size == 0 ||
           put_experiment(instance, name, row.raw, pry_loop_unix_time(engine->control->loop), out, &first);
  }
  pry_buffer_fini(&armed);
  return ok && pry_buffer_append_text(out, "]");
}

static bool put_fields(const struct pry_admin_chaos *order, unsigned long number, struct pry_buffer *fields)
{
  bool ok = pry_buffer_append_format(fields, "{\"action\":\"%s\",\"request\":%lu", order->action, number);
  if (ok && order->experiment[0])
    ok = pry_buffer_append_format(fields, ",\"experiment\":\"%s\"", order->experiment);
  if (ok && order->instance[0])
    ok = pry_buffer_append_format(fields, ",\"instance\":\"%s\"", order->instance);
  if (ok && order->rate >= 0)
    ok = pry_buffer_append_format(fields, ",\"rate\":%.6g", order->rate);
  if (ok && order->seconds > 0)
    ok = pry_buffer_append_format(fields, ",\"seconds\":%.3f", order->seconds);
  return ok && pry_buffer_append_text(fields, "}");
}

/* Appends one instance's answer to this very order, if it gave one. */
static bool put_report(const struct pry_instance *instance, struct pry_slice report, unsigned long number,
                       struct pry_buffer *out, unsigned *count)
{
  struct pry_json_value request;
  double asked;
  if (!pry_json_get(report, "request", &request) || !pry_json_number(request.raw, &asked) || asked != (double)number)
    return true;
  return pry_buffer_append_text(out, (*count)++ ? ",{\"instance\":\"" : "{\"instance\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(instance->name)) && pry_buffer_append_text(out, "\",\"report\":") &&
         pry_buffer_append_slice(out, report) && pry_buffer_append_text(out, "}");
}

bool pry_admin_order_chaos(struct pry_admin *admin, const struct pry_admin_chaos *order, struct pry_buffer *out)
{
  const struct pry_generation *serving = pry_engine_generation(admin->engine);
  const struct pry_instance *instance;
  struct pry_buffer fields, report;
  unsigned long number = ++admin->chaos_orders;
  unsigned count = 0;
  size_t i = 0;
  pry_buffer_init(&fields, TEXT_MAX);
  pry_buffer_init(&report, TEXT_MAX);
  bool ok = put_fields(order, number, &fields) && pry_buffer_append_text(out, "{\"instances\":[");
  if (ok)
    pry_engine_emit(admin->engine, POLICY, pry_buffer_slice(&fields));
  while (ok && serving && (instance = next_instance(serving->config, &i)))
    if ((!order->instance[0] || strcmp(order->instance, instance->name) == 0) &&
        kept_json(admin->engine, instance->name, "report", &report))
      ok = put_report(instance, pry_buffer_slice(&report), number, out, &count);
  ok = ok && pry_buffer_append_text(out, "]}\n");
  pry_buffer_fini(&fields);
  pry_buffer_fini(&report);
  return ok;
}
