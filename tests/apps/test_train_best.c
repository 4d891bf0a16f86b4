/* The best model of a run: it is the best by the log, it survives --keep, a resumed run has the same
 * one, and --patience ends a run. */
#include <math.h>
#include <unistd.h>

#include "apps/train/best.h"
#include "tests/train_setup.h"

#define BEST(t, out)                                                                              \
    "train", "adapt", "-m", (t)->model, "--data", (t)->pairs, "--out", (out), "--steps", "12",    \
        "--batch-sequences", "6", "--lr", "5e-3", "--warmup-steps", "3", "--log-every", "1",      \
        "--valid", (t)->valid, "--valid-every", "2", "--best-by", "chrf", "--valid-answers", "7", \
        "-q"

enum { STEPS = 13 };

/* The first of the highest scores in the log. */
static int best_in_log(const Run *r, const char *metrics, double scores[STEPS]) {
    int best = 0, last = read_losses(r, metrics, "valid_score", scores, STEPS);
    assert_int_equal(last, 12);
    for (int step = 0; step < STEPS; step++) {
        assert_true(isnan(scores[step]) == (step % 2 != 0));
        if (scores[step] > scores[best]) best = step;
    }
    return best;
}

static void test_best(void **state) {
    (void)state;
    TrainSetup t;
    double scores[STEPS];
    char weights[200];
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, BEST(&t, t.whole), "--save-every", "2", "--keep", "20");
    int best = best_in_log(r, "whole/metrics.jsonl", scores);
    json_t *json = read_json(r, "whole/best/best.json");
    assert_int_equal(json_integer_value(json_object_get(json, "step")), best);
    assert_true(fabs(json_number_value(json_object_get(json, "score")) - scores[best]) < 1e-6);
    assert_string_equal(json_string_value(json_object_get(json, "by")), "chrf");
    json_decref(json);
    /* These are the weights of that step, and what opens is a model. */
    if (best > 0) {
        snprintf(weights, sizeof weights, "whole/checkpoint-%08d/language/model.safetensors", best);
        assert_same_file(r, weights, "whole/best/language/model.safetensors");
    }
    char folder[400];
    snprintf(folder, sizeof folder, "%s/best", t.whole);
    run(r, "info", "-m", folder, "--json");
    expect(r, 0, NULL);
    char *curve = read_text(r, "whole/loss.svg");
    assert_non_null(strstr(curve, "chrf of answers (right axis), best"));
    assert_non_null(strstr(curve, "class=\"score\""));
    free(curve);
    train_setup_end(&t);
}

/* Interrupted at several places, with one checkpoint kept: the same metrics, the same best. */
static void test_resumed(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, BEST(&t, t.whole), "--save-every", "3", "--keep", "1");
    run_ok(r, BEST(&t, t.out), "--save-every", "3", "--keep", "1", "--stop-after", "3");
    for (int i = 0; i < 2; i++)
        run_ok(r, "train", "--resume", "--out", t.out, "--stop-after", "4", "-q");
    run_ok(r, "train", "--resume", "--out", t.out, "-q");
    assert_same_run(r, "whole", "out", 12);
    assert_same_file(r, "whole/best/language/model.safetensors",
                     "out/best/language/model.safetensors");
    json_t *a = read_json(r, "whole/best/best.json"), *b = read_json(r, "out/best/best.json");
    assert_true(json_equal(json_object_get(a, "step"), json_object_get(b, "step")));
    assert_true(json_equal(json_object_get(a, "score"), json_object_get(b, "score")));
    json_decref(a), json_decref(b);
    double one[STEPS], two[STEPS];
    read_losses(r, "whole/metrics.jsonl", "valid_score", one, STEPS);
    read_losses(r, "out/metrics.jsonl", "valid_score", two, STEPS);
    for (int step = 0; step < STEPS; step += 2) assert_true(one[step] == two[step]);
    assert_int_equal(count_entries(t.out, "checkpoint-"), 1);
    run(r, "train", "--resume", "--out", t.out, "--valid-every", "3", "-q");
    assert_message(r, 2, "--valid-every", "keeps it");
    train_setup_end(&t);
}

