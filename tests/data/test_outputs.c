/* Files that the program writes (data/files/file_write.h): what is replaced, what is written
 * through, and what is refused before the work begins. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/files/file_write.h"
#include "data/files/path.h"
#include "tests/program.h"

#define IMAGE "tests/golden/models/image0.png"

typedef struct Place {
    char folder[256];
    Error err;
} Place;

static void place_start(Place *p) {
    temporary_folder(p->folder, sizeof p->folder);
}

/* The path of a file in the folder; one of a few static buffers. */
static const char *in(const Place *p, const char *name) {
    static char paths[6][600];
    static int next;
    char *path = paths[next++ % 6];
    snprintf(path, sizeof paths[0], "%s/%s", p->folder, name);
    return path;
}

static int put(Place *p, const char *path, const char *text) {
    p->err.text[0] = 0;
    return file_write_all(path, text, strlen(text), &p->err);
}

static void has(const char *path, const char *text) {
    char *bytes = file_bytes(path, NULL);
    if (!bytes) fail_msg("%s is not there", path);
    assert_string_equal(bytes, text);
    free(bytes);
}

static int entries(const char *folder) {
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir)) n++;
    closedir(dir);
    return n - 2; /* . and .. */
}

static struct stat look(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) fail_msg("%s is not there", path);
    return info;
}

/* ---- Regular files. ---- */

static void regular_files_are_replaced(void **state) {
    (void)state;
    Place p;
    place_start(&p);
    const char *path = in(&p, "a.txt");
    assert_ok(put(&p, path, "one"), &p.err);
    struct stat first = look(path);
    mode_t mask = umask(022);
    umask(mask);
    assert_int_equal(first.st_mode & 0777, 0666 & ~mask);
    assert_int_equal(chmod(path, 0604), 0);
    assert_ok(put(&p, path, "two"), &p.err);
    has(path, "two");
    struct stat second = look(path);
    assert_int_not_equal(first.st_ino, second.st_ino); /* a reader of the old one keeps it whole */
    assert_int_equal(second.st_mode & 0777, 0604);
    FileWriter w;
    assert_ok(file_write_begin(&w, path, 3, &p.err), &p.err);
    assert_ok(file_write_bytes(&w, "thr", 3, &p.err), &p.err);
    has(path, "two");
    assert_int_equal(file_write_end(&w, -1, &p.err), -1);
    has(path, "two");
    assert_int_equal(entries(p.folder), 1);
    temporary_remove(p.folder);
}

/* A name that leaves no room for the temporary one's end. */
static void long_names(void **state) {
    (void)state;
    Place p;
    char name[256];
    place_start(&p);
    memset(name, 'n', 255), name[255] = 0;
    const char *path = in(&p, name);
    assert_ok(put(&p, path, "one"), &p.err);
    assert_ok(put(&p, path, "two"), &p.err);
    has(path, "two");
    assert_int_equal(entries(p.folder), 1);
    temporary_remove(p.folder);
}

/* ---- Links. ---- */

static void links_are_followed(void **state) {
    (void)state;
    Place p;
    place_start(&p);
    assert_int_equal(mkdir(in(&p, "d"), 0777), 0);
    assert_ok(put(&p, in(&p, "d/target"), "old"), &p.err);
    assert_int_equal(symlink("d/target", in(&p, "link")), 0);
    assert_int_equal(symlink("link", in(&p, "link2")), 0);
    assert_int_equal(symlink("d/later", in(&p, "dangling")), 0);
    assert_int_equal(symlink("no/later", in(&p, "nowhere")), 0);
    assert_int_equal(symlink("loop2", in(&p, "loop1")), 0);
    assert_int_equal(symlink("loop1", in(&p, "loop2")), 0);
    assert_int_equal(symlink(p.folder, in(&p, "absolute")), 0);
    assert_ok(put(&p, in(&p, "link2"), "new"), &p.err);
    has(in(&p, "d/target"), "new");
    assert_ok(put(&p, in(&p, "dangling"), "made"), &p.err);
    has(in(&p, "d/later"), "made");
    assert_ok(put(&p, in(&p, "absolute/link"), "newer"), &p.err);
    has(in(&p, "d/target"), "newer");
    assert_refused(put(&p, in(&p, "loop1"), "x"), &p.err, "loop1", "symbolic links");
    assert_refused(put(&p, in(&p, "nowhere"), "x"), &p.err, "nowhere", "No such file");
    assert_refused(file_write_check(in(&p, "nowhere"), &p.err), &p.err, "nowhere", "no");
    const char *const links[] = {"link", "link2", "dangling", "nowhere", "loop1", "loop2"};
    for (int i = 0; i < 6; i++) assert_true(S_ISLNK(look(in(&p, links[i])).st_mode));
    assert_int_equal(entries(in(&p, "d")), 2);
    temporary_remove(p.folder);
}

