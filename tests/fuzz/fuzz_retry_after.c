/* Whatever the lines say: the answer is a time from now up to the maximum, one more line never makes it earlier, and a
 * date that was read is the same date when written again. The input is header lines separated by LF. */
#include "fuzz.h"

#include "retry_after.h"

#include <math.h>
#include <time.h>

#define NOW 784111777.0 /* Sun, 06 Nov 1994 08:49:37 GMT */

static void read_lines(struct pry_headers *headers, struct pry_slice text)
{
  while (text.size) {
    const char *end = memchr(text.data, '\n', text.size);
    size_t size = end ? (size_t)(end - text.data) : text.size;
    const char *colon = memchr(text.data, ':', size);
    if (colon) {
      size_t name = (size_t)(colon - text.data);
      pry_headers_add(headers, (struct pry_slice){text.data, name}, (struct pry_slice){colon + 1, size - name - 1});
    }
    size += end ? 1 : 0;
    text.data += size;
    text.size -= size;
  }
}

static void check_date(struct pry_slice text)
{
  static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  double seconds, again;
  if (!pry_http_date(text, NOW, &seconds))
    return;
  REQUIRE(isfinite(seconds) && seconds == floor(seconds));
  time_t when = (time_t)seconds;
  struct tm date;
  REQUIRE(gmtime_r(&when, &date));
  if (date.tm_year + 1900 > 9999) /* 23:59:60 on the last day */
    return;
  char written[80];
  int size = snprintf(written, sizeof written, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[date.tm_wday], date.tm_mday,
                      months[date.tm_mon], date.tm_year + 1900, date.tm_hour, date.tm_min, date.tm_sec);
  REQUIRE(pry_http_date((struct pry_slice){written, (size_t)size}, NOW, &again));
  REQUIRE(again == seconds);
}

static bool answer(const struct pry_headers *headers, double *seconds)
{
  *seconds = -1;
  bool said = pry_retry_after(headers, NOW, seconds);
  REQUIRE(said ? *seconds >= 0 && *seconds <= PRY_RETRY_AFTER_MAX : *seconds == -1);
  return said;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct pry_slice text = fuzz_copy((struct pry_slice){(const char *)data, size});
  struct pry_headers headers;
  pry_headers_init(&headers);
  check_date(text);
  read_lines(&headers, text);
  for (size_t i = 0; i < headers.count; i++)
    check_date(pry_headers_at(&headers, i).value);
  double before, after;
  struct pry_slice name = PRY_SLICE("retry-after"), milliseconds;
  bool said = answer(&headers, &before);
  enum pry_should_retry should = pry_should_retry(&headers);
  REQUIRE(should == PRY_SHOULD_RETRY_UNSAID || should == PRY_SHOULD_RETRY_NO || should == PRY_SHOULD_RETRY_YES);
  if (pry_headers_add(&headers, name, PRY_SLICE("7"))) {
    REQUIRE(answer(&headers, &after));
    REQUIRE(!said || after >= before);
    REQUIRE(pry_headers_get(&headers, PRY_SLICE("retry-after-ms"), &milliseconds) || after >= 7);
  }
  pry_headers_fini(&headers);
  fuzz_release(text);
  return 0;
}
