/* Writing a model's files: parts with and without LoRA, the state of training, JSON, copies, whole
 * folders; and what is left after a failure.
 *
 * With the arguments "write FROM TO [TYPE]" the program loads the language model in the folder FROM
 * and writes it to TO/model.safetensors, for tests/reference/check_written.py. */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "projector/model.h"
#include "data/checkpoints/model_files.h"
#include "kernels/optimizer.h"
#include "tests/guarded_device.h"
#include "tests/test.h"

static char folder[256];

static int make_folder(void **state) {
    (void)state;
    temporary_folder(folder, sizeof folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    temporary_remove(folder);
    return 0;
}

static const char *at(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void save_text(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void check_text(const char *path, const char *want) {
    char *text = file_bytes(path, NULL);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

static int entry_count(const char *path) {
    DIR *entries = opendir(path);
    assert_non_null(entries);
    int count = -2;
    while (readdir(entries)) count++;
    closedir(entries);
    return count;
}

/* ---- A table of odd shapes; the large one is written in several pieces. ---- */

enum { ROWS = 601, COLUMNS = 1801, LAYERS = 8 };

typedef struct Sample {
    Params params;
    Tensor slots[LAYERS];
    char *memory;
} Sample;

static const struct {
    const char *name;
    ParamRole role;
    int ndim;
    int64_t shape[4];
} layers[LAYERS] = {
    {"a.weight", PARAM_MATRIX, 2, {ROWS, COLUMNS}},
    {"a.bias", PARAM_VECTOR, 1, {ROWS}},
    {"conv.weight", PARAM_MATRIX, 4, {5, 3, 2, 2}},
    {"table", PARAM_TABLE, 2, {13, 9}},
    {"words.weight", PARAM_VOCABULARY, 2, {11, 7}},
    {"class", PARAM_VECTOR, 1, {7}},
    {"absent", PARAM_VECTOR, 1, {3}},
    {"idle.weight", PARAM_MATRIX, 2, {4, 4}},
};

/* Values in several types; "absent" has none, and "table" and "class" are frozen if
 * `some_frozen`. */
static void sample_make(Sample *m, Device *device, uint64_t seed, bool some_frozen) {
    static const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    Error err;
    TestRandom random = {seed};
    *m = (Sample){.memory = malloc(4 * ROWS * (COLUMNS + 2))};
    params_init(&m->params, device);
    char *next = m->memory;
    for (int i = 0; i < LAYERS; i++) {
        ParamSpec spec = {.slot = &m->slots[i],
                          .role = layers[i].role,
                          .ndim = layers[i].ndim,
                          .frozen = some_frozen && (i == 3 || i == 5),
                          .optional = i == 6,
                          .idle = i == 7};
        memcpy(spec.shape, layers[i].shape, sizeof spec.shape);
        assert_ok(params_declare(&m->params, &spec, &err, "%s", layers[i].name), &err);
        if (i == 6) continue;
        Tensor value = tensor_nd(next, types[i % 3], spec.ndim, spec.shape);
        for (int64_t j = 0; j < tensor_count(value); j++) {
            float v = test_random_normal(&random);
            values_convert(next, value.dtype, &v, DTYPE_F32, 1);
            next += dtype_size(value.dtype);
        }
        assert_ok(params_set(&m->params.items[i], value, &err), &err);
        next += (size_t)(-(uintptr_t)next % 4);
    }
    assert_true(next <= m->memory + 4 * ROWS * (COLUMNS + 2));
}

static void sample_free(Sample *m) {
    params_free(&m->params);
    free(m->memory);
}

static const Tensor *find(const Checkpoint *c, const char *name) {
    const CheckpointTensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s has no %s", c->path, name);
    return &t->value;
}

/* The file holds every parameter as `dtype`, with the values that the table has, and no more. */
static void check_part(const Params *params, const char *path, Dtype dtype, int count) {
    Checkpoint c;
    Error err;
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_int_equal(c.count, count);
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (!p->present) continue;
        const Tensor *t = find(&c, p->name);
        assert_int_equal(t->dtype, dtype == DTYPE_NONE ? p->value.dtype : dtype);
        assert_true(tensor_same_shape(*t, p->value));
        char *want = malloc(tensor_bytes(*t));
        assert_ok(params_fetch(params, p, want, t->dtype, &err), &err);
        assert_memory_equal(t->data, want, tensor_bytes(*t));
        free(want);
    }
    checkpoint_close(&c);
}

static void test_part(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample m;
    Error err;
    sample_make(&m, device, 1, true);
    const char *path = at("part.safetensors");
    assert_ok(part_write(&m.params, NULL, 0, path, DTYPE_NONE, &err), &err);
    check_part(&m.params, path, DTYPE_NONE, LAYERS - 1);
    assert_ok(params_train(&m.params, DTYPE_BF16, &err), &err);
    /* Other values than were given: what is written is what is on the device. */
    Param *bias = params_find(&m.params, "a.bias");
    float fresh[ROWS];
    for (int i = 0; i < ROWS; i++) fresh[i] = 1 + (float)i / 1000;
    assert_ok(params_store(&m.params, bias, fresh, &err), &err);
    static const Dtype types[] = {DTYPE_NONE, DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < 4; i++) {
        assert_ok(part_write(&m.params, NULL, 0, path, types[i], &err), &err);
        check_part(&m.params, path, types[i], LAYERS);
    }
    Checkpoint c;
    assert_ok(part_write(&m.params, NULL, 0, path, DTYPE_F32, &err), &err);
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_memory_equal(find(&c, "a.bias")->data, fresh, sizeof fresh);
    checkpoint_close(&c);
    assert_refused(part_write(&m.params, NULL, 0, path, DTYPE_I8, &err), &err, path, "i8");
    sample_free(&m);
    guarded_close(device);
}

/* ---- LoRA. ---- */

static void lora_declare(Params *lora, Tensor slots[2], const char *stem, int64_t rank,
                         int64_t rows, int64_t columns) {
    Error err;
    ParamSpec a = {.slot = &slots[0],
                   .role = PARAM_MATRIX,
                   .init = INIT_NORMAL,
                   .init_std = 0.1f,
                   .ndim = 2,
                   .shape = {rank, columns}};
    ParamSpec b = {.slot = &slots[1],
                   .role = PARAM_MATRIX,
                   .init = INIT_NORMAL,
                   .init_std = 0.1f,
                   .ndim = 2,
                   .shape = {rows, rank}};
    assert_ok(params_declare(lora, &a, &err, "base_model.model.%s.lora_A.weight", stem), &err);
    assert_ok(params_declare(lora, &b, &err, "base_model.model.%s.lora_B.weight", stem), &err);
}

static float *values_of(const Params *params, const char *name) {
    Error err;
    const Param *p = params_find((Params *)params, name);
    float *values = malloc(tensor_bytes(p->value) * 2 + 4);
    assert_ok(params_fetch(params, p, values, DTYPE_F32, &err), &err);
    return values;
}

/* Every value of W + scale B A, summed in double, within a few roundings of the sum in f32. */
static void check_merged(const Tensor *t, const float *w, const float *a, const float *b, int rank,
                         double scale) {
    int64_t rows = t->shape[0], columns = tensor_count(*t) / rows;
    float *seen = malloc(sizeof *seen * (size_t)(rows * columns));
    values_convert(seen, DTYPE_F32, t->data, t->dtype, (size_t)(rows * columns));
    double rounding = t->dtype == DTYPE_F32 ? 1e-6 : 0x1p-8;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double sum = 0, size = 0;
            for (int r = 0; r < rank; r++) {
                double matmul = (double)b[i * rank + r] * a[r * columns + j];
                sum += matmul, size += fabs(matmul);
            }
            double got = seen[i * columns + j], want = w[i * columns + j] + scale * sum;
            double limit = rounding * fabs(want) + 1e-6 * (fabs(w[i * columns + j]) + scale * size);
            if (!(fabs(got - want) <= limit))
                fail_msg("[%d, %d]: %g, expected %g", (int)i, (int)j, got, want);
        }
    free(seen);
}

static void test_lora(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample m;
    Params lora;
    Tensor slots[4];
    Error err;
    Checkpoint c;
    sample_make(&m, device, 2, true);
    params_freeze(&m.params, true);
    params_init(&lora, device);
    lora_declare(&lora, slots, "a", 3, ROWS, COLUMNS);
    lora_declare(&lora, slots + 2, "conv", 2, 5, 12);
    assert_ok(params_allocate(&lora, DTYPE_F32, &err), &err);
    params_initialise(&lora, 5);
    assert_ok(params_train(&m.params, DTYPE_F32, &err), &err);
    assert_ok(params_train(&lora, DTYPE_BF16, &err), &err);
    float *w[2] = {values_of(&m.params, "a.weight"), values_of(&m.params, "conv.weight")};
    float *a[2] = {values_of(&lora, "base_model.model.a.lora_A.weight"),
                   values_of(&lora, "base_model.model.conv.lora_A.weight")};
    float *b[2] = {values_of(&lora, "base_model.model.a.lora_B.weight"),
                   values_of(&lora, "base_model.model.conv.lora_B.weight")};
    const char *path = at("merged.safetensors");
    static const Dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        assert_ok(part_write(&m.params, &lora, 1.7, path, types[i], &err), &err);
        assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
        assert_int_equal(c.count, LAYERS - 1);
        check_merged(find(&c, "a.weight"), w[0], a[0], b[0], 3, 1.7);
        check_merged(find(&c, "conv.weight"), w[1], a[1], b[1], 2, 1.7);
        assert_int_equal(find(&c, "conv.weight")->ndim, 4);
        float words[77];
        assert_ok(
            params_fetch(&m.params, params_find(&m.params, "words.weight"), words, types[i], &err),
            &err);
        assert_memory_equal(find(&c, "words.weight")->data, words, 77 * dtype_size(types[i]));
        checkpoint_close(&c);
    }
    /* B zero, as at the start: the very matrix. */
    memset(b[0], 0, ROWS * 3 * sizeof *b[0]);
    assert_ok(
        params_store(&lora, params_find(&lora, "base_model.model.a.lora_B.weight"), b[0], &err),
        &err);
    assert_ok(part_write(&m.params, &lora, 1.7, path, DTYPE_F32, &err), &err);
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_memory_equal(find(&c, "a.weight")->data, w[0], sizeof(float) * ROWS * COLUMNS);
    checkpoint_close(&c);
    assert_refused(part_write(&m.params, &lora, NAN, path, DTYPE_F32, &err), &err, "scale", "nan");
    for (int i = 0; i < 2; i++) free(w[i]), free(a[i]), free(b[i]);
    params_free(&lora);
    sample_free(&m);
    guarded_close(device);
}

static void test_lora_refused(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample m;
    Error err;
    sample_make(&m, device, 2, true);
    static const struct {
        const char *stem;
        int64_t rank, rows, columns;
        const char *words[3];
    } cases[] = {
        {"other", 2, 5, 12, {"other.lora_A", "no matrix"}},
        {"words", 2, 11, 7, {"words.lora_A", "no matrix"}},
        {"conv", 2, 5, 11, {"conv.lora_A.weight [2, 11]", "[5, 2]", "conv.weight [5, 3, 2, 2]"}},
        {"conv", 2, 6, 12, {"conv.lora_A", "[6, 2]", "do not fit"}},
    };
    const char *path = at("refused.safetensors");
    for (int i = 0; i < 5; i++) {
        Params lora;
        Tensor slots[2];
        params_init(&lora, device);
        if (i < 4) {
            lora_declare(&lora, slots, cases[i].stem, cases[i].rank, cases[i].rows,
                         cases[i].columns);
            assert_refused(part_write(&m.params, &lora, 1, path, DTYPE_F32, &err), &err, path,
                           cases[i].words[0], cases[i].words[1], cases[i].words[2]);
        } else {
            lora_declare(&lora, slots, "conv", 2, 5, 12);
            params_find(&lora, "base_model.model.conv.lora_B.weight")->name[0] = 'x';
            assert_refused(part_write(&m.params, &lora, 1, path, DTYPE_F32, &err), &err,
                           "conv.lora_A.weight", "other half");
        }
        params_free(&lora);
        assert_int_equal(access(path, F_OK), -1);
    }
    sample_free(&m);
    guarded_close(device);
}

/* ---- The state of training. ---- */

static void upload_random(Device *device, void *table, int64_t n, uint64_t seed) {
    Error err;
    TestRandom random = {seed};
    float *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = test_random_normal(&random);
    assert_ok(device_upload(device, table, values, (size_t)n * sizeof *values, &err), &err);
    free(values);
}

static void moments_fill(Optimizer *o, uint64_t seed) {
    const OptimizerPart *part = &o->parts[0];
    for (int i = 0; i < part->params->count; i++) {
        const Param *p = &part->params->items[i];
        if (p->offset < 0) continue;
        int64_t n = tensor_count(p->value);
        upload_random(o->device, (float *)part->m.data + p->offset, n, seed + 2 * (uint64_t)i);
        upload_random(o->device, (float *)part->v.data + p->offset, n, seed + 2 * (uint64_t)i + 1);
    }
}

static void assert_same_table(Device *device, const void *a, const void *b, size_t bytes) {
    Error err;
    char *host[2] = {malloc(bytes), malloc(bytes)};
    assert_ok(device_download(device, host[0], a, bytes, &err), &err);
    assert_ok(device_download(device, host[1], b, bytes, &err), &err);
    assert_memory_equal(host[0], host[1], bytes);
    free(host[0]), free(host[1]);
}

static void assert_same_state(const OptimizerPart *a, const OptimizerPart *b) {
    Device *device = a->params->device;
    size_t n = (size_t)a->params->flat;
    assert_same_table(device, a->params->master, b->params->master, 4 * n);
    assert_same_table(device, a->params->working, b->params->working, 2 * n);
    assert_same_table(device, a->m.data, b->m.data, 4 * n);
    assert_same_table(device, a->v.data, b->v.data, 4 * n);
}

static void trainer_make(Sample *m, Optimizer *o, Device *device, uint64_t seed) {
    static const OptimizerConfig config = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-6f};
    Error err;
    sample_make(m, device, seed, true);
    assert_ok(params_train(&m->params, DTYPE_BF16, &err), &err);
    assert_ok(optimizer_open(o, device, &config, &err), &err);
    assert_ok(optimizer_add(o, &m->params, 1, &err), &err);
    moments_fill(o, 100 * seed);
}

