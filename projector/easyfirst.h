/* easyfirst.h - masked-diffusion language models that see, as a library.
 *
 *     #include <easyfirst.h>
 *
 *     ef_error err;
 *     ef_model *model;
 *     ef_image *image;
 *     ef_answers *answers;
 *     if (ef_model_open("model", NULL, &model, &err) || ef_image_open("dog.jpg", &image, &err) ||
 *         ef_ask(model, image, "What color is the dog?", NULL, &answers, &err)) {
 *         fprintf(stderr, "%s\n", err.text);
 *         return 1;
 *     }
 *     puts(ef_answer_text(answers, 0));
 *     ef_answers_close(answers);
 *     ef_image_close(image);
 *     ef_model_close(model);
 *
 * Build with `cc program.c $(pkg-config --cflags --libs easyfirst)`. The folder of the small model
 * that is installed with the library is `pkg-config --variable=model easyfirst`.
 *
 * Errors. A function that can fail returns 0, or -1 with one line and a code in *err (which may be
 * NULL): what was found, what was expected, a next step. Nothing is printed, and the process is not
 * ended, except by OpenMP's library where it has no memory left for its own use. After a failure an
 * object that would have been returned is NULL. Getters accept NULL, and an index beyond the end:
 * they return NULL, 0, or what is said there.
 *
 * Ownership. What a function returns through a pointer to a pointer belongs to the caller, who
 * closes it; nothing else depends on the order of closing. Texts and arrays that are returned
 * belong to the object that they were asked of, and live as long as it does. Inputs need to live
 * during the call only.
 *
 * Threads. Different objects may be used from different threads at the same time. A model may be
 * used from several threads, too: calls that compute (ef_answer and those for one request) and
 * ef_model_statistics wait for each other; the others do not wait. Images and answers do not
 * change: several threads may read them. Closing is for one thread, when no call uses the object
 * any more. ef_cancel may be called from any thread, and from a signal handler. Of GPUs a process
 * opens one. Computing uses OpenMP, whose waiting threads keep their cores busy for milliseconds:
 * on a machine that has other work, start the program with GOMP_SPINCOUNT=1000 in its environment,
 * as the program easyfirst does for itself.
 */
#ifndef EASYFIRST_H
#define EASYFIRST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#define EF_API __attribute__((visibility("default")))
#else
#define EF_API
#endif

#define EF_VERSION_MAJOR 0
#define EF_VERSION_MINOR 3
#define EF_VERSION       "0.3"

/* EF_VERSION of the library that runs, which may be newer than this header. Static. */
EF_API const char *ef_version(void);

/* What kind of failure it is, where a program may want to act on it. Later versions may add some:
 * treat an unknown one as EF_FAILED. */
typedef enum ef_code {
    EF_OK,
    EF_FAILED,        /* everything that has no code of its own */
    EF_CANCELLED,     /* by ef_cancel */
    EF_NO_DEVICE,     /* the GPU that was asked for cannot be used */
    EF_DEVICE_MEMORY, /* the GPU's memory is full */
    EF_MISSING_PART,  /* the model lacks a part that the request needs */
    EF_NO_LENGTH,     /* an answer's length is not given, and the model cannot predict it */
    EF_TOO_LONG,      /* the prompt leaves no room for an answer */
    EF_SKIPPED,       /* the same, with EF_LONG_SKIP */
    EF_FULL,          /* an engine's queue is full: try again later */
    EF_CLOSED,        /* the engine is closing, and no longer takes requests */
    EF_TIMEOUT        /* a job has not ended within the given time */
} ef_code;

/* Written by a call that fails, and by no other. */
typedef struct ef_error {
    char text[1024]; /* one line, terminated */
    int code;        /* ef_code */
} ef_error;

/* ---- Models. ---- */

typedef struct ef_model ef_model;

/* Called now and then while large weights are loaded, in the thread of the call: `done` of `all`
 * bytes, at work on the file `path`; at the end once more with path NULL. */
typedef void (*ef_load_callback)(void *user, const char *path, size_t done, size_t all);

/* In place of a layer: the one that the model's folder names, else -2. */
#define EF_FEATURE_LAYER_DEFAULT (-1000)

/* The type of arithmetic. AUTO: bf16 for bf16 weights where the processor has it, else f32. */
typedef enum ef_dtype { EF_DTYPE_AUTO, EF_DTYPE_F32, EF_DTYPE_BF16 } ef_dtype;

