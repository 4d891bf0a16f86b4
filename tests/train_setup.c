#include "tests/train_setup.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/reproduce/number_words.h"

/* ---- A small task: numbers in words, from English to German. ---- */

void write_pairs(const char *path, int first, int end, int step, bool rest) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int n = first; n < end; n += rest ? 1 : step) {
        char en[NUMBER_WORDS_SIZE], de[NUMBER_WORDS_SIZE];
        if (rest && n % step == 3) continue;
        number_english(en, n), number_german(de, n);
        fprintf(f, "{\"inputs\": \"%s\", \"targets\": \"%s\"}\n", en, de);
    }
    assert_int_equal(fclose(f), 0);
}

/* ---- The setup. ---- */

void train_setup(TrainSetup *t) {
    Run *r = &t->run;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* fsync costs nothing */
    run_start(r);
    path_in(t->model, sizeof t->model, r, "model");
    path_in(t->pairs, sizeof t->pairs, r, "pairs.jsonl");
    path_in(t->valid, sizeof t->valid, r, "valid.jsonl");
    path_in(t->whole, sizeof t->whole, r, "whole");
    path_in(t->out, sizeof t->out, r, "out");
    write_pairs(t->pairs, 0, 60, 1, false);
    write_pairs(t->valid, 60, 70, 1, false);
    llava_set_make(&t->set, r->folder, 24);
    run_ok(r, "new", t->model, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "32",
           "--heads", "2", "--ffn", "64", "--positions", "130", "--image-size", "28", "--patch",
           "14", "--vision-layers", "2", "--vision-width", "16", "--vision-heads", "2",
           "--vision-ffn", "32", "--projector", "linear", "--seed", "5");
}

void train_setup_end(TrainSetup *t) {
    run_end(&t->run);
}

/* ---- Files. ---- */

void write_bytes(const char *path, const char *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

void write_text_in(const Run *r, const char *name, const char *text, char *path) {
    char other[600];
    write_file(r, name, text, strlen(text), path ? path : other, path ? 300 : sizeof other);
}

char *read_text(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    char *text = file_bytes(path, NULL);
    if (!text) fail_msg("%s is missing", path);
    return text;
}

json_t *read_json(const Run *r, const char *name) {
    char *text = read_text(r, name);
    json_t *json = json_loads(text, 0, NULL);
    if (!json) fail_msg("%s: not JSON: %s", name, text);
    free(text);
    return json;
}

bool has_file(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    return access(path, F_OK) == 0;
}

int count_entries(const char *folder, const char *prefix) {
    int n = 0;
    DIR *dir = opendir(folder);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        n += !strncmp(e->d_name, prefix, strlen(prefix));
    if (dir) closedir(dir);
    return n;
}

int lines_in(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    char *text = file_bytes(path, NULL);
    int n = text ? count_lines(text) : 0;
    free(text);
    return n;
}

void shell(const char *format, ...) {
    char line[1500];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    assert_in_range(n, 1, sizeof line - 1);
    if (system(line)) fail_msg("failed: %s", line);
}

/* ---- What a run leaves. ---- */

int read_losses(const Run *r, const char *name, const char *key, double *losses, int most) {
    char *text = read_text(r, name);
    int last = 0;
    for (int i = 0; i < most; i++) losses[i] = NAN;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *json = json_loads(line, 0, NULL);
        if (!json) fail_msg("%s: not JSON: %s", name, line);
        int step = (int)json_integer_value(json_object_get(json, "step"));
        json_t *loss = json_object_get(json, key);
        if (loss && step < most) losses[step] = json_number_value(loss), last = step;
        json_decref(json);
    }
    free(text);
    return last;
}

void assert_same_file(const Run *r, const char *a, const char *b) {
    char path[2][512];
    size_t size[2];
    char *bytes[2];
    path_in(path[0], sizeof path[0], r, a), path_in(path[1], sizeof path[1], r, b);
    for (int i = 0; i < 2; i++)
        if (!(bytes[i] = file_bytes(path[i], &size[i]))) fail_msg("%s is missing", path[i]);
    if (size[0] != size[1] || memcmp(bytes[0], bytes[1], size[0]))
        fail_msg("%s and %s differ", a, b);
    free(bytes[0]), free(bytes[1]);
}

void assert_same_run(const Run *r, const char *a, const char *b, int steps) {
    char name[300];
    double x[100], y[100];
    static const char *const keys[] = {"loss", "norm", "valid_loss"};
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "%s/metrics.jsonl", a);
        read_losses(r, name, keys[k], x, 100);
        snprintf(name, sizeof name, "%s/metrics.jsonl", b);
        read_losses(r, name, keys[k], y, 100);
        for (int i = 1; i <= steps; i++)
            if (!(x[i] == y[i] || (isnan(x[i]) && isnan(y[i]))))
                fail_msg("%s of step %d: %.17g in %s, %.17g in %s", keys[k], i, x[i], a, y[i], b);
        if (k == 0 && isnan(x[steps])) fail_msg("%s has no step %d", a, steps);
    }
    char other[300];
    static const char *const files[] = {"language/model.safetensors", "easyfirst.json"};
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s/model/%s", a, files[i]);
        snprintf(other, sizeof other, "%s/model/%s", b, files[i]);
        assert_same_file(r, name, other);
    }
}

/* ---- Processes. ---- */

pid_t start_program(const Run *r, rlim_t limit, bool ignore, char *const *args) {
    char *argv[64];
    const char *program = getenv("EASYFIRST");
    int n = 0;
    argv[n++] = (char *)(program && *program ? program : "build/easyfirst");
    for (; *args; args++) argv[n++] = *args;
    argv[n] = NULL;
    char err[512];
    path_in(err, sizeof err, r, "stderr");
    pid_t child = fork();
    if (child != 0) return child;
    struct rlimit files = {limit, limit}, core = {0, 0};
    signal(SIGXFSZ, ignore ? SIG_IGN : SIG_DFL);
    setrlimit(RLIMIT_CORE, &core);
    if (!freopen(err, "w", stderr) || setrlimit(RLIMIT_FSIZE, &files)) _exit(99);
    execv(argv[0], argv);
    _exit(99);
}

void wait_for_lines(const Run *r, pid_t child, const char *name, int lines) {
    int status;
    for (int tries = 0; tries < 8000 && lines_in(r, name) < lines; tries++) {
        if (waitpid(child, &status, WNOHANG) == child) fail_msg("ended by itself: %d", status);
        usleep(500);
    }
}

int end_program(pid_t child, int signal) {
    int status;
    kill(child, signal);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

int capture_begin(const char *path) {
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    return saved;
}

char *capture_end(int saved, const char *path) {
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    return file_bytes(path, NULL);
}
