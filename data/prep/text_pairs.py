"""Translation pairs and summaries out of descriptions, and the filters that choose them."""
import re
from collections import Counter, defaultdict

FUNCTION_WORDS = {
    "en": """the of and to for is with that this are by or be from it as which you can has have not
        also using your its other provides contains package allows used such will""",
    "de": """der die das und ist für mit von ein eine zu den im des auf wird werden oder sie dem als
        einer eines einen es sich nicht dieses diese enthält aus zum zur durch auch bei kann können
        ihre sowie paket""",
    "fr": """le la les des et est pour avec une un du dans ce cette sont par ou au aux qui que sur
        ne pas vous il elle paquet contient fournit en""",
    "it": """il lo la gli le di e è per con una un del della dei delle nel questo questa sono da che
        si non al alla pacchetto contiene fornisce come""",
    "da": """og er for med en et til af den det de som på ikke kan fra der har denne dette pakke
        indeholder eller ved brug""",
}
FUNCTION_WORDS = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}
NAMES = {"de": "German", "en": "English", "fr": "French", "it": "Italian", "da": "Danish"}
# as the presets `translate` and `summarize` of the program word it
TRANSLATE = "Translate the sentences into {to}.  {source}: {text} {to}: "
SUMMARIZE = "Write a short summary of the text.  Text: {text} Summary: "

LONGEST = 100  # words of a translation pair
LONGEST_SUMMARY = 180  # words of a text to be summarized
TEMPLATE = 3  # pairs that differ in names and numbers only


def words_of(text):
    return re.findall(r"[^\W\d_]+", text.lower())


def masked(text, names):
    """Words in lower case with numbers and the package's own names masked: what is compared."""
    tokens = []
    for token in re.findall(r"[\w+.]*\w[+]*", text.lower()):
        if token in names or any(part in names for part in re.split(r"[._+]", token)):
            tokens.append("@")
        elif any(c.isdigit() for c in token):
            tokens.append("0")
        else:
            tokens.append(token)
    return tokens


ABBREVIATION = re.compile(
    r"(?:\b(?:z|d|u|o|i|e|g|B|h|a|s|Ä|v|p|c|St|Dr|Mr|Ms|Inc|Ltd|Co|vs|cf|No|Nr|etc|usw|bzw|ca|vgl|"
    r"inkl|incl|engl|evtl|ggf|sog|approx|resp|bspw|et al|\w)|\d)\.$")


