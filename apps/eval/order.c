/* order.c - measures the decoding order: answers prompts, or reads traces, and counts. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apps/eval/eval.h"
#include "apps/eval/progress.h"
#include "apps/eval/result.h"
#include "apps/eval/order_input.h"
#include "apps/eval/order_report.h"
#include "apps/trace/trace.h"
#include "data/files/archive.h"
#include "data/files/array_grow.h"
#include "data/files/file_open.h"
#include "data/files/file_write.h"
#include "data/files/path.h"
#include "data/sets/calculations.h"
#include "projector/answer_text.h"
#include "projector/easyfirst.h"
#include "projector/model_chat.h"
#include "projector/model_prompt.h"

static const CommandHelp help = {
    .name = "eval order",
    .usage = "[options] FILE [--images FOLDER]\n"
             "[options] --graphs FILE [FILE] [--images FOLDER]\n"
             "[options] --calculations FILE\n"
             "[options] --from PATH [--from PATH...]",
    .about =
        "Measures the order in which answers are denoised: whether words that are common to the\n"
        "answers or occur in the prompt come before the others, how often tokens are erased\n"
        "again, how far the order is from left to right, and how many places a step writes at\n"
        "once; with 95 % intervals over answers.\n"
        "\n"
        "FILE has the prompts: lines of {\"inputs\", \"targets\"}, GQA's questions, or LLaVA's\n"
        "conversations, with --images for those about images. --from reads existing answers,\n"
        "traces that `easyfirst show --json` wrote: files, or folders of them. With --graphs,\n"
        "answers annotated with their dependencies (data/sets/causal_graph.h; examples in\n"
        "data/causal), it reports whether they are written in an order that the graph allows;\n"
        "without FILE the prompts are the graphs'. A file of GSM8K is one of graphs: they are "
        "made\n"
        "from its calculator marks. With --calculations each answer's graph is made from its own\n"
        "calculations (48/2 = 24): a number needs its formula, and that the numbers in it. What\n"
        "cannot be asked is reported, and the exit status is 1.",
    .examples = "easyfirst eval order -m model test.de-en.jsonl --limit 500\n"
                "easyfirst eval order -m model questions.json --images images --strategy cmlm\n"
                "easyfirst eval order --graphs data/causal/arithmetic.json --from traces\n"
                "easyfirst eval order --calculations gsm8k/test.jsonl -m model --lengths target\n"
                "easyfirst eval order test.jsonl --json order.json",
};

enum { REQUESTS_AT_ONCE = 64, IMAGES_AT_ONCE = 8 };

/* How long answers are: as long as the length predictor says, or as their targets. */
typedef enum OrderLengths { ORDER_PREDICTED, ORDER_TARGET } OrderLengths;

static const char *const lengths_names[] = {"predicted", "target", NULL};

typedef struct OrderEval {
    EvalOptions options; /* without --out, --shard and --batch-tokens */
    const char *path, *images, *graphs_path, *json;
    TextList from;
    float fixed_share; /* percent */
    OrderLengths lengths;
    bool phrase, calculations;
    CausalGraphs graphs;
    OrderPrompts prompts;
    Skipped unusable;
    Skipped skipped, shortened; /* long prompts */
    OrderSet set;
    OrderItem *items; /* [set.count] */
    size_t item_capacity;
    EvalProgress progress;
    Session session;
    Timings timings;
} OrderEval;

/* ---- One answer. ---- */

/* Whether two image names are equal relative to some folder. */
static bool same_image(const char *a, const char *b) {
    if (!a || !b) return a == b;
    size_t m = strlen(a), n = strlen(b);
    size_t shorter = m < n ? m : n;
    if (strcmp(a + m - shorter, b + n - shorter)) return false;
    return m == n || (m > n ? a[m - n - 1] : b[n - m - 1]) == '/';
}

static int find_graph(const CausalGraphs *graphs, const Trace *trace) {
    for (size_t i = 0; i < graphs->count; i++) {
        const CausalGraph *g = &graphs->items[i];
        if (!strcmp(g->prompt, trace->question) && g->is_question == !trace->is_prompt &&
            same_image(g->image, trace->image))
            return (int)i;
    }
    return -1;
}

