/* likelihood.c - how likely texts are: bits per byte and perplexity of a file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/common.h"
#include "apps/cli/processes.h"
#include "apps/cli/signals.h"
#include "apps/eval/eval.h"
#include "apps/eval/folder.h"
#include "apps/eval/progress.h"
#include "apps/eval/result.h"
#include "apps/eval/together.h"
#include "data/files/file_write.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"
#include "data/sets/records.h"
#include "projector/likelihood.h"

static const CommandHelp help = {
    .name = "eval likelihood",
    .usage = "[options] FILE [--out FOLDER]",
    .about =
        "How likely a model finds texts: bits per byte and perplexity of a file of plain text, a\n"
        "text a line (--paragraphs: a paragraph), or of answers after their prompts, in lines of\n"
        "{\"inputs\", \"targets\"} or LLaVA's conversations, all verbatim.\n"
        "\n"
        "Of a masked diffusion model it is an upper bound on -log p of the text's tokens, given\n"
        "their number: LLaDA's estimate, from --samples random masks of a text; of a text of\n"
        "few tokens (7 with 128 samples) all masks are taken, and the bound is exact. The\n"
        "standard error of bits per byte is over the texts; the part of it that more samples\n"
        "would lessen is printed, too. A text's value depends on it, its prompt and --seed alone.\n"
        "\n"
        "Of an autoregressive model (causal attention) it is the exact value: each token is\n"
        "predicted from those before it. Plain text longer than the model's sequence is then read\n"
        "in windows, each half a window after the one before, so that every token has at least\n"
        "half a window before it; the first token of a text has no value where the model has no\n"
        "token that begins texts.\n"
        "\n"
        "Conversations are read with their earlier turns, as far as they fit, by models with full\n"
        "attention. Texts that cannot be read or do not fit are reported and left out, records "
        "with\n"
        "images too; the exit status is then 1. `mpirun -n N easyfirst eval likelihood` divides "
        "the\n"
        "texts among N processes; results are those of one. Files in --out: likelihoods.jsonl "
        "({\"id\", "
        "\"tokens\",\n"
        "\"bytes\", \"nats\", \"standard_error\"} of each text), settings.json and result.json.",
    .examples = "easyfirst eval likelihood -m model lines.txt\n"
                "easyfirst eval likelihood -m model test.jsonl --samples 512 --out run\n"
                "easyfirst eval likelihood -m qwen2 --paragraphs articles.txt",
};

/* A text whose likelihood is known. */
typedef struct Measured {
    int64_t record;
    int turn, tokens;
    int64_t bytes;
    double nats, variance;
    int unknown, unpredicted, dropped_turns; /* tokens, tokens, turns that did not fit */
    int64_t evaluations;                     /* of masks or windows */
} Measured;

typedef struct LikelihoodEval {
    EvalOptions options;
    const char *path;
    int samples;
    uint64_t seed;
    Session session;
    Records *records;
    Skipped skipped;
    Measured *texts; /* [count] */
    size_t count, capacity;
    bool *left; /* [records], of a part of several processes: the first asks for them once more */
    json_t *settings;
    bool paragraphs;
    EvalProgress progress;
    bool failed;
} LikelihoodEval;

/* ---- A batch of texts. ---- */

enum { TEXTS_AT_ONCE = 64 };

typedef struct Batch {
    Record records[TEXTS_AT_ONCE];
    int record_count;
    LikelihoodRequest requests[TEXTS_AT_ONCE];
    Measured measured[TEXTS_AT_ONCE];
    int count;
} Batch;

static void batch_clear(Batch *b) {
    for (int i = 0; i < b->record_count; i++) record_free(&b->records[i]);
    b->record_count = b->count = 0;
}

/* Room for so many more texts. */
static int measured_reserve(LikelihoodEval *e, size_t count, Error *err) {
    if (count <= e->capacity - e->count) return 0;
    const size_t more = 2 * e->capacity + count + 256;
    Measured *texts = realloc(e->texts, more * sizeof *texts);
    if (!texts) return error_set(err, "out of memory for %zu texts", more);
    e->texts = texts, e->capacity = more;
    return 0;
}

static int measured_add(LikelihoodEval *e, const Measured *m, Error *err) {
    TRY(measured_reserve(e, 1, err));
    e->texts[e->count++] = *m;
    return 0;
}

