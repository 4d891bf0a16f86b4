/* `easyfirst train` as a user runs it: every stage, broken data, interrupted runs. */
#include "apps/reproduce/number_words.h"
#include "data/checkpoints/checkpoint.h"
#include "language/tokenizer.h"
#include "tests/train_setup.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

static double last_valid_loss(const Run *r, const char *name) {
    double losses[2000], found = NAN;
    read_losses(r, name, "valid_loss", losses, 2000);
    for (int i = 0; i < 2000; i++)
        if (!isnan(losses[i])) found = losses[i];
    return found;
}

/* The second file has every tensor of the first, with the same bytes. */
static void assert_same_values(const char *a, const char *b) {
    Checkpoint x, y;
    Error err;
    assert_ok(checkpoint_open(&x, a, NULL, &err), &err);
    assert_ok(checkpoint_open(&y, b, NULL, &err), &err);
    for (size_t i = 0; i < y.count; i++) {
        const CheckpointTensor *t = checkpoint_find(&x, y.tensors[i].name);
        if (!t || tensor_bytes(t->value) != tensor_bytes(y.tensors[i].value) ||
            memcmp(t->value.data, y.tensors[i].value.data, tensor_bytes(t->value)))
            fail_msg("%s of %s is not that of %s", y.tensors[i].name, b, a);
    }
    checkpoint_close(&x), checkpoint_close(&y);
}

/* ---- Held-out accuracy. ---- */

/* Answers held-out numbers from 100 on with their own lengths; returns how many of ten
 * are right. */
static int count_right(Run *r, const char *model) {
    Tokenizer *tokenizer;
    Error err;
    int right = 0;
    assert_ok(tokenizer_open(&tokenizer, TOKENIZER, &err), &err);
    for (int i = 0; i < 10; i++) {
        char en[NUMBER_WORDS_SIZE], de[NUMBER_WORDS_SIZE], length[16], want[NUMBER_WORDS_SIZE + 2];
        int n = 143 + 84 * i;
        Ids ids = {0};
        number_english(en, n), number_german(de, n);
        assert_ok(tokenizer_encode(tokenizer, de, strlen(de), &ids, &err), &err);
        snprintf(length, sizeof length, "%zu", ids.count), snprintf(want, sizeof want, "%s\n", de);
        ids_free(&ids);
        run(r, "text", "-m", (char *)model, "--length", length, "-q", en);
        expect(r, 0, NULL);
        right += !strcmp(r->out, want);
    }
    tokenizer_close(tokenizer);
    return right;
}

/* Numbers below 1000 from English to German, every seventh held out: 1600 steps from random
 * weights. */
static void test_held_out(void **state) {
    (void)state;
    Run r;
    char model[300], pairs[300], valid[300], out[300], trained[340];
    run_start(&r);
    path_in(model, sizeof model, &r, "model"), path_in(out, sizeof out, &r, "out");
    path_in(pairs, sizeof pairs, &r, "pairs.jsonl"),
        path_in(valid, sizeof valid, &r, "valid.jsonl");
    write_pairs(pairs, 0, 1000, 7, true), write_pairs(valid, 3, 1000, 7, false);
    run_ok(&r, "new", model, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "64", "--heads",
           "8", "--ffn", "128", "--positions", "66");
    run_ok(&r, "train", "adapt", "-m", model, "--data", pairs, "--valid", valid, "--out", out,
           "--steps", "1600", "--batch-sequences", "12", "--lr", "5e-3", "--schedule", "cosine",
           "--warmup-steps", "120", "--dropout", "0", "--valid-every", "0", "--save-every", "0",
           "--threads", "1");
    double loss = last_valid_loss(&r, "out/metrics.jsonl");
    snprintf(trained, sizeof trained, "%s/model", out);
    int right = count_right(&r, trained);
    print_message(
        "note: numbers from English to German: held-out loss %.3f after 1600 steps, %d of 10 "
        "held-out ones right\n",
        loss, right);
    /* Random weights: 49. */
    if (!(loss < 2.0)) fail_msg("held-out loss %g after 1600 steps, expected less than 2", loss);
    assert_true(right >= 8);
    run_end(&r);
}

