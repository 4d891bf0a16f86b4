#!/bin/sh
# The layout of the sources: which folder may include which, no circles, and a library that neither
# prints nor ends the process. Prints TAP; `sh tests/layout_test.sh --table` prints the arrows instead.
# usage: tests/layout_test.sh          ($LIBRARY is the archive; from the root of the sources)
library=${LIBRARY:-build/libeasyfirst.a}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0 failed=0

# result NAME FILE: a line of TAP; what FILE holds is what is wrong.
result() {
    number=$((number + 1))
    if [ -s "$2" ]; then
        failed=$((failed + 1))
        echo "not ok $number - $1"
        sed 's/^/#   /' "$2"
    else
        echo "ok $number - $1"
    fi
}

# A module, and those that its files may include besides itself. kernels/cpu and kernels/cuda belong to kernels.
cat >"$folder/allowed" <<'TABLE'
kernels
vision           kernels data/files
language         kernels
data/files       kernels
data/formats     kernels data/files
data/checkpoints kernels data/files
data/sets        kernels data/files data/formats data/checkpoints
data/metrics     kernels data/files data/sets
projector        kernels vision language data/files data/formats data/checkpoints data/sets
apps/cli         kernels projector data/files data/formats
apps/trace       kernels projector vision data/files apps/cli
apps/show        kernels projector data/files vision apps/cli apps/trace
apps/chat        kernels projector data/files language apps/cli apps/trace apps/show
apps/ask         kernels projector data/files apps/cli apps/trace
apps/score       kernels data/files data/metrics apps/cli
apps/serve       kernels projector data/files vision language apps/cli apps/trace apps/show
apps/eval        kernels projector data/files data/formats data/checkpoints data/sets data/metrics vision language apps/cli apps/trace apps/show apps/score
apps/train       kernels projector data/files data/formats data/checkpoints data/sets data/metrics vision language apps/cli
apps/reproduce   kernels data/files data/checkpoints projector apps/cli apps/show apps/eval
apps             kernels projector data/files data/formats data/checkpoints data/sets data/metrics vision language apps/cli apps/trace apps/show apps/score apps/eval apps/train apps/chat apps/ask apps/serve apps/reproduce
TABLE

# Lines "FILE HEADER" of all includes of our own headers.
find kernels vision language projector data apps -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' |
    grep -v '^data/prep\|^projector/python' | sort |
    xargs sed -n 's/^#include "\([^"]*\)".*/\1/;T;F;p' | sed 'N;s/\n/ /' >"$folder/includes"

module_of='function module(path) {
    sub("/[^/]*$", "", path)
    if (path ~ /^kernels/) return "kernels"
    return path
}'

# Lines "FILE HEADER MODULE MODULE" of what goes from one module to another.
awk "$module_of"' { a = module($1); b = module($2); if (a != b) print $1, $2, a, b }' \
    "$folder/includes" >"$folder/arrows"

if [ "$1" = --table ]; then
    while read -r module _; do
        others=$(awk -v m="$module" '$3 == m { print $4 }' "$folder/arrows" | sort -u | tr '\n' ' ')
        depth=1
        [ "$module" = kernels ] && depth=3
        sources=$(find "$module" -maxdepth $depth -name '*.[ch]' -o -maxdepth $depth -name '*.c[cu]' \
            -o -maxdepth $depth -name '*.cuh')
        # shellcheck disable=SC2086
        echo "$module | $(echo $sources | wc -w) files, $(cat $sources | wc -l) lines | $others"
    done <"$folder/allowed"
    exit 0
fi

awk 'FNR == NR { for (i = 1; i <= NF; i++) ok[$1, $i] = 1; known_modules[$1] = 1; next }
     !($3 in known_modules) { print $1 ": its folder is not in the table of tests/layout_test.sh"; next }
     !(($3, $4) in ok) { print $1 " includes " $2 ": " $3 " may not use " $4 }' \
    "$folder/allowed" "$folder/arrows" >"$folder/wrong"
result "modules include only what lies below them" "$folder/wrong"

awk '{ print $3, $4 }' "$folder/arrows" | sort -u | tsort 2>&1 >/dev/null |
    sed 's/^tsort: //' >"$folder/circles"
result "no circle of modules" "$folder/circles"

[ "$(wc -l <"$folder/arrows")" -gt 300 ] || echo "only $(wc -l <"$folder/arrows") includes were found" >"$folder/few"
touch "$folder/few"
result "the includes were found" "$folder/few"

find kernels vision language projector data \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' \) \
    -exec grep -lE '#include <(getopt|err|error)\.h>|STD(OUT|ERR)_FILENO|[^a-z]dprintf\(' {} + >"$folder/parsers"
result "below apps/ nothing reads options or writes to the standard streams" "$folder/parsers"

# Functions that end the process, and streams to print to. Justified: the canvas cache's assertion that
# its caller has kept to the capacity that it was given, and that a file which is written through
# ("-", /dev/stdout) comes after what the program has printed before (file_write flushes stdout).
nm -A --undefined-only "$library" 2>"$folder/nm" |
    grep -wE 'U (_?exit|_Exit|quick_exit|abort|__assert_fail|(__)?v?printf(_chk)?|puts|putchar|perror|psignal|stdout|stderr|v?(err|errx|warn|warnx)|error|_ZSt4(cout|cerr|clog))' |
    sed 's/^[^:]*:\([^:]*\):.* U /\1 /' |
    grep -vx -e 'canvas_cache.o __assert_fail' -e 'file_write.o stdout' >"$folder/symbols"
[ -s "$folder/nm" ] && cat "$folder/nm" >>"$folder/symbols"
[ "$(nm "$library" 2>/dev/null | grep -c ' T ')" -gt 300 ] || echo "$library: its symbols cannot be read" >>"$folder/symbols"
result "the library neither prints nor ends the process" "$folder/symbols"

echo "1..$number"
[ "$failed" = 0 ]
