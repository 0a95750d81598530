/*
 * mail.h: sending one mail, over curl's SMTP or against a script.
 *
 * What http.h is for requests, for mails. Each mail has a thread of its own, for as long as it takes: curl 7.88 waits for the
 * server's answer to a mail, and to its QUIT, inside curl_multi_socket_action(), and a server that keeps still there would
 * stop the loop. Mails are few and limited (sink.h), so the threads are, too.
 *
 * Bounded in time: 10 s to connect, 30 s in all, then it ends as failed.
 *
 * TLS: from the first byte with smtps://, by STARTTLS with smtp://, without which nothing is sent, login and mail included,
 * unless `plain`. Certificate and name are checked against the system's list.
 *
 * On a virtual loop nothing leaves the machine: each mail fails, and says so.
 *
 * Thread: the mailbox's. `done` comes from its loop, never from inside pry_mail_start().
 */
#ifndef PRY_MAIL_H
#define PRY_MAIL_H

#include "mailbox.h"
#include "slice.h"

struct pry_mailer;
struct pry_mail_sending;

/* All copied by start. */
struct pry_mail {
  const char *url;  /* smtp://HOST:PORT or smtps://HOST:PORT */
  const char *from; /* bare addresses */
  const char *const *to;
  size_t to_count;
  const char *user, *password; /* NULL: no login */
  bool plain;                  /* with smtp://: TLS is not asked for */
  struct pry_slice message;    /* RFC 5322, CRLF line ends */
};

struct pry_mail_result {
  int status; /* the server's last answer, such as 250 or 550; 0: there was none, or it says nothing of this mail */
  const char *message; /* for people; valid during `done`; never a password */
};

typedef void (*pry_mail_done)(void *user, const struct pry_mail_result *result);

/* NULL: no memory. */
struct pry_mailer *pry_mailer_new(struct pry_mailbox *mailbox);

/* Ends what is being sent, which takes up to a second, and frees the mailer. NULL is fine. */
void pry_mailer_free(struct pry_mailer *mailer);

/* NULL: no memory, or no thread left; nothing is called then. */
struct pry_mail_sending *pry_mail_start(struct pry_mailer *mailer, const struct pry_mail *mail, pry_mail_done done,
                                        void *user);

/* `done` will not come. Does not wait; the mail may be delivered all the same. */
void pry_mail_cancel(struct pry_mail_sending *sending);

/* ---- The other side of the seam: who implements a mailer ---------------------------------------------------- */

/* Implemented by http_mail.c (curl) and by tests. The functions above dispatch here. */
struct pry_mail_driver {
  struct pry_mail_sending *(*start)(struct pry_mailer *mailer, const struct pry_mail *mail, pry_mail_done done,
                                    void *user);
  void (*cancel)(struct pry_mail_sending *sending);
  void (*free)(struct pry_mailer *mailer);
};

/* First member of every implementation's mailer and sending. */
struct pry_mailer {
  const struct pry_mail_driver *driver;
};
struct pry_mail_sending {
  const struct pry_mail_driver *driver;
};

#endif
