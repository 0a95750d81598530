/*
 * Sinks that people read in a chat.
 *
 * Slack      https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks: {"text"}; & < > are escaped, for
 *            <!channel> calls everybody (docs.slack.dev/messaging/formatting-message-text). One message a second; 429 with
 *            Retry-After (docs.slack.dev/apis/web-api/rate-limits). Errors are a status and a word such as invalid_payload.
 * Feishu     https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot: {"timestamp","sign","msg_type","content"};
 *            sign is the HMAC-SHA256 of nothing under the key "TIMESTAMP\nSECRET", in base64. 100 a minute, 5 a second, body
 *            at most 20 KB. 200 with `code`; 9499, 11232 and 99991400 are about frequency. <at> in a text calls people.
 * DingTalk   https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages and
 *            .../customize-robot-security-settings: ?timestamp=MS&sign=, the HMAC-SHA256 of "MS\nSECRET" under the secret, in
 *            base64, percent-encoded. 20 a minute, then the bot is mute for 10 minutes. 200 with `errcode`; 130101 and 410100
 *            are about frequency, -1 is a busy system.
 * WeCom      https://developer.work.weixin.qq.com/document/path/91770: {"msgtype":"markdown"} of at most 4096 bytes of
 *            UTF-8; the URL is the secret. 20 a minute. 200 with `errcode`; 45009 is about frequency, -1 is a busy system.
 */
#include "sink.h"

#include "json.h"

#include <stdio.h>

enum { SLACK_MAX = 12 * 1024, FEISHU_MAX = 8 * 1024, DINGTALK_MAX = 8 * 1024, WECOM_MAX = 4000 };

/* ---- escaping --------------------------------------------------------------------------------------------------- */

static bool escape_slack(struct pry_buffer *out, struct pry_slice text)
{
  bool ok = true;
  for (size_t i = 0; ok && i < text.size; i++) {
    char c = text.data[i];
    ok = c == '&'   ? pry_buffer_append_text(out, "&amp;")
         : c == '<' ? pry_buffer_append_text(out, "&lt;")
         : c == '>' ? pry_buffer_append_text(out, "&gt;")
                    : pry_buffer_append(out, &c, 1);
  }
  return ok;
}

/* Where no escape is known, a sign that looks the same: "<at id=all>" and "<@all>" must stay words. */
static bool escape_angles(struct pry_buffer *out, struct pry_slice text)
{
  bool ok = true;
  for (size_t i = 0; ok && i < text.size; i++)
    ok = text.data[i] == '<' ? pry_buffer_append_text(out, "\xEF\xBC\x9C") : pry_buffer_append(out, &text.data[i], 1);
  return ok;
}

/* ---- bodies ----------------------------------------------------------------------------------------------------- */

/* `before`, the lines as the inside of a JSON string, `after`. */
static bool append_in_json(struct pry_sink_message *message, size_t most, pry_sink_escape escape, const char *before,
                           const char *after)
{
  struct pry_buffer lines;
  pry_buffer_init(&lines, 0);
  bool ok = pry_sink_append_lines(message, &lines, most, escape) && pry_buffer_append_text(&message->body, before) &&
            pry_buffer_append_json(&message->body, pry_buffer_slice(&lines)) &&
            pry_buffer_append_text(&message->body, after) && pry_sink_add_headers(message, "application/json");
  pry_buffer_fini(&lines);
  return ok;
}

static bool render_slack(struct pry_sink_message *message)
{
  return pry_buffer_append_text(&message->url, message->sink->url) &&
         append_in_json(message, SLACK_MAX, escape_slack, "{\"text\":\"", "\"}");
}

/* "TIME\nSECRET", which Feishu takes for the key and DingTalk for the message. */
static bool build_signed(struct pry_buffer *text, const char *time, const char *secret)
{
  return pry_buffer_append_format(text, "%s\n%s", time, secret);
}

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

static bool append_feishu_sign(struct pry_sink_message *message)
{
  char time[32];
  unsigned char signature[PRY_SIGNATURE_BYTES];
  struct pry_buffer key;
  pry_buffer_init(&key, 0);
  snprintf(time, sizeof time, "%.0f", message->now);
  bool ok =
      build_signed(&key, time, message->sink->sign) && pry_sign(pry_buffer_slice(&key), PRY_SLICE(""), signature) &&
      pry_buffer_append_format(&message->body, "\"timestamp\":\"%s\",\"sign\":\"", time) &&
      pry_append_base64(&message->body, signature, sizeof signature) && pry_buffer_append_text(&message->body, "\",");
  wipe(&key);
  return ok;
}

static bool render_feishu(struct pry_sink_message *message)
{
  return pry_buffer_append_text(&message->url, message->sink->url) && pry_buffer_append_text(&message->body, "{") &&
         (!message->sink->sign || append_feishu_sign(message)) &&
         append_in_json(message, FEISHU_MAX, escape_angles, "\"msg_type\":\"text\",\"content\":{\"text\":\"", "\"}}");
}

static bool append_dingtalk_sign(struct pry_sink_message *message)
{
  char time[32];
  unsigned char signature[PRY_SIGNATURE_BYTES];
  struct pry_buffer text, encoded;
  pry_buffer_init(&text, 0);
  pry_buffer_init(&encoded, 0);
  snprintf(time, sizeof time, "%.0f", message->now * 1000);
  bool ok = build_signed(&text, time, message->sink->sign) &&
            pry_sign(pry_slice_of(message->sink->sign), pry_buffer_slice(&text), signature) &&
            pry_append_base64(&encoded, signature, sizeof signature) &&
            pry_buffer_append_format(&message->url, "%stimestamp=%s&sign=", strchr(message->sink->url, '?') ? "&" : "?",
                                     time) &&
            pry_append_percent(&message->url, pry_buffer_slice(&encoded));
  wipe(&text);
  wipe(&encoded);
  return ok;
}

