/* text.c - text prompts, one answer a line.
 *
 * Lines are read and answered in batches, so that memory stays bounded however long the input is
 * and answers appear while it is read. Every line in gives exactly one line out, in order. They
 * are answered by the public library (projector/easyfirst.h); --show alone looks inside.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/cli/choices.h"
#include "apps/cli/layers.h"
#include "apps/cli/library.h"
#include "apps/cli/lines.h"
#include "apps/cli/processes.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "apps/trace/report_json.h"
#include "apps/show/one.h"
#include "kernels/nearest_word.h"
#include "projector/easyfirst_private.h"

static const CommandHelp help = {
    .name = "text",
    .usage = "[options] [PROMPT...]\n"
             "[options] --template TEXT [PROMPT...]\n"
             "translate --from CODE --to CODE [options] [TEXT...]\n"
             "summarize [options] [TEXT...]",
    .about =
        "Answers prompts: the arguments if there are any, else the lines of --file FILE or of\n"
        "standard input. Each gives one line of output, in order, and an empty line an empty\n"
        "one. A prompt goes to the model as it is; with a leading word translate or summarize\n"
        "each text is put into the model's prompt template. A line that cannot be answered is\n"
        "reported on standard error, gives an empty line, and the exit status is 1; the\n"
        "others are answered. Lines are answered as they come, at most 1 MiB each. --show shows\n"
        "each answer while it is denoised, as `easyfirst show` does.\n"
        "\n"
        "--template TEXT gives a part of the answer, and only its gaps are filled in: ___ is a\n"
        "gap whose length is found by trying 8 (--beam) combinations, ___{2} one of 2 tokens,\n"
        "\\___ no gap but underscores. What is not a gap never changes. The prompt may be left\n"
        "out then. An empty prompt (\"\") with --length asks for a text without any prompt.\n"
        "\n"
        "With --one-of or --choices the answer is the likeliest of the given ones.",
    .examples = "easyfirst text -m model \"Which is larger, the moon or the sun?\"\n"
                "easyfirst text translate --from de --to en -m model \"Der Hund ist braun.\"\n"
                "easyfirst text summarize -m model --file articles.txt > summaries.txt\n"
                "easyfirst text -m model --language xlm-roberta-base --length 8 --json \"Hello\"\n"
                "easyfirst text -m model --template \"The ___ is on the ___.\"\n"
                "tail -f log | easyfirst text translate --from fr --to en -m model --batch 1",
};

enum { BATCH = 64 };

/* A batch is full, too, when its prompts have so many bytes together. */
enum { BATCH_BYTES = 4 << 20 };

typedef struct Line {
    char *text;
    bool asked;  /* false: nothing to answer, or not answerable */
    char *error; /* why not; NULL for an empty line */
    int64_t number;
} Line;

typedef struct Text {
    CommonOptions common;
    const char *file, *from, *to;
    const char *preset; /* NULL: prompts as they are */
    ef_task task;       /* the preset's */
    bool raw, trace, show, failed;
    bool quit; /* whoever watched had enough: answers alone are wanted */
    int batch;
    GivenChoices choices;
    char **words; /* the prompts on the command line */
    int word_count, taken;
    bool from_lines; /* not they, but lines */
    Lines lines;
    ef_model *model;
    ef_options options;
    char strategy[LIBRARY_STRATEGY]; /* the options' */
    Timings timings;
} Text;

/* ---- Reading. ---- */

/* The next line or word; *text is the caller's to free, NULL at the end. */
static int next_text(Text *t, char **text, size_t *size, int64_t *number, Error *err) {
    int status = 0;
    *text = NULL, *size = 0;
    if (t->from_lines) {
        status = lines_next(&t->lines, text, size, err);
        *number = t->lines.taken;
    } else if (t->taken < t->word_count) {
        *text = strdup(t->words[t->taken++]);
        if (!*text) return error_set(err, "out of memory for a prompt");
        *size = strlen(*text), *number = t->taken;
    }
    return status;
}

/* Tells on standard error why a line is not answered, and keeps that for JSON. */
static int line_fail(Text *t, Line *line, Error *why, Error *err) {
    error_context(why, "%s %lld", t->from_lines ? "line" : "prompt", (long long)line->number);
    if (t->from_lines && t->lines.fd != STDIN_FILENO) error_context(why, "%s", t->lines.name);
    report_error("%s", why->text);
    t->failed = true;
    line->asked = false;
    line->error = strdup(why->text);
    return line->error ? 0 : error_set(err, "out of memory for a message");
}

