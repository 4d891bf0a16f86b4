#include "apps/reproduce/steps.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/cli/json.h"
#include "apps/cli/report.h"
#include "apps/cli/signals.h"
#include "apps/reproduce/run_child.h"
#include "data/files/file_write.h"
#include "data/files/json_read.h"
#include "data/files/path.h"

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static bool is_command(const PlanStep *s, const char *name) {
    return !s->program && !strcmp(s->words[0], name);
}

/* ---- Records. ---- */

static char *record_path(const Plan *p, const PlanStep *s, Error *err) {
    return path_format(err, "%s/steps/%s.json", p->options.out, s->name);
}

static json_t *words_json(const PlanStep *s) {
    json_t *words = json_array();
    if (s->program) json_array_append_new(words, json_text(s->program));
    for (int i = 0; i < s->word_count; i++) json_array_append_new(words, json_text(s->words[i]));
    return words;
}

static int read_record(const Plan *p, const PlanStep *s, StepRecord *record, Error *err) {
    char *path = record_path(p, s, err);
    json_t *json = NULL, *words;
    *record = (StepRecord){0};
    if (!path) return -1;
    int status = exists(path) ? json_read_file(&json, path, 0, 0, 0, err) : 0;
    if (json) {
        words = words_json(s);
        if (!json_equal(json_object_get(json, "command"), words))
            status =
                error_set(err,
                          "%s: the step %s was run with another command (another version of the "
                          "table, or other options): name another --out, or remove %s",
                          p->options.out, s->name, path);
        json_decref(words);
        record->state = STEP_DONE;
        record->status = (int)json_integer_value(json_object_get(json, "status"));
        record->seconds = json_number_value(json_object_get(json, "seconds"));
    }
    json_decref(json);
    free(path);
    return status;
}

int steps_records(const Plan *p, StepRecord **records, Error *err) {
    *records = calloc((size_t)p->step_count + 1, sizeof **records);
    if (!*records) return error_set(err, "out of memory for a table's steps");
    int status = 0;
    for (int i = 0; i < p->step_count && status == 0; i++)
        if (p->steps[i].needed) status = read_record(p, &p->steps[i], &(*records)[i], err);
    if (status == 0) return 0;
    free(*records);
    *records = NULL;
    return -1;
}

static int write_record(const Plan *p, const PlanStep *s, const StepRecord *record, Error *err) {
    char *path = record_path(p, s, err);
    json_t *json = json_pack("{s:o, s:i, s:f}", "command", words_json(s), "status", record->status,
                             "seconds", record->seconds);
    char *line = json_line(json, JSON_DIGITS);
    int status = !path   ? -1
                 : !line ? error_set(err, "out of memory for a step's record")
                         : file_write_all(path, line, strlen(line), err);
    free(line);
    free(path);
    return status;
}

/* ---- Running. ---- */

/* Whether a training run has left something to resume from: a checkpoint, or its model. */
static bool can_resume(const char *path) {
    DIR *folder = opendir(path);
    bool found = false;
    for (const struct dirent *e; folder && (e = readdir(folder));)
        found |= !strncmp(e->d_name, "checkpoint-", 11) || !strcmp(e->d_name, "model");
    if (folder) closedir(folder);
    return found;
}

/* The words that are run, and what they point to. */
typedef struct Line {
    char **words;
    int count;
    glob_t found;
    char threads[16];
} Line;

static void line_free(Line *l) {
    if (l->found.gl_pathv) globfree(&l->found);
    free(l->words);
}

static void add_word(Line *l, const char *word) {
    l->words[l->count++] = (char *)word;
}

/* A word with '*' becomes the files of that name, as the shell has them. Without one it stays, and
 * the command says that it does not exist. */
static int add_files(Line *l, const char *word, int room, Error *err) {
    const size_t before = l->found.gl_pathc;
    if (glob(word, GLOB_NOCHECK | (before ? GLOB_APPEND : 0), NULL, &l->found))
        return error_set(err, "%s: cannot be listed", word);
    char **grown =
        realloc(l->words, ((size_t)(l->count + room) + l->found.gl_pathc) * sizeof *grown);
    if (!grown) return error_set(err, "out of memory for a command");
    l->words = grown;
    for (size_t i = before; i < l->found.gl_pathc; i++) add_word(l, l->found.gl_pathv[i]);
    return 0;
}

