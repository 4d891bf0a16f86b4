/* fill.c - fills in the gaps of a document.
 *
 * The document is split into paragraphs at blank lines. A paragraph with gaps is a template of its
 * own (projector/template.h), its text before and after the gaps the context that the model reads;
 * one that is longer than the model reads is split further, at the end of a sentence or between
 * words near its middle. All of them are answered by one call, and everything else is copied.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/cli/library.h"
#include "apps/trace/report_json.h"
#include "data/files/array_grow.h"
#include "data/files/file_write.h"
#include "data/files/memory_stream.h"
#include "projector/template.h"

static const CommandHelp help = {
    .name = "fill",
    .usage = "[options] FILE",
    .about =
        "Fills in the gaps of a document, a text file, and prints it; - is standard input. ___\n"
        "is a gap whose length is found by trying 8 (--beam) combinations of lengths, ___{2} one\n"
        "of 2 tokens, \\___ no gap but underscores; everything else is copied byte for byte. Each\n"
        "paragraph with gaps is filled in by itself, with all of its text as context; one that\n"
        "is longer than the model reads is split at the ends of sentences. A paragraph that\n"
        "cannot be filled in is reported and copied as it is, and the exit status is 1. --json\n"
        "prints a line for each paragraph with gaps instead.",
    .examples = "easyfirst fill -m model letter.txt > filled.txt\n"
                "easyfirst fill -m model --in-place notes.md\n"
                "easyfirst fill -m model --prompt \"Describe the image.\" captions.txt\n"
                "echo \"The ___ is on the ___.\" | easyfirst fill -m model -",
};

enum { FILL_BYTES = 1 << 26, READ_BLOCK = 1 << 16 };

/* A piece of the document. */
typedef struct Piece {
    char *text; /* owned */
    int64_t line;
    bool gaps; /* it is a template with gaps; else a text whose escapes are to be resolved */
} Piece;

typedef struct Fill {
    CommonOptions common;
    const char *path, *prompt;
    bool in_place, failed;
    ef_model *model;
    ef_options options;
    char strategy[LIBRARY_STRATEGY];
    Piece *pieces;
    size_t count, capacity;
    Timings timings;
} Fill;

/* ---- Reading. ---- */

static int read_stream(FILE *in, const char *name, char **text, size_t *size, Error *err) {
    size_t capacity = 0;
    while (!feof(in)) {
        while (*size + READ_BLOCK + 1 > capacity) {
            char *more = array_grow(*text, &capacity, 1);
            if (!more) return error_set(err, "%s: out of memory", name);
            *text = more;
        }
        *size += fread(*text + *size, 1, READ_BLOCK, in);
        if (ferror(in)) return error_set(err, "%s: cannot be read: %s", name, strerror(errno));
        if (*size > FILL_BYTES)
            return error_set(err, "%s: has more than %d MiB, which is too much for a document",
                             name, FILL_BYTES >> 20);
    }
    (*text)[*size] = 0;
    if (strlen(*text) == *size) return 0;
    return error_set(err, "%s: has a NUL byte, at %zu: not a text", name, strlen(*text));
}

static int read_document(const Fill *f, char **text, Error *err) {
    bool standard = !strcmp(f->path, "-");
    const char *name = standard ? "standard input" : f->path;
    size_t size = 0;
    FILE *in = standard ? stdin : fopen(f->path, "rb");
    if (!in) return error_set(err, "%s: %s", name, strerror(errno));
    int status = read_stream(in, name, text, &size, err);
    if (!standard) fclose(in);
    return status;
}

/* ---- Pieces. ---- */

