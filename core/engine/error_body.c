#include "error_body.h"

#include "json.h"

#include <stdint.h>

enum { TEXTS_MAX = 3, PLAIN_MAX = 300, TITLE_WITHIN = 4096 };

struct reading {
  struct pry_error_body *error;
  char wait[32];  /* Google's retryDelay */
  unsigned depth; /* objects and arrays around */
  unsigned texts; /* texts that were JSON around */
};

static void read_text(struct reading *reading, struct pry_slice string);
static void read_container(struct reading *reading, struct pry_slice text);

/* ---- a lenient walk ------------------------------------------------------------------------------------------ */

static bool is_space(char c)
{
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *skip_space(const char *p, const char *end)
{
  while (p < end && is_space(*p))
    p++;
  return p;
}

/* From an opening quote to behind the closing one, or to the end. */
static const char *skip_string(const char *p, const char *end)
{
  const char *start = p + 1, *quote = start;
  while (quote < end && (quote = memchr(quote, '"', (size_t)(end - quote)))) {
    const char *slash = quote;
    while (slash > start && slash[-1] == '\\')
      slash--;
    quote++;
    if ((size_t)(quote - 1 - slash) % 2 == 0)
      return quote;
  }
  return end;
}

/* Brackets are counted, not matched: who mixes them up is not asked about what they mean. */
static const char *skip_container(const char *p, const char *end)
{
  for (size_t open = 0; p < end; p++) {
    if (*p == '"')
      p = skip_string(p, end) - 1;
    else if (*p == '{' || *p == '[')
      open++;
    else if ((*p == '}' || *p == ']') && --open == 0)
      return p + 1;
  }
  return end;
}

static const char *skip_value(const char *p, const char *end)
{
  if (p < end && *p == '"')
    return skip_string(p, end);
  if (p < end && (*p == '{' || *p == '['))
    return skip_container(p, end);
  while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_space(*p))
    p++;
  return p;
}

struct walk {
  const char *p, *end;
};

static bool at_end(struct walk *walk)
{
  walk->p = skip_space(walk->p, walk->end);
  if (walk->p < walk->end && *walk->p == ',')
    walk->p = skip_space(walk->p + 1, walk->end);
  return walk->p == walk->end || *walk->p == '}' || *walk->p == ']';
}

static bool next_value(struct walk *walk, struct pry_slice *value)
{
  const char *start = walk->p;
  walk->p = skip_value(start, walk->end);
  *value = (struct pry_slice){start, (size_t)(walk->p - start)};
  return walk->p > start;
}

/* The key comes with its quotes. False: the end, or nothing that could be told apart. */
static bool next_member(struct walk *walk, struct pry_slice *key, struct pry_slice *value)
{
  if (at_end(walk) || *walk->p != '"')
    return false;
  const char *start = walk->p;
  walk->p = skip_string(start, walk->end);
  *key = (struct pry_slice){start, (size_t)(walk->p - start)};
  walk->p = skip_space(walk->p, walk->end);
  if (walk->p == walk->end || *walk->p != ':')
    return false;
  walk->p = skip_space(walk->p + 1, walk->end);
  return next_value(walk, value);
}

/* ---- values -------------------------------------------------------------------------------------------------- */

static bool is_string(struct pry_slice value)
{
  return value.size && value.data[0] == '"';
}

static bool is_container(struct pry_slice value)
{
  return value.size && (value.data[0] == '{' || value.data[0] == '[');
}

/* Between the quotes; the closing one may be missing. */
static struct pry_slice inside(struct pry_slice string)
{
  size_t closed = string.size > 1 && string.data[string.size - 1] == '"';
  return (struct pry_slice){string.data + 1, string.size - 1 - closed};
}

/* Numbers are taken when something follows them: of one that was cut, nobody knows the rest. */
static bool is_number(struct pry_slice value, const char *end)
{
  int64_t integer;
  double number;
  return value.size && value.data + value.size < end && value.size < PRY_ERROR_WORD_MAX &&
         (pry_json_integer(value, &integer) || pry_json_number(value, &number));
}

/* 429.0 is 429. */
static struct pry_slice plain_number(struct pry_slice number)
{
  if (number.size > 2 && memcmp(number.data + number.size - 2, ".0", 2) == 0)
    number.size -= 2;
  return number;
}

