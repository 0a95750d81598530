#include "reloader.h"

#include "plain_locale.h"
#include "thread.h"
#include "watcher.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
  DISCARDS_MAX = 3,  /* looks thrown away in a row before one is taken as it is */
  DEBOUNCES_MAX = 20 /* a folder that is written all the time is looked at nevertheless */
};

#define DEBOUNCE_DEFAULT (100 * PRY_MILLISECOND)
#define POLL_DEFAULT (10 * PRY_SECOND)
#define ADOPTION_LIMIT (2 * PRY_SECOND)

enum look_result { LOOK_STAGED, LOOK_SAME, LOOK_UNSETTLED, LOOK_REFUSED };

/* One look: filled on the loop, run on its thread, read on the loop again. */
struct look {
  /* in */
  const struct pry_reloader *reloader; /* its folder, watcher and engine; nothing else may be read there */
  char serving[PRY_GENERATION_ID_MAX], refused[PRY_GENERATION_ID_MAX], seen[PRY_GENERATION_ID_MAX];
  struct pry_reload_held held[PRY_RELOAD_HELD_MAX];
  size_t held_count;
  bool serving_has_routes;
  struct pry_generation *base; /* serves, or NULL: what it has compiled and tested is not done again */
  bool asked, told;            /* by a person, by the watcher; neither: by the poll */
  /* out */
  enum look_result result;
  char id[PRY_GENERATION_ID_MAX];
  struct pry_rollout *rollout;
  struct pry_report report;
};

struct pry_reloader {
  struct pry_engine *engine;
  struct pry_loop *loop;
  char *folder; /* NULL: the text `init` */
  const char *init;
  char *shipped;
  pry_time debounce, poll;
  bool (*accept)(void *user, const struct pry_generation *generation, struct pry_report *report);
  void (*request_heard)(void *user);
  void (*ended)(void *user, const struct pry_reload_outcome *outcome);
  void *user;
  bool watches; /* looks by itself */
  struct pry_watcher *watcher;
  struct pry_timer debounce_timer, poll_timer;
  unsigned debounces;
  struct pry_list waiters;
  bool asked, told; /* since the last look began */
  unsigned discards;
  bool complained; /* of the watches, since they were all well */

  pthread_t thread;
  bool running;
  atomic_bool ending; /* the look's tests need not go on */
  bool settling;      /* committed; not every worker has adopted it */
  struct pry_timer settle_timer;
  struct look look;
  int done_fd; /* eventfd: the thread has finished */
  struct pry_watch *done_watch;
  pry_time began;

  struct pry_reload_held held[PRY_RELOAD_HELD_MAX]; /* oldest first */
  size_t held_count;
  char refused[PRY_GENERATION_ID_MAX]; /* "" none; "?" a folder that could not be read; "!" refused before we began */
  char seen[PRY_GENERATION_ID_MAX];    /* by the last poll */
  struct pry_report last_report;
  struct pry_reload_outcome last;
  char last_id[PRY_GENERATION_ID_MAX];
  bool has_last;
};

#define UNREADABLE "?"
#define BEFORE_US "!"

static void copy_id(char to[PRY_GENERATION_ID_MAX], const char *from)
{
  snprintf(to, PRY_GENERATION_ID_MAX, "%s", from);
}

const char *pry_reload_result_name(enum pry_reload_result result)
{
  static const char *const names[] = {"taken over", "unchanged", "refused"};
  return names[result];
}

/* ---- on the look's thread ------------------------------------------------------------------------------ */

