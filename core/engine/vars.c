/* Per-call scratch. Declared in policy.h. */
#include "policy.h"

#include <stdlib.h>

enum { VARS_MAX = 64, VARS_FIRST = 4, NAME_MAX_BYTES = 64, VALUE_MAX_BYTES = 1024 };

struct variable {
  char name[NAME_MAX_BYTES];
  size_t name_size;
  char *value;
  size_t value_size;
};

struct pry_vars {
  struct variable *variables; /* in the order of first setting */
  size_t count, capacity;
};

struct pry_vars *pry_vars_new(void)
{
  return calloc(1, sizeof(struct pry_vars));
}

void pry_vars_clear(struct pry_vars *vars)
{
  for (size_t i = 0; i < vars->count; i++)
    free(vars->variables[i].value);
  vars->count = 0;
}

void pry_vars_free(struct pry_vars *vars)
{
  if (!vars)
    return;
  pry_vars_clear(vars);
  free(vars->variables);
  free(vars);
}

static size_t find(const struct pry_vars *vars, struct pry_slice name)
{
  size_t i = 0;
  while (i < vars->count &&
         !pry_slice_equal((struct pry_slice){vars->variables[i].name, vars->variables[i].name_size}, name))
    i++;
  return i;
}

static void remove_at(struct pry_vars *vars, size_t i)
{
  free(vars->variables[i].value);
  vars->count--;
  memmove(&vars->variables[i], &vars->variables[i + 1], (vars->count - i) * sizeof *vars->variables);
}

static bool reserve_one(struct pry_vars *vars)
{
  if (vars->count < vars->capacity)
    return true;
  size_t capacity = vars->capacity ? vars->capacity * 2 : VARS_FIRST;
  struct variable *variables = capacity > VARS_MAX ? NULL : realloc(vars->variables, capacity * sizeof *variables);
  if (!variables)
    return false;
  vars->variables = variables;
  vars->capacity = capacity;
  return true;
}

bool pry_vars_set(struct pry_vars *vars, struct pry_slice name, struct pry_slice value)
{
  size_t i = find(vars, name);
  if (!value.size) {
    if (i < vars->count)
      remove_at(vars, i);
    return true;
  }
  if (!name.size || name.size > NAME_MAX_BYTES || value.size > VALUE_MAX_BYTES)
    return false;
  if (i == vars->count && !reserve_one(vars))
    return false;
  char *copy = malloc(value.size);
  if (!copy)
    return false;
  memcpy(copy, value.data, value.size);
  struct variable *variable = &vars->variables[i];
  if (i == vars->count) {
    *variable = (struct variable){.name_size = name.size};
    memcpy(variable->name, name.data, name.size);
    vars->count++;
  }
  free(variable->value);
  variable->value = copy;
  variable->value_size = value.size;
  return true;
}

bool pry_vars_get(const struct pry_vars *vars, struct pry_slice name, struct pry_slice *value)
{
  size_t i = find(vars, name);
  *value = (struct pry_slice){0};
  if (i == vars->count)
    return false;
  *value = (struct pry_slice){vars->variables[i].value, vars->variables[i].value_size};
  return true;
}

bool pry_vars_at(const struct pry_vars *vars, size_t i, struct pry_slice *name, struct pry_slice *value)
{
  if (i >= vars->count)
    return false;
  const struct variable *variable = &vars->variables[i];
  *name = (struct pry_slice){variable->name, variable->name_size};
  *value = (struct pry_slice){variable->value, variable->value_size};
  return true;
}
