/* Mails over curl. Declared in mail.h. */
#include "mail.h"

#include "buffer.h"
#include "list.h"
#include "plain_locale.h"
#include "thread.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* GOODBYES: how often curl asks whether to go on, about once a second, while it waits for the answer to its QUIT. */
enum { CONNECT_SECONDS = 10, MAIL_SECONDS = 30, REPLY_MAX = 300, SOCKETS_MAX = 4, GOODBYES = 2 };

struct mailer {
  struct pry_mailer base;
  struct pry_mailbox *mailbox;
  struct pry_list sendings;
};

/* The thread's, from its start until it has posted `ended`; then the mailbox's thread's. */
struct sending {
  struct pry_mail_sending base;
  struct mailer *mailer;
  struct pry_list link;
  pthread_t thread;
  bool threaded; /* false in virtual time, where nothing leaves the machine */
  struct pry_message ended;
  atomic_bool cancelled;
  pry_mail_done done;
  void *user;
  struct pry_buffer url, from, user_name, password, message; /* texts NUL-terminated */
  struct curl_slist *to;
  bool login, plain;
  size_t uploaded;
  bool answered; /* the whole mail was sent, and there is an answer to it: `status` */
  unsigned goodbyes;
  int sockets[SOCKETS_MAX]; /* open ones; -1: none */
  int status;
  size_t reply_size;
  char reply[REPLY_MAX]; /* the server's last line */
  char error[CURL_ERROR_SIZE];
};

static const struct pry_mail_driver driver;

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

static void sending_free(struct sending *sending)
{
  pry_list_remove(&sending->link);
  curl_slist_free_all(sending->to);
  wipe(&sending->url);
  wipe(&sending->from);
  wipe(&sending->user_name);
  wipe(&sending->password);
  wipe(&sending->message);
  free(sending);
}

/* ---- on the mail's own thread --------------------------------------------------------------------------------------- */

static size_t give(char *to, size_t unit, size_t count, void *user)
{
  struct sending *sending = user;
  size_t room = unit * count, left = sending->message.size - sending->uploaded;
  size_t size = left < room ? left : room;
  memcpy(to, sending->message.data + sending->uploaded, size);
  sending->uploaded += size;
  return size;
}

/* Each line that the server says; its code, when it ends an answer ("250 " and not "250-", RFC 5321 §4.2.1). */
static size_t hear(char *data, size_t unit, size_t count, void *user)
{
  struct sending *sending = user;
  size_t size = unit * count;
  bool ends = size >= 3 && (size == 3 || data[3] != '-');
  if (!ends || data[0] < '2' || data[0] > '5' || data[1] < '0' || data[1] > '9' || data[2] < '0' || data[2] > '9')
    return size;
  if (sending->answered || strncmp(data, "221", 3) == 0)
    return size; /* to QUIT */
  sending->answered = sending->uploaded == sending->message.size;
  sending->status = (data[0] - '0') * 100 + (data[1] - '0') * 10 + (data[2] - '0');
  sending->reply_size = size < REPLY_MAX ? size : REPLY_MAX;
  memcpy(sending->reply, data, sending->reply_size);
  while (sending->reply_size && (unsigned char)sending->reply[sending->reply_size - 1] <= ' ')
    sending->reply_size--;
  return size;
}

static int go_on(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
  (void)a, (void)b, (void)c, (void)d;
  struct sending *sending = user;
  return atomic_load(&sending->cancelled) || (sending->answered && ++sending->goodbyes > GOODBYES);
}

/* ---- its sockets ----------------------------------------------------------------------------------------------------- */

static void replace_socket(struct sending *sending, int from, int to)
{
  for (size_t i = 0; i < SOCKETS_MAX; i++)
    if (sending->sockets[i] == from) {
      sending->sockets[i] = to;
      return;
    }
}

static int opened(void *user, curl_socket_t fd, curlsocktype purpose)
{
  (void)purpose;
  replace_socket(user, -1, fd);
  return CURL_SOCKOPT_OK;
}

static int closing(void *user, curl_socket_t fd)
{
  replace_socket(user, fd, -1);
  return close(fd);
}

