/* `show` in a terminal, played from trace files and live: what stands on the screen, at any width
 * and with any text, and that the terminal is as it was afterwards. */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"
#include "tests/screen.h"

#define BASE "tests/golden/models/tiny-base"
#define PIC0 "tests/golden/models/image0.png"

/* ---- Trace files. "_" is a mask, positions are separated by '/', steps by '|'. ---- */

enum { POSITIONS = 80, STEPS = 64 };

typedef struct Story {
    char *copy;
    char *pieces[STEPS][POSITIONS];
    int steps, length;
} Story;

static void story_read(Story *s, const char *text) {
    char *rest = NULL, *more = NULL;
    *s = (Story){.copy = strdup(text)};
    for (char *step = strtok_r(s->copy, "|", &rest); step; step = strtok_r(NULL, "|", &rest)) {
        int n = 0;
        for (char *p = strtok_r(step, "/", &more); p; p = strtok_r(NULL, "/", &more))
            s->pieces[s->steps][n++] = p;
        s->length = n, s->steps++;
    }
}

static bool is_mask(const char *piece) {
    return !strcmp(piece, "_");
}

/* One number for each piece of a test. */
static int id_of(const char *piece) {
    unsigned hash = 5381;
    for (; *piece; piece++) hash = hash * 33 + (unsigned char)*piece;
    return (int)(hash & 0x7fffffff);
}

static json_t *story_steps(const Story *s) {
    json_t *trace = json_array();
    for (int t = 0; t < s->steps; t++) {
        json_t *cells = json_array();
        for (int i = 0; i < s->length; i++) {
            const char *p = is_mask(s->pieces[t][i]) ? "<mask>" : s->pieces[t][i];
            json_t *cell = json_pack(
                "{s:i, s:s, s:o, s:b, s:i, s:s, s:f}", "id", id_of(p), "piece", p, "score",
                p[0] == '<' ? json_null() : json_real(-0.1 * (i % 9)), "masked", p[0] == '<',
                "proposal", id_of(p), "proposal_piece", p, "proposal_score", -0.5);
            assert_non_null(cell);
            json_array_append_new(cells, cell);
        }
        json_array_append_new(
            trace, json_pack("{s:i, s:b, s:o}", "step", t + 1, "evaluated", 1, "cells", cells));
    }
    return trace;
}

/* The hypotheses' answers and stories; the first is the best. */
static void write_trace(const Run *r, const char *name, int count, const char *const *answers,
                        const char *const *stories, char *path, size_t size) {
    json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i}", "prompt", "q", "answer", answers[0],
                             "strategy", "ar", "seed", 0, "prompt_tokens", 3, "best", 0);
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        Story s;
        story_read(&s, stories[i]);
        json_t *one = json_pack("{s:s, s:i, s:i, s:f, s:i}", "text", answers[i], "length", s.length,
                                "sample", i, "score", -0.25 * (i + 1), "evaluations", s.steps);
        json_object_set_new(i ? one : root, "trace", story_steps(&s));
        if (!i) json_object_set_new(root, "steps", json_integer(s.steps));
        if (!i) json_object_set_new(root, "length", json_integer(s.length));
        json_array_append_new(list, one);
        free(s.copy);
    }
    json_object_set_new(root, "hypotheses", list);
    char *text = json_dumps(root, 0);
    write_file(r, name, text, strlen(text), path, size);
    free(text), json_decref(root);
}

#define STEP_ONE "_/_/_/_/_/_/_/_/_/_|"

/* Umlauts, one of them in two characters; Chinese; emoji: of one character, joined, with a skin
 * colour, a flag, with U+FE0F; and erasing and replacing. */
static const char umlauts[] = STEP_ONE
    "▁Größe/_/_/_/_/_/_/_/▁Straße/_|▁Größe/▁über/_/_/▁Öl/_/_/_/▁Straße/.|"
    "▁Größe/▁für/_/▁Ma\xcc\x88rz/_/_/_/_/_/.|▁Größe/▁für/▁Übergangsmaßnahmen/▁Ma\xcc\x88rz/"
    "▁Öl/▁und/▁schöne/▁Grüße/▁Straße/.";
