/* test_faults.c - the program while something fails: the n-th allocation, the n-th change of a file
 * (write, rename, fsync, ...), a disk that is full from there on; or while it is killed before or
 * after the n-th change. tests/faults/preload.c makes it so.
 *
 * After each of them
 *   - the exit status is 0 or 1 (2 where there was no memory to read the command line), or SIGKILL
 *     where that was sent;
 *   - a failure says so on standard error; a success left exactly what a run without faults leaves;
 *   - the inputs are as they were;
 *   - each output is what was there before or what is there at the end, and a run that failed left
 *     nothing that no other run leaves;
 *   - the same command again (train: --resume) ends well, and leaves, byte for byte but for
 * measured times, what an unbroken run leaves, and nothing else.
 *
 * EASYFIRST_FAULTS=N tries N places for each command and kind of fault (default: a few), "all"
 * every change of a file and ALL_ALLOCATIONS allocations. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/faults/snapshot.h"
#include "tests/test.h"

#define TOKENIZER "tests/golden/models/tiny-base/language/sentencepiece.bpe.model"

enum { PATH_SIZE = 400, ARGUMENTS = 40, ALL_ALLOCATIONS = 1000, MOST_COMPLAINTS = 12 };

/* ---- What is tried. ---- */

typedef struct Command {
    const char *name;
    const char *words[ARGUMENTS]; /* in a folder with in/ (what is read) and out/ */
    const char *resume;           /* appended when it is run again after a checkpoint; NULL */
    const char *before;           /* a file in out/ that is there already; NULL */
    bool output;                  /* its standard output is the same at every run */
} Command;

