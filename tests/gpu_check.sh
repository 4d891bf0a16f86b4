#!/bin/sh
# Everything that only a real GPU can tell, in one go, for a machine that may be there for minutes only:
# the most telling first, each step with a limit of its own, and each result kept as soon as it is known.
#
# usage: tests/gpu_check.sh [REPORT]      default tests/gpu-report.md
#
# The order: one matmul, one attention, one block; the bundled model's answers beside the CPU's; the speed
# of ViT-L/14 and XLM-R beside PyTorch; the tests of all operations, models and the program; the speed of
# training; compute-sanitizer; PyTorch compiled.
#
# Results go to REPORT.rows, a line each, the speed's to REPORT.speed; the report is written from them after
# every row. A run that was cut off keeps what it has, and the next one continues with the rows that are
# missing, as long as the programs and the GPU are the same. A step that twice did not come to its end (it
# took the machine down, say) is not tried again.
#
# The programs are those of `make dist`. They are unpacked if dist.tar.gz was brought, built if nvcc and
# the libraries' headers are here; else dist/ is taken as it is, and CUDA's libraries are looked for
# among Python's packages and in the toolkit. dist/ carries this script, too, and is complete without
# the sources.
#
#   REQUIRE_GPU=1   a test that is skipped, or cannot be run, counts as failed
#   SECONDS_MOST=N  the whole ends after so many seconds (default 420); what is left is for the next run
#   PROGRAMS=DIR    easyfirst and easyfirst-tests are there (for the test of this script)
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if anything failed. Without a
# GPU nothing is run, every row of the report says so, and the exit status is 0.
cd "$(dirname "$0")/.." || exit 1
report=${1:-tests/gpu-report.md}
rows=${report%.md}.rows
speed=${report%.md}.speed
most=${SECONDS_MOST:-420}
began=$(date +%s)
work=$(mktemp -d) || exit 1
child='' running=''
tab=$(printf '\t')
trap 'rm -rf "$work"' EXIT
# A step that is ended from outside is not held against its row.
trap '[ -z "$child" ] || kill "$child" 2>/dev/null
      [ -z "$running" ] || keep "$running${tab}short"
      exit 130' INT TERM HUP

tests="test_ops test_linear test_int8 test_conv2d test_attention test_backward test_train_ops test_adamw
       test_moments test_optimizer test_muon test_llama_ops test_stack test_models test_llama test_encoders
       test_variants test_gradients test_replay test_infill test_segment"
programs="test_devices test_apps test_train"
# The sanitizer takes those whose cases are small.
tools="memcheck racecheck synccheck initcheck"
watched="test_ops test_attention test_backward test_linear test_train_ops"

# Every row: its key, what the report calls it, what runs it, its limit in seconds. Separated by '|'.
plan() {
    echo 'first matmul|one matmul: test_linear linear_f32, linear_bf16|run_test test_linear linear_|30'
    echo 'first attention|one attention: test_attention test_sizes|run_test test_attention test_sizes|30'
    echo 'first block|one block: test_stack forward_f32, forward_bf16|run_test test_stack forward_|30'
    echo 'answers|the bundled model answers as on the CPU, f32|run_answers|60'
    echo 'speed|-|run_speed vit-l-14,xlmr-base,xlmr-large,xlmr-xxl own,eager|200'
    for t in $tests; do
        case $t in
        test_models) about=": every stage of the tiny models, torch's values" ;;
        test_gradients) about=": gradients, ten steps of training, torch's values" ;;
        test_variants) about=": the files' layouts, torch's values" ;;
        *) about='' ;;
        esac
        echo "$t|$t$about|run_test $t|90"
    done
    for t in $programs; do echo "$t|$t: the program on the GPU|run_test $t|120"; done
    echo 'speed of training|-|run_speed train+full,train+frozen own,eager|120'
    for tool in $tools; do
        for t in $watched; do echo "$tool $t|$tool, $t|run_sanitizer $tool $t|60"; done
    done
    echo 'speed compiled|-|run_speed vit-l-14,xlmr-base,xlmr-large,xlmr-xxl,train+full,train+frozen compiled|300'
}