static bool render_dingtalk(struct pry_sink_message *message)
{
  return pry_buffer_append_text(&message->url, message->sink->url) &&
         (!message->sink->sign || append_dingtalk_sign(message)) &&
         append_in_json(message, DINGTALK_MAX, escape_angles, "{\"msgtype\":\"text\",\"text\":{\"content\":\"", "\"}}");
}

static bool render_wecom(struct pry_sink_message *message)
{
  return pry_buffer_append_text(&message->url, message->sink->url) &&
         append_in_json(message, WECOM_MAX, escape_angles, "{\"msgtype\":\"markdown\",\"markdown\":{\"content\":\"",
                        "\"}}");
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void judge_slack(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  pry_sink_judge_status(status, answer);
  if (answer->verdict != PRY_SINK_TOOK)
    pry_sink_set_why(answer, status, body);
}

static bool is_among(int64_t code, const int *codes)
{
  for (; *codes; codes++)
    if (code == *codes)
      return true;
  return false;
}

/* An error in a 200. `busy`, `passing`: codes, ended by 0. */
struct answer_shape {
  const char *code, *message;
  const int *busy, *passing;
};

static void set_code_why(struct pry_sink_answer *answer, const struct answer_shape *shape, int64_t code,
                         struct pry_slice body)
{
  struct pry_json_value message;
  struct pry_buffer text;
  char clean[120] = "";
  pry_buffer_init(&text, 4096);
  if (pry_json_get(body, shape->message, &message) && pry_json_string(message.raw, &text))
    pry_note_set_line(NULL, clean, sizeof clean, pry_buffer_slice(&text));
  snprintf(answer->why, sizeof answer->why, "%s %lld%s%s", shape->code, (long long)code, clean[0] ? ": " : "", clean);
  pry_buffer_fini(&text);
}

static void judge_by_code(int status, struct pry_slice body, const struct answer_shape *shape,
                          struct pry_sink_answer *answer)
{
  struct pry_json_value value;
  int64_t code = 0;
  bool coded = pry_json_get(body, shape->code, &value) && pry_json_integer(value.raw, &code);
  pry_sink_judge_status(status, answer);
  if (!coded && answer->verdict == PRY_SINK_TOOK) { /* a proxy's page, a wrong URL: nobody has been told */
    answer->verdict = PRY_SINK_FAILED;
    snprintf(answer->why, sizeof answer->why, "status %d, but no \"%s\" in the answer; is the URL right?", status,
             shape->code);
  } else if (coded && code != 0) {
    answer->verdict = is_among(code, shape->busy) || status == 429      ? PRY_SINK_BUSY
                      : is_among(code, shape->passing) || status >= 500 ? PRY_SINK_FAILED
                                                                        : PRY_SINK_REFUSED;
    set_code_why(answer, shape, code, body);
  }
}

static void judge_feishu(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  static const int busy[] = {9499, 11232, 99991400, 0}, passing[] = {0};
  static const struct answer_shape shape = {"code", "msg", busy, passing};
  judge_by_code(status, body, &shape, answer);
}

static void judge_dingtalk(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  static const int busy[] = {130101, 410100, 0}, passing[] = {-1, 0};
  static const struct answer_shape shape = {"errcode", "errmsg", busy, passing};
  judge_by_code(status, body, &shape, answer);
}

static void judge_wecom(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  static const int busy[] = {45009, 0}, passing[] = {-1, 0};
  static const struct answer_shape shape = {"errcode", "errmsg", busy, passing};
  judge_by_code(status, body, &shape, answer);
}

/* ---- the kinds -------------------------------------------------------------------------------------------------- */

#define DIGEST (5 * PRY_SECOND)

const struct pry_sink_kind pry_sink_slack = {.name = "slack",
                                             .per_minute = 30,
                                             .gap = PRY_SECOND,
                                             .digest = DIGEST,
                                             .mute = 30 * PRY_SECOND,
                                             .merge = 50,
                                             .answers = true,
                                             .render = render_slack,
                                             .judge = judge_slack};

const struct pry_sink_kind pry_sink_feishu = {.name = "feishu",
                                              .per_minute = 60,
                                              .gap = PRY_SECOND,
                                              .digest = DIGEST,
                                              .mute = 60 * PRY_SECOND,
                                              .merge = 50,
                                              .answers = true,
                                              .render = render_feishu,
                                              .judge = judge_feishu};

const struct pry_sink_kind pry_sink_dingtalk = {.name = "dingtalk",
                                                .per_minute = 15,
                                                .gap = PRY_SECOND,
                                                .digest = DIGEST,
                                                .mute = 600 * PRY_SECOND,
                                                .merge = 50,
                                                .answers = true,
                                                .render = render_dingtalk,
                                                .judge = judge_dingtalk};

const struct pry_sink_kind pry_sink_wecom = {.name = "wecom",
                                             .per_minute = 15,
                                             .gap = PRY_SECOND,
                                             .digest = DIGEST,
                                             .mute = 60 * PRY_SECOND,
                                             .merge = 50,
                                             .answers = true,
                                             .render = render_wecom,
                                             .judge = judge_wecom};
