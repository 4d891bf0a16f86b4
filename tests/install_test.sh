#!/bin/sh
# Tests of what `make install` installs, in an empty root: the programs of tests/examples, compiled against it and
# nothing else, and the Python module answer as the program does; `make uninstall` leaves nothing.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
root=$work/root
lib=$root/usr/lib
model=$root/usr/share/easyfirst/model
image=$root/usr/share/easyfirst/images/tractor.jpg
question="What is this?"
: "${CC:=gcc}" "${CXX:=g++}"
# Nothing of the build's folder, of another installation or of the machine's GPU.
NUMPY_PATH=$PYTHONPATH
unset EASYFIRST_MODEL EASYFIRST_LIBRARY PYTHONPATH PYTHONDONTWRITEBYTECODE
export CUDA_VISIBLE_DEVICES="" LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

tests=0 failures=0
is() { # what condition...
    what=$1
    shift
    tests=$((tests + 1))
    if "$@"; then
        echo "ok $tests - $what"
    else
        echo "not ok $tests - $what"
        failures=$((failures + 1))
    fi
}
skipped() { # what why
    tests=$((tests + 1))
    echo "ok $tests # SKIP $1: $2"
}
same() { # file file
    diff "$1" "$2" >"$work/diff" && return
    sed 's/^/# /' "$work/diff"
    return 1
}
# A command's output, and its errors if it fails.
answers() { # file command...
    file=$1
    shift
    "$@" >"$file" 2>"$work/errors" && return
    sed 's/^/# /' "$work/errors"
    return 1
}
# shellcheck disable=SC2086 # flags are several words, and so may compilers be
compiles() { # program source compiler flags
    answers "$work/compiler" $3 -Wall -Wextra -Wpedantic -Werror -o "$work/$1" "tests/examples/$2" $4
}
exported() { # nm's options and file: the names of what is defined there for others
    nm --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort
}

is "make install into an empty root" answers "$work/make" make install DESTDIR="$root" PREFIX=/usr

# ---- What is exported. ----
# shellcheck disable=SC2013
for name in $(sed -n 's/^EF_API .*\(ef_[a-z_]*\)(.*/\1/p' projector/easyfirst.h); do echo "$name"; done |
    sort >"$work/declared"
exported -D "$lib/libeasyfirst.so" >"$work/shared"
exported -g "$lib/libeasyfirst.a" >"$work/static"
is "the header declares functions" [ "$(wc -l <"$work/declared")" -gt 20 ]
is "the shared library exports what the header declares, nothing else" same "$work/declared" "$work/shared"
is "and so does the static one" same "$work/declared" "$work/static"
version=$(sed -n 's/^#define EF_VERSION *"\(.*\)"/\1/p' "$root/usr/include/easyfirst.h")
is "the library's file is called after the version" [ -f "$lib/libeasyfirst.so.$version" ]
is "and so is its soname" \
    sh -c "readelf -d '$lib/libeasyfirst.so' | grep -q 'soname: \[libeasyfirst.so.${version}\]'"
is "the program has the same version" [ "$("$root/usr/bin/easyfirst" --version)" = "easyfirst $version" ]

# ---- Examples in C and C++. ----
flags="-I$root/usr/include -L$lib -leasyfirst"
if command -v pkg-config >/dev/null; then
    pc="PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
        PKG_CONFIG_ALLOW_SYSTEM_LIBS=1"
    # shellcheck disable=SC2086
    flags=$(env $pc pkg-config --cflags --libs easyfirst)
    # shellcheck disable=SC2086
    is "pkg-config gives the flags" [ "$flags" = "-I$root/usr/include -L$lib -leasyfirst " ]
    # shellcheck disable=SC2086
    is "and the version" [ "$(env $pc pkg-config --modversion easyfirst)" = "$version" ]
else
    skipped "pkg-config gives the flags" "no pkg-config here"
fi
is "ask.c compiles as C11" compiles ask ask.c "$CC -std=c11" "$flags"
is "ask.c has 25 lines at most" [ "$(wc -l <tests/examples/ask.c)" -le 25 ]
is "texts.c compiles as C99" compiles texts texts.c "$CC -std=c99" "$flags"
is "steps.cc compiles as C++11" compiles steps steps.cc "$CXX -std=c++11" "$flags"
private=$(sed -n 's/^Libs.private: //p' "$lib/pkgconfig/easyfirst.pc")
is "steps.cc links with the static library" compiles steps_static steps.cc "$CXX -std=c++11" \
    "-I$root/usr/include $lib/libeasyfirst.a $private"
is "it needs the library and nothing of its parts" \
    sh -c "! readelf -d '$work/ask' | grep NEEDED | grep -vE 'libeasyfirst|libc\\.|libm\\.|asan|ubsan'"

