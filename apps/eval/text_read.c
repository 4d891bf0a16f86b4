/* text_read.c - the files of text tasks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/text_score.h"
#include "data/array_grow.h"
#include "data/metrics/answers.h"

/* "folder/0shot.english.jsonl": "0shot.english" */
static char *name_of(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t size = strlen(name);
    if (size > 6 && !strcmp(name + size - 6, ".jsonl")) size -= 6;
    return strndup(name, size);
}

static int make_room(EvalTextSet *s, Error *err) {
    if ((size_t)s->items.count < s->capacity) return 0;
    size_t capacity = s->capacity ? 2 * s->capacity : 1024;
    EvalItem *items = realloc(s->items.items, capacity * sizeof *items);
    if (items) s->items.items = items;
    char ***lists[] = {&s->ids, &s->inputs, &s->targets};
    bool failed = !items;
    for (int i = 0; i < 3; i++) {
        char **list = realloc(*lists[i], capacity * sizeof *list);
        if (list) *lists[i] = list;
        failed |= !list;
    }
    if (failed) return error_set(err, "out of memory for %lld lines", (long long)s->items.count);
    s->capacity = capacity;
    return 0;
}

/* What makes a target useless for a task; NULL if nothing does. */
static int target_check(EvalItem *item, const char *target, EvalTask task, Error *err) {
    char *number = NULL;
    if (task != EVAL_NUMBER || item->kind) return 0;
    TRY(answer_last_integer(target, &number, err));
    bool found = number != NULL;
    free(number);
    if (found) return 0;
    return eval_item_bad(item, "target without a number", err, "it is \"%.100s\"", target);
}

/* One line as an item; its problems are noted. */
static int take_line(EvalTextSet *s, const EvalTextFile *file, const char *line, size_t size,
                     int64_t number, EvalTask task, Error *err) {
    TRY(make_room(s, err));
    json_error_t where;
    json_t *object = json_loadb(line, size, 0, &where);
    const char *input = json_string_value(json_object_get(object, "inputs"));
    const char *target = json_string_value(json_object_get(object, "targets"));
    int64_t i = s->items.count;
    if (asprintf(&s->ids[i], "%s:%lld", file->name, (long long)number) < 0) s->ids[i] = NULL;
    s->inputs[i] = input ? strdup(input) : NULL;
    s->targets[i] = strdup(target ? target : "");
    EvalItem *item = &s->items.items[i];
    *item = (EvalItem){.id = s->ids[i], .text = s->inputs[i]};
    s->items.count++;
    int status = 0;
    if (!s->ids[i] || !s->targets[i] || (input && !item->text))
        status = error_set(err, "out of memory for line %lld", (long long)number);
    else if (!object)
        status = eval_item_bad(item, "line that is no JSON", err, "%s", where.text);
    else if (!input || !target)
        status = eval_item_bad(item, "line without texts \"inputs\" and \"targets\"", err,
                               "\"%s\" is missing", input ? "targets" : "inputs");
    else
        status = target_check(item, target, task, err);
    json_decref(object);
    return status;
}

static int read_file(EvalTextSet *s, EvalTextFile *file, const char *path, int64_t limit,
                     EvalTask task, Error *err) {
    FILE *in = fopen(path, "r");
    if (!in) return error_set(err, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    int status = 0;
    file->first = s->items.count;
    errno = 0;
    for (int64_t number = 1; status == 0 && (!limit || s->items.count - file->first < limit);
         number++) {
        ssize_t n = getline(&line, &capacity, in);
        if (n < 0) break;
        const char *text = line;
        if (number == 1 && n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;
        bool empty = text[strspn(text, " \t\r\n")] == 0 && strlen(text) == (size_t)n;
        if (!empty) status = take_line(s, file, text, (size_t)n, number, task, err);
    }
    if (status == 0 && ferror(in)) status = error_set(err, "%s: %s", path, strerror(errno));
    file->end = s->items.count;
    if (status == 0 && file->end == file->first)
        status = error_set(err, "%s: it has no lines to answer", path);
    free(line);
    fclose(in);
    return status;
}

int eval_text_read(EvalTextSet *s, char *const *paths, int count, int64_t limit, EvalTask task,
                   Error *err) {
    s->files = calloc((size_t)count, sizeof *s->files);
    if (!s->files) return error_set(err, "out of memory for %d files", count);
    for (int f = 0; f < count; f++) {
        EvalTextFile *file = &s->files[s->file_count++];
        file->name = name_of(paths[f]);
        if (!file->name) return error_set(err, "out of memory for a name");
        for (int other = 0; other < f; other++)
            if (!strcmp(s->files[other].name, file->name))
                return error_set(err,
                                 "%s: another file has the name %s, too: answers could not be "
                                 "told apart",
                                 paths[f], file->name);
        TRY(read_file(s, file, paths[f], limit, task, err));
    }
    return 0;
}

void eval_text_free(EvalTextSet *s) {
    for (int64_t i = 0; i < s->items.count; i++) {
        free(s->ids[i]), free(s->inputs[i]), free(s->targets[i]);
        if (s->subjects) free(s->subjects[i]);
    }
    for (int f = 0; f < s->file_count; f++) free(s->files[f].name);
    eval_items_free(&s->items);
    free(s->ids), free(s->inputs), free(s->targets), free(s->subjects), free(s->files);
    *s = (EvalTextSet){0};
}

int eval_text_subjects(EvalTextSet *s, const char *path, Error *err) {
    json_error_t where;
    json_t *list = json_load_file(path, 0, &where);
    if (!list) return error_set(err, "%s: line %d: %s", path, where.line, where.text);
    int64_t count = s->items.count, given = (int64_t)json_array_size(list);
    int status = 0;
    s->subjects = calloc((size_t)count + 1, sizeof *s->subjects);
    if (!s->subjects)
        status = error_set(err, "out of memory for the subjects");
    else if (given < count)
        status = error_set(err,
                           "%s: a JSON list of %lld subjects, one for each line, was expected; "
                           "it has %lld",
                           path, (long long)count, (long long)given);
    for (int64_t i = 0; i < count && status == 0; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        if (!name)
            status = error_set(err, "%s: subject %lld is no text", path, (long long)i + 1);
        else if (!(s->subjects[i] = strdup(name)))
            status = error_set(err, "out of memory for the subjects");
    }
    json_decref(list);
    return status;
}