/* Adds the graph of an answer's own calculations, if it has any. */
static int own_graph(OrderEval *o, const Trace *trace, OrderItem *item, Error *err) {
    TRY(causal_graphs_grow(&o->graphs, err));
    CausalGraph *graph = &o->graphs.items[o->graphs.count];
    const int none =
        calculations_graph(graph, trace->question, o->set.answers[o->set.count - 1].text, err);
    if (none < 0) return -1;
    if (none)
        o->graphs.left_out++;
    else
        item->graph = (int)o->graphs.count++;
    return 0;
}

static int item_graph(const OrderEval *o, OrderItem *item, Error *err) {
    const OrderAnswer *a = &o->set.answers[o->set.count - 1];
    int *lasts = malloc((size_t)a->length * sizeof *lasts);
    if (!lasts) return error_set(err, "out of memory for a causal graph");
    for (int i = 0; i < a->length; i++) lasts[i] = a->tokens[i].last;
    int status = order_graph(&o->graphs.items[item->graph], a->text, a->ends, lasts, a->length,
                             o->options.common.answer.decode.seed, &item->result, err);
    free(lasts);
    return status;
}

static int copy_text(char **out, const char *text, Error *err) {
    *out = text ? strdup(text) : NULL;
    return *out || !text ? 0 : error_set(err, "out of memory for an answer");
}

/* Adds the answer to the set. */
static int set_add(OrderEval *o, const Trace *trace, Error *err) {
    const TraceHypothesis *h = &trace->hypotheses[trace->best];
    size_t length = (size_t)h->length, cells = (size_t)h->steps * length;
    int32_t *tokens = malloc(cells * sizeof *tokens);
    float *scores = malloc(cells * sizeof *scores);
    const char **pieces = malloc(length * sizeof *pieces);
    int status = tokens && scores && pieces ? 0 : error_set(err, "out of memory for an answer");
    for (size_t i = 0; i < cells && status == 0; i++) {
        tokens[i] = h->entries[i].masked ? ORDER_MASKED : h->entries[i].id;
        scores[i] = h->entries[i].score;
    }
    for (size_t i = 0; i < length && status == 0; i++) {
        const TraceEntry *entry = &h->entries[cells - length + i];
        pieces[i] = entry->masked ? "" : entry->piece;
    }
    OrderSteps steps = {.steps = h->steps, .length = h->length, .tokens = tokens};
    if (status == 0) status = order_set_add(&o->set, &steps, scores, pieces, trace->question, err);
    free(tokens), free(scores), free(pieces);
    return status;
}

static int add_trace(OrderEval *o, const Trace *trace, const char *id, Error *err) {
    if (o->set.count == o->item_capacity) {
        OrderItem *more = array_grow(o->items, &o->item_capacity, sizeof *more);
        if (!more) return error_set(err, "out of memory for answers");
        o->items = more;
    }
    TRY(set_add(o, trace, err));
    OrderItem *item = &o->items[o->set.count - 1];
    *item = (OrderItem){.graph = o->calculations ? -1 : find_graph(&o->graphs, trace)};
    if (o->calculations) TRY(own_graph(o, trace, item, err));
    TRY(copy_text(&item->id, id, err));
    TRY(copy_text(&item->prompt, trace->question, err));
    TRY(copy_text(&item->image, trace->image, err));
    TRY(copy_text(&item->answer, trace->hypotheses[trace->best].text, err));
    TRY(copy_text(&item->strategy, trace->strategy, err));
    return item->graph < 0 ? 0 : item_graph(o, item, err);
}

/* ---- Existing traces. ---- */

static int read_file(OrderEval *o, const char *path, Error *err) {
    Trace trace;
    Error bad;
    if (trace_read_json(&trace, path, &bad)) {
        skipped_add(&o->unusable, "unreadable trace", "%s", bad.text);
        return 0;
    }
    int status = add_trace(o, &trace, path, err);
    trace_free(&trace);
    return status;
}

static bool is_full(const OrderEval *o) {
    return o->options.limit > 0 && o->set.count >= (size_t)o->options.limit;
}

