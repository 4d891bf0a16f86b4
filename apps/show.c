/* show.c - shows how an answer is filled in, the easy tokens first: in the terminal, as lines, as a
 * page or figure, and saved as a trace that can be replayed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/show/figure.h"
#include "apps/show/fold.h"
#include "apps/show/page.h"
#include "apps/show/one.h"
#include "data/files/file_write.h"
#include "kernels/nearest_word.h"
#include "projector/model_languages.h"
#include "projector/model_chat.h"
#include "projector/model_prompt.h"

static const CommandHelp help = {
    .name = "show",
    .usage = "[options] IMAGE QUESTION\n"
             "[options] --text PROMPT\n"
             "[options] --template TEXT\n"
             "translate --from CODE --to CODE [options] TEXT\n"
             "summarize [options] TEXT\n"
             "[options] --from FILE",
    .about =
        "Shows the steps in which an answer is denoised. A terminal shows it in place: masks as\n"
        "dim blanks, new tokens bold, erased ones struck out, colored from red (not sure) to\n"
        "green (sure); with --beam or --samples all hypotheses at once. Space pauses, the arrow\n"
        "keys (or p and n) step back and forth, home and end jump, q goes to the answer, which\n"
        "is what stays. Elsewhere (a file, a pipe, TERM=dumb, NO_COLOR) each step that changes\n"
        "something is a line: how many tokens are written, and the text so far with __ for each\n"
        "mask, [ ] around what the step wrote, and what it erased; the last line is the answer.\n"
        "With --template the tokens that it gives are underlined, and there from the beginning.\n"
        "Tokens that the model erases only to write them again, or until others take their\n"
        "places, are shown as if they had stayed; --every-step shows all, and --json has all.\n"
        "\n"
        "--json prints the whole trace as one line of JSON; --json FILE saves it to a file and\n"
        "shows the answer all the same, and --from FILE replays it, without the model.\n"
        "\n"
        "--html FILE writes a page that any browser opens and that asks no network for anything:\n"
        "the image, the answer with a slider through the steps, for each token its probability,\n"
        "its top-k alternatives and the model's attention on the image. --svg FILE writes a\n"
        "figure: positions x steps. With --from the page has an image only if --image names it.",
    .examples =
        "easyfirst show -m model dog.jpg \"What color is the dog?\"\n"
        "easyfirst show -m model --text \"Question: what is 3 + 4? Step-by-Step Answer:\"\n"
        "easyfirst show -m model translate --from de --to en \"Der Hund ist braun.\"\n"
        "easyfirst show -m model --html page.html --template \"The ___ is on the ___.\"\n"
        "easyfirst show -m model --length 12 --strategy ar --all-steps dog.jpg \"Why?\"\n"
        "easyfirst show -m model --json trace.json dog.jpg \"What color is the dog?\"\n"
        "easyfirst show -m model --html page.html --svg order.svg dog.jpg \"Is it asleep?\"\n"
        "easyfirst show --from trace.json --speed 2",
};

typedef struct Show {
    CommonOptions common;
    ShowWay way;
    const char *image, *question; /* the image (NULL: none), the question or the prompt */
    const char *preset;           /* "translate", "summarize"; NULL */
    const char *language, *to;    /* translate: source and target language */
    const char *from, *json_file, *html, *svg;
    const char *from_image; /* the image of `from` */
    bool is_prompt;
    Image pixels; /* kept for a page */
    Session session;
    Timings timings;
    Trace trace;
} Show;

/* Writes the files of a finished trace. */
static int keep(const Show *s, Error *err) {
    const char *path = s->common.json ? "-" : s->json_file;
    if (path) TRY(trace_write_json(&s->trace, path, err));
    if (!s->html && !s->svg) return report_flush(err);
    Trace shown = s->trace;
    if (!s->way.every_step) TRY(fold_make(&shown, &s->trace, err));
    int status = 0;
    if (s->html) status = page_write(&shown, s->pixels.pixels ? &s->pixels : NULL, s->html, err);
    if (s->svg && status == 0) status = figure_write(&shown, s->svg, err);
    if (!s->way.every_step) fold_free(&shown);
    return status ? -1 : report_flush(err);
}

static int encode_image(Show *s, ShowJob *job, Error *err) {
    const Multimodal *model = &s->session.model.parts;
    if (s->html) { /* the page shows the whole image */
        TRY(image_read(&s->pixels, s->image, NULL, err));
        job->width = s->pixels.width, job->height = s->pixels.height;
    } else {
        TRY(preprocess_read(&s->pixels, &job->width, &job->height, s->image, &model->preprocess,
                            NULL, err));
    }
    double start = clock_seconds();
    int status = multimodal_encode(model, &s->pixels, 1, &job->tokens, err);
    if (status == 0) status = device_wait(s->session.device, err); /* for the clock */
    s->timings.encode_s = clock_seconds() - start, s->timings.images = 1;
    if (!s->html) image_free(&s->pixels);
    return status;
}

