/* `easyfirst eval` as a person uses it: the whole program answers small sets with the bundled
 * model, is killed, runs out of disk, goes on, is divided into shards, and its files are compared
 * byte for byte with those of a run that nothing happened to. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "data/files/file_hash.h"
#include "tests/program.h"

#define MODEL  "data/bundled/model"
#define IMAGES "data/bundled/images/"

static const char *const good_images[] = {"tractor", "elephant", "sailboat"};
static const char *const nouns[] = {"cat",      "tractor", "boat",   "car",    "dress", "bat",
                                    "lollipop", "house",   "tree",   "apple",  "dog",   "lion",
                                    "elephant", "horse",   "banana", "snowman"};
enum { GOOD = 3, NOUNS = sizeof nouns / sizeof nouns[0], ASKED = GOOD * NOUNS, BAD = 7 };

typedef struct Set {
    Run r;
    char images[400], questions[400], lines[400], base[400]; /* base: a run to compare with */
} Set;

static const char *program(void) {
    const char *name = getenv("EASYFIRST");
    return name && *name ? name : "build/easyfirst";
}

/* ---- The set. ---- */

static json_t *question_make(const char *text, const char *image, const char *answer) {
    return json_pack(
        "{s:s, s:s, s:s, s:b, s:{s:s, s:n}, s:[], s:[], s:{s:s, s:s, s:s}, s:[], s:{}}", "question",
        text, "imageId", image, "answer", answer, "isBalanced", 1, "groups", "global", "things",
        "local", "entailed", "equivalent", "types", "structural", "verify", "semantic", "obj",
        "detailed", "existTrue", "semantic", "annotations");
}

/* Questions that cannot be answered, and what is wrong with each. */
static void add_bad_questions(json_t *all) {
    static char lengthy[4000];
    for (size_t i = 0; i + 6 < sizeof lengthy; i += 5) memcpy(lengthy + i, "word ", 5);
    const char *const bad[BAD][2] = {
        {"Is there a cat?", "nowhere"},
        {"Is there a dog?", "torn"},
        {"Is there a tree?", "empty"},
        {"Is there a car?", "text"},
        {"", "tractor"},
        {lengthy, "tractor"},
        {"Is it there?", "../outside/tractor"},
    };
    for (int i = 0; i < BAD; i++) {
        char id[32];
        snprintf(id, sizeof id, "9%03d", i);
        json_object_set_new(all, id, question_make(bad[i][0], bad[i][1], "no"));
    }
}

/* Images (whole, cut short, empty, no image) and questions whose images take turns. */
static void set_make(Set *s, bool bad) {
    run_start(&s->r);
    setenv("EASYFIRST_MODEL", MODEL, 1);
    path_in(s->images, sizeof s->images, &s->r, "images");
    assert_int_equal(mkdir(s->images, 0700), 0);
    char path[600], from[300];
    for (int i = 0; i < GOOD; i++) {
        snprintf(from, sizeof from, IMAGES "%s.jpg", good_images[i]);
        snprintf(path, sizeof path, "%s/%s.jpg", s->images, good_images[i]);
        char *real = realpath(from, NULL);
        assert_non_null(real);
        assert_int_equal(symlink(real, path), 0);
        free(real);
    }
    size_t size;
    char *bytes = file_bytes(IMAGES "tractor.jpg", &size);
    write_file(&s->r, "images/torn.jpg", bytes, size / 2, path, sizeof path);
    write_file(&s->r, "images/empty.jpg", bytes, 0, path, sizeof path);
    write_file(&s->r, "images/text.jpg", "no image", 10, path, sizeof path);
    free(bytes);
    json_t *all = json_object();
    for (int n = 0; n < NOUNS; n++)
        for (int p = 0; p < GOOD; p++) {
            char id[32], text[100];
            snprintf(id, sizeof id, "%d", 1000 + n * GOOD + p);
            snprintf(text, sizeof text, "Is there %s %s in the picture?",
                     strchr("aeiou", nouns[n][0]) ? "an" : "a", nouns[n]);
            json_object_set_new(all, id, question_make(text, good_images[p], n % 2 ? "no" : "yes"));
            if (bad && n == 3 && p == 1) add_bad_questions(all);
        }
    path_in(s->questions, sizeof s->questions, &s->r, "questions.json");
    assert_int_equal(json_dump_file(all, s->questions, JSON_INDENT(1)), 0);
    json_decref(all);
    path_in(s->base, sizeof s->base, &s->r, "base");
}

