/* token_template.c - see token_template.h. */
#include "language/token_template.h"

#include <string.h>

#include "language/token_json.h"

typedef enum TemplateKind {
    TEMPLATE,
    TEMPLATE_BERT,
    TEMPLATE_ROBERTA,
    TEMPLATE_BYTE_LEVEL,
    TEMPLATE_SEQUENCE
} TemplateKind;
static const char *const template_names[] = {
    "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence", NULL};

static int add_token(Ids *list, const TokenTable *table, const char *token, Error *err) {
    int32_t id = token ? token_table_id(table, token, strlen(token)) : -1;
    if (id < 0)
        return error_set(err, "post_processor: \"%.60s\" is not in the vocabulary",
                         token ? token : "");
    return ids_append(list, &id, 1, err);
}

/* A special token of a template has a list of ids of its own. */
static int add_special(Ids *list, const json_t *part, const char *name, Error *err) {
    const json_t *token = json_object_get(json_object_get(part, "special_tokens"), name);
    const json_t *ids = json_object_get(token, "ids");
    if (!json_is_array(ids))
        return error_set(err, "post_processor: \"%.60s\" has no ids in \"special_tokens\"", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (id < 0 || id > TOKEN_ID_MOST)
            return error_set(err, "post_processor: \"%.60s\" has the id %lld", name, (long long)id);
        TRY(ids_append(list, &(int32_t){(int32_t)id}, 1, err));
    }
    return 0;
}

static int read_template(const json_t *part, Ids *before, Ids *after, Error *err) {
    const json_t *single = json_object_get(part, "single");
    bool text = false;
    if (!json_is_array(single)) return error_set(err, "post_processor: expected a list \"single\"");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *special =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (special) {
            TRY(add_special(text ? after : before, part, special, err));
        } else if (json_object_get(item, "Sequence") && !text) {
            text = true;
        } else {
            return error_set(err, "post_processor: item %zu of \"single\" is not supported", i);
        }
    }
    return text ? 0 : error_set(err, "post_processor: \"single\" has no text");
}

static int read_part(const json_t *part, const TokenTable *table, Ids *before, Ids *after,
                     int depth, Error *err) {
    static const char *const keys[] = {"type",
                                       "single",
                                       "pair",
                                       "cls",
                                       "sep",
                                       "trim_offsets",
                                       "processors",
                                       "special_tokens",
                                       "add_prefix_space",
                                       "use_regex",
                                       NULL};
    int kind = token_json_type(part, "post_processor", template_names, err);
    if (kind < 0) return -1;
    TRY(token_json_keys(part, "post_processor", keys, err));
    if (kind == TEMPLATE) return read_template(part, before, after, err);
    if (kind == TEMPLATE_BERT || kind == TEMPLATE_ROBERTA) {
        TRY(add_token(before, table,
                      json_string_value(json_array_get(json_object_get(part, "cls"), 0)), err));
        return add_token(after, table,
                         json_string_value(json_array_get(json_object_get(part, "sep"), 0)), err);
    }
    const json_t *list = json_object_get(part, "processors");
    if (kind == TEMPLATE_SEQUENCE && (!json_is_array(list) || depth > 8))
        return error_set(err, "post_processor Sequence: expected a list of processors");
    for (size_t i = 0; kind == TEMPLATE_SEQUENCE && i < json_array_size(list); i++)
        TRY(read_part(json_array_get(list, i), table, before, after, depth + 1, err));
    return 0;
}

int token_template_read(const json_t *part, const TokenTable *table, Ids *before, Ids *after,
                        Error *err) {
    if (!part || json_is_null(part)) return 0;
    return read_part(part, table, before, after, 0, err);
}
