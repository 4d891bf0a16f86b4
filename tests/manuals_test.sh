#!/bin/sh
# README and manuals against the program: commands, options, files, functions, links, outputs. Prints TAP.
# usage: tests/manuals_test.sh       ($EASYFIRST is the program; from the root of the sources)
#
# What a code block's first line says is done with it:
#   ```console   lines that begin with "$ " are run, and must print the lines that follow
#   ```sh        every line is run, and must succeed
#   anything else is not run; what begins with easyfirst or make is checked all the same
# Blocks run in a folder with `model` (the bundled one), `data`, and small files of the names that the
# manuals use; training stops after two steps.
program=$(realpath "${EASYFIRST:-build/easyfirst}")
root=$(pwd)
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export NO_COLOR=1 LC_ALL=C.UTF-8 OMP_NUM_THREADS=1
unset EASYFIRST_MODEL
number=0
# The manuals whose blocks are run; of the others commands, options, files and links are checked.
RUN="README.md apps/README.md apps/serve/README.md apps/train/README.md apps/eval/README.md apps/reproduce/README.md data/README.md CONTRIBUTING.md"
"$program" serve -m no/such/model 2>&1 | grep -q libmicrohttpd && RUN=$(echo "$RUN" | sed 's| apps/serve/README.md||')
MORE="kernels/README.md data/metrics/README.md data/causal/README.md data/bundled/README.md
      data/prep/README.md tests/reference/README.md
      tests/fuzz/README.md tests/emulator/README.md apps/CHANGELOG.md"

# result STATUS NAME: one line of TAP, after what the log says.
result() {
    number=$((number + 1))
    [ "$1" = 0 ] || sed 's/^/# /' "$folder/log" | head -n 40
    if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}
# quiet NAME: passes if nothing was logged.
quiet() {
    [ ! -s "$folder/log" ]
    result $? "$1"
}

# ---- What the manuals have. ----

# Lines FILE:LINE, kind of block ("span" for `code` in text), code; with tabs between them. Lines that end in a
# backslash are joined.
code_of() {
    for file; do
        awk -v file="$file" -v OFS='\t' '
            /^ *```/ { inside = !inside; kind = substr($0, 4); if (kind == "") kind = "none"; next }
            inside {
                if (held == "") first = FNR
                if (sub(/\\$/, "")) { held = held $0; next }
                print file ":" first, kind, held $0
                held = ""
                next
            }
            { text = text " " $0; n = gsub(/`/, "`", text)
              if (n % 2 && $0 != "") next           # a span goes on in the next line
              while (match(text, /`[^`]+`/)) {
                  print file ":" FNR, "span", substr(text, RSTART + 1, RLENGTH - 2)
                  text = substr(text, RSTART + RLENGTH)
              }
              text = "" }' "$file"
    done
}

# Lines "COMMAND OPTION" of all that --help lists, with the dashes.
options_of_help() {
    "$program" --help=commands | while read -r command; do
        # shellcheck disable=SC2086
        "$program" $command --help </dev/null |
            sed -n "/^examples:\$/q; s/^  \(    \|\(-.\), \)\(--[a-z0-9-]*\).*/$command \3\n$command \2/p" |
            grep -- ' -'
        echo "$command --help"
        echo "$command --version"
    done
    printf 'easyfirst --help\neasyfirst --version\n'
}

# Reads code and checks every easyfirst in it: the command is one, and has the options.
check_commands() {
    awk -F'\t' '
        NR == FNR { known[$0] = 1; n = split($0, part, " "); if (n == 2) single[part[1]] = 1
                    if (n == 3) double[part[1] " " part[2]] = 1; next }
        {
            code = $3
            gsub(/"[^"]*"|\047[^\047]*\047/, "TEXT", code)
            gsub(/\\\|/, "/", code)                    # in tables
            gsub(/ #.*/, "", code)
            count = split(code, commands, /\||;|&&|\$\(/)
            for (c = 1; c <= count; c++) {
                words = split(commands[c], word, /[ `)]+/)
                for (i = 1; i <= words && (word[i] == "$" || word[i] == "" || word[i] ~ /^[A-Z_]+=/); i++);
                if (word[i] !~ /^(build\/)?easyfirst$/ || i == words) continue
                checked++
                name = word[++i]
                if (name ~ /^-/) { sub(/=.*/, "", name); if (!(("easyfirst " name) in known)) print $1 ": no option " name; continue }
                if (name == "COMMAND" || name == "") continue
                if (!(name in single)) { print $1 ": no command \"" name "\": " $3; continue }
                if ((name " " word[i + 1]) in double) name = name " " word[++i]
                for (i++; i <= words; i++) {
                    option = word[i]; sub(/=.*/, "", option)
                    if (option ~ /^[<>]/) break
                    if (option ~ /^-[a-z-]/ && !((name " " option) in known))
                        print $1 ": " name " has no option " option ": " $3
                }
            }
        }
        END { print checked + 0 > "/dev/stderr" }' "$folder/options" - 2>"$folder/count"
}

