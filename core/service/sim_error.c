#include "sim_internal.h"

#include <stdio.h>

/* The first line that fits: by the fault's name, else by status; the last fits always. */
static const struct row {
  int status;
  const char *name;
  const char *type, *code; /* OpenAI and its relatives; code NULL: null */
  const char *anthropic;   /* type */
  const char *azure;       /* code; NULL: OpenAI's object */
  const char *google;      /* status */
  const char *message;
} ROWS[] = {
    {400, "context", "invalid_request_error", "context_length_exceeded", "invalid_request_error", NULL,
     "INVALID_ARGUMENT",
     "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."},
    {400, "content", "invalid_request_error", "content_policy_violation", "invalid_request_error", "content_filter",
     "INVALID_ARGUMENT", "Your request was rejected by the content policy."},
    {400, "unknown", "invalid_request_error", "invalid_error_code", "invalid_request_error", NULL, "INVALID_ARGUMENT",
     "parry sim does not know this errorCode."},
    {429, "quota", "insufficient_quota", "insufficient_quota", "rate_limit_error", NULL, "RESOURCE_EXHAUSTED",
     "You exceeded your current quota, please check your plan and billing details."},
    {402, "balance", "insufficient_balance", "insufficient_balance", "billing_error", NULL, "RESOURCE_EXHAUSTED",
     "Insufficient balance."},
    {403, "frozen", "api_key_frozen", "api_key_frozen", "permission_error", "PermissionDenied", "PERMISSION_DENIED",
     "This API key is frozen."},
    {400, NULL, "invalid_request_error", "invalid_value", "invalid_request_error", "BadRequest", "INVALID_ARGUMENT",
     "The request is invalid."},
    {401, NULL, "invalid_request_error", "invalid_api_key", "authentication_error", "401", "UNAUTHENTICATED",
     "Incorrect API key provided, or it has expired."},
    {402, NULL, "insufficient_balance", "insufficient_balance", "billing_error", NULL, "RESOURCE_EXHAUSTED",
     "Insufficient balance."},
    {403, NULL, "model_access_denied", "model_access_denied", "permission_error", "403", "PERMISSION_DENIED",
     "This key may not use the model."},
    {404, NULL, "not_found_error", "model_not_found", "not_found_error", "DeploymentNotFound", "NOT_FOUND",
     "The model or path does not exist."},
    {408, NULL, "api_error", "timeout", "timeout_error", "Timeout", "DEADLINE_EXCEEDED", "The operation was timeout."},
    {409, NULL, "invalid_request_error", "conflict", "invalid_request_error", "409", "ABORTED",
     "Another request is in the way."},
    {413, NULL, "invalid_request_error", "request_too_large", "request_too_large", "413", "INVALID_ARGUMENT",
     "The request is too large."},
    {429, NULL, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "429", "RESOURCE_EXHAUSTED",
     "Rate limit reached for requests. Please try again later."},
    {503, NULL, "api_error", "overloaded", "api_error", "ServiceUnavailable", "UNAVAILABLE",
     "The service is temporarily unavailable."},
    {504, NULL, "api_error", "timeout", "timeout_error", "Timeout", "DEADLINE_EXCEEDED",
     "The upstream did not answer in time."},
    {529, NULL, "api_error", "overloaded", "overloaded_error", "529", "UNAVAILABLE", "Overloaded"},
    {0, NULL, "api_error", "internal_error", "api_error", "InternalServerError", "INTERNAL",
     "The server had an error while processing your request."},
};

static const struct kimi_row {
  int code, status;
  const char *message;
} KIMI_ROWS[] = {
    {-1000, 500, "system error"},
    {-1001, 400, "bad parameters"},
    {-1002, 404, "no such route"},
    {-2000, 400, "illegal parameters"},
    {-2001, 502, "request failed: the backend timed out or answered wrongly"},
    {-2002, 401, "token expired"},
    {-2003, 400, "illegal remote file URL"},
    {-2004, 413, "remote file too large"},
    {-2005, 429, "a stream of this conversation is still being written"},
    {-2006, 402, "free quota used up"},
    {0, 500, "unknown error"},
};

static const struct row *row_of(const struct pry_sim_fault *fault)
{
  const struct row *row = ROWS;
  while (row->status && !(row->name ? strcmp(row->name, fault->name) == 0 : row->status == fault->code))
    row++;
  return row;
}

static const struct kimi_row *kimi_row_of(int code)
{
  const struct kimi_row *row = KIMI_ROWS;
  while (row->code && row->code != code)
    row++;
  return row;
}

/* KIMI's code for a failure that other dialects report with a status; 0: it reports that status itself. */
static int kimi_code_of(const struct pry_sim_call *call, const struct pry_sim_fault *fault)
{
  if (fault->kind == PRY_SIM_KIMI)
    return fault->code;
  if (call->dialect != PRY_SIM_KIMI_DIALECT)
    return 0;
  if (fault->kind != PRY_SIM_STATUS)
    return -1000;
  if (strcmp(fault->name, "expired") == 0)
    return -2002;
  if (strcmp(fault->name, "refused") == 0)
    return -1001;
  return strcmp(fault->name, "no-route") == 0 ? -1002 : 0;
}

static const char *message_of(const struct pry_sim_call *call, const struct pry_sim_fault *fault, const char *usual)
{
  return strcmp(fault->name, "refused") == 0 && call->refusal ? call->refusal : usual;
}

