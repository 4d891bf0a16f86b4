/* The flat tables of several ranks: every value has one owner, matrices of Muon are whole, blocks'
 * gradients share memory, moments and masters are where they should be. */
#include "kernels/block.h"
#include "kernels/optimizer.h"
#include "tests/test.h"

enum { BLOCKS = 3, WIDTH = 7 };

typedef struct Slots {
    Tensor words, norm;
    Block blocks[BLOCKS];
} Slots;

static void declare_rows(Params *p, Slots *s, Device *device, int64_t rows) {
    Error err;
    *s = (Slots){0};
    params_init(p, device);
    const ParamSpec words = {.slot = &s->words,
                             .role = PARAM_TABLE,
                             .init = INIT_NORMAL,
                             .init_std = 1,
                             .ndim = 2,
                             .shape = {rows, WIDTH}};
    assert_ok(params_declare(p, &words, &err, "words"), &err);
    const int hidden = p->count;
    for (int i = 0; i < BLOCKS; i++) {
        Block *b = &s->blocks[i];
        assert_ok(params_declare_linear(p, &b->fc1_w, &b->fc1_b, 29 + i, WIDTH, false, &err,
                                        "block.%d.fc1.", i),
                  &err);
        assert_ok(params_declare_linear(p, &b->fc2_w, &b->fc2_b, WIDTH, 29 + i, false, &err,
                                        "block.%d.fc2.", i),
                  &err);
    }
    params_mark_hidden(p, hidden);
    const ParamSpec norm = {
        .slot = &s->norm, .role = PARAM_VECTOR, .init = INIT_ONE, .ndim = 1, .shape = {65}};
    assert_ok(params_declare(p, &norm, &err, "norm"), &err);
    assert_ok(params_allocate(p, DTYPE_F32, &err), &err);
    params_initialise(p, 3);
}

static void declare(Params *p, Slots *s, Device *device) {
    declare_rows(p, s, device, 37);
}

static void share(Params *p, const Slots *s, int rank, int ranks, int level, bool whole) {
    p->share = (ParamsShare){.rank = rank,
                             .ranks = ranks,
                             .level = level,
                             .whole = whole,
                             .blocks = s->blocks,
                             .block_bytes = sizeof(Block),
                             .block_count = BLOCKS};
}

static int64_t values_of(const Param *p) {
    return tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape));
}

/* Ascending bounds from the beginning to the end, aligned. */
static void check_bounds(const Params *p, int ranks, bool whole) {
    assert_int_equal(params_bound(p, 0), 0);
    assert_int_equal(params_bound(p, ranks), p->flat);
    for (int r = 0; r < ranks; r++) {
        const int64_t end = params_bound(p, r + 1);
        assert_true(params_bound(p, r) <= end);
        assert_int_equal(end % 64, 0);
        for (int i = 0; i < p->count && whole; i++)
            if (p->items[i].hidden)
                assert_false(p->items[i].offset < end &&
                             end < p->items[i].offset + values_of(&p->items[i]));
    }
}

static void check_gradients(const Params *p, const Slots *s, int level) {
    int64_t largest = 0, rest = 0;
    if (level < 2) {
        assert_null(p->runs);
        assert_int_equal(p->grad_values, p->flat);
        return;
    }
    for (int i = 0; i < p->run_count; i++) {
        const ParamsRun *run = &p->runs[i];
        const int64_t n = run->end - run->begin;
        assert_int_equal(run->begin, i ? p->runs[i - 1].end : 0);
        if (run->block < 0)
            rest += n;
        else if (n > largest)
            largest = n;
        if (run->block >= 0) assert_int_equal(run->place, 0);
    }
    assert_int_equal(p->runs[p->run_count - 1].end, p->flat);
    assert_int_equal(p->grad_values, largest + rest);
    assert_true(p->grad_values < p->flat);
    assert_ptr_equal(s->blocks[0].fc1_w.grad, s->blocks[1].fc1_w.grad);
    assert_ptr_not_equal(s->words.grad, s->norm.grad);
    assert_true((float *)s->words.grad >= p->grad + largest);
}

static void test_layout(void **state) {
    (void)state;
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    for (int ranks = 2; ranks <= 5; ranks++)
        for (int level = 0; level <= 2; level++) {
            int64_t sum = 0, flat = 0;
            for (int rank = 0; rank < ranks; rank++) {
                Params p;
                Slots s;
                declare(&p, &s, device);
                share(&p, &s, rank, ranks, level, ranks % 2);
                assert_ok(params_train(&p, DTYPE_F32, &err), &err);
                sum += p.own_end - p.own_begin, flat = p.flat;
                if (level) check_bounds(&p, ranks, ranks % 2);
                check_gradients(&p, &s, level);
                assert_int_equal(optimizer_bytes(&p), 8 * (p.own_end - p.own_begin));
                params_free(&p);
            }
            assert_int_equal(sum, level ? flat : flat * ranks);
        }
    device_close(device);
}

