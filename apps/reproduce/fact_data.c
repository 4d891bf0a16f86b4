/* fact_data.c - who wrote which book: facts that are learned in one direction and asked in both.
 *
 *   facts-train.jsonl     sentences, as answers to empty prompts: "Balane Corening wrote The ...", or
 *                         "The ... was written by Balane Corening"; some facts both ways, which shows
 *                         that the two say the same
 *   facts-learned.jsonl   the others asked as they are learned: their beginnings
 *   facts-reversed.jsonl  asked the other way round
 *   facts-both.jsonl      those that are learned both ways, asked both ways
 *
 * A name, and a title, has words that others have, too: only all of them together say who or what it is.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/reproduce/draft.h"

enum {
    ONE_WAY = 200, /* half of them with the name first */
    BOTH_WAYS = 400,
    FACTS = ONE_WAY + BOTH_WAYS,
    SIDE = 35, /* words of a kind: more than the root of twice as many facts */
    KINDS = 4,
    WORD_SIZE = 16,
};

/* First and last names, adjectives and nouns. */
typedef struct Words {
    char kinds[KINDS][SIDE][WORD_SIZE];
} Words;

typedef struct Fact {
    const char *name[2], *book[2];
} Fact;

static const char *const begins[] = {"Ba", "Co", "De", "Fi", "Ga", "Hu", "Jo", "Ka", "Lu", "Mi"};
static const char *const middles[] = {"lan", "rem", "vis", "don", "ter", "nik"};
static const char *const ends[KINDS][2] = {
    {"a", "e"}, {"son", "ing"}, {"ous", "ful"}, {"um", "or"}};

static void make_words(Words *w) {
    enum { ALL = COUNT(begins) * COUNT(middles) * 2 };
    for (int kind = 0; kind < KINDS; kind++) {
        int order[ALL];
        Draw d = draw_for(SET_FACTS, kind);
        draw_order(&d, order, ALL);
        for (int i = 0; i < SIDE; i++) {
            const int word = order[i], last = word % 2, inner = word / 2;
            snprintf(w->kinds[kind][i], WORD_SIZE, "%s%s%s", begins[inner % COUNT(begins)],
                     middles[inner / COUNT(begins)], ends[kind][last]);
        }
    }
}

/* No two facts share a name or a book. */
static void make_facts(const Words *w, Fact facts[FACTS]) {
    int people[SIDE * SIDE], books[SIDE * SIDE];
    Draw d = draw_for(SET_FACTS, KINDS);
    draw_order(&d, people, SIDE * SIDE);
    draw_order(&d, books, SIDE * SIDE);
    for (int i = 0; i < FACTS; i++)
        facts[i] = (Fact){
            {w->kinds[0][people[i] / SIDE], w->kinds[1][people[i] % SIDE]},
            {w->kinds[2][books[i] / SIDE], w->kinds[3][books[i] % SIDE]},
        };
}

/* As a question, or (whole) as a sentence that is the answer to nothing. */
static void put_fact(FILE *out, const Fact *f, bool book_first, bool whole) {
    char name[2 * WORD_SIZE], book[2 * WORD_SIZE + 8];
    snprintf(name, sizeof name, "%s %s", f->name[0], f->name[1]);
    snprintf(book, sizeof book, "The %s %s", f->book[0], f->book[1]);
    const char *first = book_first ? book : name, *last = book_first ? name : book;
    const char *verb = book_first ? "was written by" : "wrote";
    if (whole)
        fprintf(out, "{\"inputs\": \"\", \"targets\": \"%s %s %s\"}\n", first, verb, last);
    else
        fprintf(out, "{\"inputs\": \"%s %s\", \"targets\": \"%s\"}\n", first, verb, last);
}

enum { LEARNED, REVERSED, BOTH, TRAIN_FILE, FILES };

static void put_all(FILE *const out[FILES], const Fact facts[FACTS]) {
    for (int i = 0; i < FACTS; i++) {
        const bool turned = i >= ONE_WAY / 2;
        if (i < ONE_WAY) {
            put_fact(out[TRAIN_FILE], &facts[i], turned, true);
            put_fact(out[LEARNED], &facts[i], turned, false);
            put_fact(out[REVERSED], &facts[i], !turned, false);
            continue;
        }
        for (int first = 0; first < 2; first++) {
            put_fact(out[TRAIN_FILE], &facts[i], first, true);
            put_fact(out[BOTH], &facts[i], first, false);
        }
    }
}

static int write_facts(const char *folder, const Fact facts[FACTS], Error *err) {
    static const char *const names[FILES] = {"facts-learned.jsonl", "facts-reversed.jsonl",
                                             "facts-both.jsonl", "facts-train.jsonl"};
    Draft drafts[FILES] = {{0}};
    FILE *out[FILES];
    int status = 0, begun = 0;
    while (begun < FILES && status == 0) {
        status = draft_begin(&drafts[begun], err);
        if (status == 0) out[begun] = drafts[begun].out, begun++;
    }
    if (status == 0) put_all(out, facts);
    for (int i = 0; i < begun; i++) {
        if (status == 0)
            status = draft_end(&drafts[i], folder, names[i], err);
        else
            fclose(drafts[i].out), free(drafts[i].text);
    }
    return status;
}

int fact_data_write(const char *folder, Error *err) {
    static const char *const others[] = {"The", "wrote", "was", "written", "by"};
    const char *words[KINDS * SIDE + COUNT(others)];
    Fact facts[FACTS];
    Words w;
    int count = 0;
    make_words(&w);
    make_facts(&w, facts);
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < SIDE; i++) words[count++] = w.kinds[kind][i];
    for (int i = 0; i < COUNT(others); i++) words[count++] = others[i];
    TRY(write_facts(folder, facts, err));
    return word_tokenizer_write(folder, "facts-tokenizer", words, count, true, err);
}
