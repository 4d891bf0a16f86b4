/* Keys and signals while `show` plays, and the terminal afterwards: it is as it was before. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/show.h"

#define BASE "tests/golden/models/tiny-base"
#define PIC0 "tests/golden/models/image0.png"

/* ---- Keys. ---- */

static void test_keys(void **state) {
    (void)state;
    Run r;
    char path[512];
    const char *story = story_ascii, *answer = answer_ascii;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "keys.json", story, answer, path, sizeof path);
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
    tty_end_ok(t);
    expect_answer(&t->screen, 0, answer);
    tty_free(t);
    /* Quitting in between prints the answer. */
    tty_start(t, 60, 10, (char *[]){"show", "--from", path, "--step", NULL});
    tty_until(t, "step 0/4");
    press(t, "nn", "step 2/4");
    tty_keys(t, "q");
    tty_end_ok(t);
    expect_answer(&t->screen, 0, answer);
    tty_free(t), free(t);
    run_end(&r);
}

/* The same while the answer is being computed; the trace file is written all the same, and of
 * several questions the others are answered, too. */
static void test_quit_live(void **state) {
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
        tty_end_ok(t);
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
    tty_end_ok(t);
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
    const char *story = story_ascii, *answer = answer_ascii;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "signals.json", story, answer, path, sizeof path);
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

/* Waits until the child has started the program: before, it is a copy of this one, with its
 * handlers. */
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

/* Any signal at any moment: the cursor and the terminal's settings are restored (tty_end). */
static void test_killed_anywhere(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGPIPE, SIGUSR1,
                                  SIGALRM, SIGXCPU, SIGABRT, SIGSEGV, SIGBUS};
    enum { KILLS = 55, LATEST_MS = 40 };
    Run r;
    char path[512];
    const char *story = story_ascii, *answer = answer_ascii;
    const struct rlimit no_core = {0};
    struct rlimit core;
    TestRandom random = {.state = 50};
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    assert_int_equal(getrlimit(RLIMIT_CORE, &core), 0);
    assert_int_equal(setrlimit(RLIMIT_CORE, &(struct rlimit){no_core.rlim_cur, core.rlim_max}), 0);
    write_trace(&r, "kill.json", story, answer, path, sizeof path);
    int drawn = 0;
    for (int i = 0; i < KILLS; i++) {
        int number = signals[(size_t)i % (sizeof signals / sizeof signals[0])];
        if (with_sanitizer() && (number == SIGSEGV || number == SIGBUS || number == SIGABRT))
            continue;
        tty_start(t, 60, 10, (char *[]){"show", "--from", path, "--speed", "40", "--step", NULL});
        until_executed(t);
        if (i % 2)
            tty_until_hidden(t); /* the first moment at which there is something to restore */
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

/* Stopped, the terminal is as it was before; continued, everything is drawn again, below. */
static void test_stop(void **state) {
    (void)state;
    Run r;
    char path[512];
    struct termios now;
    const char *story = story_ascii, *answer = answer_ascii;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "stop.json", story, answer, path, sizeof path);
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

int main(void) {
    show_environment();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_quit_live),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_killed_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
