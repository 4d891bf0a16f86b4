/* block.h - one transformer block, for every model of this program.
 *
 * The ViT (pre-LN, QuickGELU), XLM-R base and large (post-LN, GELU), XLM-R-XL and XXL (pre-LN,
 * GELU) and the length predictor (post-LN, ReLU) differ only in where the two LayerNorms are, in
 * the activation and in the names of their parameters. LLaMA's blocks (LLaDA, Qwen2, Dream) are
 * pre-LN, with RMS norms, rotary positions on queries and keys, an activation that is gated,
 * fc2(act(gate(x)) * up(x)), mostly no biases, and often fewer heads of keys and values than of
 * queries. ModernBERT's are pre-LN, rotary and gated, too, with LayerNorms; its first block has no
 * LN1, and in most of its blocks, the local ones, a query sees a window of keys only.
 *
 *   pre-LN                                   post-LN
 *   x += out(attention(qkv(LN1(x))))         x = LN1(x + out(attention(qkv(x))))
 *   x += fc2(act(fc1(LN2(x))))               x = LN2(x + fc2(act(fc1(x))))
 *
 * The residual stream x is f32 throughout, in bf16 models too: rounding would add up in it from
 * layer to layer, and it is small compared with the weights. Inputs of matmuls have the compute
 * type c.
 */
#ifndef EASYFIRST_KERNELS_BLOCK_H
#define EASYFIRST_KERNELS_BLOCK_H

#include "kernels/ops.h"
#include "kernels/params.h"

/* The matrices of a block that LoRA can add to. */
typedef enum LoraTarget {
    LORA_QUERY,
    LORA_KEY,
    LORA_VALUE,
    LORA_OUT,
    LORA_FC1,
    LORA_FC2,
    LORA_TARGETS,
    /* A gated block's fc1 is two matrices: the target fc1 stands for both, gate and up. */
    LORA_UP = LORA_TARGETS,
    LORA_MATRICES
} LoraTarget;

extern const char *const lora_target_names[]; /* "query", "key", "value", "out", "fc1", "fc2" */
const char *lora_target_name(LoraTarget target);

/* LoRA (Hu et al., 2021): y = x W^T + b + (alpha / rank) (x A^T) B^T with W [N, K] frozen,
 * A [rank, K], and B [N, rank] zero at first. */
typedef struct LoraConfig {
    int rank; /* 0: none */
    float alpha;
    unsigned targets; /* bits 1 << LoraTarget */
} LoraConfig;

/* Parts with biases. */
enum { BLOCK_QKV = 1, BLOCK_OUT = 2, BLOCK_FFN = 4, BLOCK_NORMS = 8 };

typedef struct BlockConfig {
    int width, heads, ffn;
    bool pre_norm;
    Activation activation;
    float eps;
    LoraConfig lora;
    /* Zeros below are the blocks of XLM-R and CLIP. */
    bool rms_norm;     /* RMS norms, which have no biases, instead of LayerNorms */
    bool gated;        /* fc1 is gate and up */
    bool rotary;       /* turns queries and keys by the Rotary of the pass */
    unsigned unbiased; /* BLOCK_QKV | ...: parts without biases */
    int key_heads;     /* heads of keys and values, a divisor of heads; 0: as many as heads */
    int head_width;    /* 0: width / heads, which is then a multiple */
    bool joined;       /* gated: gate and up are one matrix of the checkpoint */
    int window;        /* places that a query of a local block sees to either side; 0: none are */
    int global_every;  /* with a window: blocks 0, n, 2n, ... are not local */
} BlockConfig;

static inline bool block_is_local(const BlockConfig *c, int block) {
    return c->window > 0 && block % c->global_every != 0;
}

