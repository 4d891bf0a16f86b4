/* The approximate prefix cache: which steps recompute it, what the cached keys and values are, and
 * that neither the canvas cache nor the rest of a batch changes an answer; on synthetic networks and
 * the tiny models in f32. */
#include <math.h>

#include "kernels/random.h"
#include "projector/answers.h"
#include "tests/decode_cases.h"
#include "tests/golden_models.h"

/* ---- The steps that recompute it. ---- */

enum { MOST = 8, LONGEST = 12 };

/* A network whose proposals depend on the canvas and on the one that the hypothesis's prefix was
 * computed with. */
typedef struct Stale {
    int32_t mask;
    int vocabulary;
    uint64_t prefix[MOST]; /* of each hypothesis, 0: none yet */
    int whole, after;      /* canvases so far */
} Stale;

static uint64_t canvas_number(const DecodeCanvas *c) {
    uint64_t number = (uint64_t)c->request + 1;
    for (int i = 0; i < c->length; i++)
        number = number * 0x9E3779B97F4A7C15u + (uint64_t)c->tokens[i];
    return number | 1;
}

static int stale_evaluate(void *user, const DecodeCanvas *canvases, int count, float temperature,
                          uint64_t seed, Proposal *out, Error *err) {
    Stale *s = user;
    (void)temperature, (void)seed, (void)err;
    for (int c = 0; c < count; c++) {
        const DecodeCanvas *canvas = &canvases[c];
        uint64_t number = canvas_number(canvas);
        if (!canvas->after_kept) s->prefix[canvas->hypothesis] = number;
        assert_true(s->prefix[canvas->hypothesis] != 0);
        s->whole += !canvas->after_kept, s->after += canvas->after_kept;
        for (int i = 0; i < canvas->length; i++) {
            double u = random_uniform(number, s->prefix[canvas->hypothesis], (uint64_t)i);
            int32_t token = (int32_t)(u * (s->vocabulary - 1));
            *out++ = (Proposal){token >= s->mask ? token + 1 : token,
                                (float)-random_uniform(number, 3, (uint64_t)i)};
        }
    }
    return 0;
}

static DecodeResult *stale_decode(Stale *s, const DecodeOptions *options, const DecodeSpec *specs,
                                  int count) {
    DecodeResult *results;
    Error err;
    memset(s->prefix, 0, sizeof s->prefix);
    s->whole = s->after = 0;
    const DecodeRun run = {.options = options,
                           .specs = specs,
                           .count = count,
                           .mask_id = s->mask,
                           .evaluate = stale_evaluate,
                           .model = s,
                           .trace = true};
    assert_ok(decode_run(&run, &results, &err), &err);
    return results;
}

static void canvas_cache_changes_nothing(void **state) {
    (void)state;
    TestRandom random = {.state = 8};
    int saved = 0, differ = 0;
    for (int run = 0; run < 400; run++) {
        DecodeOptions options = options_named(strategies[run % STRATEGIES]);
        options.iterations = 2 + random_below(&random, 25);
        options.seed = test_random_next(&random);
        Stale s = {.mask = random_below(&random, 3), .vocabulary = 3 + random_below(&random, 4)};
        DecodeSpec specs[MOST];
        int count = 1 + random_below(&random, MOST);
        for (int h = 0; h < count; h++) /* several have the same request and length */
            specs[h] = (DecodeSpec){random_below(&random, 2), 2 + random_below(&random, 3), h};
        DecodeResult *exact = stale_decode(&s, &options, specs, count);
        options.prefix_cache = 1 + random_below(&random, 6);
        DecodeResult *cached = stale_decode(&s, &options, specs, count);
        int evaluated = s.whole + s.after;
        options.no_canvas_cache = true;
        DecodeResult *plain = stale_decode(&s, &options, specs, count);
        saved += s.whole + s.after - evaluated;
        for (int h = 0; h < count; h++) {
            assert_same(&cached[h], &plain[h]);
            DecodeResult *alone = stale_decode(&s, &options, &specs[h], 1);
            assert_same(&plain[h], alone);
            decode_results_free(alone, 1);
            if (options.prefix_cache == 1)
                assert_same(&cached[h], &exact[h]);
            else
                differ += memcmp(cached[h].tokens, exact[h].tokens,
                                 (size_t)exact[h].length * sizeof(int32_t)) != 0;
        }
        decode_results_free(exact, count), decode_results_free(cached, count);
        decode_results_free(plain, count);
    }
    assert_true(saved > 1000 && differ > 100);
}