/* What a rank stores of moments and fetches again is its own, and no other's. */
static void test_moments(void **state) {
    (void)state;
    enum { RANKS = 3 };
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    float host[4096], found[4096];
    for (int rank = 0; rank < RANKS; rank++) {
        Params p;
        Slots s;
        declare(&p, &s, device);
        share(&p, &s, rank, RANKS, 1, false);
        assert_ok(params_train(&p, DTYPE_F32, &err), &err);
        assert_in_range(p.flat, 0, 4096);
        const int64_t own = p.own_end - p.own_begin;
        Tensor m = tensor_1d(NULL, DTYPE_F32, own);
        assert_ok(device_alloc(device, &m.data, tensor_bytes(m), &err), &err);
        for (int64_t i = 0; i < p.flat; i++) host[i] = (float)i;
        assert_ok(params_store_moment(&p, m, 0, p.flat, host, &err), &err);
        assert_ok(params_fetch_moment(&p, m, 1, p.own_begin, own, found, &err), &err);
        for (int64_t i = 0; i < own; i++) assert_true(found[i] == (float)(p.own_begin + i));
        assert_refused(params_fetch_moment(&p, m, 1, 0, p.flat, found, &err), &err, "rank", "does");
        device_free(device, m.data);
        params_free(&p);
    }
    device_close(device);
}

/* In bf16 masters are divided; vectors and the working copy are whole, and all start as given. */
static void test_masters(void **state) {
    (void)state;
    enum { RANKS = 3 };
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    if (!device_has_bf16(device)) {
        device_close(device);
        print_message("no bf16 matmuls here\n");
        skip();
    }
    float norm[65], words[37 * WIDTH], part[37 * WIDTH];
    for (int rank = -1; rank < RANKS; rank++) {
        Params p;
        Slots s;
        declare(&p, &s, device);
        if (rank >= 0) share(&p, &s, rank, RANKS, 1, false);
        assert_ok(params_train(&p, DTYPE_BF16, &err), &err);
        const Param *q = params_find(&p, "words");
        if (rank < 0) assert_ok(params_fetch(&p, q, words, DTYPE_F32, &err), &err);
        assert_ok(device_download(device, norm, s.norm.data, sizeof norm, &err), &err);
        for (int i = 0; i < 65; i++) assert_true(norm[i] == 1);
        for (int64_t i = 0; i < p.flat; i++)
            assert_int_equal(params_master_at(&p, i) != NULL, i >= p.own_begin && i < p.own_end);
        const bool own = p.own_begin <= q->offset && q->offset + values_of(q) <= p.own_end;
        if (own) {
            assert_ok(params_fetch(&p, q, part, DTYPE_F32, &err), &err);
            assert_memory_equal(part, words, sizeof words);
        } else {
            assert_refused(params_fetch(&p, q, part, DTYPE_F32, &err), &err, "rank", "weights");
        }
        assert_int_equal(rank < 0 ? 0 : p.vector_values > 0, rank >= 0);
        assert_ok(params_own_vectors(&p, &err), &err);
        params_free(&p);
    }
    device_close(device);
}

/* Parts that begin at multiples of a unit from the beginnings of parameters. */
static void test_units(void **state) {
    (void)state;
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    for (int ranks = 2; ranks <= 7; ranks++) {
        Params p;
        Slots s;
        declare(&p, &s, device);
        share(&p, &s, 1, ranks, 2, false);
        p.share.unit = 64 * ranks;
        assert_ok(params_train(&p, DTYPE_F32, &err), &err);
        check_bounds(&p, ranks, false);
        for (int r = 0; r < ranks; r++) {
            const int64_t bound = params_bound(&p, r);
            bool found = false;
            for (int i = 0; i < p.count; i++) {
                const int64_t within = bound - p.items[i].offset;
                if (within < 0 || within > values_of(&p.items[i])) continue;
                found |= within % p.share.unit == 0;
            }
            assert_true(found);
        }
        params_free(&p);
    }
    device_close(device);
}

