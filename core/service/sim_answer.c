#include "sim_internal.h"

#include <stdio.h>

enum { CONTENT_PIECES = 12, BODY_PIECES = 8, FILLER_PIECE = 16 * 1024, INPUTS_MAX = 2048 };

/* What an answer is made of: prepared once, then put into the shape that is asked for. */
struct draft {
  struct pry_sim_call *call;
  struct pry_sim_text text;
  struct pry_buffer content;    /* what the model says, or the arguments of the tool, plain */
  struct pry_buffer escaped;    /* the same as the inside of a JSON string */
  struct pry_buffer tool;       /* its name, escaped */
  const char *full, *tool_name; /* `escaped` and `tool` as C strings */
  long created;
  size_t prompt_tokens, completion_tokens;
  size_t sequence;
};

static bool fill_content(struct draft *draft)
{
  struct pry_sim_call *call = draft->call;
  struct pry_sim_text content = {&draft->content, true};
  if (call->wants_tool) {
    pry_sim_say(&content, "{\"text\":\"");
    pry_sim_say_json(&content, pry_buffer_slice(&call->text));
    pry_sim_say(&content, "\"}");
  } else if (call->filler && !call->stream) {
    size_t size = call->filler < PRY_SIM_BODY_SIZE_MAX ? call->filler : PRY_SIM_BODY_SIZE_MAX;
    content.ok = pry_buffer_reserve(&draft->content, size);
    if (content.ok)
      memset(draft->content.data, 'x', draft->content.size = size);
  } else if (!call->filler) {
    content.ok = pry_buffer_append_slice(&draft->content, pry_buffer_slice(&call->text));
  }
  return content.ok;
}

static bool draft_init(struct draft *draft, struct pry_sim_call *call)
{
  *draft = (struct draft){.call = call, .text = {&call->answer, true}};
  pry_buffer_init(&draft->content, 0);
  pry_buffer_init(&draft->escaped, 0);
  pry_buffer_init(&draft->tool, 0);
  if (!fill_content(draft) || !pry_buffer_append_json(&draft->escaped, pry_buffer_slice(&draft->content)) ||
      !pry_buffer_append_json(&draft->tool, pry_slice_of(call->tool)))
    return false;
  draft->full = pry_buffer_text(&draft->escaped);
  draft->tool_name = pry_buffer_text(&draft->tool);
  draft->created = (long)pry_loop_unix_time(call->sim->loop);
  draft->prompt_tokens = call->body->bytes.size / 4 + 1;
  size_t said = call->filler ? call->filler : draft->content.size;
  draft->completion_tokens = said / 4 + 1;
  return draft->full && draft->tool_name;
}

static void draft_fini(struct draft *draft)
{
  pry_buffer_fini(&draft->content);
  pry_buffer_fini(&draft->escaped);
  pry_buffer_fini(&draft->tool);
}

#define SAY(draft, ...) pry_sim_say(&(draft)->text, __VA_ARGS__)

/* The client's own spelling of the model, so that it comes back byte for byte. */
static void say_model(struct draft *draft)
{
  struct pry_slice model = draft->call->model_json;
  draft->text.ok = draft->text.ok && pry_buffer_append_slice(&draft->call->answer, model);
}

/* ---- Events --------------------------------------------------------------------------------------------- */

static void event_ends(struct draft *draft, size_t start, bool content, size_t repeat)
{
  struct pry_sim_call *call = draft->call;
  if (call->event_count == PRY_SIM_EVENTS_MAX) {
    draft->text.ok = false;
    return;
  }
  call->events[call->event_count++] =
      (struct pry_sim_event){.start = start, .size = call->answer.size - start, .repeat = repeat, .content = content};
}

typedef void (*say_delta_fn)(struct draft *draft, struct pry_slice piece);

static void add_delta(struct draft *draft, say_delta_fn say_delta, struct pry_slice piece, size_t repeat)
{
  size_t start = draft->call->answer.size;
  say_delta(draft, piece);
  event_ends(draft, start, true, repeat);
}

