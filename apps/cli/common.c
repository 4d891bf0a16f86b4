#include "apps/cli/common.h"

#include <stdio.h>
#include <stdlib.h>

#include "apps/cli/places.h"

void common_init(CommonOptions *o) {
    *o = (CommonOptions){.model = {.feature_layer = FEATURE_LAYER_UNSET},
                         .answer = answer_options_default()};
}

Option device_option(const char **device) {
    return (Option){"device",
                    0,
                    OPTION_DEVICE,
                    "NAME",
                    device,
                    "where to compute: cpu, cuda, cuda:N for one of several GPUs, or\n"
                    "auto (default: a GPU if there is one)"};
}

Option threads_option(int *threads) {
    return (Option){
        "threads", 't', OPTION_INTEGER, "N", threads, "processor threads (default: all)", 1, 1024};
}

void model_parts_group(ModelOptions *m, const char *folder_help, OptionGroup *group) {
    *group = (OptionGroup){.title = "model options"};
    option_add(group, (Option){"model", 'm', OPTION_TEXT, "FOLDER", &m->folder, folder_help});
    option_add(group, (Option){"vision", 0, OPTION_TEXT, "PATH", &m->vision,
                               "a vision tower, folder or file, instead of the folder's"});
    option_add(group, (Option){"language", 0, OPTION_TEXT, "PATH", &m->language,
                               "a language model, folder or file, instead"});
    option_add(group, (Option){"projector", 0, OPTION_TEXT, "PATH", &m->projector,
                               "a projector, file or folder, instead"});
    option_add(group, (Option){"length-predictor", 0, OPTION_TEXT, "PATH", &m->length,
                               "a length predictor, file or folder, instead"});
    option_add(group, (Option){"adapter", 0, OPTION_TEXT, "FOLDER", &m->adapter,
                               "a LoRA adapter in PEFT's format, merged into the weights"});
}

void model_group(ModelOptions *m, const char **device, int *threads, OptionGroup *group) {
    model_parts_group(m, "the model's folder; else $EASYFIRST_MODEL, else the bundled one", group);
    option_add(group, (Option){"dtype", 0, OPTION_CHOICE, NULL, &m->dtype,
                               "arithmetic; auto: bf16 for bf16 weights where the processor\n"
                               "has it, else f32",
                               .names = dtype_choices});
    option_add(group, (Option){"feature-layer", 0, OPTION_INTEGER, "N", &m->feature_layer,
                               "the vision tower's layer to take features from; -1 is the last\n"
                               "(default: as the model's folder says, else -2)",
                               -999, 999});
    option_add(group, (Option){"pad", 0, OPTION_CHOICE, NULL, &m->pad,
                               "put images into a square instead of cropping them to one\n"
                               "(default: as the model's folder says, else on)",
                               PAD_ON, .names = model_pad_names});
    option_add(group, device_option(device));
    option_add(group, threads_option(threads));
}

