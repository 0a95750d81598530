/* http.probe: which URLs may be asked, where redirects lead, what a policy gets; call:json with long texts cut. */
#include "lua_rig.h"

#include "lib_http.h"

/* ---- URLs -------------------------------------------------------------------------------------------------- */

static const struct pry_text_list nobody = {NULL, 0};

static const char *refusal_of(const char *url, const struct pry_text_list *allowed)
{
  struct pry_probe_refusal refusal = {NULL, NULL};
  struct pry_buffer out;
  pry_buffer_init(&out, PRY_HTTP_URL_MAX);
  bool fine = pry_probe_check_url(pry_slice_of(url), allowed, &out, &refusal);
  pry_buffer_fini(&out);
  assert_true(fine == !refusal.category);
  return fine ? "fine" : refusal.category;
}

static void test_urls(void **unused)
{
  (void)unused;
  static const struct {
    const char *url, *want;
  } rows[] = {
      {"https://files.example/a.pdf", "fine"},
      {"http://files.example", "fine"},
      {"http://files.example:80/", "fine"},
      {"https://files.example:443/", "fine"},
      {"https://files.example:8443/", "fine"},
      {"http://8.8.8.8/a", "fine"},
      {"http://[2606:4700::1111]/a", "fine"},
      {"", "invalid_request"},
      {"files.example/a.pdf", "invalid_request"},
      {"//files.example/a.pdf", "invalid_request"},
      {"HTTPS://files.example/", "invalid_request"},
      {"file:///etc/passwd", "invalid_request"},
      {"ftp://files.example/a", "invalid_request"},
      {"https://user@files.example/", "invalid_request"},
      {"https://user:password@files.example/", "invalid_request"},
      {"https://files.example@10.0.0.1/", "invalid_request"},
      {"https://files.example\\@10.0.0.1/", "invalid_request"},
      {"https://files.example/a b", "invalid_request"},
      {"https://files.example/a\r\nHost: x", "invalid_request"},
      {"https://files%2eexample/", "invalid_request"},
      {"https:///a", "invalid_request"},
      {"https://:443/a", "invalid_request"},
      {"https://files.example:/a", "invalid_request"},
      {"https://files.example:0/a", "invalid_request"},
      {"https://files.example:65536/a", "invalid_request"},
      {"https://files.example:+443/a", "invalid_request"},
      {"http://127.0.0.1/", "permission"},
      {"http://127.0.0.1:8080/", "permission"},
      {"http://0.0.0.0/", "permission"},
      {"http://10.1.2.3/", "permission"},
      {"http://100.64.0.1/", "permission"},
      {"http://169.254.169.254/latest/meta-data", "permission"},
      {"http://172.16.0.1/", "permission"},
      {"http://192.168.1.1/", "permission"},
      {"http://255.255.255.255/", "permission"},
      {"http://[::1]/", "permission"},
      {"http://[::]/", "permission"},
      {"http://[::ffff:127.0.0.1]/", "permission"},
      {"http://[::ffff:7f00:1]/", "permission"},
      {"http://[64:ff9b::7f00:1]/", "permission"},
      {"http://[fe80::1]/", "permission"},
      {"http://[fd00::1]/", "permission"},
      {"http://files.example:22/", "permission"},
      {"http://files.example:25/", "permission"},
      {"https://files.example:1023/", "permission"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(refusal_of(rows[i].url, &nobody), rows[i].want) != 0)
      fail_msg("%s: %s instead of %s", rows[i].url, refusal_of(rows[i].url, &nobody), rows[i].want);
}

static void test_allowed_hosts(void **unused)
{
  (void)unused;
  static const char *const items[] = {"127.0.0.1:8080", "Files.Internal:80"};
  static const struct pry_text_list allowed = {items, 2};
  assert_string_equal(refusal_of("http://127.0.0.1:8080/a", &allowed), "fine");
  assert_string_equal(refusal_of("http://files.internal/a", &allowed), "fine");
  assert_string_equal(refusal_of("http://127.0.0.1:8081/a", &allowed), "permission");
  assert_string_equal(refusal_of("http://127.0.0.1/a", &allowed), "permission");
  assert_string_equal(refusal_of("http://user@127.0.0.1:8080/a", &allowed), "invalid_request");
  assert_false(pry_probe_is_allowed(PRY_SLICE("https://files.internal/a"), &allowed));
  assert_false(pry_probe_is_allowed(PRY_SLICE("http://127.0.0.1:8080/"), &nobody));
}

static void test_spelling(void **unused)
{
  (void)unused;
  struct pry_probe_refusal refusal;
  struct pry_buffer out;
  pry_buffer_init(&out, PRY_HTTP_URL_MAX);
  assert_true(
      pry_probe_check_url(PRY_SLICE("https://f.example/\xe6\x96\x87.pdf?a=\xff#part"), &nobody, &out, &refusal));
  assert_string_equal(pry_buffer_text(&out), "https://f.example/%E6%96%87.pdf?a=%FF");
  char *url = malloc(PRY_HTTP_URL_MAX + 64);
  assert_non_null(url);
  int start = snprintf(url, 64, "https://f.example/");
  memset(url + start, 'a', PRY_HTTP_URL_MAX);
  url[start + PRY_HTTP_URL_MAX] = '\0';
  assert_false(pry_probe_check_url(pry_slice_of(url), &nobody, &out, &refusal));
  assert_string_equal(refusal.category, "invalid_request");
  free(url);
  pry_buffer_fini(&out);
}

static void test_redirects(void **unused)
{
  (void)unused;
  static const struct {
    const char *url, *location, *want; /* NULL: nowhere */
  } rows[] = {
      {"https://a.example/x/y?q=1", "https://b.example/z", "https://b.example/z"},
      {"http://a.example/x/y", "https://b.example/z", "https://b.example/z"},
      {"https://a.example/x/y", "http://b.example/z", NULL},
      {"https://a.example/x/y?q=1", "/z?r", "https://a.example/z?r"},
      {"https://a.example", "/z", "https://a.example/z"},
      {"https://a.example", "z", "https://a.example/z"},
      {"https://a.example/x/y?q=/1", "z", "https://a.example/x/z"},
      {"https://a.example/x/y", "../z", "https://a.example/x/../z"},
      {"https://a.example/x/y?q=1", "?r=2", "https://a.example/x/y?r=2"},
      {"https://a.example/x/y?q=1", "", "https://a.example/x/y"},
      {"https://a.example/x", "//b.example/z", "https://b.example/z"},
      {"http://a.example:81/x", "//b.example/z", "http://b.example/z"},
      {"https://a.example/x", "ftp://b.example/z", "ftp://b.example/z"},
      {"https://a.example/x", "javascript:alert(1)", "javascript:alert(1)"},
  };
  struct pry_buffer out;
  pry_buffer_init(&out, PRY_HTTP_URL_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    bool leads = pry_probe_redirect(pry_slice_of(rows[i].url), pry_slice_of(rows[i].location), &out);
    if (leads != (rows[i].want != NULL) || (leads && strcmp(pry_buffer_text(&out), rows[i].want) != 0))
      fail_msg("%s then %s: %s", rows[i].url, rows[i].location, leads ? pry_buffer_text(&out) : "nowhere");
  }
  pry_buffer_fini(&out);
}

/* ---- http.probe --------------------------------------------------------------------------------------------- */

static void push(struct rig *rig, const struct pry_http_step *step)
{
  assert_true(pry_http_script_push(rig->script, step));
}

static void wait_ok(struct rig *rig)
{
  assert_int_equal(rig_ask(rig, PRY_ON_REQUEST), PRY_ASK_PENDING);
  pry_loop_advance(rig->loop, 60 * PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  rig->readies = 0;
  if (rig->ready_status == PRY_ASK_FAULT)
    fail_msg("fault: %s", rig->ask.fault);
  assert_int_equal(pry_http_open_count(rig->http), 0);
}

static void test_probe(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(
      ON_REQUEST("local a, err = http.probe { url = 'https://f.example/a.pdf?sig=s3cr3t' }\n"
                 "assert(err == nil and a.status == 200 and a.url == 'https://f.example/a.pdf?sig=s3cr3t')\n"
                 "assert(a.headers['content-length'] == '12' and a.headers['x-other'] == nil and a.body == nil)\n"
                 "a, err = http.probe { url = 'https://f.example/b', method = 'GET' }\n"
                 "assert(a.status == 206 and a.headers['content-range'] == 'bytes 0-0/7')"));
  struct pry_headers headers;
  struct pry_slice body = PRY_SLICE("x"), value;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Length"), PRY_SLICE("12")));
  assert_true(pry_headers_add(&headers, PRY_SLICE("X-Other"), PRY_SLICE("1")));
  push(rig, &(struct pry_http_step){.headers = &headers});
  pry_headers_clear(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Range"), PRY_SLICE("bytes 0-0/7")));
  push(rig,
       &(struct pry_http_step){.status = 206, .headers = &headers, .chunks = &body, .chunk_count = 1, .hang = true});
  pry_headers_fini(&headers);
  wait_ok(rig);
  assert_string_equal(pry_http_script_seen(rig->script, 0)->method, "HEAD");
  assert_false(pry_http_script_seen(rig->script, 0)->cancelled);
  const struct pry_http_seen *get = pry_http_script_seen(rig->script, 1);
  assert_string_equal(get->method, "GET");
  assert_true(get->cancelled); /* nothing of the body was waited for */
  assert_true(pry_headers_get(&get->headers, PRY_SLICE("range"), &value));
  assert_false(pry_headers_get(&get->headers, PRY_SLICE("authorization"), &value));
  assert_false(pry_headers_get(&get->headers, PRY_SLICE("x-test"), &value)); /* the client's fields are its own */
  assert_non_null(strstr(rig_reads(rig), "http.probe"));
  assert_non_null(strstr(rig_reads(rig), "https://f.example/a.pdf"));
  assert_null(strstr(rig_reads(rig), "s3cr3t"));
  rig_free(rig);
}

static void test_probe_failures(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_REQUEST("local function failed(v, category)\n"
                         "  local a, err = http.probe(v)\n"
                         "  assert(a == nil and err.category == category, err and err.category or 'answered')\n"
                         "  assert(not err.message:find('10.0', 1, true))\n"
                         "end\n"
                         "failed({ url = 'nonsense' }, 'invalid_request')\n"
                         "failed({ url = ('https://f.example/'):rep(1000) }, 'invalid_request')\n"
                         "failed({ url = 'http://10.0.0.1/' }, 'permission')\n"
                         "failed({ url = 'https://inside.example/' }, 'permission')\n"
                         "failed({ url = 'https://down.example/' }, 'network')\n"
                         "local t = now()\n"
                         "failed({ url = 'https://slow.example/', timeout = 2 }, 'timeout')\n"
                         "assert(now() == t + 2)\n"
                         "failed({ url = 'https://slow.example/' }, 'timeout')\n"
                         "assert(now() == t + 10)\n"
                         "failed({ url = 'https://f.example/' }, 'timeout')\n"
                         "assert(now() == t + 10)"));
  push(rig, &(struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true, .not_public = true});
  push(rig, &(struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true});
  push(rig, &(struct pry_http_step){.hang = true});
  push(rig, &(struct pry_http_step){.hang = true});
  wait_ok(rig);
  assert_int_equal(pry_http_script_seen_count(rig->script), 4);
  rig_free(rig);
}

static void test_probe_follows_redirects(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_REQUEST("for _, method in ipairs { 'HEAD', 'GET' } do\n"
                         "  local a = http.probe { url = 'https://f.example/a', redirects = 2, method = method }\n"
                         "  assert(a.status == 200 and a.url == 'https://f.example/c')\n"
                         "end\n"
                         "local a = http.probe { url = 'https://f.example/a' }\n"
                         "assert(a.status == 302 and a.headers.location == '/b')\n"
                         "local b, err = http.probe { url = 'https://f.example/a', redirects = 1 }\n"
                         "assert(b == nil and err.category == 'permission')"));
  struct pry_headers to_b, to_c, inside;
  pry_headers_init(&to_b), pry_headers_init(&to_c), pry_headers_init(&inside);
  assert_true(pry_headers_add(&to_b, PRY_SLICE("Location"), PRY_SLICE("/b")));
  assert_true(pry_headers_add(&to_c, PRY_SLICE("Location"), PRY_SLICE("https://f.example/c")));
  assert_true(pry_headers_add(&inside, PRY_SLICE("Location"), PRY_SLICE("https://[::ffff:127.0.0.1]/")));
  for (int i = 0; i < 2; i++) {
    push(rig, &(struct pry_http_step){.status = 302, .headers = &to_b});
    push(rig, &(struct pry_http_step){.status = 307, .headers = &to_c});
    push(rig, &(struct pry_http_step){.status = 200});
  }
  push(rig, &(struct pry_http_step){.status = 302, .headers = &to_b});
  push(rig, &(struct pry_http_step){.status = 302, .headers = &inside});
  wait_ok(rig);
  assert_int_equal(pry_http_script_seen_count(rig->script), 8);
  pry_headers_fini(&to_b), pry_headers_fini(&to_c), pry_headers_fini(&inside);
  rig_free(rig);
}

static void test_probe_misuse_raises(void **unused)
{
  (void)unused;
  static const char *const bodies[][2] = {
      {"http.probe {}", "http.probe{} needs a url"},
      {"http.probe { url = 'x', headers = {} }", "http.probe{} has no field \"headers\""},
      {"http.probe { url = 'x', method = 'POST' }", "method is \"HEAD\" or \"GET\""},
      {"http.probe { url = 'x', redirects = 4 }", "redirects must be a number from 0 to 3"},
      {"http.probe { url = 'x', timeout = 11 }", "timeout must be a number from"},
  };
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    char text[256];
    snprintf(text, sizeof text, ON_REQUEST("%s"), bodies[i][0]);
    struct rig *rig = rig_new(text);
    assert_int_equal(rig_ask(rig, PRY_ON_REQUEST), PRY_ASK_FAULT);
    if (!strstr(rig->ask.fault, bodies[i][1]))
      fail_msg("%s: %s", bodies[i][0], rig->ask.fault);
    rig_free(rig);
  }
}