static void steps_recompute_it(void **state) {
    (void)state;
    DecodeOptions options = options_named("confidence1");
    const DecodeSpec spec = {0, 9, 0};
    Stale s = {.mask = 1, .vocabulary = 20};
    static const int periods[] = {0, 1, 2, 4, 100}, whole[] = {9, 9, 5, 3, 1};
    for (int i = 0; i < 5; i++) {
        options.prefix_cache = periods[i];
        decode_results_free(stale_decode(&s, &options, &spec, 1), 1);
        assert_int_equal(s.whole, whole[i]);
        assert_int_equal(s.whole + s.after, 9);
    }
    options = decode_options_default();
    assert_false(decode_approximate(&options));
    options.prefix_cache = 5;
    assert_true(decode_approximate(&options));
    DecodeResult *results;
    Error err;
    options.prefix_cache = -1;
    const DecodeRun run = {.options = &options, .specs = &spec, .count = 1, .mask_id = 1};
    assert_refused(decode_run(&run, &results, &err), &err, "prefix cache", "-1");
}

/* ---- The keys and values. ---- */

static void near(float got, float want) {
    if (!(fabsf(got - want) <= 1e-5F * (1 + fabsf(want))))
        fail_msg("%g, expected %g", (double)got, (double)want);
}

/* A prompt, and two canvases of one length: `old`, whose prefix is kept, and `now`. */
typedef struct Case {
    int32_t ids[LONGEST], old[LONGEST], now[LONGEST];
    int count, image, length, rows; /* rows: <s>, image and prompt */
} Case;

static void case_make(Case *c, const Fixture *f, TestRandom *random) {
    int vocabulary = tokenizer_size(f->model.tokenizer);
    int32_t mask = tokenizer_mask_id(f->model.tokenizer);
    c->count = 1 + random_below(random, LONGEST), c->length = 1 + random_below(random, LONGEST);
    c->image = random_below(random, 3) - 1;
    c->rows = 1 + c->count + (c->image >= 0 ? multimodal_image_rows(&f->model.parts) : 0);
    for (int i = 0; i < LONGEST; i++) {
        c->ids[i] = 5 + random_below(random, vocabulary - 5);
        c->old[i] = random_below(random, 3) ? mask : c->ids[i];
        c->now[i] = random_below(random, 2) ? mask : 5 + random_below(random, vocabulary - 5);
    }
}

static void push(XlmrBatch *b, int32_t *ids, int32_t *image_rows, int32_t *positions, int32_t id,
                 int32_t image_row, int position) {
    ids[b->tokens] = id, image_rows[b->tokens] = image_row;
    positions[b->tokens++] = position + XLMR_FIRST_POSITION;
}

/* The same without any cache: one batch of prefix, old canvas and new one, where the new one
 * attends to itself and the prefix, which attends to itself and the old one. */
