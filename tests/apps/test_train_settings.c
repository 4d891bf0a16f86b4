/* The settings of a training run: defaults, files, command lines, and all three together. */
#include <math.h>
#include <unistd.h>

#include "apps/cli/options.h"
#include "apps/train/settings.h"
#include "tests/train_setup.h"

typedef struct Files {
    char folder[256];
    char config[300], run[300], message[300];
} Files;

static void files_start(Files *f) {
    temporary_folder(f->folder, sizeof f->folder);
    snprintf(f->config, sizeof f->config, "%s/config.json", f->folder);
    snprintf(f->run, sizeof f->run, "%s/settings.json", f->folder);
    snprintf(f->message, sizeof f->message, "%s/stderr", f->folder);
    unsetenv("EASYFIRST_MODEL");
}

static void json_file(const char *path, const json_t *json) {
    assert_int_equal(json_dump_file(json, path, JSON_INDENT(2)), 0);
}

enum { WORDS = 200 };

/* "easyfirst train" with the arguments in a text, separated by spaces. */
typedef struct Line {
    char *argv[WORDS + 1];
    char *text;
    int argc;
} Line;

static void line_make(Line *l, const char *text) {
    *l = (Line){.text = strdup(text), .argc = 1};
    l->argv[0] = (char *)"train";
    for (char *p = strtok(l->text, " "); p; p = strtok(NULL, " ")) {
        assert_true(l->argc < WORDS);
        l->argv[l->argc++] = p;
    }
}

/* Standard error's text is in *message (free it). */
static int line_read(TrainSettings *s, Line *l, const Files *f, char **message) {
    int saved = capture_begin(f->message);
    int status = train_settings_read(s, l->argc, l->argv);
    *message = capture_end(saved, f->message);
    return status;
}

/* Settings from a line that must be valid; the line must live as long as they. */
static void good(TrainSettings *s, Line *l, const Files *f, const char *text) {
    char *message;
    line_make(l, text);
    int status = line_read(s, l, f, &message);
    if (status != -1) fail_msg("train %s: status %d: %s", text, status, message);
    assert_string_equal(message, "");
    free(message);
}

static void done(TrainSettings *s, Line *l) {
    train_settings_free(s);
    free(l->text);
}

static void refused(const Files *f, int status, const char *text, const char *word1,
                    const char *word2) {
    TrainSettings s;
    Line l;
    char *message;
    line_make(&l, text);
    int got = line_read(&s, &l, f, &message);
    if (got != status) fail_msg("train %s: status %d, expected %d: %s", text, got, status, message);
    if (!strstr(message, word1) || !strstr(message, word2))
        fail_msg("train %s: message lacks \"%s\" or \"%s\": %s", text, word1, word2, message);
    if (strchr(message, '\n') != message + strlen(message) - 1)
        fail_msg("train %s: not one line: %s", text, message);
    free(message);
    done(&s, &l);
}

/* ---- Defaults. ---- */

static void test_defaults(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int sequences, tokens, steps, epochs, warmup_steps;
        double rate, ratio, beta2, decay, dropout;
        const char *schedule, *objective;
    } wanted[STAGE_COUNT] = {
        {"adapt", 0, 32768, 150000, 0, 0, 5e-5, .01, .98, .01, .1, "inverse-sqrt", "rdm"},
        {"instruct", 512, 0, 70000, 0, 0, 1e-5, .01, .98, .01, .1, "inverse-sqrt", "rdm"},
        {"align", 256, 0, 0, 1, 0, 1e-3, .03, .999, 0, 0, "cosine", "rdm"},
        {"tune", 128, 0, 0, 1, 0, 2e-5, .03, .999, 0, .1, "cosine", "rdm"},
        {"length", 512, 0, 0, 1, 0, 1e-4, .03, .98, .01, .1, "cosine", "rdm"},
        {"pretrain", 0, 131072, 100000, 0, 2000, 4e-4, 0, .95, .1, 0, "cosine", "llada"},
        {"segment", 64, 0, 0, 10, 0, 1e-3, .03, .999, .05, 0, "cosine", "rdm"},
    };
    for (int i = 0; i < STAGE_COUNT; i++) {
        TrainSettings s;
        train_settings_default(&s, (TrainStage)i);
        assert_int_equal(s.stage, i);
        assert_string_equal(stage_name(s.stage), wanted[i].name);
        assert_int_equal(s.batch_sequences, wanted[i].sequences);
        assert_int_equal(s.batch_tokens, wanted[i].tokens);
        assert_int_equal(s.steps, wanted[i].steps);
        assert_int_equal(s.epochs, wanted[i].epochs);
        assert_int_equal(s.warmup_steps, wanted[i].warmup_steps);
        assert_true(s.lr == (float)wanted[i].rate);
        assert_true(s.warmup_ratio == (float)wanted[i].ratio);
        assert_true(s.optimizer.beta1 == 0.9f);
        assert_true(s.optimizer.beta2 == (float)wanted[i].beta2);
        assert_true(s.optimizer.eps == 1e-8f);
        assert_true(s.optimizer.weight_decay == (float)wanted[i].decay);
        assert_true(s.optimizer.decay_vectors);
        assert_true(s.optimizer.clip == 1);
        assert_int_equal(s.optimizer.kind, OPTIMIZER_ADAMW);
        assert_true(s.optimizer.muon_momentum == 0.95f);
        assert_true(s.dropout == (float)wanted[i].dropout);
        assert_string_equal(schedule_name(s.schedule), wanted[i].schedule);
        assert_string_equal(objective_names[s.noise.objective], wanted[i].objective);
        assert_int_equal(s.noise.objective, i == STAGE_PRETRAIN ? OBJECTIVE_LLADA : OBJECTIVE_RDM);
        assert_int_equal(s.noise.timesteps, 50);
        assert_true(s.plain == (i == STAGE_ALIGN));
        assert_true(s.context == (i == STAGE_TUNE));
        assert_int_equal(s.max_tokens, 512);
        assert_int_equal((int)s.seed, 1);
        assert_true(s.max_bad_fraction == 0.01f);
        assert_int_equal(s.save_dtype, DTYPE_NONE);
        train_settings_free(&s);
    }
}