say() { printf '%s\n' "$*"; }
left() { echo $((most - $(date +%s) + began)); }

# ---- What is known: lines of KEY, passed, failed, skipped, seconds, text, with tabs between. In place of
# the numbers "begin": the step was begun; "short": it was ended for want of time, through no fault of its
# own; "detail": a line of what it printed. ----

keep() { printf '%s\n' "$1" >>"$rows"; }
clean() { tr '\t\r' '  ' | tr -d '\000-\010\013-\037'; }
result() { # key passed failed skipped seconds text
    keep "$1$tab$2$tab$3$tab$4$tab$5$tab$(printf '%s' "$6" | clean | tr '\n' ' ')"
}
known() { awk -F'\t' -v k="$1" '$1 == k && NF == 6 {found = 1} END {exit !found}' "$rows"; }
begun() { awk -F'\t' -v k="$1" '$1 == k {n += ($2 == "begin") - ($2 == "short")} END {print n + 0}' "$rows"; }
detail() { # key file
    [ -s "$2" ] && clean <"$2" | cut -c 1-300 | head -n 60 | while IFS= read -r text; do
        keep "$1${tab}detail$tab$text"
    done
}

# A last line without its end was being written when the machine went; what follows begins a new one.
mend_rows() {
    if [ -s "$rows" ] && [ "$(tail -c 1 "$rows" | wc -l)" = 0 ]; then
        sed '$d' "$rows" >"$rows.new" && mv "$rows.new" "$rows"
    fi
}

# Rows of other programs, or of another GPU, are set aside.
open_rows() {
    of=$(printf '%s %s' "$gpu" "$(cat "$bin/easyfirst" "$bin/easyfirst-tests" \
        "$bin/../lib/libeasyfirst-cuda.so" 2>/dev/null | cksum)")
    touch "$rows"
    mend_rows
    if [ -s "$rows" ] && [ "$(head -n 1 "$rows")" != "of$tab$of" ]; then
        say "$rows is of other programs or another GPU: kept as $rows.old"
        mv "$rows" "$rows.old"
        [ ! -f "$speed" ] || mv "$speed" "$speed.old"
        touch "$rows"
    fi
    [ -s "$rows" ] || keep "of$tab$of"
    touch "$speed"
}

# ---- The report, of what is known. ----

not_yet() { if [ -n "$why" ]; then echo "not run: $why"; else echo "not run yet"; fi; }

# Rows whose keys begin so; one awk, as this is done after every row.
table() { # pattern of keys
    plan | awk -v pattern="^($1)" -v none="$(not_yet)" '
        BEGIN {FS = "\t"}
        FNR == NR {if (NF == 6) text[$1] = $6; next}
        {split($0, part, "|")}
        part[1] ~ pattern && part[2] != "-" {print "| " part[2] " | " (part[1] in text ? text[part[1]] : none) " |"}
    ' "$rows" -
}

# The speed's tables are made when a step may have changed them.
write_speed() {
    if command -v python3 >/dev/null; then
        python3 tests/reference/gpu_speed.py --results "$speed" --render --why "$(not_yet | sed 's/^not run: //')"
    else
        say "" && say "Speed: not run: no python3"
    fi >"$work/tables"
}

write_report() {
    {
        say "# On a GPU" && say ""
        say "Written by \`make gpu-check\`, $(date -u +%Y-%m-%d)." && say ""
        say "| | |" && say "|---|---|"
        say "| chip | ${gpu:-not run: no GPU} |"
        say "| versions | ${versions:-not run: no GPU} |"
        say "| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores |"
        say "" && say "| first | |" && say "|---|---|" && table 'first|answers'
        say "" && say "| tests | |" && say "|---|---|" && table test_
        cat "$work/tables"
        say "" && say "| compute-sanitizer | |" && say "|---|---|" && table "$(echo "$tools" | tr ' ' '|')"
        if grep -q "${tab}detail$tab" "$rows"; then
            say "" && say "What the programs printed:" && say "" && say '```'
            awk -F'\t' '$2 == "detail" {if ($1 != last) print "[" $1 "]"; last = $1; print "  " $3}' "$rows"
            say '```'
        fi
        say "" && say "$(totals), $(awk -F'\t' 'NF == 6 {n += $5} END {print n + 0}' "$rows") s"
    } >"$work/report" && cp "$work/report" "$report.new" && mv "$report.new" "$report"
}

