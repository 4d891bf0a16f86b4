/* A request does not depend on its neighbours: random batches, some of whose requests are
 * impossible, against each request alone. REQUEST_BATCHES in the environment is how many batches
 * (default 160). The models are random and small, of 512 and of 75 tokens, post-LN and pre-LN, with
 * full and block-causal attention, with and without a place for answers. */
#include <math.h>

#include "apps/cli/common.h"
#include "tests/matrix.h"
#include "tests/program.h"

enum { IMAGES = 3, BROKEN_IMAGE = 2, MOST = 7, PROMPT_SIZE = 8192, MODELS = 3 };

#define TOKENIZER "tests/golden/models/tiny-base/language/sentencepiece.bpe.model"

typedef struct Bench {
    Device *device;
    Model models[MODELS];
    Tensor images[MODELS]; /* [IMAGES * rows, D]; those of the last image are NaN */
} Bench;

static Bench bench;

static int new_model(Run *r, const char *name, char *positions, char *norm) {
    char path[512];
    path_in(path, sizeof path, r, name);
    run(r, "new", path, "--tokenizer", TOKENIZER, "--positions", positions, "--width", "24",
        "--heads", "3", "--layers", "2", "--ffn", "40", "--image-size", "24", "--patch", "8",
        "--vision-width", "16", "--vision-heads", "2", "--vision-layers", "2", "--vision-ffn", "24",
        "--seed", positions, norm);
    return r->status;
}

static void images_make(Tensor *images, const Model *m, TestRandom *random) {
    Error err;
    int64_t rows = multimodal_image_rows(&m->parts), width = m->projector_model.out;
    *images = tensor_2d(NULL, DTYPE_F32, IMAGES * rows, width);
    float *host = malloc(tensor_bytes(*images));
    for (int64_t i = 0; i < IMAGES * rows * width; i++)
        host[i] = i / (rows * width) == BROKEN_IMAGE ? NAN : test_random_normal(random);
    assert_ok(device_alloc(bench.device, &images->data, tensor_bytes(*images), &err), &err);
    assert_ok(device_upload(bench.device, images->data, host, tensor_bytes(*images), &err), &err);
    free(host);
}

static int bench_open(void **state) {
    (void)state;
    static const struct {
        char *positions, *norm;
    } kinds[MODELS] = {{"514", NULL}, {"77", "--pre-norm"}, {"77", NULL}};
    Run r;
    Error err;
    TestRandom random = {99};
    run_start(&r);
    assert_ok(test_device_open(&bench.device, &(DeviceOptions){.threads = 1}, &err), &err);
    for (int m = 0; m < MODELS; m++) {
        char name[16], path[512];
        snprintf(name, sizeof name, "model%d", m);
        if (new_model(&r, name, kinds[m].positions, kinds[m].norm)) fail_msg("%s", r.err);
        path_in(path, sizeof path, &r, name);
        ModelOptions options = {
            .folder = path, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
        assert_ok(model_open(&bench.models[m], &options, bench.device, &err), &err);
        images_make(&bench.images[m], &bench.models[m], &random);
    }
    run_end(&r);
    return 0;
}

static int bench_close(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        device_free(bench.device, bench.images[m].data);
        model_close(&bench.models[m]);
    }
    device_close(bench.device);
    return 0;
}

/* ---- Random requests. ---- */

static int below(TestRandom *random, int n) {
    return (int)(test_random_next(random) % (uint64_t)n);
}

static int token_count(const Tokenizer *tokenizer, const char *text) {
    Ids ids = {0};
    Error err;
    assert_ok(tokenizer_encode(tokenizer, text, strlen(text), &ids, &err), &err);
    int count = (int)ids.count;
    ids_free(&ids);
    return count;
}

/* A prompt of exactly so many tokens: words as far as they go, and special words, which are one
 * token each. */
