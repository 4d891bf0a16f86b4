/* prune.c - a model with the words of one task only: rows of the word embeddings and the head, and
 * the tokenizer's pieces, that some data never use are left out. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "projector/model_languages.h"
#include "projector/model_paths.h"
#include "projector/model_prompt.h"
#include "projector/model_write.h"
#include "apps/cli/common.h"
#include "apps/cli/prompt_options.h"
#include "apps/cli/report.h"
#include "data/files/path.h"
#include "data/sets/records.h"
#include "language/vocabulary.h"

static const CommandHelp help = {
    .name = "prune",
    .usage = "-m MODEL --data FILE... [options] OUT",
    .about =
        "Writes a model folder OUT that has only the tokens of some data: most of an XLM-R's\n"
        "parameters are embeddings of tokens that a task never uses. The data (LLaVA's JSON,\n"
        "lines of {\"inputs\", \"targets\"}, plain text, or a mixture's folder) are read as for\n"
        "training; all ids of prompts and answers are kept, and those of the model's\n"
        "prompt templates. Texts of such ids are answered as before; others are spelled with the\n"
        "tokens that are left, or become <unk>. Prune first and train the pruned model: with its\n"
        "own vocabulary it cannot use another model's language part.",
    .examples = "easyfirst prune -m model --data train.jsonl --data valid.jsonl small\n"
                "easyfirst prune -m xlm-roberta-base --data flan/ --keep-characters small",
};

/* The parameters whose rows are words. */
static const char HEAD[] = "lm_head.decoder.weight";
static const char *const by_word[] = {"roberta.embeddings.word_embeddings.weight", HEAD,
                                      "lm_head.bias"};

typedef struct Prune {
    ModelOptions options;
    TextList data;
    PromptOptions prompt;
    ParallelFiles parallel;
    const char *languages;
    bool characters, text_lines, quiet;
    int threads;
    char out[PATH_MAX]; /* without slashes at the end */
    char partial[PATH_MAX + 64];
    Device *device;
    Model model;
    bool open;
    bool *keep;      /* by id */
    int64_t *counts; /* by id: how often the data have it */
    int least;       /* times that a token must occur to be kept */
    VocabularyMap map;
    Skipped skipped;
    int64_t records;
} Prune;

/* ---- Which words. ---- */

/* A text that cannot be encoded is a problem of its record. */
static void mark_text(Prune *p, const char *text, const char *path, int64_t record) {
    Error err;
    if (vocabulary_count(p->model.tokenizer, text, strlen(text), p->counts, &err))
        skipped_add(&p->skipped, "not encoded", "%s: record %lld: %s", path, (long long)record,
                    err.text);
}

static int mark_file(Prune *p, const char *path, const PromptOptions *prompt, Error *err) {
    /* Images are not looked at: any folder will do. */
    RecordsOptions options = {
        .images = ".", .text_lines = p->text_lines, .prompt = *prompt, .languages = p->languages};
    Records *records;
    int status = 0;
    TRY(records_open(&records, path, &options, &p->skipped, err));
    for (int64_t i = 0; i < records_count(records) && status == 0; i++) {
        Record record;
        status = records_read(records, i, &record, err);
        for (int t = 0; t < record.count; t++) {
            mark_text(p, record.turns[t].prompt, path, i + 1);
            mark_text(p, record.turns[t].response, path, i + 1);
        }
        record_free(&record);
    }
    p->records += records_count(records);
    records_close(records);
    return status;
}

/* What the commands say around a question or text. */
static int mark_wordings(Prune *p, Error *err) {
    static const char *const presets[] = {"ask", "gqa", "translate", "summarize"};
    char pairs[400];
    model_pairs_text(pairs, sizeof pairs, p->model.settings); /* the names of languages */
    TRY(vocabulary_mark(p->model.tokenizer, pairs, strlen(pairs), p->keep, err));
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        char *prompt;
        TRY(model_prompt(p->model.settings, presets[i], " ", " ", " ", &prompt, err));
        int status = vocabulary_mark(p->model.tokenizer, prompt, strlen(prompt), p->keep, err);
        free(prompt);
        TRY(status);
    }
    return 0;
}