struct pry_policy_set *pry_reload_read(const char *folder, const char *init, const char *shipped,
                                       struct pry_report *report)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 64 * 1024);
  struct pry_policy_set *set =
      folder ? pry_policy_set_read(folder, shipped, &text) : pry_policy_set_from_text(init, shipped, &text);
  const char *complaint = set ? NULL : pry_buffer_text(&text);
  if (complaint) {
    size_t size = strcspn(complaint, "\n");
    const char *colon = memmem(complaint, size, ": ", 2);
    char where[sizeof((struct pry_finding *)0)->where];
    size_t where_size = colon ? (size_t)(colon - complaint) : 0;
    snprintf(where, sizeof where, "%.*s", (int)(where_size < sizeof where ? where_size : sizeof where - 1), complaint);
    const char *what = colon ? colon + 2 : complaint;
    pry_report_add(report, PRY_FINDING_ERROR, where, "%.*s", (int)(size - (size_t)(what - complaint)), what);
  } else if (!set) {
    pry_report_add(report, PRY_FINDING_ERROR, folder ? folder : "init.lua", "memory is short");
  }
  pry_buffer_fini(&text);
  return set;
}

static const struct pry_reload_held *find_held(const struct look *look)
{
  for (size_t i = 0; i < look->held_count; i++)
    if (strcmp(look->held[i].id, look->id) == 0)
      return &look->held[i];
  return NULL;
}

static enum look_result judge(const struct look *look)
{
  if (strcmp(look->id, look->serving) == 0)
    return LOOK_SAME;
  const struct pry_reload_held *held = find_held(look);
  if (held && !(held->by_hand && look->asked))
    return look->asked || look->told ? LOOK_REFUSED : LOOK_SAME;
  if (look->asked)
    return LOOK_STAGED;
  if (strcmp(look->id, look->refused) == 0)
    return LOOK_SAME;
  return look->told || strcmp(look->id, look->seen) == 0 ? LOOK_STAGED : LOOK_UNSETTLED;
}

static struct pry_rollout *stage_and_warm(struct look *look, struct pry_policy_set *set)
{
  struct pry_engine *engine = look->reloader->engine;
  if (look->base)
    pry_policy_set_share(set, look->base->set);
  struct pry_generation *generation =
      pry_generation_stage(engine->options.loader, set, &engine->options.limits, true, look->base, &look->report);
  if (!generation)
    return NULL;
  if (look->serving_has_routes && !generation->config->route_count) {
    pry_report_add(
        &look->report, PRY_FINDING_ERROR, "init.lua",
        "the set declares no route, so every call would be answered 404; declare one with route \"/v1/*\" { … }");
    pry_generation_unref(generation);
    return NULL;
  }
  return pry_rollout_new(engine, generation, &look->report);
}

static void read_and_stage(struct look *look)
{
  const struct pry_reloader *reloader = look->reloader;
  if (reloader->watcher)
    pry_watcher_renew(reloader->watcher, reloader->folder);
  struct pry_policy_set *set = pry_reload_read(reloader->folder, reloader->init, reloader->shipped, &look->report);
  copy_id(look->id, set ? set->id : UNREADABLE);
  look->result = judge(look);
  if (!set && look->result == LOOK_STAGED)
    look->result = LOOK_REFUSED;
  if (!set)
    return;
  if (look->result == LOOK_STAGED) {
    look->rollout = stage_and_warm(look, set);
    if (!look->rollout)
      look->result = LOOK_REFUSED;
    return;
  }
  if (look->result == LOOK_REFUSED)
    pry_report_add(&look->report, PRY_FINDING_ERROR, "quarantine", "%s", find_held(look)->why);
  pry_policy_set_free(set);
}

static void run_look(struct look *look)
{
  read_and_stage(look);
  pry_generation_unref(look->base);
  look->base = NULL;
}

static void *look_thread(void *user)
{
  struct look *look = user;
  pry_plain_locale_stay();
  run_look(look);
  uint64_t one = 1;
  while (write(look->reloader->done_fd, &one, sizeof one) < 0 && errno == EINTR)
    ;
  return NULL;
}

/* ---- beginning a look ------------------------------------------------------------------------------------ */

static void finish_look(struct pry_reloader *reloader);