/* How an image becomes a square: padded, or cropped. DEFAULT: as the model's folder says, else
 * padded. */
typedef enum ef_pad { EF_PAD_DEFAULT, EF_PAD_ON, EF_PAD_OFF } ef_pad;

/* Where a model is and how it computes. Make one with ef_model_options_default and change what is
 * to be different; NULL in place of a pointer to it means the defaults: 0 and NULL, and
 * EF_FEATURE_LAYER_DEFAULT. */
typedef struct ef_model_options {
    size_t size;        /* sizeof (ef_model_options), for later versions */
    const char *vision; /* a folder or file in place of the model folder's own; NULL: its own */
    const char *language;
    const char *projector;
    const char *length_predictor;
    const char *device; /* "auto" (NULL): the first GPU if one can be used; "cpu"; "cuda:N" */
    ef_dtype dtype;
    int threads;       /* of the CPU; 0: all cores */
    int text_only;     /* 1: leave the vision tower and projector closed */
    int feature_layer; /* of the vision tower; -1 is the last */
    ef_pad pad;
    const char *from, *to; /* a model that does not translate from the one to the other is an error;
                              NULL: any */
    int check_answers;     /* 1: a model that cannot give answers of answer_length tokens (0: of
                              predicted length) is an error, before its weights are loaded */
    int answer_length;
    ef_load_callback on_load; /* NULL: none */
    void *user;               /* handed to it */
    const char *adapter;      /* a folder with a LoRA adapter in PEFT's format (adapter_config.json,
                            adapter_model.safetensors), merged into the weights; NULL: none */
} ef_model_options;

static inline ef_model_options ef_model_options_default(void) {
    ef_model_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options; /* the caller's, whatever library it runs with */
    options.feature_layer = EF_FEATURE_LAYER_DEFAULT;
    return options;
}

/* Opens a model folder; `folder` NULL: only the parts that the options name. Takes 0.02 s for the
 * small model, seconds for large ones. */
EF_API int ef_model_open(const char *folder, const ef_model_options *options, ef_model **model,
                         ef_error *err);

/* NULL is allowed. No call may be using the model. */
EF_API void ef_model_close(ef_model *model);

/* Whether it can answer about images, and whether it predicts the lengths of answers. 1 or 0. */
EF_API int ef_model_has_vision(const ef_model *model);
EF_API int ef_model_has_length_predictor(const ef_model *model);

/* The probability below which the model is not sure of its answer to a question about an image, as
 * its calibration says; NaN without a calibration. */
EF_API double ef_model_sure_threshold(const ef_model *model);

/* What it computes on, as "CPU, 2 threads, avx512, bf16". The model's. */
EF_API const char *ef_model_device(const ef_model *model);

typedef enum ef_part { EF_LANGUAGE, EF_VISION, EF_PROJECTOR, EF_LENGTH_PREDICTOR } ef_part;

/* A line about a part, as "12 layers, width 768, bf16, model/language"; NULL where the model lacks
 * it. The model's. */
EF_API const char *ef_model_part(const ef_model *model, ef_part part);

/* Tokens that it reads at most: <s>, image, prompt, answer and </s> together; and those that an
 * image takes. */
EF_API int ef_model_context(const ef_model *model);
EF_API int ef_model_image_tokens(const ef_model *model);

/* Fields are added at the end. */
typedef struct ef_statistics {
    double load_seconds;  /* of ef_model_open */
    size_t peak_memory;   /* of the process, in bytes */
    size_t device_memory; /* in use on the GPU by all programs, and its size; 0 for a CPU */
    size_t device_memory_size;
    uint64_t device_launches; /* of kernels and graphs; and bytes that were copied, since opening */
    uint64_t device_bytes_up, device_bytes_down;
} ef_statistics;

/* Writes `size` bytes, sizeof *statistics of the caller, at most. In a callback, where the model is
 * at work, only peak_memory is known. */
EF_API void ef_model_statistics(ef_model *model, ef_statistics *statistics, size_t size);

/* ---- Images. ---- */

typedef struct ef_image ef_image;

/* From a file, or the bytes of one (PNG, JPEG, BMP and, where the library is built with them, WebP,
 * GIF, AVIF and HEIC; recognized by content; its orientation is applied; of an animation the first
 * frame), or pixels: `height` rows of `width` RGB pixels of 8 bits, the rows `stride` bytes apart
 * (0: width * 3). An image does not belong to a model: any may be asked about it. */
