/* attention_cudnn.h - attention of whole sequences by cuDNN's fused kernels. Private to
 * kernels/cuda/.
 *
 * attention.cu and attention_backward.cu try these first and use their own kernels if the result is
 * false: for f32, with dropout, with spans that are not whole sequences, and for anything else that
 * cuDNN has no kernel for. The arguments are those of attention_forward and attention_backward. */
#ifndef EASYFIRST_KERNELS_CUDA_ATTENTION_CUDNN_H
#define EASYFIRST_KERNELS_CUDA_ATTENTION_CUDNN_H

#include "kernels/cuda/cuda.h"

/* *fused is set to NULL, without an error, if cuDNN is not available. */
int fused_attention_open(struct FusedAttention **fused, cudaStream_t stream,
                         const cudaDeviceProp *properties, Error *err);
void fused_attention_close(struct FusedAttention *fused); /* NULL is allowed */

/* True: the work is in the stream. False: nothing has been accumulated, but overwritten outputs are
 * undefined: the caller must compute all of it. */
bool fused_attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             int heads, float scale, const AttentionSpan *spans, int count,
                             const Dropout *dropout);
bool fused_attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                              Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, int heads,
                              float scale, const AttentionSpan *spans, int count,
                              const Dropout *dropout);

/* A one-line status: the version, the number of plans, and the last reason why there is none. Valid
 * until the next call. */
const char *fused_attention_note(struct FusedAttention *fused);

#endif