static int batch_run(LikelihoodEval *e, Batch *b, Error *err) {
    Likelihood out[TEXTS_AT_ONCE];
    const LikelihoodSettings settings = {.options = {.samples = e->samples, .seed = e->seed},
                                         .batch_tokens = e->options.batch_tokens};
    if (!b->count) return 0;
    TRY(multimodal_likelihood(&e->session.model.parts, TENSOR_NONE, b->requests, b->count,
                              &settings, out, NULL, err));
    int status = 0;
    for (int i = 0; i < b->count && status == 0; i++) {
        Measured *m = &b->measured[i];
        const char *kind = out[i].code == (int)ERROR_TOO_LONG ? "text that does not fit"
                                                              : "text without a likelihood";
        if (out[i].error && e->left) {
            e->left[m->record] = true;
            continue;
        }
        if (out[i].error) {
            skipped_add(&e->skipped, kind, "%s: record %lld: %s", e->path, (long long)m->record + 1,
                        out[i].error);
            continue;
        }
        m->tokens = out[i].tokens;
        m->nats = out[i].bound.nats, m->variance = out[i].bound.variance;
        m->unknown = out[i].unknown, m->unpredicted = out[i].unpredicted;
        m->evaluations = out[i].bound.evaluations;
        m->dropped_turns = out[i].dropped_turns;
        status = measured_add(e, m, err);
    }
    likelihoods_free(out, b->count);
    eval_progress_add(&e->progress, b->record_count);
    batch_clear(b);
    return status;
}

/* The answers of a record, one by one; its memory is the batch's. */
static int batch_add(LikelihoodEval *e, Batch *b, int64_t index, Error *err) {
    Record record;
    Error why;
    const bool read = records_read(e->records, index, &record, &why) == 0;
    if (e->left && (!read || record.count > TEXTS_AT_ONCE)) {
        e->left[index] = true;
        if (read) record_free(&record);
        return 0;
    }
    if (!read) {
        skipped_add(&e->skipped, "record that cannot be read", "%s", why.text);
        return 0;
    }
    const bool turns = e->session.model.parts.attention == ATTENTION_FULL;
    if (record.count > TEXTS_AT_ONCE) {
        skipped_add(&e->skipped, "conversation that is too long",
                    "%s: record %lld has %d answers, at most %d are read", e->path,
                    (long long)index + 1, record.count, TEXTS_AT_ONCE);
        record_free(&record);
        return 0;
    }
    if (b->count + record.count > TEXTS_AT_ONCE && batch_run(e, b, err)) {
        record_free(&record);
        return -1;
    }
    b->records[b->record_count++] = record;
    for (int t = 0; t < record.count; t++) {
        const RecordTurn *turn = &record.turns[t];
        b->measured[b->count] =
            (Measured){.record = index, .turn = t, .bytes = (int64_t)strlen(turn->response)};
        b->requests[b->count++] = (LikelihoodRequest){.prompt = turn->prompt,
                                                      .image = -1,
                                                      .text = turn->response,
                                                      .turns = turns && t ? record.turns : NULL,
                                                      .turn_count = turns ? t : 0};
    }
    return 0;
}

/* Measures the records that `wanted` names, NULL: every step-th from `first` on. */
static int measure(LikelihoodEval *e, int64_t first, int step, const bool *wanted, Error *err) {
    Batch *b = calloc(1, sizeof *b);
    if (!b) return error_set(err, "out of memory for a batch");
    const int64_t all = records_count(e->records);
    int status = 0;
    eval_progress_begin(&e->progress, "texts", (all - first + step - 1) / step,
                        e->options.common.quiet || wanted);
    for (int64_t i = first; i < all && status == 0; i += step) {
        if (wanted && !wanted[i]) continue;
        status = batch_add(e, b, i, err);
        const int stop = signals_stop_asked();
        if (status == 0 && stop)
            status = error_set(err, "%s: stopped after %zu texts; nothing is written",
                               signals_name(stop), e->count);
        if (status == 0 && b->record_count == TEXTS_AT_ONCE) status = batch_run(e, b, err);
    }
    if (status == 0) status = batch_run(e, b, err);
    eval_progress_end(&e->progress);
    batch_clear(b);
    free(b);
    return status;
}

/* ---- Several processes. ---- */

/* The texts of records that are measured once more are dropped. */
static void drop_left(LikelihoodEval *e) {
    size_t kept = 0;
    for (size_t i = 0; i < e->count; i++)
        if (!e->left[e->texts[i].record]) e->texts[kept++] = e->texts[i];
    e->count = kept;
}

