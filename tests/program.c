#include "tests/program.h"

#include "tests/matrix.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

void run_start(Run *r) {
    *r = (Run){0};
    /* A shell sets these to be ignored in background processes, which programs inherit. */
    signal(SIGINT, SIG_DFL), signal(SIGQUIT, SIG_DFL);
    temporary_folder(r->folder, sizeof r->folder);
    unsetenv("EASYFIRST_MODEL");
    if (!test_on_gpu())
        setenv("CUDA_VISIBLE_DEVICES", "", 1); /* the expected output is the
                                                                  CPU's */
    setenv("OMP_NUM_THREADS", "1", 1); /* faster for models this small; --threads still applies */
    setenv("OMP_WAIT_POLICY", "passive", 1); /* tests share the machine */
}

void run_end(Run *r) {
    free(r->out), free(r->err);
    temporary_remove(r->folder);
}

void path_in(char *out, size_t size, const Run *r, const char *name) {
    snprintf(out, size, "%s/%s", r->folder, name);
}

void run_files(Run *r, const char *input, const char *output, char *const *args) {
    char out[512], err[512], *argv[128];
    const char *program = getenv("EASYFIRST");
    path_in(out, sizeof out, r, "stdout"), path_in(err, sizeof err, r, "stderr");
    argv[0] = (char *)(program && *program ? program : "build/easyfirst");
    int n = 1;
    for (; *args && n < 127; args++) argv[n++] = *args;
    argv[n] = NULL;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, input, O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, output ? output : out, O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    posix_spawn_file_actions_addopen(&files, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t child;
    int failed = posix_spawn(&child, argv[0], &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (failed) fail_msg("cannot run %s: %s (build it first)", argv[0], strerror(failed));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    free(r->out), free(r->err);
    r->out = output ? strdup("") : file_bytes(out, NULL);
    r->err = file_bytes(err, NULL);
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (r->status >= 128 || strstr(r->err, "Sanitizer")) {
        for (int i = 0; argv[i]; i++) print_message(" %s", argv[i]);
        fail_msg("status %d: %s", r->status, r->err);
    }
}

void write_file(const Run *r, const char *name, const char *bytes, size_t size, char *path,
                size_t path_size) {
    path_in(path, path_size, r, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

void run_input(Run *r, const char *bytes, size_t size, char *const *args) {
    char path[512];
    write_file(r, "stdin", bytes, size, path, sizeof path);
    run_files(r, path, NULL, args);
}

void expect(const Run *r, int status, const char *out) {
    if (r->status != status) fail_msg("exit status %d, expected %d: %s", r->status, status, r->err);
    if (out) assert_string_equal(r->out, out);
}

int count_lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

void expect_message(const Run *r, int status, const char *const *words) {
    if (r->status != status) fail_msg("exit status %d, expected %d: %s", r->status, status, r->err);
    if (strncmp(r->err, "easyfirst: ", 11) || count_lines(r->err) != 1)
        fail_msg("not one line of easyfirst's: %s", r->err);
    for (; *words; words++)
        if (!strstr(r->err, *words)) fail_msg("message lacks \"%s\": %s", *words, r->err);
    assert_string_equal(r->out, "");
}
