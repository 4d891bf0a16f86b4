#include "data/records_parse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/json_kind.h"
#include "data/picture_file.h"
#include "data/text_space.h"

static const char IMAGE_WORD[] = "<image>";
enum { IMAGE_WORD_SIZE = sizeof IMAGE_WORD - 1 };

/* One record on its way. */
typedef struct Draft {
    const RecordContext *context;
    char number[32]; /* an id that was a number */
    const char *id, *image;
    RecordTurn *turns; /* texts of the JSON object */
    int count;
} Draft;

void record_problem(const RecordContext *context, const char *id, const char *kind,
                    const char *format, ...) {
    if (!context->problems) return;
    char what[320];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    problems_add(context->problems, kind, "%s: %s %lld%s%.60s: %s", context->path, context->unit,
                 (long long)context->number, id[0] ? ", id " : "", id, what);
}

#define draft_problem(draft, kind, ...) \
    record_problem((draft)->context, (draft)->id, (kind), __VA_ARGS__)

static bool is_blank(const char *text) {
    size_t size = strlen(text);
    return text_space_begin(text, size) == size;
}

/* ---- Fields. ---- */

/* A field that must be a text. */
static bool take_text(Draft *draft, const json_t *value, const char *field, const char **text) {
    if (!json_is_string(value)) {
        draft_problem(draft, "wrong type", "\"%s\" is %s, a text was expected", field,
                      json_kind(value));
        return false;
    }
    *text = json_string_value(value);
    if (strlen(*text) == json_string_length(value)) return true;
    draft_problem(draft, "NUL byte", "\"%s\" has one, after %zu bytes: this is no text", field,
                  strlen(*text));
    return false;
}

static bool take_id(Draft *draft, const json_t *object) {
    const json_t *id = json_object_get(object, "id");
    if (!id || json_is_null(id)) return true;
    if (json_is_integer(id)) {
        snprintf(draft->number, sizeof draft->number, "%lld", (long long)json_integer_value(id));
        draft->id = draft->number;
        return true;
    }
    const char *text;
    if (!json_is_string(id)) {
        draft_problem(draft, "wrong type", "\"id\" is %s, a text or a whole number was expected",
                      json_kind(id));
        return false;
    }
    if (!take_text(draft, id, "id", &text)) return false;
    draft->id = text;
    return true;
}

static bool check_file(Draft *draft) {
    char text[512];
    const char *kind =
        picture_file_problem(text, sizeof text, draft->context->options->images, draft->image);
    if (kind) draft_problem(draft, kind, "%s", text);
    return !kind;
}

static bool take_image(Draft *draft, const json_t *object) {
    const json_t *image = json_object_get(object, "image");
    if (!image || json_is_null(image)) return true;
    if (!take_text(draft, image, "image", &draft->image)) return false;
    if (!draft->image[0]) {
        draft->image = NULL;
        return true;
    }
    if (picture_leaves_folder(draft->image)) {
        draft_problem(draft, "picture outside of the folder",
                      "%.200s: expected a path below the folder of pictures, without \"..\"",
                      draft->image);
        return false;
    }
    if (!draft->context->options->images) {
        draft_problem(draft, "picture without a folder",
                      "it has a picture, %.200s, but no folder of pictures is named (--images)",
                      draft->image);
        return false;
    }
    if (!draft->context->problems || !draft->context->options->check_images) return true;
    return check_file(draft);
}

/* ---- Turns. ---- */

static void add_turn(Draft *draft, const char *prompt, const char *answer, int turn) {
    if (is_blank(answer)) {
        draft_problem(draft, "empty answer", "turn %d has an answer without words", turn);
        return;
    }
    draft->turns[draft->count++] = (RecordTurn){prompt, answer};
}

typedef enum Speaker { SPEAKER_HUMAN, SPEAKER_ASSISTANT, SPEAKER_SYSTEM, SPEAKER_NONE } Speaker;

static Speaker speaker_of(const char *from) {
    static const struct {
        const char *name;
        Speaker speaker;
    } known[] = {{"human", SPEAKER_HUMAN},
                 {"user", SPEAKER_HUMAN},
                 {"gpt", SPEAKER_ASSISTANT},
                 {"assistant", SPEAKER_ASSISTANT},
                 {"system", SPEAKER_SYSTEM}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(from, known[i].name)) return known[i].speaker;
    return SPEAKER_NONE;
}

/* A question waits for the answer behind it; one that gets none is dropped. */
static bool take_conversations(Draft *draft, const json_t *list) {
    const char *question = NULL;
    int turn = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i);
        const char *from, *value;
        if (!json_is_object(part)) {
            draft_problem(draft, "wrong type",
                          "\"conversations\" has %s at place %zu, an object "
                          "with \"from\" and \"value\" was expected",
                          json_kind(part), i + 1);
            return false;
        }
        if (!take_text(draft, json_object_get(part, "from"), "from", &from) ||
            !take_text(draft, json_object_get(part, "value"), "value", &value))
            return false;
        Speaker speaker = speaker_of(from);
        if (speaker == SPEAKER_NONE || (speaker == SPEAKER_SYSTEM && i > 0)) {
            draft_problem(draft, "unknown speaker",
                          "\"from\" is \"%.60s\" at place %zu, expected human or gpt%s", from,
                          i + 1, speaker == SPEAKER_SYSTEM ? " (system only at the start)" : "");
            return false;
        }
        if (speaker == SPEAKER_HUMAN) question = value;
        if (speaker != SPEAKER_ASSISTANT) continue;
        add_turn(draft, question ? question : "", value, ++turn);
        question = NULL;
    }
    if (!draft->count) draft_problem(draft, "no answered turn", "none of its turns has an answer");
    return draft->count > 0;
}

