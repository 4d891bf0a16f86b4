/* gqa_tables.c - GQA's accuracy by kinds of question, the distribution of answers, and the
 * self-check against the published numbers of testdev_balanced. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/metrics/gqa_state.h"
#include "data/metrics/gqa_text.h"

const char *gqa_table_name(GqaTableKind kind) {
    static const char *const names[GQA_TABLES] = {"structural", "semantic", "steps", "words",
                                                  "answer_words"};
    return names[kind];
}

/* ---- Tables. ---- */

/* A question's row in a table. */
typedef struct Key {
    int32_t key;
    bool right;
} Key;

static int by_key(const void *a, const void *b) {
    int32_t x = ((const Key *)a)->key, y = ((const Key *)b)->key;
    return (x > y) - (x < y);
}

static int by_row_name(const void *a, const void *b) {
    return strcmp(((const GqaRow *)a)->name, ((const GqaRow *)b)->name);
}

/* -1: in no row. */
static int32_t key_of(const GqaState *s, const GqaScored *q, GqaTableKind kind) {
    int32_t gold = s->states[q->id].gold;
    switch (kind) {
    case GQA_BY_STRUCTURAL:
        return q->structural;
    case GQA_BY_SEMANTIC:
        return q->semantic;
    case GQA_BY_STEPS:
        return q->steps;
    case GQA_BY_WORDS:
        return q->words;
    default: {
        const char *text = gold < 0 ? NULL : text_table_get(&s->answers, gold);
        return text ? gqa_words(text, false) : -1;
    }
    }
}

/* The rows of sorted keys; `names` says what keys are, NULL: numbers. */
static int make_rows(GqaTable *table, const Key *keys, size_t count, const TextTable *names) {
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) rows += i == 0 || keys[i].key != keys[i - 1].key;
    table->rows = calloc(rows + 1, sizeof *table->rows);
    if (!table->rows) return -1;
    for (size_t i = 0; i < count;) {
        GqaRow *row = &table->rows[table->count];
        int32_t key = keys[i].key;
        int64_t right = 0;
        for (; i < count && keys[i].key == key; i++) right += keys[i].right, row->count++;
        row->value = 100 * ((double)right / (double)row->count);
        if (names)
            row->name = strdup(text_table_get(names, key));
        else if (asprintf(&row->name, "%d", (int)key) < 0)
            row->name = NULL;
        if (!row->name) return -1;
        table->count++;
    }
    if (names) qsort(table->rows, (size_t)table->count, sizeof *table->rows, by_row_name);
    return 0;
}

static int make_table(GqaState *s, GqaTableKind kind, Key *keys) {
    size_t count = 0;
    for (size_t i = 0; i < s->scored_count; i++) {
        const GqaScored *q = &s->scored[i];
        int32_t key = q->live ? key_of(s, q, kind) : -1;
        if (key >= 0) keys[count++] = (Key){key, gqa_right(&s->states[q->id])};
    }
    qsort(keys, count, sizeof *keys, by_key);
    bool named = kind == GQA_BY_STRUCTURAL || kind == GQA_BY_SEMANTIC;
    return make_rows(&s->score->tables[kind], keys, count, named ? &s->names : NULL);
}

/* ---- Distribution. ---- */

/* An answer, gold or predicted, to a question of a group. */
typedef struct Given {
    int32_t group, answer;
    bool gold;
} Given;

static int by_group(const void *a, const void *b) {
    const Given *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->answer > y->answer) - (x->answer < y->answer);
}

/* Chi-square of the predictions against the gold answers of each group, over the gold answers of
 * the group; the mean over groups is weighted by their questions. */
static void score_distribution(GqaState *s, Given *given) {
    size_t count = 0;
    double sum = 0;
    int64_t overall = 0, groups = 0;
    for (size_t i = 0; i < s->scored_count; i++) {
        const GqaScored *q = &s->scored[i];
        const GqaIdState *state = &s->states[q->id];
        if (!q->live || q->group < 0) continue;
        groups++;
        if (state->gold >= 0) given[count++] = (Given){q->group, state->gold, true};
        if (state->prediction >= 0) given[count++] = (Given){q->group, state->prediction, false};
    }
    qsort(given, count, sizeof *given, by_group);
    for (size_t i = 0; i < count;) {
        int32_t group = given[i].group;
        double chi = 0;
        int64_t size = 0;
        while (i < count && given[i].group == group) {
            int32_t answer = given[i].answer;
            int64_t gold = 0, predicted = 0;
            for (; i < count && given[i].group == group && given[i].answer == answer; i++)
                gold += given[i].gold, predicted += !given[i].gold;
            if (!gold) continue;
            double excess = (double)(predicted - gold);
            chi += excess * excess / (double)gold;
            size += gold;
        }
        sum += chi * (double)size;
        overall += size;
    }
    gqa_mean(s->score, GQA_DISTRIBUTION, sum, overall,
             groups ? "the questions have no answers" : "no question has a global group");
    /* Not a percentage: the mean over 100. */
    if (overall) s->score->metrics[GQA_DISTRIBUTION].value = sum / (double)overall / 100;
}

/* ---- The self-check. ---- */

static const struct {
    GqaTableKind table;
    const char *name;
    int64_t count;
} published[] = {
    {GQA_BY_STRUCTURAL, "choose", 1129},  {GQA_BY_STRUCTURAL, "compare", 589},
    {GQA_BY_STRUCTURAL, "logical", 1803}, {GQA_BY_STRUCTURAL, "verify", 2252},
    {GQA_BY_STRUCTURAL, "query", 6805},   {GQA_BY_SEMANTIC, "attr", 5186},
    {GQA_BY_SEMANTIC, "cat", 1149},       {GQA_BY_SEMANTIC, "global", 157},
    {GQA_BY_SEMANTIC, "obj", 778},        {GQA_BY_SEMANTIC, "rel", 5308},
};
enum { PUBLISHED = sizeof published / sizeof published[0], TESTDEV_QUESTIONS = 12578 };

static int64_t row_count(const GqaTable *table, const char *name) {
    for (int i = 0; i < table->count; i++)
        if (!strcmp(table->rows[i].name, name)) return table->rows[i].count;
    return 0;
}

static void check_testdev(GqaScore *score) {
    size_t used = 0;
    score->check = GQA_NOT_TESTDEV;
    if (score->questions != TESTDEV_QUESTIONS || !score->tables[GQA_BY_STRUCTURAL].count) return;
    score->check = GQA_CHECK_EQUAL;
    for (size_t i = 0; i < PUBLISHED; i++) {
        int64_t found = row_count(&score->tables[published[i].table], published[i].name);
        if (found == published[i].count) continue;
        score->check = GQA_CHECK_DIFFERENT;
        used += (size_t)snprintf(score->check_text + used, sizeof score->check_text - used,
                                 "%s%s %lld, not %lld", used ? "; " : "", published[i].name,
                                 (long long)found, (long long)published[i].count);
    }
}

int gqa_tabulate(GqaState *s, Error *err) {
    Key *keys = calloc(s->scored_count + 1, sizeof *keys);
    Given *given = calloc(2 * s->scored_count + 1, sizeof *given);
    int status = keys && given ? 0 : -1;
    bool golds = s->score->metrics[GQA_ACCURACY].present;
    for (int t = 0; t < GQA_TABLES && status == 0 && golds; t++)
        status = make_table(s, (GqaTableKind)t, keys);
    if (status == 0) score_distribution(s, given);
    free(keys), free(given);
    if (status)
        return error_set(err, "out of memory for the tables of %zu questions", s->scored_count);
    check_testdev(s->score);
    return 0;
}