static const char umlauts_answer[] =
    "Größe für Übergangsmaßnahmen Ma\xcc\x88rz Öl und schöne Grüße Straße.";
static const char ascii[] = "▁a/_/_/_|▁a/▁word/_/.|_/▁thing/▁that/.|▁a/▁thing/▁stands/.";
static const char ascii_answer[] = "a thing stands.";
static const char chinese[] =
    STEP_ONE "▁/_/_/_/机/_/_/_/上/。|▁/图片/_/有/机/_/_/在/上/。|▁/图片/中/有/两架/飞机/停/在/"
             "跑道/。|▁/图片/中/有/两架/飞机/停在机场的/灰色/跑道上/。";
static const char chinese_answer[] = "图片中有两架飞机停在机场的灰色跑道上。";
static const char emoji[] =
    STEP_ONE "▁🙂/_/_/_/▁☺/_/_/_/_/!|▁🙂/▁👩/_/_/_/▁👍/_/_/▁🇩/!|"
             "▁🙂/▁👩/▁❤/▁🐕/▁und/▁👍/▁日本/▁🚜/▁🏠/!";
static const char emoji_answer[] = "🙂 👩 ❤ 🐕 und 👍 日本 🚜 🏠!";

/* Emoji of several characters, which this screen shows one by one, as older terminals do. */
static const char joined[] =
    STEP_ONE "_/▁👩\u200d👩\u200d👧/_/_/▁und/_/_/▁👍🏽/_/_|"
             "▁🇩🇪/▁👩\u200d👩\u200d👧/▁❤\ufe0f/▁🐕/▁und/▁☺\ufe0f/▁日本/"
             "▁👍🏽/"
             "▁🏳️\u200d🌈/"
             "▁Ende";

/* What a frame shows, without blanks: erased words are still there, masks are "__". */
static void expect_dense(const Story *s, int frame, char *out) {
    *out = 0;
    for (int i = 0; i < s->length; i++) {
        const char *now = frame ? s->pieces[frame - 1][i] : "_";
        const char *before = frame > 1 ? s->pieces[frame - 2][i] : "_";
        const char *shown[2] = {NULL, now};
        if (!is_mask(before) && strcmp(before, now)) shown[0] = before;
        if (shown[0] && is_mask(now)) shown[1] = NULL;
        for (int k = 0; k < 2; k++)
            if (shown[k] && is_mask(shown[k]))
                strcat(out, "__");
            else if (shown[k])
                strcat(out, strncmp(shown[k], "▁", 3) ? shown[k] : shown[k] + 3);
    }
}

static int rows_used(const Screen *s) {
    int n = s->rows;
    while (n && !*screen_row(s, n - 1)) n--;
    return n;
}

/* The answer as a terminal of this width breaks it: letter by letter. */
static void expect_answer(const Screen *s, int row, const char *answer) {
    Screen *plain = malloc(sizeof *plain);
    assert_non_null(plain);
    screen_clear(plain, s->columns, s->rows);
    screen_feed(plain, answer, strlen(answer));
    screen_feed(plain, "\r\n", 2);
    for (int y = 0; y + row < s->rows; y++) {
        char want[2048];
        snprintf(want, sizeof want, "%s", screen_row(plain, y));
        assert_string_equal(screen_row(s, row + y), want);
    }
    assert_int_equal(s->y, row + plain->y);
    assert_int_equal(s->x, 0);
    free(plain);
}

/* Steps through a trace by key, looking at each frame, then to the end. */
static void play_by_key(const Run *r, const char *story, const char *answer, int columns) {
    char path[512], status[32], got[4096], want[4096];
    Story s;
    Tty *t = malloc(sizeof *t);
    assert_non_null(t);
    story_read(&s, story);
    write_trace(r, "story.json", 1, &answer, &story, path, sizeof path);
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
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
    expect_answer(&t->screen, 0, answer);
    free(s.copy), tty_free(t), free(t);
}

