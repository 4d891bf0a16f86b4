/* fuzz.c - the table of targets, and their helpers. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const FuzzTarget fuzz_targets[] = {
    {"png", fuzz_png, 8192},
    {"jpeg", fuzz_jpeg, 8192},
    {"webp", fuzz_webp, 4096},
    {"gif", fuzz_gif, 4096},
    {"bmp", fuzz_bmp, 4096},
    {"avif", fuzz_avif, 2048},
    {"heic", fuzz_heic, 2048},
    {"exif", fuzz_exif, 512},
    {"xmp", fuzz_xmp, 8192},
    {"safetensors", fuzz_safetensors, 4096},
    {"torch", fuzz_torch, 8192},
    {"pickle", fuzz_pickle, 4096},
    {"zip", fuzz_zip, 4096},
    {"index", fuzz_index, 2048},
    {"config", fuzz_config, 2048},
    {"model", fuzz_model, 16384},
    {"json_array", fuzz_json_array, 4096},
    {"records", fuzz_records, 4096},
    {"formats", fuzz_formats, 4096},
    {"archive", fuzz_archive, 4096},
    {"ratio", fuzz_ratio, 1024},
    {"gqa_questions", fuzz_gqa_questions, 4096},
    {"gqa_predictions", fuzz_gqa_predictions, 4096},
    {"gqa_score", fuzz_gqa_score, 8192},
    {"scene_graphs", fuzz_scene_graphs, 4096},
    {"causal_graph", fuzz_causal_graph, 4096},
    {"order_prompts", fuzz_order_prompts, 4096},
    {"sentencepiece", fuzz_sentencepiece, 8192},
    {"tokenizer", fuzz_tokenizer, 1024},
    {"tokenizer_json", fuzz_tokenizer_json, 8192},
    {"merges", fuzz_merges, 2048},
    {"vocabulary", fuzz_vocabulary, 8192},
    {"texts", fuzz_texts, 1024},
    {"score_lines", fuzz_score_lines, 2048},
    {"score_metrics", fuzz_score_metrics, 2048},
    {"trace", fuzz_trace, 16384},
    {"settings", fuzz_settings, 2048},
    {"options", fuzz_options, 1024},
    {"eval_store", fuzz_eval_store, 2048},
    {"eval_text", fuzz_eval_text, 2048},
    {"metrics", fuzz_metrics, 2048},
    {"state", fuzz_state, 2048},
    {NULL, NULL, 0},
};

const FuzzTarget *fuzz_target_find(const char *name) {
    for (const FuzzTarget *t = fuzz_targets; name && t->name; t++)
        if (!strcmp(t->name, name)) return t;
    return NULL;
}

/* ---- Files. ---- */

enum { PATH_SIZE = 512 };

static void need(bool done, const char *what) {
    if (done) return;
    fprintf(stderr, "fuzz: %s: %s\n", what, strerror(errno));
    abort();
}

static void write_whole(int fd, const void *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fd, (const char *)data + at, size - at);
        need(n > 0, "write");
        at += (size_t)n;
    }
}

const char *fuzz_file(int number, const uint8_t *data, size_t size) {
    static int fds[FUZZ_FILES];
    static char paths[FUZZ_FILES][64];
    if (!fds[number]) {
        fds[number] = memfd_create("fuzz", MFD_CLOEXEC);
        need(fds[number] > 0, "memfd_create");
        snprintf(paths[number], sizeof paths[number], "/proc/self/fd/%d", fds[number]);
    }
    need(ftruncate(fds[number], 0) == 0 && lseek(fds[number], 0, SEEK_SET) == 0, "ftruncate");
    write_whole(fds[number], data, size);
    return paths[number];
}

static char folder[200];

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info, (void)type, (void)where;
    return remove(path);
}

static void remove_folder(void) {
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_folder(void) {
    if (folder[0]) return folder;
    const char *base = getenv("FUZZ_FOLDER"); /* removed by the caller */
    if (!base || !*base) base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/easyfirst-fuzz-XXXXXX", base);
    need(mkdtemp(folder) != NULL, folder);
    atexit(remove_folder);
    return folder;
}

static void make_folders(const char *path) {
    char part[PATH_SIZE];
    for (const char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        need(mkdir(part, 0700) == 0 || errno == EEXIST, part);
    }
}

const char *fuzz_write(int number, const char *name, const void *data, size_t size) {
    static char paths[FUZZ_FILES][PATH_SIZE];
    char *path = paths[number];
    snprintf(path, PATH_SIZE, "%s/%s", fuzz_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        make_folders(path);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    need(fd >= 0, path);
    write_whole(fd, data, size);
    need(close(fd) == 0, path);
    return path;
}

static void copy_file(const char *from, const char *to) {
    FILE *in = fopen(from, "rb");
    need(in != NULL, from);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    need(out >= 0, to);
    char bytes[65536];
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;) write_whole(out, bytes, n);
    fclose(in);
    close(out);
}

static void copy_tree(const char *from, const char *to) {
    DIR *dir = opendir(from);
    need(dir != NULL, from);
    need(mkdir(to, 0700) == 0, to);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char a[PATH_SIZE], b[PATH_SIZE];
        struct stat info;
        if (entry->d_name[0] == '.') continue;
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        need(stat(a, &info) == 0, a);
        if (S_ISDIR(info.st_mode))
            copy_tree(a, b);
        else
            copy_file(a, b);
    }
    closedir(dir);
}

const char *fuzz_tree(const char *from, const char *name) {
    static char paths[FUZZ_FILES][PATH_SIZE];
    static int count;
    char to[PATH_SIZE];
    snprintf(to, sizeof to, "%s/%s", fuzz_folder(), name);
    for (int i = 0; i < count; i++)
        if (!strcmp(paths[i], to)) return paths[i];
    need(count < FUZZ_FILES, "fuzz_tree: too many");
    copy_tree(from, to);
    memcpy(paths[count], to, sizeof to);
    return paths[count++];
}

/* ---- Bytes. ---- */

char *fuzz_text(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    need(text != NULL, "malloc");
    if (size) memcpy(text, data, size);
    text[size] = 0;
    return text;
}

uint8_t *fuzz_exact(const uint8_t *data, size_t size) {
    uint8_t *bytes = malloc(size ? size : 1);
    need(bytes != NULL, "malloc");
    if (size) memcpy(bytes, data, size);
    return bytes;
}

FuzzPiece fuzz_piece(const uint8_t **data, size_t *size) {
    const uint8_t *end = *size ? memchr(*data, 0xff, *size) : NULL;
    FuzzPiece piece = {*data, end ? (size_t)(end - *data) : *size};
    size_t taken = piece.size + (end ? 1 : 0);
    *data += taken, *size -= taken;
    return piece;
}

void fuzz_touch(const void *bytes, size_t size) {
    static volatile unsigned seen;
    const unsigned char *at = bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum += at[i];
    seen = seen + sum;
}

void fuzz_check(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz: does not hold: %s\n", what);
    abort();
}

void fuzz_result(int status, const Error *err) {
    fuzz_check(status == 0 || status == -1, "a status is 0 or -1");
    if (status == 0) return;
    fuzz_check(err->text[0] != 0, "a failure has a message");
    for (const char *c = err->text; *c; c++)
        fuzz_check((unsigned char)*c >= ' ' && *c != 0x7f, "a message has no control characters");
}
