#!/bin/sh
# Runs test programs (cmocka) one after another and adds up their results.
# usage: tests/run.sh PROGRAM...
# Programs in a folder emulated/tests are the same tests of CUDA kernels, and are called so.
# The last line is "N passed, N failed, N skipped"; a program that dies counts as one failure.
# A test that cannot run here (no ../shared, say) is skipped and counted, never passed.
passed=0 failed=0 skipped=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for program in "$@"; do
    name=$(basename "$program")
    case $program in */emulated/tests/*) name="$name (emulated)" ;; esac
    start=$(date +%s)
    CMOCKA_MESSAGE_OUTPUT=TAP "$program" >"$log" 2>&1
    status=$?
    # A skipped test is "ok N # SKIP" in newer versions of cmocka, "not ok N # SKIP" in older ones.
    skip=$(grep -cE '^(not )?ok [0-9]+ # SKIP' "$log")
    ok=$(grep -E '^ok ' "$log" | grep -cvE '^ok [0-9]+ # SKIP')
    bad=$(grep -E '^not ok ' "$log" | grep -cvE '^not ok [0-9]+ # SKIP')
    planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
    # Died on the way (a crash, a sanitizer's report): the missing tests are one failure.
    if [ $((ok + bad + skip)) -lt "$planned" ] || [ "$planned" = 0 ] ||
        { [ $status -ne 0 ] && [ "$bad" = 0 ]; }; then
        bad=$((bad + 1))
        echo "$name: exit status $status after $((ok + bad + skip - 1)) of $planned tests"
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-25s %3d passed, %d failed, %d skipped, %d s\n' "$name" "$ok" "$bad" "$skip" \
        $(($(date +%s) - start))
    grep -E '^(not )?ok [0-9]+ # SKIP' "$log" | sed 's/^.*# /    /'
    if [ "$bad" -gt 0 ]; then sed 's/^/    /' "$log" | tail -n 60; else grep '^note: ' "$log" | sed 's/^/    /'; fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
