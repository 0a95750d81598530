/* A whole host: one call to a provider that answers 503 once. The policies make of it a call that took two attempts.
 * Usage: host BASE_URL, e.g. of `parry sim`: http://127.0.0.1:8421/v1 */
#include <parry.h>
#include <stdio.h>
#include <string.h>

static void on_done(void *user, const struct parry_outcome *outcome)
{
  printf("ok=%d status=%d attempts=%u target=%s\n", outcome->ok, outcome->status, outcome->attempts, outcome->target);
  *(int *)user = outcome->ok && outcome->attempts == 2;
}

int main(int argc, char **argv)
{
  char init[1024];
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct parry_header headers[] = {{"Content-Type", "application/json"}, {"x-sim-fault", "code=503;times=1"}};
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  parry *engine;
  int recovered = 0;
  snprintf(init, sizeof init,
           "provider \"sim\" { base_url = \"%s\", dialect = \"openai\" }\n"
           "route \"/v1/*\" { to = \"sim\", chain = { use \"retry\" { base = 0.1 } } }\n",
           argc > 1 ? argv[1] : "http://127.0.0.1:8421/v1");
  options.init_lua = init; /* a service would say: options.policy_dir = "/etc/NAME/policies" */
  int error = parry_new(&engine, &options);
  request.path = "/v1/chat/completions";
  request.headers = headers, request.header_count = 2;
  request.body = "{\"model\":\"sim-ok\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
  request.body_size = strlen(request.body);
  ops.on_done = on_done;
  if (error == PARRY_OK)
    error = parry_call(engine, &request, &ops, &recovered, NULL);
  for (int open = 1; error == PARRY_OK && open > 0;)
    open = parry_run(engine, -1);
  if (error != PARRY_OK) {
    parry_findings(engine, init, sizeof init);
    fprintf(stderr, "%s\n%s", parry_strerror(error), error == PARRY_EPOLICY ? init : "");
  }
  parry_free(engine);
  return !recovered;
}
