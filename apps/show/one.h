/* one.h - asks one question and shows its answer while it is filled in: shared by `show` and `ask
 * --show`. */
#ifndef EASYFIRST_APPS_SHOW_ONE_H
#define EASYFIRST_APPS_SHOW_ONE_H

#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "apps/show/player.h"

/* How answers are shown: the options of the command line. */
typedef struct ShowWay {
    float speed;     /* --speed */
    bool steps_only; /* --steps-only: lines also on a terminal */
    bool all_steps;  /* lines: also of steps that change nothing */
    bool every_step; /* not folded (fold.h) */
    bool plain;      /* the answer alone */
    bool step;       /* --step */
    bool keep;       /* finish the answer even if the user quits the display */
    bool silent;     /* nothing is printed */
} ShowWay;

/* Adds the rows of speed, steps-only, all-steps, every-step and step. */
void show_way_rows(ShowWay *way, OptionGroup *group);

typedef struct ShowJob {
    const Session *session;
    const CommonOptions *common;
    const ShowWay *way;
    Timings *timings;
    const char *image; /* its name; NULL: none */
    int width, height; /* of the image */
    Tensor tokens;     /* its image tokens, if there is one ... */
    int block;         /* ... and their block */
    const char *question;
    const char *prompt; /* the question in the prompt template */
    bool is_prompt;
    const RecordTurn *turns; /* [turn_count], earlier ones of the conversation */
    int turn_count;
} ShowJob;

/* Asks, shows, and gives the finished trace, the caller's to free (also after a failure, when it is
 * empty). *quit: the user pressed q; the answer was printed all the same. */
int show_one(const ShowJob *job, Trace *trace, bool *quit, Error *err);

/* Shows a finished trace in the same way. */
int show_again(const Trace *trace, const ShowWay *way, bool *quit, Error *err);

#endif
