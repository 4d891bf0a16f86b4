/* Traces: what was filled in comes back from a file to the last bit, from the steps as from the
 * answers, and no file can do harm. */
#include <math.h>
#include <unistd.h>

#include "apps/show/fold.h"
#include "apps/trace/trace.h"
#include "tests/test.h"

#define TOKENIZER "tests/golden/models/tiny-base/language"
#define RUNS      2 /* hypotheses */

static const int lengths[RUNS] = {5, 3}, steps[RUNS] = {7, 4};

typedef struct Made {
    char folder[256], path[300];
    Tokenizer *tokenizer;
    DecodeOptions options;
    DecodeSpec specs[RUNS + 1];
    DecodeResult results[RUNS + 1]; /* the first is another request's */
    Answer items[2];
    Answers answers;
} Made;

static float any_score(TestRandom *random) {
    return -(float)exp(12 * test_random_uniform(random) - 9);
}

/* Answers as the decoder could leave them, with numbers of all sizes. */
static void made_open(Made *m) {
    Error err;
    TestRandom random = {77};
    *m = (Made){.options = decode_options_default()};
    m->options.seed = INT64_MAX;
    assert_ok(tokenizer_open(&m->tokenizer, TOKENIZER, &err), &err);
    int32_t mask = tokenizer_mask_id(m->tokenizer);
    for (int r = 1; r <= RUNS; r++) {
        DecodeResult *result = &m->results[r];
        int n = lengths[r - 1], cells = n * steps[r - 1];
        *result = (DecodeResult){.length = n,
                                 .steps = steps[r - 1],
                                 .tokens = malloc((size_t)n * sizeof(int32_t)),
                                 .trace = malloc((size_t)cells * sizeof(TraceCell)),
                                 .evaluated = malloc((size_t)steps[r - 1]),
                                 .score = -1 / 3.0 * r,
                                 .evaluations = 2 + r};
        for (int i = 0; i < cells; i++) {
            bool masked = i < cells - n && test_random_uniform(&random) < 0.5;
            TraceCell *cell = &result->trace[i];
            cell->token = masked ? mask : (int32_t)(test_random_next(&random) % 200);
            cell->score = masked ? -INFINITY : any_score(&random);
            cell->proposal =
                (Proposal){(int32_t)(test_random_next(&random) % 200), any_score(&random)};
        }
        for (int s = 0; s < steps[r - 1]; s++)
            result->evaluated[s] = test_random_uniform(&random) < 0.5;
        for (int i = 0; i < n; i++) result->tokens[i] = result->trace[cells - n + i].token;
        m->specs[r] = (DecodeSpec){.request = 1, .length = n, .sample = r};
    }
    m->items[1] =
        (Answer){.first = 1, .count = RUNS, .best = 1, .prompt_tokens = 12, .dropped_tokens = 3};
    m->answers = (Answers){.items = m->items,
                           .count = 2,
                           .specs = m->specs,
                           .results = m->results,
                           .result_count = RUNS + 1};
    temporary_folder(m->folder, sizeof m->folder);
    snprintf(m->path, sizeof m->path, "%s/trace.json", m->folder);
}

static void made_close(Made *m) {
    for (int r = 1; r <= RUNS; r++)
        free(m->results[r].tokens), free(m->results[r].trace), free(m->results[r].evaluated);
    tokenizer_close(m->tokenizer);
    temporary_remove(m->folder);
}

