#!/usr/bin/env python3
"""German-English pairs from what Debian's packages bring beside their descriptions.

usage: data/prep/catalogues.py PACKAGES OUT [--dictionary FILE] [--held FILE.jsonl]...
  PACKAGES  a folder for each package with the files that catalogues.sh took from it: message
            catalogues (de/LC_MESSAGES/*.mo), help pages in both languages (help/C, help/de; HTML/en,
            HTML/de)
  OUT       gets {train,valid,test}.{messages,manuals,dictionary}.jsonl, lines of {"inputs", "targets",
            "source"}, German to English; *.en-de.jsonl the other way; and report.txt
  --dictionary  Ding's dictionary (/usr/share/trans/de-en): words, phrases and its example sentences
  --held    lines of {"inputs", "targets"} that are held out elsewhere: what is like them is left out

Packages are held out whole, by a hash of their family's name; of the dictionary single entries. What
shares half of its word shingles with anything held out is no training text. The same files give the
same bytes.
"""
import argparse
import glob
import html.parser
import json
import os
import re
import struct
import sys
from collections import Counter
from difflib import SequenceMatcher

import text_pairs
import text_split

SHARE = 0.03  # of the packages, in each of valid and test
ENTRIES = 0.02  # of the dictionary's lines, in each
LIMIT = 1000  # held-out pairs of each kind


class Source:
    """What text_pairs calls a package: names that do not count when texts are compared."""

    def __init__(self, name):
        self.name, self.source, self.words = name, name, frozenset()


# ---- Message catalogues (GNU gettext's .mo). ----

def mo_entries(path):
    with open(path, "rb") as f:
        data = f.read()
    if data[:4] not in (b"\xde\x12\x04\x95", b"\x95\x04\x12\xde"):
        return
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    _, count, ids, strs = struct.unpack_from(order + "4I", data, 4)
    for i in range(count):
        texts = []
        for table in (ids, strs):
            size, at = struct.unpack_from(order + "2I", data, table + 8 * i)
            texts.append(data[at : at + size].decode("utf-8", "replace"))
        key, value = texts
        key = key.split("\x04")[-1]
        yield from zip(key.split("\0"), value.split("\0"))


MARKUP = re.compile(r"%[\w(%{]|[{}<>\\$`|^~@#*=]|&\w+;|_\(|\bhttps?:|\w/\w+/|\.\.\.\w|--\w|[\x00-\x08\ufffd]")


def message_text(text):
    """A message without its access keys, or None if a program's placeholders are in it."""
    text = re.sub(r"&(?=\w)", "", text) if text.count("&") == 1 else text
    if text.count("_") == 1:
        text = text.replace("_", "")
    if MARKUP.search(text):
        return None
    return text.strip()


def message_pairs(folder):
    for path in sorted(glob.glob(folder + "/**/de/LC_MESSAGES/*.mo", recursive=True)):
        for english, german in mo_entries(path):
            english, german = message_text(english), message_text(german)
            if not english or not german or english == german:
                continue
            ours, theirs = english.split("\n\n"), german.split("\n\n")
            if len(ours) != len(theirs):
                ours, theirs = [english], [german]
            for a, b in zip(ours, theirs):
                yield " ".join(a.split()), " ".join(b.split())


# ---- Help pages: the same page in both languages, block by block. ----

BLOCKS = {"p", "title", "para", "h1", "h2", "h3", "h4", "li", "dt", "dd", "td", "th", "term", "desc",
          "guilabel", "listitem", "figcaption", "caption", "subtitle", "simpara", "entry", "member"}
SILENT = {"script", "style", "code", "screen", "programlisting", "head", "info", "ulink", "email",
          "revision", "credit", "license"}