static bool has_space(struct pry_slice text)
{
  return text.size && memchr(text.data, ' ', text.size) != NULL;
}

static void fill(char *to, size_t size, struct pry_slice value)
{
  if (to[0] || !value.size)
    return;
  if (is_string(value))
    to[pry_json_unescape(inside(value), to, size - 1)] = '\0';
  else
    to[pry_json_unescape(plain_number(value), to, size - 1)] = '\0';
}

/* "429": says no more than the answer's status does. */
static bool is_status(const char *code)
{
  return code[0] >= '1' && code[0] <= '5' && code[1] >= '0' && code[1] <= '9' && code[2] >= '0' && code[2] <= '9' &&
         !code[3];
}

static void fill_code(struct pry_error_body *error, struct pry_slice value)
{
  char code[PRY_ERROR_WORD_MAX] = "";
  fill(code, sizeof code, value);
  if (code[0] && (!error->code[0] || (is_status(error->code) && !is_status(code))))
    memcpy(error->code, code, sizeof code);
}

/* ---- what the keys mean --------------------------------------------------------------------------------------- */

enum slot { CODE, TYPE, STATE, MESSAGE, BOX, INNER, REASON, DETAILS, METADATA, WAIT, QUOTA, VIOLATIONS, RAW, SLOTS };

/* By length, and for one slot of one object the least rank counts. */
static const struct name {
  struct pry_slice key;
  unsigned char slot, rank;
} names[] = {
    {PRY_SLICE_INIT("msg"), MESSAGE, 2},
    {PRY_SLICE_INIT("raw"), RAW, 1},
    {PRY_SLICE_INIT("code"), CODE, 1},
    {PRY_SLICE_INIT("Code"), CODE, 5},
    {PRY_SLICE_INIT("type"), TYPE, 1},
    {PRY_SLICE_INIT("error"), MESSAGE, 10},
    {PRY_SLICE_INIT("title"), MESSAGE, 12},
    {PRY_SLICE_INIT("error"), BOX, 1},
    {PRY_SLICE_INIT("Error"), BOX, 3},
    {PRY_SLICE_INIT("fault"), BOX, 6},
    {PRY_SLICE_INIT("__type"), TYPE, 2},
    {PRY_SLICE_INIT("status"), STATE, 1},
    {PRY_SLICE_INIT("errmsg"), MESSAGE, 3},
    {PRY_SLICE_INIT("detail"), MESSAGE, 11},
    {PRY_SLICE_INIT("errors"), BOX, 2},
    {PRY_SLICE_INIT("detail"), BOX, 5},
    {PRY_SLICE_INIT("reason"), REASON, 1},
    {PRY_SLICE_INIT("errcode"), CODE, 2},
    {PRY_SLICE_INIT("message"), MESSAGE, 1},
    {PRY_SLICE_INIT("Message"), MESSAGE, 5},
    {PRY_SLICE_INIT("message"), BOX, 9},
    {PRY_SLICE_INIT("details"), DETAILS, 1},
    {PRY_SLICE_INIT("quotaId"), QUOTA, 1},
    {PRY_SLICE_INIT("response"), BOX, 4},
    {PRY_SLICE_INIT("Response"), BOX, 4},
    {PRY_SLICE_INIT("metadata"), METADATA, 1},
    {PRY_SLICE_INIT("errorCode"), CODE, 4},
    {PRY_SLICE_INIT("errorcode"), CODE, 4},
    {PRY_SLICE_INIT("error_msg"), MESSAGE, 4},
    {PRY_SLICE_INIT("base_resp"), BOX, 7},
    {PRY_SLICE_INIT("error_code"), CODE, 3},
    {PRY_SLICE_INIT("statusCode"), CODE, 7},
    {PRY_SLICE_INIT("error_type"), TYPE, 3},
    {PRY_SLICE_INIT("status_msg"), MESSAGE, 7},
    {PRY_SLICE_INIT("innererror"), INNER, 1},
    {PRY_SLICE_INIT("retryDelay"), WAIT, 1},
    {PRY_SLICE_INIT("violations"), VIOLATIONS, 1},
    {PRY_SLICE_INIT("status_code"), CODE, 6},
    {PRY_SLICE_INIT("faultstring"), MESSAGE, 9},
    {PRY_SLICE_INIT("inner_error"), INNER, 2},
    {PRY_SLICE_INIT("errorMessage"), MESSAGE, 8},
    {PRY_SLICE_INIT("ResponseMetadata"), BOX, 8},
    {PRY_SLICE_INIT("error_description"), MESSAGE, 6},
    {PRY_SLICE_INIT("provider_specific_fields"), METADATA, 2},
};

