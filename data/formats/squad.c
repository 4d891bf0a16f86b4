/* squad.c - SQuAD's JSON, which TyDiQA's gold passages have, too: {"data": [{"paragraphs": [{"context",
 * "qas": [{"id", "question", "answers": [{"text"}]}]}]}]}. TyDiQA's ids begin with the language. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "data/formats/document.h"
#include "data/formats/formats.h"

static const char *const languages[] = {"arabic",     "bengali",  "english", "finnish",
                                        "indonesian", "japanese", "korean",  "russian",
                                        "swahili",    "telugu",   "thai"};

bool squad_known(FormatInput *input) {
    return document_has(input, "data", "\"paragraphs\"");
}

static const char *language_of(const char *id) {
    for (size_t i = 0; id && i < sizeof languages / sizeof languages[0]; i++) {
        size_t size = strlen(languages[i]);
        if (!strncmp(id, languages[i], size) && id[size] == '-') return languages[i];
    }
    return "english";
}

static int take_question(FormatInput *input, const char *context, const json_t *question,
                         int64_t number, Error *err) {
    const char *text = json_string_value(json_object_get(question, "question"));
    const json_t *answers = json_object_get(question, "answers");
    const char *answer = json_string_value(json_object_get(json_array_get(answers, 0), "text"));
    if (!context || !text) {
        sample_reject(input, number, "wrong type", "no text \"%s\"",
                      context ? "question" : "context");
        return 0;
    }
    if (!answer) {
        sample_reject(input, number, "no answer", "it has no \"answers\" with a \"text\"");
        return 0;
    }
    const char *language = language_of(json_string_value(json_object_get(question, "id")));
    char *instruction = path_format(
        err, "Please answer each of the question according to the given context in %s. ", language);
    char *stem = instruction ? path_format(err, "context: %s Q: %s A:", context, text) : NULL;
    int status = -1;
    if (stem)
        status = sample_take(input,
                             &(Sample){.instruction = instruction,
                                       .stem = stem,
                                       .answer = answer,
                                       .between = "",
                                       .number = number},
                             err);
    free(instruction), free(stem);
    return status;
}

static int take_paragraph(FormatInput *input, const json_t *paragraph, int64_t *number,
                          Error *err) {
    const char *context = json_string_value(json_object_get(paragraph, "context"));
    const json_t *questions = json_object_get(paragraph, "qas"), *question;
    size_t i;
    int status = 0;
    json_array_foreach((json_t *)questions, i, question) {
        status = take_question(input, context, question, ++*number, err);
        if (status) break;
    }
    return status;
}

int squad_read(FormatInput *input, Error *err) {
    json_t *whole = document_read(input, err), *article, *paragraph;
    if (!whole) return -1;
    int64_t number = 0;
    int status = 0;
    size_t i, j;
    json_array_foreach(json_object_get(whole, "data"), i, article) {
        json_array_foreach(json_object_get(article, "paragraphs"), j, paragraph) {
            if (status == 0) status = take_paragraph(input, paragraph, &number, err);
        }
    }
    json_decref(whole);
    return status < 0 ? -1 : 0;
}