/* A training run that has begun is resumed; device and threads are added. */
static int line_make(Line *l, const PlanStep *s, const StepsOptions *o, const char *folder,
                     Error *err) {
    const int room = s->word_count + 12;
    const bool train = is_command(s, "train");
    *l = (Line){.words = calloc((size_t)room, sizeof *l->words)};
    if (!l->words) return error_set(err, "out of memory for a command");
    if (train && can_resume(folder)) {
        add_word(l, "train"), add_word(l, "--resume");
        add_word(l, "--out"), add_word(l, folder);
    } else {
        for (int i = 0; i < s->word_count; i++)
            if (strchr(s->words[i], '*'))
                TRY(add_files(l, s->words[i], room, err));
            else
                add_word(l, s->words[i]);
    }
    if (train || is_command(s, "eval")) {
        snprintf(l->threads, sizeof l->threads, "%d", o->threads);
        if (o->device) add_word(l, "--device"), add_word(l, o->device);
        if (o->threads) add_word(l, "--threads"), add_word(l, l->threads);
        if (o->quiet) add_word(l, "--quiet");
    }
    l->words[l->count] = NULL;
    return 0;
}

/* A model that `new` or `prune` has published is whole, whatever came after. */
static bool is_made(const PlanStep *s, const char *folder) {
    return (is_command(s, "new") || is_command(s, "prune")) && exists(folder);
}

/* Runs the line; *record gets what came of it. */
static int run_line(const Plan *p, const PlanStep *s, const Line *l, bool quiet, const char *folder,
                    StepRecord *record, Error *err) {
    char *output = path_format(err, "%s/steps/%s.out", p->options.out, s->name);
    char *log = output ? path_format(err, "%s/steps/%s.err", p->options.out, s->name) : NULL;
    char *text = log ? command_line_text(s->program, l->words, err) : NULL;
    int status = text ? 0 : -1;
    const double start = clock_seconds();
    if (status == 0 && !quiet) report_print(stderr, "%s: %s\n", s->name, text);
    if (status == 0 && !is_made(s, folder))
        status = run_child(s->program, l->words, output, quiet ? log : NULL, &record->status, err);
    record->seconds = clock_seconds() - start;
    /* An evaluation with questions that could not be answered has a result and status 1. */
    const bool done =
        record->status == 0 || (record->status == 1 && is_command(s, "eval") && exists(s->result));
    record->state = done ? STEP_DONE : STEP_FAILED;
    if (status == 0 && done) status = write_record(p, s, record, err);
    if (status == 0 && !done)
        report_error("reproduce: the step %s ended with status %d%s%s: %s", s->name, record->status,
                     quiet ? ", see " : "", quiet ? log : "", text);
    free(text), free(log), free(output);
    return status;
}

static int run_step(const Plan *p, const PlanStep *s, const StepsOptions *o, StepRecord *record,
                    Error *err) {
    Line line = {0};
    char *folder = path_format(err, "%s/runs/%s", p->options.out, s->name);
    int status = folder ? line_make(&line, s, o, folder, err) : -1;
    if (status == 0) status = run_line(p, s, &line, o->quiet, folder, record, err);
    line_free(&line);
    free(folder);
    return status;
}

static bool is_blocked(const PlanStep *s, const StepRecord *records) {
    for (int i = 0; i < s->after_count; i++)
        if (records[s->after[i]].state != STEP_DONE) return true;
    return false;
}

static int make_folder(const char *path, Error *err) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return 0;
    return error_set(err, "%s: cannot be made: %s", path, strerror(errno));
}

/* With the folders above it. */
static int make_folder_whole(const char *path, Error *err) {
    char *part = strdup(path);
    int status = part ? 0 : error_set(err, "out of memory for a path");
    for (char *slash = part ? strchr(part + 1, '/') : NULL; slash && status == 0;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        status = make_folder(part, err);
        *slash = '/';
    }
    free(part);
    return status ? -1 : make_folder(path, err);
}

static int make_folders(const Plan *p, Error *err) {
    static const char *const names[] = {"runs", "steps"};
    TRY(make_folder_whole(p->options.out, err));
    for (int i = 0; i < 2; i++) {
        char *path = path_join(p->options.out, names[i], err);
        int status = path ? make_folder(path, err) : -1;
        free(path);
        TRY(status);
    }
    return 0;
}

int steps_run(const Plan *p, const StepsOptions *o, StepRecord *records, bool *stopped,
              Error *err) {
    *stopped = false;
    TRY(make_folders(p, err));
    signals_catch_stop();
    for (int i = 0; i < p->step_count; i++) {
        const PlanStep *s = &p->steps[i];
        if (!s->needed || records[i].state == STEP_DONE) continue;
        if (is_blocked(s, records)) {
            records[i].state = STEP_BLOCKED;
            continue;
        }
        TRY(run_step(p, s, o, &records[i], err));
        *stopped = signals_stop_asked() != 0 || records[i].status == 3;
        if (*stopped) return 0;
    }
    return 0;
}