static void trainer_free(Sample *m, Optimizer *o) {
    optimizer_close(o);
    sample_free(m);
}

static void test_state(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample models[2];
    Optimizer optimizers[2];
    Error err;
    for (int i = 0; i < 2; i++) trainer_make(&models[i], &optimizers[i], device, 3 + (uint64_t)i);
    const OptimizerPart *from = &optimizers[0].parts[0], *to = &optimizers[1].parts[0];
    const char *path = at("state.safetensors");
    assert_ok(training_state_write(from->params, from->m, from->v, path, &err), &err);
    assert_ok(training_state_read(to->params, to->m, to->v, path, &err), &err);
    assert_same_state(from, to);
    Checkpoint c;
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_int_equal(c.count, 3 * (LAYERS - 3)); /* but for two frozen ones and an idle one */
    assert_int_equal(find(&c, "conv.weight.v")->ndim, 4);
    checkpoint_close(&c);
    Tensor odd = tensor_1d(from->m.data, DTYPE_F32, from->m.shape[0] - 64);
    assert_refused(training_state_write(from->params, odd, from->v, path, &err), &err, path,
                   "laid out");
    assert_refused(training_state_read(to->params, to->m, odd, path, &err), &err, path, "laid out");
    for (int i = 0; i < 2; i++) trainer_free(&models[i], &optimizers[i]);
    guarded_close(device);
}