/* With a name that is not valid UTF-8, a question that has everything, and all that may be added. */
static void made_trace(Made *m, Trace *trace) {
    Error err;
    TestRandom random = {5};
    TraceAbout about = {.image = "caf\xe9.jpg",
                        .question = "Wo ist \"das\"\t\xe7\x8b\x97?\033[31m\n</script>",
                        .model = "models/tiny",
                        .options = &m->options};
    assert_ok(trace_from_answers(trace, &about, &m->answers, 1, m->tokenizer, &err), &err);
    PreprocessConfig config = preprocess_clip_default();
    config.pad = true;
    assert_ok(trace_geometry(trace, 641, 427, &config, 3, &err), &err);
    float attention[5 * 9];
    for (int i = 0; i < 45; i++) attention[i] = expf(-20 * (float)test_random_uniform(&random));
    assert_ok(trace_attention(trace, 0, attention, &err), &err);
    Proposal alternatives[3] = {{10, -1.0F / 3}, {11, -1e-30F}, {12, -INFINITY}};
    assert_ok(trace_alternatives(trace, 1, 2, 1, alternatives, 3, m->tokenizer, &err), &err);
    assert_ok(trace_alternatives(trace, 0, 0, 0, alternatives, 1, m->tokenizer, &err), &err);
}

/* ---- The same again. ---- */

static void same_float(float a, float b) {
    assert_memory_equal(&a, &b, sizeof a);
}

static void same_text(const char *a, const char *b) {
    if (!a || !b) assert_true(a == b);
    if (a && b) assert_string_equal(a, b);
}

static void same_entry(const TraceEntry *a, const TraceEntry *b) {
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->masked, b->masked);
    assert_int_equal(a->proposal, b->proposal);
    assert_string_equal(a->piece, b->piece);
    assert_string_equal(a->proposal_piece, b->proposal_piece);
    same_float(a->score, b->score), same_float(a->proposal_score, b->proposal_score);
    assert_int_equal(a->alternative_count, b->alternative_count);
    for (int i = 0; i < a->alternative_count; i++) {
        assert_int_equal(a->alternatives[i].id, b->alternatives[i].id);
        assert_string_equal(a->alternatives[i].piece, b->alternatives[i].piece);
        same_float(a->alternatives[i].score, b->alternatives[i].score);
    }
}

static void same_trace(const Trace *a, const Trace *b) {
    same_text(a->image, b->image), same_text(a->question, b->question);
    same_text(a->model, b->model), same_text(a->strategy, b->strategy);
    assert_int_equal(a->is_prompt, b->is_prompt);
    assert_true(a->seed == b->seed && a->finished && b->finished);
    assert_int_equal(a->prompt_tokens, b->prompt_tokens);
    assert_int_equal(a->dropped_tokens, b->dropped_tokens);
    assert_memory_equal(&a->geometry, &b->geometry, sizeof a->geometry);
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->best, b->best);
    for (int i = 0; i < a->count; i++) {
        const TraceHypothesis *g = &a->hypotheses[i], *h = &b->hypotheses[i];
        assert_int_equal(g->length, h->length);
        assert_int_equal(g->sample, h->sample);
        assert_int_equal(g->evaluations, h->evaluations);
        assert_memory_equal(&g->score, &h->score, sizeof g->score);
        assert_string_equal(g->text, h->text);
        assert_int_equal(g->steps, h->steps);
        assert_int_equal(g->planned, h->planned);
        for (int s = 0; s < g->steps; s++) {
            assert_int_equal(g->evaluated[s], h->evaluated[s]);
            for (int k = 0; k < g->length; k++)
                same_entry(&trace_entries(g, s)[k], &trace_entries(h, s)[k]);
        }
        assert_int_equal(g->attention != NULL, h->attention != NULL);
        if (g->attention)
            assert_memory_equal(g->attention, h->attention,
                                (size_t)(g->length * a->geometry.grid * a->geometry.grid) *
                                    sizeof *g->attention);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    Made m;
    Error err;
    Trace trace, back;
    made_open(&m), made_trace(&m, &trace);
    assert_string_equal(trace.image, "caf\xef\xbf\xbd.jpg");
    assert_int_equal(trace.count, RUNS);
    assert_int_equal(trace.best, 0);
    for (int i = 0; i < RUNS; i++) {
        const DecodeResult *r = &m.results[i + 1];
        const TraceHypothesis *h = &trace.hypotheses[i];
        assert_int_equal(h->length, lengths[i]);
        assert_int_equal(h->steps, steps[i]);
        assert_int_equal(h->sample, i + 1);
        for (int k = 0; k < h->length * h->steps; k++) {
            const TraceEntry *e = &h->entries[k];
            assert_int_equal(e->id, r->trace[k].token);
            assert_string_equal(e->piece, tokenizer_piece(m.tokenizer, e->id));
            same_float(e->score, r->trace[k].score);
            same_float(e->proposal_score, r->trace[k].proposal.score);
        }
        for (int s = 1; s < h->steps; s++) {
            bool changes = false;
            for (int k = 0; k < h->length; k++)
                changes |= trace_entries(h, s)[k].id != trace_entries(h, s - 1)[k].id;
            assert_int_equal(trace_changes(h, s), changes);
        }
    }
    assert_ok(trace_write_json(&trace, m.path, &err), &err);
    assert_ok(trace_read_json(&back, m.path, &err), &err);
    same_trace(&trace, &back);
    /* The same trace gives the same bytes. */
    char *first = file_bytes(m.path, NULL);
    assert_ok(trace_write_json(&back, m.path, &err), &err);
    char *second = file_bytes(m.path, NULL);
    assert_string_equal(first, second);
    assert_true(first[strlen(first) - 1] == '\n');
    free(first), free(second);
    trace_free(&trace), trace_free(&back);
    trace_free(&back); /* an empty one may be freed again */
    made_close(&m);
}