enum { NAMES = sizeof names / sizeof *names };

struct layer {
  struct pry_slice found[SLOTS];
  unsigned char ranks[SLOTS]; /* 0: not found */
};

static bool fits(enum slot slot, struct pry_slice value, const char *end)
{
  switch (slot) {
  case BOX:
  case INNER:
  case DETAILS:
  case METADATA:
  case VIOLATIONS:
    return is_container(value);
  case RAW:
    return is_container(value) || is_string(value);
  case CODE:
    return is_string(value) ? inside(value).size > 0 : is_number(value, end);
  default:
    return is_string(value) && inside(value).size > 0;
  }
}

static void keep(struct layer *layer, enum slot slot, unsigned char rank, struct pry_slice value)
{
  if (layer->ranks[slot] && layer->ranks[slot] <= rank)
    return;
  layer->ranks[slot] = rank;
  layer->found[slot] = value;
}

/* {"error": "invalid_token"} names a code, {"code": "The caller does not have ..."} does not. */
static void keep_odd(struct layer *layer, const struct name *name, struct pry_slice value)
{
  enum { WORSE = 20 };
  if (name->slot == MESSAGE && name->rank == 10 && !has_space(value) && value.size < PRY_ERROR_WORD_MAX)
    keep(layer, CODE, WORSE, value);
  if (name->slot == CODE && has_space(value))
    keep(layer, MESSAGE, WORSE, value);
  else
    keep(layer, (enum slot)name->slot, name->rank, value);
}

static void offer(struct layer *layer, const struct name *name, struct pry_slice value, const char *end)
{
  if (fits((enum slot)name->slot, value, end))
    keep_odd(layer, name, value);
}

/* The first name of that length. */
static size_t first_of_size(size_t size)
{
  size_t from = 0, to = NAMES;
  while (from < to) {
    size_t middle = (from + to) / 2;
    if (names[middle].key.size < size)
      from = middle + 1;
    else
      to = middle;
  }
  return from;
}

static void read_member(struct layer *layer, struct pry_slice key, struct pry_slice value, const char *end)
{
  bool escaped = memchr(key.data, '\\', key.size) != NULL;
  size_t size = key.size > 2 ? key.size - 2 : 0;
  for (size_t i = escaped ? 0 : first_of_size(size); i < NAMES && (escaped || names[i].key.size == size); i++)
    if (escaped ? pry_json_equals(key, names[i].key) : memcmp(key.data + 1, names[i].key.data, size) == 0)
      offer(layer, &names[i], value, end);
}

static void read_layer(struct layer *layer, struct pry_slice object)
{
  struct walk walk = {object.data + 1, object.data + object.size};
  struct pry_slice key, value;
  *layer = (struct layer){0};
  while (next_member(&walk, &key, &value))
    read_member(layer, key, value, walk.end);
}

/* ---- Google's details, Azure's inner error, OpenRouter's and LiteLLM's boxes --------------------------------- */

static void read_quotas(struct pry_error_body *error, struct pry_slice violations)
{
  struct walk walk = {violations.data + 1, violations.data + violations.size};
  struct pry_slice value;
  struct layer layer;
  while (!at_end(&walk) && next_value(&walk, &value)) {
    size_t used = strlen(error->quota), room = sizeof error->quota - used;
    if (!is_container(value) || room < 3)
      continue;
    read_layer(&layer, value);
    if (!layer.ranks[QUOTA])
      continue;
    used += pry_json_unescape(inside(layer.found[QUOTA]), error->quota + used, room - 2);
    error->quota[used] = ' ';
    error->quota[used + 1] = '\0';
  }
}

static void read_details(struct reading *reading, struct pry_slice details)
{
  struct pry_error_body *error = reading->error;
  struct walk walk = {details.data + 1, details.data + details.size};
  struct pry_slice value;
  struct layer layer;
  while (!at_end(&walk) && next_value(&walk, &value)) {
    if (!is_container(value))
      continue;
    read_layer(&layer, value);
    fill(error->reason, sizeof error->reason, layer.found[REASON]);
    fill(reading->wait, sizeof reading->wait, layer.found[WAIT]);
    if (layer.ranks[VIOLATIONS])
      read_quotas(error, layer.found[VIOLATIONS]);
  }
}

