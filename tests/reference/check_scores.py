#!/usr/bin/env python3
"""Whether `easyfirst score text` gives the scores of sacrebleu, rouge-score and SQuAD's script.

    ENV/bin/pip install sacrebleu rouge-score
    ENV/bin/python tests/reference/check_scores.py [--program build/easyfirst]
    ENV/bin/python tests/reference/check_scores.py --write     # tests/golden/scores, the tests' values

The texts are the 7,283 IWSLT14 pairs of ../shared/data/iwslt14 with answers made of the references
(words dropped, words swapped, cut short, letters changed) and of the source, the hard cases below, random
lines, and a line for each of Unicode's characters. Compared are the printed lines and signatures as texts, and all
numbers within 1e-9 of their size. The exit status is 1 if anything differs.
"""
import argparse
import collections
import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
import time
import unicodedata

import regex
import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("13a", "intl", "none", "char", "zh")

# (answer, reference, another reference or None)
HARD = [
    ("The cat sat on the mat.", "The cat is on the mat.", "There is a cat on the mat."),
    ("", "An answer was expected here.", None),
    ("Something was said here.", "", "Something was said."),
    ("", "", None),
    ("   ", "\t", " \u00a0 "),
    ("It costs 1,234.56 dollars, or 5.5% of 10-20.", "It costs 1,234.56 dollars , or 5.5 % of 10 - 20 .",
     "5.5, 10.- 3.,4 ,5 a.b .c d. 9."),
    ("..a,,b..1..2,,3.,4", "..a,,b..1..2,,3.,4 ", "1.2.3,4,5.6 , 7. 8"),
    ("In 1990.", "In 1990 .", "In 1990"),
    ("AT&amp;T said &quot;yes&quot; &lt;b&gt; &amp;lt; &apos;no&apos; <skipped>", "AT&T said \"yes\" <b> &lt; 'no'",
     "AT & T <skipped>said \" yes \""),
    ("well-\nknown facts\nin two lines", "wellknown facts in two lines", "well-known\nfacts in\ntwo lines"),
    ("the dog ran home\nthe cat ran home\na bird sang", "a bird sang home\nthe dog and the cat ran home",
     "the cat\nthe dog\nran home the bird"),
    ("a b c a b\nb a c b", "b c a b a\na b b c\n\nc", "c b a\na a b"),
    ("我们在北京见面。2019年,价格是1,234.5元!", "我们在北京见面了。2019年，价格是1,234.5元！", "我們在北京見面。"),
    ("日本語のテキストとカタカナ、ｱｲｳ。", "日本語の文章とカタカナ、ｱｲｳ。", None),
    ("한국어 문장입니다. 두 번째!", "한국어 문장이에요. 두번째!", None),
    ("مرحبا بالعالم، كيف الحال؟ ١٢٣٫٥", "مرحبا بالعالم ، كيف حالك؟ ١٢٣٫٥", None),
    ("שלום עולם — \"צה״ל\" ו־50%", "שלום לעולם – \"צה״ל\" ו-50%", None),
    ("हिन्दी में वाक्य। १,२३४", "हिंदी में एक वाक्य है। १,२३४", None),
    ("Ein „schönes“ Wort – ›naïve‹ Straße… ¿Qué? «Oui»", "Ein \"schönes\" Wort - 'naive' Strasse... Qué? Oui", None),
    ("odd\u00a0spaces\u2003here\u3000and\u200bthere\u2028line\u0085end\u001cfs",
     "odd spaces here and there line end fs", "odd\u202fspaces\u205fhere\u1680and\ufeffthere"),
    ("emoji 😀 👍🏽 👨‍👩‍👧 🇩🇪 ok", "emoji 😀 👍 👨‍👩‍👧 🇫🇷 ok", "emoji😀👍ok"),
    ("cafe\u0301 nin\u0303o a\u0301 la", "café niño á la", "cafe nino a la"),
    ("İstanbul ΟΔΥΣΣΕΥΣ ΣΑΣ. Σ ßẞ Kelvin \u212a \u01c5 Ⅷ", "istanbul οδυσσευς σας. σ ßß kelvin k \u01c6 ⅷ", None),
    ("x² ½ Ⅳ ① ៣ ٣ $5 €6 £7 a+b=c ^_^ `code` ~ |", "x2 1/2 IV 1 3 3 $ 5 € 6 £ 7 a + b = c", None),
    ("(hi) (hi). 'quoted' word' 'word ... -- !?", "( hi ) (hi) . quoted word word … — !", None),
    ("don't can't it's o'clock rock'n'roll", "do n't ca n't it 's o'clock rock 'n' roll", "dont cant its"),
    ("http://a.b/c?d=e&f=1.2 me@x.org #tag @you 50% C++ 3-4", "http://a.b/c?d=e me@x.org # tag C++ 3 - 4", None),
    ("running runs ran easily fairly generalizations oscillators skies dying news",
     "run running easy fair generalization oscillator sky die new", None),
    ("relational conditional rational valency hesitancy digitizer conformably radically differently vilely",
     "relate condition ration valence hesitance digitize conform radical different vile", None),
    ("The answer is the an a THE.", "answer is", "An answer is the"),
    ("So 12 + 30,000 = 30,012", "# # 30012", None),
    ("The total is 1,2, 3,456.00", "# 0", "# 3456"),
    ("৪২ টাকা, ١٢", "12", None),
    ("(B)", "B", None),
    ("The answer is (c).", "(C) a dog", None),
    ("B) the second", "b", None),
    ("Yes.", "yes", None),
    ("A man a plan", "A", None),
    ("\u2600 \u2014 \u20ac \u2a6d \u2a6e \u3400 \u9fbc \U00020000 \U0002f800 \ufa2e ａｂｃ",
     "\u2600\u2014\u20ac\u2a6d\u2a6e\u3400\u9fbc\U00020000\U0002f800\ufa2eａｂｃ", None),
    ("word " * 40, "word " * 30, None),
    ("\u0391\u03a3' \u0391\u03a3'\u0391 \u02b0\u03a3 \u24d0\u03a3\u0345 \u0391\u00ad\u03a3 1\u03a3 \u0391\u03a3\u0301. \u0391:\u03a3",
     "\u03b1\u03c2' \u03b1\u03c3'\u03b1 \u02b0\u03c2 \u24d0\u03c2\u0345 \u03b1\u00ad\u03c2 1\u03c3 \u03b1\u03c2\u0301. \u03b1:\u03c2", None),
    ("one two three four five", "one two three four five six", "one two three four"),
    ("one two three", "one two five six", "two three four"),
    ("new emoji \U0001fae8\U0001fa77 and \U0001faea\u20c1 signs\U0001cc00", "new emoji \U0001fae8 \U0001fa77 and signs", None),
]

