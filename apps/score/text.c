/* text.c - texts against references, line by line: the metrics of data/metrics. */
#include <stdlib.h>
#include <string.h>

#include "apps/score/score.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/score/lines.h"
#include "apps/score/sure.h"
#include "data/metrics/answers.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/rouge.h"

static const CommandHelp help = {
    .name = "score text",
    .usage = "[options] ANSWERS REFERENCES...",
    .about =
        "Compares a file of answers with one or more files of references, line by line, and\n"
        "prints a line for each metric. A file may also be lines of JSON, all of them: references\n"
        "have their text, or an array of texts, in \"targets\", answers in \"answer\",\n"
        "\"prediction\" or \"text\". \"-\" is standard input. BLEU and chrF are sacrebleu's, with\n"
        "its signatures, Rouge is rouge-score's. All values are percentages, means over the lines\n"
        "but for BLEU and chrF, which count over the whole text; with several references a line\n"
        "gets its best.\n"
        "\n"
        "--confidence adds 95 % intervals as sacrebleu's --confidence does, with its random\n"
        "numbers; --baseline compares with another system's answers to the same lines: the\n"
        "difference with its interval, and p, how likely so large a difference is by chance, by\n"
        "paired bootstrap and by approximate randomization (sacrebleu's --paired-bs and\n"
        "--paired-ar).",
    .examples = "easyfirst score text answers.txt references.txt\n"
                "easyfirst score text --lowercase --metric bleu answers.txt valid.deen.jsonl\n"
                "easyfirst score text --metric rouge,exact,f1 --json answers.jsonl test.jsonl\n"
                "easyfirst score text --baseline before.txt after.txt references.txt",
};

enum { ALL_DIGITS = 17 }; /* give every double back */

typedef enum Metric {
    METRIC_BLEU,
    METRIC_CHRF,
    METRIC_CHRF_WORDS,
    METRIC_ROUGE,
    METRIC_EXACT,
    METRIC_NUMBER,
    METRIC_CHOICE,
    METRIC_F1,
    METRIC_COUNT,
} Metric;

static const char *const metric_names[METRIC_COUNT + 1] = {
    "bleu", "chrf", "chrf++", "rouge", "exact", "number", "choice", "f1", NULL};

typedef struct Score {
    unsigned metrics; /* bits 1 << Metric */
    float smooth_value;
    bool lowercase, effective_order, chrf_whitespace, chrf_eps, stem, json;
    BleuOptions bleu;
    ChrfOptions chrf;
    ScoreLines answers, *files; /* [file_count] of references */
    ScoreLines baseline;        /* another system's answers */
    Sure sure;
    int file_count;
    References references; /* those of all files */
    json_t *result;
} Score;

/* ---- The command line. ---- */

