#!/bin/sh
# `mpirun -n N easyfirst train`: the same training on 1, 2 and 4 processes. Prints TAP.
# usage: tests/mpi_test.sh [all]     ($EASYFIRST is the program; from the root of the sources)
# With `all` each comparison has every level of ZeRO that it lists and 1, 2 and 4 processes; else the last one and 1 and
# 3, with fewer steps.
# Everything is skipped, and counted, where mpirun is missing.
# shellcheck source=tests/mpi.sh
. tests/mpi.sh
some=yes long=24 short=6
[ "$1" = all ] && some='' long=200 short=16

# losses RUN: lines "step train loss", "step valid loss" and "step score score".
losses() {
    sed -n 'h; s/.*"step": \([0-9]*\),.* "loss": \([^,}]*\).*/\1 train \2/p
            g; s/.*"step": \([0-9]*\),.*"valid_loss": \([^,}]*\).*/\1 valid \2/p
            g; s/.*"step": \([0-9]*\),.*"valid_score": \([^,}]*\).*/\1 score \2/p' "$1/metrics.jsonl"
}

# same RUN RUN BOUND: the same steps, each loss within a relative bound.
same() {
    losses "$1" >"$folder/a" && losses "$2" >"$folder/b"
    [ -s "$folder/a" ] || return 1
    paste -d ' ' "$folder/a" "$folder/b" | awk -v bound="$3" '
        NF != 6 || $1 != $4 || $2 != $5 { bad = 1 }
        { d = ($3 - $6) / ($3 ? $3 : 1); if (d < 0) d = -d; if (!(d <= bound)) { bad = 1; print "#", $0 } }
        END { exit bad }'
}

# train N NAME ARGUMENTS...: a run; its output is NAME.log.
train() {
    n=$1 name=$2
    shift 2
    if [ "$n" = 1 ]; then
        "$program" train "$@" --out "$folder/$name" >"$folder/$name.log" 2>&1
    else
        ranks "$n" "$program" train "$@" --out "$folder/$name" >"$folder/$name.log" 2>&1
    fi
}

# kept RUN: its curve, without times.
kept() { sed 's/"tokens_per_s.*"skipped"/"skipped"/; s/, "seconds": [^,}]*//' "$folder/$1/metrics.jsonl" >"$folder/$1.kept"; }

# best RUN: the step of its best model.
best() { grep -o '"step": [0-9]*' "$folder/$1/best/best.json" 2>/dev/null; }