static void say_kimi(struct pry_sim_text *text, const struct pry_sim_call *call, const struct pry_sim_fault *fault,
                     int code)
{
  pry_sim_say(text, "{\"errcode\":%d,\"errmsg\":\"%s\",\"data\":null}", code,
              message_of(call, fault, kimi_row_of(code)->message));
}

static void say_anthropic(struct pry_sim_text *text, const struct pry_sim_call *call, const struct pry_sim_fault *fault)
{
  struct pry_sim_fault overloaded = *fault;
  if (fault->kind == PRY_SIM_ERROR_200 || fault->kind == PRY_SIM_ERROR_AFTER)
    overloaded.code = 529; /* what Anthropic's streams break with */
  const struct row *row = row_of(&overloaded);
  pry_sim_say(text,
              "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"},\"request_id\":\"req_sim_%lu\"}",
              row->anthropic, message_of(call, fault, row->message), call->id);
}

static void say_openai(struct pry_sim_text *text, const struct pry_sim_call *call, const struct pry_sim_fault *fault)
{
  const struct row *row = row_of(fault);
  pry_sim_say(text, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}",
              message_of(call, fault, row->message), row->type, row->code);
}

static void say_azure(struct pry_sim_text *text, const struct pry_sim_call *call, const struct pry_sim_fault *fault)
{
  const struct row *row = row_of(fault);
  if (!row->azure) {
    say_openai(text, call, fault);
    return;
  }
  pry_sim_say(text, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"", row->azure,
              message_of(call, fault, row->message));
  if (strcmp(row->azure, "content_filter") == 0)
    pry_sim_say(text, ",\"param\":\"prompt\",\"status\":400,\"innererror\":{\"code\":\"ResponsibleAIPolicyViolation\","
                      "\"content_filter_result\":{\"hate\":{\"filtered\":true,\"severity\":\"high\"}}}");
  pry_sim_say(text, "}}");
}

/* Google says in the body which quota it was, and when to come back. */
static void say_google_details(struct pry_sim_text *text, const struct pry_sim_fault *fault)
{
  const char *window = strcmp(fault->name, "quota") == 0 ? "Day" : "Minute";
  pry_sim_say(text,
              ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.QuotaFailure\",\"violations\":[{\"quotaId\":"
              "\"GenerateRequestsPer%sPerProjectPerModel\"}]}",
              window);
  if (fault->retry_after[0] && strspn(fault->retry_after, "0123456789.") == strlen(fault->retry_after))
    pry_sim_say(text, ",{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"%ss\"}",
                fault->retry_after);
  pry_sim_say(text, "]");
}

static void say_google(struct pry_sim_text *text, const struct pry_sim_call *call, const struct pry_sim_fault *fault,
                       int status)
{
  const struct row *row = row_of(fault);
  if (fault->kind == PRY_SIM_STATUS && strcmp(fault->name, "content") == 0) {
    pry_sim_say(text, "{\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"}}");
    return;
  }
  pry_sim_say(text, "%s{\"error\":{\"code\":%d,\"message\":\"%s\",\"status\":\"%s\"", call->in_array ? "[" : "", status,
              message_of(call, fault, row->message), row->google);
  if (status == 429)
    say_google_details(text, fault);
  pry_sim_say(text, "}}%s", call->in_array ? "]" : "");
}

bool pry_sim_error_json(const struct pry_sim_call *call, const struct pry_sim_fault *fault, struct pry_buffer *out,
                        int *status)
{
  struct pry_sim_text text = {out, true};
  int kimi = kimi_code_of(call, fault);
  *status = fault->code;
  if (kimi) {
    *status = call->kimi_real_status ? kimi_row_of(kimi)->status : 200;
    say_kimi(&text, call, fault, kimi);
  } else if (call->dialect == PRY_SIM_ANTHROPIC) {
    say_anthropic(&text, call, fault);
  } else if (call->dialect == PRY_SIM_AZURE) {
    say_azure(&text, call, fault);
  } else if (call->dialect == PRY_SIM_GEMINI) {
    say_google(&text, call, fault, fault->kind == PRY_SIM_STATUS ? fault->code : 500);
    if (strcmp(fault->name, "content") == 0)
      *status = 200; /* a blocked prompt is an answer without candidates */
  } else {
    say_openai(&text, call, fault);
  }
  return text.ok;
}

bool pry_sim_error_event(const struct pry_sim_call *call, const struct pry_sim_fault *fault, struct pry_buffer *out)
{
  struct pry_sim_text text = {out, true};
  int ignored_status;
  if ((call->dialect == PRY_SIM_OPENAI || call->dialect == PRY_SIM_AZURE) && call->shape == PRY_SIM_RESPONSES) {
    const struct row *row = row_of(fault);
    pry_sim_say(&text,
                "event: error\ndata: {\"type\":\"error\",\"code\":\"%s\",\"message\":\"%s\",\"param\":null,"
                "\"sequence_number\":%zu}\n\n",
                row->code, row->message, call->event_next);
    return text.ok;
  }
  pry_sim_say(&text, call->dialect == PRY_SIM_ANTHROPIC ? "event: error\ndata: " : "data: ");
  text.ok = text.ok && pry_sim_error_json(call, fault, out, &ignored_status);
  pry_sim_say(&text, "\n\n");
  return text.ok;
}
