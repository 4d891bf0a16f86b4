/* Engines: whatever arrives, and when, each answer is ef_answer's. */
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "kernels/random.h"
#include "tests/projector/easyfirst_test.h"

enum { KINDS = 48, PIXELS = 24 };

/* ---- Requests of all sorts, each with the answer that ef_answer gives for it alone. ---- */

typedef struct Sort {
    ef_request request;
    ef_options options;
    ef_answers *alone;
    char text[200];
} Sort;

typedef struct Sorts {
    ef_model *model;
    ef_image *images[PIXELS];
    Sort sorts[KINDS];
} Sorts;

static uint64_t pick(uint64_t seed, uint64_t i, uint64_t below) {
    return random_stream(seed, i, 3, 5) % below;
}

static void sort_make(Sorts *all, int i) {
    static const char *const strategies[] = {NULL,
                                             "reparam-cond-stochastic0.7-linear",
                                             "cmlm",
                                             "ar",
                                             "reparam-uncond-deterministic-linear",
                                             "llada-block3-lowconf-noend-endlast",
                                             "dream-entropy",
                                             "dream-maskgit_plus-stochastic0.5"};
    Sort *s = &all->sorts[i];
    uint64_t seed = (uint64_t)i + 1;
    static const char words[] = "two dogs and a red house by the sea, what is seen there? ";
    size_t length = 1 + pick(seed, 0, 60);
    for (size_t c = 0; c < length; c++) s->text[c] = words[(c + seed * 7) % (sizeof words - 1)];
    s->text[0] = 'W';
    s->request = (ef_request){.task = EF_COMPLETE, .text = s->text};
    if (ef_model_has_vision(all->model) && pick(seed, 1, 2)) {
        s->request.image = all->images[pick(seed, 2, PIXELS)];
        if (pick(seed, 3, 2)) s->request.task = EF_ASK;
    }
    static const char *const templates[] = {"the ___ is___{2} a ___", "a___{3}, and <mask>"};
    if (pick(seed, 13, 4) == 0) s->request.answer_template = templates[pick(seed, 15, 2)];
    if (s->request.task == EF_COMPLETE && !s->request.image && pick(seed, 14, 3) == 0)
        s->request.task = EF_SUMMARIZE;
    bool predicts = ef_model_has_length_predictor(all->model) || s->request.answer_template;
    if (!predicts || (!s->request.answer_template && pick(seed, 4, 2)))
        s->request.length = 1 + (int)pick(seed, 5, 9);
    s->options = ef_options_default();
    s->options.strategy = strategies[pick(seed, 6, 8)];
    s->options.steps = (int)pick(seed, 7, 3) * 4;
    s->options.beam = (int)pick(seed, 8, 4);
    s->options.samples = (int)pick(seed, 9, 4);
    s->options.temperature = pick(seed, 10, 3) ? 0 : 0.8f;
    s->options.seed = pick(seed, 11, 4);
    s->options.no_canvas_cache = pick(seed, 12, 4) == 0;
    s->options.guidance = pick(seed, 16, 4) ? 0 : 1.5F;
    s->options.long_prompts = EF_LONG_KEEP_LAST;
}

static void sorts_open(Sorts *all, const char *folder) {
    ef_error err;
    *all = (Sorts){.model = open_model(folder)};
    for (int i = 0; i < PIXELS; i++) {
        uint8_t pixels[23 * 31 * 3];
        for (size_t p = 0; p < sizeof pixels; p++)
            pixels[p] = (uint8_t)(p * (size_t)(5 * i + 3) + (size_t)i);
        check_ok(ef_image_from_pixels(pixels, 23, 31, 0, &all->images[i], &err), &err);
    }
    for (int i = 0; i < KINDS; i++) {
        Sort *s = &all->sorts[i];
        sort_make(all, i);
        check_ok(ef_answer(all->model, &s->request, 1, &s->options, &s->alone, &err), &err);
        if (ef_answer_error(s->alone, 0)) fail_msg("%s: %s", folder, ef_answer_error(s->alone, 0));
    }
}

