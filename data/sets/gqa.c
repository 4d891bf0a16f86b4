#include "data/sets/gqa.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files/array_grow.h"
#include "data/sets/gqa_file.h"
#include "data/sets/image_file.h"
#include "data/files/text_space.h"
#include "data/files/path.h"

/* A growing list of texts, of the current question. */
typedef struct Names {
    const char **items;
    size_t count, capacity;
} Names;

typedef struct Walk {
    const char *path; /* of the current file */
    GqaVisit visit;
    void *user;
    Skipped *skipped;
    int64_t *bad;
    int64_t count; /* questions */
    bool lines;
    char where[120]; /* "question 20" or "line 7" */
    char *image;     /* [image_capacity] */
    size_t image_capacity;
    Names entailed, regions;
} Walk;

static void add_bad(const Walk *w, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_bad(const Walk *w, const char *kind, const char *format, ...) {
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    skipped_add(w->skipped, kind, "%.150s: %s: %s", w->path, w->where, what);
}

/* What is wrong with a member: "missing", for example. */
static const char *state_of(const json_t *value) {
    if (!value) return "missing";
    if (json_is_null(value)) return "null";
    return json_is_string(value) ? "a string with a NUL byte" : "of another kind";
}

static void field_wrong(const Walk *w, const char *name, const json_t *value) {
    add_bad(w, "other fields missing or wrong", "\"%s\" is %s", name, state_of(value));
}

static int names_add(const Walk *w, Names *names, const char *name, Error *err) {
    if (names->count == names->capacity) {
        const char **grown = array_grow(names->items, &names->capacity, sizeof *grown);
        if (!grown) return error_set(err, "%s: out of memory for %s", w->path, w->where);
        names->items = grown;
    }
    names->items[names->count++] = name;
    return 0;
}

/* ---- The fields of an official question. ---- */

static void take_types(const Walk *w, const json_t *entry, GqaQuestion *q) {
    const json_t *types = json_object_get(entry, "types");
    q->structural = gqa_member(types, "structural");
    q->semantic = gqa_member(types, "semantic");
    q->detailed = gqa_member(types, "detailed");
    if (!q->structural || !q->semantic || !q->detailed)
        add_bad(w, "question without types",
                "\"types\" is %s; expected the strings \"structural\", \"semantic\" and "
                "\"detailed\" in it",
                json_is_object(types) ? "not complete" : state_of(types));
}

static void take_group(const Walk *w, const json_t *entry, GqaQuestion *q) {
    const json_t *groups = json_object_get(entry, "groups");
    const json_t *group = json_object_get(groups, "global");
    q->group = gqa_member(groups, "global");
    if (!q->group && !json_is_null(group)) field_wrong(w, "groups.global", group);
}

static bool begins_with(const char *text, const char *begin) {
    return !strncmp(text, begin, strlen(begin));
}

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), tail = strlen(end);
    return size >= tail && !strcmp(text + size - tail, end);
}

/* Whether a step adds to the reasoning: the official script looks for three texts in "operation:
 * argument", of which only one can span the colon. */
static bool is_step(const char *operation, const char *argument) {
    static const char *const others[] = {"exist", "query: name", "choose name"};
    for (int i = 0; i < 3; i++)
        if (strstr(operation, others[i]) || strstr(argument, others[i])) return false;
    return !(ends_with(operation, "query") && begins_with(argument, "name"));
}

static void take_steps(const Walk *w, const json_t *entry, GqaQuestion *q) {
    const json_t *semantic = json_object_get(entry, "semantic"), *step;
    size_t i;
    q->steps = -1;
    if (!json_is_array(semantic)) {
        field_wrong(w, "semantic", semantic);
        return;
    }
    q->steps = 0;
    json_array_foreach(semantic, i, step) {
        const char *operation = gqa_member(step, "operation");
        const char *argument = gqa_member(step, "argument");
        if (!operation || !argument)
            field_wrong(w, operation ? "semantic.argument" : "semantic.operation",
                        json_object_get(step, operation ? "argument" : "operation"));
        q->steps += is_step(operation ? operation : "", argument ? argument : "");
        if (json_object_get(step, "scene")) q->scene = true;
    }
}

static int take_entailed(Walk *w, const json_t *entry, Error *err) {
    const json_t *entailed = json_object_get(entry, "entailed"), *id;
    size_t i;
    if (!json_is_array(entailed)) field_wrong(w, "entailed", entailed);
    json_array_foreach(entailed, i, id) {
        const char *text = json_string_value(id);
        if (!text || strlen(text) != json_string_length(id))
            field_wrong(w, "an id in \"entailed\"", id);
        else
            TRY(names_add(w, &w->entailed, text, err));
    }
    return 0;
}