/* Each stage named on the command line has its defaults, but for the options given. */
static void test_line(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    for (int i = 0; i < STAGE_COUNT; i++) {
        TrainSettings s, d;
        Line l;
        char text[200];
        snprintf(text, sizeof text, "%s -d a.jsonl --data b -m M --out R --lr 0.25 -q -t 3",
                 stage_name((TrainStage)i));
        good(&s, &l, &f, text);
        train_settings_default(&d, (TrainStage)i);
        assert_int_equal(s.stage, i);
        assert_int_equal(s.data.count, 2);
        assert_string_equal(s.data.items[0], "a.jsonl");
        assert_string_equal(s.data.items[1], "b");
        assert_string_equal(s.model.folder, "M");
        assert_string_equal(s.out, "R");
        assert_true(s.lr == 0.25f);
        assert_true(s.quiet);
        assert_int_equal(s.threads, 3);
        assert_true(s.optimizer.beta2 == d.optimizer.beta2);
        assert_int_equal(s.steps, d.steps);
        assert_int_equal(s.context, d.context);
        done(&s, &l);
    }
    /* The environment may name the model; options override it. */
    TrainSettings s;
    Line l;
    setenv("EASYFIRST_MODEL", "E", 1);
    good(&s, &l, &f, "adapt");
    assert_string_equal(s.model.folder, "E");
    done(&s, &l);
    good(&s, &l, &f, "adapt --language L");
    assert_null(s.model.folder);
    done(&s, &l);
    unsetenv("EASYFIRST_MODEL");
    temporary_remove(f.folder);
}

