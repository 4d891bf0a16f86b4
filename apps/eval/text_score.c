#include "apps/eval/text_score.h"

#include <stdlib.h>
#include <string.h>

#include "apps/cli/report.h"
#include "data/files/json_memory.h"
#include "data/metrics/answers.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/rouge.h"
#include "data/files/path.h"
#include "kernels/names.h"

enum { COLUMNS = EVAL_TEXT_VALUES };

const char *const eval_task_names[] = {
    [EVAL_TRANSLATION] = "translation", [EVAL_SUMMARY] = "summary",
    [EVAL_CHOICE] = "choice",           [EVAL_EXACT] = "exact",
    [EVAL_NUMBER] = "number",           NULL};

/* What is measured in each task: the name in JSON, and the title in the table. */
static const struct {
    const char *key, *title;
} task_columns[EVAL_TASKS][COLUMNS] = {
    [EVAL_TRANSLATION] = {{"bleu", "BLEU"}, {"chrf", "chrF2"}},
    [EVAL_SUMMARY] = {{"rouge1", "Rouge-1"}, {"rouge2", "Rouge-2"}, {"rougeL", "Rouge-L"}},
    [EVAL_CHOICE] = {{"accuracy", "accuracy"}},
    [EVAL_EXACT] = {{"exact_match", "exact"}, {"normalised", "normalized"}, {"f1", "F1"}},
    [EVAL_NUMBER] = {{"accuracy", "accuracy"}},
};

/* ---- Plain files for other scorers. ---- */

typedef struct Column {
    const EvalTextSet *set;
    int64_t first;
    bool targets;
} Column;

