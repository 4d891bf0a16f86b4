/* ask.c - questions about images.
 *
 * Everything that is computed goes through the public library (projector/easyfirst.h): what is
 * measured here is what a program that embeds it gets. --show alone looks inside.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/ask/images.h"
#include "apps/ask/questions.h"
#include "apps/chat/chat.h"
#include "apps/cli/choices.h"
#include "apps/cli/layers.h"
#include "apps/cli/library.h"
#include "apps/cli/processes.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "apps/show/one.h"
#include "apps/show/text.h"
#include "apps/trace/report_json.h"
#include "projector/easyfirst_private.h"

static const CommandHelp help = {
    .name = "ask",
    .usage = "[options] IMAGE [IMAGE...] QUESTION [QUESTION...]\n"
             "[options] IMAGE [IMAGE...]\n"
             "[options] --questions FILE [IMAGE...]\n"
             "[options] --image IMAGE [--image IMAGE...] QUESTION [QUESTION...]",
    .about =
        "Answers every question about every image. An image is a file (PNG, JPEG, WebP, ...), a\n"
        "folder of some, or - for standard input; all leading words that are files are images\n"
        "(ask *.jpg \"Why?\"), the\n"
        "others are questions, as is everything after --. One question about one image gives the\n"
        "answer alone; more give lines of IMAGE, QUESTION and ANSWER with tabs between them.\n"
        "Images that cannot be read and questions that cannot be answered are reported on\n"
        "standard error; the others are answered, and the exit status is 1. --show lets each\n"
        "answer be watched while it is filled in, as `easyfirst show` does. A model whose folder\n"
        "has a calibration (easyfirst calibrate) says \"not sure; perhaps: ANSWER\" where the\n"
        "answer is too likely to be wrong; --json gives the probability. Images without a\n"
        "question, on a terminal, begin a conversation (easyfirst chat).\n"
        "--questions takes lines, each a question, or JSON with a question, its image (else it is\n"
        "asked about every image of the command line), an id to be given back, and earlier turns\n"
        "[{\"question\", \"answer\"}]. Bad lines are reported with their number and counted.\n"
        "With --one-of or --choices the answer is the likeliest of the given ones.\n"
        "--template TEXT gives a part of each answer, as `easyfirst text` explains: only its gaps\n"
        "are filled in.",
    .examples =
        "easyfirst ask -m model dog.jpg \"What color is the dog?\"\n"
        "easyfirst ask -m model dog.jpg \"What color is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --show dog.jpg \"What color is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --template \"It is ___.\" dog.jpg \"What color is the dog?\"\n"
        "easyfirst ask -m model --image a.jpg --image b.png --json \"What is this?\"\n"
        "easyfirst ask -m model --questions questions.jsonl photos/ > answers.jsonl\n"
        "easyfirst ask -m model --beam 5 --length-predictor length.safetensors a.jpg \"Why?\"\n"
        "easyfirst ask -m model --one-of left,right --all-choices a.jpg \"Where is the dog?\"\n"
        "cat photo.heic | easyfirst ask -m model - \"Who is in the image?\"",
};

enum { IMAGES_AT_ONCE = 8, REQUESTS_AT_ONCE = 64 };

typedef struct Question {
    const char *text;
    bool asked;  /* it can be */
    char *error; /* else this says why not */
} Question;

typedef struct Ask {
    CommonOptions common;
    TextList images, image_names; /* image_names: of images in folders */
    const char *lines;            /* --questions */
    char **unread; /* [images.count]: why an image cannot be read; NULL for the others */
    Question *questions;
    int question_count;
    GivenChoices choices;
    bool trace, show, failed;
    float given_threshold; /* --sure-threshold */
    bool threshold_given;
    double threshold; /* of the probability of sure answers */
    bool chat;        /* images alone, on a terminal: a conversation about them */
    bool quit;        /* whoever watched had enough: answers alone are wanted */
    ef_model *model;
    ef_options options;
    char strategy[LIBRARY_STRATEGY]; /* the options' */
    Timings timings;
} Ask;

