/*
 * shipped.h: the policies that came with parry, and where they are.
 *
 * A folder of policies needs to hold only what is its owner's: init.lua, and policies of its own or changed. What it lacks
 * comes from the shipped ones: every policy, library and dialect that a text of the set names in quotes (use "retry",
 * require "lib.backoff", dialect = "kimi", grant = "oauth"), and the dialects that need no naming (openai, anthropic, generic). A file of
 * the folder always wins. Not taken: init.lua, and tests, which the shipped ones have passed where they were built.
 *
 * What was taken is part of the set and of its content hash: an upgrade is a new generation.
 *
 * Thread: any.
 */
#ifndef PRY_SHIPPED_H
#define PRY_SHIPPED_H

#include "registry.h"

enum { PRY_SHIPPED_PATH_MAX = 4096 };

/* Where they are: $PARRY_SHARE, else beside the file that this code was loaded from, be it the program or libparry.so
 * (share/parry/policies below its folder in a build tree, PREFIX/share/parry/policies in an installed one, which may have
 * been moved), else where they were to be installed. The environment's text, `path`, or a constant. */
const char *pry_shipped_folder(char path[PRY_SHIPPED_PATH_MAX]);

/* Adds what the set lacks, see above; before it is sealed. folder NULL, "" or without any policies: nothing to add. False:
 * a file of it cannot be read, or memory; `report` says which. */
bool pry_shipped_complete(struct pry_policy_set *set, const char *folder, struct pry_buffer *report);

#endif