static int read_traces(OrderEval *o, Error *err) {
    for (int f = 0; f < o->from.count && !is_full(o); f++) {
        char **paths;
        int count, status = 0;
        TRY(order_paths(&paths, &count, o->from.items[f], err));
        for (int i = 0; i < count && status == 0 && !is_full(o); i++)
            status = read_file(o, paths[i], err);
        order_paths_free(paths, count);
        if (status) return -1;
    }
    return 0;
}

/* ---- Asking. ---- */

/* Prompts answered in one batch. */
typedef struct Batch {
    Image images[IMAGES_AT_ONCE];
    const char *names[IMAGES_AT_ONCE]; /* the images' */
    int image_count;
    AnswerRequest requests[REQUESTS_AT_ONCE];
    const OrderPrompt *asked[REQUESTS_AT_ONCE];
    char *worded[REQUESTS_AT_ONCE];
    int count;
} Batch;

/* The image's index in the batch, into which it is read; -1: unreadable, counted. */
static int batch_image(OrderEval *o, Batch *b, const OrderPrompt *prompt) {
    Error bad;
    if (b->image_count && !strcmp(b->names[b->image_count - 1], prompt->image))
        return b->image_count - 1;
    char *path = path_join(o->images, prompt->image, &bad);
    const PreprocessConfig *square = &o->session.model.parts.preprocess;
    int status =
        path ? preprocess_read(&b->images[b->image_count], NULL, NULL, path, square, NULL, &bad)
             : -1;
    free(path);
    if (status) {
        skipped_add(&o->unusable, "unreadable image", "%s: %s", prompt->id, bad.text);
        return -1;
    }
    b->names[b->image_count] = prompt->image;
    return b->image_count++;
}

/* The requested length of the answer to `worded` in tokens; 0: predicted. */
static int find_length(const OrderEval *o, const OrderPrompt *prompt, const char *worded,
                       int *length, Error *err) {
    *length = o->options.common.length;
    if (!prompt->target || o->lengths != ORDER_TARGET) return 0;
    return answer_target_length(&o->session.model.parts, worded, prompt->target, length, err);
}

/* Counts what is wrong with an answered request; *good: nothing. */
static void note_answer(OrderEval *o, const OrderPrompt *prompt, const Answer *answer, bool *good) {
    *good = !answer->error;
    if (answer->error)
        skipped_add(answer->skipped ? &o->skipped : &o->unusable, "prompt that cannot be read",
                    "%s: %s", prompt->id, answer->error);
    else if (answer->dropped_tokens)
        skipped_add(&o->shortened, "prompt that is too long", "%s: its first %d tokens", prompt->id,
                    answer->dropped_tokens);
}

/* Adds a prompt, or counts why it cannot be asked. */
static int batch_add(OrderEval *o, Batch *b, const OrderPrompt *prompt, Error *err) {
    const Model *model = &o->session.model;
    Answer answer;
    bool good = false;
    char *worded = NULL;
    if (prompt->is_question)
        TRY(model_prompt(model->settings, o->phrase ? "gqa" : "ask", prompt->text, NULL, NULL,
                         &worded, err));
    else if (!(worded = strdup(prompt->text)))
        return error_set(err, "out of memory for a prompt");
    if (model_chat_prompt(model, NULL, 0, &worded, err)) {
        free(worded);
        return -1;
    }
    AnswerRequest request = {.prompt = worded, .image = prompt->image ? 0 : -1};
    int status = find_length(o, prompt, worded, &request.length, err);
    LongPrompts policy = o->options.common.answer.long_prompts;
    if (status == 0) status = multimodal_check_long(&model->parts, &request, policy, &answer, err);
    if (status == 0) {
        note_answer(o, prompt, &answer, &good);
        free(answer.error);
    }
    if (good && prompt->image) {
        request.image = batch_image(o, b, prompt);
        good = request.image >= 0;
    }
    if (!good) {
        free(worded);
        return status;
    }
    b->requests[b->count] = request;
    b->asked[b->count] = prompt;
    b->worded[b->count++] = worded;
    return 0;
}

