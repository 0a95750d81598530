#include "answer.h"

#include <math.h>
#include <string.h>

double pry_answer_number(struct pry_slice object, const char *path)
{
  struct pry_json_value value;
  double result;
  return pry_json_get(object, path, &value) && pry_json_number(value.raw, &result) ? result : NAN;
}

bool pry_answer_is_true(struct pry_slice object, const char *path)
{
  struct pry_json_value value;
  return pry_json_get(object, path, &value) && value.type == PRY_JSON_TRUE;
}

/* False: there is no such text. */
static bool read_text(struct pry_slice object, const char *path, struct pry_buffer *text)
{
  struct pry_json_value value;
  if (!pry_json_get(object, path, &value) || value.type != PRY_JSON_STRING || !pry_json_string(value.raw, text))
    return false;
  for (size_t i = 0; i < text->size; i++)
    if ((unsigned char)text->data[i] < 0x20 || text->data[i] == 0x7F)
      text->data[i] = ' ';
  return true;
}

const char *pry_answer_text(struct pry_slice object, const char *path, char *text, size_t size)
{
  struct pry_buffer read;
  pry_buffer_init(&read, 0);
  size_t taken = 0;
  if (read_text(object, path, &read) && read.size) {
    taken = read.size < size ? read.size : size - 1;
    memcpy(text, read.data, taken);
  }
  text[taken] = '\0';
  pry_buffer_fini(&read);
  return text;
}

void pry_answer_print(FILE *out, struct pry_slice object, const char *path, size_t most, const char *otherwise)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  if (!read_text(object, path, &text))
    fprintf(out, "%s", otherwise);
  else if (text.size)
    fprintf(out, "%.*s", (int)(text.size < most ? text.size : most), text.data);
  pry_buffer_fini(&text);
}

size_t pry_answer_each(struct pry_slice object, const char *path, void (*visit)(void *user, struct pry_slice element),
                       void *user)
{
  struct pry_json_value list, element;
  struct pry_json_iterator iterator;
  struct pry_slice key;
  size_t count = 0;
  if (!pry_json_get(object, path, &list))
    return 0;
  pry_json_iterate(&iterator, list.raw);
  while (pry_json_next(&iterator, &key, &element)) {
    visit(user, element.raw);
    count++;
  }
  return count;
}

static void print_finding(void *user, struct pry_slice finding)
{
  (void)user;
  char severity[16];
  pry_answer_text(finding, "severity", severity, sizeof severity);
  pry_answer_print(stderr, finding, "where", 200, "?");
  fprintf(stderr, ": %s", strcmp(severity, "warning") == 0 ? "warning: " : "");
  pry_answer_print(stderr, finding, "what", 600, "?");
  fprintf(stderr, "\n");
}

void pry_answer_print_findings(struct pry_slice answer)
{
  pry_answer_each(answer, "report", print_finding, NULL);
}
