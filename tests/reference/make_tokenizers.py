#!/usr/bin/env python3
"""Makes tests/golden/tokenizers: small vocabularies of every kind, and what `tokenizers` makes of texts.

    ENV/bin/python tests/reference/make_tokenizers.py            trains the vocabularies, writes all
    ENV/bin/python tests/reference/make_tokenizers.py --real D   ids of D's folders, for the texts of many scripts

from the repository root. Made with Python 3.11 and tokenizers 0.23.3 (pip).

  texts.jsonl              the texts, a JSON string on each line
  KIND/tokenizer.json      or vocab.json and merges.txt; with the files that models have next to it
  KIND/ids.tsv             for each text "ids TAB digest TAB digest of the decoded text": how many, FNV-1a 64
                           over the ids as little-endian int32, and over the text that the ids decode to,
                           without special tokens and white space at its ends
  xlmr/ids.tsv             for the tokenizer.json of the sentencepiece model in tests/golden/tokenizer, which
                           the test makes as this script does

--real reads folders with a tokenizer.json, or reference.json where the C code is to read older files, and
writes ids.tsv and texts.jsonl (2,000 texts) into each.
"""

import base64
import json
import os
import random
import struct
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = "tests/golden/tokenizers"
PHRASES = "tests/golden/tokenizer/phrases.txt"
SENTENCEPIECE = "tests/golden/tokenizer/sentencepiece.bpe.model"

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

# ---- Texts. ----

PLAIN = [
    "", " ", "  ", "\n", "\t", " \n ", "a", " a", "a ", "Hello, world!", "  two  spaces  ", "tab\tand\nnew line\r\n\r\nend",
    "I'm sure they'd've said it's fine; we'll SEE, DON'T WE'RE", "12345 1 22 333 4444 3.14159 1,000,000 ½ ² Ⅷ ٣٤",
    "x = [i**2 for i in range(10)]  # list\n\n    if x:\n\treturn {'a': 1}\n", "https://example.org/path?q=1&r=%20#top",
    "naïve café résumé Ångström ñandú İstanbul ΟΔΥΣΣΕΥΣ ς", "e\u0301 a\u030a n\u0303 \u1e9b\u0323 ﬁ ﬂ Ａｂｃ １２３ ㎏ ①",
    "日本語のテキスト、中文文本。한국어 텍스트", "مرحبا بالعالم שלום עולם", "हिन्दी भाषा ภาษาไทย Tiếng Việt Ελληνικά Русский",
    "👍🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️ ☃", "\u00a0nbsp\u2003em\u200bzero\u200djoin\ufeffbom\u2028ls\u1680og\u180emv\u3000wide",
    "a\u0000b\u0001c\u007fd\u0085e\u009f", "\ufffd\ufffd �", "<0x41> <0xE2><0x96>", "▁▁a ▁b", "Ġhello Ċ âĢĻ",
    "<s> a</s>b <pad><unk> x  <mask> y <mask>", "[CLS] word [MASK]ing [SEP] [UNK][PAD]", "<|endoftext|><|im_start|>user\nhi<|im_end|>",
    "##ing ing##", "don't do not n't 's 've 're", "supercalifragilisticexpialidocious" * 4, "a" * 300, "ab" * 90, " " * 70,
    "\n" * 20 + " " * 9 + "x", "!?!?!?...---___", "ſtraße ẞ Kelvin K 'S 'ſ 'LL", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 \U0001f600 \U0002f81a",
    "Wort wort WORT lower single wordsingle single", "x<ctrl>y <ctrl> z", "end with space ", "\r\r\n\n\r",
]  # fmt: skip


def phrases():
    with open(PHRASES, encoding="utf-8") as f:
        return [line.rstrip("\n").split("\t")[1] for line in f]


def assigned():
    """Characters that all libraries know alike: `tokenizers` has the marks and punctuation of Unicode 8 and
    the normal forms of Unicode 13, the C code's libraries those of Unicode 14."""
    marks = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    words = pre_tokenizers.BertPreTokenizer()
    forms = {form: getattr(normalizers, form)() for form in ("NFC", "NFD", "NFKC")}

    def known(c):
        category = unicodedata.category(c)
        if category in ("Cn", "Cs", "Co") or unicodedata.bidirectional(c) == "":
            return False
        if (marks.normalize_str(f"a{c}b") == "ab") != (category == "Mn"):
            return False
        space = c.isspace()
        punctuation = category[0] == "P" or ord(c) < 0x80 and not c.isalnum() and not space
        if not space and (len(words.pre_tokenize_str(f"a{c}b")) == 3) != punctuation:
            return False
        if normalizers.StripAccents().normalize_str(c) != ("" if category[0] == "M" else c):
            return False
        tries = (c, f"a{c}\u0316", f"a\u0301{c}")
        return all(f.normalize_str(t) == unicodedata.normalize(form, t) for form, f in forms.items() for t in tries)

    return [c for c in map(chr, range(0x20, 0x323B0)) if known(c)]