static int read_options(Score *s, int argc, char **argv, int *first) {
    OptionGroup group = {
        .title = "options",
        .options = {
            {"metric", 0, OPTION_CHOICES, "LIST", &s->metrics,
             "of bleu, chrf, chrf++, rouge, exact, number, choice, f1, commas\n"
             "between them, or all (default bleu,chrf)",
             .names = metric_names},
            {"tokenize", 0, OPTION_CHOICE, NULL, &s->bleu.tokenize,
             "BLEU's tokenizer (default 13a)", .names = tokenize_names},
            {"lowercase", 0, OPTION_FLAG, NULL, &s->lowercase, "BLEU and chrF without case"},
            {"smooth", 0, OPTION_CHOICE, NULL, &s->bleu.smooth,
             "BLEU's smoothing of precisions of 0 (default exp)", .names = bleu_smooth_names},
            {"smooth-value", 0, OPTION_REAL, "X", &s->smooth_value,
             "... floor's count (default 0.1), or add-k's k (default 1)", 1e-6, 1e6},
            {"effective-order", 0, OPTION_FLAG, NULL, &s->effective_order,
             "BLEU of the orders that the answers have: for single lines"},
            {"chrf-whitespace", 0, OPTION_FLAG, NULL, &s->chrf_whitespace,
             "chrF counts white space, too"},
            {"chrf-eps-smoothing", 0, OPTION_FLAG, NULL, &s->chrf_eps,
             "chrF's smoothing of the older scripts"},
            {"stem", 0, OPTION_FLAG, NULL, &s->stem, "Rouge of words without their endings"},
            {"confidence", 0, OPTION_FLAG, NULL, &s->sure.confidence,
             "95 % intervals, by bootstrap"},
            {"baseline", 0, OPTION_TEXT, "FILE", &s->sure.baseline,
             "compare with these answers of another system, with both tests"},
            {"samples", 0, OPTION_INTEGER, "N", &s->sure.options.samples,
             "resamples of a bootstrap (default 1000)", 2, 10000000},
            {"trials", 0, OPTION_INTEGER, "N", &s->sure.options.trials,
             "trials of a randomization (default 10000)", 2, 10000000},
            {"seed", 0, OPTION_SEED, "N", &s->sure.options.seed,
             "seed of both (default 12345, sacrebleu's)"},
            {"json", 0, OPTION_FLAG, NULL, &s->json, "one JSON object, with all digits"},
        }};
    int status = options_read(&help, &group, 1, argc, argv, first);
    if (status < 0 && argc - *first < 2)
        status =
            options_wrong(&help, "a file of answers and at least one of references are needed");
    if (status >= 0) return status;
    int inputs = 0;
    if (s->sure.baseline) inputs += !strcmp(s->sure.baseline, "-");
    for (int i = *first; i < argc; i++) inputs += !strcmp(argv[i], "-");
    if (inputs > 1) return options_wrong(&help, "standard input can be only one of the files");
    const ResampleOptions *o = &s->sure.options;
    if (s->sure.baseline) s->sure.confidence = true;
    if ((o->samples || o->seed) && !s->sure.confidence)
        return options_wrong(&help, "--%s needs --confidence or --baseline",
                             o->seed ? "seed" : "samples");
    if (o->trials && !s->sure.baseline) return options_wrong(&help, "--trials needs --baseline");
    if (s->smooth_value > 0 && s->bleu.smooth != BLEU_FLOOR && s->bleu.smooth != BLEU_ADD_K)
        return options_wrong(&help, "--smooth-value needs --smooth floor or add-k");
    s->bleu.smooth_value = real_shortest(s->smooth_value);
    s->bleu.lowercase = s->chrf.lowercase = s->lowercase;
    s->bleu.effective_order = s->effective_order;
    s->chrf.whitespace = s->chrf_whitespace;
    s->chrf.eps = s->chrf_eps;
    return -1;
}

/* ---- The files. ---- */

/* That there is something to compare: texts that are all empty would score 0 (or, on both sides,
 * 100), which is no result. */
static int check_any(const ScoreLines *file, const char *name, Error *err) {
    const References *t = &file->texts;
    if (!t->count) return error_set(err, "%s: it has no lines to score", name);
    for (size_t i = 0; i < t->begins[t->count]; i++)
        if (t->texts[i][strspn(t->texts[i], " \t\r\n\v\f")]) return 0;
    if (file->errors == t->count)
        return error_set(err, "%s: every one of its %lld lines has an \"error\" and no answer",
                         name, (long long)t->count);
    return error_set(err, "%s: every one of its %lld lines is empty: there is nothing to score",
                     name, (long long)t->count);
}

/* The next file of references. */
static int read_references(Score *s, const char *answers, const char *name, Error *err) {
    ScoreLines *file = &s->files[s->file_count++];
    int64_t lines = s->answers.texts.count;
    TRY(score_lines_read(file, name, true, err));
    if (file->texts.count != lines)
        return error_set(err,
                         "%s has %lld lines, but %s has %lld: every answer needs the line of its "
                         "reference",
                         answers, (long long)lines, name, (long long)file->texts.count);
    return check_any(file, name, err);
}

