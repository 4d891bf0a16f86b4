#!/bin/sh
# A first look at what the program does, with the small model that comes with it: questions about
# three pictures, filled in before your eyes, a translation and a summary. `make demo` runs it.
# EASYFIRST in the environment names the program (build/easyfirst).
set -eu
cd "$(dirname "$0")/../.."
easyfirst=${EASYFIRST:-build/easyfirst}
model=data/bundled/model
pictures=data/bundled/images

try() { # COMMAND of easyfirst and what follows: told, then run
    printf '$ easyfirst'
    for word; do
        case $word in *[!A-Za-z0-9./_-]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$easyfirst" "$@" --quiet -m "$model"
    printf '\n'
}

try show "$pictures/tractor.jpg" "Which thing is at the bottom of the picture?"
try show "$pictures/elephant.jpg" "Which colour does the dress have?"
try show "$pictures/sailboat.jpg" "How many things are in the picture?"
try text translate --from German --to English --beam 3 "Werkzeug zum Bearbeiten von Bildern"
try text summarize \
    "This package provides a small library for reading and writing XML files in Python."