/* curl says QUIT and waits for the answer, up to two minutes, also when the mail was given up, and from then on it asks nobody
 * whether to go on. Where nothing can be said, it does not wait. */
static void say_no_goodbye(const struct sending *sending)
{
  for (size_t i = 0; i < SOCKETS_MAX; i++)
    if (sending->sockets[i] >= 0)
      shutdown(sending->sockets[i], SHUT_RDWR);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

#define SET(option, value) (code = code ? code : curl_easy_setopt(easy, option, value))

static CURLcode set_up(struct sending *sending, CURL *easy)
{
  CURLcode code = CURLE_OK;
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_QUICK_EXIT, 1L);
  SET(CURLOPT_PROTOCOLS_STR, "smtp,smtps");
  SET(CURLOPT_PROXY, "");
  SET(CURLOPT_URL, sending->url.data);
  SET(CURLOPT_USE_SSL, (long)(sending->plain ? CURLUSESSL_NONE : CURLUSESSL_ALL));
  SET(CURLOPT_MAIL_FROM, sending->from.data);
  SET(CURLOPT_MAIL_RCPT, sending->to);
  SET(CURLOPT_UPLOAD, 1L);
  SET(CURLOPT_READFUNCTION, give);
  SET(CURLOPT_READDATA, sending);
  SET(CURLOPT_HEADERFUNCTION, hear);
  SET(CURLOPT_HEADERDATA, sending);
  SET(CURLOPT_ERRORBUFFER, sending->error);
  SET(CURLOPT_FORBID_REUSE, 1L);
  SET(CURLOPT_SOCKOPTFUNCTION, opened);
  SET(CURLOPT_SOCKOPTDATA, sending);
  SET(CURLOPT_CLOSESOCKETFUNCTION, closing);
  SET(CURLOPT_CLOSESOCKETDATA, sending);
  SET(CURLOPT_NOPROGRESS, 0L);
  SET(CURLOPT_XFERINFOFUNCTION, go_on);
  SET(CURLOPT_XFERINFODATA, sending);
  SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
  SET(CURLOPT_SERVER_RESPONSE_TIMEOUT, (long)MAIL_SECONDS);
  SET(CURLOPT_TIMEOUT, (long)MAIL_SECONDS);
  if (sending->login) {
    SET(CURLOPT_USERNAME, sending->user_name.data);
    SET(CURLOPT_PASSWORD, sending->password.data);
  }
  return code;
}

#undef SET

static void *send_mail(void *user)
{
  struct sending *sending = user;
  pry_plain_locale_stay();
  CURL *easy = curl_easy_init();
  CURLcode code = easy ? set_up(sending, easy) : CURLE_OUT_OF_MEMORY;
  if (code == CURLE_OK)
    code = curl_easy_perform(easy);
  if (code != CURLE_OK)
    say_no_goodbye(sending);
  if (code == CURLE_OK || (sending->answered && sending->status < 300))
    sending->status = 250;
  else if (sending->status < 400)
    sending->status = 0; /* a good answer to an earlier command is no answer to the mail */
  if (code != CURLE_OK && !sending->error[0]) {
    const char *text = curl_easy_strerror(code);
    size_t size = strlen(text);
    memcpy(sending->error, text, (size < sizeof sending->error ? size : sizeof sending->error - 1) + 1);
  }
  curl_easy_cleanup(easy);
  pry_mailbox_post(sending->mailer->mailbox, &sending->ended);
  return NULL;
}

/* ---- on the mailbox's thread ----------------------------------------------------------------------------------------- */

static void deliver(struct pry_message *message)
{
  struct sending *sending = PRY_CONTAINER_OF(message, struct sending, ended);
  if (sending->threaded)
    pthread_join(sending->thread, NULL); /* posting was the last thing it did */
  char text[REPLY_MAX + 1];
  bool replied = sending->status >= 400;
  memcpy(text, sending->reply, sending->reply_size);
  text[sending->reply_size] = '\0';
  struct pry_mail_result result = {.status = sending->status, .message = replied ? text : sending->error};
  if (!atomic_load(&sending->cancelled))
    sending->done(sending->user, &result);
  sending_free(sending);
}

