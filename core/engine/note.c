#include "note.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const severity_names[PRY_ALERT_SEVERITY_COUNT] = {
#define X(name, text) [name] = text,
    PRY_ALERT_SEVERITIES(X)
#undef X
};

const char *pry_alert_severity_name(enum pry_alert_severity severity)
{
  return severity_names[severity];
}

bool pry_alert_severity_from_name(struct pry_slice name, enum pry_alert_severity *severity)
{
  for (int i = PRY_ALERT_INFO; i < PRY_ALERT_SEVERITY_COUNT; i++)
    if (pry_slice_equal(name, pry_slice_of(severity_names[i]))) {
      *severity = (enum pry_alert_severity)i;
      return true;
    }
  return false;
}

/* ---- texts ----------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at the front (RFC 3629); 0: it is none. */
static size_t character_size(struct pry_slice text)
{
  const unsigned char *c = (const unsigned char *)text.data;
  size_t size = c[0] < 0x80 ? 1 : c[0] >= 0xC2 && c[0] < 0xE0 ? 2 : (c[0] & 0xF0) == 0xE0 ? 3 : 4;
  if (size > text.size || (size == 4 && (c[0] < 0xF0 || c[0] > 0xF4)))
    return 0;
  for (size_t i = 1; i < size; i++)
    if ((c[i] & 0xC0) != 0x80)
      return 0;
  bool overlong = (c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xF0 && c[1] < 0x90);
  bool outside = (c[0] == 0xED && c[1] > 0x9F) || (c[0] == 0xF4 && c[1] > 0x8F);
  return overlong || outside ? 0 : size;
}

/* C0, DEL, and C1, which terminals and mail readers may take for commands. */
static bool is_control(const char *c, size_t size)
{
  unsigned char first = (unsigned char)c[0];
  return first < ' ' || first == 0x7F || (size == 2 && first == 0xC2 && (unsigned char)c[1] < 0xA0);
}

static void copy_clean(char *to, size_t room, struct pry_slice text, bool lines)
{
  size_t used = 0;
  while (text.size) {
    size_t size = character_size(text);
    bool kept = size && (!is_control(text.data, size) || (lines && text.data[0] == '\n'));
    if (used + (kept ? size : 1) >= room)
      break;
    if (kept)
      memcpy(to + used, text.data, size);
    else
      to[used] = size ? ' ' : '?';
    used += kept ? size : 1;
    text.data += size ? size : 1;
    text.size -= size ? size : 1;
  }
  to[used] = '\0';
}

static bool set(struct pry_scrubber *scrubber, char *to, size_t room, struct pry_slice text, bool lines)
{
  to[0] = '\0';
  if (!pry_scrubber_finds(scrubber, text)) {
    copy_clean(to, room, text, lines);
    return true;
  }
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  bool ok = pry_buffer_append_slice(&copy, text);
  if (ok) {
    pry_scrubber_apply(scrubber, &copy);
    copy_clean(to, room, pry_buffer_slice(&copy), lines);
  }
  pry_buffer_fini(&copy);
  return ok;
}

bool pry_note_set_text(struct pry_scrubber *scrubber, char *to, size_t size, struct pry_slice text)
{
  return set(scrubber, to, size, text, true);
}

bool pry_note_set_line(struct pry_scrubber *scrubber, char *to, size_t size, struct pry_slice text)
{
  return set(scrubber, to, size, text, false);
}

/* ---- as people read it ------------------------------------------------------------------------------------- */

const char *pry_note_state_word(const struct pry_note *note)
{
  static const char *const words[] = {[PRY_NOTE_OPENED] = "FIRING",
                                      [PRY_NOTE_AGAIN] = "STILL FIRING",
                                      [PRY_NOTE_RESOLVED] = "RESOLVED",
                                      [PRY_NOTE_TEST] = "TEST"};
  return words[note->state];
}

struct pry_slice pry_note_title(const struct pry_note *note)
{
  if (note->title[0])
    return pry_slice_of(note->title);
  struct pry_slice text = {note->text, strcspn(note->text, "\n")};
  return text.size ? text : pry_slice_of(note->key);
}

bool pry_note_append_head(struct pry_buffer *out, const struct pry_note *note)
{
  return pry_buffer_append_format(out, "%s (%s): ", pry_note_state_word(note),
                                  pry_alert_severity_name(note->severity)) &&
         pry_buffer_append_slice(out, pry_note_title(note));
}

bool pry_note_append_time(struct pry_buffer *out, double unix_time)
{
  struct tm parts;
  char text[32];
  time_t seconds = (time_t)unix_time;
  return gmtime_r(&seconds, &parts) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) &&
         pry_buffer_append_text(out, text);
}