/* ---- Not regular files. ---- */

static void devices_and_fifos_are_written_through(void **state) {
    (void)state;
    Place p;
    char text[16] = "";
    place_start(&p);
    struct stat before = look("/dev/null");
    assert_ok(put(&p, "/dev/null", "gone"), &p.err);
    assert_int_equal(symlink("/dev/null", in(&p, "null")), 0);
    assert_ok(put(&p, in(&p, "null"), "gone"), &p.err);
    struct stat after = look("/dev/null");
    assert_true(S_ISCHR(after.st_mode) && before.st_ino == after.st_ino);
    assert_true(S_ISLNK(look(in(&p, "null")).st_mode));
    assert_refused(put(&p, "/dev/full", "x"), &p.err, "/dev/full", "No space");

    const char *fifo = in(&p, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_ok(file_write_check(fifo, &p.err), &p.err); /* does not wait */
    int fd = open(fifo, O_RDONLY | O_NONBLOCK);
    assert_ok(put(&p, fifo, "through"), &p.err);
    assert_int_equal(read(fd, text, sizeof text), 7);
    assert_string_equal(text, "through");
    close(fd);
    assert_true(S_ISFIFO(look(fifo).st_mode));

    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%.90s/s", p.folder);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_refused(put(&p, name.sun_path, "x"), &p.err, name.sun_path, "cannot be written");
    assert_true(S_ISSOCK(look(name.sun_path).st_mode));
    close(fd);

    assert_int_equal(mkdir(in(&p, "d"), 0777), 0);
    assert_refused(put(&p, in(&p, "d"), "x"), &p.err, "directory");
    assert_refused(put(&p, in(&p, "new/"), "x"), &p.err, "new/");
    assert_refused(put(&p, "", "x"), &p.err, "No such file");
    assert_int_equal(entries(p.folder), 4);
    temporary_remove(p.folder);
}

/* /dev/fd/N is the open file, at its place, not the name that it once had. */
static void descriptors_are_written_through(void **state) {
    (void)state;
    Place p;
    char path[64];
    place_start(&p);
    assert_ok(put(&p, in(&p, "log"), "kept,"), &p.err);
    int fd = open(in(&p, "log"), O_WRONLY | O_APPEND);
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    assert_ok(file_write_check(path, &p.err), &p.err);
    assert_ok(put(&p, path, "more,"), &p.err);
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getpid(), fd);
    assert_ok(put(&p, path, "most"), &p.err);
    close(fd);
    has(in(&p, "log"), "kept,more,most");
    assert_refused(put(&p, path, "x"), &p.err, path);
    temporary_remove(p.folder);
}

/* ---- Permissions, for a user they apply to (root becomes "nobody"). ---- */

/* 0 if all is as it should be, else the number of what is not. */
static int protected_child(Place *p) {
    const char *file = in(p, "protected"), *closed = in(p, "closed/new"), *mine = in(p, "open/new");
    if (geteuid() == 0 && (setgid(65534) || setuid(65534))) return 1;
    if (put(p, file, "x") == 0 || !strstr(p->err.text, "Permission denied")) return 2;
    if (file_write_check(file, &p->err) == 0 || !strstr(p->err.text, "Permission")) return 3;
    if (put(p, closed, "x") == 0 || !strstr(p->err.text, "Permission denied")) return 4;
    if (file_write_check(closed, &p->err) == 0 || !strstr(p->err.text, "its folder")) return 5;
    if (file_write_check(mine, &p->err) || put(p, mine, "x")) return 6;
    return 0;
}