static void add_filler(struct draft *draft, say_delta_fn say_delta)
{
  static char piece[FILLER_PIECE];
  memset(piece, 'x', sizeof piece);
  size_t whole = draft->call->filler / sizeof piece, rest = draft->call->filler % sizeof piece;
  if (whole)
    add_delta(draft, say_delta, (struct pry_slice){piece, sizeof piece}, whole);
  if (rest)
    add_delta(draft, say_delta, (struct pry_slice){piece, rest}, 1);
}

/* The content in several pieces, none of which splits a character. */
static void add_deltas(struct draft *draft, say_delta_fn say_delta)
{
  struct pry_slice content = pry_buffer_slice(&draft->content);
  if (draft->call->filler && !draft->call->wants_tool) {
    add_filler(draft, say_delta);
    return;
  }
  size_t least = content.size / CONTENT_PIECES + 1;
  if (least < 4)
    least = 4;
  for (size_t start = 0; start < content.size;) {
    size_t end = start + least < content.size ? start + least : content.size;
    while (end < content.size && ((unsigned char)content.data[end] & 0xC0) == 0x80)
      end++;
    add_delta(draft, say_delta, (struct pry_slice){content.data + start, end - start}, 1);
    start = end;
  }
}

/* ---- OpenAI chat ---------------------------------------------------------------------------------------- */

static void chat_usage(struct draft *draft)
{
  SAY(draft, "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu}", draft->prompt_tokens,
      draft->completion_tokens, draft->prompt_tokens + draft->completion_tokens);
}

static void chat_json(struct draft *draft)
{
  unsigned long id = draft->call->id;
  SAY(draft, "{\"id\":\"chatcmpl-sim-%lu\",\"object\":\"chat.completion\",\"created\":%ld,\"model\":", id,
      draft->created);
  say_model(draft);
  if (draft->call->wants_tool)
    SAY(draft,
        ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
        "\"call_sim_%lu\",\"type\":\"function\",\"function\":{\"name\":\"%s\",\"arguments\":\"%s\"}}]},"
        "\"finish_reason\":\"tool_calls\"}],",
        id, draft->tool_name, draft->full);
  else
    SAY(draft,
        ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],",
        draft->full);
  chat_usage(draft);
  SAY(draft, "}");
}

static void chat_chunk_begin(struct draft *draft)
{
  SAY(draft, "data: {\"id\":\"chatcmpl-sim-%lu\",\"object\":\"chat.completion.chunk\",\"created\":%ld,\"model\":",
      draft->call->id, draft->created);
  say_model(draft);
}

static void chat_chunk(struct draft *draft, const char *delta, const char *finish_reason)
{
  size_t start = draft->call->answer.size;
  chat_chunk_begin(draft);
  SAY(draft, ",\"choices\":[{\"index\":0,\"delta\":%s,\"finish_reason\":%s}]}\n\n", delta, finish_reason);
  event_ends(draft, start, false, 1);
}

