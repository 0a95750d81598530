/* Calls in virtual time against scripted providers, with each allocation failing: whatever fails, the client hears `done`
 * exactly once, everything taken is given back, and the next call is a good one. */
#include "../unit/call_policies.h"
#include "fail.h"

#include <zlib.h>

enum { ASKERS = 2 };

struct asker {
  struct pry_call *call;
  struct rig *rig;
  unsigned heads, dones;
  int status;
  size_t bytes;
  bool truncated, paused;
  unsigned attempt; /* that it is to make itself; 0: none */
  struct pry_outcome outcome;
};

static bool hosted; /* askers make their attempts themselves */

static void on_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct asker *asker = user;
  (void)headers, (void)body_size;
  FAIL_CHECK(asker->heads++ == 0 && asker->dones == 0);
  asker->status = status;
}

static bool on_data(void *user, struct pry_slice data)
{
  struct asker *asker = user;
  FAIL_CHECK(asker->heads == 1 && asker->dones == 0);
  bool go_on = asker->bytes || !asker->paused;
  asker->bytes += data.size;
  return go_on;
}

static void on_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct asker *asker = user;
  FAIL_CHECK(asker->dones++ == 0);
  asker->outcome = *outcome;
  asker->truncated = truncated;
  asker->call = NULL;
}

static const struct pry_sink_ops sink = {on_head, on_data, on_done, NULL};

static bool take_attempt(void *user, const struct pry_host_attempt *attempt)
{
  struct asker *asker = user;
  FAIL_CHECK(!asker->attempt && !asker->dones);
  asker->attempt = attempt->number;
  return true;
}

static void drop_attempt(void *user, unsigned number)
{
  struct asker *asker = user;
  FAIL_CHECK(asker->attempt == number && !asker->dones);
  asker->attempt = 0;
}

static const struct pry_host_ops host = {take_attempt, drop_attempt};

static void ask(struct rig *rig, struct asker *asker, const char *path)
{
  struct pry_headers headers;
  struct pry_buffer body;
  fail_quiet(); /* the owner's part */
  pry_headers_init(&headers);
  pry_buffer_init(&body, 0);
  FAIL_CHECK(pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json")) &&
             pry_headers_add(&headers, PRY_SLICE("X-Stainless-Retry-Count"), PRY_SLICE("1")) &&
             pry_headers_add(&headers, PRY_SLICE("Idempotency-Key"), PRY_SLICE("i")) &&
             pry_buffer_append_text(&body, rig->early_head ? STREAM_BODY : BODY));
  fail_loud();
  struct pry_call_request request = {
      .method = PRY_SLICE("POST"), .path = pry_slice_of(path), .headers = &headers, .body = &body};
  if (hosted) {
    request.host = &host;
    request.target = PRY_SLICE("p/other"); /* so that the body is made anew */
  }
  asker->rig = rig;
  asker->call = pry_call_start(rig->engine->control, &request, &sink, asker);
  FAIL_CHECK(asker->dones == 0);
  FAIL_CHECK(asker->call || fail_struck());
  pry_buffer_fini(&body);
  pry_headers_fini(&headers);
}

/* Through all waits, deadlines and timeouts; a reader that paused goes on. */
static void finish(struct asker *asker)
{
  for (unsigned i = 0; i < 20000 && asker->call; i++) {
    if (asker->paused && asker->bytes)
      pry_call_resume(asker->call);
    if (!pry_loop_turn(asker->rig->loop, 60 * PRY_SECOND))
      break;
  }
  FAIL_CHECK(!asker->call);
}

static void prepare(struct rig *rig, void (*use)(struct rig *rig))
{
  rig->repeatable = PRY_ONLY_TRUE;
  rig->timeouts = (struct pry_timeouts){.first_byte = 5 * PRY_SECOND, .idle = 5 * PRY_SECOND};
  use(rig);
  rig_commit(rig);
}

/* Everything taken by whoever has ended is back. */
static void nothing_held(struct rig *rig)
{
  pry_loop_advance(rig->loop, 100 * PRY_SECOND); /* observers, deliveries and renewals are through */
  FAIL_CHECK(rig->engine->replay_used == 0);
  FAIL_CHECK(pry_queue_key_count(rig->engine->queues) == 0);
  FAIL_CHECK(pry_budget_remaining(rig->engine->budgets, PRY_SLICE("p/m")) == 1);
  FAIL_CHECK(pry_budget_remaining(rig->engine->budgets, PRY_SLICE("q/m2")) == 1);
}