static int piece_add(Fill *f, const char *text, size_t size, int64_t line, bool gaps, Error *err) {
    if (!size) return 0;
    Piece *more = f->pieces;
    if (f->count == f->capacity) more = array_grow(f->pieces, &f->capacity, sizeof *more);
    if (!more) return error_set(err, "out of memory for %zu paragraphs", f->count);
    f->pieces = more;
    char *copy = strndup(text, size);
    if (!copy) return error_set(err, "out of memory for a paragraph");
    f->pieces[f->count++] = (Piece){.text = copy, .line = line, .gaps = gaps};
    return 0;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Where a text may be split: after the sentence whose end is nearest to its middle, else at the
 * white space nearest to it; 0: nowhere. */
static size_t split_point(const char *text, size_t size) {
    size_t best = 0, best_cost = SIZE_MAX, middle = size / 2;
    for (size_t i = 1; i + 1 < size; i++) {
        if (!is_blank(text[i]) || is_blank(text[i - 1])) continue;
        size_t cost = i > middle ? i - middle : middle - i;
        if (!strchr(".!?:;\n", text[i - 1])) cost += size / 4; /* within a sentence */
        if (cost < best_cost) best = i, best_cost = cost;
    }
    return best;
}

static int64_t line_ends(const char *text, size_t size) {
    int64_t ends = 0;
    for (size_t i = 0; i < size; i++) ends += text[i] == '\n';
    return ends;
}

static ef_request piece_request(const Fill *f, const char *text) {
    return (ef_request){.task = EF_COMPLETE, .text = f->prompt, .answer_template = text};
}

/* Adds a text without white space at its ends; one that does not fit is split. */
static int text_take(Fill *f, const char *text, size_t size, int64_t line, Error *err) {
    char *copy = strndup(text, size);
    Template t;
    Error why;
    if (!copy) return error_set(err, "out of memory for a paragraph");
    int status = template_parse(&t, copy, err);
    if (status) error_context(err, "%s: line %lld", f->path, (long long)line);
    bool gaps = status == 0 && t.gaps > 0;
    const ef_request request = piece_request(f, copy);
    size_t split = 0;
    if (gaps && ef_check(f->model, &request, &f->options, NULL, library_error(&why)))
        split = split_point(text, size);
    free(copy);
    if (status) return -1;
    template_free(&t);
    if (!split) return piece_add(f, text, size, line, gaps, err);
    size_t next = split;
    while (is_blank(text[next])) next++;
    TRY(text_take(f, text, split, line, err));
    TRY(piece_add(f, text + split, next - split, line, false, err));
    return text_take(f, text + next, size - next, line + line_ends(text, next), err);
}

/* The bytes of a paragraph: up to a line without text, or the end. */
static size_t paragraph_size(const char *text) {
    size_t size = 0;
    while (text[size]) {
        size_t line = strcspn(text + size, "\n");
        if (strspn(text + size, " \t\r") >= line) break;
        size += line + (text[size + line] == '\n');
    }
    return size;
}

static int document_split(Fill *f, const char *text, Error *err) {
    int64_t line = 1;
    while (*text) {
        size_t blank = strspn(text, " \t\r\n");
        TRY(piece_add(f, text, blank, line, false, err));
        line += line_ends(text, blank), text += blank;
        size_t size = paragraph_size(text), end = size;
        while (end && is_blank(text[end - 1])) end--;
        if (end) TRY(text_take(f, text, end, line, err));
        line += line_ends(text, end), text += end;
    }
    return 0;
}

/* ---- Answering. ---- */

static Asked piece_asked(const Fill *f, const Piece *piece) {
    return (Asked){.text = f->prompt,
                   .text_key = "prompt",
                   .line = piece->line,
                   .answer_template = piece->text};
}

/* A text without gaps: its escapes become what they stand for. */
static int put_plain(const char *text, FILE *out, Error *err) {
    Template t;
    TRY(template_parse(&t, text, err));
    for (int i = 0; i < t.count; i++)
        if (t.parts[i].text) fputs(t.parts[i].text, out);
    template_free(&t);
    return 0;
}

/* A paragraph that has gaps, answer `index`. */
static int put_filled(Fill *f, const Piece *piece, const ef_answers *answers, size_t index,
                      FILE *out, Error *err) {
    const char *error = ef_answer_error(answers, index);
    const Asked asked = piece_asked(f, piece);
    if (error) report_error("%s: line %lld: %s", f->path, (long long)piece->line, error);
    f->failed |= error != NULL;
    if (f->common.json && error) return report_json_none(&asked, error, err);
    if (f->common.json)
        return report_json(&asked, answers, index, &f->common.answer.decode, NULL, err);
    fputs(error ? piece->text : ef_answer_text(answers, index), out);
    return 0;
}

static int put_pieces(Fill *f, const ef_answers *answers, FILE *out, Error *err) {
    size_t index = 0;
    for (size_t i = 0; i < f->count; i++) {
        const Piece *piece = &f->pieces[i];
        if (piece->gaps)
            TRY(put_filled(f, piece, answers, index++, out, err));
        else if (!f->common.json)
            TRY(put_plain(piece->text, out, err));
    }
    return 0;
}

static int answer_pieces(Fill *f, ef_answers **answers, Error *err) {
    ef_request *requests = calloc(f->count + 1, sizeof *requests);
    size_t n = 0;
    if (!requests) return error_set(err, "out of memory for %zu paragraphs", f->count);
    for (size_t i = 0; i < f->count; i++)
        if (f->pieces[i].gaps) requests[n++] = piece_request(f, f->pieces[i].text);
    int status = ef_answer(f->model, requests, n, &f->options, answers, library_error(err));
    free(requests);
    if (status) return -1;
    timings_add_work(&f->timings, ef_answers_work(*answers));
    if (!n) report_error("%s: has no gaps (___): it is copied as it is", f->path);
    return 0;
}

/* The filled document; with --json nothing of it. */
static int document_fill(Fill *f, char **text, size_t *size, Error *err) {
    ef_answers *answers = NULL;
    FILE *out = NULL;
    int status = answer_pieces(f, &answers, err);
    if (status == 0 && !(out = memory_stream_open(text, size)))
        status = error_set(err, "out of memory for the document");
    if (status == 0) status = put_pieces(f, answers, out, err);
    if (out && fclose(out) && status == 0)
        status = error_set(err, "out of memory for the document");
    ef_answers_close(answers);
    return status;
}

static int write_document(const Fill *f, const char *text, size_t size, Error *err) {
    if (f->common.json) return report_flush(err);
    if (f->in_place && f->failed)
        return error_set(err, "%s: is unchanged, since not all of it could be filled in", f->path);
    if (f->in_place) return file_write_all(f->path, text, size, err);
    fwrite(text, 1, size, stdout);
    return report_flush(err);
}

static int run(Fill *f, Error *err) {
    char *document = NULL, *text = NULL;
    size_t size = 0;
    if (f->in_place) TRY(file_write_check(f->path, err));
    int status = read_document(f, &document, err);
    f->common.model.text_only = true;
    if (status == 0) status = library_open(&f->model, &f->common, &f->timings, err);
    if (status == 0) {
        f->options = library_options(&f->common, f->strategy);
        status = document_split(f, document, err);
    }
    if (status == 0) status = document_fill(f, &text, &size, err);
    if (status == 0) status = write_document(f, text, size, err);
    if (status == 0 && !f->common.quiet && f->timings.answers)
        timings_print_model(&f->timings, f->model, &f->common.answer.decode);
    free(document), free(text);
    return status;
}

/* ---- The command line. ---- */

static int read_words(Fill *f, int count, char **words) {
    if (count < 1) return options_wrong(&help, "no file is given (- is standard input)");
    if (count > 1)
        return options_wrong(&help, "one file at a time; \"%s\" is one too many", words[1]);
    if (f->common.length)
        return options_wrong(&help, "--length is for whole answers; the gaps of a document have "
                                    "their own, as in ___{3}");
    if (f->in_place && f->common.json)
        return options_wrong(&help,
                             "--json prints lines, --in-place rewrites the file: choose one");
    if (f->in_place && !strcmp(words[0], "-"))
        return options_wrong(&help, "--in-place needs a file, not standard input");
    f->path = words[0];
    f->common.answer_template = ""; /* each paragraph's own */
    return -1;
}

int command_fill(int argc, char **argv) {
    Fill f = {.prompt = ""};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {{"in-place", 'i', OPTION_FLAG, NULL, &f.in_place, "rewrite the file"},
                     {"prompt", 0, OPTION_TEXT, "PROMPT", &f.prompt,
                      "what the model reads before each paragraph (default: nothing)"}}}};
    common_init(&f.common);
    f.common.answer.decode.iterations = 0;
    common_answer_group(&f.common, &groups[1]);
    model_group(&f.common.model, &f.common.device, &f.common.threads, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&f, argc - first, argv + first);
    if (status < 0) status = common_check(&help, &f.common);
    if (status < 0) {
        Error err;
        int failed = run(&f, &err);
        if (failed) report_failure(&err);
        status = failed || f.failed;
    }
    for (size_t i = 0; i < f.count; i++) free(f.pieces[i].text);
    free(f.pieces);
    ef_model_close(f.model);
    return status;
}
