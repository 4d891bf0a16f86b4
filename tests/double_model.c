#include "tests/double_model.h"

#include <math.h>

void double_model_open(DoubleModel *d, const char *folder, bool length) {
    char path[512];
    Error err;
    *d = (DoubleModel){0};
    snprintf(path, sizeof path, "%s/language/model.safetensors", folder);
    assert_ok(checkpoint_open(&d->language, path, NULL, &err), &err);
    snprintf(path, sizeof path, "%s/length.safetensors", folder);
    if (length) assert_ok(checkpoint_open(&d->length, path, NULL, &err), &err);
}

void double_model_close(DoubleModel *d) {
    checkpoint_close(&d->language), checkpoint_close(&d->length);
}

/* ---- Layers. ---- */

/* The values of prefix.name; the caller frees them. */
static double *weights(const Checkpoint *c, const char *prefix, const char *name) {
    char text[256];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    const CheckpointTensor *t = checkpoint_find(c, text);
    if (!t) fail_msg("no %s", text);
    size_t n = (size_t)tensor_count(t->value);
    float *single = malloc(n * sizeof *single);
    double *out = malloc(n * sizeof *out);
    values_convert(single, DTYPE_F32, t->value.data, t->value.dtype, n);
    for (size_t i = 0; i < n; i++) out[i] = single[i];
    free(single);
    return out;
}

/* y [T, N] = x [T, K] w^T + b, of rows `first` and after of a stacked weight. */
static double *linear(const Checkpoint *c, const char *w_name, const char *b_name, int first,
                      const double *x, int rows, int k, int n) {
    double *w = weights(c, "", w_name), *b = weights(c, "", b_name);
    double *y = malloc((size_t)(rows * n) * sizeof *y);
    for (int t = 0; t < rows; t++)
        for (int j = 0; j < n; j++) {
            double sum = b[first + j];
            for (int i = 0; i < k; i++) sum += x[t * k + i] * w[(first + j) * k + i];
            y[t * n + j] = sum;
        }
    free(w), free(b);
    return y;
}

static double *layer_linear(const Checkpoint *c, const char *prefix, const char *name,
                            const double *x, int rows, int k, int n) {
    char w[256], b[256];
    snprintf(w, sizeof w, "%s.%s.weight", prefix, name);
    snprintf(b, sizeof b, "%s.%s.bias", prefix, name);
    return linear(c, w, b, 0, x, rows, k, n);
}

static void norm(const Checkpoint *c, const char *prefix, const char *name, double *y,
                 const double *x, int rows, int width, double eps) {
    char text[256];
    snprintf(text, sizeof text, "%s%s%s", prefix, prefix[0] ? "." : "", name);
    double *w = weights(c, text, ".weight"), *b = weights(c, text, ".bias");
    for (int t = 0; t < rows; t++) {
        double mean = 0, variance = 0;
        for (int i = 0; i < width; i++) mean += x[t * width + i] / width;
        for (int i = 0; i < width; i++)
            variance += (x[t * width + i] - mean) * (x[t * width + i] - mean) / width;
        for (int i = 0; i < width; i++)
            y[t * width + i] = (x[t * width + i] - mean) / sqrt(variance + eps) * w[i] + b[i];
    }
    free(w), free(b);
}

static double gelu(double x) {
    return x / 2 * (1 + erf(x / sqrt(2)));
}

/* Row t attends to rows [0, sees[t]). */
static double *attention(const double *q, const double *k, const double *v, int rows, int width,
                         int heads, const int *sees) {
    int n = width / heads;
    double *out = calloc((size_t)(rows * width), sizeof *out);
    double *p = malloc((size_t)rows * sizeof *p);
    for (int h = 0; h < heads; h++)
        for (int t = 0; t < rows; t++) {
            double sum = 0;
            for (int s = 0; s < sees[t]; s++) {
                double dot = 0;
                for (int i = h * n; i < (h + 1) * n; i++)
                    dot += q[t * width + i] * k[s * width + i];
                sum += p[s] = exp(dot / sqrt(n));
            }
            for (int s = 0; s < sees[t]; s++)
                for (int i = h * n; i < (h + 1) * n; i++)
                    out[t * width + i] += p[s] / sum * v[s * width + i];
        }
    free(p);
    return out;
}

typedef struct Names {
    const char *query, *key, *value; /* NULL: stacked in self_attn.in_proj */
    const char *out, *norm1, *fc1, *fc2, *norm2;
} Names;

