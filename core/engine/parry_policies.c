/* Loading, reloading, and what became of it. */
#include "parry_internal.h"

#include "plain_locale.h"
#include "reloader.h"
#include "shipped.h"

#include <stdio.h>
#include <stdlib.h>

enum { NEWS_MAX = 16 };

/* A thread of the host's that waits for a reload. */
struct waiting_reload {
  struct pry_message ask; /* to the control worker, which has the reloader */
  struct pry_reload_waiter waiter;
  struct pry_host_policies *policies;
  bool done; /* under the lock */
  int error;
};

/* For options.reloaded. */
struct news {
  struct pry_list link;
  struct parry_reload_info info;
  char generation[PRY_GENERATION_ID_MAX];
  char *findings; /* may be NULL */
};

struct pry_host_policies {
  struct pry_host *host;
  char shipped_path[PRY_SHIPPED_PATH_MAX];
  const char *shipped;
  struct pry_reloader *reloader;
  struct pry_message ask;  /* a reload that nobody waits for */
  struct pry_message tell; /* there is news */
  pthread_mutex_t lock;    /* of everything below */
  pthread_cond_t changed;  /* some waiting_reload is done */
  struct pry_buffer findings;
  const char *findings_text; /* its bytes, or a constant when there was no memory for them */
  struct parry_status status;
  struct pry_list news;
  unsigned news_count;
};

/* ---- what became of it ----------------------------------------------------------------------------------------- */

static void keep_findings(struct pry_host_policies *policies, const struct pry_report *report, bool loaded)
{
  pthread_mutex_lock(&policies->lock);
  pry_buffer_clear(&policies->findings);
  pry_report_text(report, &policies->findings);
  policies->findings_text = pry_buffer_text(&policies->findings);
  if (!policies->findings_text || (!loaded && !*policies->findings_text))
    policies->findings_text = loaded ? "" : "memory is short\n";
  pthread_mutex_unlock(&policies->lock);
}

/* On the control worker, or before it has a thread. */
static void keep_status(struct pry_host_policies *policies)
{
  const struct pry_engine *engine = policies->host->engine;
  const struct pry_generation *serving = pry_engine_generation(engine);
  struct parry_status *status = &policies->status;
  pthread_mutex_lock(&policies->lock);
  snprintf(status->generation, sizeof status->generation, "%s", serving ? serving->id : "");
  status->loaded_at = serving ? serving->loaded_at : 0;
  status->policies = serving ? serving->policies : 0;
  status->policy_tests = serving ? serving->tests : 0;
  status->reloads = engine->reloads ? engine->reloads - 1 : 0; /* the first load is none */
  status->reloads_refused = engine->reloads_refused;
  status->rollbacks = engine->rollbacks;
  pthread_mutex_unlock(&policies->lock);
}

/* Locked. NULL: there is none. */
static struct news *take_oldest(struct pry_host_policies *policies)
{
  if (pry_list_empty(&policies->news))
    return NULL;
  struct news *news = PRY_CONTAINER_OF(policies->news.next, struct news, link);
  pry_list_remove(&news->link);
  policies->news_count--;
  return news;
}

static struct news *take_news(struct pry_host_policies *policies)
{
  pthread_mutex_lock(&policies->lock);
  struct news *news = take_oldest(policies);
  pthread_mutex_unlock(&policies->lock);
  return news;
}

/* NULL is fine. */
static void free_news(struct news *news)
{
  if (news)
    free(news->findings);
  free(news);
}

static unsigned count_news(struct pry_host_policies *policies)
{
  pthread_mutex_lock(&policies->lock);
  unsigned count = policies->news_count;
  pthread_mutex_unlock(&policies->lock);
  return count;
}

/* On the host's thread. */
static void deliver_news(struct pry_message *message)
{
  struct pry_host_policies *policies = PRY_CONTAINER_OF(message, struct pry_host_policies, tell);
  const struct parry_options *options = &policies->host->options;
  for (unsigned count = count_news(policies); count--;) { /* what comes meanwhile has been posted again */
    struct news *news = take_news(policies);
    if (!news)
      return;
    news->info.findings = news->findings ? news->findings : "";
    if (options->reloaded)
      options->reloaded(options->user, &news->info);
    free_news(news);
  }
}

