/* long_prompts.h - what to do with a prompt that leaves no space for its answer.
 *
 * XLM-R reads 512 tokens. The paper's authors leave longer prompts out of their evaluations (the
 * *.skipped.json lists next to their results), and in training keep the last 512 tokens of a
 * pair. */
#ifndef EASYFIRST_LANGUAGE_LONG_PROMPTS_H
#define EASYFIRST_LANGUAGE_LONG_PROMPTS_H

typedef enum LongPrompts {
    LONG_PROMPTS_REFUSE,    /* an error of this one request, which is scored as wrong */
    LONG_PROMPTS_SKIP,      /* not answered, not scored, counted */
    LONG_PROMPTS_KEEP_LAST, /* its first tokens are dropped until it fits, counted */
} LongPrompts;

extern const char *const long_prompts_names[]; /* "refuse", "skip", "keep-last" */

#endif
