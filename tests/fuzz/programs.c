/* programs.c - fuzz targets of configurations, command lines, traces, and the files of a resumed
 * run. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/eval/store.h"
#include "apps/eval/text_score.h"
#include "projector/model.h"
#include "projector/model_prompt.h"
#include "apps/cli/options.h"
#include "apps/show/figure.h"
#include "apps/show/lines.h"
#include "apps/show/page.h"
#include "apps/trace/trace.h"
#include "apps/train/checkpoint.h"
#include "apps/train/report.h"
#include "apps/train/settings.h"
#include "data/checkpoints/config.h"
#include "data/files/file_hash.h"
#include "data/checkpoints/model_files.h"
#include "tests/fuzz/fuzz.h"

void fuzz_config(const uint8_t *data, size_t size) {
    json_t *json;
    Error err;
    int status = config_read(&json, fuzz_file(0, data, size), &err);
    fuzz_result(status, &err);
    if (status) return;
    int whole = 0;
    double real = 0;
    const char *text = NULL;
    bool flag = false;
    status = config_integer(json, "hidden_size", "input", 1, 1 << 20, 7, &whole, &err);
    fuzz_result(status, &err);
    if (status == 0) fuzz_check(whole >= 1 && whole <= 1 << 20, "a number in its range");
    fuzz_result(config_real(json, "layer_norm_eps", "input", 1e-5, &real, &err), &err);
    fuzz_result(config_text(json, "hidden_act", "input", "gelu", &text, &err), &err);
    fuzz_result(config_flag(json, "pad", "input", true, &flag, &err), &err);
    json_decref(json);
}

/* ---- A model folder. ---- */

static const char *const model_files[8] = {
    "easyfirst.json",        "language/config.json",           "vision/config.json",
    "projector.safetensors", "vision/model.safetensors",       "language/model.safetensors",
    "length.safetensors",    "vision/preprocessor_config.json"};

/* Restores a file of the tiny model. */
static void model_restore(const char *folder, int which) {
    static struct {
        uint8_t *bytes;
        size_t size;
    } originals[8];
    char path[600], name[64];
    snprintf(path, sizeof path, "tests/golden/models/tiny-base/%s", model_files[which]);
    FILE *original = originals[which].bytes ? NULL : fopen(path, "rb");
    if (original) {
        enum { MOST = 4 << 20 };
        originals[which].bytes = malloc(MOST);
        if (originals[which].bytes)
            originals[which].size = fread(originals[which].bytes, 1, MOST, original);
        fclose(original);
    }
    snprintf(name, sizeof name, "tiny/%s", model_files[which]);
    snprintf(path, sizeof path, "%s/%s", folder, model_files[which]);
    if (originals[which].bytes)
        fuzz_write(0, name, originals[which].bytes, originals[which].size);
    else
        unlink(path);
}

