#include "apps/reproduce/run_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/cli/signals.h"

static int redirect(const char *path, int flags, int fd) {
    const int file = open(path, flags | O_CLOEXEC, 0666);
    return file < 0 || dup2(file, fd) < 0 ? -1 : 0;
}

/* In the child: never returns. */
static void become(const char *program, char *const *argv, const char *output, const char *errors) {
    if (redirect("/dev/null", O_RDONLY, STDIN_FILENO) ||
        redirect(output, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO) ||
        (errors && redirect(errors, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO)))
        _exit(126);
    signal(SIGPIPE, SIG_DFL);
    if (program)
        execvp(program, argv);
    else
        execv("/proc/self/exe", argv);
    _exit(127);
}

static int wait_for(pid_t child, int *status) {
    bool passed_on = false;
    for (;;) {
        const pid_t done = waitpid(child, status, WNOHANG);
        if (done == child) return 0;
        if (done < 0 && errno != EINTR) return -1;
        if (signals_stop_asked() && !passed_on) {
            kill(child, signals_stop_asked());
            passed_on = true;
        }
        usleep(20000);
    }
}

int run_child(const char *program, char *const *words, const char *output, const char *errors,
              int *status, Error *err) {
    int count = 0, code = 0;
    while (words[count]) count++;
    char **argv = calloc((size_t)count + 2, sizeof *argv);
    if (!argv) return error_set(err, "out of memory for a command");
    argv[0] = program ? (char *)program : (char *)"easyfirst";
    memcpy(argv + 1, words, (size_t)count * sizeof *argv);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) become(program, argv, output, errors);
    free(argv);
    if (child < 0 || wait_for(child, &code))
        return error_set(err, "%s cannot be run: %s", program ? program : "easyfirst",
                         strerror(errno));
    *status = WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
    if (*status == 126) return error_set(err, "%s: cannot be written", output);
    if (*status == 127)
        return error_set(err, "%s: no such program", program ? program : "easyfirst");
    return 0;
}

static void put_word(FILE *out, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_./=+:,@%*";
    if (*word && word[strspn(word, plain)] == 0) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word; word++) fputs(*word == '\'' ? "'\\''" : (const char[]){*word, 0}, out);
    fputc('\'', out);
}

char *command_line_text(const char *program, char *const *words, Error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out) fputs(program ? program : "easyfirst", out);
    for (; out && *words; words++) {
        fputc(' ', out);
        put_word(out, *words);
    }
    if (out && fclose(out) == 0) return text;
    free(text);
    error_set(err, "out of memory for a command");
    return NULL;
}
