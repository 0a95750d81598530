/* Asks a policy of its own, which uses one that came with parry, about a failure. */
#include <parry.h>

#include <stdio.h>
#include <string.h>

static const char init[] = "provider \"p\" { base_url = \"http://127.0.0.1:9/v1\", dialect = \"openai\" }\n"
                           "route \"/v1/*\" { to = \"p\", chain = { use \"retry\" { max_attempts = 3 } } }\n";

int main(void)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  char findings[512] = "";
  parry *engine = NULL;
  options.init_lua = init;
  event.target = "p/model";
  event.status = 503;
  int error = parry_new(&engine, &options);
  if (error == PARRY_EPOLICY)
    parry_findings(engine, findings, sizeof findings);
  if (error == PARRY_OK)
    error = parry_decide(engine, &event, &decision, NULL, NULL);
  parry_free(engine);
  if (error != PARRY_OK || decision.action != PARRY_RETRY || strcmp(decision.policy, "retry") != 0) {
    fprintf(stderr, "%s, action %d by '%s'\n%s", parry_strerror(error), decision.action, decision.policy, findings);
    return 1;
  }
  printf("parry %s: retry in %.3f s\n", parry_version(), decision.after);
  return 0;
}
