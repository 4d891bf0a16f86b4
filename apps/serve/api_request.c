#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"
#include "data/files/json_read.h"
#include "kernels/nearest_word.h"

/* ---- Fields; false after a refusal. A field that is missing or null leaves the value. ---- */

static bool whole_read(Asked *a, const json_t *object, const char *name, json_int_t least,
                       json_int_t most, json_int_t *value) {
    const json_t *field = json_object_get(object, name);
    if (!field || json_is_null(field)) return true;
    if (!json_is_integer(field) || json_integer_value(field) < least ||
        json_integer_value(field) > most)
        return ASKED_WRONG(a, name, "%s is not a whole number from %lld to %lld", name,
                           (long long)least, (long long)most);
    *value = json_integer_value(field);
    return true;
}

static bool int_read(Asked *a, const json_t *object, const char *name, int least, int most,
                     int *value) {
    json_int_t number = *value;
    bool read = whole_read(a, object, name, least, most, &number);
    *value = (int)number;
    return read;
}

static bool real_read(Asked *a, const json_t *object, const char *name, double most, float *value) {
    const json_t *field = json_object_get(object, name);
    if (!field || json_is_null(field)) return true;
    double number = json_number_value(field);
    if (!json_is_number(field) || !(number >= 0 && number <= most))
        return ASKED_WRONG(a, name, "%s is not a number from 0 to %g", name, most);
    *value = (float)number;
    return true;
}

static bool flag_read(Asked *a, const json_t *object, const char *name, bool *value) {
    const json_t *field = json_object_get(object, name);
    if (!field || json_is_null(field)) return true;
    if (!json_is_boolean(field)) return ASKED_WRONG(a, name, "%s is not true or false", name);
    *value = json_is_true(field);
    return true;
}

static bool text_read(Asked *a, const json_t *object, const char *name, const char **value) {
    const json_t *field = json_object_get(object, name);
    if (!field || json_is_null(field)) return true;
    if (!json_is_string(field)) return ASKED_WRONG(a, name, "%s is not a text", name);
    *value = json_string_value(field);
    return true;
}

/* ---- Names of fields. ---- */

static bool name_known(const char *name, const char *const *names) {
    while (*names && strcmp(name, *names)) names++;
    return *names != NULL;
}

static bool names_check(Asked *a, const json_t *object, const char *const *names) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        if (name_known(name, names)) continue;
        const char *near = nearest_word(name, names);
        exchange_fail(a->exchange, 400, "unknown_parameter", name,
                      "there is no field \"%s\" here%s%s%s", name, near ? ": did you mean " : "",
                      near ? near : "", near ? "?" : "");
        return false;
    }
    return true;
}

/* What has one meaning only, the one without effect: others are refused. */
static bool neutral_check(Asked *a, const char *name, bool neutral, const char *why) {
    const json_t *field = json_object_get(a->body, name);
    if (!field || json_is_null(field) || neutral) return true;
    exchange_fail(a->exchange, 400, "unsupported_parameter", name, "%s is not supported: %s", name,
                  why);
    return false;
}

static double number_of(const Asked *a, const char *name) {
    const json_t *field = json_object_get(a->body, name);
    return json_is_number(field) ? json_number_value(field) : -1;
}

static bool neutrals_check(Asked *a) {
    const json_t *body = a->body, *stop = json_object_get(body, "stop");
    const char *format =
        json_string_value(json_object_get(json_object_get(body, "response_format"), "type"));
    static const char order[] =
        "all places of an answer are denoised at once, not from left to right";
    static const char strategy[] = "the decoding strategy is chosen by easyfirst.strategy";
    return neutral_check(a, "stop", json_is_array(stop) && !json_array_size(stop), order) &&
           neutral_check(a, "top_p", number_of(a, "top_p") == 1, strategy) &&
           neutral_check(a, "presence_penalty", number_of(a, "presence_penalty") == 0, strategy) &&
           neutral_check(a, "frequency_penalty", number_of(a, "frequency_penalty") == 0,
                         strategy) &&
           neutral_check(a, "logit_bias",
                         json_object_get(body, "logit_bias") &&
                             !json_object_size(json_object_get(body, "logit_bias")),
                         strategy) &&
           neutral_check(a, "top_logprobs", number_of(a, "top_logprobs") == 0,
                         "ask for a trace to see alternatives") &&
           neutral_check(a, "store", json_is_false(json_object_get(body, "store")),
                         "nothing is stored") &&
           neutral_check(a, "echo", json_is_false(json_object_get(body, "echo")),
                         "the answer is not a continuation of the prompt") &&
           neutral_check(a, "best_of", number_of(a, "best_of") == 1, "use n") &&
           neutral_check(a, "response_format", format && !strcmp(format, "text"),
                         "answers are texts") &&
           neutral_check(a, "user", json_is_string(json_object_get(body, "user")),
                         "expected a text");
}

