#include "projector/multimodal.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"

enum { PICTURES_AT_ONCE = 8 };

int multimodal_picture_rows(const Multimodal *model) {
    return model->vit ? vit_feature_rows(&model->vit->config) : 0;
}

/* ---- Pictures. ---- */

static int encode_batch(const Multimodal *m, Arena *arena, const Image *images, int count,
                        Tensor tokens, Error *err) {
    int side = m->vit->config.image_size;
    int64_t rows = (int64_t)count * multimodal_picture_rows(m), plane = 3 * (int64_t)side * side;
    float *host = malloc((size_t)(count * plane) * sizeof *host);
    if (!host) return error_set(err, "out of memory for %d pictures", count);
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = preprocess_image(host + i * plane, &images[i], &m->preprocess, err);
    Tensor flat, features;
    if (status == 0) status = arena_upload(arena, &flat, DTYPE_F32, count * plane, host, err);
    free(host);
    if (status) return -1;
    Tensor pixels = tensor_nd(flat.data, DTYPE_F32, 4, (int64_t[]){count, 3, side, side});
    TRY(arena_take(arena, &features, m->projector->params->compute, rows,
                   m->vit->config.block.width, err));
    TRY(vit_forward(m->vit, arena, features, pixels, NULL, err));         /* [B*P, Dv] */
    return projector_forward(m->projector, arena, tokens, features, err); /* [B*P, D] */
}

int multimodal_encode(const Multimodal *m, const Image *images, int count, Tensor *tokens,
                      Error *err) {
    *tokens = TENSOR_NONE;
    if (!m->vit || !m->projector)
        return error_set(err,
                         "this model cannot see: it has no %s; use a model folder with one, or "
                         "--vision and --projector",
                         m->vit ? "projector" : "vision tower");
    int at_once = count < PICTURES_AT_ONCE ? count : PICTURES_AT_ONCE;
    int64_t rows = multimodal_picture_rows(m), side = m->vit->config.image_size;
    *tokens = tensor_2d(NULL, DTYPE_F32, count * rows, m->projector->out);
    TRY(device_alloc(m->device, &tokens->data, tensor_bytes(*tokens), err));
    Arena arena = {0};
    int status = arena_open(
        &arena, m->device,
        vit_work_bytes(m->vit, at_once) + arena_bytes(DTYPE_F32, 1, at_once * 3 * side * side) +
            arena_bytes(m->projector->params->compute, at_once * rows, m->vit->config.block.width) +
            projector_work_bytes(m->projector, at_once * rows),
        err);
    for (int i = 0; i < count && status == 0; i += at_once) {
        int n = count - i < at_once ? count - i : at_once;
        status =
            encode_batch(m, &arena, images + i, n, tensor_rows(*tokens, i * rows, n * rows), err);
        arena_reset(&arena, 0);
    }
    arena_close(&arena);
    if (status) {
        device_free(m->device, tokens->data);
        *tokens = TENSOR_NONE;
    }
    return status;
}

/* ---- Prompts. ---- */

AnswerOptions answer_options_default(void) {
    return (AnswerOptions){.decode = decode_options_default(), .length_beam = 1, .samples = 1};
}

static int encode_prompt(const Multimodal *m, const AnswerRequest *request, Ids *ids, Error *err) {
    const char *text = request->prompt;
    size_t before = ids->count, size = strlen(text);
    if (strspn(text, " \t\r\n") == size)
        return error_set(err, "the question is empty: there is nothing to answer");
    TRY(tokenizer_encode(m->tokenizer, text, size, ids, err));
    if (ids->count == before)
        return error_set(err, "nothing of the question is left in the tokenizer's alphabet");
    if (ids->count - before > 1000000)
        return error_set(err, "the question has over 1,000,000 tokens");
    return 0;
}

static int check_room(const Multimodal *m, const AnswerRequest *r, int tokens, Error *err) {
    int longest = xlmr_longest(&m->xlmr->config);
    int picture = r->picture >= 0 ? multimodal_picture_rows(m) : 0;
    int answer = r->length > 0 ? r->length : 1;
    int room = infill_prompt_room(longest, m->answer_position, 1 + picture, answer + 1);
    if (tokens <= room) return 0;
    if (room < 1)
        return error_set(err,
                         "an answer of %d tokens does not fit: the model reads %d tokens, of which "
                         "the picture takes %d and <s> and </s> 2; ask for a shorter one",
                         answer, longest, picture);
    return error_set(err,
                     "the prompt is %d tokens long, %d fit (the model reads %d: <s>, %d of the "
                     "picture, the prompt, %d of the answer, </s>): shorten it",
                     tokens, room, longest, picture, answer);
}

