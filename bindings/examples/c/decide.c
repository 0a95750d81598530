/* A host that keeps everything to itself and only asks: a job that talks to a database, with parry's retry and circuit
 * breaker in between. No network. Exits 0 when the policies decided as this file expects. */
#include <parry.h>
#include <stdio.h>

static const char init_lua[] = "route \"/jobs\" { to = \"db\", chain = {\n"
                               "  use \"circuit_breaker\" { failures = 3, cooldown = 60 },\n"
                               "  use \"retry\" { max_attempts = 3, base = 0.01 },\n"
                               "} }\n"
                               "provider \"db\" { host = true }\n";

/* The work itself: the database is busy twice. */
static int query(unsigned attempt, const char **code)
{
  *code = attempt < 3 ? "SQLITE_BUSY" : "";
  return attempt >= 3;
}

int main(void)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  parry *engine;
  unsigned waits = 0;
  options.init_lua = init_lua;
  int error = parry_new(&engine, &options);
  if (error == PARRY_EPOLICY) {
    char text[4096];
    parry_findings(engine, text, sizeof text);
    fputs(text, stderr);
  }
  event.route = "/jobs", event.target = "db", event.category = "overloaded";
  for (event.attempt = 1; error == PARRY_OK; event.attempt++) {
    event.ok = query(event.attempt, &event.code);
    error = parry_report(engine, &event); /* good or bad: breakers and budgets hear of it */
    if (error != PARRY_OK || event.ok)
      break;
    error = parry_decide(engine, &event, &decision, NULL, NULL);
    if (error != PARRY_OK || decision.action != PARRY_RETRY)
      break;
    printf("attempt %u: %s, again after %.3f s (%s: %s)\n", event.attempt, event.code, decision.after, decision.policy,
           decision.why);
    waits++; /* and here it would sleep for decision.after seconds */
  }
  if (error != PARRY_OK)
    fprintf(stderr, "%s\n", parry_strerror(error));
  printf("done=%d attempts=%u\n", event.ok, event.attempt);
  parry_free(engine);
  return !(error == PARRY_OK && event.ok && waits == 2);
}
