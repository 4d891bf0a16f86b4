"""Tests of the Python module, by tests/install_test.sh: python_test.py MODEL IMAGE QUESTION STEPS TWO, of which
STEPS is what steps.cc printed, and TWO the answer and the translation of texts.c. Prints "ok - what" lines."""

import math
import sys
import threading

import easyfirst

folder, image, question, steps_file, two_file = sys.argv[1:]
with open(steps_file, encoding="utf-8") as file:
    *step_lines, answer = file.read().splitlines()
with open(two_file, encoding="utf-8") as file:
    both = file.read().splitlines()


def check(what, condition):
    if not condition:
        sys.exit(f"failed: {what}")
    print(f"ok - {what}")


def refused(function, *words, kind=easyfirst.Error):
    try:
        function()
    except kind as error:
        return all(word in str(error) for word in words)
    return False


model = easyfirst.Model(folder)
check("the model is described", model.has_vision and model.has_length_predictor and "CPU" in model.device)
got = model.ask(image, question)
check("the answer is the program's", got.text == answer and str(got) == answer and got.error is None)
scores = [math.log(token.probability) for token in got.tokens]
check("its score is the mean of its tokens'", abs(got.score - sum(scores) / len(scores)) < 1e-5)
known = not math.isnan(model.sure_threshold)  # whether the model's folder has a calibration
check("it has a probability where there is a calibration", (0 <= got.probability <= 1) == known)

steps = []
model.ask(image, question, on_step=steps.append)
lines = [
    f"step {step.step} of {step.steps}:" + "".join(f" {token.piece} {token.probability:.3f}" for token in step.tokens)
    for step in steps
]
check("the steps are those of C++", lines == step_lines)
check("masked places are known", all((t.piece == "<mask>") == t.masked for step in steps for t in step.tokens))

requests = [
    easyfirst.Ask(image, question), easyfirst.Translate(question, "de", "en"), easyfirst.Ask("none.jpg", question),
    easyfirst.Summarize(""), easyfirst.Complete("a\ud800"), easyfirst.Complete("One, two,", length=4),
]  # fmt: skip
told = set()
many = model.answer(requests, on_step=lambda step: told.add(step.request))
check("many requests give the answers of each", [a.text for a in many[:2]] == both)
answered = [i for i, a in enumerate(many) if a.error is None]
check("each that cannot be answered has its own error", answered == [0, 1, 5])
check("steps know their requests", told == {0, 1, 5})
check("a length is kept", len(many[5].tokens) == 4)
check("the same one by one", model.complete("One, two,", length=4).text == many[5].text)
check("translating one by one", model.translate(question, "German", "English").text == both[1])
check("summarizing", model.summarize("A dog sleeps.").text is not None)
turns = [("One, two,", "three"), ("Four,", "five")]
talk, whole = model.answer(
    [easyfirst.Complete("Six?", length=4, turns=turns), easyfirst.Complete("One, two, three Four, five Six?", length=4)]
)
check("turns are the text before the question", talk.text == whole.text and talk.prompt_tokens == whole.prompt_tokens)
check("all of them were read", talk.dropped_turns == 0)
dropped = model.answer([easyfirst.Complete("Six?", length=4, turns=turns * 300)])[0].dropped_turns
check("those that do not fit are counted", 0 < dropped < 600)
check("no requests, no answers", model.answer([]) == [])

check("a missing model is an error", refused(lambda: easyfirst.Model("none"), "none", "no such folder"))
chosen = model.choose(question, ["yes", "no", "red"], image)
check("a choice", chosen.text == chosen.choices[chosen.chosen].text and len(chosen.choices) == 3)
check("the probabilities", abs(sum(choice.probability for choice in chosen.choices) - 1) < 1e-9)
check("the likeliest", all(choice.score <= chosen.choices[chosen.chosen].score for choice in chosen.choices))
check("an answer without choices", got.choices == [] and got.chosen == -1)
check("no choices are an error", refused(lambda: model.choose("A", []), "no choices"))
check("choices as one text are a TypeError", refused(lambda: model.choose("A", "ab"), "list", kind=TypeError))
check("an unknown strategy is an error", refused(lambda: model.complete("A", strategy="best"), "best"))
check("a NUL in a text is an error", refused(lambda: model.complete("A\0B"), "NUL"))
check("a question that is no text is a TypeError", refused(lambda: model.ask(image, 3), "str", kind=TypeError))


def ask(**options):
    """A question with options, as something to be called."""
    return lambda: model.ask(image, question, **options)


def stop(step):
    raise KeyError("enough")


check("what a callback raises ends the call", refused(ask(on_step=stop), "enough", kind=KeyError))
check("a callback cannot use the model", refused(ask(on_step=lambda _: model.complete("A")), "at work"))
cancellation = easyfirst.Cancellation()
count = []


