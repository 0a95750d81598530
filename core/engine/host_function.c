#include "host_function.h"

#include "buffer.h"
#include "json.h"
#include "list.h"
#include "table.h"

#include <pthread.h>
#include <stdlib.h>

enum { FIRST_SLOTS = 16, ERROR_MAX = 1024 };

struct host_function {
  struct pry_table_node node; /* its key is `name` */
  parry_function call;
  void *user;
  bool any_thread;
  struct pry_list questions; /* the open ones */
  char name[PRY_FUNCTION_NAME_MAX + 1];
};

struct slot {
  uint32_t uses; /* from 1, so that no name is 0 */
  uint32_t next_free;
  struct pry_question *question; /* NULL: free */
};

/* A function of the host's at work; on the stack of who called it. */
struct running {
  struct pry_list link;
  const struct host_function *function; /* only compared: it may be gone */
  pthread_t thread;
};

struct pry_functions {
  struct pry_mailbox *outbox;
  size_t open_max, open;
  pthread_mutex_t lock; /* of everything below, and of the questions */
  pthread_cond_t ended; /* something stopped running */
  struct pry_table table;
  struct pry_list all; /* questions that somebody still refers to */
  struct pry_list running;
  struct slot *slots;
  uint32_t slot_count, first_free; /* UINT32_MAX: none */
  bool closed;
};

struct pry_question {
  struct pry_functions *functions;
  struct pry_list in_all, in_function;
  struct pry_message told;  /* to the host */
  struct pry_message heard; /* to the asker */
  struct pry_asker asker;
  unsigned references;            /* the asker, and messages on their way */
  struct host_function *function; /* NULL: not open */
  uint32_t slot;
  bool listening, answered;
  const char *category, *problem; /* problem: constant; NULL: see `answer` */
  struct pry_buffer answer;
  size_t size;
  char arguments[]; /* with a NUL behind */
};

/* ---- questions, all with the lock held --------------------------------------------------------------------- */

static void unref(struct pry_question *question)
{
  if (--question->references)
    return;
  pry_list_remove(&question->in_all);
  pry_buffer_fini(&question->answer);
  free(question);
}

static bool take_slot(struct pry_functions *functions, struct pry_question *question)
{
  if (functions->first_free == UINT32_MAX) {
    uint32_t count = functions->slot_count ? functions->slot_count * 2 : FIRST_SLOTS;
    struct slot *slots = realloc(functions->slots, count * sizeof *slots);
    if (!slots)
      return false;
    for (uint32_t i = functions->slot_count; i < count; i++)
      slots[i] = (struct slot){.uses = 1, .next_free = i + 1 < count ? i + 1 : UINT32_MAX};
    functions->first_free = functions->slot_count;
    functions->slots = slots;
    functions->slot_count = count;
  }
  question->slot = functions->first_free;
  functions->first_free = functions->slots[question->slot].next_free;
  functions->slots[question->slot].question = question;
  functions->open++;
  return true;
}

/* Nobody can answer it any more. The caller is the asker, or knows that it has not dropped it. */
static void close_question(struct pry_question *question)
{
  struct pry_functions *functions = question->functions;
  if (!question->function)
    return;
  struct slot *slot = &functions->slots[question->slot];
  slot->question = NULL;
  slot->uses = slot->uses == UINT32_MAX ? 1 : slot->uses + 1;
  slot->next_free = functions->first_free;
  functions->first_free = question->slot;
  functions->open--;
  pry_list_remove(&question->in_function);
  question->function = NULL;
  if (pry_mailbox_withdraw(functions->outbox, &question->told))
    question->references--; /* never the last: the asker's is left */
}

static struct pry_question *find_question(const struct pry_functions *functions, uint64_t request)
{
  uint32_t place = (uint32_t)request - 1, uses = (uint32_t)(request >> 32);
  if (place >= functions->slot_count || functions->slots[place].uses != uses)
    return NULL;
  return functions->slots[place].question;
}

static parry_request_id name_of(const struct pry_question *question)
{
  uint64_t uses = question->functions->slots[question->slot].uses;
  return (parry_request_id){uses << 32 | ((uint64_t)question->slot + 1)};
}

