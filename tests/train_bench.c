#include "tests/train_bench.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <unistd.h>

#include <jansson.h>

/* ---- A small task: numbers in words, from English to German. ---- */

static const char *const english[20] = {"zero",    "one",     "two",       "three",    "four",
                                        "five",    "six",     "seven",     "eight",    "nine",
                                        "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                                        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const english_tens[10] = {"",      "",      "twenty",  "thirty", "forty",
                                             "fifty", "sixty", "seventy", "eighty", "ninety"};
static const char *const german[20] = {"null",     "eins",     "zwei",     "drei",     "vier",
                                       "fünf",     "sechs",    "sieben",   "acht",     "neun",
                                       "zehn",     "elf",      "zwölf",    "dreizehn", "vierzehn",
                                       "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"};
static const char *const german_tens[10] = {"",        "",        "zwanzig", "dreißig", "vierzig",
                                            "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"};

void english_number(char *out, size_t size, int n) {
    char rest[64] = "";
    int below = n % 100;
    if (n >= 100) snprintf(out, size, "%s hundred%s", english[n / 100], below ? " " : "");
    if (n < 100) out[0] = 0;
    if (below < 20)
        snprintf(rest, sizeof rest, "%s", below || n == 0 ? english[below] : "");
    else
        snprintf(rest, sizeof rest, "%s%s%s", english_tens[below / 10], below % 10 ? " " : "",
                 below % 10 ? english[below % 10] : "");
    strncat(out, rest, size - strlen(out) - 1);
}

/* German says the ones before the tens: a model has to look ahead. */
void german_number(char *out, size_t size, int n) {
    char rest[64] = "";
    int below = n % 100, ones = below % 10;
    out[0] = 0;
    if (n >= 100) snprintf(out, size, "%s hundert ", n / 100 == 1 ? "ein" : german[n / 100]);
    if (below < 20)
        snprintf(rest, sizeof rest, "%s", below || n == 0 ? german[below] : "");
    else
        snprintf(rest, sizeof rest, "%s%s%s", ones ? (ones == 1 ? "ein" : german[ones]) : "",
                 ones ? " und " : "", german_tens[below / 10]);
    strncat(out, rest, size - strlen(out) - 1);
}

/* Every `step`-th number from `first` on; or, with `rest`, all but the ones that 3 begins. */
void write_pairs(const char *path, int first, int end, int step, bool rest) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int n = first; n < end; n += rest ? 1 : step) {
        char en[128], de[128];
        if (rest && n % step == 3) continue;
        english_number(en, sizeof en, n), german_number(de, sizeof de, n);
        fprintf(f, "{\"inputs\": \"%s\", \"targets\": \"%s\"}\n", en, de);
    }
    assert_int_equal(fclose(f), 0);
}

/* ---- The bench. ---- */

/* A tiny model that reads and sees, and data of every format. */
void bench_start(Bench *b) {
    Run *r = &b->run;
    run_start(r);
    path_in(b->model, sizeof b->model, r, "model");
    path_in(b->pairs, sizeof b->pairs, r, "pairs.jsonl");
    path_in(b->valid, sizeof b->valid, r, "valid.jsonl");
    write_pairs(b->pairs, 0, 60, 1, false);
    write_pairs(b->valid, 60, 70, 1, false);
    llava_set_make(&b->set, r->folder, 24);
    run(r, "new", b->model, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "32", "--heads",
        "2", "--ffn", "64", "--positions", "130", "--image-size", "28", "--patch", "14",
        "--vision-layers", "2", "--vision-width", "16", "--vision-heads", "2", "--vision-ffn", "32",
        "--projector", "linear", "--seed", "5");
    expect(r, 0, "");
}

void bench_end(Bench *b) {
    run_end(&b->run);
}

char *text_of(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    char *text = file_bytes(path, NULL);
    if (!text) fail_msg("%s is missing", path);
    return text;
}

bool there(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    return access(path, F_OK) == 0;
}

/* The "loss" of each line of metrics.jsonl by step; NaN where a step has none. Returns the highest
 * step. */
int read_losses(const Run *r, const char *name, const char *key, double *losses, int most) {
    char *text = text_of(r, name);
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

/* Starts the program; SIGXFSZ is left as `ignore` says, and files may have `limit` bytes. */
pid_t start(const Run *r, rlim_t limit, bool ignore, char *const *args) {
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

/* Entries of a folder whose names begin with `prefix`. */
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
