#include "kernels/nearest_word.h"

#include <stdlib.h>
#include <string.h>

/* Levenshtein distance, of words of up to 63 letters. */
static int word_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > 63 || m > 63) return 64;
    int row[64];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0]; /* the value above and to the left */
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = above, row[j] = best;
        }
    }
    return row[m];
}

const char *nearest_word(const char *word, const char *const *words) {
    const char *nearest = NULL;
    int least = (int)strlen(word) / 3;
    least = least < 2 ? 3 : least + 1;
    for (; *words; words++) {
        int distance = word_distance(word, *words);
        /* Two words of two letters are never close. */
        if (distance < least && distance < (int)strlen(*words)) least = distance, nearest = *words;
    }
    return nearest;
}