/* One file of a model folder, chosen by the first byte; then prompts of it. */
void fuzz_model(const uint8_t *data, size_t size) {
    static Device *device;
    if (!size) return;
    int which = data[0] % 8;
    char name[64];
    Error err;
    const char *folder = fuzz_tree("tests/golden/models/tiny-base", "tiny");
    snprintf(name, sizeof name, "tiny/%s", model_files[which]);
    fuzz_write(0, name, data + 1, size - 1);
    if (!device)
        fuzz_check(device_open(&device, &(DeviceOptions){.threads = 1}, &err) == 0, "a device");
    Model model;
    ModelOptions options = {
        .folder = folder, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    int status = model_open(&model, &options, device, &err);
    fuzz_result(status, &err);
    static const char *const presets[] = {"ask", "gqa", "translate", "summarize", "other"};
    for (int i = 0; status == 0 && i < 5; i++) {
        char *prompt = NULL;
        int failed =
            model_prompt(model.settings, presets[i], "a {question}", "de", "en", &prompt, &err);
        fuzz_result(failed, &err);
        free(prompt);
    }
    model_close(&model);
    model_restore(folder, which);
}

/* What `show --from` does with a trace. */
void fuzz_trace(const uint8_t *data, size_t size) {
    static FILE *nowhere;
    if (!nowhere) nowhere = fopen("/dev/null", "w");
    Trace trace;
    Error err;
    int status = trace_read_json(&trace, fuzz_file(0, data, size), &err);
    fuzz_result(status, &err);
    if (status == 0) {
        size_t length;
        char *page = page_text(&trace, NULL, &length, &err),
             *figure = figure_text(&trace, NULL, &err);
        fuzz_result(page ? 0 : -1, &err);
        fuzz_check(!page || strlen(page) == length, "a page is text");
        fuzz_check(!figure || !strstr(figure, "<script"), "a figure has no script");
        fuzz_result(show_lines(nowhere, &trace, true, &err), &err);
        fuzz_result(show_answer_line(nowhere, &trace, &err), &err);
        json_t *again = trace_json(&trace);
        fuzz_check(again != NULL, "a trace is written");
        char *text = json_dumps(again, JSON_REAL_PRECISION(17));
        Trace same;
        fuzz_check(
            text && trace_read_json(&same, fuzz_file(1, (uint8_t *)text, strlen(text)), &err) == 0,
            "a trace that was written is read");
        trace_free(&same);
        json_decref(again);
        free(text), free(page), free(figure);
    }
    trace_free(&trace);
}

static void read_settings(int argc, char **argv) {
    TrainSettings settings;
    Error err;
    int status = train_settings_read(&settings, argc, argv);
    fuzz_check(status == -1 || (status >= 0 && status <= 2), "an exit status");
    if (status == -1 && train_settings_check(&settings, &err) == 0) {
        json_t *json = train_settings_json(&settings);
        json_decref(json);
    }
    train_settings_free(&settings);
}

/* The first byte is the stage, the rest the file of --config. */
void fuzz_settings(const uint8_t *data, size_t size) {
    if (!size) return;
    char *argv[] = {"train",    (char *)stage_name((TrainStage)(data[0] % STAGE_COUNT)),
                    "--config", (char *)fuzz_file(0, data + 1, size - 1),
                    "--out",    "nowhere",
                    NULL};
    read_settings(6, argv);
}

typedef struct Rows {
    bool flag, toggle;
    const char *text, *device;
    int choice;
    unsigned choices;
    TextList list;
    int integer;
    uint64_t seed;
    float real;
} Rows;

/* Command lines: words separated by 0xFF, for a table with every kind of option, and for `train`,
 * which parses and checks all of its options first. */
void fuzz_options(const uint8_t *data, size_t size) {
    enum { WORDS = 24 };
    static const char *const names[] = {"none", "one", "two", NULL};
    Rows r = {0};
    OptionGroup group = {
        "all kinds",
        {{"flag", 'f', OPTION_FLAG, NULL, &r.flag, "a flag"},
         {"toggle", 't', OPTION_SWITCH, "on|off", &r.toggle, "a switch"},
         {"text", 'x', OPTION_TEXT, "TEXT", &r.text, "a text"},
         {"choice", 0, OPTION_CHOICE, NULL, &r.choice, "a choice", 1, .names = names},
         {"choices", 0, OPTION_CHOICES, "LIST", &r.choices, "some of them", .names = names},
         {"device", 0, OPTION_DEVICE, "DEVICE", &r.device, "a device"},
         {"list", 'l', OPTION_LIST, "FILE", &r.list, "a list"},
         {"integer", 'n', OPTION_INTEGER, "N", &r.integer, "a number", -5, 1000},
         {"seed", 's', OPTION_SEED, "N", &r.seed, "a seed"},
         {"real", 'r', OPTION_REAL, "X", &r.real, "a number", 0, 10}}};
    CommandHelp help = {"test", "[options]", "Does nothing.", "easyfirst test"};
    char *words[WORDS + 1] = {fuzz_text((const uint8_t *)"test", 4)}, *argv[WORDS + 1];
    int count = 1, first;
    while (size && count < WORDS) {
        FuzzPiece piece = fuzz_piece(&data, &size);
        words[count++] = fuzz_text(piece.data, piece.size);
    }
    memcpy(argv, words, sizeof argv);
    int status = options_read(&help, &group, 1, count, argv, &first);
    fuzz_check(status == -1 || status == 0 || status == 2, "an exit status");
    if (status == -1) {
        fuzz_check(first >= 1 && first <= count, "the words that are left");
        fuzz_check(r.choice >= 0 && r.choice <= 2 && r.choices < 8, "a choice that is offered");
        fuzz_check(r.integer >= -5 && r.integer <= 1000, "a number in its range");
        fuzz_check(r.real >= 0 && r.real <= 10, "a number in its range");
        json_t *json = options_to_json(&group, 1);
        json_decref(json);
    }
    free(r.list.items);
    memcpy(argv, words, sizeof argv);
    bool files = false; /* no files of this machine */
    for (int i = 1; i < count; i++)
        files |= strstr(words[i], "--con") || strstr(words[i], "--res") || strchr(words[i], '/');
    argv[0] = "train";
    if (!files) read_settings(count, argv);
    for (int i = 0; i < count; i++) free(words[i]);
}

/* settings.json (a valid one if empty), then 0xFF, then answers.jsonl. */
void fuzz_eval_store(const uint8_t *data, size_t size) {
    FuzzPiece then = fuzz_piece(&data, &size);
    static EvalItem asked[3];
    memset(asked, 0, sizeof asked);
    for (int i = 0; i < 3; i++) asked[i].id = (const char *[]){"1", "2", "n3"}[i];
    EvalItems items = {asked, 3};
    static const char own[] = "{\"command\": \"eval gqa\", \"model\": \"m\", \"steps\": 10, "
                              "\"options\": {\"all\": true}}";
    json_t *settings = json_loads(own, 0, NULL);
    char folder[300];
    snprintf(folder, sizeof folder, "%s/store", fuzz_folder());
    if (then.size)
        fuzz_write(0, "store/settings.json", then.data, then.size);
    else
        fuzz_write(0, "store/settings.json", own, sizeof own - 1);
    fuzz_write(1, "store/answers.jsonl", data, size);
    EvalStore store;
    Error err;
    int status = eval_store_open(&store, folder, 0, 0, settings, "m", &err);
    fuzz_result(status, &err);
    if (status == 0) {
        fuzz_result(eval_store_load(&store, &items, &err), &err);
        eval_store_close(&store);
    }
    for (int i = 0; i < 3; i++) free(asked[i].answer), free(asked[i].map);
    json_decref(settings);
}

void fuzz_eval_text(const uint8_t *data, size_t size) {
    if (size < 1) return;
    static const EvalTask tasks[] = {EVAL_TRANSLATION, EVAL_SUMMARY, EVAL_CHOICE, EVAL_NUMBER,
                                     EVAL_EXACT};
    unsigned kind = data[0];
    data++, size--;
    FuzzPiece lines = fuzz_piece(&data, &size);
    char *paths[] = {(char *)fuzz_file(0, lines.data, lines.size)};
    EvalTextSet set = {0};
    int64_t spare;
    Error err;
    EvalTask task = tasks[kind % 5];
    int status = eval_text_read(&set, paths, 1, kind & 64 ? 2 : 0, task, &err);
    fuzz_result(status, &err);
    if (status == 0 && size) {
        status = eval_text_subjects(&set, fuzz_file(1, data, size), &spare, &err);
        fuzz_result(status, &err);
    }
    if (status == 0) {
        EvalTextOptions options = {.task = task};
        json_t *scores = eval_text_score(&set, &options, &err);
        fuzz_result(scores ? 0 : -1, &err);
        json_decref(scores);
    }
    eval_text_free(&set);
}

void fuzz_metrics(const uint8_t *data, size_t size) {
    char folder[300];
    snprintf(folder, sizeof folder, "%s/run", fuzz_folder());
    fuzz_write(0, "run/metrics.jsonl", data, size);
    TrainReport report;
    Error err;
    int status = train_report_open(&report, folder, 100, 200, true, &err);
    fuzz_result(status, &err);
    if (status) return;
    fuzz_result(train_report_svg(&report, "title", &err), &err);
    train_report_close(&report);
    status = train_report_open(&report, folder, 100, 200, true, &err);
    fuzz_check(status == 0, "metrics that were trimmed are read again");
    train_report_close(&report);
}

/* The state with a valid checksum: mutations would never get past it. */
static char *state_sealed(const uint8_t *data, size_t size) {
    json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    char *text = NULL, hash[FILE_HASH_SIZE];
    Error err;
    if (json_is_object(json)) {
        json_object_del(json, "sha256");
        text = json_dumps(json, JSON_SORT_KEYS | JSON_COMPACT);
        if (text && bytes_hash(hash, text, strlen(text), &err) == 0)
            json_object_set_new(json, "sha256", json_string(hash));
        free(text);
        text = json_dumps(json, JSON_SORT_KEYS | JSON_COMPACT);
    }
    json_decref(json);
    return text;
}

/* run.json (a valid one if empty), then 0xFF, then a checkpoint's state.json. */
void fuzz_state(const uint8_t *data, size_t size) {
    static const char right[] =
        "{\"format\": 1, \"run\": \"0123456789abcdef0123456789abcdef\", \"models\": []}";
    FuzzPiece marker = fuzz_piece(&data, &size);
    char run[300];
    Error err;
    snprintf(run, sizeof run, "%s/train", fuzz_folder());
    fuzz_check(folder_remove(run, &err) == 0, "the run's folder can be removed");
    if (marker.size)
        fuzz_write(0, "train/run.json", marker.data, marker.size);
    else
        fuzz_write(0, "train/run.json", right, sizeof right - 1);
    char *sealed = state_sealed(data, size);
    fuzz_write(1, "train/checkpoint-00000005/training/state.json",
               sealed ? sealed : (const char *)data, sealed ? strlen(sealed) : size);
    fuzz_write(2, "train/checkpoint-00000005/easyfirst.json", "{}", 2);
    free(sealed);
    RunFolder folder;
    int status = run_folder_open(&folder, run, true, &err);
    fuzz_result(status, &err);
    if (status) return;
    TrainCheckpoints checkpoints;
    TrainState state = {0};
    status = train_checkpoints_open(&checkpoints, &folder, NULL, NULL, &state, &err);
    fuzz_result(status, &err);
    if (status == 0) {
        fuzz_check(!checkpoints.last || state.step == 5, "the step is the folder's");
        json_decref(state.data);
        train_checkpoints_close(&checkpoints);
    }
    run_folder_close(&folder);
}
