/*
 * parry.hpp: parry.h for C++17, header only and thin. Everything parry.h says holds here; this adds who owns what. It is
 * long because it is all there is: no header but parry.h and this one is installed, so it cannot be cut into files.
 *
 *     parry::options options;
 *     options.policy_dir = "/etc/parry/policies";
 *     parry::engine engine(options);
 *
 *     parry::event event;
 *     event.target = "openai/gpt-4o", event.status = 503;
 *     parry::decision now = engine.decide(event);
 *     if (now.action() == PARRY_RETRY)
 *       sleep_and_try_again(now.after());
 *
 * Scope. C calls the engine `struct parry`; C++ allows no namespace of that name beside it. So the struct, of which C
 * shows nothing, is completed here as a class that only holds the names below: write parry::engine, and
 * `using engine = parry::engine;` where that is too long.
 *
 * Errors. What parry.h returns as an error is thrown as parry::error, refused policies as parry::policy_error. What
 * only says that something has ended by now (PARRY_ENOENT) is a false. How a call went is told by its outcome, never
 * by an exception.
 *
 * Exceptions of callbacks. None ever goes through C. It is caught where it left the callback and kept; run(),
 * dispatch() or close() throws it once parry has returned. One is kept, the first; with options.on_exception each goes
 * there instead, at once and on the thread it happened, and none is kept. A call one of whose callbacks threw is
 * cancelled; on_done comes all the same. The destructor cannot throw: what callbacks throw inside it goes to
 * options.on_exception, or nowhere.
 *
 * Lifetime. An engine is movable, not copyable; its destructor ends every open call, whose on_done comes from inside.
 * Destroyed by one of its own callbacks, it is freed when the run() or dispatch() around it returns. A parry::call is
 * a name: dropping it leaves the call running, and it may outlive the engine. What callbacks have captured lives until
 * the last of them has come.
 *
 * Text. Every std::string_view passed in is used only during the call and need not end in NUL; one that has a NUL
 * inside is PARRY_EINVAL, bodies excepted. Empty is "not given". A std::string_view given to a callback is valid until
 * that returns; everything in std::string may be kept.
 *
 * Threads. As in parry.h: everything may be called from any thread, one at a time runs or dispatches, and moving,
 * closing and destroying an engine must not meet another use of that engine.
 */
#ifndef PARRY_HPP
#define PARRY_HPP

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* parry_status is a struct and a function, as C allows */
#endif
#include <parry.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct parry {
  parry() = delete;
  ~parry() = delete; /* only parry_free() ends what C made */
  parry(const parry &) = delete;
  parry &operator=(const parry &) = delete;

  class error;
  class policy_error;
  class failure;
  struct header;
  struct header_view;
  struct alert;
  struct reload_info;
  struct sample;
  struct options;
  struct request;
  struct event;
  struct outcome;
  struct attempt;
  struct call_ops;
  class call;
  class decision;
  class question;
  class engine;

  using status = struct ::parry_status;
  enum class flow { go_on, pause };

private:
  class texts;
  struct core;
  struct open_call;
  struct open_decision;
  struct function;
  static int check(int result);
};

/* ---- errors ----------------------------------------------------------------------------------------------- */

/* An error of parry.h. what(): its sentence. */
class parry::error : public std::runtime_error
{
public:
  explicit error(int code, const std::string &text = {})
      : std::runtime_error(text.empty() ? parry_strerror(code) : text), code_(code)
  {
  }

  /* enum parry_error */
  int code() const noexcept
  {
    return code_;
  }

private:
  int code_;
};

/* PARRY_EPOLICY. what(): the findings, one "file:line: text" per line. */
class parry::policy_error : public parry::error
{
public:
  explicit policy_error(const std::string &findings) : error(PARRY_EPOLICY, findings)
  {
  }
};

/* Thrown by a host function to say that it failed: the policy sees nil, err with this message, and nobody else hears
 * of it. Any other exception is a failure for the policy, too, and is kept like those of every callback. */