# Options alone in text are some command's.
check_option_spans() {
    awk -F'\t' '
        NR == FNR { n = split($0, part, " "); known[part[n]] = 1; next }
        $2 == "span" && $3 ~ /^(--[a-z]|-[a-z]( |$))/ {
            split($3, part, /[ =\[|\\]/)
            if (!(part[1] in known)) print $1 ": no command has " part[1]
        }' "$folder/options" -
}

check_make() {
    sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile | sort -u >"$folder/targets"
    tr '`;&|' '\n\n\n\n' | grep -o '\(^\|	\|\$ \)make [a-z][^ ]*' | sed 's/.*make //' | grep -v / | sort -u |
        comm -23 - "$folder/targets" | sed 's/^/no such target: make /'
}

# Names of files, in spans: with a slash or a known ending, below the root or the manual's folder.
check_files() {
    awk -F'\t' '$2 == "span" && $3 ~ /^[A-Za-z0-9_.\/-]+$/ && $3 ~ /\// && $3 !~ /^(\/|-|build|RUN|FOLDER)/ { print $1 "\t" $3 }' |
        grep -v '	\(FacebookAI\|facebook\|openai\|yegcjs\|training\)/\|[A-Z]$' | while IFS='	' read -r at name; do
            base=${name%/}
            found=
            for place in . "$(dirname "${at%%:*}")" tests; do
                for end in "" .h .c .sh; do [ -e "$place/$base$end" ] && found=1; done
            done
            [ "$found" ] || echo "$at: no file $name"
        done
}

# Functions and types, in spans of CONTRIBUTING.md: some source has the word.
check_names() {
    awk -F'\t' '$2 == "span" && $3 ~ /^[a-z0-9]+_[a-z0-9_]+$/ { print $3 }' | sort -u | while read -r name; do
        grep -rqw --include='*.[ch]' --include='*.cc' --include='*.cu' --include='*.py' "$name" \
            apps data kernels language projector tests vision || ls tests/*/"$name.c" >/dev/null 2>&1 ||
            echo "no source has $name"
    done
}

# Links to files, and to headings in them.
check_links() {
    for file; do
        grep -o '](\([^)]*\))' "$file" | sed 's/^](\(.*\))$/\1/' | grep -v '^http' | while read -r link; do
            to=${link%%#*} anchor=
            case $link in *#*) anchor=${link#*#} ;; esac
            target=$(dirname "$file")/$to
            [ -n "$to" ] || target=$file
            [ -e "$target" ] || echo "$file: no file $link"
            [ -z "$anchor" ] || sed -n 's/^##* //p' "$target" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9_\n-' |
                grep -qx -- "$anchor" || echo "$file: no heading $link"
        done
    done
}

# Words that the documents do without, as whole words; code is left out, and so are words in quotes (a model's).
FORBIDDEN='picture|pictures|products|runners-up|shadow|wording|told|stands|goes on|beside|anew|nobody|let go|whatever it is|slope
this is no|is no text|is no UTF-8|no numbers|take it up|hoped for|--rate|--recompute|--pass-tokens|--no-reuse|--no-memory|--bad-share'
forbidden() { grep -nwE -e "$(echo "$FORBIDDEN" | paste -sd '|')"; }
check_words() {
    for file; do
        sed '/^ *```/,/^ *```/d; s/`[^`]*`//g; s/"[^"]*"//g; s/([^)]*\(md\|html\|sh\|jpg\|svg\))//g' "$file" | forbidden | sed "s|^|$file: |"
    done
    "$program" --help=commands | while read -r command; do
        # shellcheck disable=SC2086
        "$program" $command --help | sed 's/"[^"]*"//g' | forbidden | sed "s/^/$command --help: /"
    done
}

# Code in the first column of the table after a heading, one span a line.
table_of() { # FILE HEADING
    awk -v heading="## $2" '$0 == heading { on = 1; next } on && /^## / { exit }
        on && /^\| *`/ { split($0, cell, / \| /); print cell[1] }' "$1" | grep -o '`[^`]*`' | tr -d '`' | sort -u
}

# ---- A folder to run in. ----

pair() { printf '{"inputs": "%s", "targets": "%s"}\n' "$1" "$2"; }
# talk IMAGE: LLaVA's array of one conversation.
talk() {
    printf '[{"id": "1", "image": "%s", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, ' "$1"
    printf '{"from": "gpt", "value": "A dog."}]}]\n'
}
set_up() {
    mkdir -p "$folder/bin" "$folder/run/tydiqa" "$folder/run/gqa" "$folder/run/traces" && cd "$folder/run" || exit 1
    small=$root/tests/golden/models/tiny-base
    images=$root/data/bundled/images
    # Training ends after two steps, whatever the stage's default is.
    cat >"$folder/bin/easyfirst" <<END
#!/bin/sh
[ "\$1" = train ] && [ "\$2" != --resume ] && exec "$program" "\$@" --steps 2 --batch-sequences 2
exec "$program" "\$@"
END
    chmod +x "$folder/bin/easyfirst"
    ln -s "$root/data" data && ln -s data/bundled/model model
    for image in dog.jpg a.jpg gqa/dog.jpg; do cp "$images/elephant.jpg" "$image"; done
    cp "$root/tests/golden/models/image0.png" b.png
    for images in laion llava gqa/images; do mkdir "$images" && cp dog.jpg "$images/dog.jpg"; done
    echo "Bibliothek zum Lesen von Dateien" >german.txt
    echo "This package has tools for reading XML files." >articles.txt
    cp -r "$small/language" xlm-roberta-base && cp -r "$small/vision" clip-vit-large-patch14
    # A language model with its length predictor, as the released ones have: shards with an index.
    cp -r "$small/language" flan-base && cp "$small/length.safetensors" flan-base
    mv flan-base/model.safetensors flan-base/language.safetensors
    for file in language length; do
        "$program" info --json --tensors "flan-base/$file.safetensors" | grep -o '"name": "[^"]*"' |
            sed "s/.*: \(.*\)/\1: \"$file.safetensors\"/"
    done | paste -sd , | sed 's/.*/{"weight_map": {&}}/' >flan-base/model.safetensors.index.json
    cp "$small/length.safetensors" "$small/projector.safetensors" . && cp projector.safetensors mine.safetensors
    talk dog.jpg | tee blip_laion_cc_sbu_558k.json >llava_v1_5_mix665k.json
    for i in 1 2 3; do pair "Question $i:" "An answer, $i."; done | tee train.jsonl >valid.jsonl
    pair "Bibliothek" "library" | tee test.de-en.jsonl mmlu.jsonl >tydiqa/0shot.english.jsonl
    echo '["law"]' >index2subject.json
    echo "a small library" | tee answers.txt >references.txt
    echo '{"answer": "a small library"}' >answers.jsonl
    pair "Bibliothek" "a library" >test.jsonl
    echo '{"1": {"question": "Is it asleep?", "imageId": "dog", "answer": "no", "isBalanced": true,
        "groups": {"global": null, "local": "1"}, "entailed": ["1"], "equivalent": ["1"], "semantic": [],
        "types": {"structural": "verify", "semantic": "attr", "detailed": "attr"},
        "annotations": {"question": {}, "answer": {}, "fullAnswer": {}}}}' >testdev_balanced_questions.json
    echo '[{"questionId": "1", "prediction": "no"}]' >predictions.json
    echo '{"dog": {"width": 128, "height": 128, "objects": {"7":
        {"name": "dog", "x": 8, "y": 8, "w": 99, "h": 90, "attributes": [], "relations": []}}}}' >scenes.json
    cd "$root" || exit 1
}