static void test_cancelled_probe(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_REQUEST("http.probe { url = 'https://f.example/a' }"));
  push(rig, &(struct pry_http_step){.hang = true});
  assert_int_equal(rig_ask(rig, PRY_ON_REQUEST), PRY_ASK_PENDING);
  pry_loop_advance(rig->loop, PRY_SECOND);
  struct pry_state *state = rig->engine->control->state;
  state->ops->cancel(state, &rig->ask);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  assert_true(pry_http_script_seen(rig->script, 0)->cancelled);
  rig_free(rig);
}

/* ---- on_failure and reading bodies --------------------------------------------------------------------------- */

static void test_cut_bodies(void **unused)
{
  (void)unused;
  static const char head[] = "{\"model\":\"m\",\"url\":\"data:image/png;base64,";
  enum { LONG = 12 * 1024 * 1024 };
  struct rig *rig = rig_new(ON_REQUEST("local body, err = call:json()\n"
                                       "assert(body == nil and err.message == 'longer than 1 MiB')\n"
                                       "body = call:json { cut = 300 }\n"
                                       "assert(body.model == 'm' and body.after == 7 and #body.url < 340)\n"
                                       "assert(body.url:sub(1, 22) == 'data:image/png;base64,')\n"
                                       "assert(body.url:match('%.%.%.%[(%d+) bytes%]$') == '12582934', body.url)"));
  char *text = malloc(LONG + 256);
  assert_non_null(text);
  int start = snprintf(text, 128, "%s", head);
  memset(text + start, 'A', LONG);
  int end = snprintf(text + start + LONG, 64, "\",\"after\":7}");
  rig->view.body = (struct pry_slice){text, (size_t)(start + LONG + end)};
  rig->view.body_is_json = true;
  rig_ok(rig, PRY_ON_REQUEST);
  rig_free(rig);
  free(text);
}