class parry::failure : public std::runtime_error
{
public:
  using std::runtime_error::runtime_error;
};

/* ---- what goes in and out ------------------------------------------------------------------------------------ */

/* A name and its value: an HTTP header, a secret. */
struct parry::header {
  std::string name{}, value{};
};

/* The same, passed in. */
struct parry::header_view {
  std::string_view name{}, value{};
};

struct parry::alert {
  std::string key{}, sink{}, severity{}, title{}, text{}, cause{};
  bool resolved = false;
  unsigned long count = 0;
};

struct parry::reload_info {
  int error = PARRY_OK; /* PARRY_EPOLICY: refused, the old ones go on */
  std::string generation{}, findings{};
  bool rolled_back = false;
};

struct parry::sample {
  std::string_view name{}, type{}, help{}, labels{};
  double value = 0;
};

/* As struct parry_options, whose comments say more. Zero and empty mean its defaults. */
struct parry::options {
  std::string policy_dir{}; /* or init_lua: one of the two */
  std::string init_lua{};
  std::optional<std::string> share_dir{}; /* not set: what was installed; "": nothing */
  std::string state_dir{};
  std::string ca_file{};
  std::vector<header> secrets{};
  unsigned threads = 0;
  unsigned deciders = 0;
  std::size_t max_calls = 0;
  std::size_t max_buffered = 0;
  bool watch = false;
  int log_level = PARRY_LOG_INFO;
  std::function<void(int level, std::string_view line)> log{};
  std::function<void(const parry::alert &)> alert{};
  std::function<void(const reload_info &)> reloaded{};
  /* For what callbacks throw, instead of run() and dispatch(). Any thread, if a function is any_thread. What it throws
   * itself is dropped. */
  std::function<void(std::exception_ptr)> on_exception{};
};

/* As struct parry_request. */
struct parry::request {
  std::string_view path{};
  std::string_view body{};
  std::vector<header_view> headers{};
  std::string_view method{}; /* empty: POST */
  std::string_view target{};
};

/* As struct parry_event. */
struct parry::event {
  std::string_view target{};
  bool ok = false;
  int status = 0;
  int curl_code = 0;
  std::string_view category{}, code{}, message{};
  double retry_after = 0;
  bool not_sent = false;
  std::vector<header_view> headers{};
  std::string_view body{};
  std::string_view route{};
  unsigned attempt = 0;
  double deadline_left = 0;
  bool not_repeatable = false;
  double seconds = 0;
  std::string_view name{};
  std::string_view fields{}; /* a JSON object */
};

/* As struct parry_outcome; retry_after is empty where it is not known. */
struct parry::outcome {
  bool ok = false;
  int status = 0;
  std::string category{}, code{}, message{}, why{};
  std::optional<double> retry_after{};
  unsigned attempts = 0;
  std::string target{}, call_id{}, generation{};
  bool truncated = false;
};

/* As struct parry_attempt: one that the host is to make. */
struct parry::attempt {
  parry_call_id call{};
  unsigned number = 0;
  std::string target{}, provider{}, model{};
  double deadline_left = 0;
  std::string_view body{}; /* valid until the callback returns */
};

/* As struct parry_call_ops. Any may be empty. */
struct parry::call_ops {
  std::function<void(int status, const std::vector<header_view> &headers)> on_headers{};
  std::function<flow(std::string_view data)> on_data{};
  std::function<void(const outcome &)> on_done{};
  std::function<void(const attempt &)> on_attempt{};
  std::function<void(parry_call_id call, unsigned number)> on_abandon{};
};