/* Files of other trainings: the first difference is named, and nothing is changed. */
static void test_state_refused(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample models[2];
    Optimizer optimizers[2];
    Error err;
    for (int i = 0; i < 2; i++) trainer_make(&models[i], &optimizers[i], device, 5);
    const OptimizerPart *part = &optimizers[0].parts[0];
    const char *path = at("right.safetensors"), *other = at("other.safetensors");
    assert_ok(training_state_write(part->params, part->m, part->v, path, &err), &err);
    Checkpoint c;
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    CheckpointEntry entries[32];
    size_t n = c.count, bias = n;
    for (size_t i = 0; i < n; i++) {
        entries[i] = (CheckpointEntry){c.tensors[i].name, c.tensors[i].value};
        if (!strcmp(c.tensors[i].name, "a.bias.m")) bias = i;
    }
    assert_true(bias < n);
    const CheckpointEntry good = entries[bias];

    entries[bias].name = "b.bias.m";
    assert_ok(checkpoint_write(other, entries, n, &err), &err);
    assert_refused(training_state_read(&models[0].params, part->m, part->v, other, &err), &err,
                   other, "another training", "no a.bias.m");
    entries[bias] = good;
    entries[bias].value.shape[0] -= 1;
    assert_ok(checkpoint_write(other, entries, n, &err), &err);
    assert_refused(training_state_read(&models[0].params, part->m, part->v, other, &err), &err,
                   other, "a.bias.m", "[600]", "[601]");
    entries[bias] = good;
    entries[bias].value.dtype = DTYPE_I32;
    assert_ok(checkpoint_write(other, entries, n, &err), &err);
    assert_refused(training_state_read(&models[0].params, part->m, part->v, other, &err), &err,
                   "a.bias.m", "I32", "F32");
    entries[bias] = good;
    entries[n] = (CheckpointEntry){"table.m", good.value};
    assert_ok(checkpoint_write(other, entries, n + 1, &err), &err);
    assert_refused(training_state_read(&models[0].params, part->m, part->v, other, &err), &err,
                   other, "table.m", "not trained here");
    checkpoint_close(&c);
    assert_refused(training_state_read(&models[0].params, part->m, part->v, at("none"), &err), &err,
                   "none");
    assert_same_state(part, &optimizers[1].parts[0]);
    for (int i = 0; i < 2; i++) trainer_free(&models[i], &optimizers[i]);
    guarded_close(device);
}

