/* Records to token ids: what a sequence holds, what is cut, what is a problem. */
#include "projector/examples.h"
#include "tests/test.h"

enum { LONGEST = 60, IMAGE = 16, TURNS = 12, TEXT = 2000 };

static int open_tokenizer(void **state) {
    Error err;
    Tokenizer *tokenizer;
    assert_ok(tokenizer_open(&tokenizer, "tests/golden/tokenizer", &err), &err);
    *state = tokenizer;
    return 0;
}

static int close_tokenizer(void **state) {
    tokenizer_close(*state);
    return 0;
}

static ExampleConfig config_of(void **state) {
    return (ExampleConfig){.tokenizer = *state,
                           .longest = LONGEST,
                           .image_rows = IMAGE,
                           .long_prompts = LONG_PROMPTS_KEEP_LAST};
}

static Ids encoded(const ExampleConfig *c, const char *text) {
    Error err;
    Ids ids = {0};
    assert_ok(tokenizer_encode(c->tokenizer, text, strlen(text), &ids, &err), &err);
    return ids;
}

/* A record whose texts are its own. */
typedef struct Made {
    Record record;
    RecordTurn turns[TURNS];
    char prompts[TURNS][TEXT], responses[TURNS][TEXT];
} Made;

static void random_text(char *out, int words, TestRandom *random) {
    static const char *const list[] = {"What",       "colour",  "is",     "the",     "dog",  "Bild",
                                       "der",        "Hund",    "circle", "sky",     "left", "of",
                                       "Übermorgen", "größere", "visité", "château", "red?", "3"};
    out[0] = 0;
    for (int i = 0; i < words; i++) {
        const char *word = list[test_random_next(random) % (sizeof list / sizeof list[0])];
        strncat(out, i ? " " : "", TEXT - strlen(out) - 1);
        strncat(out, word, TEXT - strlen(out) - 1);
    }
}

static void made_random(Made *m, int turns, int question, int answer, bool image,
                        TestRandom *random) {
    m->record = (Record){.id = "7", .image = image ? "a.jpg" : NULL, .turns = m->turns};
    m->record.count = turns;
    for (int i = 0; i < turns; i++) {
        random_text(m->prompts[i], 1 + (int)(test_random_next(random) % (unsigned)question),
                    random);
        random_text(m->responses[i], 1 + (int)(test_random_next(random) % (unsigned)answer),
                    random);
        m->turns[i] = (RecordTurn){m->prompts[i], m->responses[i]};
    }
}

static void make(Examples *examples, const Record *record, const ExampleConfig *config,
                 Skipped *skipped) {
    Error err;
    assert_ok(examples_make(examples, record, config, "some.json: record 7", skipped, &err), &err);
}

/* The ids are those of the text, followed by `end`. */
static void assert_ids(const ExampleConfig *c, const int32_t *ids, int count, const char *text,
                       bool end) {
    Ids want = encoded(c, text);
    assert_int_equal(count, (int)want.count + end);
    if (want.count) assert_memory_equal(ids, want.ids, want.count * sizeof *ids);
    if (end) assert_int_equal(ids[count - 1], TOKEN_EOS);
    ids_free(&want);
}

static void assert_problem(const Skipped *skipped, const char *kind, int count, const char *words) {
    for (int i = 0; i < skipped->kind_count; i++) {
        const SkippedKind *p = &skipped->kinds[i];
        if (strcmp(p->kind, kind)) continue;
        assert_int_equal(p->count, count);
        if (!strstr(p->first, "some.json: record 7: ") || !strstr(p->first, words))
            fail_msg("\"%s\" lacks \"%s\"", p->first, words);
        return;
    }
    fail_msg("no problem \"%s\" was counted", kind);
}

/* A text of just so many tokens, all of them the word "der". */
static const char *text_of(const ExampleConfig *c, int tokens) {
    static char texts[4][4 * LONGEST * 10];
    static int next;
    char *text = texts[next++ % 4];
    text[0] = 0;
    for (int i = 0; i < tokens; i++) strcat(text, i ? " der" : "der");
    Ids ids = encoded(c, text);
    assert_int_equal(ids.count, tokens);
    ids_free(&ids);
    return text;
}

static Record pair_of(RecordTurn *turn, const char *prompt, const char *response, bool image) {
    *turn = (RecordTurn){prompt, response};
    return (Record){.id = "", .image = image ? "a.jpg" : NULL, .turns = turn, .count = 1};
}