static void protected_files_stay(void **state) {
    (void)state;
    Place p;
    int status;
    place_start(&p);
    assert_ok(put(&p, in(&p, "protected"), "mine"), &p.err);
    assert_int_equal(chmod(in(&p, "protected"), 0444), 0);
    assert_int_equal(mkdir(in(&p, "closed"), 0555), 0);
    assert_int_equal(mkdir(in(&p, "open"), 0700) || chmod(in(&p, "open"), 0777), 0);
    assert_int_equal(chmod(p.folder, 0755), 0);
    pid_t child = fork();
    if (child == 0) _exit(protected_child(&p));
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    has(in(&p, "protected"), "mine");
    assert_int_equal(chmod(in(&p, "closed"), 0755), 0);
    temporary_remove(p.folder);
}

/* ---- Leftovers. ---- */

static void only_leftovers_are_removed(void **state) {
    (void)state;
    static const char *const stay[] = {"a.txt",
                                       "a.txt.part-0123456789abcde",
                                       "a.txt.part-0123456789abcdef0",
                                       "a.txt.part-1-0",
                                       "a.txt.part-0123456789ABCDEF",
                                       "b.txt.part-0123456789abcdef",
                                       "a.txt.part-",
                                       "notes.part-two",
                                       "xa.txt.part-0123456789abcdef"};
    static const char *const go[] = {"a.txt.part-0123456789abcdef", "a.txt.part-ffffffffffffffff"};
    Place p;
    place_start(&p);
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        assert_ok(put(&p, in(&p, stay[i]), "mine"), &p.err);
    for (int i = 0; i < 2; i++) assert_ok(put(&p, in(&p, go[i]), "left"), &p.err);
    assert_int_equal(mkdir(in(&p, "a.txt.part-0000000000000000"), 0777), 0);
    assert_int_equal(symlink("a.txt", in(&p, "a.txt.part-1111111111111111")), 0);
    assert_int_equal(file_write_clean(in(&p, "a.txt")), 2);
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++) has(in(&p, stay[i]), "mine");
    for (int i = 0; i < 2; i++) assert_int_equal(access(in(&p, go[i]), F_OK), -1);
    look(in(&p, "a.txt.part-0000000000000000"));
    look(in(&p, "a.txt.part-1111111111111111"));
    assert_int_equal(file_write_clean(in(&p, "a.txt")), 0);
    assert_int_equal(file_write_clean(in(&p, "no/a.txt")), -1);
    temporary_remove(p.folder);
}