static void plain_proposals(const Fixture *f, const Case *c, Proposal *out) {
    enum { ROWS = 128 };
    int32_t ids[ROWS], image_rows[ROWS], positions[ROWS], picked[LONGEST], tokens[LONGEST];
    int64_t index[LONGEST] = {0};
    uint64_t stream[LONGEST] = {0};
    float scores[LONGEST];
    const Xlmr *m = &f->model.xlmr;
    int per_image = multimodal_image_rows(&f->model.parts), p = c->rows, n = c->length + 1;
    XlmrBatch b = {.ids = ids,
                   .image_rows = image_rows,
                   .positions = positions,
                   .image_tokens = golden_image_tokens(&f->golden)};
    push(&b, ids, image_rows, positions, 0, -1, 0);
    for (int i = 0; c->image >= 0 && i < per_image; i++)
        push(&b, ids, image_rows, positions, -1, c->image * per_image + i, 1 + i);
    for (int i = 0; i < c->count; i++)
        push(&b, ids, image_rows, positions, c->ids[i], -1, p - c->count + i);
    for (int canvas = 0; canvas < 2; canvas++) {
        for (int i = 0; i < c->length; i++)
            push(&b, ids, image_rows, positions, canvas ? c->now[i] : c->old[i], -1, p + i);
        push(&b, ids, image_rows, positions, 2, -1, p + c->length);
    }
    const AttentionSpan spans[] = {
        {.q_begin = 0, .q_end = p + n, .range_count = 1, .range = {{0, p + n}}},
        {.q_begin = p + n,
         .q_end = p + 2 * n,
         .range_count = 2,
         .range = {{0, p}, {p + n, p + 2 * n}}}};
    b.plan = (AttentionPlan){.spans = spans, .span_count = 2};
    Arena arena = {0};
    Error err;
    Tensor hidden, features;
    for (int i = 0; i < c->length; i++) picked[i] = p + n + i;
    assert_ok(arena_open(&arena, f->device,
                         xlmr_work_bytes(m, b.tokens) + xlmr_head_bytes(m, b.tokens), &err),
              &err);
    assert_ok(xlmr_forward(m, &arena, &b, &hidden, NULL, &err), &err);
    assert_ok(xlmr_head(m, &arena, hidden, picked, c->length, &features, &err), &err);
    const VocabChoice choice = {.banned = tokenizer_mask_id(f->model.tokenizer),
                                .limit = tokenizer_size(f->model.tokenizer),
                                .stream = stream,
                                .index = index};
    assert_ok(
        vocab_propose(f->device, tokens, scores, features, m->vocab_w, m->vocab_b, &choice, &err),
        &err);
    for (int i = 0; i < c->length; i++) out[i] = (Proposal){tokens[i], scores[i]};
    arena_close(&arena);
}

/* Several hypotheses in turn, whole and after what was kept, in batches of any size. */
static void check_kept(const char *folder, int batch_tokens) {
    Fixture f;
    Error err;
    Infill *infill;
    Case cases[MOST];
    InfillPrompt prompts[MOST];
    DecodeSpec specs[MOST];
    DecodeCanvas old[MOST], now[MOST];
    Proposal first[MOST * LONGEST], got[MOST * LONGEST], want[LONGEST];
    TestRandom random = {(uint64_t)batch_tokens + 3};
    int64_t rows = 0, prefix = 0;
    int different = 0;
    fixture_open(&f, folder, "f32");
    for (int i = 0; i < MOST; i++) {
        Case *c = &cases[i];
        case_make(c, &f, &random);
        prompts[i] = (InfillPrompt){c->ids, c->count, c->image};
        specs[i] = (DecodeSpec){.request = i, .length = c->length};
        old[i] =
            (DecodeCanvas){.hypothesis = i, .request = i, .length = c->length, .tokens = c->old};
        now[i] = old[i];
        now[i].tokens = c->now, now[i].after_kept = true;
        rows += c->length + 1, prefix += c->rows;
    }
    const InfillConfig config = {.model = language_of_xlmr(&f.model.xlmr),
                                 .device = f.device,
                                 .mask_id = tokenizer_mask_id(f.model.tokenizer),
                                 .vocab_limit = tokenizer_size(f.model.tokenizer),
                                 .batch_tokens = batch_tokens,
                                 .prompts = prompts,
                                 .prompt_count = MOST,
                                 .image_tokens = golden_image_tokens(&f.golden),
                                 .image_rows = multimodal_image_rows(&f.model.parts)};
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, LONGEST, rows, &err), &err);
    for (int again = 0; again < 2; again++) { /* the memory can be taken again */
        assert_ok(infill_keep_prefixes(infill, specs, MOST, &err), &err);
        assert_ok(infill_evaluate(infill, old, MOST, 0, 0, first, &err), &err);
        int64_t before = infill_counts(infill).rows;
        assert_ok(infill_evaluate(infill, now, MOST, 0, 0, got, &err), &err);
        assert_int_equal(infill_counts(infill).rows - before, rows);
        for (int i = 0, at = 0; i < MOST; at += cases[i++].length) {
            plain_proposals(&f, &cases[i], want);
            for (int k = 0; k < cases[i].length; k++) {
                assert_int_equal(got[at + k].token, want[k].token);
                near(got[at + k].score, want[k].score);
            }
        }
    }
    /* Exactly the whole evaluation where the canvas is the one that the prefix was kept of; and
     * some of the others are not what a whole evaluation of them gives. */
    Proposal exact[MOST * LONGEST];
    for (int i = 0; i < MOST; i++) old[i].after_kept = true;
    assert_ok(infill_evaluate(infill, old, MOST, 0, 0, exact, &err), &err);
    for (int64_t i = 0; i < rows - MOST; i++) {
        assert_int_equal(exact[i].token, first[i].token);
        near(exact[i].score, first[i].score);
    }
    for (int i = 0; i < MOST; i++) now[i].after_kept = false;
    assert_ok(infill_evaluate(infill, now, MOST, 0, 0, exact, &err), &err);
    for (int64_t i = 0; i < rows - MOST; i++)
        different += fabsf(exact[i].score - got[i].score) > 1e-4F;
    assert_true(different > 5);
    assert_int_equal(infill_counts(infill).rows, 6 * rows + 3 * prefix);
    infill_close(infill);
    fixture_close(&f);
}