static bool take_pair(Draft *draft, const json_t *object) {
    const char *inputs, *targets;
    if (!take_text(draft, json_object_get(object, "inputs"), "inputs", &inputs) ||
        !take_text(draft, json_object_get(object, "targets"), "targets", &targets))
        return false;
    if (is_blank(targets)) {
        draft_problem(draft, "empty answer", "\"targets\" has no words");
        return false;
    }
    draft->turns[draft->count++] = (RecordTurn){inputs, targets};
    return true;
}

/* An object of some other data: which fields it has tells a person which. */
static void no_conversations(Draft *draft, json_t *object) {
    char names[160] = "nothing";
    size_t used = 0;
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        int size = snprintf(names + used, sizeof names - used, "%s\"%.30s\"", used ? ", " : "",
                            json_object_iter_key(i));
        if (size < 0 || used + (size_t)size >= sizeof names) break;
        used += (size_t)size;
    }
    if (used) names[used] = 0;
    draft_problem(draft, "no conversations",
                  "it has neither \"conversations\" nor \"inputs\" and \"targets\", but %s", names);
}

/* ---- The record. ---- */

/* Copies a prompt without the marks where the picture stands; white space around one goes along,
 * and a single space stays between words. Returns the end of the copy, behind its 0. */
static char *copy_prompt(char *to, const char *prompt) {
    const char *begin = to;
    bool gap = false; /* a mark stood between what is copied and what comes */
    for (const char *mark; (mark = strstr(prompt, IMAGE_WORD)) != NULL;) {
        size_t size = (size_t)(mark - prompt);
        size -= text_space_end(prompt, size);
        if (gap && size) *to++ = ' ';
        memcpy(to, prompt, size);
        to += size;
        gap = to > begin;
        prompt = mark + IMAGE_WORD_SIZE;
        prompt += text_space_begin(prompt, strlen(prompt));
    }
    if (gap && prompt[0]) *to++ = ' ';
    return stpcpy(to, prompt) + 1;
}

static char *copy_text(char *to, const char *text) {
    return stpcpy(to, text) + 1;
}

/* One block: the turns, then all texts. A prompt without its marks is never longer. */
static int record_make(Record *record, const Draft *draft, Error *err) {
    size_t size = (size_t)draft->count * sizeof *record->turns + strlen(draft->id) + 1;
    if (draft->image) size += strlen(draft->image) + 1;
    for (int i = 0; i < draft->count; i++)
        size += strlen(draft->turns[i].prompt) + strlen(draft->turns[i].response) + 2;
    char *memory = malloc(size);
    if (!memory) return error_set(err, "%s: no memory for a record", draft->context->path);
    *record = (Record){.turns = (RecordTurn *)memory, .count = draft->count, .memory = memory};
    char *at = memory + (size_t)draft->count * sizeof *record->turns;
    record->id = at;
    at = copy_text(at, draft->id);
    if (draft->image) {
        record->image = at;
        at = copy_text(at, draft->image);
    }
    for (int i = 0; i < draft->count; i++) {
        record->turns[i].prompt = at;
        at = copy_prompt(at, draft->turns[i].prompt);
        record->turns[i].response = at;
        at = copy_text(at, draft->turns[i].response);
    }
    return 0;
}

int record_from_json(Record *record, json_t *value, const RecordContext *context, Error *err) {
    Draft draft = {.context = context, .id = ""};
    *record = (Record){0};
    if (!json_is_object(value)) {
        draft_problem(&draft, "wrong type", "it is %s, an object was expected", json_kind(value));
        return 0;
    }
    if (!take_id(&draft, value)) return 0;
    const json_t *list = json_object_get(value, "conversations");
    bool pair = !list && (json_object_get(value, "inputs") || json_object_get(value, "targets"));
    if ((!list || json_is_null(list)) && !pair) {
        no_conversations(&draft, value);
        return 0;
    }
    if (list && !json_is_array(list)) {
        draft_problem(&draft, "wrong type", "\"conversations\" is %s, an array was expected",
                      json_kind(list));
        return 0;
    }
    if (!take_image(&draft, value)) return 0;
    draft.turns = calloc(json_array_size(list) + 1, sizeof *draft.turns);
    if (!draft.turns) return error_set(err, "%s: no memory for a record", context->path);
    bool usable = pair ? take_pair(&draft, value) : take_conversations(&draft, list);
    int status = usable ? record_make(record, &draft, err) : 0;
    free(draft.turns);
    return status;
}

int record_from_text(Record *record, const char *text, size_t size, const RecordContext *context,
                     Error *err) {
    *record = (Record){0};
    const char *nul = memchr(text, 0, size);
    if (nul) {
        record_problem(context, "", "NUL byte", "it has one, after %zu bytes: this is no text",
                       (size_t)(nul - text));
        return 0;
    }
    json_t *checked = json_stringn(text, size); /* NULL where it is no UTF-8 */
    if (!checked) {
        record_problem(context, "", "not UTF-8", "its bytes are no valid UTF-8; convert the file");
        return 0;
    }
    RecordTurn turn = {"", json_string_value(checked)};
    Draft draft = {.context = context, .id = "", .turns = &turn, .count = 1};
    int status = record_make(record, &draft, err);
    json_decref(checked);
    return status;
}

void record_free(Record *record) {
    free(record->memory);
    *record = (Record){0};
}
