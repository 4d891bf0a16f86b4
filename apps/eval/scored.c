#include "apps/eval/scored.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/json.h"
#include "data/checkpoints/config.h"
#include "data/metrics/rouge.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"

static const ScoredTask tasks[] = {
    {"translation", {"bleu", "chrf"}, {"BLEU", "chrF2"}, {NULL}},
    {"summary", {"rouge1", "rouge2", "rougeL"}, {"Rouge-1", "Rouge-2", "Rouge-L"}, {NULL}},
    {"choice", {"accuracy"}, {"accuracy"}, {"subject"}},
    {"exact",
     {"exact_match", "normalised", "f1"},
     {"exact match", "normalized match", "F1"},
     {NULL}},
    {"number", {"accuracy"}, {"accuracy"}, {NULL}},
    {"gqa",
     {"accuracy", "exact_match", "binary", "open", "consistency", "validity", "plausibility",
      "grounding"},
     {"accuracy", "exact match", "binary", "open", "consistency", "validity", "plausibility",
      "grounding"},
     {"semantic", "structural", "detailed"}},
};

const ScoredTask *scored_task(const char *name) {
    for (size_t i = 0; name && i < sizeof tasks / sizeof tasks[0]; i++)
        if (!strcmp(tasks[i].name, name)) return &tasks[i];
    return NULL;
}

int scored_metric_count(const ScoredTask *task) {
    int n = 0;
    while (n < SCORED_METRICS && task->keys[n]) n++;
    return n;
}

/* ---- Lines. ---- */

ScoredLine *scored_add(Scored *s, Error *err) {
    if (s->count == s->capacity) {
        int64_t capacity = s->capacity ? 2 * s->capacity : 256;
        ScoredLine *lines = realloc(s->lines, (size_t)capacity * sizeof *lines);
        if (!lines) {
            error_set(err, "out of memory for %lld questions", (long long)capacity);
            return NULL;
        }
        s->lines = lines, s->capacity = capacity;
    }
    ScoredLine *line = &s->lines[s->count++];
    *line = (ScoredLine){0};
    for (int m = 0; m < SCORED_METRICS; m++) line->values[m] = NAN;
    return line;
}

int scored_text(char **to, const char *text, Error *err) {
    if (!text) return 0;
    *to = strdup(text);
    return *to ? 0 : error_set(err, "out of memory for the questions");
}

void scored_free(Scored *s) {
    for (int64_t i = 0; i < s->count; i++) {
        ScoredLine *l = &s->lines[i];
        free(l->id), free(l->file), free(l->prompt), free(l->target), free(l->answer);
        free(l->image);
        for (int t = 0; t < SCORED_TYPES; t++) free(l->types[t]);
    }
    free(s->lines);
    *s = (Scored){0};
}

/* ---- Counts. ---- */

static bool is_corpus(const Scored *s) {
    return !strcmp(s->task->name, "translation");
}

static int64_t line_of(const Selection *selection, int64_t i) {
    return selection ? selection->lines[i] : i;
}

typedef struct Texts {
    const char **answers, **targets;
    References references;
} Texts;

static int texts_make(const Scored *s, const Selection *selection, int64_t count, Texts *t,
                      Error *err) {
    *t = (Texts){.answers = malloc(((size_t)count + 1) * sizeof *t->answers),
                 .targets = malloc(((size_t)count + 1) * sizeof *t->targets)};
    if (!t->answers || !t->targets)
        return error_set(err, "out of memory for %lld answers", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const ScoredLine *line = &s->lines[line_of(selection, i)];
        t->answers[i] = line->answer ? line->answer : "";
        t->targets[i] = line->target ? line->target : "";
    }
    const char *const *columns[] = {t->targets};
    return references_from_columns(&t->references, columns, 1, count, err);
}

static void texts_free(Texts *t) {
    references_free(&t->references);
    free(t->answers), free(t->targets);
}

static int corpus_stats(const Scored *s, int metric, const BleuOptions *bleu,
                        const Selection *selection, int64_t count, LineStats *stats, Error *err) {
    Texts t;
    int status = texts_make(s, selection, count, &t, err);
    if (status == 0)
        status = metric == 0 ? bleu_stats(t.answers, &t.references, bleu, stats, err)
                             : chrf_stats(t.answers, &t.references, &s->chrf, stats, err);
    texts_free(&t);
    return status;
}

int scored_stats(const Scored *s, int metric, const Selection *selection, LineStats *stats,
                 Error *err) {
    int64_t count = selection ? selection->count : s->count;
    if (is_corpus(s)) return corpus_stats(s, metric, &s->bleu, selection, count, stats, err);
    TRY(mean_stats_open(stats, count, err));
    for (int64_t i = 0; i < count; i++)
        mean_stats_set(stats, i, s->lines[line_of(selection, i)].values[metric] / 100);
    return 0;
}

int scored_translations(Scored *s, Error *err) {
    BleuOptions single = s->bleu;
    single.effective_order = true;
    for (int m = 0; m < 2 && s->count; m++) {
        LineStats stats;
        TRY(corpus_stats(s, m, &single, NULL, s->count, &stats, err));
        for (int64_t i = 0; i < s->count; i++)
            s->lines[i].values[m] = stats.score(stats.rows + i * stats.width, stats.user);
        line_stats_free(&stats);
    }
    return 0;
}

int scored_summaries(Scored *s, bool stem, Error *err) {
    static const RougeKind kinds[] = {ROUGE_1, ROUGE_2, ROUGE_L};
    Texts t;
    RougeScore *scores = malloc(((size_t)s->count + 1) * sizeof *scores);
    int status = texts_make(s, NULL, s->count, &t, err);
    if (!scores && status == 0) status = error_set(err, "out of memory for the summaries");
    if (status == 0 && s->count) status = rouge_lines(t.answers, &t.references, stem, scores, err);
    for (int64_t i = 0; i < s->count && status == 0; i++)
        for (int k = 0; k < 3; k++) s->lines[i].values[k] = 100 * scores[i].kinds[kinds[k]].f;
    texts_free(&t);
    free(scores);
    return status;
}

