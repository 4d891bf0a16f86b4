#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"

int cpu_linear_rows(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, int64_t first,
                    int64_t count, Activation activation, bool accumulate, Error *err) {
    if (w.packed && w.packed->scale)
        return cpu_int8_rows(device, y, x, w, b, first, count, activation, accumulate, err);
    MatmulTask task = {
        .m = x.shape[0],
        .n = count,
        .k = x.shape[1],
        .dtype = x.dtype,
        .x = x.data,
        .x_ld = x.ld,
        .bias = b.data ? (const float *)b.data + first : NULL,
        .y = y.data,
        .y_dtype = y.dtype,
        .y_ld = y.ld,
        .activation = activation,
        .accumulate = accumulate,
    };
    if (w.packed) {
        const PackedLayout *layout = w.packed->layout;
        int64_t chunk = first / w.packed->chunk_rows;
        task.w = (const char *)w.packed->data + (size_t)chunk * w.packed->chunk_bytes;
        task.layout = first + count == w.packed->rows ? layout->last : layout->chunk;
    } else {
        task.w = tensor_rows(w, first, count).data;
        task.w_ld = w.ld;
    }
    return matmul_run(cpu_state(device)->matmul, &task, err);
}

int cpu_linear_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b,
                       Activation activation, bool accumulate, Error *err) {
    int64_t rows = w.shape[0], chunk_rows = w.packed ? w.packed->chunk_rows : rows;
    for (int64_t first = 0; first < rows; first += chunk_rows) {
        int64_t count = rows - first < chunk_rows ? rows - first : chunk_rows;
        TRY(cpu_linear_rows(device, tensor_columns(y, first, count), x, w, b, first, count,
                            activation, accumulate, err));
    }
    return 0;
}
