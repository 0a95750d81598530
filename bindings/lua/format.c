#include "format.h"

#include "sandbox.h"

#include <math.h>
#include <stdio.h>

enum {
  SPEC_MAX = 24,   /* "%" flags width . precision "ll" letter */
  ITEM_MAX = 512,  /* %99.99f of 1e308 has 409 characters */
  PLAIN_TEXT = 100 /* from here on a width cannot matter */
};

/* One conversion: "%-08.3f". */
struct spec {
  char text[SPEC_MAX]; /* for snprintf(), with the length modifier */
  char letter;
  bool modified, has_precision;
};

static bool is_digit(char c)
{
  return c >= '0' && c <= '9';
}

static const char *flags_of(char letter)
{
  switch (letter) {
  case 'd':
  case 'i':
    return "-+0 ";
  case 'u':
    return "-0";
  case 'x':
  case 'X':
  case 'o':
    return "-#0";
  case 'c':
  case 's':
    return "-";
  case 'a':
  case 'A':
  case 'e':
  case 'E':
  case 'f':
  case 'g':
  case 'G':
    return "-+#0 ";
  default:
    return NULL;
  }
}

/* At most two digits; then not a third. */
static const char *skip_two_digits(const char *p)
{
  for (int i = 0; i < 2 && is_digit(*p); i++)
    p++;
  return p;
}

/* Is what stands between '%' and the letter allowed for that letter? */
static bool is_valid(const struct spec *spec, const char *start, const char *letter)
{
  const char *flags = flags_of(spec->letter);
  const char *p = start + strspn(start, flags);

  if (*p == '0') /* not a flag of this letter, and no width begins with it */
    return false;
  p = skip_two_digits(p);
  if (*p == '.' && spec->letter != 'c')
    p = skip_two_digits(p + 1);
  return p == letter;
}

/* Reads the conversion behind '%'; returns what follows it. */
static const char *read_spec(lua_State *L, const char *start, struct spec *spec)
{
  size_t length = strspn(start, "-+ #0123456789.");
  const char *letter = start + length;

  if (length + 6 > sizeof(spec->text))
    luaL_error(L, "invalid format string to 'format'");
  spec->letter = *letter;
  spec->modified = length > 0;
  spec->has_precision = memchr(start, '.', length) != NULL;
  bool known = spec->letter && (flags_of(spec->letter) || spec->letter == 'q');
  if (!known)
    luaL_error(L, "invalid conversion '%%%s' to 'format'", lua_pushlstring(L, start, length + (*letter != '\0')));
  if (spec->letter == 'q') {
    if (spec->modified)
      luaL_error(L, "specifier '%%q' cannot have modifiers");
    return letter + 1;
  }
  if (!is_valid(spec, start, letter))
    luaL_error(L, "invalid conversion '%%%s' to 'format'", lua_pushlstring(L, start, length + 1));
  bool integer = strchr("diuoxX", spec->letter) != NULL;
  snprintf(spec->text, sizeof(spec->text), "%%%.*s%s%c", (int)length, start, integer ? LUA_INTEGER_FRMLEN : "",
           spec->letter);
  return letter + 1;
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

/* The formats have been checked to have exactly one conversion, of the type that is passed. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static void add_number(lua_State *L, luaL_Buffer *buffer, const struct spec *spec, int argument)
{
  char item[ITEM_MAX];
  int size;

  if (strchr("diuoxX", spec->letter))
    size = snprintf(item, sizeof(item), spec->text, luaL_checkinteger(L, argument));
  else if (spec->letter == 'c')
    size = snprintf(item, sizeof(item), spec->text, (int)luaL_checkinteger(L, argument));
  else
    size = snprintf(item, sizeof(item), spec->text, luaL_checknumber(L, argument));
  if (size < 0 || (size_t)size >= sizeof(item))
    luaL_error(L, "'format' cannot write this number");
  luaL_addlstring(buffer, item, (size_t)size);
}

static void add_string(lua_State *L, luaL_Buffer *buffer, const struct spec *spec, int argument)
{
  char item[ITEM_MAX];
  size_t size;

  luaL_checkany(L, argument);
  const char *text = pry_sandbox_tostring(L, argument, &size);
  if (!spec->modified || (!spec->has_precision && size >= PLAIN_TEXT)) {
    luaL_addvalue(buffer);
    return;
  }
  luaL_argcheck(L, memchr(text, '\0', size) == NULL, argument, "string contains zeros");
  int written = snprintf(item, sizeof(item), spec->text, text);
  lua_pop(L, 1);
  if (written > 0)
    luaL_addlstring(buffer, item, (size_t)written);
}

#pragma GCC diagnostic pop

static void add_quoted_text(luaL_Buffer *buffer, const char *text, size_t size)
{
  luaL_addchar(buffer, '"');
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\' || c == '\n') {
      luaL_addchar(buffer, '\\');
      luaL_addchar(buffer, (char)c);
    } else if (c < 0x20 || c == 0x7f) {
      char escape[8];
      bool digit_follows = i + 1 < size && is_digit(text[i + 1]);
      snprintf(escape, sizeof(escape), digit_follows ? "\\%03d" : "\\%d", c);
      luaL_addstring(buffer, escape);
    } else {
      luaL_addchar(buffer, (char)c);
    }
  }
  luaL_addchar(buffer, '"');
}

static void quote_number(lua_State *L, int argument, char *item, size_t size)
{
  if (lua_isinteger(L, argument)) {
    lua_Integer value = lua_tointeger(L, argument);
    if (value == LUA_MININTEGER) /* has no decimal form that reads back as an integer */
      snprintf(item, size, "0x%llx", (unsigned long long)value);
    else
      snprintf(item, size, LUA_INTEGER_FMT, value);
    return;
  }
  lua_Number value = lua_tonumber(L, argument);
  if (isnan(value))
    snprintf(item, size, "(0/0)");
  else if (isinf(value))
    snprintf(item, size, value > 0 ? "1e9999" : "-1e9999");
  else
    snprintf(item, size, "%a", value); /* exact */
}

