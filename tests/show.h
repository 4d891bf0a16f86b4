/* show.h - what the tests of `show` share: trace files written from short stories, and the screens
 * that they lead to. */
#ifndef EASYFIRST_TESTS_SHOW_H
#define EASYFIRST_TESTS_SHOW_H

#include "tests/program.h"
#include "tests/screen.h"

/* A story is a decoding in short: steps are separated by '|', positions by '/'; "_" is a mask. */
enum { STORY_POSITIONS = 80, STORY_STEPS = 64 };

typedef struct Story {
    char *copy;
    char *pieces[STORY_STEPS][STORY_POSITIONS];
    int steps, length;
} Story;

/* Free s->copy. */
void story_read(Story *s, const char *text);

/* The trace file of one hypothesis. */
void write_trace(const Run *r, const char *name, const char *story, const char *answer, char *path,
                 size_t size);

/* Stories, and the answers at their ends: one that erases and replaces; umlauts, one of them in two
 * characters; Chinese; emoji of one character; emoji of several (joined, with a skin color, a flag,
 * with U+FE0F), which this screen shows one by one, as older terminals do. */
extern const char story_ascii[], answer_ascii[];
extern const char story_umlauts[], answer_umlauts[];
extern const char story_chinese[], answer_chinese[];
extern const char story_emoji[], answer_emoji[];
extern const char story_joined[];

/* What a frame shows, without blanks: erased words are still shown, masks are "__". */
void expect_dense(const Story *s, int frame, char *out);

/* From `row` on the screen has the answer, broken into lines as a terminal of this width breaks it:
 * letter by letter. */
void expect_answer(const Screen *s, int row, const char *answer);

/* Sends keys and waits until the whole frame with this status is drawn. */
void press(Tty *t, const char *keys, const char *status);

/* tty_end; the exit status must be 0. */
void tty_end_ok(Tty *t);

/* Makes the environment that of a terminal with colors. */
void show_environment(void);

#endif