/* Of settings that exclude each other the given one overrides the stage's default. */
static void test_pairs(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    static const struct {
        const char *line;
        int steps, epochs, tokens, sequences, warmup_steps;
        float ratio;
    } cases[] = {
        {"adapt", 150000, 0, 32768, 0, 0, .01f},
        {"adapt --epochs 3", 0, 3, 32768, 0, 0, .01f},
        {"align --steps 7", 7, 0, 0, 256, 0, .03f},
        {"adapt --batch-sequences 8", 150000, 0, 0, 8, 0, .01f},
        {"align --batch-tokens 1073741824", 0, 1, 1073741824, 0, 0, .03f},
        {"pretrain --warmup-ratio 0.5", 100000, 0, 131072, 0, 0, .5f},
        {"adapt --warmup-steps 9", 150000, 0, 32768, 0, 9, 0},
        {"pretrain --warmup-steps 0", 100000, 0, 131072, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TrainSettings s;
        Line l;
        good(&s, &l, &f, cases[i].line);
        assert_int_equal(s.steps, cases[i].steps);
        assert_int_equal(s.epochs, cases[i].epochs);
        assert_int_equal(s.batch_tokens, cases[i].tokens);
        assert_int_equal(s.batch_sequences, cases[i].sequences);
        assert_int_equal(s.warmup_steps, cases[i].warmup_steps);
        assert_true(s.warmup_ratio == cases[i].ratio);
        done(&s, &l);
    }
    refused(&f, 2, "adapt --steps 3 --epochs 3", "steps", "epochs");
    refused(&f, 2, "adapt --batch-tokens 3 --batch-sequences 3", "batch-tokens", "both");
    refused(&f, 2, "adapt --warmup-ratio 0.1 --warmup-steps 3", "warmup-ratio", "both");
    /* Options override a file, too, and a file the stage. */
    write_text(f.config, "{\"stage\": \"adapt\", \"batch-sequences\": 4, \"epochs\": 2}");
    char text[400];
    TrainSettings s;
    Line l;
    snprintf(text, sizeof text, "--config %s --batch-tokens 99", f.config);
    good(&s, &l, &f, text);
    assert_int_equal(s.batch_tokens, 99);
    assert_int_equal(s.batch_sequences, 0);
    assert_int_equal(s.epochs, 2);
    assert_int_equal(s.steps, 0);
    done(&s, &l);
    temporary_remove(f.folder);
}

/* ---- Round trip. ---- */

/* The options that a run's settings have, and the range or choices of their values. */
typedef enum Kind { FLAG, SWITCH, TEXT, WORD, WHOLE, SEED, REAL } Kind;
static const struct {
    const char *name;
    Kind kind;
    const char *words; /* choices, with blanks between */
    double least, most;
} options[] = {
    {"model", TEXT},
    {"vision", TEXT},
    {"language", TEXT},
    {"projector", TEXT},
    {"length-predictor", TEXT},
    {"adapter", TEXT},
    {"dtype", WORD, "auto f32 bf16"},
    {"feature-layer", WHOLE, NULL, -999, 999},
    {"pad", WORD, "on off"},
    {"device", WORD, "cpu cuda cuda:3 auto"},
    {"threads", WHOLE, NULL, 1, 1024},
    {"data", TEXT},
    {"images", TEXT},
    {"valid", TEXT},
    {"valid-limit", WHOLE, NULL, 1, 1 << 30},
    {"max-tokens", WHOLE, NULL, 8, 1 << 20},
    {"context", SWITCH},
    {"plain", SWITCH},
    {"text-lines", FLAG},
    {"long-prompts", WORD, "refuse skip keep-last"},
    {"max-bad-fraction", REAL, NULL, 0, 1},
    {"pad-answers", WHOLE, NULL, -1, 1 << 20},
    {"random-lengths", REAL, NULL, 0, 1},
    {"feature-cache", TEXT},
    {"feature-dtype", WORD, "auto bf16 f32"},
    {"micro-batch-tokens", WHOLE, NULL, 0, 1 << 24},
    {"lr", REAL, NULL, 0, 100},
    {"language-lr", REAL, NULL, 0, 1e-3},
    {"projector-lr", REAL, NULL, 0, 1e-5},
    {"vision-lr", REAL, NULL, 0, 1e-9},
    {"schedule", WORD, "constant inverse-sqrt cosine linear wsd"},
    {"optimizer", WORD, "adamw muon"},
    {"muon-momentum", REAL, NULL, 0, 0.999999},
    {"moments", WORD, "32bit 8bit"},
    {"master-weights", WORD, "f32 none"},
    {"beta1", REAL, NULL, 0, 0.999999},
    {"beta2", REAL, NULL, 0, 0.999999},
    {"adam-eps", REAL, NULL, 1e-12, 1e-6},
    {"weight-decay", REAL, NULL, 0, 1},
    {"decay-vectors", SWITCH},
    {"group", SWITCH},
    {"clip", REAL, NULL, 0, 1e6},
    {"objective", WORD, "rdm llada ar"},
    {"timesteps", WHOLE, NULL, 1, 100000},
    {"weighting", WORD, "linear constant"},
    {"mask-floor", REAL, NULL, 1e-9, 0.5},
    {"complementary", FLAG},
    {"label-smoothing", REAL, NULL, 0, 0.9},
    {"dropout", REAL, NULL, 0, 0.9},
    {"attention", WORD, "full block-causal causal"},
    {"new-projector", WORD, "linear mlp2x_gelu"},
    {"train-vision", FLAG},
    {"freeze-language", FLAG},
    {"lora-rank", WHOLE, NULL, 0, 4096},
    {"lora-alpha", REAL, NULL, 0, 1e6},
    {"lora-targets", WORD, "query,value all fc1 value,query out,fc2,key"},
    {"activation-checkpointing", FLAG},
    {"out", TEXT},
    {"save-dtype", WORD, "auto f32 bf16"},
    {"seed", SEED},
    {"log-every", WHOLE, NULL, 1, 1 << 30},
    {"valid-every", WHOLE, NULL, 0, 1 << 30},
    {"save-every", WHOLE, NULL, 0, 1 << 30},
    {"keep", WHOLE, NULL, 1, 1000000},
    {"show-answers", WHOLE, NULL, 0, 1000},
    {"best-by", WORD, "none loss bleu chrf rouge exact f1 number choice"},
    {"valid-answers", WHOLE, NULL, 0, 1 << 30},
    {"patience", WHOLE, NULL, 0, 1 << 30},
    {"quiet", FLAG},
    {"template", TEXT},
    {"instruction", TEXT},
    {"no-instruction", FLAG},
    {"demonstrations", TEXT},
    {"shots", WHOLE, NULL, 0, 1000},
    {"source", TEXT},
    {"target", TEXT},
    {"pairs", TEXT},
    {"valid-source", TEXT},
    {"valid-target", TEXT},
    {"zero", WHOLE, NULL, 0, 2},
    {"overlap", WORD, "auto off"},
    {"image-threads", WHOLE, NULL, 0, 1024},
};
enum { OPTIONS = sizeof options / sizeof options[0] };

static void random_word(char *out, size_t size, TestRandom *r, const char *words) {
    char copy[100], *list[8];
    int n = 0;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *p = strtok(copy, " "); p; p = strtok(NULL, " ")) list[n++] = p;
    snprintf(out, size, "%s", list[test_random_next(r) % (uint64_t)n]);
}

