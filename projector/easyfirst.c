/* easyfirst.c - the public library: models, images, cancellations. What is asked and answered is in
 * easyfirst_answer.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kernels/clock.h"
#include "projector/easyfirst_private.h"

#define TEXT(number)   TEXT_OF(number)
#define TEXT_OF(words) #words

const char *ef_version(void) {
    return TEXT(EF_VERSION_MAJOR) "." TEXT(EF_VERSION_MINOR);
}

int options_take(void *options, size_t size, const void *given, const char *maker, Error *err) {
    if (!given) return 0;
    size_t theirs = *(const size_t *)given;
    if (theirs < sizeof(size_t))
        return error_set(err, "options of size %zu: make them with %s", theirs, maker);
    if (theirs > size)
        return error_set(
            err,
            "options of size %zu, this library (version %s) knows %zu: the program was "
            "compiled for a later version; install that",
            theirs, ef_version(), size);
    memcpy(options, given, theirs);
    return 0;
}

/* ---- Models. ---- */

bool model_lock(ef_model *m) {
    ModelLock *l = &m->lock;
    pthread_mutex_lock(&l->mutex);
    bool own = l->held && pthread_equal(l->holder, pthread_self());
    if (!own) {
        uint64_t number = l->next++;
        while (number != l->serving) pthread_cond_wait(&l->turn, &l->mutex);
        l->held = true, l->holder = pthread_self();
    }
    pthread_mutex_unlock(&l->mutex);
    return !own;
}

void model_unlock(ef_model *m) {
    ModelLock *l = &m->lock;
    pthread_mutex_lock(&l->mutex);
    l->held = false;
    l->serving++;
    pthread_cond_broadcast(&l->turn);
    pthread_mutex_unlock(&l->mutex);
}

static int options_check(const ef_model_options *o, Error *err) {
    if (o->threads < 0 || o->threads > 1024)
        return error_set(err, "%d threads: expected 1 to 1024, or 0 for all cores", o->threads);
    if (o->feature_layer != EF_FEATURE_LAYER_DEFAULT &&
        (o->feature_layer < -999 || o->feature_layer > 999))
        return error_set(err, "feature layer %d: expected -999 to 999", o->feature_layer);
    if ((unsigned)o->pad > EF_PAD_OFF)
        return error_set(err, "pad %d: expected EF_PAD_DEFAULT, _ON or _OFF", (int)o->pad);
    if ((unsigned)o->dtype > EF_DTYPE_BF16)
        return error_set(err, "dtype %d: expected EF_DTYPE_AUTO, _F32 or _BF16", (int)o->dtype);
    if (o->answer_length < 0)
        return error_set(err, "answers of %d tokens: expected 1 or more, or 0 for predicted",
                         o->answer_length);
    return 0;
}

static int part_text(char **out, const ModelPart *part, const char *shape, Error *err) {
    const char *stored = dtype_name(part->stored), *compute = dtype_name(part->compute);
    bool same = part->stored == part->compute;
    if (asprintf(out, "%s, %s%s%s, %s", shape, stored, same ? "" : " computed in ",
                 same ? "" : compute, part->path) >= 0)
        return 0;
    *out = NULL;
    return error_set(err, "out of memory for a model's description");
}

static void block_text(char *out, size_t size, int layers, const BlockConfig *block) {
    snprintf(out, size, "%d layers, width %d", layers, block->width);
}

static void tower_text(char *out, size_t size, const Tower *tower) {
    if (!tower->vit) {
        snprintf(out, size, "%d convolutions, width %d, %d px to a grid of %d", tower->net->count,
                 tower_width(tower), tower_image_size(tower), tower_grid(tower));
        return;
    }
    const VitConfig *c = &tower->vit->config;
    block_text(out, size, c->layers, &c->block);
    size_t used = strlen(out);
    snprintf(out + used, size - used, ", %d px in patches of %d", c->image_size, c->patch);
}

