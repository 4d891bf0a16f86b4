#!/bin/sh
# The bundled model, of pretrained parts, from packages to the finished folder: data, every stage of training.
# usage: data/prep/pretrained.sh FOLDER
#   FOLDER  is made, or resumed: finished steps are not repeated, an interrupted stage of training
#           continues
# The result is FOLDER/final; the runs' logs are FOLDER/*.log, their curves FOLDER/*/loss.svg.
# In the environment: EASYFIRST (build/easyfirst), THREADS (all processors), PYTHON (python3, with numpy,
# torch, safetensors, sentencepiece; and with Pillow for photographs, without it there are none), STEPS_* (below).
# Needs the packages that README.md in this folder names, and some 25 GB of disk.
set -eu
[ $# -eq 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
prep=$(cd "$(dirname "$0")" && pwd)
easyfirst=$(realpath "${EASYFIRST:-$prep/../../build/easyfirst}")
threads=${THREADS:-$(nproc)}
python=${PYTHON:-python3}
cd "$folder" # the feature cache knows images by their paths

# ---- Pretrained parts, and data. ----
"$python" "$prep/pretrained.py" pretrained
[ -e text/report.txt ] || "$python" "$prep/text.py" text
[ -e catalogues/report.txt ] || {
    "$python" "$prep/catalogues_fetch.py" packages
    "$python" "$prep/catalogues.py" packages catalogues --dictionary /usr/share/trans/de-en \
        --held text/valid.translation.jsonl --held text/test.translation.jsonl
}
[ -e world/gqa/known_questions.json ] || "$python" "$prep/world.py" world
[ -e more/scenes-many.json ] ||
    "$python" "$prep/world.py" more --start 30000 --one 0 --two 4000 --many 36000 --valid 0 --test 0 --unknown 0
[ -e unnamed/scenes-many.json ] ||
    "$python" "$prep/world.py" unnamed --start 70000 --one 0 --two 0 --many 9000 --valid 0 --test 0 --unknown 0 \
        --nameless 0.6
if "$python" -c 'import torch, safetensors, PIL' 2>/dev/null; then
    [ -e photos/photos.json ] ||
        "$python" "$prep/photos.py" photos --model pretrained/efficientnet-lite0
    [ -e classes/features.json ] ||
        "$python" "$prep/class_features.py" classes --model pretrained/efficientnet-lite0 \
            --images photos/images
fi
[ -e joint/ratio.json ] || "$python" "$prep/mixtures.py" .

# settings MODEL JSON: members of easyfirst.json.
settings() {
    "$python" -c 'import json, os, sys
path, changes = sys.argv[1] + "/easyfirst.json", json.loads(sys.argv[2])
old = json.load(open(path)) if os.path.exists(path) else {"format": 1}
json.dump({**old, **changes}, open(path, "w"), indent=2)' "$1" "$2"
}

# The encoder with the tokens of the texts. Answers begin at position 256, so that a word and its
# translation are equally far apart in every pair.
if [ ! -e start/easyfirst.json ]; then
    settings pretrained/e5 '{"attention": "block-causal", "languages": ["de-en", "en-de"],
        "prompts": {"ask": "{question}", "gqa": "{question}", "summarize": "Summarize: {text}",
                    "translate": "{from} to {to}: {text}"}}'
    set --
    for file in texts/*.jsonl joint/scenes-many.json; do set -- "$@" --data "$file"; done
    "$easyfirst" prune -m pretrained/e5 "$@" --min-count 5 start
    settings start '{"answer_position": 256, "class_token": true}'
fi

stage() { # RUN STAGE MODEL [option ...]
    run=$1 name=$2 model=$3
    shift 3
    [ ! -e "$run/model" ] || return 0
    if [ -e "$run/settings.json" ] && ls -d "$run"/checkpoint-* >/dev/null 2>&1; then
        "$easyfirst" train --resume --out "$run" --threads "$threads" >>"$run.log" 2>&1
    else
        "$easyfirst" train "$name" -m "$model" --out "$run" --threads "$threads" --dtype bf16 \
            --dropout 0 "$@" >"$run.log" 2>&1
    fi || { tail -n 3 "$run.log" >&2; exit 1; }
}
pictures=joint/images
images() { # the same, with images through the frozen tower
    run=$1 name=$2 model=$3
    shift 3
    stage "$run" "$name" "$model" --vision pretrained/efficientnet-lite0 --pad off \
        --images "$pictures" --feature-cache features.cache "$@"
}

# The language model, on text alone.
stage read adapt start --data texts --valid valid.descriptions.jsonl --valid-limit 300 --lr 4e-4 \
    --schedule constant --warmup-steps 100 --max-tokens 256 --batch-tokens 2048 \
    --steps "${STEPS_READ:-1413}" --save-every 250 --valid-every 250
# Stage 1: the projector alone. Its outputs begin as the embeddings of the words for what each patch shows;
# from noise, attention needs six times the updates to find the image (NOTES.md).
if [ ! -e words/projector.safetensors ]; then
    # One update with captions makes the cache of features that the words are learned from.
    images cached align read/model --new-projector mlp2x_gelu --data joint/captions-1.json \
        --batch-sequences 8000 --steps 1 --save-every 0
    set --
    for file in joint/photos.json joint/classes.json; do
        [ ! -e "$file" ] || set -- "$@" --named "$file"
    done
    THREADS=$threads "$python" "$prep/projector_words.py" words --cache features.cache \
        --images joint/images --gqa world/gqa --language read/model/language "$@" >words.log
fi
# Stage 2, captions of one object first: names.
images named tune read/model --projector words --context off --data joint/captions-1.json --lr 4e-4 \
    --projector-lr 3e-5 --schedule constant --warmup-steps 20 --max-tokens 400 --batch-sequences 48 \
    --steps "${STEPS_NAMED:-100}" --save-every 80 --valid-every 0
# Scenes of one object: where things are is learned here, or never; then of several: relations, sizes, numbers.
scenes() { # RUN MODEL STEPS RATE SCHEDULE FILE...
    run=$1 model=$2 steps=$3 rate=$4 schedule=$5
    shift 5
    for file; do set -- "$@" --data "joint/$file.json"; shift; done
    images "$run" tune "$model" --context off "$@" --valid world/scenes-valid.json --valid-limit 200 \
        --optimizer muon --lr "$rate" --projector-lr 3e-5 --schedule "$schedule" --warmup-steps 5 \
        --max-tokens 400 --batch-tokens 6000 --micro-batch-tokens 4096 --steps "$steps" --save-every 40 --valid-every 100
}
scenes placed named/model "${STEPS_PLACED:-120}" 1e-3 constant scenes-1
scenes related placed/model "${STEPS_RELATED:-1362}" 1e-3 constant scenes-1 scenes-2 scenes-many
scenes steadied related/model "${STEPS_STEADIED:-100}" 7e-4 linear scenes-2 more-many
# The classifier's classes, as features that no image has.
if [ -e classes/features.safetensors ] && [ ! -e classes/cached ]; then
    "$python" "$prep/feature_cache.py" features.cache classes classes --path joint/images/classes
    "$python" "$prep/mixtures.py" .
    touch classes/cached
fi
# Everything together, at a constant rate, which can go on as long as there is time; then the rate falls.
images tuned tune steadied/model --context off --data joint --valid world/scenes-valid.json \
    --valid-limit 200 --group off --optimizer muon --lr 5e-4 --projector-lr 3e-5 --schedule constant \
    --warmup-steps 50 --max-tokens 400 --batch-tokens 6000 --micro-batch-tokens 4096 \
    --steps "${STEPS_TUNED:-2957}" --save-every 50 --valid-every 200 --keep 2
# Short answers filled up to 8 tokens, so that the model ends them itself (NOTES.md).
images padded tune tuned/model --context off --data hard --valid world/scenes-valid.json \
    --valid-limit 200 --group off --optimizer muon --lr 5e-4 --projector-lr 3e-5 --schedule constant \
    --warmup-steps 20 --max-tokens 400 --batch-tokens 6000 --micro-batch-tokens 4096 --seed 11 \
    --pad-answers 8 --steps "${STEPS_PADDED:-1105}" --save-every 50 --valid-every 200 --keep 2
# What is learned last, and things without a name, more often. (The bundled model's first 1,233 updates of
# this had a third of texts in place of half: data/bundled/training.log.)
images late tune padded/model --context off --data late --valid world/scenes-valid.json \
    --valid-limit 200 --group off --optimizer muon --lr 5e-4 --projector-lr 1e-4 --schedule linear \
    --warmup-steps 5 --max-tokens 400 --batch-tokens 6000 --micro-batch-tokens 4096 --seed 21 \
    --steps "${STEPS_LATE:-2533}" --save-every 50 --valid-every 250 --keep 2
# The same with scenes and features of classes that it has not seen, and then half of the way back: between the two
# models the loss is lower than at either.
if [ ! -e again/late/ratio.json ]; then
    "$python" "$prep/world.py" again/world --start 100000 --one 1500 --two 3000 --many 36000 --test 0 --unknown 0
    "$python" "$prep/world.py" again/unnamed --start 200000 --one 0 --two 0 --many 6000 --valid 0 --test 0 \
        --unknown 0 --nameless 0.6
    for part in text catalogues photos; do [ ! -e "$part" ] || ln -sfn "../$part" "again/$part"; done
    if [ -e classes/cached ]; then
        "$python" "$prep/class_features.py" again/classes --model pretrained/efficientnet-lite0 \
            --images photos/images --seed 2 --number 12
        "$python" "$prep/feature_cache.py" features.cache again/classes again/classes \
            --path again/joint/images/classes
    fi
    "$python" "$prep/mixtures.py" again
fi
pictures=again/joint/images
images fresh tune late/model --context off --data again/late --valid world/scenes-valid.json \
    --valid-limit 200 --group off --optimizer muon --lr 3e-4 --projector-lr 1e-4 --schedule linear \
    --warmup-steps 10 --max-tokens 400 --batch-tokens 6000 --micro-batch-tokens 4096 --seed 41 \
    --steps "${STEPS_FRESH:-380}" --save-every 50 --valid-every 250 --keep 2
pictures=joint/images
[ -e averaged/easyfirst.json ] || "$python" "$prep/average.py" late/model fresh/model averaged
# How long answers are.
images long length averaged --context off --data lengths --valid world/scenes-valid.json \
    --group off --lr 1e-3 --schedule linear --max-tokens 400 --batch-sequences 192 \
    --steps "${STEPS_LENGTH:-800}" --warmup-steps 20 --save-every 100 --valid-every 150
# How sure answers are, from scenes that are neither trained on nor tested; then 8-bit weights.
[ -e sure/result.json ] ||
    "$easyfirst" eval gqa -m long/model world/gqa/valid_questions.json --images world/images --out sure
"$easyfirst" calibrate -m long/model sure world/gqa/valid_questions.json
[ -e final/easyfirst.json ] || "$easyfirst" quantize -m long/model final
echo "$folder/final: $(du -sh final | cut -f1)"
