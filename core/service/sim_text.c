#include "sim_internal.h"

#include <stdarg.h>
#include <stdio.h>

void pry_sim_say(struct pry_sim_text *text, const char *format, ...)
{
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int size = vsnprintf(NULL, 0, format, arguments);
  text->ok = text->ok && size >= 0 && pry_buffer_reserve(text->out, (size_t)size + 1);
  if (text->ok) {
    vsnprintf(text->out->data + text->out->size, (size_t)size + 1, format, again);
    text->out->size += (size_t)size;
  }
  va_end(again);
  va_end(arguments);
}

void pry_sim_say_json(struct pry_sim_text *text, struct pry_slice inside)
{
  text->ok = text->ok && pry_buffer_append_json(text->out, inside);
}