/* ---- Interrupted runs. ---- */

static void test_stop_and_resume(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.whole));
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "5");
    assert_false(has_file(r, "out/model"));
    /* An existing run is not started again by mistake. */
    run(r, ADAPT(&t, t.out));
    assert_message(r, 1, "checkpoint-00000005", "--resume");
    run_ok(r, "train", "--resume", "--out", t.out, "--stop-after", "3");
    run_ok(r, "train", "--resume", "--out", t.out);
    assert_same_run(r, "whole", "out", 12);
    /* The last two checkpoints are kept. */
    assert_true(has_file(r, "whole/checkpoint-00000012"));
    assert_true(has_file(r, "whole/checkpoint-00000008"));
    assert_false(has_file(r, "whole/checkpoint-00000004"));
    assert_true(has_file(r, "whole/loss.svg"));
    train_setup_end(&t);
}

/* Muon's momentum is saved in place of AdamW's first moment; and its updates are not AdamW's. */
static void test_muon_resumed(void **state) {
    (void)state;
    TrainSetup t;
    char other[300];
    double muon[20], adamw[20];
    train_setup(&t);
    Run *r = &t.run;
    path_in(other, sizeof other, r, "other");
    run_ok(r, ADAPT(&t, t.whole), "--optimizer", "muon");
    run_ok(r, ADAPT(&t, t.out), "--optimizer", "muon", "--stop-after", "7");
    run(r, "train", "--resume", "--out", t.out, "--optimizer", "adamw");
    assert_message(r, 2, "--optimizer", "muon");
    run_ok(r, "train", "--resume", "--out", t.out);
    assert_same_run(r, "whole", "out", 12);
    run_ok(r, ADAPT(&t, other));
    read_losses(r, "whole/metrics.jsonl", "loss", muon, 20);
    read_losses(r, "other/metrics.jsonl", "loss", adamw, 20);
    assert_true(muon[1] == adamw[1]); /* before the first update */
    assert_true(muon[12] != adamw[12]);
    train_setup_end(&t);
}

/* Stopped between logged points, then resumed for so long that the checkpoint it was resumed
 * from is removed: with images, and with LoRA, whose checkpoints share most files with the initial
 * model. */
static void test_resume_long_run(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
#define LONG_RUN(out, ...)                                                                         \
    "train", "tune", "-m", t.model, "--data", t.set.conversations, "--images", t.set.images,       \
        "--out", (out), "--steps", "14", "--batch-sequences", "6", "--lr", "2e-3",                 \
        "--new-projector", "linear", "--save-every", "2", "--keep", "1", "--log-every", "4", "-q", \
        __VA_ARGS__
    for (int lora = 0; lora < 2; lora++) {
        char *rank = lora ? "2" : "0", names[2][320];
        run_ok(r, LONG_RUN(t.whole, "--lora-rank", rank));
        run_ok(r, LONG_RUN(t.out, "--lora-rank", rank, "--stop-after", "3"));
        run_ok(r, "train", "--resume", "--out", t.out, "--stop-after", "3", "--keep", "1");
        run_ok(r, "train", "--resume", "--out", t.out);
        assert_same_run(r, "whole", "out", 12);
        assert_true(has_file(r, "out/checkpoint-00000014"));
        assert_false(has_file(r, "out/checkpoint-00000012"));
        static const char *const files[] = {"projector.safetensors",
                                            "vision/model.safetensors",
                                            "vision/config.json",
                                            "language/config.json",
                                            "vision/preprocessor_config.json",
                                            "language/sentencepiece.bpe.model"};
        for (int i = 0; i < 6; i++) {
            snprintf(names[0], sizeof names[0], "whole/model/%s", files[i]);
            snprintf(names[1], sizeof names[1], "out/model/%s", files[i]);
            assert_same_file(r, names[0], names[1]);
        }
        temporary_remove(t.whole), temporary_remove(t.out);
    }
    train_setup_end(&t);
}

