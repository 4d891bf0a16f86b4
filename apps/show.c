/* show.c - how an answer is filled in: every step as a line.
 *
 *   step   1   1/8  __ __ __ [planes] __ __ __ __
 *   step  42   6/8  There are __ planes __ visible in the [image].   erased: "two"
 */
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/options.h"
#include "apps/report.h"

static const CommandHelp help = {
    .name = "show",
    .usage = "[options] IMAGE QUESTION\n"
             "[options] --text PROMPT",
    .about =
        "Prints the steps in which an answer is filled: how many of its tokens are written, and\n"
        "the text so far with __ for each mask, [ ] around what the step wrote, and what it\n"
        "erased. Steps that change nothing are left out. The last line is the answer. With\n"
        "several hypotheses (--beam, --samples) the best one is shown, at the end; else each\n"
        "step as it happens.",
    .examples = "easyfirst show -m model dog.jpg \"What colour is the dog?\"\n"
                "easyfirst show -m model --text \"Question: what is 3 + 4? Step-by-Step Answer:\"\n"
                "easyfirst show -m model --length 12 --strategy ar --all-steps dog.jpg \"Why?\"\n"
                "easyfirst show -m model --json dog.jpg \"What colour is the dog?\" > trace.json",
};

typedef struct Show {
    CommonOptions common;
    const char *image, *prompt_text; /* the picture (NULL: none), the question or the prompt */
    bool text, all_steps;
    Session session;
    Timings timings;
    int32_t *before; /* tokens after the step before this one; NULL before the first */
} Show;

/* ---- One line. ---- */

/* Appends a token's text to the line; "▁" is the space in front of a word. `mark` goes between that
 * space and the word. */
static void print_piece(const char *piece, const char *mark, bool first) {
    static const char space[] = "\xe2\x96\x81";
    if (!strncmp(piece, space, 3)) {
        if (!first) putchar(' ');
        piece += 3;
    }
    fputs(mark, stdout);
    for (; *piece; piece++) {
        if (!strncmp(piece, space, 3))
            putchar(' '), piece += 2;
        else
            putchar(*piece);
    }
}

static void print_cells(const Show *s, const TraceCell *cells, int n) {
    const Tokenizer *tokenizer = s->session.model.tokenizer;
    int32_t mask = tokenizer_mask_id(tokenizer);
    bool open = false; /* a [ is */
    for (int i = 0; i < n; i++) {
        int32_t token = cells[i].token;
        bool written = token != mask && token != s->before[i];
        if (open && !written) putchar(']'), open = false;
        if (token == mask)
            fputs(i ? " __" : "__", stdout);
        else
            print_piece(tokenizer_piece(tokenizer, token), written && !open ? "[" : "", i == 0);
        open |= written;
    }
    if (open) putchar(']');
}

static void print_erased(const Show *s, const TraceCell *cells, int n) {
    const Tokenizer *tokenizer = s->session.model.tokenizer;
    int32_t mask = tokenizer_mask_id(tokenizer);
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (s->before[i] == mask || s->before[i] == cells[i].token) continue;
        fputs(count++ ? ", \"" : "   erased: \"", stdout);
        print_piece(tokenizer_piece(tokenizer, s->before[i]), "", true);
        putchar('"');
    }
}

/* A DecodeWatch. */
static void show_step(void *user, const DecodeStep *step) {
    Show *s = user;
    int n = step->length, filled = 0, digits = snprintf(NULL, 0, "%d", n);
    int32_t mask = tokenizer_mask_id(s->session.model.tokenizer);
    if (!s->before) {
        s->before = malloc((size_t)n * sizeof *s->before);
        if (!s->before) return; /* the next step tries again */
        for (int i = 0; i < n; i++) s->before[i] = mask;
    }
    bool changed = false;
    for (int i = 0; i < n; i++) {
        filled += step->cells[i].token != mask;
        changed |= step->cells[i].token != s->before[i];
    }
    if (changed || s->all_steps) {
        printf("step %*d  %*d/%d  ", snprintf(NULL, 0, "%d", step->steps), step->step, digits,
               filled, n);
        print_cells(s, step->cells, n);
        print_erased(s, step->cells, n);
        putchar('\n');
        fflush(stdout); /* it is being watched; what goes wrong is told at the end */
    }
    for (int i = 0; i < n; i++) s->before[i] = step->cells[i].token;
}

/* ---- The whole. ---- */

