/* talk.c - see talk.h. */
#include "apps/chat/talk.h"

#include <stdlib.h>
#include <string.h>

#include "apps/cli/json.h"
#include "apps/cli/library.h"
#include "data/files/file_write.h"
#include "data/files/json_read.h"

enum { TALK_FORMAT = 1 };

void talk_clear(Talk *talk) {
    for (size_t i = 0; i < talk->count; i++)
        free((char *)talk->turns[i].question), free((char *)talk->turns[i].answer);
    free(talk->turns);
    talk->turns = NULL;
    talk->count = talk->room = 0, talk->told = 0;
}

static void talk_free(Talk *talk) {
    talk_clear(talk);
    ef_image_close(talk->image);
    free(talk->path);
}

void talks_free(Talks *talks) {
    for (size_t i = 0; i < talks->count; i++) talk_free(&talks->items[i]);
    free(talks->items);
    *talks = (Talks){0};
}

int talk_add(Talk *talk, const char *question, const char *answer, Error *err) {
    if (talk->count == talk->room) {
        size_t room = 2 * talk->room + 8;
        ef_turn *turns = realloc(talk->turns, room * sizeof *turns);
        if (!turns) return error_set(err, "out of memory for %zu turns", room);
        talk->turns = turns, talk->room = room;
    }
    char *asked = strdup(question), *answered = strdup(answer);
    if (!asked || !answered) {
        free(asked), free(answered);
        return error_set(err, "out of memory for a turn");
    }
    ef_turn *turn = &talk->turns[talk->count++];
    turn->question = asked, turn->answer = answered;
    return 0;
}

/* A new conversation, whose path it takes over. */
static int talks_add(Talks *t, const ef_model *model, char *path, Error *err) {
    if (t->count == t->room) {
        size_t room = 2 * t->room + 4;
        Talk *items = realloc(t->items, room * sizeof *items);
        if (!items) {
            free(path);
            return error_set(err, "out of memory for %zu conversations", room);
        }
        t->items = items, t->room = room;
    }
    Talk talk = {.path = path};
    if (path && ef_image_open_for(model, path, &talk.image, library_error(err))) {
        free(path);
        return -1;
    }
    t->current = t->count;
    t->items[t->count++] = talk;
    return 0;
}

int talks_choose(Talks *t, const ef_model *model, const char *path, Error *err) {
    for (size_t i = 0; i < t->count; i++) {
        const char *known = t->items[i].path;
        if (path ? !known || (strcmp(path, known) && !file_same(path, known)) : known != NULL)
            continue;
        t->current = i;
        return 0;
    }
    char *copy = path ? strdup(path) : NULL;
    if (path && !copy) return error_set(err, "out of memory for a name");
    return talks_add(t, model, copy, err);
}

/* ---- Files. ---- */

static json_t *talk_json(const Talk *talk) {
    json_t *turns = json_array();
    for (size_t i = 0; i < talk->count; i++)
        json_array_append_new(turns, json_pack("{s:o, s:o}", "question",
                                               json_text(talk->turns[i].question), "answer",
                                               json_text(talk->turns[i].answer)));
    char *whole = talk->path ? realpath(talk->path, NULL) : NULL;
    json_t *image = talk->path ? json_text(whole ? whole : talk->path) : json_null();
    free(whole);
    return json_pack("{s:o, s:o}", "image", image, "turns", turns);
}

static int save_check(const Talks *talks, const char *model, const char *path, Error *err) {
    const FileRole output = {.role = "/save", .path = path};
    FileRole *inputs = calloc(talks->count + 1, sizeof *inputs);
    if (!inputs) return error_set(err, "out of memory for names of files");
    for (size_t i = 0; i < talks->count; i++)
        inputs[i] = (FileRole){.role = "an image", .path = talks->items[i].path};
    inputs[talks->count] = (FileRole){.role = "the model", .path = model, .whole = true};
    int status = file_roles_check(&output, 1, inputs, (int)talks->count + 1, err);
    free(inputs);
    return status;
}

int talks_save(const Talks *talks, const char *model, const char *path, Error *err) {
    TRY(save_check(talks, model, path, err));
    json_t *list = json_array();
    for (size_t i = 0; i < talks->count; i++)
        json_array_append_new(list, talk_json(&talks->items[i]));
    json_t *object = json_pack("{s:i, s:I, s:o}", "format", TALK_FORMAT, "current",
                               (json_int_t)talks->current, "conversations", list);
    char *text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
    json_decref(object);
    if (!text) return error_set(err, "out of memory for %s", path);
    size_t size = strlen(text);
    text[size++] = '\n'; /* in place of its end: no text from here on */
    int status = file_write_all(path, text, size, err);
    free(text);
    return status;
}

static int load_turn(Talk *talk, const json_t *turn, Error *err) {
    const char *question = json_string_value(json_object_get(turn, "question"));
    const char *answer = json_string_value(json_object_get(turn, "answer"));
    if (!question || !answer || json_object_size(turn) != 2)
        return error_set(err, "turn %zu is not {\"question\": text, \"answer\": text}",
                         talk->count + 1);
    return talk_add(talk, question, answer, err);
}

static int load_talk(Talks *t, const ef_model *model, const json_t *object, Error *err) {
    const json_t *image = json_object_get(object, "image"), *turns, *turn;
    turns = json_object_get(object, "turns");
    if ((!json_is_string(image) && !json_is_null(image)) || !json_is_array(turns) ||
        json_object_size(object) != 2)
        return error_set(err, "it is not {\"image\": path or null, \"turns\": list}");
    const size_t before = t->count;
    TRY(talks_choose(t, model, json_string_value(image), err));
    if (t->count == before) return error_set(err, "its image is that of another one");
    for (size_t i = 0; i < json_array_size(turns); i++) {
        turn = json_array_get(turns, i);
        TRY(load_turn(&t->items[t->current], turn, err));
    }
    return 0;
}

static int load_all(Talks *t, const ef_model *model, const json_t *root, Error *err) {
    const json_t *list = json_object_get(root, "conversations");
    const json_t *current = json_object_get(root, "current");
    const size_t before = t->count, n = json_array_size(list);
    if (json_integer_value(json_object_get(root, "format")) != TALK_FORMAT || !n ||
        !json_is_integer(current) || json_object_size(root) != 3)
        return error_set(err,
                         "not saved conversations: expected {\"format\": %d, \"current\": index, "
                         "\"conversations\": list}, as /save writes them",
                         TALK_FORMAT);
    if (json_integer_value(current) < 0 || (size_t)json_integer_value(current) >= n)
        return error_set(err, "\"current\" is %lld, and there are %zu conversations",
                         (long long)json_integer_value(current), n);
    for (size_t i = 0; i < n; i++)
        if (load_talk(t, model, json_array_get(list, i), err))
            return error_context(err, "conversation %zu", i + 1);
    t->current = before + (size_t)json_integer_value(current);
    return 0;
}

int talks_load(Talks *talks, const ef_model *model, const char *path, Error *err) {
    json_t *root;
    TRY(json_read_file(&root, path, 0, JSON_REJECT_DUPLICATES, 0, err));
    int status = load_all(talks, model, root, err);
    json_decref(root);
    return status ? error_context(err, "%s", path) : 0;
}