# Of tests; a row that was not run is one that was skipped.
totals() {
    plan | awk -v require="${REQUIRE_GPU:-0}" '
        BEGIN {FS = "\t"}
        FNR == NR {
            if (NF == 6) {passed += $2; failed += $3; skipped += $4; known[$1] = 1}
            next
        }
        !/^speed/ {split($0, part, "|"); if (!(part[1] in known)) skipped++}
        END {
            if (require == 1) failed += skipped
            printf "%d passed, %d failed, %d skipped", passed, failed, skipped
        }' "$rows" -
}

# ---- What there is. ----

gpu=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null |
    head -n 1)

# Folders with CUDA's libraries: Python's packages have them one folder each, or all in one.
library_folders() {
    python3 - 2>/dev/null <<'END'
import glob, os, sys
for base in dict.fromkeys(sys.path):
    for folder in sorted(glob.glob(os.path.join(base, "nvidia", "*", "lib"))):
        print(folder)
END
    ls -d /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 2>/dev/null
}

find_versions() {
    timeout 60 python3 - 2>/dev/null <<'END' || echo "unknown: no python3"
import ctypes, importlib.metadata
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
for package, name in (("torch", "PyTorch"), ("transformers", "transformers")):
    try:
        out.append(name + " " + importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        out.append("no " + name)
print(", ".join(out))
END
}

can_build() {
    [ -f Makefile ] && command -v nvcc >/dev/null && command -v make >/dev/null &&
        printf '#include <stdarg.h>\n#include <stddef.h>\n#include <setjmp.h>\n#include <stdint.h>
#include <dnnl.h>\n#include <cmocka.h>\n#include <stdio.h>\n#include <jpeglib.h>\n#include <png.h>
#include <jansson.h>\n' | gcc -E - >/dev/null 2>&1
}

# Sets $bin, or $why.
find_programs() {
    if [ -n "${PROGRAMS:-}" ]; then
        bin=$PROGRAMS
        return
    fi
    bin=bin
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
    [ -x $bin/easyfirst-tests ] || why="no $bin: run make dist where the libraries' headers are"
}

# Sets LD_LIBRARY_PATH and EASYFIRST, or $why.
start_programs() {
    for folder in $(library_folders); do
        LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    done
    export LD_LIBRARY_PATH
    EASYFIRST=$(cd "$bin" && pwd)/easyfirst
    export EASYFIRST
    for t in $tests $programs; do ln -s "$(cd "$bin" && pwd)/easyfirst-tests" "$work/$t"; done
    if [ -z "${PROGRAMS:-}" ]; then
        missing=$(ldd "$bin/easyfirst-tests" "$bin/../lib/libeasyfirst-cuda.so" 2>&1 |
            grep -E 'not found|not a dynamic' | head -n 3 | tr '\n\t' '  ')
        [ -z "$missing" ] || { why="the programs do not start: $missing" && return; }
    fi
    within 60 "$work/try" env EASYFIRST_TEST_DEVICE=cuda "$work/test_linear" linear_no_rows ||
        why="the GPU cannot be used: $(grep -m 1 -iE 'cuda|gpu|error' "$work/try")"
}

# ---- Steps. ----

# Runs a command for so many seconds at most, its output in a file; 124: they were not enough. It runs
# beside this shell, so that a signal ends both.
within() { # seconds output command...
    seconds=$1 output=$2
    shift 2
    timeout -k 5 "$seconds" "$@" >"$output" 2>&1 &
    child=$!
    wait "$child"
    status=$?
    child=''
    [ $status != 137 ] || status=124
    return $status
}

# tests/run.sh prints a line "NAME  N passed, N failed, N skipped, N s", then what it has to tell.
run_test() { # key limit program [word]
    file=$work/$3
    if [ -n "${4:-}" ]; then
        file=$work/some-$3
        printf '#!/bin/sh\nexec %s %s\n' "$work/$3" "$4" >"$file"
        chmod +x "$file"
    fi
    within "$2" "$work/out" env EASYFIRST_TEST_DEVICE=cuda sh tests/run.sh "$file"
    numbers=$(sed -n 's/^[^ ]* *\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped, [0-9]* s$/\1 \2 \3/p' \
        "$work/out" | head -n 1)
    if [ -z "$numbers" ] && [ -n "$short" ]; then
        keep "$1${tab}short"
        return
    elif [ -z "$numbers" ]; then
        result "$1" 0 1 0 "$2" "failed: not done after $2 s"
    else
        # shellcheck disable=SC2086
        set -- "$1" $numbers
        result "$1" "$2" "$3" "$4" $(($(date +%s) - step)) "$2 passed, $3 failed, $4 skipped"
    fi
    # Failures, skips and notes, without the lines with numbers of tests.
    grep -vE "[0-9]+ passed, [0-9]+ failed, " "$work/out" >"$work/more"
    detail "$1" "$work/more"
}

# The same texts and images on both; words and their order are those of the CPU.
run_answers() { # key limit
    model='' images=''
    for folder in "$bin/../share/easyfirst" data/bundled; do
        if [ -d "$folder/model" ]; then model=$folder/model && images=$folder/images && break; fi
    done
    if [ -z "$model" ]; then
        result "$1" 0 0 1 0 "not run: the bundled model is not here"
        return
    fi
    for device in cpu cuda; do
        within "$2" "$work/$device" sh -c '
            program=$1 model=$2 images=$3 device=$4
            for question in "What is in the picture?" "Is there a tractor?" "What is left of the boat?"; do
                for image in "$images"/*.jpg; do
                    [ ! -f "$image" ] || "$program" ask -q -m "$model" --device "$device" --dtype f32 \
                        "$image" "$question" || exit 1
                done
            done
            printf "%s\n" "Werkzeug zum Bearbeiten von Bildern" "Bibliothek zum Lesen von Dateien" |
                "$program" text translate --from de --to en -q -m "$model" --device "$device" --dtype f32' \
            sh "$EASYFIRST" "$model" "$images" "$device" || {
            [ $? != 124 ] || [ -z "$short" ] || { keep "$1${tab}short" && return; }
            result "$1" 0 1 0 $(($(date +%s) - step)) "failed on $device: $(tail -n 1 "$work/$device")"
            return
        }
    done
    lines=$(wc -l <"$work/cpu")
    if cmp -s "$work/cpu" "$work/cuda"; then
        result "$1" 1 0 0 $(($(date +%s) - step)) "all $lines answers are equal"
    else
        result "$1" 0 1 0 $(($(date +%s) - step)) "failed: answers differ"
        diff "$work/cpu" "$work/cuda" >"$work/more"
        detail "$1" "$work/more"
    fi
}

# The script keeps its numbers itself, in $speed; a step here is done when nothing is missing there.
run_speed() { # key limit cases parts
    command -v python3 >/dev/null || return
    within "$2" "$work/out" python3 tests/reference/gpu_speed.py --program "$EASYFIRST" --results "$speed" \
        --seconds $(($2 - 5)) --only "$(echo "$3" | tr + ' ')" --parts "$4"
    status=$?
    cat "$work/out"
    if [ $status = 0 ]; then
        result "$1" 0 0 0 $(($(date +%s) - step)) "measured"
    elif [ $status = 3 ] || [ $status = 124 ]; then
        keep "$1${tab}short"
    else
        detail "$1" "$work/out"
    fi
}

find_sanitizer() {
    for s in compute-sanitizer /usr/local/cuda/bin/compute-sanitizer /opt/cuda/bin/compute-sanitizer; do
        command -v "$s" && return
    done
}

# One tool over one program: errors are counted, what it prints of them goes to the details.
run_sanitizer() { # key limit tool program
    sanitizer=$(find_sanitizer)
    if [ -z "$sanitizer" ]; then
        result "$1" 0 0 1 0 "not run: no compute-sanitizer"
        return
    fi
    within "$2" "$work/out" env EASYFIRST_TEST_DEVICE=cuda EASYFIRST_MIRROR=exact "$sanitizer" --tool "$3" \
        --target-processes all --print-limit 5 "$work/$4"
    status=$?
    if [ $status = 124 ] && [ -n "$short" ]; then
        keep "$1${tab}short"
        return
    fi
    summary=$(sed -n 's/^=* ERROR SUMMARY: //p; s/^=* RACECHECK SUMMARY: //p' "$work/out" | tail -n 1)
    passed=0 failed=0 skipped=0
    if [ -n "$summary" ] && [ $status != 124 ]; then
        # No errors of a program that did not get far are no success.
        case $summary in
        "0 "*) good=$status ;;
        *) good=1 ;;
        esac
        [ $status = 0 ] || summary="$summary; the program ended with status $status"
        if [ "$good" = 0 ]; then passed=1; else failed=1; fi
        text=$summary
    elif [ $status = 124 ] && ! grep -qE '^=+ (Invalid|Error|Uninit|Barrier)' "$work/out"; then
        text="not run to its end: $2 s were not enough; no error until then" skipped=1
    elif [ $status = 124 ]; then
        text="failed, and not run to its end" failed=1
    else
        text="not run: $(grep -m 1 -iE 'error|not supported|unable' "$work/out" | cut -c 1-150)" skipped=1
    fi
    result "$1" $passed $failed $skipped $(($(date +%s) - step)) "$text"
    grep -E '^=+' "$work/out" | grep -v SUMMARY | sed -n 2,40p >"$work/more"
    detail "$1" "$work/more"
}

# One row, unless it is known, has twice not come to its end, or does not fit into the time. A step gets
# its own limit or what is left of the whole, if that is less.
run_row() { # key command limit
    known "$1" && return
    if [ "$(begun "$1")" -ge 2 ]; then
        result "$1" 0 1 0 0 "failed: twice it did not come to its end"
        return
    fi
    limit=$3 short=''
    [ $(($(left) - 6)) -ge "$limit" ] || { limit=$(($(left) - 6)) && short=yes; }
    [ "$limit" -ge 5 ] || return
    key=$1 running=$1
    keep "$key${tab}begin"
    step=$(date +%s)
    # shellcheck disable=SC2086
    set -- $2
    function=$1
    shift
    "$function" "$key" "$limit" "$@"
    running=''
    text=$(awk -F'\t' -v k="$key" '$1 == k && NF == 6 {t = $6} END {print t}' "$rows")
    printf '%-46s %s\n' "$key" "${text:-not done}"
    case $key in speed*) write_speed ;; esac
    write_report
}

# ---- All of it. ----

why='' versions='' bin=bin
if [ -z "$gpu" ]; then
    why="no GPU"
    say "no GPU was found (nvidia-smi lists none): nothing is run"
    # A report of a GPU is not replaced by one without numbers.
    if [ -s "$rows" ]; then
        say "$report is of a GPU and stays"
        say "0 passed, 0 failed, $(plan | grep -cvE '^speed') skipped"
        exit 0
    fi
    rows=$work/rows speed=$work/speed
    touch "$rows" "$speed"
else
    find_programs
    if [ -z "$why" ]; then
        open_rows
        start_programs
    else
        rows=$work/rows speed=$work/speed
        touch "$rows" "$speed"
    fi
    versions=$(find_versions)
fi
write_speed
write_report
if [ -z "$why" ]; then
    plan >"$work/plan"
    while IFS='|' read -r key _ command seconds <&3; do
        run_row "$key" "$command" "$seconds"
    done 3<"$work/plan"
fi
write_report
say "written: $report"
sum=$(totals)
if [ -n "$gpu" ] && [ -n "$why" ]; then
    say "$why"
    sum=$(echo "$sum" | sed 's/ 0 failed/ 1 failed/')
fi
say "$sum"
case $sum in
*", 0 failed, "*) exit 0 ;;
*) exit 1 ;;
esac
