/*
 * call_translate.h: a call whose client and target speak different dialects.
 *
 * The core side of policy.h's `translate`. Same-dialect calls never come here but for one question per attempt, and pass
 * byte for byte. For the others, per attempt:
 *
 *   SEND     pry_call_begin_translation()   which pair of dialects; nothing is run yet
 *   SEND     pry_call_translate_request()   body, path and fields for the target. What cannot be translated refuses the
 *                                           attempt: nothing was sent, the next policy of the chain is asked
 *   HEAD     pry_call_translate_answer()    a whole good body, held back until then, up to PRY_TRANSLATED_ANSWER_MAX
 *   HEAD or RELAY  pry_call_translate_stream()  whole events, after hold and commit have been judged on what the target
 *                                           sent, by the target's dialect
 *   RELAY    pry_call_finish_translation()  the target's stream has ended well
 *   end      pry_call_end_translation()     the attempt is over: what it remembered goes
 *
 * The owner is the call: struct call_translation is embedded in it, lives as long, and is used on its thread only. What
 * the Lua functions remember of an attempt is JSON text here, at most PRY_TRANSLATE_MEMORY_MAX bytes. So it ends with the
 * attempt on every path, a reload or a rebuilt state goes on with it, and no long stream keeps an old generation alive.
 *
 * Failures are of source `parry`, allow a fallback and no retry, and have one of these codes:
 *   untranslatable          the request, or its path, has what the target's dialect cannot say; the message names it.
 *                           After another target failed in this call, its category and the time it asked for (so that
 *                           clients who may come back still do), else invalid_request
 *   too_large_to_translate  a body or an event beyond a bound, which the message names: payload_too_large, or as above
 *   translation_failed      a function faulted, or was taken away by a reload: server
 * Before the commit they are failures of the attempt; after it the call ends with an error event in the client's dialect.
 *
 * A body goes to another provider than it was made for (fallback { strip = true }): `strip` of the target's dialect takes
 * out what only the other one understands. Bodies without such parts pass byte for byte.
 */
#ifndef PRY_CALL_TRANSLATE_H
#define PRY_CALL_TRANSLATE_H

#include "policy.h"
#include "sse.h"

enum {
  PRY_TRANSLATED_ANSWER_MAX = 4 * 1024 * 1024, /* bytes of a whole answer, and of one event */
  PRY_TRANSLATED_OUT_MAX = 16 * 1024 * 1024    /* bytes that one step makes */
};

struct pry_call;
struct pry_provider;

/* What a translated attempt, or a stripped body, needs: other calls have none. */
struct call_translator {
  struct pry_buffer memory; /* what the functions remember, JSON */
  struct pry_buffer out;    /* what was made last */
  struct pry_buffer stripped;
  char path[PRY_TRANSLATE_PATH_MAX]; /* of the API at the target; "": none yet */
  struct pry_sse_parser parser;
  bool finished; /* the end of the client's stream was made */
};

struct call_translation {
  bool active;                        /* this attempt's target speaks another dialect, and the pair is known */
  bool strip;                         /* the verdict that chose the target asked for it; until another chooses */
  char home[PRY_TARGET_MAX];          /* the provider that the client's body was made for */
  const char *to;                     /* the target's dialect, of the call's generation; while active */
  struct call_translator *translator; /* of this attempt; NULL until there is something to do */
};

void pry_call_free_translation(struct pry_call *call);

/* The body is taken for one that was made for this provider. */
void pry_call_set_home(struct pry_call *call, const struct pry_provider *provider);

/* Can this provider take the call, translated or not? NULL: yes; else why not, a constant text. */
const char *pry_call_dialect_complaint(const struct pry_call *call, const struct pry_provider *provider);

/* An attempt at call->view.target is about to be sent. */
void pry_call_begin_translation(struct pry_call *call);

/* The attempt is over. */
void pry_call_end_translation(struct pry_call *call);

/* The body of a call that is not translated, stripped when that was asked for: `body` is replaced when something was
 * taken out. False: `failure` says why the attempt cannot be made. */
bool pry_call_strip_request(struct pry_call *call, struct pry_slice *body, struct pry_failure *failure);

/* Body (into `body`, valid until the attempt ends), path (pry_call_translated_path()) and fields (into call->out_headers) for the
 * target. False: `failure` says why the attempt cannot be made. */
bool pry_call_translate_request(struct pry_call *call, struct pry_slice *body, struct pry_failure *failure);

/* The API's path at the target; NULL: the attempt is not translated, its path is the client's. */
const char *pry_call_translated_path(const struct pry_call *call);

/* The target's body, decoded, as the client's (`out`, valid until the attempt ends). False: `failure`. */
bool pry_call_translate_answer(struct pry_call *call, struct pry_slice body, struct pry_slice *out,
                               struct pry_failure *failure);

/* Whole blocks of the target's stream as the client's (`out`, valid until the next step; may be empty). With the last
 * ones comes the end, so that nothing can go wrong behind it. False:
 * `failure`; what was made before is dropped. */
bool pry_call_translate_stream(struct pry_call *call, struct pry_slice blocks, struct pry_slice *out,
                               struct pry_failure *failure);

/* The end of the client's stream, where the target's has ended well without its end marker. As above; nothing when it
 * was made already. */
bool pry_call_finish_translation(struct pry_call *call, struct pry_slice *out, struct pry_failure *failure);

/* The failure of an answer that is longer than what can be translated. */
struct pry_failure pry_call_answer_too_long(const struct pry_call *call);

#endif
