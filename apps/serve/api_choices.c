/* api_choices.c - answers that are chosen from given ones: "structured_outputs": {"choice": [...]},
 * as vLLM's server calls it, or "guided_choice": [...], as its versions before 0.12 did.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"

/* The field with the choices, and its name; NULL: none. False after a refusal. */
static bool field_find(Asked *a, const json_t **field, const char **name) {
    const json_t *outputs = json_object_get(a->body, "structured_outputs");
    const json_t *guided = json_object_get(a->body, "guided_choice");
    const char *key;
    json_t *value;
    *field = NULL, *name = "structured_outputs.choice";
    if (json_is_null(outputs)) outputs = NULL;
    if (json_is_null(guided)) guided = NULL;
    if (outputs && !json_is_object(outputs))
        return ASKED_WRONG(
            a, "structured_outputs",
            "structured_outputs is not an object, as {\"choice\": [\"yes\", \"no\"]}");
    json_object_foreach((json_t *)outputs, key, value) {
        if (!strcmp(key, "choice") || json_is_null(value)) continue;
        exchange_fail(a->exchange, 400, "unsupported_parameter", "structured_outputs",
                      "structured_outputs.%.40s is not supported: only choice is", key);
        return false;
    }
    const json_t *choice = json_object_get(outputs, "choice");
    if (json_is_null(choice)) choice = NULL;
    if (choice && guided)
        return ASKED_WRONG(a, "guided_choice",
                           "guided_choice and structured_outputs.choice are the same: send one");
    if (guided) *name = "guided_choice";
    *field = choice ? choice : guided;
    return true;
}

static bool texts_take(Asked *a, const json_t *list, const char *name) {
    size_t count = json_array_size(list), i;
    json_t *text;
    if (!json_is_array(list) || !count || count > API_GIVEN)
        return ASKED_WRONG(a, name, "%s is not a list of 1 to %d texts", name, API_GIVEN);
    a->given = calloc(count, sizeof *a->given);
    if (!a->given) return ASKED_WRONG(a, name, "out of memory for %zu choices", count);
    json_array_foreach(list, i, text) {
        if (!json_is_string(text))
            return ASKED_WRONG(a, name, "%s has something else than texts", name);
        a->given[a->given_count++] = json_string_value(text); /* the body's */
    }
    return true;
}

/* Fields that a choice leaves without effect are refused. */
static bool others_check(Asked *a) {
    static const char *const own_names[] = {"beam", "steps", "strategy", "length_weight"};
    const json_t *own = json_object_get(a->body, "easyfirst");
    if (a->keep_pixels)
        return ASKED_WRONG(a, "structured_outputs", "a choice has no steps to be shown");
    if (a->steps)
        return ASKED_WRONG(a, "easyfirst_steps", "a choice between given answers has no steps");
    if (a->choices > 1) return ASKED_WRONG(a, "n", "n is 1 with given choices: one is chosen");
    if (json_number_value(json_object_get(a->body, "temperature")) > 0)
        return ASKED_WRONG(a, "temperature",
                           "temperature is 0 with given choices: the likeliest one is chosen");
    for (size_t i = 0; i < sizeof own_names / sizeof *own_names; i++) {
        const json_t *field = json_object_get(own, own_names[i]);
        if (field && !json_is_null(field))
            return ASKED_WRONG(a, own_names[i], "easyfirst.%s has no effect on given choices",
                               own_names[i]);
    }
    return true;
}

bool api_choices_read(Asked *a) {
    const json_t *field, *own = json_object_get(a->body, "easyfirst");
    const char *name;
    if (!field_find(a, &field, &name)) return false;
    if (!field) return true;
    if (!texts_take(a, field, name) || !others_check(a)) return false;
    /* The server's own defaults are for denoised answers. */
    a->options.samples = 0, a->options.temperature = 0;
    if (!json_object_get(own, "length")) a->request.length = 0;
    if (!json_object_get(own, "template")) free(a->answer_template), a->answer_template = NULL;
    return true;
}

/* From here on the exchange cancels what it computes; false: it was cancelled before. */
static bool cancellation_begin(Exchange *e, ef_cancellation *cancellation) {
    pthread_mutex_lock(&e->mutex);
    e->cancellation = cancellation;
    bool runs = !e->cancelled;
    pthread_mutex_unlock(&e->mutex);
    return runs;
}

static void cancellation_end(Exchange *e) {
    pthread_mutex_lock(&e->mutex);
    ef_cancellation *cancellation = e->cancellation;
    e->cancellation = NULL;
    pthread_mutex_unlock(&e->mutex);
    ef_cancellation_close(cancellation);
}

void api_choose(Asked *a) {
    Exchange *e = a->exchange;
    ef_answers *answers = NULL;
    ef_cancellation *cancellation;
    ef_error err;
    if (ef_cancellation_new(&cancellation, &err)) {
        api_error_send(e, &err);
        return;
    }
    a->options.cancellation = cancellation;
    if (cancellation_begin(e, cancellation)) {
        int status = ef_answer(a->backend->model, &a->request, 1, &a->options, &answers, &err);
        if (status == 0 && ef_answer_error(answers, 0)) {
            exchange_fail(e, 400, "invalid_request", NULL, "%s", ef_answer_error(answers, 0));
        } else if (status) {
            api_error_send(e, &err);
        } else {
            metrics_answer(&e->server->metrics, answers);
            api_answer_send(a, answers);
        }
        ef_answers_close(answers);
    }
    cancellation_end(e);
}

json_t *api_choices_json(const ef_answers *answers) {
    json_t *list = json_array();
    for (size_t c = 0; c < ef_answer_choices(answers, 0); c++) {
        const ef_choice *choice = ef_answer_choice(answers, 0, c);
        json_array_append_new(list,
                              json_pack("{s:o, s:f, s:o, s:i}", "text", json_text(choice->text),
                                        "probability", choice->probability, "score",
                                        json_score(choice->score), "length", choice->length));
    }
    return list;
}