static void chat_delta(struct draft *draft, struct pry_slice piece)
{
  chat_chunk_begin(draft);
  if (draft->call->wants_tool)
    SAY(draft, ",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"");
  else
    SAY(draft, ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"");
  pry_sim_say_json(&draft->text, piece);
  SAY(draft, draft->call->wants_tool ? "\"}}]},\"finish_reason\":null}]}\n\n" : "\"},\"finish_reason\":null}]}\n\n");
}

static void chat_tool_chunk(struct draft *draft)
{
  size_t start = draft->call->answer.size;
  chat_chunk_begin(draft);
  SAY(draft,
      ",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_sim_%lu\",\"type\":"
      "\"function\","
      "\"function\":{\"name\":\"%s\",\"arguments\":\"\"}}]},\"finish_reason\":null}]}\n\n",
      draft->call->id, draft->tool_name);
  event_ends(draft, start, true, 1);
}

/* What Azure sends before everything else. */
static void chat_filter_results(struct draft *draft)
{
  size_t start = draft->call->answer.size;
  SAY(draft,
      "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":"
      "[{\"prompt_index\":0,\"content_filter_results\":{\"hate\":{\"filtered\":false,\"severity\":\"safe\"}}}]}\n\n");
  event_ends(draft, start, false, 1);
}

static void chat_stream(struct draft *draft)
{
  bool tool = draft->call->wants_tool;
  if (draft->call->dialect == PRY_SIM_AZURE)
    chat_filter_results(draft);
  chat_chunk(draft, tool ? "{\"role\":\"assistant\",\"content\":null}" : "{\"role\":\"assistant\",\"content\":\"\"}",
             "null");
  if (tool)
    chat_tool_chunk(draft);
  add_deltas(draft, chat_delta);
  chat_chunk(draft, "{}", tool ? "\"tool_calls\"" : "\"stop\"");
  if (draft->call->include_usage) {
    size_t start = draft->call->answer.size;
    chat_chunk_begin(draft);
    SAY(draft, ",\"choices\":[],");
    chat_usage(draft);
    SAY(draft, "}\n\n");
    event_ends(draft, start, false, 1);
  }
  size_t start = draft->call->answer.size;
  SAY(draft, "data: [DONE]\n\n");
  event_ends(draft, start, false, 1);
}

/* ---- Anthropic ------------------------------------------------------------------------------------------ */

static void messages_json(struct draft *draft)
{
  unsigned long id = draft->call->id;
  SAY(draft, "{\"id\":\"msg_sim_%lu\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", id);
  say_model(draft);
  if (draft->call->wants_tool)
    SAY(draft,
        ",\"content\":[{\"type\":\"tool_use\",\"id\":\"toolu_sim_%lu\",\"name\":\"%s\",\"input\":%.*s}],"
        "\"stop_reason\":\"tool_use\"",
        id, draft->tool_name, (int)draft->content.size, draft->content.data);
  else
    SAY(draft, ",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\"", draft->full);
  SAY(draft, ",\"stop_sequence\":null,\"usage\":{\"input_tokens\":%zu,\"output_tokens\":%zu}}", draft->prompt_tokens,
      draft->completion_tokens);
}

static void messages_event(struct draft *draft, const char *type, const char *members)
{
  size_t start = draft->call->answer.size;
  SAY(draft, "event: %s\ndata: {\"type\":\"%s\"%s}\n\n", type, type, members);
  event_ends(draft, start, false, 1);
}

static void messages_start(struct draft *draft)
{
  size_t start = draft->call->answer.size;
  SAY(draft,
      "event: message_start\ndata: "
      "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_sim_%lu\",\"type\":\"message\","
      "\"role\":\"assistant\",\"model\":",
      draft->call->id);
  say_model(draft);
  SAY(draft,
      ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":%zu,"
      "\"output_tokens\":1}}}\n\n",
      draft->prompt_tokens);
  event_ends(draft, start, false, 1);
}

static void messages_block_start(struct draft *draft)
{
  size_t start = draft->call->answer.size;
  SAY(draft, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":");
  if (draft->call->wants_tool)
    SAY(draft, "{\"type\":\"tool_use\",\"id\":\"toolu_sim_%lu\",\"name\":\"%s\",\"input\":{}}}\n\n", draft->call->id,
        draft->tool_name);
  else
    SAY(draft, "{\"type\":\"text\",\"text\":\"\"}}\n\n");
  event_ends(draft, start, false, 1);
}

static void messages_delta(struct draft *draft, struct pry_slice piece)
{
  SAY(draft, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":%s\"",
      draft->call->wants_tool ? "{\"type\":\"input_json_delta\",\"partial_json\":"
                              : "{\"type\":\"text_delta\",\"text\":");
  pry_sim_say_json(&draft->text, piece);
  SAY(draft, "\"}}\n\n");
}

static void messages_stream(struct draft *draft)
{
  char ending[128];
  messages_start(draft);
  messages_block_start(draft);
  messages_event(draft, "ping", "");
  add_deltas(draft, messages_delta);
  messages_event(draft, "content_block_stop", ",\"index\":0");
  snprintf(ending, sizeof ending,
           ",\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":%zu}",
           draft->call->wants_tool ? "tool_use" : "end_turn", draft->completion_tokens);
  messages_event(draft, "message_delta", ending);
  messages_event(draft, "message_stop", "");
}

