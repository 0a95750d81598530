/* What the addon gives to ../lib. */
#include "addon.h"
#include "value.h"

static const napi_property_descriptor functions[] = {
#define FUNCTION(name, function)                                                                                       \
  {                                                                                                                    \
    name, NULL, function, NULL, NULL, NULL, napi_enumerable, NULL                                                      \
  }
    FUNCTION("create", create_engine),
    FUNCTION("close", close_engine),
    FUNCTION("call", start_call),
    FUNCTION("cancel", cancel_call),
    FUNCTION("took", took_data),
    FUNCTION("attemptDone", attempt_done),
    FUNCTION("decide", decide),
    FUNCTION("report", report),
    FUNCTION("emit", emit),
    FUNCTION("register", register_function),
    FUNCTION("reply", reply),
    FUNCTION("status", status),
    FUNCTION("metrics", metrics),
    FUNCTION("findings", findings),
    FUNCTION("reload", reload),
#undef FUNCTION
};

/* Not NAPI_MODULE_INIT(): the functions it makes have no prototypes. Without the one that says so, it is Node-API 8. */
NAPI_EXTERN napi_value napi_register_module_v1(napi_env env, napi_value exports);

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
  set_text(env, exports, "version", parry_version());
  (void)napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
  return exports;
}