static void sorts_close(Sorts *all) {
    for (int i = 0; i < KINDS; i++) ef_answers_close(all->sorts[i].alone);
    for (int i = 0; i < PIXELS; i++) ef_image_close(all->images[i]);
    ef_model_close(all->model);
}

/* Without AVX-512, oneDNN's matmuls of different numbers of rows are rounded differently. */
static bool exact(void) {
    return __builtin_cpu_supports("avx512f") && !getenv("ONEDNN_MAX_CPU_ISA");
}

static void same_score(double a, double b) {
    assert_true(a == b || (!exact() && fabs(a - b) <= 1e-5 * (1 + fabs(b))));
}

/* All hypotheses, not only the best. */
static void same_answers(const ef_answers *a, const ef_answers *b) {
    assert_int_equal(ef_answers_count(a), 1);
    assert_non_null(ef_answer_text(a, 0));
    assert_int_equal(ef_answer_prompt_tokens(a, 0), ef_answer_prompt_tokens(b, 0));
    assert_int_equal(ef_answer_dropped_tokens(a, 0), ef_answer_dropped_tokens(b, 0));
    assert_int_equal(ef_answer_evaluations(a, 0), ef_answer_evaluations(b, 0));
    if (exact()) assert_int_equal(ef_answer_best(a, 0), ef_answer_best(b, 0));
    assert_int_equal(ef_answer_hypotheses(a, 0), ef_answer_hypotheses(b, 0));
    for (int h = 0; h < ef_answer_hypotheses(a, 0); h++) {
        const ef_hypothesis *x = ef_answer_hypothesis(a, 0, h), *y = ef_answer_hypothesis(b, 0, h);
        assert_string_equal(x->text, y->text);
        assert_int_equal(x->length, y->length);
        assert_int_equal(x->steps, y->steps);
        same_score(x->score, y->score);
        for (int i = 0; i < x->length; i++) {
            assert_int_equal(x->tokens[i].id, y->tokens[i].id);
            same_score((double)x->tokens[i].score, (double)y->tokens[i].score);
        }
    }
}

static ef_engine *engine_open(ef_model *model, const ef_engine_options *options) {
    ef_error err;
    ef_engine *engine;
    check_ok(ef_engine_open(model, options, &engine, &err), &err);
    return engine;
}

static ef_engine_counts counts_of(ef_engine *engine) {
    ef_engine_counts counts;
    ef_engine_statistics(engine, &counts, sizeof counts);
    return counts;
}

/* Notes the order in which jobs end; the first one waits, so that all others are in the queue. */
typedef struct Order {
    pthread_mutex_t gate;
    char owners[64];
    int count;
} Order;

typedef struct Entry {
    Order *order;
    char owner;
} Entry;

static void entry_done(void *user, ef_job *job) {
    Entry *e = user;
    assert_true(ef_job_ended(job));
    e->order->owners[e->order->count++] = e->owner;
    ef_job_close(job);
}

static void hold_step(void *user, const ef_step *step) {
    Order *order = user;
    if (step->step > 1) return;
    pthread_mutex_lock(&order->gate);
    pthread_mutex_unlock(&order->gate);
}

/* The different images that the requests are about. */
static int all_images(const Sorts *all) {
    int count = 0;
    for (int i = 0; i < PIXELS; i++) {
        bool used = false;
        for (int k = 0; k < KINDS; k++) used |= all->sorts[k].request.image == all->images[i];
        count += used;
    }
    return count;
}

/* ---- Tests. ---- */

/* Arrivals at random moments, some cancelled at random moments: an answer is the one of the request
 * alone, or the job was cancelled. */