static void prompt_make(char *out, const Tokenizer *tokenizer, int tokens, TestRandom *random) {
    static const char *const list[] = {"What", "colour", "is",   "the", "dog",  "left", "of",
                                       "How",  "many",   "Bild", "der", "Hund", "und",  "sky"};
    enum { WORDS = sizeof list / sizeof list[0] };
    static int counts[WORDS];
    for (int w = 0; w < WORDS && !counts[w]; w++) counts[w] = token_count(tokenizer, list[w]);
    char *end = out;
    while (tokens > 0) {
        int w = below(random, WORDS + 2);
        bool word = w < WORDS && counts[w] <= tokens && end - out < PROMPT_SIZE - 64;
        end += sprintf(end, "%s", word ? list[w] : w % 2 ? "<unk>" : "<pad>");
        if (word) *end++ = ' ', *end = 0;
        tokens -= word ? counts[w] : 1;
    }
}

typedef enum Fault { FINE, EMPTY, BAD_UTF8, NO_IMAGE, BROKEN, FAULTS } Fault;

typedef struct Batch {
    Multimodal model;
    Tensor images;
    AnswerOptions options;
    AnswerRequest requests[MOST];
    Fault faults[MOST];
    int tokens[MOST], count;
    char prompts[MOST][PROMPT_SIZE];
} Batch;

static void request_make(Batch *b, int i, TestRandom *random) {
    int longest = xlmr_longest(&b->model.language.xlmr->config);
    AnswerRequest *r = &b->requests[i];
    int wide = below(random, 3) ? longest / 8 : longest + 9;
    b->tokens[i] = 1 + below(random, wide);
    prompt_make(b->prompts[i], b->model.tokenizer, b->tokens[i], random);
    b->faults[i] = below(random, 12) ? FINE : (Fault)below(random, FAULTS);
    *r = (AnswerRequest){.prompt = b->prompts[i], .image = below(random, 3) - 1};
    if (!b->model.tower) r->image = -1;
    if (!b->model.length || below(random, 3))
        r->length = 1 + below(random, below(random, 3) ? 20 : longest + 5);
    if (b->faults[i] == EMPTY) r->prompt = i % 2 ? "\n" : " \n\t";
    if (b->faults[i] == FINE && below(random, 20) == 0) r->prompt = "", b->tokens[i] = 0;
    if (b->faults[i] == BAD_UTF8) strcpy(b->prompts[i] + strlen(b->prompts[i]) / 2, "a\xc3");
    if (b->faults[i] == NO_IMAGE) r->image = b->model.tower ? IMAGES : 0;
    if (b->faults[i] == BROKEN && !b->model.tower) b->faults[i] = FINE;
    if (b->faults[i] == BROKEN) r->image = BROKEN_IMAGE;
}

static void options_make(AnswerOptions *o, TestRandom *random) {
    static const char *const strategies[] = {"reparam-uncond-deterministic-cosine",
                                             "reparam-cond-stochastic0.5-linear", "cmlm",
                                             "reparam-cond-deterministic-linear", "ar"};
    static const int batch_tokens[] = {0, 1, 64, 600};
    Error err;
    *o = answer_options_default();
    int s = below(random, 13);
    assert_ok(decode_strategy_parse(&o->decode, strategies[s < 12 ? s % 4 : 4], &err), &err);
    o->decode.iterations = below(random, 6);
    o->decode.seed = test_random_next(random);
    o->decode.temperature = below(random, 4) ? 0 : 0.7F;
    o->decode.no_canvas_cache = !below(random, 5);
    o->length_beam = below(random, 3) ? 1 : 1 + below(random, 4);
    o->samples = below(random, 4) ? 1 : 1 + below(random, 3);
    o->batch_tokens = batch_tokens[below(random, 4)];
    o->no_kv_cache = !below(random, 4);
    o->long_prompts = (LongPrompts)below(random, 3);
    o->trace = !below(random, 3);
    if (!below(random, 4))
        o->inspection =
            (InspectOptions){.top_k = 2, .attention = below(random, 2), .all = below(random, 2)};
}