static int parts_describe(ef_model *m, Error *err) {
    const Multimodal *parts = &m->model.parts;
    char shape[128];
    block_text(shape, sizeof shape, language_layers(&parts->language),
               language_block(&parts->language));
    TRY(part_text(&m->parts[EF_LANGUAGE], &m->model.language, shape, err));
    if (parts->tower) {
        tower_text(shape, sizeof shape, parts->tower);
        TRY(part_text(&m->parts[EF_VISION], &m->model.vision, shape, err));
    }
    if (parts->projector) {
        snprintf(shape, sizeof shape, "width %d", parts->projector->out);
        TRY(part_text(&m->parts[EF_PROJECTOR], &m->model.projector, shape, err));
    }
    if (!parts->length) return 0;
    snprintf(shape, sizeof shape, "lengths 1 to %d", parts->length->classes);
    return part_text(&m->parts[EF_LENGTH_PREDICTOR],
                     m->model.length.present ? &m->model.length : &m->model.language, shape, err);
}

static int model_open_parts(ef_model *m, const char *folder, const ef_model_options *o,
                            int layers_over, Comm *comm, Error *err) {
    TRY(options_check(o, err));
    m->folder = strdup(folder        ? folder
                       : o->language ? o->language
                       : o->vision   ? o->vision
                                     : "model");
    if (!m->folder) return error_set(err, "out of memory for a name");
    m->own_language = !o->language;
    TRY(device_choose(&m->device, o->device, o->threads, err));
    static const Dtype dtypes[] = {DTYPE_NONE, DTYPE_F32, DTYPE_BF16};
    static const ModelPad pads[] = {PAD_AS_MODEL, PAD_ON, PAD_OFF};
    const ModelOptions options = {.folder = folder,
                                  .vision = o->vision,
                                  .language = o->language,
                                  .projector = o->projector,
                                  .length = o->length_predictor,
                                  .dtype = dtypes[o->dtype],
                                  .feature_layer = o->feature_layer,
                                  .pad = pads[o->pad],
                                  .text_only = o->text_only != 0,
                                  .from = o->from,
                                  .to = o->to,
                                  .answers = o->check_answers != 0,
                                  .answer_length = o->answer_length,
                                  .loading = o->on_load,
                                  .loading_user = o->user,
                                  .adapter = o->adapter,
                                  .layers_over = layers_over,
                                  .comm = comm};
    TRY(model_open(&m->model, &options, m->device, err));
    if (!language_present(&m->model.parts.language))
        return error_set_code(err, ERROR_MISSING_PART,
                              "%s: this model has no language model, so that it cannot answer",
                              m->folder);
    TRY(parts_describe(m, err));
    return device_wait(m->device, err);
}

int ef_model_open(const char *folder, const ef_model_options *options, ef_model **model,
                  ef_error *error) {
    return model_open_spread(folder, options, 1, NULL, model, error_of(error));
}

int model_open_spread(const char *folder, const ef_model_options *options, int layers_over,
                      Comm *comm, ef_model **model, Error *err) {
    ef_model_options o = ef_model_options_default();
    double start = clock_seconds();
    if (!model) return error_set(err, "ef_model_open: no place for the model (NULL)");
    *model = NULL;
    TRY(options_take(&o, sizeof o, options, "ef_model_options_default", err));
    ef_model *m = calloc(1, sizeof *m);
    if (!m) return error_set(err, "out of memory for a model");
    pthread_mutex_init(&m->lock.mutex, NULL);
    pthread_cond_init(&m->lock.turn, NULL);
    if (model_open_parts(m, folder, &o, layers_over, comm, err)) {
        ef_model_close(m);
        return -1;
    }
    m->load_seconds = clock_seconds() - start;
    *model = m;
    return 0;
}

static void images_forget(ef_model *m) {
    if (m->images.tokens.data) device_free(m->device, m->images.tokens.data);
    free(m->images.keys);
    m->images = (ImageBatch){0};
}

void ef_model_close(ef_model *m) {
    if (!m) return;
    if (m->device) {
        device_use(m->device, NULL);
        images_forget(m);
        if (m->model.device) model_close(&m->model);
        device_close(m->device);
    }
    pthread_cond_destroy(&m->lock.turn);
    pthread_mutex_destroy(&m->lock.mutex);
    for (size_t i = 0; i < sizeof m->parts / sizeof *m->parts; i++) free(m->parts[i]);
    free(m->folder);
    free(m);
}

int ef_model_has_vision(const ef_model *m) {
    return m && m->model.parts.tower && m->model.parts.projector;
}

int ef_model_has_length_predictor(const ef_model *m) {
    return m && m->model.parts.length;
}