/* Step by step, hypotheses in turn, as a watch is told them. */
static void test_step_by_step(void **state) {
    (void)state;
    Made m;
    Error err;
    Trace whole, grown;
    made_open(&m);
    TraceAbout about = {.question = "q", .is_prompt = true, .options = &m.options};
    assert_ok(trace_from_answers(&whole, &about, &m.answers, 1, m.tokenizer, &err), &err);
    assert_ok(trace_begin(&grown, &about, &err), &err);
    for (int s = 0; s < steps[0]; s++)
        for (int i = 0; i < RUNS; i++) {
            const DecodeResult *r = &m.results[i + 1];
            DecodeStep step = {.hypothesis = i,
                               .step = s + 1,
                               .steps = r->steps,
                               .length = r->length,
                               .evaluated = s < r->steps && r->evaluated[s],
                               .cells = r->trace + s * r->length};
            if (s < r->steps) assert_ok(trace_step(&grown, m.tokenizer, &step, &err), &err);
            if (s > 0) continue;
            step.step = 3; /* the second is missing */
            assert_refused(trace_step(&grown, m.tokenizer, &step, &err), &err, "does not follow");
        }
    assert_false(grown.finished);
    assert_refused(trace_finish(&grown, &m.answers, 0, m.tokenizer, &err), &err, "hypotheses");
    assert_ok(trace_finish(&grown, &m.answers, 1, m.tokenizer, &err), &err);
    same_trace(&whole, &grown);
    trace_free(&whole), trace_free(&grown);
    free(m.results[2].trace), m.results[2].trace = NULL;
    assert_refused(trace_from_answers(&whole, &about, &m.answers, 1, m.tokenizer, &err), &err,
                   "without keeping its steps");
    made_close(&m);
}