STEM_TEXTS = [text for pair in HARD for text in pair[:2] if "skies" in text or "relat" in text]

BROKEN = [b"plain", b"\xff\xfe", b"a\xc3", b"\xe2\x82", b"\xed\xa0\x80x", b"\xf0\x9f\x98", b"\xc0\xafz", b"\xf4\x90\x80\x80",
          b"\xe0\x80\xaf \xf0\x80\x80\xaf", b"ok \x80\x81 \xe4\xb8\xad\xe6\x96", b"\xf8\x88\x80\x80\x80", b"d\xc3\xa9j\xc3"]


# ---- Reference values. ----

def normal_squad(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normal_plain(text):
    return text.strip().lower().translate(str.maketrans("", "", string.punctuation))


def f1(answer, target):
    a, t = normal_squad(answer).split(), normal_squad(target).split()
    same = sum((collections.Counter(a) & collections.Counter(t)).values())
    if not same:
        return 0.0
    precision, recall = same / len(a), same / len(t)
    return 2 * precision * recall / (precision + recall)


def last_integer(text):
    found = re.findall(r"\d+(?:,\d+)*", text)
    return int(found[-1].replace(",", "")) if found else None


PAIRS = {
    "exact": lambda a, t: a.strip() == t.strip(),
    "exact_plain": lambda a, t: normal_plain(a) == normal_plain(t),
    "exact_squad": lambda a, t: normal_squad(a) == normal_squad(t),
    "number": lambda a, t: last_integer(a) is not None and last_integer(a) == last_integer(t),
    "f1": f1,
}


def without_version(signature):
    return re.sub(r"\|version:[^|]*", "", str(signature))


def references_for(references):
    """One list for each reference, None where a line has fewer."""
    return [list(column) for column in references]


def bleu_values(answers, references, **options):
    metric = BLEU(**options)
    score = metric.corpus_score(answers, references_for(references))
    return {"score": score.score, "precisions": score.precisions, "bp": score.bp, "ratio": score.ratio,
            "hyp_len": score.sys_len, "ref_len": score.ref_len,
            "signature": without_version(metric.get_signature()), "line": score.format(width=2)}


def chrf_values(answers, references, **options):
    metric = CHRF(**options)
    score = metric.corpus_score(answers, references_for(references))
    return {"score": score.score, "signature": without_version(metric.get_signature()),
            "line": score.format(width=2)}


def rouge_lines(answers, references, stem):
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=stem)
    return [scorer.score_multi([c[i] for c in references if c[i] is not None], answer)
            for i, answer in enumerate(answers)]