/* Texts full of escapes and of characters of several bytes are cut between them, wherever the cut falls. */
static void test_cut_between_characters(void **unused)
{
  (void)unused;
  static const char *const units[] = {"\\ud83d\\ude00",   "\\u00e9", "\\\\", "\\\"", "\xe6\x96\x87",
                                      "\xf0\x9f\x98\x80", "\\ud83d", "\\n",  "a",    "\x80"};
  for (size_t unit = 0; unit < sizeof units / sizeof *units; unit++)
    for (int shift = 0; shift < 13; shift++) {
      struct rig *rig = rig_new(ON_REQUEST("local body, err = call:json { cut = 256 }\n"
                                           "assert(err == nil and #body.t <= 300 and body.t:find(' bytes]', 1, true))\n"
                                           "assert(body.after == true)"));
      struct pry_buffer text;
      pry_buffer_init(&text, 0);
      assert_true(pry_buffer_append_text(&text, "{\"t\":\""));
      for (int i = 0; i < shift; i++)
        assert_true(pry_buffer_append_text(&text, "x"));
      for (int i = 0; i < 300; i++)
        assert_true(pry_buffer_append_text(&text, units[unit]));
      assert_true(pry_buffer_append_text(&text, "\",\"after\":true}"));
      rig->view.body = pry_buffer_slice(&text);
      rig_ok(rig, PRY_ON_REQUEST);
      pry_buffer_fini(&text);
      rig_free(rig);
    }
}

