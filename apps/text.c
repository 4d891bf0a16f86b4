/* text.c - text prompts, one answer a line.
 *
 * Lines are read and answered in batches, so that memory stays bounded however long the input is
 * and answers appear while it is read. Every line in gives exactly one line out, in order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/options.h"
#include "apps/report.h"

static const CommandHelp help = {
    .name = "text",
    .usage = "[options] [PROMPT...]\n"
             "translate --from CODE --to CODE [options] [TEXT...]\n"
             "summarize [options] [TEXT...]",
    .about =
        "Answers prompts: the arguments if there are any, else the lines of --file FILE or of\n"
        "standard input. Each gives one line of output, in order, and an empty line an empty\n"
        "one. A prompt goes to the model as it is; with a leading word translate or summarize\n"
        "each text is put into the wording that the model was trained with. A line that cannot\n"
        "be answered is told on standard error, gives an empty line, and the exit status is 1.",
    .examples = "easyfirst text -m model \"Which is larger, the moon or the sun?\"\n"
                "easyfirst text translate --from de --to en -m model \"Der Hund ist braun.\"\n"
                "easyfirst text summarize -m model --file articles.txt > summaries.txt\n"
                "easyfirst text -m model --language xlm-roberta-base --length 8 --json \"Hello\"\n"
                "tail -f log | easyfirst text translate --from fr --to en -m model --batch 1",
};

enum { BATCH = 64 };

typedef struct Line {
    char *text;
    char *prompt; /* NULL: nothing to answer, or not answerable */
    char *error;  /* why not; NULL for an empty line */
} Line;

typedef struct Text {
    CommonOptions common;
    const char *file, *from, *to;
    const char *preset; /* NULL: prompts as they are */
    bool raw, trace, failed;
    int batch;
    char **words; /* the prompts on the command line */
    int word_count;
    FILE *input; /* or where the lines come from ... */
    const char *input_name;
    int64_t taken; /* how many lines or words there have been */
    Session session;
    Timings timings;
} Text;

/* ---- Reading. ---- */

/* The next line, without its end, or the next word; *text is the caller's to free, NULL at the end.
 */
static int next_text(Text *t, char **text, size_t *size, Error *err) {
    *text = NULL, *size = 0;
    if (!t->input) {
        if (t->taken == t->word_count) return 0;
        *text = strdup(t->words[t->taken++]);
        if (!*text) return error_set(err, "out of memory for a prompt");
        *size = strlen(*text);
        return 0;
    }
    size_t capacity = 0;
    errno = 0;
    ssize_t n = getline(text, &capacity, t->input);
    if (n < 0) {
        free(*text);
        *text = NULL;
        if (!ferror(t->input) && errno != ENOMEM) return 0;
        return error_set(err, "%s: %s", t->input_name, strerror(errno));
    }
    if (n > 0 && (*text)[n - 1] == '\n') n--;
    if (n > 0 && (*text)[n - 1] == '\r') n--;
    (*text)[n] = 0;
    if (t->taken == 0 && n >= 3 && !memcmp(*text, "\xef\xbb\xbf", 3)) /* a byte order mark */
        memmove(*text, *text + 3, (size_t)n - 2), n -= 3;
    *size = (size_t)n;
    t->taken++;
    return 0;
}

/* A line's prompt in the wording that is wanted, checked; a line that cannot be answered is told.
 */
static int line_word(Text *t, Line *line, size_t size, Error *err) {
    const Model *model = &t->session.model;
    Error bad;
    int status = 0;
    if (line->text[strspn(line->text, " \t\r\n\v\f")] == 0 && strlen(line->text) == size) {
        if (t->input) return 0; /* an empty line is no mistake, an empty argument is one */
        status = error_set(&bad, "it is empty: there is nothing to answer");
    } else if (strlen(line->text) != size) {
        status = error_set(&bad, "it has a NUL byte, at %zu: this is no text", strlen(line->text));
    } else if (t->preset) {
        status = model_prompt(model, t->preset, line->text, t->from ? language_name(t->from) : NULL,
                              t->to ? language_name(t->to) : NULL, &line->prompt, &bad);
    } else if (!(line->prompt = strdup(line->text))) {
        return error_set(err, "out of memory for a prompt");
    }
    AnswerRequest request = {.prompt = line->prompt, .picture = -1, .length = t->common.length};
    if (status == 0) status = multimodal_check(&model->parts, &request, NULL, &bad);
    if (status == 0) return 0;
    error_context(&bad, "%s %lld", t->input ? "line" : "prompt", (long long)t->taken);
    if (t->input && t->input != stdin) error_context(&bad, "%s", t->input_name);
    report_error("%s", bad.text);
    t->failed = true;
    free(line->prompt);
    line->prompt = NULL;
    line->error = strdup(bad.text);
    return line->error ? 0 : error_set(err, "out of memory for a message");
}

/* ---- Answering. ---- */

static int print_line(const Text *t, const Line *line, int64_t number, const Answers *answers,
                      int index, Error *err) {
    Asked asked = {.text = line->text, .text_key = "prompt", .line = number};
    const Answer *answer = line->prompt ? &answers->items[index] : NULL;
    const char *error = answer ? answer->error : line->error;
    if (!t->common.json) {
        if (answer && !error) report_field(stdout, answer->text);
        putchar('\n');
        return 0;
    }
    if (!answer || error) return report_json_none(&asked, error, err);
    return report_json(&asked, answers, index, t->session.model.tokenizer, &t->common.answer.decode,
                       t->trace, err);
}

