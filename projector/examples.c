/* examples.c - see examples.h. */
#include "projector/examples.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"
#include "language/infill.h"
#include "language/sentencepiece.h"
#include "projector/answer_text.h"
#include "projector/turns.h"

/* A text of more bytes than this is not a sample but a whole file; below it, token counts fit an
 * int for any normalization. */
enum { TEXT_LARGEST = TURNS_BYTES, DOCUMENT_LARGEST = 1 << 26 };

/* Tokens of turns in one unit, in sequences of the greatest length: beyond that the image's rows
 * are few compared with the turns, and little is saved. */
enum { TOGETHER_MOST = 2 };

/* Returned besides 0 and -1: the reason was counted, skip this one. */
enum { UNUSABLE = 1 };

typedef struct Maker {
    Examples *out;
    const Record *record;
    const ExampleConfig *config;
    const char *name;
    Skipped *skipped;
    bool counted;   /* the record was counted as bad */
    int image_rows; /* of this record, with image_lead */
    Ids answer;     /* of the current turn, or a whole document */
    int *sizes;     /* context: tokens of each turn so far, -1 for one that is not usable */
    JoinedText text;
} Maker;

/* Counts another reason why part of the record cannot be used. */
#define maker_problem(m, ...)                               \
    ((m)->counted ? skipped_more((m)->skipped, __VA_ARGS__) \
                  : ((m)->counted = true, skipped_add((m)->skipped, __VA_ARGS__)))

/* ---- The tokens around texts. ---- */

/* Rows of <s>: 0 or 1. */
static int begin_rows(const ExampleConfig *c) {
    return c->language.begin >= 0;
}

/* Ends a text; -1: nothing does. */
static int32_t text_end(const ExampleConfig *c) {
    if (!c->language.llama) return tokenizer_specials(c->tokenizer)->end;
    return c->language.end >= 0 ? c->language.end : tokenizer_specials(c->tokenizer)->end;
}

/* Ends an answer; -1: nothing does. */
static int32_t answer_end(const ExampleConfig *c) {
    const bool turn = c->language.llama && c->language.end < 0 && c->chats;
    const int32_t end = turn ? tokenizer_specials(c->tokenizer)->turn_end : -1;
    return end >= 0 ? end : text_end(c);
}

static int append_end(Ids *ids, int32_t end, Error *err) {
    return end >= 0 ? ids_append(ids, &end, 1, err) : 0;
}

/* ---- Text. ---- */

/* UNUSABLE for a text that cannot be tokenized. */
static int check_text(Maker *m, const char *text, int turn, const char *what) {
    size_t size = strlen(text), valid, most = m->config->whole ? DOCUMENT_LARGEST : TEXT_LARGEST;
    if (size > most) {
        maker_problem(m, "text too large", "%s: turn %d: the %s has %zu bytes, at most %zu",
                      m->name, turn + 1, what, size, most);
        return UNUSABLE;
    }
    valid = utf8_valid_prefix(text, size);
    if (valid == size) return 0;
    maker_problem(m, "not UTF-8", "%s: turn %d: byte %zu of the %s (0x%02X) is not UTF-8", m->name,
                  turn + 1, valid, what, (unsigned char)text[valid]);
    return UNUSABLE;
}

/* Appends the ids of a text; UNUSABLE if it cannot be tokenized. */
static int encode(Maker *m, const char *text, int turn, const char *what, Ids *ids, Error *err) {
    int status = check_text(m, text, turn, what);
    if (status) return status;
    return tokenizer_encode(m->config->tokenizer, text, strlen(text), ids, err);
}

/* Checks that the tokens in m->answer can be trained on. */
static int check_answer(Maker *m, int turn, const char *what) {
    int32_t mask = tokenizer_mask_id(m->config->tokenizer);
    if (m->answer.count == 0) {
        maker_problem(m, "empty answer", "%s: turn %d: the %s has no tokens", m->name, turn + 1,
                      what);
        return UNUSABLE;
    }
    for (size_t i = 0; i < m->answer.count; i++)
        if (m->answer.ids[i] == mask) {
            /* Indistinguishable from a token to be predicted. */
            maker_problem(m, "mask in an answer", "%s: turn %d: token %zu of the %s is <mask>",
                          m->name, turn + 1, i + 1, what);
            return UNUSABLE;
        }
    return 0;
}

