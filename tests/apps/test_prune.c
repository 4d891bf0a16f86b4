/* test_prune.c - `easyfirst prune`: the pruned model computes what the whole one does. */
#include "tests/golden_models.h"

#include <fcntl.h>
#include <unistd.h>

#include "apps/commands.h"
#include "data/checkpoints/model_files.h"

static const char data[] = "{\"inputs\": \"What colour is the circle?\", \"targets\": \"red\"}\n"
                           "{\"inputs\": \"Is there a yellow line?\", \"targets\": \" \"}\n"
                           "{\"inputs\": \"Is it cloudy?\", \"targets\": \"clear\"}\n";
static const char kept_text[] = "red circle clear? What colour<mask> is it? Is the colour red?";

typedef struct Place {
    char folder[400], data[512], out[512], errors[512];
    char *said; /* of the last command, on standard error */
} Place;

static void place_begin(Place *p) {
    *p = (Place){.said = NULL};
    temporary_folder(p->folder, sizeof p->folder);
    snprintf(p->data, sizeof p->data, "%s/data", p->folder);
    snprintf(p->out, sizeof p->out, "%s/out", p->folder);
    snprintf(p->errors, sizeof p->errors, "%s/errors", p->folder);
    FILE *f = fopen(p->data, "w");
    assert_non_null(f);
    fputs(data, f);
    assert_int_equal(fclose(f), 0);
}

static void place_end(Place *p) {
    free(p->said);
    temporary_remove(p->folder);
}

