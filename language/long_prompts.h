/* long_prompts.h - what becomes of a prompt that leaves no room for its answer.
 *
 * XLM-R reads 512 tokens. The paper's authors leave longer prompts out of their evaluations (the
 * *.skipped.json lists beside their results), and in training keep the last 512 tokens of a
 * pair. */
#ifndef EASYFIRST_LANGUAGE_LONG_PROMPTS_H
#define EASYFIRST_LANGUAGE_LONG_PROMPTS_H

typedef enum LongPrompts {
    LONG_PROMPTS_REFUSE,    /* an error of this one request, which counts as wrong where it
                             * is scored */
    LONG_PROMPTS_SKIP,      /* left out, not scored, counted */
    LONG_PROMPTS_KEEP_LAST, /* its first tokens are dropped until it fits, counted */
} LongPrompts;

/* Of an option's row: "refuse|skip|keep-last". */
#define LONG_PROMPTS_CHOICES "refuse|skip|keep-last"

const char *long_prompts_name(LongPrompts what);

/* The value of a name; -1 if there is none of that name. */
int long_prompts_find(const char *name);

#endif