static int take_regions(Walk *w, const json_t *entry, const char *name, Error *err) {
    const json_t *all = json_object_get(json_object_get(entry, "annotations"), name), *id;
    char field[40];
    const char *word;
    snprintf(field, sizeof field, "annotations.%s", name);
    if (!json_is_object(all)) field_wrong(w, field, all);
    json_object_foreach((json_t *)all, word, id) {
        const char *text = json_string_value(id);
        if (!text || strlen(text) != json_string_length(id))
            field_wrong(w, field, id);
        else
            TRY(names_add(w, &w->regions, text, err));
    }
    return 0;
}

/* ---- What both formats have. ---- */

/* The image's file, from the name in the field `key`. */
static int take_image(Walk *w, const json_t *entry, const char *key, GqaQuestion *q, Error *err) {
    const char *name = gqa_member(entry, key);
    if (!name || !*name) {
        add_bad(w, "question without an image", "\"%s\" is %s", key,
                name ? "empty" : state_of(json_object_get(entry, key)));
        return 0;
    }
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    q->image_id = name;
    if (!*last || image_leaves_folder(name)) {
        add_bad(w, "image outside of the folder",
                "%.60s: expected a path within the folder of images, without \"..\"", name);
        return 0;
    }
    size_t size = strlen(name) + sizeof ".jpg";
    while (w->image_capacity < size) {
        char *grown = array_grow(w->image, &w->image_capacity, 1);
        if (!grown) return error_set(err, "%s: out of memory for %s", w->path, w->where);
        w->image = grown;
    }
    snprintf(w->image, w->image_capacity, "%s%s", name, strchr(last, '.') ? "" : ".jpg");
    q->image = w->image;
    return 0;
}

static void take_text(const Walk *w, const json_t *entry, const char *key, GqaQuestion *q) {
    q->text = gqa_member(entry, key);
    size_t size = q->text ? strlen(q->text) : 0;
    if (text_space_begin(q->text, size) == size) q->text = NULL;
    if (!q->text) {
        const json_t *value = json_object_get(entry, key);
        add_bad(w, "question without a text", "\"%s\" is %s", key,
                gqa_member(entry, key) ? "empty" : state_of(value));
    }
}

static int show(Walk *w, GqaQuestion *q, Error *err) {
    q->entailed = w->entailed.items, q->entailed_count = (int)w->entailed.count;
    q->regions = w->regions.items, q->region_count = (int)w->regions.count;
    w->count++;
    return w->visit(w->user, q, err);
}

static int take_official(Walk *w, const JsonElement *element, Error *err) {
    const json_t *entry = element->value;
    GqaQuestion q = {.id = element->key, .balanced = true, .steps = -1};
    snprintf(w->where, sizeof w->where, "question %.80s", element->key);
    if (!json_is_object(entry)) {
        if (element->why)
            add_bad(w, "question that is not an object", "%.120s", element->why);
        else
            add_bad(w, "question that is not an object", "expected an object");
        return show(w, &q, err);
    }
    const json_t *balanced = json_object_get(entry, "isBalanced");
    if (!json_is_boolean(balanced)) field_wrong(w, "isBalanced", balanced);
    q.balanced = !json_is_false(balanced);
    q.answer = gqa_member(entry, "answer");
    if (!q.answer)
        add_bad(w, "question without an answer", "\"answer\" is %s",
                state_of(json_object_get(entry, "answer")));
    take_text(w, entry, "question", &q);
    TRY(take_image(w, entry, "imageId", &q, err));
    take_types(w, entry, &q);
    take_group(w, entry, &q);
    take_steps(w, entry, &q);
    TRY(take_entailed(w, entry, err));
    TRY(take_regions(w, entry, "question", err));
    TRY(take_regions(w, entry, "fullAnswer", err));
    return show(w, &q, err);
}

static int take_line(Walk *w, const JsonElement *element, Error *err) {
    const json_t *entry = element->value, *id = json_object_get(entry, "question_id");
    char digits[24];
    GqaQuestion q = {.id = gqa_id_of(id, digits), .llava = true, .balanced = true, .steps = -1};
    snprintf(w->where, sizeof w->where, "line %lld", (long long)element->number);
    if (!q.id) {
        ++*w->bad;
        if (json_is_object(entry))
            add_bad(w, GQA_NO_ID, "\"question_id\" is %s", state_of(id));
        else
            add_bad(w, GQA_NO_OBJECT, "%.120s", element->why ? element->why : "something else");
        return 0;
    }
    q.answer = gqa_member(entry, "answer");
    take_text(w, entry, "text", &q);
    TRY(take_image(w, entry, "image", &q, err));
    return show(w, &q, err);
}

