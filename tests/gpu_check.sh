#!/bin/sh
# Everything that only a real GPU can tell, in one go: the tests of all operations and models on it,
# speed beside PyTorch's, the small tests under compute-sanitizer. The results go to one file.
#
# usage: tests/gpu_check.sh [REPORT]      default tests/gpu-report.md
#
# The programs are those of `make dist`. They are unpacked if dist.tar.gz was brought, built if nvcc and
# the libraries' headers are here; else dist/ is taken as it is, and CUDA's libraries are looked for
# among Python's packages and in the toolkit. dist/ carries this script, too, and is complete without
# the sources.
#
#   REQUIRE_GPU=1   a test that is skipped, or cannot be run, counts as failed
#   SECONDS_MOST=N  what is left after so many seconds is not run (default 540): first the tests, then
#                   speed, then the sanitizer
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if anything failed. Without a
# GPU nothing is run, every row of the report says so, and the exit status is 0.
cd "$(dirname "$0")/.." || exit 1
report=${1:-tests/gpu-report.md}
most=${SECONDS_MOST:-540}
began=$(date +%s)
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
: >"$work/report"
: >"$work/details"

# What the report has rows for. The sanitizer takes those whose cases are small.
tests="test_ops test_linear test_attention test_backward test_train_ops test_optimizer test_muon
       test_stack test_models test_variants test_gradients test_replay test_infill test_segment"
programs="test_devices test_apps test_train"
tools="memcheck racecheck synccheck initcheck"
watched="test_ops test_attention test_backward test_linear test_train_ops"

say() { printf '%s\n' "$*"; }
line() { printf '%s\n' "$*" >>"$work/report"; }
row() {
    printf '| %s | %s |\n' "$1" "$2" >>"$work/report"
    printf '%-46s %s\n' "$1" "$2"
}
left() { echo $((most - $(date +%s) + began)); }
what_it_is() {
    case $1 in
    test_models) echo "$1: every stage of the tiny models, torch's values" ;;
    test_gradients) echo "$1: gradients, ten steps of training, torch's values" ;;
    test_variants) echo "$1: the files' layouts, torch's values" ;;
    test_devices | test_apps | test_train) echo "$1: the program on the GPU" ;;
    *) echo "$1" ;;
    esac
}

# ---- What there is. ----

gpu=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null |
    head -n 1)

# Folders with CUDA's libraries: Python's packages have them one folder each, or all in one.
library_folders() {
    python3 - 2>/dev/null <<'EOF'
import glob, os, sys
for base in dict.fromkeys(sys.path):
    for folder in sorted(glob.glob(os.path.join(base, "nvidia", "*", "lib"))):
        print(folder)
EOF
    ls -d /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 2>/dev/null
}