static void add_news(struct pry_host_policies *policies, int error, const char *findings, bool rolled_back)
{
  struct pry_host *host = policies->host;
  struct news *news = host->options.reloaded ? calloc(1, sizeof *news) : NULL;
  if (!news)
    return;
  const struct pry_generation *serving = pry_engine_generation(host->engine);
  snprintf(news->generation, sizeof news->generation, "%s", serving ? serving->id : "");
  news->findings = strdup(findings);
  news->info = (struct parry_reload_info){
      .size = sizeof news->info, .error = error, .generation = news->generation, .rolled_back = rolled_back};
  pthread_mutex_lock(&policies->lock);
  struct news *lost = policies->news_count == NEWS_MAX ? take_oldest(policies) : NULL; /* nobody listens */
  pry_list_push(&policies->news, &news->link);
  policies->news_count++;
  pthread_mutex_unlock(&policies->lock);
  free_news(lost);
  pry_mailbox_post(host->outbox, &policies->tell);
}

/* ---- on the control worker --------------------------------------------------------------------------------------- */

static int error_of(const struct pry_reload_outcome *outcome)
{
  return outcome->result == PRY_RELOAD_REFUSED ? PARRY_EPOLICY : PARRY_OK;
}

static void look_ended(void *user, const struct pry_reload_outcome *outcome)
{
  struct pry_host_policies *policies = user;
  int error = error_of(outcome);
  keep_findings(policies, outcome->report, error == PARRY_OK);
  keep_status(policies);
  if (outcome->result != PRY_RELOAD_UNCHANGED)
    add_news(policies, error, policies->findings_text, false); /* written by this thread only */
}

static void reload_is_done(void *user, const struct pry_reload_outcome *outcome)
{
  struct waiting_reload *reload = user;
  struct pry_host_policies *policies = reload->policies;
  if (outcome->result != PRY_RELOAD_UNCHANGED || outcome->report->count)
    keep_findings(policies, outcome->report, error_of(outcome) == PARRY_OK);
  pthread_mutex_lock(&policies->lock);
  reload->error = error_of(outcome);
  reload->done = true;
  pthread_cond_broadcast(&policies->changed);
  pthread_mutex_unlock(&policies->lock);
}

static void start_waiting(struct pry_message *message)
{
  struct waiting_reload *reload = PRY_CONTAINER_OF(message, struct waiting_reload, ask);
  pry_reloader_request(reload->policies->reloader, &reload->waiter, reload_is_done, reload);
}

static void start_asked(struct pry_message *message)
{
  const struct pry_host_policies *policies = PRY_CONTAINER_OF(message, struct pry_host_policies, ask);
  pry_reloader_request(policies->reloader, NULL, NULL, NULL);
}

void pry_host_rolled_back(void *user, const struct pry_rollback *rollback)
{
  struct pry_host_policies *policies = ((struct pry_host *)user)->policies;
  struct pry_reload_held held = {.by_hand = !rollback->automatic};
  char findings[512];
  snprintf(held.id, sizeof held.id, "%s", rollback->from);
  snprintf(held.why, sizeof held.why,
           "these policies were rolled back: %lu faults in %lu runs, %.200s; change a file to try again",
           rollback->faults, rollback->runs, rollback->fault);
  pry_reloader_let_in(policies->reloader, rollback->to);
  pry_reloader_hold(policies->reloader, &held);
  keep_status(policies);
  snprintf(findings, sizeof findings, "quarantine: %.400s\n", held.why);
  add_news(policies, PARRY_OK, findings, true);
}

/* ---- making --------------------------------------------------------------------------------------------------------- */

static bool make_policies(struct pry_host *host)
{
  struct pry_host_policies *policies = calloc(1, sizeof *policies);
  if (!policies)
    return false;
  host->policies = policies;
  policies->host = host;
  policies->shipped = host->options.share_dir ? host->options.share_dir : pry_shipped_folder(policies->shipped_path);
  policies->ask.deliver = start_asked;
  policies->tell.deliver = deliver_news;
  policies->status = (struct parry_status)PARRY_STATUS_INIT;
  snprintf(policies->status.version, sizeof policies->status.version, "%s", PARRY_VERSION);
  pthread_mutex_init(&policies->lock, NULL); /* neither can fail without attributes on Linux */
  pthread_cond_init(&policies->changed, NULL);
  pry_list_init(&policies->news);
  pry_buffer_init(&policies->findings, 256 * 1024);
  return true;
}

static bool make_reloader(struct pry_host_policies *policies)
{
  const struct parry_options *options = &policies->host->options;
  struct pry_reloader_options reloader = {.engine = policies->host->engine,
                                          .folder = options->policy_dir,
                                          .init = options->init_lua,
                                          .shipped = policies->shipped,
                                          .watch = options->watch,
                                          .ended = look_ended,
                                          .user = policies};
  policies->reloader = pry_reloader_new(&reloader);
  return policies->reloader;
}

