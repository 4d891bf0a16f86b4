/* The run folder: what a training run writes there and what it leaves alone, damaged and unfinished
 * checkpoints, non-finite values, signals, kills. */
#include "apps/cli/signals.h"
#include "apps/train/checkpoint.h"
#include "apps/train/manifest.h"
#include "apps/train/run_folder.h"
#include "apps/train/settings.h"
#include "data/files/file_hash.h"
#include "data/checkpoints/model_files.h"
#include "tests/train_setup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGAIN(out) "train", "--resume", "--out", (out), "-q"

/* The hash of all names and contents of a folder. */
static void folder_hash(char hex[FILE_HASH_SIZE], const char *folder) {
    Error err;
    json_t *manifest = manifest_make(folder, NULL, NULL, &err);
    if (!manifest) fail_msg("%s", err.text);
    char *text = json_dumps(manifest, JSON_SORT_KEYS);
    assert_ok(bytes_hash(hex, text, strlen(text), &err), &err);
    free(text);
    json_decref(manifest);
}

/* ---- Files of others. ---- */

/* Files that this program did not write are not replaced, and the folder stays as it was. */
static void test_foreign_files(void **state) {
    (void)state;
    static const char *const names[] = {
        "model/notes.txt", "settings.json", "metrics.jsonl",
        "loss.svg",        "data.json",     "checkpoint-00000004/language/config.json"};
    TrainSetup t;
    char before[FILE_HASH_SIZE], after[FILE_HASH_SIZE];
    train_setup(&t);
    Run *r = &t.run;
    for (int i = 0; i < 6; i++) {
        shell("mkdir -p \"$(dirname %s/%s)\" && echo mine > %s/%s", t.out, names[i], t.out,
              names[i]);
        folder_hash(before, t.out);
        run(r, ADAPT(&t, t.out));
        char first[32];
        snprintf(first, sizeof first, "%.*s", (int)strcspn(names[i], "/"), names[i]);
        assert_message(r, 1, first, "run.json", "--out");
        folder_hash(after, t.out);
        assert_string_equal(before, after);
        temporary_remove(t.out);
    }
    /* Other files may be in the folder. */
    shell("mkdir %s && echo mine > %s/notes.txt", t.out, t.out);
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "1");
    assert_true(has_file(r, "out/notes.txt"));
    train_setup_end(&t);
}

static void test_model_is_input(void **state) {
    (void)state;
    TrainSetup t;
    char trained[340], within[600], before[FILE_HASH_SIZE], after[FILE_HASH_SIZE];
    train_setup(&t);
    Run *r = &t.run;
    path_in(within, sizeof within, r, "link/runs/new");
    snprintf(trained, sizeof trained, "%s/model", t.out);
    run_ok(r, ADAPT(&t, t.out));
    folder_hash(before, trained);
    /* A finished run whose checkpoints were deleted, with its own model as the initial one. */
    shell("rm -r %s/checkpoint-*", t.out);
    run(r, "train", "adapt", "-m", trained, "--data", t.pairs, "--out", t.out, "--steps", "2",
        "-q");
    assert_message(r, 1, "out/model", "exists", "--out");
    folder_hash(after, trained);
    assert_string_equal(before, after);
    /* A run folder inside the model's, through a link. */
    shell("ln -s %s %s/link", t.model, r->folder);
    folder_hash(before, t.model);
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", within, "--steps", "2");
    assert_message(r, 2, "link/runs/new", "--model", "own folder");
    char part[340];
    snprintf(part, sizeof part, "%s/language", t.model);
    run(r, "train", "adapt", "--language", part, "--data", t.pairs, "--out", part, "--steps", "2");
    assert_message(r, 2, "--language", "own folder");
    folder_hash(after, t.model);
    assert_string_equal(before, after);
    train_setup_end(&t);
}

