#!/bin/sh
# Everything that a model is measured by, with `easyfirst eval` and `easyfirst score`, as one report.
# usage: data/prep/evaluate.sh MODEL WORLD TEXT OUT
#   MODEL  model folder
#   WORLD  folder with gqa/SET_questions.json and images/, as world.py makes it
#   TEXT   folder with test.TASK*.jsonl, as text.py makes it; TASK is translation or summary
#   OUT    is made: a folder for each result, report.md with all tables, failures.md, sweep.svg
# In the environment: SETS (test) names the sets of questions, TEXTS ("translation translation-en-de",
# say; default: all) what follows "test." in the names of the texts, PAPER a folder with iwslt14/,
# mmlu/, tydiqa/ and mgsm/, the paper's sets. LIMIT=N asks about N images and N lines of each set;
# SWEEP_IMAGES (60) and SWEEP_LINES (100) are the sweep's, 0 leaves it out. EASYFIRST is the program
# (build/easyfirst), PYTHON the interpreter. The same command resumes; answers are not asked twice.
set -eu
[ $# -eq 4 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 world=$2 text=$3 out=$4
prep=$(dirname "$0")
export EASYFIRST="${EASYFIRST:-build/easyfirst}"
python=${PYTHON:-python3}
mkdir -p "$out"

# A status of 1 with printed scores means that something could not be answered: it counts as wrong, and
# the report has the number. Standard error is kept, as it has the number of evaluations.
part() { # RESULT KIND [option ...]
    result=$out/$1 kind=$2
    shift 2
    echo "$result" >&2
    "$EASYFIRST" eval "$kind" -m "$model" --out "$result" "$@" >"$result.txt" 2>>"$result.log" ||
        [ -s "$result.txt" ] || { tail -n 3 "$result.log" >&2; exit 1; }
}

images() { # SET
    set=$1 inputs=$out/inputs/$1 gqa=$world/gqa/$1
    "$python" "$prep/evaluate_inputs.py" images "$world" "$set" "$inputs" "${LIMIT:-0}" "$model"
    set -- --images "$world/images" --long-prompts refuse
    part "$set-3" gqa "$inputs/questions.json" "$@" --beam 3
    part "$set-3-weighted" gqa "$inputs/questions.json" "$@" --beam 3 --length-weight 0.2
    part "$set-other" gqa "$inputs/other.json" "$@"
    part "$set-gray" gqa "$inputs/gray.json" --images "$inputs"
    for file in "$inputs"/length-*.json; do
        length=${file##*-}
        part "$set-length-${length%.json}" gqa "$file" "$@" --length "${length%.json}"
    done
    if [ -e "$inputs/german.jsonl" ]; then
        part "$set-german" gqa "$inputs/german.jsonl" "$@"
        part "$set-german-gray" gqa "$inputs/german-gray.jsonl" --images "$inputs"
    fi
    [ ! -e "${gqa}_choices.json" ] || set -- "$@" --choices "${gqa}_choices.json"
    [ ! -e "${gqa}_all_questions.json" ] || set -- "$@" --all-questions "${gqa}_all_questions.json"
    [ ! -e "${gqa}_sceneGraphs.json" ] ||
        set -- "$@" --attention --scene-graphs "${gqa}_sceneGraphs.json"
    part "$set-1" gqa "$inputs/questions.json" "$@"
}

texts() { # NAME FILE
    name=$1 file=$2 task=${1%%[.-]*}
    "$python" "$prep/evaluate_inputs.py" text "$file" "$out/inputs/$name" "${LIMIT:-0}"
    set -- --task "$task" "$file" --long-prompts refuse
    [ -z "${LIMIT:-}" ] || set -- "$@" --limit "$LIMIT"
    part "$name-1" text "$@"
    part "$name-3" text "$@" --beam 3
    part "$name-3-weighted" text "$@" --beam 3 --length-weight 0.2
    part "$name-given" text "$@" --lengths target
}

sweep() { # NAME KIND option ...
    name=$1 kind=$2
    shift 2
    for beam in 1 3 5; do
        for steps in 1 2 4 10 50; do
            part "sweep-$name-$steps-$beam" "$kind" "$@" --steps "$steps" --beam "$beam"
        done
    done
}

sets=${SETS:-test} texts=${TEXTS:-}
[ -n "$texts" ] || for file in "$text"/test.*.jsonl; do
    file=${file##*/test.}
    texts="$texts ${file%.jsonl}"
done
for set in $sets; do images "$set"; done
for name in $texts; do texts "$name" "$text/test.$name.jsonl"; done
if [ -n "${PAPER:-}" ]; then
    part iwslt14 text --task translation "$PAPER/iwslt14/valid.deen.jsonl" --beam 3
    part mmlu text --task choice "$PAPER/mmlu/val.0shot.jsonl" \
        --subjects "$PAPER/mmlu/index2subject.json" --long-prompts refuse
    part tydiqa text --task exact "$PAPER"/tydiqa/0shot.*.jsonl --lengths target \
        --long-prompts refuse
    part mgsm text --task number "$PAPER/mgsm/0shot.en.jsonl"
fi
if [ "${SWEEP_IMAGES:-60}" -gt 0 ]; then
    set=${sets%% *}
    "$python" "$prep/evaluate_inputs.py" images "$world" "$set" "$out/inputs/sweep-$set" \
        "${SWEEP_IMAGES:-60}" "$model"
    sweep "$set" gqa "$out/inputs/sweep-$set/questions.json" --images "$world/images"
fi
if [ "${SWEEP_LINES:-100}" -gt 0 ]; then
    for name in $texts; do
        sweep "$name" text --task "${name%%[.-]*}" "$text/test.$name.jsonl" \
            --long-prompts refuse --limit "${SWEEP_LINES:-100}"
    done
fi
# $sets and $texts are lists of names.
# shellcheck disable=SC2086
"$python" "$prep/evaluate_report.py" "$out" $sets -- $texts
echo "$out/report.md, $out/failures.md"
