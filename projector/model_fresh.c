#include "projector/model_fresh.h"

#include <string.h>

static void part_begin(Model *m, ModelPart *part, Part kind, Dtype stored, Dtype compute) {
    params_free(&part->params);
    part_sources_free(&part->sources);
    *part = (ModelPart){.present = true, .kind = kind, .stored = stored, .compute = compute};
    static const char *const names[] = {[PART_VISION] = "a fresh vision tower",
                                        [PART_LANGUAGE] = "a fresh language model",
                                        [PART_PROJECTOR] = "a fresh projector",
                                        [PART_LENGTH] = "a fresh length predictor"};
    part->path = names[kind];
    params_init(&part->params, m->device);
}

static int part_fill(ModelPart *part, FreshWeights fresh, Error *err) {
    TRY(params_allocate(&part->params, fresh.dtype, err));
    params_initialise(&part->params, fresh.seed);
    return 0;
}

int model_fresh_vision(Model *m, const VitConfig *config, FreshWeights fresh, Error *err) {
    part_begin(m, &m->vision, PART_VISION, fresh.dtype,
               device_compute_dtype(m->device, fresh.dtype));
    TRY(vit_declare(&m->vit, config, &m->vision.params, err));
    m->parts.vit = &m->vit;
    return part_fill(&m->vision, fresh, err);
}

int model_fresh_language(Model *m, const XlmrConfig *config, FreshWeights fresh, Error *err) {
    part_begin(m, &m->language, PART_LANGUAGE, fresh.dtype,
               device_compute_dtype(m->device, fresh.dtype));
    TRY(xlmr_declare(&m->xlmr, config, &m->language.params, err));
    m->parts.xlmr = &m->xlmr;
    return part_fill(&m->language, fresh, err);
}

int model_fresh_projector(Model *m, ProjectorKind kind, FreshWeights fresh, Error *err) {
    part_begin(m, &m->projector, PART_PROJECTOR, fresh.dtype, m->vision.compute);
    TRY(projector_declare(&m->projector_model, kind, m->vit.config.block.width,
                          m->xlmr.config.block.width, &m->projector.params, err));
    m->parts.projector = &m->projector_model;
    return part_fill(&m->projector, fresh, err);
}

int model_fresh_length(Model *m, int classes, FreshWeights fresh, Error *err) {
    part_begin(m, &m->length, PART_LENGTH, fresh.dtype, m->language.compute);
    TRY(length_declare(&m->length_model, &m->xlmr.config.block, classes, &m->length.params, err));
    m->parts.length = &m->length_model;
    return part_fill(&m->length, fresh, err);
}