static void prepare_look(struct pry_reloader *reloader)
{
  struct look *look = &reloader->look;
  struct pry_generation *serving = pry_engine_generation(reloader->engine);
  if (serving)
    pry_generation_ref(serving);
  *look = (struct look){.reloader = reloader,
                        .base = serving,
                        .serving_has_routes = serving && serving->config->route_count,
                        .held_count = reloader->held_count,
                        .asked = reloader->asked,
                        .told = reloader->told};
  memcpy(look->held, reloader->held, sizeof look->held);
  copy_id(look->serving, serving ? serving->id : "");
  copy_id(look->refused, reloader->refused);
  copy_id(look->seen, reloader->seen);
  pry_report_init(&look->report);
  look->report.unwanted = &reloader->ending;
  reloader->asked = reloader->told = false;
  reloader->debounces = 0;
  reloader->began = pry_loop_now(reloader->loop);
  for (struct pry_list *link = reloader->waiters.next; link != &reloader->waiters; link = link->next)
    PRY_CONTAINER_OF(link, struct pry_reload_waiter, link)->started = true;
}

static void debounced(void *user)
{
  struct pry_reloader *reloader = user;
  if (reloader->running || reloader->settling)
    return; /* its end sees asked and told */
  prepare_look(reloader);
  reloader->running = pry_thread_start(&reloader->thread, look_thread, &reloader->look);
  if (reloader->running)
    return;
  run_look(&reloader->look); /* slower for the calls, but the edit is not lost */
  finish_look(reloader);
}

static void look_soon(struct pry_reloader *reloader, pry_time delay)
{
  pry_timer_start(reloader->loop, &reloader->debounce_timer, delay, debounced, reloader);
}

static void folder_changed(void *user)
{
  struct pry_reloader *reloader = user;
  reloader->told = true;
  if (!reloader->running && !reloader->settling && !reloader->asked && reloader->debounces++ < DEBOUNCES_MAX)
    look_soon(reloader, reloader->debounce);
}

static void poll_due(void *user)
{
  struct pry_reloader *reloader = user;
  pry_timer_start(reloader->loop, &reloader->poll_timer, reloader->poll, poll_due, reloader);
  if (!reloader->running && !reloader->settling && !pry_timer_running(&reloader->debounce_timer))
    look_soon(reloader, 0);
}

/* ---- ending a look ---------------------------------------------------------------------------------------- */

static void log_outcome(struct pry_reloader *reloader, const struct pry_reload_outcome *outcome)
{
  struct pry_log *log = reloader->engine->log;
  const struct pry_generation *serving = pry_engine_generation(reloader->engine);
  struct pry_buffer findings;
  char short_id[8], refused[8];
  snprintf(short_id, sizeof short_id, "%s", serving ? serving->id : "nothing");
  snprintf(refused, sizeof refused, "%s", outcome->id);
  pry_buffer_init(&findings, 8 * 1024);
  pry_report_text(outcome->report, &findings);
  struct pry_log_field text = pry_log_slice("findings", pry_buffer_slice(&findings));
  if (outcome->result == PRY_RELOAD_REFUSED)
    pry_log(log, PRY_LOG_ERROR, "policies refused", text, pry_log_text("refused", refused),
            pry_log_text("still_serving", short_id), pry_log_number("seconds", outcome->seconds));
  else if (outcome->result == PRY_RELOAD_TAKEN_OVER)
    pry_log(log, PRY_LOG_INFO, "policies taken over", pry_log_text("generation", short_id),
            pry_log_integer("policies", serving ? serving->policies : 0),
            pry_log_integer("tests", serving ? serving->tests : 0), pry_log_number("seconds", outcome->seconds),
            pry_log_integer("warnings", (long long)outcome->report->count)); /* `check` says them */
  else
    pry_log(log, PRY_LOG_INFO, "policies unchanged", pry_log_text("generation", short_id));
  pry_buffer_fini(&findings);
}

static void keep_outcome(struct pry_reloader *reloader, const struct pry_reload_outcome *outcome)
{
  pry_report_fini(&reloader->last_report);
  reloader->last_report = reloader->look.report;
  pry_report_init(&reloader->look.report);
  copy_id(reloader->last_id, outcome->id);
  reloader->last = *outcome;
  reloader->last.id = reloader->last_id;
  reloader->last.report = &reloader->last_report;
  reloader->has_last = true;
}

