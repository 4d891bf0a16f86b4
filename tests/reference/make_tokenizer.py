#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: a small model with XLM-R's settings, and reference ids.

    python3 tests/reference/make_tokenizer.py [--keep-model]

from the repository root, next to ../shared. Made with Python 3.11, transformers 4.49 and
sentencepiece 0.2.0 (pip). transformers 5 has no XLMRobertaTokenizer on top of sentencepiece any
more, so it cannot make these files.

  phrases.txt               our own sentences in many languages, "language TAB sentence": input
  sentencepiece.bpe.model   trained here on the prompts of ../shared/data and on phrases.txt
  golden.tsv                "ids TAB text TAB decoded text"; the texts are JSON strings
  shared.tsv                "file TAB lines TAB ids TAB digest TAB left out" for the prompts of
                            ../shared/data: how many lines and ids, FNV-1a 64 over the ids as
                            little-endian int32, and the numbers (from 1) of the lines left out

XLM-R's own model would be the better reference, but it is 5 MB and not ours to ship. This one has
the same type (Unigram), normaliser (nmt_nfkc), special pieces (<unk> 0, <s> 1, </s> 2) and spaces
(a leading U+2581, runs of spaces made one, no byte fallback). Training has one thread and no sampling:
the same input gives the same file. --keep-model leaves the model and remakes the rest.

Left out are texts whose two best segmentations have the same score, as "....." into the same pieces
in another order: rounding decides there, and sentencepiece 0.2.3 rounds otherwise than 0.1.97 to
0.2.1. All other texts here get the same ids from all of these versions.

