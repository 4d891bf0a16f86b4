/* calibrate.c - fits how sure a model may be of its answers to those of an evaluation. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/eval/rated.h"
#include "apps/eval/result.h"
#include "apps/eval/store.h"
#include "apps/score/calibration_report.h"
#include "data/checkpoints/config.h"
#include "data/checkpoints/model_files.h"
#include "data/files/file_hash.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"
#include "data/sets/gqa_file.h"
#include "projector/model_paths.h"
#include "projector/model_config.h"

static const CommandHelp help = {
    .name = "calibrate",
    .usage = "-m MODEL [options] EVALUATION QUESTIONS",
    .about =
        "Fits how sure a model may be of its answers, and writes it to the model's "
        "easyfirst.json.\n"
        "EVALUATION is a folder of `easyfirst eval gqa` with answers of this model, and QUESTIONS\n"
        "the file that was asked: validation data that the model was not trained on. The\n"
        "probability that an answer is right is a logistic function of its score, the mean\n"
        "log-probability of its tokens: the one of the largest likelihood (Platt's fit). Answers\n"
        "below the threshold are unsure: it is the largest that calls at most --max-right-unsure\n"
        "of the right answers so. `ask` then says how sure it is, and `eval gqa` how well that\n"
        "fits other questions.",
    .examples =
        "easyfirst eval gqa -m model val_questions.json --images gqa/images --out val\n"
        "easyfirst calibrate -m model val val_questions.json\n"
        "easyfirst calibrate -m model --dry-run --with-length --max-right-unsure 0.05 val \\\n"
        "    val_questions.json",
};

typedef struct Calibrate {
    const char *model, *folder, *questions_path;
    float most_right;
    bool with_length, dry_run, json;
    ModelSettings settings;
    json_t *eval_settings; /* the evaluation's */
    GqaQuestions questions;
    EvalItems items;
    Rated rated;
    Calibration found; /* all but its prompts */
    CalibrationFit fit;
    CalibrationReport report;
} Calibrate;

/* ---- Whether everything belongs together. ---- */

static const json_t *member_of(const json_t *json, const char *a, const char *b) {
    return json_object_get(json_object_get(json, a), b);
}

static int read_settings(Calibrate *c, Error *err) {
    char *path = path_join(c->folder, "settings.json", err);
    int status = path ? config_read(&c->eval_settings, path, err) : -1;
    const char *command =
        status ? NULL : json_string_value(json_object_get(c->eval_settings, "command"));
    if (status == 0 && (!command || strcmp(command, "eval gqa")))
        status = error_set(err, "%s: not the settings of an `easyfirst eval gqa`", path);
    free(path);
    return status;
}

static int check_questions(const Calibrate *c, Error *err) {
    char hex[FILE_HASH_SIZE];
    const json_t *file = member_of(c->eval_settings, "data", "questions");
    const char *asked = json_string_value(json_object_get(file, "sha256"));
    if (!asked)
        return error_set(err, "%s: asked a folder of questions, one file of questions is expected",
                         c->folder);
    TRY(file_hash(hex, c->questions_path, err));
    if (!strcmp(hex, asked)) return 0;
    const char *name = json_string_value(json_object_get(file, "file"));
    return error_set(err, "%s: not the file of questions that %s has the answers to, which was %s",
                     c->questions_path, c->folder, name ? name : "another");
}

/* Whether a file "part/name" of the model that answered is in the folder of the model, as it was.
 * Of part files some lie in the folder itself (projector.safetensors). */
static int check_file(const Calibrate *c, const char *name, const char *hash, Error *err) {
    char hex[FILE_HASH_SIZE];
    const char *slash = strchr(name, '/');
    char *path = path_join(c->model, name, err);
    if (path && access(path, F_OK) != 0 && slash) {
        free(path);
        path = path_join(c->model, slash + 1, err);
    }
    if (!path) return -1;
    int status = access(path, F_OK) == 0 ? file_hash(hex, path, err)
                                         : error_set(err, "%s: no such file", path);
    if (status == 0 && (!hash || strcmp(hex, hash) != 0))
        status = error_set(err, "%s: changed since", path);
    free(path);
    return status ? error_context(err, "%s: has the answers of another model", c->folder) : 0;
}

