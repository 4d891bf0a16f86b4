/* Answers chosen from given ones: their likelihoods against those of a model in double precision
 * that scores each choice alone, one canvas at a time; what is refused; ties; many choices. The
 * models are the tiny random ones, post-LN and pre-LN, with both attention patterns, with and
 * without images, a place for answers, and a length predictor. */
#include <math.h>

#include "projector/choices.h"
#include "tests/double_model.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"

enum { IMAGES = 2, REQUESTS = 5, MOST = 9 };

/* A model in one of its variants. */
typedef struct Bench {
    Fixture fixture;
    Multimodal model;
    Tensor images;
    float *host; /* their values */
    DoubleModel reference;
} Bench;

typedef struct Variant {
    int folder;
    AttentionPattern attention;
    int answer_position;
    bool no_length, no_kv_cache;
    int batch_tokens;
} Variant;

static const Variant variants[] = {
    {0, ATTENTION_FULL, 0, false, false, 0},
    {0, ATTENTION_FULL, 70, true, false, 50},
    {0, ATTENTION_BLOCK_CAUSAL, 0, true, true, 0},
    {1, ATTENTION_FULL, 0, true, false, 0},
    {1, ATTENTION_BLOCK_CAUSAL, 0, false, false, 30},
    {1, ATTENTION_BLOCK_CAUSAL, 75, false, true, 0},
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

static void bench_open(Bench *b, const Variant *v) {
    Error err;
    TestRandom random = {7};
    const char *folder = golden_folders[v->folder];
    fixture_open(&b->fixture, folder, "f32");
    b->model = b->fixture.model.parts;
    b->model.attention = v->attention, b->model.answer_position = v->answer_position;
    if (v->no_length) b->model.length = NULL;
    int64_t rows = multimodal_image_rows(&b->model),
            width = b->model.language.xlmr->config.block.width;
    b->images = tensor_2d(NULL, DTYPE_F32, IMAGES * rows, width);
    b->host = malloc(tensor_bytes(b->images));
    for (int64_t i = 0; i < IMAGES * rows * width; i++) b->host[i] = test_random_normal(&random);
    assert_ok(device_alloc(b->fixture.device, &b->images.data, tensor_bytes(b->images), &err),
              &err);
    assert_ok(
        device_upload(b->fixture.device, b->images.data, b->host, tensor_bytes(b->images), &err),
        &err);
    double_model_open(&b->reference, folder, b->model.length != NULL);
    b->reference.model = &b->model;
    b->reference.image_tokens = b->host, b->reference.image_rows = (int)rows;
}

static void bench_close(Bench *b) {
    device_free(b->fixture.device, b->images.data);
    free(b->host);
    double_model_close(&b->reference);
    fixture_close(&b->fixture);
}

static Ids encode(const Multimodal *m, const char *text) {
    Ids ids = {0};
    Error err;
    assert_ok(tokenizer_encode(m->tokenizer, text, strlen(text), &ids, &err), &err);
    return ids;
}

/* The easy-first chain rule, for one choice by itself. */
static double exhaustive(const Bench *b, const ChoiceRequest *r, const char *choice,
                         double *token_scores) {
    const Multimodal *m = &b->model;
    Ids prompt = encode(m, r->prompt), ids = encode(m, choice);
    int n = (int)ids.count, vocab = m->language.xlmr->config.vocab;
    double score = 0, *p = malloc((size_t)(n * vocab) * sizeof *p);
    int32_t canvas[64];
    if (m->length) score = double_length(&b->reference, r->image, prompt.ids, (int)prompt.count, n);
    for (int i = 0; i < n; i++) canvas[i] = tokenizer_mask_id(m->tokenizer);
    for (int t = 0; t < n; t++) {
        int best = -1;
        double_canvas(&b->reference, p, r->image, prompt.ids, (int)prompt.count, canvas, n);
        for (int i = 0; i < n; i++)
            if (canvas[i] != ids.ids[i] &&
                (best < 0 || p[i * vocab + ids.ids[i]] > p[best * vocab + ids.ids[best]]))
                best = i;
        canvas[best] = ids.ids[best];
        token_scores[best] = p[best * vocab + ids.ids[best]];
        score += token_scores[best];
    }
    free(p);
    ids_free(&prompt), ids_free(&ids);
    return score;
}

static const char *const words[] = {"left",    "right",     "the dog", "yes",  "no",
                                    "a b",     "red car",   "two",     "sky",  "on the left",
                                    "nothing", "der Hund.", "black",   "What", "wheel"};
enum { WORDS = sizeof words / sizeof words[0] };

static void check_request(const Bench *b, const ChoiceRequest *r, const ChoiceAnswer *a) {
    double want[MOST], most = -INFINITY, sum = 0;
    if (a->answer.error) fail_msg("%s", a->answer.error);
    assert_int_equal(a->answer.count, r->count);
    for (size_t i = 0; i < r->count; i++) {
        double tokens[64];
        want[i] = exhaustive(b, r, r->choices[i], tokens);
        most = fmax(most, want[i]);
        for (int k = 0; k < a->scores[i].length; k++)
            if (fabs(a->scores[i].scores[k] - tokens[k]) > 2e-4)
                fail_msg("%s, token %d: %.9g, want %.9g", r->choices[i], k, a->scores[i].scores[k],
                         tokens[k]);
    }
    for (size_t i = 0; i < r->count; i++) sum += exp(want[i] - most);
    for (size_t i = 0; i < r->count; i++) {
        const ChoiceScore *s = &a->scores[i];
        if (fabs(s->score - want[i]) > 5e-4)
            fail_msg("%s: %.9g, want %.9g", r->choices[i], s->score, want[i]);
        assert_true(fabs(s->probability - exp(want[i] - most) / sum) < 5e-4);
        if (s->score > a->scores[a->answer.best].score) fail_msg("%s is likelier", r->choices[i]);
    }
}

static void equal_to_exhaustive_scoring(void **state) {
    (void)state;
    static const char *const prompts[] = {"What color is it?", "Is the dog left", "a", "Bild der",
                                          "How many are there in the sky, two or three?"};
    for (int v = 0; v < VARIANTS; v++) {
        Bench b;
        Error err;
        Choices out;
        TestRandom random = {(uint64_t)v + 1};
        ChoiceRequest requests[REQUESTS];
        const char *lists[REQUESTS][MOST];
        bench_open(&b, &variants[v]);
        for (int i = 0; i < REQUESTS; i++) {
            int first = (int)(test_random_next(&random) % WORDS);
            size_t count = i == 0 ? 1 : 2 + (size_t)(test_random_next(&random) % (MOST - 1));
            for (size_t k = 0; k < count; k++) lists[i][k] = words[((size_t)first + k) % WORDS];
            requests[i] = (ChoiceRequest){.prompt = prompts[i],
                                          .image = i % (IMAGES + 1) - 1,
                                          .choices = lists[i],
                                          .count = count};
        }
        const ChoiceOptions options = {.no_kv_cache = variants[v].no_kv_cache,
                                       .batch_tokens = variants[v].batch_tokens};
        assert_ok(multimodal_choose(&b.model, b.images, requests, REQUESTS, &options, &out, &err),
                  &err);
        for (int i = 0; i < REQUESTS; i++) check_request(&b, &requests[i], &out.items[i]);
        assert_true(out.items[0].scores[0].probability == 1);
        choices_free(&out);
        bench_close(&b);
    }
}

/* ---- By likelihood. ---- */

/* The bound, over all masks, for one choice by itself. */
static double exhaustive_bound(const Bench *b, const ChoiceRequest *r, const char *choice) {
    const Multimodal *m = &b->model;
    Ids prompt = encode(m, r->prompt), ids = encode(m, choice);
    const int n = (int)ids.count, vocab = m->language.xlmr->config.vocab;
    const int32_t mask = tokenizer_mask_id(m->tokenizer);
    double by_count[8] = {0}, bound = 0, *p = malloc((size_t)(n * vocab) * sizeof *p);
    int masks[8] = {0};
    int32_t canvas[8];
    assert_in_range(n, 1, 7);
    for (int bits = 1; bits < 1 << n; bits++) {
        int l = 0;
        double loss = 0;
        for (int i = 0; i < n; i++) canvas[i] = bits >> i & 1 ? mask : ids.ids[i];
        double_canvas(&b->reference, p, r->image, prompt.ids, (int)prompt.count, canvas, n);
        for (int i = 0; i < n; i++)
            if (bits >> i & 1) l++, loss -= p[i * vocab + ids.ids[i]];
        by_count[l] += loss / l * n, masks[l]++;
    }
    for (int l = 1; l <= n; l++) bound += by_count[l] / masks[l] / n;
    if (m->length)
        bound -= double_length(&b->reference, r->image, prompt.ids, (int)prompt.count, n);
    free(p);
    ids_free(&prompt), ids_free(&ids);
    return -bound;
}

static const char *const short_ones[] = {"left", "right", "a b", "yes", "no"};

static void check_by_likelihood(const Bench *b, const ChoiceRequest *r, const ChoiceAnswer *a) {
    double want[MOST], most = -INFINITY, sum = 0;
    int best = -1, evaluations = 0;
    if (a->answer.error) fail_msg("%s", a->answer.error);
    for (size_t i = 0; i < r->count; i++) {
        want[i] = exhaustive_bound(b, r, r->choices[i]);
        if (want[i] > most) most = want[i], best = (int)i;
        evaluations += (1 << a->scores[i].length) - 1;
    }
    for (size_t i = 0; i < r->count; i++) sum += exp(want[i] - most);
    for (size_t i = 0; i < r->count; i++) {
        const ChoiceScore *s = &a->scores[i];
        double all = s->length_score;
        for (int k = 0; k < s->length; k++) all += s->scores[k];
        if (fabs(s->score - want[i]) > 5e-4)
            fail_msg("%s: %.9g, want %.9g", r->choices[i], s->score, want[i]);
        assert_true(fabs(all - s->score) < 1e-9);
        assert_true(fabs(s->probability - exp(want[i] - most) / sum) < 5e-4);
    }
    assert_int_equal(a->answer.best, best);
    assert_int_equal(a->evaluations, evaluations);
}

static void by_likelihood(void **state) {
    (void)state;
    static const char *const prompts[] = {"What color is it?", "a"};
    for (int v = 0; v < VARIANTS; v++) {
        Bench b;
        Error err;
        Choices out;
        ChoiceRequest requests[2];
        bench_open(&b, &variants[v]);
        b.reference.whole_vocabulary = true;
        for (int i = 0; i < 2; i++)
            requests[i] = (ChoiceRequest){
                .prompt = prompts[i], .image = i - 1, .choices = short_ones + i, .count = 4};
        const ChoiceOptions options = {.by = CHOICE_BY_LIKELIHOOD,
                                       .no_kv_cache = variants[v].no_kv_cache,
                                       .batch_tokens = variants[v].batch_tokens};
        assert_ok(multimodal_choose(&b.model, b.images, requests, 2, &options, &out, &err), &err);
        for (int i = 0; i < 2; i++) check_by_likelihood(&b, &requests[i], &out.items[i]);
        choices_free(&out);
        bench_close(&b);
    }
}

/* ---- What is refused. ---- */

static char long_choice[4096];

typedef struct Refusal {
    const char *choices[3];
    size_t count;
    const char *word; /* of the message */
    int code;
} Refusal;

static const Refusal refusals[] = {
    {{NULL}, 0, "no choices", ERROR_OTHER},
    {{"yes", NULL}, 2, "choice 2 (\"\"): no text", ERROR_OTHER},
    {{"", "no"}, 2, "choice 1 (\"\"): it is empty", ERROR_OTHER},
    {{"yes", " \t\n"}, 2, "it is empty", ERROR_OTHER},
    {{"yes", "n\xff"}, 2, "choice 2 (\"n\"): byte 1 (0xFF)", ERROR_OTHER},
    {{"yes", "a <mask>"}, 2, "contains <mask>", ERROR_OTHER},
    {{"yes</s>"}, 1, "contains </s>", ERROR_OTHER},
    {{"yes", "\xf0\x93\x80\x80"}, 2, "does not know", ERROR_OTHER},
    {{"yes", "no", "yes"}, 3, "choice 3 (\"yes\"): it is the same as choice 1", ERROR_OTHER},
    {{"a  b", "no", " a b"}, 3, "the same as choice 1", ERROR_OTHER},
    {{"yes", long_choice}, 2, "choice 2", ERROR_TOO_LONG},
};
enum { REFUSALS = sizeof refusals / sizeof refusals[0] };

static void wrong_choices_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < 600; i++) strcat(long_choice, "dog ");
    for (int v = 0; v < VARIANTS; v++) {
        Bench b;
        Error err, why;
        Choices alone, all;
        const ChoiceOptions options = {0};
        ChoiceRequest requests[REFUSALS + 2];
        static const char *const good[] = {"yes", "no"};
        const ChoiceRequest fine = {"Is it?", 0, good, 2};
        bench_open(&b, &variants[v]);
        requests[0] = requests[REFUSALS + 1] = fine;
        for (int i = 0; i < REFUSALS; i++) {
            int longest;
            requests[i + 1] = (ChoiceRequest){"Is it?", -1, refusals[i].choices, refusals[i].count};
            assert_int_equal(choices_check(&b.model, &requests[i + 1], &longest, &why), -1);
            if (!strstr(why.text, refusals[i].word)) fail_msg("%d: %s", i, why.text);
            assert_int_equal(why.code, refusals[i].code);
        }
        assert_ok(multimodal_choose(&b.model, b.images, &fine, 1, &options, &alone, &err), &err);
        assert_ok(
            multimodal_choose(&b.model, b.images, requests, REFUSALS + 2, &options, &all, &err),
            &err);
        for (int i = 0; i < REFUSALS + 2; i++) {
            const ChoiceAnswer *a = &all.items[i];
            bool refused = i > 0 && i <= REFUSALS;
            assert_int_equal(refused, a->answer.error != NULL);
            assert_int_equal(a->answer.count, refused ? 0 : 2);
            if (refused && !strstr(a->answer.error, refusals[i - 1].word))
                fail_msg("%d: %s", i, a->answer.error);
            if (refused) continue;
            assert_int_equal(a->answer.best, alone.items[0].answer.best);
            for (int k = 0; k < 2; k++)
                assert_true(fabs(a->scores[k].score - alone.items[0].scores[k].score) < 1e-4);
        }
        choices_free(&alone), choices_free(&all);
        bench_close(&b);
    }
}

