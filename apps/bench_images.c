/* bench_images.c - `easyfirst bench images`: how many images a second this machine reads, decodes and
 * brings to a vision tower's form, as the loaders of training and evaluation do.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "apps/commands.h"
#include "data/files/archive.h"
#include "data/files/path.h"
#include "kernels/clock.h"
#include "vision/preprocess.h"

static const CommandHelp help = {
    .name = "bench images",
    .usage = "[options] FOLDER|ZIP|IMAGE...",
    .about =
        "Measures how many images a second are read from a folder or a zip archive, decoded,\n"
        "resized, cropped and normalized, as training and evaluation do for a vision tower, and\n"
        "the processor time of an image, which other programs change less. The least of several\n"
        "runs counts. The files come from the system's cache after the first.",
    .examples = "easyfirst bench images photos\n"
                "easyfirst bench images --threads 1 --size 336 --pad on coco.zip",
};

typedef struct ImagesBench {
    PreprocessConfig preprocess;
    int pad; /* off, on */
    int count, runs, threads;
    bool json;
    char **names; /* paths of images */
    int name_count;
    int64_t bytes, pixels; /* of all images of a run, stored and upright */
    double busy;           /* seconds of processor time in a run */
} ImagesBench;

static const char *const pad_names[] = {"off", "on", NULL};

/* ---- The images. ---- */

static int add_name(ImagesBench *b, char *name, Error *err) {
    char **more = name ? realloc(b->names, ((size_t)b->name_count + 1) * sizeof *more) : NULL;
    if (!more) {
        free(name);
        return error_set(err, "out of memory for the names of images");
    }
    b->names = more;
    b->names[b->name_count++] = name;
    return 0;
}

