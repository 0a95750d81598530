#include "registry.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>

enum { FINDINGS_MAX = 100 };

/* ---- sets -------------------------------------------------------------------------------------------- */

struct pry_policy_set *pry_policy_set_new(void)
{
  return calloc(1, sizeof(struct pry_policy_set));
}

void pry_policy_set_free(struct pry_policy_set *set)
{
  if (!set)
    return;
  for (size_t i = 0; i < set->count; i++) {
    free(set->files[i].path);
    free(set->files[i].text);
    pry_compiled_unref(set->files[i].compiled);
  }
  free(set->files);
  free(set);
}

bool pry_policy_set_add(struct pry_policy_set *set, const char *path, struct pry_slice text)
{
  if (set->count == PRY_POLICY_FILES_MAX)
    return false;
  struct pry_policy_file *files = realloc(set->files, (set->count + 1) * sizeof *files);
  if (!files)
    return false;
  set->files = files;
  struct pry_policy_file file = {.path = strdup(path), .text = malloc(text.size + 1), .size = text.size};
  if (!file.path || !file.text) {
    free(file.path);
    free(file.text);
    return false;
  }
  if (text.size)
    memcpy(file.text, text.data, text.size);
  file.text[text.size] = '\0';
  set->files[set->count++] = file;
  return true;
}

bool pry_policy_set_add_file(struct pry_policy_set *set, const struct pry_policy_file *file)
{
  if (!pry_policy_set_add(set, file->path, (struct pry_slice){file->text, file->size}))
    return false;
  set->files[set->count - 1].compiled = pry_compiled_ref(file->compiled);
  return true;
}

static bool is_same_text(const struct pry_policy_file *a, const struct pry_policy_file *b)
{
  return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

void pry_policy_set_share(struct pry_policy_set *set, const struct pry_policy_set *other)
{
  for (size_t i = 0; i < set->count; i++) {
    struct pry_policy_file *file = &set->files[i];
    const struct pry_policy_file *same = pry_policy_set_find(other, file->path);
    if (same && !file->compiled && is_same_text(file, same))
      file->compiled = pry_compiled_ref(same->compiled);
  }
}

struct pry_compiled *pry_compiled_new(struct pry_slice bytes)
{
  struct pry_compiled *compiled = malloc(sizeof *compiled + bytes.size);
  if (!compiled)
    return NULL;
  atomic_init(&compiled->references, 1);
  compiled->size = bytes.size;
  memcpy(compiled->bytes, bytes.data, bytes.size);
  return compiled;
}

struct pry_compiled *pry_compiled_ref(struct pry_compiled *compiled)
{
  if (compiled)
    atomic_fetch_add_explicit(&compiled->references, 1, memory_order_relaxed);
  return compiled;
}

void pry_compiled_unref(struct pry_compiled *compiled)
{
  if (compiled && atomic_fetch_sub_explicit(&compiled->references, 1, memory_order_acq_rel) == 1)
    free(compiled);
}

static int by_path(const void *a, const void *b)
{
  return strcmp(((const struct pry_policy_file *)a)->path, ((const struct pry_policy_file *)b)->path);
}

/* Each name and text goes in with its length, so that no two different sets can give the same bytes. */
static bool hash_set(const struct pry_policy_set *set, unsigned char digest[EVP_MAX_MD_SIZE], unsigned *digest_size)
{
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL);
  for (size_t i = 0; ok && i < set->count; i++) {
    const struct pry_policy_file *file = &set->files[i];
    char head[64];
    int length = snprintf(head, sizeof head, "%zu:%zu:", strlen(file->path), file->size);
    ok = EVP_DigestUpdate(context, head, (size_t)length) && EVP_DigestUpdate(context, file->path, strlen(file->path)) &&
         EVP_DigestUpdate(context, file->text, file->size);
  }
  ok = ok && EVP_DigestFinal_ex(context, digest, digest_size);
  EVP_MD_CTX_free(context);
  return ok;
}

bool pry_policy_set_seal(struct pry_policy_set *set)
{
  if (set->count)
    qsort(set->files, set->count, sizeof *set->files, by_path);
  for (size_t i = 1; i < set->count; i++)
    if (strcmp(set->files[i - 1].path, set->files[i].path) == 0)
      return false;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!hash_set(set, digest, &size) || size * 2 >= sizeof set->id)
    return false;
  for (unsigned i = 0; i < size; i++)
    snprintf(set->id + (size_t)i * 2, 3, "%02x", digest[i]);
  return true;
}

const struct pry_policy_file *pry_policy_set_find(const struct pry_policy_set *set, const char *path)
{
  struct pry_policy_file wanted = {.path = (char *)(uintptr_t)path};
  return set->count ? bsearch(&wanted, set->files, set->count, sizeof *set->files, by_path) : NULL;
}

/* ---- generations ------------------------------------------------------------------------------------- */

struct pry_generation *pry_generation_new(struct pry_policy_set *set, struct pry_config *config)
{
  struct pry_generation *generation = calloc(1, sizeof *generation);
  if (!generation)
    return NULL;
  *generation = (struct pry_generation){.id = set->id, .set = set, .config = config, .references = 1};
  return generation;
}

void pry_generation_ref(struct pry_generation *generation)
{
  atomic_fetch_add_explicit(&generation->references, 1, memory_order_relaxed); /* the caller's keeps it alive */
}

void pry_generation_unref(struct pry_generation *generation)
{
  /* Released by each, acquired by the last: it sees all that the others did with it. */
  if (!generation || atomic_fetch_sub_explicit(&generation->references, 1, memory_order_acq_rel) > 1)
    return;
  pry_config_free(generation->config);
  pry_policy_set_free(generation->set);
  free(generation);
}

/* ---- reports ----------------------------------------------------------------------------------------- */

void pry_report_init(struct pry_report *report)
{
  *report = (struct pry_report){0};
}

void pry_report_fini(struct pry_report *report)
{
  free(report->findings);
  pry_report_init(report);
}

static struct pry_finding *new_finding(struct pry_report *report)
{
  if (report->count == FINDINGS_MAX)
    return NULL;
  if (report->count == report->capacity) {
    size_t capacity = report->capacity ? report->capacity * 2 : 8;
    struct pry_finding *findings = realloc(report->findings, capacity * sizeof *findings);
    if (!findings)
      return NULL;
    report->findings = findings;
    report->capacity = capacity;
  }
  return &report->findings[report->count++];
}

void pry_report_add(struct pry_report *report, enum pry_severity severity, const char *where, const char *format, ...)
{
  report->errors += severity == PRY_FINDING_ERROR;
  struct pry_finding *finding = new_finding(report);
  if (!finding) {
    report->more++;
    return;
  }
  finding->severity = severity;
  snprintf(finding->where, sizeof finding->where, "%s", where);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(finding->what, sizeof finding->what, format, arguments);
  va_end(arguments);
}

static bool append_findings(const struct pry_report *report, enum pry_severity severity, struct pry_buffer *text)
{
  for (size_t i = 0; i < report->count; i++) {
    const struct pry_finding *finding = &report->findings[i];
    if (finding->severity == severity &&
        !pry_buffer_append_format(text, "%s: %s%s\n", finding->where,
                                  severity == PRY_FINDING_WARNING ? "warning: " : "", finding->what))
      return false;
  }
  return true;
}

bool pry_report_text(const struct pry_report *report, struct pry_buffer *text)
{
  return append_findings(report, PRY_FINDING_ERROR, text) && append_findings(report, PRY_FINDING_WARNING, text) &&
         (!report->more || pry_buffer_append_format(text, "and %zu more\n", report->more));
}
