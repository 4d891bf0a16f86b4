/* token_specials.c - see token_specials.h. */
#include "language/token_specials.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "language/token_json.h"

enum { BEGIN, END, PAD, UNKNOWN, MASK, KINDS };
static const char *const token_keys[KINDS] = {"bos_token", "eos_token", "pad_token", "unk_token",
                                              "mask_token"};
static const char *const id_keys[KINDS] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                           "unk_token_id", "mask_token_id"};

/* A token is a string, or an object with its "content". */
static const char *token_text(const json_t *value) {
    const char *text = json_string_value(value);
    return text ? text : json_string_value(json_object_get(value, "content"));
}

static int from_tokens(int32_t *ids[KINDS], const json_t *file, const char *name,
                       const TokenPipeline *p, Error *err) {
    for (int i = 0; i < KINDS; i++) {
        const char *token = token_text(json_object_get(file, token_keys[i]));
        if (!token || *ids[i] >= 0) continue;
        *ids[i] = token_pipeline_id(p, token);
        if (*ids[i] < 0)
            return error_set(err, "%s: %s \"%.60s\" is not in the vocabulary", name, token_keys[i],
                             token);
    }
    return 0;
}

/* A model may have several ids that end a text; the first is the one. */
static int from_ids(int32_t *ids[KINDS], const json_t *file, const char *name,
                    const TokenPipeline *p, Error *err) {
    for (int i = 0; i < KINDS; i++) {
        const json_t *value = json_object_get(file, id_keys[i]);
        if (json_is_array(value)) value = json_array_get(value, 0);
        if (!json_is_integer(value) || *ids[i] >= 0) continue;
        json_int_t id = json_integer_value(value);
        if (id < 0) continue; /* how some write that there is none */
        if (id > INT32_MAX || !token_pipeline_has(p, (int32_t)id))
            return error_set(err, "%s: %s %lld is not in the vocabulary", name, id_keys[i],
                             (long long)id);
        *ids[i] = (int32_t)id;
    }
    return 0;
}

typedef int (*TokenSource)(int32_t *ids[KINDS], const json_t *file, const char *name,
                           const TokenPipeline *p, Error *err);

static int from_file(int32_t *ids[KINDS], const char *folder, const char *name, TokenSource source,
                     const TokenPipeline *p, Error *err) {
    char *path = NULL;
    json_t *file = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return error_set(err, "%s: out of memory for its path", folder);
    int status = access(path, F_OK) == 0 ? token_json_read(&file, path, err) : 0;
    if (status == 0 && file) status = source(ids, file, path, p, err);
    json_decref(file);
    free(path);
    return status;
}

static void by_names(int32_t *id, const TokenPipeline *p, const char *const *names) {
    for (; *id < 0 && *names; names++) *id = token_pipeline_id(p, *names);
}

/* Without a file: the first token before a text and the last one after it; usual names. */
static void by_convention(TokenizerSpecials *s, const TokenPipeline *p) {
    static const char *const masks[] = {"<|mdm_mask|>", "<|mask|>", "<mask>", "[MASK]", NULL};
    static const char *const pads[] = {"<pad>", "[PAD]", NULL};
    static const char *const unknowns[] = {"<unk>", "[UNK]", NULL};
    static const char *const turns[] = {"<|eot_id|>", "<|im_end|>", NULL};
    const Ids *before = token_pipeline_before(p), *after = token_pipeline_after(p);
    if (s->begin < 0 && before->count) s->begin = before->ids[0];
    if (s->end < 0 && after->count) s->end = after->ids[after->count - 1];
    by_names(&s->mask, p, masks);
    by_names(&s->pad, p, pads);
    by_names(&s->unknown, p, unknowns);
    by_names(&s->turn_end, p, turns);
    if (s->turn_end < 0) s->turn_end = s->end;
}

static int check_given(const TokenizerSpecials *s, const TokenPipeline *p, Error *err) {
    const int32_t ids[] = {s->begin, s->end, s->pad, s->unknown, s->mask, s->turn_end};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        if (ids[i] >= 0 && !token_pipeline_has(p, ids[i]))
            return error_set(err, "special id %d is not in the tokenizer's vocabulary (0 to %d)",
                             ids[i], token_pipeline_size(p) - 1);
    return 0;
}

int token_specials_read(TokenizerSpecials *s, const char *folder, const TokenPipeline *p,
                        Error *err) {
    int32_t *ids[KINDS] = {&s->begin, &s->end, &s->pad, &s->unknown, &s->mask};
    TRY(check_given(s, p, err));
    if (folder) {
        TRY(from_file(ids, folder, "tokenizer_config.json", from_tokens, p, err));
        TRY(from_file(ids, folder, "special_tokens_map.json", from_tokens, p, err));
        TRY(from_file(ids, folder, "config.json", from_ids, p, err));
    }
    by_convention(s, p);
    return 0;
}