static void arrivals(const char *folder, const ef_engine_options *options, bool pauses,
                     uint64_t seed) {
    enum { JOBS = 60 };
    Sorts all;
    ef_job *jobs[JOBS];
    ef_error err;
    int cancelled = 0;
    sorts_open(&all, folder);
    assert_true(all_images(&all) > 10); /* more than an engine keeps at the least */
    ef_engine *engine = engine_open(all.model, options);
    for (int i = 0; i < JOBS; i++) {
        const Sort *s = &all.sorts[pick(seed, (uint64_t)i, KINDS)];
        const char *const owners[] = {NULL, "a", "b"};
        check_ok(ef_engine_submit(engine, &s->request, &s->options, owners[i % 3], NULL, NULL,
                                  &jobs[i], &err),
                 &err);
        if (pauses && pick(seed + 1, (uint64_t)i, 3) == 0)
            usleep((useconds_t)pick(seed + 2, (uint64_t)i, 3000));
        if (i > 4 && pick(seed + 3, (uint64_t)i, 8) == 0) ef_job_cancel(jobs[i - 4]);
    }
    for (int i = 0; i < JOBS; i++) {
        ef_answers *a;
        if (ef_job_wait(jobs[i], -1, &a, &err) == 0)
            same_answers(a, all.sorts[pick(seed, (uint64_t)i, KINDS)].alone);
        else if (err.code == EF_CANCELLED)
            cancelled++;
        else
            fail_msg("%s: job %d: %s", folder, i, err.text);
        ef_answers_close(a);
        ef_job_close(jobs[i]);
    }
    const ef_engine_counts counts = counts_of(engine);
    assert_int_equal(counts.submitted, JOBS);
    assert_int_equal(counts.cancelled, cancelled);
    assert_int_equal(counts.done, JOBS - cancelled);
    assert_int_equal(counts.queued + counts.active + counts.failed + counts.refused, 0);
    ef_engine_close(engine);
    sorts_close(&all);
}

static void test_arrivals(void **state) {
    (void)state;
    for (int i = 0; i < FOLDERS; i++) arrivals(folders[i], NULL, true, (uint64_t)(10 * i));
}

/* The same where hardly anything fits at once: prompts wait for rows and hypotheses, images make way
 * for others, and a step's canvases are several batches. */
static void test_tight(void **state) {
    (void)state;
    ef_engine_options options = ef_engine_options_default();
    options.batch_tokens = 40, options.prefill_tokens = 10, options.active = 5;
    options.prefix_tokens = 1, options.image_cache = 1;
    for (int i = 0; i < FOLDERS; i++) arrivals(folders[i], &options, true, (uint64_t)(10 * i + 5));
    options.active = options.prefill_tokens = 1000; /* all images are in use: others wait */
    arrivals(MODELS "tiny-base", &options, false, 77);
    arrivals(MODELS "tiny-xl", &options, false, 77);
}

/* Many requests, some cancelled, leave nothing behind. */
/* An autoregressive model's written tokens are kept between steps: as ef_answer does it, with a few
 * rows, where some jobs find no space for theirs, too. */
