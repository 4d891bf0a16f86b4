/* ask.c - questions about images.
 *
 * answer_images is the program's main road on one screen: image files to pixels, pixels to
 * image tokens, tokens and questions to answers.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "apps/show/one.h"
#include "apps/show/text.h"

static const CommandHelp help = {
    .name = "ask",
    .usage = "[options] IMAGE [IMAGE...] QUESTION [QUESTION...]\n"
             "[options] --image IMAGE [--image IMAGE...] QUESTION [QUESTION...]",
    .about =
        "Answers every question about every image. An image is a PNG or JPEG file, or - for\n"
        "standard input; all leading words that are files are images (ask *.jpg \"Why?\"), the\n"
        "others are questions, as is everything after --. One question about one image gives the\n"
        "answer alone; more give lines of IMAGE, QUESTION and ANSWER with tabs between them.\n"
        "Images that cannot be read and questions that cannot be answered are reported on\n"
        "standard error; the others are answered, and the exit status is 1. --show lets each\n"
        "answer be watched while it is filled in, as `easyfirst show` does.",
    .examples =
        "easyfirst ask -m model dog.jpg \"What color is the dog?\"\n"
        "easyfirst ask -m model dog.jpg \"What color is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --show dog.jpg \"What color is the dog?\" \"Is it asleep?\"\n"
        "easyfirst ask -m model --image a.jpg --image b.png --json \"What is this?\"\n"
        "easyfirst ask -m model --beam 5 --length-predictor length.safetensors a.jpg \"Why?\"\n"
        "convert photo.heic png:- | easyfirst ask -m model - \"Who is in the image?\"",
};

enum { IMAGES_AT_ONCE = 8, REQUESTS_AT_ONCE = 64 };

typedef struct Question {
    const char *text;
    char *prompt; /* in the model's prompt template; NULL if it cannot be asked */
    char *error;  /* then this says why */
} Question;

