/*
 * policies.h: findings of a folder of policies, as people and programs read them.
 */
#ifndef PRY_CLI_POLICIES_H
#define PRY_CLI_POLICIES_H

#include "registry.h"

/* Prints "FOLDER/retry.lua:12: what" lines, errors first. */
void pry_print_findings(const char *folder, const struct pry_report *report);

/* Appends the findings as a JSON array of { severity, where, file, line?, what }. */
bool pry_findings_json(const struct pry_report *report, struct pry_buffer *out);

#endif
