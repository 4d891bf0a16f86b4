/* random.h - counter-based random numbers: they depend on where they are used, not on when.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011): a block of four 32-bit numbers is a pure function of a 64-bit key and a 128-bit counter.
 * There is no state: the same (seed, stream, index) gives the same number on every device, in every
 * batch and with any number of threads.
 */
#ifndef EASYFIRST_KERNELS_RANDOM_H
#define EASYFIRST_KERNELS_RANDOM_H

#include <stdint.h>

/* One block: counter words 0..3, key words 0..1 (the paper's order). */
void random_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Uniform in (0, 1), never 0 or 1: word (index % 4) of the block with counter
 * {index/4 low, index/4 high, stream low, stream high} and key {seed low, seed high}, as
 * (word + 0.5) / 2^32. */
double random_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Standard Gumbel noise, -log(-log(u)) of the uniform number above: adding it to logits and taking
 * the argmax draws from their softmax. */
double random_gumbel(uint64_t seed, uint64_t stream, uint64_t index);

/* A stream number from a few small ones (which hypothesis, step, purpose, ...), well mixed: equal
 * only for equal arguments with overwhelming likelihood. */
uint64_t random_stream(uint64_t a, uint64_t b, uint64_t c, uint64_t d);

#endif