def cancel(step):
    count.append(step)
    if step.step == 2:
        thread = threading.Thread(target=cancellation.cancel)
        thread.start()
        thread.join()


cancelled = refused(ask(on_step=cancel, cancellation=cancellation), "cancelled", kind=easyfirst.Cancelled)
check("a call can be cancelled", cancelled)
check("after the step that it is in", len(count) == 2)

again = ask()()
check("and the model is as it was", again.text == answer and again.score == got.score)

many = model.answer(
    [easyfirst.Ask(image, question), easyfirst.Complete(" ", length=2)],
    beam=2, samples=2, temperature=0.7, seed=4, steps=6,
)  # fmt: skip
tried = many[0].hypotheses
check("there are hypotheses of each length and sample", [h.sample for h in tried] == [0, 1, 0, 1])
check("the best is the answer", tried[many[0].best].text == many[0].text)
check("it has the best score", many[0].score == max(h.score for h in tried))
check("an answer's evaluations are its hypotheses'", many[0].evaluations == sum(h.evaluations for h in tried))
check("a refused one has none", many[1].best == -1 and many[1].hypotheses == [] and many[1].code == "failed")
check("the call's work is counted", many.work["steps"] == 4 * 6 and many.work["answered"] == 1)
check("steps have proposals", all(not p.masked for step in steps for p in step.proposals) and steps[0].evaluated)
check("scores are logarithms", all(abs(math.exp(t.score) - t.probability) < 1e-6 for t in got.tokens))

long = easyfirst.Complete("dog " * 700, length=3)
check("a prompt that is too long has a code", model.answer([long])[0].code == "too long")
check("or is skipped", model.answer([long], long_prompts="skip")[0].code == "skipped")
kept = model.answer([long], long_prompts="keep-last")[0]
check("or loses its beginning", kept.code is None and 0 < kept.dropped_tokens < kept.prompt_tokens)
check("other words for that are an error", refused(lambda: model.complete("A", long_prompts="cut"), "keep-last"))
check("a request is checked", 0 < model.check(easyfirst.Ask(None, question)) < 30)
check("and refused", refused(lambda: model.check(long), "tokens long"))
check("without caches the same", model.ask(image, question, canvas_cache=False, kv_cache=False).text == answer)
if "block-causal" in open(folder + "/easyfirst.json").read():
    check("a prefix cache is for full attention", refused(lambda: model.complete("A", length=3, prefix_cache=4), "block-causal"))
guided = model.complete("A", length=3, guidance=1.5)
check("guidance takes two evaluations", guided.evaluations % 2 == 0 and len(guided.tokens) == 3)
check("guidance is from 0 to 100", refused(lambda: model.complete("A", length=3, guidance=-1.0), "guidance"))
check("parts are described", folder in model.parts["vision"] and len(model.parts) == 4)
check("the model's sizes are known", model.context > model.image_tokens > 0)
check("and what it took", model.statistics["load_seconds"] > 0 and model.statistics["peak_memory"] > 1 << 20)
check("a length that does not fit is refused", refused(lambda: easyfirst.Model(folder, answer_length=5000), "5000"))
check("so is a pair of languages", refused(lambda: easyfirst.Model(folder, source="en", target="Klingon"), "Klingon"))
check("and padding of another name", refused(lambda: easyfirst.Model(folder, pad="maybe"), "maybe"))
check("an image for the model", model.ask(easyfirst.Image(image, model), question).text == answer)

results = []
threads = [threading.Thread(target=lambda: results.append(model.ask(image, question).text)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
check("threads share a model", results == [answer] * 3)

with open(image, "rb") as file:
    check("an image from bytes", model.ask(file.read(), question).text == answer)
opened = easyfirst.Image(image)
check("an image that is opened once", model.ask(opened, question).text == answer and opened.width > 0)
grey = memoryview(bytes([127] * (30 * 20 * 3))).cast("B", (20, 30, 3))
made = easyfirst.Image(grey)
check("an image from pixels has their size", (made.width, made.height) == (30, 20))
check("and is asked about", model.ask(made, question).text == model.ask(grey, question).text)
flat = memoryview(bytes(12))
check("pixels of another shape are an error", refused(lambda: easyfirst.Image(flat), "(height, width, 3)"))
check("an image that is closed is an error", made.close() is None and refused(lambda: made.width, "closed"))
try:
    import numpy
except ImportError:
    print("skip - an image from numpy")
else:
    array = numpy.full((40, 60, 3), 127, numpy.uint8)
    half = easyfirst.Image(array[::2, ::2])  # rows and columns with gaps
    check("an image from numpy", model.ask(half, question).text == model.ask(grey, question).text)
    check("floats are an error", refused(lambda: easyfirst.Image(array / 255.0), "8-bit"))
with model:
    pass
check("a model that is closed is an error", refused(lambda: model.complete("A"), "closed"))
print("all passed")
