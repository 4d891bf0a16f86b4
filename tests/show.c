#include "tests/show.h"

#include <sys/wait.h>

#include <jansson.h>

#define START "_/_/_/_/_/_/_/_/_/_|"

const char story_ascii[] = "▁a/_/_/_|▁a/▁word/_/.|_/▁thing/▁that/.|▁a/▁thing/▁stands/.";
const char answer_ascii[] = "a thing stands.";
const char story_umlauts[] =
    START "▁Größe/_/_/_/_/_/_/_/▁Straße/_|▁Größe/▁über/_/_/▁Öl/_/_/_/▁Straße/.|"
          "▁Größe/▁für/_/▁Ma\xcc\x88rz/_/_/_/_/_/.|▁Größe/▁für/▁Übergangsmaßnahmen/▁Ma\xcc\x88rz/"
          "▁Öl/▁und/▁schöne/▁Grüße/▁Straße/.";
const char answer_umlauts[] =
    "Größe für Übergangsmaßnahmen Ma\xcc\x88rz Öl und schöne Grüße Straße.";
const char story_chinese[] =
    START "▁/_/_/_/机/_/_/_/上/。|▁/图片/_/有/机/_/_/在/上/。|▁/图片/中/有/两架/飞机/停/在/"
          "跑道/。|▁/图片/中/有/两架/飞机/停在机场的/灰色/跑道上/。";
const char answer_chinese[] = "图片中有两架飞机停在机场的灰色跑道上。";
const char story_emoji[] =
    START "▁🙂/_/_/_/▁☺/_/_/_/_/!|▁🙂/▁👩/_/_/_/▁👍/_/_/▁🇩/!|"
          "▁🙂/▁👩/▁❤/▁🐕/▁und/▁👍/▁日本/▁🚜/▁🏠/!";
const char answer_emoji[] = "🙂 👩 ❤ 🐕 und 👍 日本 🚜 🏠!";
const char story_joined[] = START "_/▁👩\u200d👩\u200d👧/_/_/▁und/_/_/▁👍🏽/_/_|"
                                  "▁🇩🇪/▁👩\u200d👩\u200d👧/▁❤\ufe0f/▁🐕/▁und/▁☺\ufe0f/▁日本/"
                                  "▁👍🏽/"
                                  "▁🏳️\u200d🌈/"
                                  "▁Ende";

void story_read(Story *s, const char *text) {
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

void write_trace(const Run *r, const char *name, const char *story, const char *answer, char *path,
                 size_t size) {
    Story s;
    story_read(&s, story);
    json_t *hypothesis = json_pack("{s:s, s:i, s:i, s:f, s:i}", "text", answer, "length", s.length,
                                   "sample", 0, "score", -0.25, "evaluations", s.steps);
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:o, s:i, s:i, s:[o]}", "prompt", "q", "answer",
                  answer, "strategy", "ar", "seed", 0, "prompt_tokens", 3, "best", 0, "trace",
                  story_steps(&s), "steps", s.steps, "length", s.length, "hypotheses", hypothesis);
    assert_non_null(root);
    char *text = json_dumps(root, 0);
    write_file(r, name, text, strlen(text), path, size);
    free(text), free(s.copy), json_decref(root);
}

void expect_dense(const Story *s, int frame, char *out) {
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

void expect_answer(const Screen *s, int row, const char *answer) {
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

void press(Tty *t, const char *keys, const char *status) {
    tty_keys(t, keys);
    tty_until(t, status);
    while (!t->screen.wrap) tty_until_frame(t, t->screen.frames + 1); /* all of it */
}

void tty_end_ok(Tty *t) {
    tty_end(t);
    assert_true(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0);
}

void show_environment(void) {
    setenv("TERM", "xterm-256color", 1);
    unsetenv("NO_COLOR"), unsetenv("COLORTERM");
}