static void each_turn_is_an_example(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    TestRandom random = {5};
    static Made m;
    for (int round = 0; round < 60; round++) {
        bool image = round % 2;
        c.plain = round % 3 == 0;
        made_random(&m, 1 + round % TURNS, 6, 6, image, &random);
        make(&e, &m.record, &c, &skipped);
        assert_int_equal(e.count, m.record.count);
        for (int i = 0; i < e.count; i++) {
            const Example *x = &e.items[i];
            assert_int_equal(x->turn, i);
            assert_int_equal(x->count, 1);
            assert_true(x->image == image);
            assert_ids(&c, x->turns->prompt, x->turns->prompt_count, c.plain ? "" : m.prompts[i],
                       false);
            assert_ids(&c, x->turns->answer, x->turns->answer_count, m.responses[i], true);
            assert_int_equal(x->tokens, 1 + (image ? IMAGE : 0) + x->turns->prompt_count +
                                            x->turns->answer_count);
        }
    }
    assert_int_equal(skipped.total, 0);
    examples_free(&e);
    assert_null(e.items);
}

static void turns_of_a_image_together(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    TestRandom random = {6};
    static Made m;
    c.together = true;
    for (int round = 0; round < 20; round++) {
        made_random(&m, 4 + round % 5, 6, 6, true, &random);
        if (round % 2) strcpy(m.responses[2], " \n ");
        make(&e, &m.record, &c, &skipped);
        assert_int_equal(e.count, 1);
        const Example *x = &e.items[0];
        int rows = 1 + IMAGE;
        assert_int_equal(x->turn, -1);
        assert_int_equal(x->count, m.record.count - round % 2);
        for (int i = 0, k = 0; i < m.record.count; i++) {
            if (i == 2 && round % 2) continue;
            assert_ids(&c, x->turns[k].prompt, x->turns[k].prompt_count, m.prompts[i], false);
            assert_ids(&c, x->turns[k].answer, x->turns[k].answer_count, m.responses[i], true);
            rows += x->turns[k].prompt_count + x->turns[k].answer_count, k++;
        }
        assert_int_equal(x->tokens, rows);
    }
    assert_problem(&skipped, "empty answer", 10, "turn 3");
    /* Without an image there is nothing to share. */
    made_random(&m, 3, 6, 6, false, &random);
    make(&e, &m.record, &c, &skipped);
    assert_int_equal(e.count, 3);
    /* An image all of whose turns are unusable gives nothing. */
    made_random(&m, 2, 6, 6, true, &random);
    m.responses[0][0] = m.responses[1][0] = 0;
    make(&e, &m.record, &c, &skipped);
    assert_int_equal(e.count, 0);
    examples_free(&e);
}

static void long_pairs_keep_their_end(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    TestRandom random = {7};
    static Made m;
    int cut = 0;
    for (int round = 0; round < 100; round++) {
        made_random(&m, 1, 60, 20, false, &random);
        make(&e, &m.record, &c, &skipped);
        assert_int_equal(e.count, 1);
        const Example *x = &e.items[0];
        Ids prompt = encoded(&c, m.prompts[0]);
        int lost = (int)prompt.count - x->turns->prompt_count;
        assert_true(lost >= 0);
        if (lost) assert_int_equal(x->tokens, LONGEST);
        assert_memory_equal(x->turns->prompt, prompt.ids + lost,
                            (size_t)x->turns->prompt_count * sizeof *prompt.ids);
        assert_ids(&c, x->turns->answer, x->turns->answer_count, m.responses[0], true);
        cut += lost > 0;
        ids_free(&prompt);
    }
    assert_true(cut > 20 && cut < 80);
    assert_int_equal(skipped.total, 0);
    examples_free(&e);
}

static const SkippedKind *note_of(const Skipped *skipped, const char *kind) {
    for (int i = 0; i < skipped->kind_count; i++)
        if (!strcmp(skipped->kinds[i].kind, kind)) return &skipped->kinds[i];
    fail_msg("no note \"%s\"", kind);
    return NULL;
}

