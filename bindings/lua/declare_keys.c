/* `models`, `keys` and `rotate` of a provider. Declared in declare_internal.h. */
#include "declare_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

enum { MODELS_MAX = 1024, MODEL_NAME_MAX = 255 };

#define PRICE_MAX 1e6 /* per million tokens: one a token */

/* ---- models ---------------------------------------------------------------------------------------------- */

/* The table on top of the stack: { input = 0.6, output = 2.5, cached = 0.1 }. */
static void read_price(const struct pry_form *models, const char *model, struct pry_price *price)
{
  static const char *const known[] = {"input", "output", "cached"};
  lua_State *L = models->L;
  char prefix[MODEL_NAME_MAX + 16];
  char shown[PRY_SHOWN_MAX];
  if (lua_type(L, -1) != LUA_TTABLE) {
    pry_form_complain(models, model, "must be its price per million tokens, { input = 0.6, output = 2.5 }, got %s",
                      pry_show_value(L, -1, shown));
    return;
  }
  snprintf(prefix, sizeof prefix, "models.%s.", model);
  struct pry_form form = *models;
  form.prefix = pry_declare_copy(L, form.d, pry_slice_of(prefix));
  form.table = lua_gettop(L);
  pry_form_readable(L, form.table);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  bool input = pry_form_number(&form, "input", 0, PRICE_MAX, "", &price->input);
  bool output = pry_form_number(&form, "output", 0, PRICE_MAX, "", &price->output);
  if (!input && !output)
    pry_form_complain(models, model, "needs input or output, its price per million tokens");
  price->cached = price->input;
  pry_form_number(&form, "cached", 0, PRICE_MAX, "", &price->cached);
}

static int most_specific_first(const void *a, const void *b)
{
  const struct pry_price *one = a, *other = b;
  size_t rank = pry_glob_rank(pry_slice_of(one->model)), other_rank = pry_glob_rank(pry_slice_of(other->model));
  if (rank != other_rank)
    return rank > other_rank ? -1 : 1;
  return strcmp(one->model, other->model);
}

/* The elements of the list part; the named ones are prices. */
static size_t read_names(const struct pry_form *form, const struct pry_form *models, const char **names, size_t count)
{
  lua_State *L = form->L;
  char shown[PRY_SHOWN_MAX];
  size_t taken = 0;
  for (size_t i = 1; i <= count; i++) {
    size_t size = 0;
    lua_rawgeti(L, models->table, (lua_Integer)i);
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
    if (name && size && size <= MODEL_NAME_MAX && strlen(name) == size)
      names[taken++] = pry_declare_copy(L, form->d, (struct pry_slice){name, size});
    else
      pry_form_complain(form, "models",
                        "must be model names and [\"name\"] = { input = ..., output = ... }; element %zu is %s", i,
                        pry_show_value(L, -1, shown));
    lua_pop(L, 1);
  }
  return taken;
}

/* Of the table in `models`, which is replaced by one of its named fields alone. */
static const char *const *price_keys(const struct pry_form *models, struct pry_form *named, size_t *count)
{
  lua_State *L = models->L;
  *named = *models;
  lua_newtable(L);
  named->table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, models->table); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING) {
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      lua_rawset(L, named->table);
    }
  return pry_form_keys(named, count);
}

void pry_declare_models(const struct pry_form *form, struct pry_provider *provider)
{
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form models, named;
  if (pry_form_enter(form, "models", "models.", &models)) {
    size_t listed = lua_rawlen(L, models.table), priced;
    const char *const *keys = price_keys(&models, &named, &priced);
    if (listed + priced > MODELS_MAX) {
      pry_form_complain(form, "models", "names more than %d models", MODELS_MAX);
    } else {
      const char **names = pry_declare_take(L, form->d, (listed + priced + 1) * sizeof *names);
      struct pry_price *prices = pry_declare_take(L, form->d, (priced + 1) * sizeof *prices);
      provider->model_count = read_names(form, &models, names, listed);
      for (size_t i = 0; i < priced; i++) {
        names[provider->model_count++] = keys[i];
        prices[i].model = keys[i];
        lua_pushstring(L, keys[i]);
        lua_rawget(L, named.table);
        if (strlen(keys[i]) > MODEL_NAME_MAX)
          pry_form_complain(form, "models", "has a name longer than %d bytes", MODEL_NAME_MAX);
        else
          read_price(&models, keys[i], &prices[i]);
        lua_settop(L, named.table);
      }
      qsort(prices, priced, sizeof *prices, most_specific_first);
      provider->models = names;
      provider->prices = prices;
      provider->price_count = priced;
    }
  }
  lua_settop(L, top);
}

