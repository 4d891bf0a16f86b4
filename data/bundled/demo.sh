#!/bin/sh
# What the program does, with the bundled model: questions about three images, with the answers being
# denoised on the screen, a translation and a summary. `make demo` runs it.
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

try show "$images/tractor.jpg" "Which thing is at the bottom of the picture?"
try show "$images/elephant.jpg" "Which colour does the dress have?"
try show "$images/sailboat.jpg" "How many things are in the picture?"
try text translate --from German --to English --beam 3 "Werkzeug zum Bearbeiten von Bildern"
try text summarize \
    "This package provides a small library for reading and writing XML files in Python."
