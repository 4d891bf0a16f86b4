#!/usr/bin/env python3
"""Translation pairs, summaries and plain text from the descriptions of Debian's packages.

Writes to OUT, the same bytes from the same lists and seed:
  {train,valid,test}.translation.jsonl        German to English
  {train,valid,test}.translation-en-de.jsonl  the same pairs the other way
  extra.translation.jsonl                     further languages to English, training only
  {train,valid,test}.summary.jsonl            English description to its one-line synopsis
  mono.txt                                    all training descriptions: a paragraph a line, an
                                              empty line between packages
  report.txt                                  what was read, kept and dropped (also printed)
"""
import argparse
import json
import os
from collections import Counter

import text_lists
import text_pairs
import text_split
from text_pairs import NAMES, SUMMARIZE, TRANSLATE

SETS = ("train", "valid", "test")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", help="folder, made if it is not there")
    parser.add_argument("--seed", type=int, default=1, help="chooses the sets and the order (1)")
    parser.add_argument("--lists", metavar="FOLDER",
                        help="read the lists that apt has put there; nothing is fetched")
    parser.add_argument("--mirror", metavar="URL",
                        help="where apt fetches from (the mirror that this system uses); Debian's "
                             "snapshot archive keeps the lists of each day")
    parser.add_argument("--suites", default="bookworm,trixie",
                        help="releases whose lists are joined (bookworm,trixie)")
    parser.add_argument("--extra", default="", metavar="LANGUAGES",
                        help="further languages for training: some of fr,it,da")
    parser.add_argument("--held-out", type=float, default=0.06, metavar="SHARE",
                        help="share of source packages in each of valid and test (0.06)")
    parser.add_argument("--limit", type=int, default=1500, metavar="N",
                        help="pairs at most in valid and test (1500)")
    options = parser.parse_args()
    options.suites = [s for s in options.suites.split(",") if s]
    options.extra = [s for s in options.extra.split(",") if s]
    for code in options.extra:
        if code not in NAMES or code in ("de", "en"):
            parser.error(f"--extra {code}: known are fr, it, da")
    if not 0 < options.held_out < 0.4:
        parser.error("--held-out: a share between 0 and 0.4")
    if options.limit < 1 or not options.suites:
        parser.error("--limit and --suites must not be empty")
    return options


class Report:
    def __init__(self):
        self.lines = []

    def line(self, text=""):
        self.lines.append(text)
        print(text)

    def table(self, title, rows):
        self.line()
        self.line(title)
        for name, *values in rows:
            self.line(f"  {name:<52}" + "".join(f"{value:>12}" for value in values))


def write_lines(path, lines):
    """A file on disk is always complete, also if the run is interrupted."""
    with open(path + ".part", "w", encoding="utf-8", newline="\n") as out:
        out.writelines(line + "\n" for line in lines)
    os.replace(path + ".part", path)


def record(inputs, targets, package, kind):
    return json.dumps({"inputs": inputs, "targets": targets, "source": package.source,
                       "package": package.name, "kind": kind}, ensure_ascii=False)


def translation_record(pair, source, target):
    text = {"en": pair.english}
    prompt = TRANSLATE.format(to=NAMES[target], source=NAMES[source],
                              text=text.get(source, pair.other))
    return record(prompt, text.get(target, pair.other), pair.package, pair.kind)


def summary_record(item):
    return record(SUMMARIZE.format(text=item.text), item.summary, item.package, "summary")


def training_text(packages, languages):
    """(documents for mono.txt, token lists of all texts). Of paragraphs that are alike but for
    names and numbers the first stays."""
    documents, tokens, seen = [], [], set()
    for package in packages:
        for description in [package.english] + [package.others[code] for code in languages
                                                if code in package.others]:
            document = []
            for _, text in description.texts():
                if not text or "<trans>" in text:
                    continue
                words = text_pairs.masked(text, package.words)
                tokens.append(words)
                key = " ".join(words)
                if key not in seen:
                    seen.add(key)
                    document.append(text)
            if document:
                documents.append(document)
    return documents, tokens


