/* ask.c - questions about pictures.
 *
 * answer_pictures is the program's main road on one screen: picture files to pixels, pixels to
 * image tokens, tokens and questions to answers.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/options.h"
#include "apps/report.h"
#include "apps/show/one.h"
#include "apps/show/text.h"

static const CommandHelp help = {
    .name = "ask",
    .usage = "[options] IMAGE QUESTION [QUESTION...]\n"
             "[options] --image IMAGE [--image IMAGE...] QUESTION [QUESTION...]",
    .about =
        "Answers every question about every picture. A picture is a PNG or JPEG file, or - for\n"
        "standard input. One question about one picture gives the answer alone; more give\n"
        "lines of IMAGE, QUESTION and ANSWER with tabs between them. A picture that cannot be\n"
        "read is told and left out: the others are answered, and the exit status is 1. --show\n"
        "lets each answer be watched while it is filled in, as `easyfirst show` does.",
    .examples =
        "easyfirst ask -m model dog.jpg \"What colour is the dog?\"\n"
        "easyfirst ask -m model dog.jpg \"What colour is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --show dog.jpg \"What colour is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --image a.jpg --image b.png --json \"What is this?\"\n"
        "easyfirst ask -m model --beam 5 --length-predictor length.safetensors a.jpg \"Why?\"\n"
        "convert photo.heic png:- | easyfirst ask -m model - \"Who is in the picture?\"",
};

enum { PICTURES_AT_ONCE = 8, REQUESTS_AT_ONCE = 64 };

typedef struct Question {
    const char *text;
    char *prompt; /* in the model's wording; NULL if it cannot be asked */
    Error error;  /* then this says why */
} Question;

typedef struct Ask {
    CommonOptions common;
    TextList images;
    Question *questions;
    int question_count;
    bool trace, show, failed;
    bool quit; /* whoever watched had enough */
    Session session;
    Timings timings;
} Ask;

/* One pair of a picture and a question, answered or not. */
static int print_pair(const Ask *ask, const char *image, const Question *question,
                      const char *error, const Answers *answers, int index, Error *err) {
    Asked asked = {.image = image, .text = question->text, .text_key = "question"};
    if (ask->common.json && error) return report_json_none(&asked, error, err);
    if (error) return 0; /* standard error has it */
    if (ask->common.json)
        return report_json(&asked, answers, index, ask->session.model.tokenizer,
                           &ask->common.answer.decode, ask->trace, err);
    if (ask->images.count * ask->question_count > 1) {
        report_field(stdout, image), putchar('\t');
        report_field(stdout, question->text), putchar('\t');
    }
    report_field(stdout, answers->items[index].text), putchar('\n');
    return 0;
}

static int print_pairs(Ask *ask, const char *const *paths, const Error *unread, int count,
                       const Answers *answers, Error *err) {
    int next = 0;
    for (int p = 0; p < count; p++)
        for (int q = 0; q < ask->question_count; q++) {
            const Question *question = &ask->questions[q];
            const char *error = unread[p].text[0]  ? unread[p].text
                                : question->prompt ? NULL
                                                   : question->error.text;
            int index = error ? -1 : next++;
            if (index >= 0 && answers->items[index].error) {
                error = answers->items[index].error;
                report_error("%s: %s: %s", paths[p], question->text, error);
                ask->failed = true;
            }
            TRY(print_pair(ask, paths[p], question, error, answers, index, err));
        }
    return report_flush(err);
}

/* One question about one picture, watched; with a line that says which if there are several. */
static int show_pair(Ask *ask, ShowJob *job, const Question *question, Error *err) {
    Trace trace;
    if (ask->images.count * ask->question_count > 1) {
        char *image = harmless_text(job->image), *text = harmless_text(question->text);
        if (image && text) printf("%s: %s\n", image, text);
        free(image), free(text);
    }
    job->question = question->text, job->prompt = question->prompt;
    TRY(show_one(job, &trace, &ask->quit, err));
    trace_free(&trace);
    return report_flush(err);
}