int pry_host_load(struct pry_host *host)
{
  struct pry_report report;
  if (!make_policies(host))
    return PARRY_ENOMEM;
  struct pry_host_policies *policies = host->policies;
  pry_report_init(&report);
  struct pry_policy_set *set =
      pry_reload_read(host->options.policy_dir, host->options.init_lua, policies->shipped, &report);
  bool loaded = set && pry_engine_load(host->engine, set, true, &report);
  keep_findings(policies, &report, loaded);
  keep_status(policies);
  pry_report_fini(&report);
  if (!loaded)
    return PARRY_EPOLICY;
  return make_reloader(policies) ? PARRY_OK : PARRY_ESYSTEM;
}

void pry_host_policies_end(struct pry_host *host)
{
  if (!host->policies)
    return;
  pry_reloader_free(host->policies->reloader);
  host->policies->reloader = NULL;
}

void pry_host_policies_fini(struct pry_host *host)
{
  struct pry_host_policies *policies = host->policies;
  if (!policies)
    return;
  for (struct news *news; (news = take_news(policies));)
    free_news(news);
  pry_buffer_fini(&policies->findings);
  pthread_cond_destroy(&policies->changed);
  pthread_mutex_destroy(&policies->lock);
  free(policies);
  host->policies = NULL;
}

/* ---- parry.h ---------------------------------------------------------------------------------------------------------- */

static bool is_done(struct waiting_reload *reload)
{
  pthread_mutex_lock(&reload->policies->lock);
  bool done = reload->done;
  pthread_mutex_unlock(&reload->policies->lock);
  return done;
}

/* Nobody else turns the loop: this thread does, and what comes up for the host waits in the outbox. */
static void turn_until_done(struct waiting_reload *reload)
{
  locale_t before = pry_plain_locale_enter();
  while (!is_done(reload))
    pry_loop_turn(reload->policies->host->loop, PRY_TIME_NEVER);
  pry_plain_locale_leave(before);
}

static void wait_until_done(struct waiting_reload *reload)
{
  struct pry_host_policies *policies = reload->policies;
  pthread_mutex_lock(&policies->lock);
  while (!reload->done)
    pthread_cond_wait(&policies->changed, &policies->lock);
  pthread_mutex_unlock(&policies->lock);
}

static int reload_and_wait(struct pry_host *host)
{
  struct waiting_reload reload = {.policies = host->policies, .ask.deliver = start_waiting};
  bool threads = host->options.threads;
  if (!threads && atomic_exchange(&host->delivering, true))
    return PARRY_EREENTRANT;
  pry_mailbox_post(host->engine->control->mailbox, &reload.ask);
  if (threads) {
    wait_until_done(&reload);
  } else {
    turn_until_done(&reload);
    atomic_store(&host->delivering, false);
  }
  return reload.error;
}

int parry_reload(parry *handle, int wait)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (!host->policies || !host->policies->reloader || atomic_load(&host->freeing))
    return atomic_load(&host->freeing) ? PARRY_EREENTRANT : PARRY_EPOLICY;
  if (wait)
    return reload_and_wait(host);
  pry_mailbox_post(host->engine->control->mailbox, &host->policies->ask);
  return PARRY_OK;
}

size_t parry_findings(parry *handle, char *buffer, size_t size)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (buffer && size)
    buffer[0] = '\0';
  if (!host || !host->policies)
    return 0;
  struct pry_host_policies *policies = host->policies;
  pthread_mutex_lock(&policies->lock);
  const char *text = policies->findings_text ? policies->findings_text : "";
  size_t length = strlen(text);
  if (buffer && size)
    snprintf(buffer, size, "%s", text);
  pthread_mutex_unlock(&policies->lock);
  return length;
}

int parry_status(parry *handle, struct parry_status *status)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (!status || !host->policies)
    return status ? PARRY_EPOLICY : PARRY_EINVAL;
  struct pry_host_policies *policies = host->policies;
  pthread_mutex_lock(&policies->lock);
  struct parry_status told = policies->status;
  pthread_mutex_unlock(&policies->lock);
  told.policy_faults = atomic_load(&host->engine->faults);
  told.log_lines_lost = pry_host_notices_lost(host);
  told.open = atomic_load(&host->open);
  told.buffered = pry_host_calls_buffered(host);
  return pry_host_give(status, &told, sizeof told) ? PARRY_OK : PARRY_EINVAL;
}