/* ---- Memory. ---- */

/* Reserves `count` examples of one turn each; clears the old ones. */
static int reserve(Examples *out, int count, const char *name, Error *err) {
    if (count > out->capacity) {
        free(out->items);
        out->items = calloc((size_t)count, sizeof *out->items);
        out->capacity = out->items ? count : 0;
    }
    if (count > out->turn_capacity) {
        free(out->turns);
        out->turns = calloc((size_t)count, sizeof *out->turns);
        out->turn_capacity = out->turns ? count : 0;
    }
    if (out->items && out->turns) return 0;
    return error_set(err, "%s: out of memory for %d examples", name, count);
}

/* Points the examples to their turns and ids, which are in order, and counts their tokens. */
static void place(Examples *out, int begin, int image_rows) {
    const int32_t *at = out->ids.ids;
    ExampleTurn *turn = out->turns;
    for (int i = 0; i < out->count; i++) {
        Example *e = &out->items[i];
        e->turns = turn;
        e->tokens = begin + (e->image ? image_rows : 0);
        for (int k = 0; k < e->count; k++, turn++) {
            turn->prompt = at, at += turn->prompt_count;
            turn->answer = at, at += turn->answer_count;
            e->tokens += turn->prompt_count + turn->answer_count;
        }
    }
}

void examples_free(Examples *examples) {
    free(examples->items), free(examples->turns);
    ids_free(&examples->ids);
    *examples = (Examples){0};
}

/* ---- Turns. ---- */

/* A prompt's ids, without the token that begins every sequence. */
static int encode_question(Maker *m, const char *text, int turn, Ids *ids, Error *err) {
    const size_t before = ids->count;
    int status = encode(m, text, turn, "question", ids, err);
    size_t made = ids->count - before;
    if (made) language_drop_begin(&m->config->language, ids->ids + before, &made);
    ids->count = before + made;
    return status;
}

/* The ids of a conversation's text, in which an image comes after image_lead. */
static int encode_conversation(Maker *m, const char *text, int turn, Ids *ids, Error *err) {
    const ExampleConfig *c = m->config;
    if (!m->image_rows || !c->image_lead) return encode_question(m, text, turn, ids, err);
    int status = check_text(m, text, turn, "question");
    if (status) return status;
    return prompt_after_image(c->tokenizer, c->image_lead, text, ids, err);
}

/* Messages of the turns [first, turn] in the chat template, of the last one the question, without
 * the token that begins a sequence; UNUSABLE if they cannot be tokenized. */
static int encode_chat(Maker *m, int first, int turn, Ids *ids, Error *err) {
    const RecordTurn *turns = m->record->turns;
    const size_t count = 2 * (size_t)(turn - first) + 1;
    ChatMessage *messages = calloc(count, sizeof *messages);
    char *text = NULL;
    if (!messages) return error_set(err, "out of memory for %zu messages", count);
    for (int i = first; i <= turn; i++) {
        messages[2 * (i - first)] = (ChatMessage){"user", turns[i].prompt};
        if (i < turn) messages[2 * (i - first) + 1] = (ChatMessage){"assistant", turns[i].response};
    }
    int status = chat_template_text(m->config->chat, messages, count, true, &text, err);
    free(messages);
    if (status == 0) status = encode_conversation(m, text, turn, ids, err);
    free(text);
    return status;
}

/* A prompt's ids without earlier turns. */
static int encode_prompt(Maker *m, int turn, Ids *ids, Error *err) {
    const char *question = m->record->turns[turn].prompt;
    if (m->config->chats && *question) return encode_chat(m, turn, turn, ids, err);
    return encode_question(m, question, turn, ids, err);
}

/* As many complete earlier turns as fit: a template adds tokens to those of the turns, so that the
 * first guess may be one too many. */
