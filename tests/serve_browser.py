"""The page of `easyfirst serve` in a headless Chromium.

usage: serve_browser.sh [FOLDER]        (screenshots into FOLDER)

An image is dropped, asked about, and every step that the page shows equals the trace of `easyfirst
show`; a conversation, without a mouse; choices; labels, contrast and the order of the focus; nothing
is asked of other servers. EASYFIRST in
the environment names the program. Prints TAP, as the C tests do.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
import urllib.request

from browser import Browser

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("EASYFIRST", os.path.join(HERE, "../build/easyfirst")))
MODEL = os.path.join(HERE, "../data/bundled/model")
IMAGE = os.path.join(HERE, "../data/bundled/images/tractor.jpg")
QUESTION = "Which thing is at the bottom of the picture?"
SPACE = "\u2581"

# Drops a file, of these bytes in base64, on the page.
DROP = """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1], { type: arguments[2] }));
document.getElementById("picker").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));"""
ASK = """const set = (id, text) => { document.getElementById(id).value = text; };
set("text", arguments[0]); set("beam", arguments[1]);
document.getElementById("form").requestSubmit();"""
# What every step shows, moved to by the slider: a text for each place, "" where it is blank.
STEPS = """const turn = [...document.querySelectorAll(".turn")].at(-1), slider = turn.querySelector(".step");
return Array.from({ length: Number(slider.max) }, (_, s) => {
  slider.value = s + 1; slider.dispatchEvent(new Event("input"));
  return [...turn.querySelectorAll(".answer .token")].map((t) => t.classList.contains("blank") ? "" : t.textContent);
});"""
# Controls that are visible and have no name; those whose text has less contrast than 4.5 to 1.
UNNAMED = """return [...document.querySelectorAll("button, input, textarea, select, a[href], iframe, img")]
  .filter((n) => n.checkVisibility() && !(n.getAttribute("aria-label") || n.labels?.length || n.textContent.trim() || n.title || n.alt))
  .map((n) => n.outerHTML);"""
CONTRAST = """const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (color) => { context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data]; };
const light = (c) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
const back = (n) => { for (; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
return [...document.querySelectorAll("button, label, p, h2, li span, summary, legend, textarea, input, .token, kbd")]
  .filter((n) => n.checkVisibility() && !n.matches(".unseen, .token.blank") && n.textContent.trim() && n.getAttribute("aria-disabled") !== "true")
  .map((n) => { const a = light(rgb(getComputedStyle(n).color)), b = light(back(n));
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), n.textContent.trim().slice(0, 30)]; })
  .filter(([ratio]) => ratio < 4.5);"""
# What is asked from now on, into window.asked.
RECORD = """window.asked = []; const real = window.fetch;
window.fetch = (path, o) => { if (o?.body) window.asked.push([path, JSON.parse(o.body)]); return real(path, o); };"""
TURNS = """return [...document.querySelectorAll(".turn")].map((t) => [t.querySelector(".asked").textContent,
  t.querySelector(".answer").textContent.replace(/\\s+/g, " ").trim(), t.querySelector(".count").textContent]);"""
FOCUSED = """const n = document.activeElement, box = n.getBoundingClientRect(), s = getComputedStyle(n);
return [n === document.body ? "" : n.id || n.className || n.value || n.textContent.trim(), Math.round(box.top + scrollY), s.outlineStyle];"""

number = 0
failed = 0


def check(name, test):
    global number, failed
    number += 1
    try:
        test()
        print(f"ok {number} - {name}", flush=True)
    except Exception:
        failed += 1
        print(f"not ok {number} - {name}")
        print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()), flush=True)


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, expected {wanted!r}")


class Page:
    def __init__(self, browser, port, shots):
        self.b, self.address, self.shots = browser, f"http://127.0.0.1:{port}/", shots

    def open(self):
        self.b.do("url", {"url": "about:blank"})
        self.b.logs("browser"), self.b.logs("performance")
        self.b.do("url", {"url": self.address})
        self.b.wait("document.getElementById('model').textContent")

    def shot(self, name):
        if self.shots:
            self.b.screenshot(os.path.join(self.shots, name + ".png"))

    def ask(self, beam=""):
        self.b.run(DROP, base64.b64encode(open(IMAGE, "rb").read()).decode(), "a.jpg", "image/jpeg")
        self.b.wait("!document.getElementById('preview').hidden")
        self.b.run(ASK, QUESTION, beam)
        self.b.wait("[...document.querySelectorAll('.turn')].at(-1)?.querySelector('.explore').hidden === false")

    def steps_equal_the_trace(self):
        self.b.window(1100, 900)
        self.open()
        self.ask()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json")
            words = [PROGRAM, "show", "-q", "-m", MODEL, "--json", path, IMAGE, QUESTION]
            subprocess.run(words, check=True, capture_output=True)
            trace = json.load(open(path))
        wanted = [
            ["" if c["masked"] else c["piece"].replace(SPACE, " ").strip() for c in step["cells"]]
            for step in trace["trace"]
        ]
        expect(self.b.run(STEPS), wanted)
        expect(self.b.run("return document.getElementById('say').textContent"), "The answer: " + trace["answer"])
        self.shot("desktop-light")

    def explored(self):
        self.b.click(".turn .explore")
        self.b.wait("!document.querySelector('.turn .shown').hidden && document.querySelector('.turn .save').href.startsWith('blob:')")
        self.b.wait("document.querySelector('.turn .shown').clientHeight > 300")
        frame = self.b.find(".turn .shown")
        self.b.do("frame", {"id": {"element-6066-11e4-a52e-4f735466cecf": frame}})
        self.b.wait("document.getElementById('count') && document.getElementById('count').textContent")
        expect(self.b.run("return document.getElementById('question').textContent"), QUESTION)
        self.b.do("frame", {"id": None})
        self.shot("desktop-explored")

    def hypotheses(self):
        self.open()
        self.ask("3")
        expect(self.b.run("return document.querySelectorAll('.hypothesis').length"), 3)
        self.b.click(".hypothesis:nth-child(2)")
        expect(self.b.run("return document.querySelector('.hypothesis:nth-child(2)').getAttribute('aria-pressed')"), "true")

    def tab_to(self, name):
        for _ in range(60):
            if self.b.run("return document.activeElement.id || document.activeElement.className") == name:
                return
            self.b.keys("Tab")
        raise AssertionError(f"the focus does not come to {name}")

    def conversation(self):
        """A second question, by keys alone; the first one is sent along and keeps its own steps."""
        self.open()
        self.ask()
        first = self.b.run(TURNS)[0]
        answer = self.b.run("return document.getElementById('say').textContent").removeprefix("The answer: ")
        self.b.run(RECORD)
        self.b.run("document.querySelector('.more').open = true; document.getElementById('context').checked = false; document.getElementById('context').focus()")
        self.b.keys(" ")
        expect(self.b.run("return document.getElementById('context').checked"), True)
        self.b.run("document.getElementById('text').focus(); document.getElementById('text').select()")
        second = "What is to the left?"
        self.b.keys(*second)
        self.tab_to("go")
        self.b.keys("Enter")
        self.b.wait("document.querySelectorAll('.turn').length === 2")
        self.b.wait("!document.querySelectorAll('.turn .explore')[1].hidden")
        path, asked = self.b.run("return window.asked[0]")
        expect(path, "/v1/chat/completions")
        expect([m["role"] for m in asked["messages"]], ["user", "assistant", "user"])
        expect([asked["messages"][0]["content"], asked["messages"][1]["content"]], [QUESTION, answer])
        expect(asked["messages"][2]["content"][0]["text"], second)
        head = {"Content-Type": "application/json"}
        plain = json.dumps({**asked, "stream": False, "easyfirst_steps": False}).encode()
        reply = json.load(urllib.request.urlopen(urllib.request.Request(self.address + path[1:], plain, head)))
        said = self.b.run("return document.getElementById('say').textContent")
        expect(said, "The answer: " + reply["choices"][0]["message"]["content"])
        turns = self.b.run(TURNS)
        expect([turns[0], turns[1][0]], [first, second])
        self.b.run("document.querySelector('.turn .step').focus()")
        self.b.keys("Home", "Right")
        moved = self.b.run(TURNS)
        expect([moved[0][2].split(" of")[0], moved[1]], ["step 1", turns[1]])
        self.b.keys("Enter")  # on a slider it asks nothing
        expect(self.b.run("return window.asked.length"), 1)
        self.shot("conversation")
        # Without the context a question is asked by itself, which the page says.
        expect(self.b.run("return [...document.querySelectorAll('.left-out')].map((n) => n.hidden)"), [True, True])
        self.b.run("document.getElementById('context').checked = false")
        self.b.run(ASK, second, "")
        self.b.wait("[...document.querySelectorAll('.turn .explore')].filter((n) => !n.hidden).length === 3")
        expect(len(self.b.run("return window.asked.at(-1)[1].messages")), 1)
        expect(self.b.run("return document.querySelectorAll('.left-out')[2].hidden"), False)
        # Another image: a new conversation, whose first question is sent alone.
        self.b.run("document.getElementById('context').checked = true")
        self.ask()
        expect(len(self.b.run("return window.asked.at(-1)[1].messages")), 1)
        expect(self.b.run("return document.querySelectorAll('.talk .apart').length"), 1)
        self.tab_to("fresh")
        self.b.keys("Enter")
        expect(self.b.run(TURNS), [])
        expect(self.b.run("return [document.activeElement.id, document.getElementById('preview').hidden]"), ["text", False])

    def choices(self):
        self.open()
        self.b.run("document.getElementById('choices').value = 'An elephant.\\n\\n A tractor. \\nA sailboat.'")
        self.b.run(DROP, base64.b64encode(open(IMAGE, "rb").read()).decode(), "a.jpg", "image/jpeg")
        self.b.wait("!document.getElementById('preview').hidden")
        self.b.run(ASK, QUESTION, "")
        self.b.wait("document.querySelector('.choices') && !document.querySelector('.choices').hidden")
        given = "An elephant.,A tractor.,A sailboat."
        words = [PROGRAM, "ask", "-q", "-m", MODEL, "--one-of", given, "--all-choices", IMAGE, QUESTION]
        lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
        wanted = [(text, 100 * float(p)) for text, p in (line.split("\t") for line in lines)]
        got = self.b.run("return [...document.querySelectorAll('.choices li')].map((n) => [...n.children].map((c) => c.textContent))")
        expect([text for text, _, _ in got], [text for text, _ in wanted])
        for (_, percent, _), (text, p) in zip(got, wanted):
            if not abs(float(percent.split()[0]) - p) <= 0.06:  # the page rounds to 0.1 %, the command to 0.01 %
                raise AssertionError(f"{text}: {percent}, expected {p:.2f} %")
        expect(self.b.run(TURNS), [[QUESTION, lines[0].split("\t")[0], "chosen from 3"]])
        expect(self.b.run("return document.querySelector('.choices li').className"), "chosen")
        expect(self.b.run("return document.querySelector('.turn .player').checkVisibility()"), False)
        self.shot("choices")
        # What has no effect on a choice is refused, and the turn is taken back.
        self.b.run(ASK, QUESTION, "3")
        self.b.wait("document.getElementById('error').textContent.includes('beam')")
        expect(len(self.b.run(TURNS)), 1)

    def keyboard(self):
        self.open()
        seen, tops = [], []
        for _ in range(40):
            self.b.keys("Tab")
            name, top, outline = self.b.run(FOCUSED)
            if not name or name in seen:
                break
            seen.append(name), tops.append(top)
            if name not in ("ask", "file", "camera", "context"):  # their labels show it
                expect((name, outline == "none"), (name, False))
        for name in ("theme", "file", "camera", "text", "go"):
            if name not in seen:
                raise AssertionError(f"the focus does not come to {name}: {seen}")
        expect(seen.index("text") < seen.index("go"), True)
        if any(b < a - 24 for a, b in zip(tops, tops[1:])):  # things in a row differ a little
            raise AssertionError(f"the focus goes up: {list(zip(seen, tops))}")

    def readable(self):
        for width, height, scheme in ((1100, 900, "light"), (390, 844, "dark"), (390, 844, "light"), (1100, 900, "dark")):
            self.b.window(width, height, scheme)
            self.open()
            self.ask()
            self.ask()
            self.b.run("document.querySelector('.more').open = true")
            self.b.wait("document.getAnimations().length === 0")
            expect(self.b.run(UNNAMED), [])
            expect(self.b.run(CONTRAST), [])
            expect(self.b.run("return document.documentElement.scrollWidth <= innerWidth"), True)
            self.shot(f"{'phone' if width < 500 else 'desktop'}-{scheme}")
        self.b.window(1100, 900)

    def refusals(self):
        self.open()
        self.b.run(ASK, QUESTION, "")
        self.b.wait("document.getElementById('error').textContent.includes('image')")
        self.b.run(DROP, base64.b64encode(b"<script>").decode(), "<b>x", "text/html")
        self.b.wait("document.getElementById('error').textContent.startsWith('<b>x is not')")
        self.b.run(DROP, base64.b64encode(b"no PNG").decode(), "x.png", "image/png")
        self.b.wait("!document.getElementById('preview').hidden")
        self.b.run(ASK, QUESTION, "")
        self.b.wait("document.getElementById('error').textContent.startsWith('image')")
        expect(self.b.run(TURNS), [])

    def quiet(self):
        self.open()
        self.ask()
        outside = [u for u in self.b.requests() if u.startswith("http") and not u.startswith(self.address)]
        expect(outside, [])
        expect([e["message"] for e in self.b.logs("browser")], [])


def main():
    server = subprocess.Popen([PROGRAM, "serve", "-q", "-m", MODEL, "--port", "0"], stderr=subprocess.PIPE, text=True)
    port = int(re.search(r":(\d+)$", server.stderr.readline().strip()).group(1))
    browser = Browser(sys.argv[1], sys.argv[2])
    try:
        page = Page(browser, port, sys.argv[3] if len(sys.argv) > 3 else None)
        check("every step of a dropped image's answer equals the trace", page.steps_equal_the_trace)
        check("alternatives and attention in a frame", page.explored)
        check("hypotheses", page.hypotheses)
        check("a conversation by keys alone, with steps for each answer", page.conversation)
        check("answers to choose from, with probabilities", page.choices)
        check("the focus goes through the page in order", page.keyboard)
        check("labels, contrast and width, for desktops and phones, light and dark", page.readable)
        check("refusals are shown, as text", page.refusals)
        check("no request to elsewhere, nothing in the console", page.quiet)
    finally:
        browser.close()
        server.terminate()
        server.communicate()
    print(f"1..{number}")
    sys.exit(failed > 0)


main()