EF_API int ef_image_open(const char *path, ef_image **image, ef_error *err);
EF_API int ef_image_decode(const void *bytes, size_t size, ef_image **image, ef_error *err);
EF_API int ef_image_from_pixels(const uint8_t *rgb, int width, int height, size_t stride,
                                ef_image **image, ef_error *err);
EF_API void ef_image_close(ef_image *image); /* NULL is allowed */

/* The same from a file, for this model and those that see images alike; others refuse it. Only the
 * square that the model sees is kept, computed row by row while the file is decoded: large photos
 * take little memory, except in WebP, AVIF and HEIC. The answers are the same to the bit. The model
 * may be at work. */
EF_API int ef_image_open_for(const ef_model *model, const char *path, ef_image **image,
                             ef_error *err);

/* Of the whole image in pixels, upright. */
EF_API int ef_image_width(const ef_image *image);
EF_API int ef_image_height(const ef_image *image);

/* ---- Requests. ---- */

/* What is asked: how the model's prompt template words it. */
typedef enum ef_task {
    EF_COMPLETE,  /* the text itself is the prompt; with or without an image */
    EF_ASK,       /* a question about an image */
    EF_TRANSLATE, /* from one language to another: codes ("de") or names ("German") */
    EF_SUMMARIZE
} ef_task;

/* An earlier turn of a conversation. */
typedef struct ef_turn {
    const char *question, *answer; /* UTF-8 */
} ef_turn;

/* Infilling. With an answer_template ("The ___ is ___ the ___{2}.", UTF-8) only the gaps of the
 * answer are filled in, and its other tokens never change: ___ (three or more underscores) is a gap
 * whose length is found by trying ef_options.beam combinations of lengths (0: 8), ___{2} one of 2
 * tokens, \___ no gap but underscores. Text before the first gap is a prefix, text after the last a
 * suffix. The answer's text is the template with the gaps filled in, the rest byte for byte. The
 * request's own text may be empty then.
 *
 * EF_COMPLETE with the text "" gives a text without any prompt. */
typedef struct ef_request {
    ef_task task;
    const char *text;      /* UTF-8; EF_COMPLETE: NULL is "" where there is a template */
    const ef_image *image; /* NULL: none */
    const char *from, *to; /* EF_TRANSLATE; else NULL */
    int length;            /* of the answer, in tokens; 0: predicted, or, of a template, tried */
    const ef_turn
        *turns; /* EF_ASK, EF_COMPLETE: [turn_count], the oldest first, before the text; of
                             those that do not fit with it and the answer, and of those before a turn
                             without an answer, ef_answer_dropped_turns says how many there are */
    size_t turn_count;
    /* The answer is one of these instead of a denoised one: see "Choices" below. */
    const char *const *choices; /* UTF-8; NULL: none */
    size_t choice_count;
    const char *answer_template; /* the answer's text with gaps to be filled in; NULL: none */
} ef_request;

/* One place of an answer, after a step or at the end. */
typedef struct ef_token {
    int32_t id;        /* -1: masked, in a model whose vocabulary has no mask token */
    const char *piece; /* UTF-8, U+2581 for the space in front of a word; "<mask>" where masked */
    float probability; /* that the model gave the token when it was written; 0 where masked */
    float score;       /* its logarithm, unrounded; -INFINITY where masked */
    int masked;        /* 1: nothing is written here yet */
    int fixed;         /* 1: given by the template, of probability 1 */
} ef_token;

/* A step of one hypothesis. Valid during the call. */
typedef struct ef_step {
    size_t request;  /* index in the call's requests */
    int hypothesis;  /* from 0, within the request: its lengths and samples */
    int step, steps; /* 1 .. steps */
    int length;
    const ef_token *tokens;    /* [length] */
    const ef_token *proposals; /* [length]: what the model proposed in this step; never masked */
    int evaluated;             /* 0: the canvas was known, or nothing could change any more */
} ef_step;

/* Called after each denoising step of each hypothesis, in the thread of the call. It returns: it
 * neither throws nor jumps. It may call ef_cancel; a call that computes with the same model fails
 * there. */
typedef void (*ef_step_callback)(void *user, const ef_step *step);

