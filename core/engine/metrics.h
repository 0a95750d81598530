/*
 * metrics.h: numbers for Prometheus.
 *
 * Every metric is declared once in the table below (name, type, help, label names); code adds to it by
 * enumerator. Label values come from closed or configured sets, but for the model in a target's name, which is the client's
 * where a route takes any model. Each metric keeps at most PRY_METRICS_SERIES_MAX series and counts the rest under label
 * values "other": whoever sends that many made-up models hides the later ones. Format: Prometheus text 0.0.4.
 *
 * Thread: any. Adding to a counter or histogram takes a lock that only threads on the same processor meet at, for a
 * look-up (below 100 ns in all, however many workers add: bench_metrics); looking and setting gauges take them all.
 */
#ifndef PRY_METRICS_H
#define PRY_METRICS_H

#include "buffer.h"
#include "slice.h"

/* X(enumerator, name, type, label names separated by commas, help) */
#define PRY_METRICS(X)                                                                                                 \
  X(PRY_M_CALLS, "parry_calls_total", PRY_COUNTER, "route,outcome", "Calls by their single outcome.")                  \
  X(PRY_M_CLIENT_CALLS, "parry_client_calls_total", PRY_COUNTER, "client,outcome", "Calls by whose key they had.")     \
  X(PRY_M_CLIENT_REFUSED, "parry_client_refused_total", PRY_COUNTER, "client,reason", "Requests that became no call.") \
  X(PRY_M_CLIENTS_OK, "parry_clients_last_reload_successful", PRY_GAUGE, "", "Whether the clients file was taken.")    \
  X(PRY_M_ATTEMPTS, "parry_attempts_total", PRY_COUNTER, "target,category", "Attempts by target and result.")          \
  X(PRY_M_TOKENS, "parry_tokens_total", PRY_COUNTER, "target,kind", "Tokens that providers reported.")                 \
  X(PRY_M_COST, "parry_cost_total", PRY_COUNTER, "target", "Cost of these tokens, in the prices' currency.")           \
  X(PRY_M_KEY_USABLE, "parry_key_usable", PRY_GAUGE, "provider,key", "Whether calls may use this key now.")            \
  X(PRY_M_CALL_DURATION, "parry_call_duration_seconds", PRY_HISTOGRAM, "route", "From arrival to outcome.")            \
  X(PRY_M_FIRST_BYTE, "parry_attempt_first_byte_seconds", PRY_HISTOGRAM, "target", "From sending to the first byte.")  \
  X(PRY_M_WAIT, "parry_wait_seconds_total", PRY_COUNTER, "reason", "Time calls spent waiting.")                        \
  X(PRY_M_VERDICTS, "parry_verdicts_total", PRY_COUNTER, "policy,verdict", "Verdicts executed.")                       \
  X(PRY_M_POLICY_FAULTS, "parry_policy_faults_total", PRY_COUNTER, "policy,kind", "Policies that failed.")             \
  X(PRY_M_BREAKER_STATE, "parry_breaker_state", PRY_GAUGE, "target,state", "1 for the state the breaker is in.")       \
  X(PRY_M_BREAKER_TRANSITIONS, "parry_breaker_transitions_total", PRY_COUNTER, "target,to", "Breaker state changes.")  \
  X(PRY_M_BUDGET, "parry_retry_budget_remaining_ratio", PRY_GAUGE, "target", "Share of the retry budget left.")        \
  X(PRY_M_QUEUE_DEPTH, "parry_queue_depth", PRY_GAUGE, "", "Calls waiting for a place.")                               \
  X(PRY_M_RENEWALS, "parry_renewals_total", PRY_COUNTER, "credential,result", "Credential renewals.")                  \
  X(PRY_M_TOKEN_EXPIRY, "parry_token_expiry_timestamp_seconds", PRY_GAUGE, "credential", "When the token expires.")    \
  X(PRY_M_RELOAD_OK, "parry_config_last_reload_successful", PRY_GAUGE, "", "Whether the last reload was taken over.")  \
  X(PRY_M_RELOAD_TIME, "parry_config_last_reload_success_timestamp_seconds", PRY_GAUGE, "", "When that was.")          \
  X(PRY_M_GENERATION, "parry_generation_info", PRY_GAUGE, "generation", "1 for the serving generation.")               \
  X(PRY_M_ROLLBACKS, "parry_rollbacks_total", PRY_COUNTER, "kind", "Generations that were undone.")                    \
  X(PRY_M_ALERTS, "parry_alerts_total", PRY_COUNTER, "sink,result", "Alerts by result of delivery.")                   \
  X(PRY_M_EVENTS_DROPPED, "parry_event_records_overwritten_total", PRY_COUNTER, "", "Event records the ring lost.")    \
  X(PRY_M_OPEN_CALLS, "parry_calls_open", PRY_GAUGE, "", "Calls without an outcome yet.")                              \
  X(PRY_M_BUILD, "parry_build_info", PRY_GAUGE, "version", "1, with the version.")

enum pry_metric {
#define X(name, text, type, labels, help) name,
  PRY_METRICS(X)
#undef X
      PRY_METRIC_COUNT
};

enum pry_metric_type { PRY_COUNTER, PRY_GAUGE, PRY_HISTOGRAM };

enum { PRY_METRICS_SERIES_MAX = 512, PRY_METRICS_LABELS_MAX = 2 };

struct pry_metrics;

struct pry_metrics *pry_metrics_new(void);
void pry_metrics_free(struct pry_metrics *metrics);

/* Adds to a counter, records into a histogram (buckets 0.01 · 2ⁿ … 327.68 s), or adds to a gauge. Labels in the
 * table's order; NULL where there is none. Out of memory: the sample is lost, counted nowhere. NULL metrics: nothing. */
void pry_metrics_add(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value);
/* Sets a gauge. */
void pry_metrics_set(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value);
/* Forgets all series of a gauge, before it is set anew from current state. */
void pry_metrics_clear(struct pry_metrics *metrics, enum pry_metric metric);

/* A counter's or gauge's value, 0 when there is none; for tests and status. */
double pry_metrics_value(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2);

/* Appends everything in Prometheus text format. */
bool pry_metrics_render(struct pry_metrics *metrics, struct pry_buffer *text);

#endif