/* A model/ that was changed since is not replaced; files that a user added to the run are kept. */
static void test_changed_model(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.out));
    run_ok(r, AGAIN(t.out));
    write_text_in(r, "out/model/README.md", "mine", NULL);
    run(r, AGAIN(t.out));
    assert_message(r, 1, "README.md", "move it away");
    assert_true(has_file(r, "out/model/README.md"));
    shell("rm %s/model/README.md && echo >> %s/model/easyfirst.json", t.out, t.out);
    run(r, AGAIN(t.out));
    assert_message(r, 1, "easyfirst.json", "move it away");
    shell("mv %s/model %s/mine", t.out, t.out);
    run_ok(r, AGAIN(t.out));
    assert_true(has_file(r, "out/model/easyfirst.json") && has_file(r, "out/mine/easyfirst.json"));
    /* The checkpoint of another run. */
    shell("sed -i 's/\"run\": \"..../\"run\": \"0000/' %s/run.json", t.out);
    run(r, AGAIN(t.out));
    assert_message(r, 1, "checkpoint-00000012", "another run");
    train_setup_end(&t);
}

/* A run that cannot begin leaves no folder. */
static void test_nothing_begun(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run(r, "train", "align", "-m", t.model, "--data", t.pairs, "--out", t.out, "-q");
    assert_message(r, 1, "image");
    assert_false(has_file(r, "out"));
    run(r, "train", "align", "-m", t.model, "--data", t.set.captions, "--images", t.pairs, "--out",
        t.out, "-q");
    assert_message(r, 2, "--images", "not a folder");
    /* Bad validation data are found before the training data are read. */
    char bad[300];
    write_text_in(r, "bad.jsonl", "{\"inputs\": 7}\n", bad);
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--valid", bad, "--out", t.out,
        "--steps", "2", "-q");
    assert_message(r, 1, "bad.jsonl");
    assert_false(has_file(r, "out"));
    train_setup_end(&t);
}

/* ---- The data of a resumed run. ---- */

/* Only the contents count, not times or paths; one changed letter makes another file. */
static void test_same_data(void **state) {
    (void)state;
    TrainSetup t;
    char moved[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(moved, sizeof moved, r, "moved.jsonl");
    run_ok(r, ADAPT(&t, t.whole));
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "2");
    shell("touch -d 2001-01-01 %s", t.pairs);
    run_ok(r, AGAIN(t.out), "--stop-after", "3");
    shell("cp %s %s && sed -i '7s/[a-z]\"}$/X\"}/' %s", t.pairs, moved, t.pairs);
    run(r, AGAIN(t.out));
    assert_message(r, 1, "pairs.jsonl", "contents", "checkpoint-00000005");
    run(r, AGAIN(t.out), "--data", t.valid);
    assert_message(r, 1, "valid.jsonl", "contents", "pairs.jsonl");
    run_ok(r, AGAIN(t.out), "--data", moved);
    assert_same_run(r, "whole", "out", 12);
    train_setup_end(&t);
}

/* ---- Publishing. ---- */

static void publish(RunFolder *run, const char *text, Error *err) {
    char *partial = run_folder_partial(run, "model", true, err);
    assert_non_null(partial);
    char path[700];
    snprintf(path, sizeof path, "%s/easyfirst.json", partial);
    write_text(path, text);
    json_t *manifest = manifest_make(partial, NULL, NULL, err);
    assert_non_null(manifest);
    int status = run_folder_publish(run, partial, manifest, err);
    json_decref(manifest);
    free(partial);
    assert_ok(status, err);
}