/* Ends calls early, from elsewhere. */
typedef struct ef_cancellation ef_cancellation;
EF_API int ef_cancellation_new(ef_cancellation **cancellation, ef_error *err);
EF_API void ef_cancellation_close(ef_cancellation *cancellation); /* NULL is allowed */

/* Calls that were given this one end as a failure (EF_CANCELLED), and so do later ones: within the
 * time of one layer (of all layers on a GPU), also while images are encoded, and before the next
 * step. The model can be used as before. */
EF_API void ef_cancel(ef_cancellation *cancellation);

/* Whether it was called: 1 or 0. Tells a call that was cancelled from one that failed. */
EF_API int ef_cancelled(const ef_cancellation *cancellation);

/* What becomes of a prompt that leaves no room for its answer. */
typedef enum ef_long_prompts {
    EF_LONG_REFUSE,   /* its error, EF_TOO_LONG */
    EF_LONG_SKIP,     /* no answer either, but EF_SKIPPED */
    EF_LONG_KEEP_LAST /* its first tokens are dropped, ef_answer_dropped_tokens of them */
} ef_long_prompts;

/* How choices are scored. */
typedef enum ef_choose_by {
    EF_BY_DENOISING, /* the tokens in the order in which they are the easiest */
    EF_BY_LIKELIHOOD /* the bound on the likelihood over all orders */
} ef_choose_by;

typedef struct ef_options {
    size_t size;          /* sizeof (ef_options), for later versions */
    const char *strategy; /* NULL: "reparam-uncond-deterministic-cosine", of autoregressive models
                             "ar", their only one; also with cond,
                             stochasticTAU, linear; "cmlm"; "ar". LLaDA's "llada-block32-lowconf",
                             also without blockN, with random, noend, endlast; Dream's
                             "dream-origin", maskgit_plus, topk_margin, entropy, these three also
                             with stochasticTAU. Approximate, with fewer
                             evaluations and other answers: "confidence0.9" writes every token of
                             at least that probability, "entropy0.5" the likeliest ones up to that
                             much surprise in nats; at least one a step */
    int steps;            /* 0: one for each token of the answer, but 10 to 50 */
    int beam;    /* lengths tried where none is given, the best is kept; 0: 1, of a template 8; 512
                    at most */
    int samples; /* hypotheses for each length; 0: 1; 1024 at most */
    float length_weight; /* what a length's log-probability counts where hypotheses are compared */
    float temperature;   /* 0: argmax */
    uint64_t seed;       /* of everything random: the same seed, the same answers */
    ef_long_prompts long_prompts;
    int batch_tokens;         /* rows that go through the network together at most; 0: 4096 */
    int no_canvas_cache;      /* 1: evaluate every step, known or not; the same answer, slower */
    int no_kv_cache;          /* 1: keep no keys and values; the same answer, slower */
    ef_step_callback on_step; /* NULL: none */
    void *user;               /* handed to it */
    ef_cancellation *cancellation; /* NULL: none */
    int early_stop;   /* approximate: an answer that is proposed in so many steps in a row is final,
                       fewer evaluations; 0: never */
    int prefix_cache; /* approximate, models with full attention only (a block-causal one keeps keys
                         and values exactly, always): the keys and values of image and prompt are
                         computed in steps 1, n + 1, 2n + 1 ... and used in those between; 0: off */
    float guidance;   /* W, 0 to 100: logits u + (W + 1) (c - u), of c after the prompt and u after
                       <mask> in place of the prompt and image (classifier-free guidance, as
                       LLaDA's cfg_scale); twice the evaluations, not with prefix_cache; 0: off */
    ef_choose_by choose_by; /* of requests with choices */
    int likelihood_samples; /* ... by likelihood: masks that are evaluated for each choice, at most;
                               0: 128; 1000000 at most */
} ef_options;

static inline ef_options ef_options_default(void) {
    ef_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    return options;
}

/* ---- Answers. ---- */

typedef struct ef_answers ef_answers;

/* Answers all requests, in batches; none depends on what else is asked. A request that cannot be
 * answered has its own error (ef_answer_error), and the others are answered as without it; the call
 * itself fails only for what concerns all: options, memory, the device, a cancellation. An image is
 * encoded once, however many requests are about it; those of the last call are kept for the next.
 * `options` NULL: the defaults. */