static int receive_part(LikelihoodEval *e, int rank, bool *left, int64_t all, Error *err) {
    Comm *comm = e->options.comm;
    int64_t count;
    TRY(comm_receive(comm, &count, sizeof count, rank, err));
    TRY(measured_reserve(e, (size_t)count, err));
    TRY(comm_receive(comm, e->texts + e->count, (size_t)count * sizeof *e->texts, rank, err));
    e->count += (size_t)count;
    TRY(comm_receive(comm, left, (size_t)all * sizeof *left, rank, err));
    for (int64_t i = 0; i < all; i++) e->left[i] |= left[i];
    return 0;
}

static int send_part(LikelihoodEval *e, int64_t all, Error *err) {
    Comm *comm = e->options.comm;
    const int64_t count = (int64_t)e->count;
    TRY(comm_send(comm, &count, sizeof count, 0, err));
    TRY(comm_send(comm, e->texts, e->count * sizeof *e->texts, 0, err));
    return comm_send(comm, e->left, (size_t)all * sizeof *e->left, 0, err);
}

/* The first process gets all. */
static int join_parts(LikelihoodEval *e, int64_t all, Error *err) {
    if (comm_rank(e->options.comm) > 0) return send_part(e, all, err);
    bool *left = malloc((size_t)all * sizeof *left);
    int status = left ? 0 : error_set(err, "out of memory for %lld texts", (long long)all);
    for (int r = 1; r < comm_size(e->options.comm) && status == 0; r++)
        status = receive_part(e, r, left, all, err);
    free(left);
    return status;
}

static int measure_part(LikelihoodEval *e, Error *err) {
    const EvalOptions *o = &e->options;
    const int64_t all = records_count(e->records);
    bool agreed;
    e->left = calloc((size_t)all + 1, sizeof *e->left);
    if (!e->left) return error_set(err, "out of memory for %lld texts", (long long)all);
    int status = measure(e, o->shard_index - 1, o->shards, NULL, err);
    if (status && !signals_stop_asked()) return -1; /* which ends all */
    TRY(processes_agree(o->comm, status, &agreed, err));
    drop_left(e);
    return join_parts(e, all, err);
}

static int in_order(const void *a, const void *b) {
    const Measured *x = a, *y = b;
    if (x->record != y->record) return x->record < y->record ? -1 : 1;
    return (x->turn > y->turn) - (x->turn < y->turn);
}

/* What was left of all parts is measured by the first process, for what one has to say of it. */
static int measure_left(LikelihoodEval *e, Error *err) {
    bool *left = e->left;
    e->left = NULL;
    const int status = measure(e, 0, 1, left, err);
    free(left);
    if (e->count) qsort(e->texts, e->count, sizeof *e->texts, in_order);
    return status;
}

/* ---- What comes out. ---- */

typedef struct Totals {
    int64_t tokens, bytes;
    int64_t unknown, unpredicted, evaluations, dropped_turns;
    double nats, bits_per_byte, byte_error, mask_error; /* standard errors; NaN: not known */
    double perplexity, perplexity_error;
} Totals;

/* The standard error of the ratio of two sums over texts, x / y; of one text not known. */
static double ratio_error(const LikelihoodEval *e, double ratio, double all, bool bytes) {
    double sum = 0, n = (double)e->count;
    for (size_t i = 0; i < e->count; i++) {
        const Measured *m = &e->texts[i];
        const double rest = m->nats - ratio * (double)(bytes ? m->bytes : m->tokens);
        sum += rest * rest;
    }
    return e->count > 1 ? sqrt(sum * n / (n - 1)) / all : NAN;
}

static Totals totals_of(const LikelihoodEval *e) {
    Totals t = {0};
    double nats = 0, variance = 0;
    for (size_t i = 0; i < e->count; i++) {
        const Measured *m = &e->texts[i];
        t.tokens += m->tokens, t.bytes += m->bytes;
        nats += m->nats, variance += m->variance;
        t.unknown += m->unknown, t.unpredicted += m->unpredicted;
        t.evaluations += m->evaluations, t.dropped_turns += m->dropped_turns;
    }
    const double bytes = (double)t.bytes, tokens = (double)t.tokens;
    t.nats = nats;
    t.bits_per_byte = nats / bytes / M_LN2;
    t.byte_error = ratio_error(e, nats / bytes, bytes, true) / M_LN2;
    t.mask_error = sqrt(variance) / bytes / M_LN2;
    t.perplexity = exp(nats / tokens);
    t.perplexity_error = t.perplexity * ratio_error(e, nats / tokens, tokens, false);
    return t;
}