static int answer_lines(Text *t, const Line *lines, int count, Error *err) {
    AnswerRequest requests[BATCH];
    Answers answers = {0};
    int n = 0, status = 0;
    for (int i = 0; i < count; i++)
        if (lines[i].prompt)
            requests[n++] = (AnswerRequest){
                .prompt = lines[i].prompt, .picture = -1, .length = t->common.length};
    if (n) {
        status = multimodal_answer(&t->session.model.parts, TENSOR_NONE, requests, n,
                                   &t->common.answer, &answers, err);
        timings_add(&t->timings, &answers);
    }
    for (int i = 0, index = 0; i < count && status == 0; i++) {
        status = print_line(t, &lines[i], t->taken - count + i + 1, &answers, index, err);
        if (!lines[i].prompt) continue;
        if (status == 0 && answers.items[index].error) {
            t->failed = true;
            report_error("%s %lld: %s", t->input ? "line" : "prompt",
                         (long long)(t->taken - count + i + 1), answers.items[index].error);
        }
        index++;
    }
    answers_free(&answers);
    return status ? -1 : report_flush(err);
}

/* Reads up to a batch of lines and answers them; *count is how many there were. */
static int next_batch(Text *t, int *count, Error *err) {
    Line lines[BATCH] = {0};
    int n = 0, status = 0;
    while (n < t->batch && status == 0) {
        size_t size;
        status = next_text(t, &lines[n].text, &size, err);
        if (status || !lines[n].text) break;
        status = line_word(t, &lines[n++], size, err);
    }
    if (n && status == 0) status = answer_lines(t, lines, n, err);
    for (int i = 0; i < n; i++) free(lines[i].text), free(lines[i].prompt), free(lines[i].error);
    *count = n;
    return status;
}

static int run(Text *t, Error *err) {
    bool progress = !t->common.quiet && t->input && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO);
    if (t->file && strcmp(t->file, "-")) {
        t->input = fopen(t->file, "r");
        t->input_name = t->file;
        if (!t->input) return error_set(err, "%s: %s", t->file, strerror(errno));
    }
    t->common.model.text_only = true;
    TRY(session_open(&t->session, &t->common, err));
    t->timings.load_s = t->session.load_s;
    if (!t->session.model.parts.xlmr)
        return error_set(err, "this model has no language model: name one with --language");
    t->common.answer.trace = t->trace;
    for (int count = t->batch; count == t->batch;) {
        TRY(next_batch(t, &count, err));
        if (progress) fprintf(stderr, "\r%lld lines", (long long)t->taken);
    }
    if (progress) fputc('\n', stderr);
    if (!t->common.quiet && t->timings.answers)
        timings_print(&t->timings, t->session.device, &t->common.answer.decode);
    return 0;
}

/* The words of the command line that are no options. */
static int read_words(Text *t, int count, char **words) {
    static const char *const presets[] = {"translate", "summarize"};
    for (int i = 0; i < 2 && count && !t->raw && !t->preset; i++)
        if (!strcmp(words[0], presets[i])) t->preset = presets[i];
    if (t->preset) words++, count--;
    bool translate = t->preset && !strcmp(t->preset, "translate");
    if (translate && (!t->from || !t->to))
        return options_wrong(&help, "translate needs --from and --to, languages such as de and en");
    if (!translate && (t->from || t->to))
        return options_wrong(&help, "--%s belongs to translate", t->from ? "from" : "to");
    if (count && t->file)
        return options_wrong(&help, "prompts are given both as arguments and with --file");
    t->words = words, t->word_count = count;
    if (!count) t->input = stdin, t->input_name = "standard input";
    /* Somebody is typing, or waiting for each line: answer at once. */
    if (t->input && !t->file && isatty(STDIN_FILENO) && !t->batch) t->batch = 1;
    if (!t->batch) t->batch = BATCH;
    return -1;
}

int command_text(int argc, char **argv) {
    Text t = {0};
    OptionGroup groups[3] = {
        {.title = "options",
         .count = 6,
         .options = {
             {"file", 'f', OPTION_TEXT, "FILE", &t.file,
              "prompts from this file, one a line; - is standard input"},
             {"from", 0, OPTION_TEXT, "CODE", &t.from,
              "translate: the language of the texts (de, or German)"},
             {"to", 0, OPTION_TEXT, "CODE", &t.to, "translate: the language that is wanted"},
             {"raw", 0, OPTION_FLAG, NULL, &t.raw,
              "no preset: a leading word translate is a prompt, too"},
             {"batch", 0, OPTION_INTEGER, "N", &t.batch,
              "lines that are answered together (default 64; 1 when a\n"
              "terminal is typed at); answers do not depend on it",
              1, BATCH},
             {"trace", 0, OPTION_FLAG, NULL, &t.trace, "with --json: every step of the filling"}}}};
    common_init(&t.common);
    t.common.answer.decode.iterations = 0;
    common_answer_group(&t.common, &groups[1]);
    model_group(&t.common.model, &t.common.device, &t.common.threads, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&t, argc - first, argv + first);
    if (status < 0 && t.trace && !t.common.json)
        status =
            options_wrong(&help, "--trace needs --json; `easyfirst show` prints steps as text");
    if (status < 0) status = common_check(&help, &t.common);
    if (status < 0) {
        Error err;
        int failed = run(&t, &err);
        if (failed) report_error("%s", err.text);
        status = failed || t.failed;
    }
    if (t.input && t.input != stdin) fclose(t.input);
    session_close(&t.session);
    return status;
}