static int visit_entry(void *user, const JsonElement *element, Error *err) {
    Walk *w = user;
    w->entailed.count = w->regions.count = 0;
    w->lines = !element->key;
    return w->lines ? take_line(w, element, err) : take_official(w, element, err);
}

/* ---- Files and folders. ---- */

static int walk_file(Walk *w, const char *path, Error *err) {
    w->path = path;
    return gqa_file_walk(path, 1u << GQA_FILE_OBJECT | 1u << GQA_FILE_LINES,
                         "GQA's {\"id\": {\"question\": ...}} or LLaVA's lines of "
                         "{\"question_id\": ...}",
                         visit_entry, w, err);
}

static int is_json(const struct dirent *entry) {
    return entry->d_name[0] != '.' && ends_with(entry->d_name, ".json");
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int walk_folder(Walk *w, const char *path, Error *err) {
    struct dirent **entries;
    int count = scandir(path, &entries, is_json, by_name), status = 0;
    if (count < 0) return error_set(err, "%s: %s", path, strerror(errno));
    if (count == 0)
        status =
            error_set(err, "%s: the folder has no .json files; expected GQA's questions", path);
    for (int i = 0; i < count; i++) {
        char *file = status ? NULL : path_join(path, entries[i]->d_name, err);
        if (status == 0) status = file ? walk_file(w, file, err) : -1;
        free(file);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static int no_questions(const char *path, bool folder, const Skipped *skipped, Error *err) {
    GqaFile file;
    const char *hint = NULL;
    if (!folder) {
        TRY(gqa_file_open(&file, path, err));
        hint = gqa_file_hint(&file);
        gqa_file_close(&file);
    }
    if (hint) return error_set(err, "%s: it has no questions: this is %s", path, hint);
    if (!skipped->kind_count) return error_set(err, "%s: it has no questions", path);
    return error_set(err, "%s: it has no questions: %s: %lld (%s)", path, skipped->kinds[0].kind,
                     (long long)skipped->kinds[0].count, skipped->kinds[0].first);
}

int gqa_questions_walk(const char *path, GqaVisit visit, void *user, Skipped *skipped, int64_t *bad,
                       Error *err) {
    struct stat info;
    Walk walk = {.visit = visit, .user = user, .skipped = skipped, .bad = bad};
    *bad = 0;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    int status = folder ? walk_folder(&walk, path, err) : walk_file(&walk, path, err);
    if (status == 0 && !walk.count) status = no_questions(path, folder, skipped, err);
    free(walk.image), free(walk.entailed.items), free(walk.regions.items);
    return status;
}

/* ---- The questions that are to be asked. ---- */

typedef struct Reading {
    GqaQuestions *questions;
    const char *path;
    bool all;
    Skipped *skipped;
} Reading;

static int keep_text(TextTable *table, const char *text, int32_t *number, Error *err) {
    *number = -1;
    return text ? text_table_add(table, text, number, NULL, err) : 0;
}

static int keep_question(void *user, const GqaQuestion *question, Error *err) {
    Reading *r = user;
    GqaQuestions *q = r->questions;
    GqaAsked asked;
    bool fresh;
    q->llava = question->llava;
    if (!question->balanced && !r->all) return 0;
    TRY(text_table_add(&q->ids, question->id, &asked.id, &fresh, err));
    TRY(keep_text(&q->texts, question->image, &asked.image, err));
    TRY(keep_text(&q->texts, question->text, &asked.text, err));
    if (!fresh) {
        skipped_add(r->skipped, GQA_TWICE, "%.150s: question %.80s: the last one counts", r->path,
                    question->id);
    } else if ((size_t)q->count == q->capacity) {
        GqaAsked *grown = array_grow(q->items, &q->capacity, sizeof *grown);
        if (!grown)
            return error_set(err, "%s: out of memory for %lld questions", r->path,
                             (long long)q->count);
        q->items = grown;
    }
    q->items[asked.id] = asked;
    q->count += fresh;
    return 0;
}

int gqa_questions_read(GqaQuestions *questions, const char *path, bool all, Skipped *skipped,
                       Error *err) {
    *questions = (GqaQuestions){0};
    Reading reading = {questions, path, all, skipped};
    int status = gqa_questions_walk(path, keep_question, &reading, skipped, &questions->bad, err);
    if (status == 0 && !questions->count)
        status = error_set(err, "%s: none of its questions is balanced", path);
    if (status) gqa_questions_free(questions);
    return status;
}

void gqa_questions_free(GqaQuestions *questions) {
    text_table_free(&questions->ids);
    text_table_free(&questions->texts);
    free(questions->items);
    *questions = (GqaQuestions){0};
}
