#include "sim_internal.h"

#include <stdlib.h>

void pry_sim_table_init(struct pry_sim_table *table)
{
  for (size_t i = 0; i < PRY_SIM_BUCKETS; i++)
    pry_list_init(&table->buckets[i]);
  pry_list_init(&table->order);
  table->count = 0;
}

static void forget_oldest(struct pry_sim_table *table)
{
  struct pry_sim_count *count = PRY_CONTAINER_OF(table->order.next, struct pry_sim_count, in_order);
  pry_list_remove(&count->in_bucket);
  pry_list_remove(&count->in_order);
  table->count--;
  free(count);
}

void pry_sim_table_clear(struct pry_sim_table *table)
{
  while (table->count)
    forget_oldest(table);
}

static struct pry_list *bucket_of(struct pry_sim_table *table, struct pry_slice name)
{
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (size_t i = 0; i < name.size; i++)
    hash = (hash ^ (unsigned char)name.data[i]) * 16777619u;
  return &table->buckets[hash % PRY_SIM_BUCKETS];
}

struct pry_sim_count *pry_sim_table_get(struct pry_sim_table *table, struct pry_slice name)
{
  if (name.size >= PRY_SIM_NAME_MAX)
    name.size = PRY_SIM_NAME_MAX - 1;
  struct pry_list *bucket = bucket_of(table, name);
  for (struct pry_list *link = bucket->next; link != bucket; link = link->next) {
    struct pry_sim_count *count = PRY_CONTAINER_OF(link, struct pry_sim_count, in_bucket);
    if (pry_slice_equal(pry_slice_of(count->name), name))
      return count;
  }
  struct pry_sim_count *count = calloc(1, sizeof *count);
  if (!count)
    return NULL;
  if (table->count == PRY_SIM_NAMES_MAX)
    forget_oldest(table);
  if (name.size)
    memcpy(count->name, name.data, name.size);
  pry_list_push(bucket, &count->in_bucket);
  pry_list_push(&table->order, &count->in_order);
  table->count++;
  return count;
}

bool pry_sim_table_json(const struct pry_sim_table *table, struct pry_buffer *out)
{
  bool ok = pry_buffer_append_text(out, "{");
  const char *separator = "";
  for (struct pry_list *link = table->order.next; ok && link != &table->order; link = link->next) {
    const struct pry_sim_count *count = PRY_CONTAINER_OF(link, struct pry_sim_count, in_order);
    if (!count->calls)
      continue;
    ok = pry_buffer_append_format(out, "%s\"", separator) && pry_buffer_append_json(out, pry_slice_of(count->name)) &&
         pry_buffer_append_format(out, "\":%lu", count->calls);
    separator = ",";
  }
  return ok && pry_buffer_append_text(out, "}");
}