static json_t *score_json(const LikelihoodEval *e, const Totals *t) {
    const bool exact = likelihood_exact(&e->session.model.parts);
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "upper_bound",
                     !exact, "tokens", (json_int_t)t->tokens, "bytes", (json_int_t)t->bytes,
                     "unknown_tokens", (json_int_t)t->unknown, "unpredicted_tokens",
                     (json_int_t)t->unpredicted, "evaluations", (json_int_t)t->evaluations, "nats",
                     json_score(t->nats), "bits_per_byte", json_score(t->bits_per_byte),
                     "bits_per_byte_error", json_score(t->byte_error), "mask_error",
                     json_score(t->mask_error), "perplexity", json_score(t->perplexity),
                     "perplexity_error", json_score(t->perplexity_error));
}

static json_t *settings_make(LikelihoodEval *e, Error *err) {
    json_t *file = eval_file_json(e->path, err);
    if (!file) return NULL;
    json_t *data = json_pack("{s:o, s:b, s:i, s:I}", "file", file, "paragraphs", e->paragraphs,
                             "samples", e->samples, "seed", (json_int_t)e->seed);
    if (!data) {
        error_set(err, "out of memory for the settings");
        return NULL;
    }
    json_t *settings = eval_settings_json(&e->options, &e->session, "eval likelihood", data, err);
    if (settings) json_object_del(settings, "answer"); /* nothing is decoded */
    return settings;
}

static json_t *result_make(const LikelihoodEval *e, const Totals *t, json_t *settings, Error *err) {
    json_t *json =
        json_pack("{s:s, s:O, s:I, s:I, s:I, s:o, s:o}", "easyfirst", EF_VERSION, "settings",
                  settings, "texts", (json_int_t)e->count, "left_out", (json_int_t)e->skipped.total,
                  "dropped_turns", (json_int_t)t->dropped_turns, "skipped",
                  eval_skipped_json(&e->skipped), "score", score_json(e, t));
    if (!json) error_set(err, "out of memory for the result");
    return json;
}

static json_t *text_json(const Measured *m) {
    char id[64];
    snprintf(id, sizeof id, "%lld", (long long)m->record + 1);
    if (m->turn) snprintf(id, sizeof id, "%lld-%d", (long long)m->record + 1, m->turn + 1);
    return json_pack("{s:s, s:i, s:I, s:o, s:o}", "id", id, "tokens", m->tokens, "bytes",
                     (json_int_t)m->bytes, "nats", json_score(m->nats), "standard_error",
                     json_score(sqrt(m->variance)));
}

static int write_texts(const LikelihoodEval *e, const char *path, Error *err) {
    FileWriter writer;
    TRY(file_write_begin(&writer, path, 0, err));
    int status = 0;
    for (size_t i = 0; i < e->count && status == 0; i++) {
        char *line = json_line(text_json(&e->texts[i]), JSON_DIGITS);
        if (!line)
            status = error_set(err, "out of memory for a line");
        else
            status = file_write_bytes(&writer, line, strlen(line), err);
        if (status == 0) status = file_write_bytes(&writer, "\n", 1, err);
        free(line);
    }
    return file_write_end(&writer, status, err);
}

static int write_folder(const LikelihoodEval *e, const json_t *settings, const json_t *result,
                        Error *err) {
    const char *out = e->options.out;
    int lock;
    TRY(eval_folder_enter(&lock, out, err));
    char *path = path_join(out, "likelihoods.jsonl", err);
    int status = path ? eval_folder_settings(out, settings, err) : -1;
    if (status == 0) status = write_texts(e, path, err);
    if (status == 0) status = eval_folder_json(out, "result.json", result, err);
    eval_folder_leave(&lock);
    free(path);
    return status;
}

static void print_error(double error) {
    if (isfinite(error)) printf(" +- %.4f", error);
}

static void totals_print(const LikelihoodEval *e, const Totals *t) {
    char texts[REPORT_NUMBER_SIZE], tokens[REPORT_NUMBER_SIZE], bytes[REPORT_NUMBER_SIZE];
    const bool exact = likelihood_exact(&e->session.model.parts);
    report_number(texts, (int64_t)e->count), report_number(tokens, t->tokens);
    report_number(bytes, t->bytes);
    printf("texts          %s, %s tokens, %s bytes\n", texts, tokens, bytes);
    printf("bits per byte  %.4f", t->bits_per_byte);
    print_error(t->byte_error);
    if (!exact && isfinite(t->mask_error))
        printf(", an upper bound (the masks' error: %.4f)", t->mask_error);
    printf("\nperplexity     %.4f", t->perplexity);
    print_error(t->perplexity_error);
    printf(" a token%s\n", exact ? "" : ", an upper bound");
}