/* ---- The folder. ---- */

/* config.json with the new number of words. */
static int write_config(const Prune *p, Error *err) {
    json_t *config;
    TRY(model_config_beside(&config, &p->model.language, err));
    if (json_object_set_new(config, "vocab_size", json_integer(p->map.new_count))) {
        json_decref(config);
        config = NULL;
    }
    return model_write_json(config, p->partial, "language/config.json", err);
}

static bool rows_are_words(const char *name) {
    for (size_t i = 0; i < sizeof by_word / sizeof by_word[0]; i++)
        if (!strcmp(name, by_word[i])) return true;
    return false;
}

/* The tensors that are written, and the memory of rows that were gathered and names. */
typedef struct Entries {
    CheckpointEntry *items;
    void **memory;
    int count, memory_count;
} Entries;

/* `value` as it lies in the file or, where its rows are words, those that stay. */
static int add_entry(Entries *entries, const VocabularyMap *map, const char *name, Tensor value,
                     bool words, Error *err) {
    if (words) {
        size_t row = tensor_bytes(value) / (size_t)value.shape[0];
        char *rows = malloc((size_t)map->new_count * row);
        if (!rows) return error_set(err, "no memory for %d rows of %s", map->new_count, name);
        for (int32_t i = 0; i < map->new_count; i++)
            memcpy(rows + (size_t)i * row, (const char *)value.data + (size_t)map->old_ids[i] * row,
                   row);
        entries->memory[entries->memory_count++] = rows;
        value.data = rows;
        value.shape[0] = map->new_count;
    }
    entries->items[entries->count++] = (CheckpointEntry){name, value};
    return 0;
}

/* The scales of a tensor of 8-bit integers. */
static int add_scales(Entries *entries, const VocabularyMap *map, const Param *param, Error *err) {
    char *name = path_format(err, "%s" CHECKPOINT_SCALE, param->name);
    if (!name) return -1;
    entries->memory[entries->memory_count++] = name;
    Tensor scales =
        tensor_1d((float *)(uintptr_t)param->value.scale, DTYPE_F32, param->value.shape[0]);
    return add_entry(entries, map, name, scales, rows_are_words(param->name), err);
}

static int add_entries(Entries *entries, const Prune *p, Error *err) {
    const Params *params = &p->model.language.params;
    size_t most = 2 * (size_t)params->count + 1; /* with scales */
    entries->items = calloc(most, sizeof *entries->items);
    entries->memory = calloc(2 * most, sizeof *entries->memory);
    if (!entries->items || !entries->memory)
        return error_set(err, "no memory for %d tensors", params->count);
    for (int i = 0; i < params->count; i++) {
        const Param *param = &params->items[i];
        if (!param->present) continue; /* an optional one */
        TRY(add_entry(entries, &p->map, param->name, param->value, rows_are_words(param->name),
                      err));
        if (param->value.scale) TRY(add_scales(entries, &p->map, param, err));
    }
    return 0;
}

/* The language model's weights, as they lie in the file but for the rows that are left out. */
static int write_weights(const Prune *p, Error *err) {
    Entries entries = {0};
    char *path = path_join(p->partial, "language/model.safetensors", err);
    int status = path ? add_entries(&entries, p, err) : -1;
    if (status == 0) status = checkpoint_write(path, entries.items, (size_t)entries.count, err);
    for (int i = 0; i < entries.memory_count; i++) free(entries.memory[i]);
    free(entries.memory);
    free(entries.items);
    free(path);
    return status;
}

static int write_vocabulary(Prune *p, Error *err) {
    char *source = model_file_beside(p->model.language.path, MODEL_TOKENIZER, err);
    char *target = path_join(p->partial, "language/" MODEL_TOKENIZER, err);
    int status = -1;
    if (source && target)
        status = vocabulary_prune(source, target, p->keep, tokenizer_size(p->model.tokenizer),
                                  p->characters, &p->map, err);
    free(source);
    free(target);
    return status;
}