def held_out_sets(items, groups, options, training, key, counts):
    """{"valid": [...], "test": [...]} without near-duplicates of the training text, of each other,
    or of themselves; test first, in an order of chance."""
    order = {"test": 0, "valid": 1}
    chosen = [i for i in items if i.part != "train"]
    counts["from held-out packages"] = len(chosen)
    chosen.sort(key=lambda i: (order[i.part], text_split.chance(options.seed, "held", key(i))))
    held = [text_split.Held(i, groups(i)) for i in chosen]
    kept, near_train, near_held = text_split.drop_near_duplicates(held, training)
    counts["dropped: passages in the training text"] = near_train
    counts["dropped: like another held-out text"] = near_held
    sets = {name: [h.item for h in kept if h.item.part == name] for name in order}
    counts["dropped: over the limit"] = sum(max(0, len(s) - options.limit) for s in sets.values())
    return {name: items[:options.limit] for name, items in sets.items()}


def shuffled(items, seed, key):
    return sorted(items, key=lambda item: (text_split.chance(seed, "order", key(item)), key(item)))


def pair_key(pair):
    return f"{pair.kind}\0{pair.english}\0{pair.other}"


def summary_key(item):
    return f"{item.package.name}\0{item.summary}\0{item.text}"


def build_translations(packages, options, training, report):
    counts = Counter()
    pairs = text_pairs.translation_pairs(packages, "de", counts)
    total = counts.pop("all")
    for pair in pairs:
        pair.part = pair.package.part
    split = Counter()
    sets = held_out_sets(pairs, lambda p: [[tokens] for tokens in p.tokens], options, training,
                         pair_key, split)
    train = [p for p in pairs if p.part == "train"]
    known = {(p.english, p.other) for p in train}
    sentences = {}
    for pair in train:
        if pair.kind == "prose":
            for sentence in text_pairs.sentence_pairs(pair, "de"):
                if (sentence.english, sentence.other) not in known:
                    sentences.setdefault((sentence.english, sentence.other), sentence)
    split["training pairs: titles, paragraphs, items"] = len(train)
    split["training pairs: sentences of the paragraphs"] = len(sentences)
    sets["train"] = shuffled(train + list(sentences.values()), options.seed, pair_key)
    split["valid"], split["test"] = len(sets["valid"]), len(sets["test"])
    for name in SETS:
        write_lines(f"{options.out}/{name}.translation.jsonl",
                    (translation_record(p, "de", "en") for p in sets[name]))
        write_lines(f"{options.out}/{name}.translation-en-de.jsonl",
                    (translation_record(p, "en", "de") for p in sets[name]))
    report.table("German-English pairs: candidates, and why they were left out",
                 [("candidates", total)] + counts.most_common() + [("left", len(pairs))])
    report.table("German-English pairs: the sets", split.items())
    return sets


def build_extra(packages, options, held, report):
    """Pairs of further languages: of training packages only, and not those whose English occurs
    in a held-out text."""
    pairs = []
    grams = {s for tokens in held for s in text_split.every_shingle(tokens)}
    for code in options.extra:
        counts = Counter()
        found = [p for p in text_pairs.translation_pairs(packages, code, counts)
                 if p.package.part == "train"]
        kept = [p for p in found
                if text_split.Held(p, [[p.tokens[1]]]).shared(grams) <= text_split.SHARE]
        report.table(f"{NAMES[code]}-English pairs, for training alone",
                     [("candidates", counts["all"]), ("of training packages, filtered", len(found)),
                      ("left without what is held out", len(kept))])
        pairs += [(p, code) for p in kept]
    if options.extra:
        pairs = shuffled(pairs, options.seed, lambda pair: pair_key(pair[0]))
        write_lines(f"{options.out}/extra.translation.jsonl",
                    (translation_record(p, code, "en") for p, code in pairs))