static void random_value(char *out, size_t size, TestRandom *r, int i) {
    double low = options[i].least, high = options[i].most, u = test_random_uniform(r);
    static const char *const texts[] = {"a/b.json", "päth", "\"q\\uote", "-x", "日本"};
    switch (options[i].kind) {
    case WHOLE:
        snprintf(out, size, "%.0f", u < 0.2 ? low : u < 0.4 ? high : floor(low + u * (high - low)));
        break;
    case SEED:
        snprintf(out, size, "%llu", (unsigned long long)(test_random_next(r) >> 1));
        break;
    case REAL:
        snprintf(out, size, "%.*g", 1 + (int)(test_random_next(r) % 9),
                 low + u * (high - low) * 0.9);
        break;
    case WORD:
        random_word(out, size, r, options[i].words);
        break;
    case SWITCH:
        random_word(out, size, r, "on off");
        break;
    default:
        snprintf(out, size, "%s", texts[test_random_next(r) % 5]);
    }
}

/* A line with about half of all options. */
static void random_line(char *line, size_t size, TestRandom *r, TrainStage stage) {
    size_t used = (size_t)snprintf(line, size, "%s", stage_name(stage));
    for (int i = 0; i < OPTIONS; i++) {
        char value[64];
        if (test_random_uniform(r) < 0.5) continue;
        random_value(value, sizeof value, r, i);
        used += (size_t)snprintf(line + used, size - used, " --%s%s%s", options[i].name,
                                 options[i].kind == FLAG ? "" : "=",
                                 options[i].kind == FLAG ? "" : value);
    }
    static const char *const pairs[][2] = {{"steps", "epochs"},
                                           {"batch-tokens", "batch-sequences"}};
    for (int i = 0; i < 2; i++)
        if (test_random_uniform(r) < 0.5)
            used += (size_t)snprintf(line + used, size - used, " --%s %d",
                                     pairs[i][test_random_next(r) % 2],
                                     1 + (int)(test_random_next(r) % 100000));
    static const char *const parts[] = {"warmup", "decay"};
    for (int i = 0; i < 2; i++)
        if (test_random_uniform(r) < 0.3)
            used += (size_t)snprintf(line + used, size - used, " --%s-steps %d", parts[i],
                                     (int)(test_random_next(r) % 5000));
        else if (test_random_uniform(r) < 0.5)
            used += (size_t)snprintf(line + used, size - used, " --%s-ratio 0.%d", parts[i],
                                     (int)(test_random_next(r) % 99));
    assert_true(strlen(line) + 1 < size);
}

static void assert_text(const char *a, const char *b) {
    if (!a || !b)
        assert_true(a == b);
    else
        assert_string_equal(a, b);
}

/* All fields of a run's settings, one by one, independent of JSON. */
static void assert_same(const TrainSettings *a, const TrainSettings *b) {
    assert_int_equal(a->stage, b->stage);
    const ModelOptions *m = &a->model, *n = &b->model;
    assert_text(m->folder, n->folder), assert_text(m->vision, n->vision);
    assert_text(m->language, n->language), assert_text(m->projector, n->projector);
    assert_text(m->length, n->length), assert_int_equal(m->dtype, n->dtype);
    assert_int_equal(m->pad, n->pad);
    assert_int_equal(m->feature_layer, n->feature_layer);
    assert_text(a->out, b->out);
    assert_int_equal(a->data.count, b->data.count);
    for (int i = 0; i < a->data.count; i++) assert_text(a->data.items[i], b->data.items[i]);
    assert_text(a->images, b->images), assert_text(a->valid, b->valid);
    assert_text(a->prompt.prompt_template, b->prompt.prompt_template);
    assert_text(a->prompt.instruction, b->prompt.instruction);
    assert_text(a->prompt.demonstrations, b->prompt.demonstrations);
    assert_text(a->parallel.source, b->parallel.source),
        assert_text(a->parallel.target, b->parallel.target);
    assert_text(a->parallel.pairs, b->parallel.pairs);
    assert_text(a->valid_parallel.source, b->valid_parallel.source);
    assert_text(a->valid_parallel.target, b->valid_parallel.target);
    assert_int_equal(a->prompt.shots, b->prompt.shots);
    assert_int_equal(a->prompt.no_instruction, b->prompt.no_instruction);
#define SAME(field) assert_true(a->field == b->field)
    SAME(valid_limit), SAME(max_tokens), SAME(context), SAME(plain), SAME(text_lines);
    SAME(new_projector), SAME(long_prompts);
    SAME(max_bad_fraction), SAME(group), SAME(epochs), SAME(steps), SAME(batch_sequences),
        SAME(batch_tokens);
    SAME(micro_batch_tokens), SAME(lr), SAME(vision_lr), SAME(projector_lr), SAME(language_lr);
    SAME(decay_ratio), SAME(decay_steps), SAME(pad_answers), SAME(random_lengths);
    SAME(warmup_ratio), SAME(warmup_steps), SAME(optimizer.beta1), SAME(optimizer.beta2);
    SAME(optimizer.eps), SAME(optimizer.weight_decay), SAME(optimizer.decay_vectors);
    assert_text(m->adapter, n->adapter), SAME(optimizer.moments);
    SAME(optimizer.clip), SAME(optimizer.muon_momentum), SAME(noise.timesteps), SAME(noise.eps),
        SAME(noise.complementary);
    SAME(noise.label_smoothing), SAME(dropout), SAME(train_vision), SAME(freeze_language);
    SAME(lora.rank), SAME(lora.alpha), SAME(recompute), SAME(seed), SAME(threads);
    SAME(log_every), SAME(valid_every), SAME(save_every), SAME(keep), SAME(show_answers);
    SAME(best_by), SAME(valid_answers), SAME(patience);
    SAME(zero), SAME(overlap), SAME(image_threads);
    SAME(quiet), SAME(optimizer.kind), SAME(schedule), SAME(noise.objective), SAME(noise.weighting);
    SAME(attention), SAME(lora.targets), SAME(save_dtype);
#undef SAME
    assert_text(a->device, b->device);
}

