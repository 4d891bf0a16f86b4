"""Training, validation and test sets that share neither packages nor passages.

1. By source package: names without digits and language prefixes are one family (gcc-12 and gcc-11,
   python-foo and ruby-foo), and a hash of seed and family chooses the set of all its texts, for all
   tasks and for the plain text at once.
2. By passage: packages of different families share paragraphs. Texts are compared as lower-case
   words with numbers and the package's own names masked, by shingles of 8 words (texts of 40 words
   or more) or 4 words (from 6 words), shorter ones as a whole. A held-out text of which more than
   half of the shingles occur anywhere in the training text (all descriptions of training packages
   in both languages, also those that no filter let into the pairs) is dropped, and so is one like
   an earlier held-out text. The comparison is exact: no sampling, no MinHash.
"""
import hashlib
import re

SHARE = 0.5


def chance(seed, *keys):
    """A number in [0, 1) that depends on the seed and the keys alone."""
    digest = hashlib.sha256("\0".join([str(seed), *keys]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def family(source):
    name = re.sub(r"^(python3?|ruby|golang|node|rust|haskell|r-cran|r-bioc|lib|php|lua|ocaml|emacs|"
                  r"elpa|jupyter|octave|gambas)[-.]?(?=.{3})", "", source.lower())
    name = re.sub(r"-(perl|java|ruby|clojure|el|sharp|mode|signed.*)$", "", name)
    name = re.sub(r"[\d.+~]+", "", name).strip("-")
    return name or source


def set_of(source, seed, share):
    value = chance(seed, "set", family(source))
    return "valid" if value < share else "test" if value < 2 * share else "train"


def shingle_size(tokens):
    return 8 if len(tokens) >= 40 else 4 if len(tokens) >= 6 else 0


def shingles_of(tokens):
    size = shingle_size(tokens)
    if size == 0:
        return ["^" + " ".join(tokens)]
    return [" ".join(tokens[i:i + size]) for i in range(len(tokens) - size + 1)]


def every_shingle(tokens):
    """All that a held-out text might share with these tokens, whatever its length."""
    yield "^" + " ".join(tokens)
    for size in (4, 8):
        for i in range(len(tokens) - size + 1):
            yield " ".join(tokens[i:i + size])


class Held:
    """A held-out candidate: groups of token lists; it is dropped if the share found of any group
    (German, English; or text, summary) is above the limit."""

    def __init__(self, item, groups):
        self.item = item
        self.groups = [[s for tokens in group for s in shingles_of(tokens)] for group in groups]
        self.texts = [tokens for group in groups for tokens in group]

    def shared(self, found):
        return max(sum(s in found for s in group) / max(1, len(group)) for group in self.groups)


def drop_near_duplicates(held, training):
    """held: [Held] in the order of preference; training: token lists. Returns those that are left
    and the numbers dropped for the training text and for an earlier one that was held out."""
    wanted = {s for h in held for group in h.groups for s in group}
    found = set()
    for tokens in training:
        found.update(s for s in every_shingle(tokens) if s in wanted)
    unlike = [h for h in held if h.shared(found) <= SHARE]
    accepted, kept = set(), []
    for h in unlike:
        if h.shared(accepted) <= SHARE:
            kept.append(h)
            for tokens in h.texts:
                accepted.update(s for s in every_shingle(tokens) if s in wanted)
    return kept, len(held) - len(unlike), len(unlike) - len(kept)
