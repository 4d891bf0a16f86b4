/* The presets of `easyfirst train`: every file is understood, its numbers are the papers', its memory
 * is what `info --train` predicts; and what is refused. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/train/settings.h"
#include "tests/train_setup.h"

#define FOLDER "data/presets"

/* ---- The files. ---- */

enum { MOST_PRESETS = 200 };

/* Calls `each` for every preset; returns how many there are. */
static int each_preset(void (*each)(const char *name, const json_t *preset, void *user),
                       void *user) {
    int count = 0;
    DIR *folder = opendir(FOLDER);
    assert_non_null(folder);
    for (const struct dirent *e; (e = readdir(folder));) {
        char path[600], name[300];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, FOLDER "/%s", e->d_name);
        snprintf(name, sizeof name, "%.*s", (int)strlen(e->d_name) - 5, e->d_name);
        json_error_t at;
        json_t *preset = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
        if (!preset) fail_msg("%s: %s", path, at.text);
        each(name, preset, user);
        json_decref(preset);
        count++;
    }
    closedir(folder);
    return count;
}

/* The settings that a run gets from the preset: its members are all known to `train`, each in range,
 * and all of them are in effect. */
static void check_known(const char *name, const json_t *preset, void *user) {
    const char *folder = user;
    char path[600];
    json_t *config = json_deep_copy(json_object_get(preset, "settings"));
    assert_true(json_object_size(config) > 0);
    json_object_set(config, "stage", json_object_get(preset, "stage"));
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    TrainSettings s;
    char *argv[] = {(char *)"train", (char *)"--config", path, NULL};
    if (train_settings_read(&s, 3, argv) != -1) fail_msg("%s is refused", name);
    json_t *all = train_settings_json(&s);
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value) {
        const json_t *set = json_object_get(all, key);
        bool same = json_is_number(value) && json_is_number(set)
                        ? (float)json_number_value(value) == (float)json_number_value(set)
                        : json_equal(value, set);
        if (!same) fail_msg("%s: \"%s\" has no effect", name, key);
    }
    json_decref(all), json_decref(config);
    train_settings_free(&s);
    for (const char *const *text = (const char *const[]){"about", "table", "note", NULL}; *text;
         text++)
        assert_true(json_string_length(json_object_get(preset, *text)) > 10);
}

static void test_known(void **state) {
    (void)state;
    char folder[256];
    temporary_folder(folder, sizeof folder);
    unsetenv("EASYFIRST_MODEL");
    assert_true(each_preset(check_known, folder) >= 32);
    shell("rm -r %s", folder);
}

/* ---- The papers' numbers. ---- */

typedef struct Wanted {
    const char *name, *stage, *batch_key;
    int batch, steps;
    double lr;
} Wanted;