The reference is the tokenizer that calls sentencepiece (XLMRobertaTokenizer of transformers 4). Its
fast twin gives other ids for some of these lines; the script prints which kind.
"""

import glob
import io
import json
import os
import re
import sys
import unicodedata

import sentencepiece
from transformers import XLMRobertaTokenizer, XLMRobertaTokenizerFast

FOLDER = "tests/golden/tokenizer"
SHARED = "../shared/data"
MODEL = f"{FOLDER}/sentencepiece.bpe.model"
PIECES = 6000
PHRASE_REPEATS = 40  # so that rare scripts have weight next to the prompts' English and German


def phrases():
    with open(f"{FOLDER}/phrases.txt", encoding="utf-8") as f:
        return [line.rstrip("\n").split("\t")[1] for line in f]


def prompts(path):
    """The prompts of one file: "inputs", or "text" in the GQA file."""
    with open(path, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    return [r["inputs"] if "inputs" in r else r["text"] for r in records]


def shared_files():
    return sorted(os.path.relpath(p, SHARED) for p in glob.glob(f"{SHARED}/*/*.jsonl"))


def training_text():
    for name in shared_files():
        lines = prompts(f"{SHARED}/{name}")
        step = max(1, sum(len(line) for line in lines) // 120_000)
        yield from (line.replace("\n", " ") for line in lines[::step])
    for _ in range(PHRASE_REPEATS):
        yield from phrases()


def train():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=training_text(),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc",
        max_sentence_length=100_000,
        num_threads=1,
        minloglevel=2,
    )
    with open(MODEL, "wb") as f:
        f.write(model.getvalue())


def special_lines():
    """Special tokens next to text, spaces, punctuation, each other, and words that only look so."""
    lines = []
    for word in ["<mask>", "<s>", "</s>", "<pad>", "<unk>"]:
        for form in ["{}", "a{}b", "a {} b", " {}  x", "a{}", "{}b", "a {}", "{} b", "a   {}   b",
                     "{}{}", "{} {}", "dog{}.", "The {} is red.", "<{}>", "<{}", "{}>"]:
            lines.append(form.replace("{}", word))
    lines += [
        "a\t\n<mask>\nb", "a\u00a0<mask>\u00a0b", "a\u3000<mask>\u3000b", "a\u200b<mask>\u200bb",
        "a\u2028\u2029<mask>", "a\x1c\x1d\x1e\x1f<mask>", "a\x85<mask>",
        "a\u1680\u2007\u202f<mask>",
        "a\u205f\u2000<mask>", "\ufeff<mask>", "a\u00ad <mask>", "é <mask> ü", "犬 <mask> 猫",
        "犬<mask>猫", "<mask> <mask> <mask>", "<mask><mask> <mask>.", "<s> Was ist das? </s>",
        "<s><pad><pad></s>", "<MASK>", "<Mask>", "< mask>", "<mask >", "mask>", "<mask",
        "<mas<mask>k>",
        "<s", "s>", "</s", "<<s>", "</s>>", "<s/>", "<pad", "<unk", "<unk >", "<eos>", "<bos>",
        "[MASK]", "＜mask＞", "＜s＞ ＜/s＞ ＜pad＞ ＜unk＞", "▁<mask>▁", "▁", "▁▁ a", "a▁b", "<0x41>",
        "The <mask> of <mask> is <unk>, <pad> and </s>.", "<m<s>ask>", "</<s>s>",
        "<image>\nQ: <mask>?",
    ]
    return lines


def space_lines():
    lines = ["", " ", "  ", "\n", "\t", "\r\n", " \t\n ", "\u3000", "\u00a0", "\u200b", "\x00",
    "\ufeff"]
    for c in ["\t", "\n", "\r\n", "\v", "\f", "\u00a0", "\u2003", "\u200a", "\u200b", "\u200c",
              "\u200d", "\u200e", "\u2028", "\u2029", "\u202e", "\u202f", "\u2060", "\u3000",
              "\ufeff",
              "\u00ad", "\u061c", "\u180e", "\u1680", "\ufffd", "\ufffc", "\ufff9", "\U000e0001",
              "\x00", "\x01", "\x07", "\x08", "\x0e", "\x1b", "\x1c", "\x1f", "\x7f", "\x80",
              "\x85",
              "\x9f", "\ue000", "\ufdd0", "\uffff", "\U0010ffff"]:
        lines += [f"one{c}two", f"{c}dog {c} cat{c}"]
    lines += ["  two  spaces   three    four ", "line one\nline two\n\nline four",
    "\tindented\tby tabs",
              "ends in a newline\n", "\n\n\nbegins with newlines", "a \u00a0 \u3000 b"]
    return lines


def hand_lines():
    return [
        "https://www.example.org/a/path?query=eins&page=2#top", "mailto:someone@example.com",
        "ftp://192.168.0.1:8080/file.tar.gz", "C:\\Users\\name\\file.txt",
        "/usr/share/doc/README.md",
        "for (int i = 0; i < n; i++) sum += a[i] * b[i];",
        "if x <= 3 and y != 4: print(f\"{x:>8.3f}\")",
        "#include <stdio.h>", "SELECT name FROM people WHERE age >= 18;",
        "{\"key\": [1, 2.5, null]}",
        "<html><body class=\"a\">&nbsp;</body></html>", "x² + y² = z²; ½ + ¼ = ¾",
        "H₂O and E = mc²",
        "∑ᵢ aᵢ·bᵢ ≤ ‖a‖·‖b‖", "∀x ∃y: x ∈ A → y ∉ B", "√2 ≈ 1.41421356237", "10⁻⁹ m = 1 nm",
        "1234567890", "1,234,567.89", "3.14159265358979", "0x7fff", "1e-5", "-40 °C = -40 °F",
        "12:34:56", "2024-02-29", "50%", "$19.99", "€ 1.299,00", "£5", "¥1000", "₹250", "₿1", "№ 5",
        "® © ™ ℠ ℃ ℉ Ω Å", "ﬁnal ﬂow eﬃcient aﬀord ﬅop ﬆ", "Ĳssel ĳs ǆ Ǉ ŉ ſo", "ＦＵＬＬ　ｗｉｄｔｈ　１２３！？",
        "ｱｲｳｴｵ ｶﾞｷﾞ ﾊﾟﾋﾟ", "㍿ ㌔ ㎏ ㎡ ㏂ ㊗ ㋿", "① ② ③ ⑩ ⒈ ⒜ Ⓐ ⓐ", "Ⅷ ⅷ Ⅻ ⅔", "ﷺ ﷲ ﻻ ﺍﻟ", "🄰🅱🆎🈁",
        "𝐁𝐨𝐥𝐝 𝑖𝑡𝑎𝑙𝑖𝑐 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟘𝟙𝟚", "“quotes” ‘single’ „unten“ «guillemets» ‹x›",
        "dash – en — em ― bar − minus",
        "ellipsis… and ‥ two", "soft\u00adhy\u00adphen", "zero\u200bwidth\u200bspace",
        "non\u2060joiner", "bullet • item ‣ ◦",
        "👍", "👍🏽", "👩‍👩‍👧‍👦 family", "🏳️‍🌈 flag", "🇩🇪🇫🇷🇯🇵", "1️⃣2️⃣", "❤️ vs ❤", "😀😃😄 happy",
        "🧑🏿‍🚀 astronaut",
        "e\u0301 vs é", "n\u0303 o\u0308 u\u0308",
        "Z\u0351\u036b\u0343a\u0363\u0361l\u0348\u034dg\u0332o\u0321", "\u0301 alone",
        "q\u0323\u0307 and q\u0307\u0323",
        "\u1100\u1161\u11a8 vs 각", "ㄱㄴㄷ ㅏㅑㅓ", "ก็ ก้ กี่ นํ้า น้ำ",
        "क्ष त्र ज्ञ श्र", "கௌ vs கொள", "நௌ ஸ்ரீ",
        "İstanbul ıssız I i", "ΑΒΓ αβγ ς σ", "ǅ Ǆ ǆ", "ﬀ ﬁ ﬂ ﬃ ﬄ", "\u212b Å A\u030a", "ß ẞ SS ss",
        "a" * 200, "ab" * 150, "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
        "pneumonoultramicroscopicsilicovolcanoconiosis", "กรุงเทพมหานครอมรรัตนโกสินทร์", "漢字" * 60,
        "!" * 80, "?!" * 40,
        "." * 64, "-" * 72, "= " * 30, "0" * 100, "ha" * 40 + "!", "нет" * 50, "عربي" * 30,
        "αβγδ" * 40,
        "Q: What is 3 x 8? (A) 11 (B) 24 (C) 38 (D) 83 A:",
        "Question: is it red?\nAnswer the question using a single word or phrase.",
        "camelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case",
        "O'Neill's rock'n'roll",
        "A.B.C. e.g. i.e. U.S.A.", "\"nested 'quotes' here\"", "tab\tseparated\tvalues",
        "100 000,00", "¡Hola! ¿Qué?",
        "¶ § † ‡ ‰ ‱", "← ↑ → ↓ ↔ ⇒ ⇔", "░▒▓█▄▀", "┌─┬─┐│ │ │└─┴─┘", "♔♕♖♗♘♙", "♠♥♦♣ ♪♫", "⠃⠗⠁⠊⠇⠇⠑",
        "𓀀𓁐𓂀", "𒀀𒁀", "𐍈𐌰𐍄𐍃",
        "𠀀𠮷野家", "葛󠄀城", "㐀㐁", "丽 vs 丽", "〆 〇 々 ヽ ゝ", "ー〜～・「」『』【】", "、。，．：；？！", "꧁꧂", "ꙮ", "ᚠᚢᚦ",
        "ⵣ ⵜⴰ",
    ]


def form_lines(texts):
    """The same phrases decomposed, in full-width letters, in capitals, run together."""
    lines = []
    for i, text in enumerate(texts):
        decomposed = unicodedata.normalize("NFD", text)
        if decomposed != text and i % 2 == 0:
            lines.append(decomposed)
        if text.isascii():
            lines.append("".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text))
        if text.upper() != text and i % 5 == 0:
            lines.append(text.upper())
        if " " in text and i % 7 == 0:
            lines.append(text.replace(" ", ""))
    return lines


def block_lines():
    """Letters of one block after another, many unknown to the model."""
    starts = [0xA0, 0x100, 0x180, 0x250, 0x2B0, 0x370, 0x400, 0x500, 0x531, 0x5D0, 0x620, 0x671,
    0x710,
              0x780, 0x905, 0x985, 0xA05, 0xA85, 0xB05, 0xB85, 0xC05, 0xC85, 0xD05, 0xD85, 0xE01,
              0xE81,
              0xF40, 0x1000, 0x10A0, 0x10D0, 0x1100, 0x1200, 0x13A0, 0x1401, 0x1780, 0x1820, 0x1E00,
              0x1F00,
              0x2010, 0x2070, 0x20A0, 0x2100, 0x2150, 0x2190, 0x2200, 0x2460, 0x2500, 0x25A0,
              0x2600, 0x2701,
              0x2C00, 0x2E80, 0x3001, 0x3041, 0x30A1, 0x3131, 0x3200, 0x3300, 0x3400, 0x4E00,
              0x9F00, 0xA000,
              0xAC00, 0xD700, 0xF900, 0xFB00, 0xFB50, 0xFE30, 0xFE70, 0xFF01, 0x10330, 0x1D400,
              0x1F100,
              0x1F300, 0x1F600, 0x1F900, 0x20000, 0x2F800]
    lines = []
    for start in starts:
        some = [chr(c) for c in range(start, start + 0x60,
        5) if unicodedata.category(chr(c))[0] in "LMNPS"]
        lines.append(" ".join(some[:8]) + " " + "".join(some[8:]))
    return lines


def mixed_lines(texts, count):
    """Fragments of all of the above glued together by a small generator."""
    state = 20240229

    def pick(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    glue = ["", "", " ", "  ", "\n", "\t", "-", ", ", "\u00a0", "\u200b", "<mask>", " <mask> ",
    "</s>", "0", "…"]
    lines = []
    for _ in range(count):
        line = ""
        for _ in range(2 + pick(4)):
            text = texts[pick(len(texts))]
            start = pick(max(1, len(text)))
            line += text[start:start + 1 + pick(12)] + glue[pick(len(glue))]
        lines.append(line)
    return lines


def json_text(text):
    """JSON that a person can read: what is not printable is escaped."""
    def escape(match):
        return json.dumps(match.group())[1:-1]

    return "".join(c if c.isprintable() else re.sub(".", escape, c, flags=re.S)
                   for c in json.dumps(text, ensure_ascii=False))


def fnv1a(ids):
    digest = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        digest = ((digest ^ byte) * 0x100000001B3) % 2**64
    return digest


def is_tied(tokenizer, text):
    best = tokenizer.sp_model.nbest_encode(text, nbest_size=2, out_type="immutable_proto").nbests
    return len(best) == 2 and abs(best[0].score - best[1].score) < 2e-3


def fast_difference(slow, fast, lines):
    """Counts the lines where the fast tokenizer disagrees, by the first thing that explains it."""
    kinds = {}
    for line in lines:
        a, b = (t.encode(line, add_special_tokens=False) for t in (slow, fast))
        if a != b:
            kinds.setdefault("special word" if "<mask>" in line or "</s>" in line else "text",
            []).append(line)
    for kind, found in kinds.items():
        print(f"fast tokenizer differs, {kind}: {len(found)} of {len(lines)}, first {found[:12]!r}")


def main():
    if "--keep-model" not in sys.argv:
        train()
    tokenizer = XLMRobertaTokenizer(MODEL)

    texts = phrases()
    fixed = texts + hand_lines()
    lines = fixed + special_lines() + space_lines() + form_lines(texts) + block_lines()
    lines += mixed_lines(fixed, 100)
    lines = [line for line in lines if not is_tied(tokenizer, line)]
    with open(f"{FOLDER}/golden.tsv", "w", encoding="utf-8") as f:
        for line in lines:
            ids = tokenizer.encode(line, add_special_tokens=False)
            text = tokenizer.decode(ids, skip_special_tokens=True,
            clean_up_tokenization_spaces=False)
            f.write(f"{' '.join(map(str, ids))}\t{json_text(line)}\t{json_text(text.strip())}\n")

    with open(f"{FOLDER}/shared.tsv", "w", encoding="utf-8") as f:
        for name in shared_files():
            texts = prompts(f"{SHARED}/{name}")
            tied = [n for n, text in enumerate(texts, 1) if is_tied(tokenizer, text)]
            encoded = [tokenizer.encode(text, add_special_tokens=False)
                       for n, text in enumerate(texts, 1) if n not in tied]
            ids = [i for one in encoded for i in one]
            left_out = " ".join(map(str, tied))
            f.write(f"{name}\t{len(encoded)}\t{len(ids)}\t{fnv1a(ids):016x}\t{left_out}\n")

    print(f"{len(lines)} lines, model of {os.path.getsize(MODEL)} bytes")
    fast_difference(tokenizer, XLMRobertaTokenizerFast(vocab_file=MODEL, from_slow=True), lines)


if __name__ == "__main__":
    main()
