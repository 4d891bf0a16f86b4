/* Training data of LLaMA's kind: prompts have the ids that answering gives them, answers end as such
 * models end them, padded answers, pieces of random lengths, and rows that predict the next. */
#include "apps/train/trainer.h"
#include "language/chat_template.h"
#include "projector/model_chat.h"
#include "projector/packing.h"
#include "projector/requests.h"
#include "tests/matrix.h"
#include "tests/test.h"

#define FOLDERS "tests/golden/llama/folders/"
#define CAUSAL  "tests/golden/causal/"
enum { NO_CHAT = -1, TURNS = 4, MASK = 7, ROWS = 128 };

static const RecordTurn conversation[TURNS] = {
    {"Who is there?", "It is me."},
    {"<|begin_of_text|>What is it?", "A dog, brown."},
    {"And why so?", "I do not know"},
    {"How old is the dog of your brother?", "three"},
};

typedef struct Trained {
    Device *device;
    TrainSettings settings;
    TrainModel model;
} Trained;

static void trained_open(Trained *t, const char *folder, int chat) {
    Error err;
    train_settings_default(&t->settings, STAGE_INSTRUCT);
    t->settings.model.folder = folder;
    assert_ok(test_device_open(&t->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(train_model_open(&t->model, &t->settings, t->device, &err), &err);
    t->model.model.chats = chat != NO_CHAT;
    if (chat != NO_CHAT) t->model.model.chat = (ChatTemplate)chat;
}

static void trained_close(Trained *t) {
    train_model_close(&t->model);
    device_close(t->device);
}

static void make(Examples *examples, const Record *record, const ExampleConfig *config) {
    Error err;
    Skipped skipped = {0};
    assert_ok(examples_make(examples, record, config, "a record", &skipped, &err), &err);
    assert_int_equal(skipped.total, 0);
}

/* ---- Prompts. ---- */

/* What answering makes of a question after the turns before it. */
static void check_prompt(const Trained *t, int turn, int first, const ExampleTurn *got) {
    Error err;
    Answer answer;
    Prompts prompts;
    const Model *m = &t->model.model;
    char *prompt = strdup(conversation[turn].prompt);
    AnswerRequest request = {.image = -1, .length = got->answer_count};
    if (m->chats)
        assert_ok(model_chat_prompt(m, conversation + first, (size_t)(turn - first), &prompt, &err),
                  &err);
    else
        request.turns = conversation + first, request.turn_count = turn - first;
    request.prompt = prompt;
    Multimodal parts = m->parts;
    assert_ok(prompts_encode(&prompts, &parts, &request, 1, 0, LONG_PROMPTS_REFUSE, &answer, &err),
              &err);
    if (answer.error) fail_msg("%s", answer.error);
    assert_int_equal(prompts.items[0].count, got->prompt_count);
    assert_memory_equal(prompts.items[0].ids, got->prompt,
                        (size_t)got->prompt_count * sizeof *got->prompt);
    prompts_free(&prompts);
    free(prompt);
}

static const struct {
    const char *folder;
    int chat;
    int32_t begin, answer_end, text_end;
} cases[] = {
    {FOLDERS "llada", CHAT_LLADA, 420, 422, 421}, {FOLDERS "llada", CHAT_LLAMA3, 420, 422, 421},
    {FOLDERS "llada", NO_CHAT, 420, 421, 421},    {FOLDERS "dream", CHAT_DREAM, -1, 422, 420},
    {FOLDERS "dream", CHAT_CHATML, -1, 422, 420}, {FOLDERS "dream", NO_CHAT, -1, 420, 420},
    {CAUSAL "llama", CHAT_LLAMA2, 1, 2, 2},       {CAUSAL "qwen2", NO_CHAT, -1, 0, 0},
};

/* Without context every turn is a conversation of its own; with it all earlier turns are before it
 * (they fit), each followed by what training has learned to write after it. */
static void test_prompts(void **state) {
    (void)state;
    const Record record = {.id = "1", .turns = (RecordTurn *)conversation, .count = TURNS};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        Trained t;
        Examples examples = {0};
        trained_open(&t, cases[c].folder, cases[c].chat);
        assert_int_equal(t.model.model.parts.language.begin, cases[c].begin);
        for (int context = 0; context < 2; context++) {
            ExampleConfig config = trainer_examples(&t.model, &t.settings);
            config.context = context, config.longest = config.positions = 4000;
            Multimodal *parts = &t.model.model.parts;
            ((Llama *)(uintptr_t)parts->language.llama)->config.positions = 4000;
            make(&examples, &record, &config);
            assert_int_equal(examples.count, TURNS);
            for (int i = 0; i < TURNS; i++) {
                const Example *e = &examples.items[i];
                const ExampleTurn *turn = e->turns;
                check_prompt(&t, i, context ? 0 : i, turn);
                assert_int_equal(turn->answer[turn->answer_count - 1], cases[c].answer_end);
                Ids answer = {0};
                Error err;
                const char *text = conversation[i].response;
                assert_ok(tokenizer_encode(config.tokenizer, text, strlen(text), &answer, &err),
                          &err);
                assert_int_equal(answer.count + 1, turn->answer_count);
                assert_memory_equal(answer.ids, turn->answer, answer.count * sizeof *answer.ids);
                ids_free(&answer);
                assert_int_equal(e->tokens,
                                 (cases[c].begin >= 0) + turn->prompt_count + turn->answer_count);
            }
        }
        examples_free(&examples);
        trained_close(&t);
    }
}

/* As many complete turns as fit, in a template, too. */
static void test_context_fits(void **state) {
    (void)state;
    Trained t;
    Examples examples = {0};
    const Record record = {.id = "1", .turns = (RecordTurn *)conversation, .count = TURNS};
    trained_open(&t, FOLDERS "llada", CHAT_LLADA);
    ExampleConfig config = trainer_examples(&t.model, &t.settings);
    ((Llama *)(uintptr_t)config.language.llama)->config.positions = 4000;
    config.context = true, config.longest = config.positions = 4000;
    make(&examples, &record, &config);
    int all[TURNS], kinds = 0;
    for (int i = 0; i < TURNS; i++) all[i] = examples.items[i].tokens;
    int before = 0;
    config.context = false;
    make(&examples, &record, &config);
    const int alone = examples.items[TURNS - 1].tokens;
    config.context = true;
    for (int longest = all[TURNS - 1]; longest >= alone; longest -= 7) {
        config.longest = config.positions = longest;
        make(&examples, &record, &config);
        const Example *last = &examples.items[examples.count - 1];
        assert_true(last->tokens <= longest);
        int first = TURNS; /* which turns are in it? one of the possible numbers */
        for (int f = TURNS - 1; f >= 0; f--) {
            ExampleTurn turn = last->turns[0];
            Examples one = {0};
            Record rest = {.id = "1", .turns = (RecordTurn *)conversation + f, .count = TURNS - f};
            config.longest = config.positions = 4000;
            make(&one, &rest, &config);
            if (one.items[TURNS - f - 1].tokens == last->tokens) {
                first = f;
                check_prompt(&t, TURNS - 1, f, &turn);
            }
            /* The next longer one would not have fit. */
            if (one.items[TURNS - f - 1].tokens > last->tokens && f == first - 1)
                assert_true(one.items[TURNS - f - 1].tokens > longest);
            examples_free(&one);
        }
        assert_true(first < TURNS);
        kinds += first != before, before = first;
    }
    assert_true(kinds >= 3);
    examples_free(&examples);
    trained_close(&t);
}

/* ---- Answers and documents. ---- */

static void test_padding(void **state) {
    (void)state;
    Trained t;
    Examples examples = {0};
    const Record record = {.id = "1", .turns = (RecordTurn *)conversation, .count = TURNS};
    trained_open(&t, FOLDERS "llada", CHAT_LLADA);
    ExampleConfig config = trainer_examples(&t.model, &t.settings);
    make(&examples, &record, &config);
    int plain[TURNS], room = config.longest;
    for (int i = 0; i < examples.count; i++) plain[i] = examples.items[i].turns[0].answer_count;
    const int kept = examples.count;
    for (int pad = 1; pad < 70; pad += 9) {
        config.pad_answers = pad;
        make(&examples, &record, &config);
        assert_int_equal(examples.count, kept);
        for (int i = 0; i < kept; i++) {
            const Example *e = &examples.items[i];
            const ExampleTurn *turn = &e->turns[0];
            const int most = room - 1 - turn->prompt_count;
            int want = plain[i] > pad ? plain[i] : pad < most ? pad : most;
            assert_int_equal(turn->answer_count, want);
            assert_int_equal(turn->answer[plain[i] - 1], 422);
            for (int k = plain[i]; k < want; k++) assert_int_equal(turn->answer[k], 421);
            assert_true(e->tokens <= room);
        }
    }
    examples_free(&examples);
    trained_close(&t);
}

/* Pieces in their order are the document; each ends with end-of-text. */
static int check_pieces(const Examples *e, const ExampleConfig *c, const char *text, int32_t end) {
    Ids ids = {0};
    Error err;
    size_t at = 0;
    int shorter = 0;
    assert_ok(tokenizer_encode(c->tokenizer, text, strlen(text), &ids, &err), &err);
    for (int i = 0; i < e->count; i++) {
        const ExampleTurn *turn = e->items[i].turns;
        const int own = turn->answer_count - 1;
        assert_int_equal(turn->prompt_count, 0);
        assert_int_equal(turn->answer[own], end);
        assert_true(own >= 1 && e->items[i].tokens <= c->longest);
        assert_memory_equal(turn->answer, ids.ids + at, (size_t)own * sizeof *ids.ids);
        at += (size_t)own;
        shorter += e->items[i].tokens < c->longest && i + 1 < e->count;
    }
    assert_int_equal(at, ids.count);
    ids_free(&ids);
    return shorter;
}

static void test_random_lengths(void **state) {
    (void)state;
    Trained t;
    Examples examples = {0}, again = {0};
    char text[12000];
    trained_open(&t, FOLDERS "llada", CHAT_LLADA);
    ExampleConfig config = trainer_examples(&t.model, &t.settings);
    config.whole = true;
    int drawn = 0, pieces = 0;
    for (int d = 0; d < 40; d++) {
        text[0] = 0;
        for (int w = 0; strlen(text) < 3000; w++)
            snprintf(text + strlen(text), 32, "%d dogs and %d ", w * d, d * d - w);
        RecordTurn turn = {"", text};
        const Record record = {.id = "1", .turns = &turn, .count = 1};
        config.random_lengths = 0;
        make(&examples, &record, &config);
        int least = 1 << 20, most = 0;
        for (int i = 0; i < examples.count; i++) {
            const int n = examples.items[i].tokens;
            least = n < least ? n : least, most = n > most ? n : most;
        }
        assert_true(most - least <= 1);
        config.random_lengths = 0.1f;
        make(&examples, &record, &config);
        make(&again, &record, &config);
        assert_int_equal(again.count, examples.count);
        for (int i = 0; i < again.count; i++)
            assert_int_equal(again.items[i].tokens, examples.items[i].tokens);
        drawn += check_pieces(&examples, &config, text, 421);
        pieces += examples.count;
    }
    assert_true(drawn > pieces / 20 && drawn < pieces / 5);
    examples_free(&examples), examples_free(&again);
    trained_close(&t);
}

/* ---- Rows. ---- */

static PackingConfig packing_of(AttentionPattern pattern, Objective objective, int32_t begin) {
    static const Llama llama;
    LanguageModel model = language_of_llama(&llama);
    model.begin = begin, model.shifted = true;
    PackingConfig c = {.language = model,
                       .pattern = pattern,
                       .mask_id = MASK,
                       .noise = noise_config_default(),
                       .seed = 5};
    c.noise.objective = objective;
    return c;
}

static const int32_t prompt_ids[] = {21, 22, 23}, answer_ids[] = {31, 32, 33, 34, 35, 36};

static TrainBatch build(const PackingConfig *c, int prompt, int answer, uint64_t stream) {
    Error err;
    TrainBatch b;
    ExampleTurn turn = {prompt_ids, answer_ids, prompt, answer};
    const Example e = {.turns = &turn, .count = 1, .tokens = 1 + prompt + answer};
    const PackingItem item = {.example = &e, .stream = stream};
    assert_ok(packing_build(&b, c, &item, 1, 2, &err), &err);
    return b;
}

/* Every target's row is the one before the token in its sequence, which is the prompt's last for a
 * copy's first token. */
static void test_shifted_rows(void **state) {
    (void)state;
    int firsts = 0;
    for (int i = 0; i < 60; i++) {
        const int32_t begin = i % 3 == 0 ? -1 : 9;
        const int prompt = i % 4, answer = 1 + i % 6, head = (begin >= 0) + prompt;
        PackingConfig c = packing_of(i % 2 ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL,
                                     i % 5 ? OBJECTIVE_RDM : OBJECTIVE_LLADA, begin);
        TrainBatch b = build(&c, prompt, answer, (uint64_t)i);
        for (int k = 0; k < b.targets; k++) {
            const int place = b.target_ids[k] - answer_ids[0], row = b.rows[k];
            const bool first = place == 0;
            if (first && head == 0)
                assert_int_equal(b.ids[row], MASK); /* itself */
            else if (first)
                assert_int_equal(b.ids[row], prompt ? prompt_ids[prompt - 1] : begin);
            else
                assert_true(b.ids[row] == MASK || b.ids[row] == answer_ids[place - 1]);
            assert_int_equal(b.positions[row], head + place - (head + place > 0));
            firsts += first && i % 2 && head;
        }
        assert_true(b.tokens == 0 || b.positions[0] == 0);
        train_batch_free(&b);
    }
    assert_true(firsts > 5);
}

static void test_autoregressive_rows(void **state) {
    (void)state;
    Error err;
    PackingConfig c = packing_of(ATTENTION_CAUSAL, OBJECTIVE_AR, 9);
    TrainBatch b = build(&c, 2, 4, 1);
    const int32_t ids[] = {9, 21, 22, 31, 32, 33, 34};
    assert_int_equal(b.tokens, 7);
    assert_memory_equal(b.ids, ids, sizeof ids);
    assert_int_equal(b.targets, 4);
    for (int k = 0; k < 4; k++) {
        assert_int_equal(b.rows[k], 2 + k);
        assert_int_equal(b.target_ids[k], answer_ids[k]);
        assert_true(b.weights[k] == 0.125f); /* of four tokens, of two sequences in the step */
    }
    assert_int_equal(b.span_count, 1);
    assert_int_equal(b.spans[0].causal, 1);
    train_batch_free(&b);
    c = packing_of(ATTENTION_CAUSAL, OBJECTIVE_AR, -1); /* nothing predicts the first token */
    b = build(&c, 0, 5, 1);
    assert_int_equal(b.tokens, 5);
    assert_int_equal(b.targets, 4);
    assert_int_equal(b.rows[0], 0);
    assert_int_equal(b.target_ids[0], answer_ids[1]);
    assert_true(b.weights[0] == 0.125f);
    train_batch_free(&b);
    b = build(&c, 0, 1, 1); /* and nothing is left */
    assert_int_equal(b.tokens, 0);
    train_batch_free(&b);
    ExampleTurn turn = {prompt_ids, answer_ids, 1, 2};
    const Example e = {.turns = &turn, .count = 1, .tokens = 3};
    const PackingItem item = {.example = &e};
    c.pattern = ATTENTION_FULL;
    assert_refused(packing_build(&b, &c, &item, 1, 1, &err), &err, "causal");
    c = packing_of(ATTENTION_CAUSAL, OBJECTIVE_RDM, 9);
    assert_refused(packing_build(&b, &c, &item, 1, 1, &err), &err, "not causal");
    c = packing_of(ATTENTION_FULL, OBJECTIVE_LLADA, 9);
    c.mask_id = -1;
    assert_refused(packing_build(&b, &c, &item, 1, 1, &err), &err, "no mask");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),      cmocka_unit_test(test_context_fits),
        cmocka_unit_test(test_padding),      cmocka_unit_test(test_random_lengths),
        cmocka_unit_test(test_shifted_rows), cmocka_unit_test(test_autoregressive_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