static int batch_answer(OrderEval *o, const Batch *b, Error *err) {
    const Multimodal *model = &o->session.model.parts;
    Tensor tokens = TENSOR_NONE;
    Answers answers = {0};
    double start = clock_seconds();
    int status = 0;
    if (b->image_count) status = multimodal_encode(model, b->images, b->image_count, &tokens, err);
    if (b->image_count && status == 0) status = device_wait(model->device, err); /* for the clock */
    o->timings.encode_s += clock_seconds() - start, o->timings.images += b->image_count;
    if (status == 0)
        status = multimodal_answer(model, tokens, b->requests, b->count, &o->options.common.answer,
                                   &answers, err);
    if (status == 0) timings_add(&o->timings, &answers);
    for (int i = 0; i < b->count && status == 0; i++) {
        Trace trace;
        if (answers.items[i].error) { /* found only while answering: no room for a length, for
                                         example */
            bool good;
            note_answer(o, b->asked[i], &answers.items[i], &good);
            continue;
        }
        TraceAbout about = {.image = b->asked[i]->image,
                            .question = b->asked[i]->text,
                            .is_prompt = !b->asked[i]->is_question,
                            .options = &o->options.common.answer.decode};
        status = trace_from_answers(&trace, &about, &answers, i, model->tokenizer, err);
        if (status) break;
        status = add_trace(o, &trace, b->asked[i]->id, err);
        trace_free(&trace);
    }
    answers_free(&answers);
    device_free(model->device, tokens.data);
    return status;
}

/* Requests per batch, as all their steps are kept in memory: fewer of very many steps. */
static int at_once(const OrderEval *o) {
    int steps = o->options.common.answer.decode.iterations;
    int fit = (1 << 17) / (steps > 0 ? steps : DECODE_STEPS);
    return fit < 1 ? 1 : fit < REQUESTS_AT_ONCE ? fit : REQUESTS_AT_ONCE;
}

static int ask_batch(OrderEval *o, size_t *next, Error *err) {
    Batch *b = calloc(1, sizeof *b);
    if (!b) return error_set(err, "out of memory for a batch");
    size_t first = *next;
    int status = 0;
    while (*next < o->prompts.count && status == 0 && b->count < at_once(o)) {
        const OrderPrompt *prompt = &o->prompts.items[*next];
        bool fresh = prompt->image &&
                     (!b->image_count || strcmp(b->names[b->image_count - 1], prompt->image) != 0);
        if (fresh && b->image_count == IMAGES_AT_ONCE) break;
        status = batch_add(o, b, prompt, err);
        ++*next;
    }
    if (status == 0 && b->count) status = batch_answer(o, b, err);
    eval_progress_add(&o->progress, (int64_t)(*next - first));
    for (int i = 0; i < b->image_count; i++) image_free(&b->images[i]);
    for (int i = 0; i < b->count; i++) free(b->worded[i]);
    free(b);
    return status;
}

static bool any_image(const OrderPrompts *prompts) {
    for (size_t i = 0; i < prompts->count; i++)
        if (prompts->items[i].image) return true;
    return false;
}

static int ask(OrderEval *o, Error *err) {
    CommonOptions *common = &o->options.common;
    bool images = any_image(&o->prompts);
    if (images && !o->images)
        return error_set(err,
                         "there are questions about images, %s first: name the folder of "
                         "the images with --images",
                         o->prompts.items[0].id);
    common->model.text_only = !images;
    common->answer.trace = true;
    TRY(eval_check_model(common, images, err));
    TRY(session_open(&o->session, common, err));
    o->timings.load_s = o->session.load_s;
    TRY(answer_decode_options(&o->session.model.parts, &common->answer.decode, err));
    eval_progress_begin(&o->progress, "answers", (int64_t)o->prompts.count, common->quiet);
    int status = 0;
    for (size_t next = 0; next < o->prompts.count && status == 0;)
        status = ask_batch(o, &next, err);
    eval_progress_end(&o->progress);
    return status;
}

/* ---- What comes out. ---- */