/* The pictures that could be read, of paths [count], and all questions about each, in turn. */
static int show_pairs(Ask *ask, const char *const *paths, const Error *unread, int count,
                      const Image *images, Tensor tokens, Error *err) {
    static const ShowWay way = {.speed = SHOW_SPEED};
    int picture = 0;
    for (int p = 0; p < count; p++) {
        if (unread[p].text[0]) continue;
        ShowJob job = {.session = &ask->session,
                       .common = &ask->common,
                       .way = &way,
                       .timings = &ask->timings,
                       .image = paths[p],
                       .width = images[picture].width,
                       .height = images[picture].height,
                       .tokens = tokens,
                       .picture = picture};
        for (int q = 0; q < ask->question_count && !ask->quit; q++)
            if (ask->questions[q].prompt) TRY(show_pair(ask, &job, &ask->questions[q], err));
        picture++;
    }
    return 0;
}

/* Up to PICTURES_AT_ONCE pictures, all questions about each. */
static int answer_pictures(Ask *ask, const char *const *paths, int count, Error *err) {
    const Multimodal *model = &ask->session.model.parts;
    Image images[PICTURES_AT_ONCE] = {0};
    Error unread[PICTURES_AT_ONCE] = {0};
    Tensor tokens = TENSOR_NONE;
    Answers answers = {0};
    int pictures = 0, n = 0, status = 0;
    AnswerRequest *requests = calloc((size_t)(count * ask->question_count), sizeof *requests);
    if (!requests) return error_set(err, "out of memory for %d questions", ask->question_count);

    for (int p = 0; p < count; p++) {
        if (image_read(&images[pictures], paths[p], NULL, &unread[p])) { /* [h, w, 3] */
            report_error("%s", unread[p].text);
            ask->failed = true;
            continue;
        }
        for (int q = 0; q < ask->question_count; q++)
            if (ask->questions[q].prompt)
                requests[n++] = (AnswerRequest){.prompt = ask->questions[q].prompt,
                                                .picture = pictures,
                                                .length = ask->common.length};
        pictures++;
    }
    double start = clock_seconds();
    if (n)
        status = multimodal_encode(model, images, pictures, &tokens, err); /* [pictures * 256, D] */
    if (n && status == 0) status = device_wait(model->device, err);        /* for the clock */
    ask->timings.encode_s += clock_seconds() - start;
    ask->timings.pictures += n ? pictures : 0;
    if (n && status == 0 && !ask->show) {
        status = multimodal_answer(model, tokens, requests, n, &ask->common.answer, &answers, err);
        timings_add(&ask->timings, &answers);
    }
    if (status == 0 && ask->show)
        status = show_pairs(ask, paths, unread, count, images, tokens, err);
    else if (status == 0)
        status = print_pairs(ask, paths, unread, count, &answers, err);

    answers_free(&answers);
    device_free(ask->session.device, tokens.data);
    for (int p = 0; p < pictures; p++) image_free(&images[p]);
    free(requests);
    return status;
}

/* Puts every question into the model's words and sees that it fits; returns how many do. */
static int word_questions(Ask *ask) {
    const Model *model = &ask->session.model;
    int good = 0;
    for (int q = 0; q < ask->question_count; q++) {
        Question *question = &ask->questions[q];
        Error *err = &question->error;
        int status =
            question->text[strspn(question->text, " \t\r\n")]
                ? model_prompt(model, "ask", question->text, NULL, NULL, &question->prompt, err)
                : error_set(err, "it is empty: there is nothing to answer");
        AnswerRequest request = {
            .prompt = question->prompt, .picture = 0, .length = ask->common.length};
        if (status == 0) status = multimodal_check(&model->parts, &request, NULL, err);
        if (status == 0) {
            good++;
            continue;
        }
        free(question->prompt);
        question->prompt = NULL;
        error_context(err, "question %d", q + 1);
        report_error("%s", err->text);
        ask->failed = true;
    }
    return good;
}