/* The answers have no numbers: the score is 0 at the start, and never better. */
static void test_patience(void **state) {
    (void)state;
    TrainSetup t;
    double scores[STEPS];
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, BEST(&t, t.out), "--best-by", "number", "--patience", "3");
    assert_int_equal(read_losses(r, "out/metrics.jsonl", "valid_score", scores, STEPS), 6);
    assert_int_equal(read_losses(r, "out/metrics.jsonl", "loss", scores, STEPS), 6);
    assert_true(has_file(r, "out/model/easyfirst.json"));
    assert_true(has_file(r, "out/checkpoint-00000006/training/state.json"));
    json_t *json = read_json(r, "out/best/best.json");
    assert_int_equal(json_integer_value(json_object_get(json, "step")), 0);
    json_decref(json);
    /* It is at its end: resuming it changes nothing. */
    char *before = read_text(r, "out/metrics.jsonl");
    run_ok(r, "train", "--resume", "--out", t.out, "-q");
    char *after = read_text(r, "out/metrics.jsonl");
    assert_string_equal(before, after);
    free(before), free(after);
    /* Stopped between, it counts on from its checkpoint. */
    run_ok(r, BEST(&t, t.whole), "--best-by", "number", "--patience", "3", "--stop-after", "5");
    run_ok(r, "train", "--resume", "--out", t.whole, "-q");
    assert_int_equal(read_losses(r, "whole/metrics.jsonl", "valid_score", scores, STEPS), 6);
    train_setup_end(&t);
}

/* By the loss, no answers are decoded; the lowest is the best. */
static void test_loss(void **state) {
    (void)state;
    TrainSetup t;
    double losses[STEPS];
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, ADAPT(&t, t.out), "--best-by", "loss");
    int last = read_losses(r, "out/metrics.jsonl", "valid_loss", losses, STEPS), best = 0;
    for (int step = 0; step <= last; step++)
        if (losses[step] < losses[best]) best = step;
    json_t *json = read_json(r, "out/best/best.json");
    assert_int_equal(json_integer_value(json_object_get(json, "step")), best);
    json_decref(json);
    read_losses(r, "out/metrics.jsonl", "valid_score", losses, STEPS);
    for (int step = 0; step < STEPS; step++) assert_true(isnan(losses[step]));
    train_setup_end(&t);
}

static void test_refused(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", t.out, "--best-by", "f1");
    assert_message(r, 2, "--best-by", "--valid");
    run(r, ADAPT(&t, t.out), "--patience", "2");
    assert_message(r, 2, "--patience", "--best-by");
    run(r, ADAPT(&t, t.out), "--best-by", "loss", "--valid-answers", "5");
    assert_message(r, 2, "--valid-answers", "decodes no answers");
    run(r, "train", "length", "-m", t.model, "--data", t.pairs, "--valid", t.valid, "--out", t.out,
        "--best-by", "bleu");
    assert_message(r, 2, "--best-by bleu", "length");
    /* A folder of somebody else's is not replaced. */
    shell("mkdir -p %s/best && echo mine > %s/best/notes", t.out, t.out);
    run(r, BEST(&t, t.out));
    assert_message(r, 1, "out/best", "run.json");
    shell("rm -r %s/best", t.out);
    run_ok(r, BEST(&t, t.out), "--stop-after", "1");
    shell("rm %s/best/best.json", t.out);
    run(r, "train", "--resume", "--out", t.out, "-q");
    assert_message(r, 1, "out/best", "move it away");
    train_setup_end(&t);
}

/* Scores of known answers. */
static void test_scores(void **state) {
    (void)state;
    Error err;
    char *answers[] = {"Yes.", "no", "a red cat 12", "(B)"};
    char *targets[] = {"yes", "yes", "the red dog 12", "B"};
    const TrainAnswers all = {answers, targets, 4}, none = {answers, targets, 0};
    double score;
    assert_ok(train_best_score(BEST_EXACT, &all, &score, &err), &err);
    assert_true(score == 50); /* without punctuation "(B)" is "b" */
    assert_ok(train_best_score(BEST_NUMBER, &all, &score, &err), &err);
    assert_true(score == 25);
    assert_ok(
        train_best_score(BEST_CHOICE, &(TrainAnswers){answers + 3, targets + 3, 1}, &score, &err),
        &err);
    assert_true(score == 100);
    assert_ok(train_best_score(BEST_BLEU, &(TrainAnswers){targets, targets, 4}, &score, &err),
              &err);
    assert_true(fabs(score - 100) < 1e-9);
    assert_ok(
        train_best_score(BEST_ROUGE, &(TrainAnswers){answers + 2, targets + 2, 1}, &score, &err),
        &err);
    assert_true(fabs(score - 50) < 1e-9);
    assert_ok(train_best_score(BEST_F1, &none, &score, &err), &err);
    assert_true(isnan(score));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best),     cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_patience), cmocka_unit_test(test_loss),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
