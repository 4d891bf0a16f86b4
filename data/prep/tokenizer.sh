#!/bin/sh
# A SentencePiece model (Unigram) in XLM-R's order of ids from texts and training data.
# usage: data/prep/tokenizer.sh OUT_DIR FILE ...
#   OUT_DIR  gets sentencepiece.bpe.model and sentencepiece.vocab
#   FILE     .txt    a paragraph a line (mono.txt of data/prep/text.py)
#            .jsonl  lines of {"inputs", "targets"} or of LLaVA's conversations
#            .json   an array of such objects (LLaVA JSON)
# Give training files alone: what is held out must not shape the pieces.
# SIZE=8000 in the environment sets the number of pieces, COVERAGE=0.99999 the share of characters
# that are kept (at 0.9995 this text loses "?", "!" and "Ä"). Every distinct line counts once, so
# that a question asked about ten thousand images does not outweigh the rest; only answers of one or
# two words in LLaVA's conversations count as often as they occur, up to 1000 times: they shall be
# one piece each, since a "yes" that is longer than a "no" is given away by the answer's length.
# One thread, no sampling: the same files give the same pieces. Ids are sentencepiece's own: <unk> 0,
# <s> 1, </s> 2; easyfirst adds one and puts <s>, <pad>, </s>, <unk> in front and <mask> at the end.
# needs spm_train and jq (Debian's packages sentencepiece and jq)
set -eu
[ $# -ge 2 ] || { sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 size=${SIZE:-8000} coverage=${COVERAGE:-0.99999}
shift
for tool in spm_train jq; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 1; }
done
mkdir -p "$out"
text=$out/text.part log=$out/log.part
trap 'rm -f "$text" "$text.all" "$text.short" "$log"' EXIT
turns='if .conversations then .conversations[].value else .inputs, .targets end
       | strings | split("<image>") | add // ""'
short='.conversations[]? | select(.from == "gpt") | .value | strings | select(test("^\\S+( \\S+)?$"))'
: >"$text.all"
: >"$text.short"
for file; do
    case $file in
    *.jsonl) jq -r "$turns" "$file" && jq -r "$short" "$file" >>"$text.short" ;;
    *.json) jq -r ".[] | $turns" "$file" && jq -r ".[] | $short" "$file" >>"$text.short" ;;
    *.txt) cat "$file" ;;
    *) echo "$0: $file: not .txt, .jsonl or .json" >&2; exit 1 ;;
    esac >>"$text.all" || { echo "$0: $file cannot be read" >&2; exit 1; }
done
grep -v '^[[:space:]]*$' "$text.all" | LC_ALL=C sort -u >"$text"
LC_ALL=C sort "$text.short" | LC_ALL=C uniq -c |
    awk '{ n = $1 < 1000 ? $1 : 1000; sub(/^ *[0-9]+ /, ""); while (n-- > 0) print }' >>"$text"
[ -s "$text" ] || { echo "$0: no text in $*" >&2; exit 1; }
# inside the folder: the model's file keeps the names of its input and output
(cd "$out" && spm_train --input=text.part --model_prefix=sentencepiece --model_type=unigram \
    --vocab_size="$size" --character_coverage="$coverage" --normalization_rule_name=nmt_nfkc \
    --input_sentence_size=0 --shuffle_input_sentence=false --max_sentence_length=16384 \
    --num_threads=1) >"$log" 2>&1 || {
    why=$(grep -v -e 'LOG(INFO)' -e '^Program terminated' "$log" | tail -n 1)
    echo "$0: spm_train failed: ${why:-no reason given}" >&2
    exit 1
}
mv "$out/sentencepiece.model" "$out/sentencepiece.bpe.model"
echo "$out/sentencepiece.bpe.model: $size pieces from $(wc -l <"$text") lines"
