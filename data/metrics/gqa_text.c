#include "data/metrics/gqa_text.h"

#include <string.h>

#include "data/metrics/unicode.h"

/* The text in lower case; NULL instead of an error. */
static char *finish(Codepoints *text, int failed) {
    char *result = NULL;
    if (failed || codepoints_encode(text, &result, NULL)) result = NULL;
    codepoints_free(text);
    return result;
}

char *gqa_prediction_plain(const char *text) {
    Codepoints plain = {0};
    int failed = codepoints_decode(&plain, text, NULL);
    while (!failed && plain.count && plain.items[plain.count - 1] == '.') plain.count--;
    if (!failed) failed = codepoints_lower(&plain, NULL);
    return finish(&plain, failed);
}

char *gqa_normal(const char *text) {
    Codepoints normal = {0};
    int failed = codepoints_decode(&normal, text, NULL);
    if (!failed) failed = codepoints_lower(&normal, NULL);
    size_t count = 0;
    for (size_t i = 0; !failed && i < normal.count; i++)
        if (!codepoint_is_punctuation(normal.items[i])) normal.items[count++] = normal.items[i];
    normal.count = count;
    codepoints_strip(&normal);
    return finish(&normal, failed);
}

int gqa_words(const char *text, bool instruction) {
    Codepoints all = {0};
    size_t begin, end = 0;
    int words = -1;
    if (codepoints_decode(&all, text, NULL) == 0) {
        if (instruction && strchr(text, '\n'))
            while (all.items[--all.count] != '\n') continue;
        for (words = 0; codepoints_next_word(&all, &begin, &end);) words++;
    }
    codepoints_free(&all);
    return words;
}