/* A body of brackets was a fault of whoever read it: a client could have policies blamed, and rolled back. */
static void test_a_body_too_large_for_scripts_is_no_fault(void **unused)
{
  (void)unused;
  static const char *const units[] = {"[[],", "{\"a\":[{\"a\":", "0,", "\"\",", "{},"};
  for (size_t unit = 0; unit < sizeof units / sizeof *units; unit++) {
    struct rig *rig = rig_new(ON_REQUEST("for _, options in ipairs { {}, { cut = 256 } } do\n"
                                         "  local body, err = call:json(options)\n"
                                         "  assert(body == nil and err.message)\n"
                                         "end"));
    struct pry_buffer text;
    pry_buffer_init(&text, 0);
    assert_true(pry_buffer_append_text(&text, "["));
    if (unit == 0 || unit == 1) /* nested too deeply is refused before */
      for (int i = 0; i < 100; i++)
        assert_true(pry_buffer_append_text(&text, units[unit]));
    else
      while (text.size < 1000000)
        assert_true(pry_buffer_append_text(&text, units[unit]));
    assert_true(pry_buffer_append_text(&text, "0]"));
    rig->view.body = pry_buffer_slice(&text);
    rig_ok(rig, PRY_ON_REQUEST);
    pry_buffer_fini(&text);
    rig_free(rig);
  }
}