static void read_inner(struct pry_error_body *error, struct pry_slice object)
{
  struct layer layer;
  read_layer(&layer, object);
  fill(error->inner, sizeof error->inner, layer.found[CODE]);
}

/* What another provider said, as the one in front of it wraps it. */
static void read_metadata(struct reading *reading, struct pry_slice object)
{
  struct layer layer;
  struct pry_slice raw;
  read_layer(&layer, object);
  raw = layer.found[RAW];
  if (layer.ranks[INNER])
    read_inner(reading->error, layer.found[INNER]);
  if (is_container(raw))
    read_container(reading, raw);
  else if (raw.size)
    read_text(reading, raw);
  fill(reading->error->type, sizeof reading->error->type, layer.found[TYPE]);
}

/* ---- texts that are JSON -------------------------------------------------------------------------------------- */

/* Where JSON begins in the inside of a string: at its start, or somewhere when it is plainly an error's. What users
 * wrote is quoted in errors, too, and must not be taken for one. */
static const char *json_within(struct pry_slice text)
{
  static const struct pry_slice beginnings[] = {PRY_SLICE_INIT("{\\\"error\\\""), PRY_SLICE_INIT("{\"error\"")};
  const char *p = text.data, *end = text.data + text.size;
  while (p < end && (is_space(*p) || (*p == '\\' && p + 1 < end && (p[1] == 'n' || p[1] == 'r' || p[1] == 't'))))
    p += *p == '\\' ? 2 : 1;
  if (p < end && (*p == '{' || *p == '['))
    return p;
  for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
    p = text.size ? memmem(text.data, text.size, beginnings[i].data, beginnings[i].size) : NULL;
    if (p)
      return p;
  }
  return NULL;
}

/* A string that is read as what it may hold; otherwise it is the message. */
static void read_text(struct reading *reading, struct pry_slice string)
{
  struct pry_slice text = inside(string);
  const char *json = reading->texts < TEXTS_MAX ? json_within(text) : NULL;
  if (json) {
    struct pry_slice rest = {json, text.size - (size_t)(json - text.data)};
    struct pry_buffer decoded;
    pry_buffer_init(&decoded, 0);
    if (pry_buffer_reserve(&decoded, rest.size)) {
      decoded.size = pry_json_unescape(rest, decoded.data, rest.size);
      reading->texts++;
      read_container(reading, pry_buffer_slice(&decoded));
      reading->texts--;
    }
    pry_buffer_fini(&decoded);
  }
  fill(reading->error->message, sizeof reading->error->message, string);
}

/* ---- objects -------------------------------------------------------------------------------------------------- */

static bool is_word_error(struct pry_slice value)
{
  return pry_slice_equal(value, PRY_SLICE("\"error\""));
}

/* From the inside out: what is there already stays. */
static void read_object(struct reading *reading, struct pry_slice object)
{
  struct pry_error_body *error = reading->error;
  struct layer layer;
  read_layer(&layer, object);
  if (layer.ranks[METADATA])
    read_metadata(reading, layer.found[METADATA]);
  if (layer.ranks[BOX])
    read_container(reading, layer.found[BOX]);
  if (layer.ranks[MESSAGE])
    read_text(reading, layer.found[MESSAGE]);
  if (layer.ranks[INNER])
    read_inner(error, layer.found[INNER]);
  if (layer.ranks[DETAILS])
    read_details(reading, layer.found[DETAILS]);
  fill_code(error, layer.found[CODE]);
  if (!is_word_error(layer.found[TYPE]))
    fill(error->type, sizeof error->type, layer.found[TYPE]);
  fill(error->state, sizeof error->state, layer.found[STATE]);
  fill(error->reason, sizeof error->reason, layer.found[REASON]);
}

static void read_array(struct reading *reading, struct pry_slice array)
{
  struct walk walk = {array.data + 1, array.data + array.size};
  struct pry_slice value;
  while (!at_end(&walk) && next_value(&walk, &value))
    if (is_container(value)) {
      read_container(reading, value);
      return;
    }
}

static void read_container(struct reading *reading, struct pry_slice text)
{
  if (!is_container(text) || reading->depth == PRY_ERROR_BODY_DEPTH)
    return;
  reading->depth++;
  if (text.data[0] == '{')
    read_object(reading, text);
  else
    read_array(reading, text);
  reading->depth--;
}