/* Tables 5 and 6 of arXiv 2308.12219 v3 (3 and 4 of v1). */
static const Wanted wanted[] = {
    {"iwslt14-base", "adapt", "batch-tokens", 32768, 150000, 5e-5},
    {"iwslt14-large", "adapt", "batch-tokens", 32768, 150000, 5e-5},
    {"iwslt14-xl", "adapt", "batch-tokens", 32768, 100000, 5e-5},
    {"iwslt14-xxl", "adapt", "batch-tokens", 32768, 30000, 5e-5},
    {"wmt14-base", "adapt", "batch-tokens", 131072, 300000, 5e-5},
    {"wmt14-large", "adapt", "batch-tokens", 131072, 300000, 5e-5},
    {"wmt14-xl", "adapt", "batch-tokens", 131072, 150000, 5e-5},
    {"wmt14-xxl", "adapt", "batch-tokens", 131072, 100000, 5e-5},
    {"gigaword10k-base", "adapt", "batch-tokens", 16384, 30000, 5e-5},
    {"gigaword10k-large", "adapt", "batch-tokens", 16384, 10000, 5e-5},
    {"gigaword10k-xl", "adapt", "batch-tokens", 16384, 5000, 5e-5},
    {"gigaword10k-xxl", "adapt", "batch-tokens", 16384, 1000, 5e-5},
    {"flan2021-base", "instruct", "batch-sequences", 512, 5000, 5e-5},
    {"flan2021-large", "instruct", "batch-sequences", 512, 5000, 5e-5},
    {"flan2021-xl", "instruct", "batch-sequences", 512, 3000, 5e-5},
    {"flan2021-xxl", "instruct", "batch-sequences", 256, 1000, 5e-5},
    {"flan2022-base", "instruct", "batch-sequences", 512, 70000, 1e-5},
    {"flan2022-large", "instruct", "batch-sequences", 512, 30000, 1e-5},
    {"flan2022-xl", "instruct", "batch-sequences", 1024, 17000, 1e-5},
    {"flan2022-xxl", "instruct", "batch-sequences", 2048, 4000, 1e-5},
    {"llava-align-base", "align", "batch-sequences", 256, 0, 1e-3},
    {"llava-align-xxl", "align", "batch-sequences", 256, 0, 1e-3},
    {"llava-tune-base", "tune", "batch-sequences", 128, 0, 2e-5},
    {"llava-tune-xxl", "tune", "batch-sequences", 128, 0, 2e-5},
    {"llava-tune-lora-xxl", "tune", "batch-sequences", 128, 0, 2e-4},
    {"llava1-align-base", "align", "batch-sequences", 0, 0, 2e-3},
    {"llava1-tune-base", "tune", "batch-sequences", 0, 0, 2e-5},
    {"llada-pretrain", "pretrain", "batch-tokens", 0, 0, 4e-4},
};
enum { WANTED = sizeof wanted / sizeof wanted[0] };

static double number(const json_t *settings, const char *key) {
    return json_number_value(json_object_get(settings, key));
}

static void check_numbers(const char *name, const json_t *preset, void *user) {
    int *found = user;
    const json_t *s = json_object_get(preset, "settings");
    const char *stage = json_string_value(json_object_get(preset, "stage"));
    for (int i = 0; i < WANTED; i++) {
        const Wanted *w = &wanted[i];
        if (strcmp(name, w->name)) continue;
        assert_string_equal(stage, w->stage);
        assert_int_equal((int)number(s, w->batch_key), w->batch);
        assert_int_equal((int)number(s, "steps"), w->steps);
        assert_true(number(s, "lr") == w->lr);
        ++*found;
    }
    const bool paper = !strcmp(stage, "adapt") || !strncmp(name, "flan", 4);
    const bool llava = !strncmp(name, "llava", 5);
    assert_true(number(s, "max-tokens") == (paper ? 512 : llava ? 0 : 4096));
    if (paper) {
        assert_true(number(s, "beta1") == 0.9 && number(s, "beta2") == 0.98);
        assert_true(number(s, "weight-decay") == 0.01 && number(s, "warmup-ratio") == 0.01);
        assert_true(number(s, "dropout") == 0.1 && number(s, "timesteps") == 50);
        assert_true(number(s, "label-smoothing") == (strstr(name, "scratch") ? 0.1 : 0));
    }
    if (llava) {
        assert_true(number(s, "epochs") == 1 && number(s, "warmup-ratio") == 0.03);
        assert_true(number(s, "weight-decay") == 0);
        assert_string_equal(json_string_value(json_object_get(s, "schedule")), "cosine");
    }
    if (strstr(name, "lora"))
        assert_true(number(s, "lora-rank") == 128 && number(s, "lora-alpha") == 256 &&
                    number(s, "projector-lr") == 2e-5);
}

static void test_numbers(void **state) {
    (void)state;
    int found = 0;
    each_preset(check_numbers, &found);
    assert_int_equal(found, WANTED);
}

/* ---- Memory. ---- */