typedef struct Ask {
    CommonOptions common;
    TextList images;
    char **unread; /* [images.count]: why an image cannot be read; NULL for the others */
    Question *questions;
    int question_count;
    bool trace, show, failed;
    bool quit; /* whoever watched had enough: answers alone are wanted */
    Session session;
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

/* One pair of an image and a question, answered or not. */
static int print_pair(const Ask *ask, const char *image, const Question *question,
                      const char *error, const Answers *answers, int index, Error *err) {
    Asked asked = {.image = image, .text = question->text, .text_key = "question"};
    if (ask->common.json && error) return report_json_none(&asked, error, err);
    if (error) return 0; /* standard error has it */
    if (ask->common.json)
        return report_json(&asked, answers, index, ask->session.model.tokenizer,
                           &ask->common.answer.decode, ask->trace, err);
    if (ask->images.count * (int64_t)ask->question_count > 1) {
        report_field(stdout, image), putchar('\t');
        report_field(stdout, question->text), putchar('\t');
    }
    report_field(stdout, answers->items[index].text), putchar('\n');
    return 0;
}

/* Images, and the questions about each of them, that are answered by one call. */
typedef struct Batch {
    int first_image, images, first_question, questions;
    int block[IMAGES_AT_ONCE]; /* of each image's tokens; -1: it could not be read */
    Tensor tokens;
} Batch;

static int print_pairs(Ask *ask, const Batch *b, const Answers *answers, Error *err) {
    int next = 0;
    for (int p = b->first_image; p < b->first_image + b->images; p++)
        for (int q = b->first_question; q < b->first_question + b->questions; q++) {
            const Question *question = &ask->questions[q];
            const char *path = ask->images.items[p];
            const char *error = ask->unread[p] ? ask->unread[p] : question->error;
            int index = error ? -1 : next++;
            const Answer *answer = error ? NULL : &answers->items[index];
            if (answer && answer->error) {
                error = answer->error;
                if (!answer->skipped) report_error("%s: %s: %s", path, question->text, error);
                ask->failed |= !answer->skipped;
            }
            TRY(print_pair(ask, path, question, error, answers, index, err));
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
    job->question = question->text, job->prompt = question->prompt;
    bool quit;
    if (show_one(job, &trace, &quit, err)) {
        report_error("%s: %s: %s", job->image, question->text, err->text);
        ask->failed = true;
    }
    ask->quit |= quit;
    trace_free(&trace);
    return report_flush(err);
}

/* The images that could be read, and all questions about each, in turn. */
static int show_pairs(Ask *ask, const Batch *b, const Image *images, Error *err) {
    ShowWay way = {.speed = SHOW_SPEED};
    for (int i = 0; i < b->images; i++) {
        if (b->block[i] < 0) continue;
        ShowJob job = {.session = &ask->session,
                       .common = &ask->common,
                       .way = &way,
                       .timings = &ask->timings,
                       .image = ask->images.items[b->first_image + i],
                       .width = images[b->block[i]].width,
                       .height = images[b->block[i]].height,
                       .tokens = b->tokens,
                       .block = b->block[i]};
        for (int q = 0; q < ask->question_count; q++) {
            way.plain = ask->quit; /* the others are answered, too */
            if (ask->questions[q].prompt) TRY(show_pair(ask, &job, &ask->questions[q], err));
        }
    }
    return 0;
}

/* ---- Answering. ---- */

/* Some of the questions about each image of a batch. */
static int answer_batch(Ask *ask, const Batch *b, Error *err) {
    AnswerRequest requests[REQUESTS_AT_ONCE];
    Answers answers = {0};
    int n = 0, status = 0;
    for (int i = 0; i < b->images; i++)
        for (int q = b->first_question; q < b->first_question + b->questions; q++)
            if (b->block[i] >= 0 && ask->questions[q].prompt)
                requests[n++] = (AnswerRequest){.prompt = ask->questions[q].prompt,
                                                .image = b->block[i],
                                                .length = ask->common.length};
    if (n)
        status = multimodal_answer(&ask->session.model.parts, b->tokens, requests, n,
                                   &ask->common.answer, &answers, err);
    if (n && status == 0) timings_add(&ask->timings, &answers);
    if (status == 0) status = print_pairs(ask, b, &answers, err);
    answers_free(&answers);
    return status;
}

/* All questions about each image of a batch, whose tokens are there. */
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

/* The square that the model sees of an image, or all of it where it is shown beside the answer. */
static int read_image(const Ask *ask, Image *image, const char *path, Error *why) {
    const PreprocessConfig *config = &ask->session.model.parts.preprocess;
    PreprocessMap map;
    if (!ask->show) return preprocess_read(image, NULL, NULL, path, config, NULL, why);
    TRY(image_read(image, path, NULL, why)); /* [h, w, 3] */
    if (preprocess_map(&map, image->width, image->height, config, why) == 0) return 0;
    image_free(image);
    return error_context(why, "%s", path);
}

/* Up to IMAGES_AT_ONCE images, all questions about each. */
static int answer_images(Ask *ask, int first, int count, Error *err) {
    const Multimodal *model = &ask->session.model.parts;
    Image images[IMAGES_AT_ONCE] = {0};
    Batch b = {.first_image = first, .images = count, .tokens = TENSOR_NONE};
    int read = 0, status = 0, asked = 0;
    for (int q = 0; q < ask->question_count; q++) asked += ask->questions[q].prompt != NULL;
    for (int i = 0; i < count && status == 0; i++) {
        Error why;
        b.block[i] = -1;
        if (ask->unread[first + i]) continue;
        if (read_image(ask, &images[read], ask->images.items[first + i], &why))
            status = fail(ask, &ask->unread[first + i], &why, err);
        else
            b.block[i] = read++;
    }
    bool encode = read && asked && status == 0;
    double start = clock_seconds();
    if (encode) status = multimodal_encode(model, images, read, &b.tokens, err); /* [read * P, D] */
    if (encode && status == 0) status = device_wait(model->device, err);         /* for the clock */
    ask->timings.encode_s += clock_seconds() - start;
    ask->timings.images += encode ? read : 0;
    if (status == 0)
        status = ask->show ? show_pairs(ask, &b, images, err) : answer_questions(ask, &b, err);
    if (b.tokens.data) device_free(ask->session.device, b.tokens.data);
    for (int i = 0; i < read; i++) image_free(&images[i]);
    return status;
}

/* Puts a question into the model's words and sees that it fits; one that does not is said once,
 * before any image is read. */
static int word_question(Ask *ask, Question *q, int number, Error *err) {
    const Model *model = &ask->session.model;
    Error why;
    Answer answer = {0};
    int status = q->text[strspn(q->text, " \t\r\n")]
                     ? model_prompt(model, "ask", q->text, NULL, NULL, &q->prompt, &why)
                     : error_set(&why, "it is empty: there is nothing to answer");
    AnswerRequest request = {.prompt = q->prompt, .length = ask->common.length};
    if (status == 0)
        TRY(multimodal_check_long(&model->parts, &request, ask->common.answer.long_prompts, &answer,
                                  err));
    if (status == 0 && !answer.error) return 0;
    if (status == 0) error_write(&why, "%s", answer.error);
    free(q->prompt), free(answer.error);
    q->prompt = NULL;
    error_context(&why, "question %d", number);
    if (!answer.skipped) return fail(ask, &q->error, &why, err);
    ask->timings.skipped++;
    q->error = strdup(why.text);
    return q->error ? 0 : error_set(err, "out of memory for a message");
}

static int check_model(const Ask *ask, Error *err) {
    const Multimodal *model = &ask->session.model.parts;
    const char *part = !model->xlmr ? "language model" : !model->vit ? "vision tower" : "projector";
    if (!model->xlmr || !model->vit || !model->projector)
        return error_set(
            err, "this model has no %s: name a model folder with one, or one with --%s", part,
            !model->xlmr  ? "language"
            : !model->vit ? "vision"
                          : "projector");
    return multimodal_check_length(model, true, ask->common.length, err);
}

/* Says which images cannot be read as far as that shows without reading them; *left others. */
static int check_files(Ask *ask, int *left, Error *err) {
    *left = 0;
    for (int i = 0; i < ask->images.count; i++) {
        const char *path = ask->images.items[i];
        Image image = {0};
        Error why;
        if (!strcmp(path, "-") || access(path, R_OK) == 0 ||
            image_read(&image, path, NULL, &why) == 0)
            ++*left;
        else
            TRY(fail(ask, &ask->unread[i], &why, err));
        image_free(&image);
    }
    return 0;
}

static int open_and_word(Ask *ask, int *asked, Error *err) {
    TRY(session_open(&ask->session, &ask->common, err));
    ask->timings.load_s = ask->session.load_s;
    TRY(check_model(ask, err));
    for (int q = 0; q < ask->question_count; q++) {
        TRY(word_question(ask, &ask->questions[q], q + 1, err));
        *asked += ask->questions[q].prompt != NULL;
    }
    return 0;
}

static int run(Ask *ask, Error *err) {
    int left, asked = 0;
    TRY(check_files(ask, &left, err));
    if (left) TRY(open_and_word(ask, &asked, err));
    ask->common.answer.trace = ask->trace;
    int at_once = common_at_once(&ask->common, REQUESTS_AT_ONCE) / ask->question_count;
    if (at_once > IMAGES_AT_ONCE) at_once = IMAGES_AT_ONCE;
    if (at_once < 1) at_once = 1;
    for (int i = 0; i < ask->images.count && (asked || ask->common.json); i += at_once) {
        int n = ask->images.count - i < at_once ? ask->images.count - i : at_once;
        TRY(answer_images(ask, i, n, err));
    }
    report_long_prompts(&ask->timings);
    if (!ask->common.quiet && ask->timings.answers)
        timings_print(&ask->timings, ask->session.device, &ask->common.answer.decode);
    return 0;
}

/* ---- The command line. ---- */

static bool is_file(const char *word) {
    struct stat info;
    return !strcmp(word, "-") || (stat(word, &info) == 0 && !S_ISDIR(info.st_mode));
}

/* Whether a word is written as an image's name is, so that it is no question even if there is no
 * such file: one word, with one of these endings. */
static bool looks_like_image(const char *word) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".gif",  ".bmp", ".webp",
                                          ".tif", ".tiff", ".ppm", ".heic", ".avif"};
    size_t size = strlen(word);
    if (strpbrk(word, " \t\n?")) return false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t n = strlen(endings[i]);
        if (size > n && !strcasecmp(word + size - n, endings[i])) return true;
    }
    return false;
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
    while (!given && n < count && status < 0 &&
           (n == 0 || (n < before && (is_file(words[n]) || looks_like_image(words[n])))))
        status = image_add(ask, words[n++]);
    for (int i = n; i < before && status < 0; i++)
        if (is_file(words[i]) || looks_like_image(words[i]))
            status =
                options_wrong(&help,
                              "\"%s\" is an image's name%s; put -- before questions that are "
                              "named like files",
                              words[i], given ? ", which --image takes" : ": images come first");
    *images = n;
    return status;
}