static void test_widths(void **state) {
    (void)state;
    static const int widths[] = {20, 40, 100, 11, 3, 1};
    Run r;
    run_start(&r);
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        if (widths[w] > 1) play_by_key(&r, umlauts, umlauts_answer, widths[w]);
        if (widths[w] > 1) play_by_key(&r, chinese, chinese_answer, widths[w]);
        if (widths[w] > 1) play_by_key(&r, emoji, emoji_answer, widths[w]);
        if (widths[w] > 2) play_by_key(&r, ascii, ascii_answer, widths[w]);
    }
    run_end(&r);
}

/* Where terminals do not agree how wide an emoji is, the next word stands where it should be, and
 * no line is longer than the window. */
static void test_joined_emoji(void **state) {
    (void)state;
    static const int widths[] = {100, 40, 20, 7};
    Run r;
    char path[512];
    const char *story = joined, *answer = "x";
    run_start(&r);
    write_trace(&r, "joined.json", 1, &answer, &story, path, sizeof path);
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

/* ---- Keys. ---- */

static void press(Tty *t, const char *keys, const char *status) {
    tty_keys(t, keys);
    tty_until(t, status);
    while (!t->screen.wrap) tty_until_frame(t, t->screen.frames + 1); /* all of it */
}

static void test_keys(void **state) {
    (void)state;
    Run r;
    char path[512];
    const char *story = ascii, *answer = ascii_answer;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "keys.json", 1, &answer, &story, path, sizeof path);
    tty_start(
        t, 60, 10,
        (char *[]){"show", "--from", path, "--step", "--speed", "1000", "--every-step", NULL});
    tty_until(t, "step 0/4");
    assert_string_equal(screen_row(&t->screen, 1), "__ __ __ __");
    assert_true(t->screen.dim[1][0] && !t->screen.dim[1][2]);
    press(t, "n", "step 1/4");
    assert_true(t->screen.bold[1][0]);
    press(t, "l", "step 2/4");
    assert_true(!t->screen.bold[1][0] && t->screen.bold[1][2]);
    press(t, "\033[C", "step 3/4");
    assert_string_equal(screen_row(&t->screen, 1), "a word thing that.");
    assert_true(t->screen.struck[1][0] && t->screen.struck[1][2] && !t->screen.struck[1][1]);
    assert_true(t->screen.bold[1][7] && !t->screen.struck[1][7] && !t->screen.bold[1][17]);
    press(t, "\033[D", "step 2/4");
    press(t, "p", "step 1/4");
    press(t, "h\033[Ah", "step 0/4");
    press(t, "\033[F", "step 4/4");
    assert_string_equal(screen_row(&t->screen, 1), "a thing that stands.");
    press(t, "\033[1~", "step 0/4");
    press(t, "\033OC", "step 1/4");
    press(t, "\033[6~\033[15~x\033[B", "step 2/4"); /* unknown keys do nothing */
    press(t, "Gnn", "step 4/4");
    press(t, "g", "step 0/4");
    assert_non_null(strstr(screen_row(&t->screen, 2), "paused"));
    tty_keys(t, " "); /* plays to the end, and ends there by itself */
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
    expect_answer(&t->screen, 0, answer);
    tty_free(t);
    /* Whoever has seen enough in between gets the answer. */
    tty_start(t, 60, 10, (char *[]){"show", "--from", path, "--step", NULL});
    tty_until(t, "step 0/4");
    press(t, "nn", "step 2/4");
    tty_keys(t, "q");
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
    expect_answer(&t->screen, 0, answer);
    tty_free(t), free(t);
    run_end(&r);
}

/* The same while the answer is being computed, with what the run keeps; of several questions the
 * others are answered, too. */