static void set_end(Set *s) {
    unsetenv("EASYFIRST_MODEL");
    run_end(&s->r);
}

/* ---- Files. ---- */

static char *file_in(const char *folder, const char *name, size_t *size) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *bytes = file_bytes(path, size);
    if (!bytes) fail_msg("%s is missing", path);
    return bytes;
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    size_t size_a, size_b;
    char *x = file_in(a, name, &size_a), *y = file_in(b, name, &size_b);
    if (size_a != size_b || memcmp(x, y, size_a))
        fail_msg("%s differs in %s and %s (%zu and %zu bytes)", name, a, b, size_a, size_b);
    free(x), free(y);
}

/* Everything that a GQA run leaves, and nothing else. */
static void assert_same_run(const char *a, const char *b) {
    static const char *const names[] = {"answers.jsonl", "predictions.json", "result.json",
                                        "settings.json", "unanswered.jsonl", "scored.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) assert_same_file(a, b, names[i]);
    char path[700];
    snprintf(path, sizeof path, "%s/answers-1-of-3.jsonl", b);
    assert_int_not_equal(access(path, F_OK), 0);
}

static json_t *json_in(const char *folder, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_error_t where;
    json_t *json = json_load_file(path, 0, &where);
    if (!json) fail_msg("%s: %s", path, where.text);
    return json;
}

static int64_t number_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value)) fail_msg("no number \"%s\"", name);
    return json_integer_value(value);
}

static double real_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number \"%s\"", name);
    return json_number_value(value);
}

#define gqa(set, folder, ...)                                                                 \
    run(&(set)->r, "eval", "gqa", "-q", (set)->questions, "--images", (set)->images, "--out", \
        (folder), ##__VA_ARGS__)

/* ---- GQA. ---- */

static void test_gqa(void **state) {
    (void)state;
    Set s;
    set_make(&s, true);
    gqa(&s, s.base);
    assert_int_equal(s.r.status, 1); /* not all could be answered */
    assert_non_null(strstr(s.r.out, "Accuracy"));
    static const char *const kinds[] = {
        "no such image: 1 (9000: nowhere.jpg",   "unreadable image: 2 (the first: 9001: ",
        "empty image file: 1 (9002: empty.jpg",  "empty question: 1 (9004: ",
        "prompt that cannot be read: 1 (9005: ", "question without an image: 1 (9006: "};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strstr(s.r.err, kinds[i])) fail_msg("\"%s\" is not told: %s", kinds[i], s.r.err);

    json_t *result = json_in(s.base, "result.json"),
           *predictions = json_in(s.base, "predictions.json");
    assert_int_equal(number_of(result, "questions"), ASKED + BAD);
    assert_int_equal(number_of(result, "answered"), ASKED);
    assert_int_equal(number_of(result, "unanswered"), BAD);
    json_t *score = json_object_get(result, "score");
    assert_int_equal(number_of(score, "questions"), ASKED + BAD);
    assert_int_equal(number_of(score, "unanswered"), BAD);

    /* The answers are those of `ask`, in the order of the file; all questions are there. */
    assert_int_equal(json_array_size(predictions), ASKED + BAD);
    int right = 0;
    for (int i = 0; i < ASKED + BAD; i++) {
        const json_t *one = json_array_get(predictions, (size_t)i);
        int id = atoi(json_string_value(json_object_get(one, "questionId")));
        const char *text = json_string_value(json_object_get(one, "prediction"));
        int n = i < 3 * GOOD + 2 ? i : i - BAD; /* among the good ones */
        if (id >= 9000) {
            assert_int_equal(id, 9000 + i - (3 * GOOD + 2));
            assert_string_equal(text, "");
            continue;
        }
        assert_int_equal(id, 1000 + n);
        right += !strcmp(text, n / GOOD % 2 ? "no" : "yes");
        if (n % 5) continue;
        char image[300], question[200], want[300];
        snprintf(image, sizeof image, IMAGES "%s.jpg", good_images[n % GOOD]);
        const char *noun = nouns[n / GOOD];
        snprintf(question, sizeof question, "Is there %s %s in the picture?",
                 strchr("aeiou", noun[0]) ? "an" : "a", noun);
        run(&s.r, "ask", "-q", "--sure-threshold", "0", image, question); /* no "not sure" */
        assert_int_equal(s.r.status, 0);
        snprintf(want, sizeof want, "%s\n", text);
        assert_string_equal(s.r.out, want);
    }
    double accuracy = real_of(json_object_get(score, "metrics"), "accuracy");
    assert_true(accuracy > 100.0 * right / (ASKED + BAD) - 1e-6);
    assert_true(accuracy < 100.0 * right / (ASKED + BAD) + 1e-6);

    /* What it was measured with. */
    char hex[FILE_HASH_SIZE], abc[400];
    Error err;
    write_file(&s.r, "abc", "abc", 3, abc, sizeof abc);
    assert_ok(file_hash(hex, abc, &err), &err);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(file_hash(hex, s.questions, &err), &err);
    json_t *settings = json_object_get(result, "settings");
    json_t *file = json_object_get(json_object_get(settings, "data"), "questions");
    assert_string_equal(json_string_value(json_object_get(file, "sha256")), hex);
    assert_ok(file_hash(hex, MODEL "/language/model.safetensors", &err), &err);
    json_t *hashes = json_object_get(json_object_get(settings, "model"), "sha256");
    assert_string_equal(json_string_value(json_object_get(hashes, "language/model.safetensors")),
                        hex);
    json_decref(result), json_decref(predictions);
    set_end(&s);
}