static void kept_keys_and_values(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_kept(golden_folders[i], 0), check_kept(golden_folders[i], 60);
}

/* ---- Answers. ---- */

enum { REQUESTS = 9 };

static const char *const texts[REQUESTS] = {"What is the dog?",
                                            "left of the house",
                                            "How many shapes, and where?",
                                            "der Hund und das Bild",
                                            "sky",
                                            "What is the colour of the circle on the left?",
                                            "Is it?",
                                            "the the the",
                                            "Which house"};

static void requests_make(AnswerRequest *requests, bool predict) {
    for (int i = 0; i < REQUESTS; i++)
        requests[i] = (AnswerRequest){
            .prompt = texts[i], .image = i % 3 - 1, .length = predict ? 0 : 3 + 2 * i};
}

static Answers answered(const Fixture *f, const AnswerRequest *requests, int count,
                        const AnswerOptions *options) {
    Answers answers;
    Error err;
    assert_ok(multimodal_answer(&f->model.parts, golden_image_tokens(&f->golden), requests, count,
                                options, &answers, &err),
              &err);
    return answers;
}

/* Whether any token or, by more than rounding, any score differs. */
static bool results_differ(const DecodeResult *a, const DecodeResult *b) {
    if (a->length != b->length ||
        memcmp(a->tokens, b->tokens, (size_t)a->length * sizeof *a->tokens) != 0)
        return true;
    for (int i = 0; i < a->length; i++)
        if (!(fabsf(a->scores[i] - b->scores[i]) <= 1e-5F * (1 + fabsf(a->scores[i])))) return true;
    return false;
}

static void check_same(const Answers *a, int i, const Answers *b, int j) {
    const Answer *x = &a->items[i], *y = &b->items[j];
    assert_string_equal(x->text, y->text);
    assert_int_equal(x->count, y->count);
    for (int h = 0; h < x->count; h++)
        assert_false(results_differ(&a->results[x->first + h], &b->results[y->first + h]));
}

/* The rows that the evaluated steps should have cost. */
static int64_t rows_of(const Fixture *f, const Answers *a, const AnswerRequest *requests,
                       int period) {
    int64_t rows = 0;
    for (int i = 0; i < a->count; i++) {
        int prefix = 1 + a->items[i].prompt_tokens +
                     (requests[i].image >= 0 ? multimodal_image_rows(&f->model.parts) : 0);
        for (int h = a->items[i].first; h < a->items[i].first + a->items[i].count; h++) {
            const DecodeResult *r = &a->results[h];
            for (int s = 0; s < r->steps; s++)
                if (r->evaluated[s]) rows += r->length + 1 + (s % period ? 0 : prefix);
        }
    }
    return rows;
}