static void notes_print(const LikelihoodEval *e, const Totals *t) {
    eval_skipped_print("left out", &e->skipped);
    if (t->unknown)
        report_error("note: %lld tokens are unknown characters to this model's tokenizer: the "
                     "texts that it gives a likelihood have less in them",
                     (long long)t->unknown);
    if (t->unpredicted && !e->options.common.quiet)
        report_error("note: the first token of each of %lld texts is not predicted: the model "
                     "has no token that begins a text",
                     (long long)t->unpredicted);
}

/* ---- The command. ---- */

static int finish(void *user, Error *err) {
    LikelihoodEval *e = user;
    const Totals totals = totals_of(e);
    notes_print(e, &totals);
    e->failed = e->skipped.total > 0;
    if (!e->count)
        return error_set(err, "%s: none of its texts has a likelihood (%s)", e->path,
                         e->skipped.kind_count ? e->skipped.kinds[0].first : "it has none");
    if (!totals.tokens)
        return error_set(err, "%s: no token has one before it, which predicts it", e->path);
    json_t *result = result_make(e, &totals, e->settings, err);
    int status = result ? 0 : -1;
    if (status == 0 && e->options.out) status = write_folder(e, e->settings, result, err);
    if (status == 0 && e->options.common.json)
        status = json_print_line(json_incref(result), JSON_DIGITS, err);
    else if (status == 0)
        totals_print(e, &totals);
    json_decref(result);
    return status ? -1 : report_flush(err);
}

static int open_all(void *user, Error *err) {
    LikelihoodEval *e = user;
    EvalOptions *o = &e->options;
    const RecordsOptions options = {.text_lines = !e->paragraphs, .limit = o->limit};
    if (o->out) TRY(eval_check_files(o->out, &(FileRole){"FILE", e->path}, 1, err));
    TRY(records_open(&e->records, e->path, &options, &e->skipped, err));
    TRY(session_open(&e->session, &o->common, err));
    eval_model_name(o);
    e->settings = settings_make(e, err);
    if (!e->settings) return -1;
    signals_catch_stop();
    return 0;
}

static int answer(void *user, Error *err) {
    LikelihoodEval *e = user;
    if (e->options.shards) return measure_part(e, err);
    return e->left ? measure_left(e, err) : measure(e, 0, 1, NULL, err);
}

static void options_take(LikelihoodEval *e, OptionGroup groups[2]) {
    EvalOptions *o = &e->options;
    groups[0] = (OptionGroup){
        .title = "options",
        .options = {
            {"out", 'o', OPTION_TEXT, "FOLDER", &o->out,
             "likelihoods of all texts, and the result"},
            {"samples", 0, OPTION_INTEGER, "N", &e->samples,
             "masks that are evaluated for each text, at most (default 128)", 1, LIKELIHOOD_MOST},
            {"seed", 's', OPTION_SEED, "N", &e->seed, "seed of the masks (default 0)"},
            {"paragraphs", 0, OPTION_FLAG, NULL, &e->paragraphs,
             "plain text: a text a paragraph, not a line"},
            {"limit", 0, OPTION_INTEGER, "N", &o->limit, "only the first N texts", 1, INT_MAX},
            {"batch-tokens", 0, OPTION_INTEGER, "N", &o->batch_tokens,
             "tokens computed together (default 4096); results do not depend on\n"
             "it",
             1, 1 << 24},
            {"json", 0, OPTION_FLAG, NULL, &o->common.json, "the result as JSON"},
            {"quiet", 'q', OPTION_FLAG, NULL, &o->common.quiet, "no progress on standard error"}}};
    model_group(&o->common.model, &o->common.device, &o->common.threads, &groups[1]);
}

int eval_likelihood(int argc, char **argv) {
    LikelihoodEval e = {.samples = LIKELIHOOD_SAMPLES};
    OptionGroup groups[2];
    common_init(&e.options.common);
    e.options.common.model.text_only = e.options.common.no_answers = true;
    options_take(&e, groups);
    const int muted = processes_mute();
    int first, status = options_read(&help, groups, 2, argc, argv, &first);
    if (status < 0 && argc - first != 1)
        status = options_wrong(&help, argc == first ? "no file of texts is named"
                                                    : "one file of texts at a time");
    if (status < 0) status = common_check(&help, &e.options.common);
    processes_unmute(muted, status >= 0);
    if (status < 0) {
        e.path = argv[first];
        const EvalTogether together = {&e.options, open_all, answer, finish, &e};
        const int failed = eval_together(&together);
        status = failed || e.failed;
    }
    records_close(e.records);
    json_decref(e.settings);
    free(e.texts), free(e.left);
    session_close(&e.session);
    return status;
}