static int chat_with_context(Maker *m, int turn, int room, size_t before, Error *err) {
    Ids *ids = &m->out->ids;
    int64_t size = (int64_t)(ids->count - before);
    int first = turn, status = 0;
    while (first > 0 && m->sizes[first - 1] >= 0 && size + m->sizes[first - 1] <= room)
        size += m->sizes[--first];
    for (bool fits = false; !fits && status == 0; first++) {
        ids->count = before;
        status =
            first < turn ? encode_chat(m, first, turn, ids, err) : encode_prompt(m, turn, ids, err);
        fits = ids->count - before <= (size_t)room || first == turn;
    }
    return status;
}

/* Appends the prompt's ids: the question, and before it as many complete earlier turns as fit into
 * `room` tokens. They are encoded as one text, as in inference. *own is the question's number of
 * tokens. */
static int prompt_with_context(Maker *m, int turn, int room, int *own, Error *err) {
    const char *question = m->record->turns[turn].prompt;
    Ids *ids = &m->out->ids;
    const size_t before = ids->count;
    int status = encode_question(m, question, turn, ids, err);
    if (status) return status;
    *own = (int)(ids->count - before);
    if (m->config->chats) return chat_with_context(m, turn, room, before, err);
    return turns_encode(&m->text, m->config->tokenizer, m->record->turns, m->sizes, turn, question,
                        room, ids, before, NULL, err);
}

/* Skips a question that does not fit next to its image and answer, or may not be truncated. */
static int prompt_unusable(Maker *m, int turn, int room, int64_t count) {
    if (m->config->long_prompts == LONG_PROMPTS_SKIP)
        skipped_note(m->skipped, "prompt too long, left out",
                     "%s: turn %d: it has %lld tokens, %d fit with its answer", m->name, turn + 1,
                     (long long)count, room);
    else
        maker_problem(m, m->image_rows ? "question does not fit" : "prompt too long",
                      "%s: turn %d: the question has %lld tokens; of the model's %d, %d are left "
                      "besides <s>, %d of the image and %zu of the answer with </s>",
                      m->name, turn + 1, (long long)count, m->config->longest, room, m->image_rows,
                      m->answer.count);
    return UNUSABLE;
}

/* The prompt's ids, those from `before` on, must be at most `room`: drops its beginning, or the
 * turn. */
static int fit_prompt(Maker *m, int turn, int room, size_t before) {
    Ids *ids = &m->out->ids;
    int64_t count = (int64_t)(ids->count - before), excess = count - room;
    if (excess <= 0) return 0;
    if (m->image_rows || m->config->long_prompts != LONG_PROMPTS_KEEP_LAST)
        return prompt_unusable(m, turn, room, count);
    skipped_note(m->skipped, "prompt too long, beginning left out",
                 "%s: turn %d: it has %lld tokens, the last %d are kept", m->name, turn + 1,
                 (long long)count, room);
    memmove(ids->ids + before, ids->ids + before + excess, (size_t)room * sizeof *ids->ids);
    ids->count = before + (size_t)room;
    return 0;
}

static int encode_answer(Maker *m, int turn, Error *err) {
    const ExampleConfig *c = m->config;
    const RecordTurn *t = &m->record->turns[turn];
    int status = check_text(m, t->response, turn, "answer");
    if (status) return status;
    const bool spaced = !c->plain && answer_after_space(&c->language, c->tokenizer, t->prompt);
    return answer_text_encode(c->tokenizer, spaced, t->response, strlen(t->response), &m->answer,
                              err);
}

/* The answer's ids with </s> into m->answer; *room is what they leave for the prompt. */
static int make_answer(Maker *m, int turn, int *room, Error *err) {
    const int longest = m->config->longest, head = begin_rows(m->config) + m->image_rows;
    const int most = longest - head;
    m->answer.count = 0;
    int status = encode_answer(m, turn, err);
    if (status == 0) status = check_answer(m, turn, "answer");
    if (status) return status;
    TRY(append_end(&m->answer, answer_end(m->config), err));
    int64_t left = most - (int64_t)m->answer.count;
    if (m->config->answer_position > 0) {
        int fits = infill_max_prompt(m->config->positions > 0 ? m->config->positions : longest,
                                     m->config->answer_position, head, (int)m->answer.count);
        if (fits < left) left = fits;
    }
    *room = (int)left;
    if (left >= 0) return 0;
    maker_problem(
        m, "answer does not fit",
        "%s: turn %d: the answer has %zu tokens with </s>; of the model's %d, %d are left "
        "besides <s> and %d of the image",
        m->name, turn + 1, m->answer.count, longest, most, m->image_rows);
    return UNUSABLE;
}