/* Widths of a head, of all queries, of all keys (or values) and of all three. */
static inline int block_head_width(const BlockConfig *c) {
    return c->head_width ? c->head_width : c->width / c->heads;
}
static inline int64_t block_query_width(const BlockConfig *c) {
    return (int64_t)c->heads * block_head_width(c);
}
static inline int64_t block_key_width(const BlockConfig *c) {
    return (int64_t)(c->key_heads ? c->key_heads : c->heads) * block_head_width(c);
}
static inline int64_t block_qkv_width(const BlockConfig *c) {
    return block_query_width(c) + 2 * block_key_width(c);
}

/* Refuses sizes that do not fit together; `what` is the model's name in messages. */
int block_check(const BlockConfig *config, const char *what, Error *err);

/* Rotary positions of a pass: see rotary_forward. */
typedef struct Rotary {
    Tensor table; /* [P, head width] f32, the model's */
    Tensor index; /* [T] i32, the batch's */
} Rotary;

struct Block;

/* What is called before a block's weights are read, where not all of them are on this device
 * (comm/share.h). */
typedef struct BlockEnter {
    int (*call)(void *user, const struct Block *block, Error *err);
    void *user;
} BlockEnter;

typedef struct Block {
    Tensor qkv_w, qkv_b;     /* [3D, D], [3D]: query, key, value stacked */
    Tensor out_w, out_b;     /* [D, D] */
    Tensor norm1_w, norm1_b; /* of the attention */
    Tensor fc1_w, fc1_b;     /* [F, D], or [2F, D] if gated: gate and up stacked */
    Tensor fc2_w, fc2_b;     /* [D, F] */
    Tensor norm2_w, norm2_b; /* of the feed-forward part */
    struct {
        Tensor a, b;         /* [rank, K], [N, rank] */
    } lora[LORA_MATRICES];   /* absent for matrices without LoRA */
    const BlockEnter *enter; /* NULL: nothing */
} Block;

static inline int block_enter(const Block *block, Error *err) {
    return block->enter ? block->enter->call(block->enter->user, block, err) : 0;
}

/* In these comments 3D is block_qkv_width, 2D of a KV cache twice block_key_width, and D of `att`
 * and of out's input block_query_width: they are the same where heads have keys of their own and
 * the usual width. */

/* A checkpoint format's names of a block's parameters; ".weight" and ".bias" are appended, or
 * "_weight" and "_bias" to in_proj, a stacked query-key-value. */
typedef struct BlockNames {
    const char *query, *key, *value;             /* or NULL ... */
    const char *in_proj;                         /* ... and this */
    const char *out, *norm1, *fc1, *fc2, *norm2; /* norm1 NULL: the block has none */
    const char *up; /* of a gated block, whose gate is fc1; else, and where they are joined, NULL */
    const char *qkv; /* instead of in_proj, with the usual ".weight" and ".bias" */
} BlockNames;

/* Declares a block's parameters under `prefix`, e.g. "roberta.encoder.layer.3". The block must not
 * move. `idle` blocks are loaded but not used in computation. */
int block_declare(Block *block, const BlockConfig *config, const BlockNames *names, Params *params,
                  bool idle, const char *prefix, Error *err);

/* Scales the initialization of the two matrices that write into the residual stream of a pre-norm
 * block by 1 / sqrt(2 layers), so that the stream does not grow with depth (Radford et al.,
 * 2019). */
void block_scale_init(const Block *block, Params *params, int layers);

/* Declares the low-rank matrices of config->lora for a declared block, in a separate table, under
 * the names of Hugging Face's peft: "base_model.model.<prefix>.<name>.lora_A.weight", and lora_B
 * likewise. A is normal with the standard deviation of peft's uniform initialization, 1 / sqrt(3
 * K); B is zero. A stacked query-key-value (in_proj) has no targets query, key, value. */
int block_declare_lora(Block *block, const BlockConfig *config, const BlockNames *names,
                       Params *lora, const char *prefix, Error *err);