static void replay(Show *s, const DecodeResult *result) {
    for (int i = 0; i < result->steps; i++)
        show_step(s, &(DecodeStep){.step = i + 1,
                                   .steps = result->steps,
                                   .length = result->length,
                                   .evaluated = result->evaluated[i],
                                   .cells = result->trace + (size_t)i * (size_t)result->length});
}

static int print_answer(Show *s, const Answers *answers, bool watched, Error *err) {
    const Answer *answer = &answers->items[0];
    Asked asked = {
        .image = s->image, .text = s->prompt_text, .text_key = s->text ? "prompt" : "question"};
    if (s->common.json) {
        TRY(report_json(&asked, answers, 0, s->session.model.tokenizer, &s->common.answer.decode,
                        true, err));
        return report_flush(err);
    }
    if (!watched) replay(s, &answers->results[answer->best]);
    puts(answer->text);
    return report_flush(err);
}

static int encode_picture(Show *s, Tensor *tokens, Error *err) {
    Image image;
    TRY(image_read(&image, s->image, NULL, err));
    double start = clock_seconds();
    int status = multimodal_encode(&s->session.model.parts, &image, 1, tokens, err);
    if (status == 0) status = device_wait(s->session.device, err); /* for the clock */
    s->timings.encode_s = clock_seconds() - start, s->timings.pictures = 1;
    image_free(&image);
    return status;
}

static int answer(Show *s, Tensor tokens, const char *prompt, Error *err) {
    AnswerOptions *options = &s->common.answer;
    bool watched = !s->common.json && options->length_beam == 1 && options->samples == 1;
    if (watched)
        options->watch = show_step, options->user = s;
    else
        options->trace = true;
    AnswerRequest request = {
        .prompt = prompt, .picture = s->image ? 0 : -1, .length = s->common.length};
    Answers answers;
    TRY(multimodal_answer(&s->session.model.parts, tokens, &request, 1, options, &answers, err));
    timings_add(&s->timings, &answers);
    int status = print_answer(s, &answers, watched, err);
    answers_free(&answers);
    return status;
}

static int run(Show *s, Error *err) {
    s->common.model.text_only = s->text;
    TRY(session_open(&s->session, &s->common, err));
    s->timings.load_s = s->session.load_s;
    if (!s->session.model.parts.xlmr)
        return error_set(err, "this model has no language model: name one with --language");
    if (!s->prompt_text[strspn(s->prompt_text, " \t\r\n")])
        return error_set(err, "the question is empty: there is nothing to answer");
    Tensor tokens = TENSOR_NONE;
    char *prompt = NULL;
    int status = s->text ? 0 : encode_picture(s, &tokens, err);
    if (status == 0 && s->text && !(prompt = strdup(s->prompt_text)))
        status = error_set(err, "out of memory for the prompt");
    if (status == 0 && !s->text)
        status = model_prompt(&s->session.model, "ask", s->prompt_text, NULL, NULL, &prompt, err);
    if (status == 0) status = answer(s, tokens, prompt, err);
    free(prompt);
    device_free(s->session.device, tokens.data);
    if (status == 0 && !s->common.quiet)
        timings_print(&s->timings, s->session.device, &s->common.answer.decode);
    return status;
}

static int read_words(Show *s, int count, char **words) {
    if (s->prompt_text) {
        s->text = true;
        if (count)
            return options_wrong(&help, "--text has the prompt; \"%s\" is one too many", words[0]);
        return -1;
    }
    if (count < 1) return options_wrong(&help, "no picture is given, and no --text");
    if (count < 2) return options_wrong(&help, "no question is given");
    if (count > 2)
        return options_wrong(&help, "one question at a time; \"%s\" is one too many", words[2]);
    s->image = words[0], s->prompt_text = words[1];
    return -1;
}

int command_show(int argc, char **argv) {
    Show s = {0};
    OptionGroup groups[3] = {{.title = "options",
                              .count = 2,
                              .options = {{"text", 0, OPTION_TEXT, "PROMPT", &s.prompt_text,
                                           "a prompt without a picture"},
                                          {"all-steps", 'a', OPTION_FLAG, NULL, &s.all_steps,
                                           "also the steps that change nothing"}}}};
    common_init(&s.common);
    common_answer_group(&s.common, &groups[1]);
    model_group(&s.common.model, &s.common.device, &s.common.threads, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&s, argc - first, argv + first);
    if (status < 0) status = common_check(&help, &s.common);
    if (status < 0) {
        Error err;
        status = run(&s, &err) ? 1 : 0;
        if (status) report_error("%s", err.text);
    }
    session_close(&s.session);
    free(s.before);
    return status;
}
