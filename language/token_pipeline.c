/* token_pipeline.c - see token_pipeline.h. */
#include "language/token_pipeline.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "language/bpe.h"
#include "language/token_added.h"
#include "language/token_decode.h"
#include "language/token_json.h"
#include "language/token_merges.h"
#include "language/token_normalize.h"
#include "language/token_split.h"
#include "language/token_table.h"
#include "language/token_template.h"
#include "language/token_words.h"
#include "language/unigram.h"
#include "language/wordpiece.h"

typedef enum ModelKind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE } ModelKind;
static const char *const model_names[] = {"BPE", "Unigram", "WordPiece", NULL};

/* What one call needs; calls at the same time have one each, and leave it for later ones. */
typedef struct Scratch {
    TokenPieces pieces, spare;
    TokenText text, other;
    TokenMatcher matcher;
    BpeWork bpe;
    UnigramWork unigram;
    TokenWords words;
    struct Scratch *next;
} Scratch;

/* A scratch that has grown beyond this is not kept. */
enum { SCRATCH_KEPT = 4 << 20 };

struct TokenPipeline {
    TokenTable table;
    TokenNormalizer normalizer;
    TokenAdded added;
    TokenSplitter splitter;
    TokenDecoder decoder;
    ModelKind model;
    Bpe bpe;
    Unigram unigram;
    WordPiece wordpiece;
    Ids before, after;
    char kind[64];
    bool *special;    /* [size] */
    TokenText pieces; /* for display, each with a terminating 0 */
    size_t *starts;   /* [size], of pieces */
    pthread_mutex_t lock;
    Scratch *free;
};

/* ---- Scratches. ---- */

static void scratch_free(Scratch *s) {
    token_pieces_free(&s->pieces);
    token_pieces_free(&s->spare);
    token_text_free(&s->text);
    token_text_free(&s->other);
    token_matcher_free(&s->matcher);
    bpe_work_free(&s->bpe);
    unigram_work_free(&s->unigram);
    token_words_free(&s->words);
    free(s);
}

static Scratch *scratch_take(TokenPipeline *p, Error *err) {
    pthread_mutex_lock(&p->lock);
    Scratch *s = p->free;
    if (s) p->free = s->next;
    pthread_mutex_unlock(&p->lock);
    if (!s) s = calloc(1, sizeof *s);
    if (!s) error_write(err, "out of memory for a tokenizer");
    return s;
}

static void scratch_give(TokenPipeline *p, Scratch *s) {
    if (s->pieces.text.capacity > SCRATCH_KEPT || s->text.capacity > SCRATCH_KEPT) {
        scratch_free(s);
        return;
    }
    pthread_mutex_lock(&p->lock);
    s->next = p->free;
    p->free = s;
    pthread_mutex_unlock(&p->lock);
}

/* ---- Reading. ---- */

static int read_vocabulary(TokenPipeline *p, const json_t *model, Error *err) {
    json_t *vocabulary = json_object_get(model, "vocab");
    const char *token;
    json_t *id;
    if (p->model == MODEL_UNIGRAM) return unigram_read_vocabulary(model, &p->table, err);
    if (!json_is_object(vocabulary) || json_object_size(vocabulary) == 0)
        return error_set(err, "\"vocab\": expected an object of tokens with their ids");
    json_object_foreach(vocabulary, token, id) {
        if (!json_is_integer(id)) return error_set(err, "token \"%.60s\" has no id", token);
        TRY(token_table_add(&p->table, token, strlen(token), json_integer_value(id), err));
    }
    return 0;
}