/* The activations of a forward pass of up to T rows, shared by all blocks of a model. */
typedef struct BlockWork {
    Tensor x;   /* [T, D] f32, the residual stream */
    Tensor h;   /* [T, D] c, the input of the next matmul; x itself in a post-LN model in f32 */
    Tensor qkv; /* [T, 3D] c */
    Tensor att; /* [T, D] c */
    Tensor ffn; /* [T, F] c */
    Tensor pre; /* [T, 2F] c, if gated: gate and up */
    Tensor low; /* [T, rank] c, with LoRA */
} BlockWork;

int block_work_take(BlockWork *work, const BlockConfig *config, Arena *arena, int64_t rows,
                    Dtype compute, Error *err);
size_t block_work_bytes(const BlockConfig *config, int64_t rows, Dtype compute);

/* Keys and values kept from earlier forward passes: one matrix [rows, 2D] c for each layer. */
typedef struct KvCache {
    Tensor *layers; /* keys are columns [0, D), values [D, 2D); TENSOR_NONE for blocks elsewhere */
    int layer_count;
    int64_t rows;
    void *memory; /* of all of them, and ... */
    int number;   /* ... its name among the ranks (language/kv_cache.h) */
} KvCache;

/* Called with every block's queries [T, D] and keys [rows, D], as its attention reads them: column
 * slices on the device in the compute type, valid during the call; the spans' key ranges are rows
 * of k. A failure ends the forward pass. */
typedef struct AttentionHook {
    int (*call)(void *user, int layer, Tensor q, Tensor k, Error *err);
    void *user;
} AttentionHook;

struct BlockWork;
struct AttentionPlan;

/* The blocks of a model that are on this device, where the others are on those of other ranks
 * (language/spread.h): blocks [begin, end) are run, then `rest`, unless it is NULL, which leaves in
 * work->x what the last block of all does. */
typedef struct BlocksHere {
    int begin, end;
    int (*rest)(void *user, struct BlockWork *work, const struct AttentionPlan *plan, Error *err);
    void *user;
} BlocksHere;

/* Which rows attend to which in a forward pass, and where keys and values are. Without a cache the
 * key ranges of the spans are rows of this batch. With one they are rows of the cache, and the
 * batch's own keys and values are first stored in its rows [cache_begin, cache_begin + T). */
typedef struct AttentionPlan {
    const AttentionSpan *spans;
    int span_count;
    KvCache *cache;
    int64_t cache_begin;
    const AttentionHook *hook; /* may be NULL */
    Rotary rotary;             /* with config->rotary; keys in a cache are turned already */
    /* Of local blocks: as many spans, and their own angles; see block_local_spans. */
    const AttentionSpan *local_spans;
    Rotary local_rotary;
    const BlocksHere *here; /* NULL: all blocks */
} AttentionPlan;

/* The spans of local blocks for those of the others: with the window, but where all keys are within
 * it anyway. NULL if the model has none (or memory is out: *err is set then, and -1 returned).
 * Free with free(). */
int block_local_spans(const BlockConfig *config, const AttentionSpan *spans, int count,
                      AttentionSpan **local, Error *err);

/* Sets work->h to what the first block of a post-LN model reads, once x is set; does nothing for a
 * pre-LN model. */
int block_begin(Device *device, const BlockConfig *config, BlockWork *work, Error *err);

/* Called with the residual stream after every block (layer 1, 2, ...) and before the first (0): for
 * tests that compare layer by layer. */
typedef struct LayerHook {
    void (*call)(void *user, int layer, Tensor x);
    void *user;
} LayerHook;

/* Runs `count` blocks in turn: work->x in and out (and work->h in a post-LN model). Block i's keys
 * and values are layer i of the plan's cache. `hook` may be NULL; with one, or with one in the
 * plan, the blocks are never replayed (device_replay). */
int blocks_forward(Device *device, const BlockConfig *config, const Block *blocks, int count,
                   BlockWork *work, const AttentionPlan *plan, const LayerHook *hook, Error *err);

#endif