EF_API int ef_answer(ef_model *model, const ef_request *requests, size_t count,
                     const ef_options *options, ef_answers **answers, ef_error *err);

/* The same for one request; these fail, too, if it cannot be answered. */
EF_API int ef_ask(ef_model *model, const ef_image *image, const char *question,
                  const ef_options *options, ef_answers **answers, ef_error *err);
EF_API int ef_complete(ef_model *model, const char *prompt, int length, const ef_options *options,
                       ef_answers **answers, ef_error *err);
EF_API int ef_translate(ef_model *model, const char *text, const char *from, const char *to,
                        const ef_options *options, ef_answers **answers, ef_error *err);
EF_API int ef_summarize(ef_model *model, const char *text, const ef_options *options,
                        ef_answers **answers, ef_error *err);

EF_API void ef_answers_close(ef_answers *answers); /* NULL is allowed */

EF_API size_t ef_answers_count(const ef_answers *answers);

/* Of answer i: its text (NULL where there is none), why there is none (NULL where there is one) and
 * the code of that (EF_OK), the mean log-probability of its tokens that are not fixed (-INFINITY without an answer),
 * their number, and each of them. All of the best hypothesis. */
EF_API const char *ef_answer_text(const ef_answers *answers, size_t i);
EF_API const char *ef_answer_error(const ef_answers *answers, size_t i);
EF_API ef_code ef_answer_code(const ef_answers *answers, size_t i);
EF_API double ef_answer_score(const ef_answers *answers, size_t i);
EF_API int ef_answer_length(const ef_answers *answers, size_t i);
EF_API const ef_token *ef_answer_tokens(const ef_answers *answers, size_t i);

/* How likely answer i is right, from 0 to 1, by the calibration in the model's folder (`easyfirst
 * calibrate`); NaN without an answer, and for a task that the folder has no calibration for. */
EF_API double ef_answer_probability(const ef_answers *answers, size_t i);

/* The prompt's tokens, without <s> and image, as far as they are known; how many of them, the first
 * ones, were dropped (EF_LONG_KEEP_LAST); and how often the network was evaluated. */
EF_API int ef_answer_prompt_tokens(const ef_answers *answers, size_t i);
EF_API int ef_answer_dropped_tokens(const ef_answers *answers, size_t i);
EF_API int ef_answer_evaluations(const ef_answers *answers, size_t i);

/* How many of the request's turns, the oldest ones, the model did not read: only whole turns are
 * read, as in training with `--context on`. All of them where the request has an error. */
EF_API int ef_answer_dropped_turns(const ef_answers *answers, size_t i);

/* One of the answers that were tried: of a length, and of a sample. Fields are added at the end. */
typedef struct ef_hypothesis {
    const char *text;
    double score; /* mean log-probability of its tokens that are not fixed */
    int length, sample, steps;
    int evaluations;        /* canvases that several share count for the first */
    const ef_token *tokens; /* [length] */
} ef_hypothesis;

/* How many there are (0 without an answer), hypothesis h of them (NULL beyond them), and which is
 * the best (-1 without an answer). The order is that of ef_step.hypothesis. */
EF_API int ef_answer_hypotheses(const ef_answers *answers, size_t i);
EF_API const ef_hypothesis *ef_answer_hypothesis(const ef_answers *answers, size_t i, int h);
EF_API int ef_answer_best(const ef_answers *answers, size_t i);

/* ---- Choices. ---- */

/* The answer to a request with choices is the one that the model finds the likeliest. A choice's
 * score is the model's own log-likelihood of it: the log-probability of its length, by the length
 * predictor, and those of its tokens, each given the prompt and the tokens written before it, in
 * the order in which they are the easiest; projector/choices.h has the formula, with its sources.
 * It costs as many evaluations as a choice has tokens; choices of one token share one evaluation,
 * and any choices an evaluation of what they have in common. Nothing is random; the options of
 * denoising (strategy, steps, beam, samples, length_weight, temperature, seed, guidance, on_step)
 * have no effect, and `length` is 0. With choose_by EF_BY_LIKELIHOOD the tokens' part is LLaDA's
 * bound on their log-likelihood over all orders (language/likelihood.h): of choices of up to 7 tokens
 * it is exact, of longer ones estimated from likelihood_samples random masks, from `seed`; a token's
 * score is its part of it. A model without a length predictor takes all lengths as equally likely.
 *
 * A request is refused, with the choice named, if a choice is empty, has characters that the
 * model's tokenizer does not know, does not fit after the prompt, or is the same as another one to
 * the model. The prompt must leave room for the longest choice.
 *
 * In ef_answers, text, score, length and tokens are those of the chosen one, as the only
 * hypothesis; ef_answer_probability is NaN, since a calibration is for denoised answers. */