static void test_publish(void **state) {
    (void)state;
    Run r;
    RunFolder run;
    Error err = {{0}};
    char out[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "a/b/out");
    assert_ok(run_folder_open(&run, out, false, &err), &err);
    write_text_in(&r, "a/b/out/settings.json", "{}", NULL);
    publish(&run, "one", &err);
    publish(&run, "two", &err);
    char *text = read_text(&r, "a/b/out/model/easyfirst.json");
    assert_string_equal(text, "two");
    free(text);
    run_folder_close(&run);
    assert_int_equal(count_entries(out, "partial-"), 0);
    /* At any moment at which the process may end, the marker knows the current model; one that was
     * being replaced is moved back. */
    assert_ok(run_folder_open(&run, out, true, &err), &err);
    char *kept = run_folder_partial(&run, "model-before", false, &err);
    shell("mv %s/model %s", out, kept);
    free(kept);
    close(run.lock), run.lock = -1;
    run_folder_close(&run);
    assert_ok(run_folder_open(&run, out, true, &err), &err);
    assert_true(has_file(&r, "a/b/out/model/easyfirst.json"));
    write_text_in(&r, "a/b/out/model/easyfirst.json", "mine", NULL);
    char *partial = run_folder_partial(&run, "model", true, &err);
    json_t *manifest = json_object();
    assert_refused(run_folder_publish(&run, partial, manifest, &err), &err, "move it away");
    text = read_text(&r, "a/b/out/model/easyfirst.json");
    assert_string_equal(text, "mine");
    free(text), free(partial);
    json_decref(manifest);
    run_folder_close(&run);
    run_end(&r);
}

/* ---- Leftovers and damage. ---- */

static void test_leftovers(void **state) {
    (void)state;
    TrainSetup t;
    char work[340];
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "9");
    json_t *marker = read_json(r, "out/run.json");
    snprintf(work, sizeof work, "%s/partial-%s", t.out,
             json_string_value(json_object_get(marker, "run")));
    json_decref(marker);
    shell("mkdir -p %s/checkpoint-00000012/language %s/checkpoint-00000004", work, work);
    shell("echo half > %s/checkpoint-00000012/language/model.safetensors", work);
    /* More than --keep: as if the process had ended before it removed them. Another run's is
     * kept. */
    shell("cd %s && cp -r checkpoint-00000008 checkpoint-00000006", t.out);
    shell("cd %s && cp -r checkpoint-00000008 checkpoint-00000002", t.out);
    shell("cd %s/checkpoint-00000002/training && echo '{}' > state.json", t.out);
    shell("cd %s && echo > settings.json.part-0123456789abcdef", t.out);
    shell("cd %s && echo > loss.svg.part-fedcba9876543210", t.out);
    shell("cd %s && echo mine > notes.part-0123456789abcdef && mkdir partial-0123", t.out);
    run_ok(r, AGAIN(t.out), "--stop-after", "1");
    assert_int_equal(access(work, F_OK), -1);
    static const char *const gone[] = {"out/settings.json.part-0123456789abcdef",
                                       "out/loss.svg.part-fedcba9876543210",
                                       "out/checkpoint-00000006", "out/checkpoint-00000008"};
    static const char *const kept[] = {"out/notes.part-0123456789abcdef", "out/partial-0123",
                                       "out/checkpoint-00000002", "out/checkpoint-00000009",
                                       "out/checkpoint-00000010"};
    for (int i = 0; i < 4; i++)
        if (has_file(r, gone[i])) fail_msg("%s still exists", gone[i]);
    for (int i = 0; i < 5; i++)
        if (!has_file(r, kept[i])) fail_msg("%s is gone", kept[i]);
    train_setup_end(&t);
}