/* A prompt that leaves no room for the longest choice, and the policies. */
static void long_prompts_leave_room_for_the_longest_choice(void **state) {
    (void)state;
    Bench b;
    Error err;
    Choices out;
    static char prompt[8192];
    static const char *const choices[] = {"yes", "on the left of the dog"};
    bench_open(&b, &variants[0]);
    for (int i = 0; i < 400; i++) strcat(prompt, "dog ");
    const ChoiceRequest r = {prompt, -1, choices, 2};
    ChoiceOptions options = {.long_prompts = LONG_PROMPTS_REFUSE};
    for (int policy = LONG_PROMPTS_REFUSE; policy <= LONG_PROMPTS_KEEP_LAST; policy++) {
        options.long_prompts = (LongPrompts)policy;
        assert_ok(multimodal_choose(&b.model, b.images, &r, 1, &options, &out, &err), &err);
        const Answer *a = &out.items[0].answer;
        assert_int_equal(a->error == NULL, policy == LONG_PROMPTS_KEEP_LAST);
        assert_int_equal(a->skipped, policy == LONG_PROMPTS_SKIP);
        if (policy == LONG_PROMPTS_KEEP_LAST) {
            Ids longest = encode(&b.model, choices[1]);
            int kept = a->prompt_tokens - a->dropped_tokens;
            assert_int_equal(kept + (int)longest.count + 2,
                             xlmr_longest(&b.model.language.xlmr->config));
            ids_free(&longest);
        }
        choices_free(&out);
    }
    bench_close(&b);
}

