/* What `show` draws in a terminal, step by step from trace files: at any width and height, with any
 * text. */
#include "tests/show.h"

static int rows_used(const Screen *s) {
    int n = s->rows;
    while (n && !*screen_row(s, n - 1)) n--;
    return n;
}

/* Steps through a trace by key and checks each frame, and the answer at the end. */
static void play_by_key(const Run *r, const char *story, const char *answer, int columns) {
    char path[512], status[32], got[4096], want[4096];
    Story s;
    Tty *t = malloc(sizeof *t);
    assert_non_null(t);
    story_read(&s, story);
    write_trace(r, "story.json", story, answer, path, sizeof path);
    tty_start(t, columns, 24, (char *[]){"show", "--from", path, "--step", "--every-step", NULL});
    for (int frame = 0; frame <= s.steps; frame++) {
        if (frame) tty_keys(t, frame % 2 ? "n" : "\033[C");
        snprintf(status, sizeof status, "%d/%d", frame, s.steps);
        tty_until(t, status);
        tty_until_frame(t, frame + 1);
        int hint = columns >= 10 ? 1 : columns >= 6;
        screen_dense(&t->screen, 1, rows_used(&t->screen) - hint, got, sizeof got);
        expect_dense(&s, frame, want);
        assert_string_equal(got, want);
        assert_false(t->screen.cursor);
        assert_int_equal(t->screen.y, 0);
    }
    tty_keys(t, "q");
    tty_end_ok(t);
    expect_answer(&t->screen, 0, answer);
    free(s.copy), tty_free(t), free(t);
}

static void test_widths(void **state) {
    (void)state;
    static const int widths[] = {20, 40, 100, 11, 3, 1};
    Run r;
    run_start(&r);
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        if (widths[w] > 1) play_by_key(&r, story_umlauts, answer_umlauts, widths[w]);
        if (widths[w] > 1) play_by_key(&r, story_chinese, answer_chinese, widths[w]);
        if (widths[w] > 1) play_by_key(&r, story_emoji, answer_emoji, widths[w]);
        if (widths[w] > 2) play_by_key(&r, story_ascii, answer_ascii, widths[w]);
    }
    run_end(&r);
}

/* Terminals do not agree how wide such emoji are: the next word is in its column all the same, and
 * no line is longer than the window. */
static void test_joined_emoji(void **state) {
    (void)state;
    static const int widths[] = {100, 40, 20, 7};
    Run r;
    char path[512];
    const char *story = story_joined, *answer = "x";
    run_start(&r);
    write_trace(&r, "joined.json", story, answer, path, sizeof path);
    for (int w = 0; w < 4; w++) {
        Tty *t = malloc(sizeof *t);
        assert_non_null(t);
        tty_start(t, widths[w], 24, (char *[]){"show", "--from", path, "--step", NULL});
        t->screen.clips = true;
        tty_until(t, "0/3");
        tty_keys(t, "G");
        tty_until(t, "Ende");
        /* flag, family, heart, dog, "und": 2 columns each and a space. */
        if (w == 0) assert_string_equal(t->screen.cells[1][12], "u");
        if (w == 0) assert_string_equal(t->screen.cells[1][19], "日");
        tty_keys(t, "q");
        tty_end(t);
        tty_free(t), free(t);
    }
    run_end(&r);
}

/* ---- The window. ---- */

static void test_resize(void **state) {
    (void)state;
    static const int sizes[][2] = {{20, 24}, {80, 3}, {100, 2}, {13, 1}, {9, 6}, {4, 5}, {90, 24}};
    Run r;
    char path[512], want[4096], got[4096];
    const char *story = story_umlauts, *answer = answer_umlauts;
    Story s;
    Tty *t = malloc(sizeof *t);
    run_start(&r), story_read(&s, story);
    assert_non_null(t);
    write_trace(&r, "resize.json", story, answer, path, sizeof path);
    tty_start(t, 60, 24, (char *[]){"show", "--from", path, "--step", NULL});
    tty_until(t, "step 0/5");
    press(t, "G", "step 5/5");
    expect_dense(&s, 5, want);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int rows = sizes[i][1];
        tty_resize(t, sizes[i][0], rows);
        tty_until_frame(t, 1);
        assert_int_equal(t->screen.scrolled, 0);
        assert_int_equal(t->screen.y, 0);
        screen_dense(&t->screen, rows > 1, rows, got, sizeof got);
        if (rows == 24) assert_memory_equal(got, want, strlen(want));
        if (rows < 24) got[4] = 0, assert_non_null(strstr(want, got)); /* a part of it */
    }
    tty_keys(t, "q");
    tty_end(t);
    expect_answer(&t->screen, 0, answer);
    free(s.copy), tty_free(t), free(t);
    run_end(&r);
}

