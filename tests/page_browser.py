"""The page in a headless Chromium: what it shows at each step is what the trace says.

usage: page_browser.sh [FOLDER]        (screenshots into FOLDER)

EASYFIRST in the environment names the program. Pages are made from a live run of the bundled model
and from the made-up traces of page_traces.py. Prints TAP, as the C tests do.
"""

import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import zlib

from browser import ELEMENT, Browser
from page_traces import HOSTILE, SPACE, all_traces

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("EASYFIRST", os.path.join(HERE, "../build/easyfirst")))
BUNDLED = os.path.join(HERE, "../data/bundled")

# What the page shows at each of some steps, to which its slider is moved: the answer without the words
# that it marks as erased; those; the places of what is new; the counts.
STATES = """const answer = document.getElementById("answer"), slider = document.getElementById("step");
return arguments[0].map((step) => {
  if (step !== null) { slider.value = step; slider.dispatchEvent(new Event("input")); }
  const copy = answer.cloneNode(true);
  copy.querySelectorAll("s").forEach((s) => s.remove());
  return [copy.textContent, [...answer.querySelectorAll("s")].map((s) => s.textContent),
    [...answer.querySelectorAll(".token")].flatMap((w, i) => w.classList.contains("new") ? [i] : []),
    document.getElementById("count").textContent];
});"""
GO = """const s = document.getElementById("step");
s.value = arguments[0]; s.dispatchEvent(new Event("input"));"""
DOT = SPACE + "\u00b7"  # what an end of text is shown as
ENDS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>")


def shown(piece):
    """A piece by itself, as a word."""
    word = harmless(piece).removeprefix(SPACE).replace(SPACE, " ")
    return word if word.strip() else "\u2423"


def harmless(text):
    """As show_text.h has it."""
    text = re.sub("[\t-\r\x85\u2028\u2029]", " ", text)
    return re.sub(
        "[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]",
        "\ufffd",
        text,
    )


def folded(steps):
    """As fold.h has it: each word stays from its first step to its last, and until another comes; tokens that
    end a text are dots."""
    out = [[dict(cell) for cell in step["cells"]] for step in steps]
    for i in range(len(out[0])):
        column, s = [row[i] for row in out], 0
        while s < len(column):
            if column[s]["masked"]:
                s += 1
                continue
            same_word = [t for t in range(s, len(column)) if column[t]["id"] == column[s]["id"]]
            others = [t for t in range(same_word[-1] + 1, len(column)) if not column[t]["masked"]]
            end = others[0] if others else same_word[-1] + 1
            for t in range(s, end):
                held = column[max(u for u in same_word if u <= t)]
                column[t].update({k: held[k] for k in ("id", "piece", "score", "masked")})
            s = end
    for cell in (cell for row in out for cell in row):
        if not cell["masked"] and cell["piece"] in ENDS:
            cell["piece"] = DOT
    return [{**step, "cells": row} for step, row in zip(steps, out, strict=True)]


class Told:
    """A hypothesis of a trace, and what a page of it has to say. Step 0 is all masks, but for the
    tokens that a template gives, at the positions `given`."""

    def __init__(self, steps, given=()):
        self.given = set(given)
        self.cells = [[None if c["masked"] else c for c in step["cells"]] for step in steps]
        self.full = [step["cells"] for step in steps]
        self.last, self.length = len(steps), len(steps[0]["cells"])
        self.open = self.length - len(self.given)

    def at(self, s, i):
        return self.cells[max(s, 1) - 1][i] if s or i in self.given else None

    def id(self, s, i):
        return self.at(s, i)["id"] if self.at(s, i) else None

    def text(self, s):
        out = ""
        for i in range(self.length):
            cell, end = self.at(s, i), self.at(self.last, i)
            piece = harmless(cell["piece"]) if cell else None
            space = piece.startswith(SPACE) if cell else not end or end["piece"].startswith(SPACE)
            word = piece.removeprefix(SPACE).replace(SPACE, " ") if cell else "__"
            out += (" " if space and i else "") + word
        return out

    def erased(self, s):
        before = [self.at(s - 1, i) for i in range(self.length)] if s else []
        gone = [b for i, b in enumerate(before) if b and b["id"] != self.id(s, i)]
        return [shown(b["piece"]) for b in gone]

    def fresh(self, s):
        return [
            i
            for i in range(self.length)
            if s and self.at(s, i) and self.id(s, i) != self.id(s - 1, i)
        ]

    def filled(self, s):
        return sum(self.at(s, i) is not None for i in range(self.length) if i not in self.given)

    def since(self, s, i):
        while s > 1 and self.id(s - 1, i) == self.id(s, i):
            s -= 1
        return s

    def likely(self, s, i):
        """Words that the network held likely, the likeliest first."""
        cell = self.full[s - 1][i]
        pairs = [(cell["proposal"], cell["proposal_piece"], cell["proposal_score"])]
        for r in cell.get("top_k", []):
            if r["id"] != cell["proposal"]:
                pairs.append((r["id"], r["piece"], r["score"]))
        pairs.sort(key=lambda p: -p[2])
        written = None if cell["masked"] else cell["id"]  # has the text that it is shown with
        return [shown(cell["piece"] if p[0] == written else p[1]) for p in pairs][:8]