static void check_answers(const char *folder, bool predict, float temperature, int position) {
    Fixture f;
    AnswerRequest requests[REQUESTS];
    AnswerOptions options = answer_options_default();
    fixture_open(&f, folder, "f32");
    f.model.parts.attention = ATTENTION_FULL, f.model.parts.answer_position = position;
    requests_make(requests, predict);
    options.length_beam = 2, options.samples = 2;
    options.decode.temperature = temperature, options.trace = true;
    Answers exact = answered(&f, requests, REQUESTS, &options);
    options.decode.prefix_cache = 1; /* each step recomputes it */
    Answers fresh = answered(&f, requests, REQUESTS, &options);
    for (int i = 0; i < REQUESTS; i++) check_same(&exact, i, &fresh, i);
    options.decode.prefix_cache = 4;
    Answers stale = answered(&f, requests, REQUESTS, &options);
    int differ = 0;
    for (int h = 0; h < stale.result_count; h++)
        differ += results_differ(&stale.results[h], &exact.results[h]);
    assert_true(differ > 0);
    assert_int_equal(stale.counts.rows, rows_of(&f, &stale, requests, 4));
    /* Neither the batch nor the canvas cache matters: batches of 60 rows make groups. */
    for (int i = 0; i < REQUESTS; i++) {
        Answers alone = answered(&f, &requests[i], 1, &options);
        check_same(&stale, i, &alone, 0);
        answers_free(&alone);
    }
    options.batch_tokens = 60, options.decode.no_canvas_cache = true;
    Answers groups = answered(&f, requests, REQUESTS, &options);
    for (int i = 0; i < REQUESTS; i++) check_same(&stale, i, &groups, i);
    answers_free(&exact), answers_free(&fresh), answers_free(&stale), answers_free(&groups);
    fixture_close(&f);
}

static void answers_with_it(void **state) {
    (void)state;
    check_answers(golden_folders[0], false, 0, 0);
    check_answers(golden_folders[1], true, 0, 70);
    check_answers(golden_folders[0], true, 0.8F, 0);
}

typedef struct Told {
    const AnswerOptions *options;
    int hypotheses[REQUESTS][4]; /* the steps of each request's hypotheses */
} Told;

static void step_told(void *user, const DecodeStep *step) {
    Told *told = user;
    assert_in_range(step->of_request, 0, 3);
    assert_int_equal(++told->hypotheses[step->request][step->of_request], step->step);
}

/* Groups of hypotheses do not show in the steps that a callback gets. */
static void steps_are_told(void **state) {
    (void)state;
    Fixture f;
    Told told = {0};
    AnswerRequest requests[REQUESTS];
    AnswerOptions options = answer_options_default();
    fixture_open(&f, golden_folders[0], "f32");
    requests_make(requests, false);
    options.samples = 4, options.batch_tokens = 30, options.decode.iterations = 6;
    options.decode.prefix_cache = 3, options.callback = step_told, options.user = &told;
    Answers answers = answered(&f, requests, REQUESTS, &options);
    for (int i = 0; i < 4 * REQUESTS; i++) assert_int_equal(told.hypotheses[i / 4][i % 4], 6);
    answers_free(&answers);
    fixture_close(&f);
}

static void what_it_cannot(void **state) {
    (void)state;
    Fixture f;
    Error err;
    Answers answers;
    const AnswerRequest request = {.prompt = "What?", .image = -1, .length = 2};
    AnswerOptions options = answer_options_default();
    fixture_open(&f, golden_folders[1], "f32");
    Multimodal *m = &f.model.parts;
    options.decode.prefix_cache = 3;
    assert_int_equal(m->attention, ATTENTION_BLOCK_CAUSAL);
    assert_refused(multimodal_answer(m, TENSOR_NONE, &request, 1, &options, &answers, &err), &err,
                   "prefix cache", "full attention", "block-causal");
    m->attention = ATTENTION_FULL;
    options.no_kv_cache = true;
    assert_refused(multimodal_answer(m, TENSOR_NONE, &request, 1, &options, &answers, &err), &err,
                   "prefix cache", "no KV cache");
    options.no_kv_cache = false, options.inspection.top_k = 2;
    assert_refused(multimodal_answer(m, TENSOR_NONE, &request, 1, &options, &answers, &err), &err,
                   "prefix cache", "top-k");
    options.inspection.top_k = 0;
    answers = answered(&f, &request, 1, &options);
    answers_free(&answers);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canvas_cache_changes_nothing),
        cmocka_unit_test(steps_recompute_it),
        cmocka_unit_test(kept_keys_and_values),
        cmocka_unit_test(answers_with_it),
        cmocka_unit_test(steps_are_told),
        cmocka_unit_test(what_it_cannot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
