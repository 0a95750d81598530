#include "demo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char INIT[] =
    "-- The demo's providers are one simulator that fails on purpose (lib/sim.lua says where it listens this time).\n"
    "-- Edit this file, or retry.lua beside it, while the demo runs, and save: the next failure is handled the new "
    "way.\n"
    "-- A mistake is refused with its line, and nothing else changes. The real thing is in parry's own "
    "policies/init.lua.\n"
    "\n"
    "local sim = require \"lib.sim\"\n"
    "\n"
    "provider \"moonshot\" { base_url = sim.url .. \"/v1\", dialect = \"openai\", auth = bearer(secret "
    "\"PARRY_DEMO_KEY\") }\n"
    "provider \"token360\" { base_url = sim.url .. \"/v1\", dialect = \"openai\", auth = bearer(secret "
    "\"PARRY_DEMO_KEY\") }\n"
    "provider \"anthropic\" {\n"
    "  base_url = sim.url .. \"/v1/messages\", dialect = \"anthropic\",\n"
    "  auth = header(\"x-api-key\", secret \"PARRY_DEMO_KEY\"),\n"
    "}\n"
    "\n"
    "-- This one wants an access token, and the one it starts with has expired.\n"
    "provider \"kimi\" { base_url = sim.url .. \"/kimi-auth/v1\", dialect = \"kimi\", auth = bearer(credential "
    "\"kimi\") }\n"
    "credential \"kimi\" {\n"
    "  access_token = secret \"PARRY_DEMO_ACCESS_TOKEN\",\n"
    "  refresh_token = secret \"PARRY_DEMO_REFRESH_TOKEN\",\n"
    "  token_url = sim.url .. \"/token/refresh\",\n"
    "  grant = \"kimi\",\n"
    "}\n"
    "\n"
    "route \"/v1/*\" {\n"
    "  to = by_model { [\"kimi-*\"] = \"kimi\", [\"moonshot-*\"] = \"moonshot\", [\"*\"] = \"token360\" },\n"
    "  deadline = 60, timeouts = { connect = 5, first_byte = 10, idle = 30 },\n"
    "  chain = {\n"
    "    use \"circuit_breaker\" { failures = 5, cooldown = 10 },\n"
    "    use \"token_refresh\",\n"
    "    use \"retry\" { base = 0.2 },\n"
    "    use \"fallback_model\" { models = { [\"sim-down\"] = { \"moonshot/moonshot-v1-128k\" } } },\n"
    "  },\n"
    "}\n"
    "\n"
    "route \"/v1/messages*\" {\n"
    "  to = \"anthropic\",\n"
    "  deadline = 60, timeouts = { connect = 5, first_byte = 10, idle = 30 },\n"
    "  chain = { use \"circuit_breaker\" { failures = 5, cooldown = 10 }, use \"retry\" { base = 0.2 } },\n"
    "}\n";

struct copying {
  const char *folder;
  size_t *kept;
  char *error;
  size_t error_size;
};

static bool complain(const struct copying *copying, const char *path, const char *why)
{
  snprintf(copying->error, copying->error_size, "%s: %s; run the demo where this user may write", path, why);
  return false;
}

/* The folders above `path`, below and including copying->folder. */
static bool make_folders(const struct copying *copying, char *path)
{
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    bool ok = mkdir(path, 0777) == 0 || errno == EEXIST || complain(copying, path, strerror(errno));
    *slash = '/';
    if (!ok)
      return false;
  }
  return true;
}

int pry_demo_claim(const char *folder, char *error, size_t error_size)
{
  struct copying copying = {.folder = folder, .error = error, .error_size = error_size};
  char path[1024];
  int length = snprintf(path, sizeof path, "%s/", folder);
  if (length < 0 || (size_t)length >= sizeof path) {
    complain(&copying, "the folder of the policies", "the path is too long");
    return -1;
  }
  if (!make_folders(&copying, path))
    return -1;
  int claim = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (claim < 0) {
    complain(&copying, path, strerror(errno));
    return -1;
  }
  /* Any other failure: a file system without such locks. Then the admin socket alone tells two demos apart. */
  if (flock(claim, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
    return claim;
  close(claim);
  snprintf(error, error_size,
           "another demo is running on %s; end it, or give this one a folder of its own with --policies DIR", folder);
  return -1;
}

static bool write_file(const struct copying *copying, const char *name, struct pry_slice text, bool replace)
{
  char path[1024];
  int length = snprintf(path, sizeof path, "%s/%s", copying->folder, name);
  if (length < 0 || (size_t)length >= sizeof path)
    return complain(copying, name, "the path is too long");
  if (!make_folders(copying, path))
    return false;
  FILE *file = fopen(path, replace ? "we" : "wxe");
  if (!file && errno == EEXIST) {
    (*copying->kept)++;
    return true;
  }
  if (!file)
    return complain(copying, path, strerror(errno));
  bool ok = fwrite(text.data, 1, text.size, file) == text.size;
  ok = fclose(file) == 0 && ok;
  return ok || complain(copying, path, strerror(errno));
}

static bool write_sim(const struct copying *copying, const char *address)
{
  char text[512];
  snprintf(text, sizeof text, "-- Written anew by each `parry demo`.\nreturn { url = \"http://%.200s\" }\n", address);
  return write_file(copying, "lib/sim.lua", pry_slice_of(text), true);
}

/* Our init.lua takes the place of the shipped one, and of tests about it. */
static bool is_about_init(const char *path)
{
  return strcmp(path, "init.lua") == 0 || strcmp(path, "init_test.lua") == 0;
}

bool pry_demo_files(const char *folder, const char *shipped, const char *sim_address, size_t *kept, char *error,
                    size_t error_size)
{
  struct copying copying = {.folder = folder, .kept = kept, .error = error, .error_size = error_size};
  struct pry_report report;
  pry_report_init(&report);
  *kept = 0;
  struct pry_policy_set *set = pry_reload_read(shipped, NULL, NULL, &report);
  bool ok = set != NULL;
  if (!ok)
    snprintf(error, error_size,
             "the policies that came with parry cannot be read: %s: %s; set PARRY_SHARE to their folder",
             report.count ? report.findings[0].where : shipped, report.count ? report.findings[0].what : "?");
  for (size_t i = 0; ok && i < set->count; i++)
    if (!is_about_init(set->files[i].path))
      ok = write_file(&copying, set->files[i].path, (struct pry_slice){set->files[i].text, set->files[i].size}, false);
  ok = ok && write_file(&copying, "init.lua", PRY_SLICE(INIT), false) && write_sim(&copying, sim_address);
  pry_policy_set_free(set);
  pry_report_fini(&report);
  return ok;
}