static int read_answers(ScoreLines *answers, const char *name, Error *err) {
    TRY(score_lines_read(answers, name, false, err));
    for (int64_t i = 0; i < answers->texts.count; i++)
        if (answers->texts.begins[i + 1] != (size_t)i + 1)
            return error_set(err, "%s: a line has several answers, but one can be scored", name);
    return check_any(answers, name, err);
}

static int read_baseline(Score *s, const char *answers, Error *err) {
    const char *name = s->sure.baseline;
    if (!name) return 0;
    TRY(read_answers(&s->baseline, name, err));
    if (s->baseline.texts.count == s->answers.texts.count) return 0;
    return error_set(err,
                     "%s has %lld lines, but %s has %lld: two systems are compared on the same "
                     "lines",
                     name, (long long)s->baseline.texts.count, answers,
                     (long long)s->answers.texts.count);
}

static int read_files(Score *s, char **names, int count, Error *err) {
    TRY(read_answers(&s->answers, names[0], err));
    TRY(read_baseline(s, names[0], err));
    s->files = calloc((size_t)count, sizeof *s->files);
    const References **parts = calloc((size_t)count, sizeof *parts);
    int status = s->files && parts ? 0 : error_set(err, "out of memory for %d files", count);
    while (s->file_count < count - 1 && status == 0) {
        parts[s->file_count] = &s->files[s->file_count].texts;
        status = read_references(s, names[0], names[s->file_count + 1], err);
    }
    if (status == 0) status = references_join(&s->references, parts, s->file_count, err);
    free(parts);
    return status;
}

/* ---- Scores, printed or put into the result. ---- */

/* Puts a value, which may be NULL for want of memory, in. */
static int put(json_t *object, const char *name, json_t *value, Error *err) {
    if (json_object_set_new(object, name, value))
        return error_set(err, "out of memory for the result");
    return 0;
}

static json_t *integers(const int64_t *values, int count) {
    json_t *array = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(array, json_integer(values[i]));
    return array;
}

static json_t *reals(const double *values, int count) {
    json_t *array = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(array, json_real(values[i]));
    return array;
}

/* Makes the counts of all lines of a system for resampling. */
typedef int (*StatsMake)(const Score *s, const char *const *answers, const void *what,
                         LineStats *stats, Error *err);

/* Resamples a metric, if intervals are wanted. */
static int resample(Score *s, const char *name, StatsMake make, const void *what, Error *err) {
    LineStats stats[2] = {{0}, {0}};
    s->sure.known = false;
    if (!s->sure.confidence) return 0;
    int status = make(s, s->answers.texts.texts, what, &stats[1], err);
    if (status == 0 && s->sure.baseline)
        status = make(s, s->baseline.texts.texts, what, &stats[0], err);
    if (status == 0) status = sure_resample(&s->sure, name, &stats[0], &stats[1], err);
    line_stats_free(&stats[0]), line_stats_free(&stats[1]);
    return status;
}

static int make_bleu(const Score *s, const char *const *answers, const void *what, LineStats *stats,
                     Error *err) {
    return bleu_stats(answers, &s->references, what, stats, err);
}

static int make_chrf(const Score *s, const char *const *answers, const void *what, LineStats *stats,
                     Error *err) {
    return chrf_stats(answers, &s->references, what, stats, err);
}

static int make_rouge(const Score *s, const char *const *answers, const void *what,
                      LineStats *stats, Error *err) {
    const RougeKind *kind = what;
    int64_t count = s->references.count;
    RougeScore *scores = malloc((size_t)count * sizeof *scores);
    int status = scores ? rouge_lines(answers, &s->references, s->stem, scores, err)
                        : error_set(err, "out of memory for %lld lines", (long long)count);
    if (status == 0) status = mean_stats_open(stats, count, err);
    for (int64_t i = 0; i < count && status == 0; i++)
        mean_stats_set(stats, i, scores[i].kinds[*kind].f);
    free(scores);
    return status;
}

