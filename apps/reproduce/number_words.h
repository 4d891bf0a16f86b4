/* number_words.h - numbers below 10,000 in words, in English and German. */
#ifndef EASYFIRST_APPS_REPRODUCE_NUMBER_WORDS_H
#define EASYFIRST_APPS_REPRODUCE_NUMBER_WORDS_H

enum { NUMBER_WORDS_SIZE = 128 };

/* German has the ones before the tens, and its parts apart: "drei und vierzig". */
void number_english(char out[NUMBER_WORDS_SIZE], int number);
void number_german(char out[NUMBER_WORDS_SIZE], int number);

#endif