/* The question, prompt or text in the prompt template; the caller's to free. */
static int format_question(const Show *s, char **prompt, Error *err) {
    const char *preset = s->preset ? s->preset : s->is_prompt ? NULL : "ask";
    if (preset)
        TRY(model_prompt(s->session.model.settings, preset, s->question,
                         s->language ? language_name(s->language) : NULL,
                         s->to ? language_name(s->to) : NULL, prompt, err));
    else
        *prompt = strdup(s->question);
    if (!*prompt) return error_set(err, "out of memory for the prompt");
    return model_chat_prompt(&s->session.model, NULL, 0, prompt, err);
}

static int ask(Show *s, Error *err) {
    s->common.model.text_only = s->is_prompt;
    TRY(session_open(&s->session, &s->common, err));
    s->timings.load_s = s->session.load_s;
    TRY(answer_decode_options(&s->session.model.parts, &s->common.answer.decode, err));
    if (!language_present(&s->session.model.parts.language))
        return error_set(err, "this model has no language model: name one with --language");
    if (!s->question[strspn(s->question, " \t\r\n")] && (*s->question || !s->is_prompt))
        return error_set(err, "the question is empty: there is nothing to answer");
    ShowJob job = {.session = &s->session,
                   .common = &s->common,
                   .way = &s->way,
                   .timings = &s->timings,
                   .image = s->image,
                   .tokens = TENSOR_NONE,
                   .question = s->question,
                   .is_prompt = s->is_prompt};
    char *prompt = NULL;
    bool quit;
    int status = format_question(s, &prompt, err);
    if (status == 0 && !s->is_prompt) status = encode_image(s, &job, err);
    job.prompt = prompt;
    if (status == 0) status = show_one(&job, &s->trace, &quit, err);
    free(prompt);
    device_free(s->session.device, job.tokens.data);
    return status;
}

static bool is_standard_output(const char *path) {
    static const char *const names[] = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};
    for (size_t i = 0; path && i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i])) return true;
    return false;
}

/* How many of the files are standard output. */
static int to_output(const Show *s) {
    return is_standard_output(s->common.json ? "-" : s->json_file) + is_standard_output(s->html) +
           is_standard_output(s->svg);
}

/* Checks before the work that each output can be written and is not an input. */
static int check_files(const Show *s, Error *err) {
    const ModelOptions *m = &s->common.model;
    const FileRole outputs[] = {
        {s->common.json ? NULL : "--json", s->json_file}, {"--html", s->html}, {"--svg", s->svg}};
    const FileRole inputs[] = {{"IMAGE", s->image},           {"--from", s->from},
                               {"--image", s->from_image},    {"--model", m->folder},
                               {"--language", m->language},   {"--vision", m->vision},
                               {"--projector", m->projector}, {"--length-predictor", m->length},
                               {"--adapter", m->adapter}};
    return file_roles_check(outputs, 3, inputs, sizeof inputs / sizeof *inputs, err);
}

static int run(Show *s, Error *err) {
    bool quit;
    TRY(check_files(s, err));
    s->way.silent = to_output(s) > 0;
    s->way.keep = s->json_file || s->html || s->svg;
    const bool guided = s->common.answer.decode.guidance > 0; /* inspections are not */
    if (guided && (s->json_file || s->html) && !s->from)
        report_error("note: with --guidance there are no alternatives and no attention");
    if ((s->json_file || s->html) && !s->from && !guided)
        s->common.answer.inspection =
            (InspectOptions){.top_k = 6, .attention = s->image != NULL, .all = true};
    if (s->from) {
        TRY(trace_read_json(&s->trace, s->from, err));
        if (s->from_image) TRY(image_read(&s->pixels, s->from_image, NULL, err));
        TRY(show_again(&s->trace, &s->way, &quit, err));
        return keep(s, err);
    }
    TRY(ask(s, err));
    report_long_prompts(&s->timings);
    TRY(keep(s, err));
    if (!s->common.quiet) timings_print(&s->timings, s->session.device, &s->common.answer.decode);
    return 0;
}

/* ---- The command line. ---- */

/* --json takes an optional FILE. `--json=FILE` is unambiguous; the word after a `--json` is the
 * FILE if there is one word more than the usage takes: *after is that word, until they are
 * counted. */
static void find_json_file(Show *s, int argc, char **argv, char **after) {
    *after = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--json") && i + 1 < argc) *after = argv[i + 1];
        if (strncmp(argv[i], "--json=", 7)) continue;
        s->json_file = argv[i] + 7;
        argv[i][6] = 0; /* "--json" */
    }
}

static const char *const presets[] = {"translate", "summarize", NULL};

