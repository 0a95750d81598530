#include "error_body.h"

static double take_digits(const char **p, const char *end)
{
  double number = 0, place = 1;
  bool fraction = false;
  for (; *p < end && ((**p >= '0' && **p <= '9') || (**p == '.' && !fraction)); (*p)++) {
    if (**p == '.') {
      fraction = true;
      continue;
    }
    number = number * 10 + (**p - '0');
    place *= fraction ? 10 : 1;
  }
  return number / place;
}

static double take_unit(const char **p, const char *end)
{
  static const struct {
    struct pry_slice name;
    double seconds;
  } units[] = {
      {PRY_SLICE_INIT("ms"), 0.001},   {PRY_SLICE_INIT("s"), 1},      {PRY_SLICE_INIT("sec"), 1},
      {PRY_SLICE_INIT("secs"), 1},     {PRY_SLICE_INIT("second"), 1}, {PRY_SLICE_INIT("seconds"), 1},
      {PRY_SLICE_INIT("m"), 60},       {PRY_SLICE_INIT("min"), 60},   {PRY_SLICE_INIT("minute"), 60},
      {PRY_SLICE_INIT("minutes"), 60}, {PRY_SLICE_INIT("h"), 3600},   {PRY_SLICE_INIT("hour"), 3600},
      {PRY_SLICE_INIT("hours"), 3600}, {PRY_SLICE_INIT("d"), 86400},  {PRY_SLICE_INIT("day"), 86400},
      {PRY_SLICE_INIT("days"), 86400},
  };
  if (*p < end && **p == ' ')
    (*p)++;
  const char *start = *p;
  while (*p < end && **p >= 'a' && **p <= 'z')
    (*p)++;
  struct pry_slice word = {start, (size_t)(*p - start)};
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (pry_slice_equal(word, units[i].name))
      return units[i].seconds;
  return -1;
}

/* hh:mm:ss, as API managements say it. */
static double clock_time(struct pry_slice text)
{
  if (text.size < 8 || text.data[2] != ':' || text.data[5] != ':')
    return -1;
  double parts[3];
  for (size_t i = 0; i < 3; i++) {
    const char *p = text.data + 3 * i, *end = p + 2;
    if (*p < '0' || *p > '9' || p[1] < '0' || p[1] > '9')
      return -1;
    parts[i] = take_digits(&p, end);
  }
  return parts[0] * 3600 + parts[1] * 60 + parts[2];
}

double pry_error_body_duration(struct pry_slice text)
{
  enum { PARTS = 4, SIZE_MAX_READ = 40 };
  double total = clock_time(text);
  if (total >= 0 || !text.size)
    return total;
  const char *p = text.data, *end = p + (text.size < SIZE_MAX_READ ? text.size : SIZE_MAX_READ);
  for (int i = 0; i < PARTS && p < end && *p >= '0' && *p <= '9'; i++) {
    double number = take_digits(&p, end), unit = take_unit(&p, end);
    if (unit < 0)
      break;
    total = (i ? total : 0) + number * unit;
  }
  return total;
}

static struct pry_slice behind(struct pry_slice text, const char *place)
{
  return (struct pry_slice){place, text.size - (size_t)(place - text.data)};
}

double pry_error_body_wait(struct pry_slice message)
{
  static const struct pry_slice leads[] = {PRY_SLICE_INIT("again in "),       PRY_SLICE_INIT("again after "),
                                           PRY_SLICE_INIT("etry after "),     PRY_SLICE_INIT("etry in "),
                                           PRY_SLICE_INIT("replenished in "), PRY_SLICE_INIT("lease wait ")};
  for (size_t i = 0; i < sizeof leads / sizeof *leads; i++) {
    const char *lead = memmem(message.data, message.size, leads[i].data, leads[i].size);
    double seconds = lead ? pry_error_body_duration(behind(message, lead + leads[i].size)) : -1;
    if (seconds >= 0)
      return seconds;
  }
  return -1;
}
