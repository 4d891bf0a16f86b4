/* examples.h - tokenizes records into training examples.
 *
 * A sequence is <s> [image] prompt answer </s>. Prompt and answer are encoded separately, as in
 * inference (answer_text.h). Models of LLaMA's kind have their own begin instead of <s>, or none,
 * and what ends their answers instead of </s>: the token that ends every text, if there is one,
 * else that of a turn in the model's chat template, else the end-of-text token. A prompt is put
 * into the template; then an image has its place where the first message has its text (image_lead),
 * with an empty prompt, too. `long_prompts` says what happens to a prompt that is too long: it
 * keeps its end (and <s>), as in the papers' code, or is left out; either way it is noted. An
 * answer is never truncated: one that does not fit is skipped, and so is a question that does not
 * fit next to its image and answer, and an answer with a <mask> in it.
 *
 * Conversations give one example for each answered turn. With `context` the earlier turns go before
 * the question, joined by spaces, as many complete ones as fit, back to an unusable one (in a chat template as messages). Without, a
 * turn sees the image and itself; then, with block-causal attention, the turns of an image are one
 * unit that is packed together (see packing.h).
 */
#ifndef EASYFIRST_PROJECTOR_EXAMPLES_H
#define EASYFIRST_PROJECTOR_EXAMPLES_H

#include "data/sets/records.h"
#include "language/chat_template.h"
#include "language/language.h"
#include "language/long_prompts.h"
#include "language/tokenizer.h"

typedef struct ExampleConfig {
    const Tokenizer *tokenizer;
    int longest;         /* tokens of a sequence, <s> and </s> included: 512 */
    int positions;       /* of the model; 0: `longest` */
    int answer_position; /* as in InfillConfig: the prompt must end before it */
    int image_rows;      /* that an image takes */
    bool context;        /* earlier turns before the question */
    bool together; /* a record with an image is one unit with all its turns, or several if they have
                      more than 2 * longest tokens; not with context */
    bool plain;    /* the first stage's recipe: leave the instruction out, image -> caption */
    LongPrompts long_prompts; /* refuse: counted as bad; skip, keep-last: a note. With an image
                                 keep-last counts as bad, too */
    bool whole; /* plain text: a document that is too long is split into several examples without
                   loss; prompts, if any, are part of it */
    LanguageModel language; /* of LLaMA's kind; else XLM-R's tokens are used */
    bool chats;             /* prompts are messages ... */
    ChatTemplate chat;      /* ... in this template */
    int pad_answers;      /* answers are followed by end-of-text tokens, with a loss, up to so many
                               tokens, as far as they fit (LLaDA's fine-tuning); 0: none */
    float random_lengths; /* whole: of so many pieces, a fraction, the length is drawn at random
                               (LLaDA's pretraining: 0.01); 0: all are equally long */
    uint64_t seed;        /* ... with this seed */
    const char *image_lead; /* as in Multimodal: how a prompt about an image begins, before the
                               image, in tokens; NULL: the image is before the prompt */
    int image_lead_count;
} ExampleConfig;

typedef struct ExampleTurn {
    const int32_t *prompt, *answer; /* answer: with the closing </s> */
    int prompt_count, answer_count;
} ExampleTurn;

/* A unit: one turn, or all turns of an image. */
typedef struct Example {
    bool image;
    int turn;           /* turn of the record (or piece of a document); for units of several turns
                           -1, -2, ... in the record's order */
    ExampleTurn *turns; /* [count] */
    int count;
    int tokens; /* <s>, image, prompts and answers */
} Example;

/* The examples of one record. Zero-initialize; reusable: examples_make clears it first. */
typedef struct Examples {
    Example *items;
    int count;
    Ids ids;            /* memory of the ids */
    ExampleTurn *turns; /* memory of the turns */
    int capacity, turn_capacity;
} Examples;

/* What cannot be an example is counted in *skipped with `name` (file and record), the record once
 * in `total`. Errors: an invalid configuration, out of memory. */
int examples_make(Examples *examples, const Record *record, const ExampleConfig *config,
                  const char *name, Skipped *skipped, Error *err);
void examples_free(Examples *examples);

#endif