static int score_bleu(Score *s, Error *err) {
    BleuScore score;
    char signature[SIGNATURE_SIZE], line[BLEU_LINE_SIZE];
    TRY(bleu_corpus(s->answers.texts.texts, &s->references, &s->bleu, &score, err));
    bleu_signature(&score, &s->bleu, signature);
    bleu_line(&score, line);
    TRY(resample(s, "bleu", make_bleu, &s->bleu, err));
    if (!s->json) {
        sure_print_corpus(&s->sure, "BLEU", signature, line + strlen("BLEU"));
        return 0;
    }
    json_t *object =
        json_pack("{sf so sf sf sI sI so so ss ss}", "score", score.score, "precisions",
                  reals(score.precisions, BLEU_ORDER), "bp", score.bp, "ratio", score.ratio,
                  "hyp_len", (json_int_t)score.hyp_len, "ref_len", (json_int_t)score.ref_len,
                  "counts", integers(score.counts, BLEU_ORDER), "totals",
                  integers(score.totals, BLEU_ORDER), "signature", signature, "line", line);
    return put(s->result, "bleu", object, err);
}

static int score_chrf(Score *s, bool words, Error *err) {
    ChrfScore score;
    ChrfOptions options = s->chrf;
    char signature[CHRF_TEXT_SIZE], line[CHRF_TEXT_SIZE];
    options.words = words;
    TRY(chrf_corpus(s->answers.texts.texts, &s->references, &options, &score, err));
    chrf_signature(&score, &options, signature);
    chrf_line(&score, &options, line);
    TRY(resample(s, words ? "chrf++" : "chrf", make_chrf, &options, err));
    if (!s->json) {
        sure_print_corpus(&s->sure, chrf_name(&options), signature,
                          line + strlen(chrf_name(&options)));
        return 0;
    }
    return put(s->result, words ? "chrf++" : "chrf",
               json_pack("{sf ss ss}", "score", score.score, "signature", signature, "line", line),
               err);
}

static int score_rouge(Score *s, Error *err) {
    RougeScore score;
    TRY(rouge_corpus(s->answers.texts.texts, &s->references, s->stem, &score, err));
    for (int k = 0; k < ROUGE_KINDS; k++) {
        const RougeValues *v = &score.kinds[k];
        const RougeKind kind = (RougeKind)k;
        TRY(resample(s, rouge_name(kind), make_rouge, &kind, err));
        if (!s->json) {
            printf("%s%s = %.2f (precision = %.2f recall = %.2f", rouge_name(kind),
                   s->stem ? "|stem" : "", 100 * v->f, 100 * v->precision, 100 * v->recall);
            sure_print_end(&s->sure);
        } else {
            TRY(put(s->result, rouge_name((RougeKind)k),
                    json_pack("{sf sf sf}", "f", 100 * v->f, "precision", 100 * v->precision,
                              "recall", 100 * v->recall),
                    err));
        }
    }
    return 0;
}

/* What is scored pair by pair. */
typedef struct PairMetric {
    Metric metric;
    const char *name;  /* of the printed line and in JSON */
    AnswerRule rule;   /* of METRIC_EXACT */
    const char *about; /* printed with it */
} PairMetric;

static const PairMetric pair_metrics[] = {
    {METRIC_EXACT, "exact", ANSWER_AS_IS, "as it is"},
    {METRIC_EXACT, "exact_plain", ANSWER_PLAIN, "without case and punctuation"},
    {METRIC_EXACT, "exact_squad", ANSWER_SQUAD, "also without articles"},
    {METRIC_NUMBER, "number", ANSWER_AS_IS, "the last integer"},
    {METRIC_CHOICE, "choice", ANSWER_AS_IS, "the letter"},
    {METRIC_F1, "f1", ANSWER_SQUAD, "of words, without case, punctuation and articles"},
};

