#!/bin/sh
# The tables of data/bundled/README.md about one model: composed scenes, things that it does not know, photographs,
# natural questions, translations both ways, summaries. evaluate.sh has more detail and takes hours.
# usage: data/prep/tables.sh MODEL FOLDER PHOTOS OUT
#   MODEL   model folder
#   FOLDER  made by pretrained.sh: world/ and test.*.jsonl
#   PHOTOS  made by photos_eval.py, "" leaves them out
#   OUT     is made: a folder for each result, tables.txt; the same command resumes
# In the environment: EASYFIRST (build/easyfirst), PYTHON (python3), LINES (500) of each text, THREADS (all),
# IWSLT names the paper's iwslt14/valid.deen.jsonl; without it that row is left out.
set -eu
[ $# -eq 4 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 folder=$2 photos=$3 out=$4
prep=$(cd "$(dirname "$0")" && pwd)
easyfirst=${EASYFIRST:-build/easyfirst} python=${PYTHON:-python3} lines=${LINES:-500}
threads=${THREADS:-$(nproc)}
mkdir -p "$out"

part() { # RESULT KIND [option ...]; what cannot be answered counts as wrong
    result=$out/$1 kind=$2
    shift 2
    "$easyfirst" eval "$kind" -q -m "$model" --out "$result" --threads "$threads" "$@" >"$result.txt" \
        2>"$result.log" || [ -s "$result.txt" ] || { tail -n 3 "$result.log" >&2; exit 1; }
}

scenes() { # SET
    part "$1" gqa "$folder/world/gqa/$1_questions.json" --images "$folder/world/images"
    echo "== scenes: $1"
    "$python" "$prep/answers_score.py" world "$folder/world/gqa/$1_questions.json" "$out/$1/predictions.json" "$model"
}

texts() { # NAME FILE TASK
    part "$1" text --task "$3" "$2" --limit "$lines" --beam 3
    part "$1-given" text --task "$3" "$2" --limit "$lines" --lengths target
    echo "== $1: 3 lengths; lengths given"
    cat "$out/$1.txt" "$out/$1-given.txt"
}

{
    for set in test unknown known; do scenes "$set"; done
    if [ -n "$photos" ]; then
        part photos gqa "$photos/gqa/photos_questions.json" --images "$photos/images"
        echo "== photographs"
        "$python" "$prep/photos_answers.py" "$photos/gqa/photos_questions.json" "$out/photos/predictions.json"
    fi
    echo "== natural questions"
    "$python" "$prep/answers_score.py" ask "$out/natural.jsonl"
    part natural gqa "$out/natural.jsonl" --images "$prep/../bundled/images"
    "$python" "$prep/answers_score.py" natural "$out/natural/answers.jsonl"
    for name in descriptions messages; do
        texts "$name" "$folder/test.$name.jsonl" translation
        [ ! -e "$folder/test.$name-en-de.jsonl" ] ||
            texts "$name-en-de" "$folder/test.$name-en-de.jsonl" translation
    done
    # Everyday German: words and phrases of the dictionary, and sentences of manuals.
    { head -n 309 "$folder/test.dictionary.jsonl"; head -n 191 "$folder/test.manuals.jsonl"; } \
        >"$out/everyday.jsonl"
    "$python" -c 'import json, sys
for pair in map(json.loads, sys.stdin):
    text = {"inputs": "English to German: " + pair["targets"],
            "targets": pair["inputs"].removeprefix("German to English: ")}
    print(json.dumps(text, ensure_ascii=False))' <"$out/everyday.jsonl" >"$out/everyday-en-de.jsonl"
    for name in everyday everyday-en-de; do texts "$name" "$out/$name.jsonl" translation; done
    if [ -n "${IWSLT:-}" ]; then
        sed 's/Translate the sentences into English.  German: /German to English: /; s/ English: "/"/' \
            "$IWSLT" >"$out/iwslt.jsonl"
        texts iwslt "$out/iwslt.jsonl" translation
    fi
    texts summary "$folder/test.summary.jsonl" summary
} >"$out/tables.part"
mv "$out/tables.part" "$out/tables.txt"
echo "$out/tables.txt"
