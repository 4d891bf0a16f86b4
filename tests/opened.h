/* opened.h - a model folder opened for a test, in f32 on the test's device; what fails ends the test. */
#ifndef EASYFIRST_TESTS_OPENED_H
#define EASYFIRST_TESTS_OPENED_H

#include "projector/model.h"
#include "tests/matrix.h"

typedef struct Opened {
    Device *device;
    Model model;
} Opened;

static inline void opened_open(Opened *o, const char *folder) {
    Error err;
    const ModelOptions options = {
        .folder = folder, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(test_device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
}

static inline void opened_close(Opened *o) {
    model_close(&o->model);
    device_close(o->device);
}

#endif