/* An open question gets its answer, in question->answer, or as a constant text. The asker's reference keeps it. */
static void settle(struct pry_question *question, const char *category, const char *problem)
{
  question->category = category;
  question->problem = problem;
  question->answered = true;
  close_question(question);
  if (!question->listening)
    return; /* who asks looks first */
  question->references++;
  pry_mailbox_post(question->asker.mailbox, &question->heard);
}

static void refuse(struct pry_question *question, const char *category, const char *problem)
{
  question->category = category;
  question->problem = problem;
  question->answered = true;
}

/* ---- calling the host ------------------------------------------------------------------------------------------ */

/* Takes the lock off meanwhile. Somebody's reference keeps the question. */
static void call_function(struct pry_question *question)
{
  struct pry_functions *functions = question->functions;
  struct running running = {.function = question->function, .thread = pthread_self()};
  parry_function call = question->function->call;
  void *user = question->function->user;
  parry_request_id request = name_of(question);
  pry_list_push(&functions->running, &running.link);
  pthread_mutex_unlock(&functions->lock);
  call(user, request, question->arguments, question->size);
  pthread_mutex_lock(&functions->lock);
  pry_list_remove(&running.link);
  pthread_cond_broadcast(&functions->ended);
}

/* On the host's thread. */
static void tell(struct pry_message *message)
{
  struct pry_question *question = PRY_CONTAINER_OF(message, struct pry_question, told);
  struct pry_functions *functions = question->functions;
  pthread_mutex_lock(&functions->lock);
  if (question->function && !functions->closed)
    call_function(question);
  unref(question);
  pthread_mutex_unlock(&functions->lock);
}

/* On the asker's. */
static void hear(struct pry_message *message)
{
  struct pry_question *question = PRY_CONTAINER_OF(message, struct pry_question, heard);
  struct pry_functions *functions = question->functions;
  pthread_mutex_lock(&functions->lock);
  const struct pry_asker asker = question->asker;
  bool listening = question->listening;
  question->listening = false;
  unref(question);
  pthread_mutex_unlock(&functions->lock);
  if (listening)
    asker.answered(asker.user);
}

/* True when nobody but this thread is inside it. */
static bool is_quiet(const struct pry_functions *functions, const struct host_function *function)
{
  for (const struct pry_list *link = functions->running.next; link != &functions->running; link = link->next) {
    const struct running *running = PRY_CONTAINER_OF(link, const struct running, link);
    if (running->function == function && !pthread_equal(running->thread, pthread_self()))
      return false;
  }
  return true;
}

/* ---- registering ------------------------------------------------------------------------------------------------ */

static struct host_function *find_function(const struct pry_functions *functions, struct pry_slice name)
{
  struct pry_table_node *node = pry_table_find(&functions->table, name);
  return node ? PRY_CONTAINER_OF(node, struct host_function, node) : NULL;
}

