/* Mails over real sockets: each on a thread of its own, its end told on the mailbox's, given up without waiting. */
#include "buffer.h"
#include "mail.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum how { TAKES, REFUSES, KEEPS_STILL, KEEPS_STILL_AT_QUIT };

/* A mail server for one connection. */
struct server {
  enum how how;
  int listener;
  pthread_t thread;
  char url[64];
  atomic_bool has_mail;
  char mail[4096];
};

static void say(FILE *peer, const char *line)
{
  fprintf(peer, "%s\r\n", line);
  fflush(peer);
}

static void take_mail(struct server *server, FILE *peer)
{
  char line[1024];
  say(peer, "354 go on");
  while (fgets(line, sizeof line, peer) && strcmp(line, ".\r\n") != 0)
    strncat(server->mail, line, sizeof server->mail - strlen(server->mail) - 1);
  atomic_store(&server->has_mail, true);
  if (server->how != KEEPS_STILL)
    say(peer, "250 queued");
}

static void *serve(void *user)
{
  struct server *server = user;
  char line[1024];
  int fd = accept(server->listener, NULL, NULL);
  FILE *peer = fd >= 0 ? fdopen(fd, "r+") : NULL;
  if (!peer)
    return NULL;
  say(peer, "220 mail.test");
  while (fgets(line, sizeof line, peer)) { /* until the other side leaves */
    if (strncmp(line, "DATA", 4) == 0)
      take_mail(server, peer);
    else if (strncmp(line, "RCPT", 4) == 0 && server->how == REFUSES)
      say(peer, "550 no such user");
    else if (strncmp(line, "QUIT", 4) == 0 && server->how != KEEPS_STILL_AT_QUIT)
      say(peer, "221 bye");
    else if (strncmp(line, "QUIT", 4) != 0)
      say(peer, "250 ok");
  }
  fclose(peer);
  return NULL;
}

static struct server *new_server(enum how how)
{
  struct server *server = calloc(1, sizeof *server);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  server->how = how;
  server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(server->listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(server->listener, 1), 0);
  assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
  snprintf(server->url, sizeof server->url, "smtp://127.0.0.1:%d", ntohs(address.sin_port));
  assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
  return server;
}

static void free_server(struct server *server)
{
  pthread_join(server->thread, NULL);
  close(server->listener);
  free(server);
}

struct end {
  unsigned count;
  int status;
  char message[300];
};

static void ended(void *user, const struct pry_mail_result *result)
{
  struct end *end = user;
  end->count++;
  end->status = result->status;
  snprintf(end->message, sizeof end->message, "%s", result->message);
}

static struct pry_mail_sending *start(struct pry_mailer *mailer, const struct server *server, struct end *end)
{
  static const char *const to[] = {"a@example.com", "b@example.com"};
  struct pry_mail mail = {.url = server->url,
                          .from = "parry@example.com",
                          .to = to,
                          .to_count = 2,
                          .plain = true,
                          .message = PRY_SLICE("Subject: x\r\n\r\n.a dot\r\n")};
  struct pry_mail_sending *sending = pry_mail_start(mailer, &mail, ended, end);
  assert_non_null(sending);
  assert_int_equal(end->count, 0); /* never from inside */
  return sending;
}

static void test_ends(void **state)
{
  (void)state;
  static const struct {
    enum how how;
    int status;
    const char *message;
  } cases[] = {{TAKES, 250, ""}, {REFUSES, 550, "550 no such user"}, {KEEPS_STILL_AT_QUIT, 250, ""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_loop *loop = pry_loop_new();
    struct pry_mailbox *mailbox = pry_mailbox_new(loop);
    struct pry_mailer *mailer = pry_mailer_new(mailbox);
    struct server *server = new_server(cases[i].how);
    struct end end = {0};
    start(mailer, server, &end);
    while (!end.count)
      pry_loop_turn(loop, PRY_TIME_NEVER);
    assert_int_equal(end.status, cases[i].status);
    if (*cases[i].message)
      assert_string_equal(end.message, cases[i].message);
    assert_true(cases[i].status != 250 || strstr(server->mail, "\r\n..a dot\r\n")); /* not the end of the mail */
    pry_mailer_free(mailer);
    free_server(server);
    pry_mailbox_free(mailbox);
    pry_loop_free(loop);
  }
}

/* The server has the mail and says nothing: whoever gives up does not wait, and neither does the end of it all, for long. */
static void test_giving_up(void **state)
{
  (void)state;
  for (int cancels = 0; cancels < 2; cancels++) {
    struct pry_loop *loop = pry_loop_new();
    struct pry_mailbox *mailbox = pry_mailbox_new(loop);
    struct pry_mailer *mailer = pry_mailer_new(mailbox);
    struct server *server = new_server(KEEPS_STILL);
    struct end end = {0};
    struct pry_mail_sending *sending = start(mailer, server, &end);
    while (!atomic_load(&server->has_mail))
      pry_loop_turn(loop, PRY_MILLISECOND);
    if (cancels)
      pry_mail_cancel(sending);
    pry_mailer_free(mailer);
    assert_int_equal(end.count, 0);
    free_server(server); /* its peer has left, or this would not return */
    pry_mailbox_free(mailbox);
    pry_loop_free(loop);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends), cmocka_unit_test(test_giving_up)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
