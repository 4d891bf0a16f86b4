#include "apps/train/finite.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { PIECE = 1 << 18 }; /* values checked at once */

typedef struct Count {
    int64_t all, wrong, first;
    float value; /* of the first non-finite one */
} Count;

static int count_values(const Params *params, const Param *p, float *piece, Count *count,
                        Error *err) {
    *count = (Count){.all = 1, .first = -1};
    for (int i = 0; i < p->ndim; i++) count->all *= p->shape[i];
    for (int64_t at = 0; at < count->all; at += PIECE) {
        int64_t n = count->all - at < PIECE ? count->all - at : PIECE;
        TRY(params_fetch_part(params, p, at, n, piece, DTYPE_F32, err));
        for (int64_t i = 0; i < n; i++) {
            if (isfinite(piece[i])) continue;
            if (!count->wrong++) count->first = at + i, count->value = piece[i];
        }
    }
    return 0;
}

/* The first parameter of a table with such a value; NULL: none. */
static int table_check(const Params *params, float *piece, const Param **found, Count *count,
                       Error *err) {
    *found = NULL;
    for (int i = 0; i < params->count && !*found; i++) {
        const Param *p = &params->items[i];
        if (p->idle || !(p->present || p->offset >= 0)) continue;
        if (count_values(params, p, piece, count, err)) return error_context(err, "%s", p->name);
        if (count->wrong) *found = p;
    }
    return 0;
}

/* The name of a parameter in its file. */
static const char *name_in_file(const ModelPart *part, const Param *p) {
    const CheckpointTensor *source =
        part && part->sources.tensors ? part->sources.tensors[p - part->params.items] : NULL;
    return source ? source->name : p->name;
}

static int report(const TrainModel *t, const Params *params, const ModelPart *part, const Param *p,
                  const Count *count, const char *resumed, Error *err) {
    bool trained = p->offset >= 0;
    char *table = resumed && trained ? train_checkpoint_table(t, params, resumed, err) : NULL;
    if (resumed && trained && !table) return -1;
    error_set(err,
              "%s: %s: %" PRId64 " of its %" PRId64
              " values %s not finite (the first is number %" PRId64
              ", %g): no training can start from these weights; get the file again, or start from "
              "another checkpoint",
              table                      ? table
              : part && part->checkpoint ? part->checkpoint->path
              : part                     ? part->path
                                         : "a fresh layer",
              table ? p->name : name_in_file(part, p), count->wrong, count->all,
              count->wrong == 1 ? "is" : "are", count->first, (double)count->value);
    free(table);
    return 0;
}

int train_model_check_finite(const TrainModel *t, const char *resumed, bool *found, Error *err) {
    const Model *m = &t->model;
    const struct {
        const Params *params;
        const ModelPart *part;
        bool used;
    } tables[] = {
        {&m->vision.params, &m->vision, t->vision != DUTY_NONE},
        {&m->projector.params, &m->projector, t->projector != DUTY_NONE},
        {&m->language.params, &m->language, t->language != DUTY_NONE},
        {&m->length.params, &m->length, t->length != DUTY_NONE},
        {&t->lora, NULL, t->has_lora},
        {&t->head_params, NULL, t->classes != NULL},
    };
    *found = false;
    float *piece = malloc(PIECE * sizeof *piece);
    if (!piece) return error_set(err, "out of memory for checking the weights");
    int status = 0;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && status == 0 && !*found; i++) {
        const Param *p = NULL;
        Count count;
        if (!tables[i].used) continue;
        status = table_check(tables[i].params, piece, &p, &count, err);
        if (status || !p) continue;
        *found = true;
        status = report(t, tables[i].params, tables[i].part, p, &count, resumed, err);
    }
    free(piece);
    return status;
}
