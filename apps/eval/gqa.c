/* gqa.c - GQA: answers a file of questions about images and scores the answers. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/cli/choices.h"
#include "apps/cli/processes.h"
#include "apps/eval/closed.h"
#include "apps/eval/eval.h"
#include "apps/eval/rated.h"
#include "apps/eval/result.h"
#include "apps/eval/running.h"
#include "apps/eval/scored.h"
#include "apps/eval/together.h"
#include "apps/score/calibration_report.h"
#include "apps/score/gqa_report.h"
#include "data/files/archive.h"
#include "data/files/file_open.h"
#include "data/files/file_write.h"
#include "data/sets/gqa.h"
#include "data/sets/gqa_file.h"
#include "data/files/json_array.h"
#include "data/files/json_memory.h"
#include "data/metrics/gqa_text.h"
#include "data/files/path.h"
#include "projector/model_chat.h"
#include "projector/model_prompt.h"

static const CommandHelp help = {
    .name = "eval gqa",
    .usage = "[options] QUESTIONS --images FOLDER --out FOLDER",
    .about =
        "Answers GQA's questions and scores the answers as GQA's script does. QUESTIONS is an\n"
        "official file ({id: {\"question\", \"imageId\", \"answer\", ...}}), whose balanced "
        "questions\n"
        "are put into the model's prompt template \"gqa\" (\"{question}\" and, on a line of its\n"
        "own, \"Answer the question using a single word or phrase.\", unless its easyfirst.json\n"
        "says otherwise); or LLaVA's lines of {\"question_id\", \"image\", \"text\"}, whose texts "
        "are\n"
        "put into the template \"ask\". Images are FOLDER/imageId.jpg, or as \"image\" says.\n"
        "Where the model's folder has a calibration, it is measured, too.\n"
        "\n"
        "Files in --out: answers.jsonl (LLaVA's format, appended batch by batch),\n"
        "predictions.json (official), with --attention attentions.json (official),\n"
        "unanswered.jsonl, settings.json, scored.jsonl with what came of each question (for\n"
        "`easyfirst eval compare`), and result.json with all scores, their 95 % intervals and\n"
        "what they were measured with. Questions that cannot be answered (a missing image, for "
        "example) are\n"
        "reported and count as wrong; lines without an id and duplicate ids are reported and\n"
        "left out; the exit status is then 1. All questions are scored, as in the official\n"
        "script; --long-prompts skip leaves out those that are too long. An interrupted run\n"
        "resumes with the same command and gives the same files.",
    .examples =
        "easyfirst eval gqa -m model testdev_balanced_questions.json --images gqa/images \\\n"
        "    --out run\n"
        "easyfirst eval gqa -m model val_balanced_questions.json --images gqa/images --out run \\\n"
        "    --choices val_choices.json --all-questions val_all_questions \\\n"
        "    --scene-graphs val_sceneGraphs.json --attention\n"
        "easyfirst eval gqa -m model q.jsonl --images gqa/images --out run \\\n"
        "    --device cuda:1 --shard 2/8",
};

typedef struct GqaEval {
    EvalOptions options;
    const char *path, *images, *choices, *scene_graphs, *all_questions;
    bool attention;
    int by;     /* a ChoiceBy */
    int closed; /* the most valid answers that an answer is chosen from; 0: all are denoised */
    ClosedQuestions closed_questions;
    GqaQuestions questions;
    TextTable more;   /* ids, images and texts of entailed questions */
    char *subset;     /* a file of the scored questions, if not all are scored; else NULL */
    Skipped left_out; /* entries that are not questions of the run */
    EvalItems items;
    int64_t asked; /* the first items; the others are entailed by them */
    EvalStore store;
    Session session;
    Timings timings;
    json_t *settings;
    bool worded; /* the items have their prompts */
    bool failed; /* a question was not answered */
} GqaEval;

/* ---- What is asked. ---- */

/* Entries without an id or with a duplicate one: everything else wrong with questions is recorded
 * in the question, or concerns only the scores, which report it. */
static void note_left_out(GqaEval *g, const Skipped *skipped) {
    static const char *const kinds[] = {GQA_NO_OBJECT, GQA_NO_ID, GQA_TWICE};
    for (int i = 0; i < skipped->kind_count; i++)
        for (int k = 0; k < 3; k++) {
            const SkippedKind *p = &skipped->kinds[i];
            if (strcmp(p->kind, kinds[k])) continue;
            Skipped one = {.kinds = {*p}, .kind_count = 1, .total = p->count};
            skipped_merge(&g->left_out, &one);
        }
}