static void test_enough(void **state) {
    (void)state;
    Run r;
    char kept[512];
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    setenv("EASYFIRST_MODEL", BASE, 1);
    path_in(kept, sizeof kept, &r, "kept.json");
    run(&r, "ask", "-q", "--length", "6", "--steps", "9", PIC0, "What?");
    expect(&r, 0, NULL);
    r.out[strcspn(r.out, "\n")] = 0;
    char *answer = strdup(r.out);
    for (int keep = 0; keep < 2; keep++) {
        tty_start(t, 100, 20,
                  (char *[]){"show", "-q", "--step", "--length", "6", "--steps", "9", PIC0, "What?",
                             keep ? "--json" : NULL, kept, NULL});
        tty_until(t, "step 0/9");
        tty_keys(t, keep ? "q" : "nq");
        tty_end(t);
        assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
        expect_answer(&t->screen, 0, answer);
        tty_free(t);
    }
    run(&r, "show", "--from", kept);
    assert_non_null(strstr(r.out, answer));
    tty_start(t, 100, 20,
              (char *[]){"ask", "-q", "--show", "--length", "6", "--steps", "9", PIC0, "What?",
                         "What?", "What?", NULL});
    tty_until(t, "step ");
    tty_keys(t, "q");
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(screen_row(&t->screen, 2 * i), PIC0 ": What?");
        assert_string_equal(screen_row(&t->screen, 2 * i + 1), answer);
    }
    unsetenv("EASYFIRST_MODEL");
    free(answer), tty_free(t), free(t);
    run_end(&r);
}

/* ---- Signals. ---- */

static void test_signals(void **state) {
    (void)state;
    static const struct {
        const char *key; /* NULL: the signal itself is sent */
        int signal;
    } cases[] = {{"\003", SIGINT}, {NULL, SIGTERM}, {NULL, SIGHUP}};
    Run r;
    char path[512];
    const char *story = ascii, *answer = ascii_answer;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "signals.json", 1, &answer, &story, path, sizeof path);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tty_start(t, 60, 10, (char *[]){"show", "--from", path, "--step", NULL});
        tty_until(t, "step 0/4");
        press(t, "nn", "step 2/4");
        if (cases[i].key)
            tty_keys(t, cases[i].key);
        else
            kill(t->child, cases[i].signal);
        tty_end(t);
        assert_true(WIFSIGNALED(t->status) && WTERMSIG(t->status) == cases[i].signal);
        assert_string_equal(screen_row(&t->screen, 1), "a word __.");
        assert_string_equal(screen_row(&t->screen, 2), "");
        assert_int_equal(t->screen.y, 2);
        tty_free(t);
    }
    free(t);
    run_end(&r);
}

/* A sanitizer has handlers of its own for crashes, with reports that the screen does not know. */
static bool with_sanitizer(void) {
#if defined(__SANITIZE_ADDRESS__)
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer);
#else
    return false;
#endif
}

/* Before, the child is a copy of this program, with its handlers. */
static void until_executed(const Tty *t) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)t->child);
    for (int i = 0; i < 15000; i++) {
        char *name = file_bytes(path, NULL);
        bool ours = !name || strstr(name, "test_show");
        free(name);
        if (!ours) return;
        usleep(1000);
    }
    fail_msg("the program did not start");
}

/* Whatever ends the program, whenever: the cursor and the settings are as they were (tty_end). */
static void test_killed_anywhere(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGPIPE, SIGUSR1,
                                  SIGALRM, SIGXCPU, SIGABRT, SIGSEGV, SIGBUS};
    enum { KILLS = 55, LATEST_MS = 40 };
    Run r;
    char path[512];
    const char *story = ascii, *answer = ascii_answer;
    const struct rlimit no_core = {0};
    struct rlimit core;
    TestRandom random = {.state = 50};
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    assert_int_equal(getrlimit(RLIMIT_CORE, &core), 0);
    assert_int_equal(setrlimit(RLIMIT_CORE, &(struct rlimit){no_core.rlim_cur, core.rlim_max}), 0);
    write_trace(&r, "kill.json", 1, &answer, &story, path, sizeof path);
    int drawn = 0;
    for (int i = 0; i < KILLS; i++) {
        int number = signals[(size_t)i % (sizeof signals / sizeof signals[0])];
        if (with_sanitizer() && (number == SIGSEGV || number == SIGBUS || number == SIGABRT))
            continue;
        tty_start(t, 60, 10, (char *[]){"show", "--from", path, "--speed", "40", "--step", NULL});
        until_executed(t);
        if (i % 2) tty_until_hidden(t); /* the very first moment at which there is harm to do */
        if (i % 4 == 0) usleep((unsigned)(1e3 * LATEST_MS * test_random_uniform(&random)));
        kill(t->child, number);
        tty_end(t);
        assert_true(WIFSIGNALED(t->status) && WTERMSIG(t->status) == number);
        drawn += t->screen.frames > 0;
        tty_free(t);
    }
    assert_true(drawn > KILLS / 4); /* not all of them came before the program had begun */
    setrlimit(RLIMIT_CORE, &core);
    free(t);
    run_end(&r);
}