/* ---- What is asked beyond OpenAI's fields. ---- */

static const char *const task_names[] = {"complete", "ask", "translate", "summarize", NULL};

static bool task_read(Asked *a, const json_t *own) {
    const char *name = NULL;
    if (!text_read(a, own, "task", &name)) return false;
    if (!name) return true;
    int task = 0;
    while (task_names[task] && strcmp(name, task_names[task])) task++;
    if (!task_names[task])
        return ASKED_WRONG(a, "easyfirst.task",
                           "easyfirst.task is not complete, ask, translate or summarize");
    a->request.task = (ef_task)task;
    a->has_task = true;
    return true;
}

static bool template_take(Asked *a, const json_t *own) {
    const char *text = a->exchange->server->settings->common.answer_template;
    if (!text_read(a, own, "template", &text)) return false;
    if (!text) return true;
    a->answer_template = strdup(text);
    return a->answer_template || ASKED_WRONG(a, "easyfirst.template", "out of memory");
}

static bool own_read(Asked *a) {
    static const char *const names[] = {"task",     "from",     "to",       "length",
                                        "beam",     "steps",    "strategy", "length_weight",
                                        "template", "guidance", NULL};
    const json_t *own = json_object_get(a->body, "easyfirst");
    ef_options *o = &a->options;
    if (own && !json_is_null(own) && !json_is_object(own))
        return ASKED_WRONG(a, "easyfirst", "easyfirst is not an object");
    if (!json_is_object(own)) return template_take(a, NULL);
    return names_check(a, own, names) && task_read(a, own) &&
           text_read(a, own, "from", &a->request.from) && text_read(a, own, "to", &a->request.to) &&
           int_read(a, own, "length", 1, 1000000, &a->request.length) &&
           int_read(a, own, "beam", 1, 64, &o->beam) &&
           int_read(a, own, "steps", 1, 1000, &o->steps) &&
           text_read(a, own, "strategy", &o->strategy) &&
           real_read(a, own, "guidance", 100, &o->guidance) &&
           real_read(a, own, "length_weight", 100, &o->length_weight) && template_take(a, own);
}

/* ---- OpenAI's fields. ---- */

static bool model_check(Asked *a) {
    const char *name = NULL;
    if (!text_read(a, a->body, "model", &name)) return false;
    Server *server = a->exchange->server;
    Backends *all = &server->backends;
    for (int i = 0; i < all->count; i++) {
        if (name && strcmp(name, server->model_names[i]) != 0) continue;
        if (i == 0) return true;
        backend_leave(a->backend);
        a->model = i, a->backend = backend_take(all, i);
        return true;
    }
    exchange_fail(a->exchange, 404, "model_not_found", "model",
                  "there is no model of this name: this server has \"%s\"%s", server->model_id,
                  all->count > 1 ? " and its adapters (GET /v1/models)" : "");
    return false;
}

static bool stream_read(Asked *a) {
    static const char *const names[] = {"include_usage", NULL};
    const json_t *options = json_object_get(a->body, "stream_options");
    if (!flag_read(a, a->body, "stream", &a->stream) ||
        !flag_read(a, a->body, "easyfirst_steps", &a->steps))
        return false;
    if (a->steps && !a->stream)
        return ASKED_WRONG(a, "easyfirst_steps", "easyfirst_steps needs \"stream\": true");
    if (a->stream && a->keep_pixels) return ASKED_WRONG(a, "stream", "this is not streamed");
    if (!options || json_is_null(options)) return true;
    if (!a->stream || !json_is_object(options))
        return ASKED_WRONG(a, "stream_options",
                           "stream_options is an object, with \"stream\": true");
    return names_check(a, options, names) && flag_read(a, options, "include_usage", &a->usage);
}

static bool amounts_read(Asked *a) {
    json_int_t seed = (json_int_t)a->options.seed;
    float temperature = a->options.temperature;
    bool read = int_read(a, a->body, "max_tokens", 1, 1000000, &a->max_tokens) &&
                int_read(a, a->body, "max_completion_tokens", 1, 1000000, &a->max_tokens) &&
                int_read(a, a->body, "n", 1, API_CHOICES, &a->choices) &&
                whole_read(a, a->body, "seed", 0, INT64_MAX, &seed) &&
                real_read(a, a->body, "temperature", 2, &temperature);
    a->options.seed = (uint64_t)seed, a->options.temperature = temperature;
    if (a->choices) a->options.samples = a->choices;
    return read;
}