static bool is_name(const char *name)
{
  size_t size = strnlen(name, PRY_FUNCTION_NAME_MAX + 1);
  for (size_t i = 0; i < size; i++) {
    char c = name[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_-.", c)))
      return false;
  }
  return size && size <= PRY_FUNCTION_NAME_MAX;
}

static struct host_function *new_function(const char *name, parry_function call, void *user, bool any_thread)
{
  struct host_function *function = calloc(1, sizeof *function);
  if (!function)
    return NULL;
  function->call = call;
  function->user = user;
  function->any_thread = any_thread;
  memcpy(function->name, name, strlen(name));
  function->node.key = pry_slice_of(function->name);
  pry_list_init(&function->questions);
  return function;
}

/* Locked. The new one answers what the old one was asked; without a new one it stays unanswered, and says so. */
static void hand_over(struct host_function *old, struct host_function *fresh)
{
  while (!pry_list_empty(&old->questions)) {
    struct pry_question *question = PRY_CONTAINER_OF(old->questions.next, struct pry_question, in_function);
    if (!fresh) {
      settle(question, "unknown", "the host has taken this function back");
      continue;
    }
    pry_list_remove(&question->in_function);
    pry_list_push(&fresh->questions, &question->in_function);
    question->function = fresh;
  }
}

int pry_functions_set(struct pry_functions *functions, const char *name, parry_function function, void *user,
                      bool any_thread)
{
  if (!is_name(name))
    return PARRY_EINVAL;
  struct host_function *fresh = function ? new_function(name, function, user, any_thread) : NULL;
  if (function && !fresh)
    return PARRY_ENOMEM;
  pthread_mutex_lock(&functions->lock);
  struct host_function *old = find_function(functions, pry_slice_of(name));
  if (!old && (!fresh || functions->table.count == PRY_FUNCTIONS_MAX)) {
    pthread_mutex_unlock(&functions->lock);
    free(fresh);
    return fresh ? PARRY_BUSY : PARRY_ENOENT;
  }
  if (old) {
    pry_table_remove(&functions->table, &old->node);
    hand_over(old, fresh);
  }
  if (fresh)
    pry_table_add(&functions->table, &fresh->node);
  while (old && !is_quiet(functions, old))
    pthread_cond_wait(&functions->ended, &functions->lock);
  pthread_mutex_unlock(&functions->lock);
  free(old);
  return PARRY_OK;
}

bool pry_functions_has(struct pry_functions *functions, struct pry_slice name)
{
  if (!functions)
    return false;
  pthread_mutex_lock(&functions->lock);
  bool known = find_function(functions, name);
  pthread_mutex_unlock(&functions->lock);
  return known;
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

/* What the host says, in `text`, and of which category it is. The status is PARRY_EINVAL when it may not say that. */
static int read_answer(const char *json, const char *error, struct pry_buffer *text, const char **category,
                       const char **problem)
{
  *category = error ? "failed" : NULL;
  *problem = NULL;
  struct pry_slice said =
      error ? (struct pry_slice){error, strnlen(error, ERROR_MAX)} : pry_slice_of(json ? json : "null");
  if (said.size > PRY_FUNCTION_JSON_MAX) {
    *category = "invalid_json";
    *problem = "the host's answer has more than 64 KiB";
    return PARRY_EINVAL;
  }
  if (!error && pry_json_parse(said, NULL) != PRY_JSON_OK) {
    *category = "invalid_json";
    *problem = "the host's answer is not JSON";
    return PARRY_EINVAL;
  }
  if (pry_buffer_append_slice(text, said))
    return PARRY_OK;
  *category = "memory";
  *problem = "not enough memory";
  return PARRY_ENOMEM;
}

int pry_functions_answer(struct pry_functions *functions, uint64_t request, const char *json, const char *error)
{
  const char *category, *problem;
  struct pry_buffer text;
  pry_buffer_init(&text, PRY_FUNCTION_JSON_MAX);
  int status = read_answer(json, error, &text, &category, &problem);
  pthread_mutex_lock(&functions->lock);
  struct pry_question *question = find_question(functions, request);
  if (question) {
    question->answer = text;
    settle(question, category, problem);
  }
  pthread_mutex_unlock(&functions->lock);
  if (question)
    return status;
  pry_buffer_fini(&text);
  return PARRY_ENOENT;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static struct pry_question *new_question(struct pry_functions *functions, struct pry_slice arguments,
                                         const struct pry_asker *asker)
{
  struct pry_question *question = calloc(1, sizeof *question + arguments.size + 1);
  if (!question)
    return NULL;
  question->functions = functions;
  question->told.deliver = tell;
  question->heard.deliver = hear;
  question->asker = *asker;
  question->references = 1;
  question->size = arguments.size;
  if (arguments.size)
    memcpy(question->arguments, arguments.data, arguments.size);
  pry_list_init(&question->in_all);
  pry_list_init(&question->in_function);
  pry_buffer_init(&question->answer, PRY_FUNCTION_JSON_MAX);
  return question;
}

/* Locked. */
static void ask(struct pry_question *question, struct pry_slice name)
{
  struct pry_functions *functions = question->functions;
  struct host_function *function = functions->closed ? NULL : find_function(functions, name);
  if (!function) {
    refuse(question, "unknown", "the host has no function of this name");
    return;
  }
  if (functions->open >= functions->open_max) {
    refuse(question, "busy", "the host has too many requests open");
    return;
  }
  if (!take_slot(functions, question)) {
    refuse(question, "memory", "not enough memory");
    return;
  }
  question->function = function;
  pry_list_push(&function->questions, &question->in_function);
  if (function->any_thread) {
    call_function(question);
    return;
  }
  question->references++;
  pry_mailbox_post(functions->outbox, &question->told);
}

struct pry_question *pry_question_new(struct pry_functions *functions, struct pry_slice name,
                                      struct pry_slice arguments, const struct pry_asker *asker)
{
  struct pry_question *question = new_question(functions, arguments, asker);
  if (!question)
    return NULL;
  pthread_mutex_lock(&functions->lock);
  pry_list_push(&functions->all, &question->in_all);
  ask(question, name);
  pthread_mutex_unlock(&functions->lock);
  return question;
}

bool pry_question_answer(struct pry_question *question, struct pry_answer *answer)
{
  pthread_mutex_lock(&question->functions->lock);
  bool answered = question->answered;
  pthread_mutex_unlock(&question->functions->lock);
  if (!answered)
    return false;
  answer->category = question->category;
  answer->text = question->problem ? pry_slice_of(question->problem) : pry_buffer_slice(&question->answer);
  return true;
}

bool pry_question_listen(struct pry_question *question)
{
  pthread_mutex_lock(&question->functions->lock);
  question->listening = !question->answered;
  bool listening = question->listening;
  pthread_mutex_unlock(&question->functions->lock);
  return listening;
}

/* Locked. */
static void ignore(struct pry_question *question)
{
  question->listening = false;
  if (pry_mailbox_withdraw(question->asker.mailbox, &question->heard))
    question->references--; /* never the last: the asker's is left */
}

void pry_question_ignore(struct pry_question *question)
{
  pthread_mutex_lock(&question->functions->lock);
  ignore(question);
  pthread_mutex_unlock(&question->functions->lock);
}

void pry_question_drop(struct pry_question *question)
{
  if (!question)
    return;
  pthread_mutex_t *lock = &question->functions->lock;
  pthread_mutex_lock(lock);
  close_question(question);
  ignore(question);
  unref(question);
  pthread_mutex_unlock(lock);
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

struct pry_functions *pry_functions_new(struct pry_mailbox *outbox, size_t open_max)
{
  struct pry_functions *functions = calloc(1, sizeof *functions);
  if (!functions)
    return NULL;
  functions->outbox = outbox;
  functions->open_max = open_max;
  functions->first_free = UINT32_MAX;
  pry_list_init(&functions->all);
  pry_list_init(&functions->running);
  pthread_mutex_init(&functions->lock, NULL); /* neither can fail without attributes on Linux */
  pthread_cond_init(&functions->ended, NULL);
  if (pry_table_init(&functions->table))
    return functions;
  pry_functions_free(functions);
  return NULL;
}

void pry_functions_close(struct pry_functions *functions)
{
  pthread_mutex_lock(&functions->lock);
  functions->closed = true;
  pthread_mutex_unlock(&functions->lock);
}

void pry_functions_free(struct pry_functions *functions)
{
  if (!functions)
    return;
  /* What a mailbox still refers to that nobody will deliver. */
  while (!pry_list_empty(&functions->all)) {
    struct pry_question *question = PRY_CONTAINER_OF(functions->all.next, struct pry_question, in_all);
    question->references = 1;
    unref(question);
  }
  for (struct pry_table_node *node; functions->table.slots && (node = pry_table_next(&functions->table, NULL));) {
    pry_table_remove(&functions->table, node);
    free(PRY_CONTAINER_OF(node, struct host_function, node));
  }
  pry_table_fini(&functions->table);
  free(functions->slots);
  pthread_cond_destroy(&functions->ended);
  pthread_mutex_destroy(&functions->lock);
  free(functions);
}
