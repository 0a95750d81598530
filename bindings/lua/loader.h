/*
 * loader.h: the Lua binding as the registry sees it.
 *
 * load  a fresh state without a worker: compiles and declares the whole set, then throws the state away; what stays
 *       is the configuration. Host functions with effects raise "not available while loading".
 * test  runs the set's *_test.lua in virtual time (test_host.h).
 * warm  a worker's state of a generation that was loaded.
 */
#ifndef PRY_LOADER_H
#define PRY_LOADER_H

#include "registry.h"

extern const struct pry_loader pry_lua_loader;

/* The same for engines of policy tests: secrets are invented instead of looked for ("test-X", or for a sink
 * https://sinks.test/X), so that no test depends on the machine it runs on. */
extern const struct pry_loader pry_lua_test_loader;

#endif