def rouge_values(answers, references, stem):
    scores = rouge_lines(answers, references, stem)
    return {kind: {"f": 100 * sum(s[kind].fmeasure for s in scores) / len(scores),
                   "precision": 100 * sum(s[kind].precision for s in scores) / len(scores),
                   "recall": 100 * sum(s[kind].recall for s in scores) / len(scores)} for kind in KINDS}


def pair_values(answers, references):
    return {name: 100 * sum(max(float(value(a, c[i])) for c in references if c[i] is not None)
                            for i, a in enumerate(answers)) / len(answers)
            for name, value in PAIRS.items()}


# ---- Options, ours and theirs. ----

BLEU_OPTIONS = (
    [([], {})]
    + [(["--tokenize", name], {"tokenize": name}) for name in TOKENIZERS[1:]]
    + [(["--lowercase"], {"lowercase": True}),
       (["--lowercase", "--tokenize", "intl"], {"lowercase": True, "tokenize": "intl"}),
       (["--smooth", "none"], {"smooth_method": "none"}),
       (["--smooth", "floor"], {"smooth_method": "floor"}),
       (["--smooth", "floor", "--smooth-value", "0.25"], {"smooth_method": "floor", "smooth_value": 0.25}),
       (["--smooth", "add-k"], {"smooth_method": "add-k"}),
       (["--smooth", "add-k", "--smooth-value", "0.5"], {"smooth_method": "add-k", "smooth_value": 0.5}),
       (["--effective-order"], {"effective_order": True})])

CHRF_OPTIONS = [
    (["--metric", "chrf"], {}),
    (["--metric", "chrf++"], {"word_order": 2}),
    (["--metric", "chrf++", "--lowercase"], {"word_order": 2, "lowercase": True}),
    (["--metric", "chrf", "--chrf-whitespace"], {"whitespace": True}),
    (["--metric", "chrf++", "--chrf-eps-smoothing"], {"word_order": 2, "eps_smoothing": True}),
]


# ---- Answers to score. ----

