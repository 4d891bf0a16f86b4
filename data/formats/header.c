/* header.c - tables whose first row names the columns. Which of them are prompt and answer is known by
 * name; with a template, the prompt is made from any of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/formats/formats.h"
#include "data/formats/table.h"

static const char *const prompt_names[] = {"inputs",  "input", "prompt",      "question",
                                           "source",  "src",   "instruction", "document",
                                           "article", NULL};
static const char *const answer_names[] = {"targets",    "target", "answer",     "output",
                                           "response",   "tgt",    "completion", "summary",
                                           "highlights", "title",  NULL};

typedef struct Header {
    char *names[CSV_FIELDS_MOST];
    int count;
    int prompt, answer; /* columns; -1: none, -2: several */
} Header;

/* The only column of one of these names. */
static int column_of(char *const *names, int count, const char *const *known) {
    int found = -1;
    for (int i = 0; i < count; i++)
        for (int k = 0; known[k]; k++)
            if (!strcasecmp(names[i], known[k])) found = found == -1 ? i : -2;
    return found;
}

static void header_free(Header *header) {
    for (int i = 0; i < header->count; i++) free(header->names[i]);
}

static int header_take(Header *header, const Csv *row, Error *err) {
    *header = (Header){.count = 0};
    while (header->count < row->count) {
        char *name = strdup(row->fields[header->count]);
        if (!name) return error_set(err, "out of memory for columns");
        header->names[header->count++] = name;
    }
    header->prompt = column_of(header->names, header->count, prompt_names);
    header->answer = column_of(header->names, header->count, answer_names);
    return 0;
}

static bool is_known(FormatInput *input, int separator) {
    Table t;
    bool known = table_begin(&t, input, separator, NULL) == 0 && csv_next(&t.csv, NULL) == 0 &&
                 t.csv.count >= 2 && !t.csv.fault;
    if (known) {
        int prompt = column_of((char *const *)t.csv.fields, t.csv.count, prompt_names);
        int answer = column_of((char *const *)t.csv.fields, t.csv.count, answer_names);
        const char *form = input->prompting ? input->prompting->options.prompt_template : NULL;
        known = answer != -1 && (prompt != -1 || form);
    }
    table_end(&t);
    return known;
}

bool csv_header_known(FormatInput *input) {
    return is_known(input, ',');
}

bool tsv_header_known(FormatInput *input) {
    return is_known(input, '\t');
}

/* ---- Rows. ---- */

static int header_check(const FormatInput *input, const Header *h, const char *form, Error *err) {
    for (int i = 0; i < h->count; i++)
        for (int other = 0; other < i; other++)
            if (!strcmp(h->names[i], h->names[other]))
                return error_set(err, "%s: two columns are named \"%.100s\"", input->path,
                                 h->names[i]);
    if (h->answer < 0 || (h->prompt < 0 && !form))
        return error_set(err,
                         "%s: several of its columns could be the %s; expected one, or a template "
                         "with the prompt's",
                         input->path, h->answer < 0 ? "answer" : "prompt");
    return 0;
}

static int take_fields(FormatInput *input, const Header *h, const Csv *row, Error *err) {
    const char *form = input->prompting ? input->prompting->options.prompt_template : NULL;
    for (int i = 0; i < row->count; i++)
        if (strlen(row->fields[i]) != row->sizes[i]) {
            sample_reject(input, row->first, "NUL byte", "it has one: not a text file");
            return 0;
        }
    char *stem =
        form ? template_fill(form, (const char *const *)h->names, row->fields, h->count, NULL, err)
             : NULL;
    if (form && !stem) return error_context(err, "%s", input->path);
    int status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = form ? stem : row->fields[h->prompt],
                                       .answer = row->fields[h->answer],
                                       .between = "",
                                       .bare = true,
                                       .number = row->first},
                             err);
    free(stem);
    return status;
}

static int take_row(void *user, FormatInput *input, const Csv *row, Error *err) {
    Header *h = user;
    const char *form = input->prompting ? input->prompting->options.prompt_template : NULL;
    if (!h->count) {
        TRY(header_take(h, row, err));
        return header_check(input, h, form, err);
    }
    if (row->count == h->count) return take_fields(input, h, row, err);
    sample_reject(input, row->first, "missing columns", "%d columns, but the header has %d",
                  row->count, h->count);
    return 0;
}

static int read_table(FormatInput *input, int separator, Error *err) {
    Header header = {.count = 0};
    int status = table_walk(input, separator, take_row, &header, err);
    header_free(&header);
    return status;
}

int csv_header_read(FormatInput *input, Error *err) {
    return read_table(input, ',', err);
}

int tsv_header_read(FormatInput *input, Error *err) {
    return read_table(input, '\t', err);
}