/* Stopped the terminal is as it was; continued, everything is drawn anew, below. */
static void test_stop(void **state) {
    (void)state;
    Run r;
    char path[512];
    struct termios now;
    const char *story = ascii, *answer = ascii_answer;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "stop.json", 1, &answer, &story, path, sizeof path);
    tty_start(t, 60, 20, (char *[]){"show", "--from", path, "--step", NULL});
    tty_until(t, "step 0/4");
    press(t, "nn", "step 2/4");
    assert_int_equal(tcgetattr(t->slave, &now), 0);
    assert_false(now.c_lflag & (ECHO | ICANON));
    /* Ctrl-Z does nothing here: a session's first process is in an orphaned group. SIGSTOP does. */
    kill(t->child, SIGSTOP);
    tty_until_stopped(t);
    screen_feed(&t->screen, "\r\n\n\n\nshell\r\n", 12);
    kill(t->child, SIGCONT);
    t->stopped = false;
    tty_until_frame(t, 4);
    assert_memory_equal(screen_row(&t->screen, 5), "step 2/4", 8);
    press(t, "n", "step 3/4");
    assert_string_equal(screen_row(&t->screen, 6), "a word thing that.");
    tty_keys(t, "Gq");
    tty_end(t);
    expect_answer(&t->screen, 5, answer);
    tty_free(t), free(t);
    run_end(&r);
}

/* ---- The window. ---- */

