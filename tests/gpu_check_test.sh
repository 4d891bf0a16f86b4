#!/bin/sh
# Tests of tests/gpu_check.sh without a GPU: made-up programs in place of the real ones, each of which
# notes when it begins and ends. The check is killed in the middle of ten of its steps and started again.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/path"
export NOTES="$work/notes" KILL_AT="$work/kill_at" CHECK="$work/check"
: >"$NOTES"

cat >"$work/path/nvidia-smi" <<'END'
#!/bin/sh
echo "Made-up GPU, 1000 MiB, 1.0"
END
cat >"$work/path/compute-sanitizer" <<'END'
#!/bin/sh
while [ "${1#--}" != "$1" ]; do [ "$1" != --tool ] || tool=$2; shift; shift; done
exec "$1" "$tool"
END
# As easyfirst-tests: its name is the program, a word a test of it. A step in which the check is to be killed
# does that and goes, too.
cat >"$work/bin/easyfirst-tests" <<'END'
#!/bin/sh
name="$(basename "$0") $*"
[ "$*" != linear_no_rows ] || exit 0
echo "begin $name" >>"$NOTES"
if [ "$name" = "$(cat "$KILL_AT" 2>/dev/null)" ]; then
    rm "$KILL_AT"
    kill -"$KILL_SIGNAL" "$(cat "$CHECK")"
    [ "$KILL_SIGNAL" = KILL ] || sleep 5 # the check ends it
    exit
fi
case $name in
test_backward*) echo "not ok 1 - something" ;;
*) echo "ok 1 - something" ;;
esac
echo "1..1"
echo "== ERROR SUMMARY: 0 errors"
echo "end $name" >>"$NOTES"
END
cat >"$work/bin/easyfirst" <<'END'
#!/bin/sh
echo '{"ms_median": 2, "peak_gflops": 1, "batch": 1, "matmul_ms": 1, "share": 50, "matmul_gflops": 1,
 "gflops": 1, "bytes_up": 0, "bytes_down": 0, "launches": 3, "tokens_per_s": 1, "predicted_mb": 1, "peak_mb": 1}' |
    tr -d '\n'
echo
END
chmod +x "$work"/bin/* "$work"/path/*

check() {
    PATH=$work/path:$PATH PROGRAMS=$work/bin sh -c 'echo $$ >"$CHECK" && exec sh tests/gpu_check.sh "$1"' \
        sh "$work/report.md" >"$work/out" 2>&1
}

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

export KILL_SIGNAL=KILL
killed_at() {
    echo "$1" >"$KILL_AT"
    check
    status=$?
    case $KILL_SIGNAL in KILL) [ $status = 137 ] ;; *) [ $status = 130 ] ;; esac && [ ! -f "$KILL_AT" ]
}

for step in "test_linear linear_" "test_attention test_sizes" "test_ops " "test_muon " "test_models " \
    "test_replay " "test_segment " "test_apps " "test_ops memcheck" "test_attention racecheck"; do
    is "killed in $step" killed_at "$step"
done
# Ended by a signal that it sees, however often: the step is run again (killed, twice would be enough).
KILL_SIGNAL=TERM
for time in first second third; do
    is "ended in test_train_ops initcheck, the $time time" killed_at "test_train_ops initcheck"
done
# Half a line, as of a machine that went while it was written.
printf 'test_train\t5\t0' >>"$work/report.rows"
check
rows() { grep -c "^end " "$NOTES"; }
is "the report is whole" sh -c '! grep -q "not run yet" "$1"' sh "$work/report.md"
is "a row with half a line was run" grep -q '^| test_train: .* | 1 passed' "$work/report.md"
is "no step was run to its end twice" sh -c 'test -z "$(grep "^end " "$1" | sort | uniq -d)"' sh "$NOTES"
is "all 47 steps were run" test "$(rows)" = 47
is "speed was measured" grep -q '^| vit-l-14 | 2.000 ms ' "$work/report.md"
is "a failed test counts" grep -q '^| test_backward | 0 passed, 1 failed' "$work/report.md"
is "the sum" sh -c 'tail -n 1 "$1" | grep -q "^47 passed, 1 failed, 0 skipped$"' sh "$work/out"
before=$(rows)
cp "$work/report.md" "$work/first.md"
check
is "a run with nothing missing runs nothing" test "$(rows)" = "$before"
is "and writes the same report" cmp -s "$work/report.md" "$work/first.md"
echo "# another build" >>"$work/bin/easyfirst-tests"
check
is "another build runs all again" test "$(rows)" = $((2 * before))
echo "1..$tests"
[ $failures = 0 ]