/* A damaged newest checkpoint is set aside, and the run ends as if it had not been written. */
static void test_damaged_checkpoint(void **state) {
    (void)state;
    static const char *const damage[] = {
        "printf X | dd of=training/language.safetensors bs=1 seek=5000 conv=notrunc 2>/dev/null",
        "truncate -s -1 language/model.safetensors", "rm language/config.json",
        "sed -i 's/\"step\": 8/\"step\": 9/' training/state.json", ": > training/state.json"};
    TrainSetup t;
    char stopped[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(stopped, sizeof stopped, r, "stopped");
    run_ok(r, ADAPT(&t, t.whole));
    run_ok(r, ADAPT(&t, stopped), "--stop-after", "8");
    for (int i = 0; i < 5; i++) {
        shell("cp -r %s %s", stopped, t.out);
        shell("cd %s/checkpoint-00000008 && %s", t.out, damage[i]);
        run_ok(r, AGAIN(t.out));
        if (count_lines(r->err) != 1 || !strstr(r->err, "checkpoint-00000008.damaged"))
            fail_msg("%s: %s", damage[i], r->err);
        assert_same_run(r, "whole", "out", 12);
        assert_true(has_file(r, "out/checkpoint-00000008.damaged"));
        temporary_remove(t.out);
    }
    /* Without an undamaged one, nothing is changed. */
    shell("cp -r %s %s", stopped, t.out);
    shell("truncate -s 9 %s/checkpoint-*/training/language.safetensors", t.out);
    run(r, AGAIN(t.out));
    assert_message(r, 1, "checkpoint-00000008", "9 bytes", "no undamaged");
    assert_int_equal(count_entries(t.out, "checkpoint-"), 2);
    assert_false(has_file(r, "out/checkpoint-00000008.damaged"));
    train_setup_end(&t);
}

/* The size of a checkpoint is estimated before it is written: correct but for the files'
 * headers. */
static void test_space(void **state) {
    (void)state;
    TrainSetup t;
    Error err = {{0}};
    train_setup(&t);
    Run *r = &t.run;
    for (int lora = 0; lora < 2; lora++) {
        TrainSettings s;
        TrainModel model;
        Device *device;
        const char *items[] = {t.pairs};
        run_ok(r, ADAPT(&t, t.out), "--stop-after", "1", "--lora-rank", lora ? "4" : "0");
        json_int_t size = 0;
        const char *name;
        json_t *file, *files;
        json_t *saved = read_json(r, "out/checkpoint-00000001/training/state.json");
        files = json_object_get(saved, "files");
        json_object_foreach(files, name, file) {
            if (!strstr(name, "bpe.model"))
                size += json_integer_value(json_object_get(file, "size"));
        }
        json_decref(saved);
        train_settings_default(&s, STAGE_ADAPT);
        s.model.folder = t.model, s.out = t.out, s.lora.rank = lora ? 4 : 0;
        s.data = (TextList){items, 1};
        assert_ok(train_settings_check(&s, &err), &err);
        assert_ok(device_open(&device, &(DeviceOptions){.kind = DEVICE_CPU}, &err), &err);
        assert_ok(train_model_open(&model, &s, device, &err), &err);
        double estimate = (double)train_checkpoint_bytes(&model, &s, true);
        if (!(estimate <= (double)size && estimate > 0.9 * (double)size - 30000))
            fail_msg("lora %d: estimated %.0f bytes, written %lld", lora, estimate,
                     (long long)size);
        assert_true(train_checkpoint_bytes(&model, &s, false) <
                    train_checkpoint_bytes(&model, &s, true));
        train_model_close(&model);
        device_close(device);
        temporary_remove(t.out);
    }
    train_setup_end(&t);
}

/* ---- Non-finite numbers. ---- */

/* Value `index` of a tensor of f32 in a file. */
static void set_value(const char *path, const char *tensor, int64_t index, uint32_t bits) {
    size_t size;
    char *bytes = file_bytes(path, &size);
    if (!bytes) fail_msg("%s is missing", path);
    uint64_t head;
    memcpy(&head, bytes, sizeof head);
    json_t *json = json_loadb(bytes + 8, head, 0, NULL), *entry = json_object_get(json, tensor);
    if (!entry) fail_msg("%s: no %s", path, tensor);
    assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "F32");
    json_int_t begin =
        json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
    memcpy(bytes + 8 + head + begin + 4 * index, &bits, sizeof bits);
    write_bytes(path, bytes, size);
    json_decref(json), free(bytes);
}

enum { NAN_BITS = 0x7fc00000, HUGE_BITS = 0x7f61b1e6 /* 3e38 */ };