/* One prompt that fits and one that does not: what becomes of it, and what is said. */
static void long_prompts_are_noted(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    RecordTurn turns[] = {{text_of(&c, LONGEST), "red"}, {"dog", "sky"}};
    Record r = {.id = "", .turns = turns, .count = 2};
    for (int what = LONG_PROMPTS_REFUSE; what <= LONG_PROMPTS_KEEP_LAST; what++) {
        Skipped skipped = {0};
        c.long_prompts = (LongPrompts)what;
        r.image = NULL;
        make(&e, &r, &c, &skipped);
        bool kept = what == LONG_PROMPTS_KEEP_LAST, refused = what == LONG_PROMPTS_REFUSE;
        assert_int_equal(e.count, 1 + kept);
        assert_int_equal(e.items[0].turn, kept ? 0 : 1);
        assert_int_equal(skipped.total, refused);
        assert_int_equal(skipped.kind_count, 1);
        const SkippedKind *p = note_of(&skipped, refused ? "prompt too long"
                                                 : kept  ? "prompt too long, beginning left out"
                                                         : "prompt too long, left out");
        assert_int_equal(p->count, 1);
        assert_true(p->note != refused);
        assert_non_null(strstr(p->first, "turn 1: "));
        assert_non_null(strstr(p->first, "60 tokens"));
        /* Beside an image nothing of a question is cut. */
        skipped = (Skipped){0};
        r.image = "a.jpg";
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 1);
        assert_int_equal(skipped.total, what != LONG_PROMPTS_SKIP);
        assert_int_equal(skipped.kind_count, 1);
        /* An answer that does not fit is skipped, for any prompt. */
        skipped = (Skipped){0};
        RecordTurn long_answer;
        Record whole = pair_of(&long_answer, "dog", text_of(&c, LONGEST), false);
        make(&e, &whole, &c, &skipped);
        assert_int_equal(e.count, 0);
        assert_int_equal(skipped.total, 1);
    }
    examples_free(&e);
}

/* Of one record three turns are unusable: one record, three reasons. */
static void a_record_counts_once(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    RecordTurn turns[] = {{"dog", ""}, {"dog", "a <mask>"}, {"dog", " "}, {"dog", "sky"}};
    Record r = {.id = "", .turns = turns, .count = 4};
    for (int i = 1; i <= 3; i++) {
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 1);
        assert_int_equal(skipped.total, i);
    }
    assert_problem(&skipped, "empty answer", 6, "turn 1");
    assert_problem(&skipped, "mask in an answer", 3, "turn 2");
    examples_free(&e);
}

/* Long documents are segmented in pieces: the ids are those of the whole. Texts of a pair that are
 * no samples are refused. */
static void long_documents(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    TestRandom random = {13};
    enum { SIZE = 200000, HUGE = (1 << 20) + 2 };
    char *text = malloc(HUGE), *p = text;
    assert_non_null(text);
    while (p < text + SIZE) {
        char words[TEXT];
        random_text(words, 100, &random);
        p += sprintf(p, "%s%s", words, test_random_next(&random) % 2 ? "\n" : "  ");
    }
    RecordTurn turn;
    Record r = pair_of(&turn, "", text, false);
    c.whole = true;
    make(&e, &r, &c, &skipped);
    assert_int_equal(skipped.kind_count, 0);
    Ids whole = encoded(&c, text);
    size_t at = 0;
    for (int i = 0; i < e.count; i++) {
        size_t n = (size_t)e.items[i].turns->answer_count - 1;
        assert_true(at + n <= whole.count);
        assert_memory_equal(e.items[i].turns->answer, whole.ids + at, n * sizeof(int32_t));
        at += n;
    }
    assert_int_equal(at, whole.count);
    ids_free(&whole);
    /* Without a space: cut between characters. */
    for (size_t i = 0; i + 2 < HUGE; i += 2) memcpy(text + i, "\xC3\xA4", 3);
    make(&e, &r, &c, &skipped);
    assert_int_equal(skipped.kind_count, 0);
    assert_true(e.count > 0);
    c.whole = false;
    memset(text, 'a', HUGE - 1);
    text[HUGE - 1] = 0;
    r = pair_of(&turn, text, "sky", false);
    make(&e, &r, &c, &skipped);
    assert_problem(&skipped, "text too large", 1, "the question has 1048577 bytes");
    free(text);
    examples_free(&e);
}

