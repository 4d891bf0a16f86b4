"""Pages of `easyfirst eval compare --report` and `eval report` in a headless Chromium.

usage: eval_browser.sh [FOLDER]        (screenshots into FOLDER)

EASYFIRST in the environment names the program. The evaluations are made up. Prints TAP, as the C tests do.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback

from browser import Browser

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("EASYFIRST", os.path.join(HERE, "../build/easyfirst")))
IMAGES = os.path.join(HERE, "../data/bundled/images")
HOSTILE = '<img src=x onerror="document.title=1"></dd><script>document.title = 2</script> "\u202e'


def make(folder, shift):
    """An evaluation of 30 questions; every third answer depends on `shift`."""
    os.mkdir(folder)
    images = sorted(os.listdir(IMAGES))[:3]
    result = {
        "settings": {"command": "eval gqa", "model": {"name": "m"}, "data": {"images": IMAGES}},
        "score": {},
    }
    with open(os.path.join(folder, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)
    with open(os.path.join(folder, "scored.jsonl"), "w", encoding="utf-8") as file:
        for i in range(30):
            right = (i + shift) % 3 == 0
            line = {
                "question_id": f"q{i}",
                "prompt": HOSTILE if i == 2 else f"What is number {i}? " + "long" * (40 if i == 5 else 1),
                "target": "elephant",
                "answer": "elephant" if right else HOSTILE if i == 2 else "tractor",
                "types": {"semantic": "obj" if i % 2 else "attr"},
                "scores": {"accuracy": 100 * right},
            }
            if i % 5:
                line["image"] = images[i % 3] if i % 7 else "missing.jpg"
            file.write(json.dumps(line) + "\n")


def same(mine, theirs, what):
    if mine != theirs:
        raise AssertionError(f"{what}: {mine!r}, not {theirs!r}")


class Tests:
    def __init__(self, browser, folder):
        self.b = browser
        first, second = os.path.join(folder, "a"), os.path.join(folder, "b")
        make(first, 0), make(second, 1)
        self.pages = [os.path.join(folder, name) for name in ("compare.html", "report.html")]
        commands = [["compare", first, second, "--report"], ["report", first]]
        for command, page in zip(commands, self.pages):
            subprocess.run([PROGRAM, "eval", *command, page], check=True, stdout=subprocess.PIPE)

    def quiet(self, page):
        """Nothing but the file itself was asked for, and nothing went wrong."""
        asked = [url for url in self.b.requests() if not url.startswith(("data:", "about:"))]
        same(asked, ["file://" + page], "requests")
        same([e["message"] for e in self.b.logs("browser")], [], "messages")

    def test_contents(self):
        for page, cards in zip(self.pages, (20, 20)):
            self.b.open(page)
            same(self.b.run("return document.querySelectorAll('.card').length"), cards, "cards")
            broken = "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
            same(self.b.run(broken), 0, "broken images")
            same(self.b.run("return document.images.length") > 5, True, "images")
            text = self.b.run("return document.body.textContent")
            same('onerror="document.title=1"' in text, True, "a hostile text is shown as text")
            same(self.b.run("return document.title").startswith(("Two", "An")), True, "title")
            same(self.b.run("return document.scripts.length"), 0, "scripts")
            same("not embedded" in text, True, "missing images are reported")
            self.quiet(page)

    def test_sizes_and_colors(self):
        for page in self.pages:
            colors = set()
            for width in (1200, 360):
                for scheme in ("light", "dark"):
                    self.b.window(width, 900, scheme)
                    self.b.open(page)
                    wide = "return document.documentElement.scrollWidth"
                    same(self.b.run(wide) <= width, True, f"{width} pixels are enough")
                    colors.add(self.b.run("return getComputedStyle(document.body).backgroundColor"))
            same(len(colors), 2, "a light and a dark background")

    def screenshots(self, folder):
        for page in self.pages:
            for scheme in ("light", "dark"):
                for width in (1100, 380):
                    self.b.window(width, 900, scheme)
                    self.b.open(page)
                    name = f"{os.path.basename(page)}-{width}-{scheme}.png"
                    self.b.screenshot(os.path.join(folder, name))


def main():
    names = [name for name in dir(Tests) if name.startswith("test_")]
    print(f"1..{len(names)}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(*sys.argv[1:3])
        try:
            tests = Tests(browser, folder)
            for number, name in enumerate(names, 1):
                try:
                    getattr(tests, name)()
                    print(f"ok {number} - {name}", flush=True)
                except (AssertionError, RuntimeError):
                    failed += 1
                    why = traceback.format_exc().replace("\n", "\n# ")
                    print(f"not ok {number} - {name}\n# {why}", flush=True)
            if len(sys.argv) > 3:
                tests.screenshots(sys.argv[3])
        finally:
            browser.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