/* What to do. The texts live in it and are copied with it. */
class parry::decision
{
public:
  /* enum parry_action */
  int action() const noexcept
  {
    return told_.action;
  }
  int status() const noexcept
  {
    return told_.status;
  }
  /* Seconds to wait first. */
  double after() const noexcept
  {
    return told_.after;
  }
  std::string_view target() const noexcept
  {
    return told_.target;
  }
  std::string_view category() const noexcept
  {
    return told_.category;
  }
  std::string_view policy() const noexcept
  {
    return told_.policy;
  }
  std::string_view why() const noexcept
  {
    return told_.why;
  }
  /* PARRY_RESPOND. At most body_max bytes; body_size() says how many it had. */
  std::string_view body() const noexcept
  {
    return body_;
  }
  std::size_t body_size() const noexcept
  {
    return told_.body_size;
  }
  static constexpr std::size_t body_max = 16 * 1024;

private:
  friend class engine;
  friend struct parry::open_decision;

  decision(const parry_decision &told, const char *body) : told_(told)
  {
    if (told.action == PARRY_RESPOND && body)
      body_.assign(body, told.body_size < body_max ? told.body_size : body_max);
    told_.body = nullptr;
    told_.body_capacity = 0;
  }

  parry_decision told_;
  std::string body_{};
};

/* ---- inside --------------------------------------------------------------------------------------------------- */

/* Texts for C while one function runs: NUL-terminated copies, the first KiB of them without an allocation. */
class parry::texts
{
public:
  const char *operator()(std::string_view text)
  {
    if (text.empty())
      return nullptr;
    return always(text);
  }

  const char *always(std::string_view text)
  {
    if (text.find('\0') != std::string_view::npos)
      throw error(PARRY_EINVAL, "a text has a NUL inside");
    if (text.size() >= near_.size() - used_)
      return far_.emplace_back(text).c_str();
    char *copy = near_.data() + used_;
    if (!text.empty())
      std::memcpy(copy, text.data(), text.size());
    copy[text.size()] = '\0';
    used_ += text.size() + 1;
    return copy;
  }

  const parry_header *headers(const std::vector<header_view> &from)
  {
    for (const header_view &line : from)
      headers_.push_back(parry_header{always(line.name), always(line.value)});
    return headers_.empty() ? nullptr : headers_.data();
  }

  parry_event event(const parry::event &from)
  {
    parry_event to = PARRY_EVENT_INIT;
    to.ok = from.ok;
    to.status = from.status;
    to.curl_code = from.curl_code;
    to.category = (*this)(from.category);
    to.code = (*this)(from.code);
    to.message = (*this)(from.message);
    to.retry_after = from.retry_after;
    to.not_sent = from.not_sent;
    to.headers = headers(from.headers);
    to.header_count = from.headers.size();
    to.body = from.body.data();
    to.body_size = from.body.size();
    to.route = (*this)(from.route);
    to.target = (*this)(from.target);
    to.attempt = from.attempt;
    to.deadline_left = from.deadline_left;
    to.not_repeatable = from.not_repeatable;
    to.seconds = from.seconds;
    to.name = (*this)(from.name);
    to.fields = (*this)(from.fields);
    return to;
  }

private:
  std::array<char, 1024> near_;
  std::size_t used_ = 0;
  std::deque<std::string> far_{};
  std::vector<parry_header> headers_{};
};

/* A host function by name. Stays as long as the engine, so that C may always come by; what it does may change. */
struct parry::function {
  parry::core *core = nullptr;
  std::mutex lock{};
  std::shared_ptr<const std::function<void(question)>> run{};
};

/* What callbacks and names refer to; stays where it is while engines are moved. */
struct parry::core : std::enable_shared_from_this<core> {
  ::parry *handle = nullptr; /* NULL once freed */
  parry::options options{};
  std::mutex lock{}; /* of what follows */
  std::exception_ptr kept{};
  unsigned inside = 0; /* run() and dispatch() under way */
  bool orphan = false; /* destroyed meanwhile */
  std::map<std::string, function, std::less<>> functions{};

  ~core()
  {
    free();
  }

  int free() noexcept
  {
    int result = parry_free(handle);
    if (result != PARRY_EREENTRANT)
      handle = nullptr;
    return result;
  }

