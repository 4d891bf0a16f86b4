/* What a training run leaves behind, and what it leaves alone: its folder, damaged and unfinished
 * checkpoints, signals, kills. */
#include "apps/cli/signals.h"
#include "apps/train/checkpoint.h"
#include "apps/train/manifest.h"
#include "apps/train/run_folder.h"
#include "data/files/file_hash.h"
#include "data/checkpoints/model_files.h"
#include "tests/train_bench.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGAIN(out) "train", "--resume", "--out", (out), "-q"

static void save(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void save_in(const Run *r, const char *name, const char *text) {
    char path[600];
    path_in(path, sizeof path, r, name);
    save(path, text);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...) {
    char line[1500];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (system(line)) fail_msg("failed: %s", line);
}

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

/* ---- Whose folder it is. ---- */

/* Nothing that this program did not make is replaced, and nothing of the place changes. */
static void test_foreign_files(void **state) {
    (void)state;
    static const char *const names[] = {
        "model/notes.txt", "settings.json", "metrics.jsonl",
        "loss.svg",        "data.json",     "checkpoint-00000004/language/config.json"};
    Bench b;
    char out[300], before[FILE_HASH_SIZE], after[FILE_HASH_SIZE];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    for (int i = 0; i < 6; i++) {
        shell("mkdir -p \"$(dirname %s/%s)\" && echo mine > %s/%s", out, names[i], out, names[i]);
        folder_hash(before, out);
        run(r, ADAPT(&b, out));
        char first[32];
        snprintf(first, sizeof first, "%.*s", (int)strcspn(names[i], "/"), names[i]);
        assert_message(r, 1, first, "run.json", "--out");
        folder_hash(after, out);
        assert_string_equal(before, after);
        temporary_remove(out);
    }
    /* Anything else may lie there. */
    shell("mkdir %s && echo mine > %s/notes.txt", out, out);
    run(r, ADAPT(&b, out), "--stop-after", "1");
    expect(r, 0, "");
    assert_true(there(r, "out/notes.txt"));
    bench_end(&b);
}

static void test_model_is_input(void **state) {
    (void)state;
    Bench b;
    char out[300], trained[340], within[600], before[FILE_HASH_SIZE], after[FILE_HASH_SIZE];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out"), path_in(within, sizeof within, r, "link/runs/new");
    snprintf(trained, sizeof trained, "%s/model", out);
    run(r, ADAPT(&b, out));
    expect(r, 0, "");
    folder_hash(before, trained);
    /* A finished run whose checkpoints were thrown away, and its model as a start. */
    shell("rm -r %s/checkpoint-*", out);
    run(r, "train", "adapt", "-m", trained, "--data", b.pairs, "--out", out, "--steps", "2", "-q");
    assert_message(r, 1, "out/model", "exists", "--out");
    folder_hash(after, trained);
    assert_string_equal(before, after);
    /* In the model, by another name. */
    shell("ln -s %s %s/link", b.model, r->folder);
    folder_hash(before, b.model);
    run(r, "train", "adapt", "-m", b.model, "--data", b.pairs, "--out", within, "--steps", "2");
    assert_message(r, 2, "link/runs/new", "--model", "own folder");
    char part[340];
    snprintf(part, sizeof part, "%s/language", b.model);
    run(r, "train", "adapt", "--language", part, "--data", b.pairs, "--out", part, "--steps", "2");
    assert_message(r, 2, "--language", "own folder");
    folder_hash(after, b.model);
    assert_string_equal(before, after);
    bench_end(&b);
}

/* A model/ that was changed since is not replaced; what a user put beside is left alone. */
static void test_changed_model(void **state) {
    (void)state;
    Bench b;
    char out[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    run(r, ADAPT(&b, out));
    expect(r, 0, "");
    run(r, AGAIN(out));
    expect(r, 0, "");
    save_in(r, "out/model/README.md", "mine");
    run(r, AGAIN(out));
    assert_message(r, 1, "README.md", "move it away");
    assert_true(there(r, "out/model/README.md"));
    shell("rm %s/model/README.md && echo >> %s/model/easyfirst.json", out, out);
    run(r, AGAIN(out));
    assert_message(r, 1, "easyfirst.json", "move it away");
    shell("mv %s/model %s/mine", out, out);
    run(r, AGAIN(out));
    expect(r, 0, "");
    assert_true(there(r, "out/model/easyfirst.json") && there(r, "out/mine/easyfirst.json"));
    /* The checkpoint of another run. */
    shell("sed -i 's/\"run\": \"..../\"run\": \"0000/' %s/run.json", out);
    run(r, AGAIN(out));
    assert_message(r, 1, "checkpoint-00000012", "another run");
    bench_end(&b);
}

/* A run that cannot begin leaves no folder. */
static void test_nothing_begun(void **state) {
    (void)state;
    Bench b;
    char out[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    run(r, "train", "align", "-m", b.model, "--data", b.pairs, "--out", out, "-q");
    assert_message(r, 1, "image");
    assert_false(there(r, "out"));
    run(r, "train", "align", "-m", b.model, "--data", b.set.captions, "--images", b.pairs, "--out",
        out, "-q");
    assert_message(r, 2, "--images", "not a folder");
    /* Bad validation data are found before the training data are read. */
    save_in(r, "bad.jsonl", "{\"inputs\": 7}\n");
    char bad[300];
    path_in(bad, sizeof bad, r, "bad.jsonl");
    run(r, "train", "adapt", "-m", b.model, "--data", b.pairs, "--valid", bad, "--out", out,
        "--steps", "2", "-q");
    assert_message(r, 1, "bad.jsonl");
    assert_false(there(r, "out"));
    bench_end(&b);
}

/* ---- The data of a resumed run. ---- */

/* Their contents count: not times, nor where they are; and one letter is another file. */
static void test_same_data(void **state) {
    (void)state;
    Bench b;
    char whole[300], out[300], moved[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(out, sizeof out, r, "out");
    path_in(moved, sizeof moved, r, "moved.jsonl");
    run(r, ADAPT(&b, whole));
    expect(r, 0, "");
    run(r, ADAPT(&b, out), "--stop-after", "2");
    expect(r, 0, "");
    shell("touch -d 2001-01-01 %s", b.pairs);
    run(r, AGAIN(out), "--stop-after", "3");
    expect(r, 0, "");
    shell("cp %s %s && sed -i '7s/[a-z]\"}$/X\"}/' %s", b.pairs, moved, b.pairs);
    run(r, AGAIN(out));
    assert_message(r, 1, "pairs.jsonl", "contents", "checkpoint-00000005");
    run(r, AGAIN(out), "--data", b.valid);
    assert_message(r, 1, "valid.jsonl", "contents", "pairs.jsonl");
    run(r, AGAIN(out), "--data", moved);
    expect(r, 0, "");
    assert_same_run(r, "whole", "out", 12);
    bench_end(&b);
}

/* ---- Publishing. ---- */

static void publish(RunFolder *run, const char *text, Error *err) {
    char *partial = run_folder_partial(run, "model", true, err);
    assert_non_null(partial);
    char path[700];
    snprintf(path, sizeof path, "%s/easyfirst.json", partial);
    save(path, text);
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
    save_in(&r, "a/b/out/settings.json", "{}");
    publish(&run, "one", &err);
    publish(&run, "two", &err);
    char *text = text_of(&r, "a/b/out/model/easyfirst.json");
    assert_string_equal(text, "two");
    free(text);
    run_folder_close(&run);
    assert_int_equal(count_entries(out, "partial-"), 0);
    /* Whatever the process was doing when it ended, the marker knows the model that is there; and
     * what was being moved is put back. */
    assert_ok(run_folder_open(&run, out, true, &err), &err);
    char *kept = run_folder_partial(&run, "model-before", false, &err);
    shell("mv %s/model %s", out, kept);
    free(kept);
    close(run.lock), run.lock = -1;
    run_folder_close(&run);
    assert_ok(run_folder_open(&run, out, true, &err), &err);
    assert_true(there(&r, "a/b/out/model/easyfirst.json"));
    save_in(&r, "a/b/out/model/easyfirst.json", "mine");
    char *partial = run_folder_partial(&run, "model", true, &err);
    json_t *manifest = json_object();
    assert_refused(run_folder_publish(&run, partial, manifest, &err), &err, "move it away");
    text = text_of(&r, "a/b/out/model/easyfirst.json");
    assert_string_equal(text, "mine");
    free(text), free(partial);
    json_decref(manifest);
    run_folder_close(&run);
    run_end(&r);
}

/* ---- What a killed process leaves. ---- */

static void test_leftovers(void **state) {
    (void)state;
    Bench b;
    char out[300], work[340];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    run(r, ADAPT(&b, out), "--stop-after", "9");
    expect(r, 0, "");
    char *text = text_of(r, "out/run.json");
    json_t *marker = json_loads(text, 0, NULL);
    snprintf(work, sizeof work, "%s/partial-%s", out,
             json_string_value(json_object_get(marker, "run")));
    json_decref(marker), free(text);
    shell("mkdir -p %s/checkpoint-00000012/language %s/checkpoint-00000004", work, work);
    shell("echo half > %s/checkpoint-00000012/language/model.safetensors", work);
    /* Beyond --keep: the clean-up did not come to these. Another run's is nobody's to remove. */
    shell("cd %s && cp -r checkpoint-00000008 checkpoint-00000006", out);
    shell("cd %s && cp -r checkpoint-00000008 checkpoint-00000002", out);
    shell("cd %s/checkpoint-00000002/training && echo '{}' > state.json", out);
    shell("cd %s && echo > settings.json.part-0123456789abcdef", out);
    shell("cd %s && echo > loss.svg.part-fedcba9876543210", out);
    shell("cd %s && echo mine > notes.part-0123456789abcdef && mkdir partial-0123", out);
    run(r, AGAIN(out), "--stop-after", "1");
    expect(r, 0, "");
    assert_int_equal(access(work, F_OK), -1);
    static const char *const gone[] = {"out/settings.json.part-0123456789abcdef",
                                       "out/loss.svg.part-fedcba9876543210",
                                       "out/checkpoint-00000006", "out/checkpoint-00000008"};
    static const char *const kept[] = {"out/notes.part-0123456789abcdef", "out/partial-0123",
                                       "out/checkpoint-00000002", "out/checkpoint-00000009",
                                       "out/checkpoint-00000010"};
    for (int i = 0; i < 4; i++)
        if (there(r, gone[i])) fail_msg("%s is there still", gone[i]);
    for (int i = 0; i < 5; i++)
        if (!there(r, kept[i])) fail_msg("%s is gone", kept[i]);
    bench_end(&b);
}

/* A damaged newest checkpoint is set aside, and the run ends as if it had not been written. */
static void test_damaged_checkpoint(void **state) {
    (void)state;
    static const char *const damage[] = {
        "printf X | dd of=training/language.safetensors bs=1 seek=5000 conv=notrunc 2>/dev/null",
        "truncate -s -1 language/model.safetensors", "rm language/config.json",
        "sed -i 's/\"step\": 8/\"step\": 9/' training/state.json", ": > training/state.json"};
    Bench b;
    char whole[300], out[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(out, sizeof out, r, "out");
    run(r, ADAPT(&b, whole));
    expect(r, 0, "");
    for (int i = 0; i < 5; i++) {
        run(r, ADAPT(&b, out), "--stop-after", "8");
        expect(r, 0, "");
        shell("cd %s/checkpoint-00000008 && %s", out, damage[i]);
        run(r, AGAIN(out));
        expect(r, 0, "");
        if (count_lines(r->err) != 1 || !strstr(r->err, "checkpoint-00000008.damaged"))
            fail_msg("%s: %s", damage[i], r->err);
        assert_same_run(r, "whole", "out", 12);
        assert_true(there(r, "out/checkpoint-00000008.damaged"));
        temporary_remove(out);
    }
    /* With none left nothing is changed. */
    run(r, ADAPT(&b, out), "--stop-after", "8");
    expect(r, 0, "");
    shell("truncate -s 9 %s/checkpoint-*/training/language.safetensors", out);
    run(r, AGAIN(out));
    assert_message(r, 1, "checkpoint-00000008", "9 bytes", "no undamaged");
    assert_int_equal(count_entries(out, "checkpoint-"), 2);
    assert_false(there(r, "out/checkpoint-00000008.damaged"));
    bench_end(&b);
}

/* What a checkpoint will take is known before, within the headers of its files. */
static void test_space(void **state) {
    (void)state;
    Bench b;
    Error err = {{0}};
    char out[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    for (int lora = 0; lora < 2; lora++) {
        TrainSettings s;
        TrainModel model;
        Device *device;
        const char *items[] = {b.pairs};
        run(r, ADAPT(&b, out), "--stop-after", "1", "--lora-rank", lora ? "4" : "0");
        expect(r, 0, "");
        json_int_t size = 0;
        const char *name;
        json_t *file, *files;
        char *text = text_of(r, "out/checkpoint-00000001/training/state.json");
        json_t *saved = json_loads(text, 0, NULL);
        files = json_object_get(saved, "files");
        json_object_foreach(files, name, file) {
            if (!strstr(name, "bpe.model"))
                size += json_integer_value(json_object_get(file, "size"));
        }
        json_decref(saved), free(text);
        train_settings_default(&s, STAGE_ADAPT);
        s.model.folder = b.model, s.out = out, s.lora.rank = lora ? 4 : 0;
        s.data = (TextList){items, 1};
        assert_ok(train_settings_check(&s, &err), &err);
        assert_ok(device_open(&device, &(DeviceOptions){.kind = DEVICE_CPU}, &err), &err);
        assert_ok(train_model_open(&model, &s, device, &err), &err);
        double told = (double)train_checkpoint_bytes(&model, &s, true);
        if (!(told <= (double)size && told > 0.9 * (double)size - 30000))
            fail_msg("lora %d: told %.0f bytes, taken %lld", lora, told, (long long)size);
        assert_true(train_checkpoint_bytes(&model, &s, false) <
                    train_checkpoint_bytes(&model, &s, true));
        train_model_close(&model);
        device_close(device);
        temporary_remove(out);
    }
    bench_end(&b);
}

/* ---- Numbers that are not finite. ---- */

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
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    json_decref(json), free(bytes);
}

enum { NAN_BITS = 0x7fc00000, HUGE_BITS = 0x7f61b1e6 /* 3e38 */ };

/* Weights that came in damaged: the file and the tensor are named, at the first step. */
static void test_damaged_weights(void **state) {
    (void)state;
    static const struct {
        const char *file, *tensor;
        bool sees;
    } cases[] = {
        {"language/model.safetensors", "roberta.encoder.layer.1.output.dense.weight", false},
        {"language/model.safetensors", "roberta.embeddings.word_embeddings.weight", false},
        {"vision/model.safetensors", "vision_model.encoder.layers.0.mlp.fc1.weight", true},
        {"projector.safetensors", "model.mm_projector.weight", true},
    };
    Bench b;
    char out[300], model[300], path[700];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out"), path_in(model, sizeof model, r, "damaged");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        shell("cp -r %s %s", b.model, model);
        snprintf(path, sizeof path, "%s/%s", model, cases[i].file);
        set_value(path, cases[i].tensor, 7, NAN_BITS);
        if (cases[i].sees)
            run(r, "train", "tune", "-m", model, "--data", b.set.conversations, "--images",
                b.set.images, "--out", out, "--steps", "5", "--batch-sequences", "6", "-q");
        else
            run(r, "train", "adapt", "-m", model, "--data", b.pairs, "--out", out, "--steps", "5",
                "--batch-sequences", "6", "-q");
        assert_message(r, 1, cases[i].tensor, "1 of its", "number 7", "nan", "damaged/");
        if (strstr(r->err, "--lr")) fail_msg("the rate is not to blame: %s", r->err);
        assert_int_equal(count_entries(out, "checkpoint-"), 0);
        assert_false(there(r, "out/model"));
        temporary_remove(out), temporary_remove(model);
    }
    bench_end(&b);
}

/* Finite weights, but no finite gradient. */
static void test_no_progress(void **state) {
    (void)state;
    Bench b;
    char out[300], path[340];
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    snprintf(path, sizeof path, "%s/language/model.safetensors", b.model);
    set_value(path, "roberta.embeddings.LayerNorm.weight", 3, HUGE_BITS);
    run(r, "train", "adapt", "-m", b.model, "--data", b.pairs, "--out", out, "--steps", "30",
        "--batch-sequences", "6", "--save-every", "2", "-q");
    assert_message(r, 1, "diverged", "20 updates", "--lr", "weights are finite");
    assert_int_equal(count_entries(out, "checkpoint-"), 0);
    temporary_remove(out);
    run(r, "train", "adapt", "-m", b.model, "--data", b.pairs, "--out", out, "--steps", "5",
        "--batch-sequences", "6", "--save-every", "2", "-q");
    assert_message(r, 1, "last 5 updates", "skipped", "--lr", "no model is published");
    assert_int_equal(count_entries(out, "checkpoint-"), 0);
    assert_false(there(r, "out/model"));
    temporary_remove(out);
    /* Batches of one short answer: in a third of them no token is masked, which does not end the
     * streak. */
    char words[300];
    path_in(words, sizeof words, r, "words.jsonl");
    save(words,
         "{\"inputs\": \"a\", \"targets\": \"b\"}\n{\"inputs\": \"c\", \"targets\": \"d\"}\n");
    run(r, "train", "adapt", "-m", b.model, "--data", words, "--out", out, "--steps", "90",
        "--batch-sequences", "1", "--objective", "llada", "-q");
    assert_message(r, 1, "diverged", "20 updates");
    bench_end(&b);
}

/* A model whose position 60 spoils every pass that comes so far, and data with one such record. */
static void spoil(Bench *b) {
    char path[340];
    snprintf(path, sizeof path, "%s/language/model.safetensors", b->model);
    for (int i = 5; i < 8; i++) /* one of them alone would not spoil a LayerNorm */
        set_value(path, "roberta.embeddings.position_embeddings.weight", 62 * 32 + i, HUGE_BITS);
    FILE *f = fopen(b->pairs, "a");
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

/* No checkpoint is written at a skipped update, and a run that ends in one says so and keeps the
 * one before, from which it can be resumed. */
static void test_streak(void **state) {
    (void)state;
    Bench b;
    char whole[300], out[300], steps[16], name[64];
    bench_start(&b);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(out, sizeof out, r, "out");
    spoil(&b);
#define SPOILED(out, steps, ...)                                                                   \
    "train", "adapt", "-m", b.model, "--data", b.pairs, "--out", (out), "--steps", (steps),        \
        "--batch-sequences", "6", "--lr", "2e-3", "--schedule", "constant", "--warmup-steps", "1", \
        "--log-every", "1", __VA_ARGS__
    run(r, SPOILED(whole, "14", "--save-every", "1", "--keep", "99"));
    expect(r, 0, "");
    assert_non_null(strstr(r->err, "skipped    the update of step"));
    int before = first_skipped(r, "whole/metrics.jsonl");
    for (int step = 1; step <= 10; step++) {
        snprintf(name, sizeof name, "whole/checkpoint-%08d", step);
        if (there(r, name) != (step != before + 1)) fail_msg("%s, skipped after %d", name, before);
    }
    /* The end within the streak. */
    snprintf(steps, sizeof steps, "%d", before + 1);
    run(r, SPOILED(out, steps, "--save-every", "0", "-q"));
    snprintf(name, sizeof name, "checkpoint-%08d", before);
    assert_message(r, 1, "last 1 update", name, "no model is published");
    assert_int_equal(count_entries(out, "checkpoint-"), 1);
    assert_false(there(r, "out/model"));
    temporary_remove(out);
    /* A stop within the streak: the skipped step is made again. */
    run(r, SPOILED(out, "14", "--save-every", "0", "-q"), "--stop-after", steps);
    expect(r, 0, "");
    snprintf(name, sizeof name, "out/checkpoint-%08d", before);
    assert_true(there(r, name));
    run(r, AGAIN(out));
    expect(r, 0, "");
    assert_same_run(r, "whole", "out", 14);
    bench_end(&b);
}

/* ---- Signals. ---- */

static void wait_for_lines(const Run *r, pid_t child, const char *name, int lines) {
    int status;
    for (int tries = 0; tries < 8000 && lines_in(r, name) < lines; tries++) {
        if (waitpid(child, &status, WNOHANG) == child) fail_msg("ended by itself: %d", status);
        usleep(500);
    }
}

#define LONG(b, out)                                                                           \
    "train", "adapt", "-m", (b)->model, "--data", (b)->pairs, "--out", (out), "--steps", "60", \
        "--batch-sequences", "6", "--lr", "2e-3", "--warmup-steps", "3", "--log-every", "1"

static void test_signals(void **state) {
    (void)state;
    static const int numbers[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    static const char *const words[] = {"SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1"};
    Bench b;
    char whole[300], out[300];
    bench_start(&b);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(out, sizeof out, r, "out");
    run(r, LONG(&b, whole), "-q");
    expect(r, 0, "");
    for (int i = 0; i < 4; i++) {
        char *args[] = {LONG(&b, out), "-q", NULL};
        int status;
        pid_t child = start(r, RLIM_INFINITY, false, args);
        wait_for_lines(r, child, "out/metrics.jsonl", 2 + i);
        kill(child, numbers[i]);
        assert_int_equal(waitpid(child, &status, 0), child);
        char *text = text_of(r, "stderr");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 3 || !strstr(text, words[i]) ||
            !strstr(text, "--resume") || count_entries(out, "checkpoint-") != 1)
            fail_msg("%s: status %d, %s", words[i], status, text);
        free(text);
        if (i == 3) {
            run(r, AGAIN(out));
            expect(r, 0, "");
            assert_same_run(r, "whole", "out", 60);
        }
        temporary_remove(out);
    }
    bench_end(&b);
}

/* Standard error may close, and SIGHUP was ignored when the program started (nohup). */
static void test_lost_terminal(void **state) {
    (void)state;
    Bench b;
    char out[300], line[2000];
    const char *program = getenv("EASYFIRST");
    if (!program || !*program) program = "build/easyfirst";
    bench_start(&b);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
    static const char *const forms[] = {"2>&1 >&- | true", "2>&- >&- <&-",
                                        "2>&1 | (read -r line; exec <&-; sleep 0.1)"};
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line,
                 "set -o pipefail; %s train adapt -m %s --data %s --out %s --steps 12 "
                 "--batch-sequences 6 --log-every 1 %s",
                 program, b.model, b.pairs, out, forms[i]);
        char *bash[] = {"bash", "-c", line, NULL};
        pid_t child = fork();
        if (child == 0) {
            execvp(bash[0], bash);
            _exit(99);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status) fail_msg("%s: status %d", line, status);
        assert_true(there(r, "out/model/easyfirst.json"));
        assert_int_equal(lines_in(r, "out/metrics.jsonl"), 12);
        temporary_remove(out);
    }
    signal(SIGHUP, SIG_IGN);
    char *args[] = {LONG(&b, out), "-q", NULL};
    int status;
    pid_t child = start(r, RLIM_INFINITY, false, args);
    signal(SIGHUP, SIG_DFL);
    wait_for_lines(r, child, "out/metrics.jsonl", 1);
    kill(child, SIGHUP);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(there(r, "out/model/easyfirst.json"));
    bench_end(&b);
}

/* The first signal asks; the second one, whichever it is, ends the process at once. */
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
 * Nothing is lost on the way, and nothing is left over. */
static void test_random_kills(void **state) {
    (void)state;
    enum { KILLS = 14 };
    Bench b;
    char whole[300], killed[300];
    TestRandom random = {77};
    bench_start(&b);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(killed, sizeof killed, r, "killed");
    run(r, ADAPT(&b, whole), "--save-every", "1");
    expect(r, 0, "");
    int died = 0, most = 0;
    for (int i = 0; i < KILLS; i++) {
        char *first[] = {ADAPT(&b, killed), "--save-every", "1", NULL};
        char *again[] = {AGAIN(killed), NULL};
        int status, lines = (int)(test_random_next(&random) % 4);
        pid_t child =
            start(r, RLIM_INFINITY, false, there(r, "killed/settings.json") ? again : first);
        for (int tries = 0; tries < 4000 && waitpid(child, &status, WNOHANG) != child; tries++) {
            if (lines_in(r, "killed/metrics.jsonl") > lines && count_entries(killed, "partial-") &&
                test_random_next(&random) % 3)
                break;
            usleep((useconds_t)(test_random_next(&random) % 3000));
        }
        if (kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child)
            died += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        int steps = 0;
        for (int step = 1; step <= 12; step++) {
            char name[64];
            snprintf(name, sizeof name, "killed/checkpoint-%08d", step);
            if (there(r, name)) steps = step;
        }
        if (steps < most) fail_msg("checkpoint %d was there, %d is the last now", most, steps);
        most = steps;
    }
    print_message("note: %d of %d were killed\n", died, KILLS);
    assert_true(died >= KILLS / 2);
    run(r, AGAIN(killed));
    expect(r, 0, "");
    assert_same_run(r, "whole", "killed", 12);
    assert_int_equal(count_entries(killed, ""), count_entries(whole, ""));
    assert_int_equal(count_entries(killed, "checkpoint-"), 2);
    bench_end(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_model_is_input),
        cmocka_unit_test(test_changed_model), cmocka_unit_test(test_nothing_begun),
        cmocka_unit_test(test_same_data),     cmocka_unit_test(test_publish),
        cmocka_unit_test(test_leftovers),     cmocka_unit_test(test_damaged_checkpoint),
        cmocka_unit_test(test_space),         cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_no_progress),   cmocka_unit_test(test_streak),
        cmocka_unit_test(test_signals),       cmocka_unit_test(test_lost_terminal),
        cmocka_unit_test(test_second_signal), cmocka_unit_test(test_random_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
