/* Replaces kernels/cuda/attention_cudnn.cu: cuDNN is not available. */
#include "kernels/cuda/attention_cudnn.h"

int fused_attention_open(struct FusedAttention **fused, cudaStream_t, const cudaDeviceProp *,
                         Error *) {
    *fused = nullptr;
    return 0;
}

void fused_attention_close(struct FusedAttention *) {}

bool fused_attention_forward(Device *, Tensor, Tensor, Tensor, Tensor, Tensor, int, float,
                             const AttentionSpan *, int, const Dropout *) {
    return false;
}

bool fused_attention_backward(Device *, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                              Tensor, Tensor, int, float, const AttentionSpan *, int,
                              const Dropout *) {
    return false;
}

const char *fused_attention_note(struct FusedAttention *) {
    return "attention without cuDNN";
}