static void test_causal(void **state) {
    (void)state;
    enum { JOBS = 24 };
    static const char *const kinds[] = {"tests/golden/causal/llama", "tests/golden/causal/qwen2"};
    static const int room[] = {0, 1};
    for (int k = 0; k < 4; k++) {
        ef_engine_options options = ef_engine_options_default();
        options.prefix_tokens = room[k / 2];
        ef_model *model = open_model(kinds[k % 2]);
        ef_engine *engine = engine_open(model, &options);
        ef_job *jobs[JOBS];
        ef_request requests[JOBS];
        ef_options own[JOBS];
        char texts[JOBS][64];
        ef_error err;
        int64_t tokens = 0, whole = 0;
        for (int i = 0; i < JOBS; i++) {
            snprintf(texts[i], sizeof texts[i], "The %d dogs are so %d", i * i, i);
            requests[i] = (ef_request){
                .task = EF_COMPLETE, .text = texts[i], .length = 1 + (int)pick(9, (uint64_t)i, 9)};
            own[i] = ef_options_default();
            own[i].temperature = i % 3 ? 0 : 0.9f;
            own[i].samples = 1 + i % 2;
            own[i].seed = (uint64_t)i / 6;
            check_ok(
                ef_engine_submit(engine, &requests[i], &own[i], NULL, NULL, NULL, &jobs[i], &err),
                &err);
        }
        for (int i = 0; i < JOBS; i++) {
            ef_answers *a, *b;
            check_ok(ef_job_wait(jobs[i], -1, &a, &err), &err);
            check_ok(ef_answer(model, &requests[i], 1, &own[i], &b, &err), &err);
            same_answers(a, b);
            const int64_t prompt = ef_answer_prompt_tokens(a, 0);
            for (int h = 0; h < ef_answer_hypotheses(a, 0); h++) {
                const int n = ef_answer_hypothesis(a, 0, h)->length;
                tokens += 1 + prompt + n;
                whole += (int64_t)n * (prompt + n);
            }
            ef_answers_close(a), ef_answers_close(b);
            ef_job_close(jobs[i]);
        }
        const ef_engine_counts counts = counts_of(engine);
        assert_int_equal(counts.done, JOBS);
        assert_true(whole > 2 * tokens);
        if (!room[k / 2]) assert_true(counts.rows <= tokens); /* each token once */
        ef_engine_close(engine);
        ef_model_close(model);
    }
}

static void test_memory(void **state) {
    (void)state;
    enum { ROUNDS = 40, JOBS = 50 };
    Sorts all;
    ef_error err;
    ef_job *jobs[JOBS];
    size_t before = 0;
    sorts_open(&all, MODELS "tiny-xl");
    ef_engine *engine = engine_open(all.model, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < JOBS; i++) {
            const Sort *s = &all.sorts[(i + round) % KINDS];
            check_ok(ef_engine_submit(engine, &s->request, &s->options, NULL, NULL, NULL, &jobs[i],
                                      &err),
                     &err);
            if (pick(7, (uint64_t)(round * JOBS + i), 9) == 0) ef_job_cancel(jobs[i]);
        }
        for (int i = 0; i < JOBS; i++) {
            ef_job_wait(jobs[i], -1, NULL, &err);
            ef_job_close(jobs[i]);
        }
        while (counts_of(engine).active) usleep(100);
        const struct mallinfo2 now = mallinfo2();
        if (round == ROUNDS / 4) before = now.uordblks + now.hblkhd;
        if (round > ROUNDS / 4) /* oneDNN compiles for a new number of rows now and then */
            assert_in_range(now.uordblks + now.hblkhd, 0, before + (2 << 20));
    }
    const ef_engine_counts counts = counts_of(engine);
    assert_int_equal(counts.done + counts.cancelled, ROUNDS * JOBS);
    assert_true(counts.cancelled > 0 && counts.image_hits > counts.images);
    assert_int_equal(counts.images, all_images(&all));
    assert_true(counts.image_bytes > 0 && counts.image_bytes <= counts.image_bytes_most);
    ef_engine_close(engine);
    sorts_close(&all);
}

/* Requests that come while another one is being answered join it: in one step of the engine all are
 * evaluated by one batch. */
