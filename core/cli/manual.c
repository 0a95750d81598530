#include "manual.h"

#include "cli.h"
#include "parry.h"
#include "slice.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name, *doc;
} commands[] = {
#define X(name, doc) {#name, doc},
    PRY_COMMANDS(X)
#undef X
};

enum { COMMANDS = sizeof commands / sizeof *commands };

/* ---- text in man(7) ----------------------------------------------------------------------------------------- */

/* What looks like a request at the beginning of a line is text, and quotes stay what somebody can paste. */
static void print_text(struct pry_slice text, bool line_begins)
{
  if (line_begins && text.size && (text.data[0] == '.' || text.data[0] == '\''))
    printf("\\&");
  for (size_t i = 0; i < text.size; i++) {
    static const char specials[] = "\\-'`^~";
    static const char *const escapes[] = {"\\e", "\\-", "\\(aq", "\\(ga", "\\(ha", "\\(ti"};
    const char *special = strchr(specials, text.data[i]);
    if (special && text.data[i])
      fputs(escapes[special - specials], stdout);
    else
      putchar(text.data[i]);
  }
}

static void print_string(const char *text, bool line_begins)
{
  print_text(pry_slice_of(text), line_begins);
}

static void print_line(struct pry_slice line)
{
  print_text(line, true);
  putchar('\n');
}

static void print_row(const char *left, const char *right)
{
  printf(".TP\n.B ");
  print_string(left, false);
  putchar('\n');
  print_string(right, true);
  putchar('\n');
}

static void print_heading(const char *name)
{
  printf(".SH ");
  for (; *name; name++)
    putchar(toupper((unsigned char)*name));
  putchar('\n');
}

static void print_title(const char *name, const char *doc)
{
  printf(".\\\" Written by `parry help --man`.\n.TH ");
  for (const char *letter = name; *letter; letter++)
    printf(*letter == '-' ? "\\-" : "%c", toupper((unsigned char)*letter));
  printf(" 1 " PARRY_RELEASED " \"parry %s\" \"parry\"\n.SH NAME\n", parry_version());
  print_string(name, true);
  printf(" \\- ");
  print_string(doc, false);
  putchar('\n');
}

/* ---- texts of --help ---------------------------------------------------------------------------------------- */

/* Takes the first line off `text`; it has no line break. */
static struct pry_slice next_line(struct pry_slice *text)
{
  const char *end = memchr(text->data, '\n', text->size);
  size_t length = end ? (size_t)(end - text->data) : text->size;
  struct pry_slice line = {text->data, length};
  size_t taken = length + (end ? 1 : 0);
  *text = (struct pry_slice){text->data + taken, text->size - taken};
  return line;
}

static void skip_spaces(struct pry_slice *line)
{
  while (line->size && line->data[0] == ' ')
    line->data++, line->size--;
}

/* Paragraphs, and indented lines as they are. */
static void print_paragraphs(struct pry_slice text)
{
  bool literal = false, gap = false;
  while (text.size) {
    struct pry_slice line = next_line(&text);
    bool indented = line.size && line.data[0] == ' ';
    if (!line.size) {
      gap = true;
      continue;
    }
    if (indented != literal)
      puts(indented ? ".PP\n.nf" : ".fi\n.PP");
    else if (gap)
      puts(indented ? "" : ".PP");
    literal = indented;
    gap = false;
    print_line(line);
  }
  if (literal)
    puts(".fi");
}

static void print_literally(struct pry_slice text)
{
  puts(".nf");
  while (text.size) {
    struct pry_slice line = next_line(&text);
    if (line.size)
      print_line(line);
    else if (text.size)
      puts(".sp");
  }
  puts(".fi");
}

/* --help aligns these lines behind their label, which is a heading here. */
static void print_flush_left(struct pry_slice text)
{
  puts(".nf");
  while (text.size) {
    struct pry_slice line = next_line(&text);
    skip_spaces(&line);
    print_line(line);
  }
  puts(".fi");
}

/* "0 taken over, or unchanged; 1 refused;\n   2 usage" */
static void print_codes(struct pry_slice text)
{
  bool begins = true;
  while (text.size) {
    struct pry_slice line = next_line(&text);
    skip_spaces(&line);
    while (line.size) {
      const char *end = memmem(line.data, line.size, "; ", 2);
      size_t length = end ? (size_t)(end - line.data) : line.size;
      struct pry_slice part = {line.data, length};
      bool ended = end || (length && line.data[length - 1] == ';');
      if (!end && ended)
        part.size--;
      line.data += end ? length + 2 : length;
      line.size -= end ? length + 2 : length;
      size_t digits = 0;
      while (begins && digits < part.size && isdigit((unsigned char)part.data[digits]))
        digits++;
      if (digits) {
        printf(".TP\n.B %.*s\n", (int)digits, part.data);
        part.data += digits, part.size -= digits;
        skip_spaces(&part);
      }
      print_line(part);
      begins = ended;
    }
  }
}

static void print_page_name(struct pry_slice name, bool more)
{
  printf(".BR parry%s", name.size ? "\\-" : "");
  print_text(name, false);
  printf(" (1)%s\n", more ? "," : "");
}

/* "parry status, parry check DIR" */
static void print_see_also(struct pry_slice text)
{
  while (text.size) {
    struct pry_slice line = next_line(&text);
    while (line.size) {
      const char *comma = memchr(line.data, ',', line.size);
      struct pry_slice item = {line.data, comma ? (size_t)(comma - line.data) : line.size};
      line.data += item.size + (comma ? 1 : 0), line.size -= item.size + (comma ? 1 : 0);
      skip_spaces(&item);
      if (item.size > 6 && memcmp(item.data, "parry ", 6) == 0)
        item.data += 6, item.size -= 6;
      const char *space = memchr(item.data, ' ', item.size);
      if (space)
        item.size = (size_t)(space - item.data);
      if (item.size)
        print_page_name(item, true);
    }
  }
}