static void batch_make(Batch *b, TestRandom *random) {
    int m = below(random, 4) ? 1 + below(random, MODELS - 1) : 0;
    b->model = bench.models[m].parts;
    b->images = bench.images[m];
    int longest = xlmr_longest(&b->model.language.xlmr->config);
    b->model.attention = below(random, 2) ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL;
    b->model.answer_position = below(random, 2) ? 0 : longest / 4 + below(random, longest / 2);
    if (!below(random, 5)) b->model.length = NULL;
    if (!below(random, 5)) b->model.tower = NULL, b->images = TENSOR_NONE;
    options_make(&b->options, random);
    b->count = 1 + below(random, m ? MOST : 4);
    for (int i = 0; i < b->count; i++) request_make(b, i, random);
}

/* ---- What must be. ---- */

/* Whether a request has an answer, worked out anew. */
static bool answerable(const Batch *b, int i, bool *long_prompt) {
    const AnswerRequest *r = &b->requests[i];
    int longest = xlmr_longest(&b->model.language.xlmr->config), place = b->model.answer_position;
    int least = r->length ? r->length : 1;
    int head = 1 + (r->image >= 0 ? multimodal_image_rows(&b->model) : 0);
    *long_prompt = false;
    if (b->faults[i] != FINE && b->faults[i] != BROKEN) return false;
    if (place ? place + least + 1 > longest || head + 1 > place : head + 1 + least + 1 > longest)
        return false;
    *long_prompt = place ? head + b->tokens[i] > place : head + b->tokens[i] + least + 1 > longest;
    return b->faults[i] == FINE &&
           (!*long_prompt || b->options.long_prompts == LONG_PROMPTS_KEEP_LAST);
}

static void check_answer(const Batch *b, int i, const Answers *answers) {
    const Answer *a = &answers->items[i];
    bool long_prompt, can = answerable(b, i, &long_prompt);
    int longest = xlmr_longest(&b->model.language.xlmr->config), place = b->model.answer_position;
    if (can != (a->error == NULL) || can != (a->text != NULL) || can != (a->count > 0))
        fail_msg("request %d (fault %d, %d tokens, length %d): %s", i, (int)b->faults[i],
                 b->tokens[i], b->requests[i].length, a->error ? a->error : "answered");
    assert_int_equal(a->skipped, long_prompt && b->options.long_prompts == LONG_PROMPTS_SKIP);
    assert_int_equal(a->dropped_tokens > 0,
                     long_prompt && b->options.long_prompts == LONG_PROMPTS_KEEP_LAST);
    if (b->faults[i] == FINE) assert_int_equal(a->prompt_tokens, b->tokens[i]);
    if (!can) assert_int_equal(a->best, -1);
    if (can && answers->inspections) assert_true(answers->inspections[a->best].length > 0);
    int head = 1 + (b->requests[i].image >= 0 ? multimodal_image_rows(&b->model) : 0);
    int end = place ? place : head + a->prompt_tokens - a->dropped_tokens;
    if (can && place) assert_true(head + a->prompt_tokens - a->dropped_tokens <= place);
    for (int h = a->first; h < a->first + a->count; h++) {
        assert_int_equal(answers->specs[h].request, i);
        assert_true(end + answers->results[h].length + 1 <= longest);
        assert_int_equal(answers->results[h].steps,
                         decode_steps(&b->options.decode, answers->results[h].length));
        if (b->requests[i].length)
            assert_int_equal(answers->results[h].length, b->requests[i].length);
    }
}

static bool text_same(const char *a, const char *b) {
    return a && b ? !strcmp(a, b) : a == b;
}

static void check_inspection(const AnswerInspection *a, const AnswerInspection *b) {
    assert_true(a->length == b->length && a->canvases == b->canvases && a->grid == b->grid);
    for (int i = 0; i < a->length; i++) assert_int_equal(a->written[i], b->written[i]);
    for (int i = 0; i < a->canvases * a->length * a->top_k; i++)
        assert_true(fabs((double)a->alternatives[i].score - b->alternatives[i].score) <=
                    1e-5 * (1 + fabs((double)b->alternatives[i].score)));
    for (int i = 0; i < a->grid * a->grid; i++)
        assert_true(fabs((double)a->answer_map[i] - b->answer_map[i]) <= 1e-5);
}