static void test_resize(void **state) {
    (void)state;
    static const int sizes[][2] = {{20, 24}, {80, 3}, {100, 2}, {13, 1}, {9, 6}, {4, 5}, {90, 24}};
    Run r;
    char path[512], want[4096], got[4096];
    const char *story = umlauts, *answer = umlauts_answer;
    Story s;
    Tty *t = malloc(sizeof *t);
    run_start(&r), story_read(&s, story);
    assert_non_null(t);
    write_trace(&r, "resize.json", 1, &answer, &story, path, sizeof path);
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

/* An answer of more lines than the window has: what is new is seen, nothing scrolls away. */
static void test_tall(void **state) {
    (void)state;
    Run r;
    char path[512], steps[16000] = "", word[64];
    enum { WORDS = 30 };
    for (int t = 0; t <= WORDS; t++)
        for (int i = 0; i < WORDS; i++) {
            int at = (i * 7) % WORDS; /* in no order of places */
            snprintf(word, sizeof word, at < t ? "▁word%02d" : "_", i);
            strcat(steps, word), strcat(steps, i + 1 < WORDS ? "/" : "|");
        }
    const char *story = steps, *answer = "many words";
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "tall.json", 1, &answer, &story, path, sizeof path);
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

/* ---- Texts that would do harm. ---- */

static void test_hostile_text(void **state) {
    (void)state;
    static const char evil[] = "▁\033[2J\033]0;title\007/▁\u202eabc\u202d/\u2066x/▁a\tb\nc\r/"
                               "\177\302\205/\u0301/\302\2332J/"
                               "▁\u2028end";
    char story[512], path[512];
    snprintf(story, sizeof story, "_/_/_/_/_/_/_/_|%s", evil);
    const char *stories = story, *answer = "\033[31mred\302\2332J\u202e\r\nend\007";
    Run r;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "evil.json", 1, &answer, &stories, path, sizeof path);
    for (int way = 0; way < 2; way++) {
        tty_start(t, 60, 10,
                  (char *[]){"show", "--from", path, "--speed", "1000", way ? "--steps-only" : NULL,
                             NULL});
        tty_end(t); /* the screen fails the test for everything that it does not know */
        assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
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

/* ---- Live, and again. ---- */

static void test_live_and_again(void **state) {
    (void)state;
    static char *const ways[3][6] = {{"--length", "9"},
                                     {"--beam", "3"},
                                     {"--length", "7", "--samples", "2", "--strategy", "cmlm"}};
    Run r;
    char path[512];
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    setenv("EASYFIRST_MODEL", BASE, 1);
    for (int w = 0; w < 3; w++)
        for (int plain = 0; plain < 2; plain++) {
            char *args[20] = {"show", "-q", "--json",  NULL,   PIC0,      "Where is it?",
                              "-s",   "3",  "--speed", "1000", "--steps", "50"};
            path_in(path, sizeof path, &r, "live.json");
            args[3] = path;
            for (int i = 0; i < 6; i++) args[12 + i] = ways[w][i];
            char *again[] = {"show", "--from", path, "--speed", "1000", NULL};
            if (plain) {
                run_files(&r, "/dev/null", NULL, args);
                expect(&r, 0, NULL);
                char *live = strdup(r.out);
                run_files(&r, "/dev/null", NULL, again);
                expect(&r, 0, live);
                /* What --json prints alone is the same but for what a look adds. */
                run(&r, "show", "--from", path, "--json");
                char *text = file_bytes(path, NULL);
                expect(&r, 0, text);
                free(live), free(text);
                continue;
            }
            tty_start(t, 50, 20, args);
            tty_end(t);
            assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
            char *live = strdup(t->bytes);
            assert_true(t->screen.frames > 5);
            tty_free(t);
            tty_start(t, 50, 20, again);
            tty_end(t);
            assert_string_equal(t->bytes, live);
            free(live), tty_free(t);
        }
    free(t);
    run_end(&r);
}

/* Where there is no terminal, or none that could draw: lines, on a terminal the same ones. */
static void test_plain(void **state) {
    (void)state;
    static const char *const settings[][2] = {
        {"TERM", "dumb"}, {"TERM", ""}, {"NO_COLOR", "1"}, {"", "--steps-only"}, {"", "-a"}};
    Run r;
    char path[512];
    const char *story = ascii, *answer = ascii_answer;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "plain.json", 1, &answer, &story, path, sizeof path);
    run(&r, "show", "--from", path, "--every-step");
    expect(&r, 0,
           "step 1  1/4  [a] __ __ __\n"
           "step 2  3/4  a [word] __[.]\n"
           "step 3  3/4  __ [thing that].   erased: \"a\", \"word\"\n"
           "step 4  4/4  [a] thing [stands].   erased: \"that\"\n"
           "a thing stands.\n");
    run(&r, "show", "--from", path); /* "a" comes back, "word" stays until "thing" comes */
    expect(&r, 0,
           "step 1  1/4  [a] __ __ __\n"
           "step 2  3/4  a [word] __[.]\n"
           "step 3  4/4  a [thing that].   erased: \"word\"\n"
           "step 4  4/4  a thing [stands].   erased: \"that\"\n"
           "a thing stands.\n");
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const char *name = settings[i][0], *option = *name ? NULL : settings[i][1];
        char *before = *name && getenv(name) ? strdup(getenv(name)) : NULL;
        if (*name) setenv(name, settings[i][1], 1);
        run(&r, "show", "--from", path, (char *)option);
        tty_start(t, 80, 10, (char *[]){"show", "--from", path, (char *)option, NULL});
        tty_end(t);
        char *want = r.out, *got = t->bytes, *to = got;
        for (const char *p = got; *p; p++)
            if (*p != '\r') *to++ = *p;
        *to = 0;
        assert_string_equal(got, want);
        tty_free(t);
        if (*name && before) setenv(name, before, 1);
        if (*name && !before) unsetenv(name);
        free(before);
    }
    free(t);
    run_end(&r);
}

/* The README's opening sample is what its command prints; no word is erased only to return, also
 * over the paper's 50 steps. */
