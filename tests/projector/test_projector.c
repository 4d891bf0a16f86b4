/* A projector with positions: what they add to the image tokens, and their gradients, against one
 * without and against sums in double. */
#include <stdlib.h>

#include "projector/projector.h"
#include "tests/matrix.h"

enum { IN = 7, OUT = 6, ROWS = 5, IMAGES = 3, ALL = ROWS * IMAGES };

#define POSITIONS "model.mm_projector.position_embedding.weight"

typedef struct Trained {
    Params params;
    Projector projector;
    Tensor tokens, hidden;
} Trained;

/* Trainable, with the same values under the same names whatever else it has. */
static void trained_open(Trained *t, Device *device, ProjectorKind kind, int rows) {
    Error err;
    *t = (Trained){0};
    params_init(&t->params, device);
    assert_ok(projector_declare(&t->projector, kind, IN, OUT, rows, &t->params, &err), &err);
    assert_ok(params_allocate(&t->params, DTYPE_F32, &err), &err);
    params_initialise(&t->params, 11);
    assert_ok(params_train(&t->params, DTYPE_F32, &err), &err);
}

static void positions_store(Trained *t, const float *positions) {
    Error err;
    Param *param = params_find(&t->params, POSITIONS);
    assert_non_null(param);
    assert_int_equal(param->hidden, 0); /* Muon leaves it to AdamW */
    assert_ok(params_store(&t->params, param, positions, &err), &err);
}

static void pass(Trained *t, Arena *arena, Tensor features, Tensor dtokens) {
    Error err;
    assert_ok(arena_take(arena, &t->tokens, DTYPE_F32, ALL, OUT, &err), &err);
    assert_ok(projector_train_forward(&t->projector, arena, t->tokens, features, &t->hidden, &err),
              &err);
    assert_ok(projector_train_backward(&t->projector, arena, TENSOR_NONE, dtokens, features,
                                       t->hidden, &err),
              &err);
}

static void download(Device *device, float *to, Tensor t) {
    Error err;
    assert_ok(device_download(device, to, t.data, tensor_bytes(t), &err), &err);
}

static void check_kind(Device *device, ProjectorKind kind) {
    Error err;
    Arena arena = {0};
    TestRandom random = {31};
    float positions[ROWS * OUT], x[ALL * IN], dy[ALL * OUT], with[ALL * OUT], without[ALL * OUT];
    for (int i = 0; i < ROWS * OUT; i++) positions[i] = (float)test_random_normal(&random);
    for (int i = 0; i < ALL * IN; i++) x[i] = (float)test_random_normal(&random);
    for (int i = 0; i < ALL * OUT; i++) dy[i] = (float)test_random_normal(&random);
    Trained a, b;
    trained_open(&a, device, kind, ROWS);
    trained_open(&b, device, kind, 0);
    assert_null(params_find(&b.params, POSITIONS));
    positions_store(&a, positions);
    assert_ok(arena_open(&arena, device, 1 << 16, &err), &err);
    Tensor features, dtokens;
    assert_ok(arena_upload(&arena, &features, DTYPE_F32, ALL * IN, x, &err), &err);
    assert_ok(arena_upload(&arena, &dtokens, DTYPE_F32, ALL * OUT, dy, &err), &err);
    features = tensor_2d(features.data, DTYPE_F32, ALL, IN);
    dtokens = tensor_2d(dtokens.data, DTYPE_F32, ALL, OUT);
    pass(&a, &arena, features, dtokens);
    pass(&b, &arena, features, dtokens);
    download(device, with, a.tokens), download(device, without, b.tokens);
    for (int i = 0; i < ALL * OUT; i++) without[i] += positions[i % (ROWS * OUT)];
    assert_close(with, without, ALL * OUT, 1e-6, "tokens");
    /* The same tokens where nothing is trained. */
    float answered[ALL * OUT];
    Tensor tokens;
    assert_ok(arena_take(&arena, &tokens, DTYPE_F32, ALL, OUT, &err), &err);
    assert_ok(projector_forward(&a.projector, &arena, tokens, features, &err), &err);
    download(device, answered, tokens);
    assert_close(answered, with, ALL * OUT, 1e-6, "tokens without training");
    /* A position's gradient is the sum over the images, the other gradients are as without. */
    float dpositions[ROWS * OUT], sums[ROWS * OUT], da[OUT], db[OUT];
    download(device, dpositions, tensor_grad(a.projector.positions));
    for (int i = 0; i < ROWS * OUT; i++) {
        double sum = 0;
        for (int n = 0; n < IMAGES; n++) sum += (double)dy[n * ROWS * OUT + i];
        sums[i] = (float)sum;
    }
    assert_close(dpositions, sums, ROWS * OUT, 1e-6, "gradients of positions");
    download(device, da, tensor_grad(a.projector.b1)),
        download(device, db, tensor_grad(b.projector.b1));
    assert_close(da, db, OUT, 1e-6, "gradient of a bias");
    arena_close(&arena);
    params_free(&a.params), params_free(&b.params);
}

static void test_positions(void **state) {
    check_kind(*state, PROJECTOR_LINEAR);
    check_kind(*state, PROJECTOR_MLP2X_GELU);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_positions)};
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
