/* parallel.c - prompts and answers in lines: two files with a line each, or one with a tab between
 * them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/text_space.h"
#include "data/files/file_open.h"
#include "data/files/spool.h"
#include "data/formats/formats.h"
#include "data/formats/open.h"
#include "data/formats/table.h"

static int take_pair(FormatInput *input, const char *source, const char *target, int64_t number,
                     Error *err) {
    static const char *const names[] = {"source"};
    const char *form = input->prompting ? input->prompting->options.prompt_template : NULL;
    const char *values[] = {source};
    size_t size = strlen(source);
    if (text_space_begin(source, size) == size) {
        sample_reject(input, number, "empty prompt", "it has no words");
        return 0;
    }
    char *stem = form ? template_fill(form, names, values, 1, NULL, err) : NULL;
    if (form && !stem) return error_context(err, "%s", input->path);
    int status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = stem ? stem : source,
                                       .answer = target,
                                       .between = "",
                                       .bare = true,
                                       .number = number},
                             err);
    free(stem);
    return status;
}

/* ---- One file. ---- */

static bool fits(const Csv *row) {
    return row->count == 2 && row->fields[0][0] && row->fields[1][0];
}

bool pairs_known(FormatInput *input) {
    if (input->prompting && input->prompting->options.pairs) return true;
    return table_is(input, '\t', fits, input->text);
}

static int take_row(void *user, FormatInput *input, const Csv *row, Error *err) {
    (void)user;
    if (row->count != 2) {
        sample_reject(input, row->first, "missing columns",
                      "%d columns, expected a prompt and an answer with a tab between them",
                      row->count);
        return 0;
    }
    if (strlen(row->fields[0]) != row->sizes[0] || strlen(row->fields[1]) != row->sizes[1]) {
        sample_reject(input, row->first, "NUL byte", "it has one: not a text file");
        return 0;
    }
    return take_pair(input, row->fields[0], row->fields[1], row->first, err);
}

int pairs_read(FormatInput *input, Error *err) {
    return table_walk(input, '\t', take_row, NULL, err);
}

/* ---- Two files. ---- */

/* A line of a file, blank ones too. */
typedef struct Lines {
    FileWindow window;
    Csv csv;
    int64_t count;
    bool ended;
} Lines;

bool parallel_known(FormatInput *input) {
    return input->prompting && input->prompting->options.answers;
}

/* The next line of a table without separators; blank lines, which it skips, are between. *text is NULL
 * at the file's end, and "" for a blank line. */
static int next_line(Table *t, int64_t line, const char **text, Error *err) {
    *text = NULL;
    if (t->csv.first < line) TRY(csv_next(&t->csv, err));
    if (!t->csv.count) return 0;
    if (t->csv.first > line) {
        *text = "";
        return 0;
    }
    bool damaged = t->csv.fault || strlen(t->csv.fields[0]) != t->csv.sizes[0];
    *text = damaged ? "" : t->csv.fields[0];
    return 0;
}

static int walk_both(FormatInput *input, Table *sources, Table *targets, Error *err) {
    const char *other = input->prompting->options.answers, *source, *target;
    int status = 0;
    for (int64_t line = 1; status == 0; line++) {
        TRY(next_line(sources, line, &source, err));
        TRY(next_line(targets, line, &target, err));
        if (!source && !target) break;
        if (!source || !target)
            return error_set(err,
                             "%s has more lines than %s: line %lld has no partner; parallel files "
                             "have one line for each",
                             source ? input->path : other, source ? other : input->path,
                             (long long)line);
        if (source[0] || target[0]) status = take_pair(input, source, target, line, err);
    }
    return status;
}

int parallel_read(FormatInput *input, Error *err) {
    Table sources = {0}, targets = {0};
    FormatInput other = {.path = input->prompting->options.answers};
    bool temporary;
    int64_t bytes;
    other.fd = format_fd_open(other.path, &bytes, &temporary, err);
    if (other.fd < 0) return -1;
    int status = table_begin(&sources, input, CSV_LINES, err);
    if (status == 0) status = table_begin(&targets, &other, CSV_LINES, err);
    if (status == 0) status = walk_both(input, &sources, &targets, err);
    table_end(&sources), table_end(&targets);
    close(other.fd);
    return status < 0 ? -1 : 0;
}