def told(trace, index):
    steps = trace["trace"] if index == trace["best"] else trace["hypotheses"][index]["trace"]
    given = trace["hypotheses"][index].get("fixed", [])
    return Told(steps if trace.get("every_step") else folded(steps), given)


def same(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: the page has {found!r}, the trace {wanted!r}")


def holds(truth, what):
    if not truth:
        raise AssertionError(what)


class Pages:
    """Traces and the pages made of them by the program."""

    def __init__(self, folder):
        self.folder, self.traces = folder, {}
        made = all_traces()
        with open(os.path.join(HERE, "golden/cases/page-hostile.json"), encoding="utf-8") as file:
            made["markup"] = json.load(file)
        made["flicker"] = {**made["long"], "every_step": True}
        for name, trace in made.items():
            with open(self.path(name, "json"), "w", encoding="utf-8") as out:
                json.dump(trace, out)
            picture = []
            if "geometry" in trace:
                size = trace["geometry"]["width"], trace["geometry"]["height"]
                picture = ["--image", self.plain_picture(*size)]
            self.show(
                "--from",
                self.path(name, "json"),
                "--html",
                self.path(name, "html"),
                "--svg",
                self.path(name, "svg"),
                *picture,
                *(["--every-step"] if trace.get("every_step") else []),
            )
            self.traces[name] = trace
        self.live("live", "--beam", "3")
        self.live("given", "--template", "The picture ___{2} a red ___ on the ___.")

    def live(self, name, *options):
        """A page that the program makes of a new answer, and its trace."""
        self.show(
            "-m",
            os.path.join(BUNDLED, "model"),
            *options,
            "--threads",
            "1",
            "--html",
            self.path(name, "html"),
            "--json=" + self.path(name, "json"),
            os.path.join(BUNDLED, "images/tractor.jpg"),
            "Which thing is at the bottom of the picture?",
        )
        with open(self.path(name, "json"), encoding="utf-8") as file:
            self.traces[name] = json.load(file)

    def path(self, name, kind):
        return os.path.join(self.folder, name + "." + kind)

    def show(self, *args):
        done = subprocess.run([PROGRAM, "show", *args], capture_output=True, timeout=120)
        if done.returncode:
            raise AssertionError("easyfirst show: " + done.stderr.decode(errors="replace"))

    def plain_picture(self, width, height):
        """A PNG of bands, written by hand."""

        def chunk(kind, data):
            return (
                struct.pack(">I", len(data))
                + kind
                + data
                + struct.pack(">I", zlib.crc32(kind + data))
            )

        rows = b"".join(
            b"\0"
            + bytes(
                (90 + x * 120 // width, 120 + y * 100 // height, 200)[c]
                for x in range(width)
                for c in range(3)
            )
            for y in range(height)
        )
        path = os.path.join(self.folder, "picture.png")
        with open(path, "wb") as out:
            out.write(
                b"\x89PNG\r\n\x1a\n"
                + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(rows))
                + chunk(b"IEND", b"")
            )
        return path


class Tests:
    def __init__(self, browser, pages):
        self.b, self.pages = browser, pages

    def open(self, name):
        self.b.window(1280, 800)
        self.b.open(self.pages.path(name, "html"))
        return self.pages.traces[name]

    def quiet(self, name):
        """No console message, and no request but for the page and what is written in it."""
        messages = [entry["message"] for entry in self.b.logs("browser")]
        same(messages, [], f"{name}: console")
        page = "file://" + urllib.parse.quote(os.path.abspath(self.pages.path(name, "html")))
        others = [url for url in self.b.requests() if url != page and not url.startswith("data:")]
        same(others, [], f"{name}: requests")

    def matches(self, name, h, *steps, move=False):
        """The answer as it is shown, at a step or (moving there) at some, against the trace."""
        states = self.b.run(STATES, list(steps) if move else [None])
        for s, (text, gone, fresh, count) in zip(steps, states, strict=True):
            same(text, h.text(s), f"{name}, step {s}")
            same(gone, h.erased(s), f"{name}, step {s}: erased")
            same(fresh, h.fresh(s), f"{name}, step {s}: new")
            same(
                count,
                f"step {s} of {h.last} \u00b7 {h.filled(s)} of {h.open} written",
                f"{name}, step {s}",
            )

    def test_every_step_is_the_traces(self):
        for name in self.pages.traces:
            trace = self.open(name)
            h = told(trace, trace["best"])
            self.matches(name, h, h.last)  # the answer, as it was given, comes first
            self.matches(name, h, *range(h.last + 1), move=True)
            self.quiet(name)

    def test_given_tokens(self):
        """Underlined and named as given in every step, also before the first."""
        trace = self.open("given")
        h = told(trace, trace["best"])
        holds(3 < len(h.given) < h.length, "given tokens and open ones")
        marked = """return [...document.querySelectorAll("#answer .token")].flatMap((word, i) =>
            word.classList.contains("given") && word.getAttribute("aria-label").endsWith(", given") ? [i] : [])"""
        for step in (0, 1, h.last):
            self.b.run(GO, step)
            same(self.b.run(marked), sorted(h.given), f"step {step}: given")
        legend = 'return !document.getElementById("given").hidden'
        holds(self.b.run(legend), "the legend names them")
        self.b.run('document.querySelector("#answer .token.given").click()')
        holds(any("given by the template" in text for text in self.card()), "the card names them")
        self.quiet("given")
        self.open("beam")
        holds(not self.b.run(legend), "no legend without them")

    def test_keys_and_slider(self):
        trace = self.open("beam")
        h = told(trace, 0)
        for keys, step in (
            (["Home"], 0),
            (["Right"] * 5, 5),
            (["Left"], 4),
            (["End"], h.last),
            (["Right"], h.last),
            (["Home", "Left"], 0),
            (["Right"] * h.last, h.last),
        ):
            self.b.keys(*keys)
            self.matches("beam", h, step)
        self.b.click("#step")  # its middle
        self.matches("beam", h, h.last // 2)
        self.b.keys("Right", "Home", "Right")  # the slider's own
        self.matches("beam", h, 1)
        same(
            self.b.run('return document.getElementById("step").getAttribute("aria-valuetext")'),
            f"step 1 of {h.last} \u00b7 {h.filled(1)} of {h.length} written",
            "the slider's words",
        )
        holds(
            h.text(1).split()[0].replace("__", "blank")
            in self.b.run('return document.getElementById("say").textContent'),
            "the step is not announced",
        )
        self.quiet("beam")

    def test_playing(self):
        for name, way in (("live", "Space"), ("beam", "#play")):
            trace = self.open(name)
            h = told(trace, trace["best"])
            self.b.run("""document.getElementById("speed").value = "4"; window.seen = [];
                new MutationObserver(() => window.seen.push([document.getElementById("count").textContent,
                    document.getElementById("say").getAttribute("aria-live")]))
                    .observe(document.getElementById("count"), {childList: true, characterData: true, subtree: true});
                """)
            if way == "Space":
                self.b.keys("Space")
            else:
                self.b.click(way)
            holds(
                self.b.run('return document.getElementById("play").getAttribute("aria-label")')
                == "Pause",
                "does not play",
            )
            self.b.wait('document.getElementById("play").getAttribute("aria-label") === "Play"')
            self.matches(name, h, h.last)
            seen = self.b.run("return window.seen")
            steps = [int(re.match(r"step (\d+)", text).group(1)) for text, _ in seen]
            same(
                list(dict.fromkeys(steps)), list(range(h.last + 1)), f"{name}: steps while playing"
            )
            holds(all(live == "off" for _, live in seen[1:-1]), "steps are announced while playing")
            same(
                self.b.run('return document.getElementById("say").getAttribute("aria-live")'),
                "polite",
                "at rest",
            )
            self.quiet(name)
        self.b.keys("Space", "Space")  # starts and stops
        at = self.b.run('return document.getElementById("step").value')
        time.sleep(0.3)
        same(self.b.run('return document.getElementById("step").value'), at, "stopped, the step")

    def words(self):
        return [
            e[ELEMENT]
            for e in self.b.do("elements", {"using": "css selector", "value": "#answer .token"})
        ]

    def card(self):
        return self.b.run("""const card = document.getElementById("card");
            return [card.querySelector("h3")?.textContent, card.querySelector(".facts")?.textContent,
            [...card.querySelectorAll(".name")].map((n) => n.textContent)];""")

    def least(self, h):
        """The place of the word that is the least sure in the end; of a dot if there are no words."""
        there = [i for i in range(h.length) if h.at(h.last, i)]
        words = [i for i in there if h.at(h.last, i)["piece"] != DOT]
        return min(words or there, key=lambda i: h.at(h.last, i)["score"])

    def test_opening(self):
        for name in ("live", "beam", "far"):
            trace = self.open(name)
            h = told(trace, trace["best"])
            same(self.card()[0], shown(h.at(h.last, self.least(h))["piece"]), f"{name}: the card")
            same(
                self.b.run('return [...document.querySelectorAll("a")].map((a) => a.href)'),
                ["https://arxiv.org/abs/2308.12219"],
                "links",
            )
            question = " ".join(harmless(trace.get("question", trace.get("prompt"))).split())
            same(
                self.b.run("return document.title"),
                f"{question} \u2014 " + " ".join(harmless(trace["answer"]).split()),
                "title",
            )
            same(
                self.b.run("""return ["og:title", "og:description"].map((p) =>
                    document.querySelector(`meta[property="${p}"]`).content.trim())"""),
                [
                    harmless(trace.get("question", trace.get("prompt"))).strip(),
                    harmless(trace["answer"]).strip(),
                ],
                "what is shared",
            )
            self.quiet(name)

    def test_pointing_at_words(self):
        for name, step in (("long", 30), ("long", 44), ("flicker", 30), ("far", 20), ("live", 5)):
            trace = self.open(name)
            h = told(trace, trace["best"])
            self.b.run(GO, step)
            for i, word in list(enumerate(self.words()))[:14]:
                self.b.point(word)
                title, facts, likely = self.card()
                cell = h.at(step, i)
                if not cell:
                    same(title, "not written yet", f"{name}, place {i}")
                    same(likely, h.likely(step, i), f"{name}, place {i}: likely")
                    continue
                since = h.since(step, i)
                same(title, shown(cell["piece"]), f"{name}, place {i}")
                holds(
                    f"written in step {since} of {h.last} " in facts,
                    f"{name}, place {i}: {facts}, not {since}",
                )
                share = float(re.search(r"probability <?\s*([\d.]+)", facts).group(1))
                holds(
                    abs(share - 100 * math.exp(cell["score"])) <= 0.51,
                    f"{name}, place {i}: {facts}",
                )
                wanted = h.likely(since, i)
                if title not in wanted:  # not the network's proposal: beside what was
                    likely = [w for w in likely if w != title]
                same(likely, wanted, f"{name}, place {i}: likely")
            self.b.point("viewport", 3, 3)
            least = self.least(h)
            word = h.at(step, least)
            same(
                self.card()[0],
                shown(word["piece"]) if word else "not written yet",
                f"{name}: with nothing pointed at, the word that is the least sure",
            )
            self.b.keys("Escape")
            same(self.card()[0], None, f"{name}: with nothing chosen")
            self.quiet(name)

    def test_words_by_keyboard(self):
        trace = self.open("beam")
        h = told(trace, 0)
        active = "return document.activeElement"
        for _ in range(12):
            self.b.keys("Tab")
            if self.b.run(active + '.classList.contains("token")'):
                break
        same(self.card()[0], "There", "the first word")
        holds(
            self.b.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid",
            "no focus to see",
        )
        self.b.keys("Right", "Right")
        same(self.card()[0], "two", "two words on")
        self.b.keys("Enter", "Left")
        same(self.card()[0], "are", "the word with the focus")
        self.b.keys("Down", "Down")  # steps back
        self.matches("beam", h, h.last - 2)
        holds(self.b.run(active + '.classList.contains("token")'), "the focus went away")
        same(
            self.b.run('return document.querySelectorAll("#answer [aria-pressed=true]").length'),
            1,
            "chosen words",
        )
        self.b.keys("Escape")
        same(
            self.b.run('return document.querySelectorAll("#answer [aria-pressed=true]").length'),
            0,
            "chosen words",
        )
        same(
            self.b.run(
                """return [...document.querySelectorAll("button, input, select, [role=button]")].filter((e) =>
            e.offsetParent && !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).length"""
            ),
            0,
            "controls without a name",
        )
        self.quiet("beam")

    def test_hypotheses(self):
        for name in ("beam", "live"):
            trace = self.open(name)
            cards = self.b.run("""return [...document.querySelectorAll(".hypothesis")].map((c) =>
                [c.querySelector(".tokens").textContent, c.querySelector(".head").textContent]);""")
            same(
                [text for text, _ in cards],
                [told(trace, k).text(told(trace, k).last) for k in range(3)],
                "hypotheses",
            )
            for k, (_, head) in enumerate(cards):
                same("best" in head, k == trace["best"], f"{name}, hypothesis {k}: best")
                score = f"{trace['hypotheses'][k]['score']:.3f}".replace("-", "\u2212")
                holds(score in head, f"{name}, hypothesis {k}: {head}, not {score}")
            for step in (1, 7):
                self.b.run(GO, step)
                texts = self.b.run(
                    """return [...document.querySelectorAll(".hypothesis .tokens")].map(
                    (w) => { const copy = w.cloneNode(true);
                    copy.querySelectorAll("s").forEach((s) => s.remove()); return copy.textContent; });"""
                )
                same(
                    texts, [told(trace, k).text(step) for k in range(3)], f"hypotheses, step {step}"
                )
            self.b.click(".hypothesis:nth-child(3)")
            h = told(trace, 2)
            self.matches(name, h, 0, h.last // 2, h.last, move=True)
            self.quiet(name)

    def test_grid(self):
        trace = self.open("long")
        h = told(trace, 0)
        self.b.run('document.getElementById("plot").scrollIntoView()')
        width, x0, y0 = self.b.run(
            """const b = document.getElementById("plot").getBoundingClientRect();
            return [b.width, b.left, b.top];"""
        )
        # Rows of 15 pixels from 4 on, columns up to 2 from the right edge.
        left = self.b.run(
            """const c = document.createElement("canvas").getContext("2d");
            c.font = "bold 11px " + getComputedStyle(document.body).fontFamily;
            return Math.ceil(Math.max(...arguments[0].map((t) => c.measureText(t).width))) + 14;""",
            [c["piece"].removeprefix(SPACE) for c in h.full[-1]],
        )
        column = (width - left - 2) / h.last
        for step, place in ((7, 5), (50, 0), (1, 3), (34, 20)):
            at = x0 + left + (step - 0.5) * column, y0 + 4 + (place + 0.5) * 15
            self.b.point("viewport", *at)
            note = self.b.run('return document.getElementById("plot-note").textContent')
            holds(
                note.startswith(f"step {step} \u00b7 position {place + 1} \u00b7"),
                f"{note}: not step {step}, place {place}",
            )
            self.b.point("viewport", *at, press=True)
            self.matches("long", h, step)
            same(
                self.b.run("""return [...document.querySelectorAll("#answer .token")]
                .findIndex((w) => w.classList.contains("chosen"))"""),
                place,
                "the chosen place",
            )
        self.quiet("long")

    def test_where_the_model_looked(self):
        trace = self.open("beam")
        h, p = told(trace, 0), trace["geometry"]
        facts = self.b.run('return document.getElementById("facts").textContent')
        holds("image boats.png" in facts, f"the image's name: {facts}")
        maps = trace["hypotheses"][0]["attention"]
        for i, word in enumerate(self.words()):
            self.b.point(word)
            alpha = self.b.run(
                """const l = document.getElementById("attention"), copy = new OffscreenCanvas(l.width, l.height);
                const c = copy.getContext("2d", {willReadFrequently: true});
                c.drawImage(l, 0, 0);
                const at = (x, y) => c.getImageData(x * l.width, y * l.height, 1, 1).data[3];
                return [l.classList.contains("on"), arguments[0].map(([x, y]) => at(x, y))];""",
                [self.patch(p, k) for k in range(p["grid"] ** 2)] + [[0.02, 0.5], [0.98, 0.5]],
            )
            holds(alpha[0], "no map is shown")
            least = min(range(p["grid"] ** 2), key=lambda k: alpha[1][k])
            same(
                least,
                max(range(p["grid"] ** 2), key=lambda k: maps[i][k]),
                f"word {i}: the brightest patch",
            )
            holds(min(alpha[1][-2:]) > 195, "what the tower did not see is bright")
            note = self.b.run('return document.getElementById("attention-note").textContent')
            holds(
                h.at(h.last, i)["piece"].removeprefix(SPACE) in note and "40\u00a0%" in note, note
            )
        self.b.run(GO, 1)
        holds(
            not self.b.run('return document.getElementById("attention").classList.contains("on")'),
            "a map of a blank",
        )
        self.quiet("beam")

    def patch(self, p, k):
        """The middle of a patch, in shares of the picture."""
        edge = p["size"] / p["grid"]
        x, y = (k % p["grid"] + 0.5) * edge, (k // p["grid"] + 0.5) * edge
        return [
            (p["left"] + p["scale_x"] * x) / p["width"],
            (p["top"] + p["scale_y"] * y) / p["height"],
        ]

    def test_light_and_dark(self):
        ground = "return getComputedStyle(document.body).backgroundColor"
        self.open("beam")
        light = self.b.run(ground)
        self.b.click("#theme")
        dark = self.b.run(ground)
        holds(dark != light, "the colours stay")
        self.b.click("#theme")
        same(self.b.run(ground), light, "ground")
        self.b.window(1280, 800, "dark")
        self.b.open(self.pages.path("beam", "html"))
        same(self.b.run(ground), dark, "ground where dark is preferred")
        for scheme in ("light", "dark"):
            self.b.window(1280, 800, scheme)
            self.b.open(self.pages.path("live", "html"))
            for share in self.b.run(CONTRASTS):
                holds(share[0] >= 4.5, f"{scheme}: contrast {share}")
        self.b.window(1280, 800, motion="reduce")
        self.b.open(self.pages.path("beam", "html"))
        same(
            self.b.run(
                'return getComputedStyle(document.querySelector(".token")).transitionDuration'
            ),
            "0s",
            "motion",
        )
        self.quiet("beam")

    def test_no_overflow(self):
        for width in (320, 360, 800):
            for name in ("live", "long", "far", "beam", "hostile"):
                self.b.window(width, 740)
                self.b.open(self.pages.path(name, "html"))
                for step in (0, 1000):
                    self.b.run(GO, step)
                    sizes = self.b.run(
                        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
                    )
                    holds(sizes[0] <= sizes[1] == width, f"{name}: {sizes} at {width}")

    def test_markup_in_every_text(self):
        trace = self.open("markup")
        same(self.b.run("return document.scripts.length"), 2, "scripts")
        same(
            self.b.run("""return [document.images.length,
                document.querySelectorAll("[onerror]").length]"""),
            [1, 0],
            "elements",
        )
        same(
            self.b.run('return document.getElementById("question").textContent'),
            harmless(trace["question"]),
            "question",
        )
        self.quiet("markup")

    def test_hostile_texts(self):
        trace = self.open("hostile")
        same(self.b.run("return document.scripts.length"), 2, "scripts")
        same(
            self.b.run(
                'return document.querySelectorAll("img, iframe, object, embed, [onerror], [onload]").length'
            ),
            0,
            "elements",
        )
        for where in ('document.getElementById("question").textContent', "document.title"):
            wanted = harmless(trace["question"])
            if where == "document.title":
                wanted = " ".join(f"{wanted} \u2014 {harmless(trace['answer'])}".split())
            same(self.b.run("return " + where), wanted, where)
        for i, word in enumerate(self.words()):
            self.b.point(word)
            same(self.card()[0], shown((HOSTILE * 2)[i]), f"word {i}")
        holds(
            "\u202e" not in self.b.run("return document.documentElement.textContent"),
            "a control of direction",
        )
        self.quiet("hostile")
        # Even markup that got in could do nothing.
        self.b.run(
            """const s = document.createElement("script"); s.textContent = "window.got = 1"; document.body.append(s);
            document.body.insertAdjacentHTML("beforeend", '<p onclick="window.got = 2">x</p>' +
                '<img id="far" src="http://127.0.0.1:9/x.png"><p id="styled" style="color: red">x</p>');
            document.body.lastChild.previousSibling.previousSibling.click();"""
        )
        same(self.b.run("return window.got ?? null"), None, "what a script left")
        blocked = self.b.run(
            """return fetch("http://127.0.0.1:9/").then(() => false, () => true)"""
        )
        holds(blocked, "the network was reached")
        holds(
            any("Content Security Policy" in e["message"] for e in self.b.logs("browser")),
            "the policy is silent",
        )

    def screenshots(self, folder):
        os.makedirs(folder, exist_ok=True)
        for name, step, place in (
            ("live", 1000, None),
            ("live", 4, 2),
            ("long", 30, 6),
            ("long", 42, None),
            ("far", 13, 3),
            ("beam", 8, 2),
            ("hostile", 9, 1),
            ("one", 1000, 0),
            ("given", 3, 1),
        ):
            for size in ((1280, 800), (360, 740)):
                for scheme in ("light", "dark"):
                    self.b.window(*size, scheme, motion="reduce")
                    self.b.open(self.pages.path(name, "html"))
                    self.b.run(GO, step)
                    if place is not None:
                        self.b.run(
                            'document.querySelectorAll("#answer .token")[arguments[0]].click()',
                            place,
                        )
                    shot = f"{name}-{min(step, 99)}-{size[0]}-{scheme}.png"
                    self.b.screenshot(os.path.join(folder, shot))


# Contrasts of texts against what is behind them, as WCAG computes them: words on their colours,
# and quiet text on the ground.
CONTRASTS = """const pen = document.createElement("canvas").getContext("2d");
const rgb = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); };
const light = (c) => { const l = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
const contrast = (a, b) => { const [x, y] = [light(rgb(a)), light(rgb(b))].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const probe = document.createElement("span"); document.body.append(probe);
const resolve = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
const out = ["c0", "c1", "c2", "c3", "c4"].map((c) => [contrast(resolve("ink"), resolve(c)), "ink", c]);
out.push([contrast(resolve("quiet"), resolve("paper")), "quiet"], [contrast(resolve("quiet"), resolve("sheet")), "quiet on sheet"]);
out.push([contrast(resolve("accent"), resolve("sheet")), "accent"], [contrast(resolve("on-accent"), resolve("accent")), "play"]);
probe.remove(); return out;"""


def main():
    chromium, driver = sys.argv[1:3]
    names = [name for name in dir(Tests) if name.startswith("test_")]
    print(f"1..{len(names)}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        pages = Pages(folder)
        browser = Browser(chromium, driver)
        try:
            tests = Tests(browser, pages)
            for number, name in enumerate(names, 1):
                start = time.monotonic()
                try:
                    getattr(tests, name)()
                    print(f"ok {number} - {name}", flush=True)
                except (AssertionError, RuntimeError):
                    failed += 1
                    print(
                        f"not ok {number} - {name}\n# "
                        + traceback.format_exc().replace("\n", "\n# "),
                        flush=True,
                    )
                if os.environ.get("BROWSER_TIMES"):
                    print(f"# {time.monotonic() - start:.1f} s", flush=True)
            if len(sys.argv) > 3:
                tests.screenshots(sys.argv[3])
        finally:
            browser.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