static void test_additions_refused(void **state) {
    (void)state;
    Made m;
    Error err;
    Trace trace;
    made_open(&m);
    TraceAbout about = {.question = "q", .options = &m.options};
    assert_ok(trace_from_answers(&trace, &about, &m.answers, 1, m.tokenizer, &err), &err);
    float attention[5] = {0, 1, NAN, 0, 0};
    PreprocessConfig config = preprocess_clip_default();
    assert_refused(trace_attention(&trace, 0, attention, &err), &err, "without an image");
    assert_ok(trace_geometry(&trace, 10, 10, &config, 1, &err), &err);
    assert_refused(trace_attention(&trace, 0, attention, &err), &err, "nan");
    assert_refused(trace_attention(&trace, 2, attention, &err), &err, "2 hypotheses");
    attention[2] = -1;
    assert_refused(trace_attention(&trace, 0, attention, &err), &err, "-1");
    Proposal alternative = {3, NAN};
    assert_refused(trace_alternatives(&trace, 0, 0, 0, &alternative, 1, m.tokenizer, &err), &err,
                   "number");
    assert_refused(trace_alternatives(&trace, 0, 7, 0, &alternative, 1, m.tokenizer, &err), &err,
                   "step 7");
    assert_refused(trace_alternatives(&trace, 1, 0, 3, &alternative, 1, m.tokenizer, &err), &err,
                   "position 3");
    trace_free(&trace);
    made_close(&m);
}

/* ---- Hostile files. ---- */

static void refuse(Made *m, const char *text, size_t size, const char *word) {
    Error err;
    Trace trace;
    FILE *f = fopen(m->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    assert_refused(trace_read_json(&trace, m->path, &err), &err, "trace.json: ", word);
    assert_true(trace.count == 0 && !trace.hypotheses && !trace.question);
}

/* What stands at a path such as "hypotheses/1/trace/0/cells/2" in a JSON document. */
static json_t *at_path(json_t *root, const char *path) {
    char copy[128], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok_r(copy, "/", &rest); name; name = strtok_r(NULL, "/", &rest))
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(name))
                                   : json_object_get(root, name);
    assert_non_null(root);
    return root;
}