static int read_model(TokenPipeline *p, const json_t *model, Error *err) {
    static const char *const legacy[] = {"vocab", "merges", NULL};
    int kind = MODEL_BPE;
    /* The first files had no type where the parts of BPE say what they are. */
    bool typeless = json_is_object(model) && !json_object_get(model, "type") &&
                    json_object_get(model, legacy[0]) && json_object_get(model, legacy[1]);
    if (!typeless) kind = token_json_type(model, "model", model_names, err);
    if (kind < 0) return -1;
    p->model = (ModelKind)kind;
    TRY(read_vocabulary(p, model, err));
    if (kind == MODEL_UNIGRAM) return unigram_open(&p->unigram, model, &p->table, err);
    if (kind == MODEL_WORDPIECE) return wordpiece_open(&p->wordpiece, model, &p->table, err);
    return bpe_open(&p->bpe, model, &p->table, err);
}

static void name_kind(TokenPipeline *p) {
    const char *model = model_names[p->model];
    if (p->model == MODEL_BPE)
        model = p->splitter.byte_level ? "byte-level BPE"
                : p->bpe.fallback      ? "BPE with byte fallback"
                                       : "BPE";
    snprintf(p->kind, sizeof p->kind, "%s", model);
}

/* A piece of bytes as text: a space is U+2581, as in other vocabularies; what is no text, <0x0A>. */
static int display_bytes(TokenText *out, TokenText *bytes, const char *piece, size_t size,
                         Error *err) {
    bytes->size = 0;
    for (size_t i = 0, length; i < size; i += length) {
        int byte = token_byte_of(token_character(piece + i, &length));
        if (byte < 0) return token_text_append(out, piece, size, err);
        TRY(token_text_append(bytes, (char[]){(char)byte}, 1, err));
    }
    for (size_t i = 0, length; i < bytes->size; i += length) {
        bool valid = token_step(bytes->bytes + i, bytes->size - i, &length);
        unsigned char c = (unsigned char)bytes->bytes[i];
        char name[8];
        int name_size = snprintf(name, sizeof name, "<0x%02X>", c);
        if (c == ' ')
            TRY(token_text_append_character(out, 0x2581, err));
        else if (valid && c > ' ' && c != 0x7F)
            TRY(token_text_append(out, bytes->bytes + i, length, err));
        else
            TRY(token_text_append(out, name, (size_t)name_size, err));
        if (!valid) length = 1;
    }
    return 0;
}

static bool is_added(const TokenPipeline *p, const bool *added, int32_t id) {
    return added[id] || !(p->splitter.byte_level || p->decoder.byte_level);
}

static int make_pieces(TokenPipeline *p, const bool *added, TokenText *bytes, Error *err) {
    for (int32_t id = 0; id < p->table.limit; id++) {
        size_t size;
        const char *text = token_table_text(&p->table, id, &size);
        p->starts[id] = p->pieces.size;
        if (text && is_added(p, added, id))
            TRY(token_text_append(&p->pieces, text, size, err));
        else if (text)
            TRY(display_bytes(&p->pieces, bytes, text, size, err));
        TRY(token_text_append(&p->pieces, "", 1, err));
    }
    return 0;
}

static int make_lists(TokenPipeline *p, Error *err) {
    size_t size = (size_t)p->table.limit;
    bool *added = calloc(size, sizeof *added);
    p->special = calloc(size, sizeof *p->special);
    p->starts = calloc(size, sizeof *p->starts);
    int status =
        added && p->special && p->starts ? 0 : error_set(err, "out of memory for %zu pieces", size);
    for (size_t i = 0; status == 0 && i < p->added.count; i++) {
        int32_t id;
        bool special = token_added_special(&p->added, i, &id);
        added[id] = true;
        if (special) p->special[id] = true;
    }
    TokenText bytes = {0};
    if (status == 0) status = make_pieces(p, added, &bytes, err);
    token_text_free(&bytes);
    free(added);
    return status;
}

