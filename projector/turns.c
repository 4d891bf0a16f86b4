/* turns.c - see turns.h. */
#include "projector/turns.h"

#include <stdlib.h>
#include <string.h>

static int join_piece(JoinedText *j, const char *piece, Error *err) {
    size_t size = strlen(piece), needed = j->size + size + 2;
    if (needed > j->capacity) {
        char *grown = realloc(j->text, 2 * needed);
        if (!grown) return error_set(err, "out of memory for %zu bytes of text", needed);
        j->text = grown;
        j->capacity = 2 * needed;
    }
    if (j->size && size) j->text[j->size++] = ' ';
    memcpy(j->text + j->size, piece, size + 1);
    j->size += size;
    return 0;
}

int turns_join(JoinedText *j, const RecordTurn *turns, int first, int end, const char *last,
               Error *err) {
    j->size = 0;
    for (int i = first; i < end; i++) {
        TRY(join_piece(j, turns[i].prompt, err));
        TRY(join_piece(j, turns[i].response, err));
    }
    return join_piece(j, last, err);
}

void joined_text_free(JoinedText *joined) {
    free(joined->text);
    *joined = (JoinedText){0};
}

int turns_encode(JoinedText *joined, const Tokenizer *tokenizer, const RecordTurn *turns,
                 const int *sizes, int count, const char *question, int room, Ids *ids,
                 size_t before, int *first, Error *err) {
    int64_t size = (int64_t)(ids->count - before);
    int from = count;
    while (from > 0 && sizes[from - 1] >= 0 && size + sizes[from - 1] <= room)
        size += sizes[--from];
    /* One text may have a token more than its parts, and spaces are bytes: then one turn less. */
    for (bool fits = from == count; !fits; from += !fits) {
        ids->count = before;
        TRY(turns_join(joined, turns, from, count, question, err));
        if (joined->size > TURNS_BYTES) continue;
        TRY(tokenizer_encode(tokenizer, joined->text, joined->size, ids, err));
        fits = ids->count - before <= (size_t)room || from == count;
    }
    if (first) *first = from;
    return 0;
}

int prompt_after_image(const Tokenizer *tokenizer, const char *lead, const char *prompt, Ids *ids,
                       Error *err) {
    const size_t skip = strlen(lead), size = strlen(prompt) - skip;
    char *rest = malloc(size + 2);
    if (!rest) return error_set(err, "out of memory for a prompt");
    rest[0] = '\n';
    memcpy(rest + 1, prompt + skip, size + 1);
    int status = tokenizer_encode(tokenizer, rest, size + 1, ids, err);
    free(rest);
    return status;
}
