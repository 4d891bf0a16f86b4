/* mgsm.c - MGSM's tables: question TAB number, no header. The language is the end of the file's name
 * ("mgsm_de.tsv"); of other names it is English. */
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "data/formats/formats.h"
#include "data/formats/table.h"

/* The marks of question and answer, as MGSM's own demonstrations have them. */
typedef struct Marks {
    const char *language, *question, *answer;
} Marks;

static const Marks marks[] = {
    {"en", "Question:", "Step-by-Step Answer:"},
    {"de", "Frage:", "Schritt-für-Schritt-Antwort:"},
    {"es", "Pregunta:", "Respuesta paso a paso:"},
    {"fr", "Question :", "Réponse étape par étape :"},
    {"ru", "Задача:", "Пошаговое решение:"},
    {"zh", "问题:", "逐步解答:"},
    {"ja", "問題:", "ステップごとの答え:"},
    {"th", "โจทย์:", "คำตอบทีละขั้นตอน:"},
    {"sw", "Swali:", "Jibu la Hatua kwa Hatua:"},
    {"bn", "প্রশ্ন:", "ধাপে ধাপে উত্তর:"},
    {"te", "ప్రశ్న:", "దశలవారీగా సమాధానం:"},
};

/* The targets of the authors' files have fillers before the number, so that an answer of the target's
 * length has room for steps: 60, and 59 after demonstrations. */
enum { FILLERS = 60, FILLERS_SHOTS = 59 };

static const Marks *marks_of(const char *name) {
    size_t size = strcspn(name, ".");
    for (size_t i = 0; size >= 3 && i < sizeof marks / sizeof marks[0]; i++)
        if (strchr("_-", name[size - 3]) && !strncmp(name + size - 2, marks[i].language, 2))
            return &marks[i];
    return &marks[0];
}

/* Digits, perhaps with commas, a sign or decimals. */
static bool is_number(const char *text) {
    size_t size = strspn(text, "+-0123456789.,");
    return size && !text[size] && strpbrk(text, "0123456789");
}

static bool fits(const Csv *row) {
    return row->count == 2 && is_number(row->fields[1]);
}

bool mgsm_known(FormatInput *input) {
    return table_is(input, '\t', fits, false);
}

static int take_row(void *user, FormatInput *input, const Csv *row, Error *err) {
    const Marks *m = user;
    if (row->count != 2 || strlen(row->fields[0]) != row->sizes[0]) {
        sample_reject(input, row->first, "missing columns",
                      "%d columns, expected a question and a number with a tab between them",
                      row->count);
        return 0;
    }
    if (!is_number(row->fields[1])) {
        sample_reject(input, row->first, "answer without a number", "it is \"%.60s\"",
                      row->fields[1]);
        return 0;
    }
    char fillers[2 * FILLERS + 1];
    int count = input->prompting && input->prompting->count ? FILLERS_SHOTS : FILLERS;
    for (int i = 0; i < count; i++) memcpy(fillers + 2 * i, "# ", 3);
    char *stem = path_format(err, "%s  %s %s ", m->question, row->fields[0], m->answer);
    char *target = stem ? path_format(err, "%s%s", fillers, row->fields[1]) : NULL;
    int status = -1;
    if (target)
        status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = stem,
                                       .answer = target,
                                       .shown = row->fields[1],
                                       .between = "",
                                       .number = row->first},
                             err);
    free(stem), free(target);
    return status;
}

int mgsm_read(FormatInput *input, Error *err) {
    return table_walk(input, '\t', take_row, (void *)marks_of(input->name), err);
}