/* A model with a NaN: the file and the tensor are named at the first step. */
static void test_damaged_weights(void **state) {
    (void)state;
    static const struct {
        const char *file, *tensor;
        bool images;
    } cases[] = {
        {"language/model.safetensors", "roberta.encoder.layer.1.output.dense.weight", false},
        {"language/model.safetensors", "roberta.embeddings.word_embeddings.weight", false},
        {"vision/model.safetensors", "vision_model.encoder.layers.0.mlp.fc1.weight", true},
        {"projector.safetensors", "model.mm_projector.weight", true},
    };
    TrainSetup t;
    char model[300], path[700];
    train_setup(&t);
    Run *r = &t.run;
    path_in(model, sizeof model, r, "damaged");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        shell("cp -r %s %s", t.model, model);
        snprintf(path, sizeof path, "%s/%s", model, cases[i].file);
        set_value(path, cases[i].tensor, 7, NAN_BITS);
        if (cases[i].images)
            run(r, "train", "tune", "-m", model, "--data", t.set.conversations, "--images",
                t.set.images, "--out", t.out, "--steps", "5", "--batch-sequences", "6", "-q");
        else
            run(r, "train", "adapt", "-m", model, "--data", t.pairs, "--out", t.out, "--steps", "5",
                "--batch-sequences", "6", "-q");
        assert_message(r, 1, cases[i].tensor, "1 of its", "number 7", "nan", "damaged/");
        if (strstr(r->err, "--lr")) fail_msg("--lr is not the cause: %s", r->err);
        assert_int_equal(count_entries(t.out, "checkpoint-"), 0);
        assert_false(has_file(r, "out/model"));
        temporary_remove(t.out), temporary_remove(model);
    }
    train_setup_end(&t);
}

/* Finite weights, but no finite gradient. */
static void test_no_progress(void **state) {
    (void)state;
    TrainSetup t;
    char path[340];
    train_setup(&t);
    Run *r = &t.run;
    snprintf(path, sizeof path, "%s/language/model.safetensors", t.model);
    set_value(path, "roberta.embeddings.LayerNorm.weight", 3, HUGE_BITS);
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", t.out, "--steps", "30",
        "--batch-sequences", "6", "--save-every", "2", "-q");
    assert_message(r, 1, "diverged", "20 updates", "--lr", "weights are finite");
    assert_int_equal(count_entries(t.out, "checkpoint-"), 0);
    temporary_remove(t.out);
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", t.out, "--steps", "5",
        "--batch-sequences", "6", "--save-every", "2", "-q");
    assert_message(r, 1, "last 5 updates", "skipped", "--lr", "no model is published");
    assert_int_equal(count_entries(t.out, "checkpoint-"), 0);
    assert_false(has_file(r, "out/model"));
    temporary_remove(t.out);
    /* Batches of one short answer: in a third of them no token is masked, which does not end the
     * series. */
    char words[300];
    write_text_in(
        r, "words.jsonl",
        "{\"inputs\": \"a\", \"targets\": \"b\"}\n{\"inputs\": \"c\", \"targets\": \"d\"}\n",
        words);
    run(r, "train", "adapt", "-m", t.model, "--data", words, "--out", t.out, "--steps", "90",
        "--batch-sequences", "1", "--objective", "llada", "-q");
    assert_message(r, 1, "diverged", "20 updates");
    train_setup_end(&t);
}

/* Makes the forward pass overflow for every sequence that reaches position 60, and adds one such
 * record. */
static void spoil(TrainSetup *t) {
    char path[340];
    snprintf(path, sizeof path, "%s/language/model.safetensors", t->model);
    for (int i = 5; i < 8; i++) /* one of them alone would not spoil a LayerNorm */
        set_value(path, "roberta.embeddings.position_embeddings.weight", 62 * 32 + i, HUGE_BITS);
    FILE *f = fopen(t->pairs, "a");
    assert_non_null(f);
    fputs("{\"inputs\": \"long\", \"targets\": \"", f);
    for (int i = 0; i < 60; i++) fputs("eins ", f);
    fputs("\"}\n", f);
    assert_int_equal(fclose(f), 0);
}