"$root/usr/bin/easyfirst" ask -q -m "$model" --sure-threshold 0 "$image" "$question" >"$work/answer"
is "the installed program answers" [ -s "$work/answer" ]
is "ask runs" answers "$work/ask.out" "$work/ask" "$model" "$image" "$question"
is "and gives the program's answer" same "$work/answer" "$work/ask.out"
is "steps runs" answers "$work/steps.out" "$work/steps" "$model" "$image" "$question"
tail -n 1 "$work/steps.out" >"$work/steps.last"
is "and gives the same answer" same "$work/answer" "$work/steps.last"
is "after 10 steps" [ "$(grep -c '^step ' "$work/steps.out")" = 10 ]
is "linked statically, too" answers "$work/static.out" "$work/steps_static" "$model" "$image" "$question"
is "step by step" same "$work/steps.out" "$work/static.out"
"$work/steps" "$model" "$image" "$question" 3 >"$work/cancelled" 2>"$work/errors"
is "a cancelled call fails" [ $? = 1 ]
is "after the step in which it was cancelled" [ "$(grep -c '^step ' "$work/cancelled")" = 3 ]
is "and says so" [ "$(cat "$work/errors")" = cancelled ]
is "texts runs" answers "$work/texts.out" "$work/texts" "$model" "$image" "$question" "" "Ein Hund."
{
    cat "$work/answer"
    "$root/usr/bin/easyfirst" text -q -m "$model" translate --from de --to en "$question"
    echo "the text is empty: there is nothing to answer"
    echo "the text is empty: there is nothing to answer"
    "$root/usr/bin/easyfirst" ask -q -m "$model" --sure-threshold 0 "$image" "Ein Hund."
    "$root/usr/bin/easyfirst" text -q -m "$model" translate --from de --to en "Ein Hund."
} >"$work/each"
is "many requests at once give the answers of each" same "$work/each" "$work/texts.out"
"$work/ask" "$work/none" "$image" "$question" >"$work/none.out" 2>"$work/errors"
is "a missing model is an error of one line" \
    sh -c "[ $? = 1 ] && [ ! -s '$work/none.out' ] && grep -q 'none: no such folder' '$work/errors'"

# ---- The CUDA backend, which the library looks for beside itself. ----
# Made-up ones of the driver and of the backend, in which there is nothing.
cat >"$work/gpu.c" <<'END'
#include <easyfirst.h>
#include <stdio.h>
int main(int argc, char **argv) {
    ef_error err = {""};
    ef_model *model;
    ef_model_options options = ef_model_options_default();
    options.device = "cuda";
    if (argc == 2 && ef_model_open(argv[1], &options, &model, &err)) puts(err.text);
    return 0;
}
END
# shellcheck disable=SC2086
$CC -o "$work/gpu" "$work/gpu.c" $flags && mkdir -p "$work/driver" "$lib/easyfirst" &&
    echo "int made_up = 1;" >"$work/empty.c" && $CC -shared -fPIC -o "$work/driver/libcuda.so.1" "$work/empty.c" &&
    cp "$work/driver/libcuda.so.1" "$lib/easyfirst/libeasyfirst-cuda.so"
LD_LIBRARY_PATH=$work/driver:$LD_LIBRARY_PATH "$work/gpu" "$model" >"$work/gpu.out"
is "the library finds the backend in lib/easyfirst" \
    grep -q "libeasyfirst-cuda.so is not of this program's version" "$work/gpu.out"
rm "$lib/easyfirst/libeasyfirst-cuda.so"
LD_LIBRARY_PATH=$work/driver:$LD_LIBRARY_PATH "$work/gpu" "$model" >"$work/gpu.out"
is "and says that it is not there" grep -q "the CUDA backend cannot be loaded" "$work/gpu.out"

# ---- Python. ----
if command -v python3 >/dev/null; then
    "$work/texts" "$model" "$image" "$question" >"$work/two"
    PYTHONPATH=$lib/python3/dist-packages:$NUMPY_PATH answers "$work/python.out" python3 \
        tests/examples/python_test.py "$model" "$image" "$question" "$work/steps.out" "$work/two"
    while read -r result _ rest; do
        case $result in
        ok) is "Python: ${rest#- }" true ;;
        skip) skipped "Python: ${rest#- }" "no numpy here" ;;
        esac
    done <"$work/python.out"
    is "the Python module passes its tests" grep -q "^all passed" "$work/python.out"
else
    skipped "the Python module" "no python3 here"
fi

# ---- Gone again. ----
echo "of another package" >"$lib/other"
is "make uninstall" answers "$work/make" make uninstall DESTDIR="$root" PREFIX=/usr
(cd "$root" && find . ! -type d) >"$work/left"
echo ./usr/lib/other >"$work/others"
is "leaves what others installed, and no other file" same "$work/others" "$work/left"
is "nor a folder of its own" [ -z "$(find "$root" -name 'easyfirst*')" ]
is "make install with other folders" answers "$work/make" make install DESTDIR="$root" PREFIX=/opt/ef \
    LIBDIR=/opt/ef/lib/x86_64-linux-gnu
is "puts the library there" [ -f "$root/opt/ef/lib/x86_64-linux-gnu/libeasyfirst.so.$version" ]
is "and says so" grep -qx "libdir=/opt/ef/lib/x86_64-linux-gnu" \
    "$root/opt/ef/lib/x86_64-linux-gnu/pkgconfig/easyfirst.pc"

echo "1..$tests"
[ $failures = 0 ]