/* ---- Failures while writing. ---- */

static int fetch_ramp(void *user, size_t entry, int64_t first, int64_t count, void *bytes,
                      Error *err) {
    const int64_t *limit = user;
    for (int64_t i = 0; i < count; i++) ((int32_t *)bytes)[i] = (int32_t)(first + i);
    return entry == 1 && first + count > *limit ? error_set(err, "the well is dry") : 0;
}

static void test_stream(void **state) {
    (void)state;
    Error err;
    enum { N = 2500001 };
    int32_t small[3] = {7, 8, 9};
    CheckpointEntry entries[] = {{"x", tensor_1d(small, DTYPE_I32, 3)},
                                 {"y", tensor_1d(NULL, DTYPE_I32, N)},
                                 {"z", tensor_2d(NULL, DTYPE_I32, 0, 5)}};
    int64_t limit = N;
    assert_int_equal(mkdir(at("stream"), 0777), 0);
    const char *path = at("stream/file.safetensors");
    assert_ok(checkpoint_write_stream(path, entries, 3, fetch_ramp, &limit, &err), &err);
    for (int round = 0; round < 2; round++) {
        Checkpoint c;
        assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
        const int32_t *y = find(&c, "y")->data;
        for (int i = 0; i < N; i++) assert_true(y[i] == i);
        assert_memory_equal(find(&c, "x")->data, small, sizeof small);
        assert_int_equal(find(&c, "z")->shape[1], 5);
        checkpoint_close(&c);
        if (round) break;
        limit = N / 2;
        assert_refused(checkpoint_write_stream(path, entries, 3, fetch_ramp, &limit, &err), &err,
                       "the well is dry");
        assert_int_equal(entry_count(at("stream")), 1); /* no temporary file, and the old one */
    }
}