static int run(Ask *ask, Error *err) {
    TRY(session_open(&ask->session, &ask->common, err));
    ask->timings.load_s = ask->session.load_s;
    const Multimodal *model = &ask->session.model.parts;
    if (!model->xlmr || !model->vit || !model->projector)
        return error_set(err,
                         "this model has no %s: name a model folder with one, or one with --%s",
                         !model->xlmr  ? "language model"
                         : !model->vit ? "vision tower"
                                       : "projector",
                         !model->xlmr  ? "language"
                         : !model->vit ? "vision"
                                       : "projector");
    ask->common.answer.trace = ask->trace;
    if (!word_questions(ask) && !ask->common.json) return 0;
    int at_once = REQUESTS_AT_ONCE / ask->question_count;
    if (at_once > PICTURES_AT_ONCE) at_once = PICTURES_AT_ONCE;
    if (at_once < 1) at_once = 1;
    for (int i = 0; i < ask->images.count && !ask->quit; i += at_once) {
        int n = ask->images.count - i < at_once ? ask->images.count - i : at_once;
        TRY(answer_pictures(ask, ask->images.items + i, n, err));
    }
    if (!ask->common.quiet && ask->timings.answers)
        timings_print(&ask->timings, ask->session.device, &ask->common.answer.decode);
    return 0;
}

/* The words of the command line that are no options. */
static int read_words(Ask *ask, int count, char **words) {
    if (!ask->images.count) {
        if (!count) return options_wrong(&help, "no picture and no question are given");
        ask->images.items = malloc(sizeof *ask->images.items);
        if (!ask->images.items) return options_wrong(&help, "out of memory");
        ask->images.items[ask->images.count++] = words[0];
        words++, count--;
    }
    if (!count) return options_wrong(&help, "no question is given");
    int from_input = 0;
    for (int i = 0; i < ask->images.count; i++) from_input += !strcmp(ask->images.items[i], "-");
    if (from_input > 1)
        return options_wrong(&help, "standard input (-) can be one picture only, not %d",
                             from_input);
    ask->questions = calloc((size_t)count, sizeof *ask->questions);
    if (!ask->questions) return options_wrong(&help, "out of memory for %d questions", count);
    ask->question_count = count;
    for (int i = 0; i < count; i++) ask->questions[i].text = words[i];
    return -1;
}

int command_ask(int argc, char **argv) {
    Ask ask = {0};
    OptionGroup groups[3] = {
        {.title = "options",
         .count = 3,
         .options = {{"image", 'i', OPTION_LIST, "IMAGE", &ask.images,
                      "a picture; may be given several times"},
                     {"show", 0, OPTION_FLAG, NULL, &ask.show, "show how each answer is filled in"},
                     {"trace", 0, OPTION_FLAG, NULL, &ask.trace,
                      "with --json: every step of the filling"}}}};
    common_init(&ask.common);
    ask.common.answer.decode.iterations = 0;
    common_answer_group(&ask.common, &groups[1]);
    model_group(&ask.common.model, &ask.common.device, &ask.common.threads, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&ask, argc - first, argv + first);
    if (status < 0 && ask.trace && !ask.common.json)
        status =
            options_wrong(&help, "--trace needs --json; `easyfirst show` prints steps as text");
    if (status < 0 && ask.show && ask.common.json)
        status = options_wrong(&help, "--show is for watching, --json for programs: choose one");
    if (status < 0) status = common_check(&help, &ask.common);
    if (status < 0) {
        Error err;
        int failed = run(&ask, &err);
        if (failed) report_error("%s", err.text);
        status = failed || ask.failed;
    }
    session_close(&ask.session);
    for (int i = 0; i < ask.question_count; i++) free(ask.questions[i].prompt);
    free(ask.questions);
    free(ask.images.items);
    return status;
}