static int read_words(Ask *ask, int count, char **words, int after) {
    int from_input = 0, images, status;
    if (!ask->images.count && !count)
        return options_wrong(&help, "no image and no question are given");
    if ((status = read_images(ask, count, words, after, &images)) >= 0) return status;
    words += images, count -= images;
    if (!count && images > 1)
        return options_wrong(&help,
                             "no question is given: all %d arguments are images (a question that "
                             "is named like a file comes after --)",
                             images);
    if (!count) return options_wrong(&help, "no question is given");
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
         .count = 3,
         .options = {
             {"image", 'i', OPTION_LIST, "IMAGE", &ask.images,
              "an image; may be given several times"},
             {"show", 0, OPTION_FLAG, NULL, &ask.show, "show how each answer is filled in"},
             {"trace", 0, OPTION_FLAG, NULL, &ask.trace, "with --json: every denoising step"}}}};
    common_init(&ask.common);
    ask.common.answer.decode.iterations = 0;
    common_answer_group(&ask.common, &groups[1]);
    model_group(&ask.common.model, &ask.common.device, &ask.common.threads, &groups[2]);
    int after = words_after_dashes(argc, argv);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&ask, argc - first, argv + first, after);
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
    for (int i = 0; i < ask.question_count; i++)
        free(ask.questions[i].prompt), free(ask.questions[i].error);
    for (int i = 0; i < ask.images.count && ask.unread; i++) free(ask.unread[i]);
    free(ask.questions), free(ask.unread);
    free(ask.images.items);
    return status;
}