  /* In a catch block. */
  void caught() noexcept
  {
    if (!options.on_exception) {
      std::lock_guard<std::mutex> guard(lock);
      if (!kept)
        kept = std::current_exception();
      return;
    }
    try {
      options.on_exception(std::current_exception());
    } catch (...) {
    }
  }

  /* What a callback does. */
  template <class Act> bool shielded(Act &&act) noexcept
  {
    try {
      act();
      return true;
    } catch (...) {
      caught();
      return false;
    }
  }

  void rethrow()
  {
    std::exception_ptr thrown;
    {
      std::lock_guard<std::mutex> guard(lock);
      thrown = std::exchange(kept, nullptr);
    }
    if (thrown)
      std::rethrow_exception(thrown);
  }

  /* run() or dispatch(), during which the engine may be destroyed. */
  template <class Drive> int drive(Drive &&drive)
  {
    std::shared_ptr<core> self = this->shared_from_this();
    {
      std::lock_guard<std::mutex> guard(lock);
      inside++;
    }
    int result = drive(handle);
    bool last;
    {
      std::lock_guard<std::mutex> guard(lock);
      last = --inside == 0 && orphan;
    }
    if (last)
      free();
    rethrow();
    return check(result);
  }

  /* The engine is gone. */
  void leave() noexcept
  {
    {
      std::lock_guard<std::mutex> guard(lock);
      orphan = true;
      if (inside)
        return;
    }
    free();
  }

  std::string findings() const
  {
    std::string text(parry_findings(handle, nullptr, 0), '\0');
    if (text.empty())
      return text;
    std::size_t size = parry_findings(handle, text.data(), text.size() + 1);
    text.resize(size < text.size() ? size : text.size());
    return text;
  }

  static void on_log(void *user, int level, const char *line, std::size_t size) noexcept
  {
    core *self = static_cast<core *>(user);
    self->shielded([&] { self->options.log(level, std::string_view(line, size)); });
  }

  static void on_alert(void *user, const parry_alert *told) noexcept
  {
    core *self = static_cast<core *>(user);
    self->shielded([&] {
      self->options.alert(parry::alert{told->key, told->sink, told->severity, told->title, told->text, told->cause,
                                       told->resolved != 0, told->count});
    });
  }

  static void on_reloaded(void *user, const parry_reload_info *told) noexcept
  {
    core *self = static_cast<core *>(user);
    self->shielded([&] {
      self->options.reloaded(reload_info{told->error, told->generation, told->findings, told->rolled_back != 0});
    });
  }

  static void on_function(void *user, parry_request_id request, const char *arguments, std::size_t size) noexcept;

  int open(std::string_view dir, std::string_view text);
};

inline int parry::check(int result)
{
  if (result < 0)
    throw error(result);
  return result;
}

inline int parry::core::open(std::string_view dir, std::string_view text)
{
  texts copy;
  parry_options to = PARRY_OPTIONS_INIT;
  std::vector<parry_header> secrets;
  for (const header &secret : options.secrets)
    secrets.push_back(parry_header{copy.always(secret.name), copy.always(secret.value)});
  to.policy_dir = copy(dir);
  to.init_lua = copy(text);
  to.share_dir = options.share_dir ? copy.always(*options.share_dir) : nullptr;
  to.state_dir = copy(options.state_dir);
  to.ca_file = copy(options.ca_file);
  to.secrets = secrets.empty() ? nullptr : secrets.data();
  to.secret_count = secrets.size();
  to.threads = options.threads;
  to.deciders = options.deciders;
  to.max_calls = options.max_calls;
  to.max_buffered = options.max_buffered;
  to.watch = options.watch;
  to.log_level = options.log_level;
  to.user = this;
  to.log = options.log ? on_log : nullptr;
  to.alert = options.alert ? on_alert : nullptr;
  to.reloaded = options.reloaded ? on_reloaded : nullptr;
  int result = parry_new(&handle, &to);
  options.secrets.clear(); /* parry has them */
  return result;
}