/* The same command gives the same bytes, whatever the batches. */
static void test_batches(void **state) {
    (void)state;
    Set s;
    set_make(&s, true);
    gqa(&s, s.base);
    static const char *const sizes[] = {"1", "97", "100000"};
    for (int i = 0; i < 3; i++) {
        char out[400];
        path_in(out, sizeof out, &s.r, sizes[i]);
        gqa(&s, out, "--batch-tokens", (char *)sizes[i]);
        assert_int_equal(s.r.status, 1);
        assert_same_run(s.base, out);
        gqa(&s, out); /* everything is answered */
        assert_same_run(s.base, out);
    }
    set_end(&s);
}

/* LLaVA's file of the same questions: the instruction stands in the text. */
static void test_llava(void **state) {
    (void)state;
    Set s;
    set_make(&s, false);
    gqa(&s, s.base);
    assert_int_equal(s.r.status, 0);
    json_t *all = json_in(s.r.folder, "questions.json"), *value;
    const char *key;
    char path[400], out[400], *bytes;
    size_t size;
    FILE *f = open_memstream(&bytes, &size);
    json_object_foreach(all, key, value) {
        char text[300], image[100];
        snprintf(text, sizeof text, "%s", json_string_value(json_object_get(value, "question")));
        snprintf(image, sizeof image, "%s.jpg",
                 json_string_value(json_object_get(value, "imageId")));
        json_t *line = json_pack("{s:s, s:s, s:s, s:s}", "question_id", key, "image", image, "text",
                                 text, "category", "default");
        json_dumpf(line, f, 0);
        fputc('\n', f);
        json_decref(line);
    }
    fclose(f);
    write_file(&s.r, "lines.jsonl", bytes, size, path, sizeof path);
    free(bytes);
    path_in(out, sizeof out, &s.r, "llava");
    run(&s.r, "eval", "gqa", "-q", path, "--images", s.images, "--out", out);
    assert_int_equal(s.r.status, 0);
    assert_same_file(s.base, out, "predictions.json");
    json_t *result = json_in(out, "result.json");
    json_t *metrics = json_object_get(json_object_get(result, "score"), "metrics");
    assert_true(json_is_null(json_object_get(metrics, "accuracy"))); /* it has no answers */
    json_decref(result), json_decref(all);
    /* --limit leaves a file of the questions that were asked, and scores these. */
    for (int llava = 0; llava < 2; llava++) {
        path_in(out, sizeof out, &s.r, llava ? "few-lines" : "few");
        run(&s.r, "eval", "gqa", "-q", llava ? path : s.questions, "--images", s.images, "--out",
            out, "--limit", "7");
        assert_int_equal(s.r.status, 0);
        result = json_in(out, "result.json");
        assert_int_equal(number_of(json_object_get(result, "score"), "questions"), 7);
        json_decref(result);
    }
    set_end(&s);
}

/* What balanced questions entail is asked, too, for consistency; where the model looked is noted,
 * for grounding. */
