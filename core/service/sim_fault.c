#include "sim_internal.h"

#include "nearest.h"

#include <stdio.h>

static const struct {
  const char *word;
  enum pry_sim_fault_kind kind;
  int code;
} WORDS[] = {
    {"reset", PRY_SIM_RESET, 0},
    {"hang", PRY_SIM_HANG, 0},
    {"cut", PRY_SIM_CUT, 0},
    {"cut-after", PRY_SIM_CUT_AFTER, 0},
    {"stall-after", PRY_SIM_STALL_AFTER, 0},
    {"error-200", PRY_SIM_ERROR_200, 500},
    {"error-after", PRY_SIM_ERROR_AFTER, 500},
    {"slow", PRY_SIM_SLOW, 0},
    {"garbage", PRY_SIM_GARBAGE, 0},
    {"html-502", PRY_SIM_HTML_502, 502},
    {"context", PRY_SIM_STATUS, 400},
    {"content", PRY_SIM_STATUS, 400},
    {"quota", PRY_SIM_STATUS, 429},
    {"balance", PRY_SIM_STATUS, 402},
    {"expired", PRY_SIM_STATUS, 401},
    {"frozen", PRY_SIM_STATUS, 403},
};

bool pry_sim_fault_set_code(struct pry_sim_fault *fault, struct pry_slice code)
{
  for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
    if (pry_slice_equal(code, pry_slice_of(WORDS[i].word))) {
      fault->kind = WORDS[i].kind;
      fault->code = WORDS[i].code;
      snprintf(fault->name, sizeof fault->name, "%s", WORDS[i].word);
      return true;
    }
  double number = pry_sim_number(code, 0);
  bool is_status = number >= 400 && number <= 599, is_kimi = number <= -1000 && number >= -2099;
  if ((!is_status && !is_kimi) || number != (int)number)
    return false;
  fault->kind = is_status ? PRY_SIM_STATUS : PRY_SIM_KIMI;
  fault->code = (int)number;
  fault->name[0] = '\0';
  return true;
}

static bool set_count(long *count, struct pry_slice value, long least)
{
  double number = pry_sim_number(value, -1);
  if (number < (double)least || number > 1e9 || number != (double)(long)number)
    return false;
  *count = (long)number;
  return true;
}

static bool set_text(char *text, size_t size, struct pry_slice value)
{
  if (!value.size || value.size >= size)
    return false;
  snprintf(text, size, "%.*s", (int)value.size, value.data);
  return true;
}

static bool set_delay(struct pry_sim_fault *fault, struct pry_slice value)
{
  fault->delay = pry_sim_number(value, -1);
  return fault->delay >= 0;
}

static bool set_retry_after(struct pry_sim_fault *fault, struct pry_slice value)
{
  return set_text(fault->retry_after, sizeof fault->retry_after, value);
}

static bool set_retry_after_ms(struct pry_sim_fault *fault, struct pry_slice value)
{
  return set_text(fault->retry_after_ms, sizeof fault->retry_after_ms, value);
}

static bool set_times(struct pry_sim_fault *fault, struct pry_slice value)
{
  return set_count(&fault->times, value, 0);
}

static bool set_every(struct pry_sim_fault *fault, struct pry_slice value)
{
  return set_count(&fault->every, value, 1);
}

static const struct part {
  const char *name, *wanted;
  bool (*set)(struct pry_sim_fault *fault, struct pry_slice value);
} PARTS[] = {
    {"code", NULL, pry_sim_fault_set_code}, /* what is wanted is made of WORDS */
    {"retry-after", "seconds or a date, up to 39 bytes", set_retry_after},
    {"retry-after-ms", "milliseconds, up to 23 bytes", set_retry_after_ms},
    {"delay", "seconds, 0 or more", set_delay},
    {"times", "a whole number, 0 or more", set_times},
    {"every", "a whole number, 1 or more", set_every},
};

enum { PART_COUNT = sizeof PARTS / sizeof *PARTS, WORD_COUNT = sizeof WORDS / sizeof *WORDS };

/* ---- what is wrong with a fault --------------------------------------------------------------------------- */

struct complaint {
  struct pry_slice part;
  char *text;
  size_t size;
};