double ef_model_sure_threshold(const ef_model *model) {
    const Calibration *c = model ? &model->model.calibration : NULL;
    return c && calibration_holds(c, "ask") ? c->threshold : NAN;
}

const char *ef_model_device(const ef_model *m) {
    return m ? device_text(m->device) : NULL;
}

const char *ef_model_part(const ef_model *m, ef_part part) {
    return m && (unsigned)part < sizeof m->parts / sizeof *m->parts ? m->parts[part] : NULL;
}

int ef_model_context(const ef_model *m) {
    return m ? language_longest(&m->model.parts.language) : 0;
}

int ef_model_image_tokens(const ef_model *m) {
    return m ? multimodal_image_rows(&m->model.parts) : 0;
}

void ef_model_statistics(ef_model *m, ef_statistics *statistics, size_t size) {
    ef_statistics s = {0};
    struct rusage usage;
    if (!statistics) return;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        s.peak_memory = (size_t)usage.ru_maxrss * 1024; /* KiB on Linux */
    if (m && model_lock(m)) {
        size_t unused;
        s.load_seconds = m->load_seconds;
        if (device_use(m->device, NULL) == 0 &&
            device_memory(m->device, &unused, &s.device_memory_size))
            s.device_memory = s.device_memory_size - unused;
        const DeviceCounters did = device_counters(m->device);
        s.device_launches = did.launches;
        s.device_bytes_up = did.bytes_up, s.device_bytes_down = did.bytes_down;
        model_unlock(m);
    }
    memcpy(statistics, &s, size < sizeof s ? size : sizeof s);
    if (size > sizeof s) memset((char *)statistics + sizeof s, 0, size - sizeof s);
}

/* Where the tokens of an image are; -1: it is not there. */
static int images_find(const ImageBatch *b, ReplayKey key) {
    for (int i = 0; i < b->count; i++)
        if (b->keys[i].low == key.low && b->keys[i].high == key.high) return i;
    return -1;
}

int model_see(ef_model *m, const ef_image *const *images, int count, int *blocks, ef_work *work,
              Error *err) {
    bool all = true;
    for (int i = 0; i < count; i++)
        all &= (blocks[i] = images_find(&m->images, images[i]->key)) >= 0;
    if (all) return 0;
    images_forget(m);
    Image *pixels = calloc((size_t)count, sizeof *pixels);
    m->images.keys = calloc((size_t)count, sizeof *m->images.keys);
    double start = clock_seconds();
    int status =
        pixels && m->images.keys ? 0 : error_set(err, "out of memory for %d images", count);
    for (int i = 0; i < count && status == 0; i++) {
        blocks[i] = i;
        pixels[i] = images[i]->image; /* borrowed */
        m->images.keys[i] = images[i]->key;
    }
    if (status == 0)
        status = multimodal_encode(&m->model.parts, pixels, count, &m->images.tokens, err);
    if (status == 0) status = device_wait(m->device, err); /* for the clock */
    if (status == 0) m->images.count = count;
    work->encode_seconds += clock_seconds() - start;
    work->images += status == 0 ? count : 0;
    free(pixels);
    if (status) images_forget(m);
    return status;
}

/* ---- Images. ---- */

/* Takes over the pixels, which are the whole image's. */
static int image_new(Image pixels, ef_image **image, Error *err) {
    ef_image *i = calloc(1, sizeof *i);
    if (!i) {
        image_free(&pixels);
        return error_set(err, "out of memory for an image");
    }
    i->users = 1;
    i->width = pixels.width, i->height = pixels.height;
    const int size[] = {pixels.width, pixels.height};
    i->image = pixels;
    i->key = replay_key();
    replay_key_add(&i->key, size, sizeof size);
    replay_key_add(&i->key, pixels.pixels, (size_t)pixels.width * (size_t)pixels.height * 3);
    *image = i;
    return 0;
}

int ef_image_open(const char *path, ef_image **image, ef_error *error) {
    Error *err = error_of(error);
    Image pixels;
    if (!image) return error_set(err, "ef_image_open: no place for the image (NULL)");
    *image = NULL;
    if (!path) return error_set(err, "ef_image_open: no path is given (NULL)");
    /* A file of this name; image_read would take it for standard input. */
    TRY(image_read(&pixels, strcmp(path, "-") ? path : "./-", NULL, err));
    return image_new(pixels, image, err);
}