/* ---- call:find ------------------------------------------------------------------------------------------------- */

static void test_find(void **unused)
{
  (void)unused;
  static const char body[] =
      "{ \"image_url\" : \"a\" , "
      "\"x\":[{\"image_url\":{\"detail\":\"low\",\"url\":\"b\"}},[{\"file\\u005furl\":\"c\\/d\"}],"
      "{\"image_url\":[\"e\",{\"url\":\"f\"}]},null,-1.5e3,true,{\"url\":\"not asked for\",\"image_url\":5}],"
      "\"tools\":[{\"image_url\":\"a schema\"}],\"y\":{\"tools\":{\"file_url\":\"g\"}},\"model\":\"m\"}";
  struct rig *rig = rig_new(ON_REQUEST("local found = call:find({ 'image_url', 'file_url' }, 10)\n"
                                       "local texts = {}\n"
                                       "for i, row in ipairs(found) do\n"
                                       "  texts[i] = row.name .. ' ' .. row.path .. ' ' .. row.value\n"
                                       "end\n"
                                       "log.info(table.concat(texts, '; '))\n"
                                       "assert(#call:find({ 'image_url' }, 2) == 3)\n"
                                       "assert(#call:find({ 'nothing' }, 2) == 0)\n"
                                       "assert(not pcall(call.find, call, {}, 1))\n"
                                       "assert(not pcall(call.find, call, { 'a' }, 64))\n"
                                       "assert(not pcall(call.find, call, 'a', 1))\n"
                                       "assert(not pcall(call.find, call, { 5 }, 1))"));
  rig->view.body = PRY_SLICE(body);
  rig->view.body_is_json = true;
  rig_ok(rig, PRY_ON_REQUEST);
  if (!rig_logged(rig, "image_url image_url a; image_url x[0].image_url.url b; file_url x[1][0].file\\\\u005furl c/d; "
                       "image_url x[2].image_url[0] e; image_url x[2].image_url[1].url f; file_url y.tools.file_url g"))
    fail_msg("%s", pry_buffer_text(&rig->lines));
  rig_free(rig);
}

