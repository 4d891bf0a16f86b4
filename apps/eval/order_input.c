#include "apps/eval/order_input.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files/array_grow.h"
#include "data/sets/gqa.h"
#include "data/sets/gqa_file.h"
#include "data/sets/image_file.h"
#include "data/sets/records.h"
#include "data/files/path.h"

void order_prompts_free(OrderPrompts *prompts) {
    for (size_t i = 0; i < prompts->count; i++) {
        OrderPrompt *item = &prompts->items[i];
        free(item->id), free(item->text), free(item->image), free(item->target);
    }
    free(prompts->items);
    *prompts = (OrderPrompts){0};
}

/* Adds a prompt; copies its texts. */
static int prompts_add(OrderPrompts *p, const OrderPrompt *prompt, Error *err) {
    if (p->count == p->capacity) {
        OrderPrompt *more = array_grow(p->items, &p->capacity, sizeof *more);
        if (!more) return error_set(err, "out of memory for prompts");
        p->items = more;
    }
    OrderPrompt *item = &p->items[p->count++];
    *item = (OrderPrompt){.id = strdup(prompt->id),
                          .text = strdup(prompt->text),
                          .image = prompt->image ? strdup(prompt->image) : NULL,
                          .target = prompt->target ? strdup(prompt->target) : NULL,
                          .is_question = prompt->is_question};
    if (item->id && item->text && (item->image || !prompt->image) &&
        (item->target || !prompt->target))
        return 0;
    return error_set(err, "out of memory for prompts");
}

static bool is_full(const OrderPrompts *p, int64_t limit) {
    return limit > 0 && p->count >= (size_t)limit;
}

/* ---- Questions in GQA's files. ---- */

static int add_questions(OrderPrompts *p, const char *path, int64_t limit, Skipped *skipped,
                         Error *err) {
    GqaQuestions questions;
    TRY(gqa_questions_read(&questions, path, false, skipped, err));
    int status = 0;
    for (int64_t i = 0; i < questions.count && status == 0 && !is_full(p, limit); i++) {
        const char *id = gqa_id(&questions, i), *text = gqa_text(&questions, i);
        const char *image = gqa_image(&questions, i);
        if (!text || !image)
            skipped_add(skipped, text ? "question without an image" : "empty question",
                        "%s: question %s", path, id);
        else
            status = prompts_add(p,
                                 &(OrderPrompt){.id = (char *)id,
                                                .text = (char *)text,
                                                .image = (char *)image,
                                                .is_question = true},
                                 err);
    }
    gqa_questions_free(&questions);
    return status;
}

/* ---- Records. ---- */

static int add_turns(OrderPrompts *p, const char *path, int64_t index, const Record *record,
                     int64_t limit, Skipped *skipped, Error *err) {
    for (int t = 0; t < record->count && !is_full(p, limit); t++) {
        char id[300];
        const char *text = record->turns[t].prompt;
        int size = record->id[0] ? snprintf(id, sizeof id, "%.250s", record->id)
                                 : snprintf(id, sizeof id, "%lld", (long long)index + 1);
        if (record->count > 1) snprintf(id + size, sizeof id - (size_t)size, ":%d", t + 1);
        if (!text[strspn(text, " \t\r\n\v\f")])
            skipped_add(skipped, "empty prompt", "%s: record %s", path, id);
        else if (record->image && image_leaves_folder(record->image))
            skipped_add(skipped, "image outside of the folder", "%s: record %s", path, id);
        else
            TRY(prompts_add(p,
                            &(OrderPrompt){.id = id,
                                           .text = (char *)text,
                                           .image = (char *)record->image,
                                           .target = (char *)record->turns[t].response,
                                           .is_question = record->image != NULL},
                            err));
    }
    return 0;
}

static int add_records(OrderPrompts *p, const char *path, int64_t limit, Skipped *skipped,
                       Error *err) {
    Records *records;
    RecordsOptions options = {.images = "", .limit = limit};
    TRY(records_open(&records, path, &options, skipped, err));
    int status = 0;
    for (int64_t i = 0; i < records_count(records) && status == 0 && !is_full(p, limit); i++) {
        Record record;
        status = records_read(records, i, &record, err);
        if (status) break;
        status = add_turns(p, path, i, &record, limit, skipped, err);
        record_free(&record);
    }
    records_close(records);
    return status;
}