# Lines of a console block: commands, and what they print.
run_console() {
    awk -F'\t' '$2 == "console"' "$folder/code" | cut -f1,3- >"$folder/console"
    : >"$folder/want" && : >"$folder/command"
    while IFS='	' read -r at line; do
        case $line in
        '$ '*) compare && command=${line#??} place=$at && : >"$folder/want" ;;
        *) printf '%s\n' "$line" >>"$folder/want" ;;
        esac
    done <"$folder/console"
    compare
}
compare() {
    [ -z "$command" ] && return
    commands=$((commands + 1))
    (cd "$folder/run" && sh -c "$command" </dev/null >"$folder/got" 2>"$folder/err") || echo "$place: failed: $command"
    diff "$folder/want" "$folder/got" | sed "s|^|$place: |"
}

run_plain() {
    awk -F'\t' '$2 == "sh"' "$folder/code" | cut -f1,3- >"$folder/plain"
    while IFS='	' read -r at line; do
        case $line in '' | '#'*) continue ;; esac
        commands=$((commands + 1))
        (cd "$folder/run" && sh -c "$line" </dev/null >"$folder/got" 2>"$folder/err") || {
            echo "$at: failed: $line" && tail -n 3 "$folder/err"
        }
    done <"$folder/plain"
}

# ---- Formats of data. ----