versions() {
    python3 - 2>/dev/null <<'EOF' || echo "unknown: no python3"
import ctypes
out = []
for name, library, call in [("CUDA runtime", "libcudart.so.%d", "cudaRuntimeGetVersion"),
                            ("driver's CUDA", "libcuda.so.1", "cuDriverGetVersion")]:
    for number in (13, 12):
        try:
            value = ctypes.c_int()
            getattr(ctypes.CDLL(library % number if "%" in library else library), call)(ctypes.byref(value))
            out.append("%s %d.%d" % (name, value.value // 1000, value.value % 1000 // 10))
            break
        except OSError:
            pass
try:
    get = ctypes.CDLL("libcudnn.so.9").cudnnGetVersion
    get.restype = ctypes.c_size_t
    n = get()
    out.append("cuDNN %d.%d.%d" % (n // 10000, n // 100 % 100, n % 100))
except OSError:
    out.append("no cuDNN")
try:
    import torch
    out.append("PyTorch " + torch.__version__)
except Exception:
    out.append("no PyTorch")
try:
    import transformers
    out.append("transformers " + transformers.__version__)
except Exception:
    pass
print(", ".join(out))
EOF
}

can_build() {
    [ -f Makefile ] && command -v nvcc >/dev/null && command -v make >/dev/null &&
        printf '#include <stdarg.h>\n#include <stddef.h>\n#include <setjmp.h>\n#include <stdint.h>
#include <dnnl.h>\n#include <cmocka.h>\n#include <stdio.h>\n#include <jpeglib.h>\n#include <png.h>
#include <jansson.h>\n' | gcc -E - >/dev/null 2>&1
}

# Sets $bin and LD_LIBRARY_PATH, or $why.
find_programs() {
    bin=bin why=''
    if [ ! -x bin/easyfirst-tests ]; then
        bin=dist/bin
        if [ ! -x $bin/easyfirst-tests ] && [ -f dist.tar.gz ]; then
            tar xzf dist.tar.gz
        elif can_build; then
            say "building dist/"
            make dist -j"$(nproc)" >"$work/build" 2>&1 || {
                tail -n 20 "$work/build"
                why="the build failed"
                return
            }
        fi
    fi
    [ -x $bin/easyfirst-tests ] || { why="no $bin: run make dist where the libraries' headers are" && return; }
    for folder in $(library_folders); do
        LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    done
    export LD_LIBRARY_PATH
    missing=$(ldd $bin/easyfirst-tests $bin/../lib/libeasyfirst-cuda.so 2>&1 | grep -E 'not found|not a dynamic' | head -n 3 | tr '\n\t' '  ')
    [ -z "$missing" ] || { why="the programs do not start: $missing" && return; }
    EASYFIRST=$PWD/$bin/easyfirst
    export EASYFIRST
    for t in $tests $programs; do ln -s "$PWD/$bin/easyfirst-tests" "$work/$t"; done
    $EASYFIRST bench --device cuda --runs 1 --model-name vit-l-14 --dtype bf16 -q >"$work/try" 2>&1 ||
        why="the GPU cannot be used: $(tail -n 1 "$work/try")"
}

# ---- Tests. ----

not_run() {
    row "$(what_it_is "$1")" "not run: $why"
    skipped=$((skipped + 1))
}

# tests/run.sh prints a line "NAME  N passed, N failed, N skipped, N s", then what it has to tell.
run_test() {
    timeout -k 5 180 env EASYFIRST_TEST_DEVICE=cuda sh tests/run.sh "$work/$1" >"$work/out" 2>&1
    result=$(sed -n 's/^'"$1"' .* \([0-9]* passed, [0-9]* failed, [0-9]* skipped, [0-9]* s\)$/\1/p' \
        "$work/out" | head -n 1)
    if [ -z "$result" ]; then
        result="failed: killed after 180 s"
        failed=$((failed + 1))
    else
        # shellcheck disable=SC2086
        set -- "$1" $result
        passed=$((passed + $2)) failed=$((failed + $4)) skipped=$((skipped + $6))
    fi
    row "$(what_it_is "$1")" "$result"
    # Failures, skips and notes, without the lines with numbers of tests.
    grep -vE "^($1 .*[0-9]|[0-9]+) passed, [0-9]+ failed, " "$work/out" >"$work/more"
    if [ -s "$work/more" ]; then
        { echo "$1" && cat "$work/more" && echo; } >>"$work/details"
    fi
}

# ---- The sanitizer. ----

find_sanitizer() {
    for s in compute-sanitizer /usr/local/cuda/bin/compute-sanitizer /opt/cuda/bin/compute-sanitizer; do
        command -v "$s" && return
    done
}

# One tool over one program: errors are counted, what it prints of them goes to the details.
run_sanitizer() {
    name="$1, $2"
    if [ "$(left)" -lt 20 ]; then
        row "$name" "not run: out of time"
        return
    fi
    timeout -k 5 60 env EASYFIRST_TEST_DEVICE=cuda EASYFIRST_MIRROR=exact "$sanitizer" --tool "$1" \
        --print-limit 5 "$work/$2" >"$work/out" 2>&1
    status=$?
    summary=$(sed -n 's/^=* ERROR SUMMARY: //p; s/^=* RACECHECK SUMMARY: //p' "$work/out" | tail -n 1)
    [ $status != 137 ] || status=124
    if [ -n "$summary" ] && [ $status != 124 ]; then
        # No errors of a program that did not get far are no success.
        case $summary in
        "0 "*) good=$status ;;
        *) good=1 ;;
        esac
        [ $status = 0 ] || summary="$summary; the program ended with status $status"
        if [ "$good" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        row "$name" "$summary"
    elif [ $status = 124 ] && ! grep -qE '^=+ (Invalid|Error|Uninit|Barrier)' "$work/out"; then
        row "$name" "not run to its end: 60 s were not enough; no error until then"
        skipped=$((skipped + 1))
    elif [ $status = 124 ]; then
        row "$name" "failed, and not run to its end"
        failed=$((failed + 1))
    else
        row "$name" "not run: $(grep -m 1 -iE 'error|not supported|unable' "$work/out" | cut -c 1-150)"
        skipped=$((skipped + 1))
    fi
    grep -E '^=+' "$work/out" | grep -v SUMMARY | sed -n 2,40p >"$work/more"
    if [ -s "$work/more" ]; then
        { echo "$name" && cat "$work/more" && echo; } >>"$work/details"
    fi
}

# ---- The report. ----

why=''
if [ -z "$gpu" ]; then
    why="no GPU"
    say "no GPU was found (nvidia-smi lists none): nothing is run"
else
    find_programs
    [ -z "$why" ] || failed=$((failed + 1))
fi

line "# On a GPU"
line ""
line "Written by \`make gpu-check\`, $(date -u +%Y-%m-%d)."
line ""
line "| | |"
line "|---|---|"
row chip "${gpu:-not run: no GPU}"
row versions "$(if [ -n "$gpu" ]; then versions; else echo "not run: no GPU"; fi)"
row processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"

line ""
line "| tests | |"
line "|---|---|"
for t in $tests $programs; do
    if [ -n "$why" ]; then not_run "$t"; else run_test "$t"; fi
done

line ""
if ! command -v python3 >/dev/null; then
    line "Speed: not run: no python3"
elif [ -n "$why" ]; then
    python3 tests/reference/gpu_speed.py --not-run "$why" >>"$work/report"
else
    python3 tests/reference/gpu_speed.py --program "$EASYFIRST" --seconds "$(left)" \
        >"$work/speed" 2>"$work/speed_errors"
    status=$?
    cat "$work/speed"
    cat "$work/speed" >>"$work/report"
    if [ $status != 0 ]; then
        failed=$((failed + 1))
        line "" && line "gpu_speed.py ended with status $status: $(tail -n 1 "$work/speed_errors")"
    fi
fi

line ""
line "| compute-sanitizer | |"
line "|---|---|"
sanitizer=$(find_sanitizer)
for tool in $tools; do
    for t in $watched; do
        if [ -n "$why" ]; then
            row "$tool, $t" "not run: $why"
        elif [ -z "$sanitizer" ]; then
            row "$tool, $t" "not run: no compute-sanitizer"
        else
            run_sanitizer "$tool" "$t"
        fi
    done
done

if [ -s "$work/details" ]; then
    line "" && line "What the programs told beside:" && line "" && line '```'
    cat "$work/details" >>"$work/report"
    line '```'
fi
if [ "${REQUIRE_GPU:-0}" = 1 ] && [ $skipped -gt 0 ]; then
    failed=$((failed + skipped))
    say "REQUIRE_GPU=1: what was skipped counts as failed"
fi
line "" && line "$passed passed, $failed failed, $skipped skipped, $(($(date +%s) - began)) s"

# A report with numbers is not replaced by one without.
if [ -n "$why" ] && grep -q '^| chip | [^n]' "$report" 2>/dev/null; then
    say "$report is of a GPU and stays"
else
    cp "$work/report" "$report" && say "written: $report"
fi
say "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