/* ---- Which kind a file is. ---- */

typedef struct FirstLine {
    bool seen, question;
} FirstLine;

static int look_at_line(void *user, const JsonElement *element, Error *err) {
    FirstLine *first = user;
    (void)err;
    if (!element->value) return 0;
    first->seen = true;
    first->question = json_object_get(element->value, "question_id") != NULL;
    return 1;
}

int order_prompts_read(OrderPrompts *prompts, const char *path, int64_t limit, Skipped *skipped,
                       Error *err) {
    GqaFile file;
    TRY(gqa_file_open(&file, path, err));
    GqaFileKind kind = file.kind;
    const char *hint = gqa_file_hint(&file);
    gqa_file_close(&file);
    if (kind == GQA_FILE_OTHER && hint)
        return error_set(err, "%s: expected JSON, but this is %s", path, hint);
    if (kind == GQA_FILE_OTHER || kind == GQA_FILE_EMPTY)
        return error_set(err,
                         "%s: %s; expected JSON: GQA's questions, LLaVA's conversations, or "
                         "lines of {\"inputs\", \"targets\"}",
                         path, kind == GQA_FILE_EMPTY ? "it is empty" : "it is not JSON");
    FirstLine first = {0};
    if (kind == GQA_FILE_LINES)
        TRY(gqa_file_walk(path, 1u << GQA_FILE_LINES, "lines of JSON", look_at_line, &first, err));
    if (kind == GQA_FILE_OBJECT || first.question)
        return add_questions(prompts, path, limit, skipped, err);
    return add_records(prompts, path, limit, skipped, err);
}

int order_prompts_graphs(OrderPrompts *prompts, const CausalGraphs *graphs, int64_t limit,
                         Error *err) {
    for (size_t i = 0; i < graphs->count && !is_full(prompts, limit); i++) {
        const CausalGraph *g = &graphs->items[i];
        char id[32];
        snprintf(id, sizeof id, "graph %zu", i + 1);
        TRY(prompts_add(prompts,
                        &(OrderPrompt){.id = id,
                                       .text = g->prompt,
                                       .image = g->image,
                                       .target = g->answer,
                                       .is_question = g->is_question},
                        err));
    }
    return 0;
}

/* ---- Files of traces. ---- */

void order_paths_free(char **paths, int count) {
    for (int i = 0; i < count; i++) free(paths[i]);
    free(paths);
}

static int is_json(const struct dirent *entry) {
    size_t size = strlen(entry->d_name);
    return size > 5 && !strcmp(entry->d_name + size - 5, ".json");
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

int order_paths(char ***paths, int *count, const char *path, Error *err) {
    struct stat info;
    struct dirent **entries = NULL;
    *paths = NULL, *count = 0;
    if (strcmp(path, "-") && stat(path, &info))
        return error_set(err, "%s: %s", path, strerror(errno));
    bool folder = strcmp(path, "-") && S_ISDIR(info.st_mode);
    int n = folder ? scandir(path, &entries, is_json, by_name) : 1;
    if (n < 0) return error_set(err, "%s: %s", path, strerror(errno));
    int status = n ? 0 : error_set(err, "%s: no file in it ends in .json", path);
    if (status == 0 && !(*paths = calloc((size_t)n, sizeof **paths)))
        status = error_set(err, "out of memory for %d files", n);
    for (int i = 0; i < n && status == 0; i++) {
        char *name = folder ? path_join(path, entries[i]->d_name, err) : strdup(path);
        if (name)
            (*paths)[(*count)++] = name;
        else
            status = error_set(err, "out of memory for %d files", n);
    }
    for (int i = 0; folder && i < n; i++) free(entries[i]);
    free(entries);
    if (status) order_paths_free(*paths, *count), *paths = NULL, *count = 0;
    return status;
}
