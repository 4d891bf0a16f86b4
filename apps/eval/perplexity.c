/* perplexity.c - how well an autoregressive model predicts texts. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/cli/session.h"
#include "apps/eval/eval.h"
#include "data/files/json_memory.h"
#include "data/sets/records.h"
#include "projector/perplexity.h"
#include "projector/turns.h"

static const CommandHelp help = {
    .name = "eval perplexity",
    .usage = "[options] FILE...",
    .about =
        "Measures how well an autoregressive model (causal attention) predicts texts: the\n"
        "exponential of the mean of -log p over their tokens, each predicted from those before\n"
        "it, and the same in bits per byte of text, which is comparable between models with\n"
        "different tokenizers. Files are plain text, a document a paragraph (--text-lines: a\n"
        "line), or JSON lines of {\"inputs\", \"targets\"}, whose texts are joined by a space.\n"
        "A text that is longer than the model's sequence is read in windows, each half a window\n"
        "after the one before, so that every token has at least half a window before it.",
    .examples = "easyfirst eval perplexity -m qwen2 test.txt\n"
                "easyfirst eval perplexity -m run/model --text-lines --json held-out.txt",
};

typedef struct PerplexityEval {
    CommonOptions common;
    RecordsOptions records;
    Session session;
    PerplexityRun *run;
    Skipped skipped;
    JoinedText text;
    int batch_tokens;
} PerplexityEval;

static int add_record(PerplexityEval *p, const Record *record, Error *err) {
    TRY(turns_join(&p->text, record->turns, 0, record->count, "", err));
    return perplexity_add(p->run, p->text.text, p->text.size, err);
}

static int add_file(PerplexityEval *p, const char *path, Error *err) {
    Records *records;
    TRY(records_open(&records, path, &p->records, &p->skipped, err));
    int status = 0;
    for (int64_t i = 0; i < records_count(records) && status == 0; i++) {
        Record record;
        status = records_read(records, i, &record, err);
        if (status) break;
        status = add_record(p, &record, err);
        if (status) error_context(err, "%s: text %" PRId64, path, i + 1);
        record_free(&record);
    }
    records_close(records);
    return status;
}

static int print_json(const Perplexity *sums, double perplexity, double bits, Error *err) {
    json_t *json = json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "texts",
                             (json_int_t)sums->texts, "bytes", (json_int_t)sums->bytes, "tokens",
                             (json_int_t)sums->tokens, "nats", sums->nats, "perplexity", perplexity,
                             "bits_per_byte", bits, "windows", (json_int_t)sums->windows);
    char *line = json ? json_dumps_whole(json, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!line) return error_set(err, "out of memory for the result");
    puts(line);
    free(line);
    return 0;
}

static int print_sums(const PerplexityEval *p, const Perplexity *sums, Error *err) {
    if (!sums->tokens) return error_set(err, "no text with a token to predict");
    const double perplexity = exp(sums->nats / (double)sums->tokens);
    const double bits = sums->nats / log(2) / (double)sums->bytes;
    for (int i = 0; i < p->skipped.kind_count; i++)
        report_print(stderr, "left out %" PRId64 " x %s, the first: %s\n",
                     p->skipped.kinds[i].count, p->skipped.kinds[i].kind,
                     p->skipped.kinds[i].first);
    if (p->common.json) return print_json(sums, perplexity, bits, err);
    printf("texts          %" PRId64 ", %" PRId64 " bytes, %" PRId64 " tokens predicted\n",
           sums->texts, sums->bytes, sums->tokens);
    printf("perplexity     %.6g\n", perplexity);
    printf("bits per byte  %.6g\n", bits);
    if (sums->unseen && !p->common.quiet)
        report_print(stderr,
                     "the first token of each of %" PRId64 " texts is not predicted: the model has "
                     "no token that begins a text\n",
                     sums->unseen);
    return 0;
}

static int measure(PerplexityEval *p, int count, char **paths, Error *err) {
    Perplexity sums;
    for (int i = 0; i < count; i++) TRY(records_check(paths[i], &p->records, err));
    p->common.model.text_only = true;
    p->common.length = 1; /* nothing is written */
    TRY(session_open(&p->session, &p->common, err));
    TRY(perplexity_open(&p->run, &p->session.model.parts, p->batch_tokens, err));
    for (int i = 0; i < count; i++) TRY(add_file(p, paths[i], err));
    TRY(perplexity_sums(p->run, &sums, err));
    return print_sums(p, &sums, err);
}

int eval_perplexity(int argc, char **argv) {
    PerplexityEval p = {0};
    OptionGroup groups[2] = {
        {.title = "options",
         .count = 4,
         .options = {{"text-lines", 0, OPTION_FLAG, NULL, &p.records.text_lines,
                      "plain text: a document a line, not a paragraph"},
                     {"batch-tokens", 0, OPTION_INTEGER, "N", &p.batch_tokens,
                      "rows evaluated together (default 4096)", 1, 1 << 20},
                     {"json", 0, OPTION_FLAG, NULL, &p.common.json, "one line of JSON"},
                     {"quiet", 'q', OPTION_FLAG, NULL, &p.common.quiet,
                      "only the result on standard output"}}}};
    common_init(&p.common);
    model_group(&p.common.model, &p.common.device, &p.common.threads, &groups[1]);
    int first, status = options_read(&help, groups, 2, argc, argv, &first);
    if (status < 0 && argc == first)
        status = options_wrong(&help, "nothing to measure: name a file of texts");
    if (status < 0) status = common_check(&help, &p.common);
    if (status < 0) {
        Error err;
        status = measure(&p, argc - first, argv + first, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    perplexity_close(p.run);
    joined_text_free(&p.text);
    session_close(&p.session);
    return status;
}
