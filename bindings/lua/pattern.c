#include "pattern.h"

enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2, STEPS_CHARGED_AT_ONCE = 256 };

static void step(struct pry_match *match)
{
  if (++match->steps < STEPS_CHARGED_AT_ONCE)
    return;
  match->steps = 0;
  pry_script_charge(match->L, STEPS_CHARGED_AT_ONCE);
}

void pry_match_settle(struct pry_match *match)
{
  pry_script_charge(match->L, match->steps);
  match->steps = 0;
}

void pry_match_init(struct pry_match *match, lua_State *L, struct pry_slice text, struct pry_slice pattern)
{
  match->L = L;
  match->text = text.data;
  match->text_end = text.data + text.size;
  match->pattern_end = pattern.data + pattern.size;
  match->steps = 0;
}

bool pry_pattern_is_plain(struct pry_slice pattern)
{
  for (size_t i = 0; i < pattern.size; i++)
    if (pattern.data[i] && strchr("^$*+?.([%-", pattern.data[i]))
      return false;
  return true;
}

/* ---- Single characters ------------------------------------------------------------------------------------------ */

static bool is_between(unsigned char c, unsigned char low, unsigned char high)
{
  return c >= low && c <= high;
}

static bool is_letter(unsigned char c)
{
  return is_between(pry_ascii_lower(c), 'a', 'z');
}

static bool is_digit(unsigned char c)
{
  return is_between(c, '0', '9');
}

/* %a, %d and so on; an upper-case letter is the complement, anything else stands for itself. */
static bool in_class(unsigned char c, unsigned char class)
{
  bool in;

  switch (pry_ascii_lower(class)) {
  case 'a':
    in = is_letter(c);
    break;
  case 'c':
    in = c < 0x20 || c == 0x7f;
    break;
  case 'd':
    in = is_digit(c);
    break;
  case 'g':
    in = is_between(c, 0x21, 0x7e);
    break;
  case 'l':
    in = is_between(c, 'a', 'z');
    break;
  case 'p':
    in = is_between(c, 0x21, 0x7e) && !is_letter(c) && !is_digit(c);
    break;
  case 's':
    in = c == ' ' || is_between(c, '\t', '\r');
    break;
  case 'u':
    in = is_between(c, 'A', 'Z');
    break;
  case 'w':
    in = is_letter(c) || is_digit(c);
    break;
  case 'x':
    in = is_digit(c) || is_between(pry_ascii_lower(c), 'a', 'f');
    break;
  case 'z': /* from Lua 5.1; stock Lua still knows it */
    in = c == 0;
    break;
  default:
    return class == c;
  }
  return is_between(class, 'A', 'Z') ? !in : in;
}

/* `set` is just behind '[', `close` at the ']' that ends it. */
static bool in_set(struct pry_match *match, unsigned char c, const char *set, const char *close)
{
  bool found = true;

  if (*set == '^') {
    found = false;
    set++;
  }
  while (set < close) {
    step(match);
    if (*set == '%') {
      if (in_class(c, (unsigned char)set[1]))
        return found;
      set += 2;
    } else if (set[1] == '-' && set + 2 < close) {
      if (is_between(c, (unsigned char)set[0], (unsigned char)set[2]))
        return found;
      set += 3;
    } else if ((unsigned char)*set++ == c) {
      return found;
    }
  }
  return !found;
}

/* The first character behind the single-character item at `item`. */
static const char *item_end(struct pry_match *match, const char *item)
{
  const char *end = match->pattern_end;

  if (*item == '%') {
    if (item + 1 == end)
      luaL_error(match->L, "malformed pattern (ends with '%%')");
    return item + 2;
  }
  if (*item != '[')
    return item + 1;
  const char *p = item + 1;
  if (p < end && *p == '^')
    p++;
  do { /* a ']' that comes first is an ordinary character */
    if (p == end)
      luaL_error(match->L, "malformed pattern (missing ']')");
    step(match);
    if (*p++ == '%' && p < end)
      p++;
  } while (p == end || *p != ']');
  return p + 1;
}

/* Does the item from `item` to `end` match the character at `at`? */
static bool item_matches(struct pry_match *match, const char *at, const char *item, const char *end)
{
  step(match);
  if (at >= match->text_end)
    return false;
  /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a text is never NULL, be it empty */
  unsigned char c = (unsigned char)*at;
  switch (*item) {
  case '.':
    return true;
  case '%':
    return in_class(c, (unsigned char)item[1]);
  case '[':
    return in_set(match, c, item + 1, end - 1);
  default:
    return (unsigned char)*item == c;
  }
}