static void test_readme_sample(void **state) {
    (void)state;
    static const char command[] =
        "$ easyfirst show data/bundled/images/tractor.jpg \"Which thing is at the bottom of the "
        "picture?\"\n";
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    char *readme = file_bytes("README.md", NULL);
    assert_non_null(readme);
    char *sample = strstr(readme, command);
    assert_non_null(sample);
    sample += strlen(command);
    *strstr(sample, "```") = 0;
    for (int steps = 0; steps < 2; steps++) {
        run(&r, "show", "data/bundled/images/tractor.jpg",
            "Which thing is at the bottom of the picture?", steps ? "--steps" : NULL, "50");
        expect(&r, 0, steps ? NULL : sample);
        assert_true(count_lines(r.out) <= 10);
        assert_null(strstr(r.out, "erased"));
    }
    free(readme);
    run_end(&r);
}

/* So are its other samples, through a shell. */
static void test_readme_samples(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    const char *program = getenv("EASYFIRST");
    char *readme = file_bytes("README.md", NULL), *at = readme;
    int samples = 0;
    assert_non_null(readme);
    while ((at = strstr(at, "\n$ easyfirst "))) {
        char *line = at + strlen("\n$ easyfirst "), *sample = strchr(line, '\n'), *end;
        *sample++ = 0;
        end = strstr(sample, "```");
        *end = 0;
        char shell[2048], got[4096];
        snprintf(shell, sizeof shell, "\"%s\" %s 2>/dev/null </dev/null",
                 program && *program ? program : "build/easyfirst", line);
        FILE *pipe = popen(shell, "r");
        assert_non_null(pipe);
        got[fread(got, 1, sizeof got - 1, pipe)] = 0;
        assert_int_equal(pclose(pipe), 0);
        assert_string_equal(got, sample);
        samples++;
        at = end + 1;
    }
    assert_int_equal(samples, 3);
    free(readme);
    run_end(&r);
}

static void test_ask_show(void **state) {
    (void)state;
    Run r;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "-q", "--length", "4", PIC0, "What?", "Where?");
    char *first = strdup(strrchr(strtok(r.out, "\n"), '\t') + 1), *second;
    second = strdup(strrchr(strtok(NULL, "\n"), '\t') + 1);
    tty_start(t, 100, 20,
              (char *[]){"ask", "-q", "--show", "--steps", "9", "--length", "4", PIC0, "What?",
                         "Where?", NULL});
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
    assert_string_equal(screen_row(&t->screen, 0), PIC0 ": What?");
    assert_string_equal(screen_row(&t->screen, 2), PIC0 ": Where?");
    assert_int_equal(t->screen.y, 4);
    tty_free(t), free(t);
    run(&r, "ask", "-q", "--show", "--length", "4", PIC0, "What?");
    expect(&r, 0, NULL);
    assert_memory_equal(r.out, "step ", 5);
    assert_non_null(strstr(r.out, first));
    run(&r, "ask", "-q", "--show", "--length", "4", PIC0, "Where?");
    assert_non_null(strstr(r.out, second));
    run(&r, "ask", "--show", "--json", PIC0, "What?");
    assert_message(&r, 2, "--show", "--json");
    free(first), free(second);
    run_end(&r);
}

/* Texts in the model's prompt template, as `text` has them, and `text` watched. */
static void test_presets(void **state) {
    (void)state;
    static char *const asked[][6] = {{"translate", "--from", "de", "--to", "en", "Werkzeug"},
                                     {"summarize", "A library that reads images."}};
    Run r;
    char path[512];
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    assert_non_null(t);
    path_in(path, sizeof path, &r, "kept.json");
    for (int i = 0; i < 2; i++) {
        char *const *a = asked[i];
        run(&r, "text", "-q", a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, NULL);
        char *answer = strdup(r.out);
        run(&r, "show", "-q", "--json", path, a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, NULL);
        size_t size = strlen(r.out), end = strlen(answer);
        assert_true(size > end);
        assert_string_equal(r.out + size - end, answer);
        char *shown = strdup(r.out);
        run(&r, "show", "--from", path);
        expect(&r, 0, shown);
        run(&r, "text", "-q", "--show", a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, shown);
        answer[strcspn(answer, "\n")] = 0;
        tty_start(t, 100, 20, (char *[]){"show", "-q", a[0], a[1], a[2], a[3], a[4], a[5], NULL});
        tty_end(t);
        assert_true(t->screen.frames > 1);
        expect_answer(&t->screen, 0, answer);
        tty_free(t);
        free(answer), free(shown);
    }
    /* One that cannot be answered is told, the others are shown. */
    run_text(&r, "Werkzeug\n\xff\nSpiel\n", "text", "-q", "--show", "translate", "--from", "de",
             "--to", "en");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "line 2"));
    assert_memory_equal(r.out, "Werkzeug\nstep ", 14);
    assert_non_null(strstr(r.out, "Spiel\nstep "));
    run(&r, "text", "--show", "--json", "x");
    assert_message(&r, 2, "--show", "--json");
    run(&r, "show", "translate", "--to", "en", "x");
    assert_message(&r, 2, "translate needs --from and --to");
    run(&r, "show", "translat", "x");
    assert_message(&r, 2, "translat", "did you mean translate");
    run(&r, "show", "summarize", "a", "b");
    assert_message(&r, 2, "summarize takes one text");
    run(&r, "show", "summarize", "--text", "a", "b");
    assert_message(&r, 2, "--text", "summarize");
    run(&r, "show", "--to", "en", PIC0, "b");
    assert_message(&r, 2, "--to belongs to translate");
    free(t);
    run_end(&r);
}