/* What is wrong with a line of `size` bytes, as far as the library does not see it. */
static int line_check(const Text *t, const Line *line, size_t size, Error *why) {
    if (size > PROMPT_BYTES) {
        char bytes[REPORT_NUMBER_SIZE], most[REPORT_NUMBER_SIZE];
        report_number(bytes, (int64_t)size), report_number(most, PROMPT_BYTES);
        return error_set(why,
                         "it has %s bytes, at most %s are looked at (the model reads %d "
                         "tokens): shorten it",
                         bytes, most, ef_model_context(t->model));
    }
    if (strlen(line->text) != size)
        return error_set(why, "it has a NUL byte, at %zu: not a text", strlen(line->text));
    bool none = size == 0 && !t->from_lines && !t->preset; /* no prompt at all */
    if (!none && line->text[strspn(line->text, " \t\r\n\v\f")] == 0)
        return error_set(why, "it is empty: there is nothing to answer");
    return 0;
}

/* Sees whether there is something to ask; a line that cannot be asked is reported. */
static int line_take(Text *t, Line *line, size_t size, Error *err) {
    Error why;
    int status = line_check(t, line, size, &why);
    if (t->from_lines && line->text[strspn(line->text, " \t\r\n\v\f")] == 0 &&
        strlen(line->text) == size)
        return 0; /* an empty line is no mistake, an empty argument is one */
    if (status && size > PROMPT_BYTES && t->common.answer.long_prompts == LONG_PROMPTS_SKIP) {
        t->timings.skipped++;
        line->error = strdup(why.text);
        return line->error ? 0 : error_set(err, "out of memory for a message");
    }
    line->asked = status == 0;
    return status ? line_fail(t, line, &why, err) : 0;
}

/* ---- Answering. ---- */

static Asked line_asked(const Text *t, const Line *line) {
    return (Asked){.text = line->text,
                   .text_key = "prompt",
                   .line = line->number,
                   .answer_template = t->common.answer_template};
}

static ef_request line_request(const Text *t, const Line *line) {
    return (ef_request){.task = t->task,
                        .text = line->text,
                        .from = t->from,
                        .to = t->to,
                        .length = t->common.length,
                        .choices = (const char *const *)t->choices.texts,
                        .choice_count = t->choices.count,
                        .answer_template = t->common.answer_template};
}

/* `index` is the line's among the answers, if it was asked. */
static int print_line(const Text *t, const Line *line, const ef_answers *answers, size_t index,
                      StepTraces *traces, Error *err) {
    Asked asked = line_asked(t, line);
    if (!t->common.json && t->choices.all && line->asked) {
        const char *const fields[] = {t->from_lines || t->word_count > 1 ? line->text : NULL, NULL};
        return given_choices_print(answers, index, fields, err);
    }
    if (!t->common.json) {
        if (line->asked) report_field(stdout, ef_answer_text(answers, index));
        putchar('\n');
        return 0;
    }
    if (!line->asked) return report_json_none(&asked, line->error, err);
    return report_json(&asked, answers, index, &t->common.answer.decode, t->trace ? traces : NULL,
                       err);
}

/* Says why a line has no answer; one that is skipped is counted only. */
static int line_refused(Text *t, Line *line, const char *error, bool skipped, Error *err) {
    Error why;
    error_write(&why, "%s", error);
    if (!skipped) return line_fail(t, line, &why, err);
    line->asked = false;
    line->error = strdup(why.text);
    return line->error ? 0 : error_set(err, "out of memory for a message");
}

static int print_lines(Text *t, Line *lines, int count, const ef_answers *answers,
                       StepTraces *traces, Error *err) {
    size_t index = 0;
    for (int i = 0; i < count; i++) {
        bool asked = lines[i].asked;
        const char *error = asked ? ef_answer_error(answers, index) : NULL;
        if (error)
            TRY(line_refused(t, &lines[i], error, ef_answer_code(answers, index) == EF_SKIPPED,
                             err));
        TRY(print_line(t, &lines[i], answers, index, traces, err));
        index += asked;
    }
    return report_flush(err);
}