/* As many end-of-text tokens as the setting says, and fit; an encoder has one more, after the
 * canvas. */
static int pad_answer(Maker *m, int prompt, Error *err) {
    const int32_t end = text_end(m->config);
    const ExampleConfig *c = m->config;
    int most = c->longest - begin_rows(c) - m->image_rows - prompt;
    if (c->answer_position > 0) {
        int fits = (c->positions > 0 ? c->positions : c->longest) - c->answer_position;
        if (fits < most) most = fits;
    }
    const int wanted = c->pad_answers + (c->language.end >= 0);
    if (wanted < most) most = wanted;
    if (!c->pad_answers) return 0;
    while (end >= 0 && (int)m->answer.count < most) TRY(ids_append(&m->answer, &end, 1, err));
    return 0;
}

/* Appends one turn, or changes nothing and returns UNUSABLE. */
static int make_turn(Maker *m, int turn, ExampleTurn *made, Error *err) {
    Ids *ids = &m->out->ids;
    const size_t before = ids->count;
    int room, own = 0;
    if (m->sizes) m->sizes[turn] = -1;
    int status = make_answer(m, turn, &room, err);
    if (status) return status;
    if (m->sizes)
        status = prompt_with_context(m, turn, room, &own, err);
    else if (!m->config->plain)
        status = encode_prompt(m, turn, ids, err);
    if (status == 0) status = fit_prompt(m, turn, room, before);
    const int unpadded = (int)m->answer.count;
    if (status == 0) status = pad_answer(m, (int)(ids->count - before), err);
    if (status == 0) {
        made->prompt_count = (int)(ids->count - before);
        made->answer_count = (int)m->answer.count;
        status = ids_append(ids, m->answer.ids, m->answer.count, err);
    }
    if (status)
        ids->count = before;
    else if (m->sizes)
        m->sizes[turn] = own + unpadded - 1;
    return status;
}

static int make_turns(Maker *m, Error *err) {
    const Record *record = m->record;
    Examples *out = m->out;
    bool image = record->image != NULL, together = image && m->config->together;
    int made = 0, tokens = 0; /* tokens: of the current unit */
    TRY(reserve(out, record->count, m->name, err));
    if (m->config->context && !m->config->plain) {
        m->sizes = calloc((size_t)record->count, sizeof *m->sizes);
        if (!m->sizes)
            return error_set(err, "%s: out of memory for %d turns", m->name, record->count);
    }
    for (int i = 0; i < record->count; i++) {
        int status = make_turn(m, i, &out->turns[made], err);
        if (status < 0) return -1;
        if (status == UNUSABLE) continue;
        int own = out->turns[made].prompt_count + out->turns[made].answer_count;
        made++;
        if (together && out->count && tokens + own <= TOGETHER_MOST * m->config->longest) {
            out->items[out->count - 1].count++;
            tokens += own;
            continue;
        }
        int turn = together ? -1 - out->count : i;
        out->items[out->count++] = (Example){.image = image, .turn = turn, .count = 1};
        tokens = begin_rows(m->config) + m->image_rows + own;
    }
    return 0;
}

/* ---- Documents. ---- */

/* Where the pieces of a document of `tokens` tokens end, at most `room` in each, into ends (NULL:
 * only counted); returns how many there are. Pieces are of equal length, so that none is only a word
 * or two; but of those that are drawn, and of all of such a document, the lengths are as they
 * come. */
