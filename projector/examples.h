/* examples.h - records as token ids: what one training example is.
 *
 * A sequence is <s> [image] prompt answer </s>. Prompt and answer are encoded apart, as in
 * answering. What becomes of a prompt that is too long is `long_prompts`: it keeps its end (its
 * beginning goes, <s> stays), as the papers' authors have it, or is left out; either way it is
 * noted. An answer is never cut: one that does not fit at all is a problem, and so is a question
 * that does not fit beside its image and answer. An answer with a <mask> in it is one, too.
 *
 * Conversations give one example for each answered turn. With `context` the earlier turns stand
 * before the question, joined by spaces, as many whole ones as fit, back to one that is not usable.
 * Without, a turn sees the image and itself; then, under block attention, the turns of an image
 * are one unit that is packed together (see packing.h).
 */
#ifndef EASYFIRST_PROJECTOR_EXAMPLES_H
#define EASYFIRST_PROJECTOR_EXAMPLES_H

#include "data/sets/records.h"
#include "language/long_prompts.h"
#include "language/tokenizer.h"

typedef struct ExampleConfig {
    const Tokenizer *tokenizer;
    int longest;         /* tokens of a sequence, <s> and </s> included: 512 */
    int positions;       /* that the model has; 0: as many as `longest` */
    int answer_position; /* as in InfillConfig: the prompt must end before it */
    int image_rows;      /* that an image takes */
    bool context;        /* earlier turns before the question */
    bool together; /* a record with an image is one unit with all its turns, or several if they
                      have more than 2 * longest tokens; not with context */
    bool plain;    /* the first stage's recipe: leave the instruction out, image -> caption */
    LongPrompts long_prompts; /* refuse: a problem; skip, keep-last: a note. Beside an image
                                 keep-last is a problem, too */
    bool whole; /* plain text: a document longer than fits is cut into several examples, and
                   nothing of it is lost; prompts, if any, are part of it */
} ExampleConfig;

typedef struct ExampleTurn {
    const int32_t *prompt, *answer; /* answer: with the closing </s> */
    int prompt_count, answer_count;
} ExampleTurn;

/* A unit: one turn, or all turns of an image. */
typedef struct Example {
    bool image;
    int turn;           /* which turn of the record (or which piece of a document); of turns that
                           are together -1, -2, ... for the record's first unit and so on */
    ExampleTurn *turns; /* [count] */
    int count;
    int tokens; /* <s>, image, prompts and answers */
} Example;

/* The examples of one record. Zero-initialise; reusable: examples_make empties it first. */
typedef struct Examples {
    Example *items;
    int count;
    Ids ids;            /* memory of the ids */
    ExampleTurn *turns; /* memory of the turns */
    int capacity, turn_capacity;
} Examples;

/* What cannot be an example is counted in *problems with `name` (which record of which file), the
 * record once in `total`; an error is only what is wrong with the configuration, and no memory. */
int examples_make(Examples *examples, const Record *record, const ExampleConfig *config,
                  const char *name, Skipped *skipped, Error *err);
void examples_free(Examples *examples);

#endif