/* ---- Ties, damage. ---- */

/* With a vocabulary whose rows are all `value`, every token is as likely. */
static void choose_flat(const Bench *b, float value, ChoiceBy by, const ChoiceRequest *r,
                        Choices *out) {
    Error err;
    Xlmr flat = *b->model.language.xlmr;
    Multimodal m = b->model;
    int64_t vocab = flat.config.vocab, width = flat.config.block.width;
    size_t size = (size_t)(vocab * width) * sizeof(float);
    float *w = malloc(size);
    for (int64_t i = 0; i < vocab * width; i++) w[i] = value;
    flat.vocab_w = tensor_2d(NULL, DTYPE_F32, vocab, width);
    flat.vocab_b = TENSOR_NONE;
    m.language.xlmr = &flat;
    assert_ok(device_alloc(m.device, &flat.vocab_w.data, size, &err), &err);
    assert_ok(device_upload(m.device, flat.vocab_w.data, w, size, &err), &err);
    const ChoiceOptions options = {.by = by};
    assert_ok(multimodal_choose(&m, b->images, r, 1, &options, out, &err), &err);
    device_free(m.device, flat.vocab_w.data);
    free(w);
}

static void equal_choices_give_the_first(void **state) {
    (void)state;
    Bench b;
    Choices out;
    /* Of one length each, in this tokenizer; the longer ones are less likely. */
    static const char *const choices[] = {"the dog the dog", "a b", "b a"};
    const ChoiceRequest r = {"What?", 0, choices, 3};
    bench_open(&b, &variants[1]);
    choose_flat(&b, 0, CHOICE_BY_DENOISING, &r, &out);
    const ChoiceAnswer *a = &out.items[0];
    double each = -log((double)tokenizer_mask_id(b.model.tokenizer));
    assert_null(a->answer.error);
    assert_int_equal(a->scores[1].length, a->scores[2].length);
    assert_true(a->scores[0].length > a->scores[1].length);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(a->scores[i].score - each * a->scores[i].length) < 1e-5);
    assert_int_equal(a->answer.best, 1);
    assert_true(a->scores[1].probability == a->scores[2].probability);
    choices_free(&out);
    for (int by = CHOICE_BY_DENOISING; by <= CHOICE_BY_LIKELIHOOD; by++) {
        choose_flat(&b, NAN, (ChoiceBy)by, &r, &out);
        assert_non_null(strstr(out.items[0].answer.error, "not finite"));
        assert_int_equal(out.items[0].answer.count, 0);
        choices_free(&out);
    }
    choose_flat(&b, 0, CHOICE_BY_LIKELIHOOD, &r, &out);
    a = &out.items[0];
    each = -log((double)b.model.language.xlmr->config.vocab); /* <mask> counts */
    for (int i = 0; i < 3; i++)
        assert_true(fabs(a->scores[i].score - each * a->scores[i].length) < 1e-5);
    choices_free(&out);
    bench_close(&b);
}

