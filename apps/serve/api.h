/* api.h - requests for answers in OpenAI's forms: POST /v1/chat/completions and /v1/completions.
 *
 * What is asked beyond OpenAI's fields:
 *   "easyfirst": {"task": "ask", "complete", "translate" or "summarize", "from", "to", "length",
 *                 "beam", "steps", "strategy", "length_weight", "template"}
 *   "structured_outputs": {"choice": ["...", ...]}: the answer is one of these (api_choices.c)
 *   "easyfirst_steps": true, with "stream": an event for each denoising step
 * A field that is unknown, or that asks for what a masked-diffusion model cannot do, is refused.
 */
#ifndef EASYFIRST_APPS_SERVE_API_H
#define EASYFIRST_APPS_SERVE_API_H

#include "apps/serve/exchange.h"
#include "vision/image.h"

enum { API_CHOICES = 128, API_MESSAGES = 1000, API_GIVEN = 1000 };

/* A request that was read; freed when its answer was sent. */
typedef struct Asked {
    Exchange *exchange; /* both with a reference of their own */
    Backend *backend;
    int model; /* of the server's: 0, or 1 + an adapter's index */
    json_t *body;
    bool chat, stream, usage, steps, logprobs;
    int choices;    /* n; 0: not given, the best answer */
    int max_tokens; /* 0: not given */
    bool has_task;
    ef_request request;
    ef_options options;
    char strategy[LIBRARY_STRATEGY];
    char *text;            /* the request's */
    char *answer_template; /* NULL: none */
    bool infill;           /* of a prompt and a suffix, bytes of the template's text */
    size_t prefix, suffix;
    ef_image *image;
    Image pixels; /* of the image, where they are kept */
    bool keep_pixels;
    const char **given; /* the request's choices, [given_count], their texts the body's */
    size_t given_count;
    ef_turn *turns; /* the request's, [turn_room], their texts owned */
    size_t turn_count, turn_room;
    char id[48];
    long long created;
} Asked;

/* Reads the body of an exchange; false after exchange_fail. The answer is freed by asked_free
 * in both cases. */
bool asked_read(Asked *asked);
void asked_free(Asked *asked);

/* ---- Parts of it. ---- */

/* A data URI's bytes; http addresses and all else is refused. */
bool api_image_read(Asked *asked, const char *url, const char *param);

/* The messages of a chat: the last question, its image, the turns before it. */
bool api_messages_read(Asked *asked);

/* A prompt with a suffix, as a template with one gap between them. */
bool api_infill(Asked *asked, const char *prompt, const char *suffix);

/* Choices that are given, if there are any. */
bool api_choices_read(Asked *asked);

/* What is wrong with a field: false. */
#define ASKED_WRONG(asked, param, ...) \
    (exchange_fail((asked)->exchange, 400, "invalid_value", (param), __VA_ARGS__), false)

/* ---- Answers (api_answer.c). ---- */

/* The whole answer, or the last events of a stream; and an event of a step. */
void api_answer_send(Asked *asked, const ef_answers *answers);
void api_step_send(Asked *asked, const ef_step *step);
void api_stream_begin(Asked *asked);

/* Answers with all steps, alternatives and attention (api_trace.c), in the worker. */
void api_trace_send(Asked *asked);

/* Chooses and answers, in the worker; and all choices of an answer (api_choices.c). */
void api_choose(Asked *asked);
json_t *api_choices_json(const ef_answers *answers);

/* A failure of the library. */
void api_error_send(Exchange *e, const ef_error *err);

#endif