/* A call that C knows. Ends with on_done. */
struct parry::open_call {
  std::shared_ptr<parry::core> core{};
  call_ops ops{};
  bool threw = false;

  static constexpr uint64_t doomed = UINT64_MAX; /* in place of an id that is not known yet: cancel it when it is */
  std::shared_ptr<std::atomic<uint64_t>> id = std::make_shared<std::atomic<uint64_t>>(0); /* 0: not known yet */

  /* Every callback but on_done, when there is nothing left to cancel. */
  template <class Act> void act(Act &&act) noexcept
  {
    if (!threw && !core->shielded(std::forward<Act>(act))) {
      threw = true;
      uint64_t known = 0;
      if (!id->compare_exchange_strong(known, doomed))
        (void)parry_call_cancel(core->handle, parry_call_id{known});
    }
  }

  static void on_headers(void *user, int status, const parry_header *headers, std::size_t count) noexcept
  {
    open_call *self = static_cast<open_call *>(user);
    self->act([&] {
      std::vector<header_view> list;
      list.reserve(count);
      for (std::size_t i = 0; i < count; i++)
        list.push_back(header_view{headers[i].name, headers[i].value});
      self->ops.on_headers(status, list);
    });
  }

  static int on_data(void *user, const void *data, std::size_t size) noexcept
  {
    open_call *self = static_cast<open_call *>(user);
    flow next = flow::go_on;
    self->act([&] { next = self->ops.on_data(std::string_view(static_cast<const char *>(data), size)); });
    return next == flow::pause ? PARRY_PAUSE : 0;
  }

  static void on_done(void *user, const parry_outcome *told) noexcept
  {
    std::unique_ptr<open_call> self(static_cast<open_call *>(user));
    if (!self->ops.on_done)
      return;
    self->core->shielded([&] {
      std::optional<double> retry_after;
      if (told->retry_after >= 0)
        retry_after = told->retry_after;
      self->ops.on_done(outcome{told->ok != 0, told->status, told->category, told->code, told->message, told->why,
                                retry_after, told->attempts, told->target, told->call_id, told->generation,
                                told->truncated != 0});
    });
  }

  static void on_attempt(void *user, const parry_attempt *told) noexcept
  {
    open_call *self = static_cast<open_call *>(user);
    self->act([&] {
      self->ops.on_attempt(attempt{told->call, told->number, told->target, told->provider, told->model,
                                   told->deadline_left,
                                   std::string_view(static_cast<const char *>(told->body), told->body_size)});
    });
  }

  static void on_abandon(void *user, parry_call_id call, unsigned number) noexcept
  {
    open_call *self = static_cast<open_call *>(user);
    self->act([&] { self->ops.on_abandon(call, number); });
  }
};

/* A decision that waits. Ends with ready. */
struct parry::open_decision {
  std::shared_ptr<parry::core> core{};
  std::function<void(const decision &)> ready{};
  std::array<char, decision::body_max> body; /* written before it is read */

  static void on_ready(void *user, const parry_decision *told) noexcept
  {
    std::unique_ptr<open_decision> self(static_cast<open_decision *>(user));
    self->core->shielded([&] { self->ready(decision(*told, told->body)); });
  }
};

/* ---- calls ---------------------------------------------------------------------------------------------------- */

/* Names a call. Copies are the same call. False: it has ended, or its engine has. */
class parry::call
{
public:
  call() = default;

  parry_call_id id() const noexcept
  {
    return id_;
  }

  /* After flow::pause. */
  bool resume() const
  {
    return told(core_ ? parry_call_resume(core_->handle, id_) : PARRY_ENOENT);
  }

  /* on_done comes later, with category "cancelled". */
  bool cancel() const
  {
    return told(core_ ? parry_call_cancel(core_->handle, id_) : PARRY_ENOENT);
  }

private:
  friend class parry::engine;

