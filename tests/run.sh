#!/bin/sh
# Runs test programs (cmocka's, and others that print TAP) and adds up their results.
# usage: tests/run.sh PROGRAM...        ($JOBS at a time, default: as many as cores)
# Programs in a folder emulated/tests are the same tests of CUDA kernels, and are called so.
# Results are printed in the order given, not that in which they come. The long ones begin
# first; those that depend on time run alone, at the end.
# The last line is "N passed, N failed, N skipped"; a program that dies counts as one failure.
# A test that cannot run here (no ../shared, say) is skipped and counted, never passed.
LONG="manuals_test.sh mpi_test.sh layers_test.sh test_train test_train_run test_gradients test_segment test_eval test_faults test_infill test_order_program test_linear"
ALONE="test_show_keys test_show_live page_browser.sh fuzz.sh"

# One program, named by its number: NUMBER.log is what it printed, NUMBER.done its status and time.
if [ "$1" = --one ]; then
    start=$(date +%s)
    CMOCKA_MESSAGE_OUTPUT=TAP "$4" >"$2/$3.log" 2>&1
    status=$?
    echo "$status $(($(date +%s) - start))" >"$2/$3.new" && mv "$2/$3.new" "$2/$3.done"
    exit 0
fi

folder=$(mktemp -d) || exit 1
runner=
trap 'rm -rf "$folder"' EXIT
trap '[ -n "$runner" ] && kill "$runner" 2>/dev/null; exit 130' INT TERM
jobs=${JOBS:-$(nproc 2>/dev/null || echo 1)}
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # they share the cores

# Lines "number program" of the three groups.
is_in() { case " $1 " in *" $2 "*) true ;; *) false ;; esac }
number=0
: >"$folder/long" && : >"$folder/other" && : >"$folder/alone"
for program in "$@"; do
    number=$((number + 1))
    name=$(basename "$program")
    group=other
    is_in "$LONG" "$name" && group=long
    is_in "$ALONE" "$name" && group=alone
    echo "$number $program" >>"$folder/$group"
done
{
    cat "$folder/long" "$folder/other" | xargs -L 1 -P "$jobs" sh "$0" --one "$folder"
    xargs -L 1 sh "$0" --one "$folder" <"$folder/alone"
    touch "$folder/all"
} &
runner=$!

passed=0 failed=0 skipped=0 number=0
for program in "$@"; do
    number=$((number + 1))
    log=$folder/$number.log
    while [ ! -e "$folder/$number.done" ] && [ ! -e "$folder/all" ]; do sleep 0.2; done
    read -r status seconds 2>/dev/null <"$folder/$number.done" || status=127 seconds=0
    [ -e "$log" ] || : >"$log"
    name=$(basename "$program")
    case $program in */emulated/tests/*) name="$name (emulated)" ;; esac
    # A skipped test is "ok N # SKIP" in newer versions of cmocka, "not ok N # SKIP" in older ones.
    skip=$(grep -cE '^(not )?ok [0-9]+ # SKIP' "$log")
    ok=$(grep -E '^ok ' "$log" | grep -cvE '^ok [0-9]+ # SKIP')
    bad=$(grep -E '^not ok ' "$log" | grep -cvE '^not ok [0-9]+ # SKIP')
    planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
    # Died before its end (a crash, a sanitizer's report): the missing tests are one failure.
    if [ $((ok + bad + skip)) -lt "$planned" ] || [ "$planned" = 0 ] ||
        { [ "$status" -ne 0 ] && [ "$bad" = 0 ]; }; then
        bad=$((bad + 1))
        echo "$name: exit status $status after $((ok + bad + skip - 1)) of $planned tests"
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-25s %3d passed, %d failed, %d skipped, %d s\n' "$name" "$ok" "$bad" "$skip" "$seconds"
    grep -E '^(not )?ok [0-9]+ # SKIP' "$log" | sed 's/^.*# /    /'
    if [ "$bad" -gt 0 ]; then sed 's/^/    /' "$log" | tail -n 60; else grep '^note: ' "$log" | sed 's/^/    /'; fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
