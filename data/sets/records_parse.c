#include "data/sets/records_parse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files/json_kind.h"
#include "data/sets/image_file.h"
#include "data/files/text_space.h"

static const char IMAGE_WORD[] = "<image>";
enum { IMAGE_WORD_SIZE = sizeof IMAGE_WORD - 1 };

/* State while one record is parsed. */
typedef struct Draft {
    const RecordContext *context;
    char number[32]; /* an id that was a number */
    const char *id, *image;
    RecordTurn *turns; /* texts of the JSON object */
    int count;
    int marks;      /* "<image>" in all prompts */
    int unanswered; /* questions */
    bool system;    /* a system part was left out */
} Draft;

void record_reject(const RecordContext *context, const char *id, const char *kind,
                   const char *format, ...) {
    if (!context->skipped) return;
    char what[320];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    (*context->flawed ? skipped_more : skipped_add)(
        context->skipped, kind, "%s: %s %lld%s%.60s: %s", context->path, context->unit,
        (long long)context->number, id[0] ? ", id " : "", id, what);
    *context->flawed = true;
}

#define draft_problem(draft, kind, ...) \
    record_reject((draft)->context, (draft)->id, (kind), __VA_ARGS__)

static bool is_blank(const char *text) {
    size_t size = strlen(text);
    return text_space_begin(text, size) == size;
}

/* ---- Fields. ---- */