/* Without a predictor of lengths the bound is the length. */
static void length_fall_back(Asked *a) {
    if (!a->answer_template && !a->request.length && !a->given &&
        !ef_model_has_length_predictor(a->backend->model))
        a->request.length = a->max_tokens;
}

/* ---- The two kinds of requests. ---- */

static bool chat_read(Asked *a) {
    static const char *const names[] = {"model",
                                        "messages",
                                        "stream",
                                        "stream_options",
                                        "max_tokens",
                                        "max_completion_tokens",
                                        "temperature",
                                        "seed",
                                        "n",
                                        "stop",
                                        "top_p",
                                        "presence_penalty",
                                        "logit_bias",
                                        "frequency_penalty",
                                        "logprobs",
                                        "top_logprobs",
                                        "user",
                                        "store",
                                        "response_format",
                                        "structured_outputs",
                                        "guided_choice",
                                        "easyfirst",
                                        "easyfirst_steps",
                                        NULL};
    return names_check(a, a->body, names) && flag_read(a, a->body, "logprobs", &a->logprobs) &&
           api_messages_read(a);
}

static bool completion_read(Asked *a) {
    static const char *const names[] = {"model",
                                        "prompt",
                                        "suffix",
                                        "stream",
                                        "stream_options",
                                        "max_tokens",
                                        "temperature",
                                        "seed",
                                        "n",
                                        "stop",
                                        "top_p",
                                        "echo",
                                        "best_of",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "logit_bias",
                                        "user",
                                        "structured_outputs",
                                        "guided_choice",
                                        "easyfirst_steps",
                                        "easyfirst",
                                        NULL};
    const char *prompt = NULL, *suffix = NULL;
    if (!names_check(a, a->body, names) || !text_read(a, a->body, "prompt", &prompt) ||
        !text_read(a, a->body, "suffix", &suffix))
        return false;
    if (!prompt) return ASKED_WRONG(a, "prompt", "there is no prompt, a text");
    if (suffix && *suffix && a->answer_template)
        return ASKED_WRONG(a, "suffix", "there is a template, too: send one of them");
    if (suffix && *suffix) return api_infill(a, prompt, suffix);
    a->text = strdup(prompt);
    return a->text || ASKED_WRONG(a, "prompt", "out of memory");
}

static bool body_read(Asked *a) {
    Exchange *e = a->exchange;
    Error err;
    size_t memory = 3 * e->body_size;
    if (memory < 1 << 20) memory = 1 << 20;
    if (json_read_text(&a->body, e->body ? e->body : "", e->body_size, JSON_REJECT_DUPLICATES,
                       memory, "the request", &err)) {
        exchange_fail(e, 400, "invalid_json", NULL, "%s", err.text);
        return false;
    }
    exchange_body_free(e);
    return json_is_object(a->body) || ASKED_WRONG(a, NULL, "the request is not a JSON object");
}

/* What was asked for, where the fields do not say. */
static void request_finish(Asked *a) {
    a->request.text = a->text;
    a->request.image = a->image;
    a->request.answer_template = a->answer_template;
    a->request.choices = a->given, a->request.choice_count = a->given_count;
    a->request.turns = a->turns, a->request.turn_count = a->turn_count;
    if (!a->has_task) a->request.task = a->image ? EF_ASK : EF_COMPLETE;
    length_fall_back(a);
}

bool asked_read(Asked *a) {
    const ServeSettings *s = a->exchange->server->settings;
    a->options = library_options(&s->common, a->strategy);
    a->options.batch_tokens = 0; /* the engine's */
    a->request.length = s->common.length;
    if (!body_read(a) || !model_check(a) || !own_read(a) || !stream_read(a) || !amounts_read(a) ||
        !neutrals_check(a) || !api_choices_read(a))
        return false;
    if (!(a->chat ? chat_read(a) : completion_read(a))) return false;
    json_object_del(a->body, "messages"); /* an image in them is large */
    if (a->answer_template && !a->infill && a->max_tokens)
        return ASKED_WRONG(a, "max_tokens", "the lengths of gaps are in the template, as ___{3}");
    request_finish(a);
    return true;
}

void asked_free(Asked *a) {
    for (size_t i = 0; i < a->turn_room && a->turns; i++)
        free((char *)a->turns[i].question), free((char *)a->turns[i].answer);
    free(a->given), free(a->turns), free(a->text), free(a->answer_template);
    image_free(&a->pixels);
    ef_image_close(a->image);
    json_decref(a->body);
}
