#!/bin/sh
# Tables of a model by `easyfirst eval`, with the paper's numbers beside them where a task is the same.
# usage: data/prep/eval_bundled.sh MODEL WORLD TEXT OUT [PAPER]
#   MODEL  model folder
#   WORLD  folder that world.py made: GQA's format, its held-out questions are asked
#   TEXT   folder that text.py made
#   OUT    is made: a folder for each result, OUT/report.md with all tables
#   PAPER  folder with iwslt14/, mmlu/, tydiqa/ and mgsm/, the paper's sets
# In the environment: LIMIT=N asks the first N questions and lines of each file, EASYFIRST is the
# program (build/easyfirst), PYTHON the interpreter. A part that is done is not asked again.
set -eu
[ $# -eq 4 ] || [ $# -eq 5 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 world=$2 text=$3 out=$4 paper=${5:-}
easyfirst=${EASYFIRST:-build/easyfirst}
limit=${LIMIT:+--limit $LIMIT}
mkdir -p "$out"

# A status of 1 with a result means that something could not be answered: the table tells.
part() { # NAME KIND [option ...]
    name=$1 kind=$2
    shift 2
    echo "$name" >&2
    # $limit is one option with its number, or nothing.
    # shellcheck disable=SC2086
    "$easyfirst" eval "$kind" -m "$model" --out "$out/$name" $limit "$@" >/dev/null ||
        [ -e "$out/$name/result.json" ] || exit 1
}

part pictures gqa "$world/gqa/test_questions.json" --images "$world/images" --attention \
    --choices "$world/gqa/test_choices.json" --all-questions "$world/gqa/test_all_questions.json" \
    --scene-graphs "$world/gqa/test_sceneGraphs.json"
part pictures-3 gqa "$world/gqa/test_questions.json" --images "$world/images" --beam 3
part pictures-3-weighed gqa "$world/gqa/test_questions.json" --images "$world/images" --beam 3 \
    --length-weight 0.2
for task in translation summary; do
    part "$task-1" text --task $task "$text/test.$task.jsonl"
    part "$task-3" text --task $task "$text/test.$task.jsonl" --beam 3
    part "$task-3-weighed" text --task $task "$text/test.$task.jsonl" --beam 3 --length-weight 0.2
done
if [ -n "$paper" ]; then
    part iwslt14 text --task translation "$paper/iwslt14/valid.deen.jsonl" --beam 3
    part mmlu text --task choice "$paper/mmlu/val.0shot.jsonl" \
        --subjects "$paper/mmlu/index2subject.json" --long-prompts refuse
    part tydiqa text --task exact "$paper"/tydiqa/0shot.*.jsonl --lengths target \
        --long-prompts refuse
    part mgsm text --task number "$paper/mgsm/0shot.en.jsonl"
fi
"${PYTHON:-python3}" "$(dirname "$0")/eval_table.py" "$out" > "$out/report.md"
cat "$out/report.md"