static int check_model(const Calibrate *c, Error *err) {
    const char *name;
    json_t *hash;
    json_t *files = (json_t *)member_of(c->eval_settings, "model", "sha256");
    if (!json_object_size(files))
        return error_set(err, "%s: its settings.json does not name the model's files", c->folder);
    json_object_foreach(files, name, hash) {
        /* A calibration may have been written since; it changes no answer. */
        if (!strcmp(name, MODEL_SETTINGS)) continue;
        TRY(check_file(c, name, json_string_value(hash), err));
    }
    return 0;
}

/* ---- Reading. ---- */

static int answer_take(void *user, const JsonElement *element, Error *err) {
    Calibrate *c = user;
    char digits[24];
    const char *id = gqa_id_of(json_object_get(element->value, "question_id"), digits);
    const char *text = gqa_member(element->value, "text");
    int64_t index = id && text ? gqa_find(&c->questions, id) : -1;
    if (index < 0 || c->items.items[index].answer) return 0; /* a question that others entail */
    EvalItem *item = &c->items.items[index];
    item->answer = strdup(text);
    eval_item_score(item, json_object_get(element->value, "metadata"));
    return item->answer ? 0 : error_set(err, "out of memory for the answers");
}

static int read_answers(Calibrate *c, Error *err) {
    Skipped skipped = {0};
    TRY(gqa_questions_read(&c->questions, c->questions_path, false, &skipped, err));
    c->items.items = calloc((size_t)c->questions.count + 1, sizeof *c->items.items);
    if (!c->items.items) return error_set(err, "out of memory for the questions");
    c->items.count = c->questions.count;
    char *path = path_join(c->folder, "answers.jsonl", err);
    int status = path ? gqa_file_walk(path, 1u << GQA_FILE_LINES, "answers of `eval gqa`",
                                      answer_take, c, err)
                      : -1;
    free(path);
    if (status) return -1;
    return rated_read(&c->rated, &c->questions, c->items.items, c->items.count, c->questions_path,
                      err);
}

/* ---- Fitting. ---- */

static int fit(Calibrate *c, Error *err) {
    const Rated *r = &c->rated;
    if (!r->count && r->unscored)
        return error_set(err,
                         "%s: its answers have no scores, an older easyfirst gave them: ask again "
                         "into another folder",
                         c->folder);
    if (calibration_fit(&c->fit, r->answers, r->count, c->with_length, err))
        return error_context(err, "%s", c->folder);
    c->found = (Calibration){.present = true,
                             .slope = c->fit.slope,
                             .offset = c->fit.offset,
                             .length = c->fit.length,
                             .prompts = ~0u};
    for (int64_t i = 0; i < r->count; i++)
        if (r->answers[i].length > c->found.longest) c->found.longest = r->answers[i].length;
    double *probabilities = malloc((size_t)r->count * sizeof *probabilities);
    if (!probabilities) return error_set(err, "out of memory for probabilities");
    for (int64_t i = 0; i < r->count; i++)
        probabilities[i] =
            calibration_probability(&c->found, "gqa", r->answers[i].score, r->answers[i].length);
    int status = calibration_threshold(&c->found.threshold, probabilities, r->answers, r->count,
                                       real_shortest(c->most_right), err);
    if (status == 0)
        calibration_measure(&c->report, probabilities, r->answers, r->count, c->found.threshold);
    free(probabilities);
    return status;
}

static json_t *entry_json(const Calibrate *c) {
    const Calibration *f = &c->found;
    json_t *entry = json_object();
    json_object_set_new(entry, "slope", json_real(f->slope));
    json_object_set_new(entry, "offset", json_real(f->offset));
    if (c->with_length) json_object_set_new(entry, "length", json_real(f->length));
    json_object_set_new(entry, "threshold", json_real(f->threshold));
    json_object_set_new(entry, "longest", json_integer(f->longest));
    /* Which prompts it is for stays as it was said. */
    json_t *prompts = (json_t *)member_of(c->settings.json, "calibration", "prompts");
    if (prompts) json_object_set(entry, "prompts", prompts);
    return entry;
}