/* The step before the first skipped update, which has no line of its own. */
static int first_skipped(const Run *r, const char *name) {
    double skipped[100];
    int last = read_losses(r, name, "skipped", skipped, 100);
    for (int i = 1; i <= last; i++)
        if (skipped[i] > 0) return i - 1 - (int)skipped[i];
    fail_msg("%s: no update was skipped", name);
    return 0;
}

/* No checkpoint is written at a skipped update; a run that ends at one reports it and keeps the
 * checkpoint before, from which it can be resumed. */
static void test_skipped_updates(void **state) {
    (void)state;
    TrainSetup t;
    char steps[16], name[64];
    train_setup(&t);
    Run *r = &t.run;
    spoil(&t);
#define SPOILED(out, steps, ...)                                                                   \
    "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", (out), "--steps", (steps),        \
        "--batch-sequences", "6", "--lr", "2e-3", "--schedule", "constant", "--warmup-steps", "1", \
        "--log-every", "1", __VA_ARGS__
    run_ok(r, SPOILED(t.whole, "14", "--save-every", "1", "--keep", "99"));
    assert_non_null(strstr(r->err, "skipped    the update of step"));
    int before = first_skipped(r, "whole/metrics.jsonl");
    for (int step = 1; step <= 10; step++) {
        snprintf(name, sizeof name, "whole/checkpoint-%08d", step);
        if (has_file(r, name) != (step != before + 1))
            fail_msg("%s, skipped after %d", name, before);
    }
    /* The last update is skipped. */
    snprintf(steps, sizeof steps, "%d", before + 1);
    run(r, SPOILED(t.out, steps, "--save-every", "0", "-q"));
    snprintf(name, sizeof name, "checkpoint-%08d", before);
    assert_message(r, 1, "last 1 update", name, "no model is published");
    assert_int_equal(count_entries(t.out, "checkpoint-"), 1);
    assert_false(has_file(r, "out/model"));
    temporary_remove(t.out);
    /* Stopped at the skipped update: the step is repeated. */
    run_ok(r, SPOILED(t.out, "14", "--save-every", "0", "-q"), "--stop-after", steps);
    snprintf(name, sizeof name, "out/checkpoint-%08d", before);
    assert_true(has_file(r, name));
    run_ok(r, AGAIN(t.out));
    assert_same_run(r, "whole", "out", 14);
    train_setup_end(&t);
}

/* ---- Signals. ---- */

#define LONG(t, out)                                                                           \
    "train", "adapt", "-m", (t)->model, "--data", (t)->pairs, "--out", (out), "--steps", "60", \
        "--batch-sequences", "6", "--lr", "2e-3", "--warmup-steps", "3", "--log-every", "1"

static void test_signals(void **state) {
    (void)state;
    static const int numbers[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    static const char *const words[] = {"SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1"};
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, LONG(&t, t.whole), "-q");
    for (int i = 0; i < 4; i++) {
        char *args[] = {LONG(&t, t.out), "-q", NULL};
        pid_t child = start_program(r, RLIM_INFINITY, false, args);
        wait_for_lines(r, child, "out/metrics.jsonl", 2 + i);
        int status = end_program(child, numbers[i]);
        char *text = read_text(r, "stderr");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 3 || !strstr(text, words[i]) ||
            !strstr(text, "--resume") || count_entries(t.out, "checkpoint-") != 1)
            fail_msg("%s: status %d, %s", words[i], status, text);
        free(text);
        if (i == 3) {
            run_ok(r, AGAIN(t.out));
            assert_same_run(r, "whole", "out", 60);
        }
        temporary_remove(t.out);
    }
    train_setup_end(&t);
}

/* A run continues when standard error is closed, and at a SIGHUP that was ignored when the program
 * started (nohup). */
