#!/bin/sh
# Everything that a model with pictures, translation and summaries is measured by, as one report.
# usage: data/prep/score.sh MODEL WORLD TEXT OUT
#   MODEL  model folder
#   WORLD  folder that world.py made
#   TEXT   folder that text.py made
#   OUT    is made: a folder for each result, OUT/report.md with all tables, OUT/failures.md
# In the environment: LIMIT=N asks about N pictures and lines of each set, SWEEP_PICTURES and
# SWEEP_LINES (100, 200) are the sweep's, OTHER=FILE.jsonl is one more set of translations, PYTHON
# the interpreter (BLEU needs its package sacrebleu), EASYFIRST the program (build/easyfirst). A part
# whose result is in OUT already is not repeated.
set -eu
[ $# -eq 4 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 world=$2 text=$3 out=$4
score="${PYTHON:-python3} $(dirname "$0")/score.py"
limit=${LIMIT:-0}
mkdir -p "$out"

part() { # FOLDER RESULT COMMAND [option ...]
    folder=$out/$1 result=$2
    shift 2
    [ -e "$folder/$result" ] || $score "$@" -m "$model" --out "$folder" >/dev/null
}
bleu=bleu
${PYTHON:-python3} -c 'import sacrebleu' 2>/dev/null || bleu=rouge
part pictures pictures.json pictures --world "$world" --limit "$limit"
part pictures-lengths-given pictures.json pictures --world "$world" --limit "$limit" \
    --length-oracle --picture-only
part pictures-german pictures.json pictures --world "$world" --limit "$limit" --language de
for lengths in 1 3 given; do
    case $lengths in given) option=--oracle-length ;; *) option="--beam $lengths" ;; esac
    part "translation-$lengths" text.json text --data "$text/test.translation.jsonl" \
        --metric $bleu --name "German to English" --limit "$limit" $option
done
[ -z "${OTHER:-}" ] || part translation-other text.json text --data "$OTHER" --metric $bleu \
    --name "German to English, another domain" --limit "$limit" --beam 3
for lengths in 1 3 given; do
    case $lengths in given) option=--oracle-length ;; *) option="--beam $lengths" ;; esac
    part "summary-$lengths" text.json text --data "$text/test.summary.jsonl" \
        --name "Summary" --limit "$limit" $option
done
set -- --world "$world" --summary "$text/test.summary.jsonl"
[ $bleu = rouge ] || set -- "$@" --translation "$text/test.translation.jsonl"
part sweep sweep.json sweep "$@" --pictures "${SWEEP_PICTURES:-100}" --lines "${SWEEP_LINES:-200}"
$score failures "$out/pictures/answers.jsonl" "$out/translation-1/answers.jsonl" \
    "$out/summary-1/answers.jsonl" --out "$out/failures.md"
$score report "$out/pictures/pictures.json" "$out/pictures-lengths-given/pictures.json" \
    "$out/pictures-german/pictures.json" "$out"/translation-*/text.json \
    "$out"/summary-*/text.json "$out/sweep/sweep.json" \
    --out "$out/report.md"
echo "$out/report.md, $out/failures.md, $out/sweep/sweep.svg"