static int64_t piece_ends(const Maker *m, int64_t tokens, int64_t room, int64_t *ends) {
    const ExampleConfig *c = m->config;
    uint64_t stream = 0x7069656365; /* "piece" */
    int64_t count = 0, pieces = (tokens + room - 1) / room;
    bool drawn = false;
    if (c->random_lengths > 0) /* a document's own stream */
        for (size_t i = 0; i < m->answer.count; i++)
            stream = random_stream(stream, (uint64_t)m->answer.ids[i], 0, 0);
    for (int64_t at = 0; c->random_lengths > 0 && at < tokens; count++) {
        const uint64_t index = 2 * (uint64_t)count;
        int64_t length = room;
        if (random_uniform(c->seed, stream, index) < (double)c->random_lengths)
            length = 1 + (int64_t)(random_uniform(c->seed, stream, index + 1) * (double)room),
            drawn = true;
        at = at + length < tokens ? at + length : tokens;
        if (ends) ends[count] = at;
    }
    if (drawn) return count;
    for (int64_t p = 0; ends && p < pieces; p++) ends[p] = tokens * (p + 1) / pieces;
    return pieces;
}

static int push_pieces(Maker *m, const int64_t *ends, int64_t pieces, Error *err) {
    Examples *out = m->out;
    int64_t first = 0;
    for (int64_t p = 0; p < pieces; first = ends[p++]) {
        const size_t before = out->ids.count;
        TRY(ids_append(&out->ids, m->answer.ids + first, (size_t)(ends[p] - first), err));
        TRY(append_end(&out->ids, text_end(m->config), err));
        out->turns[p] = (ExampleTurn){.answer_count = (int)(out->ids.count - before)};
        out->items[p] = (Example){.turn = (int)p, .count = 1};
    }
    out->count = (int)pieces;
    return 0;
}

static int make_pieces(Maker *m, Error *err) {
    Examples *out = m->out;
    const int64_t room = m->config->longest - begin_rows(m->config) - (text_end(m->config) >= 0);
    if (m->record->image) {
        maker_problem(m, "image in plain text", "%s: an image, %s, in plain text", m->name,
                      m->record->image);
        return 0;
    }
    TRY(turns_join(&m->text, m->record->turns, 0, m->record->count, "", err));
    int status = encode(m, m->text.text, 0, "document", &m->answer, err);
    if (status == 0) status = check_answer(m, 0, "document");
    if (status) return status < 0 ? -1 : 0;
    const int64_t tokens = (int64_t)m->answer.count;
    const int64_t most = piece_ends(m, tokens, room, NULL), least = (tokens + room - 1) / room;
    int64_t *ends = calloc((size_t)(most > least ? most : least) + 1, sizeof *ends);
    status = ends ? reserve(out, (int)most, m->name, err)
                  : error_set(err, "%s: out of memory for %lld pieces", m->name, (long long)most);
    if (status == 0) status = push_pieces(m, ends, piece_ends(m, tokens, room, ends), err);
    free(ends);
    return status;
}

int examples_make(Examples *examples, const Record *record, const ExampleConfig *config,
                  const char *name, Skipped *skipped, Error *err) {
    examples->count = 0;
    examples->ids.count = 0;
    if (config->longest < 3)
        return error_set(err,
                         "sequences of at most %d tokens, expected 3 or more: <s>, one of the "
                         "answer, </s>",
                         config->longest);
    if (config->together && config->context)
        return error_set(err, "the turns of an image are either one unit or each other's context, "
                              "not both");
    if (record->image && config->image_rows < 1 && !config->whole)
        return error_set(err,
                         "%s: an image, but images take %d rows: has the model a vision tower?",
                         name, config->image_rows);
    Maker m = {.out = examples,
               .record = record,
               .config = config,
               .name = name,
               .skipped = skipped,
               .image_rows = record->image ? config->image_rows + config->image_lead_count : 0};
    int status = config->whole ? make_pieces(&m, err) : make_turns(&m, err);
    if (status)
        examples->count = 0;
    else
        place(examples, begin_rows(config), m.image_rows);
    ids_free(&m.answer);
    free(m.sizes), joined_text_free(&m.text);
    return status;
}
