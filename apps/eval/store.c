#include "apps/eval/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/eval/folder.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "data/files/file_write.h"
#include "data/files/json_memory.h"
#include "data/files/memory_stream.h"
#include "data/files/path.h"

/* ---- The folder. ---- */

/* Whether a file name is that of answers, and of which shard: 0 is the whole. */
static bool is_answers(const char *name, int *shard, int *shards) {
    int end = 0;
    *shard = *shards = 0;
    if (!strcmp(name, "answers.jsonl")) return true;
    return sscanf(name, "answers-%d-of-%d.jsonl%n", shard, shards, &end) == 2 && end > 0 &&
           !name[end];
}

static int is_answers_entry(const struct dirent *entry) {
    int shard, shards;
    return is_answers(entry->d_name, &shard, &shards);
}

typedef int (*AnswersVisit)(EvalStore *store, const char *path, void *user, Error *err);

/* Visits the files of answers in the folder, by name. */
static int answers_visit(EvalStore *s, AnswersVisit visit, void *user, Error *err) {
    struct dirent **names;
    int count = scandir(s->folder, &names, is_answers_entry, alphasort), status = 0;
    if (count < 0) return error_set(err, "%s: %s", s->folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        char *path = status ? NULL : path_join(s->folder, names[i]->d_name, err);
        if (status == 0) status = path ? visit(s, path, user, err) : -1;
        free(path);
        free(names[i]);
    }
    free(names);
    return status;
}

/* Shards run in parallel; a run of the whole excludes all others. */
static int other_check(EvalStore *s, const char *path, void *user, Error *err) {
    (void)user;
    int shard, shards;
    const char *name = strrchr(path, '/') + 1;
    if (!strcmp(path, s->path) || !is_answers(name, &shard, &shards)) return 0;
    if (s->shards && shards) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0; /* removed meanwhile */
    bool busy = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    if (!busy) return 0;
    return error_set(err, "%s: another easyfirst is writing this file: wait until it is done",
                     path);
}