/* What is not known to be JSON is read whole first, however it is broken; what is too long or not kept is said to be so. */
static void test_find_in_what_is_no_json(void **unused)
{
  (void)unused;
  static const char whole[] = "{\"a\":[{\"url\":\"\\\"x\\u00e9\"},[1,[true]]],\"b\":{\"url\":null},\"c\":\"\"}";
  struct rig *rig =
      rig_new(ON_REQUEST("local found, err = call:find({ 'url', 'b' }, 5)\n"
                         "if call:header('x-test') == 'no' then assert(found == nil and err.message) end"));
  for (size_t size = 0; size <= sizeof whole - 1; size++) {
    char *text = malloc(size + 1); /* so that a sanitizer sees what is read behind it */
    assert_non_null(text);
    memcpy(text, whole, size);
    rig->view.body = (struct pry_slice){text, size};
    rig_ok(rig, PRY_ON_REQUEST);
    free(text);
  }
  assert_true(pry_headers_set(&rig->headers, PRY_SLICE("x-test"), PRY_SLICE("no")));
  rig->view.body = PRY_SLICE("{\"url\":\"x\"");
  rig_ok(rig, PRY_ON_REQUEST);
  rig->view.body = PRY_SLICE("");
  rig->view.body_passes = true;
  rig_ok(rig, PRY_ON_REQUEST);
  rig_free(rig);
}

static void test_digest(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_REQUEST("assert(digest('abc') == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')\n"
                         "assert(digest('') == 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')\n"
                         "assert(not pcall(digest, 5))"));
  rig_ok(rig, PRY_ON_REQUEST);
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_urls),
      cmocka_unit_test(test_allowed_hosts),
      cmocka_unit_test(test_spelling),
      cmocka_unit_test(test_redirects),
      cmocka_unit_test(test_probe),
      cmocka_unit_test(test_probe_failures),
      cmocka_unit_test(test_probe_follows_redirects),
      cmocka_unit_test(test_probe_misuse_raises),
      cmocka_unit_test(test_cancelled_probe),
      cmocka_unit_test(test_cut_bodies),
      cmocka_unit_test(test_cut_between_characters),
      cmocka_unit_test(test_a_body_too_large_for_scripts_is_no_fault),
      cmocka_unit_test(test_find),
      cmocka_unit_test(test_find_in_what_is_no_json),
      cmocka_unit_test(test_digest),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