static void test_wrong_members(void **state) {
    (void)state;
    static const struct {
        const char *path, *name, *value; /* NULL: the member is taken away */
        const char *words[3];
    } wrong[] = {
        {"", "question", NULL, {"\"question\" is missing, expected a string"}},
        {"", "question", "7", {"\"question\" is a number"}},
        {"", "question", "\"a\\u0000b\"", {"NUL"}},
        {"", "image", "[]", {"\"image\" is an array"}},
        {"", "model", "{}", {"\"model\" is an object"}},
        {"", "strategy", "null", {"\"strategy\" is null"}},
        {"", "seed", "-1", {"\"seed\" is -1", "0 to 9223372036854775807"}},
        {"", "seed", "1.5", {"\"seed\" is a number, expected a whole"}},
        {"", "prompt_tokens", "true", {"\"prompt_tokens\" is true or false"}},
        {"", "dropped_tokens", "-2", {"\"dropped_tokens\" is -2"}},
        {"", "hypotheses", NULL, {"\"hypotheses\" is missing"}},
        {"", "hypotheses", "[]", {"\"hypotheses\" is an array of 0"}},
        {"", "hypotheses", "[3]", {"hypotheses[0]"}},
        {"", "best", "2", {"\"best\" is 2", "0 to 1"}},
        {"", "best", "1", {"\"trace\" is missing"}},
        {"", "answer", "\"x\"", {"\"answer\" is another text"}},
        {"", "length", "4", {"\"length\" is 4", "5 to 5"}},
        {"", "steps", "8", {"\"steps\" is 8"}},
        {"", "trace", NULL, {"\"trace\" is missing"}},
        {"", "trace", "[]", {"\"trace\" is an array of 0"}},
        {"", "trace", "[1]", {"trace[0]: \"step\" is missing"}},
        {"", "geometry", NULL, {"\"attention\" is there"}},
        {"", "geometry", "[]", {"\"geometry\" is an array"}},
        {"geometry", "width", "0", {"geometry: \"width\" is 0"}},
        {"geometry", "grid", "4", {"\"attention\" is an array of another shape"}},
        {"geometry", "grid", "1000000", {"\"grid\" is 1000000"}},
        {"geometry", "scale_x", "\"1\"", {"\"scale_x\" is a string"}},
        {"hypotheses/0", "text", NULL, {"hypotheses[0]: \"text\" is missing"}},
        {"hypotheses/1", "length", "0", {"hypotheses[1]: \"length\" is 0"}},
        {"hypotheses/1", "length", "2000000", {"\"length\" is 2000000"}},
        {"hypotheses/1", "length", "4", {"\"cells\" is an array of 3, expected an array of 4"}},
        {"hypotheses/1", "sample", "-1", {"\"sample\" is -1"}},
        {"hypotheses/1", "score", "\"good\"", {"hypotheses[1]: \"score\" is a string"}},
        {"hypotheses/1", "score", "1e300", {"\"score\" is too large"}},
        {"hypotheses/1", "trace", "{}", {"hypotheses[1]: \"trace\" is an object"}},
        {"hypotheses/0", "attention", "[]", {"\"attention\" is an array of 0"}},
        {"hypotheses/0/attention/4", "", "[1]", {"for each patch"}},
        {"hypotheses/0/attention/4/8", "", "-1", {"numbers from 0 on"}},
        {"trace/3", "step", "3", {"trace[3]: \"step\" is 3"}},
        {"trace/3", "evaluated", "1", {"trace[3]: \"evaluated\" is a number"}},
        {"trace/3", "cells", "null", {"trace[3]: \"cells\" is null"}},
        {"trace/3/cells/2", "id", "-1", {"trace[3].cells[2]: \"id\" is -1"}},
        {"trace/3/cells/2", "id", "4294967296", {"\"id\" is 4294967296"}},
        {"trace/3/cells/2", "piece", "1", {"trace[3].cells[2]: \"piece\" is a number"}},
        {"trace/0/cells/0/top_k/0", "id", "11", {"token 11 is ", "has one text"}},
        {"trace/3/cells/2", "masked", NULL, {"\"masked\" is missing"}},
        {"trace/3/cells/2", "score", NULL, {"\"score\" is missing"}},
        {"trace/3/cells/2", "proposal_score", "[]", {"\"proposal_score\" is an array"}},
        {"trace/0/cells/0/top_k", "", "[]", {"\"top_k\" is an array of 0"}},
        {"trace/0/cells/0/top_k/0", "id", NULL, {"\"id\" is missing"}},
        {"hypotheses/1/trace/2/cells/1", "proposal", "2.0", {"hypotheses[1].trace[2].cells[1]"}},
    };
    Made m;
    Error err;
    Trace trace;
    made_open(&m), made_trace(&m, &trace);
    json_t *sound = trace_json(&trace);
    assert_non_null(sound);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *root = json_deep_copy(sound), *holder = at_path(root, wrong[i].path);
        json_t *value = wrong[i].value
                            ? json_loads(wrong[i].value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL)
                            : NULL;
        if (!wrong[i].name[0]) { /* in the place of the thing itself */
            char above[128];
            snprintf(above, sizeof above, "%s", wrong[i].path);
            char *last = strrchr(above, '/');
            *last++ = 0;
            json_t *up = at_path(root, above);
            if (json_is_array(up))
                json_array_set_new(up, (size_t)atoi(last), value);
            else
                json_object_set_new(up, last, value);
        } else if (value) {
            json_object_set_new(holder, wrong[i].name, value);
        } else {
            json_object_del(holder, wrong[i].name);
        }
        char *text = json_dumps(root, 0);
        for (int w = 0; w < 3 && wrong[i].words[w]; w++)
            refuse(&m, text, strlen(text), wrong[i].words[w]);
        free(text), json_decref(root);
    }
    /* What may be missing. */
    static const char *const spare[] = {"image", "model", "best", "tokens", "evaluations", "score"};
    json_t *root = json_deep_copy(sound);
    for (size_t i = 0; i < sizeof spare / sizeof spare[0]; i++) json_object_del(root, spare[i]);
    json_object_set_new(root, "unknown", json_integer(1));
    assert_int_equal(json_dump_file(root, m.path, 0), 0);
    Trace back;
    assert_ok(trace_read_json(&back, m.path, &err), &err);
    assert_int_equal(back.best, trace.best);
    assert_null(back.image);
    trace_free(&back), trace_free(&trace), json_decref(root), json_decref(sound);
    made_close(&m);
}

