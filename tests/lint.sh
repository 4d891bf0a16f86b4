#!/bin/sh
# Looks at the sources without running them: clang-format, cppcheck, clang-tidy, shellcheck, ruff.
# usage: tests/lint.sh          (from the root of the sources; `make lint`)
# A tool that is missing is skipped and counted. The last line is "N passed, N failed, N skipped".
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
jobs=${JOBS:-$(nproc 2>/dev/null || echo 1)}
passed=0 failed=0 skipped=0

# files NAME...: our own sources of these names, with git or in an archive without it.
files() {
    for name in "$@"; do
        git ls-files -co --exclude-standard "*$name" 2>/dev/null ||
            find apps data kernels language projector tests vision .ci -name "*$name"
    done | sort -u | while read -r file; do [ -f "$file" ] && echo "$file"; done
}

# check TOOL COMMAND...: what it prints is shown when it fails.
check() {
    tool=$1
    shift
    if ! command -v "$tool" >/dev/null 2>&1; then
        skipped=$((skipped + 1))
        echo "$tool: skipped, it is not installed"
        return
    fi
    start=$(date +%s)
    if "$@" >"$folder/log" 2>&1; then
        passed=$((passed + 1)) result=passed
    else
        failed=$((failed + 1)) result=FAILED
        cat "$folder/log"
    fi
    echo "$tool: $result, $(($(date +%s) - start)) s"
}

format() {
    files .c .h .cc .cu .cuh | xargs clang-format --dry-run -Werror
}

# The suppressions are false: pointers to the ends of one text, a name that is kept in a list, a sum
# of at least one exponential.
static_c() {
    files .c | grep -v '^tests/' | xargs cppcheck -q -j "$jobs" --std=c11 -I. -D_GNU_SOURCE \
        --enable=warning --suppress=missingInclude \
        --suppress=invalidFunctionArg:language/length.c --suppress=comparePointers:apps/show/page_parts.c --suppress=comparePointers:apps/serve/page.c \
        --suppress=memleak:apps/train/dataset.c --error-exitcode=1
}

# Without kernels/cpu/isa, whose files need the flags of an instruction set. What goes to standard error
# is only the count of the warnings in the system's headers.
tidy() {
    files .c | grep -v -e '^tests/' -e '^kernels/cpu/isa/' |
        xargs -n 12 -P "$jobs" sh -c 'clang-tidy --quiet "$@" -- -std=c11 -I. -D_GNU_SOURCE 2>/dev/null' sh
}

shells() {
    { files .sh; ls .ci/run 2>/dev/null; } | xargs shellcheck -S warning
}

python() {
    ruff check --isolated --no-cache --select F,E9,E722,PLE,B006,B008,B012,B015,B018 .
}

# Other versions of clang-format set some lines in another way.
version=$(clang-format --version 2>/dev/null | sed 's/.*version \([0-9]*\).*/\1/')
case $version in
'' | 14) check clang-format format ;;
*)
    skipped=$((skipped + 1))
    echo "clang-format: skipped, the sources are formatted with version 14, this is $version"
    ;;
esac
check cppcheck static_c
check clang-tidy tidy
check shellcheck shells
check ruff python
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