static void test_shared(void **state) {
    (void)state;
    enum { JOBS = 20 };
    ef_error err;
    ef_job *jobs[JOBS];
    ef_model *model = open_model(BUNDLED);
    ef_engine *engine = engine_open(model, NULL);
    Order order = {.gate = PTHREAD_MUTEX_INITIALIZER};
    const ef_request request = {.task = EF_COMPLETE, .text = "A dog", .length = 6};
    ef_options held = ef_options_default();
    held.on_step = hold_step, held.user = &order;
    held.strategy = "ar"; /* a step for each token, for all alike */
    pthread_mutex_lock(&order.gate);
    check_ok(ef_engine_submit(engine, &request, &held, NULL, NULL, NULL, &jobs[0], &err), &err);
    while (counts_of(engine).active == 0) usleep(1000);
    held.on_step = NULL;
    for (int i = 1; i < JOBS; i++)
        check_ok(ef_engine_submit(engine, &request, &held, NULL, NULL, NULL, &jobs[i], &err), &err);
    pthread_mutex_unlock(&order.gate);
    for (int i = 0; i < JOBS; i++) {
        check_ok(ef_job_wait(jobs[i], -1, NULL, &err), &err);
        ef_job_close(jobs[i]);
    }
    while (counts_of(engine).active) usleep(100);
    const ef_engine_counts counts = counts_of(engine);
    assert_int_equal(counts.canvases, 6 * JOBS);
    assert_int_equal(counts.batches, 7); /* the first one's first step alone */
    assert_int_equal(counts.steps, 7);
    ef_engine_close(engine);
    ef_model_close(model);
}

/* One owner's many requests do not keep another's from being answered: they take turns. With a full
 * queue, requests are refused; cancelling one makes room. */
static void test_turns(void **state) {
    (void)state;
    ef_error err;
    Order order = {.gate = PTHREAD_MUTEX_INITIALIZER};
    Entry entries[12];
    ef_job *job, *first, *last = NULL;
    ef_model *model = open_model(BUNDLED);
    ef_engine_options options = ef_engine_options_default();
    options.queue = 11, options.queue_per_owner = 8, options.active = 1;
    ef_engine *engine = engine_open(model, &options);
    const ef_request request = {.task = EF_COMPLETE, .text = "A dog", .length = 2};
    ef_options held = ef_options_default();
    held.on_step = hold_step, held.user = &order;
    pthread_mutex_lock(&order.gate);
    check_ok(ef_engine_submit(engine, &request, &held, "a", NULL, NULL, &first, &err), &err);
    while (counts_of(engine).active == 0) usleep(1000);
    static const char owners[] = "aaaaaaaabbc"; /* how they come */
    for (int i = 0; owners[i]; i++) {
        entries[i] = (Entry){&order, owners[i]};
        const char name[] = {owners[i], 0};
        if (i == 8) { /* an owner's own limit, which comes first */
            check_failed(ef_engine_submit(engine, &request, NULL, "a", NULL, NULL, &job, &err),
                         &err, job, "of this owner");
            assert_int_equal(err.code, EF_FULL);
        }
        check_ok(
            ef_engine_submit(engine, &request, NULL, name, entry_done, &entries[i], &last, &err),
            &err);
    }
    check_failed(ef_engine_submit(engine, &request, NULL, "d", NULL, NULL, &job, &err), &err, job,
                 "11 requests are waiting");
    assert_int_equal(err.code, EF_FULL);
    assert_int_equal(counts_of(engine).queued, 11);
    assert_int_equal(counts_of(engine).refused, 2);
    assert_int_equal(ef_job_wait(first, 0.01, NULL, &err), -1);
    assert_int_equal(err.code, EF_TIMEOUT);
    pthread_mutex_unlock(&order.gate);
    check_ok(ef_job_wait(first, -1, NULL, &err), &err);
    ef_job_close(first);
    while (counts_of(engine).done < 12) usleep(1000);
    ef_engine_close(engine);
    assert_int_equal(order.count, 11);
    assert_string_equal(order.owners, "abcabaaaaaa");
    ef_model_close(model);
}