/* A writer that is killed at its work leaves nothing, or what file_write_clean knows. */
static void killed_writers(void **state) {
    (void)state;
    Place p;
    place_start(&p);
    const char *path = in(&p, "a.txt");
    assert_ok(put(&p, path, "old"), &p.err);
    pid_t child = fork();
    if (child == 0) {
        FileWriter w;
        file_write_begin(&w, path, 1000, NULL);
        file_write_bytes(&w, "half", 4, NULL);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    has(path, "old");
    int left = entries(p.folder) - 1;
    assert_int_equal(file_write_clean(path), left);
    assert_int_equal(entries(p.folder), 1);
    temporary_remove(p.folder);
}

/* ---- Outputs and inputs. ---- */

static void the_same_file(void **state) {
    (void)state;
    Place p;
    place_start(&p);
    assert_ok(put(&p, in(&p, "a"), "x"), &p.err);
    assert_ok(put(&p, in(&p, "b"), "x"), &p.err);
    assert_int_equal(link(in(&p, "a"), in(&p, "hard")), 0);
    assert_int_equal(symlink("a", in(&p, "soft")), 0);
    assert_int_equal(symlink("new", in(&p, "dangling")), 0);
    assert_int_equal(symlink(".", in(&p, "here")), 0);
    assert_true(file_same(in(&p, "a"), in(&p, "a")));
    assert_true(file_same(in(&p, "a"), in(&p, "hard")));
    assert_true(file_same(in(&p, "soft"), in(&p, "here/a")));
    assert_false(file_same(in(&p, "a"), in(&p, "b")));
    assert_false(file_same(in(&p, "a"), in(&p, "new")));
    assert_true(file_same(in(&p, "here/new"), in(&p, "dangling")));
    assert_false(file_same(in(&p, "new"), in(&p, "new2")));
    assert_false(file_same("/dev/null", "/dev/null"));
    temporary_remove(p.folder);
}

static void roles(void **state) {
    (void)state;
    Place p;
    place_start(&p);
    assert_int_equal(mkdir(in(&p, "model"), 0777), 0);
    assert_ok(put(&p, in(&p, "a.jpg"), "x"), &p.err);
    assert_ok(put(&p, in(&p, "model/config.json"), "x"), &p.err);
    assert_ok(put(&p, in(&p, "model/page.html"), "x"), &p.err);
    static const char *const settings[] = {"easyfirst.json", "added_tokens.json", "segment.json"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "model/%s", settings[i]);
        assert_ok(put(&p, in(&p, name), "x"), &p.err);
    }
    char image[600], model[600], config[600], page[600], fresh[600];
    snprintf(image, sizeof image, "%s", in(&p, "a.jpg"));
    snprintf(model, sizeof model, "%s", in(&p, "model"));
    snprintf(config, sizeof config, "%s", in(&p, "model/config.json"));
    snprintf(page, sizeof page, "%s", in(&p, "model/page.html"));
    snprintf(fresh, sizeof fresh, "%s", in(&p, "fresh"));
    const FileRole inputs[] = {{"IMAGE", image}, {"--model", model}, {"--from", NULL}};
#define CHECK(a, b) \
    file_roles_check((const FileRole[]){{"--html", (a)}, {"--svg", (b)}}, 2, inputs, 3, &p.err)
    assert_ok(CHECK(NULL, NULL), &p.err);
    assert_ok(CHECK(page, fresh), &p.err);
    assert_ok(CHECK("-", fresh), &p.err);
    assert_ok(CHECK("/dev/null", "/dev/null"), &p.err);
    assert_refused(CHECK(image, NULL), &p.err, "a.jpg", "--html", "IMAGE");
    assert_refused(CHECK(NULL, config), &p.err, "config.json", "--svg", "--model");
    for (int i = 0; i < 3; i++) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", model, settings[i]);
        assert_refused(CHECK(path, NULL), &p.err, settings[i], "--html", "--model");
    }
    assert_refused(CHECK(fresh, fresh), &p.err, "--html", "--svg");
    assert_refused(CHECK(model, NULL), &p.err, "model", "folder");
    const FileRole whole = {"--from", model, true}, output = {"--json", page};
    assert_refused(file_roles_check(&output, 1, &whole, 1, &p.err), &p.err, "page.html", "--from");
    assert_refused(CHECK(in(&p, "no/page"), NULL), &p.err, "no/page", "No such file");
    assert_refused(CHECK(in(&p, "a.jpg/page"), NULL), &p.err, "a.jpg/page", "cannot be written");
#undef CHECK
    temporary_remove(p.folder);
}