static int is_shown(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int add_folder(ImagesBench *b, const char *path, Error *err) {
    struct dirent **entries;
    const int count = scandir(path, &entries, is_shown, alphasort);
    int status = count < 0 ? error_set(err, "%s: the folder cannot be read", path) : 0;
    for (int i = 0; i < count; i++) {
        struct stat info;
        char *name = path_join(path, entries[i]->d_name, err);
        if (name && (stat(name, &info) || !S_ISREG(info.st_mode)))
            free(name);
        else if (status == 0)
            status = add_name(b, name, err);
        else
            free(name);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return status;
}

static int add_archive(ImagesBench *b, const char *path, Error *err) {
    char **names;
    int count, status = 0;
    TRY(archive_names(path, &names, &count, err));
    for (int i = 0; i < count; i++)
        if (status == 0)
            status = add_name(b, names[i], err);
        else
            free(names[i]);
    free(names);
    return status;
}

static int add(ImagesBench *b, const char *path, Error *err) {
    struct stat info;
    const bool there = stat(path, &info) == 0;
    const int before = b->name_count;
    if (there && S_ISDIR(info.st_mode))
        TRY(add_folder(b, path, err));
    else if (there && archive_path(path))
        TRY(add_archive(b, path, err));
    else
        TRY(add_name(b, strdup(path), err));
    return b->name_count > before ? 0 : error_set(err, "%s: no files in it", path);
}

/* ---- A run. ---- */

static int64_t file_bytes(const char *path) {
    struct stat info;
    int64_t size = 0;
    if (stat(path, &info) == 0) return info.st_size;
    return archive_size(path, &size, NULL) ? 0 : size;
}

static int one_image(const ImagesBench *b, const char *path, float *out, int64_t *pixels,
                     Error *err) {
    Image image;
    int width, height;
    TRY(preprocess_read(&image, &width, &height, path, &b->preprocess, NULL, err));
    *pixels = (int64_t)width * height;
    int status = preprocess_image(out, &image, &b->preprocess, err);
    image_free(&image);
    return status;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run_once(ImagesBench *b, Error *err) {
    const size_t values = 3 * (size_t)b->preprocess.size * (size_t)b->preprocess.size;
    int failed = 0;
    int64_t all = 0;
    double busy = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads) reduction(+ : all, busy)
    for (int i = 0; i < b->count; i++) {
        Error mine = {{0}};
        int64_t pixels = 0;
        const double before = thread_seconds();
        float *out = malloc(values * sizeof *out);
        int status = out ? one_image(b, b->names[i % b->name_count], out, &pixels, &mine)
                         : error_set(&mine, "out of memory for an image");
        free(out);
        all += pixels;
        busy += thread_seconds() - before;
        if (status == 0) continue;
#pragma omp critical(bench_images)
        {
            if (!failed) *err = mine;
            failed = 1;
        }
    }
    b->pixels = all;
    if (b->busy == 0 || busy < b->busy) b->busy = busy;
    return failed ? -1 : 0;
}

static int report(const ImagesBench *b, double best, Error *err) {
    const double rate = b->count / best, each = 1.0 / b->count;
    if (b->json) {
        json_t *line =
            json_pack("{s:s, s:i, s:i, s:b, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "name", "images",
                      "threads", b->threads, "size", b->preprocess.size, "pad", b->preprocess.pad,
                      "files", b->name_count, "images", b->count, "runs", b->runs, "images_per_s",
                      rate, "processor_ms_per_image", 1e3 * b->busy * each, "kb_per_image",
                      1e-3 * (double)b->bytes * each, "megapixels_per_image",
                      1e-6 * (double)b->pixels * each);
        TRY(json_print_line(line, 6, err));
    } else {
        printf(
            "%d images of %.2f megapixels and %.0f KB to %d px, %d threads: %.1f a second, %.2f ms "
            "of processor time each\n",
            b->count, 1e-6 * (double)b->pixels * each, 1e-3 * (double)b->bytes * each,
            b->preprocess.size, b->threads, rate, 1e3 * b->busy * each);
    }
    return report_flush(err);
}

static int measure(ImagesBench *b, Error *err) {
    double best = 0;
    for (int i = 0; i < b->count; i++) b->bytes += file_bytes(b->names[i % b->name_count]);
    for (int i = 0; i < b->runs; i++) {
        const double before = clock_seconds();
        TRY(run_once(b, err));
        const double took = clock_seconds() - before;
        if (i == 0 || took < best) best = took;
    }
    return report(b, best, err);
}

int command_bench_images(int argc, char **argv) {
    ImagesBench b = {
        .preprocess = preprocess_clip_default(), .count = 200, .runs = 3, .threads = 1};
    OptionGroup group = {
        .title = "options",
        .options = {
            {"size", 0, OPTION_INTEGER, "PX", &b.preprocess.size,
             "the tower's image size (default 224)", 1, 4096},
            {"pad", 0, OPTION_CHOICE, NULL, &b.pad, "to a square first, as LLaVA (default off)",
             .names = pad_names},
            {"count", 0, OPTION_INTEGER, "N", &b.count,
             "images of a run, the files again where they are fewer (default 200)", 1, 1000000},
            {"runs", 0, OPTION_INTEGER, "N", &b.runs, "of which the fastest counts (default 3)", 1,
             1000},
            {"threads", 't', OPTION_INTEGER, "N", &b.threads, "that decode (default 1)", 1, 1024},
            {"json", 0, OPTION_FLAG, NULL, &b.json, "one JSON object"}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status < 0 && first == argc)
        status = options_wrong(&help, "no images are given: a folder, a zip archive or files");
    if (status >= 0) return status;
    Error err;
    b.preprocess.pad = b.pad;
    status = 0;
    for (int i = first; i < argc && status == 0; i++) status = add(&b, argv[i], &err);
    if (status == 0) status = measure(&b, &err);
    for (int i = 0; i < b.name_count; i++) free(b.names[i]);
    free(b.names);
    if (status) report_failure(&err);
    return status ? 1 : 0;
}
