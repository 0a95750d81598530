/*
 * usage.h: how many tokens an answer says it used, and what they cost.
 *
 * A dialect says where a usage object stands and how its numbers are called; the numbers are read here, in C, from
 * whole bodies and from the events of streams as they pass, good answers and errors alike. What a provider does not
 * say is not guessed: no usage, no tokens.
 *
 * Numbers of one attempt only grow: of several reports (a stream tells its input first and its output at the end, or
 * running totals with every event) the greatest of each counts. A number that is negative, no number or beyond
 * PRY_TOKENS_MAX is passed over; answers are hostile until read.
 *
 * Pure data; any thread.
 */
#ifndef PRY_USAGE_H
#define PRY_USAGE_H

#include "json.h"
#include "slice.h"

enum {
  PRY_USAGE_PLACES_MAX = 8,
  PRY_USAGE_PATHS_MAX = 12,
  PRY_USAGE_TAIL = 4096 /* bytes at the end of a body too long to be held, in which its usage is looked for */
};

#define PRY_TOKENS_MAX INT64_C(1000000000000)

/* Paths inside the usage object. The first sum of which at least one term is there counts. */
struct pry_usage_number {
  struct pry_json_path paths[PRY_USAGE_PATHS_MAX];
  bool adds[PRY_USAGE_PATHS_MAX]; /* to the path before it */
  size_t count;
};

/* Data of a dialect. No places: it reports nothing. */
struct pry_usage {
  struct pry_json_path places[PRY_USAGE_PLACES_MAX]; /* of the usage object; the first that is an object counts */
  size_t place_count;
  struct pry_usage_number input; /* those read from a cache included */
  struct pry_usage_number output;
  struct pry_usage_number cached; /* of the input: read from a cache */
  struct pry_usage_number total;  /* counts as input where neither input nor output is said */
};

struct pry_tokens {
  bool known;
  int64_t input, output, cached;
};

/* What an attempt, or a call in all, used. All zero: nothing is known. */
struct pry_spending {
  struct pry_tokens tokens;
  bool priced; /* `cost` is known */
  double cost; /* in the currency of the prices */
};

/* Per million tokens, in whatever currency the operator thinks in. */
struct pry_price {
  const char *model; /* a glob */
  double input, output, cached;
};

/* NULL, or why the text is no number of a usage: paths, summed with "+", such as
 * "prompt_tokens" or "input_tokens + cache_read_input_tokens". Appends to `number`. */
const char *pry_usage_add(struct pry_usage_number *number, struct pry_slice text);

/* NULL, or why the path is no place of a usage object: bad, too many, or not ending with a name. */
const char *pry_usage_add_place(struct pry_usage *usage, struct pry_slice path);

/* Reads the usage out of a whole body or the data of one event. Without such an object the cost is one search
 * for its name. */
void pry_usage_read(const struct pry_usage *usage, struct pry_slice text, struct pry_tokens *tokens);

/* The same for the last bytes of a body whose beginning is gone: the last object under such a name counts, wherever it
 * stands. Texts inside of JSON strings cannot pass for it: their quotes are escaped. */
void pry_usage_read_tail(const struct pry_usage *usage, struct pry_slice tail, struct pry_tokens *tokens);

/* `more` of the same attempt: the greater of each. */
void pry_tokens_merge(struct pry_tokens *tokens, const struct pry_tokens *more);

static inline int64_t pry_tokens_total(const struct pry_tokens *tokens)
{
  return tokens->input + tokens->output;
}

/* Adds what another attempt used. */
void pry_spending_add(struct pry_spending *sum, const struct pry_spending *more);

/* What these tokens cost. */
double pry_price_cost(const struct pry_price *price, const struct pry_tokens *tokens);

#endif