static int read_parts(TokenPipeline *p, const json_t *root, Error *err) {
    static const char *const keys[] = {"version",        "truncation", "padding", "model",
                                       "added_tokens",   "normalizer", "decoder", "pre_tokenizer",
                                       "post_processor", NULL};
    TRY(token_json_keys(root, "tokenizer", keys, err));
    TRY(read_model(p, json_object_get(root, "model"), err));
    TRY(token_normalizer_open(&p->normalizer, json_object_get(root, "normalizer"), err));
    TRY(token_added_open(&p->added, json_object_get(root, "added_tokens"), &p->normalizer,
                         &p->table, err));
    TRY(token_splitter_open(&p->splitter, json_object_get(root, "pre_tokenizer"), err));
    TRY(token_decoder_open(&p->decoder, json_object_get(root, "decoder"), err));
    TRY(token_template_read(json_object_get(root, "post_processor"), &p->table, &p->before,
                            &p->after, err));
    for (size_t i = 0; i < p->before.count + p->after.count; i++) {
        size_t k = i - p->before.count;
        int32_t id = i < p->before.count ? p->before.ids[i] : p->after.ids[k];
        if (!token_table_text(&p->table, id, NULL))
            return error_set(err, "post_processor: id %d is not in the vocabulary", id);
    }
    name_kind(p);
    return make_lists(p, err);
}

int token_pipeline_make(TokenPipeline **pipeline, const json_t *root, const char *path,
                        Error *err) {
    *pipeline = NULL;
    TokenPipeline *p = calloc(1, sizeof *p);
    if (!p) return error_set(err, "%s: out of memory for a tokenizer", path);
    pthread_mutex_init(&p->lock, NULL);
    if (read_parts(p, root, err) != 0) {
        token_pipeline_close(p);
        return error_context(err, "%s", path);
    }
    *pipeline = p;
    return 0;
}

int token_pipeline_open(TokenPipeline **pipeline, const char *path, Error *err) {
    json_t *root;
    *pipeline = NULL;
    TRY(token_json_read(&root, path, err));
    int status = token_pipeline_make(pipeline, root, path, err);
    json_decref(root);
    return status;
}

int token_pipeline_open_merges(TokenPipeline **pipeline, const char *folder, Error *err) {
    *pipeline = NULL;
    json_t *root = token_merges_read(folder, err);
    int status = root ? token_pipeline_make(pipeline, root, folder, err) : -1;
    json_decref(root);
    return status;
}