static void tell_waiters(struct pry_reloader *reloader, const struct pry_reload_outcome *outcome)
{
  struct pry_list told;
  pry_list_init(&told);
  for (struct pry_list *link = reloader->waiters.next, *next; link != &reloader->waiters; link = next) {
    next = link->next;
    if (PRY_CONTAINER_OF(link, struct pry_reload_waiter, link)->started) {
      pry_list_remove(link);
      pry_list_push(&told, link);
    }
  }
  while (!pry_list_empty(&told)) { /* each may leave, or make others leave */
    struct pry_reload_waiter *waiter = PRY_CONTAINER_OF(told.next, struct pry_reload_waiter, link);
    pry_list_remove(&waiter->link);
    waiter->done(waiter->user, outcome);
  }
}

/* On disk is what serves: whatever was refused before is history. */
static bool back_to_serving(struct pry_reloader *reloader)
{
  if (!reloader->refused[0])
    return false;
  reloader->refused[0] = '\0';
  pry_metrics_set(reloader->engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 1);
  return true;
}

/* `news`: status shows it from now on. */
static enum pry_reload_result conclude(struct pry_reloader *reloader, bool *news)
{
  struct look *look = &reloader->look;
  struct pry_rollout *rollout = look->rollout;
  look->rollout = NULL;
  *news = true;
  if (look->result == LOOK_STAGED && reloader->accept &&
      !reloader->accept(reloader->user, rollout->generation, &look->report)) {
    pry_rollout_free(rollout);
    look->result = LOOK_REFUSED;
  }
  if (look->result == LOOK_STAGED && pry_engine_commit(reloader->engine, rollout, &look->report)) {
    reloader->refused[0] = '\0';
    pry_reloader_let_in(reloader, look->id);
    return PRY_RELOAD_TAKEN_OVER;
  }
  if (look->result == LOOK_SAME) {
    *news = strcmp(look->id, look->serving) == 0 && back_to_serving(reloader);
    return PRY_RELOAD_UNCHANGED;
  }
  if (look->result == LOOK_REFUSED)
    pry_engine_refused(reloader->engine);
  copy_id(reloader->refused, look->id);
  return PRY_RELOAD_REFUSED;
}

static void report_outcome(struct pry_reloader *reloader, enum pry_reload_result result, unsigned behind, bool news)
{
  struct look *look = &reloader->look;
  struct pry_reload_outcome outcome = {
      .result = result,
      .id = strcmp(look->id, UNREADABLE) == 0 ? "" : look->id,
      .report = &look->report,
      .at = pry_loop_unix_time(reloader->loop),
      .seconds = round(pry_time_to_seconds(pry_loop_now(reloader->loop) - reloader->began) * 1000) / 1000,
      .behind = behind};
  if (news || look->asked)
    log_outcome(reloader, &outcome);
  if (news) {
    keep_outcome(reloader, &outcome);
    outcome = reloader->last;
  }
  if (news && reloader->ended)
    reloader->ended(reloader->user, &outcome);
  tell_waiters(reloader, &outcome);
}

static void look_again_if_wanted(struct pry_reloader *reloader)
{
  pry_report_fini(&reloader->look.report);
  if (reloader->asked || reloader->told)
    look_soon(reloader, reloader->debounce);
}

/* The workers that have not adopted what was committed, each as a warning. */
static unsigned name_those_behind(struct pry_reloader *reloader)
{
  const struct pry_engine *engine = reloader->engine;
  unsigned behind = 0;
  for (unsigned i = 0; i < engine->worker_count; i++) {
    struct pry_worker *worker = engine->workers[i];
    char where[PRY_WHERE_MAX];
    if (!pry_engine_is_behind(engine, worker))
      continue;
    behind++;
    pry_worker_where(worker, where);
    pry_report_add(&reloader->look.report, PRY_FINDING_WARNING, where[0] ? where : "workers",
                   "worker %u has not taken the new policies over yet: it is busy %s", worker->index,
                   where[0] ? "here" : "outside of policies");
  }
  return behind;
}