static json_t *settings_make(OrderEval *o, Error *err) {
    json_t *data = json_object(), *list = json_array();
    const char *const files[] = {o->path, o->graphs_path};
    static const char *const names[] = {"prompts", "graphs"};
    for (int i = 0; i < 2; i++) {
        json_t *file = files[i] ? eval_file_json(files[i], err) : NULL;
        if (files[i] && json_object_set_new(data, names[i], file)) {
            json_decref(data), json_decref(list);
            return NULL;
        }
    }
    for (int i = 0; i < o->from.count; i++)
        json_array_append_new(list, json_text(o->from.items[i]));
    if (o->from.count)
        json_object_set_new(data, "from", list);
    else
        json_decref(list);
    if (o->session.open) {
        eval_model_name(&o->options);
        if (o->images) json_object_set_new(data, "images", json_text(o->images));
        json_object_set_new(data, "phrase", json_boolean(o->phrase));
        json_object_set_new(data, "lengths", json_string(lengths_names[o->lengths]));
        return eval_settings_json(&o->options, &o->session, "eval order", data, err);
    }
    json_t *settings = json_pack("{s:s, s:s, s:o, s:i}", "version", EF_VERSION, "command",
                                 "eval order", "data", data, "limit", o->options.limit);
    if (!settings) error_set(err, "out of memory for the settings");
    return settings;
}

static int write_json(OrderEval *o, const OrderReport *report, Error *err) {
    json_t *settings = settings_make(o, err);
    if (!settings) return -1;
    json_t *object = order_report_json(report, settings);
    json_object_set_new(object, "long_prompts",
                        json_pack("{s:I, s:I}", "skipped", (json_int_t)o->skipped.total,
                                  "shortened", (json_int_t)o->shortened.total));
    char *text = json_line(object, JSON_DIGITS);
    if (!text) return error_set(err, "out of memory for %s", o->json);
    FileWriter writer;
    int status = 0;
    if (!strcmp(o->json, "-")) {
        puts(text);
        status = report_flush(err);
    } else if ((status = file_write_begin(&writer, o->json, 0, err)) == 0) {
        status = file_write_bytes(&writer, text, strlen(text), err);
        if (status == 0) status = file_write_bytes(&writer, "\n", 1, err);
        status = file_write_end(&writer, status, err);
    }
    free(text);
    return status;
}

static int report_all(OrderEval *o, Error *err) {
    OrderSummary summary;
    double fixed = (double)o->fixed_share / 100;
    uint64_t seed = o->options.common.answer.decode.seed;
    TRY(order_set_finish(&o->set, fixed, seed, err));
    int status = order_summary(&o->set, seed, &summary, err);
    OrderReport report = {.set = &o->set,
                          .summary = &summary,
                          .items = o->items,
                          .graphs = o->graphs_path || o->calculations ? &o->graphs : NULL,
                          .own_graphs = o->calculations,
                          .fixed_share = fixed,
                          .skipped = &o->unusable};
    if (status == 0 && (!o->json || strcmp(o->json, "-"))) {
        status = order_report_text(stdout, &report, err);
        if (status == 0) status = report_flush(err);
    }
    if (status == 0 && o->json) status = write_json(o, &report, err);
    order_summary_free(&summary);
    return status;
}

/* Checks before the model is loaded: the folder of images, and that --json can be written. */
static int check_files(const OrderEval *o, Error *err) {
    const FileRole output = {"--json", o->json};
    const FileRole inputs[] = {{"FILE", o->path}, {"--graphs", o->graphs_path}};
    struct stat info;
    TRY(file_roles_check(&output, 1, inputs, 2, err));
    for (int i = 0; i < o->from.count; i++)
        TRY(file_roles_check(&output, 1, &(FileRole){"--from", o->from.items[i]}, 1, err));
    if (!o->images) return 0;
    if (archive_path(o->images)) return 0;
    if (stat(o->images, &info))
        return error_set(err, "%s: --images: %s", o->images, strerror(errno));
    if (S_ISDIR(info.st_mode)) return 0;
    return error_set(err, "%s: --images: a folder of images was expected, but this is %s",
                     o->images, file_mode_name(info.st_mode));
}

