/*
 * retest.h: which of a set's own tests say something about it that is not known yet.
 *
 * Policy tests are deterministic: virtual time, scripted providers, seeded chance, no init.lua. The same files give the
 * same result, so running them again because a number in init.lua has changed would only keep an edit from going
 * live. A test file is run at a take-over when
 *
 *   - what it tests is in use: a policy of some chain, a dialect of some provider or route; libraries and what belongs to
 *     nothing always are; and
 *   - it was not run for the generation that serves, or that one was never tested: it, what it tests, another policy that
 *     its text names, or any library or dialect is another one than there.
 *
 * `parry test` runs them all. Pure functions over immutable data; any thread.
 */
#ifndef PRY_RETEST_H
#define PRY_RETEST_H

#include "registry.h"

bool pry_is_test_file(const char *path); /* "retry_test.lua" */

/* proven: the generation that serves, may be NULL. config: of the new set. */
bool pry_retest_is_needed(const struct pry_policy_set *set, const struct pry_config *config,
                          const struct pry_generation *proven, const struct pry_policy_file *test);

#endif
