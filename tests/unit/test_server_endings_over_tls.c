/* The HTTP server over TLS: the same endings. */
#define SERVER_RIG_TLS 1
#include "test_server_endings.c" /* NOLINT(bugprone-suspicious-include) */