/* An answer of more lines than the window has: new words are visible, nothing scrolls away. */
static void test_tall(void **state) {
    (void)state;
    Run r;
    char path[512], steps[16000] = "", word[64];
    enum { WORDS = 30 };
    for (int t = 0; t <= WORDS; t++)
        for (int i = 0; i < WORDS; i++) {
            int at = (i * 7) % WORDS; /* in no order of positions */
            snprintf(word, sizeof word, at < t ? "▁word%02d" : "_", i);
            strcat(steps, word), strcat(steps, i + 1 < WORDS ? "/" : "|");
        }
    const char *story = steps, *answer = "many words";
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "tall.json", story, answer, path, sizeof path);
    tty_start(t, 20, 5, (char *[]){"show", "--from", path, "--step", NULL});
    tty_until(t, " 0/31");
    for (int step = 2; step <= WORDS + 1; step++) {
        char status[32];
        snprintf(status, sizeof status, "step %2d/31", step);
        tty_keys(t, step == 2 ? "nn" : "n");
        tty_until(t, status);
        tty_until_frame(t, step + 1);
        int place = 0;
        while ((place * 7) % WORDS != step - 2) place++;
        snprintf(word, sizeof word, "word%02d", place);
        tty_until(t, word);
        assert_memory_equal(screen_row(&t->screen, 0), "step ", 5);
        assert_int_equal(t->screen.scrolled, 0);
    }
    tty_keys(t, "q");
    tty_end(t);
    expect_answer(&t->screen, 0, answer);
    tty_free(t), free(t);
    run_end(&r);
}

/* ---- Control characters. ---- */

static void test_hostile_text(void **state) {
    (void)state;
    static const char evil[] = "▁\033[2J\033]0;title\007/▁\u202eabc\u202d/\u2066x/▁a\tb\nc\r/"
                               "\177\302\205/\u0301/\302\2332J/"
                               "▁\u2028end";
    char story[512], path[512];
    snprintf(story, sizeof story, "_/_/_/_/_/_/_/_|%s", evil);
    const char *answer = "\033[31mred\302\2332J\u202e\r\nend\007";
    Run r;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "evil.json", story, answer, path, sizeof path);
    for (int way = 0; way < 2; way++) {
        tty_start(t, 60, 10,
                  (char *[]){"show", "--from", path, "--speed", "1000", way ? "--steps-only" : NULL,
                             NULL});
        tty_end_ok(t); /* the screen fails the test at every sequence that it does not know */
        const char *last = screen_row(&t->screen, t->screen.y - 1);
        assert_string_equal(last, "\ufffd[31mred\ufffd2J\ufffd  end\ufffd");
        assert_null(strstr(t->bytes, "\u202e"));
        assert_null(strstr(t->bytes, "\033[2J"));
        assert_null(strstr(t->bytes, "\033]"));
        assert_null(strstr(t->bytes, "\302\233"));
        tty_free(t);
    }
    run(&r, "show", "--from", path);
    expect(&r, 0, NULL);
    for (const char *p = r.out; *p; p++) assert_true(*p == '\n' || (unsigned char)*p >= 32);
    assert_null(strstr(r.out, "\u202e"));
    free(t);
    run_end(&r);
}

int main(void) {
    show_environment();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widths),       cmocka_unit_test(test_joined_emoji),
        cmocka_unit_test(test_resize),       cmocka_unit_test(test_tall),
        cmocka_unit_test(test_hostile_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