/* A message about an image or a question: said, and kept. */
static int fail(Ask *ask, char **kept, const Error *why, Error *err) {
    report_error("%s", why->text);
    ask->failed = true;
    *kept = strdup(why->text);
    return *kept ? 0 : error_set(err, "out of memory for a message");
}

/* ---- Printing. ---- */

/* The answers of one call, and how they were filled in where that is wanted. */
typedef struct Answered {
    ef_answers *answers; /* NULL: nothing could be asked */
    StepTraces traces;
} Answered;

/* An answer as text; one whose probability is known and below the threshold is marked. */
static void print_answer(const Ask *ask, const ef_answers *answers, size_t index) {
    const char *text = ef_answer_text(answers, index);
    if (ef_answer_probability(answers, index) < ask->threshold) /* not if it is NaN */
        fputs(text[0] ? "not sure; perhaps: " : "not sure", stdout);
    report_field(stdout, text);
    putchar('\n');
}

/* One pair of an image and a question, answered or not. */
static int print_pair(const Ask *ask, const char *image, const Question *question,
                      const char *error, Answered *a, size_t index, Error *err) {
    Asked asked = {.image = image,
                   .text = question->text,
                   .text_key = "question",
                   .threshold = &ask->threshold,
                   .answer_template = ask->common.answer_template};
    if (ask->common.json && error) return report_json_none(&asked, error, err);
    if (error) return 0; /* standard error has it */
    if (ask->common.json)
        return report_json(&asked, a->answers, index, &ask->common.answer.decode,
                           ask->trace ? &a->traces : NULL, err);
    bool several = ask->images.count * (int64_t)ask->question_count > 1;
    const char *const fields[] = {several ? image : NULL, question->text, NULL};
    if (ask->choices.all) return given_choices_print(a->answers, index, fields, err);
    for (int i = 0; fields[i]; i++) report_field(stdout, fields[i]), putchar('\t');
    print_answer(ask, a->answers, index);
    return 0;
}

/* Images, and the questions about each of them, that are answered by one call. */
typedef struct Batch {
    int first_image, images, first_question, questions;
    ef_image *opened[IMAGES_AT_ONCE]; /* NULL: it could not be read */
} Batch;

static int print_pairs(Ask *ask, const Batch *b, Answered *a, Error *err) {
    size_t next = 0;
    for (int p = b->first_image; p < b->first_image + b->images; p++)
        for (int q = b->first_question; q < b->first_question + b->questions; q++) {
            const Question *question = &ask->questions[q];
            const char *path = ask->images.items[p];
            const char *error = ask->unread[p] ? ask->unread[p] : question->error;
            size_t index = error ? 0 : next++;
            const char *refused = error ? NULL : ef_answer_error(a->answers, index);
            if (refused) {
                bool skipped = ef_answer_code(a->answers, index) == EF_SKIPPED;
                error = refused;
                if (!skipped) report_error("%s: %s: %s", path, question->text, error);
                ask->failed |= !skipped;
            }
            TRY(print_pair(ask, path, question, error, a, index, err));
        }
    return report_flush(err);
}

/* One question about one image, watched; with a line that says which if there are several. */
static int show_pair(Ask *ask, ShowJob *job, const Question *question, Error *err) {
    Trace trace;
    if (ask->images.count * (int64_t)ask->question_count > 1) {
        char *image = harmless_text(job->image), *text = harmless_text(question->text);
        if (image && text) printf("%s: %s\n", image, text);
        free(image), free(text);
    }
    const ef_request request = {.task = EF_ASK, .text = question->text};
    char *prompt;
    TRY(request_prompt(ask->model, &request, &prompt, err));
    job->question = question->text, job->prompt = prompt;
    bool quit;
    if (show_one(job, &trace, &quit, err)) {
        report_error("%s: %s: %s", job->image, question->text, err->text);
        ask->failed = true;
    }
    ask->quit |= quit;
    free(prompt);
    trace_free(&trace);
    return report_flush(err);
}