/* A disk that fills up: here, a limit on the size of files. */
static int limited(int (*call)(void *, Error *), void *user, Error *err) {
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 1 << 12;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int result = call(user, err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    return result;
}

static int call_part(void *user, Error *err) {
    return part_write(user, NULL, 0, at("full/file"), DTYPE_NONE, err);
}

static int call_state(void *user, Error *err) {
    const OptimizerPart *part = user;
    return training_state_write(part->params, part->m, part->v, at("full/file"), err);
}

static int call_json(void *user, Error *err) {
    return json_write(user, at("full/file"), err);
}

static int call_copy(void *user, Error *err) {
    return file_copy(user, at("full/file"), false, err);
}

static void test_full(void **state) {
    (void)state;
    Device *device = guarded_open();
    Sample m;
    Optimizer o;
    Error err;
    trainer_make(&m, &o, device, 9);
    char *text = malloc(10001);
    memset(text, 'x', 10000);
    text[10000] = 0;
    json_t *json = json_pack("{s:s}", "text", text);
    save_text(at("long"), text);
    char from[512];
    snprintf(from, sizeof from, "%s", at("long"));
    const struct {
        int (*call)(void *, Error *);
        void *user;
    } calls[] = {
        {call_part, &m.params}, {call_state, &o.parts[0]}, {call_json, json}, {call_copy, from}};
    assert_int_equal(mkdir(at("full"), 0777), 0);
    save_text(at("full/file"), "old");
    for (int i = 0; i < 4; i++) {
        assert_refused(limited(calls[i].call, calls[i].user, &err), &err, "full/file", "too large",
                       "unchanged");
        check_text(at("full/file"), "old");
        assert_int_equal(entry_count(at("full")), 1);
    }
    assert_refused(part_write(&m.params, NULL, 0, at("no/such"), DTYPE_NONE, &err), &err, "no/such",
                   "No such file");
    json_decref(json);
    free(text);
    trainer_free(&m, &o);
    guarded_close(device);
}

/* ---- JSON, copies, folders. ---- */

static void test_json(void **state) {
    (void)state;
    Error err;
    json_t *json = json_pack("{s:i, s:[s, f], s:s}", "b", 2, "a", "x", 0.1, "ü", "ß");
    const char *path = at("some.json");
    assert_ok(json_write(json, path, &err), &err);
    char *text = file_bytes(path, NULL);
    assert_non_null(strstr(text, "{\n  \"b\": 2,\n  \"a\": [\n    \"x\",\n    0.1"));
    assert_non_null(strstr(text, "\"ü\": \"ß\"\n}\n"));
    json_t *again = json_loads(text, 0, NULL);
    assert_true(json_equal(json, again));
    json_decref(again);
    free(text);
    json_decref(json);
    json = json_integer(1);
    assert_refused(json_write(json, path, &err), &err, path, "object");
    json_decref(json);
}

static void test_copy(void **state) {
    (void)state;
    Error err;
    struct stat a, b;
    size_t size = 0;
    char *large = malloc(3000001);
    memset(large, 'y', 3000000);
    large[3000000] = 0;
    save_text(at("from"), large);
    save_text(at("to"), "old");
    assert_ok(file_copy(at("from"), at("to"), false, &err), &err);
    char *copied = file_bytes(at("to"), &size);
    assert_int_equal(size, 3000000);
    assert_memory_equal(copied, large, size);
    free(copied);
    assert_int_equal(stat(at("from"), &a) | stat(at("to"), &b), 0);
    assert_true(a.st_ino != b.st_ino);
    /* A link in the place of a file, twice, and of a symbolic link's target. */
    for (int i = 0; i < 2; i++) {
        assert_ok(file_copy(at("from"), at("to"), true, &err), &err);
        assert_int_equal(stat(at("to"), &b), 0);
        assert_true(a.st_ino == b.st_ino);
    }
    assert_int_equal(symlink("from", at("symbolic")), 0);
    assert_ok(file_copy(at("symbolic"), at("followed"), true, &err), &err);
    assert_int_equal(lstat(at("followed"), &b), 0);
    assert_true(S_ISREG(b.st_mode) && a.st_ino == b.st_ino);
    /* Where no link can be, /proc being another file system, a copy is made. */
    assert_ok(file_copy("/proc/self/cmdline", at("cmdline"), true, &err), &err);
    copied = file_bytes(at("cmdline"), &size);
    assert_true(size > 0 && strstr(copied, "test_model_files"));
    free(copied);
    /* An empty file; onto itself. */
    save_text(at("empty"), "");
    assert_ok(file_copy(at("empty"), at("empty2"), false, &err), &err);
    check_text(at("empty2"), "");
    assert_ok(file_copy(at("from"), at("from"), false, &err), &err);
    copied = file_bytes(at("from"), &size);
    assert_memory_equal(copied, large, 3000000);
    free(copied), free(large);
    assert_refused(file_copy(at("missing"), at("to"), true, &err), &err, "missing", "No such file");
    assert_refused(file_copy(folder, at("to"), true, &err), &err, folder, "not a regular file");
    DIR *entries = opendir(folder);
    for (const struct dirent *e; (e = readdir(entries));) assert_null(strstr(e->d_name, ".part"));
    closedir(entries);
}

/* ---- "write FROM TO [TYPE]" ---- */

static int write_language(const char *from, const char *to, Dtype dtype, Device *device,
                          Error *err) {
    Model model;
    ModelOptions options = {
        .language = from, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    char path[1024];
    TRY(model_open(&model, &options, device, err));
    TRY(params_train(&model.language.params, DTYPE_F32, err));
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    TRY(part_write(&model.language.params, NULL, 0, path, dtype, err));
    model_close(&model);
    return 0;
}

static int write_main(int argc, char **argv) {
    static const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    Dtype dtype = DTYPE_NONE;
    Device *device;
    Error err;
    for (int i = 0; argc > 4 && i < 3; i++)
        if (!strcmp(argv[4], dtype_name(types[i]))) dtype = types[i];
    if (device_open(&device, &(DeviceOptions){0}, &err) ||
        write_language(argv[2], argv[3], dtype, device, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    device_close(device);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "write")) return write_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part),          cmocka_unit_test(test_lora),
        cmocka_unit_test(test_lora_refused),  cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_refused), cmocka_unit_test(test_stream),
        cmocka_unit_test(test_full),          cmocka_unit_test(test_json),
        cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
