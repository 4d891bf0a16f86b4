/* dnnl_compat.h - oneDNN's versions 2 and 3 behind one set of names: memory descriptors are values in
 * the one and handles in the other. Private to kernels/cpu/.
 */
#ifndef EASYFIRST_KERNELS_CPU_DNNL_COMPAT_H
#define EASYFIRST_KERNELS_CPU_DNNL_COMPAT_H

#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3

typedef const_dnnl_memory_desc_t DescArgument;

static inline DescArgument desc_argument(const dnnl_memory_desc_t *desc) {
    return *desc;
}

static inline void desc_free(dnnl_memory_desc_t *desc) {
    if (*desc) dnnl_memory_desc_destroy(*desc);
    *desc = NULL;
}

static inline dnnl_status_t desc_strided(dnnl_memory_desc_t *desc, int ndims,
                                         const dnnl_dims_t dims, dnnl_data_type_t type,
                                         const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(desc, ndims, dims, type, strides);
}

static inline dnnl_status_t desc_any(dnnl_memory_desc_t *desc, int ndims, const dnnl_dims_t dims,
                                     dnnl_data_type_t type) {
    return dnnl_memory_desc_create_with_tag(desc, ndims, dims, type, dnnl_format_tag_any);
}

static inline dnnl_status_t desc_copy(dnnl_memory_desc_t *desc, DescArgument from) {
    return dnnl_memory_desc_clone(desc, from);
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}

static inline dnnl_status_t append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha,
                                           float beta) {
    return dnnl_post_ops_append_eltwise(ops, kind, alpha, beta);
}

#else

typedef const dnnl_memory_desc_t *DescArgument;

static inline DescArgument desc_argument(const dnnl_memory_desc_t *desc) {
    return desc;
}

static inline void desc_free(dnnl_memory_desc_t *desc) {
    memset(desc, 0, sizeof *desc);
}

static inline dnnl_status_t desc_strided(dnnl_memory_desc_t *desc, int ndims,
                                         const dnnl_dims_t dims, dnnl_data_type_t type,
                                         const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(desc, ndims, dims, type, strides);
}

static inline dnnl_status_t desc_any(dnnl_memory_desc_t *desc, int ndims, const dnnl_dims_t dims,
                                     dnnl_data_type_t type) {
    return dnnl_memory_desc_init_by_tag(desc, ndims, dims, type, dnnl_format_tag_any);
}

static inline dnnl_status_t desc_copy(dnnl_memory_desc_t *desc, DescArgument from) {
    *desc = *from;
    return dnnl_success;
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1);
}

static inline dnnl_status_t append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha,
                                           float beta) {
    return dnnl_post_ops_append_eltwise(ops, 1, kind, alpha, beta);
}

#endif

#endif