/* A field that must be a string. */
static bool take_text(Draft *draft, const json_t *value, const char *field, const char **text) {
    if (!json_is_string(value)) {
        draft_problem(draft, "wrong type", "\"%s\" is %s, expected a string", field,
                      json_kind(value));
        return false;
    }
    *text = json_string_value(value);
    if (strlen(*text) == json_string_length(value)) return true;
    draft_problem(draft, "NUL byte", "\"%s\" has one, after %zu bytes: not a text file", field,
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
        draft_problem(draft, "wrong type", "\"id\" is %s, expected a string or an integer",
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
        image_file_check(text, sizeof text, draft->context->options->images, draft->image);
    if (kind) draft_problem(draft, kind, "%s", text);
    return !kind;
}

/* The path of a field that is one, or a list of one; *text is unchanged if the field is absent. */
static bool take_path(Draft *draft, const json_t *object, const char *field, const char **text) {
    const json_t *value = json_object_get(object, field);
    size_t count = json_array_size(value);
    if (!value || json_is_null(value) || (json_is_array(value) && count == 0)) return true;
    if (count > 1) {
        draft_problem(draft, "several images", "\"%s\" has %zu entries; a record has one image",
                      field, count);
        return false;
    }
    return take_text(draft, count ? json_array_get(value, 0) : value, field, text);
}

static bool take_image(Draft *draft, const json_t *object) {
    const char *image = "", *images = "";
    if (!take_path(draft, object, "image", &image) || !take_path(draft, object, "images", &images))
        return false;
    if (image[0] && images[0] && strcmp(image, images)) {
        draft_problem(draft, "several images", "\"image\" is %.100s and \"images\" %.100s", image,
                      images);
        return false;
    }
    draft->image = image[0] ? image : images[0] ? images : NULL;
    if (!draft->image) return true;
    if (image_leaves_folder(draft->image)) {
        draft_problem(draft, "image outside of the folder",
                      "%.200s: expected a path within the folder of images, without \"..\"",
                      draft->image);
        return false;
    }
    if (!draft->context->options->images) {
        draft_problem(draft, "image without a folder",
                      "it has an image, %.200s, but no folder of images is named", draft->image);
        return false;
    }
    if (!draft->context->skipped || !draft->context->options->check_images) return true;
    return check_file(draft);
}

/* Fields that change the record's meaning. */
static bool check_fields(Draft *draft, json_t *object) {
    static const char *const unread[] = {
        "video",     "videos",     "audio",       "audios",      "speech",    "sound",
        "image_url", "image_urls", "image_path",  "image_paths", "img",       "imgs",
        "picture",   "pictures",   "photo",       "photos",      "depth",     "system",
        "context",   "history",    "instruction", "tools",       "functions", "documents"};
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        const json_t *value = json_object_get(object, unread[i]);
        bool empty = !value || json_is_null(value) || json_is_false(value) ||
                     (json_is_string(value) && is_blank(json_string_value(value))) ||
                     (json_is_array(value) && !json_array_size(value)) ||
                     (json_is_object(value) && !json_object_size(value));
        if (empty) continue;
        draft_problem(draft, "field that is not read",
                      "it has \"%s\", %s; without it the record would have another meaning",
                      unread[i], json_kind(value));
        return false;
    }
    return true;
}

/* ---- Turns. ---- */

static void add_turn(Draft *draft, const char *prompt, const char *answer, int turn) {
    if (is_blank(answer)) {
        draft_problem(draft, "empty answer", "turn %d has an answer without words", turn);
        return;
    }
    draft->turns[draft->count++] = (RecordTurn){prompt, answer};
}

static int count_marks(const char *text) {
    int count = 0;
    while ((text = strstr(text, IMAGE_WORD)) != NULL) count++, text += IMAGE_WORD_SIZE;
    return count;
}

/* Checks that every placeholder has its image. An image needs no placeholder. */
static bool check_marks(Draft *draft) {
    for (int i = 0; i < draft->count; i++)
        if (count_marks(draft->turns[i].response)) {
            draft_problem(draft, "<image> in an answer", "answer %d has it", i + 1);
            return false;
        }
    if (draft->marks > 0 && !draft->image) {
        draft_problem(draft, "<image> without an image",
                      "its prompts have %d, but no \"image\" is named", draft->marks);
        return false;
    }
    if (draft->marks <= 1) return true;
    draft_problem(draft, "several <image> marks", "its prompts have %d, for one image",
                  draft->marks);
    return false;
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

/* A part of a conversation: speaker and text. */
static bool take_part(Draft *draft, const json_t *part, size_t place, Speaker *speaker,
                      const char **value) {
    static const char *const unread[] = {"weight", "train", "loss", "image", "images", "video"};
    const char *from;
    if (!json_is_object(part)) {
        draft_problem(draft, "wrong type",
                      "\"conversations\" has %s at place %zu, expected "
                      "an object with \"from\" and \"value\"",
                      json_kind(part), place);
        return false;
    }
    if (!take_text(draft, json_object_get(part, "from"), "from", &from) ||
        !take_text(draft, json_object_get(part, "value"), "value", value))
        return false;
    *speaker = speaker_of(from);
    if (*speaker == SPEAKER_NONE || (*speaker == SPEAKER_SYSTEM && place > 1)) {
        draft_problem(draft, "unknown speaker",
                      "\"from\" is \"%.60s\" at place %zu, expected human or gpt%s", from, place,
                      *speaker == SPEAKER_SYSTEM ? " (system only at the start)" : "");
        return false;
    }
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        const json_t *other = json_object_get(part, unread[i]);
        if (!other || json_is_null(other)) continue;
        draft_problem(draft, "field that is not read", "it has \"%s\" at place %zu", unread[i],
                      place);
        return false;
    }
    return true;
}

/* A question waits for the answer after it; one that gets none is left out. */
static bool take_conversations(Draft *draft, const json_t *list) {
    const char *question = NULL, *value = "";
    int turn = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        Speaker speaker;
        if (!take_part(draft, json_array_get(list, i), i + 1, &speaker, &value)) return false;
        draft->system |= speaker == SPEAKER_SYSTEM;
        if (speaker == SPEAKER_HUMAN) {
            draft->unanswered += question != NULL;
            draft->marks += count_marks(value);
            question = value;
        }
        if (speaker != SPEAKER_ASSISTANT) continue;
        add_turn(draft, question ? question : "", value, ++turn);
        question = NULL;
    }
    draft->unanswered += question != NULL;
    /* Unless an empty answer is the reason, and was reported. */
    if (!draft->count && !turn)
        draft_problem(draft, "no answered turn", "none of its turns has an answer");
    return draft->count > 0;
}