static void test_lost_terminal(void **state) {
    (void)state;
    TrainSetup t;
    char line[2000];
    const char *program = getenv("EASYFIRST");
    if (!program || !*program) program = "build/easyfirst";
    train_setup(&t);
    Run *r = &t.run;
    static const char *const forms[] = {"2>&1 >&- | true", "2>&- >&- <&-",
                                        "2>&1 | (read -r line; exec <&-; sleep 0.1)"};
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line,
                 "set -o pipefail; %s train adapt -m %s --data %s --out %s --steps 12 "
                 "--batch-sequences 6 --log-every 1 %s",
                 program, t.model, t.pairs, t.out, forms[i]);
        char *bash[] = {"bash", "-c", line, NULL};
        pid_t child = fork();
        if (child == 0) {
            execvp(bash[0], bash);
            _exit(99);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status) fail_msg("%s: status %d", line, status);
        assert_true(has_file(r, "out/model/easyfirst.json"));
        assert_int_equal(lines_in(r, "out/metrics.jsonl"), 12);
        temporary_remove(t.out);
    }
    signal(SIGHUP, SIG_IGN);
    char *args[] = {LONG(&t, t.out), "-q", NULL};
    pid_t child = start_program(r, RLIM_INFINITY, false, args);
    signal(SIGHUP, SIG_DFL);
    wait_for_lines(r, child, "out/metrics.jsonl", 1);
    assert_int_equal(end_program(child, SIGHUP), 0);
    assert_true(has_file(r, "out/model/easyfirst.json"));
    train_setup_end(&t);
}

/* The first signal requests a stop; a second one, of any kind, ends the process at once. */
static void test_second_signal(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signals_catch_stop();
        if (signals_stop_asked()) _exit(1);
        raise(SIGTERM);
        if (signals_stop_asked() != SIGTERM) _exit(2);
        raise(SIGINT);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

/* ---- Kills. ---- */

/* kill -9 at random moments, many of them while something is written or removed; then to the end.
 * No checkpoint is lost on the way, and no partial file is left. */
static void test_random_kills(void **state) {
    (void)state;
    enum { KILLS = 14 };
    TrainSetup t;
    TestRandom random = {77};
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.whole), "--save-every", "1");
    int died = 0, most = 0;
    for (int i = 0; i < KILLS; i++) {
        char *first[] = {ADAPT(&t, t.out), "--save-every", "1", NULL};
        char *again[] = {AGAIN(t.out), NULL};
        int status, lines = (int)(test_random_next(&random) % 4);
        pid_t child = start_program(r, RLIM_INFINITY, false,
                                    has_file(r, "out/settings.json") ? again : first);
        for (int tries = 0; tries < 4000 && waitpid(child, &status, WNOHANG) != child; tries++) {
            if (lines_in(r, "out/metrics.jsonl") > lines && count_entries(t.out, "partial-") &&
                test_random_next(&random) % 3)
                break;
            usleep((useconds_t)(test_random_next(&random) % 3000));
        }
        if (kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child)
            died += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        int steps = 0;
        for (int step = 1; step <= 12; step++) {
            char name[64];
            snprintf(name, sizeof name, "out/checkpoint-%08d", step);
            if (has_file(r, name)) steps = step;
        }
        if (steps < most) fail_msg("checkpoint %d existed, now the last is %d", most, steps);
        most = steps;
    }
    print_message("note: %d of %d were killed\n", died, KILLS);
    assert_true(died >= KILLS / 2);
    run_ok(r, AGAIN(t.out));
    assert_same_run(r, "whole", "out", 12);
    assert_int_equal(count_entries(t.out, ""), count_entries(t.whole, ""));
    assert_int_equal(count_entries(t.out, "checkpoint-"), 2);
    train_setup_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_model_is_input),
        cmocka_unit_test(test_changed_model), cmocka_unit_test(test_nothing_begun),
        cmocka_unit_test(test_same_data),     cmocka_unit_test(test_publish),
        cmocka_unit_test(test_leftovers),     cmocka_unit_test(test_damaged_checkpoint),
        cmocka_unit_test(test_space),         cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_no_progress),   cmocka_unit_test(test_skipped_updates),
        cmocka_unit_test(test_signals),       cmocka_unit_test(test_lost_terminal),
        cmocka_unit_test(test_second_signal), cmocka_unit_test(test_random_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
