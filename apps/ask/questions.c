/* questions.c - see questions.h. */
#include "apps/ask/questions.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/library.h"
#include "apps/cli/lines.h"
#include "apps/trace/report_json.h"
#include "data/files/json_read.h"

enum { AT_ONCE = 64, TURNS_MOST = 1 << 16, LINE_MOST = 1 << 22 };

/* One question about one image. */
typedef struct Item {
    json_t *line;      /* shared by those of a line; NULL: it is not JSON */
    int64_t number;    /* of the line */
    const char *image; /* the line's, or the command line's; NULL: not known */
    int opened;        /* index of the image in the batch */
    ef_turn *turns;    /* their texts are the line's */
    char *error;       /* why it is not asked; NULL: it is */
    bool skipped;      /* ... which --long-prompts skip wants */
} Item;

typedef struct Opened {
    char *path;
    ef_image *image; /* NULL: `error` */
    char *error;
} Opened;

typedef struct Batch {
    const AskQuestions *ask;
    Lines lines;
    Item items[AT_ONCE];
    Opened images[AT_ONCE];
    int count, image_count, most;
    int64_t answered, bad, bad_line; /* bad_line: the last one counted */
    double start, shown;
    bool drawn;
} Batch;

/* ---- Progress: where standard output is not a terminal that shows it by itself. ---- */

static void progress_end(Batch *b) {
    if (b->drawn) fputs("\r\033[K", stderr);
    b->drawn = false;
}

static void progress(Batch *b) {
    const double now = clock_seconds();
    const bool terminal = isatty(STDERR_FILENO);
    char answered[REPORT_NUMBER_SIZE];
    if (b->ask->common->quiet || isatty(STDOUT_FILENO) || now - b->shown < (terminal ? 0.2 : 30))
        return;
    b->shown = now;
    report_number(answered, b->answered);
    fprintf(stderr, "%s%s answers, %lld bad lines, %.1f/s%s", terminal ? "\r\033[K" : "", answered,
            (long long)b->bad, (double)b->answered / (now - b->start), terminal ? "" : "\n");
    fflush(stderr);
    b->drawn = terminal;
}

/* ---- Lines. ---- */

static const char *text_of(const Item *item, const char *key) {
    return json_string_value(json_object_get(item->line, key));
}

/* Says why an item is not asked, with its line. */
static int refuse(Batch *b, Item *item, const char *why, bool skipped, Error *err) {
    item->skipped = skipped;
    item->error = strdup(why);
    if (!item->error) return error_set(err, "out of memory for a message");
    if (skipped) return 0;
    progress_end(b);
    report_error("%s: line %lld: %s", b->lines.name, (long long)item->number, why);
    b->bad += b->bad_line != item->number;
    b->bad_line = item->number;
    return 0;
}

static int check_keys(const json_t *line, Error *why) {
    static const char *const known[] = {"image", "question", "id", "turns"};
    const char *key;
    json_t *value;
    if (!json_is_object(line)) return error_set(why, "not an object: {\"question\": text, ...}");
    json_object_foreach((json_t *)line, key, value) {
        bool found = false;
        for (int i = 0; i < 4; i++) found |= !strcmp(key, known[i]);
        if (!found)
            return error_set(why, "an unknown key \"%.100s\": expected image, question, id, turns",
                             key);
    }
    if (!json_is_string(json_object_get(line, "question")))
        return error_set(why, "\"question\" is not a text");
    const json_t *image = json_object_get(line, "image");
    if (image && !json_is_string(image)) return error_set(why, "\"image\" is not a path");
    return 0;
}

static int take_turns(Item *item, Error *why) {
    const json_t *turns = json_object_get(item->line, "turns");
    if (!turns) return 0;
    const size_t n = json_array_size(turns);
    if (!json_is_array(turns) || n > TURNS_MOST)
        return error_set(why, "\"turns\" is not a list of at most %d", TURNS_MOST);
    item->turns = calloc(n + 1, sizeof *item->turns);
    if (!item->turns) return error_set(why, "out of memory for %zu turns", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *turn = json_array_get(turns, i);
        item->turns[i] = (ef_turn){json_string_value(json_object_get(turn, "question")),
                                   json_string_value(json_object_get(turn, "answer"))};
        if (!item->turns[i].question || !item->turns[i].answer || json_object_size(turn) != 2)
            return error_set(why, "turn %zu is not {\"question\": text, \"answer\": text}", i + 1);
    }
    return 0;
}

/* The image of a path, opened once for the batch; *index of it. */
static int open_image(Batch *b, const char *path, int *index, Error *err) {
    Error why;
    for (int i = 0; i < b->image_count; i++)
        if (!strcmp(b->images[i].path, path)) {
            *index = i;
            return 0;
        }
    Opened *o = &b->images[ *index = b->image_count];
    *o = (Opened){.path = strdup(path)};
    if (!o->path) return error_set(err, "out of memory for a name");
    b->image_count++;
    if (ef_image_open_for(b->ask->model, path, &o->image, library_error(&why)) == 0) return 0;
    o->error = strdup(why.text);
    return o->error ? 0 : error_set(err, "out of memory for a message");
}

static ef_request request_of(const Batch *b, const Item *item) {
    return (ef_request){.task = EF_ASK,
                        .text = text_of(item, "question"),
                        .image = b->images[item->opened].image,
                        .length = b->ask->common->length,
                        .turns = item->turns,
                        .turn_count = json_array_size(json_object_get(item->line, "turns"))};
}