static void test_round_trip(void **state) {
    (void)state;
    Files f;
    TestRandom r = {20240611};
    files_start(&f);
    for (int round = 0; round < 40; round++)
        for (int i = 0; i < STAGE_COUNT; i++) {
            TrainSettings s, again, d;
            Line l, m;
            char text[4000], back[400];
            random_line(text, sizeof text, &r, (TrainStage)i);
            good(&s, &l, &f, text);
            json_t *json = train_settings_json(&s);
            assert_non_null(json);
            json_file(f.config, json);
            snprintf(back, sizeof back, "%s --config %s",
                     round % 2 ? stage_name((TrainStage)i) : "", f.config);
            good(&again, &m, &f, back);
            assert_same(&s, &again);
            json_t *second = train_settings_json(&again);
            assert_true(json_equal(json, second));
            /* The options have an effect. */
            train_settings_default(&d, (TrainStage)i);
            json_t *plain = train_settings_json(&d);
            assert_false(json_equal(json, plain));
            json_decref(json), json_decref(second), json_decref(plain);
            done(&s, &l), done(&again, &m);
        }
    /* The table of this test has all of the program's options. */
    TrainSettings s;
    train_settings_default(&s, STAGE_ADAPT);
    json_t *json = train_settings_json(&s);
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        bool known = !strcmp(key, "stage") || strstr(key, "batch-") || strstr(key, "warmup-") ||
                     !strcmp(key, "decay-ratio") || !strcmp(key, "decay-steps") ||
                     !strcmp(key, "steps") || !strcmp(key, "epochs");
        for (int i = 0; i < OPTIONS; i++) known |= !strcmp(key, options[i].name);
        if (!known) fail_msg("\"%s\" is not tried by this test", key);
    }
    json_decref(json);
    temporary_remove(f.folder);
}

/* A settings file has numbers as they were given on the command line. */
static void test_shortest_numbers(void **state) {
    (void)state;
    assert_true(real_shortest(5e-5f) == 5e-5);
    assert_true(real_shortest(0.98f) == 0.98);
    assert_true(real_shortest(0) == 0);
    assert_true(real_shortest(16777216) == 16777216);
    TestRandom r = {7};
    for (int i = 0; i < 1000; i++) {
        uint32_t bits = (uint32_t)test_random_next(&r);
        float x;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x)) assert_true((float)real_shortest(x) == x);
    }
    TrainSettings s;
    train_settings_default(&s, STAGE_ADAPT);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    train_settings_print(&s, out);
    fclose(out);
    assert_non_null(strstr(text, "  lr                  5e-05\n"));
    assert_non_null(strstr(text, "  batch-tokens        32768\n"));
    assert_non_null(strstr(text, "  decay-vectors       yes\n"));
    assert_null(strstr(text, "batch-sequences"));
    assert_null(strstr(text, "lora-"));
    free(text);
}

/* ---- Files and resuming. ---- */

