/* A host with an event loop of its own: parry works in its own thread, and its descriptor is one more in the host's
 * epoll set, here beside a timer of the host's. One streamed answer goes by while the timer ticks.
 * Usage: epoll BASE_URL, e.g. of `parry sim`: http://127.0.0.1:8421/v1 */
#include <parry.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct answer {
  size_t chunks;
  int done, ok;
};

static int on_data(void *user, const void *data, size_t size)
{
  (void)data, (void)size; /* a server would write it to its client, and return PARRY_PAUSE when that is slow */
  ((struct answer *)user)->chunks++;
  return 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct answer *answer = user;
  answer->done = 1, answer->ok = outcome->ok;
  printf("ok=%d status=%d attempts=%u\n", outcome->ok, outcome->status, outcome->attempts);
}

static int start_call(parry *engine, struct answer *answer)
{
  struct parry_header headers[] = {{"Content-Type", "application/json"}, {"x-sim-fault", "code=429;times=1"}};
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  request.path = "/v1/chat/completions";
  request.headers = headers, request.header_count = 2;
  request.body = "{\"model\":\"sim-ok\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
  request.body_size = strlen(request.body);
  ops.on_data = on_data, ops.on_done = on_done;
  return parry_call(engine, &request, &ops, answer, NULL);
}

/* The timer ticks every 10 ms. */
static int watch(int epoll, int timer, int parry_descriptor)
{
  const struct itimerspec every = {{0, 10000000}, {0, 10000000}};
  struct epoll_event ticks = {.events = EPOLLIN, .data.fd = timer};
  struct epoll_event deliveries = {.events = EPOLLIN, .data.fd = parry_descriptor};
  return timerfd_settime(timer, 0, &every, NULL) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &ticks) == 0 &&
         epoll_ctl(epoll, EPOLL_CTL_ADD, parry_descriptor, &deliveries) == 0;
}

static unsigned loop(parry *engine, int epoll, int timer, const struct answer *answer)
{
  unsigned ticked = 0;
  uint64_t ticks;
  while (!answer->done || !ticked) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1)
      continue; /* a signal */
    if (event.data.fd != timer)
      parry_dispatch(engine); /* the callbacks come from in here, on this thread */
    else if (read(timer, &ticks, sizeof ticks) == sizeof ticks)
      ticked += (unsigned)ticks;
  }
  return ticked;
}

int main(int argc, char **argv)
{
  char init[1024];
  struct parry_options options = PARRY_OPTIONS_INIT;
  struct answer answer = {0, 0, 0};
  unsigned ticked = 0;
  parry *engine;
  snprintf(init, sizeof init,
           "provider \"sim\" { base_url = \"%s\", dialect = \"openai\" }\n"
           "route \"/v1/*\" { to = \"sim\", chain = { use \"retry\" { base = 0.1 } } }\n",
           argc > 1 ? argv[1] : "http://127.0.0.1:8421/v1");
  options.init_lua = init;
  options.threads = 1;
  int error = parry_new(&engine, &options);
  int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (error == PARRY_OK && watch(epoll, timer, parry_fd(engine)))
    error = start_call(engine, &answer);
  if (error == PARRY_OK)
    ticked = loop(engine, epoll, timer, &answer);
  else
    fprintf(stderr, "%s\n", parry_strerror(error));
  printf("chunks=%zu, and the timer ticked %s\n", answer.chunks, ticked ? "meanwhile" : "not once");
  close(timer);
  close(epoll);
  parry_free(engine);
  return !(answer.ok && answer.chunks && ticked);
}