static char *column_line(void *user, int64_t index, bool *failed) {
    const Column *c = user;
    int64_t i = c->first + index;
    if (c->set->items.items[i].skipped) return NULL;
    const char *text = c->targets ? c->set->targets[i] : c->set->items.items[i].answer;
    char *line = strdup(text ? text : "");
    *failed = !line;
    for (char *p = line; p && *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
    return line;
}

int eval_text_files(const EvalTextSet *s, const EvalStore *store, Error *err) {
    for (int f = 0; f < s->file_count; f++) {
        const EvalTextFile *file = &s->files[f];
        for (int targets = 0; targets < 2; targets++) {
            Column column = {s, file->first, targets};
            char *name = path_format(err, "%s.%s.txt", file->name, targets ? "targets" : "answers");
            if (!name) return -1;
            int status =
                eval_store_lines(store, name, column_line, &column, file->end - file->first, err);
            free(name);
            if (status) return -1;
        }
    }
    return 0;
}

/* ---- One file. ---- */

/* Answers and targets of a file, as the metrics of corpora take them. */
typedef struct Corpus {
    const char **answers;
    References references; /* a target for each */
} Corpus;

static int translation_score(json_t *row, const Corpus *c, const EvalTextOptions *o, Error *err) {
    BleuOptions options = {.tokenize = o->tokenize};
    ChrfOptions chrf_options = {0};
    BleuScore bleu;
    ChrfScore chrf;
    char line[BLEU_LINE_SIZE], signature[SIGNATURE_SIZE], chrf_signature_text[CHRF_TEXT_SIZE];
    TRY(bleu_corpus(c->answers, &c->references, &options, &bleu, err));
    TRY(chrf_corpus(c->answers, &c->references, &chrf_options, &chrf, err));
    bleu_line(&bleu, line);
    bleu_signature(&bleu, &options, signature);
    chrf_signature(&chrf, &chrf_options, chrf_signature_text);
    json_object_set_new(row, "bleu", json_real(bleu.score));
    json_object_set_new(row, "bleu_line", json_string(line));
    json_object_set_new(row, "bleu_signature", json_string(signature));
    json_object_set_new(row, "chrf", json_real(chrf.score));
    json_object_set_new(row, "chrf_signature", json_string(chrf_signature_text));
    return 0;
}

static int summary_score(json_t *row, const Corpus *c, const EvalTextOptions *o, Error *err) {
    static const RougeKind kinds[COLUMNS] = {ROUGE_1, ROUGE_2, ROUGE_L};
    RougeScore score;
    TRY(rouge_corpus(c->answers, &c->references, o->stem, &score, err));
    for (int k = 0; k < COLUMNS; k++)
        json_object_set_new(row, task_columns[EVAL_SUMMARY][k].key,
                            json_real(100 * score.kinds[kinds[k]].f));
    json_object_set_new(row, "stem", json_boolean(o->stem));
    return 0;
}

int eval_text_values(EvalTask task, const char *answer, const char *target,
                     double values[EVAL_TEXT_VALUES], Error *err) {
    values[0] = values[1] = values[2] = 0;
    if (!answer) return 0;
    if (task == EVAL_CHOICE) return answer_choice(answer, target, &values[0], err);
    if (task == EVAL_NUMBER) return answer_number(answer, target, &values[0], err);
    TRY(answer_exact(ANSWER_AS_IS, answer, target, &values[0], err));
    TRY(answer_exact(ANSWER_SQUAD, answer, target, &values[1], err));
    return answer_f1(answer, target, &values[2], err);
}

static int count_columns(EvalTask task) {
    int n = 0;
    while (n < COLUMNS && task_columns[task][n].key) n++;
    return n;
}

/* Adds an answer's value to its subject's sum. */
static void subject_add(json_t *subjects, const char *name, double value) {
    json_t *row = json_object_get(subjects, name);
    if (!row) {
        json_object_set_new(subjects, name, json_pack("{s:f, s:i}", "right", 0.0, "lines", 0));
        row = json_object_get(subjects, name);
    }
    double right = json_number_value(json_object_get(row, "right"));
    json_int_t lines = json_integer_value(json_object_get(row, "lines"));
    json_object_set_new(row, "right", json_real(right + value));
    json_object_set_new(row, "lines", json_integer(lines + 1));
}

/* Sums of the subjects become accuracies, with their mean. */
static void subjects_end(json_t *scores, json_t *subjects) {
    const char *name;
    json_t *row;
    double sum = 0;
    json_object_foreach(subjects, name, row) {
        double lines = json_number_value(json_object_get(row, "lines"));
        double accuracy = 100 * json_number_value(json_object_get(row, "right")) / lines;
        json_object_del(row, "right");
        json_object_set_new(row, "accuracy", json_real(accuracy));
        sum += accuracy;
    }
    size_t count = json_object_size(subjects);
    if (count) json_object_set_new(scores, "macro", json_real(sum / (double)count));
    json_object_set_new(scores, "subjects", subjects);
}

static int means_score(json_t *row, const EvalTextSet *s, const EvalTextFile *file, EvalTask task,
                       json_t *subjects, Error *err) {
    double sums[COLUMNS] = {0}, values[COLUMNS];
    int64_t scored = 0;
    for (int64_t i = file->first; i < file->end; i++) {
        const EvalItem *item = &s->items.items[i];
        if (item->skipped) continue;
        scored++;
        TRY(eval_text_values(task, item->answer, s->targets[i], values, err));
        for (int c = 0; c < COLUMNS; c++) sums[c] += values[c];
        if (subjects) subject_add(subjects, s->subjects[i], values[0]);
    }
    for (int c = 0; c < count_columns(task); c++)
        json_object_set_new(row, task_columns[task][c].key,
                            json_real(100 * sums[c] / (double)scored));
    return 0;
}

static int corpus_score(json_t *row, const EvalTextSet *s, const EvalTextFile *file,
                        const EvalTextOptions *o, Error *err) {
    int64_t n = 0;
    size_t room = (size_t)(file->end - file->first) + 1;
    Corpus c = {.answers = malloc(room * sizeof *c.answers)};
    const char **targets = malloc(room * sizeof *targets);
    int status = c.answers && targets ? 0 : error_set(err, "out of memory for %zu answers", room);
    for (int64_t i = file->first; i < file->end && status == 0; i++) {
        const EvalItem *item = &s->items.items[i];
        if (item->skipped) continue;
        targets[n] = s->targets[i];
        c.answers[n++] = item->answer ? item->answer : "";
    }
    const char *const *columns[] = {targets};
    if (status == 0) status = references_from_columns(&c.references, columns, 1, n, err);
    if (status == 0)
        status = o->task == EVAL_SUMMARY ? summary_score(row, &c, o, err)
                                         : translation_score(row, &c, o, err);
    references_free(&c.references);
    free(c.answers), free(targets);
    return status;
}

static int file_score(json_t *row, const EvalTextSet *s, const EvalTextFile *file,
                      const EvalTextOptions *o, json_t *subjects, Error *err) {
    int64_t unanswered = 0, skipped = 0, lines = file->end - file->first;
    for (int64_t i = file->first; i < file->end; i++) {
        const EvalItem *item = &s->items.items[i];
        skipped += item->skipped;
        unanswered += !item->answer && !item->skipped;
    }
    json_object_set_new(row, "file", json_text(file->name));
    json_object_set_new(row, "lines", json_integer(lines));
    json_object_set_new(row, "unanswered", json_integer(unanswered));
    json_object_set_new(row, "skipped", json_integer(skipped));
    if (skipped == lines) return 0; /* there is nothing to score */
    if (o->task == EVAL_TRANSLATION || o->task == EVAL_SUMMARY)
        return corpus_score(row, s, file, o, err);
    return means_score(row, s, file, o->task, subjects, err);
}

/* ---- All files. ---- */

static json_t *mean_row(const json_t *rows, EvalTask task) {
    json_t *mean = json_object(), *row;
    size_t i;
    for (int c = 0; c < count_columns(task); c++) {
        const char *key = task_columns[task][c].key;
        double sum = 0;
        int scored = 0;
        json_array_foreach(rows, i, row) {
            const json_t *value = json_object_get(row, key);
            scored += value != NULL;
            sum += json_number_value(value);
        }
        if (scored) json_object_set_new(mean, key, json_real(sum / scored));
    }
    return mean;
}

json_t *eval_text_score(const EvalTextSet *s, const EvalTextOptions *o, Error *err) {
    json_memory_begin();
    json_t *scores = json_object(), *rows = json_array();
    json_t *subjects = s->subjects ? json_object() : NULL;
    int status = scores && rows ? 0 : error_set(err, "out of memory for the scores");
    json_object_set_new(scores, "task", json_string(eval_task_names[o->task]));
    if (o->task == EVAL_TRANSLATION)
        json_object_set_new(scores, "tokenize", json_string(tokenize_name(o->tokenize)));
    for (int f = 0; f < s->file_count && status == 0; f++) {
        json_t *row = json_object();
        status = file_score(row, s, &s->files[f], o, subjects, err);
        if (json_array_append_new(rows, row) && status == 0)
            status = error_set(err, "out of memory for the scores");
    }
    if (status == 0) json_object_set_new(scores, "mean", mean_row(rows, o->task));
    if (status == 0 && subjects) subjects_end(scores, json_incref(subjects));
    if ((json_object_set_new(scores, "files", rows) || json_memory_failed()) && status == 0)
        status = error_set(err, "out of memory for the scores");
    json_decref(subjects);
    if (status == 0) return scores;
    json_decref(scores);
    return NULL;
}

/* ---- Record by record. ---- */

static int scored_record(const EvalTextSet *s, const EvalTextFile *file, int64_t i, EvalTask task,
                         Scored *scored, Error *err) {
    const EvalItem *item = &s->items.items[i];
    ScoredLine *line = scored_add(scored, err);
    if (!line) return -1;
    TRY(scored_text(&line->id, item->id, err));
    TRY(scored_text(&line->file, file->name, err));
    TRY(scored_text(&line->prompt, item->text, err));
    TRY(scored_text(&line->target, s->targets[i], err));
    TRY(scored_text(&line->answer, item->answer, err));
    if (s->subjects) TRY(scored_text(&line->types[0], s->subjects[i], err));
    if (task == EVAL_TRANSLATION || task == EVAL_SUMMARY) return 0;
    double values[COLUMNS];
    TRY(eval_text_values(task, item->answer, s->targets[i], values, err));
    for (int c = 0; c < count_columns(task); c++) line->values[c] = 100 * values[c];
    return 0;
}

int eval_text_scored(const EvalTextSet *s, const EvalTextOptions *o, Scored *scored, Error *err) {
    *scored =
        (Scored){.task = scored_task(eval_task_names[o->task]), .bleu = {.tokenize = o->tokenize}};
    int status = 0;
    for (int f = 0; f < s->file_count && status == 0; f++)
        for (int64_t i = s->files[f].first; i < s->files[f].end && status == 0; i++)
            if (!s->items.items[i].skipped)
                status = scored_record(s, &s->files[f], i, o->task, scored, err);
    if (status == 0 && o->task == EVAL_SUMMARY) status = scored_summaries(scored, o->stem, err);
    if (status == 0 && o->task == EVAL_TRANSLATION) status = scored_translations(scored, err);
    if (status) scored_free(scored);
    return status;
}

/* ---- For people. ---- */

enum { COLUMN_WIDTH = 12 };

static void print_values(FILE *out, const json_t *row, EvalTask task) {
    for (int c = 0; c < count_columns(task); c++) {
        const json_t *value = json_object_get(row, task_columns[task][c].key);
        if (value)
            fprintf(out, "%*.2f", COLUMN_WIDTH, json_number_value(value));
        else
            fprintf(out, "%*s", COLUMN_WIDTH, "-");
    }
}

/* The row of half widths of the intervals, if there are any. */
static void print_halves(FILE *out, const json_t *row, EvalTask task, int width) {
    const json_t *all = json_object_get(row, "confidence");
    if (!json_object_size(all)) return;
    fprintf(out, "  95 %% ±%*s%8s%12s%9s", width - 8, "", "", "", "");
    for (int c = 0; c < count_columns(task); c++) {
        const json_t *one = json_object_get(all, task_columns[task][c].key);
        fprintf(out, "%*.2f", COLUMN_WIDTH, json_number_value(json_object_get(one, "half_width")));
    }
    fputc('\n', out);
}

static void print_name(FILE *out, const char *name, int width) {
    int size = (int)strlen(name);
    report_field(out, name);
    fprintf(out, "%*s", size < width ? width - size : 0, "");
}

static void print_subjects(FILE *out, const json_t *scores) {
    const json_t *subjects = json_object_get(scores, "subjects"), *row;
    const char *name;
    if (!subjects) return;
    const json_t *sure = json_object_get(scores, "macro_confidence");
    fprintf(out, "\nmean over %zu subjects  %.2f", json_object_size(subjects),
            json_number_value(json_object_get(scores, "macro")));
    if (sure) fprintf(out, " ± %.2f", json_number_value(json_object_get(sure, "half_width")));
    fputc('\n', out);
    json_object_foreach((json_t *)subjects, name, row) {
        fputs("  ", out);
        print_name(out, name, 40);
        fprintf(out, "%8.2f  %6lld lines\n", json_number_value(json_object_get(row, "accuracy")),
                (long long)json_integer_value(json_object_get(row, "lines")));
    }
}

void eval_text_print(FILE *out, const json_t *scores) {
    const json_t *rows = json_object_get(scores, "files"), *row;
    int found = names_find(eval_task_names, json_string_value(json_object_get(scores, "task")));
    EvalTask task = found < 0 ? EVAL_TRANSLATION : (EvalTask)found; /* the name is our own */
    int width = 8;
    size_t i;
    json_array_foreach(rows, i, row) {
        int size = (int)json_string_length(json_object_get(row, "file"));
        if (size > width) width = size;
    }
    fprintf(out, "%-*s%8s%12s%9s", width, eval_task_names[task], "lines", "unanswered", "skipped");
    for (int c = 0; c < count_columns(task); c++)
        fprintf(out, "%*s", COLUMN_WIDTH, task_columns[task][c].title);
    fputc('\n', out);
    json_array_foreach(rows, i, row) {
        print_name(out, json_string_value(json_object_get(row, "file")), width);
        fprintf(out, "%8lld%12lld%9lld",
                (long long)json_integer_value(json_object_get(row, "lines")),
                (long long)json_integer_value(json_object_get(row, "unanswered")),
                (long long)json_integer_value(json_object_get(row, "skipped")));
        print_values(out, row, task);
        fputc('\n', out);
        print_halves(out, row, task, width);
    }
    const json_t *mean = json_object_get(scores, "mean");
    if (json_array_size(rows) > 1) {
        fprintf(out, "%-*s%8s%12s%9s", width, "mean", "", "", "");
        print_values(out, mean, task);
        fputc('\n', out);
        print_halves(out, mean, task, width);
    }
    print_subjects(out, scores);
    json_array_foreach(rows, i, row) {
        const char *line = json_string_value(json_object_get(row, "bleu_line"));
        const char *signature = json_string_value(json_object_get(row, "bleu_signature"));
        const char *chrf = json_string_value(json_object_get(row, "chrf_signature"));
        if (line) fprintf(out, "\n%s\n%s\nchrF2: %s\n", line, signature, chrf);
    }
}