class Page(html.parser.HTMLParser):
    """The texts of a page's blocks, in order, with their tags."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks, self.open, self.silent = [], [], 0

    def handle_starttag(self, tag, attrs):
        tag = tag.split(":")[-1]
        if tag in SILENT:
            self.silent += 1
        if tag in BLOCKS:
            self.open.append([tag, ""])

    def handle_endtag(self, tag):
        tag = tag.split(":")[-1]
        if tag in SILENT and self.silent:
            self.silent -= 1
        if tag in BLOCKS and any(t == tag for t, _ in self.open):
            while self.open:
                name, text = self.open.pop()
                text = " ".join(text.split())
                if text:
                    self.blocks.append((name, text))
                if name == tag:
                    break

    def handle_startendtag(self, tag, attrs):
        if self.open:
            self.open[-1][1] += " "

    def handle_data(self, data):
        if self.open:
            self.open[-1][1] += "\0" if self.silent else data


def page_blocks(path):
    page = Page()
    with open(path, encoding="utf-8", errors="replace") as f:
        page.feed(f.read())
    return page.blocks


def shape(block):
    tag, text = block
    return tag, len(text) // 400, tuple(text_pairs.numbers_of(text)[:2])


def page_pairs(english, german):
    """Blocks that stand at the same place: equal runs of tags, or all where the pages are alike."""
    a, b = page_blocks(english), page_blocks(german)
    if [t for t, _ in a] == [t for t, _ in b]:
        matched = zip(a, b)
    else:
        matched = []
        matcher = SequenceMatcher(None, [shape(x) for x in a], [shape(x) for x in b], autojunk=False)
        for i, j, n in matcher.get_matching_blocks():
            if n >= 4:
                matched += zip(a[i : i + n], b[j : j + n])
    for (_, ours), (_, theirs) in matched:
        if "\0" not in ours + theirs and not MARKUP.search(ours + theirs):
            yield ours, theirs


def manual_pairs(folder):
    for path in sorted(glob.glob(folder + "/**/*", recursive=True)):
        for there, here in (("/help/de/", "/help/C/"), ("/HTML/de/", "/HTML/en/"),
                            ("/help/de/", "/help/en/"), ("/help/de/", "/help/en-US/")):
            if there not in path or not path.endswith((".page", ".xml", ".docbook", ".html")):
                continue
            other = path.replace(there, here)
            if os.path.isfile(other) and os.path.isfile(path):
                yield from page_pairs(other, path)
                break


# ---- The dictionary. ----

NOTES = re.compile(r"\{[^}]*\}|\[[^]]*\]|\([^)]*\)|<[^>]*>|/[^/]*/")
SHORTHAND = re.compile(r"\b(etw|jd|jdm|jdn|jds|jmd|jmdm|jmdn|sth|sb|sb's|o\.s|bzw|usw)\b|\.\.\.|…|[|:~/]")


def plain(text):
    return " ".join(NOTES.sub(" ", text).split()).strip(" ,;")


def dictionary_pairs(path):
    """(number of the line, English, German)."""
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f):
            if line.startswith("#") or " :: " not in line:
                continue
            german, english = (side.split("|") for side in line.rstrip("\n").split(" :: ", 1))
            if len(german) != len(english):
                continue
            for left, right in zip(german, english):
                target = plain(right.split(";")[0])
                for one in left.split(";"):
                    one = plain(one)
                    if one and target and not SHORTHAND.search(one) and not SHORTHAND.search(target):
                        yield number, target, one


def is_sentence(text):
    return text[-1] in ".!?" and len(text.split()) >= 4 and text[0].isupper()


# ---- Sets. ----

class Sets:
    def __init__(self):
        self.pairs = {}  # (English, German): (source, kind, part)
        self.counts = Counter()

    def add(self, source, kind, part, english, german):
        if kind != "dictionary" or is_sentence(german):
            fault = text_pairs.pair_fault(german, english, "de")
        else:
            fault = "dictionary: too long" if len(german.split()) > 14 else None
        self.counts[kind + ": all"] += 1
        if fault:
            self.counts[f"{kind}: {fault}"] += 1
            return
        known = self.pairs.get((english, german))
        # what several packages say is training text only if none of them is held out
        if known is None or (known[2] == "train" and part != "train"):
            self.pairs[english, german] = source, kind, part

    def sentences(self):
        """The sentences of paragraphs, one by one."""
        for (english, german), (source, kind, part) in list(self.pairs.items()):
            if part != "train" or len(english.split()) < 12:
                continue
            pair = text_pairs.Pair(Source(source), kind, english, german)
            for one in text_pairs.sentence_pairs(pair, "de"):
                self.pairs.setdefault((one.english, one.other), (source, kind, part))


class Item:
    def __init__(self, english, german, source, kind, part):
        self.english, self.german, self.source, self.kind, self.part = english, german, source, kind, part
        self.tokens = [text_pairs.masked(german, ()), text_pairs.masked(english, ())]


def held_tokens(paths):
    """Token lists of texts that are held out elsewhere."""
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                record = json.loads(line)
                text = record["inputs"]
                at = text.find(": ")
                for one in (text[at + 2:] if at >= 0 else text, record["targets"]):
                    yield text_pairs.masked(one, ())


def write_records(path, records):
    with open(path + ".part", "w", encoding="utf-8") as f:
        for inputs, targets, source in records:
            f.write(json.dumps({"inputs": inputs, "targets": targets, "source": source},
                               ensure_ascii=False) + "\n")
    os.replace(path + ".part", path)


def one_translation(items):
    """Of several German wordings of an English text the two first that differ; of several English
    ones of a German text the commonest (the first)."""
    by_german, by_english, kept = set(), Counter(), []
    for item in items:
        if item.german.lower() in by_german or by_english[item.english] >= 3:
            continue
        by_german.add(item.german.lower())
        by_english[item.english] += 1
        kept.append(item)
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", metavar="PACKAGES")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--dictionary", metavar="FILE")
    parser.add_argument("--held", action="append", default=[], metavar="FILE.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    sets = Sets()
    for name in sorted(os.listdir(options.packages)):
        folder = os.path.join(options.packages, name)
        if not os.path.isdir(folder):
            continue
        part = text_split.set_of(name, options.seed, SHARE)
        for english, german in message_pairs(folder):
            sets.add(name, "messages", part, english, german)
        for english, german in manual_pairs(folder):
            sets.add(name, "manuals", part, english, german)
    if options.dictionary:
        for number, english, german in dictionary_pairs(options.dictionary):
            value = text_split.chance(options.seed, "entry", str(number))
            part = "valid" if value < ENTRIES else "test" if value < 2 * ENTRIES else "train"
            sets.add(f"entry {number}", "dictionary", part, english, german)
    sets.sentences()
    items = [Item(e, g, *rest) for (e, g), rest in sets.pairs.items()]
    kinds = ("messages", "manuals", "dictionary")
    held = [i for i in items if i.part != "train" and
            (is_sentence(i.german) if i.kind == "dictionary" else len(i.english.split()) >= 4)]
    held.sort(key=lambda i: (i.part, text_split.chance(options.seed, "held", i.english + "\0" + i.german)))
    seen, chosen = Counter(), []
    for item in held:
        seen[item.kind, item.part] += 1
        if seen[item.kind, item.part] <= 2 * LIMIT:
            chosen.append(item)
    other = list(held_tokens(options.held))
    grams = {s for tokens in other for s in text_split.every_shingle(tokens)}
    # Held-out texts that are like others' held-out texts are no loss; training texts that are like
    # any of them go.
    wanted = grams | {s for i in chosen for t in i.tokens for s in text_split.every_shingle(t)}
    train = []
    for item in items:
        if item.part != "train":
            continue
        shared = text_split.Held(item, [[t] for t in item.tokens]).shared(wanted)
        if shared > text_split.SHARE:
            sets.counts[item.kind + ": like a held-out text"] += 1
        else:
            train.append(item)
    train = one_translation(train)
    train.sort(key=lambda i: text_split.chance(options.seed, "order", i.english + "\0" + i.german))
    out = {("train", k): [i for i in train if i.kind == k] for k in kinds}
    for part in ("valid", "test"):
        for k in kinds:
            out[part, k] = [i for i in chosen if i.part == part and i.kind == k][:LIMIT]
    with open(os.path.join(options.out, "report.txt"), "w", encoding="utf-8") as report:
        for name, count in sorted(sets.counts.items()):
            print(f"{name:<56}{count:>9}", file=report)
        for (part, kind), found in out.items():
            words = sum(len(i.english.split()) for i in found)
            print(f"{part + '.' + kind:<36}{len(found):>9} pairs {words:>9} English words", file=report)
            write_records(f"{options.out}/{part}.{kind}.jsonl",
                          (("German to English: " + i.german, i.english, i.source) for i in found))
            write_records(f"{options.out}/{part}.{kind}.en-de.jsonl",
                          (("English to German: " + i.english, i.german, i.source) for i in found))
    sys.stdout.write(open(os.path.join(options.out, "report.txt"), encoding="utf-8").read())


if __name__ == "__main__":
    main()
