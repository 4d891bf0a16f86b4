/* text_read.c - the files of text tasks. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/eval/text_score.h"
#include "data/files/file_kind.h"
#include "data/files/json_read.h"
#include "data/metrics/answers.h"
#include "data/sets/pieces.h"
#include "data/files/json_memory.h"

/* "folder/0shot.english.jsonl.gz": "0shot.english" */
static char *name_of(const char *path) {
    static const char *const endings[] = {".gz", ".jsonl", ".json", ".csv", ".tsv"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t size = strlen(name);
    bool found = false; /* one of a format */
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && !found; i++) {
        size_t length = strlen(endings[i]);
        if (size <= length || strncmp(name + size - length, endings[i], length)) continue;
        size -= length;
        found = i > 0;
    }
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

/* Why a target cannot be scored by a task; NULL: it can. */
static int target_check(EvalItem *item, const char *target, EvalTask task, Error *err) {
    char *number = NULL;
    if (task != EVAL_NUMBER || item->kind) return 0;
    TRY(answer_last_integer(target, &number, err));
    bool found = number != NULL;
    free(number);
    if (found) return 0;
    return eval_item_bad(item, "target without a number", err, "it is \"%.100s\"", target);
}

/* A line's JSON, or NULL with the reason. */
static int parse_line(const Piece *piece, json_t **object, char *why, size_t size, Error *err) {
    json_error_t where;
    *object = NULL;
    if (piece->too_long) {
        snprintf(why, size, "the line has more than %d MiB", WINDOW_MOST >> 20);
        return 0;
    }
    if (json_too_heavy(piece->text, piece->size, 0, why, size)) return 0;
    *object = json_loadb_whole(piece->text, piece->size, 0, &where);
    if (!*object && (json_error_code(&where) == json_error_out_of_memory || !where.text[0]))
        return error_set(err, "out of memory for line %lld", (long long)piece->line);
    if (!*object) snprintf(why, size, "%s", where.text);
    return 0;
}

/* Makes a line an item; records what is wrong with it. */
static int take_line(EvalTextSet *s, EvalTextFile *file, const Piece *piece,
                     const Prompting *prompting, EvalTask task, Error *err) {
    char why[200];
    json_t *line, *object;
    ObjectFault fault = {0};
    TRY(make_room(s, err));
    TRY(parse_line(piece, &line, why, sizeof why, err));
    object = line ? format_object(line, prompting, &fault) : NULL;
    json_decref(line);
    if (fault.memory) return error_set(err, "out of memory for line %lld", (long long)piece->line);
    const char *input = json_string_value(json_object_get(object, "inputs"));
    const char *target = json_string_value(json_object_get(object, "targets"));
    int64_t i = s->items.count, number = piece->line;
    if (asprintf(&s->ids[i], "%s:%lld", file->name, (long long)number) < 0) s->ids[i] = NULL;
    s->inputs[i] = input ? strdup(input) : NULL;
    s->targets[i] = strdup(target ? target : "");
    EvalItem *item = &s->items.items[i];
    *item = (EvalItem){.id = s->ids[i], .text = s->inputs[i]};
    s->items.count++;
    file->usable += input && target;
    int status = 0;
    if (!s->ids[i] || !s->targets[i] || (input && !item->text))
        status = error_set(err, "out of memory for line %lld", (long long)number);
    else if (fault.kind)
        status = eval_item_bad(item, fault.kind, err, "%s", fault.why);
    else if (!object)
        status = eval_item_bad(item, "line that is not JSON", err, "%s", why);
    else if (!input || !target)
        status = eval_item_bad(item, "line without texts \"inputs\" and \"targets\"", err,
                               "\"%s\" is missing or not a string", input ? "targets" : "inputs");
    else
        status = target_check(item, target, task, err);
    json_decref(object);
    return status;
}

static int take_lines(EvalTextSet *s, EvalTextFile *file, FileWindow *window,
                      const Prompting *prompting, int64_t limit, EvalTask task, Error *err) {
    TRY(window_more(window, 0, err));
    bool mark = window->size >= 3 && !memcmp(window->bytes, "\xef\xbb\xbf", 3);
    Pieces pieces = {.window = window, .at = mark ? 3 : 0};
    while (!limit || s->items.count - file->first < limit) {
        Piece piece;
        TRY(pieces_next(&pieces, &piece, err));
        if (!piece.text) break;
        if (take_line(s, file, &piece, prompting, task, err))
            return error_context(err, "%s", window->path);
    }
    return 0;
}

/* A file without a usable line has another format. */
static int check_usable(const EvalTextSet *s, const EvalTextFile *file, const FileWindow *window,
                        Error *err) {
    if (file->end == file->first)
        return error_set(err, "%s: it has no lines to answer", window->path);
    if (file->usable) return 0;
    const char *kind = file_kind_of(window->fd);
    const EvalItem *first = &s->items.items[file->first];
    if (kind)
        return error_set(err, "%s: expected lines of {\"inputs\", \"targets\"}, but this is %s",
                         window->path, kind);
    return error_set(err,
                     "%s: expected lines of {\"inputs\", \"targets\"}, but none of its %lld lines "
                     "is one (%s: %.300s), nor is it of another format that is read: %s",
                     window->path, (long long)(file->end - file->first), first->id, first->why,
                     formats_list());
}

static void count_rejected(void *user, const char *kind, const char *why) {
    skipped_add(user, kind, "%s", why);
}

static int read_file(EvalTextSet *s, EvalTextFile *file, const char *path,
                     const Prompting *prompting, int64_t limit, EvalTask task, Error *err) {
    const FormatOptions options = {.prompting = prompting,
                                   .lines = true,
                                   .limit = limit,
                                   .reject = count_rejected,
                                   .user = &s->rejected};
    FormatFile opened;
    TRY(format_file_open(&opened, path, &options, err));
    FileWindow window = {.path = path, .fd = opened.fd};
    file->first = s->items.count;
    int status = take_lines(s, file, &window, opened.built ? NULL : prompting, limit, task, err);
    file->end = s->items.count;
    if (status == 0) status = check_usable(s, file, &window, err);
    window_free(&window);
    close(window.fd);
    return status;
}

static int read_files(EvalTextSet *s, char *const *paths, int count, const Prompting *prompting,
                      int64_t limit, EvalTask task, Error *err) {
    s->files = calloc((size_t)count, sizeof *s->files);
    if (!s->files) return error_set(err, "out of memory for %d files", count);
    for (int f = 0; f < count; f++) {
        EvalTextFile *file = &s->files[s->file_count++];
        file->name = name_of(paths[f]);
        if (!file->name) return error_set(err, "out of memory for a name");
        for (int other = 0; other < f; other++)
            if (!strcmp(s->files[other].name, file->name))
                return error_set(err,
                                 "%s: another file is named %s, too: their answers could not be "
                                 "told apart",
                                 paths[f], file->name);
        TRY(read_file(s, file, paths[f], prompting, limit, task, err));
    }
    return 0;
}

int eval_text_read(EvalTextSet *s, char *const *paths, int count, int64_t limit, EvalTask task,
                   Error *err) {
    Prompting prompting;
    TRY(prompting_open(&prompting, &s->prompt, err));
    int status = read_files(s, paths, count, &prompting, limit, task, err);
    prompting_close(&prompting);
    return status;
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

int eval_text_subjects(EvalTextSet *s, const char *path, int64_t *spare, Error *err) {
    json_t *list;
    TRY(json_read_file(&list, path, 0, 0, 0, err));
    int64_t count = s->items.count, given = (int64_t)json_array_size(list);
    int status = 0;
    *spare = given - count;
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
            status = error_set(err, "%s: subject %lld is not a string", path, (long long)i + 1);
        else if (!(s->subjects[i] = strdup(name)))
            status = error_set(err, "out of memory for the subjects");
    }
    json_decref(list);
    return status;
}