static bool copy_text(struct pry_buffer *to, const char *before, const char *text, const char *after)
{
  pry_buffer_init(to, 0);
  return pry_buffer_append_text(to, before) && pry_buffer_append_text(to, text) && pry_buffer_append_text(to, after) &&
         pry_buffer_text(to);
}

static bool copy_recipients(struct sending *sending, const struct pry_mail *mail)
{
  for (size_t i = 0; i < mail->to_count; i++) {
    struct pry_buffer address;
    bool copied = copy_text(&address, "<", mail->to[i], ">");
    struct curl_slist *longer = copied ? curl_slist_append(sending->to, address.data) : NULL;
    pry_buffer_fini(&address);
    if (!longer)
      return false;
    sending->to = longer;
  }
  return true;
}

static bool begin(struct sending *sending)
{
  if (pry_loop_is_virtual(pry_mailbox_loop(sending->mailer->mailbox))) {
    snprintf(sending->error, sizeof sending->error, "no mail is sent in virtual time");
    return pry_mailbox_post(sending->mailer->mailbox, &sending->ended);
  }
  sending->threaded = pry_thread_start(&sending->thread, send_mail, sending);
  return sending->threaded;
}

static struct pry_mail_sending *start(struct pry_mailer *base, const struct pry_mail *mail, pry_mail_done done,
                                      void *user)
{
  struct mailer *mailer = (struct mailer *)base;
  struct sending *sending = calloc(1, sizeof *sending);
  if (!sending)
    return NULL;
  sending->base.driver = &driver;
  sending->mailer = mailer;
  sending->ended.deliver = deliver;
  sending->done = done;
  sending->user = user;
  sending->plain = mail->plain;
  sending->login = mail->user != NULL;
  for (size_t i = 0; i < SOCKETS_MAX; i++)
    sending->sockets[i] = -1;
  pry_list_init(&sending->link);
  pry_list_push(&mailer->sendings, &sending->link);
  pry_buffer_init(&sending->message, 0);
  if (copy_text(&sending->url, "", mail->url, "") && copy_text(&sending->from, "<", mail->from, ">") &&
      copy_text(&sending->user_name, "", mail->user ? mail->user : "", "") &&
      copy_text(&sending->password, "", mail->password ? mail->password : "", "") &&
      pry_buffer_append_slice(&sending->message, mail->message) && copy_recipients(sending, mail) && begin(sending))
    return &sending->base;
  sending_free(sending);
  return NULL;
}

static void cancel(struct pry_mail_sending *base)
{
  atomic_store(&((struct sending *)base)->cancelled, true);
}

static void mailer_free(struct pry_mailer *base)
{
  struct mailer *mailer = (struct mailer *)base;
  for (struct pry_list *link = mailer->sendings.next; link != &mailer->sendings; link = link->next)
    cancel(&PRY_CONTAINER_OF(link, struct sending, link)->base);
  while (!pry_list_empty(&mailer->sendings)) {
    struct sending *sending = PRY_CONTAINER_OF(mailer->sendings.next, struct sending, link);
    if (sending->threaded)
      pthread_join(sending->thread, NULL);
    pry_mailbox_withdraw(mailer->mailbox, &sending->ended);
    sending_free(sending);
  }
  free(mailer);
}

static const struct pry_mail_driver driver = {.start = start, .cancel = cancel, .free = mailer_free};

struct pry_mailer *pry_mailer_new(struct pry_mailbox *mailbox)
{
  struct mailer *mailer = calloc(1, sizeof *mailer);
  if (!mailer)
    return NULL;
  mailer->base.driver = &driver;
  mailer->mailbox = mailbox;
  pry_list_init(&mailer->sendings);
  return &mailer->base;
}

void pry_mailer_free(struct pry_mailer *mailer)
{
  if (mailer)
    mailer->driver->free(mailer);
}

struct pry_mail_sending *pry_mail_start(struct pry_mailer *mailer, const struct pry_mail *mail, pry_mail_done done,
                                        void *user)
{
  return mailer->driver->start(mailer, mail, done, user);
}

void pry_mail_cancel(struct pry_mail_sending *sending)
{
  sending->driver->cancel(sending);
}
