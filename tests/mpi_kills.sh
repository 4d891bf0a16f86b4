#!/bin/sh
# Kills random ranks of `mpirun -n 3 easyfirst train` at random moments, and resumes the run each time.
# usage: tests/mpi_kills.sh [KILLS [SEED [ZERO]]]     (60, 1, 2; $EASYFIRST is the program; from the root of the sources)
# After each kill all processes must end within 30 s, mpirun with a message, and no checkpoint may be lost. At the end
# the curve and the weights must be those of a run that nothing has interrupted, bit by bit. tests/mpi_test.sh does 3.
program=${EASYFIRST:-build/easyfirst}
kills=${1:-60}
seed=${2:-1}
zero=${3:-2}
ranks=3
[ -w /dev/shm ] && TMPDIR=${TMPDIR:-/dev/shm} && export TMPDIR
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# Else Open MPI 4's mpirun, all ranks being gone, may wait forever for a lock that a killed one had.
export PMIX_MCA_gds=hash
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none

fail() {
    echo "mpi_kills: $*"
    [ -s "$folder/log" ] && tail -n 30 "$folder/log"
    exit 1
}

"$program" new "$folder/model" --tokenizer tests/golden/models/tiny-base/language/sentencepiece.bpe.model --layers 2 \
    --width 32 --heads 2 --ffn 64 --positions 130 --seed 5 >"$folder/log" 2>&1 || fail "no model"
awk -v file="$folder/pairs.jsonl" 'BEGIN {
    for (i = 0; i < 47; i++) printf "{\"inputs\": \"one %d two\", \"targets\": \"eins %d zwei %d\"}\n", i, i, i % 7 > file }'
train="train adapt -m $folder/model --data $folder/pairs.jsonl --batch-sequences 5 --steps 100000 --lr 1e-3 --zero $zero
       --valid $folder/pairs.jsonl --valid-limit 5 --valid-every 7 --show-answers 0 --log-every 1 --save-every 5 --quiet"

newest() { find "$folder/run" -maxdepth 1 -name 'checkpoint-????????' 2>/dev/null | sed 's/.*-0*\([0-9]\)/\1/' | sort -n | tail -n 1; }
# A zombie, where nobody waits for it, has no command line.
lives() { [ -n "$1" ] && [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline")" ]; }
pid() { cat "$folder/pid.$1" 2>/dev/null; }
any_lives() {
    lives "$job" && return 0
    for r in $(seq 0 $((ranks - 1))); do lives "$(pid "$r")" && return 0; done
    return 1
}

# begin ARGUMENTS...: the run from its last checkpoint, in the background; each rank leaves its number in pid.RANK.
begin() {
    resume=
    rm -f "$folder"/pid.*
    [ -n "$(newest)" ] && resume=--resume
    # shellcheck disable=SC2086
    mpirun --allow-run-as-root --oversubscribe -n $ranks sh -c \
        'echo $$ >"$0/new.$OMPI_COMM_WORLD_RANK" && mv "$0/new.$OMPI_COMM_WORLD_RANK" "$0/pid.$OMPI_COMM_WORLD_RANK"; exec "$@"' \
        "$folder" "$program" $train $resume --out "$folder/run" "$@" >"$folder/log" 2>&1 &
    job=$!
}

# Kills come within the time that 20 steps take here from the start.
began=$(date +%s%N)
# shellcheck disable=SC2086
timeout 300 mpirun --allow-run-as-root --oversubscribe -n $ranks "$program" $train --out "$folder/timed" --stop-after 20 \
    >"$folder/log" 2>&1 || fail "20 steps"
span=$((($(date +%s%N) - began) / 1000000))

before=0
for kill in $(seq "$kills"); do
    # Which rank, and when.
    # shellcheck disable=SC2046
    set -- $(awk -v seed="$seed" -v n="$kill" -v ranks=$ranks -v span=$span 'BEGIN { srand(1000 * seed + n); rand(); print int(ranks * rand()), span * rand() / 1000 }')
    begin
    sleep "$2"
    tries=0
    while [ -z "$(pid "$1")" ] && [ $tries -lt 300 ]; do sleep 0.1 && tries=$((tries + 1)); done
    lives "$(pid "$1")" || fail "kill $kill: rank $1 has ended by itself"
    kill -KILL "$(pid "$1")" || fail "kill $kill: rank $1 is gone"
    tries=0
    while any_lives && [ $tries -lt 300 ]; do sleep 0.1 && tries=$((tries + 1)); done
    any_lives && kill -KILL $job && fail "kill $kill: 30 s after rank $1 was killed, $2 s after the start, others live"
    wait $job && fail "kill $kill: mpirun says that all is well"
    # One that is killed before all have joined may first be noticed by another, which then ends with a message.
    grep -q -e "signal 9" -e "non-zero exit code" "$folder/log" || fail "kill $kill: no message"
    after=$(newest)
    [ "${after:-0}" -ge "$before" ] || fail "kill $kill: the last checkpoint is that of step ${after:-0}, it was $before"
    before=${after:-0}
    [ -t 1 ] && printf '\r%d of %d, step %d ' "$kill" "$kills" "$before"
done

begin --stop-after 3
wait $job || fail "it cannot be resumed"
steps=$(newest)
# shellcheck disable=SC2086
timeout 600 mpirun --allow-run-as-root --oversubscribe -n $ranks "$program" $train --out "$folder/whole" --stop-after "$steps" \
    >"$folder/log" 2>&1 || fail "the uninterrupted run"
for run in run whole; do
    sed 's/"tokens_per_s.*"skipped"/"skipped"/; s/, "seconds": [^,}]*//' "$folder/$run/metrics.jsonl" >"$folder/$run.curve"
done
cmp -s "$folder/run.curve" "$folder/whole.curve" || fail "another curve: $(diff "$folder/run.curve" "$folder/whole.curve" | head -n 4)"
last=$(printf 'checkpoint-%08d' "$steps")
for file in language/model.safetensors training/language.safetensors; do
    cmp -s "$folder/run/$last/$file" "$folder/whole/$last/$file" || fail "step $steps: another $file"
done
echo "ZeRO $zero: $kills kills in $steps steps: all ended, nothing was lost, the same weights as without"
