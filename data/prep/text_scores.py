"""What answers without a model score: a floor under every number a model gets."""
import re


def rouge_l(reference, answer):
    """F1 of the longest common subsequence of the words (letters and digits in lower case)."""
    a, b = (re.findall(r"[a-z0-9]+", text.lower()) for text in (reference, answer))
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    if not row[-1]:
        return 0.0
    precision, recall = row[-1] / len(b), row[-1] / len(a)
    return 2 * precision * recall / (precision + recall)


def first_words(sources, references):
    """As many words of the source as the references have on average."""
    count = round(sum(len(r.split()) for r in references) / len(references))
    return [" ".join(s.split()[:count]) for s in sources]


def baseline_rows(task, sources, references):
    """(name, sacreBLEU or None without the package sacrebleu, Rouge-L)"""
    try:
        import sacrebleu
    except ImportError:
        sacrebleu = None
    for name, answers in (("copy of the source", sources),
                          ("first words", first_words(sources, references))):
        bleu = sacrebleu.corpus_bleu(answers, [references]).score if sacrebleu else None
        rouge = 100 * sum(map(rouge_l, references, answers)) / len(references)
        yield f"{task}: {name}", bleu, rouge