static int answer_lines(Text *t, Line *lines, int count, Error *err) {
    ef_request requests[BATCH];
    ef_answers *answers = NULL;
    StepTraces traces = {0};
    ef_options options = t->options;
    int n = 0, status = t->trace ? step_traces_open(&traces, count, err) : 0;
    if (t->trace) options.on_step = step_traces_step, options.user = &traces;
    for (int i = 0; i < count && status == 0; i++) {
        if (!lines[i].asked) continue;
        const Asked asked = line_asked(t, &lines[i]);
        requests[n++] = line_request(t, &lines[i]);
        if (t->trace) status = step_traces_add(&traces, &asked, &t->common.answer.decode, err);
    }
    if (n && status == 0)
        status = ef_answer(t->model, requests, (size_t)n, &options, &answers, library_error(err));
    if (answers) timings_add_work(&t->timings, ef_answers_work(answers));
    if (status == 0) status = print_lines(t, lines, count, answers, &traces, err);
    ef_answers_close(answers);
    step_traces_free(&traces);
    return status;
}

/* One line's answer, watched; with the line itself if there may be several. */
static int show_answer(Text *t, Line *line, Error *err) {
    const ShowWay way = {.speed = SHOW_SPEED, .plain = t->quit};
    const Session session = library_session(t->model);
    const ef_request request = line_request(t, line);
    char *prompt;
    Trace trace;
    Error why;
    bool quit = false;
    if (t->from_lines || t->word_count > 1) report_field(stdout, line->text), putchar('\n');
    if (request_prompt(t->model, &request, &prompt, &why)) return line_fail(t, line, &why, err);
    const ShowJob job = {.session = &session,
                         .common = &t->common,
                         .way = &way,
                         .timings = &t->timings,
                         .tokens = TENSOR_NONE,
                         .question = line->text,
                         .prompt = prompt,
                         .is_prompt = true};
    int status = show_one(&job, &trace, &quit, &why) ? line_fail(t, line, &why, err) : 0;
    t->quit |= quit;
    free(prompt);
    trace_free(&trace);
    return status ? -1 : report_flush(err);
}

/* Reads up to a batch of lines, or as many as are at hand, and answers them. */
static int next_batch(Text *t, bool *at_end, Error *err) {
    Line lines[BATCH] = {0};
    size_t bytes = 0;
    int n = 0, status = 0;
    while (n < t->batch && bytes < BATCH_BYTES && status == 0) {
        size_t size;
        if (n && t->from_lines && !lines_ready(&t->lines)) break;
        status = next_text(t, &lines[n].text, &size, &lines[n].number, err);
        *at_end = !lines[n].text;
        if (status || *at_end) break;
        bytes += size > PROMPT_BYTES ? LINES_KEPT : size;
        status = line_take(t, &lines[n++], size, err);
    }
    if (n && status == 0 && !t->show) status = answer_lines(t, lines, n, err);
    for (int i = 0; i < n && status == 0 && t->show; i++)
        if (lines[i].asked) status = show_answer(t, &lines[i], err);
    for (int i = 0; i < n; i++) free(lines[i].text), free(lines[i].error);
    return status;
}

static int run(void *user, Error *err) {
    Text *t = user;
    bool at_end = false;
    bool progress =
        !t->common.quiet && t->from_lines && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO);
    if (t->from_lines) TRY(lines_open(&t->lines, t->file ? t->file : "-", PROMPT_BYTES, err));
    CommonOptions opening = t->common;
    if (given_choices_any(&t->choices)) opening.length = 1; /* no length is predicted */
    TRY(given_choices_read(&t->choices, err));
    TRY(library_open(&t->model, &opening, &t->timings, err));
    TRY(given_choices_check_model(&t->choices, t->model, err));
    TRY(answer_decode_options(&t->model->model.parts, &t->common.answer.decode, err));
    t->options = library_options(&t->common, t->strategy);
    t->batch = common_at_once(&t->common, t->batch);
    while (!at_end) {
        TRY(next_batch(t, &at_end, err));
        if (progress) fprintf(stderr, "\r%lld lines", (long long)t->lines.taken);
    }
    if (progress) fputc('\n', stderr);
    report_long_prompts(&t->timings);
    if (!t->common.quiet && t->timings.answers)
        timings_print_model(&t->timings, t->model,
                            given_choices_any(&t->choices) ? NULL : &t->common.answer.decode);
    return 0;
}

/* ---- The command line. ---- */

/* A leading word that is a preset, unless it stands after `--`. One that only resembles a preset is
 * an error: it would be answered as a prompt. */