static double *part_of_in_proj(const Checkpoint *c, const char *prefix, int part, const double *x,
                               int rows, int width) {
    char w[256], b[256];
    snprintf(w, sizeof w, "%s.self_attn.in_proj_weight", prefix);
    snprintf(b, sizeof b, "%s.self_attn.in_proj_bias", prefix);
    return linear(c, w, b, part * width, x, rows, width, width);
}

static void add(double *x, double *y, int count) {
    for (int i = 0; i < count; i++) x[i] += y[i];
    free(y);
}

/* One transformer block, in place; relu: the predictor's. */
static void block(const Checkpoint *c, const char *prefix, const Names *names, double *x, int rows,
                  const BlockConfig *config, bool pre_norm, bool relu, const int *sees) {
    int d = config->width, all = rows * d;
    double eps = config->eps, *h = malloc((size_t)all * sizeof *h), *qkv[3];
    const char *parts[3] = {names->query, names->key, names->value};
    memcpy(h, x, (size_t)all * sizeof *h);
    if (pre_norm) norm(c, prefix, names->norm1, h, x, rows, d, eps);
    for (int i = 0; i < 3; i++)
        qkv[i] = parts[i] ? layer_linear(c, prefix, parts[i], h, rows, d, d)
                          : part_of_in_proj(c, prefix, i, h, rows, d);
    double *attended = attention(qkv[0], qkv[1], qkv[2], rows, d, config->heads, sees);
    add(x, layer_linear(c, prefix, names->out, attended, rows, d, d), all);
    if (!pre_norm) norm(c, prefix, names->norm1, x, x, rows, d, eps);
    memcpy(h, x, (size_t)all * sizeof *h);
    if (pre_norm) norm(c, prefix, names->norm2, h, x, rows, d, eps);
    double *inner = layer_linear(c, prefix, names->fc1, h, rows, d, config->ffn);
    for (int i = 0; i < rows * config->ffn; i++)
        inner[i] = relu ? fmax(inner[i], 0) : gelu(inner[i]);
    add(x, layer_linear(c, prefix, names->fc2, inner, rows, config->ffn, d), all);
    if (!pre_norm) norm(c, prefix, names->norm2, x, x, rows, d, eps);
    free(qkv[0]), free(qkv[1]), free(qkv[2]), free(attended), free(h), free(inner);
}

/* ---- The sequence. ---- */

typedef struct Sequence {
    int rows, prefix;
    int *sees;
    double *x; /* [rows, D] */
} Sequence;

static void sequence_row(const DoubleModel *d, Sequence *s, const double *source, int position,
                         const double *positions, const double *types) {
    int width = d->model->language.xlmr->config.block.width;
    for (int i = 0; i < width; i++)
        s->x[s->rows * width + i] = source[i] + types[i] + positions[(position + 2) * width + i];
    s->rows++;
}

/* Embeddings of <s> image prompt, and of the canvas and </s> unless it is NULL. */
static Sequence embed(const DoubleModel *d, int image, const int32_t *prompt, int count,
                      const int32_t *canvas, int length) {
    const XlmrConfig *c = &d->model->language.xlmr->config;
    int width = c->block.width, head = 1 + (image >= 0 ? d->image_rows : 0);
    int most = head + count + length + 1;
    Sequence s = {.x = malloc((size_t)(most * width) * sizeof *s.x),
                  .sees = malloc((size_t)most * sizeof *s.sees)};
    double *words = weights(&d->language, "roberta.embeddings.", "word_embeddings.weight");
    double *positions = weights(&d->language, "roberta.embeddings.", "position_embeddings.weight");
    double *types = weights(&d->language, "roberta.embeddings.", "token_type_embeddings.weight");
    double *row = malloc((size_t)width * sizeof *row);
    sequence_row(d, &s, words + TOKEN_BOS * width, 0, positions, types);
    for (int i = 0; i < head - 1; i++) {
        const float *from = d->image_tokens + (image * d->image_rows + i) * width;
        for (int k = 0; k < width; k++) row[k] = from[k];
        sequence_row(d, &s, row, s.rows, positions, types);
    }
    for (int i = 0; i < count; i++)
        sequence_row(d, &s, words + prompt[i] * width, s.rows, positions, types);
    s.prefix = s.rows;
    int begin = d->model->answer_position > 0 ? d->model->answer_position : s.prefix;
    for (int i = 0; canvas && i <= length; i++)
        sequence_row(d, &s, words + (i < length ? canvas[i] : TOKEN_EOS) * width, begin + i,
                     positions, types);
    bool blocks = d->model->attention == ATTENTION_BLOCK_CAUSAL;
    for (int t = 0; t < s.rows; t++)
        s.sees[t] = !blocks ? s.rows : t < head ? head : t < s.prefix ? s.prefix : s.rows;
    free(words), free(positions), free(types), free(row);
    return s;
}