/* A few calls after one another or at once, while things fail; then a good one. */
static void run(void (*use)(struct rig *rig), unsigned at_once, void (*meanwhile)(struct asker *askers),
                int good_status)
{
  struct asker askers[ASKERS] = {{0}}, good = {0};
  fail_quiet();
  struct rig *rig = rig_new();
  prepare(rig, use);
  fail_loud();
  for (unsigned i = 0; i < at_once; i++)
    ask(rig, &askers[i], "/v1/first");
  if (meanwhile)
    meanwhile(askers);
  for (unsigned i = 0; i < at_once; i++)
    finish(&askers[i]);
  for (unsigned i = 0; i < at_once; i++)
    FAIL_CHECK(askers[i].outcome.ok || askers[i].status >= 400 || askers[i].truncated || !askers[i].heads ||
               askers[i].outcome.committed || (rig->early_head && askers[i].bytes));
  nothing_held(rig);
  fail_over();
  rig->counter = 1000; /* policies that do something once have done it */
  rig_plays(rig, (struct pry_http_step){.url_part = "good"}, json, "{}", NULL);
  ask(rig, &good, "/v1/good");
  finish(&good);
  FAIL_CHECK(good.dones == 1 && good.status == good_status);
  nothing_held(rig);
  rig_end(NULL, rig);
}

/* ---- what happens -------------------------------------------------------------------------------------------- */

static const struct pry_http_step first = {.url_part = "first"};

static void well(struct rig *rig)
{
  rig_plays(rig, first, json, "{\"a\":", "1}", NULL);
}

static void use_well(void)
{
  run(well, 1, NULL, 200);
}

static void retried(struct rig *rig)
{
  struct pry_http_step busy = {.url_part = "first", .status = 503};
  static const char *const later[] = {"Content-Type", "application/json", "Retry-After", "2", NULL};
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_OUTCOME), retry_twice);
  rig_plays(rig, busy, later, "{\"error\":{}}", NULL);
  rig_plays(rig, busy, json, "{\"error\":{}}", NULL);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_retried(void)
{
  run(retried, 1, NULL, 200);
}

static void fallen_back(struct rig *rig)
{
  rig_use(rig, "fallback", PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_DONE), fall_back);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 500}, json, "{}", NULL);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_fallback(void)
{
  run(fallen_back, 1, NULL, 200);
}

static void renewed(struct rig *rig)
{
  rig->with_credential = true;
  rig->refresh_delay = 1;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 401}, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 401}, json, "{}", NULL);
  rig_plays(rig, first, json, "{}", NULL);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_renewed(void)
{
  run(renewed, 2, NULL, 200);
}

static void streamed(struct rig *rig)
{
  rig_plays(rig, first, sse, ROLE, CONTENT, CONTENT FINISH, DONE, NULL);
}

static void pause_first(struct asker *askers)
{
  askers[0].paused = true;
}

static void use_stream(void)
{
  run(streamed, 1, pause_first, 200);
}

static void stream_fails(struct rig *rig)
{
  rig_plays(rig, first, sse, ROLE, CONTENT, STREAM_ERROR, NULL);
}

static void use_stream_error(void)
{
  run(stream_fails, 1, NULL, 200);
}

static void stream_is_cut(struct rig *rig)
{
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .cut = true}, sse, ROLE, NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .cut = true}, sse, ROLE, CONTENT, NULL);
}

static void use_cut(void)
{
  run(stream_is_cut, 1, NULL, 200);
}

/* A head goes out before an attempt succeeds; the first answer fails late, the second is a stream under another type. */
static void early(struct rig *rig)
{
  rig->early_head = PRY_SECOND;
  rig->slow_window = 2 * PRY_SECOND;
  rig->slow_events = 1;
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 503, .chunk_delay = 2}, json, "{}", NULL);
  rig_plays(rig, first, json, "da", "ta: {}\n\n" STREAM_ERROR, NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .chunk_delay = 1.5}, sse, ROLE CONTENT, CONTENT, CONTENT,
            "data: {", NULL);
}

static void use_early(void)
{
  run(early, 1, pause_first, 200);
}

static void early_fails(struct rig *rig)
{
  rig->early_head = PRY_SECOND;
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 503, .chunk_delay = 2}, json, "{}", NULL);
}

static void use_early_failure(void)
{
  run(early_fails, 1, NULL, 200);
}

static void held(struct rig *rig)
{
  rig_use(rig, "hold", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), hold_one);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .delay = 1}, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .delay = 1}, json, "{}", NULL);
}

static void use_hold(void)
{
  run(held, 2, NULL, 200);
}