static void what_fits(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    RecordTurn turn;
    for (int image = 0; image < 2; image++) {
        int most = LONGEST - 2 - image * IMAGE; /* of prompt and answer */
        Skipped skipped = {0};
        Record r = pair_of(&turn, text_of(&c, most - 5), text_of(&c, 5), image);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.items[0].tokens, LONGEST);
        assert_int_equal(skipped.total, 0);
        /* One more in the question, in the answer. */
        r = pair_of(&turn, text_of(&c, most - 4), text_of(&c, 5), image);
        make(&e, &r, &c, &skipped);
        if (image) {
            assert_int_equal(e.count, 0);
            assert_problem(&skipped, "question does not fit", 1,
                           "turn 1: the question has 38 tokens; of the model's 60, 37 are left "
                           "besides <s>, 16 of the image and 6 of the answer with </s>");
        } else {
            assert_int_equal(e.items[0].tokens, LONGEST);
            assert_int_equal(e.items[0].turns->prompt_count, most - 5);
        }
        r = pair_of(&turn, "", text_of(&c, most), image);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.items[0].tokens, LONGEST);
        r = pair_of(&turn, "", text_of(&c, most + 1), image);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 0);
        assert_problem(&skipped, "answer does not fit", 1,
                       image ? "turn 1: the answer has 44 tokens with </s>; of the model's 60, "
                               "43 are left besides <s> and 16 of the image"
                             : "turn 1: the answer has 60 tokens with </s>; of the model's 60, "
                               "59 are left besides <s> and 0 of the image");
        assert_int_equal(skipped.total, 1 + image);
    }
    /* Answers that count from a fixed place: the prompt has what is in front of it, the answer what
     * is behind. */
    c.answer_position = 30;
    c.positions = 44;
    for (int more = 0; more < 2; more++) {
        Skipped skipped = {0};
        Record r = pair_of(&turn, text_of(&c, 30 - 1 - IMAGE + more), text_of(&c, 5), true);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 1 - more);
        r = pair_of(&turn, "", text_of(&c, 44 - 30 - 1 + more), true);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 1 - more);
        assert_int_equal(skipped.total, 2 * more);
    }
    c.answer_position = c.positions = 0;
    /* What did not fit leaves nothing. */
    RecordTurn turns[] = {{text_of(&c, LONGEST), "red"}, {"dog", "sky"}};
    Record r = {.id = "", .image = "a.jpg", .turns = turns, .count = 2};
    Skipped skipped = {0};
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.items[0].turn, 1);
    assert_ids(&c, e.items[0].turns->prompt, e.items[0].turns->prompt_count, "dog", false);
    assert_ids(&c, e.items[0].turns->answer, e.items[0].turns->answer_count, "sky", true);
    examples_free(&e);
}

/* As many whole earlier turns as fit, by trying all numbers of them. */
static void context_is_whole_earlier_turns(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    TestRandom random = {8};
    static Made m;
    int kept[TURNS] = {0};
    c.context = true;
    for (int round = 0; round < 60; round++) {
        bool image = round % 2;
        Skipped skipped = {0};
        made_random(&m, 1 + (int)(test_random_next(&random) % TURNS), 6, 8, image, &random);
        make(&e, &m.record, &c, &skipped);
        assert_int_equal(skipped.total, 0);
        assert_int_equal(e.count, m.record.count);
        for (int i = 0; i < e.count; i++) {
            const ExampleTurn *t = e.items[i].turns;
            char text[TURNS * TEXT];
            int room = LONGEST - 1 - image * IMAGE - t->answer_count, first = 0;
            for (;; first++) {
                text[0] = 0;
                for (int k = first; k < i; k++)
                    sprintf(text + strlen(text), "%s %s ", m.prompts[k], m.responses[k]);
                strcat(text, m.prompts[i]);
                Ids ids = encoded(&c, text);
                bool fits = (int)ids.count <= room;
                ids_free(&ids);
                if (fits) break;
                assert_true(first < i);
            }
            kept[i - first]++;
            assert_ids(&c, t->prompt, t->prompt_count, text, false);
            assert_ids(&c, t->answer, t->answer_count, m.responses[i], true);
            assert_int_equal(e.items[i].turn, i);
            assert_true(e.items[i].tokens <= LONGEST);
        }
    }
    assert_true(kept[0] > 20 && kept[1] > 20 && kept[2] > 20 && kept[3] > 20);
    examples_free(&e);
}

/* An unusable turn ends the context: a conversation has no gaps. */
static void context_stops_at_a_bad_turn(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    RecordTurn turns[] = {
        {"Hund", "Bild"}, {"\xff", "sky"}, {"red", "dog"}, {"", "circle"}, {"of", "3"}};
    Record r = {.id = "", .turns = turns, .count = 5};
    c.context = true;
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 4);
    assert_problem(&skipped, "not UTF-8", 1, "turn 2: byte 0 of the question (0xFF)");
    static const char *const prompts[] = {"Hund", "red", "red dog", "red dog circle of"};
    static const int numbers[] = {0, 2, 3, 4};
    for (int i = 0; i < 4; i++) {
        assert_ids(&c, e.items[i].turns->prompt, e.items[i].turns->prompt_count, prompts[i], false);
        assert_int_equal(e.items[i].turn, numbers[i]);
    }
    examples_free(&e);
}

