#include "projector/train_settings.h"

#include "kernels/names.h"

const char *const stage_names[STAGE_COUNT + 1] = {"adapt",  "instruct", "align",  "tune",
                                                  "length", "pretrain", "segment"};

const char *const train_best_names[] = {"none",  "loss", "bleu",   "chrf",   "rouge",
                                        "exact", "f1",   "number", "choice", NULL};

const char *const train_overlap_names[] = {"auto", "on", "off", NULL};

const char *stage_name(TrainStage stage) {
    return names_get(stage_names, (int)stage);
}

/* Where the papers say nothing (clipping, decay of biases and norms) these are the habits of the
 * trainers that their authors used: gradients are clipped at a norm of 1, everything decays. */
static void common_default(TrainSettings *s, TrainStage stage) {
    *s = (TrainSettings){
        .stage = stage,
        .model = {.feature_layer = FEATURE_LAYER_UNSET},
        .valid_limit = 500,
        .max_tokens = 512,
        .pad_answers = -1,
        .max_bad_fraction = 0.01f,
        .long_prompts = LONG_PROMPTS_KEEP_LAST,
        .group = true,
        .schedule = SCHEDULE_INVERSE_SQRT,
        .warmup_ratio = 0.01f,
        .decay_ratio = 0.1f,
        .optimizer = {.beta1 = 0.9f,
                      .beta2 = 0.98f,
                      .eps = 1e-8f,
                      .weight_decay = 0.01f,
                      .decay_vectors = true,
                      .clip = 1,
                      .muon_momentum = 0.95f},
        .noise = noise_config_default(),
        .dropout = 0.1f,
        .attention = ATTENTION_UNSET,
        .new_projector = PROJECTOR_NONE,
        .lora = {.alpha = 16, .targets = 1u << LORA_QUERY | 1u << LORA_VALUE},
        .seed = 1,
        .log_every = 10,
        .valid_every = 500,
        .save_every = 1000,
        .keep = 2,
        .show_answers = 3,
    };
}

static void by_epoch(TrainSettings *s, int sequences, float rate) {
    s->batch_sequences = sequences, s->lr = rate;
    s->epochs = 1;
    s->schedule = SCHEDULE_COSINE, s->warmup_ratio = 0.03f;
}

void train_settings_default(TrainSettings *s, TrainStage stage) {
    common_default(s, stage);
    switch (stage) {
    case STAGE_ADAPT: /* Ye et al.: IWSLT14 de-en */
        s->batch_tokens = 32768, s->lr = 5e-5f, s->steps = 150000;
        break;
    case STAGE_INSTRUCT: /* Ye et al.: Flan 2022 */
        s->batch_sequences = 512, s->lr = 1e-5f, s->steps = 70000;
        break;
    case STAGE_ALIGN: /* LLaVA v1.5, the first stage */
        by_epoch(s, 256, 1e-3f);
        s->optimizer.weight_decay = 0, s->optimizer.beta2 = 0.999f;
        s->dropout = 0;
        s->plain = true;
        s->model.pad = PAD_OFF; /* whatever the model's folder says */
        break;
    case STAGE_TUNE: /* LLaVA v1.5, the second */
        by_epoch(s, 128, 2e-5f);
        s->optimizer.weight_decay = 0, s->optimizer.beta2 = 0.999f;
        s->context = true;
        break;
    case STAGE_LENGTH:
        by_epoch(s, 512, 1e-4f);
        break;
    case STAGE_SEGMENT: /* as small vision transformers are trained from nothing */
        by_epoch(s, 64, 1e-3f);
        s->epochs = 10;
        s->optimizer.weight_decay = 0.05f, s->optimizer.beta2 = 0.999f;
        s->dropout = 0;
        s->show_answers = 0;
        break;
    case STAGE_PRETRAIN:
    default:
        s->batch_tokens = 131072, s->lr = 4e-4f, s->steps = 100000;
        s->schedule = SCHEDULE_COSINE, s->warmup_ratio = 0, s->warmup_steps = 2000;
        s->optimizer.beta2 = 0.95f, s->optimizer.weight_decay = 0.1f;
        s->noise.objective = OBJECTIVE_LLADA;
        s->dropout = 0;
        break;
    }
}