void common_answer_group(CommonOptions *o, OptionGroup *group) {
    AnswerOptions *a = &o->answer;
    *group = (OptionGroup){.title = "answer options"};
    option_add(group,
               (Option){"steps", 0, OPTION_INTEGER, "T", &a->decode.iterations,
                        a->decode.iterations
                            ? "denoising steps (default 50)"
                            : "denoising steps (default: as many as the answer has tokens, 10 to\n"
                              "50; the paper's evaluations take 50)",
                        1, 1000000});
    option_add(group,
               (Option){"strategy", 0, OPTION_TEXT, "NAME", &o->strategy,
                        "reparam-uncond-deterministic-cosine (the default) with cond,\n"
                        "stochasticTAU, linear; cmlm; ar; confidenceX, entropyX (see below);\n"
                        "llada-blockN-lowconf with random, noend, endlast; dream-entropy\n"
                        "with origin, maskgit_plus, topk_margin, stochasticTAU"});
    option_add(group, (Option){"confidence-threshold", 0, OPTION_REAL, "X", &o->confidence,
                               "approximate: each step writes all tokens of at least this\n"
                               "probability, at least one; the strategy confidenceX",
                               0, 1, &o->confidence_given});
    option_add(group, (Option){"entropy-bound", 0, OPTION_REAL, "X", &o->entropy,
                               "approximate: each step writes the likeliest tokens, up to a\n"
                               "surprise of X nats, at least one; the strategy entropyX",
                               0, 1000, &o->entropy_given});
    option_add(group, (Option){"early-stop", 0, OPTION_INTEGER, "N", &a->decode.early_stop,
                               "approximate: stop when N steps propose the same answer\n"
                               "(default 0: never)",
                               1, 1000000});
    option_add(group, (Option){"prefix-cache", 0, OPTION_INTEGER, "N", &a->decode.prefix_cache,
                               "approximate, models with full attention: compute the prompt's\n"
                               "keys and values in every Nth step only (default 0: in each)",
                               0, 1000000});
    option_add(group, (Option){"guidance", 0, OPTION_REAL, "W", &a->decode.guidance,
                               "classifier-free guidance: move the answer away from the one\n"
                               "without the prompt; twice the evaluations (default 0: off)",
                               0, 100});
    option_add(group, (Option){"length", 'n', OPTION_INTEGER, "N", &o->length,
                               "the answer's length in tokens (default: predicted)", 1, 1000000});
    option_add(group, (Option){"beam", 'b', OPTION_INTEGER, "B", &a->length_beam,
                               "try the B likeliest lengths, keep the best answer (default 1;\n"
                               "8 combinations of lengths for a template's gaps)",
                               1, 512});
    option_add(group, (Option){"length-weight", 0, OPTION_REAL, "X", &a->length_weight,
                               "with --beam: the answers' scores count, and X times the\n"
                               "lengths' log-probabilities (default 0: scores alone)",
                               0, 100});
    option_add(group, (Option){"samples", 0, OPTION_INTEGER, "M", &a->samples,
                               "fill each length M times, keep the best (default 1)", 1, 1024,
                               &o->samples_given});
    option_add(group,
               (Option){"temperature", 0, OPTION_REAL, "X", &a->decode.temperature,
                        "sample tokens at this temperature (default 0: the likeliest)", 0, 100});
    option_add(group, (Option){"seed", 's', OPTION_SEED, "N", &a->decode.seed,
                               "seed of everything random (default 0)"});
    option_add(group, (Option){"no-canvas-cache", 0, OPTION_FLAG, NULL, &a->decode.no_canvas_cache,
                               "evaluate every step, known or not: the same answer, slower"});
    option_add(group,
               (Option){"no-kv-cache", 0, OPTION_FLAG, NULL, &a->no_kv_cache,
                        "block-causal models: keep no keys and values; same answer, slower"});
    option_add(group, (Option){"long-prompts", 0, OPTION_CHOICE, NULL, &a->long_prompts,
                               a->long_prompts == LONG_PROMPTS_SKIP
                                   ? "a prompt that leaves no room for its answer is an error, is\n"
                                     "left out, or loses its first tokens (default skip)"
                                   : "a prompt that leaves no room for its answer is an error, is\n"
                                     "left out, or loses its first tokens (default refuse)",
                               .names = long_prompts_names});
    option_add(group, (Option){"json", 0, OPTION_FLAG, NULL, &o->json,
                               "JSON, one object a line, instead of plain text"});
    option_add(group, (Option){"quiet", 'q', OPTION_FLAG, NULL, &o->quiet,
                               "no timings on standard error"});
}

/* The model that comes with the program; NULL if there is none. */
static const char *bundled_model(char *path, size_t size) {
    char *found = place_find("bundled/model", "model", "easyfirst.json");
    const int length = found ? snprintf(path, size, "%s", found) : -1;
    free(found);
    return length >= 0 && (size_t)length < size ? path : NULL;
}

int common_check(const CommandHelp *help, CommonOptions *o) {
    ModelOptions *m = &o->model;
    Error err;
    if ((o->strategy != NULL) + o->confidence_given + o->entropy_given > 1)
        return options_wrong(help, "--strategy, --confidence-threshold and --entropy-bound exclude "
                                   "each other");
    DecodeOptions *decode = &o->answer.decode;
    if (o->confidence_given) decode->strategy = DECODE_CONFIDENCE, decode->bound = o->confidence;
    if (o->entropy_given) decode->strategy = DECODE_ENTROPY, decode->bound = o->entropy;
    if (o->strategy && decode_strategy_parse(&o->answer.decode, o->strategy, &err))
        return options_wrong(help, "--strategy: %s", err.text);
    if (decode->guidance > 0 && decode->prefix_cache)
        return options_wrong(help, "--guidance and --prefix-cache exclude each other");
    const char *folder = getenv("EASYFIRST_MODEL");
    if (!m->folder && folder && folder[0]) m->folder = folder;
    if (!m->folder && !m->vision && !m->language && !m->projector && !m->length)
        m->folder = bundled_model(o->bundled, sizeof o->bundled);
    if (!m->folder && !m->vision && !m->language && !m->projector && !m->length)
        return options_wrong(help,
                             "no model is named: give its folder with -m FOLDER or in the "
                             "environment as EASYFIRST_MODEL, or its parts with --language and "
                             "so on");
    return -1;
}

int common_least_length(const CommonOptions *o) {
    return o->length || !o->answer_template ? o->length : 1;
}

int common_at_once(const CommonOptions *o, int most) {
    return answer_at_once(&o->answer, most);
}
