#include "writes.h"

#include "lib.h"

#include <string.h>

/* lopcodes.h of Lua 5.4: opcode in the low 7 bits, A in 8, k in 1, then B and C in 8 each. */
enum { OP_SETUPVAL_54 = 10, OPCODE_MASK = 0x7F, B_SHIFT = 16, B_MASK = 0xFF, DEPTH_MAX = 200 };

/* ldump.c: tags of constants. */
enum {
  CONSTANT_NIL = 0x00,
  CONSTANT_FALSE = 0x01,
  CONSTANT_TRUE = 0x11,
  CONSTANT_INTEGER = 0x03,
  CONSTANT_FLOAT = 0x13,
  CONSTANT_SHORT = 0x04,
  CONSTANT_LONG = 0x14
};

struct reader {
  const unsigned char *at, *end;
  bool *written;
  int depth;
};

static bool skip(struct reader *reader, size_t size)
{
  if (size > (size_t)(reader->end - reader->at))
    return false;
  reader->at += size;
  return true;
}

/* Seven bits a byte, the most significant first; the last byte has its high bit set. */
static bool read_size(struct reader *reader, size_t *size)
{
  *size = 0;
  while (reader->at < reader->end && *size <= SIZE_MAX >> 7) {
    unsigned char byte = *reader->at++;
    *size = *size << 7 | (byte & 0x7F);
    if (byte & 0x80)
      return true;
  }
  return false;
}

/* Its length + 1 stands before it; 0: there is none. */
static bool skip_string(struct reader *reader)
{
  size_t size;
  return read_size(reader, &size) && (size == 0 || skip(reader, size - 1));
}

static bool skip_constants(struct reader *reader)
{
  size_t count;
  bool ok = read_size(reader, &count);
  for (; ok && count; count--) {
    unsigned char tag = reader->at < reader->end ? *reader->at++ : 0xFF;
    switch (tag) {
    case CONSTANT_NIL:
    case CONSTANT_FALSE:
    case CONSTANT_TRUE:
      break;
    case CONSTANT_INTEGER:
    case CONSTANT_FLOAT:
      ok = skip(reader, sizeof(lua_Integer));
      break;
    case CONSTANT_SHORT:
    case CONSTANT_LONG:
      ok = skip_string(reader);
      break;
    default:
      ok = false;
    }
  }
  return ok;
}

/* Which upvalue of the outermost function each of this function's is; -1: a variable of a call, new each time. */
static bool read_upvalues(struct reader *reader, const short *outer, short own[PRY_UPVALUES_MAX])
{
  size_t count;
  if (!read_size(reader, &count) || count >= PRY_UPVALUES_MAX)
    return false;
  memset(own, 0xFF, PRY_UPVALUES_MAX * sizeof *own);
  for (size_t i = 0; i < count; i++) {
    const unsigned char *place = reader->at; /* in the stack of the enclosing function?, number, kind */
    if (!skip(reader, 3))
      return false;
    own[i] = (short)(!outer ? (short)i : place[0] ? -1 : outer[place[1]]);
  }
  return true;
}

static void note_writes(const struct reader *reader, const unsigned char *code, size_t count, const short *own)
{
  for (size_t i = 0; i < count; i++) {
    uint32_t instruction;
    memcpy(&instruction, code + i * sizeof instruction, sizeof instruction);
    if ((instruction & OPCODE_MASK) != OP_SETUPVAL_54)
      continue;
    short upvalue = own[instruction >> B_SHIFT & B_MASK];
    if (upvalue >= 0)
      reader->written[upvalue] = true;
  }
}

static bool skip_debug(struct reader *reader)
{
  size_t count, first, second;
  bool ok = read_size(reader, &count) && skip(reader, count);      /* lines */
  for (ok = ok && read_size(reader, &count); ok && count; count--) /* absolute lines */
    ok = read_size(reader, &first) && read_size(reader, &second);
  for (ok = ok && read_size(reader, &count); ok && count; count--) /* local variables */
    ok = skip_string(reader) && read_size(reader, &first) && read_size(reader, &second);
  for (ok = ok && read_size(reader, &count); ok && count; count--) /* names of upvalues */
    ok = skip_string(reader);
  return ok;
}

static bool read_function(struct reader *reader, const short *outer)
{
  short own[PRY_UPVALUES_MAX];
  size_t line, count;
  if (reader->depth++ == DEPTH_MAX || !skip_string(reader) || !read_size(reader, &line) || !read_size(reader, &line) ||
      !skip(reader, 3) || !read_size(reader, &count) || count > SIZE_MAX / 4)
    return false;
  const unsigned char *code = reader->at;
  if (!skip(reader, count * 4) || !skip_constants(reader) || !read_upvalues(reader, outer, own))
    return false;
  note_writes(reader, code, count, own);
  bool ok = read_size(reader, &count);
  for (; ok && count; count--)
    ok = read_function(reader, own);
  reader->depth--;
  return ok && skip_debug(reader);
}

static bool read_dump(struct reader *reader)
{
  static const unsigned char head[] = "\x1BLua\x54\0\x19\x93\r\n\x1A\n\x04";
  const lua_Integer integer = 0x5678;
  lua_Number number = 0;
  const unsigned char *start = reader->at;
  size_t fixed = sizeof head - 1, size = fixed + 2 + sizeof integer + sizeof number;
  if (!skip(reader, size + 1) || memcmp(start, head, fixed) != 0 || start[fixed] != sizeof integer ||
      start[fixed + 1] != sizeof number || memcmp(start + fixed + 2, &integer, sizeof integer) != 0)
    return false;
  memcpy(&number, start + fixed + 2 + sizeof integer, sizeof number);
  return number == 370.5 && read_function(reader, NULL);
}

static int keep(lua_State *L, const void *bytes, size_t size, void *user)
{
  (void)L;
  return pry_buffer_append(user, bytes, size) ? 0 : 1;
}

void pry_upvalue_writes(lua_State *L, int index, bool written[PRY_UPVALUES_MAX])
{
  int height = lua_gettop(L);
  memset(written, true, PRY_UPVALUES_MAX * sizeof *written);
  if (lua_iscfunction(L, index)) {
    if (pry_verdict_makes(lua_tocfunction(L, index)))
      memset(written, false, PRY_UPVALUES_MAX * sizeof *written);
    return;
  }
  lua_pushvalue(L, index);
  int function = lua_gettop(L);
  struct pry_buffer *dump = pry_lua_buffer(L, 0);
  lua_pushvalue(L, function);
  if (lua_dump(L, keep, dump, true) == 0) {
    bool found[PRY_UPVALUES_MAX] = {false};
    struct reader reader = {(const unsigned char *)dump->data, (const unsigned char *)dump->data + dump->size, found,
                            0};
    if (read_dump(&reader))
      memcpy(written, found, sizeof found);
  }
  pry_buffer_fini(dump);
  lua_settop(L, height);
}