/* Runs the command with what it writes to standard error caught; the exit status. */
static int prune_words(Place *p, char **words) {
    int count = 0;
    while (words[count]) count++;
    fflush(stderr);
    int saved = dup(2), file = open(p->errors, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(saved >= 0 && file >= 0 && dup2(file, 2) == 2);
    int status = command_prune(count, words);
    fflush(stderr);
    assert_true(dup2(saved, 2) == 2);
    close(saved), close(file);
    free(p->said);
    p->said = file_bytes(p->errors, NULL);
    assert_non_null(p->said);
    return status;
}

#define prune(p, ...) prune_words((p), (char *[]){"prune", __VA_ARGS__, NULL})

#define expect_said(p, word)                                                            \
    do {                                                                                \
        if (!strstr((p)->said, word)) fail_msg("\"%s\" lacks \"%s\"", (p)->said, word); \
    } while (0)

typedef struct Opened {
    Device *device;
    Model model;
} Opened;

static void opened_open(Opened *o, const char *folder) {
    Error err;
    ModelOptions options = {
        .folder = folder, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
}

static void opened_close(Opened *o) {
    model_close(&o->model);
    device_close(o->device);
}

static Ids encode(const Opened *o, const char *text) {
    Ids ids = {0};
    Error err;
    assert_ok(tokenizer_encode(o->model.tokenizer, text, strlen(text), &ids, &err), &err);
    return ids;
}

/* The logits [T, V] of the ids as one sequence; the caller's to free. */
static float *logits_of(const Opened *o, const Ids *ids) {
    const Xlmr *m = &o->model.xlmr;
    Error err;
    int tokens = (int)ids->count;
    int32_t *rows = malloc(ids->count * sizeof *rows), *positions = malloc(ids->count * 4);
    assert_true(rows && positions);
    for (int i = 0; i < tokens; i++) rows[i] = i, positions[i] = XLMR_FIRST_POSITION + i;
    AttentionSpan span = {0, tokens, 1, {{0, tokens}}};
    XlmrBatch batch = {.tokens = tokens,
                       .ids = ids->ids,
                       .positions = positions,
                       .plan = {.spans = &span, .span_count = 1}};
    Arena arena;
    Tensor hidden, features, logits;
    assert_ok(arena_open(&arena, o->device,
                         xlmr_work_bytes(m, tokens) + xlmr_head_bytes(m, tokens) +
                             arena_bytes(DTYPE_F32, tokens, m->config.vocab),
                         &err),
              &err);
    assert_ok(xlmr_forward(m, &arena, &batch, &hidden, NULL, &err), &err);
    assert_ok(xlmr_head(m, &arena, hidden, rows, tokens, &features, &err), &err);
    assert_ok(arena_take(&arena, &logits, DTYPE_F32, tokens, m->config.vocab, &err), &err);
    assert_ok(vocab_logits(o->device, logits, features, m->vocab_w, m->vocab_b, &err), &err);
    size_t count = ids->count * (size_t)m->config.vocab;
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    memcpy(values, logits.data, count * sizeof *values);
    free(rows);
    free(positions);
    arena_close(&arena);
    return values;
}

/* The id of a piece in the whole model. */
static int32_t id_of_piece(const Opened *o, const char *piece) {
    for (int32_t id = 0; id < tokenizer_size(o->model.tokenizer); id++)
        if (!strcmp(tokenizer_piece(o->model.tokenizer, id), piece)) return id;
    fail_msg("the whole model has no piece \"%s\"", piece);
    return -1;
}

/* Both models on the same text: the same pieces, and the same logits for the ids that are
 * in both. */
static void compare_models(const char *whole_folder, const char *pruned_folder, const char *text) {
    Opened whole, pruned;
    opened_open(&whole, whole_folder);
    opened_open(&pruned, pruned_folder);
    int vocab = pruned.model.xlmr.config.vocab, before = whole.model.xlmr.config.vocab;
    assert_int_equal(vocab, tokenizer_size(pruned.model.tokenizer));
    assert_true(vocab < before);
    int32_t *old = malloc((size_t)vocab * sizeof *old);
    for (int32_t id = 0; id < vocab; id++)
        old[id] = id_of_piece(&whole, tokenizer_piece(pruned.model.tokenizer, id));
    Ids ids = encode(&whole, text), new_ids = encode(&pruned, text);
    assert_int_equal(ids.count, new_ids.count);
    for (size_t i = 0; i < ids.count; i++) assert_int_equal(ids.ids[i], old[new_ids.ids[i]]);
    float *want = logits_of(&whole, &ids), *got = logits_of(&pruned, &new_ids);
    for (size_t t = 0; t < ids.count; t++)
        for (int32_t id = 0; id < vocab; id++)
            want[t * (size_t)vocab + (size_t)id] = want[t * (size_t)before + (size_t)old[id]];
    assert_close(got, want, ids.count * (size_t)vocab, 1e-6, pruned_folder);
    free(old), free(want), free(got);
    ids_free(&ids), ids_free(&new_ids);
    opened_close(&whole), opened_close(&pruned);
}

static bool exists(const char *folder, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void test_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        Place p;
        place_begin(&p);
        char slashed[600];
        snprintf(slashed, sizeof slashed, "%s//", p.out);
        int status =
            prune(&p, "-m", (char *)(uintptr_t)golden_folders[i], "--data", p.data, slashed);
        if (status) fail_msg("%s", p.said);
        expect_said(&p, "of 2 records");
        expect_said(&p, "left out, empty answer: 1");
        static const char *const files[] = {
            "easyfirst.json",          "language/config.json",  "language/model.safetensors",
            "length.safetensors",      "projector.safetensors", "vision/config.json",
            "vision/model.safetensors"};
        for (size_t f = 0; f < sizeof files / sizeof files[0]; f++)
            assert_true(exists(p.out, files[f]));
        compare_models(golden_folders[i], p.out, kept_text);
        /* What is there is not overwritten. */
        assert_int_equal(prune(&p, "-m", p.out, "--data", p.data, p.out), 1);
        expect_said(&p, "exists already");
        place_end(&p);
    }
}

/* A whole answer, with an image: the same words where they are all kept. Characters are kept, too,
 * and the other files of a public folder are not needed. */
static void test_characters(void **state) {
    (void)state;
    Place p;
    place_begin(&p);
    int status = prune(&p, "--language", "tests/golden/models/tiny-base/language", "--data", p.data,
                       "--keep-characters", "--quiet", p.out);
    if (status) fail_msg("%s", p.said);
    assert_string_equal(p.said, "");
    assert_false(exists(p.out, "vision") || exists(p.out, "easyfirst.json"));
    compare_models("tests/golden/models/tiny-base", p.out, kept_text);
    Opened pruned;
    opened_open(&pruned, p.out);
    Ids ids = encode(&pruned, "unheard words");
    assert_true(ids.count > 0);
    for (size_t i = 0; i < ids.count; i++) assert_true(ids.ids[i] != TOKEN_UNK);
    ids_free(&ids);
    opened_close(&pruned);
    place_end(&p);
}

/* Tokens that --min-count N leaves: fewer the larger it is, and those of the prompt templates in any
 * case. */
static int kept_with(char *least) {
    Place p;
    int kept;
    place_begin(&p);
    int status = prune(&p, "-m", "tests/golden/models/tiny-base", "--data", p.data, "--min-count",
                       least, p.out);
    if (status) fail_msg("%s", p.said);
    const char *at = strstr(p.said, "records; ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "records; %d of", &kept), 1);
    Opened pruned;
    opened_open(&pruned, p.out);
    assert_int_equal(pruned.model.xlmr.config.vocab, kept);
    opened_close(&pruned);
    place_end(&p);
    return kept;
}

static void test_min_count(void **state) {
    (void)state;
    int all = kept_with("1"), twice = kept_with("2"), none = kept_with("1000000");
    assert_true(all > twice && twice > none && none > 5);
}

/* A copy of tiny-base's language part with a head of its own (random, bf16) or, `large`, with so
 * many rows that a head is told from a copy of the embeddings in a few places only, and one that
 * differs in a single number elsewhere. */
static void write_untied(const char *folder, bool large) {
    Error err;
    Checkpoint c;
    char partial[600], path[700];
    TestRandom random = {5};
    assert_ok(checkpoint_open(&c, "tests/golden/models/tiny-base/language", NULL, &err), &err);
    Tensor few = checkpoint_find(&c, "roberta.embeddings.word_embeddings.weight")->value;
    int64_t rows = large ? 12000 : few.shape[0], width = few.shape[1];
    size_t count = (size_t)(rows * width);
    float *words = calloc(count, sizeof *words), *bias = calloc((size_t)rows, sizeof *bias);
    void *head = malloc(count * sizeof *words);
    CheckpointEntry *entries = calloc(c.count + 1, sizeof *entries);
    assert_true(words && bias && head && entries);
    for (size_t i = 0; i < count; i++) words[i] = test_random_normal(&random);
    memcpy(words, few.data, tensor_bytes(few));
    memcpy(head, words, count * sizeof *words);
    for (size_t i = 0; i < count && !large; i++)
        ((uint16_t *)head)[i] = (uint16_t)(0x3C00 + test_random_next(&random) % 0x300);
    if (large) ((float *)head)[(TOKEN_UNK + 100) * width] += 3; /* behind the first 4096 bytes */
    size_t n = 0;
    for (size_t i = 0; i < c.count; i++) {
        const char *name = c.tensors[i].name;
        Tensor value = c.tensors[i].value;
        if (!strcmp(name, "lm_head.decoder.weight") || !strcmp(name, "lm_head.decoder.bias"))
            continue;
        if (!strcmp(name, "roberta.embeddings.word_embeddings.weight"))
            value = tensor_2d(words, DTYPE_F32, rows, width);
        if (!strcmp(name, "lm_head.bias")) value = tensor_1d(bias, DTYPE_F32, rows);
        entries[n++] = (CheckpointEntry){name, value};
    }
    entries[n++] = (CheckpointEntry){"lm_head.decoder.weight",
                                     tensor_2d(head, large ? DTYPE_F32 : DTYPE_BF16, rows, width)};
    assert_ok(folder_begin(partial, sizeof partial, folder, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", partial);
    assert_ok(checkpoint_write(path, entries, n, &err), &err);
    snprintf(path, sizeof path, "%s/sentencepiece.bpe.model", partial);
    assert_ok(file_copy("tests/golden/models/tiny-base/language/sentencepiece.bpe.model", path,
                        false, &err),
              &err);
    json_t *config;
    assert_ok(config_read(&config, "tests/golden/models/tiny-base/language/config.json", &err),
              &err);
    json_object_set_new(config, "vocab_size", json_integer(rows));
    if (large) /* as most files: transformers would take the head for tied */
        json_object_del(config, "tie_word_embeddings");
    else
        json_object_set_new(config, "tie_word_embeddings", json_false());
    snprintf(path, sizeof path, "%s/config.json", partial);
    assert_ok(json_write(config, path, &err), &err);
    json_decref(config);
    assert_ok(folder_commit(partial, folder, &err), &err);
    checkpoint_close(&c);
    free(words), free(bias), free(head), free(entries);
}

/* A head with a matrix of its own is pruned like the embeddings. */
static void test_untied(void **state) {
    (void)state;
    for (int large = 0; large < 2; large++) {
        Place p;
        Error err;
        Checkpoint out;
        char folder[512], path[700];
        place_begin(&p);
        snprintf(folder, sizeof folder, "%s/model", p.folder);
        write_untied(folder, large);
        int status = prune(&p, "-m", folder, "-d", p.data, "-q", "--keep-characters", p.out);
        if (status) fail_msg("%s", p.said);
        compare_models(folder, p.out, kept_text);
        snprintf(path, sizeof path, "%s/language", p.out);
        assert_ok(checkpoint_open(&out, path, NULL, &err), &err);
        const CheckpointTensor *head = checkpoint_find(&out, "lm_head.decoder.weight");
        assert_non_null(head);
        assert_int_equal(head->value.dtype, large ? DTYPE_F32 : DTYPE_BF16);
        checkpoint_close(&out);
        json_t *config;
        snprintf(path, sizeof path, "%s/language/config.json", p.out);
        assert_ok(config_read(&config, path, &err), &err);
        assert_true(json_is_false(json_object_get(config, "tie_word_embeddings")));
        json_decref(config);
        place_end(&p);
    }
}

/* The model's own templates, and the names of the languages that it translates, are kept whole. */
static void test_templates(void **state) {
    (void)state;
    static const char text[] = "Summarize: English to German: ";
    Place p;
    Opened whole, pruned;
    place_begin(&p);
    int status = prune(&p, "-m", "data/bundled/model", "-d", p.data, "-q", p.out);
    if (status) fail_msg("%s", p.said);
    opened_open(&whole, "data/bundled/model"), opened_open(&pruned, p.out);
    assert_true(tokenizer_size(pruned.model.tokenizer) < 400);
    Ids a = encode(&whole, text), b = encode(&pruned, text);
    assert_int_equal(a.count, b.count);
    for (size_t i = 0; i < a.count; i++)
        assert_string_equal(tokenizer_piece(pruned.model.tokenizer, b.ids[i]),
                            tokenizer_piece(whole.model.tokenizer, a.ids[i]));
    ids_free(&a), ids_free(&b);
    opened_close(&whole), opened_close(&pruned);
    place_end(&p);
}

static void test_refusals(void **state) {
    (void)state;
    Place p;
    place_begin(&p);
    char *model = "tests/golden/models/tiny-base";
    unsetenv("EASYFIRST_MODEL");
    assert_int_equal(prune(&p, "--data", p.data, p.out), 2);
    expect_said(&p, "no model is named");
    assert_int_equal(prune(&p, "-m", model, p.out), 2);
    expect_said(&p, "--data");
    assert_int_equal(prune(&p, "-m", model, "--data", p.data), 2);
    expect_said(&p, "missing");
    assert_int_equal(prune(&p, "-m", model, "--data", p.data, p.out, "more"), 2);
    expect_said(&p, "more");
    assert_int_equal(prune(&p, "-m", model, "--data", "no/such", p.out), 1);
    expect_said(&p, "no/such");
    assert_int_equal(prune(&p, "-m", "no/model", "--data", p.data, p.out), 1);
    expect_said(&p, "no/model");
    char nowhere[600];
    snprintf(nowhere, sizeof nowhere, "%s/no/out", p.folder);
    assert_int_equal(prune(&p, "-m", model, "--data", p.data, nowhere), 1);
    expect_said(&p, "no/out");
    assert_false(exists(p.folder, "out"));
    place_end(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),    cmocka_unit_test(test_characters),
        cmocka_unit_test(test_min_count), cmocka_unit_test(test_untied),
        cmocka_unit_test(test_templates), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
