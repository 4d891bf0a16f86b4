/* texts.c - fuzz targets of tokenizers, texts and scores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/score/lines.h"
#include "apps/cli/options.h"
#include "data/metrics/answers.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/gqa_text.h"
#include "data/metrics/rouge.h"
#include "data/files/text_space.h"
#include "kernels/clean_text.h"
#include "language/chat_template.h"
#include "language/sentencepiece.h"
#include "language/token_pipeline.h"
#include "language/tokenizer.h"
#include "language/vocabulary.h"
#include "tests/fuzz/fuzz.h"
#include "kernels/nearest_word.h"

#define MODEL "tests/golden/models/tiny-base/language/sentencepiece.bpe.model"

/* Texts that reach most of a normalizer and of a segmentation. */
static const char *const probes[] = {"What colour is the circle?", " a<mask>b  c\td ",
                                     "\xef\xbc\xa1\xef\xbd\x82 \xc3\xa9 e\xcc\x81",
                                     "\xe2\x96\x81\xe2\x96\x81 \xf0\x9f\x98\x80", ""};

static void try_tokenizer(const Tokenizer *t, const char *text, size_t size) {
    Ids ids = {0};
    Error err;
    char *back = NULL;
    int status = tokenizer_encode(t, text, size, &ids, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; i < ids.count; i++) {
        fuzz_check(ids.ids[i] >= 0 && ids.ids[i] < tokenizer_size(t), "an id is in range");
        fuzz_check(tokenizer_piece(t, ids.ids[i]) != NULL, "an id has a piece");
    }
    if (status == 0 && tokenizer_decode(t, ids.ids, ids.count, &back, &err) == 0)
        fuzz_check(utf8_valid_prefix(back, strlen(back)) == strlen(back), "text is UTF-8");
    free(back);
    ids_free(&ids);
}

void fuzz_sentencepiece(const uint8_t *data, size_t size) {
    Tokenizer *t;
    SentencePiece *model;
    Error err;
    const char *path = fuzz_file(0, data, size);
    int status = sentencepiece_open(&model, path, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < sizeof probes / sizeof probes[0]; i++) {
        int32_t *pieces = NULL;
        size_t count;
        int failed =
            sentencepiece_encode(model, probes[i], strlen(probes[i]), &pieces, &count, &err);
        fuzz_result(failed, &err);
        for (size_t k = 0; failed == 0 && k < count; k++)
            fuzz_check(sentencepiece_piece(model, pieces[k]) != NULL, "a piece is in the model");
        free(pieces);
    }
    sentencepiece_close(model);
    status = tokenizer_open(&t, path, &err);
    fuzz_result(status, &err);
    if (status == 0)
        for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
            try_tokenizer(t, probes[i], strlen(probes[i]));
    tokenizer_close(t);
}

void fuzz_tokenizer(const uint8_t *data, size_t size) {
    static Tokenizer *t;
    Error err;
    if (!t) fuzz_check(tokenizer_open(&t, MODEL, &err) == 0, "the tiny tokenizer opens");
    uint8_t *text = fuzz_exact(data, size);
    try_tokenizer(t, (const char *)text, size);
    for (size_t i = 0; i + 1 < size && i < 64; i += 2) { /* the same bytes as ids */
        int32_t id = (int32_t)(text[i] | text[i + 1] << 8) % (tokenizer_size(t) + 2) - 1;
        char *back = NULL;
        fuzz_result(tokenizer_decode(t, &id, 1, &back, &err), &err);
        free(back);
    }
    free(text);
}