static int score_pair(const PairMetric *m, const char *answer, const char *reference, double *value,
                      Error *err) {
    switch (m->metric) {
    case METRIC_NUMBER:
        return answer_number(answer, reference, value, err);
    case METRIC_CHOICE:
        return answer_choice(answer, reference, value, err);
    case METRIC_F1:
        return answer_f1(answer, reference, value, err);
    default:
        return answer_exact(m->rule, answer, reference, value, err);
    }
}

/* The value of line i: of several references the best. */
static int score_line(const Score *s, const char *const *answers, const PairMetric *m, int64_t i,
                      double *best, Error *err) {
    const char *const *texts;
    int n = references_of(&s->references, i, &texts);
    *best = 0;
    for (int r = 0; r < n; r++) {
        double value;
        TRY(score_pair(m, answers[i], texts[r], &value, err));
        if (value > *best) *best = value;
    }
    return 0;
}

static int make_pairs(const Score *s, const char *const *answers, const void *what,
                      LineStats *stats, Error *err) {
    TRY(mean_stats_open(stats, s->references.count, err));
    for (int64_t i = 0; i < stats->count; i++) {
        double value;
        TRY(score_line(s, answers, what, i, &value, err));
        mean_stats_set(stats, i, value);
    }
    return 0;
}

static int score_pairs(Score *s, const PairMetric *m, Error *err) {
    double sum = 0;
    int64_t count = s->references.count;
    for (int64_t i = 0; i < count; i++) {
        double best;
        TRY(score_line(s, s->answers.texts.texts, m, i, &best, err));
        sum += best;
    }
    double percent = 100 * sum / (double)count;
    TRY(resample(s, m->name, make_pairs, m, err));
    if (s->json) return put(s->result, m->name, json_real(percent), err);
    printf("%s = %.2f (%s", m->name, percent, m->about);
    sure_print_end(&s->sure);
    return 0;
}

static bool wanted(const Score *s, Metric metric) {
    return s->metrics >> metric & 1;
}

static int run(Score *s, char **names, int count, Error *err) {
    TRY(read_files(s, names, count, err));
    if (s->answers.errors)
        report_error("%s: %lld of %lld answers are errors, scored as empty texts", names[0],
                     (long long)s->answers.errors, (long long)s->references.count);
    if (s->baseline.errors)
        report_error("%s: %lld of %lld answers are errors, scored as empty texts", s->sure.baseline,
                     (long long)s->baseline.errors, (long long)s->references.count);
    if (s->json) {
        s->result = json_object();
        TRY(put(s->result, "lines", json_integer(s->references.count), err));
        TRY(put(s->result, "errors", json_integer(s->answers.errors), err));
        s->sure.result = s->result;
    }
    if (wanted(s, METRIC_BLEU)) TRY(score_bleu(s, err));
    if (wanted(s, METRIC_CHRF)) TRY(score_chrf(s, false, err));
    if (wanted(s, METRIC_CHRF_WORDS)) TRY(score_chrf(s, true, err));
    if (wanted(s, METRIC_ROUGE)) TRY(score_rouge(s, err));
    for (size_t i = 0; i < sizeof pair_metrics / sizeof pair_metrics[0]; i++)
        if (wanted(s, pair_metrics[i].metric)) TRY(score_pairs(s, &pair_metrics[i], err));
    if (s->json) TRY(json_print_line(json_incref(s->result), ALL_DIGITS, err));
    return report_flush(err);
}

int score_text(int argc, char **argv) {
    Score s = {.metrics = 1u << METRIC_BLEU | 1u << METRIC_CHRF};
    int first, status = read_options(&s, argc, argv, &first);
    if (status < 0) {
        Error err;
        status = run(&s, argv + first, argc - first, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    for (int i = 0; i < s.file_count; i++) score_lines_free(&s.files[i]);
    free(s.files);
    references_free(&s.references);
    score_lines_free(&s.answers);
    score_lines_free(&s.baseline);
    json_decref(s.result);
    return status;
}