void token_pipeline_close(TokenPipeline *p) {
    if (!p) return;
    while (p->free) {
        Scratch *s = p->free;
        p->free = s->next;
        scratch_free(s);
    }
    token_table_free(&p->table);
    token_normalizer_close(&p->normalizer);
    token_added_close(&p->added);
    token_splitter_close(&p->splitter);
    token_decoder_close(&p->decoder);
    bpe_close(&p->bpe);
    unigram_close(&p->unigram);
    wordpiece_close(&p->wordpiece);
    ids_free(&p->before), ids_free(&p->after);
    free(p->special);
    free(p->starts);
    token_text_free(&p->pieces);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- Encoding. ---- */

static int encode_word(const TokenPipeline *p, Scratch *s, const char *word, size_t size, Ids *out,
                       Error *err) {
    bool found;
    size_t before = out->count;
    TRY(token_words_find(&s->words, word, size, out, &found, err));
    if (found) return 0;
    if (p->model == MODEL_BPE)
        TRY(bpe_encode(&p->bpe, &s->bpe, word, size, out, err));
    else if (p->model == MODEL_UNIGRAM)
        TRY(unigram_encode(&p->unigram, &s->unigram, word, size, out, err));
    else
        TRY(wordpiece_encode(&p->wordpiece, word, size, out, err));
    if (out->count == before) return 0;
    return token_words_keep(&s->words, word, size, out->ids + before, out->count - before, err);
}

/* The pieces of a text before it is divided into words. */
static int find_added(const TokenPipeline *p, Scratch *s, const char *text, size_t size,
                      Error *err) {
    token_pieces_clear(&s->spare);
    token_pieces_clear(&s->pieces);
    TRY(token_added_find(&p->added, &p->added.raw, text, size, true, &s->spare, err));
    for (size_t i = 0; i < s->spare.count; i++) {
        const TokenPiece *piece = &s->spare.list[i];
        if (piece->id >= 0) {
            TRY(token_pieces_add_id(&s->pieces, piece->id, err));
            continue;
        }
        bool first = piece->first;
        TRY(token_text_set(&s->text, s->spare.text.bytes + piece->start, piece->size, err));
        TRY(token_normalize(&p->normalizer, &s->matcher, &s->text, &s->other, &first, err));
        if (s->text.size)
            TRY(token_added_find(&p->added, &p->added.normalized, s->text.bytes, s->text.size,
                                 first, &s->pieces, err));
    }
    return 0;
}

static int encode_all(const TokenPipeline *p, Scratch *s, const char *text, size_t size, Ids *out,
                      Error *err) {
    TRY(find_added(p, s, text, size, err));
    TRY(token_split(&p->splitter, &s->matcher, &s->pieces, &s->spare, err));
    for (size_t i = 0; i < s->pieces.count; i++) {
        const TokenPiece *piece = &s->pieces.list[i];
        if (piece->id >= 0)
            TRY(ids_append(out, &piece->id, 1, err));
        else
            TRY(encode_word(p, s, s->pieces.text.bytes + piece->start, piece->size, out, err));
    }
    return 0;
}

int token_pipeline_encode(const TokenPipeline *pipeline, const char *text, size_t size, Ids *out,
                          Error *err) {
    /* The list of scratches is all that changes; the lock guards it. */
    TokenPipeline *p = (TokenPipeline *)(uintptr_t)pipeline;
    Scratch *s = scratch_take(p, err);
    if (!s) return -1;
    int status = encode_all(p, s, text, size, out, err);
    scratch_give(p, s);
    return status;
}

/* ---- Decoding. ---- */

static int decode_all(const TokenPipeline *p, Scratch *s, const int32_t *ids, size_t count,
                      TokenText *out, Error *err) {
    token_pieces_clear(&s->pieces);
    for (size_t i = 0; i < count; i++) {
        size_t size, start = s->pieces.text.size;
        if (p->special[ids[i]]) continue;
        const char *text = token_table_text(&p->table, ids[i], &size);
        TRY(token_text_append(&s->pieces.text, text, size, err));
        TRY(token_pieces_end(&s->pieces, start, err));
    }
    if (s->pieces.count == 0) return 0;
    return token_decode(&p->decoder, &s->matcher, &s->pieces, &s->spare, out, err);
}

int token_pipeline_decode(const TokenPipeline *pipeline, const int32_t *ids, size_t count,
                          char **text, size_t *size, Error *err) {
    TokenPipeline *p = (TokenPipeline *)(uintptr_t)pipeline;
    TokenText out = {0};
    Scratch *s = scratch_take(p, err);
    if (!s) return -1;
    int status = decode_all(p, s, ids, count, &out, err);
    if (status == 0) *size = out.size;
    if (status == 0) status = token_text_append(&out, "", 1, err);
    scratch_give(p, s);
    if (status) token_text_free(&out);
    *text = out.bytes;
    return status;
}

/* ---- What it is. ---- */

int32_t token_pipeline_size(const TokenPipeline *p) {
    return p->table.limit;
}

int32_t token_pipeline_id(const TokenPipeline *p, const char *token) {
    return token_table_id(&p->table, token, strlen(token));
}

bool token_pipeline_has(const TokenPipeline *p, int32_t id) {
    return token_table_text(&p->table, id, NULL) != NULL;
}

const char *token_pipeline_piece(const TokenPipeline *p, int32_t id) {
    return id >= 0 && id < p->table.limit ? p->pieces.bytes + p->starts[id] : "";
}

const char *token_pipeline_kind(const TokenPipeline *p) {
    return p->kind;
}

void token_pipeline_make_special(TokenPipeline *p, int32_t id) {
    if (id >= 0 && id < p->table.limit) p->special[id] = true;
}

const Ids *token_pipeline_before(const TokenPipeline *p) {
    return &p->before;
}

const Ids *token_pipeline_after(const TokenPipeline *p) {
    return &p->after;
}
