#include "sim_internal.h"

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

static bool parse_part(struct pry_sim_fault *fault, struct pry_slice part)
{
  const char *equals = part.size ? memchr(part.data, '=', part.size) : NULL;
  if (!equals)
    return part.size == 0 || pry_sim_fault_set_code(fault, part);
  struct pry_slice name = pry_slice_trim((struct pry_slice){part.data, (size_t)(equals - part.data)});
  struct pry_slice value = {equals + 1, part.size - (size_t)(equals + 1 - part.data)};
  value = pry_slice_trim(value);
  if (pry_slice_equal(name, PRY_SLICE("code")))
    return pry_sim_fault_set_code(fault, value);
  if (pry_slice_equal(name, PRY_SLICE("retry-after")))
    return set_text(fault->retry_after, sizeof fault->retry_after, value);
  if (pry_slice_equal(name, PRY_SLICE("retry-after-ms")))
    return set_text(fault->retry_after_ms, sizeof fault->retry_after_ms, value);
  if (pry_slice_equal(name, PRY_SLICE("delay")))
    return set_delay(fault, value);
  if (pry_slice_equal(name, PRY_SLICE("times")))
    return set_count(&fault->times, value, 0);
  if (pry_slice_equal(name, PRY_SLICE("every")))
    return set_count(&fault->every, value, 1);
  return false;
}

bool pry_sim_fault_parse(struct pry_sim_fault *fault, struct pry_slice spec, char *error, size_t error_size)
{
  *fault = (struct pry_sim_fault){.delay = -1, .times = -1};
  size_t start = 0;
  for (size_t i = 0; i <= spec.size; i++) {
    if (i < spec.size && spec.data[i] != ';')
      continue;
    struct pry_slice part = pry_slice_trim((struct pry_slice){spec.data + start, i - start});
    if (!parse_part(fault, part)) {
      snprintf(error, error_size, "not a part of a fault: '%.*s'", part.size < 80 ? (int)part.size : 80, part.data);
      return false;
    }
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