/* The language model's last hidden states, in place. */
static void forward(const DoubleModel *d, Sequence *s) {
    static const Names post = {"attention.self.query",
                               "attention.self.key",
                               "attention.self.value",
                               "attention.output.dense",
                               "attention.output.LayerNorm",
                               "intermediate.dense",
                               "output.dense",
                               "output.LayerNorm"};
    static const Names pre = {"attention.self.query",
                              "attention.self.key",
                              "attention.self.value",
                              "attention.output.dense",
                              "attention.self_attn_layer_norm",
                              "intermediate.dense",
                              "output.dense",
                              "LayerNorm"};
    const XlmrConfig *c = &d->model->language.xlmr->config;
    int width = c->block.width;
    if (!c->block.pre_norm)
        norm(&d->language, "", "roberta.embeddings.LayerNorm", s->x, s->x, s->rows, width,
             c->block.eps);
    for (int l = 0; l < c->layers; l++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "roberta.encoder.layer.%d", l);
        block(&d->language, prefix, c->block.pre_norm ? &pre : &post, s->x, s->rows, &c->block,
              c->block.pre_norm, false, s->sees);
    }
    if (c->block.pre_norm)
        norm(&d->language, "", "roberta.encoder.LayerNorm", s->x, s->x, s->rows, width,
             c->block.eps);
}

static void sequence_free(Sequence *s) {
    free(s->x), free(s->sees);
}

/* ---- Results. ---- */

static void log_softmax(double *x, int count) {
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++) most = fmax(most, x[i]);
    for (int i = 0; i < count; i++) sum += exp(x[i] - most);
    for (int i = 0; i < count; i++) x[i] -= most + log(sum);
}

void double_canvas(const DoubleModel *d, double *out, int image, const int32_t *prompt, int count,
                   const int32_t *canvas, int length) {
    const XlmrConfig *c = &d->model->language.xlmr->config;
    int width = c->block.width, vocab = c->vocab;
    Sequence s = embed(d, image, prompt, count, canvas, length);
    forward(d, &s);
    double *dense = layer_linear(&d->language, "lm_head", "dense", s.x + s.prefix * width, length,
                                 width, width);
    for (int i = 0; i < length * width; i++) dense[i] = gelu(dense[i]);
    norm(&d->language, "lm_head", "layer_norm", dense, dense, length, width, c->block.eps);
    double *logits = linear(&d->language, "roberta.embeddings.word_embeddings.weight",
                            "lm_head.bias", 0, dense, length, width, vocab);
    for (int t = 0; t < length; t++) {
        for (int v = 0; v < vocab; v++)
            if (v >= tokenizer_mask_id(d->model->tokenizer) && !d->whole_vocabulary)
                logits[t * vocab + v] = -INFINITY;
        log_softmax(logits + t * vocab, vocab);
    }
    memcpy(out, logits, (size_t)(length * vocab) * sizeof *out);
    free(logits), free(dense);
    sequence_free(&s);
}

double double_length(const DoubleModel *d, int image, const int32_t *prompt, int count,
                     int length) {
    static const Names names = {.out = "self_attn.out_proj",
                                .norm1 = "norm1",
                                .fc1 = "linear1",
                                .fc2 = "linear2",
                                .norm2 = "norm2"};
    const LengthPredictor *m = d->model->length;
    int width = m->config.width, classes = m->classes;
    Sequence s = embed(d, image, prompt, count, NULL, 0);
    forward(d, &s);
    for (int t = 0; t < s.rows; t++) s.sees[t] = s.rows;
    block(&d->length, "length_trm.layers.0", &names, s.x, s.rows, &m->config, false, true, s.sees);
    double *mean = calloc((size_t)width, sizeof *mean);
    for (int t = 0; t < s.rows; t++)
        for (int i = 0; i < width; i++) mean[i] += s.x[t * width + i] / s.rows;
    double *inner =
        layer_linear(&d->length, "length_predictor", "0", mean, 1, width, m->config.ffn);
    for (int i = 0; i < m->config.ffn; i++) inner[i] = tanh(inner[i]);
    double *logits =
        layer_linear(&d->length, "length_predictor", "2", inner, 1, m->config.ffn, classes);
    log_softmax(logits, classes);
    double found = logits[length - 1];
    free(mean), free(inner), free(logits);
    sequence_free(&s);
    return found;
}