/* What does not depend on arithmetic. */
static void check_alike(const Answers *x, const Answer *a, const Answers *y, const Answer *b) {
    if (!text_same(a->error, b->error)) fail_msg("\"%s\" is not \"%s\"", a->error, b->error);
    assert_int_equal(a->count, b->count);
    assert_true(a->skipped == b->skipped && a->dropped_tokens == b->dropped_tokens &&
                a->prompt_tokens == b->prompt_tokens);
    for (int h = 0; h < a->count; h++) {
        const DecodeResult *r = &x->results[a->first + h], *s = &y->results[b->first + h];
        assert_int_equal(r->length, s->length);
        assert_int_equal(r->steps, s->steps);
    }
}

/* Tokens, and scores to 1e-5; returns the largest difference of scores, -1 if tokens differ. */
static double check_same(const Answers *x, int i, const Answers *y, int j) {
    const Answer *a = &x->items[i], *b = &y->items[j];
    double most = 0;
    check_alike(x, a, y, b);
    for (int h = 0; h < a->count; h++) {
        const DecodeResult *r = &x->results[a->first + h], *s = &y->results[b->first + h];
        if (memcmp(r->tokens, s->tokens, (size_t)r->length * sizeof *r->tokens)) return -1;
        for (int n = 0; n < r->length; n++) {
            double d = fabs((double)r->scores[n] - s->scores[n]) / (1 + fabs((double)s->scores[n]));
            if (!(d <= 1e-5))
                fail_msg("scores %g and %g", (double)r->scores[n], (double)s->scores[n]);
            if (d > most) most = d;
        }
        for (int n = 0; most == 0 && r->trace && n < r->length * r->steps; n++)
            assert_int_equal(r->trace[n].token, s->trace[n].token);
        if (most == 0) assert_int_equal(r->evaluations, s->evaluations);
        if (x->inspections)
            check_inspection(&x->inspections[a->first + h], &y->inspections[b->first + h]);
    }
    if (!text_same(a->text, b->text)) fail_msg("\"%s\" is not \"%s\"", a->text, b->text);
    return most;
}

typedef struct Tally {
    int requests, answered, refused, skipped, shortened, hypotheses;
    int exact, different; /* requests with the same scores; with other tokens */
    double most;
} Tally;

static void batch_check(const Batch *b, Tally *tally) {
    Answers together, alone;
    Error err;
    AnswerOptions single = b->options;
    single.batch_tokens = 0;
    assert_ok(multimodal_answer(&b->model, b->images, b->requests, b->count, &b->options, &together,
                                &err),
              &err);
    for (int i = 0; i < b->count; i++) {
        assert_ok(
            multimodal_answer(&b->model, b->images, &b->requests[i], 1, &single, &alone, &err),
            &err);
        check_answer(b, i, &together);
        double d = check_same(&together, i, &alone, 0);
        const Answer *a = &together.items[i];
        tally->most = d > tally->most ? d : tally->most;
        tally->exact += d == 0, tally->different += d < 0, tally->requests++,
            tally->hypotheses += a->count;
        tally->answered += !a->error, tally->skipped += a->skipped;
        tally->refused += a->error && !a->skipped, tally->shortened += a->dropped_tokens > 0;
        answers_free(&alone);
    }
    answers_free(&together);
}

static void batches_are_their_requests(void **state) {
    (void)state;
    const char *given = getenv("REQUEST_BATCHES");
    int count = given ? atoi(given) : 160;
    Batch *b = calloc(1, sizeof *b);
    Tally tally = {0};
    for (int i = 0; i < count; i++) {
        TestRandom random = {(uint64_t)i + 1};
        for (int warm = 0; warm < 8; warm++) test_random_next(&random);
        batch_make(b, &random);
        batch_check(b, &tally);
    }
    printf("note: %d batches, %d requests (%d answered, %d refused, %d skipped, %d shortened), %d "
           "hypotheses: %d requests with scores to the bit, others within %.1e, %d with other "
           "tokens\n",
           count, tally.requests, tally.answered, tally.refused, tally.skipped, tally.shortened,
           tally.hypotheses, tally.exact, tally.most, tally.different);
    /* Where sums depend on what else is in a matrix, two words can be too near to tell apart. */
    assert_true(tally.different <= (tally.most > 0 ? tally.requests / 200 : 0));
    assert_true(count < 160 || (tally.answered > tally.requests / 3 && tally.refused > 40 &&
                                tally.skipped > 5 && tally.shortened > 5));
    free(b);
}