static void settled(struct pry_reloader *reloader)
{
  reloader->settling = false;
  pry_timer_cancel(&reloader->settle_timer);
  report_outcome(reloader, PRY_RELOAD_TAKEN_OVER, name_those_behind(reloader), true);
  look_again_if_wanted(reloader);
}

static void settling_took_too_long(void *user)
{
  settled(user);
}

static void worker_adopted(void *user)
{
  struct pry_reloader *reloader = user;
  if (reloader->settling && pry_engine_adopted(reloader->engine))
    settled(reloader);
}

static void throw_away(struct pry_reloader *reloader)
{
  pry_rollout_free(reloader->look.rollout);
  reloader->look.rollout = NULL;
  reloader->asked |= reloader->look.asked;
}

static void end_look(struct pry_reloader *reloader)
{
  bool news;
  enum pry_reload_result result = conclude(reloader, &news);
  reloader->discards = 0;
  if (result == PRY_RELOAD_TAKEN_OVER && !pry_engine_adopted(reloader->engine)) {
    reloader->settling = true;
    pry_timer_start(reloader->loop, &reloader->settle_timer, ADOPTION_LIMIT, settling_took_too_long, reloader);
    return;
  }
  report_outcome(reloader, result, 0, news);
  look_again_if_wanted(reloader);
}

static void tell_of_watches(struct pry_reloader *reloader)
{
  const char *complaint = reloader->watcher ? pry_watcher_complaint(reloader->watcher) : "";
  if (*complaint && !reloader->complained)
    pry_log(reloader->engine->log, PRY_LOG_WARN, "some saves are noticed late, or not at all",
            pry_log_text("why", complaint), pry_log_number("poll_seconds", pry_time_to_seconds(reloader->poll)));
  reloader->complained = *complaint;
}

static void finish_look(struct pry_reloader *reloader)
{
  struct look *look = &reloader->look;
  tell_of_watches(reloader);
  copy_id(reloader->seen, look->id);
  if (reloader->told && look->result != LOOK_SAME && reloader->discards < DISCARDS_MAX) {
    reloader->discards++;
    throw_away(reloader);
    look_again_if_wanted(reloader);
  } else if (look->result == LOOK_UNSETTLED) {
    look_soon(reloader, reloader->debounce);
    look_again_if_wanted(reloader);
  } else {
    end_look(reloader);
  }
}

static void look_done(int fd, void *user)
{
  struct pry_reloader *reloader = user;
  uint64_t count;
  if (read(fd, &count, sizeof count) < 0 || !reloader->running)
    return;
  pthread_join(reloader->thread, NULL);
  reloader->running = false;
  finish_look(reloader);
}

/* ---- outside ------------------------------------------------------------------------------------------------ */

static bool start(struct pry_reloader *reloader)
{
  reloader->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  reloader->done_watch = pry_watch_new(reloader->loop, reloader->done_fd, PRY_LOOP_READABLE, look_done, reloader);
  if ((!reloader->folder && !reloader->init) || !reloader->done_watch)
    return false;
  if (!reloader->watches)
    return true;
  reloader->watcher = pry_watcher_new(reloader->loop, folder_changed, reloader);
  if (!reloader->watcher)
    pry_log(reloader->engine->log, PRY_LOG_WARN, "the policies folder cannot be watched, saves are noticed later",
            pry_log_text("folder", reloader->folder), pry_log_text("error", strerror(errno)),
            pry_log_text("try", "raise LimitNOFILE= (ulimit -n) or the sysctl fs.inotify.max_user_instances"),
            pry_log_number("poll_seconds", pry_time_to_seconds(reloader->poll)));
  reloader->told = true; /* sets the watches, and finds what changed since the first load */
  return pry_timer_start(reloader->loop, &reloader->poll_timer, reloader->poll, poll_due, reloader) &&
         pry_timer_start(reloader->loop, &reloader->debounce_timer, 0, debounced, reloader);
}