/* The images that could be read, and all questions about each, in turn. */
static int show_pairs(Ask *ask, const Batch *b, Error *err) {
    const Session session = library_session(ask->model);
    ShowWay way = {.speed = SHOW_SPEED};
    ef_image *images[IMAGES_AT_ONCE];
    int blocks[IMAGES_AT_ONCE], count = 0;
    Tensor tokens;
    for (int i = 0; i < b->images; i++)
        if (b->opened[i]) images[count++] = b->opened[i];
    if (count) TRY(library_see(ask->model, images, count, blocks, &tokens, &ask->timings, err));
    for (int i = 0, n = 0; i < b->images; i++) {
        if (!b->opened[i]) continue;
        ShowJob job = {.session = &session,
                       .common = &ask->common,
                       .way = &way,
                       .timings = &ask->timings,
                       .image = ask->images.items[b->first_image + i],
                       .width = ef_image_width(b->opened[i]),
                       .height = ef_image_height(b->opened[i]),
                       .tokens = tokens,
                       .block = blocks[n++]};
        for (int q = 0; q < ask->question_count; q++) {
            way.plain = ask->quit; /* the others are answered, too */
            if (ask->questions[q].asked) TRY(show_pair(ask, &job, &ask->questions[q], err));
        }
    }
    return 0;
}

/* ---- Answering. ---- */

static int answer_requests(Ask *ask, const ef_request *requests, const char *const *paths, int n,
                           Answered *a, Error *err) {
    ef_options options = ask->options;
    if (ask->trace) {
        TRY(step_traces_open(&a->traces, n, err));
        options.on_step = step_traces_step, options.user = &a->traces;
    }
    for (int i = 0; i < n && ask->trace; i++) {
        const Asked asked = {.image = paths[i],
                             .text = requests[i].text,
                             .text_key = "question",
                             .answer_template = ask->common.answer_template};
        TRY(step_traces_add(&a->traces, &asked, &ask->common.answer.decode, err));
    }
    TRY(ef_answer(ask->model, requests, (size_t)n, &options, &a->answers, library_error(err)));
    timings_add_work(&ask->timings, ef_answers_work(a->answers));
    return 0;
}

/* Some of the questions about each image of a batch. */
static int answer_batch(Ask *ask, const Batch *b, Error *err) {
    ef_request requests[REQUESTS_AT_ONCE];
    const char *paths[REQUESTS_AT_ONCE];
    Answered answered = {0};
    int n = 0;
    for (int i = 0; i < b->images; i++)
        for (int q = b->first_question; q < b->first_question + b->questions; q++) {
            if (!b->opened[i] || !ask->questions[q].asked) continue;
            paths[n] = ask->images.items[b->first_image + i];
            requests[n++] = (ef_request){.task = EF_ASK,
                                         .text = ask->questions[q].text,
                                         .image = b->opened[i],
                                         .length = ask->common.length,
                                         .choices = (const char *const *)ask->choices.texts,
                                         .choice_count = ask->choices.count,
                                         .answer_template = ask->common.answer_template};
        }
    int status = n ? answer_requests(ask, requests, paths, n, &answered, err) : 0;
    if (status == 0) status = print_pairs(ask, b, &answered, err);
    ef_answers_close(answered.answers);
    step_traces_free(&answered.traces);
    return status;
}

/* All questions about each image of a batch. */
static int answer_questions(Ask *ask, Batch *b, Error *err) {
    int at_once = common_at_once(&ask->common, REQUESTS_AT_ONCE) / b->images;
    if (at_once < 1) at_once = 1;
    for (int q = 0; q < ask->question_count; q += at_once) {
        b->first_question = q;
        b->questions = ask->question_count - q < at_once ? ask->question_count - q : at_once;
        TRY(answer_batch(ask, b, err));
    }
    return 0;
}

/* Up to IMAGES_AT_ONCE images, all questions about each. */
static int answer_images(Ask *ask, int first, int count, Error *err) {
    Batch b = {.first_image = first, .images = count};
    int status = 0;
    for (int i = 0; i < count && status == 0; i++) {
        const char *path = ask->images.items[first + i];
        Error why;
        if (ask->unread[first + i]) continue;
        if (image_open_for(ask->model, path, &b.opened[i], &why)) /* "-" is standard input */
            status = fail(ask, &ask->unread[first + i], &why, err);
    }
    if (status == 0) status = ask->show ? show_pairs(ask, &b, err) : answer_questions(ask, &b, err);
    for (int i = 0; i < count; i++) ef_image_close(b.opened[i]);
    return status;
}