static int write_language(Prune *p, Error *err) {
    TRY(model_write_subfolder(p->partial, "language", err));
    TRY(write_vocabulary(p, err));
    TRY(write_config(p, err));
    return write_weights(p, err);
}

static int write_vision(const Prune *p, Error *err) {
    static const char preprocess[] = "preprocessor_config.json";
    const ModelPart *part = &p->model.vision;
    json_t *config;
    TRY(model_write_subfolder(p->partial, "vision", err));
    TRY(model_config_beside(&config, part, err));
    TRY(model_write_json(config, p->partial, "vision/config.json", err));
    TRY(model_copy_beside(part, preprocess, p->partial, "vision/preprocessor_config.json", err));
    return model_write_part(part, p->partial, "vision/model.safetensors", err);
}

static int write_parts(Prune *p, Error *err) {
    const Model *m = &p->model;
    TRY(write_language(p, err));
    TRY(model_write_part(&m->length, p->partial, "length.safetensors", err));
    TRY(model_write_part(&m->projector, p->partial, "projector.safetensors", err));
    if (m->vision.present) TRY(write_vision(p, err));
    if (!m->settings) return 0;
    return model_write_settings(m->settings, m->parts.attention,
                                m->vision.present ? &m->tower : NULL, p->partial, err);
}

/* ---- The command. ---- */

static int open_model(Prune *p, Error *err) {
    p->options.describe_only = true;
    TRY(device_open(&p->device, &(DeviceOptions){.threads = p->threads}, err));
    TRY(model_open(&p->model, &p->options, p->device, err));
    p->open = true;
    if (!p->model.language.present)
        return error_set(err, "this model has no language model: name one with --language");
    if (p->model.parts.language.llama)
        return error_set(err, "%s: only vocabularies of XLM-R's kind are pruned",
                         p->model.language.path);
    if (p->model.tokenizer && strcmp(tokenizer_kind(p->model.tokenizer), "sentencepiece") != 0)
        return error_set(err,
                         "%s: only vocabularies of XLM-R's kind (%s) are pruned, and this model's "
                         "tokenizer is %s",
                         p->model.language.path, MODEL_TOKENIZER,
                         tokenizer_kind(p->model.tokenizer));
    if (!p->model.tokenizer)
        return error_set(
            err, "%s: no %s in the folder of the weights, and without it no id has a meaning",
            p->model.language.path, MODEL_TOKENIZER);
    size_t count = (size_t)tokenizer_size(p->model.tokenizer);
    p->keep = calloc(count, sizeof *p->keep);
    p->counts = calloc(count, sizeof *p->counts);
    return p->keep && p->counts ? 0 : error_set(err, "out of memory for a vocabulary");
}

static void print_kept(const Prune *p) {
    const Model *m = &p->model;
    const ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    int64_t before = 0, rows = 0;
    for (int i = 0; i < 4; i++) before += parts[i]->present ? params_count(&parts[i]->params) : 0;
    for (int i = 0; i < m->language.params.count; i++) {
        const Param *param = &m->language.params.items[i];
        if (!rows_are_words(param->name)) continue;
        int64_t width = param->ndim > 1 ? param->shape[1] : 1;
        rows += width * (m->xlmr.config.vocab - p->map.new_count);
    }
    report_print(stderr, "%s: of %lld records; %d of %d ids, %lld of %lld parameters\n", p->out,
                 (long long)p->records, p->map.new_count, m->xlmr.config.vocab,
                 (long long)(before - rows), (long long)before);
    for (int i = 0; i < p->skipped.kind_count; i++)
        report_print(stderr, "left out, %s: %lld (%s)\n", p->skipped.kinds[i].kind,
                     (long long)p->skipped.kinds[i].count, p->skipped.kinds[i].first);
}