/* ---- Captures ---------------------------------------------------------------------------------------------------- */

static int captured(struct pry_match *match, unsigned char digit)
{
  int i = digit - '1';

  if (i < 0 || i >= match->count || match->captures[i].size == CAPTURE_OPEN)
    return luaL_error(match->L, "invalid capture index %%%d", i + 1);
  return i;
}

static int innermost_open(struct pry_match *match)
{
  for (int i = match->count; i-- > 0;)
    if (match->captures[i].size == CAPTURE_OPEN)
      return i;
  return luaL_error(match->L, "invalid pattern capture");
}

void pry_match_push_capture(struct pry_match *match, int i, const char *start, const char *end)
{
  lua_State *L = match->L;

  if (i >= match->count) {
    if (i != 0)
      luaL_error(L, "invalid capture index %%%d", i + 1);
    lua_pushlstring(L, start, (size_t)(end - start));
  } else if (match->captures[i].size == CAPTURE_POSITION) {
    lua_pushinteger(L, (match->captures[i].start - match->text) + 1);
  } else if (match->captures[i].size == CAPTURE_OPEN) {
    luaL_error(L, "unfinished capture");
  } else {
    lua_pushlstring(L, match->captures[i].start, (size_t)match->captures[i].size);
  }
}

int pry_match_push_captures(struct pry_match *match, const char *start, const char *end)
{
  int count = match->count == 0 && start ? 1 : match->count;

  luaL_checkstack(match->L, count, "too many captures");
  for (int i = 0; i < count; i++)
    pry_match_push_capture(match, i, start, end);
  return count;
}

/* ---- Items of more than one character ---------------------------------------------------------------------------- */

static const char *match_here(struct pry_match *match, const char *at, const char *p);

static const char *open_capture(struct pry_match *match, const char *at, const char *p, ptrdiff_t kind)
{
  if (match->count >= PRY_PATTERN_CAPTURES)
    luaL_error(match->L, "too many captures");
  match->captures[match->count].start = at;
  match->captures[match->count].size = kind;
  match->count++;
  const char *end = match_here(match, at, p);
  if (!end)
    match->count--;
  return end;
}

static const char *close_capture(struct pry_match *match, const char *at, const char *p)
{
  int i = innermost_open(match);

  match->captures[i].size = at - match->captures[i].start;
  const char *end = match_here(match, at, p);
  if (!end)
    match->captures[i].size = CAPTURE_OPEN;
  return end;
}

/* %bxy: from an x to the y that balances it. `p` is behind the b. */
static const char *match_balance(struct pry_match *match, const char *at, const char *p)
{
  if (match->pattern_end - p < 2)
    luaL_error(match->L, "malformed pattern (missing arguments to '%%b')");
  if (at >= match->text_end || *at != p[0])
    return NULL;
  size_t open = 1;
  for (const char *s = at + 1; s < match->text_end; s++) {
    step(match);
    if (*s == p[1]) {
      if (--open == 0)
        return s + 1;
    } else if (*s == p[0]) {
      open++;
    }
  }
  return NULL;
}

/* %f[set]: between a character outside the set and one inside; the ends of the text count as '\0'. */
static bool at_frontier(struct pry_match *match, const char *at, const char *set, const char *end)
{
  unsigned char before = at == match->text ? 0 : (unsigned char)at[-1];
  unsigned char here = at == match->text_end ? 0 : (unsigned char)*at;

  return !in_set(match, before, set + 1, end - 1) && in_set(match, here, set + 1, end - 1);
}

/* %1: the same text again. A position capture has no text that could come again. */
static const char *match_back(struct pry_match *match, const char *at, unsigned char digit)
{
  int i = captured(match, digit);
  size_t size = (size_t)match->captures[i].size;

  if ((size_t)(match->text_end - at) < size)
    return NULL;
  pry_script_charge_bytes(match->L, size);
  return memcmp(match->captures[i].start, at, size) == 0 ? at + size : NULL;
}

static const char *match_most(struct pry_match *match, const char *at, const char *item, const char *end)
{
  ptrdiff_t count = 0;

  while (item_matches(match, at + count, item, end))
    count++;
  for (; count >= 0; count--) {
    const char *rest = match_here(match, at + count, end + 1);
    if (rest)
      return rest;
  }
  return NULL;
}

