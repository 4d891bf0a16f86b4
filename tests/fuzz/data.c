/* data.c - fuzz targets of data sets, questions and answers. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/eval/order_input.h"
#include "data/sets/causal_graph.h"
#include "data/sets/gqa.h"
#include "data/sets/gqa_answers.h"
#include "data/files/archive.h"
#include "data/files/json_array.h"
#include "data/metrics/gqa.h"
#include "data/sets/records.h"
#include "data/sets/scene_graphs.h"
#include "tests/fuzz/fuzz.h"

/* A folder of images with the names in the seeds. */
static const char *images(void) {
    static char path[300];
    if (path[0]) return path;
    for (int i = 0; i < 3; i++)
        fuzz_write(0, (const char *[]){"images/1.jpg", "images/n0.jpg", "images/a.png"}[i], "x", 1);
    snprintf(path, sizeof path, "%s/images", fuzz_folder());
    return path;
}

static int visit_element(void *user, const JsonElement *element, Error *err) {
    (void)err;
    int64_t *last = user;
    fuzz_check(element->number > 0 && element->offset >= *last, "elements come in order");
    fuzz_check(element->value || element->why, "a value, or why there is none");
    *last = element->offset;
    return 0;
}

void fuzz_json_array(const uint8_t *data, size_t size) {
    if (!size) return;
    const char *path = fuzz_file(0, data + 1, size - 1);
    FileWindow window = {.path = "input", .fd = open(path, O_RDONLY | O_CLOEXEC)};
    Error err;
    int64_t last = 0;
    int status = window_more(&window, 0, &err);
    if (status == 0)
        status = data[0] & 1 ? json_object_walk(&window, 0, visit_element, &last, &err)
                             : json_array_walk(&window, 0, visit_element, &last, &err);
    fuzz_result(status, &err);
    window_free(&window);
    close(window.fd);
}

/* Opens records and reads each again: all that were counted as usable must be. */
static void read_records(const char *path, const RecordsOptions *options) {
    Records *records;
    Skipped skipped = {0};
    Error err;
    int status = records_open(&records, path, options, &skipped, &err);
    fuzz_result(status, &err);
    if (status) return;
    fuzz_check(records_count(records) > 0, "a record can be used");
    fuzz_check(records_scanned(records) >= records_count(records), "all were seen");
    for (int64_t i = 0; i < records_count(records); i++) {
        Record record;
        char image[600];
        fuzz_check(records_read(records, i, &record, &err) == 0, "a usable record is read again");
        fuzz_check(record.count > 0, "a usable record has a turn");
        if (record.image)
            fuzz_result(records_image_path(records, &record, image, sizeof image, &err), &err);
        record_free(&record);
    }
    records_close(records);
}

void fuzz_records(const uint8_t *data, size_t size) {
    if (!size) return;
    RecordsOptions options = {.images = data[0] & 1 ? images() : NULL,
                              .text_lines = data[0] & 2,
                              .check_images = data[0] & 4,
                              .limit = data[0] & 8 ? 2 : 0};
    read_records(fuzz_file(0, data + 1, size - 1), &options);
}

/* The name of a file decides about language and subject; the first byte about the options. */
void fuzz_formats(const uint8_t *data, size_t size) {
    static const char *const names[] = {"formats/art_val.csv", "formats/mgsm_de.tsv"};
    if (!size) return;
    const unsigned kind = data[0];
    data++, size--;
    FuzzPiece text = fuzz_piece(&data, &size);
    FuzzPiece other = fuzz_piece(&data, &size);
    const char *shots = other.size ? fuzz_file(1, other.data, other.size) : NULL;
    RecordsOptions options = {.prompts_for = kind & 1 ? "train adapt" : NULL,
                              .limit = kind & 2 ? 2 : 0,
                              .prompt = {.prompt_template = kind & 4 ? "{source} {answer}: " : NULL,
                                         .instruction = kind & 8 ? "Do." : NULL,
                                         .no_instruction = kind & 16,
                                         .shots = shots && !(kind & 32) ? 1 : 0,
                                         .demonstrations = kind & 32 ? NULL : shots,
                                         .answers = kind & 32 ? shots : NULL,
                                         .pairs = kind & 64}};
    read_records(fuzz_write(2, names[kind >> 7], text.data, text.size), &options);
}

void fuzz_archive(const uint8_t *data, size_t size) {
    static const char *const names[] = {"a", "images/a.png", "../a", ""};
    char path[400];
    fuzz_write(2, "archive.zip", data, size);
    for (int i = 0; i < 4; i++) {
        uint8_t *bytes;
        size_t found;
        Error err;
        snprintf(path, sizeof path, "%s/archive.zip/%s", fuzz_folder(), names[i]);
        int status = archive_read(path, 1 << 16, &bytes, &found, &err);
        fuzz_result(status, &err);
        if (status) continue;
        fuzz_touch(bytes, found);
        free(bytes);
    }
}