/* The models of "model" as `new --empty` makes them; `more` are options of all that begin so. */
static const struct {
    const char *model;
    const char *options[24];
} shapes[] = {
    {"xlm-r-base", {"--vocabulary", "250002"}},
    {"xlm-r-large",
     {"--vocabulary", "250002", "--layers", "24", "--width", "1024", "--heads", "16", "--ffn",
      "4096"}},
    {"xlm-r-xl",
     {"--pre-norm", "--vocabulary", "250880", "--layers", "36", "--width", "2560", "--heads", "32",
      "--ffn", "10240"}},
    {"xlm-r-xxl",
     {"--pre-norm", "--vocabulary", "250880", "--layers", "48", "--width", "4096", "--heads", "32",
      "--ffn", "16384"}},
    {"xlm-r-base+clip", {"--vocabulary", "250002", "--image-size", "224"}},
    {"xlm-r-base+clip+linear",
     {"--vocabulary", "250002", "--image-size", "224", "--projector", "linear"}},
    {"xlm-r-xxl+clip",
     {"--pre-norm", "--vocabulary", "250880", "--layers", "48", "--width", "4096", "--heads", "32",
      "--ffn", "16384", "--image-size", "224"}},
    {"llada-8b",
     {"--kind", "llada", "--vocabulary", "126464", "--layers", "32", "--width", "4096", "--heads",
      "32", "--ffn", "12288", "--positions", "4096"}},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], ARGUMENTS = 40 };

static void make_shape(Run *r, int shape, char path[300]) {
    const bool llada = !strncmp(shapes[shape].model, "llada", 5);
    char *args[ARGUMENTS] = {(char *)"new", path, (char *)"--empty", (char *)"--tokenizer",
                             (char *)TOKENIZER};
    if (llada) args[4] = (char *)"tests/golden/tokenizers/dream";
    int n = 5;
    for (int i = 0; shapes[shape].options[i]; i++) args[n++] = (char *)shapes[shape].options[i];
    path_in(path, 300, r, shapes[shape].model);
    run_files(r, "/dev/null", NULL, args);
    expect(r, 0, "");
}

typedef struct Memory {
    Run run;
    char paths[SHAPES][300];
    int checked;
} Memory;

static void check_memory(const char *name, const json_t *preset, void *user) {
    Memory *m = user;
    const json_t *settings = json_object_get(preset, "settings");
    const char *model = json_string_value(json_object_get(preset, "model")), *path = NULL;
    char rank[16];
    for (int i = 0; i < SHAPES; i++)
        if (!strcmp(model, shapes[i].model)) path = m->paths[i];
    if (!path) fail_msg("%s: no shape \"%s\"", name, model);
    snprintf(rank, sizeof rank, "%d", (int)number(settings, "lora-rank"));
    const bool lora = rank[0] != '0';
    run(&m->run, "info", "--json", "--dtype", "bf16", "--train",
        (char *)json_string_value(json_object_get(preset, "stage")), (char *)path,
        lora ? "--lora-rank" : NULL, rank);
    if (m->run.status && strstr(m->run.err, "has no bf16 arithmetic")) return;
    expect(&m->run, 0, NULL);
    json_t *info = json_loads(m->run.out, 0, NULL);
    double predicted = number(json_object_get(info, "training_bytes"), "sum");
    double listed = number(preset, "memory_bytes");
    if (!(predicted > 0 && listed > 0.99 * predicted && listed < 1.01 * predicted))
        fail_msg("%s: %.4g bytes are listed, info --train predicts %.4g", name, listed, predicted);
    json_decref(info);
    m->checked++;
}

static void test_memory(void **state) {
    (void)state;
    static Memory m;
    run_start(&m.run);
    for (int i = 0; i < SHAPES; i++) make_shape(&m.run, i, m.paths[i]);
    int count = each_preset(check_memory, &m);
    run_end(&m.run);
    if (m.checked == 0) skip();
    assert_int_equal(m.checked, count);
}

/* ---- The command. ---- */