/* Sees that a question can be asked; one that cannot is reported once, before any image is read. */
static int check_question(Ask *ask, Question *q, int number, Error *err) {
    const ef_request request = {.task = EF_ASK,
                                .text = q->text,
                                .length = ask->common.length,
                                .choices = (const char *const *)ask->choices.texts,
                                .choice_count = ask->choices.count,
                                .answer_template = ask->common.answer_template};
    Error why;
    int status = q->text[strspn(q->text, " \t\r\n")]
                     ? ef_check(ask->model, &request, &ask->options, NULL, library_error(&why))
                     : error_set(&why, "it is empty: there is nothing to answer");
    q->asked = status == 0;
    if (status == 0) return 0;
    error_context(&why, "question %d", number);
    if (why.code != ERROR_SKIPPED) return fail(ask, &q->error, &why, err);
    ask->timings.skipped++;
    q->error = strdup(why.text);
    return q->error ? 0 : error_set(err, "out of memory for a message");
}

/* The threshold of the model, or the one that is given. */
static int take_threshold(Ask *ask, Error *err) {
    ask->threshold = ef_model_sure_threshold(ask->model);
    if (!ask->threshold_given) return 0;
    if (ask->given_threshold > 0 && isnan(ask->threshold))
        return error_set(err, "--sure-threshold needs a model with a calibration for `ask`, which "
                              "this one lacks: easyfirst calibrate makes one");
    ask->threshold = real_shortest(ask->given_threshold);
    return 0;
}

static int check_model(const Ask *ask, Error *err) {
    const char *part = !ef_model_part(ask->model, EF_VISION)      ? "vision tower"
                       : !ef_model_part(ask->model, EF_PROJECTOR) ? "projector"
                                                                  : NULL;
    if (part)
        return error_set(err,
                         "this model has no %s: name a model folder with one, or one with --%s",
                         part, !strcmp(part, "projector") ? "projector" : "vision");
    int length = given_choices_any(&ask->choices) ? 1 : common_least_length(&ask->common);
    return ef_check_task(ask->model, EF_ASK, length, library_error(err));
}

/* Says which images cannot be read as far as that shows without reading them; *left others. */
static int check_files(Ask *ask, int *left, Error *err) {
    *left = 0;
    for (int i = 0; i < ask->images.count; i++) {
        const char *path = ask->images.items[i];
        ef_image *image = NULL;
        Error why;
        if (!strcmp(path, "-") || access(path, R_OK) == 0 ||
            ef_image_open(path, &image, library_error(&why)) == 0)
            ++*left;
        else
            TRY(fail(ask, &ask->unread[i], &why, err));
        ef_image_close(image);
    }
    return 0;
}

static int open_and_check(Ask *ask, int *asked, Error *err) {
    CommonOptions opening = ask->common;
    if (given_choices_any(&ask->choices)) opening.length = 1; /* no length is predicted */
    TRY(library_open(&ask->model, &opening, &ask->timings, err));
    TRY(given_choices_check_model(&ask->choices, ask->model, err));
    TRY(answer_decode_options(&ask->model->model.parts, &ask->common.answer.decode, err));
    ask->options = library_options(&ask->common, ask->strategy);
    TRY(check_model(ask, err));
    TRY(take_threshold(ask, err));
    for (int q = 0; q < ask->question_count; q++) {
        TRY(check_question(ask, &ask->questions[q], q + 1, err));
        *asked += ask->questions[q].asked;
    }
    return 0;
}

static int run_lines(Ask *ask, Error *err) {
    int asked;
    int64_t bad;
    TRY(open_and_check(ask, &asked, err));
    const AskQuestions questions = {.common = &ask->common,
                                    .model = ask->model,
                                    .options = &ask->options,
                                    .threshold = &ask->threshold,
                                    .images = ask->images,
                                    .path = ask->lines,
                                    .timings = &ask->timings};
    TRY(ask_questions(&questions, &bad, err));
    ask->failed |= bad > 0;
    report_long_prompts(&ask->timings);
    if (!ask->common.quiet && ask->timings.answers)
        timings_print_model(&ask->timings, ask->model, &ask->common.answer.decode);
    return 0;
}

