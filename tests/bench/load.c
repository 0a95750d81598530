/* The benchmark's clients, on one thread: chat completions over kept connections, or slow event streams. Prints one JSON
 * object; a wrong answer ends it with a line on stderr. See usage() below. */
#include "net.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char BODY[] =
    "{\"model\":\"bench-1\",\"temperature\":0.2,\"max_tokens\":256,\"messages\":[{\"role\":\"system\",\"content\":"
    "\"You are a terse assistant. Answer in one sentence and do not repeat the question.\"},{\"role\":\"user\","
    "\"content\":\"What does a proxy do, and why would anyone put one in front of a model? Assume that the reader has "
    "run servers for years, knows HTTP well, and is in a hurry.\"}],\"user\":\"u_4f1c9a7e\",\"metadata\":{\"trace\":"
    "\"0af7651916cd43dd8448eb211c80319c\",\"team\":\"bench\"}}";

enum { MARK_DIGITS = 20, ID_DIGITS = 18, PATIENCE = 60 };

#define ID_RANGE 100000000000UL

struct options {
  unsigned port, connections;
  bool streams;
  double warm, seconds, rate, open_rate;
  unsigned long requests, fail_every;
  const char *wish;
  long pid;
};

struct client {
  int fd;
  bool open, busy, seen; /* seen: this stream's first event */
  struct net_buffer in;
  int64_t began;
  struct client *next_idle;
};

/* What /proc says of the proxy. */
struct usage {
  int64_t cpu;   /* ns, all threads */
  long resident; /* KiB */
};

static struct load {
  struct options options;
  int epoll;
  char request[2048];
  size_t request_size, id_at; /* where the id of a request that fails is written */
  struct client *clients, *idle;
  bool measuring;
  unsigned long started, done, ok, errors_503, others;
  uint32_t *samples; /* microseconds x 10 */
  size_t sample_count, sample_capacity;
  unsigned seen, opened;
  struct usage before, at_begin, at_end;
} load;

/* ---- what is measured -------------------------------------------------------------------------------------- */

static void sample(int64_t nanoseconds)
{
  if (load.sample_count == load.sample_capacity) {
    load.sample_capacity = load.sample_capacity ? load.sample_capacity * 2 : 65536;
    load.samples = realloc(load.samples, load.sample_capacity * sizeof *load.samples);
    if (!load.samples)
      net_die("memory is short");
  }
  load.samples[load.sample_count++] = (uint32_t)(nanoseconds / 100);
}

static int compare(const void *a, const void *b)
{
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return (left > right) - (left < right);
}

static double percentile(double share)
{
  return load.sample_count ? load.samples[(size_t)(share * (double)(load.sample_count - 1))] / 10.0 : 0;
}

static bool read_text(const char *path, char *text, size_t size)
{
  FILE *file = fopen(path, "re");
  size_t got = file ? fread(text, 1, size - 1, file) : 0;
  if (file)
    fclose(file);
  text[got] = '\0';
  return got > 0;
}

/* The time on a processor of each thread, to the nanosecond; utime and stime are counted in ticks of 10 ms. */
static int64_t cpu_of(long pid)
{
  char path[600], text[128];
  int64_t sum = 0;
  snprintf(path, sizeof path, "/proc/%ld/task", pid);
  DIR *threads = opendir(path);
  if (!threads)
    net_die("process %ld: %s", pid, strerror(errno));
  for (struct dirent *entry; (entry = readdir(threads));) {
    snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", pid, entry->d_name);
    if (entry->d_name[0] != '.' && read_text(path, text, sizeof text))
      sum += strtoll(text, NULL, 10);
  }
  closedir(threads);
  return sum;
}

