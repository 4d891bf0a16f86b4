#include "apps/eval/closed.h"

#include <stdlib.h>
#include <string.h>

#include "data/sets/gqa_file.h"

typedef struct Reading {
    const char *path;
    ClosedQuestions *closed;
    EvalItems *items;
    int most;
    TextTable ids;    /* the items', with their indices as numbers */
    int32_t *numbers; /* in closed->texts, one item's choices after the other's */
    size_t count, capacity;
    size_t *first; /* [items]: of each item that has choices */
} Reading;

static int number_add(Reading *r, size_t first, const char *text, Error *err) {
    int32_t number;
    TRY(text_table_add(&r->closed->texts, text, &number, NULL, err));
    for (size_t i = first; i < r->count; i++)
        if (r->numbers[i] == number) return 0;
    if (r->count == r->capacity) {
        size_t more = 2 * r->capacity + 64;
        int32_t *numbers = realloc(r->numbers, more * sizeof *numbers);
        if (!numbers) return error_set(err, "out of memory for %zu choices", more);
        r->numbers = numbers, r->capacity = more;
    }
    r->numbers[r->count++] = number;
    return 0;
}

/* One question's valid answers; of a question that occurs twice the last ones count. */
static int take(void *user, const JsonElement *element, Error *err) {
    Reading *r = user;
    int32_t index = element->key ? text_table_find(&r->ids, element->key) : -1;
    const json_t *list = json_object_get(element->value, "valid"), *one;
    size_t i, first = r->count;
    if (index < 0) return 0;
    EvalItem *item = &r->items->items[index];
    item->choice_count = 0;
    json_array_foreach(list, i, one) {
        const char *text = json_string_value(one);
        if (!text || strlen(text) != json_string_length(one) || !text[0])
            return error_set(err,
                             "%s: question %.80s: one of its \"valid\" answers is not a text: it "
                             "cannot be chosen",
                             r->path, element->key);
        TRY(number_add(r, first, text, err));
        if (r->count - first > (size_t)r->most) break;
    }
    if (r->count - first > (size_t)r->most)
        r->count = first;
    else
        r->first[index] = first, item->choice_count = r->count - first;
    return 0;
}

static int read_all(Reading *r, Error *err) {
    ClosedQuestions *closed = r->closed;
    r->first = calloc((size_t)r->items->count + 1, sizeof *r->first);
    if (!r->first) return error_set(err, "out of memory for the choices");
    for (int64_t i = 0; i < r->items->count; i++)
        TRY(text_table_add(&r->ids, r->items->items[i].id, &(int32_t){0}, NULL, err));
    TRY(gqa_file_walk(r->path, 1u << GQA_FILE_OBJECT,
                      "{\"id\": {\"valid\": [...], \"plausible\": [...]}}", take, r, err));
    closed->choices = malloc((r->count + 1) * sizeof *closed->choices);
    if (!closed->choices) return error_set(err, "out of memory for %zu choices", r->count);
    for (size_t i = 0; i < r->count; i++)
        closed->choices[i] = text_table_get(&closed->texts, r->numbers[i]);
    for (int64_t i = 0; i < r->items->count; i++) {
        EvalItem *item = &r->items->items[i];
        if (!item->choice_count) continue;
        item->choices = closed->choices + r->first[i];
        closed->count++;
    }
    if (closed->count) return 0;
    return error_set(err, "%s: none of the questions has 1 to %d valid answers there", r->path,
                     r->most);
}

int closed_questions_read(ClosedQuestions *closed, const char *path, int most, EvalItems *items,
                          Error *err) {
    Reading r = {.path = path, .closed = closed, .items = items, .most = most};
    int status = read_all(&r, err);
    text_table_free(&r.ids);
    free(r.numbers), free(r.first);
    return status;
}

void closed_questions_free(ClosedQuestions *closed) {
    text_table_free(&closed->texts);
    free(closed->choices);
    *closed = (ClosedQuestions){0};
}