static void test_config_errors(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    static const struct {
        const char *json, *word1, *word2;
    } cases[] = {
        {"{\"stage\": \"adapt\", \"batch-tokes\": 1}", "batch-tokes", "did you mean"},
        {"{\"stage\": \"adapt\", \"zzzzzzzzzz\": 1}", "zzzzzzzzzz", "config.json"},
        {"{\"stage\": \"adapt\", \"resume\": true}", "resume", "no setting"},
        {"{\"stage\": \"adapt\", \"batch-tokens\": \"4\"}", "\"batch-tokens\"", "whole number"},
        {"{\"stage\": \"adapt\", \"batch-tokens\": 4.5}", "\"batch-tokens\"", "config.json"},
        {"{\"stage\": \"adapt\", \"batch-tokens\": -1}", "\"batch-tokens\"", "from 0 to"},
        {"{\"stage\": \"adapt\", \"lr\": \"1e-3\"}", "\"lr\"", "a number"},
        {"{\"stage\": \"adapt\", \"lr\": 1e9}", "\"lr\"", "from 0 to 100"},
        {"{\"stage\": \"adapt\", \"quiet\": 1}", "\"quiet\"", "true or false"},
        {"{\"stage\": \"adapt\", \"context\": \"on\"}", "\"context\"", "true or false"},
        {"{\"stage\": \"adapt\", \"data\": \"x\"}", "\"data\"", "array of texts"},
        {"{\"stage\": \"adapt\", \"data\": [\"x\", 3]}", "\"data\"", "array of texts"},
        {"{\"stage\": \"adapt\", \"out\": null}", "\"out\"", "a text"},
        {"{\"stage\": \"adapt\", \"schedule\": \"cosin\"}", "\"schedule\"", "cosin"},
        {"{\"stage\": \"adapt\", \"steps\": 2, \"epochs\": 2}", "config.json", "both"},
        {"{\"stage\": \"adopt\"}", "\"stage\"", "adopt"},
        {"{\"stage\": 3}", "\"stage\"", "config.json"},
        {"{\"lr\": 0.1}", "no stage", "adapt"},
    };
    char text[400];
    snprintf(text, sizeof text, "--config %s", f.config);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_text(f.config, cases[i].json);
        refused(&f, 2, text, cases[i].word1, cases[i].word2);
    }
    write_text(f.config, "{\"stage\": \"adapt\",");
    refused(&f, 1, text, "config.json", "line 1");
    unlink(f.config);
    refused(&f, 1, text, "config.json", "No such file");
    refused(&f, 2, "adopt --data x", "adopt", "did you mean adapt");
    refused(&f, 2, "adapt x.jsonl", "x.jsonl", "--data");
    refused(&f, 2, "--data x", "no stage", "pretrain");
    refused(&f, 2, "adapt --bach-tokens 3", "--bach-tokens", "batch-tokens");
    refused(&f, 2, "adapt --context maybe", "--context", "on or off");
    refused(&f, 2, "adapt --lr nan", "--lr", "nan");
    refused(&f, 2, "adapt --lora-targets query,valu", "--lora-targets", "\"valu\"");
    refused(&f, 2, "adapt --lora-targets query,", "--lora-targets", "\"\"");
    refused(&f, 2, "adapt --lora-targets q", "--lora-targets", "\"q\"");
    refused(&f, 2, "adapt --lora-targets query,alll", "\"alll\"",
            "query|key|value|out|fc1|fc2, with commas between, or all");
    temporary_remove(f.folder);
}

static void test_config(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    TrainSettings s;
    Line l;
    char text[500];
    write_text(f.config, "{\"stage\": \"tune\", \"data\": [\"a\", \"b\"], \"lr\": 1, "
                         "\"context\": false, \"plain\": true, \"model\": \"" TINY_BASE "\"}");
    snprintf(text, sizeof text, "--lr 0.5 --config %s", f.config); /* anywhere on the line */
    good(&s, &l, &f, text);
    assert_int_equal(s.stage, STAGE_TUNE);
    assert_true(s.lr == 0.5f);
    assert_int_equal(s.data.count, 2);
    assert_false(s.context);
    assert_true(s.plain);
    done(&s, &l);
    /* A list on the command line replaces the file's. */
    snprintf(text, sizeof text, "tune --config %s --data c --context on", f.config);
    good(&s, &l, &f, text);
    assert_int_equal(s.data.count, 1);
    assert_string_equal(s.data.items[0], "c");
    assert_true(s.context);
    done(&s, &l);
    temporary_remove(f.folder);
}

