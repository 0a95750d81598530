/* The HTTP server over TLS: the same requests, replies and bounds. */
#define SERVER_RIG_TLS 1
#include "test_server.c" /* NOLINT(bugprone-suspicious-include) */