/* ---- keys ------------------------------------------------------------------------------------------------ */

static void read_rotation(const struct pry_form *form, struct pry_provider *provider)
{
  const char *rotate = pry_form_text(form, "rotate", PRY_OPTIONAL);
  provider->rotation = rotate && strcmp(rotate, "round_robin") == 0 ? PRY_ROTATE_ROUND_ROBIN : PRY_ROTATE_FIRST;
  if (rotate && provider->rotation == PRY_ROTATE_FIRST && strcmp(rotate, "first") != 0)
    pry_form_complain(form, "rotate", "must be \"first\" (the first usable key) or \"round_robin\", got \"%.60s\"",
                      rotate);
}

static void read_list(const struct pry_form *form, const struct pry_form *list, struct pry_declared_provider *declared)
{
  lua_State *L = form->L;
  size_t count = lua_rawlen(L, list->table), keys = 0;
  char shown[PRY_SHOWN_MAX];
  for (lua_pushnil(L); lua_next(L, list->table); lua_pop(L, 1))
    keys++;
  if (keys != count || count >= PRY_PROVIDER_KEYS_MAX) {
    pry_form_complain(form, "keys", "must be a list { secret \"NAME\", ... } of at most %d", PRY_PROVIDER_KEYS_MAX - 1);
    return;
  }
  declared->keys = pry_declare_take(L, form->d, (count + 1) * sizeof *declared->keys);
  for (size_t i = 1; i <= count; i++) {
    lua_rawgeti(L, list->table, (lua_Integer)i);
    const char *name = pry_declare_secret_name(L, -1);
    if (name)
      declared->keys[declared->key_count++] = pry_declare_copy(L, form->d, pry_slice_of(name));
    else /* perhaps a key itself: not repeated */
      pry_form_complain(form, "keys", "must be a list { secret \"NAME\", ... }; element %zu is %s", i,
                        pry_show_kind(L, -1, shown));
    lua_pop(L, 1);
  }
}

void pry_declare_keys(const struct pry_form *form, struct pry_declared_provider *declared)
{
  int top = lua_gettop(form->L);
  struct pry_form list;
  if (pry_form_enter(form, "keys", "keys.", &list)) {
    read_list(form, &list, declared);
    if (!declared->auth.secret)
      pry_form_complain(form, "keys",
                        "needs auth = bearer(secret \"NAME\") or header(\"name\", secret \"NAME\"): that is the "
                        "first key, and says how keys are sent");
  }
  lua_settop(form->L, top);
  read_rotation(form, &declared->provider);
}

static void add_key(const struct pry_config *config, const struct pry_secret **pool, size_t *count, const char *name)
{
  const struct pry_secret *secret = pry_declare_secret(config, name);
  for (size_t i = 0; i < *count; i++)
    if (pool[i] == secret)
      return;
  if (secret)
    pool[(*count)++] = secret;
}

void pry_declare_resolve_keys(lua_State *L, struct pry_declaration *d, const struct pry_declared_provider *declared,
                              struct pry_provider *provider)
{
  if (!declared->auth.secret)
    return;
  const struct pry_secret **pool = pry_declare_take(L, d, (declared->key_count + 1) * sizeof(struct pry_secret *));
  add_key(d->config, pool, &provider->key_count, declared->auth.secret);
  for (size_t i = 0; i < declared->key_count; i++)
    add_key(d->config, pool, &provider->key_count, declared->keys[i]);
  provider->keys = pool;
}
