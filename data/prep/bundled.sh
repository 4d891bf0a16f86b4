#!/bin/sh
# The bundled model, from nothing: images, texts, tokenizer, and every stage of its training.
# usage: data/prep/bundled.sh FOLDER
#   FOLDER  is made, or resumed: finished steps are not repeated, an interrupted stage of training
#           continues
# The result is FOLDER/final/model; the runs' logs are FOLDER/*.log, their curves FOLDER/*/loss.svg.
# In the environment: EASYFIRST (build/easyfirst), THREADS (all processors), and what a larger
# machine can afford: SCENES (60000) images, LAYERS (4), VISION_LAYERS (6), and the STEPS_* below.
# Needs the packages that README.md in this folder names.
set -eu
[ $# -eq 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
prep=$(cd "$(dirname "$0")" && pwd)
easyfirst=${EASYFIRST:-$prep/../../build/easyfirst}
threads=${THREADS:-$(nproc)}
scenes=${SCENES:-60000}
world=$folder/world text=$folder/text

# ---- Data: minutes each. ----
[ -e "$world/scenes-many.json" ] || "$prep/world.py" "$world" --size 128 --many "$scenes"
[ -e "$text/report.txt" ] || "$prep/text.py" "$text"
# The pieces come from the texts and from the words of 20,000 scenes.
if [ ! -e "$folder/tokenizer/sentencepiece.bpe.model" ]; then
    jq -c '.[:20000]' "$world/scenes-many.json" >"$folder/words.json"
    jq -c '.[:28000]' "$world/captions-many.json" >"$folder/words-captions.json"
    SIZE=8000 "$prep/tokenizer.sh" "$folder/tokenizer" "$text/mono.txt" "$text"/train.*.jsonl \
        "$folder/words.json" "$folder/words-captions.json"
fi

# ---- A fresh model, and word embeddings from counts. ----
if [ ! -e "$folder/fresh/easyfirst.json" ]; then
    "$easyfirst" new "$folder/fresh" --tokenizer "$folder/tokenizer/sentencepiece.bpe.model" \
        --layers "${LAYERS:-4}" --width 256 --heads 4 --ffn 1024 --positions 578 --pre-norm \
        --attention block-causal --answer-position 384 --length-classes 64 \
        --image-size 128 --patch 16 --feature-layer -1 --vision-layers "${VISION_LAYERS:-6}" \
        --vision-width 256 --vision-heads 4 --vision-ffn 1024
    "$prep/embeddings.py" "$folder/fresh" "$text/train.translation.jsonl"
    # `eval gqa` asks for short answers as the training data do.
    python3 -c 'import json, sys
path = sys.argv[1]
settings = json.load(open(path))
settings["prompts"] = {"gqa": "{question}"}
json.dump(settings, open(path, "w"), indent=2)' "$folder/fresh/easyfirst.json"
fi

# ---- Mixtures: file by file, so many units of each. ----
mixture() { # NAME, then FILE WEIGHT ...
    mkdir -p "$folder/$1"
    into=$folder/$1 ratio=
    shift
    while [ $# -gt 0 ]; do
        ln -sf "$1" "$into/"
        ratio="$ratio${ratio:+, }\"$(basename "$1")\": $2"
        shift 2
    done
    echo "{$ratio}" >"$into/ratio.json"
}
# Long texts cost more than they teach here.
[ -e "$text/short.summary.jsonl" ] ||
    jq -c 'select(.inputs | length <= 800)' "$text/train.summary.jsonl" >"$text/short.summary.jsonl"
[ -e "$text/dictionary.jsonl" ] ||
    "$prep/dictionary.py" /usr/share/trans/de-en "$text/train.translation.jsonl" \
        "$text/dictionary.jsonl"
mixture texts "$text/train.translation.jsonl" 3 "$text/short.summary.jsonl" 1
mixture all "$world/scenes-many.json" 48 "$world/captions-many.json" 12 \
    "$text/train.translation.jsonl" 66 "$text/short.summary.jsonl" 26 "$text/dictionary.jsonl" 25

stage() { # RUN STAGE MODEL [option ...]
    run=$folder/$1 name=$2 model=$3
    shift 3
    [ ! -e "$run/model" ] || return 0
    if [ -e "$run/settings.json" ] && ls -d "$run"/checkpoint-* >/dev/null 2>&1; then
        "$easyfirst" train --resume --out "$run" --threads "$threads" >>"$run.log" 2>&1
    else
        "$easyfirst" train "$name" -m "$model" --out "$run" --threads "$threads" --dtype bf16 \
            "$@" >"$run.log" 2>&1
    fi || { tail -n 3 "$run.log" >&2; exit 1; }
}
muon() { # RUN STAGE MODEL [option ...]
    run=$1 name=$2 model=$3
    shift 3
    stage "$run" "$name" "$model" --optimizer muon --warmup-steps 100 --dropout 0 --log-every 50 \
        "$@"
}

# The tower: which object covers each patch.
muon seen segment "$folder/fresh" --data "$world/gqa/many_sceneGraphs.json" \
    --valid "$world/gqa/valid_sceneGraphs.json" --images "$world/images" --lr 2e-3 \
    --batch-sequences 64 --steps "${STEPS_SEEN:-2800}" --save-every 400 --valid-every 400
# The language model, on text alone.
muon read adapt "$folder/fresh" --data "$folder/texts" --valid "$text/valid.translation.jsonl" \
    --lr 2e-3 --schedule constant --max-tokens 300 --batch-tokens 2048 \
    --steps "${STEPS_READ:-1500}" --save-every 500 --valid-every 500
# Both, with a projector between them: what is in an image. A caption names everything in few
# words and is learned in minutes; questions alone would take an hour to get there.
muon named tune "$folder/read/model" --vision "$folder/seen/model/vision" --train-vision \
    --context off --data "$world/captions-many.json" --images "$world/images" --lr 2e-3 \
    --vision-lr 2e-4 --schedule constant --warmup-steps 50 --batch-sequences 128 \
    --micro-batch-tokens 4096 --steps "${STEPS_NAMED:-300}" --save-every 100 --valid-every 0
# Stage 1: the projector alone, from captions.
muon aligned align "$folder/named/model" --data "$world/captions-many.json" --images "$world/images" \
    --lr 1e-3 --warmup-steps 20 --batch-sequences 64 --steps "${STEPS_ALIGNED:-60}" \
    --save-every 0 --valid-every 0
# Stage 2: everything together, with the tower open, but slow: what reads it must be able to follow.
muon tuned tune "$folder/aligned/model" --train-vision --context off --data "$folder/all" \
    --valid "$world/scenes-valid.json" --images "$world/images" --lr 2e-3 \
    --vision-lr 2e-4 --group off --max-tokens 400 --batch-tokens 7000 --micro-batch-tokens 4096 \
    --steps "${STEPS_TUNED:-8300}" --save-every 250 --valid-every 500 \
    --save-dtype bf16
# How long answers are.
stage final length "$folder/tuned/model" --data "$folder/all" --images "$world/images" \
    --valid "$world/scenes-valid.json" --lr 1e-3 --group off --dropout 0 --context off \
    --max-tokens 400 --batch-sequences 256 --steps "${STEPS_LENGTH:-1800}" --save-dtype bf16 \
    --warmup-steps 50 --log-every 50 --save-every 0 --valid-every 100
# The data translate from German alone.
python3 -c 'import json, sys
path = sys.argv[1]
settings = json.load(open(path))
settings["languages"] = ["de-en"]
json.dump(settings, open(path, "w"), indent=2)' "$folder/final/model/easyfirst.json"
echo "$folder/final/model: $(du -sh "$folder/final/model" | cut -f1)"
