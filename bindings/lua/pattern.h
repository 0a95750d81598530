/*
 * pattern.h: Lua patterns, matched within a budget.
 *
 * Lua's own matcher backtracks in C, where no hook can see it: `('a'):rep(300):find('.-.-.-b')` takes seconds. This one
 * understands the same language (Lua 5.4 manual, §6.4.1) and charges each step to the run's instructions. Letter
 * classes are ASCII, whatever the locale. Errors are raised with the words of stock Lua.
 *
 * Thread: the script's. Everything here may raise, so a match lives on the C stack and owns nothing.
 */
#ifndef PRY_PATTERN_H
#define PRY_PATTERN_H

#include "script.h"

enum { PRY_PATTERN_CAPTURES = 32, PRY_PATTERN_DEPTH = 200 };

struct pry_match {
  lua_State *L;
  const char *text, *text_end; /* what is searched; alive while the match is used */
  const char *pattern_end;
  unsigned steps; /* not yet charged */
  int depth;      /* nested attempts left */
  int count;      /* captures begun */
  struct {
    const char *start;
    ptrdiff_t size; /* or CAPTURE_OPEN, CAPTURE_POSITION */
  } captures[PRY_PATTERN_CAPTURES];
};

void pry_match_init(struct pry_match *match, lua_State *L, struct pry_slice text, struct pry_slice pattern);

/* Tries to match `pattern` (inside the pattern given to init; a leading '^' is not special here) exactly at `at`.
 * Returns the end of what matched, or NULL. Forgets the captures of the try before. */
const char *pry_match_at(struct pry_match *match, const char *at, const char *pattern);

/* Charges the steps that are still open; at the end of a function that matches. */
void pry_match_settle(struct pry_match *match);

/* Pushes capture `i`, from 0; when there is none at all, capture 0 is the whole match start..end. */
void pry_match_push_capture(struct pry_match *match, int i, const char *start, const char *end);

/* Pushes all captures, or the whole match when there are none and start is not NULL; returns their number. */
int pry_match_push_captures(struct pry_match *match, const char *start, const char *end);

/* Has the pattern no special character, so that plain search will do? */
bool pry_pattern_is_plain(struct pry_slice pattern);

#endif
