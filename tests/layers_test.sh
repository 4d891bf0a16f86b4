#!/bin/sh
# A language model that is spread over mpirun's processes by layers: the answers of one process. Prints TAP.
# usage: tests/layers_test.sh     ($EASYFIRST is the program; from the root of the sources)
# Everything is skipped, and counted, where mpirun is missing.
# shellcheck source=tests/mpi.sh
. tests/mpi.sh

# until_answered: until there is the first answer, half a minute at most.
until_answered() {
    tries=0
    while [ ! -s "$folder/answers" ] && [ $tries -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

# spread NAME "RANKS" ARGUMENTS...: the same output and status by so many processes as by one. In the background, four
# at a time, since processes mostly wait for each other; `spread_all` prints the results.
running=0
spread() {
    running=$((running + 1))
    mkdir -p "$folder/spread/$running"
    run_spread "$folder/spread/$running" "$@" >"$folder/spread/$running/result" 2>&1 &
    [ $((running % 4)) = 0 ] && wait
}
run_spread() {
    own=$1 what=$2 counts=$3 bad=0
    shift 3
    "$program" "$@" -q >"$own/one.out" 2>"$own/one.err"
    status=$?
    [ -s "$own/one.out" ] || bad=1
    for count in $counts; do
        ranks "$count" "$program" "$@" -q >"$own/many.out" 2>"$own/many.err"
        [ $? = $status ] && cmp "$own/one.out" "$own/many.out" && continue
        bad=1
        head -n 2 "$own/one.err" "$own/many.err" | sed 's/^/# /'
    done
    echo "result $bad $what: the answers of one process on $counts"
}
spread_all() {
    wait
    for i in $(seq "$running"); do
        sed '/^result/d' "$folder/spread/$i/result"
        # shellcheck disable=SC2046
        set -- $(sed -n 's/^result //p' "$folder/spread/$i/result")
        status=${1:-1}
        [ $# -gt 0 ] && shift
        result "$status" "$*"
    done
    rm -rf "$folder/spread"
    running=0
}

tokenizer=tests/golden/models/tiny-base/language/sentencepiece.bpe.model
small="--layers 5 --width 32 --heads 4 --ffn 60 --positions 140 --seed 7"
# shellcheck disable=SC2086
tiny() {
    name=$1
    shift
    "$program" new "$folder/$name" $small "$@" >"$folder/new.log" 2>&1 || cat "$folder/new.log"
}
vision="--image-size 28 --patch 14 --vision-layers 2 --vision-width 16 --vision-heads 2 --vision-ffn 32"
# shellcheck disable=SC2086
{
    tiny full --tokenizer $tokenizer $vision
    tiny blocks --tokenizer $tokenizer --pre-norm --attention block-causal --dtype bf16 $vision
}
tiny llada --kind llada --key-heads 2 --tokenizer tests/golden/llama/folders/llada/tokenizer.json
tiny llama --kind llama --key-heads 2 --tokenizer tests/golden/causal/llama/tokenizer.json
image=tests/golden/models/image0.png

# ---- The same answers. ----

spread "text" "2 3 4" text -m "$folder/full" --json --trace "one two" "three"
spread "text, lengths and samples" 3 text -m "$folder/full" --json --beam 3 --samples 2 --temperature 0.9 "one two"
spread "text, a template" 2 text -m "$folder/blocks" --json --template "one ___ two ___{2}." "four"
spread "ask" 3 ask -m "$folder/full" --length 6 --json $image "What is it?"
spread "ask, keys and values kept" "2 4" ask -m "$folder/blocks" --length 6 --json $image tests/golden/models/image1.png "What is it?" "Why?"
spread "choices by likelihood" 2 text -m "$folder/full" --json --one-of "one,two,three two" --by likelihood "four"
spread "LLaDA" "2 3 4" text -m "$folder/llada" --length 9 --json --trace "one two" "three"
spread "LLaDA, prefixes kept" 3 text -m "$folder/llada" --length 9 --json --prefix-cache 3 "one two"
spread "LLaDA, guidance" 2 text -m "$folder/llada" --length 9 --json --guidance 1.5 --temperature 0.7 "one two"
spread "LLaMA, autoregressive" "2 4" text -m "$folder/llama" --length 9 --json "one two" "three"
spread "ModernBERT" 3 text --language tests/golden/encoders/modernbert --length 5 --json "one two"
if [ -e data/bundled/model/easyfirst.json ]; then
    spread "the bundled model, text" "2 3" text -m data/bundled/model --json translate --from de --to en "Der Hund ist braun."
    spread "the bundled model, ask in f32" 4 ask -m data/bundled/model --dtype f32 --json $image "What color is it?"
fi
spread_all

# ---- Evaluations, in groups. ----

mkdir "$folder/images"
cp $image "$folder/images/a.png"
cp tests/golden/models/image1.png "$folder/images/b.png"
for i in $(seq 9); do
    name=$(echo abc | cut -c $((i % 3 + 1)))
    echo "{\"question_id\": \"q$i\", \"image\": \"$name.png\", \"text\": \"What is $i?\"}"
    echo "{\"inputs\": \"one $i\", \"targets\": \"eins $i\"}" >>"$folder/lines.jsonl"
done >"$folder/questions.jsonl"
for kind in "gqa $folder/questions.jsonl --images $folder/images" "text --task translation $folder/lines.jsonl --steps 5"; do
    bad=0
    # shellcheck disable=SC2086
    "$program" eval $kind -m "$folder/blocks" --out "$folder/one" >"$folder/one.out" 2>"$folder/one.err"
    status=$?
    for run in "2 2" "4 2"; do
        # shellcheck disable=SC2086
        ranks "${run% *}" "$program" eval $kind -m "$folder/blocks" --out "$folder/many" --layers-over "${run#* }" \
            >"$folder/many.out" 2>"$folder/many.err"
        [ $? = $status ] && diff -r "$folder/one" "$folder/many" >&2 && cmp "$folder/one.out" "$folder/many.out" >&2 || bad=1
        rm -rf "$folder/many"
    done
    result $bad "eval ${kind%% *} in groups of two: the files of one process"
    rm -rf "$folder/one"
done

# ---- Memory. ----

# anonymous N: kB of the process that has most, once it has answered a line.
anonymous() {
    rm -f "$folder"/pid.* "$folder/lines" "$folder/answers"
    mkfifo "$folder/lines"
    # shellcheck disable=SC2016
    ranks "$1" sh -c 'echo $$ >"$1/pid.${OMPI_COMM_WORLD_RANK:-0}"; exec "$2" text -m "$1/wide" --length 2 -q' \
        sh "$folder" "$program" <"$folder/lines" >"$folder/answers" 2>"$folder/many.err" &
    exec 9>"$folder/lines"
    echo "one" >&9
    until_answered
    for pid in "$folder"/pid.*; do
        sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(cat "$pid")/status"
    done | sort -n | tail -n 1
    exec 9>&-
    wait
}
"$program" new "$folder/wide" --tokenizer $tokenizer --layers 8 --width 512 --ffn 2048 --heads 8 --positions 64 \
    --length-classes 0 >"$folder/new.log" 2>&1 || cat "$folder/new.log"
one=$(anonymous 1)
two=$(anonymous 2)
four=$(anonymous 4)
echo "# 25 million weights: $one kB on one process, at most $two on each of two, $four of four"
[ "${two:-0}" -gt 0 ] && [ $((two * 100)) -lt $((one * 65)) ] && [ "${four:-0}" -gt 0 ] && [ $((four * 100)) -lt $((one * 40)) ]
result $? "each process has its part of the weights alone"
rm -rf "$folder/wide"

# ---- GPUs. ----

# The CUDA backend on its emulator, with a stand-in for NCCL, and without NCCL.
cpu_program=$program
program=$(dirname "$program")/emulated/easyfirst
for nccl in yes no; do
    if [ ! -x "$program" ]; then
        number=$((number + 1))
        echo "ok $number # SKIP no emulated program, NCCL: $nccl"
        continue
    fi
    [ $nccl = no ] && export EMULATED_WITHOUT_NCCL=1
    spread "emulated GPUs, NCCL: $nccl" "2 3" ask -m "$folder/blocks" --device cuda --length 3 --json $image "What?"
done
spread_all
unset EMULATED_WITHOUT_NCCL
program=$cpu_program

# ---- Failures. ----

# failure NAME TEXT N COMMAND...: the text is said once, and all end with a status that is not 0.
failure() {
    what=$1 text=$2 n=$3
    shift 3
    ! ranks "$n" "$@" >"$folder/many.out" 2>"$folder/many.err" && [ "$(grep -c "$text" "$folder/many.err")" = 1 ]
    result $? "$what"
}
# shellcheck disable=SC2016
second='[ "$OMPI_COMM_WORLD_RANK" = 0 ] || set -- "$@" --device cuda:7; exec "$@"'
# shellcheck disable=SC2016
other='[ "$OMPI_COMM_WORLD_RANK" = 0 ] || set -- "$@" --dtype bf16; exec "$@"'
failure "a model that is missing is said once" "$folder/none" 3 "$program" text -m "$folder/none" --length 3 x
failure "more processes than layers" "start at most 5" 6 "$program" text -m "$folder/full" --length 3 x
failure "one of the others fails" "rank 1 of 2" 2 sh -c "$second" sh "$program" text -m "$folder/full" --length 3 x
failure "the others have another model" "different models" 3 sh -c "$other" sh "$program" text -m "$folder/full" --length 3 x
failure "wrong options are said once" "no-such" 2 "$program" text -m "$folder/full" --no-such
failure "attention is not recorded" "attention cannot be recorded" 2 "$program" eval gqa "$folder/questions.jsonl" \
    --images "$folder/images" -m "$folder/blocks" --attention --out "$folder/many" --layers-over 2
failure "no groups" "no groups of 2" 3 "$program" eval text "$folder/lines.jsonl" --task exact -m "$folder/blocks" \
    --out "$folder/many" --layers-over 2

# A process is killed while all wait for lines.
mkfifo "$folder/input"
rm -f "$folder/answers"
# shellcheck disable=SC2016
ranks 3 sh -c 'echo $$ >"$1/killed.$OMPI_COMM_WORLD_RANK"; exec "$2" text -m "$1/full" --length 2 -q' \
    sh "$folder" "$program" <"$folder/input" >"$folder/answers" 2>"$folder/many.err" &
job=$!
exec 9>"$folder/input"
echo "one" >&9
until_answered
kill -9 "$(cat "$folder/killed.1")"
wait $job
status=$?
exec 9>&-
[ $status != 0 ] && [ $status != 124 ]
result $? "one of the others is killed: all end"

echo "1..$number"
