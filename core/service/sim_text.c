#include "sim_internal.h"

#include <stdarg.h>
#include <stdio.h>

void pry_sim_say(struct pry_sim_text *text, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  text->ok = text->ok && size >= 0 && pry_buffer_reserve(text->out, (size_t)size + 1);
  if (!text->ok)
    return;
  va_start(arguments, format);
  vsnprintf(text->out->data + text->out->size, (size_t)size + 1, format, arguments);
  va_end(arguments);
  text->out->size += (size_t)size;
}

void pry_sim_say_json(struct pry_sim_text *text, struct pry_slice inside)
{
  text->ok = text->ok && pry_buffer_append_json(text->out, inside);
}
