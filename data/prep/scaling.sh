#!/bin/sh
# How much faster two processes train than one, on two cores that nothing else uses: the table in
# apps/train/README.md.
# usage: data/prep/scaling.sh PAIRS.jsonl OUT [ROUNDS]
#   PAIRS   text pairs; OUT is replaced; ROUNDS (3) of all, in turns
# In the environment: EASYFIRST (build/easyfirst). Needs mpirun and python3.
set -eu
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
pairs=$1 out=$2 rounds=${3:-3} easyfirst=${EASYFIRST:-build/easyfirst}
rm -rf "$out"
mkdir -p "$out"
"$easyfirst" new "$out/model" --tokenizer data/bundled/model/language/sentencepiece.bpe.model --layers 4 \
    --width 256 --heads 4 --ffn 1024 >/dev/null 2>&1
run() { # NAME COMMAND ...: the median seconds of an update, the first four left out
    name=$1
    shift
    rm -rf "$out/run"
    # shellcheck disable=SC2086 # no option, or several words
    "$@" train adapt -m "$out/model" --data "$pairs" --out "$out/run" --dtype f32 --steps 14 \
        --batch-tokens 4096 --micro-batch-tokens 1024 --max-tokens 256 --save-every 0 --show-answers 0 \
        --log-every 1 --warmup-steps 4 --threads 1 -q $zero
    python3 -c 'import json, statistics, sys
at = [line["seconds"] for line in map(json.loads, open(sys.argv[1])) if "seconds" in line]
print(sys.argv[2], round(statistics.median(b - a for a, b in zip(at[3:], at[4:])), 3), "s")' \
        "$out/run/metrics.jsonl" "$name"
}
for _ in $(seq "$rounds"); do
    zero=
    run "one process" "$easyfirst"
    for level in 0 1 2 3 "3 --overlap on"; do
        zero="--zero $level"
        run "two, ZeRO $level" mpirun --allow-run-as-root --bind-to core -n 2 "$easyfirst"
    done
done
