/* A whole host application: one call that recovers from a 503, one decision about a failure of its own. */
#include <parry.h>
#include <stdio.h>
#include <string.h>

static void on_done(void *user, const struct parry_outcome *outcome)
{
  printf("call: ok=%d status=%d attempts=%u target=%s\n", outcome->ok, outcome->status, outcome->attempts,
         outcome->target);
  *(int *)user = outcome->ok && outcome->attempts == 2;
}

int main(int argc, char **argv)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct parry_header type = {"Content-Type", "application/json"};
  struct parry_header fault = {"x-sim-fault", "code=503;times=1"};
  struct parry_header headers[] = {type, fault};
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = {sizeof ops, NULL, NULL, on_done};
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_decision decision;
  parry *engine;
  int recovered = 0;
  options.policy_dir = argc > 1 ? argv[1] : "policies";
  if (parry_new(&engine, &options) != PARRY_OK)
    return fprintf(stderr, "%s", parry_report(engine)), 1;
  request.path = "/v1/chat/completions";
  request.headers = headers, request.header_count = 2;
  request.body = "{\"model\":\"sim-ok\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
  request.body_size = strlen(request.body);
  for (int error = parry_call(engine, &request, &ops, &recovered, NULL); !error && parry_run(engine, 1) > 0;)
    ;
  failure.status = 503, failure.target = "sim/sim-ok";
  int error = parry_decide(engine, &failure, &decision, NULL, NULL);
  printf("decision: action=%d after=%.2f policy=%s why=%s\n", decision.action, decision.after, decision.policy,
         decision.why);
  parry_free(engine);
  return !(recovered && !error && decision.action == PARRY_RETRY);
}