static void second_leaves(struct asker *askers)
{
  pry_loop_advance(askers[0].rig->loop, PRY_SECOND / 2);
  for (int i = ASKERS - 1; i >= 0; i--)
    if (askers[i].call)
      pry_call_cancel(askers[i].call);
}

static void use_leaving_hold(void)
{
  run(held, 2, second_leaves, 200);
}

static void use_leaving_stream(void)
{
  run(streamed, 1, second_leaves, 200);
}

static void backing_off(struct rig *rig)
{
  static const char *const later[] = {"Retry-After", "20", NULL};
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 429}, later, "{}", NULL);
}

static void use_leaving_backoff(void)
{
  run(backing_off, 1, second_leaves, 200);
}

static void held_until(struct rig *rig)
{
  rig_use(rig, "until", PRY_HANDLER_BIT(PRY_ON_REQUEST), hold_until);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_hold_until(void)
{
  run(held_until, 1, NULL, 200);
}

static void responded(struct rig *rig)
{
  rig_use(rig, "respond", PRY_HANDLER_BIT(PRY_ON_REQUEST), respond);
}

static void use_respond(void)
{
  run(responded, 1, NULL, 203);
}

static enum pry_ask_status inject_once(struct rig *rig, struct pry_ask *asked)
{
  if (rig->counter++ == 0) {
    asked->verdict.kind = PRY_VERDICT_INJECT;
    asked->verdict.status = 503;
    asked->verdict.delay = 0.25;
  }
  return PRY_ASK_DONE;
}

static void injected(struct rig *rig)
{
  rig_use(rig, "chaos", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), inject_once);
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_inject(void)
{
  run(injected, 1, NULL, 200);
}

static void hangs(struct rig *rig)
{
  rig->deadline = 20 * PRY_SECOND;
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_always);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .hang_connect = true}, json, NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .hang = true}, json, NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .hang = true}, sse, ROLE, NULL);
}

static void use_timeouts(void)
{
  run(hangs, 1, NULL, 200);
}

static void waits_in_handler(struct rig *rig)
{
  rig_use(rig, "wait", PRY_HANDLER_BIT(PRY_ON_REQUEST), wait_once);
  rig_plays(rig, first, json, "{}", NULL);
}

static void end_wait(struct asker *askers)
{
  struct rig *rig = askers[0].rig;
  pry_loop_advance(rig->loop, PRY_MILLISECOND);
  if (rig->pending)
    rig_pending_done(rig);
}

static void use_waiting_handler(void)
{
  run(waits_in_handler, 1, end_wait, 200);
}

static void large(struct rig *rig)
{
  static char piece[300 * 1024];
  memset(piece, 'x', sizeof piece - 1);
  rig_plays(rig, first, NULL, piece, piece, NULL);
}

static void use_large(void)
{
  run(large, 1, pause_first, 200);
}

/* ---- bodies that stream through ------------------------------------------------------------------------------------- */

enum { UPLOAD_PIECE = 16 * 1024, UPLOAD_SIZE = 200 * 1024, UPLOAD_START = 1000 };

struct uploader {
  struct asker asker; /* first: the sink's user */
  size_t sent;
  bool waits, ended;
};

static char long_body[UPLOAD_SIZE];

static void upload_on(struct uploader *uploader)
{
  while (uploader->asker.call && !uploader->waits && uploader->sent < sizeof long_body) {
    size_t left = sizeof long_body - uploader->sent;
    struct pry_slice piece = {long_body + uploader->sent, left < UPLOAD_PIECE ? left : UPLOAD_PIECE};
    uploader->sent += piece.size;
    uploader->waits = !pry_call_upload(uploader->asker.call, piece);
  }
  if (uploader->asker.call && !uploader->waits && uploader->sent == sizeof long_body && !uploader->ended) {
    uploader->ended = true;
    pry_call_upload_end(uploader->asker.call);
  }
}

static void want_body(void *user)
{
  struct uploader *uploader = user;
  FAIL_CHECK(uploader->waits && uploader->asker.dones == 0);
  uploader->waits = false;
  upload_on(uploader);
}

static const struct pry_sink_ops upload_sink = {on_head, on_data, on_done, want_body};