static void test_entailed(void **state) {
    (void)state;
    Set s;
    set_make(&s, false);
    json_t *all = json_in(s.r.folder, "questions.json"), *more = json_object();
    json_t *first = json_object_get(all, "1000");
    json_object_set_new(first, "entailed", json_pack("[s, s, s]", "1000", "2000", "1001"));
    /* Its answer is made the right one: only then what it entails counts. */
    json_object_set_new(first, "answer", json_string("no"));
    json_object_set_new(first, "annotations", json_pack("{s:{s:s}}", "question", "0", "77"));
    char path[400], graphs[400], out[400];
    assert_int_equal(json_dump_file(all, s.questions, 0), 0);
    for (int i = 0; i < 2; i++) {
        json_t *one = question_make("Is there a tractor?", "tractor", "yes");
        json_object_set_new(one, "isBalanced", json_false());
        json_object_set_new(more, i ? "2001" : "2000", one);
    }
    path_in(path, sizeof path, &s.r, "all.json"), path_in(out, sizeof out, &s.r, "out");
    assert_int_equal(json_dump_file(more, path, 0), 0);
    const char *scene = "{\"tractor\": {\"width\": 448, \"height\": 448, \"objects\": {\"77\": "
                        "{\"name\": \"tractor\", \"x\": 0, \"y\": 0, \"w\": 448, \"h\": 448, "
                        "\"attributes\": [], \"relations\": []}}}}";
    write_file(&s.r, "graphs.json", scene, strlen(scene), graphs, sizeof graphs);
    gqa(&s, out, "--all-questions", path, "--attention", "--scene-graphs", graphs);
    assert_int_equal(s.r.status, 0);
    json_t *result = json_in(out, "result.json"), *maps = json_in(out, "attentions.json");
    assert_int_equal(number_of(result, "questions"), ASKED + 1); /* 2001 is entailed by none */
    json_t *metrics = json_object_get(json_object_get(result, "score"), "metrics");
    assert_true(real_of(metrics, "consistency") >= 0 && real_of(metrics, "consistency") <= 100);
    assert_true(real_of(metrics, "grounding") >= 0 && real_of(metrics, "grounding") <= 100.001);
    assert_int_equal(json_array_size(maps), ASKED + 1);
    for (size_t i = 0; i < json_array_size(maps); i++) {
        const json_t *map = json_object_get(json_array_get(maps, i), "attention");
        double sum = 0;
        assert_int_equal(json_array_size(map), 7);
        for (size_t x = 0; x < 7; x++)
            for (size_t y = 0; y < 7; y++)
                sum += json_number_value(json_array_get(json_array_get(map, x), y));
        assert_true(sum > 0.9999 && sum < 1.0001);
    }
    json_decref(result), json_decref(maps), json_decref(all), json_decref(more);
    /* Of what 1000 entails only 2000 is in the file of all questions. */
    path_in(out, sizeof out, &s.r, "one");
    gqa(&s, out, "--all-questions", path, "--limit", "1");
    assert_int_equal(s.r.status, 0);
    result = json_in(out, "result.json");
    assert_int_equal(number_of(result, "questions"), 2);
    json_decref(result);
    set_end(&s);
}

/* ---- Cut off. ---- */

