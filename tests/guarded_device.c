#include "tests/guarded_device.h"

#include <sys/mman.h>

#include "kernels/backend.h"
#include "tests/test.h"

enum { BLOCKS = 64 };

static struct {
    Backend backend;
    const Backend *cpu;
    struct {
        void *memory;
        size_t size;
    } block[BLOCKS];
    size_t bytes;
    bool open; /* an operation is running */
    int fail_after;
} guard;

static void open_pages(bool open) {
    guard.open = open;
    for (int i = 0; i < BLOCKS; i++)
        if (guard.block[i].memory)
            assert_int_equal(mprotect(guard.block[i].memory, guard.block[i].size,
                                      open ? PROT_READ | PROT_WRITE : PROT_NONE),
                             0);
}

static int guarded_alloc(Device *device, void **memory, size_t bytes, Error *err) {
    (void)device;
    if (guard.fail_after == 0) return error_set(err, "out of memory: %zu bytes requested", bytes);
    if (guard.fail_after > 0) guard.fail_after--;
    int i = 0;
    while (i < BLOCKS && guard.block[i].memory) i++;
    assert_in_range(i, 0, BLOCKS - 1);
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    memset(pages, 0xff, bytes); /* NaN: new memory is not zero */
    if (!guard.open) assert_int_equal(mprotect(pages, bytes, PROT_NONE), 0);
    guard.block[i].memory = pages, guard.block[i].size = bytes;
    guard.bytes += bytes;
    *memory = pages;
    return 0;
}

static void guarded_free(Device *device, void *memory) {
    (void)device;
    int i = 0;
    while (i < BLOCKS && guard.block[i].memory != memory) i++;
    assert_in_range(i, 0, BLOCKS - 1);
    munmap(memory, guard.block[i].size);
    guard.bytes -= guard.block[i].size;
    guard.block[i].memory = NULL;
}

/* The CPU's operation, while the pages are accessible. */
#define GUARDED(call)                 \
    do {                              \
        open_pages(true);             \
        int result = guard.cpu->call; \
        open_pages(false);            \
        return result;                \
    } while (0)

static int guarded_upload(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    GUARDED(upload(device, to, from, bytes, err));
}

static int guarded_download(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    GUARDED(download(device, to, from, bytes, err));
}

static int guarded_clear(Device *device, void *memory, size_t bytes, Error *err) {
    GUARDED(clear(device, memory, bytes, err));
}

static int guarded_adamw(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
                         const AdamW *adamw, Error *err) {
    GUARDED(adamw_step(device, p, copy, m, v, g, adamw, err));
}

static int guarded_adamw8(Device *device, Tensor p, Tensor copy, const Moments8 *moments, Tensor g,
                          const AdamW *adamw, Error *err) {
    GUARDED(adamw8_step(device, p, copy, moments, g, adamw, err));
}

static int guarded_square_sum(Device *device, double *sum, Tensor x, Error *err) {
    GUARDED(square_sum(device, sum, x, err));
}

static int guarded_linear(Device *device, Tensor y, Tensor x, Tensor w, Tensor b,
                          Activation activation, bool accumulate, Error *err) {
    GUARDED(linear_forward(device, y, x, w, b, activation, accumulate, err));
}

static int guarded_linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy,
                                   Tensor x, Tensor w, bool accumulate_dx, Error *err) {
    GUARDED(linear_backward(device, dx, dw, db, dy, x, w, accumulate_dx, err));
}

static int guarded_convert(Device *device, Tensor y, Tensor x, Error *err) {
    GUARDED(convert_forward(device, y, x, err));
}

static int guarded_scale(Device *device, Tensor y, Tensor x, float scale, Error *err) {
    GUARDED(scale_forward(device, y, x, scale, err));
}

static int guarded_dropout(Device *device, Tensor y, Tensor x, Dropout dropout, bool accumulate,
                           Error *err) {
    GUARDED(dropout_forward(device, y, x, dropout, accumulate, err));
}

static int guarded_pack(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                        Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    GUARDED(pack_weight(device, packed, pieces, count, compute, vocabulary, progress, err));
}

Device *guarded_open(void) {
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    guard.cpu = device->backend;
    guard.fail_after = -1;
    guard.backend = (Backend){.name = "guarded",
                              .close = guard.cpu->close,
                              .alloc = guarded_alloc,
                              .free = guarded_free,
                              .upload = guarded_upload,
                              .download = guarded_download,
                              .clear = guarded_clear,
                              .adamw_step = guarded_adamw,
                              .adamw8_step = guarded_adamw8,
                              .square_sum = guarded_square_sum,
                              .linear_forward = guarded_linear,
                              .linear_backward = guarded_linear_backward,
                              .convert_forward = guarded_convert,
                              .scale_forward = guarded_scale,
                              .dropout_forward = guarded_dropout,
                              .pack_weight = guarded_pack,
                              .packed_free = guard.cpu->packed_free,
                              .pack_size = guard.cpu->pack_size};
    device->backend = &guard.backend;
    device->kind = DEVICE_CUDA;
    device->bf16 = true; /* set by tests of matmuls from the processor */
    return device;
}

void guarded_close(Device *device) {
    assert_int_equal(guard.bytes, 0);
    device_close(device);
}

size_t guarded_bytes(void) {
    return guard.bytes;
}

bool guarded_owns(const void *address) {
    for (int i = 0; i < BLOCKS; i++) {
        const char *begin = guard.block[i].memory, *a = address;
        if (begin && a >= begin && a < begin + guard.block[i].size) return true;
    }
    return false;
}

void guarded_fail_after(int count) {
    guard.fail_after = count;
}