def corrupted(references, sources, seed):
    """Five kinds of answers, by name."""
    rng = random.Random(seed)

    def dropped(words):
        return [w for w in words if rng.random() > 0.2]

    def swapped(words):
        words = list(words)
        for _ in range(len(words) // 4):
            i, j = rng.randrange(len(words)), rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
        return words

    def noisy(text):
        return "".join(c if rng.random() > 0.08 else rng.choice("aeioust .,-'\u00e9\u4e2d") for c in text)

    made = {
        "dropped": [" ".join(dropped(r.split())) for r in references],
        "swapped": [" ".join(swapped(r.split())) for r in references],
        "truncated": [r[: rng.randrange(len(r) + 1)] for r in references],
        "noise": [noisy(r) for r in references],
        "source": list(sources),
    }
    for answers in made.values():  # empty lines in all of them
        for i in rng.sample(range(len(answers)), min(20, len(answers) // 10)):
            answers[i] = ""
    return made


def iwslt(path):
    references, sources = [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            references.append(record["targets"])
            sources.append(record["inputs"].split("German: ", 1)[1].rsplit(" English:", 1)[0])
    return references, sources


def characters():
    """A line for each character that Python's tables know (of ideographs and syllables every 40th), or
    that is newer and of a category that the tokeniser intl looks at."""
    apart = regex.compile(r"[\p{P}\p{S}\p{N}]")
    answers, references = [], []
    for code in range(1, 0x110000):
        c = chr(code)
        kind = unicodedata.category(c)
        if (kind in ("Cn", "Co") and not apart.match(c)) or kind == "Cs" or c in "\n\r" or (kind == "Lo" and code % 40):
            continue
        answers.append(f"A{c}1{c}{c}b {c} {c}")
        references.append(f"a {c} 1 {c} {c} b {c}{c}")
    return answers, references


def random_lines(count, seed):
    """Lines of characters that the tokenisers, lower-casing and the patterns treat in some way."""
    rng = random.Random(seed)
    alphabet = ("abzAZ\u0130\u212a\u03a3\u03c3\u0391\u1e9e\u01c5019\u0661\u00bd\u2167.,.,-'\"&;<>()[]_$+=^`|~!?"
                "\u2014\u00ab\u3002\u20ac\u0301\u00ad\u200d\u4e2d\uff0c\U0001f600\U00020000\ufffd \t\u00a0\u3000\x1c")
    words = ("&quot;", "&amp;", "&lt;", "&gt;", "&amp;lt;", "<skipped>", "the", "a", "an", "-", "1.5", "2,000")

    def line():
        return "".join(rng.choice(words) if rng.random() < 0.15 else rng.choice(alphabet)
                       for _ in range(rng.randrange(60)))

    def changed(text):
        return "".join(c for c in text if rng.random() > 0.1)

    answers = [line() for _ in range(count)]
    return answers, [changed(text) for text in answers]


# ---- Comparing. ----

class Checker:
    def __init__(self, program):
        self.program, self.compared, self.wrong, self.seconds = program, 0, 0, collections.Counter()

    def score(self, files, options):
        began = time.perf_counter()
        done = subprocess.run([self.program, "score", "text", "--json", *options, *files],
                              capture_output=True, text=True, check=False)
        self.seconds["easyfirst"] += time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{self.program} {options}: {done.stderr}")
        return json.loads(done.stdout)

    def compare(self, what, mine, theirs):
        """Every value of theirs."""
        if isinstance(theirs, dict):
            for key, value in theirs.items():
                self.compare(f"{what} {key}", mine[key], value)
            return
        if isinstance(theirs, list):
            for i, value in enumerate(theirs):
                self.compare(f"{what} {i + 1}", mine[i], value)
            return
        self.compared += 1
        if isinstance(theirs, str):
            good = mine == theirs
        else:
            good = abs(mine - theirs) <= 1e-9 * max(abs(theirs), 1e-9)
        if not good:
            self.wrong += 1
            print(f"DIFFERS  {what}: {mine!r}, not {theirs!r}")

    def timed(self, name, function, *args, **options):
        began = time.perf_counter()
        value = function(*args, **options)
        self.seconds[name] += time.perf_counter() - began
        return value

    def check(self, name, answers, references, files, all_options):
        """All metrics, of one set of answers."""
        bleu, chrf = (BLEU_OPTIONS, CHRF_OPTIONS) if all_options else (BLEU_OPTIONS[:6], CHRF_OPTIONS[:2])
        for mine, theirs in bleu:
            self.compare(f"{name} bleu {theirs}", self.score(files, ["--metric", "bleu", *mine])["bleu"],
                         self.timed("sacrebleu", bleu_values, answers, references, force=True, **theirs))
        for mine, theirs in chrf:
            self.compare(f"{name} chrf {theirs}", self.score(files, mine)[mine[1]],
                         self.timed("sacrebleu", chrf_values, answers, references, **theirs))
        for stem in (False, True):
            mine = self.score(files, ["--metric", "rouge"] + ["--stem"] * stem)
            self.compare(f"{name} rouge stem={stem}", mine,
                         self.timed("rouge-score", rouge_values, answers, references, stem))
        self.compare(f"{name} pairs", self.score(files, ["--metric", "exact,number,f1"]),
                     pair_values(answers, references))


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
    return path


def write_records(path, key, columns):
    """Lines of JSON, in which a text may have line ends."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for texts in zip(*columns):
            texts = [t for t in texts if t is not None]
            file.write(json.dumps({key: texts[0] if len(texts) == 1 else texts}, ensure_ascii=False) + "\n")
    return path


def hard(several):
    answers = [a for a, _, _ in HARD]
    columns = [[r for _, r, _ in HARD]]
    if several:
        columns.append([o for _, _, o in HARD])
    return answers, columns


def check_broken(checker, folder):
    """Bytes that are not UTF-8 are refused (the library reads them as Python's errors="replace" does)."""
    path = os.path.join(folder, "broken")
    for line in BROKEN[1:]:
        with open(path, "wb") as file:
            file.write(b"plain\n" + line + b"\n")
        done = subprocess.run([checker.program, "score", "text", path, path], capture_output=True, check=False)
        checker.compared += 1
        if done.returncode != 1 or b"line 2" not in done.stderr:
            checker.wrong += 1
            print(f"{line!r} was not refused")


def check_all(program, shared):
    checker = Checker(program)
    references, sources = iwslt(os.path.join(shared, "iwslt14", "valid.deen.jsonl"))
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        targets = os.path.join(shared, "iwslt14", "valid.deen.jsonl")
        for number, (name, answers) in enumerate(corrupted(references, sources, 6).items()):
            files = [write_lines(path(name), answers), targets]
            checker.check(name, answers, [references], files, number == 3)
            print(f"{name}: {checker.compared} values compared, {checker.wrong} wrong", flush=True)
        for several in (False, True):
            answers, columns = hard(several)
            files = [write_records(path("answers"), "answer", [answers]),
                     write_records(path("references"), "targets", columns)]
            checker.check(f"hard, {len(columns)} references", answers, columns, files, True)
        check_broken(checker, folder)
        print(f"hard cases: {checker.compared} values compared, {checker.wrong} wrong", flush=True)
        answers, columns = random_lines(3000, 11)
        files = [write_lines(path("answers"), answers), write_lines(path("references"), columns)]
        checker.check(f"{len(answers)} random lines", answers, [columns], files, True)
        answers, columns = characters()
        files = [write_lines(path("answers"), answers), write_lines(path("references"), columns)]
        checker.check(f"{len(answers)} characters", answers, [columns], files, False)
    print(f"{checker.compared} values compared, {checker.wrong} wrong; seconds: "
          + ", ".join(f"{name} {seconds:.1f}" for name, seconds in checker.seconds.items()))
    return checker.wrong


# ---- Golden values. ----

def line_scores(answers, references):
    """BLEU with each kind of smoothing, and chrF, of each line by itself."""
    metrics = [BLEU(force=True, smooth_method=name, effective_order=effective)
               for name in ("exp", "none", "floor", "add-k") for effective in (False, True)] + [CHRF(word_order=2)]
    return [[metric.corpus_score([answer], [[c[i]] for c in references if c[i] is not None]).score
             for metric in metrics] for i, answer in enumerate(answers)]


def golden_case(metric, options, columns, values):
    return {"metric": metric, "options": options, "references": columns, "values": values}


def write_golden(folder, shared):
    os.makedirs(folder, exist_ok=True)
    references, sources = iwslt(os.path.join(shared, "iwslt14", "valid.deen.jsonl"))
    made = corrupted(references[:60], sources[:60], 7)
    answers, columns = hard(True)
    kinds = list(made)
    for i in range(60):  # 60 pairs, a kind after the other
        answers.append(made[kinds[i % len(kinds)]][i])
        columns[0].append(references[i])
        columns[1].append(None)
    cases = []
    for count in (1, 2):
        used = columns[:count]
        for options, theirs in BLEU_OPTIONS:
            cases.append(golden_case("bleu", options, count, bleu_values(answers, used, force=True, **theirs)))
        for options, theirs in CHRF_OPTIONS:
            cases.append(golden_case(options[1], options[2:], count, chrf_values(answers, used, **theirs)))
        for stem in (False, True):
            cases.append(golden_case("rouge", ["--stem"] * stem, count, rouge_values(answers, used, stem)))
        cases.append(golden_case("pairs", [], count, pair_values(answers, used)))
    tokens = {name: [" ".join(BLEU(tokenize=name).tokenizer(text.rstrip()).split())
                     for text in answers[: len(HARD)]] for name in TOKENIZERS}
    words = sorted({w for r in references[:400] for w in re.findall("[a-z0-9]{4,}", r.lower())}
                   | set(" ".join(STEM_TEXTS).lower().split())
                   | set("yyyyy syzygyies spied died flies dies agreed feed plastered hopping hissing fizzed failing "
                         "filing happy enjoy spy archaeology geology fulfully allalli nationally controlled roll cease "
                         "rate probate replacement adoption inning cannings succeed howe bion ions aing eeed".split()))
    golden = {"tokens": tokens, "stems": {w: PorterStemmer().stem(w) for w in words},
              "broken": [[b.hex(), b.decode("utf-8", "replace")] for b in BROKEN],
              "lines": line_scores(answers[: len(HARD)], columns), "cases": cases}
    with open(os.path.join(folder, "expected.json"), "w", encoding="utf-8", newline="\n") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" if key != "cases" else
                                      '"cases": [\n' + ",\n".join(map(json.dumps, value)) + "]"
                                      for key, value in golden.items()) + "}\n")
    write_records(os.path.join(folder, "answers.jsonl"), "answer", [answers])
    write_records(os.path.join(folder, "references.jsonl"), "targets", columns)
    print(f"{folder}: {len(answers)} lines, {len(cases)} cases, {len(words)} stems; sacrebleu {sacrebleu.__version__}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--shared", default="../shared/data")
    parser.add_argument("--golden", default="tests/golden/scores")
    parser.add_argument("--write", action="store_true", help="write the golden files instead")
    args = parser.parse_args()
    if args.write:
        write_golden(args.golden, args.shared)
        return 0
    return 1 if check_all(args.program, args.shared) else 0


if __name__ == "__main__":
    sys.exit(main())
