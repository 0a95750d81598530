/*
 * The sink that is a mailbox: one message of RFC 5322, sent by mail.h.
 *
 * The subject is encoded (RFC 2047) unless it is plain ASCII, the body is UTF-8 in base64 (RFC 2045), so no line is too long
 * and none begins with a dot. Auto-Submitted (RFC 3834) keeps vacation programs from answering. Addresses were checked when
 * they were declared, everything else has no line ends: nothing can add a header.
 */
#include "sink.h"

#include <stdio.h>
#include <time.h>

enum { LINES_MAX = 32 * 1024, WORD_BYTES = 45, LINE_BYTES = 57 };

/* ---- the head ------------------------------------------------------------------------------------------------------ */

static bool is_plain(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if ((unsigned char)text.data[i] < ' ' || (unsigned char)text.data[i] > '~')
      return false;
  return !memmem(text.data, text.size, "=?", 2);
}

/* Encoded words of at most 75 characters, each of whole characters (RFC 2047 §2, §5). */
static bool append_words(struct pry_buffer *out, struct pry_slice text)
{
  bool ok = true, first = true;
  while (ok && text.size) {
    size_t size = text.size < WORD_BYTES ? text.size : WORD_BYTES;
    while (size > 1 && size < text.size && ((unsigned char)text.data[size] & 0xC0) == 0x80)
      size--;
    ok = pry_buffer_append_text(out, first ? "=?UTF-8?B?" : "\r\n =?UTF-8?B?") &&
         pry_append_base64(out, text.data, size) && pry_buffer_append_text(out, "?=");
    first = false;
    text = (struct pry_slice){text.data + size, text.size - size};
  }
  return ok;
}

static bool append_subject(struct pry_buffer *out, const struct pry_sink_message *message)
{
  struct pry_buffer subject;
  pry_buffer_init(&subject, 0);
  size_t count = pry_sink_note_count(message);
  bool ok = count == 1 ? pry_buffer_append_text(&subject, "[parry] ") &&
                             pry_note_append_head(&subject, pry_sink_first(message))
                       : pry_buffer_append_format(&subject, "[parry] %zu alerts", count);
  struct pry_slice text = pry_buffer_slice(&subject);
  ok = ok && pry_buffer_append_text(out, "Subject: ") &&
       (is_plain(text) ? pry_buffer_append_slice(out, text) : append_words(out, text)) &&
       pry_buffer_append_text(out, "\r\n");
  pry_buffer_fini(&subject);
  return ok;
}

/* RFC 5322 §3.3, in English whatever the locale. */
static bool append_date(struct pry_buffer *out, double unix_time)
{
  static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  struct tm parts;
  time_t seconds = (time_t)unix_time;
  return gmtime_r(&seconds, &parts) &&
         pry_buffer_append_format(out, "Date: %s, %02d %s %d %02d:%02d:%02d +0000\r\n", days[parts.tm_wday],
                                  parts.tm_mday, months[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour,
                                  parts.tm_min, parts.tm_sec);
}

static bool append_head(struct pry_buffer *out, const struct pry_sink_message *message)
{
  const struct pry_sink *sink = message->sink;
  const char *at = strchr(sink->from, '@');
  bool ok = pry_buffer_append_format(out, "From: parry <%s>\r\nTo: ", sink->from);
  for (size_t i = 0; ok && i < sink->to_count; i++)
    ok = pry_buffer_append_format(out, "%s<%s>", i ? ",\r\n " : "", sink->to[i]);
  return ok && pry_buffer_append_text(out, "\r\n") && append_subject(out, message) && append_date(out, message->now) &&
         pry_buffer_append_format(out, "Message-ID: <%016llx%016llx@%s>\r\n", (unsigned long long)message->random[0],
                                  (unsigned long long)message->random[1], at ? at + 1 : "parry") &&
         pry_buffer_append_text(out, "Auto-Submitted: auto-generated\r\n"
                                     "MIME-Version: 1.0\r\n"
                                     "Content-Type: text/plain; charset=utf-8\r\n"
                                     "Content-Transfer-Encoding: base64\r\n\r\n");
}

/* ---- the body ------------------------------------------------------------------------------------------------------ */

static bool copy(struct pry_buffer *out, struct pry_slice text)
{
  return pry_buffer_append_slice(out, text);
}

/* Text has CRLF line ends before it is encoded (RFC 2045 §6.8). */
static bool append_text(struct pry_buffer *out, struct pry_slice lines)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool ok = true;
  for (size_t i = 0; ok && i < lines.size; i++)
    ok = lines.data[i] == '\n' ? pry_buffer_append_text(&text, "\r\n") : pry_buffer_append(&text, &lines.data[i], 1);
  for (size_t at = 0; ok && at < text.size; at += LINE_BYTES)
    ok = pry_append_base64(out, text.data + at, text.size - at < LINE_BYTES ? text.size - at : LINE_BYTES) &&
         pry_buffer_append_text(out, "\r\n");
  pry_buffer_fini(&text);
  return ok;
}

static bool render(struct pry_sink_message *message)
{
  struct pry_buffer lines;
  pry_buffer_init(&lines, 0);
  bool ok = pry_buffer_append_text(&message->url, message->sink->endpoint) && append_head(&message->body, message) &&
            pry_sink_append_lines(message, &lines, LINES_MAX, copy) &&
            append_text(&message->body, pry_buffer_slice(&lines));
  pry_buffer_fini(&lines);
  return ok;
}

/* RFC 5321 §4.2.1: 4yz may be tried again, 5yz not. 0: there was no answer. */
static void judge(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  answer->verdict = status >= 200 && status < 300   ? PRY_SINK_TOOK
                    : status >= 500 && status < 600 ? PRY_SINK_REFUSED
                                                    : PRY_SINK_FAILED;
  if (answer->verdict != PRY_SINK_TOOK)
    pry_sink_set_why(answer, status, body);
}

const struct pry_sink_kind pry_sink_mail = {.name = "smtp",
                                            .per_minute = 10,
                                            .digest = 5 * PRY_SECOND,
                                            .mute = 60 * PRY_SECOND,
                                            .merge = 50,
                                            .answers = true,
                                            .render = render,
                                            .judge = judge};