/* ---- Many. ---- */

static void a_thousand_choices(void **state) {
    (void)state;
    enum { MANY = 1000, SOME = 7 };
    Bench b;
    Error err;
    Choices all, some;
    static char texts[MANY][64];
    const char *choices[MANY], *few[SOME];
    const ChoiceOptions options = {0}, small = {.batch_tokens = 64};
    double sum = 0;
    bench_open(&b, &variants[4]);
    for (int i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof texts[i], "%s %s %s", words[i % 10], words[i / 10 % 10],
                 words[i / 100]);
        choices[i] = texts[i];
    }
    for (int i = 0; i < SOME; i++) few[i] = choices[(i * 149 + 3) % MANY];
    const ChoiceRequest r = {"How many?", 1, choices, MANY}, s = {"How many?", 1, few, SOME};
    assert_ok(multimodal_choose(&b.model, b.images, &r, 1, &options, &all, &err), &err);
    assert_ok(multimodal_choose(&b.model, b.images, &s, 1, &small, &some, &err), &err);
    for (int i = 0; i < MANY; i++) sum += all.items[0].scores[i].probability;
    assert_true(fabs(sum - 1) < 1e-9);
    for (int i = 0; i < SOME; i++) {
        double want = all.items[0].scores[(i * 149 + 3) % MANY].score;
        assert_true(fabs(some.items[0].scores[i].score - want) < 1e-4);
    }
    choices_free(&all), choices_free(&some);
    bench_close(&b);
}