typedef struct ef_choice {
    const char *text;    /* as it was given */
    double probability;  /* softmax of the scores: over all choices of the request, the sum is 1 */
    double score;        /* log-likelihood: length_score and those of the tokens */
    double length_score; /* log-probability of its length; 0 without a length predictor */
    int length;          /* in tokens */
    const ef_token *tokens; /* [length] */
} ef_choice;

/* How many choices answer i was chosen from (0 without choices, and without an answer), choice c of
 * them in the order of the request (NULL beyond them), and which was chosen: of equal ones the
 * first; -1 where there are none. */
EF_API size_t ef_answer_choices(const ef_answers *answers, size_t i);
EF_API const ef_choice *ef_answer_choice(const ef_answers *answers, size_t i, size_t c);
EF_API int ef_answer_chosen(const ef_answers *answers, size_t i);

/* The same for one request: a question about an image or, where `image` is NULL, a prompt as it
 * is (EF_COMPLETE). Fails, too, if nothing can be chosen. */
EF_API int ef_choose(ef_model *model, const ef_image *image, const char *text,
                     const char *const *choices, size_t count, const ef_options *options,
                     ef_answers **answers, ef_error *err);

/* What a call did, over all its requests. Fields are added at the end. */
typedef struct ef_work {
    double encode_seconds; /* images to tokens of them */
    double prefix_seconds; /* prompts to tokens, keys and values, lengths */
    double decode_seconds; /* denoising */
    int64_t images;        /* that were encoded: those that the last call had are not */
    int64_t answered, skipped, shortened, dropped_tokens;
    int64_t steps, evaluations; /* of all hypotheses */
    int64_t forwards, canvases; /* runs of the network, and what they evaluated */
    int64_t rows, prefix_rows;  /* that went through it, in steps and before them */
} ef_work;

/* The answers'. Of an engine's, which share the network's runs with others, images, forwards, canvases
 * and rows are 0: see ef_engine_statistics. */
EF_API const ef_work *ef_answers_work(const ef_answers *answers);

/* ---- Questions before anything is computed. ---- */

/* Whether a request could be answered, as ef_answer would find before it computes, without waiting
 * for a model that is at work. *tokens (may be NULL) takes the number of its prompt's tokens, as
 * far as it is known. An EF_ASK needs no image yet: NULL stands for any. */
EF_API int ef_check(const ef_model *model, const ef_request *request, const ef_options *options,
                    int *tokens, ef_error *err);

/* Whether the model has the parts for a task, and answers of so many tokens (0: predicted) leave
 * room for a prompt, and for an image with EF_ASK. */
EF_API int ef_check_task(const ef_model *model, ef_task task, int length, ef_error *err);

/* ---- Engines: requests of many users, answered together. ---- */

/* An engine answers requests that arrive at any time:
 *
 *     ef_engine_open(model, NULL, &engine, &err);
 *     ef_engine_submit(engine, &request, NULL, "user 7", NULL, NULL, &job, &err);
 *     ef_job_wait(job, -1, &answers, &err);
 *     ef_job_close(job);
 *     ef_engine_close(engine);
 *
 * They share batches: a request joins at the next step of those that are being answered, and leaves
 * when it is done. Its answer is ef_answer's, to the bit where the processor has AVX-512 (on others
 * rounding depends on the number of rows of a batch, and scores differ by about 1e-6). A thread of
 * the engine computes; all functions may be called from any thread. Other calls may use the model
 * at the same time: the engine leaves it between two steps. Memory is allocated when an engine is
 * opened, and per request for its hypotheses. For a block-causal model that is 4 bytes (bf16), or 8
 * (f32), times width and layers for each of prefix_tokens and batch_tokens. */
typedef struct ef_engine ef_engine;