struct pry_reloader *pry_reloader_new(const struct pry_reloader_options *options)
{
  struct pry_reloader *reloader = calloc(1, sizeof *reloader);
  if (!reloader)
    return NULL;
  *reloader = (struct pry_reloader){.engine = options->engine,
                                    .loop = options->engine->control->loop,
                                    .folder = options->folder ? strdup(options->folder) : NULL,
                                    .init = options->folder ? NULL : options->init,
                                    .shipped = options->shipped ? strdup(options->shipped) : NULL,
                                    .debounce = options->debounce ? options->debounce : DEBOUNCE_DEFAULT,
                                    .poll = options->poll ? options->poll : POLL_DEFAULT,
                                    .accept = options->accept,
                                    .request_heard = options->asked,
                                    .ended = options->ended,
                                    .user = options->user,
                                    .watches = options->watch && options->folder,
                                    .done_fd = -1};
  pry_list_init(&reloader->waiters);
  pry_report_init(&reloader->last_report);
  pry_report_init(&reloader->look.report);
  if (options->refused_at_start)
    copy_id(reloader->refused, BEFORE_US);
  reloader->engine->adopted = worker_adopted;
  reloader->engine->adopted_user = reloader;
  if ((reloader->shipped || !options->shipped) && start(reloader))
    return reloader;
  pry_reloader_free(reloader);
  return NULL;
}

void pry_reloader_free(struct pry_reloader *reloader)
{
  if (!reloader)
    return;
  pry_timer_cancel(&reloader->poll_timer);
  pry_timer_cancel(&reloader->debounce_timer);
  atomic_store(&reloader->ending, true);
  if (reloader->running) {
    pthread_join(reloader->thread, NULL);
    pry_rollout_free(reloader->look.rollout);
  }
  reloader->engine->adopted = NULL;
  pry_timer_cancel(&reloader->settle_timer);
  pry_report_fini(&reloader->look.report);
  pry_watcher_free(reloader->watcher);
  pry_watch_free(reloader->done_watch);
  if (reloader->done_fd >= 0)
    close(reloader->done_fd);
  pry_report_fini(&reloader->last_report);
  free(reloader->folder);
  free(reloader->shipped);
  free(reloader);
}

void pry_reloader_request(struct pry_reloader *reloader, struct pry_reload_waiter *waiter,
                          void (*done)(void *user, const struct pry_reload_outcome *outcome), void *user)
{
  reloader->asked = true;
  if (reloader->request_heard)
    reloader->request_heard(reloader->user);
  if (waiter) {
    waiter->done = done;
    waiter->user = user;
    waiter->started = false;
    pry_list_init(&waiter->link);
    pry_list_push(&reloader->waiters, &waiter->link);
  }
  if (!reloader->running && !reloader->settling)
    look_soon(reloader, 0);
}

void pry_reload_leave(struct pry_reload_waiter *waiter)
{
  if (waiter->link.next)
    pry_list_remove(&waiter->link);
}

const struct pry_reload_outcome *pry_reloader_last(const struct pry_reloader *reloader)
{
  return reloader->has_last ? &reloader->last : NULL;
}

void pry_reloader_let_in(struct pry_reloader *reloader, const char *id)
{
  for (size_t i = 0; i < reloader->held_count; i++) {
    if (strcmp(reloader->held[i].id, id) != 0)
      continue;
    reloader->held_count--;
    memmove(&reloader->held[i], &reloader->held[i + 1], (reloader->held_count - i) * sizeof *reloader->held);
    return;
  }
}

void pry_reloader_hold(struct pry_reloader *reloader, const struct pry_reload_held *held)
{
  pry_reloader_let_in(reloader, held->id);
  if (reloader->held_count == PRY_RELOAD_HELD_MAX)
    pry_reloader_let_in(reloader, reloader->held[0].id);
  reloader->held[reloader->held_count++] = *held;
}

bool pry_reloader_busy(const struct pry_reloader *reloader)
{
  return reloader->running || reloader->settling || pry_timer_running(&reloader->debounce_timer);
}