/* ---- Single things. ---- */

/* The fault as it was found: each prompt had to leave room for the longest answer of the batch. */
static void neighbours_leave_room(void **state) {
    (void)state;
    Multimodal model = bench.models[2].parts; /* 75 tokens, answers behind their prompts */
    static char prompt[PROMPT_SIZE];
    TestRandom random = {5};
    prompt_make(prompt, model.tokenizer, 70, &random);
    AnswerRequest requests[] = {{prompt, -1, 3}, {"What is it?", -1, 60}, {prompt, -1, 4}};
    AnswerOptions options = answer_options_default();
    Answers answers;
    Error err;
    options.decode.iterations = 2;
    assert_ok(multimodal_answer(&model, TENSOR_NONE, requests, 3, &options, &answers, &err), &err);
    assert_true(answers.items[0].text && answers.items[1].text && !answers.items[2].text);
    assert_non_null(strstr(answers.items[2].error, "70 tokens long, 69 fit"));
    answers_free(&answers);
}

/* What is left of a shortened prompt is its end. */
static void keep_last_keeps_the_last(void **state) {
    (void)state;
    Multimodal model = bench.models[2].parts;
    static char text[PROMPT_SIZE];
    for (int place = 0; place < 2; place++) {
        model.answer_position = place ? 30 : 0;
        int fit = place ? 29 : 75 - 2 - 6;
        text[0] = 0;
        for (int i = 0; i < 100; i++) strcat(text, i % 3 ? "<unk>" : i % 2 ? "<pad>" : "<s>");
        const char *rest = text;
        for (int i = 0; i < 100 - fit; i++) rest = strchr(rest + 1, '<');
        AnswerRequest requests[] = {{text, -1, 6}, {rest, -1, 6}};
        AnswerOptions options = answer_options_default();
        options.long_prompts = LONG_PROMPTS_KEEP_LAST;
        Answers answers;
        Error err;
        assert_ok(multimodal_answer(&model, TENSOR_NONE, requests, 2, &options, &answers, &err),
                  &err);
        assert_int_equal(answers.items[0].dropped_tokens, 100 - fit);
        assert_int_equal(answers.items[0].prompt_tokens, 100);
        assert_int_equal(answers.items[1].dropped_tokens, 0);
        const DecodeResult *r = answers.results;
        assert_memory_equal(r[0].tokens, r[1].tokens, 6 * sizeof(int32_t));
        assert_memory_equal(r[0].scores, r[1].scores, 6 * sizeof(float));
        answers_free(&answers);
    }
}

static void poke(Tensor t, int index, float value) {
    Error err;
    assert_ok(device_upload(bench.device, (float *)t.data + index, &value, sizeof value, &err),
              &err);
}

static float peek(Tensor t, int index) {
    Error err;
    float value;
    assert_ok(device_download(bench.device, &value, (float *)t.data + index, sizeof value, &err),
              &err);
    return value;
}