/* ---- what is no JSON ------------------------------------------------------------------------------------------ */

static struct pry_slice after(struct pry_slice text, const char *place)
{
  return (struct pry_slice){place, text.size - (size_t)(place - text.data)};
}

static bool starts_with_nocase(struct pry_slice text, struct pry_slice word)
{
  return text.size >= word.size && pry_slice_equal_nocase((struct pry_slice){text.data, word.size}, word);
}

static const char *find_nocase(struct pry_slice text, struct pry_slice word)
{
  for (; text.size >= word.size; text = after(text, text.data + 1))
    if (starts_with_nocase(text, word))
      return text.data;
  return NULL;
}

/* White space in one piece, as browsers show it. */
static void squeeze(char *to, size_t size, struct pry_slice text)
{
  size_t used = 0;
  for (size_t i = 0; i < text.size && used < size - 1; i++) {
    bool space = is_space(text.data[i]);
    if (!space)
      to[used++] = text.data[i];
    else if (used && to[used - 1] != ' ')
      to[used++] = ' ';
  }
  while (used && to[used - 1] == ' ')
    used--;
  to[used] = '\0';
}

static void read_page(struct pry_error_body *error, struct pry_slice page)
{
  error->html = true;
  if (page.size > TITLE_WITHIN)
    page.size = TITLE_WITHIN;
  const char *title = find_nocase(page, PRY_SLICE("<title"));
  const char *start = title ? memchr(title, '>', after(page, title).size) : NULL;
  const char *stop = start ? find_nocase(after(page, start), PRY_SLICE("</title")) : NULL;
  if (stop)
    squeeze(error->message, sizeof error->message, (struct pry_slice){start + 1, (size_t)(stop - start - 1)});
}

/* The first line of a short text; a longer one is a page of something. */
static void read_plain(struct pry_error_body *error, struct pry_slice text)
{
  size_t length = 0;
  if (text.size > PLAIN_MAX)
    return;
  while (length < text.size && (unsigned char)text.data[length] >= ' ' && text.data[length] != 0x7F)
    length++;
  memcpy(error->message, text.data, length);
  error->message[length] = '\0';
}

static struct pry_slice without_mark_and_space(struct pry_slice body)
{
  const char *end = body.data + body.size;
  if (pry_slice_starts_with(body, PRY_SLICE("\xEF\xBB\xBF")))
    body = after(body, body.data + 3);
  return body.size ? after(body, skip_space(body.data, end)) : body;
}

static void empty(struct pry_error_body *error)
{
  error->code[0] = error->type[0] = error->state[0] = error->inner[0] = error->reason[0] = '\0';
  error->quota[0] = error->message[0] = '\0';
  error->wait = -1;
  error->html = error->cut = false;
}

static void read_body(struct reading *reading, struct pry_slice body)
{
  struct pry_error_body *error = reading->error;
  const char *json = NULL;
  if (is_container(body)) {
    const char *last = body.data + body.size - 1;
    while (is_space(*last))
      last--;
    error->cut = *last != '}' && *last != ']';
    read_container(reading, body);
  } else if (body.data[0] == '<') {
    read_page(error, body);
  } else if (body.data[0] == '"') {
    read_text(reading,
              (struct pry_slice){body.data, (size_t)(skip_string(body.data, body.data + body.size) - body.data)});
  } else if (pry_slice_starts_with(body, PRY_SLICE("data:")) || pry_slice_starts_with(body, PRY_SLICE("event:"))) {
    json = memchr(body.data, '{', body.size); /* one event, sent as the body of an error */
  } else {
    json = memmem(body.data, body.size, "{\"error\"", 8);
  }
  if (json)
    read_container(reading, after(body, json));
  else if (!is_container(body) && body.data[0] != '<' && body.data[0] != '"')
    read_plain(error, body);
}

void pry_error_body_read(struct pry_error_body *error, struct pry_slice body)
{
  struct reading reading = {.error = error};
  empty(error);
  body = without_mark_and_space(body);
  if (body.size)
    read_body(&reading, body);
  error->wait = pry_error_body_duration(pry_slice_of(reading.wait));
  if (error->wait < 0)
    error->wait = pry_error_body_wait(pry_slice_of(error->message));
}