static int run(Prune *p, Error *err) {
    const ModelOptions *o = &p->options;
    const char *const inputs[] = {o->folder,    o->vision, o->language,
                                  o->projector, o->length, o->adapter};
    TRY(model_check_out(p->out, inputs, 6, err));
    TRY(model_check_out(p->out, p->data.items, p->data.count, err));
    TRY(open_model(p, err));
    TRY(mark_wordings(p, err));
    TRY(folder_begin(p->partial, sizeof p->partial, p->out, err)); /* fails before the work */
    int status = 0;
    for (int i = 0; i < p->data.count && status == 0; i++)
        status = mark_file(p, p->data.items[i], &p->prompt, err);
    PromptOptions prompt = p->prompt;
    const char *path;
    for (int i = 0; status == 0 && (path = parallel_entry(&p->parallel, i, &prompt)) != NULL; i++)
        status = mark_file(p, path, &prompt, err);
    for (int32_t i = 0; status == 0 && i < tokenizer_size(p->model.tokenizer); i++)
        p->keep[i] |= p->counts[i] >= p->least;
    if (status == 0) status = write_parts(p, err);
    if (status == 0) status = folder_commit(p->partial, p->out, err);
    if (status) {
        folder_discard(p->partial);
        return -1;
    }
    if (!p->quiet) print_kept(p);
    return 0;
}

static int check_usage(Prune *p, int count, char **words) {
    ModelOptions *o = &p->options;
    const char *folder = getenv("EASYFIRST_MODEL");
    if (!o->folder && folder && folder[0]) o->folder = folder;
    if (!o->folder && !o->language)
        return options_wrong(&help, "no model is named: give its folder with -m FOLDER or in the "
                                    "environment as EASYFIRST_MODEL, or --language PATH");
    if (!p->data.count && !p->parallel.source && !p->parallel.pairs)
        return options_wrong(&help, "--data is missing: the data whose tokens are kept");
    Error err;
    if (prompt_options_check(&p->prompt, &p->parallel, &err))
        return options_wrong(&help, "%s", err.text);
    if (count != 1 || !words[0][0])
        return options_wrong(&help,
                             count > 1 ? "one folder at a time; \"%s\" is one too many"
                                       : "the name of the new folder is missing%s",
                             count > 1 ? words[1] : "");
    if (snprintf(p->out, sizeof p->out, "%s", words[0]) >= (int)sizeof p->out)
        return options_wrong(&help, "the name of the new folder is too long");
    for (size_t size = strlen(p->out); size > 1 && p->out[size - 1] == '/';) p->out[--size] = 0;
    return -1;
}

int command_prune(int argc, char **argv) {
    Prune p = {.options = {.feature_layer = FEATURE_LAYER_UNSET}, .least = 1};
    ModelOptions *m = &p.options;
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {{"data", 'd', OPTION_LIST, "FILE", &p.data,
                      "data whose tokens are kept; may be given several times"},
                     {"min-count", 0, OPTION_INTEGER, "N", &p.least,
                      "keep a token only if the data have it so often (default 1);\n"
                      "rarer words are spelled with the tokens that are left",
                      1, 1000000000},
                     {"keep-characters", 0, OPTION_FLAG, NULL, &p.characters,
                      "keep every single character, too, so that words that the\n"
                      "data lack can still be spelled"},
                     {"text-lines", 0, OPTION_FLAG, NULL, &p.text_lines,
                      "plain text: every line is a text, not every paragraph"},
                     {"languages", 0, OPTION_TEXT, "LIST", &p.languages,
                      "leave out records in other languages than these (en,fr), or in\n"
                      "these (not-de)"},
                     {"quiet", 'q', OPTION_FLAG, NULL, &p.quiet, "do not print what was kept"}}}};
    model_parts_group(m, "the model's folder; else $EASYFIRST_MODEL", &groups[1]);
    option_add(&groups[1], threads_option(&p.threads));
    prompt_group(&p.prompt, &p.parallel, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = check_usage(&p, argc - first, argv + first);
    if (status < 0) {
        Error err;
        status = run(&p, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    vocabulary_map_free(&p.map);
    free(p.keep), free(p.counts);
    free(p.data.items);
    if (p.open) model_close(&p.model);
    device_close(p.device);
    return status;
}
