/* mmlu.c - MMLU's tables: question, four choices, letter; no header. The subject is the file's name
 * without "_val", "_dev" or "_test". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "data/formats/formats.h"
#include "data/formats/table.h"

enum { FIELDS = 6, SUBJECT_SIZE = 128 };

static bool is_letter(const char *text) {
    return text[0] >= 'A' && text[0] <= 'D' && !text[1];
}

static bool fits(const Csv *row) {
    return row->count == FIELDS && row->sizes[5] == 1 && is_letter(row->fields[5]);
}

bool mmlu_known(FormatInput *input) {
    return table_is(input, ',', fits, false);
}

/* "abstract_algebra_val.csv": "abstract algebra". */
static void subject_of(char subject[SUBJECT_SIZE], const char *name) {
    static const char *const endings[] = {".csv", "_val", "_dev", "_test"};
    snprintf(subject, SUBJECT_SIZE, "%s", name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t size = strlen(subject), length = strlen(endings[i]);
        if (size > length && !strcmp(subject + size - length, endings[i]))
            subject[size - length] = 0;
    }
    for (char *s = subject; *s; s++)
        if (*s == '_') *s = ' ';
}

static int take_row(void *user, FormatInput *input, const Csv *row, Error *err) {
    char *const *f = (char *const *)row->fields;
    if (row->count != FIELDS) {
        sample_reject(input, row->first, "missing columns",
                      "%d columns, expected question, four choices and the letter", row->count);
        return 0;
    }
    if (!is_letter(f[5]) || row->sizes[5] != 1) {
        sample_reject(input, row->first, "wrong letter", "\"%.20s\", expected A, B, C or D", f[5]);
        return 0;
    }
    char *stem =
        path_format(err, "Q: %s (A) %s (B) %s (C) %s (D) %s A:", f[0], f[1], f[2], f[3], f[4]);
    if (!stem) return -1;
    size_t whole = strlen("Q:  (A)  (B)  (C)  (D)  A:");
    for (int i = 0; i < 5; i++) whole += row->sizes[i];
    int status = 0;
    if (strlen(stem) != whole)
        sample_reject(input, row->first, "NUL byte", "it has one: not a text file");
    else
        status = sample_take(input,
                             &(Sample){.instruction = user,
                                       .stem = stem,
                                       .answer = f[5],
                                       .between = " |",
                                       .number = row->first},
                             err);
    free(stem);
    return status;
}

int mmlu_read(FormatInput *input, Error *err) {
    char subject[SUBJECT_SIZE];
    subject_of(subject, input->name);
    char *instruction = path_format(
        err, "The following are multiple choice questions (with answers) about %s.", subject);
    int status = instruction ? table_walk(input, ',', take_row, instruction, err) : -1;
    free(instruction);
    return status;
}