static void documents_are_cut_without_loss(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    TestRandom random = {12};
    c.whole = true;
    static Made m;
    for (int round = 0; round < 80; round++) {
        Skipped skipped = {0};
        made_random(&m, 1, 1, 1 + 4 * round, false, &random);
        m.prompts[0][0] = 0;
        make(&e, &m.record, &c, &skipped);
        assert_int_equal(skipped.total, 0);
        Ids document = encoded(&c, m.responses[0]);
        size_t at = 0;
        int least = LONGEST, most = 0;
        for (int i = 0; i < e.count; i++) {
            const Example *x = &e.items[i];
            int n = x->turns->answer_count - 1;
            assert_int_equal(x->turn, i);
            assert_int_equal(x->count, 1);
            assert_false(x->image);
            assert_int_equal(x->turns->prompt_count, 0);
            assert_int_equal(x->tokens, n + 2);
            assert_true(x->tokens <= LONGEST && at + (size_t)n <= document.count);
            assert_memory_equal(x->turns->answer, document.ids + at, (size_t)n * sizeof(int32_t));
            assert_int_equal(x->turns->answer[n], TOKEN_EOS);
            at += (size_t)n;
            least = n < least ? n : least, most = n > most ? n : most;
        }
        assert_int_equal(at, document.count);
        assert_true(most - least <= 1);
        assert_int_equal(e.count, (document.count + LONGEST - 3) / (LONGEST - 2));
        ids_free(&document);
    }
    /* Pairs and conversations are documents, too. */
    Skipped skipped = {0};
    RecordTurn turns[] = {{"Hund", "Bild"}, {"", "red"}};
    Record r = {.id = "", .turns = turns, .count = 2};
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 1);
    assert_ids(&c, e.items[0].turns->answer, e.items[0].turns->answer_count, "Hund Bild red", true);
    r.image = "x.png";
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 0);
    assert_problem(&skipped, "image in plain text", 1, "x.png");
    r.image = NULL, turns[0].prompt = turns[0].response = turns[1].response = "";
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 0);
    assert_problem(&skipped, "empty answer", 1, "document");
    examples_free(&e);
}

static void bad_samples_are_counted(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    RecordTurn turn;
    static const char *const bad[][3] = {
        {"dog", "sky \xC3\x28", "not UTF-8"},
        {"dog\xE2\x82", "sky", "not UTF-8"},
        {"dog", " \n\t", "empty answer"},
        {"dog", "", "empty answer"},
        {"dog", "a <mask> sky", "mask in an answer"},
    };
    for (int i = 0; i < 5; i++) {
        Record r = pair_of(&turn, bad[i][0], bad[i][1], false);
        make(&e, &r, &c, &skipped);
        assert_int_equal(e.count, 0);
    }
    assert_int_equal(skipped.total, 5);
    assert_problem(&skipped, "not UTF-8", 2, "turn 1: byte 4 of the answer (0xC3)");
    assert_problem(&skipped, "empty answer", 2, "turn 1: the answer has no tokens");
    assert_problem(&skipped, "mask in an answer", 1, "<mask>");
    /* In a question it is a token like any other; a line break is a space. */
    Record r = pair_of(&turn, "dog <mask>\nsky", "red\nsky", false);
    make(&e, &r, &c, &skipped);
    assert_int_equal(e.count, 1);
    assert_ids(&c, e.items[0].turns->prompt, e.items[0].turns->prompt_count, "dog<mask> sky",
               false);
    assert_ids(&c, e.items[0].turns->answer, e.items[0].turns->answer_count, "red sky", true);
    assert_int_equal(skipped.total, 5);
    examples_free(&e);
}

static void refusals(void **state) {
    ExampleConfig c = config_of(state);
    Examples e = {0};
    Skipped skipped = {0};
    Error err;
    RecordTurn turn;
    Record r = pair_of(&turn, "dog", "sky", true);
    c.longest = 2;
    assert_refused(examples_make(&e, &r, &c, "r", &skipped, &err), &err, "at most 2 tokens");
    c = config_of(state), c.together = c.context = true;
    assert_refused(examples_make(&e, &r, &c, "r", &skipped, &err), &err, "not both");
    c = config_of(state), c.image_rows = 0;
    assert_refused(examples_make(&e, &r, &c, "r", &skipped, &err), &err, "r: ", "0 rows");
    assert_int_equal(e.count, 0);
    examples_free(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_turn_is_an_example),
        cmocka_unit_test(turns_of_a_image_together),
        cmocka_unit_test(long_pairs_keep_their_end),
        cmocka_unit_test(what_fits),
        cmocka_unit_test(context_is_whole_earlier_turns),
        cmocka_unit_test(context_stops_at_a_bad_turn),
        cmocka_unit_test(documents_are_cut_without_loss),
        cmocka_unit_test(bad_samples_are_counted),
        cmocka_unit_test(long_prompts_are_noted),
        cmocka_unit_test(a_record_counts_once),
        cmocka_unit_test(long_documents),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