static void test_command(void **state) {
    (void)state;
    static TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run(r, "train", "--preset", "list");
    expect(r, 0, NULL);
    assert_int_equal(count_lines(r->out), 32);
    assert_non_null(strstr(r->out, "iwslt14-base "));
    assert_non_null(strstr(r->out, "208 GB  IWSLT14 German to English: XLM-R XXL"));
    run_ok(r, "train", "adapt", "--preset", "gigaword10k-xl", "-m", t.model, "--data", t.pairs,
           "--out", t.out, "--dtype", "f32", "--steps", "2", "--weight-decay", "0.5", "-q");
    json_t *settings = read_json(r, "out/settings.json");
    assert_int_equal((int)number(settings, "batch-tokens"), 16384);
    assert_int_equal((int)number(settings, "steps"), 2);
    assert_true(number(settings, "lr") == 5e-5 && number(settings, "weight-decay") == 0.5);
    assert_string_equal(json_string_value(json_object_get(settings, "stage")), "adapt");
    json_decref(settings);
    run(r, "train", "--preset", "iwslt14-bas", "-m", t.model);
    assert_message(r, 2, "iwslt14-bas", "did you mean iwslt14-base");
    run(r, "train", "--preset", "../presets/iwslt14-base", "-m", t.model);
    assert_message(r, 2, "no preset", "--preset list");
    run(r, "train", "tune", "--preset", "iwslt14-base", "-m", t.model);
    assert_message(r, 2, "stage adapt", "not tune");
    run(r, "train", "--preset", "iwslt14-base", "--config", "x.json");
    assert_message(r, 2, "--preset", "--config", "exclude");
    run(r, "train", "--preset", "iwslt14-base", "--resume", "--out", t.out);
    assert_message(r, 2, "--preset", "--resume", "exclude");
    train_setup_end(&t);
}

/* A program that is installed elsewhere, with presets of its own. */
static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *words[3];
    } bad[] = {
        {"{\"about\": \"x\"}", {"bad.json", "has no \"table\""}},
        {"{\"about\": \"x\", \"table\": \"x\", \"model\": \"x\", \"note\": \"x\", "
         "\"memory_bytes\": "
         "1, \"stage\": \"adapt\", \"settings\": {}, \"colour\": 1}",
         {"bad.json", "unknown key \"colour\""}},
        {"{\"about\": \"x\", \"table\": \"x\", \"model\": \"x\", \"note\": \"x\", "
         "\"memory_bytes\": "
         "1, \"stage\": \"adapt\", \"settings\": {\"lrr\": 1}}",
         {"bad.json", "\"lrr\""}},
        {"{\"about\": \"x\", \"table\": \"x\", \"model\": \"x\", \"note\": \"x\", "
         "\"memory_bytes\": "
         "1, \"stage\": \"adopt\", \"settings\": {}}",
         {"bad.json", "\"adopt\""}},
        {"{\"about\": \"x\", \"table\": \"x\", \"model\": \"x\", \"note\": \"x\", "
         "\"memory_bytes\": "
         "1, \"stage\": \"adapt\", \"settings\": [1]}",
         {"bad.json", "must be an object"}},
        {"{", {"bad.json"}},
    };
    Run r;
    run_start(&r);
    char program[600];
    snprintf(program, sizeof program, "%s/bin/easyfirst", r.folder);
    const char *built = getenv("EASYFIRST") ? getenv("EASYFIRST") : "build/easyfirst";
    shell("mkdir -p %s/bin %s/share/easyfirst/presets && cp %s %s", r.folder, r.folder, built,
          program);
    char *was = getenv("EASYFIRST") ? strdup(getenv("EASYFIRST")) : NULL;
    setenv("EASYFIRST", program, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text_in(&r, "share/easyfirst/presets/bad.json", bad[i].text, NULL);
        run(&r, "train", "--preset", "bad", "-m", "x", "--data", "y", "--out", "z");
        expect_message(&r, 2, bad[i].words);
    }
    if (was)
        setenv("EASYFIRST", was, 1);
    else
        unsetenv("EASYFIRST");
    free(was);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_memory),    cmocka_unit_test(test_command),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
