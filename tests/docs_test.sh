#!/bin/sh
# Man pages, completions and `make help`: made from the program's own tables, and complete. Prints TAP.
# usage: tests/docs_test.sh          ($EASYFIRST is the program; from the root of the sources)
program=${EASYFIRST:-build/easyfirst}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0

# result STATUS NAME: one line of TAP.
result() {
    number=$((number + 1))
    if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}
skip() {
    number=$((number + 1))
    echo "ok $number # SKIP $1"
}

# with TOOL NAME COMMAND...: the command must succeed without a word, where the tool is.
with() {
    tool=$1 name=$2
    shift 2
    if ! command -v "$tool" >/dev/null 2>&1; then
        skip "$name: no $tool here"
        return
    fi
    "$@" >"$folder/log" 2>&1
    status=$?
    [ -s "$folder/log" ] && status=1
    [ "$status" = 0 ] || sed 's/^/# /' "$folder/log" | head -n 20
    result "$status" "$name"
}

page_of() { echo "$folder/easyfirst-$(echo "$1" | tr ' ' -).1"; }

# Lines "COMMAND OPTION", sorted: the options in --help (in its groups, which follow its first lines), and in
# what was made of them.
in_help() {
    while read -r command; do
        # shellcheck disable=SC2086
        "$program" $command --help | sed -n "/^examples:\$/q; /^[a-z].*:\$/,\$s/^  \(    \|-., \)--\([a-z0-9-]*\).*/$command \2/p"
    done <"$folder/commands"
}
in_man() {
    while read -r command; do
        sed -n 's/\\-/-/g; s/^\(\\fB-.\\fR, \)\{0,1\}\\fB--\([a-z0-9-]*\)\\fR.*/'"$command"' \2/p' \
            "$(page_of "$command")"
    done <"$folder/commands"
}
in_bash() {
    awk -F"'" '/^    \047.*\047\)$/ { command = $2 }
        /^        options=/ { n = split($2, words, " "); for (i = 1; i <= n; i++) print command, substr(words[i], 3) }' \
        "$folder/bash"
}
in_zsh() {
    awk -F"'" '/^    \047.*\047\)$/ { command = $2 }
        /^            \047/ { sub(/=?[\[}].*$/, ""); sub(/^.*--/, ""); print command, $0 }' "$folder/zsh"
}
in_fish() { sed -n "s/^.*'__easyfirst_command \([a-z ]*\)' -l \([a-z0-9-]*\) .*/\1 \2/p" "$folder/fish"; }

# covers FUNCTION: whether it prints all that --help has.
covers() {
    "$1" | sort -u >"$folder/found"
    comm -23 "$folder/options" "$folder/found" | sed 's/^/# missing: /' >"$folder/log"
    cat "$folder/log"
    [ -s "$folder/found" ] && [ ! -s "$folder/log" ]
}

# words WORD...: what bash offers for the last of these words.
words() {
    bash -c 'compopt() { :; }; source "$0"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); last=${!#}
        _easyfirst easyfirst "$last" "${COMP_WORDS[COMP_CWORD - 1]}"; echo "${COMPREPLY[*]}"' \
        "$folder/bash" "$@"
}

echo "1..20"
"$program" --help=commands >"$folder/commands"
while read -r command; do
    # shellcheck disable=SC2086
    "$program" $command --help=man >"$(page_of "$command")" || echo "# $command has no page"
done <"$folder/commands"
"$program" --help=man >"$folder/easyfirst.1"
for shell in bash zsh fish; do "$program" --help=$shell >"$folder/$shell"; done

# Every command that calls itself so in the sources is in the list.
sed -n 's/^    \.name = "\(.*\)",$/\1/p' apps/*.c apps/*/*.c | sort >"$folder/named"
sort "$folder/commands" | diff "$folder/named" - | sed 's/^/# /' >"$folder/log"
cat "$folder/log"
[ -s "$folder/named" ] && [ ! -s "$folder/log" ]
result $? "every command has a page"