static void add_quoted(lua_State *L, luaL_Buffer *buffer, int argument)
{
  char item[ITEM_MAX];
  size_t size;

  switch (lua_type(L, argument)) {
  case LUA_TSTRING: {
    const char *text = lua_tolstring(L, argument, &size);
    pry_script_charge(L, size / 4);
    add_quoted_text(buffer, text, size);
    break;
  }
  case LUA_TNUMBER:
    quote_number(L, argument, item, sizeof(item));
    luaL_addstring(buffer, item);
    break;
  case LUA_TNIL:
  case LUA_TBOOLEAN:
    pry_sandbox_tostring(L, argument, NULL);
    luaL_addvalue(buffer);
    break;
  default:
    luaL_argerror(L, argument, "value has no literal form");
  }
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

int pry_string_format(lua_State *L)
{
  size_t size;
  const char *p = luaL_checklstring(L, 1, &size);
  const char *end = p + size;
  int arguments = lua_gettop(L);
  int argument = 1;
  luaL_Buffer buffer;

  pry_script_charge(L, size / 8);
  luaL_buffinit(L, &buffer);
  while (p < end) {
    const char *percent = memchr(p, '%', (size_t)(end - p));
    luaL_addlstring(&buffer, p, (size_t)((percent ? percent : end) - p));
    if (!percent)
      break;
    p = percent + 1;
    if (*p == '%') {
      luaL_addchar(&buffer, '%');
      p++;
      continue;
    }
    if (++argument > arguments)
      return luaL_argerror(L, argument, "no value");
    struct spec spec;
    p = read_spec(L, p, &spec);
    if (spec.letter == 'q')
      add_quoted(L, &buffer, argument);
    else if (spec.letter == 's')
      add_string(L, &buffer, &spec, argument);
    else
      add_number(L, &buffer, &spec, argument);
  }
  luaL_pushresult(&buffer);
  return 1;
}