static int write_model(const Calibrate *c, Error *err) {
    json_memory_begin();
    json_t *json = c->settings.json ? json_incref(c->settings.json) : json_object();
    int failed = json_object_set_new(json, "format", json_integer(1));
    failed |= json_object_set_new(json, "calibration", entry_json(c));
    char *path = path_join(c->model, MODEL_SETTINGS, err);
    int status = path ? 0 : -1;
    if (status == 0 && (failed || json_memory_failed()))
        status = error_set(err, "%s: out of memory", path);
    Calibration again; /* what is written can be read */
    if (status == 0) status = calibration_read(&again, json, path, err);
    if (status == 0) status = json_write(json, path, err);
    json_decref(json);
    free(path);
    return status;
}

/* ---- Printing. ---- */

static void print_text(const Calibrate *c) {
    const Calibration *f = &c->found;
    const Rated *r = &c->rated;
    printf("answers       %lld of %lld questions, %lld right\n", (long long)r->count,
           (long long)c->items.count, (long long)c->report.right);
    if (r->unscored) printf("              %lld others without a score\n", (long long)r->unscored);
    if (r->unknown)
        printf("              %lld others to questions without an answer\n", (long long)r->unknown);
    printf("probability   sigmoid(%.6g * score %+.6g", f->slope, f->offset);
    if (c->with_length) printf(" %+.6g * length", f->length);
    printf(")\nthreshold     %g\n", f->threshold);
    calibration_report_text(stdout, &c->report);
}

static json_t *report_make(const Calibrate *c) {
    json_memory_begin();
    json_t *json = json_object();
    json_object_set_new(json, "calibration", entry_json(c));
    json_object_set_new(json, "questions", json_integer(c->items.count));
    json_object_set_new(json, "unanswered", json_integer(c->rated.unanswered));
    json_object_set_new(json, "unscored", json_integer(c->rated.unscored));
    json_object_set_new(json, "unknown", json_integer(c->rated.unknown));
    json_object_set_new(json, "report", calibration_report_json(&c->report));
    if (!json_memory_failed()) return json;
    json_decref(json);
    return NULL;
}

/* ---- The command. ---- */

static int run(Calibrate *c, Error *err) {
    TRY(model_settings_read(&c->settings, c->model, err));
    TRY(read_settings(c, err));
    TRY(check_questions(c, err));
    TRY(check_model(c, err));
    TRY(read_answers(c, err));
    TRY(fit(c, err));
    if (!c->dry_run) TRY(write_model(c, err));
    if (c->json) return json_print_line(report_make(c), 17, err);
    print_text(c);
    return report_flush(err);
}

int command_calibrate(int argc, char **argv) {
    Calibrate c = {.most_right = 0.03f};
    OptionGroup groups[] = {
        {"options",
         {{"model", 'm', OPTION_TEXT, "FOLDER", &c.model, "the model's folder"},
          {"max-right-unsure", 0, OPTION_REAL, "X", &c.most_right,
           "share of the right answers that may be called unsure (default 0.03)", 0, 1},
          {"with-length", 0, OPTION_FLAG, NULL, &c.with_length,
           "the number of the answer's tokens counts, too"},
          {"dry-run", 0, OPTION_FLAG, NULL, &c.dry_run, "print the result, write nothing"},
          {"json", 0, OPTION_FLAG, NULL, &c.json, "print one JSON object"}}},
    };
    int first, status = options_read(&help, groups, 1, argc, argv, &first);
    if (status >= 0) return status;
    if (argc - first != 2)
        return options_wrong(&help, "a folder and a file are needed: EVALUATION QUESTIONS");
    if (!c.model) return options_wrong(&help, "-m is missing: the folder of the model");
    c.folder = argv[first], c.questions_path = argv[first + 1];
    Error err;
    status = run(&c, &err);
    if (status) report_failure(&err);
    rated_free(&c.rated);
    eval_items_free(&c.items);
    gqa_questions_free(&c.questions);
    json_decref(c.settings.json);
    json_decref(c.eval_settings);
    return status ? 1 : 0;
}