# The samples of data/README.md: blocks whose first line names a file.
samples() {
    mkdir -p "$folder/samples/mixture"
    awk -v to="$folder/samples/" '/^```/ { out = out == "" && NF == 2 ? to $2 : ""; next } out != "" { print >out }' \
        "$root/data/README.md"
    cp "$folder/samples/pairs.jsonl" "$folder/samples/mixture/one.jsonl"
    cp "$folder/samples/pairs.jsonl" "$folder/samples/mixture/two.jsonl"
}
# Lines "FILE COMMAND" of the table: what reads what.
readers() {
    sed -n 's/^| `\([a-z]*[.a-z]*\)` | .* | \(.*\) |$/\1\t\2/p' "$root/data/README.md" | sed 's/, and .*//' |
        awk -F'\t' '{ n = split($2, part, /`/); for (i = 2; i <= n; i += 2) print $1 " " part[i] }'
}
# reads COMMAND FILE: whether it does.
reads() {
    new=$folder/reads
    rm -rf "$new"
    small=$root/tests/golden/models/tiny-base
    case $1 in
    "train pretrain") set -- $1 -m "$small" --data "$2" --out "$new" --warmup-steps 1 ;;
    "train adapt" | "train instruct") set -- $1 -m "$small" --data "$2" --out "$new" ;;
    train*) set -- $1 -m "$small" --data "$2" --out "$new" --images gqa ;;
    prune) set -- $1 -m "$small" --data "$2" "$new" ;;
    "eval text") set -- $1 "$2" --task exact --out "$new" --length 2 ;;
    "eval gqa") set -- $1 "$2" --images gqa --out "$new" ;;
    "eval order") set -- $1 "$2" --images gqa --length 3 ;;
    "eval likelihood") set -- $1 -m "$small" "$2" --samples 4 ;;
    "eval order --graphs") set -- $1 "$2" --length 3 ;;
    "score gqa") set -- $1 predictions20.json "$2" ;;
    esac
    easyfirst "$@" </dev/null >"$folder/got" 2>&1
}
# Every command with every sample: those in the table succeed, the others do not.
formats() {
    samples
    readers >"$folder/readers"
    cd "$folder/run" || exit 1
    echo '[{"questionId": "20", "prediction": "no"}]' >predictions20.json
    cut -d' ' -f2- "$folder/readers" | sort -u | while read -r reader; do
        for sample in "$folder"/samples/*; do
            name=$(basename "$sample")
            grep -qx "$name $reader" "$folder/readers" && want=0 || want=1
            reads "$reader" "$sample"
            status=$?
            [ "$status" = "$want" ] || {
                echo "easyfirst $reader $name: status $status, but the table says $want" && tail -n 1 "$folder/got"
            }
        done
    done
}

# ---- The checks. ----

echo "1..18"
# shellcheck disable=SC2086
code_of $RUN $MORE >"$folder/all_code"
# shellcheck disable=SC2086
code_of $RUN >"$folder/code"
code_of CONTRIBUTING.md >"$folder/contributing"
options_of_help >"$folder/options"

check_commands <"$folder/all_code" >"$folder/log"
echo "# $(cat "$folder/count") commands"
[ "$(cat "$folder/count")" -gt 80 ] && [ ! -s "$folder/log" ]
result $? "every command and option in the manuals is one of the program's"
printf 'x:1\tsh\teasyfirst ask --no-such x\nx:2\tspan\teasyfirst sak\nx:3\tsh\ta | easyfirst eval text --choices f\n' |
    check_commands | grep -c '^x:[123]: ' | grep -qx 3
result $? "... and one that is not would be found"
check_option_spans <"$folder/code" >"$folder/log"
quiet "every option in the text is one of a command's"
check_make <"$folder/all_code" >"$folder/log"
quiet "every make target in the manuals is one of the Makefile's"
check_files <"$folder/code" >"$folder/log"
quiet "every file in the manuals exists"
check_names <"$folder/contributing" >"$folder/log"
quiet "every function in CONTRIBUTING.md exists"
for test in tests/*/test_*.c; do
    name=${test#tests/}
    grep -q "\`${name%.c}\`" CONTRIBUTING.md || echo "no line has ${name%.c}"
done >"$folder/log"
quiet "every test program is in CONTRIBUTING.md's table"
# shellcheck disable=SC2086
check_links $RUN $MORE >"$folder/log"
quiet "every link leads to a file and a heading"
check_words README.md apps/README.md apps/*/*.md data/README.md CONTRIBUTING.md >"$folder/log"
quiet "manuals and --help use the project's terms"
[ "$(wc -l <README.md)" -le 150 ]
result $? "README.md has at most 150 lines"

set_up
PATH=$folder/bin:$PATH
commands=0 command=
# The server of apps/serve/README.md, on a free port, which curl asks in place of the manual's.
server=
serve_up() {
    (cd "$folder/run" && exec "$program" serve -q -m model --port 0 2>"$folder/served") &
    server=$!
    tries=0
    until grep -q 'at http' "$folder/served" 2>/dev/null || [ $tries -ge 200 ]; do tries=$((tries + 1)) && sleep 0.1; done
    port=$(sed -n 's/.* at http.*:\([0-9]*\)$/\1/p' "$folder/served")
    cat >"$folder/bin/curl" <<END
#!/bin/sh
for word; do
    shift
    case \$word in http://localhost:8080/*) word=http://localhost:$port/\${word#http://localhost:8080/} ;; esac
    set -- "\$@" "\$word"
done
exec $(command -v curl || echo false) "\$@"
END
    chmod +x "$folder/bin/curl"
}
serve_up
trap 'kill $server 2>/dev/null; rm -rf "$folder"' EXIT
run_console >"$folder/log"
[ $commands -ge 3 ] && [ ! -s "$folder/log" ]
result $? "$commands commands print what the manuals show"
commands=0
run_plain >"$folder/log"
[ $commands -ge 35 ] && [ ! -s "$folder/log" ]
result $? "$commands other commands of the manuals run"

# The lines of C compile against the public header, in a function.
{
    printf '#include <stdio.h>\n#include "projector/easyfirst.h"\nint main(void) {\n'
    awk -F'\t' '$2 == "c"' "$folder/code" | cut -f3-
    echo 'return 0; }'
} >"$folder/sample.c"
[ "$(wc -l <"$folder/sample.c")" -gt 8 ] &&
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -Wno-unused-variable -I. -fsyntax-only "$folder/sample.c" >"$folder/log" 2>&1
result $? "the lines of C in README.md compile"

# Keys of JSON objects: those in the table, and those that the program prints.
keys() { grep -o '"[a-z_]*":' | tr -d '":' | sort -u; }
table_of apps/README.md JSON >"$folder/want"
(
    cd "$folder/run" || exit 1
    easyfirst ask -q --json --trace --steps 2 --beam 2 dog.jpg "What is it?"
    easyfirst show -q --json --html page.html --steps 2 dog.jpg "What is it?"
    printf 'a\n' | easyfirst text -q --json
    easyfirst text -q --json --one-of "a, the" a
    easyfirst text -q --json --early-stop 2 --guidance 1 a
    awk 'BEGIN { for (i = 0; i < 900; i++) printf "word "; print "" }' >long.txt
    easyfirst text -q --json --long-prompts keep-last --length 4 --file long.txt
    easyfirst text -q --json --file long.txt
    awk 'BEGIN { printf "{\"image\": \"dog.jpg\", \"question\": \"Why?\", \"turns\": ["
                 for (i = 0; i < 99; i++) printf "%s{\"question\": \"What is this?\", \"answer\": \"a dog in front of a house\"}", i ? "," : ""
                 print "]}" }' | easyfirst ask -q --length 4 --questions -
    cp -RL model calibrated
    sed -i '1s/{/{"calibration": {"slope": 1, "offset": 2, "threshold": 0.5},/' calibrated/easyfirst.json
    easyfirst ask -q -m calibrated --json dog.jpg "What is it?"
    cp -RL model full
    sed -i 's/"block-causal"/"full"/' full/easyfirst.json
    easyfirst text -q -m full --json --early-stop 2 --prefix-cache 2 a
) 2>/dev/null | keys >"$folder/got"
diff "$folder/want" "$folder/got" >"$folder/log"
quiet "the table of JSON keys has those that are printed"

# Files and keys of runs, which the manuals' commands have left.
left_behind() {
    cd "$folder/run" || exit 1
    easyfirst eval gqa -q testdev_balanced_questions.json --images gqa/images --attention --out attended >/dev/null 2>&1
    { ls attended && ls de-en | sed 's/^test.de-en/FILE/'; } | sort -u >"$folder/got"
    table_of "$root/apps/eval/README.md" "Files of an evaluation" | diff - "$folder/got"
    easyfirst train segment -q -m "$small" --data scenes.json --valid scenes.json --images gqa --out segmented
    easyfirst train adapt -q -m "$small" --data train.jsonl --valid train.jsonl --best-by chrf --valid-answers 2 --out bested
    { find run bested -mindepth 1 -maxdepth 1 | sed 's#^[^/]*/##; s/-0[0-9]*$/-N/' && keys <run/metrics.jsonl && keys <bested/metrics.jsonl && keys <segmented/metrics.jsonl; } | sort -u >"$folder/got"
    table_of "$root/apps/train/README.md" Runs | grep -v '^--' | diff - "$folder/got"
}
(left_behind) >"$folder/log" 2>&1
quiet "the tables of files and of metrics have those that runs leave"

# Environment variables: those in the table, and those that the sources ask for.
table_of apps/README.md Environment >"$folder/want"
grep -rhoE --include='*.c' --include='*.cc' --include='*.cu' 'getenv\("[A-Z_]+"' apps data kernels language projector vision |
    cut -d'"' -f2 | sort -u >"$folder/got"
comm -13 "$folder/want" "$folder/got" >"$folder/log"
quiet "the table of environment variables has those that the program reads"

# Exit statuses 0 to 2; 3 takes a signal (test_train_run).
statuses() {
    table_of apps/README.md "Exit statuses" | tr '\n' ' ' | grep -qx '0 1 2 3 ' || echo "not the statuses 0 to 3"
    cd "$folder/run" || exit 1
    easyfirst info model >/dev/null || echo "info: status $?"
    easyfirst ask -q dog.jpg nothing.jpg "What is it?" >/dev/null 2>&1
    [ $? = 1 ] || echo "ask without one of its images: not 1"
    easyfirst ask --no-such >/dev/null 2>&1
    [ $? = 2 ] || echo "wrong usage: not 2"
}
(statuses) >"$folder/log"
quiet "exit statuses are those in the table"

(formats) >"$folder/log"
[ "$(wc -l <"$folder/readers")" -ge 25 ] && [ ! -s "$folder/log" ]
result $? "commands read the formats that data/README.md says, and no others"