static void append(const struct complaint *complaint, const char *before, const char *text)
{
  size_t used = strlen(complaint->text);
  snprintf(complaint->text + used, complaint->size - used, "%s%s", before, text);
}

/* Starts with the part itself; false, so that a caller can return it. */
static bool complain(const struct complaint *complaint, const char *what)
{
  int shown = complaint->part.size < 60 ? (int)complaint->part.size : 60;
  snprintf(complaint->text, complaint->size, "'%.*s' %s", shown, complaint->part.data, what);
  return false;
}

static bool complain_of_code(const struct complaint *complaint, struct pry_slice code)
{
  const char *words[WORD_COUNT];
  char wrong[32];
  for (size_t i = 0; i < WORD_COUNT; i++)
    words[i] = WORDS[i].word;
  snprintf(wrong, sizeof wrong, "%.*s", code.size < 31 ? (int)code.size : 31, code.data ? code.data : "");
  const char *nearest = pry_nearest_name(wrong, words, WORD_COUNT);
  complain(complaint, "is no code of a fault");
  if (nearest)
    append(complaint, "; did you mean ", nearest);
  append(complaint, "; codes: 400...599, -1000...-2099", "");
  for (size_t i = 0; i < WORD_COUNT; i++)
    append(complaint, " ", words[i]);
  return false;
}

static bool complain_of_name(const struct complaint *complaint, struct pry_slice name)
{
  const char *names[PART_COUNT];
  char wrong[32];
  for (size_t i = 0; i < PART_COUNT; i++)
    names[i] = PARTS[i].name;
  snprintf(wrong, sizeof wrong, "%.*s", name.size < 31 ? (int)name.size : 31, name.data);
  const char *nearest = pry_nearest_name(wrong, names, PART_COUNT);
  complain(complaint, "is no part of a fault");
  if (nearest)
    append(complaint, "; did you mean ", nearest);
  append(complaint, "; parts:", "");
  for (size_t i = 0; i < PART_COUNT; i++) {
    append(complaint, " ", names[i]);
    append(complaint, "=", "");
  }
  return false;
}

static bool parse_part(struct pry_sim_fault *fault, const struct complaint *complaint)
{
  struct pry_slice part = complaint->part;
  const char *equals = part.size ? memchr(part.data, '=', part.size) : NULL;
  if (!equals)
    return part.size == 0 || pry_sim_fault_set_code(fault, part) || complain_of_code(complaint, part);
  struct pry_slice name = pry_slice_trim((struct pry_slice){part.data, (size_t)(equals - part.data)});
  struct pry_slice value = {equals + 1, part.size - (size_t)(equals + 1 - part.data)};
  value = pry_slice_trim(value);
  for (size_t i = 0; i < PART_COUNT; i++) {
    if (!pry_slice_equal(name, pry_slice_of(PARTS[i].name)))
      continue;
    if (PARTS[i].set(fault, value))
      return true;
    if (!PARTS[i].wanted)
      return complain_of_code(complaint, value);
    complain(complaint, "cannot be used; it takes ");
    append(complaint, "", PARTS[i].wanted);
    return false;
  }
  return complain_of_name(complaint, name);
}

bool pry_sim_fault_parse(struct pry_sim_fault *fault, struct pry_slice spec, char *error, size_t error_size)
{
  *fault = (struct pry_sim_fault){.delay = -1, .times = -1};
  size_t start = 0;
  for (size_t i = 0; i <= spec.size; i++) {
    if (i < spec.size && spec.data[i] != ';')
      continue;
    struct complaint complaint = {pry_slice_trim((struct pry_slice){spec.data + start, i - start}), error, error_size};
    if (!parse_part(fault, &complaint))
      return false;
    start = i + 1;
  }
  return true;
}

bool pry_sim_fault_strikes(const struct pry_sim_fault *fault, struct pry_sim_count *count)
{
  if (fault->times < 0 && !fault->every)
    return true;
  count->chances++;
  if (fault->by_turns)
    return count->chances % 2 == 1;
  unsigned long every = fault->every ? (unsigned long)fault->every : 1;
  return count->chances % every == 0 && (fault->times < 0 || count->chances / every <= (unsigned long)fault->times);
}