static void test_resume(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    TrainSettings s, again;
    Line l, m;
    char text[700];
    snprintf(text, sizeof text, "tune --data a --steps 5 --lr 0.125 --out %s --stop-after 2",
             f.folder);
    good(&s, &l, &f, text);
    assert_int_equal(s.stop_after, 2);
    assert_false(s.resume);
    json_t *json = train_settings_json(&s);
    json_file(f.run, json);
    json_decref(json);
    snprintf(text, sizeof text, "--resume --out %s --threads 7", f.folder);
    good(&again, &m, &f, text);
    assert_true(again.resume);
    assert_int_equal(again.stop_after, 0); /* of one start of the program only */
    assert_int_equal(again.threads, 7);
    again.threads = s.threads;
    assert_same(&s, &again);
    done(&s, &l), done(&again, &m);
    snprintf(text, sizeof text, "tune --resume --out %s", f.folder);
    good(&again, &m, &f, text);
    assert_true(again.lr == 0.125f);
    done(&again, &m);
    snprintf(text, sizeof text, "align --resume --out %s", f.folder);
    refused(&f, 2, text, "tune", "align");
    /* A set of choices is the same in any order, in the file and on the line. */
    write_text(f.run, "{\"stage\": \"tune\", \"lora-targets\": \"fc1,value,query\"}");
    snprintf(text, sizeof text, "--resume --out %s", f.folder);
    good(&again, &m, &f, text);
    assert_int_equal(again.lora.targets, 1u << LORA_FC1 | 1u << LORA_VALUE | 1u << LORA_QUERY);
    done(&again, &m);
    snprintf(text, sizeof text, "--resume --out %s --lora-targets value,fc1,query", f.folder);
    good(&again, &m, &f, text);
    done(&again, &m);
    snprintf(text, sizeof text, "--resume --out %s --lora-targets value,fc1", f.folder);
    refused(&f, 2, text, "--lora-targets", "query,value,fc1");
    snprintf(text, sizeof text, "--resume --out %s --config %s", f.folder, f.run);
    refused(&f, 2, text, "--resume", "settings.json");
    refused(&f, 2, "adapt --resume", "--resume", "--out");
    unlink(f.run);
    snprintf(text, sizeof text, "--resume --out %s", f.folder);
    refused(&f, 1, text, "no run to resume", "settings.json");
    temporary_remove(f.folder);
}

/* ---- Checks. ---- */

static void test_context(void **state) {
    (void)state;
    static const struct {
        const char *line;
        bool context;
    } cases[] = {
        {"tune -m " TINY_BASE, true},
        {"tune -m " TINY_XL, false},
        {"tune -m " TINY_XL " --attention full", true},
        {"tune -m " TINY_BASE " --attention block-causal", false},
        {"tune -m " TINY_XL " --context on", true},
        {"tune -m " TINY_BASE " --context off", false},
        {"align -m " TINY_BASE, false},
    };
    Files f;
    files_start(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TrainSettings s;
        Line l;
        good(&s, &l, &f, cases[i].line);
        if (s.context != cases[i].context) fail_msg("%s: context %d", cases[i].line, s.context);
        done(&s, &l);
    }
    temporary_remove(f.folder);
}

static void test_check(void **state) {
    (void)state;
#define GIVEN " --data tests/run.sh --out nowhere -m " TINY_BASE
    static const struct {
        const char *line, *word1, *word2; /* no words: valid */
    } cases[] = {
        {"adapt" GIVEN},
        {"instruct" GIVEN " --lora-rank 8 --lora-targets all"},
        {"align" GIVEN " --images tests"},
        {"align" GIVEN " --new-projector linear"},
        {"tune" GIVEN " --images tests --train-vision --freeze-language --valid tests"},
        {"length" GIVEN},
        {"pretrain" GIVEN " --label-smoothing 0.1 --lora-rank 4 --complementary"},
        {"tune" GIVEN " --attention block-causal"},
        {"adapt --out x -m " TINY_BASE, "--data", "nothing to train on"},
        {"adapt --data tests -m " TINY_BASE, "--out", "run"},
        {"adapt --data tests --out x", "no model", "-m FOLDER"},
        {"adapt --data nofile --out x -m " TINY_BASE, "--data nofile", "No such file"},
        {"align" GIVEN " --images nofolder", "--images nofolder", "No such file"},
        {"align" GIVEN " --valid nofile", "--valid nofile", "No such file"},
        {"adapt --data tests --out x -m nomodel", "nomodel", "No such file"},
        {"adapt --data tests --out " TINY_BASE " -m " TINY_BASE, "--out", "own folder"},
        {"adapt" GIVEN " --images tests", "--images", "align and tune"},
        {"adapt" GIVEN " --plain on", "--plain", "align"},
        {"instruct" GIVEN " --text-lines", "--text-lines", "pretrain"},
        {"pretrain" GIVEN " --long-prompts skip", "--long-prompts", "pretrain"},
        {"align" GIVEN " --train-vision", "--train-vision", "tune"},
        {"adapt" GIVEN " --freeze-language", "--freeze-language", "nothing to train"},
        {"adapt" GIVEN " --new-projector linear", "--new-projector", "adapt"},
        {"align" GIVEN " --new-projector linear --projector " TINY_BASE, "--projector", "both"},
        {"align --data tests --out x --language " TINY_BASE, "vision tower", "--vision"},
        {"align --data tests --out x --language " TINY_BASE " --vision " TINY_BASE, "no projector",
         "--new-projector"},
        {"adapt" GIVEN " --steps 0", "--steps", "--epochs"},
        {"adapt" GIVEN " --batch-tokens 0", "--batch-tokens", "--batch-sequences"},
        {"adapt" GIVEN " --lr 0", "--lr", "above 0"},
        {"adapt" GIVEN " --steps 10 --warmup-steps 11", "--warmup-steps", "--steps 10"},
        {"pretrain" GIVEN " --steps 10", "--warmup-steps 2000 (the default of pretrain)",
         "at most 10"},
        {"tune" GIVEN " --attention block-causal --context on", "--context", "full attention"},
        {"tune --data tests --out x -m " TINY_XL " --context on", "--context", "full attention"},
        {"pretrain" GIVEN " --weighting constant", "--weighting", "rdm"},
        {"adapt" GIVEN " --complementary", "--complementary", "llada"},
        {"adapt" GIVEN " --lora-rank 2 --lora-alpha 0", "--lora-alpha", "above 0"},
        {"align" GIVEN " --lora-rank 2", "--lora-rank", "align"},
        {"tune" GIVEN " --lora-rank 2 --freeze-language", "--lora-rank", "--freeze-language"},
        {"adapt --data tests --out \xff -m " TINY_BASE, "UTF-8", "settings"},
    };
    Files f;
    files_start(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TrainSettings s;
        Line l;
        Error err;
        good(&s, &l, &f, cases[i].line);
        if (!cases[i].word1) {
            if (train_settings_check(&s, &err)) fail_msg("%s: %s", cases[i].line, err.text);
        } else {
            assert_refused(train_settings_check(&s, &err), &err, cases[i].word1, cases[i].word2);
        }
        done(&s, &l);
    }
    temporary_remove(f.folder);
}