/* Questions that balanced ones entail, for consistency. */
typedef struct Entailed {
    const GqaQuestions *questions;
    int64_t asked; /* the first of them */
    TextTable *texts;
    TextTable ids;  /* that are entailed */
    int32_t *found; /* [ids.count, 3]: numbers in `texts` of id, image, question; -1 */
} Entailed;

static bool is_asked(const Entailed *e, const char *id) {
    int64_t index = gqa_find(e->questions, id);
    return index >= 0 && index < e->asked;
}

static int entailed_note(void *user, const GqaQuestion *q, Error *err) {
    Entailed *e = user;
    if (!q->balanced || !is_asked(e, q->id)) return 0;
    for (int i = 0; i < q->entailed_count; i++)
        if (!is_asked(e, q->entailed[i]))
            TRY(text_table_add(&e->ids, q->entailed[i], &(int32_t){0}, NULL, err));
    return 0;
}

static int entailed_take(void *user, const GqaQuestion *q, Error *err) {
    Entailed *e = user;
    int32_t number = text_table_find(&e->ids, q->id);
    if (number < 0) return 0;
    int32_t *found = e->found + 3 * (size_t)number;
    found[1] = found[2] = -1;
    TRY(text_table_add(e->texts, q->id, &found[0], NULL, err));
    if (q->image) TRY(text_table_add(e->texts, q->image, &found[1], NULL, err));
    return q->text ? text_table_add(e->texts, q->text, &found[2], NULL, err) : 0;
}

static const char *text_or_null(const TextTable *table, int32_t number) {
    return number < 0 ? NULL : text_table_get(table, number);
}