in_help | sort -u >"$folder/options"
echo "# $(wc -l <"$folder/options") options of $(wc -l <"$folder/commands") commands"
[ "$(wc -l <"$folder/options")" -gt 100 ]
result $? "options are found in --help"

with groff "pages: groff has no warning" groff -man -ww -z "$folder"/*.1
# Pages have no date: it would be that of a release, which no source names.
lint_pages() { mandoc -T lint -W warning "$folder"/*.1 | grep -v 'missing date'; :; }
with mandoc "pages: mandoc has no warning" lint_pages
covers in_man
result $? "every option is in its command's page"
for shell in bash zsh fish; do
    with $shell "$shell reads its completion" $shell -n "$folder/$shell"
    covers in_$shell
    result $? "every option is in $shell's completion"
done

# So that these checks are known to see what is missing.
echo "ask no-such-option" >>"$folder/options" && sort -o "$folder/options" "$folder/options"
for made in man bash zsh fish; do covers in_$made; done | grep -c 'missing: ask no-such-option' | grep -qx 4
result $? "an option that is not there is missed"

if command -v bash >/dev/null 2>&1; then
    [ "$(words easyfirst be)" = bench ] && [ "$(words easyfirst score g)" = gqa ]
    result $? "bash completes commands"
    [ "$(words easyfirst score gqa --jso)" = --json ] && [ "$(words easyfirst ask --dtype b)" = bf16 ]
    result $? "bash completes options and their values"
else
    skip "no bash here"
    skip "no bash here"
fi

"$program" ask --help=nothing >"$folder/log" 2>&1
[ $? = 2 ] && grep -q 'man, bash, zsh or fish' "$folder/log"
result $? "an unknown format is wrong usage"

MAKEFLAGS="" make -s --no-print-directory help >"$folder/help" 2>&1
for target in $(sed -n 's/^\([a-z-]*\):[^#]*## .*/\1/p' Makefile); do
    grep -q "^  $target " "$folder/help" || echo "# make help leaves out $target"
done >"$folder/log"
cat "$folder/log"
[ ! -s "$folder/log" ]
result $? "make help names every target"

MAKEFLAGS="" make -s --no-print-directory deps DEPS=no NEEDS=cmd:no-such-command=no-such-package >"$folder/log" 2>&1
[ $? != 0 ] && grep -q '^missing packages: no-such-package' "$folder/log"
result $? "DEPS=no names what is missing and fails"
MAKEFLAGS="" make -s --no-print-directory BUILD="$folder/build" NEEDS=hdr:no/such.h=no-such-dev "$folder/build/flags" \
    >"$folder/log" 2>&1
[ $? != 0 ] && grep -q '^missing packages: no-such-dev' "$folder/log"
result $? "make names what is missing before it compiles"

# The program is not made anew: these flags need not be those that it was made with.
install_docs() {
    MAKEFLAGS="" make -s --no-print-directory -o "$program" BUILD="$(dirname "$program")" DESTDIR="$folder/tree" \
        PREFIX=/usr "$1" >"$folder/log" 2>&1 || { sed 's/^/# /' "$folder/log" && false; }
}
install_docs install-docs
share=$folder/tree/usr/share
for page in "$folder"/*.1; do cmp "$page" "$share/man/man1/$(basename "$page")" || echo "$page"; done >"$folder/log" 2>&1
[ "$(find "$share/man" -type f | wc -l)" = "$(($(wc -l <"$folder/commands") + 1))" ] && [ ! -s "$folder/log" ] &&
    cmp "$folder/bash" "$share/bash-completion/completions/easyfirst" &&
    cmp "$folder/zsh" "$share/zsh/site-functions/_easyfirst" &&
    cmp "$folder/fish" "$share/fish/vendor_completions.d/easyfirst.fish" &&
    [ -f "$share/doc/easyfirst/LICENSE" ] && [ -f "$share/doc/easyfirst/CHANGELOG.md" ]
result $? "install-docs puts every page, completion and document in place"
install_docs uninstall-docs
[ -z "$(find "$folder/tree" ! -type d)" ]
result $? "uninstall-docs leaves nothing"
