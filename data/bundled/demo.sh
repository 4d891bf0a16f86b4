#!/bin/sh
# What the program does, with the bundled model: questions about a photograph and two drawn scenes, with
# the answers being denoised on the screen, a translation and a summary. `make demo` runs it.
# EASYFIRST in the environment names the program (build/easyfirst).
set -eu
cd "$(dirname "$0")/../.."
easyfirst=${EASYFIRST:-build/easyfirst}
model=data/bundled/model
images=data/bundled/images

try() { # a command of easyfirst: printed, then run
    printf '$ easyfirst'
    for word; do
        case $word in *[!A-Za-z0-9./_-]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$easyfirst" "$@" --quiet -m "$model"
    printf '\n'
}

try show "$images/cat.jpg" "What does the image show?"
try show "$images/tractor.jpg" "Where is the tractor?"
try show "$images/sailboat.jpg" "Is the sailboat left or right of the giraffe?"
try text translate --from German --to English "Die Datei konnte nicht geöffnet werden."
try text summarize \
    "A small and fast text editor for the console. It supports syntax highlighting and several files at once."