def mixed(count, seed):
    """Random texts: words of one script with marks, digits, spaces and other scripts in between."""
    rng = random.Random(seed)
    characters = assigned()
    starts = [i for i in range(0, len(characters) - 64, 16)]
    spaces = [" ", "  ", "\n", "\t", "\u00a0", "\u3000", "\r\n", " \n"]
    known = phrases() + PLAIN
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.45:
                start = rng.choice(starts)
                parts.append("".join(characters[start + rng.randrange(64)] for _ in range(rng.randint(1, 9))))
            elif kind < 0.6:
                parts.append("".join(chr(rng.randint(0x21, 0x7E)) for _ in range(rng.randint(1, 9))))
            elif kind < 0.8:
                words = rng.choice(known).split(" ")
                parts.append(" ".join(words[rng.randrange(len(words)) :][:4]))
            elif kind < 0.9:
                parts.append(rng.choice(PLAIN))
            else:
                parts.append("".join(rng.choice("0123456789.,-") for _ in range(rng.randint(1, 9))))
            parts.append(rng.choice(spaces) if rng.random() < 0.6 else "")
        yield "".join(parts)[:400]


def texts(count, seed):
    some = PLAIN + phrases()
    return (some + list(mixed(max(0, count - len(some)), seed)))[:count]


# ---- What is written. ----


def fnv(data):
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


# What Python's strip removes, which is what the C code does.
def line(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return f"{len(ids)}\t{fnv(b''.join(struct.pack('<i', i) for i in ids))}\t{fnv(decoded.encode())}\n"


def write_ids(folder, tokenizer, some):
    with open(f"{folder}/ids.tsv", "w", encoding="utf-8") as f:
        f.writelines(line(tokenizer, text) for text in some)


def write_texts(path, some):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(text) + "\n" for text in some)


def special(*contents, **flags):
    return [AddedToken(content, special=True, **flags) for content in contents]


# ---- The kinds. ----


def byte_level(size, pattern=None, specials=(), **options):
    tokenizer = Tokenizer(models.BPE(**options))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = pattern and pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole]) if split else whole
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(phrases(), trainer)
    return tokenizer


def gpt2():
    return byte_level(420, specials=special("<|endoftext|>"))


def roberta():
    tokenizer = byte_level(430, specials=special("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"]["<mask>"] = len(state["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def qwen2():
    tokenizer = byte_level(420, QWEN2)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"))
    return tokenizer


def modernbert():
    """Byte-level with NFC, runs of spaces as tokens, and BERT's special tokens."""
    tokenizer = byte_level(420)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (24, 8, 3, 2)])
    tokenizer.add_special_tokens(special("[UNK]", "[CLS]", "[SEP]", "[PAD]"))
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    ids = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def mmbert():
    """Gemma's: BPE with byte fallback after spaces became U+2581, divided at spaces; <bos> and <eos>."""
    base = special("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=base + [f"<0x{i:02X}>" for i in range(256)], show_progress=False, limit_alphabet=110
    )
    tokenizer.train_from_iterator([" ".join(p.split()[:3]) for p in phrases()], trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:5]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos>:0 $A:0 <eos>:0", pair="<bos>:0 $A:0 <eos>:0 $B:1 <eos>:1", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer


def llama3():
    tokenizer = byte_level(420, LLAMA3, ignore_merges=True)
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|mdm_mask|>"))
    tokenizer.add_tokens([AddedToken("wort", normalized=True), AddedToken("single", single_word=True)])
    tokenizer.add_tokens([AddedToken("<ctrl>", lstrip=True, rstrip=True)])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                special_tokens=[("<|begin_of_text|>", begin)],
            ),
        ]
    )
    return tokenizer