/* Choices of one token need one evaluation together. */
static void choices_share_evaluations(void **state) {
    (void)state;
    Bench b;
    Error err;
    Choices out;
    bench_open(&b, &variants[0]);
    const char *choices[64];
    size_t count = 0;
    char pieces[64][32];
    for (int32_t id = TOKEN_UNK + 1; id < tokenizer_mask_id(b.model.tokenizer) && count < 12;
         id++) {
        const char *piece = tokenizer_piece(b.model.tokenizer, id);
        if (strncmp(piece, "\u2581", 3) != 0 || !piece[3]) continue;
        snprintf(pieces[count], sizeof pieces[count], "%s", piece + 3);
        Ids ids = encode(&b.model, pieces[count]);
        if (ids.count == 1) choices[count] = pieces[count], count++;
        ids_free(&ids);
    }
    assert_true(count >= 5);
    const ChoiceRequest r = {"What?", -1, choices, count};
    const ChoiceOptions options = {0};
    assert_ok(multimodal_choose(&b.model, b.images, &r, 1, &options, &out, &err), &err);
    assert_null(out.items[0].answer.error);
    assert_int_equal(out.items[0].evaluations, 1);
    assert_int_equal(out.counts.inspections, 1);
    choices_free(&out);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_to_exhaustive_scoring),
        cmocka_unit_test(by_likelihood),
        cmocka_unit_test(wrong_choices_are_refused),
        cmocka_unit_test(long_prompts_leave_room_for_the_longest_choice),
        cmocka_unit_test(equal_choices_give_the_first),
        cmocka_unit_test(a_thousand_choices),
        cmocka_unit_test(choices_share_evaluations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