  call(std::shared_ptr<parry::core> core, parry_call_id id) : core_(std::move(core)), id_(id)
  {
  }

  static bool told(int result)
  {
    return result != PARRY_ENOENT && result != PARRY_EFREED && check(result) == PARRY_OK;
  }

  std::shared_ptr<parry::core> core_{};
  parry_call_id id_{};
};

/* ---- host functions --------------------------------------------------------------------------------------------- */

/* What a policy asked with host.call(name, arguments). To be answered once, by anybody; dropped without an answer it is
 * answered with a failure. May outlive the engine. False: nobody waits any more. */
class parry::question
{
public:
  question(question &&other) noexcept
      : arguments_(std::move(other.arguments_)), core_(std::move(other.core_)), id_(other.id_)
  {
    other.core_.reset();
  }
  question &operator=(question &&other) noexcept
  {
    drop();
    arguments_ = std::move(other.arguments_);
    core_ = std::exchange(other.core_, nullptr);
    id_ = other.id_;
    return *this;
  }
  ~question()
  {
    drop();
  }

  /* JSON of one value; "null" for none. */
  const std::string &arguments() const noexcept
  {
    return arguments_;
  }

  /* One JSON value; empty: null. */
  bool reply(std::string_view json)
  {
    texts copy;
    return send(copy(json), nullptr);
  }

  /* The policy sees nil, err{message = ...}. */
  bool fail(std::string_view message)
  {
    texts copy;
    return send(nullptr, copy.always(message));
  }

private:
  friend struct parry::core;

  question(std::shared_ptr<parry::core> core, parry_request_id id, std::string arguments)
      : arguments_(std::move(arguments)), core_(std::move(core)), id_(id)
  {
  }

  /* What parry refuses (not JSON) is thrown, and the question is still to be answered. */
  bool send(const char *json, const char *message)
  {
    if (!core_)
      return false;
    int result = parry_reply(core_->handle, id_, json, message);
    if (result == PARRY_EINVAL)
      check(result);
    core_.reset();
    return result == PARRY_OK;
  }

  void drop() noexcept
  {
    if (core_)
      (void)parry_reply(core_->handle, id_, nullptr, "the host dropped the question");
    core_.reset();
  }

  std::string arguments_;
  std::shared_ptr<parry::core> core_;
  parry_request_id id_;
};

inline void parry::core::on_function(void *user, parry_request_id request, const char *arguments,
                                     std::size_t size) noexcept
{
  function *self = static_cast<function *>(user);
  self->core->shielded([&] {
    std::shared_ptr<const std::function<void(question)>> run;
    {
      std::lock_guard<std::mutex> guard(self->lock);
      run = self->run;
    }
    question asked(self->core->shared_from_this(), request, std::string(arguments, size));
    if (run)
      (*run)(std::move(asked));
  });
}

/* ---- the engine ---------------------------------------------------------------------------------------------------- */

class parry::engine
{
public:
  /* Throws policy_error when the policies are refused. */
  explicit engine(parry::options options) : core_(std::make_shared<parry::core>())
  {
    core_->options = std::move(options);
    int result = core_->open(core_->options.policy_dir, core_->options.init_lua);
    if (result == PARRY_EPOLICY)
      throw policy_error(core_->findings());
    check(result);
  }

  engine(engine &&) noexcept = default;
  engine &operator=(engine &&other) noexcept
  {
    if (this != &other) {
      std::shared_ptr<parry::core> old = std::exchange(core_, std::move(other.core_));
      if (old)
        old->leave();
    }
    return *this;
  }
  engine(const engine &) = delete;
  engine &operator=(const engine &) = delete;

  ~engine()
  {
    if (core_)
      core_->leave();
  }