static int run(void *user, Error *err) {
    Ask *ask = user;
    if (ask->chat && ask->common.layers)
        return error_set(err, "a conversation has one process: start it without mpirun");
    if (ask->chat) {
        const ChatStart start = {.common = &ask->common, .images = ask->images};
        return chat_run(&start, &ask->failed, err);
    }
    int left, asked = 0;
    TRY(given_choices_read(&ask->choices, err));
    if (ask->lines) return run_lines(ask, err);
    TRY(check_files(ask, &left, err));
    if (left) TRY(open_and_check(ask, &asked, err));
    int at_once = common_at_once(&ask->common, REQUESTS_AT_ONCE) / ask->question_count;
    if (at_once > IMAGES_AT_ONCE) at_once = IMAGES_AT_ONCE;
    if (at_once < 1) at_once = 1;
    for (int i = 0; i < ask->images.count && (asked || ask->common.json); i += at_once) {
        int n = ask->images.count - i < at_once ? ask->images.count - i : at_once;
        TRY(answer_images(ask, i, n, err));
    }
    report_long_prompts(&ask->timings);
    if (!ask->common.quiet && ask->timings.answers)
        timings_print_model(&ask->timings, ask->model,
                            given_choices_any(&ask->choices) ? NULL : &ask->common.answer.decode);
    return 0;
}

/* ---- The command line. ---- */

static bool is_file(const char *word) {
    struct stat info;
    return !strcmp(word, "-") || (stat(word, &info) == 0 && !S_ISDIR(info.st_mode));
}

static bool is_image(const char *word) {
    return is_file(word) || image_folder(word) || image_named(word);
}

static int image_add(Ask *ask, const char *path) {
    size_t n = (size_t)ask->images.count + 1;
    const char **items = realloc(ask->images.items, n * sizeof *items);
    if (!items) return options_wrong(&help, "out of memory");
    ask->images.items = items;
    ask->images.items[ask->images.count++] = path;
    return -1;
}

/* How many of the words are images: the first one, and those after it that are files or look like
 * images; a question that does so can be given after `--`. Returns -1 to go on. */
static int read_images(Ask *ask, int count, char **words, int after, int *images) {
    int before = count - after, status = -1, n = 0;
    bool given = ask->images.count > 0;
    while (!given && n < count && status < 0 && (n == 0 || (n < before && is_image(words[n]))))
        status = image_add(ask, words[n++]);
    for (int i = n; i < before && status < 0; i++)
        if (is_image(words[i]))
            status =
                options_wrong(&help,
                              "\"%s\" is an image's name%s; put -- before questions that are "
                              "named like files",
                              words[i], given ? ", which --image takes" : ": images come first");
    *images = n;
    return status;
}

/* Whether images without a question begin a conversation: all are files, a person is at the
 * terminal, and nothing was asked for that only single answers have. */