static int lock_answers(EvalStore *s, Error *err) {
    int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return error_set(err, "%s: %s", s->path, strerror(errno));
    if (s->fd >= 0) close(s->fd);
    s->fd = fd;
    if (flock(s->fd, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK) return 0; /* a file system without locks */
    return error_set(err, "%s: another easyfirst is writing this file: wait until it is done",
                     s->path);
}

/* Under the folder's lock: concurrent starts see each other's settings and answers. */
static int folder_take(EvalStore *s, const json_t *settings, Error *err) {
    TRY(eval_folder_settings(s->folder, settings, err));
    TRY(lock_answers(s, err));
    TRY(answers_visit(s, other_check, NULL, err));
    return s->shards ? 0 : eval_folder_clean(s->folder, err);
}

int eval_store_open(EvalStore *s, const char *folder, int shard, int shards, const json_t *settings,
                    const char *model, Error *err) {
    *s = (EvalStore){.folder = folder, .fd = -1, .shard = shard, .shards = shards, .model = model};
    int lock;
    char name[64] = "answers.jsonl";
    if (shards) snprintf(name, sizeof name, "answers-%d-of-%d.jsonl", shard, shards);
    s->path = path_join(folder, name, err);
    int status = s->path ? eval_folder_enter(&lock, folder, err) : -1;
    if (status == 0) {
        status = folder_take(s, settings, err);
        eval_folder_leave(&lock);
    }
    if (status) eval_store_close(s);
    return status;
}

void eval_store_close(EvalStore *s) {
    if (s->fd >= 0) close(s->fd);
    free(s->path);
    text_table_free(&s->ids);
    *s = (EvalStore){.fd = -1};
}

/* ---- Reading. ---- */

static int item_map(EvalItem *item, const json_t *list, Error *err) {
    if (json_array_size(list) != GQA_MAP_CELLS) return 0;
    item->map = malloc(GQA_MAP_CELLS * sizeof *item->map);
    if (!item->map) return error_set(err, "out of memory for the answers");
    for (size_t i = 0; i < GQA_MAP_CELLS; i++)
        item->map[i] = (float)json_number_value(json_array_get(list, i));
    return 0;
}

void eval_item_score(EvalItem *item, const json_t *metadata) {
    const json_t *score = json_object_get(metadata, "score");
    json_int_t length = json_integer_value(json_object_get(metadata, "length"));
    if (!json_is_number(score) || length < 1 || length > INT32_MAX) return;
    item->score = json_number_value(score), item->answer_length = (int)length;
}

/* Reads one line; *good: it answers an item of this run. The first answer of an item counts. */
static int line_take(EvalStore *s, EvalItems *items, const char *line, size_t size, bool *good,
                     Error *err) {
    json_t *object = json_loadb_whole(line, size, 0, NULL);
    const char *id = json_string_value(json_object_get(object, "question_id"));
    const char *text = json_string_value(json_object_get(object, "text"));
    int32_t index = id && text ? text_table_find(&s->ids, id) : -1;
    int status = 0;
    *good = index >= 0;
    if (*good && !items->items[index].answer) {
        EvalItem *item = &items->items[index];
        item->answer = strdup(text);
        if (!item->answer) status = error_set(err, "out of memory for the answers");
        const json_t *metadata = json_object_get(object, "metadata");
        item->dropped = (int)json_integer_value(json_object_get(metadata, "dropped_tokens"));
        eval_item_score(item, metadata);
        if (status == 0) status = item_map(item, json_object_get(metadata, "attention"), err);
    }
    json_decref(object);
    return status;
}

static int bytes_read(const char *path, int fd, char **bytes, size_t *size, Error *err) {
    struct stat info;
    *bytes = NULL, *size = 0;
    if (fstat(fd, &info) != 0) return error_set(err, "%s: %s", path, strerror(errno));
    *bytes = malloc((size_t)info.st_size + 1);
    if (!*bytes) return error_set(err, "out of memory for %s", path);
    while (*size < (size_t)info.st_size) {
        ssize_t n = pread(fd, *bytes + *size, (size_t)info.st_size - *size, (off_t)*size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return error_set(err, "%s: %s", path, strerror(errno));
        if (n == 0) break; /* the file was shortened: its current size counts */
        *size += (size_t)n;
    }
    return 0;
}

/* Reads all complete lines; *used is where they end. What a crash can leave after them (half a
 * line, or bytes that never reached the disk) is not an error. */
static int lines_take(EvalStore *s, EvalItems *items, const char *path, const char *bytes,
                      size_t size, size_t *used, Error *err) {
    *used = 0;
    for (int64_t number = 1;; number++) {
        const char *line = bytes + *used, *end = memchr(line, '\n', size - *used);
        if (!end) return 0;
        bool good;
        TRY(line_take(s, items, line, (size_t)(end - line), &good, err));
        if (!good && end + 1 == bytes + size) return 0;
        if (!good)
            return error_set(err,
                             "%s: line %lld is not an answer to a question of this run: remove the "
                             "line, or name another folder with --out",
                             path, (long long)number);
        *used = (size_t)(end + 1 - bytes);
    }
}

static int answers_read(EvalStore *s, const char *path, void *user, Error *err) {
    bool own = !strcmp(path, s->path);
    int fd = own ? s->fd : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, "%s: %s", path, strerror(errno));
    char *bytes;
    size_t size, used = 0;
    int status = bytes_read(path, fd, &bytes, &size, err);
    if (status == 0) status = lines_take(s, user, path, bytes, size, &used, err);
    free(bytes);
    if (status == 0 && own) {
        s->size = (int64_t)used;
        if (used < size && ftruncate(fd, (off_t)used) != 0)
            status = error_set(err, "%s: the incomplete line at its end cannot be removed: %s",
                               path, strerror(errno));
    }
    if (!own) close(fd);
    return status;
}

int eval_store_load(EvalStore *s, EvalItems *items, Error *err) {
    for (int64_t i = 0; i < items->count; i++) {
        int32_t number;
        bool fresh;
        TRY(text_table_add(&s->ids, items->items[i].id, &number, &fresh, err));
        if (!fresh) return error_set(err, "the id %s occurs twice", items->items[i].id);
    }
    return answers_visit(s, answers_read, items, err);
}

/* ---- Writing. ---- */

static json_t *map_json(const float *map) {
    json_t *list = json_array();
    for (int i = 0; i < GQA_MAP_CELLS && list; i++)
        json_array_append_new(list, json_real(real_shortest(map[i])));
    return list;
}

/* On the heap, with its line end; NULL: out of memory. */
static char *answer_line(const EvalStore *s, const EvalItem *item) {
    json_t *metadata = json_object(), *object = json_object();
    if (item->answer_length) {
        json_object_set_new(metadata, "score", json_real(item->score));
        json_object_set_new(metadata, "length", json_integer(item->answer_length));
    }
    if (item->map) json_object_set_new(metadata, "attention", map_json(item->map));
    if (item->dropped) json_object_set_new(metadata, "dropped_tokens", json_integer(item->dropped));
    int failed = json_object_set_new(object, "question_id", json_text(item->id));
    failed |= json_object_set_new(object, "prompt", json_text(item->text));
    failed |= json_object_set_new(object, "text", json_text(item->answer));
    failed |= json_object_set_new(object, "answer_id", json_text(item->id));
    failed |= json_object_set_new(object, "model_id", json_text(s->model));
    failed |= json_object_set_new(object, "metadata", metadata);
    char *line = failed ? NULL : json_dumps_whole(object, JSON_REAL_PRECISION(JSON_DIGITS));
    json_decref(object);
    return line;
}

static int append_error(const EvalStore *s, int code, Error *err) {
    return error_set(err,
                     "%s: writing failed: %s; the answers so far are kept: %sthe same command "
                     "resumes",
                     s->path, strerror(code),
                     code == ENOSPC || code == EDQUOT ? "make room there, then " : "");
}

int eval_store_append(EvalStore *s, const EvalItems *items, const int64_t *order, int64_t count,
                      Error *err) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = memory_stream_open(&bytes, &size);
    if (!out) return error_set(err, "out of memory for answers");
    int failed = 0;
    for (int64_t i = 0; i < count; i++) {
        const EvalItem *item = &items->items[order[i]];
        char *line = item->answer ? answer_line(s, item) : NULL;
        failed |= item->answer && !line;
        if (line) fprintf(out, "%s\n", line);
        free(line);
    }
    failed |= fclose(out) != 0;
    int status = failed ? error_set(err, "out of memory for answers") : 0;
    for (size_t done = 0; done < size && status == 0;) {
        ssize_t n = pwrite(s->fd, bytes + done, size - done, (off_t)s->size + (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) status = append_error(s, n < 0 ? errno : EIO, err);
        if (n > 0) done += (size_t)n;
    }
    if (status == 0 && fdatasync(s->fd) != 0 && errno != EINVAL)
        status = append_error(s, errno, err);
    if (status == 0)
        s->size += (int64_t)size;
    else if (ftruncate(s->fd, (off_t)s->size) != 0)
        error_context(err, "with an incomplete line at the end");
    free(bytes);
    return status;
}

int eval_store_lines(const EvalStore *s, const char *name, EvalLine line, void *user, int64_t count,
                     Error *err) {
    FileWriter writer;
    char *path = path_join(s->folder, name, err);
    if (!path) return -1;
    file_write_clean(path); /* what a killed run left; we hold the lock */
    int status = file_write_begin(&writer, path, 0, err);
    if (status) {
        free(path);
        return -1;
    }
    for (int64_t i = 0; i < count && status == 0; i++) {
        bool failed = false;
        char *bytes = line(user, i, &failed);
        if (failed) status = error_set(err, "out of memory for %s", name);
        if (bytes && status == 0) {
            size_t size = strlen(bytes);
            bytes[size] = '\n'; /* replaces the terminating 0 */
            status = file_write_bytes(&writer, bytes, size + 1, err);
        }
        free(bytes);
    }
    status = file_write_end(&writer, status, err);
    free(path);
    return status;
}

typedef struct Finish {
    const EvalStore *store;
    const EvalItems *items;
} Finish;

static char *answered_line(void *user, int64_t index, bool *failed) {
    const Finish *f = user;
    const EvalItem *item = &f->items->items[index];
    char *line = item->answer ? answer_line(f->store, item) : NULL;
    *failed = item->answer && !line;
    return line;
}

static char *unanswered_line(void *user, int64_t index, bool *failed) {
    const Finish *f = user;
    const EvalItem *item = &f->items->items[index];
    if (item->answer) return NULL;
    json_t *object = json_pack("{s:o, s:o, s:s, s:o}", "question_id", json_text(item->id), "image",
                               item->image ? json_text(item->image) : json_null(), "reason",
                               item->kind ? item->kind : "not asked", "error",
                               json_text(item->why ? item->why : ""));
    char *line = object ? json_dumps_whole(object, 0) : NULL;
    json_decref(object);
    *failed = !line;
    return line;
}

static int shard_remove(EvalStore *s, const char *path, void *user, Error *err) {
    (void)user;
    if (!strcmp(path, s->path) || unlink(path) == 0 || errno == ENOENT) return 0;
    return error_set(err, "%s: %s", path, strerror(errno));
}

/* The new answers.jsonl is not the locked file: it is locked, too, before other processes see
 * it. */
static int answers_replace(EvalStore *s, Finish *f, Error *err) {
    int lock;
    TRY(eval_folder_enter(&lock, s->folder, err));
    int status = eval_store_lines(s, "answers.jsonl", answered_line, f, f->items->count, err);
    if (status == 0) status = lock_answers(s, err);
    if (status == 0) status = answers_visit(s, shard_remove, NULL, err);
    eval_folder_leave(&lock);
    return status;
}

int eval_store_finish(EvalStore *s, const EvalItems *items, Error *err) {
    Finish f = {s, items};
    TRY(eval_store_lines(s, "unanswered.jsonl", unanswered_line, &f, items->count, err));
    return answers_replace(s, &f, err);
}

int eval_store_json(const EvalStore *s, const char *name, json_t *object, Error *err) {
    if (!object) return error_set(err, "out of memory for %s", name);
    int status = eval_folder_json(s->folder, name, object, err);
    json_decref(object);
    return status;
}
