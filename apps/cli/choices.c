#include "apps/cli/choices.h"

#include <stdlib.h>
#include <string.h>

#include "apps/cli/lines.h"
#include "apps/cli/report.h"

Option choices_by_option(int *by) {
    return (Option){"by",
                    0,
                    OPTION_CHOICE,
                    NULL,
                    by,
                    "how choices are scored: denoising (the default), their tokens in\n"
                    "the order of decoding; likelihood, the bound over all orders,\n"
                    "from --samples masks of each (default 128)",
                    .names = choice_by_names};
}

void choices_by_apply(int by, CommonOptions *o) {
    o->answer.choose_by = (ChoiceBy)by;
    if (by != CHOICE_BY_LIKELIHOOD) return;
    o->answer.likelihood_samples = o->samples_given ? o->answer.samples : 0;
    o->answer.samples = 1;
}

void given_choices_group_add(GivenChoices *c, OptionGroup *group) {
    const Option rows[] = {{"one-of", 0, OPTION_TEXT, "A,B,...", &c->one_of,
                            "answer with the likeliest of these, by the model's own\n"
                            "likelihood of each"},
                           {"choices", 0, OPTION_TEXT, "FILE", &c->file,
                            "the same, with the choices from a file, one a line"},
                           {"all-choices", 0, OPTION_FLAG, NULL, &c->all,
                            "print every choice with its probability, the likeliest first"},
                           choices_by_option(&c->by)};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) option_add(group, rows[i]);
}

int given_choices_check_options(const CommandHelp *help, const GivenChoices *c, CommonOptions *o,
                                const char *other) {
    const AnswerOptions *a = &o->answer;
    if (c->by && !given_choices_any(c))
        return options_wrong(help, "--by needs --one-of or --choices");
    choices_by_apply(c->by, o);
    if (c->one_of && c->file)
        return options_wrong(help, "choices are given both with --one-of and with --choices");
    if (!given_choices_any(c))
        return c->all ? options_wrong(help, "--all-choices needs --one-of or --choices") : -1;
    if (c->file && !strcmp(c->file, "-"))
        return options_wrong(help, "--choices takes a file, not standard input");
    const struct {
        const char *name;
        bool given;
    } denoising[] = {{"length", o->length > 0},
                     {"steps", a->decode.iterations != 0},
                     {"strategy", o->strategy != NULL},
                     {"beam", a->length_beam > 1},
                     {"length-weight", a->length_weight > 0},
                     {"samples", a->samples > 1},
                     {"guidance", a->decode.guidance > 0},
                     {"temperature", a->decode.temperature > 0}};
    for (size_t i = 0; i < sizeof denoising / sizeof *denoising && !other; i++)
        if (denoising[i].given) other = denoising[i].name;
    if (!other && c->all && o->json)
        return options_wrong(help, "--json has all choices already: leave out --all-choices");
    if (!other) return -1;
    return options_wrong(help,
                         "--%s is for answers that are denoised; one of --%s is chosen instead",
                         other, c->one_of ? "one-of" : "choices");
}

/* ---- Reading. ---- */

/* Takes over the text. */
static int choice_add(GivenChoices *c, size_t *capacity, char *text, Error *err) {
    if (c->count == *capacity) {
        size_t more = 2 * *capacity + 16;
        char **texts = realloc(c->texts, more * sizeof *texts);
        if (!texts) {
            free(text);
            return error_set(err, "out of memory for %zu choices", more);
        }
        c->texts = texts, *capacity = more;
    }
    c->texts[c->count++] = text;
    return 0;
}

/* The choices between the commas. */
static int read_one_of(GivenChoices *c, Error *err) {
    size_t capacity = 0;
    for (const char *at = c->one_of;; at++) {
        size_t size = strcspn(at, ",");
        const char *begin = at + strspn(at, " \t\r\n"), *end = at + size;
        while (end > begin && strchr(" \t\r\n", end[-1])) end--;
        if (begin == end)
            return error_set(err,
                             "--one-of: choice %zu is empty; choices with commas in them can be "
                             "given with --choices",
                             c->count + 1);
        char *text = strndup(begin, (size_t)(end - begin));
        if (!text) return error_set(err, "out of memory for a choice");
        TRY(choice_add(c, &capacity, text, err));
        at += size;
        if (!*at) return 0;
    }
}

/* What is wrong with a line of `size` bytes. */
static int check_line(const Lines *lines, const char *text, size_t size, Error *err) {
    long long number = (long long)lines->taken;
    if (size > PROMPT_BYTES)
        return error_set(err, "%s: line %lld has more than %d bytes: not a choice", lines->name,
                         number, PROMPT_BYTES);
    if (strlen(text) != size)
        return error_set(err, "%s: line %lld has a NUL byte, at %zu: not a text", lines->name,
                         number, strlen(text));
    if (!text[strspn(text, " \t\r\n\v\f")])
        return error_set(err, "%s: line %lld is empty, a choice was expected", lines->name, number);
    return 0;
}

static int read_lines(GivenChoices *c, Lines *lines, Error *err) {
    size_t capacity = 0, size;
    for (char *text;;) {
        TRY(lines_next(lines, &text, &size, err));
        if (!text) break;
        if (check_line(lines, text, size, err)) {
            free(text);
            return -1;
        }
        TRY(choice_add(c, &capacity, text, err));
    }
    return c->count ? 0 : error_set(err, "%s: the file is empty, choices were expected", c->file);
}

int given_choices_read(GivenChoices *c, Error *err) {
    if (c->one_of) return read_one_of(c, err);
    if (!c->file) return 0;
    Lines *lines = calloc(1, sizeof *lines);
    if (!lines) return error_set(err, "out of memory for the choices");
    int status = lines_open(lines, c->file, PROMPT_BYTES, err);
    if (status == 0) {
        status = read_lines(c, lines, err);
        lines_close(lines);
    }
    free(lines);
    return status;
}

void given_choices_free(GivenChoices *c) {
    for (size_t i = 0; i < c->count; i++) free(c->texts[i]);
    free(c->texts);
    c->texts = NULL, c->count = 0;
}

int given_choices_check_model(const GivenChoices *c, const ef_model *model, Error *err) {
    if (!given_choices_any(c)) return 0;
    const ef_request request = {.task = EF_COMPLETE,
                                .text = "?",
                                .choices = (const char *const *)c->texts,
                                .choice_count = c->count};
    if (ef_check(model, &request, NULL, NULL, (ef_error *)(void *)err) == 0) return 0;
    return error_context(err, "%s", c->one_of ? "--one-of" : c->file);
}

/* ---- Printing. ---- */

static int likelier(const void *a, const void *b) {
    const ef_choice *x = *(const ef_choice *const *)a, *y = *(const ef_choice *const *)b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x < y ? -1 : x > y; /* as given */
}

int given_choices_print(const ef_answers *answers, size_t i, const char *const *fields,
                        Error *err) {
    size_t count = ef_answer_choices(answers, i);
    const ef_choice **sorted = malloc((count + 1) * sizeof *sorted);
    if (!sorted) return error_set(err, "out of memory for %zu choices", count);
    for (size_t c = 0; c < count; c++) sorted[c] = ef_answer_choice(answers, i, c);
    qsort(sorted, count, sizeof *sorted, likelier);
    for (size_t c = 0; c < count; c++) {
        for (const char *const *field = fields; *field; field++) {
            report_field(stdout, *field);
            putchar('\t');
        }
        report_field(stdout, sorted[c]->text);
        printf("\t%.4f\n", sorted[c]->probability);
    }
    free(sorted);
    return 0;
}