/* A tokenizer that opened encodes and decodes what it is given. */
static void try_pipeline(const TokenPipeline *p, const char *text, size_t size) {
    Ids ids = {0};
    Error err;
    char *back = NULL;
    int status = token_pipeline_encode(p, text, size, &ids, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; i < ids.count; i++) {
        fuzz_check(token_pipeline_has(p, ids.ids[i]), "an id is in the vocabulary");
        const char *piece = token_pipeline_piece(p, ids.ids[i]);
        fuzz_check(utf8_valid_prefix(piece, strlen(piece)) == strlen(piece), "a piece is UTF-8");
    }
    if (status == 0 && token_pipeline_decode(p, ids.ids, ids.count, &back, &size, &err) == 0)
        fuzz_check(utf8_valid_prefix(back, size) == size, "text is UTF-8");
    free(back);
    ids_free(&ids);
}

void fuzz_tokenizer_json(const uint8_t *data, size_t size) {
    TokenPipeline *p;
    Error err;
    int status = token_pipeline_open(&p, fuzz_file(0, data, size), &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < sizeof probes / sizeof probes[0]; i++)
        try_pipeline(p, probes[i], strlen(probes[i]));
    token_pipeline_close(p);
}

/* vocab.json, merges.txt and tokenizer_config.json, with 0xFF between them, through the folder. */
void fuzz_merges(const uint8_t *data, size_t size) {
    static const char *const names[] = {"merges/vocab.json", "merges/merges.txt",
                                        "merges/tokenizer_config.json"};
    char folder[512] = "";
    for (int i = 0; i < 3; i++) {
        FuzzPiece piece = fuzz_piece(&data, &size);
        snprintf(folder, sizeof folder, "%s", fuzz_write(i, names[i], piece.data, piece.size));
    }
    *strrchr(folder, '/') = 0;
    Tokenizer *t;
    ChatTemplate kind;
    bool present;
    Error err;
    int status = tokenizer_open(&t, folder, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < sizeof probes / sizeof probes[0]; i++)
        try_tokenizer(t, probes[i], strlen(probes[i]));
    tokenizer_close(t);
    fuzz_result(chat_template_read(&kind, &present, folder, "", &err), &err);
}

void fuzz_vocabulary(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(0, data, size), *out = fuzz_write(1, "pruned.model", "", 0);
    Tokenizer *t;
    Error err;
    if (tokenizer_open(&t, path, &err)) return; /* such a file never reaches vocabulary_prune */
    int32_t count = tokenizer_size(t);
    bool *keep = calloc((size_t)count, sizeof *keep);
    VocabularyMap map = {0};
    for (int32_t i = 0; keep && i < count; i += 3) keep[i] = true;
    int status = keep ? vocabulary_mark(t, probes[0], strlen(probes[0]), keep, &err) : -1;
    if (status == 0) status = vocabulary_prune(path, out, keep, count, size & 1, &map, &err);
    if (status == 0) {
        Tokenizer *pruned;
        fuzz_check(map.new_count > 0 && map.new_count <= count, "what stays is a part");
        fuzz_check(tokenizer_open(&pruned, out, &err) == 0, "a pruned model opens");
        fuzz_check(tokenizer_size(pruned) == map.new_count, "a pruned model's size");
        tokenizer_close(pruned);
    }
    vocabulary_map_free(&map);
    free(keep);
    tokenizer_close(t);
}

static void check_clean(const char *text) {
    for (const char *at = text; *at;) {
        unsigned code;
        size_t n = utf8_next(at, &code);
        fuzz_check(n > 0, "clean text is UTF-8");
        fuzz_check(code >= 0x20 && !(code >= 0x7f && code < 0xa0), "clean text has no controls");
        at += n;
    }
}