static void test_derived_settings(void **state) {
    (void)state;
    Files f;
    files_start(&f);
    TrainSettings s;
    Line l;
    Error err;
    good(&s, &l, &f, "adapt" GIVEN " --weighting constant --lora-targets value,fc2");
    assert_ok(train_settings_check(&s, &err), &err);
    assert_int_equal(s.noise.weighting, WEIGHTING_CONSTANT);
    assert_int_equal(s.noise.objective, OBJECTIVE_RDM);
    assert_int_equal(s.lora.targets, 1u << LORA_VALUE | 1u << LORA_FC2);
    done(&s, &l);
    good(&s, &l, &f, "adapt" GIVEN " --objective llada --complementary --lora-targets all");
    assert_ok(train_settings_check(&s, &err), &err);
    assert_int_equal(s.noise.weighting, WEIGHTING_LINEAR);
    assert_true(s.noise.complementary);
    assert_int_equal(s.noise.objective, OBJECTIVE_LLADA);
    assert_int_equal(s.lora.targets, (1u << LORA_TARGETS) - 1);
    done(&s, &l);
    /* Values that no option accepts can be set by a program. */
    train_settings_default(&s, STAGE_ADAPT);
    s.data.items = malloc(sizeof *s.data.items);
    s.data.items[0] = "tests", s.data.count = 1, s.out = "x", s.model.folder = TINY_BASE;
    assert_ok(train_settings_check(&s, &err), &err);
    s.lr = NAN;
    assert_refused(train_settings_check(&s, &err), &err, "--lr");
    s.lr = 1, s.dropout = NAN;
    assert_refused(train_settings_check(&s, &err), &err, "--dropout");
    s.dropout = 0, s.optimizer.beta2 = 1;
    assert_refused(train_settings_check(&s, &err), &err, "beta2");
    s.optimizer.beta2 = 0, s.optimizer.kind = (OptimizerKind)7;
    assert_refused(train_settings_check(&s, &err), &err, "--optimizer", "number 7", "muon");
    s.optimizer.kind = OPTIMIZER_MUON, s.optimizer.muon_momentum = 1;
    assert_refused(train_settings_check(&s, &err), &err, "--muon-momentum", "less than 1");
    s.optimizer.muon_momentum = NAN;
    assert_refused(train_settings_check(&s, &err), &err, "--muon-momentum", "nan");
    s.optimizer.muon_momentum = 0.9f, s.optimizer.moments = MOMENTS_8BIT;
    assert_refused(train_settings_check(&s, &err), &err, "--moments 8bit", "muon");
    s.optimizer.moments = (MomentKind)3;
    assert_refused(train_settings_check(&s, &err), &err, "--moments", "number 3");
    s.optimizer.moments = MOMENTS_32BIT;
    assert_ok(train_settings_check(&s, &err), &err);
    s.optimizer.kind = OPTIMIZER_ADAMW;
    assert_ok(train_settings_check(&s, &err), &err);
    s.schedule = (ScheduleKind)5;
    assert_refused(train_settings_check(&s, &err), &err, "--schedule", "number 5");
    s.schedule = SCHEDULE_LINEAR, s.batch_sequences = 3;
    assert_refused(train_settings_check(&s, &err), &err, "not in both");
    train_settings_free(&s);
    temporary_remove(f.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_shortest_numbers),
        cmocka_unit_test(test_config_errors),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_derived_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