def sentences_of(text):
    sentences, start = [], 0
    for match in re.finditer(r"[.!?][)\"'”“]?\s+(?=[\"'(„“]?[A-ZÄÖÜÉÈÀ0-9])", text):
        if ABBREVIATION.search(text[:match.start() + 1][-12:]):
            continue
        sentences.append(text[start:match.end()].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [s for s in sentences if s]


def numbers_of(text):
    text = re.sub(r"(?<=\d)[.,' \u00a0](?=\d)", "", text)
    return sorted(n for n in re.findall(r"\d+", text) if len(n) > 1)


def language_fault(text, own, foreign):
    """Whether a text has more function words of the other language than of its own."""
    words = words_of(text)
    mine = sum(w in FUNCTION_WORDS[own] for w in words)
    theirs = sum(w in FUNCTION_WORDS[foreign] for w in words)
    return theirs > mine and theirs >= 1


def hardly_translated(words, english, language):
    """Whether most of a translation's words occur in the English text too. A word like "für" shows
    that somebody translated it, and what is left are names."""
    long_words = [w for w in words if len(w) > 3]
    same = sum(w in set(english) for w in long_words)
    own = any(w in FUNCTION_WORDS[language] and w not in english for w in words)
    return long_words and same > (0.8 if own else 0.5) * len(long_words)


def brackets_open(text):
    return text.count("(") != text.count(")") or text.count('"') % 2


def pair_fault(other, english, language):
    """Why a pair is no good, or None."""
    if "<trans>" in other or "<trans>" in english:
        return "not translated yet (<trans>)"
    if other == english or masked(other, ()) == masked(english, ()):
        return "the same in both languages"
    a, b = words_of(other), words_of(english)
    if len(a) < 2 or len(b) < 2:
        return "fewer than two words"
    if max(len(other.split()), len(english.split())) > LONGEST:
        return f"more than {LONGEST} words"
    if re.search(r"://|www\.|@\w|\bHomepage:", other + english):
        return "address in it"
    letters = sum(c.isalpha() or c == " " for c in english + other)
    if letters < 0.8 * len(english + other):
        return "mostly no letters"
    if language_fault(other, language, "en") or language_fault(english, "en", language):
        return "wrong language"
    if hardly_translated(a, b, language):
        return "hardly translated"
    ratio = (len(other) + 15) / (len(english) + 15)
    if not 0.6 < ratio < 1.8:
        return "lengths too unlike"
    if numbers_of(other) != numbers_of(english):
        return "numbers differ"
    if brackets_open(other) != brackets_open(english):
        return "cut off or brackets open"
    if (other[-1] in ".!?") != (english[-1] in ".!?") and len(b) > 12:
        return "only one is a full sentence"
    return None


class Pair:
    def __init__(self, package, kind, english, other):
        self.package, self.kind, self.english, self.other = package, kind, english, other
        self.tokens = [masked(other, package.words), masked(english, package.words)]


def candidate_pairs(package, language, counts):
    """(kind, English, other) of a package: title, paragraphs and items that correspond."""
    translation = package.others[language]
    yield "title", package.english.title, translation.title
    ours, theirs = package.english.paragraphs, translation.paragraphs
    if len(ours) != len(theirs):
        counts["paragraphs: another number"] += sum(map(len, ours))
        return
    for a, b in zip(ours, theirs):
        if [kind for kind, _ in a] != [kind for kind, _ in b]:
            counts["lists do not match"] += len(a)
            continue
        for (kind, english), (_, other) in zip(a, b):
            if kind == "fragment":
                counts["sentence goes on in a list"] += 1
            else:
                yield kind, english, other


def sentence_pairs(pair, language):
    """The sentences of a paragraph one by one, where both languages have as many of them."""
    english, other = sentences_of(pair.english), sentences_of(pair.other)
    if len(english) != len(other) or len(english) < 2:
        return []
    both = list(zip(english, other))
    if any(not 0.5 < (len(o) + 15) / (len(e) + 15) < 2.0 for e, o in both):
        return []
    return [Pair(pair.package, "sentence", e, o) for e, o in both
            if not pair_fault(o, e, language)]


def keep_one_translation(pairs, counts):
    """Of several translations of one text the commonest, then the first; in both directions."""
    for side in ("english", "other"):
        groups = defaultdict(list)
        for pair in pairs:
            groups[getattr(pair, side)].append(pair)
        chosen = []
        for group in groups.values():
            opposite = "other" if side == "english" else "english"
            votes = Counter(getattr(pair, opposite) for pair in group)
            best = max(votes.values())
            chosen.append(next(p for p in group if votes[getattr(p, opposite)] == best))
        counts["repeated: kept once"] += len(pairs) - len(chosen)
        pairs = chosen
    return pairs


def limit_templates(items, key, limit, counts, reason):
    seen, kept = Counter(), []
    for item in items:
        template = key(item)
        seen[template] += 1
        if seen[template] <= limit:
            kept.append(item)
        else:
            counts[reason] += 1
    return kept


def translation_pairs(packages, language, counts):
    pairs = []
    for package in packages:
        if language not in package.others:
            continue
        for kind, english, other in candidate_pairs(package, language, counts):
            counts["all"] += 1
            fault = pair_fault(other, english, language)
            if fault:
                counts[fault] += 1
            else:
                pairs.append(Pair(package, kind, english, other))
    pairs = keep_one_translation(pairs, counts)
    return limit_templates(pairs, lambda p: " ".join(p.tokens[1]), TEMPLATE, counts,
                           f"template: kept {TEMPLATE} times")


class Summary:
    def __init__(self, package, segments):
        self.package = package
        self.segments = segments
        self.text = " ".join(segments)
        self.summary = package.english.title
        self.tokens = [masked(s, package.words) for s in segments]
        self.summary_tokens = masked(self.summary, package.words)


def cut_text(segments, limit):
    """As many whole sentences from the beginning as fit into the limit; lists have their items
    one after another. Returns the segments and whether something was cut off."""
    kept, room = [], limit
    for kind, text in segments:
        if kind == "item" and text[-1] not in ".;,:!?":
            text += ";"
        size = len(text.split())
        if size <= room:
            kept.append(text)
            room -= size
            continue
        part = []
        for sentence in sentences_of(text):
            if len(sentence.split()) > room:
                break
            part.append(sentence)
            room -= len(sentence.split())
        if part:
            kept.append(" ".join(part))
        return kept, True
    return kept, False


STEM = 5  # letters by which two words are taken for the same
NO_PRODUCT = re.compile(r"transitional|dummy|meta-?package|debug(ging)? symbols|debug files|"
                        r"\(debug|empty package|obsolete|virtual package", re.IGNORECASE)


def summary_fault(summary, had_prose):
    title, text = summary.summary, summary.text
    words = words_of(title)
    if NO_PRODUCT.search(title) or NO_PRODUCT.search(text[:200]):
        return "no real package (transitional, meta, debug)"
    if not had_prose or len(text.split()) < 15:
        return "description under 15 words"
    if len(words) < 3 or len(title.split()) > 16:
        return "synopsis under 3 or over 16 words"
    if language_fault(text, "en", "de"):
        return "not English"
    content = {w[:STEM] for w in words if len(w) > 3 and w not in FUNCTION_WORDS["en"]
               and w not in summary.package.words}
    there = {w[:STEM] for w in words_of(text)}
    if not content or 2 * len(content & there) < len(content):
        return "synopsis: under half its words in the text"
    return None


def shingles(tokens, size):
    return {" ".join(tokens[i:i + size]) for i in range(max(1, len(tokens) - size + 1))}


def summaries(packages, counts, family):
    """One text a family of binary packages of one source, and more only if they are unlike."""
    chosen, seen = [], defaultdict(lambda: (set(), Counter()))
    for package in packages:
        counts["all"] += 1
        segments = [s for group in package.english.paragraphs for s in group]
        cut, was_cut = cut_text(segments, LONGEST_SUMMARY)
        item = Summary(package, cut)
        fault = summary_fault(item, any(kind == "prose" for kind, _ in segments))
        if fault:
            counts[fault] += 1
            continue
        grams, titles = seen[family(package.source)]
        own = set().union(*(shingles(t, 8) for t in item.tokens))
        title = " ".join(item.summary_tokens)
        if len(own & grams) > 0.4 * len(own) or titles[title]:
            counts["like another of its source"] += 1
            continue
        grams |= own
        titles[title] += 1
        counts["(cut at a sentence's end)"] += was_cut
        chosen.append(item)
    chosen = limit_templates(chosen, lambda s: " ".join(t for g in s.tokens for t in g), 1, counts,
                             "description: template")
    return limit_templates(chosen, lambda s: " ".join(s.summary_tokens), TEMPLATE, counts,
                           f"synopsis template: kept {TEMPLATE} times")