/* A prompt that is too long: refused, or what was dropped of it is said, and kept. */
static void test_long_prompts(void **state) {
    (void)state;
    Run r;
    char text[4 * 700 + 1], path[512];
    for (int i = 0; i < 700; i++) memcpy(text + 4 * i, "and ", 4);
    text[sizeof text - 1] = 0;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    path_in(path, sizeof path, &r, "kept.json");
    run(&r, "show", "-q", "--text", text);
    assert_message(&r, 1, "tokens long", "fit");
    run(&r, "show", "-q", "--text", text, "--long-prompts", "keep-last", "--length", "3", "--json",
        path);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.err, "1 prompt shortened"));
    char *kept = file_bytes(path, NULL);
    assert_non_null(strstr(kept, "\"dropped_tokens\": "));
    run(&r, "show", "--from", path, "--json");
    expect(&r, 0, kept);
    free(kept);
    run(&r, "ask", "-q", "--show", "--length", "3", "data/bundled/images/tractor.jpg", text,
        "Is it?");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "question 1"));
    assert_non_null(strstr(r.out, "tractor.jpg: Is it?\nstep "));
    run_end(&r);
}

static void test_usage(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "show", "--from", "no/such.json");
    assert_message(&r, 1, "no/such.json", "No such file");
    run(&r, "show", "--from", "README.md");
    assert_message(&r, 1, "README.md: line 1", "expected one trace");
    run(&r, "show", "--from", "x", PIC0, "q");
    assert_message(&r, 2, "--from", PIC0);
    run(&r, "show", "--from", "x", "--text", "q");
    assert_message(&r, 2, "--from", "\"q\"");
    run(&r, "show", "--json=", PIC0, "q");
    assert_message(&r, 2, "--json= needs a FILE");
    run(&r, "show", "--json", PIC0);
    assert_message(&r, 2, "no question");
    run(&r, "show", "-q", "--json", "a", "b", PIC0, "q");
    assert_message(&r, 2, "one question at a time");
    run(&r, "show", "-q", "--json", "no/such/folder/t.json", PIC0, "q");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "no/such/folder"));
    run(&r, "show", "--speed", "0", PIC0, "q");
    assert_message(&r, 2, "--speed");
    run_end(&r);
}

/* The same in a real terminal, where there is tmux. */
static void test_tmux(void **state) {
    (void)state;
    const char *program = getenv("EASYFIRST");
    char command[1024];
    snprintf(command, sizeof command, "sh tests/show_tmux.sh '%s' quick",
             program && *program ? program : "build/easyfirst");
    fflush(stdout);
    int status = system(command);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    setenv("TERM", "xterm-256color", 1);
    unsetenv("NO_COLOR"), unsetenv("COLORTERM");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_joined_emoji),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_enough),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_tall),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_live_and_again),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_readme_sample),
        cmocka_unit_test(test_readme_samples),
        cmocka_unit_test(test_ask_show),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_tmux),
        cmocka_unit_test(test_killed_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