/* The program finds its bundled model by itself only where it was built. */
static void start(Run *r) {
    run_start(r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
}

/* ---- The program. ---- */

static void copy(const Run *r, const char *from, const char *name, char *path, size_t path_size) {
    size_t size;
    char *bytes = file_bytes(from, &size);
    assert_non_null(bytes);
    write_file(r, name, bytes, size, path, path_size);
    free(bytes);
}

static void same_bytes(const char *a, const char *b) {
    size_t size_a, size_b;
    char *of_a = file_bytes(a, &size_a), *of_b = file_bytes(b, &size_b);
    assert_true(of_a && of_b && size_a == size_b && !memcmp(of_a, of_b, size_a));
    free(of_a);
    free(of_b);
}

static void show_refuses_its_inputs(void **state) {
    (void)state;
    Run r;
    char image[400], json[400], page[400];
    start(&r);
    copy(&r, IMAGE, "mine.png", image, sizeof image);
    path_in(json, sizeof json, &r, "t.json");
    path_in(page, sizeof page, &r, "page.html");
    run(&r, "show", "--html", image, image, "What is it?");
    assert_message(&r, 1, image, "--html", "IMAGE");
    same_bytes(image, IMAGE);
    run(&r, "show", "--steps", "2", "--length", "3", "--json", json, image, "What is it?");
    assert_int_equal(r.status, 0);
    run(&r, "show", "--json", json, "--from", json);
    assert_message(&r, 1, json, "--json", "--from");
    run(&r, "show", "--svg", page, "--html", page, "--from", json);
    assert_message(&r, 1, page, "--html", "--svg");
    assert_int_equal(access(page, F_OK), -1);
    run(&r, "show", "--html", page, "--from", json, "--image", page);
    assert_int_equal(r.status, 1);
    char lost[500];
    snprintf(lost, sizeof lost, "%s/no/page.html", r.folder);
    run(&r, "show", "-m", "/no/such/model", "--html", lost, image, "What is it?");
    assert_message(&r, 1, lost, "cannot be written"); /* before the model is opened */
    run_end(&r);
}

/* The trace of a program's run is the same wherever it goes. */
static void show_writes_through(void **state) {
    (void)state;
    Run r;
    char json[400], link_path[400], fifo[400];
    start(&r);
    path_in(json, sizeof json, &r, "t.json");
    path_in(link_path, sizeof link_path, &r, "link.svg");
    path_in(fifo, sizeof fifo, &r, "fifo");
    run(&r, "show", "--steps", "2", "--length", "3", "--json", json, IMAGE, "What is it?");
    assert_int_equal(r.status, 0);
    run(&r, "show", "--from", json, "--svg", "-");
    char *wanted = strdup(r.out);
    assert_non_null(strstr(wanted, "<svg"));
    run(&r, "show", "--from", json, "--svg", "/dev/stdout", "--html", "/dev/null");
    expect(&r, 0, wanted);
    assert_true(S_ISCHR(look("/dev/null").st_mode));
    assert_int_equal(symlink("target.svg", link_path), 0);
    run(&r, "show", "--from", json, "--svg", link_path);
    assert_int_equal(r.status, 0);
    has(link_path, wanted);
    assert_true(S_ISLNK(look(link_path).st_mode));
    assert_int_equal(mkfifo(fifo, 0600), 0);
    int fd = open(fifo, O_RDONLY | O_NONBLOCK);
    fcntl(fd, F_SETPIPE_SZ, 1 << 20);
    run(&r, "show", "--from", json, "--svg", fifo);
    assert_int_equal(r.status, 0);
    char *bytes = calloc(1, 1 << 20);
    size_t size = 0;
    for (ssize_t n; (n = read(fd, bytes + size, (1 << 20) - 1 - size)) > 0;) size += (size_t)n;
    assert_string_equal(bytes, wanted);
    assert_true(S_ISFIFO(look(fifo).st_mode));
    close(fd);
    free(bytes);
    free(wanted);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regular_files_are_replaced),
        cmocka_unit_test(long_names),
        cmocka_unit_test(links_are_followed),
        cmocka_unit_test(devices_and_fifos_are_written_through),
        cmocka_unit_test(descriptors_are_written_through),
        cmocka_unit_test(protected_files_stay),
        cmocka_unit_test(only_leftovers_are_removed),
        cmocka_unit_test(killed_writers),
        cmocka_unit_test(the_same_file),
        cmocka_unit_test(roles),
        cmocka_unit_test(show_refuses_its_inputs),
        cmocka_unit_test(show_writes_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