static int run(OrderEval *o, Error *err) {
    TRY(check_files(o, err));
    if (o->graphs_path) TRY(causal_graphs_read(&o->graphs, o->graphs_path, err));
    if (o->from.count) {
        TRY(read_traces(o, err));
    } else {
        int64_t limit = o->options.limit;
        TRY(o->path ? order_prompts_read(&o->prompts, o->path, limit, &o->unusable, err)
                    : order_prompts_graphs(&o->prompts, &o->graphs, limit, err));
        TRY(ask(o, err));
    }
    eval_skipped_print("left out", &o->unusable);
    eval_skipped_print("skipped", &o->skipped);
    eval_skipped_print("shortened", &o->shortened);
    if (!o->set.count) return error_set(err, "no answer to measure");
    TRY(report_all(o, err));
    if (!o->options.common.quiet && o->timings.answers)
        timings_print(&o->timings, o->session.device, &o->options.common.answer.decode);
    return 0;
}

/* ---- The command. ---- */

static int read_words(OrderEval *o, int count, char **words) {
    if (count > 1) return options_wrong(&help, "one file of prompts at a time, not %d", count);
    o->path = count ? words[0] : NULL;
    if (o->calculations && o->graphs_path)
        return options_wrong(&help,
                             "--calculations makes the graphs, and --graphs reads them: give one");
    if (o->from.count && o->path)
        return options_wrong(&help, "--from has the answers; \"%s\" is one too many", o->path);
    if (!o->from.count && !o->path && !o->graphs_path)
        return options_wrong(&help,
                             "nothing to measure: name a file of prompts, --graphs or --from");
    return -1;
}

/* Unlike in the common options, --json is a file name here. */
static void answer_group(OrderEval *o, OptionGroup *group) {
    common_answer_group(&o->options.common, group);
    for (int i = 0; i < option_count(group); i++)
        if (!strcmp(group->options[i].name, "json"))
            group->options[i] = (Option){"json",
                                         0,
                                         OPTION_TEXT,
                                         "FILE",
                                         &o->json,
                                         "everything, with each answer's words, as JSON to a\n"
                                         "file; - is standard output, instead of the table"};
}

int eval_order(int argc, char **argv) {
    OrderEval o = {.fixed_share = 20};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {
             {"images", 0, OPTION_TEXT, "FOLDER", &o.images,
              "folder of the images, or a zip archive of them"},
             {"from", 0, OPTION_LIST, "PATH", &o.from,
              "a trace, or a folder of them (*.json), instead of a model; may be\n"
              "given several times"},
             {"graphs", 0, OPTION_TEXT, "FILE", &o.graphs_path,
              "answers annotated with causal graphs, or GSM8K's with marks"},
             {"calculations", 0, OPTION_FLAG, NULL, &o.calculations,
              "each answer's causal graph is that of its own calculations"},
             {"fixed-share", 0, OPTION_REAL, "X", &o.fixed_share,
              "a word is fixed if it occurs in X % of the answers or more\n"
              "(default 20)",
              0, 100},
             {"phrase", 0, OPTION_FLAG, NULL, &o.phrase,
              "ask questions about images for a word or phrase, as eval gqa\n"
              "does; else as ask does"},
             {"lengths", 0, OPTION_CHOICE, NULL, &o.lengths,
              "target: answers as long as those in FILE or in the graphs, where\n"
              "they have one",
              .names = lengths_names},
             {"limit", 0, OPTION_INTEGER, "N", &o.options.limit, "only the first N", 1, INT_MAX}}}};
    common_init(&o.options.common);
    o.options.common.answer.long_prompts = LONG_PROMPTS_SKIP;
    answer_group(&o, &groups[1]);
    model_group(&o.options.common.model, &o.options.common.device, &o.options.common.threads,
                &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_words(&o, argc - first, argv + first);
    if (status < 0 && !o.from.count) status = common_check(&help, &o.options.common);
    if (status < 0) {
        Error err;
        int failed = run(&o, &err);
        if (failed) report_failure(&err);
        status = failed || o.unusable.total > 0;
    }
    session_close(&o.session);
    for (size_t i = 0; i < o.set.count; i++) {
        OrderItem *item = &o.items[i];
        free(item->id), free(item->prompt), free(item->image), free(item->answer);
        free(item->strategy), free(item->result.times);
    }
    free(o.items), free(o.from.items);
    order_set_free(&o.set);
    order_prompts_free(&o.prompts);
    causal_graphs_free(&o.graphs);
    return status;
}