/* Starts the program without waiting. */
static pid_t start(const Set *s, const char *folder) {
    char *argv[] = {(char *)program(),
                    "eval",
                    "gqa",
                    "-q",
                    (char *)s->questions,
                    "--images",
                    (char *)s->images,
                    "--out",
                    (char *)folder,
                    "--batch-tokens",
                    "1",
                    NULL};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    pid_t child;
    assert_int_equal(posix_spawn(&child, argv[0], &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    return child;
}

static int lines_in(const char *folder) {
    char path[700];
    snprintf(path, sizeof path, "%s/answers.jsonl", folder);
    char *bytes = file_bytes(path, NULL);
    int n = bytes ? count_lines(bytes) : -1;
    free(bytes);
    return n;
}

/* Kills a run as soon as it has so many answers; how many it had in the end. */
static int run_killed(const Set *s, const char *folder, int answers) {
    pid_t child = start(s, folder);
    int status = 0;
    while (lines_in(folder) < answers && waitpid(child, &status, WNOHANG) == 0) usleep(500);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return lines_in(folder);
}

static void test_killed(void **state) {
    (void)state;
    Set s;
    set_make(&s, true);
    gqa(&s, s.base);
    char out[400], path[500];
    path_in(out, sizeof out, &s.r, "killed");
    snprintf(path, sizeof path, "%s/answers.jsonl", out);
    int before = 0, cut = 0;
    for (int at = 0; at < ASKED - 6; at += 9) {
        int now = run_killed(&s, out, at);
        assert_true(now >= before && now <= ASKED);
        before = now < 0 ? 0 : now;
        cut += now > 0 && now < ASKED;
        /* A line is torn, or rubbish is where it was to be. */
        int fd = open(path, O_WRONLY | O_APPEND);
        if (fd < 0 || now == ASKED) continue;
        static const char *const tails[] = {"{\"question_id\": \"10", "\n", "{}\n", "\0\0\0\0\n"};
        int t = at / 9 % 4;
        assert_true(write(fd, tails[t], t == 3 ? 5 : strlen(tails[t])) > 0);
        close(fd);
    }
    assert_true(cut > 1); /* else nothing was tested */
    /* What a killed run left goes, what anybody else put there stays. */
    char part[400], mine[2][400];
    write_file(&s.r, "killed/result.json.part-0123456789abcdef", "{", 1, part, sizeof part);
    write_file(&s.r, "killed/my.part-0123456789abcdef", "{", 1, mine[0], sizeof mine[0]);
    write_file(&s.r, "killed/result.json.part-1-0", "{", 1, mine[1], sizeof mine[1]);
    gqa(&s, out);
    assert_int_equal(s.r.status, 1);
    assert_same_run(s.base, out);
    assert_int_not_equal(access(part, F_OK), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(access(mine[i], F_OK), 0);
    /* What another run has written is no answer of ours. */
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "{\"question_id\": \"77\", \"text\": \"\"}\n{}\n", 37), 37);
    close(fd);
    gqa(&s, out);
    assert_message(&s.r, 1, "answers.jsonl", "line 1", "not an answer");
    set_end(&s);
}

/* A disk that is full in the middle of it. */
static void test_full_disk(void **state) {
    (void)state;
    Set s;
    set_make(&s, false);
    gqa(&s, s.base);
    char out[400], *script = "trap '' XFSZ; ulimit -f 5; exec \"$@\"";
    path_in(out, sizeof out, &s.r, "full");
    char *argv[] = {
        "sh",       "-c",     script,  "sh", (char *)program(), "eval", "gqa", "-q", s.questions,
        "--images", s.images, "--out", out,  "--batch-tokens",  "1",    NULL};
    posix_spawn_file_actions_t files;
    char err[400];
    path_in(err, sizeof err, &s.r, "full.err");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, err, O_WRONLY | O_CREAT, 0600);
    pid_t child;
    int status;
    assert_int_equal(posix_spawnp(&child, "sh", &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    assert_int_equal(waitpid(child, &status, 0), child);
    char *message = file_bytes(err, NULL);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 ||
        !strstr(message, "answers.jsonl: writing"))
        fail_msg("status %d: %s", status, message);
    free(message);
    int kept = lines_in(out);
    assert_true(kept > 0 && kept < ASKED);
    gqa(&s, out);
    assert_int_equal(s.r.status, 0);
    assert_same_run(s.base, out);
    set_end(&s);
}

static void test_shards(void **state) {
    (void)state;
    Set s;
    set_make(&s, true);
    gqa(&s, s.base);
    char out[400], path[500];
    path_in(out, sizeof out, &s.r, "shards");
    int answered = 0;
    static char *const shards[] = {"1/3", "3/3"};
    for (int i = 0; i < 2; i++) {
        gqa(&s, out, "--shard", shards[i]);
        expect(&s.r, 1, "");
        snprintf(path, sizeof path, "%s/answers-%c-of-3.jsonl", out, shards[i][0]);
        char *bytes = file_bytes(path, NULL);
        assert_non_null(bytes);
        assert_true(count_lines(bytes) > 0);
        answered += count_lines(bytes);
        free(bytes);
    }
    assert_true(answered < ASKED);
    /* While a shard is being written the whole waits. */
    int fd = open(path, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    gqa(&s, out);
    assert_message(&s.r, 1, "answers-3-of-3.jsonl", "another easyfirst");
    close(fd);
    gqa(&s, out); /* the second shard's questions, too */
    assert_int_equal(s.r.status, 1);
    assert_same_run(s.base, out);
    set_end(&s);
}

/* ---- Refused. ---- */

static void test_refused(void **state) {
    (void)state;
    Set s;
    set_make(&s, false);
    char out[400], other[400];
    path_in(out, sizeof out, &s.r, "out"), path_in(other, sizeof other, &s.r, "other");
    gqa(&s, out, "--steps", "10");
    assert_int_equal(s.r.status, 0);
    gqa(&s, out);
    assert_message(&s.r, 1, out, "\"steps\" was 10, now it is 50", "--out");
    gqa(&s, out, "--steps", "10", "--limit", "3");
    assert_message(&s.r, 1, "\"limit\" was 0, now it is 3");
    gqa(&s, out, "--steps", "10", "--seed", "4");
    assert_message(&s.r, 1, "\"seed\"");
    gqa(&s, out, "--steps", "10", "--attention");
    assert_message(&s.r, 1, "\"attention\"");
    /* Other questions under the same name. */
    char *bytes = file_bytes(s.questions, NULL), path[500];
    *strstr(bytes, "tractor in") = 'T';
    write_file(&s.r, "questions.json", bytes, strlen(bytes), path, sizeof path);
    free(bytes);
    gqa(&s, out, "--steps", "10");
    assert_message(&s.r, 1, "\"sha256\"");
    run(&s.r, "eval", "gqa", s.questions, "--images", s.r.folder, "--out", other);
    assert_message(&s.r, 1, "none of the images exists", "--images");
    static const struct {
        const char *args[10], *word;
    } wrong[] = {
        {{"eval"}, "name what to measure"},
        {{"eval", "gpa"}, "did you mean gqa"},
        {{"eval", "gqa"}, "no file"},
        {{"eval", "gqa", "a", "b"}, "one file"},
        {{"eval", "gqa", "a"}, "--images"},
        {{"eval", "gqa", "a", "--images", "i"}, "--out"},
        {{"eval", "gqa", "a", "--images", "i", "--out", "o", "--shard"}, "--shard needs"},
        {{"eval", "gqa", "a", "--images=i", "--out=o", "--shard=0/3"}, "\"0/3\""},
        {{"eval", "gqa", "a", "--images=i", "--out=o", "--shard=4/3"}, "\"4/3\""},
        {{"eval", "gqa", "a", "--images=i", "--out=o", "--shard=1/3x"}, "\"1/3x\""},
        {{"eval", "text", "a", "--out=o"}, "--task"},
        {{"eval", "text", "a", "--out=o", "--task", "poem"}, "poem"},
        {{"eval", "text", "--out=o", "--task=choice"}, "no file"},
        {{"eval", "text", "a", "--out=o", "--task=number", "--subjects=s"}, "choice"},
        {{"eval", "text", "a", "b", "--out=o", "--task=choice", "--subjects=s"}, "one file"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        run_files(&s.r, "/dev/null", NULL, (char *const *)wrong[i].args);
        assert_message(&s.r, 2, wrong[i].word);
    }
    run(&s.r, "eval", "gqa", s.images, "--images", s.images, "--out", other, "--limit", "3");
    assert_message(&s.r, 1, "--limit", "not a folder");
    run(&s.r, "eval", "gqa", "missing.json", "--images", s.images, "--out", other);
    assert_message(&s.r, 1, "missing.json");
    set_end(&s);
}

/* ---- Text. ---- */

/* Lines of prompts, with the targets that are given. */
static void text_file(const Run *r, const char *name, const char *const *targets, int count,
                      char *path, size_t size) {
    static const char *const sources[] = {"Werkzeug zum Bearbeiten von Bildern",
                                          "Spiel",
                                          "grafische Oberfläche",
                                          "Dokumentation für Entwickler",
                                          "Bibliothek für Schriften",
                                          "Programm für Musik"};
    char *bytes;
    size_t n;
    FILE *f = open_memstream(&bytes, &n);
    for (int i = 0; i < count; i++) {
        char text[300];
        snprintf(text, sizeof text,
                 "Translate the sentences into English.  German: %s English: ", sources[i % 6]);
        json_t *line = json_pack("{s:s, s:s}", "inputs", text, "targets", targets[i]);
        json_dumpf(line, f, 0);
        fputs(i % 2 ? "\n\n" : "\r\n", f); /* empty lines and two line ends do no harm */
        json_decref(line);
    }
    fclose(f);
    write_file(r, name, bytes, n, path, size);
    free(bytes);
}

static json_t *file_row(const json_t *result, size_t index) {
    return json_array_get(json_object_get(json_object_get(result, "score"), "files"), index);
}

static void test_text(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", MODEL, 1);
    char path[400], other[400], out[400], answers[500];
    const char *blank[6] = {"a b c d", "b", "c", "d", "e", "f"};
    text_file(&r, "0shot.one.jsonl", blank, 6, path, sizeof path);
    path_in(out, sizeof out, &r, "first");
    run(&r, "eval", "text", "-q", "--task", "translation", path, "--out", out);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"));
    snprintf(answers, sizeof answers, "%s/0shot.one.answers.txt", out);
    char *text = file_bytes(answers, NULL);
    assert_non_null(text);
    assert_int_equal(count_lines(text), 6);
    /* Four of the answers as targets: exactly these are right, whatever the model says. */
    const char *targets[6];
    char *at = text;
    for (int i = 0; i < 6; i++) {
        targets[i] = i < 4 ? at : "neither this";
        at = strchr(at, '\n');
        *at++ = 0;
    }
    text_file(&r, "0shot.two.jsonl", targets, 6, other, sizeof other);
    path_in(out, sizeof out, &r, "second");
    run(&r, "eval", "text", "-q", "--task", "exact", "--steps", "50", path, other, "--out", out);
    assert_int_equal(r.status, 0);
    json_t *result = json_in(out, "result.json");
    assert_true(real_of(file_row(result, 0), "exact_match") == 0);
    assert_true(real_of(file_row(result, 1), "exact_match") > 66.66);
    assert_true(real_of(file_row(result, 1), "exact_match") < 66.67);
    json_t *mean = json_object_get(json_object_get(result, "score"), "mean");
    assert_true(real_of(mean, "exact_match") > 33.33 && real_of(mean, "exact_match") < 33.34);
    json_decref(result);
    /* All of them: a perfect translation, and a perfect summary. */
    static char *const tasks[] = {"translation", "summary"};
    static const char *const keys[] = {"bleu", "rougeL"};
    for (int i = 0; i < 2; i++) {
        path_in(out, sizeof out, &r, tasks[i]);
        run(&r, "eval", "text", "-q", "--task", tasks[i], other, "--limit", "4", "--out", out);
        assert_int_equal(r.status, 0);
        result = json_in(out, "result.json");
        assert_true(real_of(file_row(result, 0), keys[i]) > 99.999);
        assert_true(real_of(file_row(result, 0), keys[i]) < 100.001);
        json_decref(result);
    }
    free(text);
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

/* Bad lines stay in the denominators; subjects and lengths. */
static void test_text_lines(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", MODEL, 1);
    static const char lines[] = "\xef\xbb\xbf{\"inputs\": \"Q: A?\", \"targets\": \"12\"}\n"
                                "{\"inputs\": \"Q: B?\"}\n"
                                "{\"inputs\": \"\", \"targets\": \"3\"}\n"
                                "[1\n"
                                "\n"
                                "{\"inputs\": \"Q: C?\", \"targets\": \"none\"}\n"
                                "{\"inputs\": \"Q: \\u0000\", \"targets\": \"4\"}\n"
                                "{\"inputs\": \"Q: D?\", \"targets\": \"1,004\"}";
    static const char subjects[] = "[\"x\", \"y\", \"y\", \"y\", \"y\", \"y\", \"x\"]";
    char path[400], list[400], out[400];
    write_file(&r, "lines.jsonl", lines, sizeof lines - 1, path, sizeof path);
    write_file(&r, "subjects.json", subjects, sizeof subjects - 1, list, sizeof list);
    path_in(out, sizeof out, &r, "number");
    run(&r, "eval", "text", "-q", "--task", "number", path, "--out", out);
    assert_int_equal(r.status, 1);
    json_t *result = json_in(out, "result.json");
    assert_int_equal(number_of(result, "questions"), 7);
    assert_int_equal(number_of(result, "unanswered"), 5);
    assert_int_equal(number_of(file_row(result, 0), "lines"), 7);
    json_t *skipped = json_object_get(result, "skipped");
    assert_int_equal(number_of(json_object_get(skipped, "line that is not JSON"), "count"), 2);
    assert_int_equal(number_of(json_object_get(skipped, "empty input"), "count"), 1);
    assert_int_equal(number_of(json_object_get(skipped, "target without a number"), "count"), 1);
    json_decref(result);

    path_in(out, sizeof out, &r, "choice");
    run(&r, "eval", "text", "-q", "--task", "choice", path, "--subjects", list, "--out", out);
    assert_int_equal(r.status, 1);
    result = json_in(out, "result.json");
    json_t *settings = json_object_get(json_object_get(result, "settings"), "answer");
    assert_int_equal(number_of(settings, "steps"), 1);
    json_t *rows = json_object_get(json_object_get(result, "score"), "subjects");
    assert_int_equal(number_of(json_object_get(rows, "x"), "lines"), 2);
    assert_int_equal(number_of(json_object_get(rows, "y"), "lines"), 5);
    json_decref(result);

    write_file(&r, "subjects.json", "[\"x\"]", 5, list, sizeof list);
    path_in(out, sizeof out, &r, "few");
    run(&r, "eval", "text", "-q", "--task", "choice", path, "--subjects", list, "--out", out);
    assert_message(&r, 1, "subjects.json", "7 subjects", "1");
    run(&r, "eval", "text", "-q", "--task", "exact", path, path, "--out", out);
    assert_message(&r, 1, "lines.jsonl", "another file");
    write_file(&r, "none.jsonl", "\n\n", 2, path, sizeof path);
    run(&r, "eval", "text", "-q", "--task", "exact", path, "--out", out);
    assert_message(&r, 1, "none.jsonl", "no lines");
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

/* A model with full attention that knows no lengths: the task's are enough. */
static void test_full_attention(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    const char *targets[6] = {"A", "B", "C", "D", "E", "F"};
    char path[400], out[2][400];
    text_file(&r, "choices.jsonl", targets, 6, path, sizeof path);
    static char *const sizes[] = {"1", "4096"};
    for (int i = 0; i < 2; i++) {
        path_in(out[i], sizeof out[i], &r, sizes[i]);
        run(&r, "eval", "text", "-q", "--language", "tests/golden/models/tiny-base/language",
            "--task", "choice", path, "--batch-tokens", sizes[i], "--out", out[i]);
        assert_int_equal(r.status, 0);
    }
    assert_same_file(out[0], out[1], "answers.jsonl");
    assert_same_file(out[0], out[1], "result.json");
    run(&r, "eval", "text", "-q", "--language", "tests/golden/models/tiny-base/language", "--task",
        "summary", path, "--out", out[0]);
    assert_message(&r, 1, "length");
    run_end(&r);
}

/* The paper's own files, as far as they are there. */
static void test_shared(void **state) {
    (void)state;
    static const struct {
        char *file, *task;
        const char *column;
    } sets[] = {{"mmlu/val.0shot.jsonl", "choice", "accuracy"},
                {"bbh/0shot.snarks.jsonl", "choice", "accuracy"},
                {"mgsm/0shot.de.jsonl", "number", "accuracy"},
                {"tydiqa/0shot.english.jsonl", "exact", "f1"},
                {"iwslt14/valid.deen.jsonl", "translation", "bleu"}};
    Run r;
    char subjects[700] = "", path[700], out[400];
    if (!shared_file("mmlu/index2subject.json")) skip();
    snprintf(subjects, sizeof subjects, "%s", shared_file("mmlu/index2subject.json"));
    run_start(&r);
    setenv("EASYFIRST_MODEL", MODEL, 1);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        const char *file = shared_file(sets[i].file);
        assert_non_null(file);
        snprintf(path, sizeof path, "%s", file);
        path_in(out, sizeof out, &r, sets[i].column);
        snprintf(out + strlen(out), sizeof out - strlen(out), "%zu", i);
        run(&r, "eval", "text", "-q", "--task", sets[i].task, path, "--limit", "6", "--out", out,
            i ? NULL : "--subjects", subjects);
        json_t *result = json_in(out, "result.json");
        assert_int_equal(number_of(result, "questions"), 6);
        double value = real_of(file_row(result, 0), sets[i].column);
        assert_true(value >= 0 && value <= 100);
        json_decref(result);
    }
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gqa),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_llava),
        cmocka_unit_test(test_entailed),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_text_lines),
        cmocka_unit_test(test_full_attention),
        cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
