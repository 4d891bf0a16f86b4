#!/bin/sh
# Makes the first inputs of every fuzz target out of tests/golden and of the few texts below.
# usage: tests/fuzz/seeds.sh FOLDER        (FOLDER/TARGET/NAME; made once, and again when this changes)
out=$1
stamp=$out/stamp
[ -f "$stamp" ] && [ -n "$(find "$stamp" -newer "$0")" ] && exit 0
rm -rf "$out"
mkdir -p "$out" || exit 1
golden=tests/golden

# take TARGET FILE...: files as they are; those that are too large teach a fuzzer little.
take() {
    target=$1
    shift
    mkdir -p "$out/$target"
    for file in "$@"; do
        [ -f "$file" ] || continue
        [ "$(wc -c <"$file")" -le 24000 ] && cp "$file" "$out/$target/$(echo "$file" | tr / _)"
    done
}
# with TARGET PREFIX FILE...: the same after some bytes (as printf's format).
with() {
    target=$1 prefix=$2
    shift 2
    mkdir -p "$out/$target"
    for file in "$@"; do
        [ -f "$file" ] || continue
        { printf "$prefix"; head -c 4000 "$file"; } >"$out/$target/$(printf "$prefix$file" | tr -c 'a-zA-Z0-9.' _)"
    done
}
# text TARGET NAME FORMAT: what printf makes of the format.
text() {
    mkdir -p "$out/$1"
    printf "$3" >"$out/$1/$2"
}

take png $golden/images/*.png
take jpeg $golden/images/*.jpg
for kind in webp gif bmp avif heic; do take $kind $golden/formats/*.$kind; done
text exif little 'II*\0\010\0\0\0\001\0\022\001\003\0\001\0\0\0\006\0\0\0\0\0\0\0'
text exif big 'MM\0*\0\0\0\010\0\001\001\022\0\003\0\0\0\001\0\003\0\0\0\0\0\0'
for kind in 'GIF89a' 'RIFF\0\0\0\0WEBP' '\0\0\0\030ftypheic' 'BM' '%%PDF-1.4' '<svg xmlns="x">' 'https://x/y.jpg' \
    'version https://git-lfs' '\211PNG\r\n\032\n' '\377\330\377\341' 'II*\0' '\0\0\001\0' '8BPS' '{"a": 1}'; do
    text exif "$(printf "$kind" | tr -c 'a-zA-Z0-9' _)" "$kind"
done

take xmp $golden/images/turned_*
text xmp attribute '<a xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"/>'
text xmp element "<t:a xmlns:tiff='http://ns.adobe.com/tiff/1.0/'><tiff:Orientation>3</tiff:Orientation></t:a>"

take safetensors $golden/checkpoint/*.safetensors $golden/checkpoint/*/*.safetensors \
    $golden/models/tiny-base/projector.safetensors $golden/models/variants/projector-llava.safetensors
take torch $golden/checkpoint/*.bin $golden/checkpoint/*.pt $golden/checkpoint/*/*.bin $golden/cases/*/*.bin
take zip $golden/checkpoint/*.bin $golden/checkpoint/*.pt
if command -v unzip >/dev/null 2>&1; then
    mkdir -p "$out/pickle"
    for file in $golden/checkpoint/*.bin $golden/checkpoint/*.pt; do
        unzip -p "$file" '*/data.pkl' >"$out/pickle/$(basename "$file")" 2>/dev/null || :
    done
elif command -v python3 >/dev/null 2>&1; then
    mkdir -p "$out/pickle"
    python3 - "$out/pickle" $golden/checkpoint/*.bin $golden/checkpoint/*.pt <<'PYTHON'
import os, sys, zipfile
for path in sys.argv[2:]:
    try:
        with zipfile.ZipFile(path) as z:
            for name in z.namelist():
                if name.endswith("/data.pkl"):
                    data = z.read(name)
                    open(os.path.join(sys.argv[1], os.path.basename(path)), "wb").write(data)
    except zipfile.BadZipFile:
        pass
PYTHON
fi
take pickle $golden/checkpoint/legacy.bin
take index $golden/checkpoint/*/*.index.json