/* Make one with ef_engine_options_default. 0 stands for a default everywhere. */
typedef struct ef_engine_options {
    size_t size;         /* sizeof (ef_engine_options), for later versions */
    int batch_tokens;    /* rows that go through the network together at most; 0: 4096 */
    int prefill_tokens;  /* rows of new prompts and images that a step computes at most, so that
                             others do not wait long; one prompt or image always fits; 0: 512 */
    int active;          /* hypotheses (lengths and samples) that are denoised at once; one request
                             always fits; 0: 256 */
    int prefix_tokens;   /* rows of prompts and images that are kept at once; a request always
                             fits; 0: 8192 */
    int queue;           /* requests that wait at most; 0: 256 */
    int queue_per_owner; /* of one owner; 0: no limit of its own */
    size_t image_cache;  /* bytes of encoded images that are kept; the last eight always are;
                             0: 256 MiB */
} ef_engine_options;

static inline ef_engine_options ef_engine_options_default(void) {
    ef_engine_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    return options;
}

/* `options` NULL: the defaults. The model is to be closed after the engine. */
EF_API int ef_engine_open(ef_model *model, const ef_engine_options *options, ef_engine **engine,
                          ef_error *err);

/* From now on, requests are refused: new ones, and those that wait, which fail with EF_CLOSED.
 * Those that are being answered are finished. Returns at once. */
EF_API void ef_engine_drain(ef_engine *engine);

/* Drains, waits until all jobs have ended, and closes. Not in a callback. NULL is allowed. */
EF_API void ef_engine_close(ef_engine *engine);

/* A request on its way. */
typedef struct ef_job ef_job;

/* Called when a job has ended, however it did: once, in the engine's thread, or in the one that
 * called ef_engine_drain or ef_engine_close. It may call all functions for jobs, and
 * ef_engine_submit; the engine waits for it: it should return soon. */
typedef void (*ef_done_callback)(void *user, ef_job *job);

/* Takes a request, and returns at once. The inputs are copied (an image is shared: it may be
 * closed). What ef_check would find fails here. Requests of different owners take turns, however
 * many one of them has; `owner` is any text, NULL as "". With a full queue it fails with EF_FULL.
 * The options' on_step is called in the engine's thread; batch_tokens, no_kv_cache and
 * cancellation are to be 0: the engine has its own, and ef_job_cancel. The job may have ended when
 * this returns: *job is set before its callbacks are called. `on_done` may be NULL, and so may
 * `job` with one. */
EF_API int ef_engine_submit(ef_engine *engine, const ef_request *request, const ef_options *options,
                            const char *owner, ef_done_callback on_done, void *user, ef_job **job,
                            ef_error *err);

/* Waits until the job has ended, `seconds` at most (0: not at all; negative: without limit), and
 * hands over its answers, of which there is one. Fails as ef_ask does, with EF_CANCELLED,
 * EF_CLOSED, or with EF_TIMEOUT, after which it may be called again. `answers` NULL: they stay with
 * the job. They are handed over once. */
EF_API int ef_job_wait(ef_job *job, double seconds, ef_answers **answers, ef_error *err);

/* Whether it has ended: 1 or 0. NULL has. */
EF_API int ef_job_ended(const ef_job *job);

/* Ends it as a failure (EF_CANCELLED) before the next step; nothing happens if it has ended. NULL
 * is allowed. */
EF_API void ef_job_cancel(ef_job *job);

/* Gives up the handle, not the request: that is answered all the same, and on_done called. In any
 * order with ef_engine_close. NULL is allowed. */
EF_API void ef_job_close(ef_job *job);

/* What an engine does and did. Fields are added at the end. */
typedef struct ef_engine_counts {
    int64_t queued, active;               /* jobs, now */
    int64_t submitted, refused;           /* jobs, since opening: taken; EF_FULL, EF_CLOSED */
    int64_t done, failed, cancelled;      /* jobs that ended: answered, not, by the user */
    int64_t steps;                        /* of the engine: all active hypotheses together */
    int64_t batches, canvases, rows;      /* runs of the network, and what they evaluated */
    int64_t prefix_rows;                  /* of prompts and images, once each */
    int64_t images, image_hits;           /* encoded; found in the cache */
    size_t image_bytes, image_bytes_most; /* in the cache, now; and at most */
} ef_engine_counts;

/* Writes `size` bytes, sizeof *statistics of the caller, at most. */
EF_API void ef_engine_statistics(ef_engine *engine, ef_engine_counts *statistics, size_t size);

#ifdef __cplusplus
}
#endif

#endif