def llama2(metaspace=False):
    """BPE over characters, with tokens for all bytes; spaces by normalizers, or by Metaspace."""
    base = special("<unk>", "<s>", "</s>")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=base + [f"<0x{i:02X}>" for i in range(256)], show_progress=False, limit_alphabet=120
    )
    tokenizer.train_from_iterator([" ".join(p.split()[:3]) for p in phrases()], trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if metaspace:
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
        return tokenizer
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=special("<s>", "<unk>"), unk_token="<unk>", show_progress=False, n_sub_iterations=1
    )
    tokenizer.train_from_iterator([p for p in phrases() if max(p) < "\u0250"], trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


def bert(cased=False):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased, strip_accents=None)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=not cased)
    names = special("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer.train_from_iterator(
        phrases(), trainers.WordPieceTrainer(vocab_size=700, special_tokens=names, show_progress=False, limit_alphabet=150)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def clip():
    """BPE with a mark at the end of words, after the rarer normalizers and pre-tokenizers."""
    tokenizer = Tokenizer(models.BPE(unk_token="?", end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.CharDelimiterSplit("_"),
            pre_tokenizers.Split("z", "merged_with_previous"),
            pre_tokenizers.Split(Regex("q+"), "merged_with_next"),
        ]
    )
    tokenizer.decoder = decoders.BPEDecoder()
    tokenizer.train_from_iterator(
        phrases(),
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=special("?"), end_of_word_suffix="</w>", show_progress=False, limit_alphabet=90
        ),
    )
    return tokenizer


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ((4, at) if key & 7 == 5 else (8, at))
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def xlmr(path=SENTENCEPIECE):
    """XLM-R's tokenizer.json from a sentencepiece model, as transformers converts it."""
    pieces, charsmap = [], b""
    with open(path, "rb") as f:
        for number, value in fields(f.read()):
            if number == 1:
                piece = dict(fields(value))
                pieces.append([piece[1].decode(), struct.unpack("<f", piece[2])[0]])
            elif number == 3:
                charsmap = dict(fields(value)).get(2, b"")
    vocab = [[name, 0.0] for name in ("<s>", "<pad>", "</s>", "<unk>")] + pieces[3:] + [["<mask>", 0.0]]
    state = json.loads(Tokenizer(models.Unigram([tuple(p) for p in vocab], unk_id=3)).to_str())
    state["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    state["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    state["decoder"] = state["pre_tokenizer"]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(special("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


KINDS = {
    "gpt2": gpt2,
    "qwen2": qwen2,
    "llama3": llama3,
    "llama2": llama2,
    "llama2-metaspace": lambda: llama2(metaspace=True),
    "unigram": unigram,
    "bert": bert,
    "bert-cased": lambda: bert(cased=True),
    "clip": clip,
    "modernbert": modernbert,
    "mmbert": mmbert,
}


def write_merges(folder, tokenizer, config):
    model = json.loads(tokenizer.to_str())["model"]
    with open(f"{folder}/vocab.json", "w", encoding="utf-8") as f:
        json.dump(model["vocab"], f)
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    with open(f"{folder}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)


def write_older(some):
    """Vocabularies of the older files: RoBERTa's, and Dream's with its added tokens."""
    tokenizer = roberta()
    os.makedirs(f"{FOLDER}/roberta", exist_ok=True)
    names = {f"{k}_token": v for k, v in zip(("bos", "eos", "unk", "pad", "mask"), ("<s>", "</s>", "<unk>", "<pad>", "<mask>"))}
    write_merges(f"{FOLDER}/roberta", tokenizer, {"tokenizer_class": "RobertaTokenizer", **names})
    write_ids(f"{FOLDER}/roberta", tokenizer, some)
    tokenizer = qwen2()
    os.makedirs(f"{FOLDER}/dream", exist_ok=True)
    added = {
        str(token_id): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }
    config = {"tokenizer_class": "DreamTokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    write_merges(f"{FOLDER}/dream", tokenizer, {**config, "mask_token": "<|mask|>", "added_tokens_decoder": added})
    write_ids(f"{FOLDER}/dream", tokenizer, some)


def main():
    if sys.argv[1:2] == ["--real"]:
        some = texts(2000, 2)
        for name in sorted(os.listdir(sys.argv[2])):
            folder = f"{sys.argv[2]}/{name}"
            path = next((p for n in ("reference", "tokenizer") if os.path.exists(p := f"{folder}/{n}.json")), None)
            if path:
                write_texts(f"{folder}/texts.jsonl", some)
                write_ids(folder, Tokenizer.from_file(path), some)
        return
    some = texts(200, 1)
    write_texts(f"{FOLDER}/texts.jsonl", some)
    for name, make in KINDS.items():
        os.makedirs(f"{FOLDER}/{name}", exist_ok=True)
        tokenizer = make()
        tokenizer.save(f"{FOLDER}/{name}/tokenizer.json", pretty=False)
        write_ids(f"{FOLDER}/{name}", tokenizer, some)
    os.makedirs(f"{FOLDER}/xlmr", exist_ok=True)
    write_ids(f"{FOLDER}/xlmr", xlmr(), some)
    write_older(some)


if __name__ == "__main__":
    main()
