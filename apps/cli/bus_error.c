#include "apps/cli/bus_error.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "data/files/mapped_file.h"

/* A line is put together in place: a signal may come anywhere, even in malloc or stdio. */
typedef struct Line {
    char text[4400];
    size_t used;
} Line;

static void add(Line *line, const char *text) {
    for (; *text && line->used < sizeof line->text; text++)
        line->text[line->used++] = (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    /* Handed on by a handler that was there after this one: back at the instruction, it comes
     * again, with its address. */
    if (info->si_code == SI_TKILL && info->si_pid == getpid()) return;
    const char *path = info->si_code > 0 ? mapped_file_at(info->si_addr) : NULL;
    if (!path) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    Line line = {.used = 0};
    add(&line, "easyfirst: ");
    add(&line, path);
    add(&line, ": was shortened while it was read, or its disk failed; run the command again when "
               "the file is complete");
    if (line.used == sizeof line.text) line.used--;
    line.text[line.used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line.text, line.used);
    (void)written;
    _exit(1);
}

void bus_error_catch(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