/* ---- Gemini --------------------------------------------------------------------------------------------- */

static void generate_ending(struct draft *draft, const char *finish)
{
  if (finish)
    SAY(draft, ",\"finishReason\":\"%s\"", finish);
  SAY(draft,
      ",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":%zu,\"candidatesTokenCount\":%zu,"
      "\"totalTokenCount\":%zu},\"modelVersion\":",
      draft->prompt_tokens, draft->completion_tokens, draft->prompt_tokens + draft->completion_tokens);
  say_model(draft);
  SAY(draft, ",\"responseId\":\"sim-%lu\"}", draft->call->id);
}

static void generate_call(struct draft *draft)
{
  SAY(draft,
      "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"%s\",\"args\":%.*s}}],"
      "\"role\":\"model\"}",
      draft->tool_name, (int)draft->content.size, draft->content.data);
}

static void generate_json(struct draft *draft)
{
  if (draft->call->in_array)
    SAY(draft, "[");
  if (draft->call->wants_tool)
    generate_call(draft);
  else
    SAY(draft, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"%s\"}],\"role\":\"model\"}", draft->full);
  generate_ending(draft, "STOP");
  if (draft->call->in_array)
    SAY(draft, "]");
}

static void generate_delta(struct draft *draft, struct pry_slice piece)
{
  SAY(draft, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"");
  pry_sim_say_json(&draft->text, piece);
  SAY(draft, "\"}],\"role\":\"model\"}");
  generate_ending(draft, NULL);
  SAY(draft, "\n\n");
}

/* Function calls are not split. */
static void generate_stream(struct draft *draft)
{
  size_t start = draft->call->answer.size;
  SAY(draft, "data: {\"usageMetadata\":{\"promptTokenCount\":%zu},\"modelVersion\":", draft->prompt_tokens);
  say_model(draft);
  SAY(draft, "}\n\n");
  event_ends(draft, start, false, 1);
  if (!draft->call->wants_tool)
    add_deltas(draft, generate_delta);
  start = draft->call->answer.size;
  SAY(draft, "data: ");
  if (draft->call->wants_tool)
    generate_call(draft);
  else
    SAY(draft, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"}");
  generate_ending(draft, "STOP");
  SAY(draft, "\n\n");
  event_ends(draft, start, draft->call->wants_tool, 1);
}

/* ---- OpenAI Responses ----------------------------------------------------------------------------------- */

static void response_item(struct draft *draft, const char *status, bool complete)
{
  unsigned long id = draft->call->id;
  const char *full = complete ? draft->full : "";
  if (draft->call->wants_tool)
    SAY(draft,
        "{\"id\":\"fc_sim_%lu\",\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":\"call_sim_%lu\",\"name\":\"%"
        "s\","
        "\"arguments\":\"%s\"}",
        id, status, id, draft->tool_name, full);
  else if (complete)
    SAY(draft,
        "{\"id\":\"msg_sim_%lu\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[{\"type\":"
        "\"output_text\",\"text\":\"%s\",\"annotations\":[]}]}",
        id, status, full);
  else
    SAY(draft, "{\"id\":\"msg_sim_%lu\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[]}",
        id, status);
}