int image_open_for(const ef_model *model, const char *path, ef_image **image, Error *err) {
    const PreprocessConfig *config = &model->model.parts.preprocess;
    Image square;
    int width, height;
    TRY(preprocess_read(&square, &width, &height, path, config, NULL, err));
    TRY(image_new(square, image, err));
    (*image)->width = width, (*image)->height = height;
    (*image)->seen = *config;
    return 0;
}

int ef_image_open_for(const ef_model *model, const char *path, ef_image **image, ef_error *error) {
    Error *err = error_of(error);
    if (!image) return error_set(err, "ef_image_open_for: no place for the image (NULL)");
    *image = NULL;
    if (!model) return error_set(err, "ef_image_open_for: no model is given (NULL)");
    if (!path) return error_set(err, "ef_image_open_for: no path is given (NULL)");
    if (!ef_model_has_vision(model))
        return error_set_code(err, ERROR_MISSING_PART, "%s: this model has no %s", model->folder,
                              model->model.parts.tower ? "projector" : "vision tower");
    return image_open_for(model, strcmp(path, "-") ? path : "./-", image, err);
}

int ef_image_decode(const void *bytes, size_t size, ef_image **image, ef_error *error) {
    Error *err = error_of(error);
    Image pixels;
    if (!image) return error_set(err, "ef_image_decode: no place for the image (NULL)");
    *image = NULL;
    if (!bytes) return error_set(err, "ef_image_decode: no bytes are given (NULL)");
    TRY(image_decode(&pixels, bytes, size, "image", NULL, err));
    return image_new(pixels, image, err);
}

int ef_image_from_pixels(const uint8_t *rgb, int width, int height, size_t stride, ef_image **image,
                         ef_error *error) {
    Error *err = error_of(error);
    if (!image) return error_set(err, "ef_image_from_pixels: no place for the image (NULL)");
    *image = NULL;
    if (!rgb) return error_set(err, "ef_image_from_pixels: no pixels are given (NULL)");
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
        (int64_t)width * height > IMAGE_MAX_PIXELS)
        return error_set(err, "an image of %d x %d pixels: expected at least 1 x 1, %d at most",
                         width, height, IMAGE_MAX_PIXELS);
    const size_t row = (size_t)width * 3;
    if (stride && stride < row)
        return error_set(err, "rows of an image %zu bytes apart: %d pixels take %zu", stride, width,
                         row);
    Image copy = {.width = width, .height = height, .pixels = malloc(row * (size_t)height)};
    if (!copy.pixels)
        return error_set(err, "out of memory for an image of %d x %d pixels", width, height);
    for (size_t y = 0; y < (size_t)height; y++)
        memcpy(copy.pixels + y * row, rgb + y * (stride ? stride : row), row);
    return image_new(copy, image, err);
}

const ef_image *image_share(const ef_image *image) {
    if (image) __atomic_add_fetch(&((ef_image *)image)->users, 1, __ATOMIC_RELAXED);
    return image;
}

void ef_image_close(ef_image *image) {
    if (!image || __atomic_sub_fetch(&image->users, 1, __ATOMIC_ACQ_REL) > 0) return;
    image_free(&image->image);
    free(image);
}

int ef_image_width(const ef_image *image) {
    return image ? image->width : 0;
}

int ef_image_height(const ef_image *image) {
    return image ? image->height : 0;
}

/* ---- Cancelling. ---- */

int ef_cancellation_new(ef_cancellation **cancellation, ef_error *error) {
    Error *err = error_of(error);
    if (!cancellation) return error_set(err, "ef_cancellation_new: no place for it (NULL)");
    *cancellation = calloc(1, sizeof **cancellation);
    return *cancellation ? 0 : error_set(err, "out of memory for a cancellation");
}

void ef_cancellation_close(ef_cancellation *cancellation) {
    free(cancellation);
}

void ef_cancel(ef_cancellation *cancellation) {
    if (cancellation) __atomic_store_n(&cancellation->cancelled, 1, __ATOMIC_RELAXED);
}

int ef_cancelled(const ef_cancellation *cancellation) {
    return cancellation && __atomic_load_n(&cancellation->cancelled, __ATOMIC_RELAXED);
}