/* Appends the ids of a request's prompt, if it can be answered; *tokens is how many they are. */
static int request_encode(const Multimodal *m, const AnswerRequest *request, Ids *ids, int *tokens,
                          Error *err) {
    size_t before = ids->count;
    int status = encode_prompt(m, request, ids, err);
    *tokens = (int)(ids->count - before);
    TRY(status);
    TRY(check_room(m, request, *tokens, err));
    if (request->length > 0 || m->length) return 0;
    return error_set(err, "this model has no length predictor: say how many tokens the answer "
                          "shall have (--length N)");
}

int multimodal_check(const Multimodal *m, const AnswerRequest *request, int *tokens, Error *err) {
    Ids ids = {0};
    int count, status = request_encode(m, request, &ids, &count, err);
    if (tokens) *tokens = count;
    ids_free(&ids);
    return status;
}

typedef struct Prompts {
    Ids ids;
    InfillPrompt *items; /* point into ids once all are encoded */
} Prompts;

static int prompts_encode(const Multimodal *m, const AnswerRequest *requests, int count, Prompts *p,
                          Error *err) {
    p->items = calloc((size_t)count + 1, sizeof *p->items);
    if (!p->items) return error_set(err, "out of memory for %d prompts", count);
    for (int i = 0; i < count; i++) {
        p->items[i].picture = requests[i].picture;
        if (request_encode(m, &requests[i], &p->ids, &p->items[i].count, err))
            return count > 1 ? error_context(err, "request %d", i + 1) : -1;
    }
    const int32_t *at = p->ids.ids;
    for (int i = 0; i < count; i++) p->items[i].ids = at, at += p->items[i].count;
    return 0;
}

/* ---- Hypotheses. ---- */

/* One spec for each length and sample of every request. */
static int specs_make(const Multimodal *m, Infill *infill, const AnswerRequest *requests, int count,
                      const AnswerOptions *options, Answers *out, Error *err) {
    int beam = options->length_beam > 0 ? options->length_beam : 1;
    int samples = options->samples > 0 ? options->samples : 1;
    bool predict = false;
    for (int i = 0; i < count; i++) predict |= requests[i].length <= 0;
    int classes = predict ? m->length->classes : 0;
    float *logits = malloc(((size_t)count * (size_t)classes + 1) * sizeof *logits);
    int *lengths = malloc((size_t)beam * sizeof *lengths);
    out->specs = malloc((size_t)count * (size_t)beam * (size_t)samples * sizeof *out->specs);
    int status = logits && lengths && out->specs ? 0 : error_set(err, "out of memory");
    if (status == 0 && predict) status = infill_lengths(infill, m->length, logits, err);
    for (int i = 0; status == 0 && i < count; i++) {
        Answer *a = &out->items[i];
        a->first = out->result_count;
        const float *own = requests[i].length > 0 ? NULL : logits + (size_t)i * (size_t)classes;
        int n = 1;
        lengths[0] = requests[i].length;
        if (own) n = length_choose(lengths, beam, own, classes, infill_longest_answer(infill, i));
        for (int l = 0; l < n; l++) {
            double prior = 0;
            if (own && options->length_weight > 0)
                prior = options->length_weight * length_log_probability(own, classes, lengths[l]);
            for (int s = 0; s < samples; s++)
                out->specs[out->result_count++] = (DecodeSpec){
                    .request = i, .length = lengths[l], .sample = s, .prior = (float)prior};
        }
        a->count = out->result_count - a->first;
    }
    free(logits), free(lengths);
    return status;
}

static bool look_wanted(const AnswerOptions *options) {
    return options->look.runners_up > 0 || options->look.attention;
}

