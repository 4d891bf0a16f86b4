#!/bin/sh
# The fuzz targets as tests (TAP): each for $FUZZ_SECONDS (default 10) from the seeds and what earlier
# runs found; where the fuzzer could not be built, for want of clang, one skipped test.
build=${FUZZ_BUILD:-build/fuzz}
if [ ! -x "$build/easyfirst-fuzz" ]; then
    echo "1..1"
    echo "ok 1 # SKIP no clang with libFuzzer here (packages clang, libclang-rt-14-dev)"
    exit 0
fi
# Two targets a core: here they are to be looked at for so long, not to run as often as they can.
FUZZ_JOBS=${FUZZ_JOBS:-$((2 * $(nproc 2>/dev/null || echo 1)))}
export FUZZ_JOBS
FUZZ_TAP=1 exec sh "$(dirname "$0")/run.sh" "$build" "${FUZZ_SECONDS:-10}"