  /* What the destructor does, but it throws what callbacks threw; PARRY_EREENTRANT from a callback, and then nothing is
   * closed. An engine that was closed or moved from is PARRY_EFREED everywhere, closing it again is nothing. */
  void close()
  {
    if (!core_ || !core_->handle)
      return;
    std::shared_ptr<parry::core> self = core_;
    check(self->free());
    self->rethrow();
  }

  /* For parry.h's functions; NULL when closed. It stays this object's. */
  ::parry *get() const noexcept
  {
    return core_ ? core_->handle : nullptr;
  }

  /* ---- driving it ---- */

  /* As parry_run() and parry_dispatch(): how many calls and decisions are open or undelivered. */
  int run(double timeout)
  {
    return must().drive([timeout](::parry *handle) { return parry_run(handle, timeout); });
  }
  int dispatch()
  {
    return must().drive([](::parry *handle) { return parry_dispatch(handle); });
  }
  int fd() const
  {
    return check(parry_fd(get()));
  }
  void wakeup() const noexcept
  {
    parry_wakeup(get());
  }

  /* ---- policies ---- */

  /* As parry_reload(). With wait: throws policy_error when they are refused. */
  void reload(bool wait = true)
  {
    int result = parry_reload(get(), wait);
    if (result == PARRY_EPOLICY)
      throw policy_error(findings());
    check(result);
  }
  std::string findings() const
  {
    return must().findings();
  }
  parry::status status() const
  {
    parry::status told = PARRY_STATUS_INIT;
    check(parry_status(get(), &told));
    return told;
  }
  /* Calls each(const parry::sample &) for every sample. What it throws comes out of here, and ends the listing. */
  template <class Each> void metrics(Each &&each) const
  {
    struct listing {
      Each &each;
      std::exception_ptr thrown;
    } list = {each, nullptr};
    int result = parry_metrics(
        get(),
        [](void *user, const parry_sample *told) {
          listing *to = static_cast<listing *>(user);
          if (to->thrown)
            return;
          try {
            to->each(parry::sample{told->name, told->type, told->help, told->labels, told->value});
          } catch (...) {
            to->thrown = std::current_exception();
          }
        },
        &list);
    if (list.thrown)
      std::rethrow_exception(list.thrown);
    check(result);
  }

  /* ---- calls ---- */

  parry::call call(const parry::request &request, call_ops ops)
  {
    texts copy;
    parry_request to = PARRY_REQUEST_INIT;
    to.method = copy(request.method);
    to.path = copy(request.path);
    to.target = copy(request.target);
    to.headers = copy.headers(request.headers);
    to.header_count = request.headers.size();
    to.body = request.body.data();
    to.body_size = request.body.size();
    parry::core &core = must();
    auto open = std::make_unique<open_call>();
    open->core = core.shared_from_this();
    open->ops = std::move(ops);
    parry_call_ops with = PARRY_CALL_OPS_INIT;
    with.on_headers = open->ops.on_headers ? open_call::on_headers : nullptr;
    with.on_data = open->ops.on_data ? open_call::on_data : nullptr;
    with.on_done = open_call::on_done;
    with.on_attempt = open->ops.on_attempt ? open_call::on_attempt : nullptr;
    with.on_abandon = open->ops.on_abandon ? open_call::on_abandon : nullptr;
    parry::call named(open->core, parry_call_id{});
    std::shared_ptr<std::atomic<uint64_t>> id = open->id;
    check(parry_call(core.handle, &to, &with, open.get(), &named.id_));
    (void)open.release(); /* on_done's, which may have been already, on another thread */
    uint64_t before = 0;
    if (!id->compare_exchange_strong(before, named.id_.value))
      (void)named.cancel();
    return named;
  }

  /* The end of an attempt that on_attempt asked for. False: nobody waits for it any more. */
  bool attempt_done(parry_call_id call, unsigned number, const parry::event &event)
  {
    texts copy;
    parry_event to = copy.event(event);
    int result = parry_attempt_done(get(), call, number, &to);
    return result != PARRY_ENOENT && check(result) == PARRY_OK;
  }