/* Closed while one job is at work and others wait: that one is answered, the others are refused. */
static void test_close(void **state) {
    (void)state;
    ef_error err;
    Order order = {.gate = PTHREAD_MUTEX_INITIALIZER};
    ef_job *jobs[4], *late;
    ef_answers *a;
    ef_model *model = open_model(BUNDLED);
    ef_engine_options options = ef_engine_options_default();
    options.active = 1;
    ef_engine *engine = engine_open(model, &options);
    const ef_request request = {.task = EF_COMPLETE, .text = "A dog", .length = 2};
    ef_options held = ef_options_default();
    held.on_step = hold_step, held.user = &order;
    pthread_mutex_lock(&order.gate);
    check_ok(ef_engine_submit(engine, &request, &held, NULL, NULL, NULL, &jobs[0], &err), &err);
    while (counts_of(engine).active == 0) usleep(1000);
    for (int i = 1; i < 4; i++)
        check_ok(ef_engine_submit(engine, &request, NULL, NULL, NULL, NULL, &jobs[i], &err), &err);
    ef_engine_drain(engine);
    check_failed(ef_engine_submit(engine, &request, NULL, NULL, NULL, NULL, &late, &err), &err,
                 late, "closing");
    assert_int_equal(err.code, EF_CLOSED);
    pthread_mutex_unlock(&order.gate);
    ef_engine_close(engine);
    check_ok(ef_job_wait(jobs[0], 0, &a, &err), &err);
    assert_non_null(ef_answer_text(a, 0));
    ef_answers_close(a);
    check_failed(ef_job_wait(jobs[0], 0, &a, &err), &err, a, "handed over before");
    for (int i = 1; i < 4; i++) {
        check_failed(ef_job_wait(jobs[i], 0, &a, &err), &err, a, "closing");
        assert_int_equal(err.code, EF_CLOSED);
    }
    for (int i = 0; i < 4; i++) ef_job_close(jobs[i]);
    ef_model_close(model);
}

/* What cannot be answered is refused by ef_engine_submit, with ef_check's codes. */
static void test_refused(void **state) {
    (void)state;
    ef_error err;
    ef_job *job;
    ef_engine *none;
    ef_model *model = open_model(BUNDLED);
    ef_engine *engine = engine_open(model, NULL);
    ef_engine_options bad = ef_engine_options_default();
    ef_options own = ef_options_default();
    bad.queue = -1;
    check_failed(ef_engine_open(model, &bad, &none, &err), &err, none, "queue is -1");
    check_failed(ef_engine_open(NULL, NULL, &none, &err), &err, none, "no model");
    ef_request request = {.task = EF_ASK, .text = "What?"};
    check_failed(ef_engine_submit(engine, &request, NULL, NULL, NULL, NULL, &job, &err), &err, job,
                 "no image");
    char text[4001];
    for (size_t i = 0; i < 4000; i++) text[i] = i % 4 == 3 ? ' ' : (char)('a' + i % 25);
    text[4000] = 0;
    request = (ef_request){.task = EF_COMPLETE, .text = text, .length = 2};
    check_failed(ef_engine_submit(engine, &request, NULL, NULL, NULL, NULL, &job, &err), &err, job,
                 "tokens");
    assert_int_equal(err.code, EF_TOO_LONG);
    request.text = "What?", own.batch_tokens = 7;
    check_failed(ef_engine_submit(engine, &request, &own, NULL, NULL, NULL, &job, &err), &err, job,
                 "an engine's");
    own.batch_tokens = 0, own.prefix_cache = 3;
    check_failed(ef_engine_submit(engine, &request, &own, NULL, NULL, NULL, &job, &err), &err, job,
                 "prefix_cache");
    own.prefix_cache = 0, own.strategy = "none";
    check_failed(ef_engine_submit(engine, &request, &own, NULL, NULL, NULL, &job, &err), &err, job,
                 "strategy");
    assert_int_equal(ef_job_ended(NULL), 1);
    ef_job_cancel(NULL);
    ef_job_close(NULL);
    ef_engine_close(NULL);
    ef_engine_close(engine);
    ef_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrivals), cmocka_unit_test(test_tight),
        cmocka_unit_test(test_causal),   cmocka_unit_test(test_memory),
        cmocka_unit_test(test_shared),   cmocka_unit_test(test_turns),
        cmocka_unit_test(test_close),    cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