/* ---- what stands after the options -------------------------------------------------------------------------- */

static const struct section {
  const char *label, *title;
  void (*print)(struct pry_slice text);
} sections[] = {{"signals:", "signals", print_flush_left},
                {"exit codes:", "exit status", print_codes},
                {"example:", "example", print_literally},
                {"Example:", "example", print_literally},
                {"see also:", "see also", print_see_also}};

enum { SECTIONS = sizeof sections / sizeof *sections };

static const struct section *section_of(struct pry_slice line)
{
  for (size_t i = 0; i < SECTIONS; i++)
    if (line.size >= strlen(sections[i].label) && memcmp(line.data, sections[i].label, strlen(sections[i].label)) == 0)
      return &sections[i];
  return NULL;
}

/* Takes off `text` what belongs to one section, its label included: up to the next label. */
static struct pry_slice next_part(struct pry_slice *text)
{
  struct pry_slice part = *text;
  struct pry_slice rest = *text;
  next_line(&rest);
  while (rest.size) {
    struct pry_slice after = rest;
    if (section_of(next_line(&after)))
      break;
    rest = after;
  }
  part.size -= rest.size;
  *text = rest;
  return part;
}

static void print_parts(struct pry_slice text, const struct section *wanted)
{
  while (text.size) {
    struct pry_slice part = next_part(&text);
    const struct section *section = section_of(part);
    if (section != wanted)
      continue;
    print_heading(section ? section->title : "details");
    if (!section) {
      print_literally(part);
      continue;
    }
    part.data += strlen(section->label), part.size -= strlen(section->label);
    if (section->print != print_literally || part.data[0] != '\n')
      skip_spaces(&part);
    else
      part.data++, part.size--;
    section->print(part);
  }
}

/* ---- pages -------------------------------------------------------------------------------------------------- */

static void print_option(const struct pry_option *option)
{
  bool may = option->type == PRY_OPTION_MAYBE_SECONDS;
  puts(".TP");
  if (option->letter)
    printf("\\fB\\-%c\\fR, ", option->letter);
  printf("\\fB\\-\\-");
  print_string(option->name, false);
  printf("\\fR");
  if (option->value) {
    printf(may ? "[=\\fI" : " \\fI");
    print_string(option->value, false);
    printf(may ? "\\fR]" : "\\fR");
  }
  putchar('\n');
  print_string(option->doc, true);
  putchar('\n');
}

/* "parry alert test SINK [OPTIONS] | parry alert list": one line each, the command's name in bold. */
static void print_usage(const char *usage, size_t bold)
{
  while (usage) {
    const char *next = strstr(usage, " | parry ");
    size_t length = next ? (size_t)(next - usage) : strlen(usage);
    printf("\\fB");
    print_text((struct pry_slice){usage, bold}, false);
    printf("\\fR");
    print_text((struct pry_slice){usage + bold, length - bold}, false);
    putchar('\n');
    if (next)
      puts(".br");
    usage = next ? next + 3 : NULL;
  }
}

void pry_manual_print_command(const struct pry_command_line *line)
{
  const char *name = line->usage + strlen("parry ");
  size_t length = strcspn(name, " ");
  char page[64];
  const char *doc = "";
  snprintf(page, sizeof page, "parry-%.*s", (int)length, name);
  for (size_t i = 0; i < COMMANDS; i++)
    if (strlen(commands[i].name) == length && memcmp(commands[i].name, name, length) == 0)
      doc = commands[i].doc;
  print_title(page, doc);
  print_heading("synopsis");
  print_usage(line->usage, strlen("parry ") + length);
  print_heading("description");
  print_paragraphs(pry_slice_of(line->doc));
  print_heading("options");
  for (size_t i = 0; i < line->option_count; i++)
    if (line->options[i].doc)
      print_option(&line->options[i]);
  puts(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nshow a summary of this");
  /* In the order of man-pages(7), whatever the order in --help. */
  struct pry_slice after = line->after ? pry_slice_of(line->after) : (struct pry_slice){0};
  print_parts(after, NULL);
  for (size_t i = 0; i + 1 < SECTIONS; i++)
    print_parts(after, &sections[i]);
  if (line->after && strstr(line->after, sections[SECTIONS - 1].label))
    print_parts(after, &sections[SECTIONS - 1]);
  else
    print_heading("see also");
  print_page_name((struct pry_slice){0}, false);
}

void pry_manual_print_program(void)
{
  print_title("parry", "policies for failing API calls");
  print_heading("synopsis");
  print_usage("parry COMMAND [OPTIONS]", strlen("parry"));
  print_heading("description");
  print_string(PRY_MANUAL_ABOUT, true);
  printf("\nEach command has a page of its own,\n.BR parry\\-COMMAND (1).\n");
  print_heading("commands");
  for (size_t i = 0; i < COMMANDS; i++)
    print_row(commands[i].name, commands[i].doc);
  print_heading("options");
  print_row("-h, --help", "show the commands; after a command: its options");
  print_row("-V, --version", "print the version");
  print_heading("exit status");
#define X(name, value, doc) print_row(#value, doc);
  PRY_EXITS(X)
#undef X
  print_heading("environment");
#define X(name, doc) print_row(name, doc);
  PRY_MANUAL_ENVIRONMENT(X)
  print_heading("files");
  PRY_MANUAL_FILES(X)
#undef X
  print_heading("see also");
  for (size_t i = 0; i < COMMANDS; i++)
    print_page_name(pry_slice_of(commands[i].name), i + 1 < COMMANDS);
}
