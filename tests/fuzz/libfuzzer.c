/* libfuzzer.c - libFuzzer's entry point: calls the target that FUZZ_TARGET names. With
 * FUZZ_TARGET=list the program prints the targets' names and longest inputs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const FuzzTarget *target;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *name = getenv("FUZZ_TARGET");
    if (name && !strcmp(name, "list")) {
        for (const FuzzTarget *t = fuzz_targets; t->name; t++)
            printf("%s %zu\n", t->name, t->longest);
        exit(0);
    }
    target = fuzz_target_find(name);
    if (target) return 0;
    fprintf(stderr, "FUZZ_TARGET=%s: no such target (FUZZ_TARGET=list prints all)\n",
            name ? name : "");
    exit(2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    target->run(data, size);
    return 0;
}