def build_summaries(packages, options, training, report):
    counts, split = Counter(), Counter()
    items = text_pairs.summaries(packages, counts, text_split.family)
    for item in items:
        item.part = item.package.part
    total = counts.pop("all")
    cut = counts.pop("(cut at a sentence's end)", 0)
    sets = held_out_sets(items, lambda i: [i.tokens, [i.summary_tokens]], options, training,
                         summary_key, split)
    sets["train"] = shuffled([i for i in items if i.part == "train"], options.seed, summary_key)
    for name in SETS:
        split[name] = len(sets[name])
        write_lines(f"{options.out}/{name}.summary.jsonl", map(summary_record, sets[name]))
    report.table("summaries: candidates, and why they were left out",
                 [("candidates", total)] + counts.most_common() + [("left", len(items))] +
                 [(f"of these cut after {text_pairs.LONGEST_SUMMARY} words or less", cut)])
    report.table("summaries: the sets", split.items())
    return sets


def length_row(name, texts):
    lengths = sorted(len(text.split()) for text in texts)
    count = len(lengths)
    return (name, count, f"{sum(lengths) / count:.1f}", lengths[count // 2],
            lengths[int(count * 0.95)], lengths[-1])


def report_lengths(report, translations, summaries):
    rows = [("", "texts", "mean", "median", "95 %", "longest")]
    for name in SETS:
        rows += [length_row(f"{name}: German", [p.other for p in translations[name]]),
                 length_row(f"{name}: English", [p.english for p in translations[name]]),
                 length_row(f"{name}: text to summarize", [i.text for i in summaries[name]]),
                 length_row(f"{name}: summary", [i.summary for i in summaries[name]])]
    report.table("words", rows)
    report.table("kinds of training pairs",
                 Counter(p.kind for p in translations["train"]).most_common())
    report.line()
    report.line("examples")
    for pair in translations["test"][:5]:
        report.line(f"  {pair.kind} of {pair.package.name}\n    {pair.other}\n    {pair.english}")
    for item in summaries["test"][:3]:
        report.line(f"  summary of {item.package.name}\n    {item.text}\n    {item.summary}")


def main():
    options = arguments()
    os.makedirs(options.out, exist_ok=True)
    languages = ["de"] + options.extra
    folder = options.lists
    if not folder:
        mirror = options.mirror or text_lists.system_mirror()
        folder = text_lists.fetch_lists(options.out + "/apt", mirror, options.suites, languages)
    packages, lists = text_lists.read_packages(folder, options.suites, languages)
    report = Report()
    report.table("lists (entries, sha256)", lists)
    for package in packages:
        package.part = text_split.set_of(package.source, options.seed, options.held_out)
    train = [p for p in packages if p.part == "train"]
    report.table("descriptions", [
        ("distinct in English", len(packages)),
        ("of these in German", sum("de" in p.others for p in packages)),
        ("source packages", len({p.source for p in packages})),
        ("of training packages", len(train)),
        *[(f"of {name} packages", sum(p.part == name for p in packages)) for name in SETS[1:]]])
    documents, tokens = training_text(train, ["de"])
    order = shuffled(documents, options.seed, "\0".join)
    write_lines(f"{options.out}/mono.txt", ("\n".join(d) + "\n" for d in order))
    words = sum(len(text.split()) for d in documents for text in d)
    report.table("mono.txt", [("documents", len(documents)), ("words", words)])
    translations = build_translations(packages, options, tokens, report)
    summaries = build_summaries(packages, options, tokens, report)
    held = [tokens for name in SETS[1:] for p in translations[name] for tokens in p.tokens[1:]]
    held += [t for name in SETS[1:] for i in summaries[name] for t in i.tokens + [i.summary_tokens]]
    build_extra(packages, options, held, report)
    report_lengths(report, translations, summaries)
    write_lines(f"{options.out}/report.txt", report.lines)


if __name__ == "__main__":
    main()
