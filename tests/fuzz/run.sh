#!/bin/sh
# Runs the fuzz targets, FUZZ_JOBS (default: as many as cores) at a time.
# usage: tests/fuzz/run.sh BUILD SECONDS       ($FUZZ_TARGETS: only these; $FUZZ_TAP: results as TAP;
#                                               $FUZZ_RUNS: no more inputs than these for each)
#
# BUILD/easyfirst-fuzz is the program (`make fuzz`). For each target: BUILD/corpus/TARGET are inputs of
# earlier runs, BUILD/seeds/TARGET those that tests/fuzz/seeds.sh makes of tests/golden, BUILD/findings
# what failed. BUILD/counts.tsv adds up over all runs: target, inputs, edges covered, findings.
build=$1 seconds=${2:-60}
program=$build/easyfirst-fuzz
jobs=${FUZZ_JOBS:-$(nproc 2>/dev/null || echo 1)}
export OMP_NUM_THREADS=1
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1:handle_abort=1:quarantine_size_mb=16}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
all=$(FUZZ_TARGET=list "$program") || exit 1
targets=${FUZZ_TARGETS:-$(echo "$all" | cut -d' ' -f1)}
sh tests/fuzz/seeds.sh "$build/seeds" || exit 1

shm=/dev/shm
[ -w "$shm" ] || shm=${TMPDIR:-/tmp}

# One target; its line of results goes to BUILD/logs/TARGET.result.
one() {
    target=$1
    longest=$(echo "$all" | sed -n "s/^$target //p")
    log=$build/logs/$target.log
    mkdir -p "$build/logs" "$build/corpus/$target" "$build/findings/$target" "$build/seeds/$target"
    dictionary=tests/fuzz/dictionaries/$target.dict
    set -- "$build/corpus/$target" "$build/seeds/$target"
    [ -d "tests/fuzz/regressions/$target" ] && set -- "$@" "tests/fuzz/regressions/$target"
    [ -f "$dictionary" ] && set -- "-dict=$dictionary" "$@"
    # A crash leaves what the target had made.
    FUZZ_FOLDER=$(mktemp -d "$shm/easyfirst-fuzz-XXXXXX") || return
    export FUZZ_FOLDER
    # Twice the time is more than the last input can take.
    # libde265 and dav1d allocate the frame that the stream claims before they find that it is not there;
    # of their memory only what is touched counts.
    case $target in heic | avif) limit=8192 ;; *) limit=512 ;; esac
    FUZZ_TARGET=$target timeout -k 5 $((2 * seconds + 60)) "$program" -max_total_time="$seconds" -runs="${FUZZ_RUNS:--1}" -timeout=5 \
        -rss_limit_mb=512 -malloc_limit_mb=$limit -max_len="${longest:-4096}" -print_final_stats=1 -close_fd_mask=3 -use_value_profile="${FUZZ_VALUE_PROFILE:-0}" \
        -artifact_prefix="$build/findings/$target/" "$@" >"$log" 2>&1
    status=$?
    rm -rf "$FUZZ_FOLDER"
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log" | tail -n 1)
    cov=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    found=$(find "$build/findings/$target" -type f ! -name 'slow-unit-*' | wc -l)
    [ "$status" != 0 ] && [ "$found" = 0 ] && found=1
    echo "$target ${inputs:-0} ${cov:-0} $found ${memory:-0} $status" >"$build/logs/$target.result"
}

running=0
for target in $targets; do
    rm -f "$build/logs/$target.result"
    one "$target" &
    running=$((running + 1))
    # Waits for all of a round: they take the same time.
    if [ $((running % jobs)) = 0 ]; then wait; fi
done
wait

count=$(echo $targets | wc -w) number=0 failed=0
[ -n "$FUZZ_TAP" ] && echo "1..$count"
for target in $targets; do
    number=$((number + 1))
    # shellcheck disable=SC2046
    set -- $(cat "$build/logs/$target.result" 2>/dev/null || echo "$target 0 0 1 0 127")
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$build/counts.tsv"
    what="fuzz $1: $2 inputs, $3 edges, $4 findings, $5 MB"
    ok="ok"
    if [ "$4" != 0 ] || [ "$6" != 0 ]; then ok="not ok" failed=$((failed + 1)); fi
    if [ -n "$FUZZ_TAP" ]; then
        echo "$ok $number - $what"
    else
        printf '%-16s %10s inputs %6s edges %3s findings %4s MB\n' "$1" "$2" "$3" "$4" "$5"
    fi
    if [ "$ok" = "not ok" ]; then
        grep -aE 'ERROR|runtime error|does not hold|SUMMARY|Test unit written' "$build/logs/$target.log" |
            sed 's/^/    /' | head -n 8
    fi
done
[ "$failed" = 0 ]