static const char *match_least(struct pry_match *match, const char *at, const char *item, const char *end)
{
  for (;;) {
    const char *rest = match_here(match, at, end + 1);
    if (rest)
      return rest;
    if (!item_matches(match, at, item, end))
      return NULL;
    at++;
  }
}

/* ---- A pattern --------------------------------------------------------------------------------------------------- */

enum progress { PROGRESS_NO, PROGRESS_GO_ON, PROGRESS_DONE };

/* One %-item that is more than a class; not one: `*handled` is false. */
static enum progress match_escape(struct pry_match *match, const char **at, const char **p, bool *handled)
{
  char kind = *p + 1 < match->pattern_end ? (*p)[1] : '\0';

  *handled = true;
  if (kind == 'b') {
    *at = match_balance(match, *at, *p + 2);
    *p += 4;
    return *at ? PROGRESS_GO_ON : PROGRESS_NO;
  }
  if (kind == 'f') {
    const char *set = *p + 2;
    if (set >= match->pattern_end || *set != '[')
      luaL_error(match->L, "missing '[' after '%%f' in pattern");
    const char *end = item_end(match, set);
    bool frontier = at_frontier(match, *at, set, end);
    *p = end;
    return frontier ? PROGRESS_GO_ON : PROGRESS_NO;
  }
  if (is_digit((unsigned char)kind)) {
    *at = match_back(match, *at, (unsigned char)kind);
    *p += 2;
    return *at ? PROGRESS_GO_ON : PROGRESS_NO;
  }
  *handled = false;
  return PROGRESS_GO_ON;
}

/* One single-character item with what follows it: * + - ? or nothing. */
static enum progress match_item(struct pry_match *match, const char **at, const char **p)
{
  const char *item = *p;
  const char *end = item_end(match, item);
  char suffix = end < match->pattern_end ? *end : '\0';

  switch (suffix) {
  case '*':
    *at = match_most(match, *at, item, end);
    return PROGRESS_DONE;
  case '-':
    *at = match_least(match, *at, item, end);
    return PROGRESS_DONE;
  case '+':
    *at = item_matches(match, *at, item, end) ? match_most(match, *at + 1, item, end) : NULL;
    return PROGRESS_DONE;
  case '?':
    if (item_matches(match, *at, item, end)) {
      const char *rest = match_here(match, *at + 1, end + 1);
      if (rest) {
        *at = rest;
        return PROGRESS_DONE;
      }
    }
    *p = end + 1;
    return PROGRESS_GO_ON;
  default:
    if (!item_matches(match, *at, item, end))
      return PROGRESS_NO;
    (*at)++;
    *p = end;
    return PROGRESS_GO_ON;
  }
}

static enum progress match_next(struct pry_match *match, const char **at, const char **p)
{
  bool handled = false;
  enum progress progress = PROGRESS_GO_ON;

  switch (**p) {
  case '(':
    if (*p + 1 < match->pattern_end && (*p)[1] == ')')
      *at = open_capture(match, *at, *p + 2, CAPTURE_POSITION);
    else
      *at = open_capture(match, *at, *p + 1, CAPTURE_OPEN);
    return PROGRESS_DONE;
  case ')':
    *at = close_capture(match, *at, *p + 1);
    return PROGRESS_DONE;
  case '$':
    if (*p + 1 == match->pattern_end) {
      *at = *at == match->text_end ? *at : NULL;
      return PROGRESS_DONE;
    }
    break;
  case '%':
    progress = match_escape(match, at, p, &handled);
    break;
  default:
    break;
  }
  return handled ? progress : match_item(match, at, p);
}

static const char *match_here(struct pry_match *match, const char *at, const char *p)
{
  if (match->depth-- == 0)
    luaL_error(match->L, "pattern too complex");
  enum progress progress = PROGRESS_GO_ON;
  while (progress == PROGRESS_GO_ON && p < match->pattern_end) {
    step(match);
    progress = match_next(match, &at, &p);
  }
  match->depth++;
  return progress == PROGRESS_NO ? NULL : at;
}

const char *pry_match_at(struct pry_match *match, const char *at, const char *pattern)
{
  match->count = 0;
  match->depth = PRY_PATTERN_DEPTH;
  return match_here(match, at, pattern);
}