static int read_preset(Text *t, int count, char **words, int as_they_are) {
    static const char *const presets[] = {"translate", "summarize", NULL};
    if (t->raw || !count || as_they_are >= count) return -1;
    for (int i = 0; presets[i] && !t->preset; i++)
        if (!strcmp(words[0], presets[i])) t->preset = presets[i];
    const char *near = t->preset ? NULL : nearest_word(words[0], presets);
    if (!near) return -1;
    return options_wrong(&help, "\"%s\": did you mean %s? If it is a prompt, put -- before it",
                         words[0], near);
}

/* The words of the command line that are no options; the last `as_they_are` stand after `--`. */
static int read_words(Text *t, int count, char **words, int as_they_are) {
    int status = read_preset(t, count, words, as_they_are);
    if (status >= 0) return status;
    if (t->preset) words++, count--;
    bool translate = t->preset && !strcmp(t->preset, "translate");
    t->task = translate ? EF_TRANSLATE : t->preset ? EF_SUMMARIZE : EF_COMPLETE;
    if (translate && (!t->from || !t->to))
        return options_wrong(&help, "translate needs --from and --to, languages such as de and en");
    if (!translate && (t->from || t->to))
        return options_wrong(&help, "--%s belongs to translate", t->from ? "from" : "to");
    t->common.model.from = t->from, t->common.model.to = t->to;
    if (count && t->file)
        return options_wrong(&help, "prompts are given both as arguments and with --file");
    static char *no_prompt[] = {""};
    if (!count && t->common.answer_template && !t->file && !t->preset) words = no_prompt, count = 1;
    t->words = words, t->word_count = count;
    t->from_lines = !count;
    /* Somebody is typing, or waiting for each line: answer at once. */
    if (t->from_lines && !t->file && isatty(STDIN_FILENO) && !t->batch) t->batch = 1;
    if (!t->batch) t->batch = t->show ? 1 : BATCH;
    return -1;
}

int command_text(int argc, char **argv) {
    Text t = {0};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {
             {"file", 'f', OPTION_TEXT, "FILE", &t.file,
              "prompts from this file (or FIFO), one a line; - is standard\n"
              "input"},
             {"template", 0, OPTION_TEXT, "TEXT", &t.common.answer_template,
              "the answer's text with gaps: ___, or ___{N} for N tokens"},
             {"from", 0, OPTION_TEXT, "CODE", &t.from,
              "translate: the language of the texts (de, or German)"},
             {"to", 0, OPTION_TEXT, "CODE", &t.to, "translate: the language that is wanted"},
             {"raw", 0, OPTION_FLAG, NULL, &t.raw,
              "no preset: a leading word translate is a prompt, too, as are\n"
              "all words after --"},
             {"batch", 0, OPTION_INTEGER, "N", &t.batch,
              "lines that are answered together (default 64, or those at\n"
              "hand); answers do not depend on it",
              1, BATCH},
             {"show", 0, OPTION_FLAG, NULL, &t.show, "show how each answer is filled in"},
             {"trace", 0, OPTION_FLAG, NULL, &t.trace, "with --json: every denoising step"}}}};
    given_choices_group_add(&t.choices, &groups[0]);
    common_init(&t.common);
    t.common.answer.decode.iterations = 0;
    t.common.model.text_only = true;
    common_answer_group(&t.common, &groups[1]);
    model_group(&t.common.model, &t.common.device, &t.common.threads, &groups[2]);
    const int muted = processes_mute();
    int after = words_after_dashes(argc, argv);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&t, argc - first, argv + first, after);
    if (status < 0 && t.trace && !t.common.json)
        status =
            options_wrong(&help, "--trace needs --json; `easyfirst show` prints steps as text");
    if (status < 0 && t.show && t.common.json)
        status = options_wrong(&help, "--show is for watching, --json for programs: choose one");
    if (status < 0)
        status = given_choices_check_options(&help, &t.choices, &t.common,
                                             t.show    ? "show"
                                             : t.trace ? "trace"
                                                       : NULL);
    if (status < 0) status = common_check(&help, &t.common);
    processes_unmute(muted, status >= 0);
    if (status < 0) status = layers_command(&t.common, run, &t) || t.failed;
    lines_close(&t.lines);
    given_choices_free(&t.choices);
    ef_model_close(t.model);
    return status;
}
