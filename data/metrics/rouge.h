/* rouge.h - Rouge-1, 2, L and Lsum (Lin, 2004), equal to Google's rouge-score package.
 *
 * Words are runs of a-z and 0-9 after lower-casing: text in other scripts has none. Rouge-N counts
 * common n-grams, Rouge-L the longest common subsequence of words, Rouge-Lsum takes lines as
 * sentences and unites, for each of the reference, its common subsequences with all of the
 * hypothesis. Values are in 0..1, as rouge-score has them.
 */
#ifndef EASYFIRST_DATA_METRICS_ROUGE_H
#define EASYFIRST_DATA_METRICS_ROUGE_H

#include <stdbool.h>
#include <stdint.h>

#include "data/metrics/references.h"
#include "kernels/error.h"

typedef enum RougeKind { ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM, ROUGE_KINDS } RougeKind;

typedef struct RougeValues {
    double precision, recall, f;
} RougeValues;

typedef struct RougeScore {
    RougeValues kinds[ROUGE_KINDS];
} RougeScore;

const char *rouge_name(RougeKind kind); /* "rouge1", "rouge2", "rougeL", "rougeLsum" */

/* Means over all lines; with several references (as bleu_corpus takes them) of the one with the
 * largest F, for each kind. `stem`: words of more than three letters lose their endings (porter.h).
 * Time grows with the product of the two texts' words: a larger product than ROUGE_PAIRS_MOST is an
 * error. */
enum { ROUGE_PAIRS_MOST = 1 << 28 };

int rouge_corpus(const char *const *hypotheses, const References *references, bool stem,
                 RougeScore *score, Error *err);

/* The same for each line separately: scores[count]. */
int rouge_lines(const char *const *hypotheses, const References *references, bool stem,
                RougeScore *scores, Error *err);

#endif
