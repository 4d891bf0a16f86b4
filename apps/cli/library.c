#include "apps/cli/library.h"

#include "apps/cli/layers.h"
#include "apps/cli/loading.h"
#include "projector/easyfirst_private.h"

static ef_dtype library_dtype(Dtype dtype) {
    return dtype == DTYPE_BF16 ? EF_DTYPE_BF16 : dtype == DTYPE_F32 ? EF_DTYPE_F32 : EF_DTYPE_AUTO;
}

static ef_pad library_pad(ModelPad pad) {
    return pad == PAD_ON ? EF_PAD_ON : pad == PAD_OFF ? EF_PAD_OFF : EF_PAD_DEFAULT;
}

static int open_model(ef_model **model, const char *folder, const ef_model_options *options,
                      Layers *layers, Error *err) {
    if (!layers) return ef_model_open(folder, options, model, library_error(err));
    TRY(layers_before(layers, err));
    const int status = model_open_spread(folder, options, layers->over, layers->comm, model, err);
    if (status == 0) layers->spread = (*model)->model.spread, layers->device = (*model)->device;
    return layers_after(layers, status, err);
}

int library_open(ef_model **model, const CommonOptions *o, Timings *timings, Error *err) {
    const ModelOptions *m = &o->model;
    ef_model_options options = ef_model_options_default();
    ef_statistics statistics;
    _Static_assert(EF_FEATURE_LAYER_DEFAULT == FEATURE_LAYER_UNSET, "the same number");
    options.vision = m->vision, options.language = m->language;
    options.projector = m->projector, options.length_predictor = m->length;
    options.device = o->device, options.dtype = library_dtype(m->dtype),
    options.threads = o->threads;
    options.text_only = m->text_only, options.feature_layer = m->feature_layer;
    options.pad = library_pad(m->pad), options.from = m->from, options.to = m->to;
    options.adapter = m->adapter;
    options.check_answers = 1, options.answer_length = common_least_length(o);
    if (!o->quiet) options.on_load = loading_print;
    TRY(open_model(model, m->folder, &options, o->layers, err));
    ef_model_statistics(*model, &statistics, sizeof statistics);
    timings->load_s = statistics.load_seconds;
    return 0;
}

ef_options library_options(const CommonOptions *o, char strategy[LIBRARY_STRATEGY]) {
    const AnswerOptions *a = &o->answer;
    ef_options options = ef_options_default();
    decode_strategy_name(strategy, LIBRARY_STRATEGY, &a->decode);
    options.strategy = strategy, options.steps = a->decode.iterations;
    options.beam = a->length_beam, options.samples = a->samples;
    options.length_weight = a->length_weight, options.temperature = a->decode.temperature;
    options.seed = a->decode.seed, options.early_stop = a->decode.early_stop;
    options.prefix_cache = a->decode.prefix_cache;
    options.guidance = a->decode.guidance;
    options.choose_by = a->choose_by == CHOICE_BY_LIKELIHOOD ? EF_BY_LIKELIHOOD : EF_BY_DENOISING;
    options.likelihood_samples = a->likelihood_samples;
    options.long_prompts = a->long_prompts == LONG_PROMPTS_SKIP        ? EF_LONG_SKIP
                           : a->long_prompts == LONG_PROMPTS_KEEP_LAST ? EF_LONG_KEEP_LAST
                                                                       : EF_LONG_REFUSE;
    options.batch_tokens = a->batch_tokens;
    options.no_canvas_cache = a->decode.no_canvas_cache, options.no_kv_cache = a->no_kv_cache;
    return options;
}

Session library_session(const ef_model *model) {
    return (Session){.device = model->device, .model = model->model, .open = true};
}

int library_see(ef_model *model, ef_image *const *images, int count, int *blocks, Tensor *tokens,
                Timings *timings, Error *err) {
    ef_work work = {0};
    *tokens = TENSOR_NONE;
    TRY(model_see(model, (const ef_image *const *)images, count, blocks, &work, err));
    *tokens = model->images.tokens;
    timings_add_work(timings, &work);
    return 0;
}