/* On resume the settings that affect the result cannot change, and a folder is locked by one
 * process at a time. */
static void test_resume_settings(void **state) {
    (void)state;
    TrainSetup t;
    char file[300];
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "2");
    run(r, "train", "--resume", "--out", t.out, "--lr", "1e-2");
    assert_message(r, 2, "--lr", "0.002");
    run(r, "train", "--resume", "--out", t.out, "--steps", "20");
    assert_message(r, 2, "--steps", "12");
    int folder = open(t.out, O_RDONLY | O_DIRECTORY);
    assert_true(folder >= 0 && flock(folder, LOCK_EX | LOCK_NB) == 0);
    run(r, "train", "--resume", "--out", t.out);
    assert_message(r, 1, "another process", t.out);
    close(folder);
    run_ok(r, "train", "--resume", "--out", t.out, "--log-every", "3", "--threads", "1");
    write_text_in(r, "file", "x", file);
    run(r, ADAPT(&t, file));
    assert_message(r, 1, file, "--out");
    train_setup_end(&t);
}

/* kill -9 as soon as metrics.jsonl has so many lines, several times over; then to the end. */
static void test_kill(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.whole));
    static const int points[] = {1, 3, 6, 10};
    int died = 0;
    for (int i = 0; i < 4; i++) {
        char *first[] = {ADAPT(&t, t.out), NULL};
        char *again[] = {"train", "--resume", "--out", t.out, "-q", NULL};
        pid_t child = start_program(r, RLIM_INFINITY, false,
                                    has_file(r, "out/settings.json") ? again : first);
        wait_for_lines(r, child, "out/metrics.jsonl", points[i]);
        int status = end_program(child, SIGKILL);
        died += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    assert_true(died >= 3); /* one may have ended before the signal came */
    run_ok(r, "train", "--resume", "--out", t.out);
    assert_same_run(r, "whole", "out", 12);
    train_setup_end(&t);
}

/* A limit on the size of files fails the call in the middle of writing a checkpoint, as a full disk
 * does, whether or not SIGXFSZ is ignored. */
static void test_write_interrupted(void **state) {
    (void)state;
    TrainSetup t;
    int status;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.whole));
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "5");
    char *again[] = {"train", "--resume", "--out", t.out, "-q", NULL};
    for (int ignore = 0; ignore < 2; ignore++) {
        pid_t child = start_program(r, 60000, ignore, again);
        assert_int_equal(waitpid(child, &status, 0), child);
        char *text = read_text(r, "stderr");
        if (!(WIFEXITED(status) && WEXITSTATUS(status) == 1 && count_lines(text) == 1 &&
              strstr(text, "checkpoint of step 8") && strstr(text, "too large")))
            fail_msg("a full disk: status %d, %s", status, text);
        free(text);
        assert_true(has_file(r, "out/checkpoint-00000005/training/state.json"));
        assert_false(has_file(r, "out/checkpoint-00000008"));
        assert_int_equal(count_entries(t.out, "partial-"), 0);
    }
    run_ok(r, "train", "--resume", "--out", t.out);
    assert_same_run(r, "whole", "out", 12);
    train_setup_end(&t);
}