/* Numbers that are none are errors which name whose they are, never answers. */
static void damaged_weights_are_named(void **state) {
    (void)state;
    Model *m = &bench.models[1];
    const struct {
        Tensor tensor;
        const char *given, *predicted;
    } cases[] = {{m->length_model.class_b, NULL, "length predictor"},
                 {m->length_model.hidden_b, NULL, "length predictor"},
                 {m->xlmr.vocab_b, "language model", "language model"},
                 {m->xlmr.head_norm_b, "language model", "language model"},
                 {m->xlmr.norm_b, "language model", "length predictor"}};
    static const float values[] = {NAN, INFINITY, -INFINITY};
    AnswerRequest requests[] = {{"What is it?", -1, 4}, {"How many?", -1, 0}};
    AnswerOptions options = answer_options_default();
    options.length_beam = 3;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (int v = 0; v < 3; v++) {
            /* A vocabulary entry of -infinity only means that it is never proposed. */
            bool fine = cases[c].tensor.data == m->xlmr.vocab_b.data && v == 2;
            /* tanh takes infinity to 1. */
            if (cases[c].tensor.data == m->length_model.hidden_b.data && v) continue;
            float before = peek(cases[c].tensor, 5);
            poke(cases[c].tensor, 5, values[v]);
            Answers answers;
            Error err;
            assert_ok(
                multimodal_answer(&m->parts, TENSOR_NONE, requests, 2, &options, &answers, &err),
                &err);
            for (int i = 0; i < 2; i++) {
                const char *want = fine ? NULL : i ? cases[c].predicted : cases[c].given;
                const char *error = answers.items[i].error;
                if (!want != !error || (want && !strstr(error, want)))
                    fail_msg("case %zu, %g, request %d: %s", c, (double)values[v], i, error);
            }
            answers_free(&answers);
            poke(cases[c].tensor, 5, before);
        }
}

/* What no prompt can have is said so. */
static void limits_are_named(void **state) {
    (void)state;
    Multimodal m = bench.models[2].parts; /* 75 tokens; an image takes 9 */
    Error err;
    assert_ok(multimodal_check_length(&m, true, 0, &err), &err);
    assert_ok(multimodal_check_length(&m, false, 72, &err), &err);
    assert_refused(multimodal_check_length(&m, false, 73, &err), &err, "73 tokens", "reads 75");
    assert_refused(multimodal_check_length(&m, false, INT32_MAX, &err), &err, "2147483647 tokens");
    assert_ok(multimodal_check_length(&m, true, 63, &err), &err);
    assert_refused(multimodal_check_length(&m, true, 64, &err), &err, "image takes 9");
    m.answer_position = 40;
    assert_ok(multimodal_check_length(&m, true, 34, &err), &err);
    assert_refused(multimodal_check_length(&m, false, 35, &err), &err, "answer_position",
                   "begin at 40", "34 at most");
    m.answer_position = 10; /* the image alone fills what is before the answer */
    assert_ok(multimodal_check_length(&m, false, 0, &err), &err);
    assert_refused(multimodal_check_length(&m, true, 0, &err), &err, "an image does not fit",
                   "9 rows", "10 tokens", "fewer patches");
    char *text = malloc(PROMPT_BYTES + 2);
    memset(text, 'a', PROMPT_BYTES + 1), text[PROMPT_BYTES + 1] = 0;
    AnswerRequest r = {text, -1, 3};
    assert_refused(multimodal_check(&m, &r, NULL, &err), &err, "1048576 bytes");
    text[PROMPT_BYTES] = 0;
    assert_refused(multimodal_check(&m, &r, NULL, &err), &err, "tokens long");
    free(text);
}

/* Fewer together where each one takes much. */
static void calls_stay_small(void **state) {
    (void)state;
    static const struct {
        int beam, samples, steps, want;
    } cases[] = {{1, 1, 0, 64},    {1, 1, 50, 64},    {5, 4, 50, 64},
                 {64, 2, 0, 32},   {50, 100, 0, 1},   {512, 1024, 1000000, 1},
                 {1, 1, 1000, 64}, {1, 1, 10000, 20}, {2, 1, 10000, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CommonOptions *o = malloc(sizeof *o);
        common_init(o);
        o->answer.length_beam = cases[i].beam, o->answer.samples = cases[i].samples;
        o->answer.decode.iterations = cases[i].steps;
        assert_int_equal(common_at_once(o, 64), cases[i].want);
        free(o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_leave_room),     cmocka_unit_test(keep_last_keeps_the_last),
        cmocka_unit_test(damaged_weights_are_named), cmocka_unit_test(limits_are_named),
        cmocka_unit_test(calls_stay_small),          cmocka_unit_test(batches_are_their_requests),
    };
    return cmocka_run_group_tests(tests, bench_open, bench_close);
}