  /* ---- what happened at the host ---- */

  /* As parry_decide(), without waiting: a handler that waits counts as having nothing to say. Any thread. */
  decision decide(const parry::event &event)
  {
    texts copy;
    parry_event to = copy.event(event);
    parry_decision told = PARRY_DECISION_INIT;
    std::array<char, decision::body_max> body;
    told.body = body.data();
    told.body_capacity = body.size();
    check(parry_decide(get(), &to, &told, nullptr, nullptr));
    return decision(told, body.data());
  }

  /* The same, and a handler may wait: then there is nothing yet, and ready comes from run() or dispatch(). Empty: as
   * without it. */
  std::optional<decision> decide(const parry::event &event, std::function<void(const decision &)> ready)
  {
    if (!ready)
      return decide(event);
    texts copy;
    parry_event to = copy.event(event);
    parry_decision told = PARRY_DECISION_INIT;
    auto open = std::make_unique<open_decision>();
    open->core = must().shared_from_this();
    open->ready = std::move(ready);
    told.body = open->body.data();
    told.body_capacity = open->body.size();
    int result = parry_decide(get(), &to, &told, open_decision::on_ready, open.get());
    if (result == PARRY_PENDING) {
      (void)open.release();
      return std::nullopt;
    }
    check(result);
    return decision(told, open->body.data());
  }

  /* How an attempt of the host's own went. */
  void report(const parry::event &event)
  {
    texts copy;
    parry_event to = copy.event(event);
    check(parry_report(get(), &to));
  }

  /* Tells every on_event handler. fields: a JSON object. */
  void emit(std::string_view name, std::string_view fields = {})
  {
    texts copy;
    check(parry_emit(get(), copy.always(name), copy(fields)));
  }

  /* ---- host functions ---- */

  /* host.call(name, arguments) in policies answers what function returns: arguments and result are JSON of one value.
   * See parry::failure for how it fails. flags: PARRY_ANY_THREAD. */
  void provide(const std::string &name, std::function<std::string(std::string_view arguments)> function,
               unsigned flags = 0)
  {
    provide_later(
        name,
        [function = std::move(function)](question asked) {
          std::string answer;
          try {
            answer = function(asked.arguments());
          } catch (const failure &failed) {
            (void)asked.fail(failed.what());
            return;
          } catch (const std::exception &thrown) {
            (void)asked.fail(thrown.what());
            throw;
          }
          try {
            (void)asked.reply(answer);
          } catch (const error &) {
            (void)asked.fail("the host's answer is not JSON, or too long");
            throw;
          }
        },
        flags);
  }

  /* The same for answers that come later: function may move the question away. */
  void provide_later(const std::string &name, std::function<void(question)> function, unsigned flags = 0)
  {
    auto run = std::make_shared<const std::function<void(question)>>(std::move(function));
    parry::function &slot = place(name);
    {
      std::lock_guard<std::mutex> guard(slot.lock);
      run.swap(slot.run);
    }
    int result = parry_register(get(), name.c_str(), core::on_function, &slot, flags);
    if (result != PARRY_OK) {
      std::lock_guard<std::mutex> guard(slot.lock);
      run.swap(slot.run);
    }
    check(result);
  }

  void withdraw(const std::string &name)
  {
    check(parry_register(get(), name.c_str(), nullptr, nullptr, 0));
    parry::function &slot = place(name);
    std::lock_guard<std::mutex> guard(slot.lock);
    slot.run.reset();
  }

private:
  parry::core &must() const
  {
    if (!core_ || !core_->handle)
      throw error(PARRY_EFREED);
    return *core_;
  }

  parry::function &place(const std::string &name)
  {
    parry::core &core = must();
    std::lock_guard<std::mutex> guard(core.lock);
    parry::function &slot = core.functions[name];
    slot.core = &core;
    return slot;
  }

  std::shared_ptr<parry::core> core_;
};

#endif