static void test_resume_refused(void **state) {
    (void)state;
    TrainSetup t;
    char other[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(other, sizeof other, r, "other");
    run_ok(r, ADAPT(&t, t.out), "--stop-after", "2");
    /* Other data than before. */
    write_pairs(t.pairs, 0, 61, 1, false);
    run(r, "train", "--resume", "--out", t.out);
    assert_message(r, 1, "pairs.jsonl", "contents", "data", "checkpoint-00000002");
    write_pairs(t.pairs, 0, 60, 1, false);
    /* The tables of another model. */
    run_ok(r, "new", other, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "16", "--heads",
           "2", "--ffn", "64", "--positions", "130");
    shell("rm -r %s/checkpoint-00000002/language && cp -r %s/language "
          "%s/checkpoint-00000002/language",
          t.out, other, t.out);
    run(r, "train", "--resume", "--out", t.out);
    assert_int_equal(r->status, 1);
    assert_int_equal(count_lines(r->err), 1);
    train_setup_end(&t);
}

/* ---- Images. ---- */

static void check_ask(Run *r, const char *model, const LlavaSet *set) {
    char image[400];
    snprintf(image, sizeof image, "%s/shapes/00001.png", set->images);
    run(r, "ask", "-m", (char *)model, "--length", "2", "-q", image, "What colour is it?");
    expect(r, 0, NULL);
}

/* Both visual stages; the first trains the projector, the second the projector and the language
 * model. */
static void visual_stages(const char *attention) {
    TrainSetup t;
    char align[300], tune[300], model[340];
    train_setup(&t);
    Run *r = &t.run;
    path_in(align, sizeof align, r, "align"), path_in(tune, sizeof tune, r, "tune");
    run_ok(r, "train", "align", "-m", TINY_BASE, "--data", t.set.captions, "--images", t.set.images,
           "--out", align, "--steps", "60", "--batch-sequences", "8", "--lr", "1e-2",
           "--new-projector", "mlp2x_gelu", "--attention", (char *)attention, "--valid",
           t.set.captions, "-q");
    char frozen[2][340];
    snprintf(frozen[0], sizeof frozen[0], "%s/model/language", align);
    snprintf(frozen[1], sizeof frozen[1], "%s/model/vision", align);
    assert_same_values(TINY_BASE "/language", frozen[0]);
    assert_same_values(TINY_BASE "/vision", frozen[1]);
    double losses[100];
    read_losses(r, "align/metrics.jsonl", "valid_loss", losses, 100);
    if (!(losses[60] < 0.9 * losses[0])) /* the projector alone, for a random model */
        fail_msg("align (%s): loss %g at first, %g at last", attention, losses[0], losses[60]);
    snprintf(model, sizeof model, "%s/model", align);
    check_ask(r, model, &t.set);

    run_ok(r, "train", "tune", "-m", model, "--data", t.set.conversations, "--images", t.set.images,
           "--out", tune, "--epochs", "8", "--batch-sequences", "12", "--lr", "1e-3", "--valid",
           t.set.conversations, "--valid-every", "1000", "--log-every", "1", "--dropout", "0");
    if (!strstr(r->err, "wanted")) fail_msg("no answers were shown: %s", r->err);
    assert_same_file(r, "align/model/vision/model.safetensors",
                     "tune/model/vision/model.safetensors");
    int last = read_losses(r, "tune/metrics.jsonl", "valid_loss", losses, 100);
    if (!(losses[last] < 0.7 * losses[0]))
        fail_msg("tune (%s): loss %g at first, %g at last", attention, losses[0], losses[last]);
    snprintf(model, sizeof model, "%s/model", tune);
    check_ask(r, model, &t.set);
    train_setup_end(&t);
}

static void test_visual_full(void **state) {
    (void)state;
    visual_stages("full");
}

static void test_visual_block_causal(void **state) {
    (void)state;
    visual_stages("block-causal");
}

/* Broken records are skipped, counted and named; too many of them stop the run with the list. */
static void test_broken_records(void **state) {
    (void)state;
    TrainSetup t;
    char out[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(out, sizeof out, r, "out");
    run_ok(r, "train", "tune", "-m", t.model, "--data", t.set.broken, "--images", t.set.images,
           "--out", out, "--steps", "6", "--batch-sequences", "16", "--max-bad-fraction", "0.5",
           "--train-vision", "--valid", t.set.broken, "--show-answers", "40");
    static const char *const words[] = {"b1", "b2", "nowhere.png", "b3",
                                        "b4", "b5", "b6",          "gif.jpg"};
    for (int i = 0; i < 8; i++)
        if (!strstr(r->err, words[i])) fail_msg("not named: %s in %s", words[i], r->err);
    assert_true(has_file(r, "out/model/projector.safetensors"));
    json_t *json = read_json(r, "out/checkpoint-00000006/training/state.json");
    assert_true(json_integer_value(json_object_get(json, "bad_samples")) >= 1); /* the GIF */
    json_decref(json);
    path_in(out, sizeof out, r, "out2");
    run(r, "train", "tune", "-m", t.model, "--data", t.set.broken, "--images", t.set.images,
        "--out", out, "--steps", "6", "-q");
    assert_message(r, 1, "nowhere.png", "%");
    train_setup_end(&t);
}

/* Unreadable images found during training stop the run, with a checkpoint of the steps so far. */
static void test_stopped_by_data(void **state) {
    (void)state;
    TrainSetup t;
    char data[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(data, sizeof data, r, "gifs.json");
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    for (int i = 0; i < 40; i++)
        fprintf(
            f,
            "%s{\"id\": %d, \"image\": \"shapes/%s\", \"conversations\": [{\"from\": \"human\", "
            "\"value\": \"What?\"}, {\"from\": \"gpt\", \"value\": \"red\"}]}",
            i ? "," : "[", i, i % 2 ? "gif.jpg" : "00000.png");
    fputs("]", f);
    assert_int_equal(fclose(f), 0);
    run(r, "train", "tune", "-m", t.model, "--data", data, "--images", t.set.images, "--out", t.out,
        "--steps", "9", "--batch-sequences", "4", "--max-bad-fraction", "0.2", "-q");
    assert_message(r, 1, "gif.jpg", "%");
    assert_false(has_file(r, "out/checkpoint-00000009"));
    run_ok(r, "train", "--resume", "--out", t.out, "--max-bad-fraction", "0.9", "-q");
    assert_true(has_file(r, "out/checkpoint-00000009"));
    /* The second process resumed: it kept the checkpoint of the first. */
    int kept = 0;
    for (int step = 2; step < 9; step++) {
        char name[64];
        snprintf(name, sizeof name, "out/checkpoint-%08d", step);
        kept += has_file(r, name);
    }
    assert_int_equal(kept, 1);
    train_setup_end(&t);
}

/* ---- The other stages, and options. ---- */

static void test_other_stages(void **state) {
    (void)state;
    TrainSetup t;
    char out[300], model[340], text[300];
    train_setup(&t);
    Run *r = &t.run;
    path_in(out, sizeof out, r, "length");
    run_ok(r, "train", "length", "-m", t.model, "--data", t.pairs, "--out", out, "--steps", "40",
           "--batch-sequences", "20", "--lr", "1e-2", "--log-every", "1", "-q");
    double losses[100];
    read_losses(r, "length/metrics.jsonl", "loss", losses, 100);
    if (!(losses[40] < 0.8 * losses[1])) fail_msg("length: loss %g to %g", losses[1], losses[40]);
    snprintf(model, sizeof model, "%s/model", out);
    run(r, "text", "-m", model, "-q", "twenty one"); /* the length predictor was trained */
    expect(r, 0, NULL);

    /* An encoder trained with padded answers ends them itself; its folder says so, and the length
     * predictor's examples are padded, too. */
    char padded[300], ended[300];
    path_in(out, sizeof out, r, "padded");
    run_ok(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", out, "--steps", "250",
           "--batch-sequences", "12", "--lr", "5e-3", "--pad-answers", "12", "-q");
    json_t *settings = read_json(r, "padded/model/easyfirst.json");
    assert_int_equal(json_integer_value(json_object_get(settings, "pad_answers")), 12);
    json_decref(settings);
    snprintf(padded, sizeof padded, "%s/model", out), path_in(ended, sizeof ended, r, "ended");
    run_ok(r, "train", "length", "-m", padded, "--data", t.pairs, "--out", ended, "--steps", "30",
           "--batch-sequences", "20", "--lr", "1e-2", "-q");
    snprintf(model, sizeof model, "%s/model", ended);
    run(r, "text", "-m", model, "-q", "--json", "twenty one");
    assert_int_equal(r->status, 0);
    json_t *answer = json_loads(r->out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(answer, "length")), 12);
    const char *shown = json_string_value(json_object_get(answer, "answer"));
    if (!shown || strstr(shown, "</s>")) fail_msg("answer %s", r->out);
    json_decref(answer);
    char whole[300];
    path_in(whole, sizeof whole, r, "whole");
    run_ok(r, "train", "adapt", "-m", padded, "--data", t.pairs, "--out", whole, "--steps", "2",
           "--batch-sequences", "12", "--pad-answers", "0", "-q");
    settings = read_json(r, "whole/model/easyfirst.json");
    assert_null(json_object_get(settings, "pad_answers"));
    json_decref(settings);
    run(r, "train", "pretrain", "-m", t.model, "--data", t.pairs, "--out", out, "--warmup-steps",
        "0", "--pad-answers", "9", "-q");
    assert_message(r, 2, "--pad-answers", "pretrain");

    const char *documents = "The small child is holding an umbrella in the rain.\n\nThe dog looks "
                            "out of the window.\nThe cat sleeps.\n";
    write_text_in(r, "text.txt", documents, text);
    path_in(out, sizeof out, r, "pretrain");
    run_ok(r, "train", "pretrain", "-m", t.model, "--data", text, "--out", out, "--steps", "30",
           "--batch-tokens", "64", "--lr", "5e-3", "--warmup-steps", "2", "--log-every", "1",
           "--complementary", "--activation-checkpointing", "-q");

    path_in(out, sizeof out, r, "lora");
    run_ok(r, "train", "instruct", "-m", t.model, "--data", t.pairs, "--out", out, "--steps", "10",
           "--batch-sequences", "20", "--lr", "1e-2", "--lora-rank", "4", "--lora-alpha", "8",
           "--lora-targets", "query,value,fc1", "--log-every", "1", "--save-every", "5", "-q");
    snprintf(model, sizeof model, "%s/model", out);
    run(r, "text", "-m", model, "--length", "3", "-q", "twenty one");
    expect(r, 0, NULL);
    train_setup_end(&t);
}

static void test_wrong_use(void **state) {
    (void)state;
    TrainSetup t;
    char bad[300];
    train_setup(&t);
    Run *r = &t.run;
    run(r, "train", "adapt", "-m", t.model, "--out", t.out);
    assert_int_equal(r->status, 2);
    run(r, "train", "adept", "-m", t.model, "--data", t.pairs, "--out", t.out);
    assert_message(r, 2, "adept", "adapt");
    run(r, "train", "align", "-m", t.model, "--data", t.pairs, "--out", t.out, "-q");
    assert_message(r, 1, "image");
    run(r, "train", "align", "--language", TINY_BASE "/language", "--data", t.set.captions,
        "--images", t.set.images, "--out", t.out, "-q");
    assert_message(r, 2, "vision");
    run(r, "train", "tune", "-m", t.model, "--data", t.set.captions, "--out", t.out, "-q");
    assert_message(r, 1, "--images");
    const char *broken =
        "[{\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, "
        "{\"from\": \"gpt\", \"value\": \"b\"}]}, {\"id\": 2, oops}]";
    write_text_in(r, "broken.json", broken, bad);
    run(r, "train", "tune", "-m", t.model, "--data", bad, "--out", t.out, "-q");
    assert_message(r, 1, "broken.json", "line 1");
    run(r, "train", "adapt", "-m", t.model, "--data", "nowhere.jsonl", "--out", t.out, "-q");
    assert_message(r, 2, "nowhere.jsonl");
    run(r, "train", "--resume", "--out", "nowhere");
    assert_int_equal(r->status == 1 || r->status == 2, 1);
    train_setup_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_out),          cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_muon_resumed),      cmocka_unit_test(test_resume_long_run),
        cmocka_unit_test(test_resume_settings),   cmocka_unit_test(test_kill),
        cmocka_unit_test(test_write_interrupted), cmocka_unit_test(test_resume_refused),
        cmocka_unit_test(test_visual_full),       cmocka_unit_test(test_visual_block_causal),
        cmocka_unit_test(test_broken_records),    cmocka_unit_test(test_stopped_by_data),
        cmocka_unit_test(test_other_stages),      cmocka_unit_test(test_wrong_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