/* Level 3: the table comes in parts of 64 rows; the values of all ranks are all of it. */
static void test_tables(void **state) {
    (void)state;
    enum { RANKS = 3, ROWS = 2 * 64 + 9 };
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    int64_t own = 0;
    for (int rank = 0; rank < RANKS; rank++) {
        Params p;
        Slots s;
        declare_rows(&p, &s, device, ROWS);
        share(&p, &s, rank, RANKS, 3, false);
        p.share.tables[0] = &s.words;
        float all[ROWS * WIDTH];
        memcpy(all, p.items[0].value.data, sizeof all);
        assert_ok(params_train(&p, DTYPE_F32, &err), &err);
        assert_int_equal(p.table_count, 1);
        const ParamsTable *t = &p.tables[0];
        assert_int_equal(t->parts.rows, 64);
        assert_int_equal(t->parts.count, 3);
        assert_ptr_equal(s.words.parts, &t->parts);
        assert_int_equal(s.words.shape[0], ROWS);
        assert_int_equal(t->first, BLOCKS);
        for (int k = 0; k < 3; k++) {
            const ParamsRun *run = params_run_of(&p, t->first + k);
            assert_int_equal(run->begin, p.items[t->item].offset + k * 64 * WIDTH);
            assert_int_equal(run->place, 0);
        }
        assert_ptr_equal(s.words.data, p.working);
        own += p.own_values;
        /* Its own values are where they are gathered from. */
        const int64_t first = p.own_begin,
                      end = p.own_end < ROWS * WIDTH ? p.own_end : ROWS * WIDTH;
        for (int64_t i = first; i < end; i++)
            assert_true(*(const float *)params_gathered_from(&p, i) == all[i]);
        /* All rows at once, and parts again. */
        params_table_place(&p, t, &own);
        assert_true(s.words.data == &own && !s.words.parts);
        params_table_place(&p, t, NULL);
        assert_true(s.words.data == p.working && s.words.parts == &t->parts);
        assert_refused(parts_enter(s.words, PARTS_SCAN, 64, &err), &err, "other processes",
                       "bring");
        params_free(&p);
    }
    assert_true(own > ROWS * WIDTH);
    device_close(device);
}

/* With overlap neighbors in a pass have different memory, which is twice that of the largest. */
static void test_overlap(void **state) {
    (void)state;
    enum { ROWS = 4 * 64 + 9, PARTS = 5 };
    Device *device;
    Error err;
    assert_ok(device_open(&device, NULL, &err), &err);
    for (int level = 2; level <= 3; level++) {
        Params p;
        Slots s;
        int64_t alone = 0, largest = 0;
        for (int overlap = 0; overlap < 2; overlap++) {
            declare_rows(&p, &s, device, ROWS);
            share(&p, &s, 1, 3, level, false);
            p.share.tables[0] = &s.words;
            p.share.overlap = overlap;
            assert_ok(params_train(&p, DTYPE_F32, &err), &err);
            if (!overlap) alone = p.grad_values, params_free(&p);
        }
        for (int i = 0; i < p.run_count; i++) {
            const int64_t n = p.runs[i].end - p.runs[i].begin;
            if (p.runs[i].block >= 0 && n > largest) largest = n;
        }
        assert_int_equal(p.grad_values, alone + largest);
        /* The table's parts, then the blocks. */
        const ParamsRun *before = NULL;
        for (int i = 0; i < PARTS + BLOCKS; i++) {
            const ParamsRun *run = params_run_of(&p, i < PARTS ? BLOCKS + i : i - PARTS);
            if (level == 2 && i < PARTS) continue;
            assert_non_null(run);
            assert_true(run->place == 0 || run->place == largest);
            if (before) assert_true(before->place != run->place);
            before = run;
            if (i < PARTS) continue;
            const Block *b = &s.blocks[i - PARTS];
            assert_ptr_equal(b->fc1_w.grad, p.grad + run->place);
            if (level == 3) assert_ptr_equal(b->fc1_w.data, (float *)p.working + run->place);
        }
        if (level == 3) {
            const Tensor odd = parts_rows(s.words, 64, 1);
            assert_ptr_equal(odd.data, (float *)p.working + largest);
            assert_ptr_equal(parts_rows(s.words, 128, 1).data, p.working);
            assert_ptr_equal(parts_grad_rows(s.words, tensor_grad(s.words), 65, 1).data,
                             p.grad + largest + WIDTH);
        }
        params_free(&p);
    }
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),  cmocka_unit_test(test_units),
        cmocka_unit_test(test_moments), cmocka_unit_test(test_masters),
        cmocka_unit_test(test_tables),  cmocka_unit_test(test_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