static int entailed_add(GqaEval *g, Entailed *e, Error *err) {
    Skipped again = {0}, skipped = {0}; /* those of `path` are known */
    int64_t bad;
    TRY(gqa_questions_walk(g->path, entailed_note, e, &again, &bad, err));
    e->found = malloc(3 * (e->ids.count + 1) * sizeof *e->found);
    if (!e->found) return error_set(err, "out of memory for the entailed questions");
    for (size_t i = 0; i < 3 * e->ids.count; i++) e->found[i] = -1;
    TRY(gqa_questions_walk(g->all_questions, entailed_take, e, &skipped, &bad, err));
    note_left_out(g, &skipped);
    size_t room = (size_t)g->items.count + e->ids.count + 1;
    EvalItem *grown = realloc(g->items.items, room * sizeof *grown);
    if (!grown) return error_set(err, "out of memory for the entailed questions");
    g->items.items = grown;
    for (size_t i = 0; i < e->ids.count; i++) {
        const int32_t *found = e->found + 3 * i;
        if (found[0] < 0) continue; /* the scores report it */
        g->items.items[g->items.count++] = (EvalItem){.id = text_or_null(e->texts, found[0]),
                                                      .image = text_or_null(e->texts, found[1]),
                                                      .text = text_or_null(e->texts, found[2])};
    }
    return 0;
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int read_questions(GqaEval *g, Error *err) {
    bool skip = g->options.common.answer.long_prompts == LONG_PROMPTS_SKIP;
    if ((g->options.limit || skip) && is_folder(g->path))
        return error_set(err, "%s: %s takes one file of questions, not a folder of parts", g->path,
                         skip ? "--long-prompts skip" : "--limit");
    Skipped skipped = {0};
    const GqaQuestions *q = &g->questions;
    TRY(gqa_questions_read(&g->questions, g->path, false, &skipped, err));
    note_left_out(g, &skipped);
    int64_t limit = g->options.limit, count = limit && limit < q->count ? limit : q->count;
    g->items.items = calloc((size_t)count + 1, sizeof *g->items.items);
    if (!g->items.items) return error_set(err, "out of memory for the questions");
    g->items.count = g->asked = count;
    for (int64_t i = 0; i < count; i++)
        g->items.items[i] =
            (EvalItem){.id = gqa_id(q, i), .image = gqa_image(q, i), .text = gqa_text(q, i)};
    if (!count) return error_set(err, "%s: none of its questions is balanced", g->path);
    if (!g->all_questions) return 0;
    Entailed e = {.questions = q, .asked = count, .texts = &g->more};
    int status = entailed_add(g, &e, err);
    text_table_free(&e.ids);
    free(e.found);
    return status;
}

static int word_items(GqaEval *g, Error *err) {
    const char *preset = g->questions.llava ? "ask" : "gqa";
    for (int64_t i = 0; i < g->items.count; i++) {
        EvalItem *item = &g->items.items[i];
        if (item->answer) continue;
        if (!item->text || !item->text[strspn(item->text, " \t\r\n\v\f")])
            TRY(eval_item_bad(item, "empty question", err, "there is nothing to answer"));
        else if (!item->image)
            TRY(eval_item_bad(item, "question without an image", err,
                              "it names none in the folder of images"));
        else
            TRY(model_prompt(g->session.model.settings, preset, item->text, NULL, NULL,
                             &item->prompt, err));
        if (item->prompt) TRY(model_chat_prompt(&g->session.model, NULL, 0, &item->prompt, err));
        item->length = g->options.common.length;
    }
    return 0;
}

/* ---- The questions that --limit and --long-prompts skip leave, as a file of their own. ---- */

typedef struct Subset {
    GqaEval *g;
    FileWriter writer;
    int64_t count;
} Subset;

static bool subset_has(const Subset *s, int64_t index) {
    return index >= 0 && index < s->g->asked && !s->g->items.items[index].skipped;
}

static int subset_entry(void *user, const JsonElement *element, Error *err) {
    Subset *s = user;
    int64_t index = element->key ? gqa_find(&s->g->questions, element->key) : -1;
    if (!element->value || !subset_has(s, index)) return 0;
    json_t *pair = json_pack("{s:O}", element->key, element->value);
    char *text = pair ? json_dumps_whole(pair, JSON_REAL_PRECISION(17)) : NULL;
    json_decref(pair);
    if (!text) return error_set(err, "out of memory for the questions");
    size_t size = strlen(text);
    text[0] = s->count++ ? ',' : '{'; /* "{...}" is a member between its braces */
    text[size - 1] = '\n';
    int status = file_write_bytes(&s->writer, text, size, err);
    free(text);
    return status;
}

static int subset_official(Subset *s, Error *err) {
    TRY(gqa_file_walk(s->g->path, 1u << GQA_FILE_OBJECT, "GQA's questions", subset_entry, s, err));
    return file_write_bytes(&s->writer, s->count ? "}\n" : "{}\n", s->count ? 2 : 3, err);
}

static int subset_line(void *user, const JsonElement *element, Error *err) {
    Subset *s = user;
    char digits[24];
    const char *id = gqa_id_of(json_object_get(element->value, "question_id"), digits);
    if (!id || !subset_has(s, gqa_find(&s->g->questions, id))) return 0;
    char *text = json_dumps(element->value, JSON_REAL_PRECISION(17));
    if (!text) return error_set(err, "out of memory for the questions");
    size_t size = strlen(text);
    text[size] = '\n'; /* replaces the terminating 0 */
    int status = file_write_bytes(&s->writer, text, size + 1, err);
    free(text);
    return status;
}

static int subset_lines(Subset *s, Error *err) {
    return gqa_file_walk(s->g->path, 1u << GQA_FILE_LINES, "LLaVA's lines", subset_line, s, err);
}

static int write_subset(GqaEval *g, Error *err) {
    if (!g->options.limit && !eval_items_long(&g->items).skipped) return 0;
    Subset s = {.g = g};
    g->subset =
        path_join(g->options.out, g->questions.llava ? "questions.jsonl" : "questions.json", err);
    if (!g->subset) return -1;
    TRY(file_write_begin(&s.writer, g->subset, 0, err));
    int status = g->questions.llava ? subset_lines(&s, err) : subset_official(&s, err);
    return file_write_end(&s.writer, status, err);
}

/* ---- What comes out. ---- */

static int write_predictions(const GqaEval *g, const char *path, Error *err) {
    GqaArrayWriter writer;
    TRY(gqa_array_begin(&writer, path, err));
    int status = 0;
    for (int64_t i = 0; i < g->items.count && status == 0; i++) {
        const EvalItem *item = &g->items.items[i];
        if (item->skipped) continue;
        char *plain = gqa_prediction_plain(item->answer ? item->answer : "");
        status = plain ? gqa_array_prediction(&writer, item->id, plain, err)
                       : error_set(err, "out of memory for the predictions");
        free(plain);
    }
    return gqa_array_end(&writer, status, err);
}

static int write_attentions(const GqaEval *g, const char *path, Error *err) {
    GqaArrayWriter writer;
    TRY(gqa_array_begin(&writer, path, err));
    int status = 0;
    for (int64_t i = 0; i < g->items.count && status == 0; i++)
        if (g->items.items[i].map)
            status = gqa_array_attention(&writer, g->items.items[i].id, g->items.items[i].map, err);
    return gqa_array_end(&writer, status, err);
}

/* A file's hash under `name`, if it is given. */
static int add_file(json_t *object, const char *name, const char *path, Error *err) {
    if (!path) return 0;
    json_t *file = eval_file_json(path, err);
    if (!file) return -1;
    return json_object_set_new(object, name, file) ? error_set(err, "out of memory") : 0;
}

/* What answers depend on where some of them are chosen. */
static int add_closed(const GqaEval *g, json_t *data, Error *err) {
    if (json_object_set_new(data, "closed", json_integer(g->closed)) ||
        json_object_set_new(data, "closed_questions", json_integer(g->closed_questions.count)))
        return error_set(err, "out of memory for the settings");
    eval_choice_json(data, &g->options.common.answer);
    return add_file(data, "choices", g->choices, err);
}

static json_t *settings_make(GqaEval *g, Error *err) {
    const char *const files[] = {g->path, g->all_questions};
    static const char *const names[] = {"questions", "all_questions"};
    json_t *data =
        json_pack("{s:o, s:b}", "images", json_text(g->images), "attention", g->attention);
    for (int i = 0; i < 2 && data; i++) {
        json_t *one = !files[i]             ? NULL
                      : is_folder(files[i]) ? eval_parts_json(files[i], err)
                                            : eval_file_json(files[i], err);
        if (files[i] && json_object_set_new(data, names[i], one)) {
            json_decref(data);
            return NULL;
        }
    }
    if (!data) error_set(err, "out of memory for the settings");
    if (data && g->closed && add_closed(g, data, err)) {
        json_decref(data);
        return NULL;
    }
    return data ? eval_settings_json(&g->options, &g->session, "eval gqa", data, err) : NULL;
}

/* How well the model's calibration fits these answers; *has: it has one for them. */
static int measure_calibration(const GqaEval *g, CalibrationReport *report, bool *has, Error *err) {
    const Calibration *c = &g->session.model.calibration;
    const char *preset = g->questions.llava ? "ask" : "gqa";
    Rated rated;
    *has = calibration_holds(c, preset) && !g->closed; /* it is of denoised answers */
    if (!*has) return 0;
    TRY(rated_read(&rated, &g->questions, g->items.items, g->asked, g->path, err));
    double *probabilities = malloc(((size_t)rated.count + 1) * sizeof *probabilities);
    int64_t count = 0; /* of answers that it has a probability for */
    for (int64_t i = 0; i < rated.count && probabilities; i++) {
        const CalibrationAnswer *a = &rated.answers[i];
        probabilities[count] = calibration_probability(c, preset, a->score, a->length);
        if (!isnan(probabilities[count])) rated.answers[count++] = *a;
    }
    *has = count > 0;
    if (*has) calibration_measure(report, probabilities, rated.answers, count, c->threshold);
    rated_free(&rated);
    free(probabilities);
    return probabilities ? 0 : error_set(err, "out of memory for probabilities");
}

static int write_result(GqaEval *g, const GqaScore *score, Error *err) {
    CalibrationReport calibration;
    bool calibrated;
    TRY(measure_calibration(g, &calibration, &calibrated, err));
    json_t *scores = gqa_report_json(score), *result = NULL;
    /* Unanswered questions are reported with the reason, in the result's "skipped". */
    json_object_del(json_object_get(scores, "skipped"), "question without a prediction");
    if (calibrated)
        json_object_set_new(scores, "calibration", calibration_report_json(&calibration));
    int status = scores ? 0 : error_set(err, "out of memory for the scores");
    if (status == 0) status = add_file(scores, "choices", g->choices, err);
    if (status == 0) status = add_file(scores, "scene_graphs", g->scene_graphs, err);
    if (status == 0) {
        result = eval_result_json(json_incref(g->settings), &g->items, &g->left_out, scores, err);
        scores = NULL;
        status = result ? eval_store_json(&g->store, "result.json", json_incref(result), err) : -1;
    }
    if (status == 0 && g->options.common.json) {
        status = json_print_line(json_incref(result), JSON_DIGITS, err);
    } else if (status == 0) {
        gqa_report_text(stdout, score);
        if (calibrated) fputs("\nCalibration\n", stdout);
        if (calibrated) calibration_report_text(stdout, &calibration);
    }
    json_decref(scores);
    json_decref(result);
    return status ? -1 : report_flush(err);
}

/* ---- What came of each question. ---- */

static int scored_question(const GqaEval *g, const GqaOutcome *o, Scored *scored, Error *err) {
    static const GqaMetricKind kinds[SCORED_METRICS] = {
        GQA_ACCURACY,    GQA_EXACT_MATCH, GQA_BINARY,       GQA_OPEN,
        GQA_CONSISTENCY, GQA_VALIDITY,    GQA_PLAUSIBILITY, GQA_GROUNDING};
    int64_t index = gqa_find(&g->questions, o->id);
    ScoredLine *line = scored_add(scored, err);
    if (!line) return -1;
    TRY(scored_text(&line->id, o->id, err));
    TRY(scored_text(&line->target, o->gold, err));
    TRY(scored_text(&line->types[0], o->semantic, err));
    TRY(scored_text(&line->types[1], o->structural, err));
    TRY(scored_text(&line->types[2], o->detailed, err));
    if (index >= 0 && index < g->asked) {
        TRY(scored_text(&line->prompt, gqa_text(&g->questions, index), err));
        TRY(scored_text(&line->image, gqa_image(&g->questions, index), err));
        TRY(scored_text(&line->answer, g->items.items[index].answer, err));
    }
    for (int m = 0; m < SCORED_METRICS; m++) line->values[m] = 100 * (double)o->values[kinds[m]];
    return 0;
}

static int write_scored(const GqaEval *g, const GqaScore *score, Error *err) {
    Scored scored = {.task = scored_task("gqa")};
    int status = 0;
    for (size_t i = 0; i < score->outcome_count && status == 0; i++)
        status = scored_question(g, &score->outcomes[i], &scored, err);
    if (status == 0) status = scored_write(&scored, &g->store, err);
    scored_free(&scored);
    return status;
}

/* Already reported by eval_end: unanswered questions with the reason, and what is left out. */
static const char *const reported[] = {"question without a prediction", GQA_NO_OBJECT, GQA_NO_ID,
                                       GQA_TWICE, NULL};

/* Scores the current files. */
static int score_files(GqaEval *g, const char *answers, const char *attentions, Error *err) {
    GqaFiles files = {.predictions = answers,
                      .questions = g->subset ? g->subset : g->path,
                      .all_questions = g->all_questions,
                      .choices = g->choices,
                      .scene_graphs = g->scene_graphs,
                      .attentions = g->attention ? attentions : NULL,
                      .outcomes = true};
    GqaScore *score = calloc(1, sizeof *score);
    int status = score ? gqa_score(score, &files, err) : error_set(err, "out of memory");
    if (status == 0) {
        gqa_report_skipped(score, reported);
        status = gqa_confidence(score, NULL, err);
        if (status == 0) status = write_scored(g, score, err);
        if (status == 0) status = write_result(g, score, err);
        gqa_score_free(score);
    }
    free(score);
    return status;
}

static int finish(void *user, Error *err) {
    GqaEval *g = user;
    const char *out = g->options.out;
    char *answers = path_join(out, "answers.jsonl", err);
    char *attentions = path_join(out, "attentions.json", err);
    char *predictions = path_join(out, "predictions.json", err);
    int status = answers && attentions && predictions ? 0 : -1;
    if (status == 0) status = eval_store_finish(&g->store, &g->items, err);
    if (status == 0) status = write_predictions(g, predictions, err);
    if (status == 0 && g->attention) status = write_attentions(g, attentions, err);
    if (status == 0) status = write_subset(g, err);
    if (status == 0) status = score_files(g, answers, attentions, err);
    free(answers), free(attentions), free(predictions);
    return status;
}

/* ---- The command. ---- */

/* Checks before the model is loaded. */
static int check_files(const GqaEval *g, Error *err) {
    const FileRole inputs[] = {{"QUESTIONS", g->path},
                               {"--all-questions", g->all_questions},
                               {"--choices", g->choices},
                               {"--scene-graphs", g->scene_graphs}};
    TRY(eval_check_files(g->options.out, inputs, 4, err));
    struct stat info;
    if (archive_path(g->images)) return 0;
    if (stat(g->images, &info))
        return error_set(err, "%s: --images: %s", g->images, strerror(errno));
    if (S_ISDIR(info.st_mode)) return 0;
    return error_set(err, "%s: --images: a folder of images was expected, but this is %s",
                     g->images, file_mode_name(info.st_mode));
}

/* Again, of the whole, for the first of several processes. */
static int answer(void *user, Error *err) {
    GqaEval *g = user;
    EvalOptions *o = &g->options;
    eval_store_close(&g->store);
    TRY(eval_store_open(&g->store, o->out, o->shard_index, o->shards, g->settings, o->model, err));
    TRY(eval_store_load(&g->store, &g->items, err));
    if (!g->worded) TRY(word_items(g, err));
    g->worded = true;
    Running running;
    TRY(running_gqa(&running, &g->items, &g->questions, g->asked, g->path, err));
    EvalRunConfig config = {.what = "questions",
                            .running = running_callback(&running),
                            .session = &g->session,
                            .answer = o->common.answer,
                            .images = g->images,
                            .batch_tokens = o->batch_tokens,
                            .quiet = o->common.quiet};
    config.answer.inspection.attention = g->attention;
    int status = eval_run(&config, &g->store, &g->items, &g->timings, err);
    running_free(&running);
    TRY(status);
    if (o->comm && o->shards) /* another process reads it, and reports */
        eval_store_close(&g->store);
    else
        eval_end(o, &g->items, &g->left_out, &g->timings, g->session.device, &g->failed);
    return 0;
}

static int open_all(void *user, Error *err) {
    GqaEval *g = user;
    EvalOptions *o = &g->options;
    TRY(check_files(g, err));
    TRY(read_questions(g, err));
    if (g->closed)
        TRY(closed_questions_read(&g->closed_questions, g->choices, g->closed, &g->items, err));
    TRY(eval_check_model(&o->common, true, err));
    TRY(session_open(&g->session, &o->common, err));
    g->timings.load_s = g->session.load_s;
    TRY(answer_decode_options(&g->session.model.parts, &o->common.answer.decode, err));
    eval_model_name(o);
    g->settings = settings_make(g, err);
    return g->settings ? 0 : -1;
}

int eval_gqa(int argc, char **argv) {
    GqaEval g = {.store = {.fd = -1}};
    EvalOptions *o = &g.options;
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {{"images", 0, OPTION_TEXT, "FOLDER", &g.images,
                      "folder of the images, or a zip archive of them"},
                     {"choices", 0, OPTION_TEXT, "FILE", &g.choices,
                      "possible answers, for validity and plausibility"},
                     {"all-questions", 0, OPTION_TEXT, "FILE", &g.all_questions,
                      "all questions, for consistency: also asks those that\n"
                      "balanced ones entail"},
                     {"scene-graphs", 0, OPTION_TEXT, "FILE", &g.scene_graphs,
                      "boxes of objects, for grounding"},
                     {"attention", 0, OPTION_FLAG, NULL, &g.attention,
                      "record the attention over the image, 7 x 7, for grounding"},
                     {"closed", 0, OPTION_INTEGER, "N", &g.closed,
                      "answer questions that have at most N valid answers in\n"
                      "--choices with the likeliest of these (2: yes or no, A or B)",
                      1, 1000000},
                     choices_by_option(&g.by)}}};
    common_init(&o->common);
    eval_group_add(o, &groups[0]);
    common_answer_group(&o->common, &groups[1]);
    model_group(&o->common.model, &o->common.device, &o->common.threads, &groups[2]);
    const int muted = processes_mute();
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0 && argc - first != 1)
        status = options_wrong(&help, argc == first ? "no file of questions is given"
                                                    : "one file of questions at a time");
    if (status < 0 && !g.images)
        status = options_wrong(&help, "--images is missing: the folder of the images");
    if (status < 0 && g.scene_graphs && !g.attention)
        status =
            options_wrong(&help, "--scene-graphs is for grounding, which needs --attention, too");
    if (status < 0 && g.closed && !g.choices)
        status = options_wrong(&help, "--closed needs --choices, which has the valid answers");
    if (status < 0 && g.closed && g.attention)
        status = options_wrong(&help, "--attention is of denoised answers: leave out --closed");
    if (status < 0 && g.by && !g.closed) status = options_wrong(&help, "--by needs --closed");
    choices_by_apply(g.by, &o->common);
    if (status < 0) status = eval_options_check(&help, o);
    processes_unmute(muted, status >= 0);
    if (status < 0) {
        g.path = argv[first];
        const EvalTogether together = {o, open_all, answer, finish, &g};
        const int failed = eval_together(&together);
        status = failed || g.failed;
    }
    eval_store_close(&g.store);
    eval_items_free(&g.items);
    closed_questions_free(&g.closed_questions);
    gqa_questions_free(&g.questions);
    text_table_free(&g.more);
    free(g.subset);
    session_close(&g.session);
    json_decref(g.settings);
    return status;
}
