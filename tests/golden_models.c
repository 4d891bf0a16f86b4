#include "tests/golden_models.h"

#include "kernels/names.h"
#include "tests/matrix.h"

const char *const golden_folders[2] = {"tests/golden/models/tiny-base",
                                       "tests/golden/models/tiny-xl"};

void fixture_open(Fixture *f, const char *folder, const char *dtype) {
    Error err;
    char path[512];
    *f = (Fixture){.limit = strcmp(dtype, "f32") ? 2e-2 : 1e-5};
    assert_ok(test_device_open(&f->device, &(DeviceOptions){0}, &err), &err);
    ModelOptions options = {.folder = folder,
                            .dtype = (Dtype)names_find(dtype_choices, dtype),
                            .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(model_open(&f->model, &options, f->device, &err), &err);
    snprintf(path, sizeof path, "%s/stages.safetensors", folder);
    assert_ok(checkpoint_open(&f->golden, path, NULL, &err), &err);
}

void fixture_close(Fixture *f) {
    checkpoint_close(&f->golden);
    model_close(&f->model);
    device_close(f->device);
}

Tensor golden(const Checkpoint *c, const char *format, int n) {
    char name[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, format, n);
#pragma GCC diagnostic pop
    const CheckpointTensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s lacks %s", c->path, name);
    return t->value;
}

int32_t *golden_ids(const Checkpoint *c, const char *format, int n, int *count) {
    Tensor t = golden(c, format, n);
    *count = (int)tensor_count(t);
    int32_t *ids = malloc((size_t)(*count + 1) * sizeof *ids);
    for (int i = 0; i < *count; i++) ids[i] = (int32_t)((const int64_t *)t.data)[i];
    return ids;
}

void compare(Tensor got, Tensor want, double limit, const char *what, int n) {
    char text[128];
    snprintf(text, sizeof text, "%s %d", what, n);
    assert_int_equal(tensor_count(got), tensor_count(want));
    size_t count = (size_t)tensor_count(got);
    float *values = malloc(count * sizeof *values);
    values_convert(values, DTYPE_F32, got.data, got.dtype, count);
    assert_close(values, want.data, count, limit, text);
    free(values);
}

Sequences sequences_open(const Checkpoint *c, const char *name, bool blocks, int image_rows) {
    Sequences s = {0};
    char text[64];
    int n;
    snprintf(text, sizeof text, "%s.ids", name);
    s.ids = golden_ids(c, text, 0, &s.tokens);
    snprintf(text, sizeof text, "%s.begin", name);
    s.begin = golden_ids(c, text, 0, &n);
    s.count = n - 1;
    s.image_rows = malloc((size_t)s.tokens * sizeof *s.image_rows);
    s.positions = malloc((size_t)s.tokens * sizeof *s.positions);
    s.spans = calloc((size_t)s.count * 3, sizeof *s.spans);
    if (!strcmp(name, "mm")) {
        s.images = golden_ids(c, "mm.image", 0, &n);
        s.ends = golden_ids(c, "mm.blocks", 0, &n);
    }
    for (int i = 0; i < s.count; i++) {
        int begin = s.begin[i], end = s.begin[i + 1], patch = 0;
        for (int t = begin; t < end; t++) {
            s.positions[t] = XLMR_FIRST_POSITION + t - begin;
            s.image_rows[t] = s.ids[t] < 0 ? s.images[i] * image_rows + patch++ : -1;
        }
        int q = begin;
        for (int b = 0; b < (blocks ? 3 : 1); b++) {
            int stop = blocks ? begin + s.ends[3 * i + b] : end;
            if (stop > q) s.spans[s.span_count++] = (AttentionSpan){q, stop, 1, {{begin, stop}}};
            q = stop;
        }
    }
    return s;
}

void sequences_close(Sequences *s) {
    free(s->ids), free(s->begin), free(s->image_rows), free(s->positions), free(s->spans);
    free(s->images), free(s->ends);
}

typedef struct Layers {
    const Checkpoint *golden;
    const char *name;
    double limit;
    int last; /* the last one compared */
} Layers;

static void compare_layer(void *user, int layer, Tensor x) {
    const Layers *l = user;
    if (layer <= l->last) compare(x, golden(l->golden, l->name, layer), l->limit, l->name, layer);
}

Tensor golden_image_tokens(const Checkpoint *c) {
    Tensor t = golden(c, "projector.tokens", 0);
    return tensor_2d(t.data, DTYPE_F32, t.shape[0] * t.shape[1], t.shape[2]);
}

void check_sequences(const Xlmr *m, Device *device, const Checkpoint *c, double limit,
                     int image_rows, const char *name, bool blocks, const char *result,
                     const char *layer_names) {
    Error err;
    Sequences s = sequences_open(c, name, blocks, image_rows);
    XlmrBatch batch = {.tokens = s.tokens,
                       .ids = s.ids,
                       .image_rows = s.images ? s.image_rows : NULL,
                       .positions = s.positions,
                       .image_tokens = s.images ? golden_image_tokens(c) : TENSOR_NONE,
                       .plan = {.spans = s.spans, .span_count = s.span_count}};
    Arena arena;
    assert_ok(arena_open(&arena, device,
                         xlmr_work_bytes(m, s.tokens) + xlmr_head_bytes(m, s.tokens) +
                             arena_bytes(DTYPE_F32, s.tokens, m->config.vocab),
                         &err),
              &err);
    /* The last hidden state of a pre-LN model is compared after its final LayerNorm. */
    Layers layers = {c, layer_names, limit, m->config.layers - (m->config.block.pre_norm ? 1 : 0)};
    LayerHook hook = {compare_layer, &layers};
    Tensor hidden, features, logits;
    assert_ok(xlmr_forward(m, &arena, &batch, &hidden, layer_names ? &hook : NULL, &err), &err);
    if (layer_names)
        compare(hidden, golden(c, layer_names, m->config.layers), limit, layer_names,
                m->config.layers);
    int32_t *all = malloc((size_t)s.tokens * sizeof *all);
    for (int i = 0; i < s.tokens; i++) all[i] = i;
    assert_ok(xlmr_head(m, &arena, hidden, all, s.tokens, &features, &err), &err);
    assert_ok(arena_take(&arena, &logits, DTYPE_F32, s.tokens, m->config.vocab, &err), &err);
    assert_ok(vocab_logits(device, logits, features, m->vocab_w, m->vocab_b, &err), &err);
    char text[64];
    snprintf(text, sizeof text, "%s.logits", result);
    compare(logits, golden(c, text, 0), limit, text, 0);
    free(all);
    arena_close(&arena);
    sequences_close(&s);
}