static void upload(struct rig *rig, struct uploader *uploader, const char *path)
{
  struct pry_headers headers;
  struct pry_buffer start;
  *uploader = (struct uploader){.asker.rig = rig, .sent = UPLOAD_START};
  fail_quiet();
  pry_headers_init(&headers);
  pry_buffer_init(&start, 0);
  memset(long_body, 'x', sizeof long_body);
  memcpy(long_body, "{\"model\":\"m\",\"pad\":\"", 20);
  memcpy(long_body + sizeof long_body - 2, "\"}", 2);
  FAIL_CHECK(pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json")) &&
             pry_buffer_append(&start, long_body, UPLOAD_START));
  fail_loud();
  struct pry_call_request request = {.method = PRY_SLICE("POST"),
                                     .path = pry_slice_of(path),
                                     .headers = &headers,
                                     .body = &start,
                                     .more = true,
                                     .body_size = (int64_t)sizeof long_body};
  uploader->asker.call = pry_call_start(rig->engine->control, &request, &upload_sink, uploader);
  FAIL_CHECK(uploader->asker.call || fail_struck());
  pry_buffer_fini(&start);
  pry_headers_fini(&headers);
}

/* A body goes through while things fail, to its end or until its client leaves; then a good one arrives whole. */
static void run_upload(void (*use)(struct rig *rig), bool leaves)
{
  struct uploader uploader, good;
  fail_quiet();
  struct rig *rig = rig_new();
  prepare(rig, use);
  fail_loud();
  upload(rig, &uploader, "/v1/first");
  upload_on(&uploader);
  if (leaves) {
    pry_loop_advance(rig->loop, PRY_MILLISECOND);
    if (uploader.asker.call)
      pry_call_cancel(uploader.asker.call);
  }
  finish(&uploader.asker);
  nothing_held(rig);
  fail_over();
  rig->counter = 1000;
  rig_plays(rig, (struct pry_http_step){.url_part = "good"}, json, "{}", NULL);
  upload(rig, &good, "/v1/good");
  upload_on(&good);
  finish(&good.asker);
  FAIL_CHECK(good.asker.dones == 1 && good.asker.status == 200 && good.sent == sizeof long_body);
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, pry_http_script_seen_count(rig->script) - 1);
  FAIL_CHECK(pry_slice_equal(seen->body, (struct pry_slice){long_body, sizeof long_body}));
  nothing_held(rig);
  rig_end(NULL, rig);
}

static void use_upload(void)
{
  run_upload(well, false);
}

static void not_reached(struct rig *rig)
{
  struct pry_http_step refused = {.url_part = "first", .curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true};
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_plays(rig, refused, NULL, NULL);
  rig_plays(rig, refused, NULL, NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .take_delay = 1}, json, "{}", NULL);
}

static void use_upload_retried(void)
{
  run_upload(not_reached, false);
}

static void taken_slowly(struct rig *rig)
{
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .take_delay = 1}, json, "{}", NULL);
}

static void use_upload_left(void)
{
  run_upload(taken_slowly, true);
}

/* ---- several keys ------------------------------------------------------------------------------------------------ */

static enum pry_ask_status rotate(struct rig *rig, struct pry_ask *ask)
{
  const struct pry_attempt *attempt = &ask->call->ledger[ask->call->ledger_count - 1];
  const struct pry_provider *provider = ask->call->target.provider;
  pry_time now = pry_loop_now(rig->loop);
  pry_keys_retire(rig->engine->keys, provider, attempt->key, attempt->key_version, now + 50 * PRY_SECOND, now);
  ask->verdict.kind = PRY_VERDICT_ROTATE;
  return PRY_ASK_DONE;
}

static void rotated(struct rig *rig)
{
  rig->keys = 3;
  rig_use(rig, "rotate", PRY_HANDLER_BIT(PRY_ON_ERROR), rotate);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 401}, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.url_part = "first", .status = 401}, json, "{}", NULL);
  rig_plays(rig, first, json, "{}", NULL);
}

static void use_rotated(void)
{
  run(rotated, 1, NULL, 200);
}

/* ---- answers that are encoded ----------------------------------------------------------------------------------------- */