/* Adds an item, asked if that is possible. */
static int add_item(Batch *b, json_t *line, const char *image, const char *bad, Error *err) {
    Item *item = &b->items[b->count++];
    Error why;
    *item = (Item){.line = json_incref(line), .number = b->lines.taken, .image = image};
    if (bad) return refuse(b, item, bad, false, err);
    if (!image) return refuse(b, item, "no \"image\", and none on the command line", false, err);
    if (take_turns(item, &why)) return refuse(b, item, why.text, false, err);
    TRY(open_image(b, image, &item->opened, err));
    const char *unread = b->images[item->opened].error;
    return unread ? refuse(b, item, unread, false, err) : 0;
}

/* ---- Answers. ---- */

static int print_item(Batch *b, Item *item, const ef_answers *answers, size_t index, Error *err) {
    const Asked asked = {.image = item->image,
                         .text = text_of(item, "question"),
                         .text_key = "question",
                         .line = item->number,
                         .id = json_object_get(item->line, "id"),
                         .threshold = b->ask->threshold};
    const char *error = item->error ? NULL : ef_answer_error(answers, index);
    if (error) TRY(refuse(b, item, error, ef_answer_code(answers, index) == EF_SKIPPED, err));
    b->answered += !item->error;
    if (item->error) return report_json_none(&asked, item->error, err);
    return report_json(&asked, answers, index, &b->ask->common->answer.decode, NULL, err);
}

static void batch_clear(Batch *b) {
    for (int i = 0; i < b->count; i++) {
        json_decref(b->items[i].line);
        free(b->items[i].turns), free(b->items[i].error);
    }
    for (int i = 0; i < b->image_count; i++) {
        ef_image_close(b->images[i].image);
        free(b->images[i].path), free(b->images[i].error);
    }
    b->count = b->image_count = 0;
}

static int batch_answer(Batch *b, Error *err) {
    ef_request requests[AT_ONCE];
    ef_answers *answers = NULL;
    size_t n = 0, index = 0;
    int status = 0;
    for (int i = 0; i < b->count; i++)
        if (!b->items[i].error) requests[n++] = request_of(b, &b->items[i]);
    if (n)
        status =
            ef_answer(b->ask->model, requests, n, b->ask->options, &answers, library_error(err));
    if (answers) timings_add_work(b->ask->timings, ef_answers_work(answers));
    for (int i = 0; i < b->count && status == 0; i++) {
        const bool asked = !b->items[i].error;
        status = print_item(b, &b->items[i], answers, index, err);
        index += asked;
    }
    ef_answers_close(answers);
    batch_clear(b);
    if (status == 0) progress(b);
    return status ? status : report_flush(err);
}

static int add_and_answer(Batch *b, json_t *line, const char *image, const char *bad, Error *err) {
    TRY(add_item(b, line, image, bad, err));
    return b->count == b->most ? batch_answer(b, err) : 0;
}

/* ---- The whole. ---- */

/* A line's items: one, or one for each image of the command line. */
static int take_json(Batch *b, json_t *line, const char *bad, Error *err) {
    const TextList *images = &b->ask->images;
    const char *image = json_string_value(json_object_get(line, "image"));
    if (bad || image || !images->count) return add_and_answer(b, line, image, bad, err);
    for (int i = 0; i < images->count; i++)
        TRY(add_and_answer(b, line, images->items[i], NULL, err));
    return 0;
}

/* A line of JSON, or else a question as it is. */
static int line_read(json_t **line, const char *text, size_t size, Error *why) {
    const size_t before = strspn(text, " \t");
    if (strchr("{[\"", text[before]) && before < size)
        return json_read_text(line, text, size, JSON_REJECT_DUPLICATES, 0, "JSON", why);
    while (size > before && strchr(" \t\r", text[size - 1])) size--;
    json_t *question = json_stringn(text + before, size - before);
    if (!question) return error_set(why, "not valid UTF-8");
    *line = json_pack("{s:o}", "question", question);
    return *line ? 0 : error_set(why, "out of memory for a question");
}

static int take_line(Batch *b, const char *text, size_t size, Error *err) {
    json_t *line = NULL;
    Error why = {0};
    int bad = 0;
    if (size > LINE_MOST)
        bad = error_set(&why, "it has %zu bytes, at most %d are read", size, LINE_MOST);
    else if (!text[strspn(text, " \t\r")] && strlen(text) == size)
        return 0; /* an empty line is no mistake */
    else
        bad = line_read(&line, text, size, &why) || check_keys(line, &why);
    int status = take_json(b, line, bad ? why.text : NULL, err);
    json_decref(line);
    return status;
}

static int take_lines(Batch *b, Error *err) {
    for (;;) {
        char *text;
        size_t size;
        if (b->count && !lines_ready(&b->lines)) TRY(batch_answer(b, err));
        TRY(lines_next(&b->lines, &text, &size, err));
        if (!text) return b->count ? batch_answer(b, err) : 0;
        int status = take_line(b, text, size, err);
        free(text);
        if (status) return status;
    }
}

int ask_questions(const AskQuestions *ask, int64_t *bad, Error *err) {
    Batch *b = calloc(1, sizeof *b);
    if (!b) return error_set(err, "out of memory for questions");
    b->ask = ask, b->most = common_at_once(ask->common, AT_ONCE);
    b->start = b->shown = clock_seconds();
    int status = lines_open(&b->lines, ask->path, LINE_MOST, err);
    if (status == 0) status = take_lines(b, err);
    progress_end(b);
    if (b->bad)
        report_error("%s: %lld of %lld lines have no answer", b->lines.name, (long long)b->bad,
                     (long long)b->lines.taken);
    *bad = b->bad;
    batch_clear(b);
    lines_close(&b->lines);
    free(b);
    return status;
}
