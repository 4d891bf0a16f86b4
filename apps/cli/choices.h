/* choices.h - answers that are chosen from given ones: --one-of, --choices and --all-choices. */
#ifndef EASYFIRST_APPS_CLI_CHOICES_H
#define EASYFIRST_APPS_CLI_CHOICES_H

#include "apps/cli/common.h"
#include "projector/easyfirst.h"

typedef struct GivenChoices {
    const char *one_of, *file; /* as given */
    bool all;                  /* print all with their probabilities */
    int by;                    /* a ChoiceBy */
    char **texts;              /* [count] */
    size_t count;
} GivenChoices;

/* The row of --by, for a ChoiceBy. */
Option choices_by_option(int *by);

/* How choices are scored: --by, and with likelihood --samples, which is then the number of masks and
 * not that of denoised answers. */
void choices_by_apply(int by, CommonOptions *o);

/* The four rows, appended to a group. */
void given_choices_group_add(GivenChoices *choices, OptionGroup *group);

/* Whether answers are to be chosen. */
static inline bool given_choices_any(const GivenChoices *choices) {
    return choices->one_of || choices->file;
}

/* Applies --by, and checks that nothing is given that a choice has no use for; `other`: the name of an option that is
 * given and cannot go with choices, or NULL. Returns -1 to continue, or the exit status. */
int given_choices_check_options(const CommandHelp *help, const GivenChoices *choices,
                                CommonOptions *o, const char *other);

/* Reads the choices: of --one-of those between commas, without the white space around them, of
 * --choices the lines. given_choices_free is always allowed. */
int given_choices_read(GivenChoices *choices, Error *err);
void given_choices_free(GivenChoices *choices);

/* Whether the model can write them all. */
int given_choices_check_model(const GivenChoices *choices, const ef_model *model, Error *err);

/* Answer i's choices, the likeliest first, a line each, after the `fields` (NULL-terminated) of
 * what was asked: CHOICE and PROBABILITY with tabs between them. */
int given_choices_print(const ef_answers *answers, size_t i, const char *const *fields, Error *err);

#endif