static void test_broken_files(void **state) {
    (void)state;
    Made m;
    Error err;
    Trace trace;
    made_open(&m), made_trace(&m, &trace);
    assert_ok(trace_write_json(&trace, m.path, &err), &err);
    trace_free(&trace);
    size_t size;
    char *text = file_bytes(m.path, &size), *two = malloc(2 * size);
    TestRandom random = {99};
    refuse(&m, "", 0, "is empty");
    refuse(&m, "7", 1, "expected an object");
    refuse(&m, "{\"error\": \"no such image\"}", 26, "no such image");
    refuse(&m, "\xff\xfe", 2, "line 1");
    refuse(&m, "{\"seed\": 1, \"seed\": 2}", 22, "duplicate");
    for (size_t n = 1; n + 2 < size; n += 997) refuse(&m, text, n, "line 1");
    memcpy(two, text, size), memcpy(two + size, text, size);
    refuse(&m, two, 2 * size, "nothing after it");
    memset(two, '[', 2 * size);
    refuse(&m, two, 2 * size, "nested");
    /* Any byte may be another: that is refused, or it is a sound trace still. */
    int refused = 0;
    for (int i = 0; i < 400; i++) {
        memcpy(two, text, size);
        for (int k = 0; k < 1 + i % 3; k++)
            two[test_random_next(&random) % size] =
                i % 2 ? (char)test_random_next(&random)
                      : "0123456789{}[],:\"tfn"[test_random_next(&random) % 20];
        FILE *f = fopen(m.path, "wb");
        assert_non_null(f);
        fwrite(two, 1, size, f), fclose(f);
        if (trace_read_json(&trace, m.path, &err)) {
            refused++;
            assert_non_null(strstr(err.text, "trace.json: "));
            assert_null(strchr(err.text, '\n'));
        } else {
            json_t *again = trace_json(&trace);
            assert_non_null(again);
            json_decref(again), trace_free(&trace);
        }
    }
    assert_in_range(refused, 50, 399);
    assert_refused(trace_read_json(&trace, "no/such.json", &err), &err, "no/such.json");
    assert_refused(trace_read_json(&trace, "tests", &err), &err, "tests: ");
    free(text), free(two);
    made_close(&m);
}

/* A hypothesis that failed is left out, whichever it is; without any other there is no trace. */
static void test_failed_hypotheses(void **state) {
    (void)state;
    const TraceAbout about = {.question = "q"};
    for (int failed = 1; failed <= RUNS; failed++) {
        Made m;
        Trace trace;
        Error err;
        made_open(&m);
        TraceAbout asked = about;
        asked.options = &m.options;
        m.results[failed].error = strdup("its scores are NaN");
        m.results[failed].steps = failed == 1 ? 2 : 0;
        m.items[1].best = failed == 1 ? 2 : 1;
        assert_ok(trace_from_answers(&trace, &asked, &m.answers, 1, m.tokenizer, &err), &err);
        assert_int_equal(trace.count, 1);
        assert_int_equal(trace.best, 0);
        assert_int_equal(trace.hypotheses[0].length, lengths[failed == 1]);
        assert_int_equal(trace.hypotheses[0].sample, m.specs[failed == 1 ? 2 : 1].sample);
        assert_ok(trace_write_json(&trace, m.path, &err), &err);
        trace_free(&trace);
        assert_ok(trace_read_json(&trace, m.path, &err), &err);
        trace_free(&trace);
        free(m.results[failed].error);
        m.results[failed].error = NULL;
        made_close(&m);
    }
}

