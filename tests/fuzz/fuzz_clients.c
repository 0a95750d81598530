/* A clients file: parsed without a crash, and whatever is taken can be used. */
#include "fuzz.h"

#include "clients.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct pry_report report;
  struct pry_clients *clients = pry_clients_new();
  if (!clients)
    return 0;
  pry_report_init(&report);
  struct pry_slice text = fuzz_copy((struct pry_slice){(const char *)data, size});
  struct pry_client_table *table = pry_client_table_parse(clients, text, "clients.json", size & 1, &report);
  REQUIRE((table == NULL) == (report.errors > 0));
  if (table) {
    struct pry_slice keys[] = {PRY_SLICE("sk-parry-aaaaaaaaaaaaaaaa"), text};
    struct pry_knock knock = {.keys = keys, .key_count = 2, .path = PRY_SLICE("/v1/chat/completions"), .now = 1};
    struct pry_lease lease;
    double retry_after;
    pry_clients_install(clients, table);
    enum pry_admission admission = pry_clients_admit(clients, &knock, &lease, &retry_after);
    REQUIRE(admission != PRY_ADMISSION_NOT_LOADED && (admission != PRY_ADMITTED || lease.client));
    pry_lease_release(&lease);
  }
  pry_report_fini(&report);
  pry_clients_free(clients);
  fuzz_release(text);
  return 0;
}