static int answers_decode(const Multimodal *m, Infill *infill, const AnswerOptions *options,
                          Answers *out, Error *err) {
    int longest = 1;
    int64_t rows = 0;
    for (int i = 0; i < out->result_count; i++) {
        if (out->specs[i].length > longest) longest = out->specs[i].length;
        rows += out->specs[i].length + 1;
    }
    TRY(infill_reserve(infill, longest, rows, err));
    DecodeRun run = {.options = &options->decode,
                     .specs = out->specs,
                     .count = out->result_count,
                     .mask_id = tokenizer_mask_id(m->tokenizer),
                     .evaluate = infill_evaluate,
                     .model = infill,
                     .watch = options->watch,
                     .user = options->user,
                     .trace = options->trace || look_wanted(options)};
    TRY(decode_run(&run, &out->results, err));
    for (int i = 0; i < out->count; i++) {
        Answer *a = &out->items[i];
        a->best =
            a->first + decode_best(out->results + a->first, out->specs + a->first, a->count, i);
        const DecodeResult *best = &out->results[a->best];
        TRY(tokenizer_decode(m->tokenizer, best->tokens, (size_t)best->length, &a->text, err));
    }
    return 0;
}

/* Looks back at what was decoded; the trace that this needs stays only if it was asked for. */
static int answers_look(const Multimodal *m, Infill *infill, const AnswerOptions *options,
                        Answers *out, Error *err) {
    size_t n = (size_t)out->result_count + 1;
    bool *wanted = calloc(n, sizeof *wanted);
    out->looks = calloc(n, sizeof *out->looks);
    int status =
        wanted && out->looks ? 0 : error_set(err, "out of memory for %d looks", out->result_count);
    for (int i = 0; i < out->count && status == 0; i++) wanted[out->items[i].best] = true;
    if (status == 0)
        status = answer_looks_make(
            out->looks, infill, out->specs, out->results, options->look.all ? NULL : wanted,
            out->result_count, tokenizer_mask_id(m->tokenizer),
            m->vit ? m->vit->config.image_size / m->vit->config.patch : 0,
            m->vit && m->vit->config.class_token ? 1 : 0, &options->decode, &options->look, err);
    free(wanted);
    for (int i = 0; i < out->result_count && !options->trace; i++) {
        free(out->results[i].trace), free(out->results[i].evaluated);
        out->results[i].trace = NULL, out->results[i].evaluated = NULL;
    }
    return status;
}

int multimodal_answer(const Multimodal *m, Tensor image_tokens, const AnswerRequest *requests,
                      int count, const AnswerOptions *options, Answers *answers, Error *err) {
    *answers = (Answers){0};
    if (!m->xlmr || !m->tokenizer)
        return error_set(err, "this model cannot write: it has no language part");
    Prompts prompts = {0};
    Infill *infill = NULL;
    double t0 = clock_seconds();
    answers->items = calloc((size_t)count + 1, sizeof *answers->items);
    answers->count = count;
    int status = answers->items ? prompts_encode(m, requests, count, &prompts, err)
                                : error_set(err, "out of memory for %d answers", count);
    double t1 = clock_seconds();
    bool predict = false;
    for (int i = 0; i < count; i++) predict |= requests[i].length <= 0;
    InfillConfig config = {.model = m->xlmr,
                           .device = m->device,
                           .pattern = m->attention,
                           .answer_position = m->answer_position,
                           .no_reuse = options->no_reuse,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .vocab_limit = tokenizer_size(m->tokenizer),
                           .batch_tokens = options->batch_tokens,
                           .prompts = prompts.items,
                           .prompt_count = count,
                           .image_tokens = image_tokens,
                           .picture_rows = multimodal_picture_rows(m),
                           .keep_hidden = predict};
    if (status == 0) status = infill_open(&infill, &config, err);
    if (status == 0) status = specs_make(m, infill, requests, count, options, answers, err);
    double t2 = clock_seconds();
    if (status == 0) status = answers_decode(m, infill, options, answers, err);
    double t3 = clock_seconds();
    if (status == 0 && look_wanted(options))
        status = answers_look(m, infill, options, answers, err);
    if (infill) answers->counts = infill_counts(infill);
    for (int i = 0; i < count && prompts.items && answers->items; i++)
        answers->items[i].prompt_tokens = prompts.items[i].count;
    answers->tokenize_s = t1 - t0, answers->prefix_s = t2 - t1, answers->decode_s = t3 - t2,
    answers->look_s = clock_seconds() - t3;
    infill_close(infill);
    free(prompts.items);
    ids_free(&prompts.ids);
    if (status) answers_free(answers);
    return status;
}

void answers_free(Answers *a) {
    for (int i = 0; i < a->count && a->items; i++) free(a->items[i].text);
    for (int i = 0; i < a->result_count && a->looks; i++) answer_look_free(&a->looks[i]);
    free(a->looks);
    if (a->results) decode_results_free(a->results, a->result_count);
    free(a->items), free(a->specs);
    *a = (Answers){0};
}
