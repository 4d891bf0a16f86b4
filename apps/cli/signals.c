#include "apps/cli/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static const int stops[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1};
enum { STOPS = sizeof stops / sizeof stops[0] };

static volatile sig_atomic_t asked;

static bool is_ignored(int number) {
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

static void ask_to_stop(int number) {
    const struct sigaction normal = {.sa_handler = SIG_DFL};
    asked = number;
    for (int i = 0; i < STOPS; i++)
        if (!is_ignored(stops[i])) sigaction(stops[i], &normal, NULL);
}

/* A closed one is opened the wrong way round: its use is an error, as it was. */
static void open_standard_files(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            int opened = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
            if (opened > STDERR_FILENO) close(opened);
        }
}

void signals_start(bool keeps_files) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    open_standard_files();
    sigaction(SIGXFSZ, &ignore, NULL);
    if (keeps_files) sigaction(SIGPIPE, &ignore, NULL);
}

void signals_catch_stop(void) {
    const struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART};
    asked = 0;
    for (int i = 0; i < STOPS; i++)
        if (!is_ignored(stops[i])) sigaction(stops[i], &action, NULL);
}

int signals_stop_asked(void) {
    return asked;
}

const char *signals_name(int number) {
    return number == SIGHUP    ? "SIGHUP"
           : number == SIGINT  ? "SIGINT"
           : number == SIGTERM ? "SIGTERM"
           : number == SIGUSR1 ? "SIGUSR1"
                               : "a signal";
}