void fuzz_ratio(const uint8_t *data, size_t size) {
    static const char lines[] = "{\"inputs\": \"a\", \"targets\": \"b\"}\n";
    static const char *const names[] = {"mixture/a.jsonl", "mixture/b.jsonl", "mixture/c/d.jsonl"};
    static char folder[300];
    for (int i = 0; i < 3 && !folder[0]; i++) fuzz_write(0, names[i], lines, sizeof lines - 1);
    snprintf(folder, sizeof folder, "%s/mixture", fuzz_folder());
    fuzz_write(0, "mixture/ratio.json", data, size);
    read_records(folder, &(RecordsOptions){0});
}

void fuzz_gqa_questions(const uint8_t *data, size_t size) {
    if (!size) return;
    const char *path = fuzz_file(0, data + 1, size - 1);
    GqaQuestions questions;
    Skipped skipped = {0};
    Error err;
    int status = gqa_questions_read(&questions, path, data[0] & 1, &skipped, &err);
    fuzz_result(status, &err);
    for (int64_t i = 0; status == 0 && i < questions.count; i++) {
        fuzz_check(gqa_find(&questions, gqa_id(&questions, i)) == i, "a question is found");
        const char *image = gqa_image(&questions, i), *text = gqa_text(&questions, i);
        fuzz_check(!image || image[0] != '/', "an image is below its folder");
        fuzz_check(!text || strlen(text) <= size, "a text");
    }
    gqa_questions_free(&questions);
}

static int visit_prediction(void *user, const char *id, const char *text, bool llava, Error *err) {
    (void)user, (void)llava;
    char *line = gqa_answer_line(id, NULL, text, NULL);
    if (!line) return error_set(err, "out of memory");
    fuzz_check(!strchr(line, '\n'), "an answer is one line");
    free(line);
    return 0;
}

static int visit_map(void *user, const char *id, const double *map, Error *err) {
    (void)user, (void)err, (void)id;
    for (int i = 0; i < GQA_MAP_CELLS; i++) fuzz_check(map[i] - map[i] == 0, "a map is finite");
    return 0;
}

void fuzz_gqa_predictions(const uint8_t *data, size_t size) {
    if (!size) return;
    const char *path = fuzz_file(0, data + 1, size - 1);
    Skipped skipped = {0};
    Error err;
    int status = data[0] & 1 ? gqa_attentions_walk(path, visit_map, NULL, &skipped, &err)
                             : gqa_predictions_walk(path, visit_prediction, NULL, &skipped, &err);
    fuzz_result(status, &err);
}

/* Predictions, questions, choices, scene graphs and attentions, separated by 0xFF. */
void fuzz_gqa_score(const uint8_t *data, size_t size) {
    const char *paths[5];
    for (int i = 0; i < 5; i++) {
        FuzzPiece piece = fuzz_piece(&data, &size);
        paths[i] = i < 2 || piece.size ? fuzz_file(i, piece.data, piece.size) : NULL;
    }
    GqaFiles files = {.predictions = paths[0],
                      .questions = paths[1],
                      .choices = paths[2],
                      .scene_graphs = paths[3],
                      .attentions = paths[4]};
    static GqaScore score;
    Error err;
    int status = gqa_score(&score, &files, &err);
    fuzz_result(status, &err);
    if (status) return;
    for (int i = 0; i < GQA_METRICS; i++)
        if (score.metrics[i].present)
            fuzz_check(score.metrics[i].value - score.metrics[i].value == 0, "a metric is finite");
    gqa_score_free(&score);
}

void fuzz_scene_graphs(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    SceneGraphs graphs;
    SceneGraphsOptions options = {.images = images()};
    Skipped skipped = {0};
    Error err;
    int status = scene_graphs_open(&graphs, &path, 1, &options, &skipped, &err);
    fuzz_result(status, &err);
    for (int64_t i = 0; status == 0 && i < graphs.count; i++) {
        const Scene *s = &graphs.scenes[i];
        int32_t labels[49];
        SceneGrid grid = {7, 0, 0, s->width / 7.0, s->height / 7.0};
        scene_labels(labels, &graphs, s, &grid);
        for (int k = 0; k < 49; k++)
            fuzz_check(labels[k] >= 0 && labels[k] < graphs.class_count, "a label is a class");
    }
    scene_graphs_close(&graphs);
}

void fuzz_causal_graph(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size);
    CausalGraphs graphs;
    Error err;
    int status = causal_graphs_read(&graphs, path, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < graphs.count; i++) {
        const CausalGraph *g = &graphs.items[i];
        size_t *places = calloc(2 * (size_t)g->segment_count, sizeof *places);
        if (!places) break;
        fuzz_check(causal_graph_match(g, g->answer, places, places + g->segment_count) < 0,
                   "the annotated answer has all segments");
        causal_graph_match(g, g->prompt, places, places + g->segment_count);
        free(places);
    }
    causal_graphs_free(&graphs);
}

void fuzz_order_prompts(const uint8_t *data, size_t size) {
    OrderPrompts prompts = {0};
    Skipped skipped = {0};
    Error err;
    fuzz_result(order_prompts_read(&prompts, fuzz_file(0, data, size), 0, &skipped, &err), &err);
    for (size_t i = 0; i < prompts.count; i++)
        fuzz_check(prompts.items[i].id && prompts.items[i].text, "a prompt has an id and a text");
    order_prompts_free(&prompts);
}
