/* stages - runs our models on the inputs of another program, for comparison.
 *
 *   stages vision|language MODEL INPUTS OUTPUTS [f32|bf16]
 *
 * MODEL is a folder or file as --vision and --language take it. INPUTS and OUTPUTS are safetensors:
 * `pixels` to `vit.features`; `text.ids`, `text.begin` and `text.answer_rows` (i64) to
 * `text.hidden` and `text.answer_logits`. Prints the milliseconds of loading and of computing.
 * full_size.py calls it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "projector/model.h"
#include "kernels/names.h"

typedef struct Run {
    Device *device;
    Model model;
    Checkpoint inputs;
    Arena arena;
    double loaded;
} Run;

static double milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int input(const Run *r, const char *name, Tensor *t, Error *err) {
    const CheckpointTensor *found = checkpoint_find(&r->inputs, name);
    if (!found) return error_set(err, "%s: no tensor %s", r->inputs.path, name);
    *t = found->value;
    return 0;
}

static int32_t *input_ids(const Run *r, const char *name, int *count, Error *err) {
    Tensor t;
    if (input(r, name, &t, err)) return NULL;
    *count = (int)tensor_count(t);
    int32_t *ids = malloc((size_t)(*count + 1) * sizeof *ids);
    for (int i = 0; ids && i < *count; i++) ids[i] = (int32_t)((const int64_t *)t.data)[i];
    if (!ids) error_set(err, "out of memory");
    return ids;
}

/* A tensor of any float type as f32 in new memory. */
static Tensor as_f32(Tensor t) {
    Tensor out =
        tensor_nd(malloc((size_t)tensor_count(t) * sizeof(float)), DTYPE_F32, t.ndim, t.shape);
    values_convert(out.data, DTYPE_F32, t.data, t.dtype, (size_t)tensor_count(t));
    return out;
}

static int run_vision(Run *r, const char *outputs, Error *err) {
    Tensor pixels, features;
    TRY(input(r, "pixels", &pixels, err));
    const Tower *tower = &r->model.tower;
    int images = (int)pixels.shape[0];
    int64_t rows = (int64_t)images * tower_feature_rows(tower), d = tower_width(tower);
    TRY(arena_open(&r->arena, r->device,
                   tower_work_bytes(tower, images) + arena_bytes(DTYPE_F32, rows, d), err));
    TRY(arena_take(&r->arena, &features, DTYPE_F32, rows, d, err));
    r->loaded = milliseconds();
    TRY(tower_forward(tower, &r->arena, features, pixels, err));
    CheckpointEntry entry = {"vit.features", features};
    return checkpoint_write(outputs, &entry, 1, err);
}

static int run_language(Run *r, const char *outputs, Error *err) {
    const Xlmr *m = &r->model.xlmr;
    int tokens, sequences, picked;
    int32_t *ids = input_ids(r, "text.ids", &tokens, err);
    int32_t *begin = ids ? input_ids(r, "text.begin", &sequences, err) : NULL;
    int32_t *rows = begin ? input_ids(r, "text.answer_rows", &picked, err) : NULL;
    if (!rows) return -1;
    int32_t *positions = calloc((size_t)tokens, sizeof *positions);
    AttentionSpan *spans = calloc((size_t)sequences, sizeof *spans);
    for (int s = 0; s + 1 < sequences; s++) {
        spans[s] = (AttentionSpan){begin[s], begin[s + 1], 1, {{begin[s], begin[s + 1]}}};
        for (int t = begin[s]; t < begin[s + 1]; t++)
            positions[t] = XLMR_FIRST_POSITION + t - begin[s];
    }
    XlmrBatch batch = {.tokens = tokens,
                       .ids = ids,
                       .positions = positions,
                       .plan = {.spans = spans, .span_count = sequences - 1}};
    TRY(arena_open(&r->arena, r->device,
                   xlmr_work_bytes(m, tokens) + xlmr_head_bytes(m, picked) +
                       arena_bytes(DTYPE_F32, picked, m->config.vocab),
                   err));
    Tensor hidden, features, logits;
    r->loaded = milliseconds();
    TRY(xlmr_forward(m, &r->arena, &batch, &hidden, NULL, err));
    TRY(xlmr_head(m, &r->arena, hidden, rows, picked, &features, err));
    TRY(arena_take(&r->arena, &logits, DTYPE_F32, picked, m->config.vocab, err));
    TRY(vocab_logits(r->device, logits, features, m->vocab_w, m->vocab_b, err));
    Tensor plain = as_f32(hidden);
    CheckpointEntry entries[] = {{"text.hidden", plain}, {"text.answer_logits", logits}};
    int status = checkpoint_write(outputs, entries, 2, err);
    free(plain.data), free(ids), free(begin), free(rows), free(positions), free(spans);
    return status;
}

static int run(Run *r, char **argv, const char *dtype, Error *err) {
    bool vision = !strcmp(argv[1], "vision");
    /* Opened as by `info`, since a language model here has no tokenizer; then prepared
     * explicitly. */
    ModelOptions options = {.vision = vision ? argv[2] : NULL,
                            .language = vision ? NULL : argv[2],
                            .dtype = (Dtype)names_find(dtype_choices, dtype),
                            .feature_layer = FEATURE_LAYER_UNSET,
                            .describe_only = true};
    TRY(device_open(&r->device, &(DeviceOptions){0}, err));
    TRY(model_open(&r->model, &options, r->device, err));
    ModelPart *part = vision ? &r->model.vision : &r->model.language;
    TRY(part_prepare(&part->sources, part->compute, err));
    TRY(checkpoint_open(&r->inputs, argv[3], NULL, err));
    return vision ? run_vision(r, argv[4], err) : run_language(r, argv[4], err);
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6 || (strcmp(argv[1], "vision") && strcmp(argv[1], "language"))) {
        fprintf(stderr, "usage: stages vision|language MODEL INPUTS OUTPUTS [f32|bf16]\n");
        return 2;
    }
    Run r = {0};
    Error err = {""};
    double start = milliseconds();
    int status = run(&r, argv, argc > 5 ? argv[5] : "auto", &err);
    if (status)
        fprintf(stderr, "stages: %s\n", err.text);
    else
        printf("load %.0f ms, compute %.0f ms\n", r.loaded - start, milliseconds() - r.loaded);
    arena_close(&r.arena);
    checkpoint_close(&r.inputs);
    model_close(&r.model);
    device_close(r.device);
    return status ? 1 : 0;
}
