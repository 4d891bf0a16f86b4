/* adapter.h - LoRA adapters (Hu et al., 2021) in the format of Hugging Face's PEFT, read and written.
 *
 *   FOLDER/adapter_config.json        "peft_type" "LORA", "r", "lora_alpha", "target_modules", ...
 *   FOLDER/adapter_model.safetensors  (or .bin) for each adapted module M of the base model
 *                                     base_model.model.M.lora_A.weight [r, K] and
 *                                     base_model.model.M.lora_B.weight [N, r]
 *
 * The weight of M becomes W + scale B A with the scale lora_alpha / r, or lora_alpha / sqrt(r) with
 * "use_rslora"; "rank_pattern" and "alpha_pattern" say another r or lora_alpha for some modules.
 * What would change the weights in another way (DoRA, biases, "modules_to_save", initializations
 * that change the base model) is refused by its name, and so is every tensor that would not be used.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_ADAPTER_H
#define EASYFIRST_DATA_CHECKPOINTS_ADAPTER_H

#include <jansson.h>

#include "data/checkpoints/checkpoint.h"
#include "kernels/block.h"
#include "kernels/params.h"

#define ADAPTER_CONFIG  "adapter_config.json"
#define ADAPTER_FOLDER  "adapter" /* in a trained model's folder */
#define ADAPTER_WEIGHTS "adapter_model.safetensors"

/* What adapter_config.json says. */
typedef struct AdapterConfig {
    json_t *json;
    int rank;
    double alpha;
    bool root;             /* the scale is alpha / sqrt(rank) */
    const json_t *ranks;   /* by pattern, NULL: none; of `json` */
    const json_t *alphas;  /* likewise */
    const json_t *targets; /* names of modules; NULL: a pattern, or a selection of layers */
} AdapterConfig;

int adapter_config_read(AdapterConfig *config, const char *path, Error *err);
void adapter_config_free(AdapterConfig *config);

/* The rank and the scale of one module, a name with dots. */
int adapter_module_rank(const AdapterConfig *config, const char *module);
double adapter_module_scale(const AdapterConfig *config, const char *module);

/* A parameter whose values were replaced by merged ones. */
typedef struct AdapterMerged {
    Params *params;
    int index;
    void *values;
} AdapterMerged;

typedef struct Adapter {
    char *folder, *config_path;
    AdapterConfig config;
    Checkpoint weights;
    bool open;
    AdapterMerged *merged;
    size_t merged_count;
    size_t closed; /* tensors of a vision tower or projector that is closed in this run */
} Adapter;

int adapter_open(Adapter *adapter, const char *folder, Error *err);
void adapter_close(Adapter *adapter); /* an empty one may be closed, too */

/* What is done with the sums. */
typedef enum AdapterMerge {
    ADAPTER_CHECK,   /* nothing: all is checked, and nothing merged */
    ADAPTER_STORED,  /* rounded to the type that the values have, bf16 for i8: to be written */
    ADAPTER_COMPUTED /* as the table's arithmetic takes them (params->compute): f32 stays f32 */
} AdapterMerge;

/* Checks every tensor and merges it, in f32, into the values of the parameters of `tables`, which
 * were set and not prepared yet. The merged values are the adapter's, which must stay as long as the
 * tables use them. With `closed` tensors of a vision tower or a projector that no table has are
 * counted, else they are errors. */
int adapter_merge(Adapter *adapter, Params *const *tables, int count, bool closed,
                  AdapterMerge merge, Error *err);

/* Frees the merged values that the tables have in another form: those of parameters in training,
 * and with `packed` those of packed ones, whose values are then no longer known (for models that are
 * not written). */
void adapter_release(Adapter *adapter, bool packed);

/* Writes an adapter to `folder`, which exists: the matrices of `lora`, whose names are PEFT's
 * (block.h), in f32. `model` are the parameters of the base model, and `base` its name or path, for
 * the configuration. */
int adapter_write(const char *folder, const Params *model, const Params *lora,
                  const LoraConfig *config, const char *base, Error *err);

#endif