# compare NAME BOUND "LEVELS" ARGUMENTS...: one process against 2 at each of these levels of ZeRO, and 4 at the last.
# In the background, four at a time, since processes mostly wait for each other; `compared` prints the results.
compare() {
    running=$((running + 1))
    mkdir "$folder/compare$running"
    (folder=$folder/compare$running && run_compare "$@" >"$folder/result" 2>&1) &
    [ $((running % 4)) = 0 ] && wait
}
run_compare() {
    what=$1 bound=$2 levels=$3 bad=0
    shift 3
    last=${levels##* }
    runs="3:$last"
    [ -z "$some" ] && runs="$(for level in $levels; do echo "2:$level"; done) 4:$last"
    train 1 one "$@" || bad=1
    for run in $runs; do
        train "${run%:*}" many "$@" --zero "${run#*:}" && same "$folder/one" "$folder/many" "$bound" || bad=1
        [ "$(best one)" = "$(best many)" ] || bad=1
        [ $bad = 1 ] && tail -n 3 "$folder/many.log" | sed 's/^/# /'
        rm -rf "$folder/many"
    done
    echo "result $bad $what: 1 against ranks:ZeRO" $runs
}
compared() {
    wait
    for i in $(seq "$running"); do
        sed '/^result/d' "$folder/compare$i/result"
        # shellcheck disable=SC2046
        set -- $(sed -n 's/^result //p' "$folder/compare$i/result")
        status=${1:-1}
        [ $# -gt 0 ] && shift
        result "$status" "$*"
    done
}
running=0

# ---- Models and data. ----

tiny="--tokenizer tests/golden/models/tiny-base/language/sentencepiece.bpe.model --layers 2 --width 32
      --heads 2 --ffn 64 --positions 130 --image-size 28 --patch 14 --vision-layers 2
      --vision-width 16 --vision-heads 2 --vision-ffn 32 --projector linear --seed 5"
# shellcheck disable=SC2086
"$program" new "$folder/model" $tiny >"$folder/new.log" 2>&1 || cat "$folder/new.log"
mkdir "$folder/images"
cp tests/golden/models/image0.png "$folder/images/a.png"
cp tests/golden/models/image1.png "$folder/images/b.png"
awk -v folder="$folder" 'BEGIN {
    split("null eins zwei drei vier", de); split("zero one two three four", en)
    for (i = 0; i < 61; i++) {
        a = en[i % 5 + 1]; b = de[i % 5 + 1]
        for (k = 0; k < i % 7; k++) { a = a " " en[(i + 3 * k) % 5 + 1]; b = b " " de[(i + 3 * k) % 5 + 1] }
        printf "{\"inputs\": \"%s\", \"targets\": \"%s\"}\n", a, b > (folder "/pairs.jsonl")
        print b " " a "\n" > (folder "/text.txt")
        image = i % 3 == 0 ? "" : sprintf("\"image\": \"%s.png\", ", i % 2 ? "a" : "b")
        lead = i % 3 == 0 ? "" : "<image>\\n"
        printf "%s{\"id\": \"%d\", %s\"conversations\": [{\"from\": \"human\", \"value\": \"%s%s\"}, {\"from\": \"gpt\", \"value\": \"%s\"}, {\"from\": \"human\", \"value\": \"%s\"}, {\"from\": \"gpt\", \"value\": \"%s %s\"}]}", \
            (i ? ",\n" : "["), i, image, lead, a, b, b, a, a > (folder "/talk.json")
    }
    print "]" > (folder "/talk.json")
    print "{" > (folder "/scenes.json")
    for (i = 0; i < 2; i++)
        printf "\"%s.png\": {\"width\": %d, \"height\": %d, \"objects\": {\"1\": {\"name\": \"cat\", \"x\": 3, \"y\": %d, \"w\": 11, \"h\": 9}}}%s\n", \
            (i ? "b" : "a"), (i ? 28 : 50), (i ? 61 : 37), 4 + i, (i ? "" : ",") > (folder "/scenes.json")
    print "}" > (folder "/scenes.json")
}'

echo "not an image" >"$folder/images/c.png"
sed '2,19s/b.png/c.png/' "$folder/talk.json" >"$folder/damaged.json"

"$program" new "$folder/wide" --tokenizer tests/golden/models/tiny-base/language/sentencepiece.bpe.model \
    --layers 1 --width 384 --heads 6 --ffn 1536 --positions 130 --seed 5 >"$folder/new.log" 2>&1 || cat "$folder/new.log"
wide="adapt -m $folder/wide --data $folder/pairs.jsonl --batch-sequences 4 --dropout 0 --steps 4
      --warmup-steps 1 --log-every 1"
# Blocks so narrow that the embeddings come in six parts.
# shellcheck disable=SC2086
"$program" new "$folder/narrow" $tiny --width 16 --ffn 16 >"$folder/new.log" 2>&1 || cat "$folder/new.log"
# shellcheck disable=SC2086
"$program" new "$folder/odd" $tiny --width 16 --ffn 16 --layers 3 >"$folder/new.log" 2>&1 || cat "$folder/new.log"
common="-m $folder/model --lr 2e-3 --warmup-steps 3 --log-every 1 --show-answers 0 --dropout 0 --save-every 0"
adapt="adapt $common --data $folder/pairs.jsonl --valid $folder/pairs.jsonl --valid-limit 9
       --valid-every 10 --batch-sequences 7"
tune="tune $common --data $folder/talk.json --images $folder/images --batch-sequences 5"

# ---- The same losses. ----

# shellcheck disable=SC2086
{
    compare "adapt, $long steps, micro-batches" 1e-6 "0 1 2 3" $adapt --steps $long --micro-batch-tokens 64 --valid-every 12
    compare "adapt, fewer sequences than ranks" 1e-6 "0 2 3" $adapt --batch-sequences 1 --steps $short
    compare "adapt, the best by generated answers" 1e-6 "1 2 3" $adapt --steps $short --valid-every 3 --best-by chrf --valid-answers 5
    compare "tune with images, vision tower too" 1e-6 "0 1 2 3" $tune --steps $short --train-vision --micro-batch-tokens 128
    compare "tune, language frozen" 1e-6 "3 2" $tune --steps $short --freeze-language
    compare "tune, some images damaged" 1e-6 "0 3 2" $tune --data "$folder/damaged.json" --max-bad-fraction 1 --epochs 1
    compare "align" 1e-6 "1 3" align $common --data "$folder/talk.json" --images "$folder/images" --batch-sequences 5 --steps $short
    compare "LoRA" 1e-6 "0 3 2" $adapt --steps $short --lora-rank 4
    compare "pretrain" 1e-6 "2 3" pretrain $common --data "$folder/text.txt" --batch-tokens 150 --max-tokens 40 --steps $short
    compare "length" 1e-6 "1 3 2" length $common --data "$folder/pairs.jsonl" --batch-sequences 6 --steps $short
    compare "segment" 1e-6 "2 3" segment $common --data "$folder/scenes.json" --images "$folder/images" --batch-sequences 2 --steps $short
    compare "embeddings in parts" 1e-6 "2 3" $adapt -m "$folder/narrow" --steps $short --micro-batch-tokens 64 --valid-every 3 --best-by chrf --valid-answers 5
    compare "embeddings in parts, images, clipping" 1e-6 "2 3" $tune -m "$folder/narrow" --steps $short --train-vision --clip 0.1 --label-smoothing 0.1
    compare "ar" 1e-6 "2 3" instruct $common -m tests/golden/causal/qwen2 --dtype f32 --objective ar --data "$folder/pairs.jsonl" --batch-sequences 5 --steps $short
    # Muon's matmuls may be in bf16, and so are a bf16 model's.
    compare "Muon, whole matrices" 1e-4 "0 1 3 2" $adapt --optimizer muon --steps $short
    compare "bf16, masters divided" 1e-3 "0 1 2 3" $adapt --dtype bf16 --steps $short
    compare "bf16 without master weights" 1e-3 "0 1 2 3" $adapt --dtype bf16 --master-weights none --steps $short
    # A rounding that differs moves a byte, and a byte the loss: less than bf16 does.
    compare "moments in 8 bits" 1e-4 "0 1 2 3" $wide --moments 8bit
    compared
}

# ---- Overlap. ----

# The same bits and bytes as without.
exchanged() { sed -n 's/^ranks *\(.*\); this one.*/\1/p' "$folder/$1.log"; }
overlapped() { # NAME "LEVELS" ARGUMENTS...
    what=$1 levels=$2 bad=0
    shift 2
    for zero in $levels; do
        for overlap in off on; do
            train 3 $overlap "$@" --show-answers 0 --save-every 0 --warmup-steps 2 --log-every 1 --zero $zero --overlap $overlap || bad=1
            kept $overlap
        done
        cmp -s "$folder/off.kept" "$folder/on.kept" || bad=1
        cmp -s "$folder/off/model/language/model.safetensors" "$folder/on/model/language/model.safetensors" || bad=1
        [ -n "$(exchanged on)" ] && [ "$(exchanged off)" = "$(exchanged on)" ] || bad=1
        rm -rf "$folder/off" "$folder/on"
    done
    result $bad "overlap, $what: bit-identical, as many bytes"
}
# shellcheck disable=SC2086
{
    overlapped "micro-batches, parts, an odd number of blocks" "2 3" $adapt -m "$folder/odd" --steps 4 --micro-batch-tokens 64 --valid-every 2 --best-by chrf --valid-answers 5
    overlapped "images, vision tower too" 3 $tune -m "$folder/narrow" --steps 3 --train-vision --activation-checkpointing
    overlapped "LLaMA's kind, bf16" 3 instruct -m tests/golden/causal/qwen2 --dtype bf16 --objective ar --data "$folder/pairs.jsonl" --batch-sequences 5 --steps 3
}

# ---- Bytes between ranks. ----

# counted LOG LEVEL RANKS: (N - 1) bytes for each byte of a reduction and of a gathering, as apps/train/README.md has it.
counted() {
    grep '^ranks ' "$folder/$1.log" | tr -c '0-9\n' ' ' | awk -v level="$2" -v n="$3" '
        { values = $3; blocks = $4; parts = $5; vectors = $6; sent = $7; got = $8; updates = $9; passes = $10
          rest = values - blocks - parts
          want = level < 2 ? values * updates : (blocks + 2 * parts) * passes + rest * updates
          weights = level < 3 ? values * updates : (2 * blocks + 3 * parts) * passes + rest * updates
          if (level == 3) { want += vectors * updates; weights += vectors * updates }
          want *= 4 * (n - 1); weights *= 4 * (n - 1)
          printf "# ZeRO %d, %d ranks: %.3f and %.3f times (N - 1) / N n sent and received by each rank in an update of %.1f passes\n", level, n, sent / (4 * values * updates * (n - 1)), got / (4 * values * updates * (n - 1)), passes / updates
          if ($1 != n || $2 != level || sent != want || got != weights || !updates) { print "# " $0 ", expected " want " and " weights; exit 1 }
          if (level == 3 && !(parts && blocks && vectors)) { print "# no parts: " $0; exit 1 }
          found = 1 }
        END { exit !found }'
}
bad=0
for n in 2 4; do
    for level in 0 1 2 3; do
        # shellcheck disable=SC2086
        train $n volume adapt $common -m "$folder/narrow" --data "$folder/pairs.jsonl" --batch-sequences 7 --steps 3 --micro-batch-tokens 64 --zero $level || bad=1
        counted volume $level $n || bad=1
        rm -rf "$folder/volume"
    done
done
result $bad "bytes between 2 and 4 ranks are those of theory"

# ---- GPUs. ----

# The CUDA backend on its emulator, with a stand-in for NCCL, which exchanges at once or as late as streams and events
# allow, and without NCCL.
cpu_program=$program
program=$(dirname "$program")/emulated/easyfirst
# shellcheck disable=SC2086
[ -x "$program" ] && train 1 alone $adapt -m "$folder/narrow" --device cuda --steps 3 --valid-every 0
for nccl in yes late no; do
    if [ ! -x "$program" ]; then
        number=$((number + 1))
        echo "ok $number # SKIP no emulated program, NCCL: $nccl"
        continue
    fi
    bad=0 levels="0 2 3" overlap=
    unset EMULATED_WITHOUT_NCCL EMULATED_LATE
    [ $nccl = no ] && export EMULATED_WITHOUT_NCCL=1 && levels="2 3"
    [ $nccl = late ] && export EMULATED_LATE=1 && levels="2 3" && overlap="--overlap on"
    for level in $levels; do
        # shellcheck disable=SC2086
        train 2 many $adapt -m "$folder/narrow" --device cuda --steps 3 --valid-every 0 --zero $level $overlap || bad=1
        same "$folder/alone" "$folder/many" 1e-6 || bad=1
        [ $nccl = no ] || { grep -q "ZeRO $level, by NCCL" "$folder/many.log" || bad=1; }
        [ $nccl = no ] && { grep -q "ZeRO $level;" "$folder/many.log" || bad=1; }
        rm -rf "$folder/many"
    done
    result $bad "emulated GPUs, NCCL: $nccl"
done
rm -rf "$folder/alone"
unset EMULATED_WITHOUT_NCCL EMULATED_LATE
program=$cpu_program

# ---- Checkpoints. ----

# The whole run, and one that is stopped after 5 steps and resumed: on the same number of ranks
# nothing differs.
for level in 1 2 3; do
    bad=0
    # shellcheck disable=SC2086
    train 2 whole $adapt --dropout 0.1 --valid-every 5 --steps 8 --zero $level || bad=1
    # shellcheck disable=SC2086
    train 2 parts $adapt --dropout 0.1 --valid-every 5 --steps 8 --zero $level --stop-after 3 || bad=1
    train 2 parts --resume || bad=1
    kept whole && kept parts && cmp -s "$folder/whole.kept" "$folder/parts.kept" || bad=1
    cmp -s "$folder/whole/model/language/model.safetensors" "$folder/parts/model/language/model.safetensors" || bad=1
    result $bad "resumed on as many ranks: bit-identical, ZeRO $level"
    rm -rf "$folder/whole" "$folder/parts"
done

# On other numbers of ranks, at other levels.
bad=0
# shellcheck disable=SC2086
train 1 whole $adapt --steps 8 || bad=1
# shellcheck disable=SC2086
train 4 parts $adapt --steps 8 --zero 2 --stop-after 2 || bad=1
train 3 parts --resume --zero 3 --stop-after 2 || bad=1
train 2 parts --resume --zero 1 --stop-after 1 || bad=1
train 1 parts --resume --stop-after 1 || bad=1
train 2 parts --resume --zero 0 || bad=1
same "$folder/whole" "$folder/parts" 1e-6 || bad=1
result $bad "resumed on 3, 2, 1 and 2 ranks after 4, at other levels"
cmp -s "$folder/whole/model/language/config.json" "$folder/parts/model/language/config.json" &&
    [ "$(find "$folder/whole/model" -type f | wc -l)" = "$(find "$folder/parts/model" -type f | wc -l)" ]
result $? "the model is the same folder"
rm -rf "$folder/whole" "$folder/parts"

# Matrices of more than a message's size, and moments in 8 bits.
for moments in 32bit 8bit; do
    bad=0 bound=1e-6
    [ $moments = 8bit ] && bound=1e-4
    # shellcheck disable=SC2086
    train 1 whole $wide --moments $moments || bad=1
    # shellcheck disable=SC2086
    train 2 parts $wide --moments $moments --zero 1 --stop-after 2 || bad=1
    train 1 parts --resume || bad=1
    same "$folder/whole" "$folder/parts" $bound || bad=1
    result $bad "a checkpoint of matrices of 2 MB, moments in $moments, resumed by one process"
    rm -rf "$folder/whole" "$folder/parts"
done

# ---- Failures and signals. ----

# Ranks are killed: all end within 30 s with a message, and the run resumes as if nothing had been.
killed=$(EASYFIRST=$program sh tests/mpi_kills.sh 3)
bad=$?
echo "# $killed"
result $bad "ranks are killed, and the run is resumed"

# SIGUSR1, which mpirun passes on: a checkpoint and status 3.
# shellcheck disable=SC2086
timeout -k 5 60 mpirun --allow-run-as-root --oversubscribe -n 2 "$program" train $adapt --steps 100000 --out "$folder/asked" >"$folder/asked.log" 2>&1 &
job=$!
tries=0
while [ ! -s "$folder/asked/metrics.jsonl" ] && [ $tries -lt 200 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
pkill -USR1 -P $job
wait $job
status=$?
[ $status = 3 ] && ls "$folder/asked"/checkpoint-* >/dev/null 2>&1 &&
    [ "$(grep -c 'stopped by SIGUSR1' "$folder/asked.log")" = 1 ]
result $? "SIGUSR1 ends all with a checkpoint"
rm -rf "$folder/asked"

# What one rank alone cannot do is told once, and ends all.
# shellcheck disable=SC2086
ranks 2 sh -c '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || set -- "$@" --device cuda:7; exec "$@"' sh \
    "$program" train $adapt --steps 5 --out "$folder/one" >"$folder/one.log" 2>&1
[ $? = 1 ] && [ "$(grep -c 'rank 1 of 2' "$folder/one.log")" = 1 ]
result $? "one rank fails: a message, all end"
ranks 2 "$program" train adapt -m "$folder/none" --data "$folder/pairs.jsonl" --out "$folder/two" >"$folder/one.log" 2>&1
[ "$(grep -c "$folder/none" "$folder/one.log")" = 1 ]
result $? "what all ranks find wrong is said once"

# ---- Evaluations. ----

# evaluate N NAME ARGUMENTS...: its status.
evaluate() {
    n=$1 name=$2
    shift 2
    if [ "$n" = 1 ]; then
        "$program" eval "$@" --out "$folder/$name" >"$folder/$name.out" 2>"$folder/$name.log"
    else
        ranks "$n" "$program" eval "$@" --out "$folder/$name" >"$folder/$name.out" 2>"$folder/$name.log"
    fi
}
sed -n '1,17p' "$folder/pairs.jsonl" >"$folder/lines.jsonl"
for i in $(seq 13); do
    image=$(echo abc | cut -c $((i % 3 + 1)))
    echo "{\"question_id\": \"q$i\", \"image\": \"$image.png\", \"text\": \"What is $i?\"}"
done >"$folder/questions.jsonl"
golden="-m tests/golden/models/tiny-base --steps 3"
for kind in "text --task translation $folder/lines.jsonl" "gqa $folder/questions.jsonl --images $folder/images"; do
    # shellcheck disable=SC2086
    evaluate 1 alone $kind $golden
    status=$?
    # shellcheck disable=SC2086
    evaluate 3 parts $kind $golden
    [ $? = $status ] && cmp -s "$folder/alone.out" "$folder/parts.out" && diff -r "$folder/alone" "$folder/parts" >&2
    result $? "eval ${kind%% *} on three ranks: the files of one"
    rm -rf "$folder/alone" "$folder/parts"
done
# Likelihoods, with texts that are left out: an empty one, and one that does not fit.
{
    sed -n '1,13p' "$folder/pairs.jsonl"
    echo '{"inputs": "", "targets": ""}'
    echo 'broken'
    awk 'BEGIN { printf "{\"inputs\": \"one\", \"targets\": \""; for (i = 0; i < 300; i++) printf "eins zwei "; print "\"}" }'
} >"$folder/likely.jsonl"
for model in tests/golden/models/tiny-base tests/golden/causal/qwen2; do
    # shellcheck disable=SC2086
    evaluate 1 alone likelihood -m $model "$folder/likely.jsonl" --samples 16 --seed 3
    status=$?
    # shellcheck disable=SC2086
    evaluate 3 parts likelihood -m $model "$folder/likely.jsonl" --samples 16 --seed 3
    [ $? = $status ] && [ -s "$folder/alone.out" ] && cmp -s "$folder/alone.out" "$folder/parts.out" &&
        [ "$(grep -c 'easyfirst: left out' "$folder/alone.log")" = 3 ] &&
        [ "$(grep 'easyfirst: ' "$folder/alone.log")" = "$(grep 'easyfirst: ' "$folder/parts.log")" ] &&
        diff -r "$folder/alone" "$folder/parts" >&2
    result $? "eval likelihood of ${model##*/} on three ranks: the files of one"
    rm -rf "$folder/alone" "$folder/parts"
done
evaluate 3 parts likelihood -m "$folder/none" "$folder/likely.jsonl"
[ $? = 1 ] && [ "$(grep -c "$folder/none" "$folder/parts.log")" = 1 ]
result $? "eval likelihood: a model that is missing is said once"
# shellcheck disable=SC2086
evaluate 3 parts text --task translation "$folder/lines.jsonl" $golden --shard 1/2
[ $? = 1 ] && [ "$(grep -c 'leave out --shard' "$folder/parts.log")" = 1 ]
result $? "eval: --shard is refused"

echo "1..$number"
