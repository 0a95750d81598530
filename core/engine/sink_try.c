#include "sink_try.h"

#include "retry_after.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

#define REQUEST_LIMIT (10 * PRY_SECOND)
#define MAIL_LIMIT (45 * PRY_SECOND)

/* WAIT_MAX: the longest time that a sink may ask for, when it is busy and when it only failed. */
enum { ANSWER_MAX = 64 * 1024, KEPT_MAX = 4096, BUSY_WAIT_MAX = 3600, WAIT_MAX = 60 };

struct pry_sink_try {
  const struct pry_sink_means *means;
  const struct pry_sink *sink;
  struct pry_sink_message message;
  pry_sink_done done;
  void *user;
  struct pry_timer timer;
  struct pry_http_exchange *exchange;
  struct pry_mail_sending *sending;
  struct pry_buffer body;
  size_t answered; /* bytes */
  int status;      /* 0: none yet */
  double asked;    /* seconds of Retry-After; negative: none */
};

static void try_free(struct pry_sink_try *attempt)
{
  pry_timer_cancel(&attempt->timer);
  pry_sink_message_fini(&attempt->message);
  pry_buffer_fini(&attempt->body);
  free(attempt);
}

void pry_sink_try_cancel(struct pry_sink_try *attempt)
{
  if (attempt->exchange)
    pry_http_cancel(attempt->exchange);
  if (attempt->sending)
    pry_mail_cancel(attempt->sending);
  try_free(attempt);
}

/* ---- its end ------------------------------------------------------------------------------------------------------- */

static void report(struct pry_sink_try *attempt, struct pry_sink_answer *answer)
{
  double most = answer->verdict == PRY_SINK_BUSY ? BUSY_WAIT_MAX : WAIT_MAX;
  if (attempt->asked >= 0 && attempt->asked <= most)
    answer->wait = pry_time_from_seconds(attempt->asked);
  pry_scrubber_apply_text(attempt->means->scrubber, answer->why);
  pry_sink_done done = attempt->done;
  void *user = attempt->user;
  try_free(attempt);
  done(user, answer);
}

static void judge(struct pry_sink_try *attempt)
{
  struct pry_sink_answer answer;
  pry_sink_judge(attempt->sink, attempt->status, pry_buffer_slice(&attempt->body), &answer);
  report(attempt, &answer);
}

static void fail(struct pry_sink_try *attempt, const char *why)
{
  struct pry_sink_answer answer = {.verdict = PRY_SINK_FAILED};
  pry_note_set_line(NULL, answer.why, sizeof answer.why, pry_slice_of(why));
  report(attempt, &answer);
}

/* Where the body decides, half of it decides nothing. */
static bool can_judge(const struct pry_sink_try *attempt, bool whole)
{
  bool good = attempt->status >= 200 && attempt->status < 300;
  return attempt->status && (whole || !good || !attempt->sink->kind->answers);
}

static void end(struct pry_sink_try *attempt, bool whole, const char *why)
{
  attempt->exchange = NULL;
  if (can_judge(attempt, whole))
    judge(attempt);
  else
    fail(attempt, why);
}

static void time_is_up(void *user)
{
  struct pry_sink_try *attempt = user;
  if (attempt->exchange)
    pry_http_cancel(attempt->exchange);
  if (attempt->sending)
    pry_mail_cancel(attempt->sending);
  attempt->sending = NULL;
  end(attempt, false, "no answer in time");
}

/* ---- a request ------------------------------------------------------------------------------------------------------ */

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_sink_try *attempt = user;
  attempt->status = status;
  if (!pry_retry_after(headers, pry_loop_unix_time(attempt->means->loop), &attempt->asked))
    attempt->asked = -1;
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_sink_try *attempt = user;
  attempt->answered += data.size;
  if (attempt->answered > ANSWER_MAX) {
    pry_http_cancel(attempt->exchange);
    end(attempt, true, "endless answer");
    return PRY_HTTP_CONTINUE;
  }
  size_t room = KEPT_MAX - attempt->body.size;
  pry_buffer_append(&attempt->body, data.data, data.size < room ? data.size : room); /* without it: judged as empty */
  return PRY_HTTP_CONTINUE;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  end(user, result->curl_code == PRY_HTTP_OK, result->message && result->message[0] ? result->message : "no answer");
}

static bool start_request(struct pry_sink_try *attempt)
{
  static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};
  struct pry_http_request request = {.method = "POST",
                                     .url = attempt->message.url.data,
                                     .headers = &attempt->message.headers,
                                     .body = pry_buffer_slice(&attempt->message.body),
                                     .has_body = true};
  attempt->exchange = pry_http_start(attempt->means->http, &request, &ops, attempt);
  return attempt->exchange;
}

/* ---- a mail ---------------------------------------------------------------------------------------------------------- */

static void mail_ended(void *user, const struct pry_mail_result *result)
{
  struct pry_sink_try *attempt = user;
  attempt->sending = NULL;
  attempt->status = result->status;
  if (!result->status) {
    fail(attempt, result->message);
    return;
  }
  pry_buffer_append_text(&attempt->body, result->message); /* without it: the status alone */
  judge(attempt);
}

static bool start_mail(struct pry_sink_try *attempt)
{
  const struct pry_sink *sink = attempt->sink;
  struct pry_mail mail = {.url = sink->endpoint,
                          .from = sink->from,
                          .to = sink->to,
                          .to_count = sink->to_count,
                          .user = sink->user,
                          .password = sink->sign,
                          .plain = sink->plain,
                          .message = pry_buffer_slice(&attempt->message.body)};
  attempt->sending = pry_mail_start(attempt->means->mailer, &mail, mail_ended, attempt);
  return attempt->sending;
}

struct pry_sink_try *pry_sink_try_start(const struct pry_sink_means *means, const struct pry_sink *sink,
                                        const struct pry_list *notes, unsigned long lost, pry_sink_done done,
                                        void *user)
{
  struct pry_sink_try *attempt = calloc(1, sizeof *attempt);
  if (!attempt)
    return NULL;
  bool mail = sink->kind == &pry_sink_mail;
  attempt->means = means;
  attempt->sink = sink;
  attempt->done = done;
  attempt->user = user;
  attempt->asked = -1;
  attempt->message =
      (struct pry_sink_message){.sink = sink, .notes = notes, .lost = lost, .now = pry_loop_unix_time(means->loop)};
  pry_buffer_init(&attempt->body, KEPT_MAX);
  bool ok = pry_hash_seed(attempt->message.random) && pry_sink_render(&attempt->message) &&
            pry_timer_start(means->loop, &attempt->timer, mail ? MAIL_LIMIT : REQUEST_LIMIT, time_is_up, attempt) &&
            (mail ? start_mail(attempt) : start_request(attempt));
  attempt->message.notes = NULL;
  if (ok)
    return attempt;
  try_free(attempt);
  return NULL;
}