static const char *preset_of(const char *word) {
    for (int i = 0; presets[i]; i++)
        if (!strcmp(word, presets[i])) return presets[i];
    return NULL;
}

/* A leading word that names a preset; `after` may precede it. An image of that name is ./translate;
 * a word that only resembles one is an error unless it is a file. */
static int read_preset(Show *s, int count, char **words, const char *after) {
    const char *word = count ? words[0] : NULL;
    if (count > 1 && word == after && !preset_of(word)) word = words[1];
    s->preset = word ? preset_of(word) : NULL;
    const char *near =
        s->preset || !word || access(word, F_OK) == 0 ? NULL : nearest_word(word, presets);
    if (near) return options_wrong(&help, "\"%s\": did you mean %s?", word, near);
    bool translate = s->preset && !strcmp(s->preset, "translate");
    if (translate) s->language = s->from, s->from = NULL;
    if (translate && (!s->language || !s->to))
        return options_wrong(&help, "translate needs --from and --to, languages such as de and en");
    if (!translate && s->to) return options_wrong(&help, "--to belongs to translate");
    if (s->preset && s->question)
        return options_wrong(&help, "--text takes a complete prompt; %s takes a text", s->preset);
    s->common.model.from = s->language, s->common.model.to = s->to;
    return -1;
}

static int read_words(Show *s, int count, char **words, const char *after) {
    int status = read_preset(s, count, words, after);
    if (status >= 0) return status;
    bool alone = s->common.answer_template && !s->preset && count < 2;
    int needed = s->from || s->question || alone ? 0 : 2;
    for (int i = 0; i < count && count == needed + 1 && after && !s->json_file; i++) {
        if (words[i] != after) continue;
        s->json_file = after;
        count--;
        memmove(words + i, words + i + 1, (size_t)(count - i) * sizeof *words);
    }
    if (s->json_file) s->common.json = false;
    if (s->json_file && !*s->json_file) return options_wrong(&help, "--json= needs a FILE");
    if (to_output(s) > 1)
        return options_wrong(&help, "only one of --json, --html and --svg can be standard output");
    if (s->from_image && !(s->from && s->html))
        return options_wrong(&help, "--image is for --from with --html; else IMAGE comes first");
    if (s->from && (s->question || count))
        return options_wrong(&help, "--from has the question and its answer; \"%s\" is too much",
                             s->question ? s->question : words[0]);
    if (s->from && s->common.answer_template)
        return options_wrong(&help, "--from has an answer already; --template is for a new one");
    if (s->from) return -1;
    if (s->common.answer_template && !s->question && !count) s->question = "";
    s->is_prompt = s->question != NULL || s->preset;
    if (s->question && count)
        return options_wrong(&help, "--text has the prompt; \"%s\" is one too many", words[0]);
    if (s->question) return -1;
    if (s->preset && count != 2)
        return options_wrong(&help, "%s takes one text, quoted, not %d", s->preset, count - 1);
    if (s->preset) return s->question = words[1], -1;
    if (count < 1) return options_wrong(&help, "no image is given, and no --text");
    if (count < 2) return options_wrong(&help, "no question is given");
    if (count > 2)
        return options_wrong(&help, "one question at a time; \"%s\" is one too many", words[2]);
    s->image = words[0], s->question = words[1];
    return -1;
}

int command_show(int argc, char **argv) {
    Show s = {.trace.best = -1};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {
             {"text", 0, OPTION_TEXT, "PROMPT", &s.question, "a prompt without an image"},
             {"template", 0, OPTION_TEXT, "TEXT", &s.common.answer_template,
              "the answer's text with gaps (see `easyfirst text`); a prompt may\n"
              "be left out then"},
             {"from", 0, OPTION_TEXT, "FILE", &s.from,
              "replay a trace; - is standard input. With translate: the\n"
              "text's language (de, or German)"},
             {"to", 0, OPTION_TEXT, "CODE", &s.to, "translate: the target language"},
             {"html", 0, OPTION_TEXT, "FILE", &s.html, "write a page; - is standard output"},
             {"svg", 0, OPTION_TEXT, "FILE", &s.svg, "write a figure; - is standard output"},
             {"image", 0, OPTION_TEXT, "FILE", &s.from_image,
              "with --from: the image for the page"}}}};
    char *after;
    show_way_rows(&s.way, &groups[0]);
    common_init(&s.common);
    s.common.answer.decode.iterations = 0;
    common_answer_group(&s.common, &groups[1]);
    model_group(&s.common.model, &s.common.device, &s.common.threads, &groups[2]);
    find_json_file(&s, argc, argv, &after);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&s, argc - first, argv + first, after);
    if (status < 0 && !s.from) status = common_check(&help, &s.common);
    if (status < 0) {
        Error err;
        status = run(&s, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    trace_free(&s.trace);
    image_free(&s.pixels);
    session_close(&s.session);
    return status;
}