/* ---- Folded. ---- */

/* A trace in which positions change among few words, with masks, at random. */
static void flickering(Trace *trace, const Tokenizer *tokenizer, int words, int length, int count,
                       TestRandom *random) {
    const DecodeOptions options = decode_options_default();
    Error err;
    assert_ok(trace_begin(trace, &(TraceAbout){.question = "q", .options = &options}, &err), &err);
    int32_t mask = tokenizer_mask_id(tokenizer);
    for (int s = 0; s < count; s++) {
        TraceCell cells[8];
        for (int i = 0; i < length; i++) {
            bool masked = s < count - 1 && test_random_uniform(random) < 0.4;
            int32_t word = 10 + (int32_t)(test_random_next(random) % (unsigned)words);
            cells[i] = (TraceCell){.token = masked ? mask : word,
                                   .score = masked ? -INFINITY : any_score(random),
                                   .proposal = {word, -1}};
        }
        assert_ok(trace_step(trace, tokenizer,
                             &(DecodeStep){.step = s + 1,
                                           .steps = count,
                                           .length = length,
                                           .evaluated = true,
                                           .cells = cells},
                             &err),
                  &err);
    }
}

/* No word that is gone comes back, none is shown before it was written or in another place, what is
 * shown at the end is what is there, and the trace is as it was. */
static void check_folded(const TraceHypothesis *h, const TraceHypothesis *shown) {
    for (int i = 0; i < h->length; i++) {
        for (int s = 0; s < h->steps; s++) {
            const TraceEntry *real = &trace_entries(h, s)[i], *e = &trace_entries(shown, s)[i];
            const TraceEntry *before = s ? &trace_entries(shown, s - 1)[i] : NULL;
            bool written = false;
            for (int t = 0; t <= s; t++)
                written |= !trace_entries(h, t)[i].masked && trace_entries(h, t)[i].id == e->id;
            assert_true(e->masked ? real->masked : written);
            if (before && !before->masked) assert_false(e->masked);
            for (int t = s + 1; before && !before->masked && e->id != before->id && t < h->steps;
                 t++)
                assert_int_not_equal(trace_entries(shown, t)[i].id, before->id);
            assert_int_equal(real->proposal, e->proposal);
            if (real->id == e->id) assert_true(real->masked || real->score == e->score);
            if (s == h->steps - 1) assert_int_equal(real->id, e->id);
        }
    }
}

static void test_folded(void **state) {
    (void)state;
    Made m;
    Error err;
    TestRandom random = {.state = 32};
    made_open(&m);
    for (int round = 0; round < 200; round++) {
        Trace trace, shown;
        int words = 1 + round % 4, count = 1 + round % 23;
        flickering(&trace, m.tokenizer, words, 1 + round % 8, count, &random);
        TraceHypothesis *h = &trace.hypotheses[0];
        size_t bytes = (size_t)h->steps * (size_t)h->length * sizeof *h->entries;
        TraceEntry *copy = malloc(bytes);
        memcpy(copy, h->entries, bytes);
        assert_ok(fold_make(&shown, &trace, &err), &err);
        check_folded(h, &shown.hypotheses[0]);
        for (int i = 0; words == 1 && i < h->length; i++) /* nothing but what is written once */
            for (int s = 1; s < count; s++)
                assert_true(trace_entries(&shown.hypotheses[0], s - 1)[i].masked ||
                            !trace_entries(&shown.hypotheses[0], s)[i].masked);
        assert_memory_equal(copy, h->entries, bytes);
        fold_free(&shown), trace_free(&trace), free(copy);
    }
    made_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),        cmocka_unit_test(test_step_by_step),
        cmocka_unit_test(test_additions_refused), cmocka_unit_test(test_wrong_members),
        cmocka_unit_test(test_broken_files),      cmocka_unit_test(test_folded),
        cmocka_unit_test(test_failed_hypotheses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