static bool is_typed(const Ask *ask) {
    for (int i = 0; i < ask->images.count; i++)
        if (!strcmp(ask->images.items[i], "-") || !is_file(ask->images.items[i])) return false;
    return ask->images.count && !ask->show && !ask->trace && !ask->threshold_given &&
           !ask->common.json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

/* Folders are the images in them. Returns -1 to go on, or the exit status. */
static int expand_folders(Ask *ask) {
    Error err;
    if (images_expand(&ask->images, &ask->image_names, &err) == 0) return -1;
    report_failure(&err);
    return 1;
}

/* --questions takes the place of questions. */
static int read_lines(Ask *ask, int count, char **words) {
    int status = -1;
    for (int i = 0; i < count && status < 0; i++) {
        if (!is_image(words[i]))
            return options_wrong(&help, "\"%s\" is not an image: --questions has all questions",
                                 words[i]);
        status = image_add(ask, words[i]);
    }
    if (ask->show || ask->trace)
        return options_wrong(&help, "--questions gives an answer a line: leave out --%s",
                             ask->show ? "show" : "trace");
    for (int i = 0; i < ask->images.count; i++)
        if (!strcmp(ask->images.items[i], "-"))
            return options_wrong(&help, "with --questions an image is a file, not -");
    if (status < 0) status = expand_folders(ask);
    ask->common.json = true;
    return status;
}

static int read_words(Ask *ask, int count, char **words, int after) {
    int from_input = 0, images, status;
    if (ask->lines) return read_lines(ask, count, words);
    if (!ask->images.count && !count)
        return options_wrong(&help, "no image and no question are given");
    if ((status = read_images(ask, count, words, after, &images)) >= 0) return status;
    words += images, count -= images;
    if (!count && is_typed(ask)) {
        ask->chat = true;
        return -1;
    }
    if (!count && images > 1)
        return options_wrong(&help,
                             "no question is given: all %d arguments are images (a question that "
                             "is named like a file comes after --)",
                             images);
    if (!count) return options_wrong(&help, "no question is given");
    if ((status = expand_folders(ask)) >= 0) return status;
    for (int i = 0; i < ask->images.count; i++) from_input += !strcmp(ask->images.items[i], "-");
    if (from_input > 1)
        return options_wrong(&help, "standard input (-) can be one image only, not %d", from_input);
    ask->questions = calloc((size_t)count, sizeof *ask->questions);
    ask->unread = calloc((size_t)ask->images.count, sizeof *ask->unread);
    if (!ask->questions || !ask->unread)
        return options_wrong(&help, "out of memory for %d questions", count);
    ask->question_count = count;
    for (int i = 0; i < count; i++) ask->questions[i].text = words[i];
    return -1;
}

int command_ask(int argc, char **argv) {
    Ask ask = {0};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {
             {"image", 'i', OPTION_LIST, "IMAGE", &ask.images,
              "an image; may be given several times"},
             {"questions", 0, OPTION_TEXT, "FILE", &ask.lines,
              "questions, one a line, or {\"image\", \"question\", \"id\", \"turns\"};\n"
              "-: standard input. Gives a line of JSON for each"},
             {"template", 0, OPTION_TEXT, "TEXT", &ask.common.answer_template,
              "the answers' text with gaps: ___, or ___{N} for N tokens"},
             {"show", 0, OPTION_FLAG, NULL, &ask.show, "show how each answer is filled in"},
             {"trace", 0, OPTION_FLAG, NULL, &ask.trace, "with --json: every denoising step"},
             {"sure-threshold", 0, OPTION_REAL, "X", &ask.given_threshold,
              "the probability of being right from which on an answer is sure;\n"
              "0: always (default: that of the model's calibration)",
              0, 1, &ask.threshold_given}}}};
    given_choices_group_add(&ask.choices, &groups[0]);
    common_init(&ask.common);
    ask.common.answer.decode.iterations = 0;
    common_answer_group(&ask.common, &groups[1]);
    model_group(&ask.common.model, &ask.common.device, &ask.common.threads, &groups[2]);
    const int muted = processes_mute();
    int after = words_after_dashes(argc, argv);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&ask, argc - first, argv + first, after);
    if (status < 0 && ask.trace && !ask.common.json)
        status =
            options_wrong(&help, "--trace needs --json; `easyfirst show` prints steps as text");
    if (status < 0 && ask.show && ask.common.json)
        status = options_wrong(&help, "--show is for watching, --json for programs: choose one");
    if (status < 0 && ask.show && ask.threshold_given)
        status = options_wrong(&help, "--show does not say how sure an answer is: leave out "
                                      "--sure-threshold");
    if (status < 0)
        status = given_choices_check_options(&help, &ask.choices, &ask.common,
                                             ask.show              ? "show"
                                             : ask.trace           ? "trace"
                                             : ask.threshold_given ? "sure-threshold"
                                                                   : NULL);
    if (status < 0) status = common_check(&help, &ask.common);
    processes_unmute(muted, status >= 0);
    if (status < 0) status = layers_command(&ask.common, run, &ask) || ask.failed;
    ef_model_close(ask.model);
    for (int i = 0; i < ask.question_count; i++) free(ask.questions[i].error);
    for (int i = 0; i < ask.images.count && ask.unread; i++) free(ask.unread[i]);
    free(ask.questions), free(ask.unread);
    free(ask.images.items);
    images_free(&ask.image_names);
    given_choices_free(&ask.choices);
    return status;
}