take config $golden/models/*/easyfirst.json $golden/models/*/*/config.json
text config kinds '{"hidden_size": 768, "layer_norm_eps": 1e-05, "hidden_act": "gelu", "pad": false}'
with model '\0' $golden/models/*/easyfirst.json
with model '\001' $golden/models/*/language/config.json
with model '\002' $golden/models/*/vision/config.json
with model '\003' $golden/models/tiny-base/projector.safetensors
for pair in 4:clip-bare 5:language-xl-mislabelled; do
    { printf "\\00${pair%:*}"; cat "$golden/models/variants/${pair#*:}/model.safetensors"; } >"$out/model/${pair#*:}"
done
text model means '\007{"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.26, 0.27], "size": 224}'
with json_array '\0' $golden/gqa/predictions.json
with json_array '\001' $golden/gqa/scenes.json $golden/gqa/choices.json
text json_array small '\0[1, -2.5e3, "a\\u00e9\\\\\\"", [], {"b": null}, true]'
text json_array object '\001{"a": [1], "b\\u0041": {"c": "}]"}}\n'

text records llava '\001[{"id": "1", "image": "1.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, {"id": 7, "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]'
text records pairs '\0{"inputs": "Hello", "targets": "Hallo"}\n\n{"inputs": "One", "targets": "Eins"}\r\n'
text records lines '\004{"id": "x", "image": "n0.jpg", "conversations": [{"from": "human", "value": "q <image>"}, {"from": "gpt", "value": "a"}]}\n'
text records plain '\0A paragraph\nof two lines.\n\nAnother one.\n'
text records documents '\002\357\273\277A line.\nAnother.\n'
text formats csv '\0question,answer,source\n"a, ""b""",c,d\ne,f,g\n'
text formats mmlu '\0What?,a,"b\nc",d,e,B\nWho?,a,b,c,d,A\n\377Q,1,2,3,4,C\n'
text formats mgsm '\200Wie viele?\t18\nUnd?\t-3\n'
text formats parallel '\053ein Hund\n\nKatze\n\377a dog\n\ncat\n'
text formats pairs '\101a\tb\r\nc\td\n'
text formats stars '\01010,11|10,12/10,12=10,12\n2,8|5,2|5,9|9,3/5,8=5,2,8\n'
text formats squad '\0{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": "finnish-1", "question": "q", "answers": [{"text": "a", "answer_start": 0}]}]}]}]}'
text formats bbh '\001{"canary": "x", "examples": [{"input": "Which?\\nOptions:\\n(A) one\\n(B) two", "target": "(B)"}, {"input": "not True is", "target": "False"}]}'
text formats gsm8k '\0{"question": "q", "answer": "a <<1+1=2>>2\\n#### 2"}\n\377{"inputs": "a", "targets": "b"}\n'
text formats chats '\0{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}\n{"instruction": "i", "input": "j", "output": "o"}\n'
printf '\0' >"$out/formats/gzip" && printf '{"inputs": "a", "targets": "b"}\n' | gzip -n >>"$out/formats/gzip"
if command -v python3 >/dev/null 2>&1; then
    mkdir -p "$out/archive"
    python3 -c 'import sys, zipfile
for kind in (0, 8):
    with zipfile.ZipFile(sys.argv[1] + "/kind%d" % kind, "w", kind) as z:
        z.writestr("a", "text" * 9)
        z.writestr("images/a.png", "x")' "$out/archive"
fi
text ratio two '{"a.jsonl": 0.5, "b.jsonl": 2}'
text ratio below '{"c/d.jsonl": 1}'
text gqa_questions official '\001{"20": {"question": "Is it overcast?", "imageId": "n0", "answer": "no", "isBalanced": true, "groups": {"global": null, "local": "13-a"}, "entailed": ["21"], "equivalent": ["20"], "types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"}, "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}], "annotations": {"question": {"0": "777"}, "answer": {}, "fullAnswer": {"1:3": "778"}}}}'
text gqa_questions llava '\0{"question_id": "20", "image": "n0.jpg", "text": "Is it overcast?\\nAnswer the question using a single word or phrase.", "category": "default"}\n{"question_id": 21, "image": "1.jpg", "text": "Why?", "answer": "so"}\n'
with gqa_questions '\001' $golden/gqa/all_questions.json
with gqa_predictions '\0' $golden/gqa/predictions.json $golden/gqa/answers.jsonl
with gqa_predictions '\001' $golden/gqa/attentions.json
text gqa_score all '[{"questionId": "20", "prediction": "yes"}]\377{"20": {"question": "Is it red?", "imageId": "n0", "answer": "yes", "isBalanced": true, "groups": {"global": "color", "local": "l"}, "entailed": ["21"], "types": {"structural": "verify", "semantic": "attr", "detailed": "attrVerify"}, "semantic": [{"operation": "select", "argument": "car (1000)"}], "annotations": {"question": {"0": "1000"}, "answer": {}, "fullAnswer": {}}}, "21": {"question": "What is red?", "imageId": "n0", "answer": "car", "isBalanced": true, "groups": {"global": null, "local": "m"}, "entailed": [], "types": {"structural": "query", "semantic": "obj", "detailed": "d"}, "semantic": [], "annotations": {"question": {}, "answer": {}, "fullAnswer": {}}}}\377{"20": {"valid": ["yes", "no"], "plausible": ["yes"]}}\377{"n0": {"width": 204, "height": 316, "objects": {"1000": {"name": "car", "x": 78, "y": 28, "w": 63, "h": 52}}}}\377[{"questionId": "20", "attention": [[1,0,0,0,0,0,0],[0,0,0,0,0,0,0],[0,0,0,0.5,0,0,0],[0,0,0,0,0,0,0],[0,0,0,0,0,0,0],[0,0,0,0,0,0,0],[0,0,0,0,0,0,1]]}]'
text scene_graphs one '{"n0": {"width": 204, "height": 316, "objects": {"1000": {"name": "car", "x": 78, "y": 288, "w": 163, "h": 52, "attributes": [], "relations": []}, "1001": {"name": "hot dog", "x": 99, "y": 33, "w": 44, "h": 14}}}, "1": {"width": 5, "height": 4, "objects": {"2": {"name": "a", "x": 0, "y": 0, "w": 5, "h": 4}}}}'
text causal_graph eggs '{"prompt": "A box has 4 rows of 6 eggs. 5 break. How many are left?", "answer": "There are 4 * 6 = 24 eggs. After 5 break, 24 - 5 = 19 are left.", "segments": [{"name": "idea 1", "text": "There are"}, {"name": "formula 1", "text": "4 * 6 ="}, {"name": "result 1", "text": "24"}], "edges": [["idea 1", "formula 1"], ["formula 1", "result 1"]]}'
text causal_graph places '[{"question": "q?", "image": "a.png", "answer": "a b", "segments": [{"name": "x", "begin": 0, "end": 1}, {"name": "y", "begin": 2, "end": 3}], "edges": [["x", "y"]], "note": 1}]'
text causal_graph gsm8k '{"question": "q", "answer": "It is $4 * (2+1) = $<<4*(2+1)=12>>12, so 12-5 = <<12-5=7>>7\\n#### 7"}\n{"question": "q", "answer": "1+1=<<1+1=>>\\n#### -1,000.5"}\n'
for kind in gqa_questions records; do
    mkdir -p "$out/order_prompts"
    for file in "$out/$kind"/*; do tail -c +2 "$file" >"$out/order_prompts/$(basename "$file")"; done
done

take sentencepiece $golden/models/tiny-base/language/sentencepiece.bpe.model
take vocabulary $golden/models/tiny-base/language/sentencepiece.bpe.model
take tokenizer $golden/tokenizer/*.txt
text tokenizer_json bpe '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":6,"content":"<mask>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\\\\\\\p{L}+|\\\\\\\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":true,"use_regex":true}]},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<mask>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<mask>":{"id":"<mask>","ids":[6],"tokens":["<mask>"]}}},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","unk_token":"?","fuse_unk":true,"byte_fallback":true,"ignore_merges":true,"vocab":{"?":0,"a":1,"b":2,"ab":3,"c":4,"<0x61>":5},"merges":["a b"]}}'
text tokenizer_json unigram '{"added_tokens":[],"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true},"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["_a",-1.5],["a",-2],["b",-3]],"byte_fallback":false}}'
text tokenizer_json wordpiece '{"normalizer":{"type":"Precompiled","precompiled_charsmap":""},"pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":9,"vocab":{"[UNK]":0,"a":1,"##b":2}}}'
text merges gpt2 '{"a":0,"b":1,"ab":2,"<s>":3,"<mask>":4,"</s>":5}\377#version: 0.2\na b\n\377{"tokenizer_class":"RobertaTokenizer","mask_token":{"content":"<mask>"},"chat_template":"<|im_start|><|im_end|>"}'
text merges dream '{"a":0,"b":1,"ab":2}\377a b\377{"tokenizer_class":"DreamTokenizer","added_tokens_decoder":{"3":{"content":"<|mask|>","special":true}}}'
text tokenizer words 'What colour is the circle? a<mask>b </s> \342\226\201x \357\274\241\360\237\230\200'
text texts words ' \342\200\250What? (B) 1,234.50 the a\302\205\033[31m\342\200\256. '
text texts number 'the answer is (c). 12,50'
with score_lines '\001' $golden/scores/references.jsonl
with score_lines '\0' $golden/scores/answers.jsonl
text score_lines plain '\0one\r\ntwo\n\nthree'
text score_lines array '\001{"targets": ["a", "b"]}\n\n{"targets": "c"}\n{"target": "d"}\n'
text score_lines failed '\0{"answer": "x"}\n{"error": "none"}\n{"text": "y"}\n'
for kind in 000 002 006 010 020 040 126 373; do
    text score_metrics "kind$kind" "\\$kind"'The cat sat on the mat. 1,234.5\377The cat is on the mat-\377A cat sat &quot;on\377 it costs 5%% \344\270\255\346\226\207\377it cost 5%%\377they cost 5'
done

text trace small '{"format": 1}'
if [ -x build/easyfirst ]; then
    EASYFIRST_MODEL=$golden/models/tiny-base OMP_NUM_THREADS=1 build/easyfirst show --json - -n 3 --steps 3 --quiet \
        $golden/models/image0.png 'What colour is it?' >"$out/trace/shown" 2>/dev/null || rm -f "$out/trace/shown"
fi
take trace tests/fuzz/seeds/trace*
text settings plain '\001{"stage": "instruct", "data": ["a.jsonl"], "steps": 10, "batch-tokens": 4096, "lr": 1e-4, "context": true, "seed": 1}'
text settings lora '\003{"stage": "tune", "lora-rank": 8, "images": "x", "schedule": "cosine", "warmup-steps": 3, "noise": "linear"}'
text options all 'train\377--flag\377--toggle\377on\377-x\377a b\377--choice=two\377-l\377x\377-l\377y\377-n\37712\377--seed=9\377-r\3771.5\377--\377rest'
text options train 'adapt\377--data\377x\377--steps\37710\377--batch-tokens\377512\377--rate=1e-3\377--schedule\377cosine\377--out\377o'
text eval_store both '{"command": "eval gqa", "model": "m", "steps": 10, "options": {"all": true}}\377{"question_id": "1", "prompt": "p", "text": "a", "answer_id": "x", "model_id": "m", "metadata": {"attention": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]}}\n{"question_id": "n3", "text": ""}\n'
text eval_store torn '\377{"question_id": "2", "text": "b"}\n{"question_id": "n3", "te'
for kind in 0 1 2 3 4; do
    text eval_text "task$kind" "\\00$kind"'{"inputs": "a", "targets": "(B) 12"}\n\n{"inputs": "b", "targets": "yes"}\n\377["x", "y"]'
done
text metrics two '{"step": 10, "epoch": 0.5, "loss": 3.25, "norm": 1.0, "rate": 0.001, "tokens_per_s": 10.5, "seconds": 2.5, "skipped": 0}\n{"step": 20, "valid_loss": 3.0, "skipped": 1}\n{"step": 30, "lo'
text state one '\377{"format": 2, "run": "0123456789abcdef0123456789abcdef", "step": 5, "epoch": 0, "index": 3, "skipped": 0, "sequences": 10, "tokens": 100, "seconds": "1.5", "open_loss": "2.5", "open_norm": "0", "open_steps": 1, "bad_samples": 0, "data": [{"path": "p.jsonl", "print": "00ff"}], "compute": {"language": "f32"}, "files": {"easyfirst.json": {"size": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}}'
text state marker '{"format": 1, "run": "0123456789abcdef0123456789abcdef", "models": [{"easyfirst.json": {"size": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}]}\377{}'
touch "$stamp"