static void plays_encoded(struct rig *rig, struct pry_http_step step, const char *type, const char *text)
{
  static unsigned char bytes[4096]; /* until the script has copied it */
  const char *const pairs[] = {"Content-Type", type, "Content-Encoding", "gzip", NULL};
  z_stream encoder = {.next_in = (Bytef *)(uintptr_t)text,
                      .avail_in = (uInt)strlen(text),
                      .next_out = bytes,
                      .avail_out = sizeof bytes};
  struct pry_headers headers;
  FAIL_CHECK(deflateInit2(&encoder, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
             deflate(&encoder, Z_FINISH) == Z_STREAM_END);
  size_t size = encoder.total_out;
  deflateEnd(&encoder);
  struct pry_slice chunks[] = {{(const char *)bytes, size / 2}, {(const char *)bytes + size / 2, size - size / 2}};
  pry_headers_init(&headers);
  rig_headers(&headers, pairs);
  step.headers = &headers;
  step.chunks = chunks;
  step.chunk_count = 2;
  FAIL_CHECK(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

static void encoded_errors(struct rig *rig)
{
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  plays_encoded(rig, (struct pry_http_step){.url_part = "first", .status = 503}, "application/json",
                "{\"error\":{\"message\":\"busy\"}}");
  plays_encoded(rig, first, "application/json", "{\"error\":{\"message\":\"in a good one\"}}");
  plays_encoded(rig, first, "application/json", "{\"good\":1}");
}

static void use_encoded_errors(void)
{
  run(encoded_errors, 1, NULL, 200);
}

static void encoded_stream(struct rig *rig)
{
  plays_encoded(rig, first, "text/event-stream", ROLE CONTENT CONTENT FINISH DONE);
}

static void use_encoded_stream(void)
{
  run(encoded_stream, 1, pause_first, 200);
}

/* ---- attempts that the host makes -------------------------------------------------------------------------------- */

/* Two failures each, one with an answer, then a success; the second asker leaves in its last attempt. */
static void end_attempts(struct asker *askers)
{
  struct pry_headers headers;
  fail_quiet();
  pry_headers_init(&headers);
  FAIL_CHECK(pry_headers_add(&headers, PRY_SLICE("Retry-After"), PRY_SLICE("1")));
  fail_loud();
  const struct pry_host_end ends[] = {
      {.category = PRY_SERVER, .code = "E", .message = "failed"},
      {.status = 503, .headers = &headers, .body = PRY_SLICE("{\"error\":{}}")},
      {.ok = true, .headers = &headers, .body = PRY_SLICE("{}")},
  };
  for (unsigned turn = 0; turn < 200 && (askers[0].call || askers[1].call); turn++) {
    for (unsigned i = 0; i < 2; i++) {
      unsigned number = askers[i].attempt;
      askers[i].attempt = 0;
      if (!number)
        continue;
      if (i && number == 3) {
        askers[i].attempt = number;
        pry_call_cancel(askers[i].call);
      } else {
        FAIL_CHECK(pry_call_attempt_ended(askers[i].call, number, &ends[number - 1]));
      }
    }
    pry_loop_turn(askers[0].rig->loop, 60 * PRY_SECOND);
  }
  pry_headers_fini(&headers);
  hosted = false;
}

static void retry_hosted(struct rig *rig)
{
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_OUTCOME), retry_twice);
}

static void use_hosted(void)
{
  hosted = true;
  run(retry_hosted, 2, end_attempts, 200);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"call", use_well, FAIL_MEMORY, 0},
      {"call retried", use_retried, FAIL_MEMORY, 0},
      {"call fallen back", use_fallback, FAIL_MEMORY, 0},
      {"two calls renewed", use_renewed, FAIL_MEMORY, 0},
      {"stream, paused", use_stream, FAIL_MEMORY, 0},
      {"stream with an error", use_stream_error, FAIL_MEMORY, 0},
      {"streams cut", use_cut, FAIL_MEMORY, 0},
      {"a head before the answer", use_early, FAIL_MEMORY, 0},
      {"a failure behind that head", use_early_failure, FAIL_MEMORY, 0},
      {"two calls held", use_hold, FAIL_MEMORY, 0},
      {"leaving a hold", use_leaving_hold, FAIL_MEMORY, 0},
      {"leaving a stream", use_leaving_stream, FAIL_MEMORY, 0},
      {"leaving a backoff", use_leaving_backoff, FAIL_MEMORY, 0},
      {"hold until", use_hold_until, FAIL_MEMORY, 0},
      {"respond", use_respond, FAIL_MEMORY, 0},
      {"inject", use_inject, FAIL_MEMORY, 0},
      {"timeouts", use_timeouts, FAIL_MEMORY, 0},
      {"a handler that waits", use_waiting_handler, FAIL_MEMORY, 0},
      {"a large answer", use_large, FAIL_MEMORY, 0},
      {"a body streamed", use_upload, FAIL_MEMORY, 0},
      {"a body streamed, retried", use_upload_retried, FAIL_MEMORY, 0},
      {"leaving an upload", use_upload_left, FAIL_MEMORY, 0},
      {"other keys", use_rotated, FAIL_MEMORY, 0},
      {"errors encoded", use_encoded_errors, FAIL_MEMORY, 0},
      {"a stream encoded", use_encoded_stream, FAIL_MEMORY, 0},
      {"a host's attempts", use_hosted, FAIL_MEMORY, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