/* Notes what was left out of a record that is used. */
static void tell_notes(const Draft *draft) {
    const RecordContext *c = draft->context;
    if (!c->skipped) return;
    if (draft->system)
        skipped_note(c->skipped, "system prompt", "%s: %s %lld%s%.60s: left out, as LLaVA does",
                     c->path, c->unit, (long long)c->number, draft->id[0] ? ", id " : "",
                     draft->id);
    if (draft->unanswered)
        skipped_note(c->skipped, "question without an answer",
                     "%s: %s %lld%s%.60s: %d of them left out", c->path, c->unit,
                     (long long)c->number, draft->id[0] ? ", id " : "", draft->id,
                     draft->unanswered);
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
    draft->marks = count_marks(inputs);
    return true;
}

/* An object of some other data: names its fields, so that users recognize it. */
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

/* Copies a prompt without its "<image>" placeholders; white space around one is removed, and a
 * single space stays between words. Returns the end of the copy, after its 0. */
static char *copy_prompt(char *to, const char *prompt) {
    const char *begin = to;
    bool gap = false; /* a placeholder was between the copied and the next text */
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

/* One block: the turns, then all texts. A prompt without its placeholders is never longer. */
static int record_make(Record *record, const Draft *draft, Error *err) {
    size_t size = (size_t)draft->count * sizeof *record->turns + strlen(draft->id) + 1;
    if (draft->image) size += strlen(draft->image) + 1;
    for (int i = 0; i < draft->count; i++)
        size += strlen(draft->turns[i].prompt) + strlen(draft->turns[i].response) + 2;
    char *memory = malloc(size);
    if (!memory) return error_set(err, "%s: out of memory for a record", draft->context->path);
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

/* Of LLaVA's conversations, or inputs and targets. */
static int record_from_object(Record *record, Draft *start, json_t *value, Error *err) {
    Draft draft = *start;
    const json_t *list = json_object_get(value, "conversations");
    if (json_is_null(list)) list = NULL;
    bool pair = json_object_get(value, "inputs") || json_object_get(value, "targets");
    if (!list && !pair) {
        no_conversations(&draft, value);
        return 0;
    }
    if (list && pair) {
        draft_problem(&draft, "two kinds in one",
                      "it has \"conversations\" and \"inputs\" or \"targets\"");
        return 0;
    }
    if (list && !json_is_array(list)) {
        draft_problem(&draft, "wrong type", "\"conversations\" is %s, expected an array",
                      json_kind(list));
        return 0;
    }
    if (!check_fields(&draft, value) || !take_image(&draft, value)) return 0;
    draft.turns = calloc(json_array_size(list) + 1, sizeof *draft.turns);
    if (!draft.turns) return error_set(err, "%s: out of memory for a record", draft.context->path);
    bool usable = pair ? take_pair(&draft, value) : take_conversations(&draft, list);
    usable = usable && check_marks(&draft);
    if (usable) tell_notes(&draft);
    int status = usable ? record_make(record, &draft, err) : 0;
    free(draft.turns);
    return status;
}

int record_from_json(Record *record, json_t *value, const RecordContext *context, Error *err) {
    Draft draft = {.context = context, .id = ""};
    ObjectFault fault = {0};
    *record = (Record){0};
    if (!json_is_object(value)) {
        draft_problem(&draft, "wrong type", "it is %s, expected an object", json_kind(value));
        return 0;
    }
    if (!take_id(&draft, value)) return 0;
    json_t *object = format_object(value, context->prompting, &fault);
    if (!object && fault.memory)
        return error_set(err, "%s: out of memory for a record", context->path);
    if (!object) {
        draft_problem(&draft, fault.kind, "%s", fault.why);
        return 0;
    }
    int status = record_from_object(record, &draft, object, err);
    json_decref(object);
    return status;
}

int record_from_text(Record *record, const char *text, size_t size, const RecordContext *context,
                     Error *err) {
    *record = (Record){0};
    const char *nul = memchr(text, 0, size);
    if (nul) {
        record_reject(context, "", "NUL byte", "it has one, after %zu bytes: not a text file",
                      (size_t)(nul - text));
        return 0;
    }
    json_t *checked = json_stringn(text, size); /* NULL if it is not valid UTF-8 */
    if (!checked) {
        record_reject(context, "", "not UTF-8", "not valid UTF-8; convert the file");
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
