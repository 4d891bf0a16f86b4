/* llama_train.h - LLaMA in training: the loss of selected rows, and the gradients of all trainable
 * parameters. Settings and targets are XLM-R's (xlmr_train.h). */
#ifndef EASYFIRST_LANGUAGE_LLAMA_TRAIN_H
#define EASYFIRST_LANGUAGE_LLAMA_TRAIN_H

#include "language/llama.h"
#include "language/xlmr_train.h"

/* Declares LoRA matrices for all blocks, as llama->config.block.lora says, in a separate table.
 * After llama_declare. */
int llama_declare_lora(Llama *llama, Params *lora, Error *err);

/* Refuses ids, positions and image rows that the model or the batch does not have. */
int llama_check_batch(const Llama *llama, const XlmrBatch *batch, Error *err);

/* The loss of targets: see xlmr_loss and xlmr_loss_bytes, whose contracts these have. */
int llama_loss(const Llama *llama, Arena *arena, const XlmrBatch *batch, const XlmrTargets *targets,
               const TrainRun *run, float *losses, Tensor dimage_tokens, Error *err);
size_t llama_loss_bytes(const Llama *llama, int tokens, int targets, const TrainRun *run,
                        bool image);

#endif
