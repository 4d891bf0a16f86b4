#include "apps/cli/terminate.h"

#include <cstring>
#include <exception>
#include <new>

#include <unistd.h>

/* Memory may be what is missing: nothing here allocates. */
static void say(const char *text) {
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void on_terminate() {
    say("easyfirst: ");
    try {
        if (std::exception_ptr thrown = std::current_exception()) std::rethrow_exception(thrown);
        say("a library gave up, most likely for want of memory");
    } catch (const std::bad_alloc &) {
        say("out of memory in a library");
    } catch (const std::exception &error) {
        say("a library failed: ");
        say(error.what());
    } catch (...) {
        say("a library failed");
    }
    say("\n");
    _exit(1);
}

extern "C" void terminate_with_message(void) {
    std::set_terminate(on_terminate);
}