static bool append_span(struct pry_buffer *out, double seconds)
{
  seconds = fmax(0, seconds);
  if (seconds < 120)
    return pry_buffer_append_format(out, "%.0f s", seconds);
  return seconds < 7200 ? pry_buffer_append_format(out, "%.0f min", seconds / 60)
                        : pry_buffer_append_format(out, "%.1f h", seconds / 3600);
}

static bool append_counts(struct pry_buffer *out, const struct pry_note *note)
{
  if (note->state == PRY_NOTE_TEST || (note->state == PRY_NOTE_OPENED && note->count <= 1))
    return true;
  bool over = note->state == PRY_NOTE_RESOLVED;
  bool ok = pry_buffer_append_format(out, "%lu time%s ", note->count, note->count == 1 ? "" : "s") &&
            pry_buffer_append_text(out, over ? "from " : "since ") && pry_note_append_time(out, note->opened);
  if (ok && over)
    ok = pry_buffer_append_text(out, ", lasted ") && append_span(out, note->time - note->opened);
  if (ok && note->state == PRY_NOTE_AGAIN)
    ok = pry_buffer_append_format(out, ", %lu since it was last told", note->since);
  return ok && pry_buffer_append_text(out, "\n");
}

static bool append_cause(struct pry_buffer *out, const struct pry_note *note)
{
  if (!note->cause[0])
    return true;
  return note->cause_count > 1 ? pry_buffer_append_format(out, "most often: %s (%lu)\n", note->cause, note->cause_count)
                               : pry_buffer_append_format(out, "cause: %s\n", note->cause);
}

static bool append_number_of(struct pry_buffer *out, unsigned count, const char *what, const char *after)
{
  return pry_buffer_append_format(out, "%u%s %s%s%s", count, count >= PRY_NOTE_MANY ? " or more" : "", what,
                                  count == 1 ? "" : "s", after);
}

static bool append_affected(struct pry_buffer *out, const struct pry_note *note)
{
  if (!note->clients && !note->sessions)
    return true;
  return pry_buffer_append_text(out, "affected: ") &&
         (!note->clients || append_number_of(out, note->clients, "client", note->sessions ? ", " : "")) &&
         (!note->sessions || append_number_of(out, note->sessions, "session", "")) && pry_buffer_append_text(out, "\n");
}

bool pry_note_append_body(struct pry_buffer *out, const struct pry_note *note)
{
  /* Without a title the head shows the first line. */
  const char *text = note->title[0] ? note->text : note->text + strcspn(note->text, "\n");
  text += *text == '\n';
  bool ok = (!*text || pry_buffer_append_format(out, "%s\n", text)) && append_counts(out, note) &&
            append_cause(out, note) && append_affected(out, note) &&
            (!note->sample[0] || pry_buffer_append_format(out, "for example: %s\n", note->sample));
  for (size_t i = 0; ok && i < note->field_count; i++)
    ok = pry_buffer_append_format(out, "%s: %s\n", note->fields[i].name, note->fields[i].value);
  return ok && (!note->generation[0] || pry_buffer_append_format(out, "policies: %.7s\n", note->generation));
}

/* ---- as programs read it ------------------------------------------------------------------------------------ */

bool pry_note_append_member(struct pry_buffer *out, const char *name, const char *text)
{
  return pry_buffer_append_format(out, "\"%s\":\"", name) && pry_buffer_append_json(out, pry_slice_of(text)) &&
         pry_buffer_append_text(out, "\",");
}

static bool append_optional(struct pry_buffer *out, const char *name, const char *text)
{
  return !text[0] || pry_note_append_member(out, name, text);
}

static bool append_fields(struct pry_buffer *out, const struct pry_note *note)
{
  bool ok = pry_buffer_append_text(out, "\"fields\":{");
  for (size_t i = 0; ok && i < note->field_count; i++)
    ok = pry_buffer_append_text(out, i ? ",\"" : "\"") &&
         pry_buffer_append_json(out, pry_slice_of(note->fields[i].name)) && pry_buffer_append_text(out, "\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(note->fields[i].value)) && pry_buffer_append_text(out, "\"");
  return ok && pry_buffer_append_text(out, "},");
}

bool pry_note_append_facts(struct pry_buffer *out, const struct pry_note *note)
{
  return append_optional(out, "title", note->title) && append_optional(out, "cause", note->cause) &&
         (!note->cause[0] || pry_buffer_append_format(out, "\"cause_count\":%lu,", note->cause_count)) &&
         append_optional(out, "sample", note->sample) &&
         (!note->clients || pry_buffer_append_format(out, "\"clients\":%u,", note->clients)) &&
         (!note->sessions || pry_buffer_append_format(out, "\"sessions\":%u,", note->sessions)) &&
         (!note->field_count || append_fields(out, note)) &&
         pry_buffer_append_format(out, "\"severity\":\"%s\",\"since\":%lu,\"opened\":%.3f",
                                  pry_alert_severity_name(note->severity), note->since, note->opened);
}