/* Text for terminals, white space, normal forms of answers. */
void fuzz_texts(const uint8_t *data, size_t size) {
    static const char *const words[] = {"learning-rate", "steps", "batch-tokens", NULL};
    uint8_t *exact = fuzz_exact(data, size);
    size_t begin = text_space_begin((const char *)exact, size);
    size_t end = text_space_end((const char *)exact, size);
    fuzz_check(begin <= size && end <= size, "white space is in the text");
    fuzz_check(utf8_valid_prefix((const char *)exact, size) <= size, "a prefix");
    free(exact);
    char *text = fuzz_text(data, size), *out = NULL;
    Error err;
    free(gqa_prediction_plain(text)), free(gqa_normal(text));
    fuzz_check(gqa_words(text, size & 1) >= 0, "a number of words");
    for (int rule = 0; rule < ANSWER_RULES; rule++, out = NULL) {
        fuzz_result(answer_normalize((AnswerRule)rule, text, &out, &err), &err);
        free(out);
    }
    if (answer_last_integer(text, &out, &err) == 0) free(out);
    char letter = answer_letter(text);
    fuzz_check(letter == 0 || (letter >= 'A' && letter <= 'Z'), "a letter");
    nearest_word(text, words);
    size_t before = strlen(text);
    clean_text(text);
    fuzz_check(strlen(text) <= before, "clean text is never longer");
    check_clean(text);
    free(text);
}

void fuzz_score_lines(const uint8_t *data, size_t size) {
    if (!size) return;
    ScoreLines lines;
    Error err;
    int status = score_lines_read(&lines, fuzz_file(0, data + 1, size - 1), data[0] & 1, &err);
    fuzz_result(status, &err);
    for (int64_t i = 0; status == 0 && i < lines.texts.count; i++) {
        const char *const *texts;
        int count = references_of(&lines.texts, i, &texts);
        for (int k = 0; k < count; k++) fuzz_touch(texts[k], strlen(texts[k]));
    }
    score_lines_free(&lines);
}

/* A hypothesis and two references, separated by 0xFF; the rest are the second line. */
void fuzz_score_metrics(const uint8_t *data, size_t size) {
    if (!size) return;
    unsigned kind = data[0];
    data++, size--;
    char *texts[6];
    for (int i = 0; i < 6; i++) {
        FuzzPiece piece = fuzz_piece(&data, &size);
        texts[i] = fuzz_text(piece.data, piece.size);
    }
    const char *hypotheses[2] = {texts[0], texts[3]};
    const char *expected[4] = {texts[1], texts[2], texts[4], texts[5]};
    size_t begins[3] = {0, 2, kind & 1 ? 3 : 4};
    References references = {expected, begins, 2};
    BleuOptions bleu = {.tokenize = (Tokenize)(kind / 2 % TOKENIZE_COUNT),
                        .smooth = (BleuSmooth)(kind / 16 % BLEU_SMOOTH_COUNT),
                        .lowercase = kind & 128};
    ChrfOptions chrf = {
        .words = kind & 2, .lowercase = kind & 4, .whitespace = kind & 8, .eps = kind & 16};
    BleuScore b;
    ChrfScore c;
    RougeScore r;
    Error err;
    int status = bleu_corpus(hypotheses, &references, &bleu, &b, &err);
    fuzz_result(status, &err);
    if (status == 0) fuzz_check(b.score >= 0 && b.score <= 100.0000001, "BLEU is 0 to 100");
    status = chrf_corpus(hypotheses, &references, &chrf, &c, &err);
    fuzz_result(status, &err);
    if (status == 0) fuzz_check(c.score >= 0 && c.score <= 100.0000001, "chrF is 0 to 100");
    status = rouge_corpus(hypotheses, &references, kind & 2, &r, &err);
    fuzz_result(status, &err);
    for (int i = 0; status == 0 && i < ROUGE_KINDS; i++)
        fuzz_check(r.kinds[i].f >= 0 && r.kinds[i].f <= 1.0000001, "Rouge is 0 to 1");
    double value;
    fuzz_result(answer_f1(texts[0], texts[1], &value, &err), &err);
    fuzz_result(answer_number(texts[0], texts[1], &value, &err), &err);
    fuzz_result(answer_choice(texts[0], texts[1], &value, &err), &err);
    for (int i = 0; i < 6; i++) free(texts[i]);
}
