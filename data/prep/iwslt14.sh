#!/bin/sh
# German to English on 6,783 sentence pairs, from nothing: the run whose curve apps/train/README.md shows.
# usage: data/prep/iwslt14.sh PAIRS.jsonl FOLDER [option of train ...]
#   PAIRS.jsonl  7,283 lines of {"inputs", "targets"}: the paper's valid.deen.jsonl
#   FOLDER       is made: text, tokenizer, fresh model, and the run
# needs easyfirst (EASYFIRST=..., else build/easyfirst), and spm_train and jq (Debian's packages
# sentencepiece and jq)
set -eu
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
pairs=$1 folder=$2
shift 2
program=${EASYFIRST:-build/easyfirst}
for tool in spm_train jq "$program"; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 1; }
done
mkdir -p "$folder"
head -n -500 "$pairs" >"$folder/train.jsonl"
tail -n 500 "$pairs" >"$folder/valid.jsonl" # held out
jq -r '.inputs, .targets' "$folder/train.jsonl" >"$folder/text.txt"
spm_train --input="$folder/text.txt" --model_prefix="$folder/spm" --vocab_size=2000 \
    --character_coverage=1.0 >/dev/null 2>&1
"$program" new "$folder/model" --tokenizer "$folder/spm.model" \
    --layers 4 --width 128 --heads 4 --ffn 512 --positions 258 --pre-norm
"$program" train adapt -m "$folder/model" \
    --data "$folder/train.jsonl" --valid "$folder/valid.jsonl" --out "$folder/run" \
    --max-tokens 256 --batch-tokens 1024 --steps 16000 --lr 2e-3 --schedule cosine \
    --warmup-steps 300 --dropout 0.1 --log-every 100 --valid-every 1000 --save-every 1000 "$@"

# What the curve is to be compared with: pieces by their frequency alone, and answers after the
# question of another pair. 8.84 is what linear weights make of a mean cross-entropy of 1.
for set in train valid; do
    jq -r .targets "$folder/$set.jsonl" | spm_encode --model="$folder/spm.model" >"$folder/$set.pieces"
done
awk 'NR == FNR { for (i = 1; i <= NF; i++) c[$i]++; c["</s>"]++; n += NF + 1; next }
     { e = 0; $(NF + 1) = "</s>"
       for (i = 1; i <= NF; i++) e -= log((c[$i] + 0.5) / (n + 0.5 * 2002))
       sum += e / NF; rows++ }
     END { printf "by the frequency of pieces alone: %.1f\n", 8.84 * sum / rows }' \
    "$folder/train.pieces" "$folder/valid.pieces"
jq -sc '. as $all | length as $n | range($n) | {inputs: $all[(. + 7) % $n].inputs, targets: $all[.].targets}' \
    "$folder/valid.jsonl" >"$folder/others.jsonl"
echo "after another pair's question (the validation of step 0):"
rm -rf "$folder/others"
"$program" train adapt -m "$folder/run/model" --data "$folder/train.jsonl" \
    --valid "$folder/others.jsonl" --out "$folder/others" --max-tokens 256 --batch-tokens 1024 \
    --steps 1 --lr 1e-9 --show-answers 0 2>&1 | grep 'valid [0-9]' | head -1