static const Command commands[] = {
    {.name = "train",
     .words = {"train",
               "adapt",
               "-m",
               "in/model",
               "--data",
               "in/pairs.jsonl",
               "--valid",
               "in/pairs.jsonl",
               "--out",
               "out/run",
               "--steps",
               "4",
               "--save-every",
               "2",
               "--valid-every",
               "2",
               "--log-every",
               "1",
               "--keep",
               "1",
               "--batch-tokens",
               "64",
               "--threads",
               "1",
               "--quiet",
               "--seed",
               "3"},
     .resume = "--resume"},
    {.name = "eval text",
     .words = {"eval", "text", "-m", "in/model", "in/pairs.jsonl", "--task", "exact", "--out",
               "out/eval", "-n", "3", "--steps", "3", "--threads", "1", "--quiet"},
     .output = true},
    {.name = "eval gqa",
     .words = {"eval", "gqa", "-m", "in/sees", "in/questions.json", "--images", "in/images",
               "--out", "out/eval", "-n", "2", "--steps", "2", "--threads", "1", "--quiet"},
     .output = true},
    {.name = "new",
     .words = {"new", "out/made", "--tokenizer", "in/tokenizer.model", "--layers", "1", "--width",
               "16", "--heads", "2", "--ffn", "32", "--positions", "66", "--seed", "5"}},
    {.name = "prune",
     .words = {"prune", "-m", "in/model", "--data", "in/pairs.jsonl", "--quiet", "out/pruned"}},
    {.name = "show --html",
     .words = {"show", "--from", "in/trace.json", "--html", "out/page.html"},
     .before = "page.html",
     .output = true},
    {.name = "show --json",
     .words = {"show", "-m", "in/model", "--text", "circle", "-n", "3", "--steps", "3", "--json",
               "out/trace.json", "--threads", "1"},
     .before = "trace.json"},
    {.name = "show --svg",
     .words = {"show", "--from", "in/trace.json", "--svg", "out/figure.svg"},
     .before = "figure.svg",
     .output = true},
    {.name = "score text",
     .words = {"score", "text", "--metric", "bleu,chrf,rouge,exact", "in/answers.txt",
               "in/pairs.jsonl"},
     .output = true},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static const struct Fault {
    const char *kind;
    bool kills;
} faults[] = {{"alloc", false}, {"EIO", false},  {"ENOSPC", false},     {"EINTR", false},
              {"short", false}, {"full", false}, {"kill-before", true}, {"kill-after", true}};
enum { FAULTS = sizeof faults / sizeof faults[0] };

typedef struct Bench {
    char folder[PATH_SIZE]; /* original/, work/, and what is caught */
    char library[PATH_SIZE], log[PATH_SIZE], out[PATH_SIZE], err[PATH_SIZE];
    char program[PATH_SIZE];
    Snapshot inputs;
    long tried, killed, complaints;
} Bench;

/* What an unbroken run of a command leaves. */
typedef struct Unbroken {
    Snapshot out;
    char *said; /* on standard output */
    long allocations, changes;
} Unbroken;

/* ---- Running. ---- */

static char *in_bench(const Bench *b, const char *name) {
    static char path[2 * PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", b->folder, name);
    return path;
}

/* Runs in work/; returns what waitpid gives. `kind` may be NULL: nothing fails. */
static int run_words(const Bench *b, const char *const *words, const char *more, const char *kind,
                     long at) {
    char *argv[ARGUMENTS + 2], fault[64], number[64], log[PATH_SIZE + 16], preload[PATH_SIZE + 16];
    int n = 0;
    argv[n++] = (char *)b->program;
    for (; *words; words++) argv[n++] = (char *)*words;
    if (more) argv[n++] = (char *)more;
    argv[n] = NULL;
    snprintf(fault, sizeof fault, "FAULT_KIND=%s", kind ? kind : "");
    snprintf(number, sizeof number, "FAULT_AT=%ld", kind ? at : 0);
    snprintf(log, sizeof log, "FAULT_LOG=%s", b->log);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", b->library);
    char *environment[] = {fault,
                           number,
                           log,
                           preload,
                           (char *)"OMP_NUM_THREADS=1",
                           (char *)"OMP_WAIT_POLICY=passive",
                           (char *)"CUDA_VISIBLE_DEVICES=",
                           (char *)"LC_ALL=C.UTF-8",
                           (char *)"PATH=/usr/bin:/bin",
                           NULL};
    unlink(b->log);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, b->out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&files, 2, b->err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addchdir_np(&files, in_bench(b, "work"));
    pid_t child;
    int failed = posix_spawn(&child, b->program, &files, NULL, argv, environment), status = 0;
    posix_spawn_file_actions_destroy(&files);
    if (failed) fail_msg("cannot run %s: %s (build it first)", b->program, strerror(failed));
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static char *text_of(const char *path) {
    char *text = file_bytes(path, NULL);
    return text ? text : strdup("");
}

/* A fresh work/ with the inputs, and what was in out/ before. */
static void work_begin(const Bench *b, const Command *c) {
    temporary_remove(in_bench(b, "work"));
    char from[2 * PATH_SIZE];
    snprintf(from, sizeof from, "%s", in_bench(b, "original"));
    folder_copy(from, in_bench(b, "work"));
    if (!c->before) return;
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "work/out/%s", c->before);
    FILE *f = fopen(in_bench(b, path), "w");
    assert_true(f && fputs("what was there before\n", f) >= 0 && fclose(f) == 0);
}

/* ---- What must hold. ---- */

typedef struct Try {
    Bench *bench;
    const Command *command;
    const Unbroken *unbroken;
    const struct Fault *fault;
    long at;
} Try;

static void complain(const Try *t, const char *what, const char *detail) {
    Bench *b = t->bench;
    if (b->complaints++ >= MOST_COMPLAINTS) return;
    char *log = text_of(b->log), *err = text_of(b->err);
    log[strcspn(log, "\n")] = 0;
    size_t length = strlen(err);
    print_message("note: %s, %s at %ld (%s): %s%s%s\n    it said: %s\n", t->command->name,
                  t->fault->kind, t->at, log, what, detail ? ": " : "", detail ? detail : "",
                  err + (length > 600 ? length - 600 : 0));
    free(log), free(err);
}

static void check_inputs(const Try *t) {
    char why[300];
    Snapshot now = snapshot_take(in_bench(t->bench, "work/in"));
    if (!snapshot_same(&now, &t->bench->inputs, why, sizeof why))
        complain(t, "an input was changed", why);
    snapshot_free(&now);
}

/* A file that replaces another is whole under a name of its own for a moment; a kill in between
 * leaves that, and no later run may take it for its own. */
static bool is_part(const char *name) {
    const char *part = strstr(name, ".part-");
    return part && strlen(part) == strlen(".part-0123456789abcdef");
}

/* What could not be removed, and was told. */
static bool is_in_partial(const char *name) {
    return strstr(name, "/partial-") != NULL;
}

/* One that was to be removed at the end, and could not be. */
static bool is_older(const char *name) {
    return strstr(name, "/checkpoint-00000002/") != NULL;
}

/* A folder that was just made, before it has the marker by which a later run knows it. */
static bool is_unmarked(const char *name) {
    const char *partial = strstr(name, ".partial-");
    const char *slash = partial ? strchr(partial, '/') : NULL;
    return slash && slash - partial == (ptrdiff_t)strlen(".partial-01234567") &&
           (!slash[1] || !strcmp(slash + 1, SNAPSHOT_MARKER "-new"));
}

static void drop(Snapshot *s, bool (*what)(const char *name)) {
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++)
        if (!what(s->files[i].name)) s->files[kept++] = s->files[i];
    s->count = kept;
}

static bool is_complete(const Try *t) {
    char why[300];
    Snapshot now = snapshot_take(in_bench(t->bench, "work/out"));
    char *err = text_of(t->bench->err);
    if (t->command->before && t->fault->kills) drop(&now, is_part);
    if (t->fault->kills) drop(&now, is_unmarked);
    if (strstr(err, "cannot be removed")) drop(&now, is_in_partial);
    if (t->command->resume && err[0]) drop(&now, is_older); /* it was told */
    if (!strcmp(t->fault->kind, "alloc")) {
        /* The line of metrics, or the held-out record, that there was no memory for. */
        drop(&now, is_older);
        for (size_t i = 0; i < now.count; i++) {
            const SnapshotFile *end = snapshot_find(&t->unbroken->out, now.files[i].name);
            if (end && strstr(end->name, "metrics.jsonl")) now.files[i].hash = end->hash;
        }
    }
    free(err);
    bool same = snapshot_same(&now, &t->unbroken->out, why, sizeof why);
    if (!same)
        complain(t, "the run ended well, but did not leave what an unbroken one leaves", why);
    snapshot_free(&now);
    return same;
}

/* "run/checkpoint-00000002/x" as "run/checkpoint-00000004/x": which of them there are is a question
 * of time, and a run that stops saves what it has. */
static void last_checkpoint(char *name) {
    char *number = strstr(name, "checkpoint-0000000");
    if (number) number[18] = '4';
}

/* After a failure: nothing that an unbroken run would not leave. */
static void check_leftovers(const Try *t) {
    char *err = text_of(t->bench->err);
    /* Where a C++ library gives up there is no way back to what would clean up: as after a kill. */
    bool given_up = strstr(err, "out of memory in a library") || strstr(err, "a library gave up") ||
                    strstr(err, "libgomp: Out of memory");
    free(err);
    if (given_up) return;
    Snapshot now = snapshot_take(in_bench(t->bench, "work/out"));
    for (size_t i = 0; i < now.count; i++) {
        char name[sizeof now.files[i].name];
        snprintf(name, sizeof name, "%s", now.files[i].name);
        last_checkpoint(name);
        if (!snapshot_find(&t->unbroken->out, name)) {
            complain(t, "a failed run left", now.files[i].name);
            break;
        }
    }
    snapshot_free(&now);
}

/* Files that grow, or whose content is another when there was no memory for one of the items. */
static bool may_differ(const Try *t, const char *name) {
    static const char *const grow[] = {"answers", "metrics.jsonl", "run.json", "loss.svg",
                                       "run/model/"};
    static const char *const items[] = {"predictions.json", "result.json", "unanswered.jsonl"};
    for (size_t i = 0; i < sizeof grow / sizeof grow[0]; i++)
        if (strstr(name, grow[i])) return true;
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
        if (!strcmp(t->fault->kind, "alloc") && strstr(name, items[i])) return true;
    return false;
}

/* Files that appear whole: as they were before, or as they are at the end. */
static void check_whole(const Try *t) {
    Snapshot now = snapshot_take(in_bench(t->bench, "work/out"));
    for (size_t i = 0; i < now.count; i++) {
        const SnapshotFile *file = &now.files[i];
        const SnapshotFile *end = snapshot_find(&t->unbroken->out, file->name);
        if (!end || may_differ(t, file->name) || end->hash == file->hash) continue;
        bool before = t->command->before && !strcmp(file->name, t->command->before) &&
                      file->size == strlen("what was there before\n");
        if (!before) complain(t, "neither the old nor the new content", file->name);
    }
    snapshot_free(&now);
}

static bool has_checkpoint(const Try *t) {
    Snapshot now = snapshot_take(in_bench(t->bench, "work/out/run"));
    bool found = false;
    for (size_t i = 0; i < now.count; i++) {
        const char *name = now.files[i].name;
        found |= !strncmp(name, "checkpoint-0000000", 18) && !strcmp(name + 19, "/");
    }
    snapshot_free(&now);
    return found;
}

/* The same again, without a fault. */
static void check_again(const Try *t) {
    const Command *c = t->command;
    const char *more = c->resume && has_checkpoint(t) ? c->resume : NULL;
    Snapshot out = snapshot_take(in_bench(t->bench, "work/out"));
    /* A folder that is there is whole: it appears by a rename. */
    bool made = !c->resume && !c->output && !c->before &&
                snapshot_find(&out, t->unbroken->out.files[0].name);
    snapshot_free(&out);
    int status = made ? 0 : run_words(t->bench, c->words, more, NULL, 0);
    if (status)
        complain(t, "the same command again fails", more);
    else
        is_complete(t);
}

static void check_status(const Try *t, int status) {
    char detail[64];
    char *err = text_of(t->bench->err), *said = text_of(t->bench->out);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && t->fault->kills;
    if (WIFSIGNALED(status) && !killed) {
        snprintf(detail, sizeof detail, "signal %d", WTERMSIG(status));
        complain(t, "it died", detail);
    } else if (!killed && WEXITSTATUS(status) > 1 + !strcmp(t->fault->kind, "alloc")) {
        snprintf(detail, sizeof detail, "%d", WEXITSTATUS(status));
        complain(t, "exit status", detail);
    } else if (!killed && !strcmp(t->fault->kind, "alloc") && strstr(err, "damaged")) {
        complain(t, "without memory it calls a file damaged", NULL);
    } else if (!killed && WEXITSTATUS(status) == 1 && !err[0])
        complain(t, "it failed without a message", NULL);
    else if (!killed && WEXITSTATUS(status) == 0) {
        if (is_complete(t) && t->command->output && strcmp(said, t->unbroken->said))
            complain(t, "the run ended well, but printed something else", NULL);
    } else if (!killed)
        check_leftovers(t);
    free(err), free(said);
}

static void try_fault(const Try *t) {
    work_begin(t->bench, t->command);
    int status = run_words(t->bench, t->command->words, NULL, t->fault->kind, t->at);
    t->bench->tried++;
    t->bench->killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    long before = t->bench->complaints;
    check_status(t, status);
    check_inputs(t);
    check_whole(t);
    if (t->bench->complaints == before && (!WIFEXITED(status) || WEXITSTATUS(status)))
        check_again(t);
}

/* ---- The bench. ---- */

static void write_text(const Bench *b, const char *name, const char *text) {
    FILE *f = fopen(in_bench(b, name), "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) fail_msg("%s cannot be written", name);
}

static void copy_to(const Bench *b, const char *from, const char *name) {
    size_t size;
    char *bytes = file_bytes(from, &size);
    assert_non_null(bytes);
    FILE *f = fopen(in_bench(b, name), "wb");
    assert_true(f && fwrite(bytes, 1, size, f) == size && fclose(f) == 0);
    free(bytes);
}

static void make_inputs(Bench *b) {
    static const char *const model[] = {
        "new",         "in/model", "--tokenizer", "in/tokenizer.model",
        "--layers",    "1",        "--width",     "16",
        "--heads",     "2",        "--ffn",       "32",
        "--positions", "66",       "--seed",      "5",
        NULL};
    static const char *const trace[] = {
        "show", "-m",      "in/model", "--text", "circle",        "-n",
        "3",    "--steps", "3",        "--json", "in/trace.json", NULL};
    assert_int_equal(mkdir(in_bench(b, "work"), 0700), 0);
    assert_int_equal(mkdir(in_bench(b, "work/in"), 0700), 0);
    assert_int_equal(mkdir(in_bench(b, "work/out"), 0700), 0);
    copy_to(b, TOKENIZER, "work/in/tokenizer.model");
    char pairs[2000] = "";
    for (int i = 0; i < 8; i++)
        snprintf(pairs + strlen(pairs), sizeof pairs - strlen(pairs),
                 "{\"inputs\": \"What colour is circle %d?\", \"targets\": \"red %d\"}\n", i,
                 i % 3);
    write_text(b, "work/in/pairs.jsonl", pairs);
    write_text(b, "work/in/answers.txt", "red 0\nred\n\nred 0\nblue 1\nred 2\nred 0\n1\n");
    folder_copy("tests/golden/models/tiny-base", in_bench(b, "work/in/sees"));
    assert_int_equal(mkdir(in_bench(b, "work/in/images"), 0700), 0);
    copy_to(b, "tests/golden/models/image0.png", "work/in/images/a.png");
    copy_to(b, "tests/golden/models/image1.png", "work/in/images/b.png");
    write_text(b, "work/in/questions.json",
               "{\"1\": {\"question\": \"What colour is the circle?\", \"imageId\": \"a.png\", "
               "\"answer\": \"red\", \"isBalanced\": true},\n \"2\": {\"question\": \"Is it "
               "cloudy?\", \"imageId\": \"b.png\", \"answer\": \"no\", \"isBalanced\": true},\n "
               "\"3\": {\"question\": \"Is the line red?\", \"imageId\": \"a.png\", \"answer\": "
               "\"no\", \"isBalanced\": true}}");
    if (run_words(b, model, NULL, NULL, 0)) {
        char *err = text_of(b->err), *log = text_of(b->log);
        bool none = strstr(log, "no filter") != NULL;
        if (none) print_message("note: this system allows no seccomp filter\n");
        if (!none) print_message("note: %s\n", err);
        free(err), free(log);
        if (none) skip();
        fail_msg("the model cannot be made");
    }
    assert_int_equal(run_words(b, trace, NULL, NULL, 0), 0);
    char to[2 * PATH_SIZE];
    snprintf(to, sizeof to, "%s", in_bench(b, "original"));
    assert_int_equal(rename(in_bench(b, "work"), to), 0);
    b->inputs = snapshot_take(in_bench(b, "original/in"));
}

static void bench_start(Bench *b) {
    *b = (Bench){0};
    const char *program = getenv("EASYFIRST");
    char *whole = realpath(program && *program ? program : "build/easyfirst", NULL),
         self[PATH_SIZE];
    if (!whole) fail_msg("the program is not there: build it first");
    snprintf(b->program, sizeof b->program, "%s", whole);
    free(whole);
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(size > 0);
    self[size] = 0;
    *strrchr(self, '/') = 0;
    snprintf(b->library, sizeof b->library, "%.350s/../libfaults.so", self);
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* fsync costs nothing */
    temporary_folder(b->folder, sizeof b->folder);
    snprintf(b->log, sizeof b->log, "%.350s/log", b->folder);
    snprintf(b->out, sizeof b->out, "%.350s/stdout", b->folder);
    snprintf(b->err, sizeof b->err, "%.350s/stderr", b->folder);
    make_inputs(b);
}

static void bench_end(Bench *b) {
    snapshot_free(&b->inputs);
    temporary_remove(b->folder);
}

static Unbroken run_unbroken(const Bench *b, const Command *c) {
    Unbroken u = {0};
    work_begin(b, c);
    int status = run_words(b, c->words, NULL, NULL, 0);
    if (status) fail_msg("%s fails without a fault: %s", c->name, text_of(b->err));
    u.out = snapshot_take(in_bench(b, "work/out"));
    u.said = text_of(b->out);
    char *log = text_of(b->log);
    const char *allocations = strstr(log, "alloc "), *changes = strstr(log, "file ");
    if (!allocations || !changes) fail_msg("%s: nothing was counted", c->name);
    u.allocations = atol(allocations + 6), u.changes = atol(changes + 5);
    free(log);
    return u;
}

/* Places for one command and kind of fault. */
static long samples(long places, bool allocations) {
    const char *wanted = getenv("EASYFIRST_FAULTS");
    bool all = wanted && !strcmp(wanted, "all");
    long count = all ? (allocations ? ALL_ALLOCATIONS : places) : wanted ? atol(wanted) : 2;
    if (count < 1) count = 1;
    return count < places ? count : places;
}

static void try_command(Bench *b, const Command *c) {
    Unbroken u = run_unbroken(b, c);
    for (int f = 0; f < FAULTS; f++) {
        bool allocations = !strcmp(faults[f].kind, "alloc");
        long places = allocations ? u.allocations : u.changes, count = samples(places, allocations);
        for (long i = 0; i < count; i++) {
            /* Evenly, and for each kind elsewhere. */
            long at = 1 + (long)(((double)i + (2 * f + 1) / (2.0 * FAULTS)) * (double)places /
                                 (double)count);
            try_fault(&(Try){b, c, &u, &faults[f], at > places ? places : at});
        }
    }
    snapshot_free(&u.out);
    free(u.said);
}

/* A sanitizer's allocator must be the first library, and the filter's handler knows
 * one processor. */
#if defined(__SANITIZE_ADDRESS__) || !defined(__x86_64__)
enum { CAN_FAIL = false };
#else
enum { CAN_FAIL = true };
#endif

static void test_command(void **state) {
    if (!CAN_FAIL) skip();
    const Command *c = *state;
    Bench b;
    bench_start(&b);
    try_command(&b, c);
    print_message("note: %s: %ld faults, %ld of them kills\n", c->name, b.tried, b.killed);
    bench_end(&b);
    if (b.complaints) fail_msg("%s: %ld complaints", c->name, b.complaints);
}

int main(void) {
    struct CMUnitTest tests[COMMANDS];
    const char *only = getenv("EASYFIRST_FAULTS_COMMAND");
    size_t count = 0;
    for (int i = 0; i < COMMANDS; i++)
        if (!only || strstr(commands[i].name, only))
            tests[count++] = (struct CMUnitTest){.name = commands[i].name,
                                                 .test_func = test_command,
                                                 .initial_state = (void *)(uintptr_t)&commands[i]};
    return _cmocka_run_group_tests("faults", tests, count, NULL, NULL);
}
