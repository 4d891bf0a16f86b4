#!/usr/bin/env python3
"""Words and phrases of Ding's dictionary as pairs to translate, in the words of a given text.

usage: data/prep/dictionary.py DICTIONARY TEXT.jsonl OUT.jsonl
  DICTIONARY  /usr/share/trans/de-en of Debian's package trans-de-en
  TEXT.jsonl  translations {"inputs", "targets"} from German to English: of the dictionary those
              entries stay whose German words all occur in its inputs, twice at least
  OUT.jsonl   gets lines of the same kind

An entry has forms separated by "|" (singular, plural, examples), each with synonyms separated by ";".
Notes in brackets go. The first English synonym stands for all. Prepositions of usage such as "an
etw." are left out with the form they belong to. The same files give the same bytes.
"""

import collections
import json
import re
import sys

PROMPT = "Translate the sentences into English.  German: %s English: "
NOTES = re.compile(r"\{[^}]*\}|\[[^]]*\]|\([^)]*\)|<[^>]*>|/[^/]*/")
SHORTHAND = re.compile(r"\b(etw|jd|jdm|jdn|jds|jmd|jmdm|jmdn|sth|sb|o\.s|bzw)\b|\.\.\.|…|[|:~/]")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
MOST_WORDS = 14


def plain(text):
    return " ".join(NOTES.sub(" ", text).split()).strip(" ,")


def pairs(lines):
    """German and English, in the dictionary's order."""
    for line in lines:
        if line.startswith("#") or " :: " not in line:
            continue
        german, english = (side.split("|") for side in line.rstrip("\n").split(" :: ", 1))
        if len(german) != len(english):
            continue
        for left, right in zip(german, english):
            target = plain(right.split(";")[0])
            for source in left.split(";"):
                source = plain(source)
                if source and target and not SHORTHAND.search(source + " " + target):
                    yield source, target


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[1])
    dictionary, text, out = sys.argv[1:]
    count = collections.Counter()
    with open(text, encoding="utf-8") as file:
        for line in file:
            count.update(WORD.findall(json.loads(line)["inputs"]))
    seen = set()
    with open(dictionary, encoding="utf-8") as file, open(out, "w", encoding="utf-8") as to:
        for source, target in pairs(file):
            words = WORD.findall(source)
            if not words or len(words) > MOST_WORDS or (source, target) in seen:
                continue
            if all(count[word] >= 2 for word in words):
                seen.add((source, target))
                record = {"inputs": PROMPT % source, "targets": target}
                to.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{out}: {len(seen)} pairs")


if __name__ == "__main__":
    main()