static struct usage usage_of(long pid)
{
  char path[64], text[4096];
  if (!pid)
    return (struct usage){0, 0};
  snprintf(path, sizeof path, "/proc/%ld/status", pid);
  const char *resident = read_text(path, text, sizeof text) ? strstr(text, "VmRSS:") : NULL;
  return (struct usage){cpu_of(pid), resident ? strtol(resident + 6, NULL, 10) : 0};
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

/* Ids differ between runs, too: the provider remembers those of the run before. 0: this request does not fail. */
static void write_id(unsigned long id)
{
  char text[ID_DIGITS + 1];
  snprintf(text, sizeof text, "%0*lu", ID_DIGITS, id ? (unsigned long)getpid() * ID_RANGE + id : 0);
  memcpy(load.request + load.id_at, text, ID_DIGITS);
}

static void send_request(struct client *client, int64_t began)
{
  client->began = began;
  client->busy = true;
  load.started++;
  if (load.options.fail_every)
    write_id(load.started % load.options.fail_every == 0 ? load.started : 0);
  if (net_send(client->fd, load.request, load.request_size) != (int64_t)load.request_size)
    net_die("a request could not be sent");
}

static bool may_start(void)
{
  return !load.options.requests || load.started < load.options.requests;
}

static void count_status(const char *head)
{
  long status = strtol(head + 9, NULL, 10);
  load.ok += status == 200;
  load.errors_503 += status == 503;
  load.others += status != 200 && status != 503;
}

static void answered(struct client *client)
{
  int64_t now = net_now();
  client->busy = false;
  load.done++;
  if (load.measuring) {
    count_status(client->in.data);
    sample(now - client->began);
  }
  client->in.size = 0;
  if (load.options.rate > 0) {
    client->next_idle = load.idle;
    load.idle = client;
  } else if (may_start())
    send_request(client, now);
}

static void read_answer(struct client *client)
{
  size_t head = net_head_end(&client->in);
  if (!head)
    return;
  const char *length = net_field(client->in.data, head, "content-length:");
  if (!client->busy || !length || client->in.size > head + strtoul(length, NULL, 10))
    net_die("an answer cannot be read: %.*s", (int)head, client->in.data);
  if (client->in.size == head + strtoul(length, NULL, 10))
    answered(client);
}

/* ---- streams ----------------------------------------------------------------------------------------------- */

static void read_events(struct client *client)
{
  int64_t now = net_now();
  char *at = client->in.data, *end = at + client->in.size, *mark;
  while ((mark = memchr(at, '@', (size_t)(end - at))) && end - mark > MARK_DIGITS) {
    load.seen += !client->seen;
    client->seen = true;
    load.done++;
    if (load.measuring)
      sample(now - strtoll(mark + 1, NULL, 10));
    at = mark + 1 + MARK_DIGITS;
  }
  net_consume(&client->in, (size_t)((mark ? mark : end) - client->in.data));
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static void open_client(struct client *client)
{
  client->fd = net_connect(load.options.port);
  client->open = true;
  load.opened++;
  net_watch(load.epoll, EPOLL_CTL_ADD, client->fd, EPOLLIN, client);
}

/* Handles what comes until `deadline` or the first event of all. */
static void turn(int64_t deadline)
{
  struct epoll_event events[NET_EVENTS];
  int count = net_wait(load.epoll, events, deadline);
  for (int i = 0; i < count; i++) {
    struct client *client = events[i].data.ptr;
    if (!net_read(client->fd, &client->in))
      net_die("the connection was closed");
    if (load.options.streams)
      read_events(client);
    else
      read_answer(client);
  }
}

/* At a given rate the clock starts when a request is due, not when a connection is free for it. */
static void run_until(int64_t end)
{
  double gap = load.options.rate > 0 ? 1e9 / load.options.rate : 0;
  int64_t start = net_now(), due = start;
  unsigned long number = 0;
  for (int64_t now = start; now < end; now = net_now()) {
    for (; gap > 0 && due <= now && load.idle; due = start + (int64_t)((double)++number * gap)) {
      struct client *client = load.idle;
      load.idle = client->next_idle;
      send_request(client, due);
    }
    bool free_to_send = gap > 0 && load.idle;
    turn(free_to_send && due < end ? due : end);
  }
}

static void run_count(void)
{
  int64_t end = net_now() + PATIENCE * INT64_C(1000000000);
  while (load.done < load.options.requests) {
    turn(end);
    if (net_now() > end)
      net_die("%lu of %lu answers within %d s", load.done, load.options.requests, PATIENCE);
  }
}

static int64_t after(double seconds)
{
  return net_now() + (int64_t)(seconds * 1e9);
}

static void open_streams(void)
{
  int64_t patience = after(PATIENCE), start = net_now();
  double gap = 1e9 / load.options.open_rate;
  while (load.seen < load.options.connections) {
    if (net_now() > patience)
      net_die("%u of %u streams began within %d s", load.seen, load.options.connections, PATIENCE);
    int64_t due = start + (int64_t)(load.opened * gap);
    if (load.opened < load.options.connections && due <= net_now()) {
      struct client *client = &load.clients[load.opened];
      open_client(client);
      send_request(client, net_now());
      continue;
    }
    turn(load.opened < load.options.connections ? due : patience);
  }
}

static void open_all(void)
{
  for (unsigned i = 0; i < load.options.connections; i++) {
    open_client(&load.clients[i]);
    if (load.options.rate > 0) {
      load.clients[i].next_idle = load.idle;
      load.idle = &load.clients[i];
    } else if (may_start())
      send_request(&load.clients[i], net_now());
  }
}

static double measure(void)
{
  load.before = usage_of(load.options.pid);
  load.measuring = load.options.requests != 0;
  if (load.options.streams)
    open_streams();
  else
    open_all();
  if (!load.options.requests)
    run_until(after(load.options.warm));
  load.measuring = true;
  int64_t begin = net_now();
  load.at_begin = usage_of(load.options.pid);
  if (load.options.requests)
    run_count();
  else
    run_until(after(load.options.seconds));
  load.at_end = usage_of(load.options.pid);
  return (double)(net_now() - begin) / 1e9;
}

static void print(double seconds)
{
  qsort(load.samples, load.sample_count, sizeof *load.samples, compare);
  printf("{\"seconds\":%.6f,\"count\":%zu,\"ok\":%lu,\"errors_503\":%lu,\"others\":%lu,\"p50\":%.1f,\"p99\":%.1f,"
         "\"p999\":%.1f,\"max\":%.1f,\"cpu\":%.9f,\"resident_before\":%ld,\"resident\":%ld,\"started\":%lu}\n",
         seconds, load.sample_count, load.ok, load.errors_503, load.others, percentile(0.5), percentile(0.99),
         percentile(0.999), percentile(1), (double)(load.at_end.cpu - load.at_begin.cpu) / 1e9, load.before.resident,
         load.at_end.resident, load.started);
}

/* ---- options ----------------------------------------------------------------------------------------------- */

static noreturn void usage(void)
{
  net_die("usage: load --port PORT [--connections N (64)] [--wish 'delay=5'] [--fail-every N] [--pid PID]\n"
          "  [--warm SECONDS (0.5)] [--seconds SECONDS (2)] [--rate PER_SECOND (as fast as answers come)]\n"
          "  or --requests N, counted from the first one\n"
          "  or --streams, all kept open; opened at --open-rate PER_SECOND (2000)");
}

static void parse(struct options *options, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--streams") == 0) {
      options->streams = true;
      continue;
    }
    const char *name = argv[i], *value = ++i < argc ? argv[i] : NULL;
    if (!value)
      usage();
    if (strcmp(name, "--port") == 0)
      options->port = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--connections") == 0)
      options->connections = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--requests") == 0)
      options->requests = strtoul(value, NULL, 10);
    else if (strcmp(name, "--wish") == 0)
      options->wish = value;
    else if (strcmp(name, "--fail-every") == 0)
      options->fail_every = strtoul(value, NULL, 10);
    else if (strcmp(name, "--pid") == 0)
      options->pid = strtol(value, NULL, 10);
    else if (strcmp(name, "--warm") == 0)
      options->warm = strtod(value, NULL);
    else if (strcmp(name, "--seconds") == 0)
      options->seconds = strtod(value, NULL);
    else if (strcmp(name, "--rate") == 0)
      options->rate = strtod(value, NULL);
    else if (strcmp(name, "--open-rate") == 0)
      options->open_rate = strtod(value, NULL);
    else
      usage();
  }
  if (!options->port || !options->connections || !(options->open_rate > 0))
    usage();
}

int main(int argc, char **argv)
{
  load.options = (struct options){.connections = 64, .warm = 0.5, .seconds = 2, .open_rate = 2000, .wish = "none"};
  parse(&load.options, argc, argv);
  if (load.options.fail_every)
    load.options.wish = "once=000000000000000000";
  net_raise_descriptors();
  load.epoll = epoll_create1(EPOLL_CLOEXEC);
  load.clients = calloc(load.options.connections, sizeof *load.clients);
  if (!load.clients)
    net_die("memory is short");
  int size = snprintf(load.request, sizeof load.request,
                      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      "User-Agent: bench/1.0\r\nAccept: application/json\r\nAuthorization: Bearer client-key\r\n"
                      "x-bench: %s\r\nContent-Length: %zu\r\n\r\n%s",
                      load.options.wish, sizeof BODY - 1, BODY);
  if (size < 0 || (size_t)size >= sizeof load.request)
    usage();
  load.request_size = (size_t)size;
  if (load.options.fail_every)
    load.id_at = (size_t)(strstr(load.request, "once=") + 5 - load.request);
  print(measure());
  return 0;
}
