/* model.h - a model folder, opened: where files become the parts of projector/multimodal.h.
 *
 *   FOLDER/easyfirst.json      which parts belong together: see model_open
 *   FOLDER/vision/             a CLIP vision tower as Hugging Face stores it (config.json, weights), or
 *                              an EfficientNet-Lite
 *   FOLDER/language/           an encoder: XLM-R, XLM-R-XL, RoBERTa, BERT, ModernBERT (config.json,
 *                              weights, a tokenizer's files), or a LLaDA, Dream, LLaMA or Qwen2
 *   FOLDER/projector.safetensors
 *   FOLDER/length.safetensors  the length predictor
 *
 * Any of the parts may be left out, or taken from elsewhere: options name a folder or file for
 * each. The length predictor may also stand in the language model's own file (the released
 * Flan-XLM-R).
 */
#ifndef EASYFIRST_PROJECTOR_MODEL_H
#define EASYFIRST_PROJECTOR_MODEL_H

#include "data/checkpoints/adapter.h"
#include "data/checkpoints/config.h"
#include "data/checkpoints/part.h"
#include "language/chat_template.h"
#include "language/spread.h"
#include "projector/calibration.h"
#include "projector/multimodal.h"

enum { FEATURE_LAYER_UNSET = -1000 };

/* Whether images are put into a square or cropped to one. */
typedef enum ModelPad {
    PAD_AS_MODEL, /* as easyfirst.json says, else on */
    PAD_ON,
    PAD_OFF,
} ModelPad;

extern const char *const model_pad_names[]; /* "as the model", "on", "off" */

typedef struct ModelOptions {
    const char *folder;                                 /* NULL: only the parts named below */
    const char *vision, *language, *projector, *length; /* a folder or file instead; NULL */
    Dtype dtype;        /* arithmetic: DTYPE_NONE: as device_compute_dtype; DTYPE_F32; DTYPE_BF16 */
    int feature_layer;  /* FEATURE_LAYER_UNSET: as easyfirst.json says, else -2 */
    ModelPad pad;       /* of images */
    bool text_only;     /* leave vision tower and projector closed */
    bool describe_only; /* open and check the files, but prepare nothing */
    bool headers_only; /* with describe_only, for `info`: read headers alone, and leave tensors that
                          no part uses to the caller; else they are an error */
    const char *from, *to; /* languages, codes or names: a model that does not translate from the
                              one to the other is an error; NULL */
    bool answers; /* a language model that cannot answer with answer_length tokens (0: as many
                     as are predicted) is an error */
    int answer_length;
    /* Called while weights of 100 MiB or more are prepared, if that takes longer than a second, now
     * and then: `done` of `all` bytes, at work on the file `path`; once more at the end with path
     * NULL. May be NULL.
     */
    void (*loading)(void *user, const char *path, size_t done, size_t all);
    void *loading_user;
    const char
        *adapter; /* a folder with a LoRA adapter (adapter.h), merged into the weights; NULL */
    /* The language model spread over this many ranks of `comm` (language/spread.h), whose first one has
     * the other parts, too; the others have weights of nothing else. 0 or 1: it is not. */
    int layers_over;
    Comm *comm;
} ModelOptions;

typedef struct ModelPart {
    bool present;
    Part kind;
    const char *path; /* what was opened; the checkpoint's, or that of a fresh part */
    const Checkpoint *checkpoint;
    Params params;
    PartSources sources;
    Dtype stored, compute; /* of its largest tensor; of its arithmetic */
} ModelPart;

typedef struct Model {
    Device *device;
    Multimodal parts; /* what multimodal_* take */
    ModelPart vision, projector, language, length;
    Checkpoint checkpoints[4];
    int checkpoint_count;
    json_t *settings;        /* easyfirst.json; NULL if there is none */
    Calibration calibration; /* of the folder's own parts */
    Tower tower;             /* one of the next two */
    Vit vit;
    EfficientNet net;
    Projector projector_model;
    Xlmr xlmr; /* one of the next two */
    Llama llama;
    LengthPredictor length_model;
    Tokenizer *tokenizer;
    bool chats;        /* prompts are messages (model_chat.h) in the template ... */
    ChatTemplate chat; /* ... of this name */
    bool chat_unknown; /* the folder has one that is not known */
    char *image_lead;  /* parts.image_lead and its ids */
    Ids image_lead_ids;
    double open_s, prepare_s; /* seconds: reading and checking; packing */
    Adapter adapter;          /* merged; empty without one */
    Spread *spread;           /* parts.language.spread; owned */
} Model;

/* Opens what the options name. easyfirst.json holds: "format" 1; "attention" "full",
 * "block-causal" or "causal" (without it: causal for a model of LLaMA's kind whose tokenizer has no
 * mask, else full); "feature_layer"; "class_token"; "pad"; "image_tokens" (checked against the
 * tower); "prompts", the prompt templates of model_prompt; "languages", the pairs that the model
 * translates, such as "de-en" (without it any of XLM-R's); "answer_position"; "answer_length", the tokens
 * of an answer whose length is neither given nor predicted; "pad_answers", the tokens up to which an
 * encoder was trained to fill answers with end-of-text; "chat_template" (model_chat.h);
 * "context", the longest sequence, if it is to be another than 8192 or the configuration's;
 * "shifted", whether the row before a token's predicts it (LLaMA's kind; see LanguageModel); "calibration"
 * (calibration.h), which holds while no part is taken from elsewhere. Configurations are
 * read from the parts' config.json, sizes from the tensors themselves; where both exist and differ,
 * that is an error. On failure *model is empty. */
int model_open(Model *model, const ModelOptions *options, Device *device, Error *err);
void model_close(Model *model);

/* What rank `number` of `ranks` has of an open model's language model, if it is spread over them. */
int model_spread_part(const Model *model, int number, int ranks, SpreadPart *part, Error *err);

/* tokenizer_open, whose error says what the file is where something else was saved in its place.
 * `xlmr`: a tokenizer whose special tokens do not have XLM-R's ids is refused. */
int model_tokenizer_open(Tokenizer **tokenizer, const char *file, bool xlmr, Error *err);

/* The tokenizer's file next to a part's weights: sentencepiece.bpe.model, tokenizer.json or
 * merges.txt, the first that is there. The caller frees it; NULL: out of memory. */
char *model_tokenizer_file(const char *path, Error *err);

#endif