static void response_object(struct draft *draft, bool complete)
{
  SAY(draft,
      "{\"id\":\"resp_sim_%lu\",\"object\":\"response\",\"created_at\":%ld,\"status\":\"%s\",\"error\":null,"
      "\"incomplete_details\":null,\"instructions\":null,\"model\":",
      draft->call->id, draft->created, complete ? "completed" : "in_progress");
  say_model(draft);
  SAY(draft, ",\"output\":[");
  if (complete)
    response_item(draft, "completed", true);
  SAY(draft, "],\"parallel_tool_calls\":true,\"tool_choice\":\"auto\",\"tools\":[],\"metadata\":{},\"usage\":");
  if (complete)
    SAY(draft,
        "{\"input_tokens\":%zu,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":%zu,"
        "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":%zu}}",
        draft->prompt_tokens, draft->completion_tokens, draft->prompt_tokens + draft->completion_tokens);
  else
    SAY(draft, "null}");
}

static void response_event_begin(struct draft *draft, const char *type)
{
  SAY(draft, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%zu,", type, type, draft->sequence++);
}

static void response_whole_event(struct draft *draft, const char *type, bool complete)
{
  size_t start = draft->call->answer.size;
  response_event_begin(draft, type);
  SAY(draft, "\"response\":");
  response_object(draft, complete);
  SAY(draft, "}\n\n");
  event_ends(draft, start, false, 1);
}

static void response_item_event(struct draft *draft, const char *type, const char *status, bool complete)
{
  size_t start = draft->call->answer.size;
  response_event_begin(draft, type);
  SAY(draft, "\"output_index\":0,\"item\":");
  response_item(draft, status, complete);
  SAY(draft, "}\n\n");
  event_ends(draft, start, false, 1);
}

static void response_place(struct draft *draft)
{
  if (draft->call->wants_tool)
    SAY(draft, "\"item_id\":\"fc_sim_%lu\",\"output_index\":0,", draft->call->id);
  else
    SAY(draft, "\"item_id\":\"msg_sim_%lu\",\"output_index\":0,\"content_index\":0,", draft->call->id);
}

static void response_part_event(struct draft *draft, const char *type, const char *full)
{
  size_t start = draft->call->answer.size;
  response_event_begin(draft, type);
  response_place(draft);
  SAY(draft, "\"part\":{\"type\":\"output_text\",\"text\":\"%s\",\"annotations\":[]}}\n\n", full);
  event_ends(draft, start, false, 1);
}

static void response_done_event(struct draft *draft)
{
  bool tool = draft->call->wants_tool;
  size_t start = draft->call->answer.size;
  response_event_begin(draft, tool ? "response.function_call_arguments.done" : "response.output_text.done");
  response_place(draft);
  SAY(draft, "\"%s\":\"%s\"}\n\n", tool ? "arguments" : "text", draft->full);
  event_ends(draft, start, false, 1);
}

static void response_delta(struct draft *draft, struct pry_slice piece)
{
  response_event_begin(draft, draft->call->wants_tool ? "response.function_call_arguments.delta"
                                                      : "response.output_text.delta");
  response_place(draft);
  SAY(draft, "\"delta\":\"");
  pry_sim_say_json(&draft->text, piece);
  SAY(draft, "\"}\n\n");
}

static void response_stream(struct draft *draft)
{
  bool tool = draft->call->wants_tool;
  response_whole_event(draft, "response.created", false);
  response_whole_event(draft, "response.in_progress", false);
  response_item_event(draft, "response.output_item.added", "in_progress", false);
  if (!tool)
    response_part_event(draft, "response.content_part.added", "");
  add_deltas(draft, response_delta);
  response_done_event(draft);
  if (!tool)
    response_part_event(draft, "response.content_part.done", draft->full);
  response_item_event(draft, "response.output_item.done", "completed", true);
  response_whole_event(draft, "response.completed", true);
}

/* ---- Embeddings and models ------------------------------------------------------------------------------ */

static void embedding_vector(struct draft *draft, size_t index, struct pry_slice input)
{
  uint32_t hash = 2166136261u;
  SAY(draft, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":[", index ? "," : "", index);
  for (size_t i = 0; i < input.size; i++)
    hash = (hash ^ (unsigned char)input.data[i]) * 16777619u;
  for (int i = 0; i < 8; i++)
    SAY(draft, "%s%.6f", i ? "," : "", (double)((hash >> (4 * i)) & 15) / 15 - 0.5);
  SAY(draft, "]}");
}

static void embeddings_json(struct draft *draft)
{
  struct pry_json_iterator inputs;
  struct pry_slice key;
  struct pry_json_value value;
  size_t count = 0;
  SAY(draft, "{\"object\":\"list\",\"data\":[");
  pry_json_iterate(&inputs, draft->call->input);
  if (inputs.type == PRY_JSON_ARRAY)
    while (count < INPUTS_MAX && pry_json_next(&inputs, &key, &value))
      embedding_vector(draft, count++, value.raw);
  else
    embedding_vector(draft, 0, draft->call->input);
  SAY(draft, "],\"model\":");
  say_model(draft);
  SAY(draft, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", draft->prompt_tokens, draft->prompt_tokens);
}

static void model_line(struct draft *draft, const char *name, bool first)
{
  SAY(draft, "%s{\"id\":\"", first ? "" : ",");
  pry_sim_say_json(&draft->text, pry_slice_of(name));
  SAY(draft, "\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"parry-sim\"}");
}

static void models_json(struct draft *draft)
{
  const struct pry_sim *sim = draft->call->sim;
  const char *name, *spec;
  SAY(draft, "{\"object\":\"list\",\"data\":[");
  for (size_t i = 0; pry_sim_scripted(i, &name, &spec); i++)
    model_line(draft, name, i == 0);
  for (struct pry_list *link = sim->rules.next; link != &sim->rules; link = link->next)
    model_line(draft, PRY_CONTAINER_OF(link, struct pry_sim_rule, link)->model, false);
  SAY(draft, "]}");
}

/* ---- Both kinds ----------------------------------------------------------------------------------------- */

static void split_body(struct pry_sim_call *call)
{
  size_t pieces = call->answer.size < BODY_PIECES ? 1 : BODY_PIECES, size = call->answer.size / pieces;
  for (size_t i = 0; i < pieces; i++) {
    size_t start = i * size, end = i + 1 == pieces ? call->answer.size : start + size;
    call->events[i] = (struct pry_sim_event){.start = start, .size = end - start, .repeat = 1, .content = true};
  }
  call->event_count = pieces;
}

bool pry_sim_answer_json(struct pry_sim_call *call)
{
  struct draft draft;
  bool ok = draft_init(&draft, call);
  if (ok && call->shape == PRY_SIM_CHAT)
    chat_json(&draft);
  else if (ok && call->shape == PRY_SIM_MESSAGES)
    messages_json(&draft);
  else if (ok && call->shape == PRY_SIM_GENERATE)
    generate_json(&draft);
  else if (ok && call->shape == PRY_SIM_RESPONSES)
    response_object(&draft, true);
  else if (ok && call->shape == PRY_SIM_EMBEDDINGS)
    embeddings_json(&draft);
  else if (ok)
    models_json(&draft);
  ok = ok && draft.text.ok;
  draft_fini(&draft);
  if (ok)
    split_body(call);
  return ok;
}

bool pry_sim_answer_stream(struct pry_sim_call *call)
{
  struct draft draft;
  bool ok = draft_init(&draft, call);
  if (ok && call->shape == PRY_SIM_CHAT)
    chat_stream(&draft);
  else if (ok && call->shape == PRY_SIM_MESSAGES)
    messages_stream(&draft);
  else if (ok && call->shape == PRY_SIM_GENERATE)
    generate_stream(&draft);
  else if (ok)
    response_stream(&draft);
  ok = ok && draft.text.ok;
  draft_fini(&draft);
  return ok;
}
