/* data.h - data sets that the small forms of the tables train and test on, made from nothing.
 *
 * FOLDER gets, in the formats of the sets that they take the place of (data/README.md):
 *
 *   numbers-{train,valid,test}.{de,en}  numbers below 10,000 in words: parallel files (IWSLT14, WMT14)
 *   numbers-train.tsv                   the training pairs, for demonstrations
 *   instructions.jsonl                  the same as prompts for a mixture (Flan)
 *   news-{train,valid,test}.{src,tgt}   a report and its headline (Gigaword)
 *   kinds_{train,val}.csv               "Which of these is a city?": MMLU's csv
 *   places-{train,test}.json            where somebody lives: SQuAD's JSON (TyDiQA)
 *   problems-{train,test}.jsonl         word problems with calculator marks: GSM8K's lines
 *   mgsm_de.tsv                         German ones, to test with: MGSM's table
 *   text.txt                            lines of all training texts, for pretraining
 *   text-test.txt                       others, to test with
 *   questions.json                      what is in the bundled images: GQA's questions
 *
 *   star-ARMSxNODES-{train,test}.txt     star graphs, their arms of so many nodes with the start
 *   star-figure7.txt                    the graph of the paper's figure 7
 *   facts-{train,learned,reversed,both}.jsonl   who wrote which book, asked as learned and reversed
 *   {star,facts}-tokenizer/             tokenizers of whole words for both
 *
 * Nothing in a test file is in a training file. The same version writes the same bytes.
 */
#ifndef EASYFIRST_APPS_REPRODUCE_DATA_H
#define EASYFIRST_APPS_REPRODUCE_DATA_H

#include "kernels/error.h"

/* Makes the folder, which must not exist yet or be empty of these files. */
int small_data_write(const char *folder, Error *err);

#endif