/* ---- The file. ---- */

static void put_text(json_t *object, const char *name, const char *text) {
    if (text) json_object_set_new(object, name, json_text(text));
}

static char *scored_line(void *user, int64_t index, bool *failed) {
    const Scored *s = user;
    const ScoredLine *l = &s->lines[index];
    json_memory_begin();
    json_t *object = json_object(), *types = json_object(), *scores = json_object();
    put_text(object, "question_id", l->id);
    put_text(object, "file", l->file);
    put_text(object, "prompt", l->prompt);
    put_text(object, "target", l->target);
    json_object_set_new(object, "answer", l->answer ? json_text(l->answer) : json_null());
    put_text(object, "image", l->image);
    for (int t = 0; t < SCORED_TYPES; t++)
        if (s->task->types[t]) put_text(types, s->task->types[t], l->types[t]);
    for (int m = 0; m < scored_metric_count(s->task); m++)
        if (!isnan(l->values[m]))
            json_object_set_new(scores, s->task->keys[m], json_real(l->values[m]));
    if (json_object_size(types)) json_object_set(object, "types", types);
    json_object_set(object, "scores", scores);
    json_decref(types), json_decref(scores);
    char *line = json_memory_failed() ? NULL : json_dumps_whole(object, JSON_REAL_PRECISION(12));
    json_decref(object);
    *failed = !line;
    return line;
}

int scored_write(const Scored *s, const EvalStore *store, Error *err) {
    return eval_store_lines(store, "scored.jsonl", scored_line, (void *)s, s->count, err);
}

static const char *member(const json_t *object, const char *name) {
    return json_string_value(json_object_get(object, name));
}

static int read_line(Scored *s, const json_t *object, Error *err) {
    const json_t *types = json_object_get(object, "types"), *value;
    const json_t *scores = json_object_get(object, "scores");
    ScoredLine *l = scored_add(s, err);
    if (!l) return -1;
    TRY(scored_text(&l->id, member(object, "question_id"), err));
    TRY(scored_text(&l->file, member(object, "file"), err));
    TRY(scored_text(&l->prompt, member(object, "prompt"), err));
    TRY(scored_text(&l->target, member(object, "target"), err));
    TRY(scored_text(&l->answer, member(object, "answer"), err));
    TRY(scored_text(&l->image, member(object, "image"), err));
    for (int t = 0; t < SCORED_TYPES && s->task->types[t]; t++)
        TRY(scored_text(&l->types[t], member(types, s->task->types[t]), err));
    for (int m = 0; m < scored_metric_count(s->task); m++) {
        value = json_object_get(scores, s->task->keys[m]);
        if (json_is_number(value)) l->values[m] = json_number_value(value);
    }
    if (l->id && json_is_object(scores)) return 0;
    return error_set(err, "expected {\"question_id\": ..., \"scores\": {...}}");
}

static int read_lines(Scored *s, FILE *in, const char *path, Error *err) {
    char *text = NULL;
    size_t capacity = 0;
    ssize_t size;
    int status = 0;
    for (long long number = 1; status == 0 && (size = getline(&text, &capacity, in)) >= 0;
         number++) {
        json_t *object = json_loadb_whole(text, (size_t)size, 0, NULL);
        status = object ? read_line(s, object, err) : error_set(err, "not valid JSON");
        if (status) error_context(err, "%s: line %lld", path, number);
        json_decref(object);
    }
    if (status == 0 && ferror(in)) status = error_set(err, "%s: %s", path, strerror(errno));
    free(text);
    return status;
}

static int read_task(Scored *s, const json_t *result, const char *path, Error *err) {
    const json_t *score = json_object_get(result, "score");
    const char *command = member(json_object_get(result, "settings"), "command");
    const char *name = command && !strcmp(command, "eval gqa") ? "gqa" : member(score, "task");
    s->task = scored_task(name);
    if (!s->task)
        return error_set(err, "%s: not the result of `easyfirst eval gqa` or `easyfirst eval text`",
                         path);
    const char *tokenizer = member(score, "tokenize");
    if (tokenizer && !tokenize_find(tokenizer, &s->bleu.tokenize))
        return error_set(err, "%s: unknown tokenizer \"%.40s\" of BLEU", path, tokenizer);
    return 0;
}

int scored_read(Scored *s, const char *folder, json_t **result, Error *err) {
    char *path = path_join(folder, "result.json", err), *lines = NULL;
    FILE *in = NULL;
    *s = (Scored){0}, *result = NULL;
    int status = path ? config_read(result, path, err) : -1;
    if (path && status)
        error_context(err, "%s is not the folder (--out) of a finished evaluation", folder);
    if (status == 0) status = read_task(s, *result, path, err);
    if (status == 0) status = (lines = path_join(folder, "scored.jsonl", err)) ? 0 : -1;
    if (status == 0 && !(in = fopen(lines, "rb")))
        status = error_set(err,
                           "%s: %s; if an older easyfirst made this folder, call the same "
                           "`easyfirst eval` again: it asks nothing twice",
                           lines, strerror(errno));
    if (status == 0) status = read_lines(s, in, lines, err);
    if (status == 0 && !s->count) status = error_set(err, "%s: it has no questions", lines);
    if (in) fclose(in);
    free(path), free(lines);
    if (status) {
        scored_free(s), json_decref(*result);
        *result = NULL;
    }
    return status;
}
