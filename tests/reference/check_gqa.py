"""GQA's metrics by `easyfirst score gqa` against those of the official evaluation script.

    ENV/bin/python tests/reference/check_gqa.py EVAL.PY [--program build/easyfirst]
        [--world FOLDER] [--sets 20] [--golden]

EVAL.PY is the official script (GQA's home page, "eval.zip"; it needs the package tqdm); of its copies
that run without choices some leave metrics out: these are then not compared. Sets of questions are made
up that exercise every metric: choices, scene graphs, entailed questions, groups, steps, annotations,
attention maps, types with "Common", boxes that leave their picture, empty answers, capital letters, final
periods, odd white space. All numbers must be equal to 1e-9, and in the digits that the script prints.

Half of the sets are odd: predictions, maps, objects, entailed questions are missing, ids are there
twice. The official script stops at the first of these, so that it gets a copy that says the same: a
prediction that is not an answer, a map of zeros, lists without what is not there.

With --world the held-out set of the bundled model's world (data/prep/README.md; FOLDER is its gqa/) is
compared with made-up predictions. With --golden one odd set and its numbers are written to
tests/golden/gqa.
"""
import argparse
import contextlib
import copy
import io
import json
import os
import random
import runpy
import string
import subprocess
import sys
import tempfile

NO_ANSWER = "(no prediction)"
TABLES = {"structural": "accuracyPerStructuralType", "semantic": "accuracyPerSemanticType",
          "steps": "accuracyPerSteps", "words": "accuracyPerLength"}
METRICS = ["binary", "open", "accuracy", "consistency", "validity", "plausibility", "grounding",
           "distribution"]
COLOURS = ["red", "blue", "green", "dark brown", "white"]
THINGS = ["dog", "cat", "tree", "hot dog", "Äpfel", "t-shirt", "car"]
PLACES = ["left", "right"]
SPACES = [" ", " ", " ", " ", "  ", "\t", "\u00a0", "\u2003", "\n"]


# ---- Sets of questions. ----

def make_scene(r, number):
    width, height = r.randint(50, 640), r.randint(50, 640)
    objects = {}
    for i in range(r.randint(1, 6)):
        w, h = r.randint(1, width), r.randint(1, height)
        objects[str(1000 * number + i)] = {
            "name": r.choice(THINGS), "x": r.randint(-5, width - 1), "y": r.randint(-5, height - 1),
            "w": w, "h": h, "attributes": [], "relations": []}
    return {"width": width, "height": height, "objects": objects}


def make_steps(r):
    steps = []
    for _ in range(r.randint(1, 6)):
        operation = r.choice(["select", "relate", "filter color", "query", "exist", "choose name",
                              "verify color", "common", "same color"])
        argument = r.choice(["name", "names (12)", "color", "scene", "dog (4)", "?", "coexist",
                             "query: name", ""])
        steps.append({"operation": operation, "argument": argument, "dependencies": []})
    if r.random() < 0.1:
        steps[-1]["scene"] = True
    return steps


def make_question(r, number, scenes, ids):
    structural = r.choice(["query", "query", "choose", "compare", "logical", "verify"])
    semantic = r.choice(["attr", "cat", "global", "obj", "rel"])
    detailed = r.choice(["attrCommon", "directOf", "existAnd", "how", "chooseAttr", "positionQuery"])
    if structural == "query":
        answers = r.choice([COLOURS, THINGS])
    else:
        answers = r.choice([["yes", "no"], PLACES, ["color", "shape", "material"]])
    answer = r.choice(answers) if r.random() < 0.97 else ""
    image = r.choice(list(scenes))
    objects = list(scenes[image]["objects"])
    words = ["Is", "the", "dog", "to", "the", "left", "of", "a", "tree", "x?"]
    text = "".join(r.choice(words) + r.choice(SPACES) for _ in range(r.randint(3, 14)))
    if r.random() < 0.2:
        text = r.choice(SPACES) + text
    # A question's own id is among those it entails, as in the real files.
    entailed = [str(number)] + [r.choice(ids) for _ in range(r.randint(0, 4))]
    annotate = lambda most: {str(i): r.choice(objects) for i in range(r.randint(0, most))}
    question = {
        "question": text, "imageId": image, "answer": answer, "fullAnswer": "It is %s." % answer,
        "isBalanced": r.random() < 0.5,
        "groups": {"global": r.choice([None, "color", "thing", "place"]), "local": "06-x"},
        "entailed": entailed, "equivalent": [str(number)],
        "types": {"structural": structural, "semantic": semantic, "detailed": detailed},
        "annotations": {"question": annotate(3), "answer": {}, "fullAnswer": annotate(2)},
        "semantic": make_steps(r), "semanticStr": ""}
    valid = r.sample(answers, r.randint(0, len(answers)))
    return question, {"valid": valid, "plausible": valid[:1] + r.sample(COLOURS, 2) + [""]}


def make_map(r):
    cells = [[r.random() ** 4 for _ in range(7)] for _ in range(7)]
    total = sum(map(sum, cells))
    return [[round(c / total, 4) for c in column] for column in cells]


def make_answer(r, question, choices):
    draw = r.random()
    if draw < 0.55:
        answer = question["answer"]
    elif draw < 0.7:
        answer = r.choice(COLOURS + THINGS + ["yes", "no", "color"])
    elif draw < 0.85 and choices["valid"]:
        answer = r.choice(choices["valid"])
    else:
        answer = r.choice(["", "İzmir", "ΣΑΣ", "no idea", ".", "  "])
    form = r.random()
    if form < 0.08:
        return answer.capitalize()
    if form < 0.16:
        return answer + r.choice([".", "..", "!", " "])
    if form < 0.2:
        return answer.upper() + "."
    return answer


def make_set(r, count):
    scenes = {"n%d" % i: make_scene(r, i + 1) for i in range(max(2, count // 6))}
    ids = ["0%d" % (7 * i) for i in range(count)]
    data = {"questions": {}, "choices": {}, "scenes": scenes, "predictions": {}, "attentions": {}}
    for i, qid in enumerate(ids):
        question, choices = make_question(r, qid, scenes, ids)
        if i == 0:  # the script divides by the number of questions in groups
            question["isBalanced"], question["groups"]["global"] = True, "color"
        data["questions"][qid], data["choices"][qid] = question, choices
        data["predictions"][qid] = make_answer(r, question, choices)
        data["attentions"][qid] = make_map(r)
    return data


def make_odd(r, data):
    """Takes things away; the second value is what the official script gets in its place."""
    odd, fixed = copy.deepcopy(data), copy.deepcopy(data)
    for qid, question in odd["questions"].items():
        if r.random() < 0.07:
            del odd["predictions"][qid]
            fixed["predictions"][qid] = NO_ANSWER
        if r.random() < 0.07:
            del odd["attentions"][qid]
            fixed["attentions"][qid] = [[0] * 7 for _ in range(7)]
        if r.random() < 0.1:
            question["annotations"]["question"]["9:11"] = "31415"
        if r.random() < 0.1:
            question["entailed"].append("not-there")
    return odd, fixed


# ---- Files. ----

def write_object(path, items, twice=None):
    """An object, one member a line; of `twice` (a key and another value) an earlier entry is
    written, which the later one replaces."""
    lines = ["%s: %s" % (json.dumps(k), json.dumps(v)) for k, v in items.items()]
    if twice:
        lines.insert(0, "%s: %s" % (json.dumps(twice[0]), json.dumps(twice[1])))
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


def write_array(path, items):
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(i, ensure_ascii=False) for i in items) + "\n]\n")


def write_set(folder, data, twice=False):
    path = lambda name: os.path.join(folder, name + ".json")
    questions = data["questions"]
    first = next(iter(questions))
    other = dict(questions[first], answer="another", isBalanced=False) if twice else None
    write_object(path("all_questions"), questions, (first, other) if twice else None)
    write_object(path("questions"), {k: q for k, q in questions.items() if q["isBalanced"]})
    write_object(path("choices"), data["choices"])
    write_object(path("scenes"), data["scenes"])
    predictions = [{"questionId": k, "prediction": p} for k, p in data["predictions"].items()]
    if twice:
        predictions.insert(0, {"questionId": predictions[-1]["questionId"], "prediction": "first"})
    write_array(path("predictions"), predictions)
    with open(os.path.join(folder, "answers.jsonl"), "w", encoding="utf-8") as f:
        for p in predictions:
            f.write(json.dumps({"question_id": p["questionId"], "prompt": "x", "text": p["prediction"],
                                "model_id": "m"}) + "\n")
    write_array(path("attentions"), [{"questionId": k, "attention": a}
                                     for k, a in data["attentions"].items()])


# ---- The two programs. ----

def run_official(script, folder):
    """What it prints, and its numbers in full."""
    path = lambda name: os.path.join(folder, name + ".json")
    argv, sys.argv = sys.argv, [
        script, "--tier", "x", "--questions", path("all_questions"), "--scenes", path("scenes"),
        "--choices", path("choices"), "--predictions", path("predictions"), "--attentions",
        path("attentions"), "--consistency", "--grounding"]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            scores = runpy.run_path(script, run_name="__main__")["scores"]
    finally:
        sys.argv = argv
    metrics = {m: scores[m] for m in METRICS}
    tables = {t: {str(k): {"accuracy": v[0], "questions": v[1]} for k, v in scores[name].items()}
              for t, name in TABLES.items()}
    return {"metrics": metrics, "tables": tables}, out.getvalue()


def run_ours(program, folder, predictions="predictions.json", questions="all_questions.json",
             extra=(), as_json=True):
    path = lambda name: os.path.join(folder, name)
    command = [program, "score", "gqa", path(predictions), path(questions), "--choices",
               path("choices.json"), "--scene-graphs", path("scenes.json"), "--attentions",
               path("attentions.json"), *extra] + (["--json"] if as_json else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(command), done.stderr))
    return json.loads(done.stdout) if as_json else done.stdout


def normal(text):
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return text.strip()


def own_numbers(data, expected):
    """What the official script does not have: lmms-eval's exact match, the gold answers' words."""
    right, rows, count = 0, {}, 0
    for qid, question in data["questions"].items():
        if not question["isBalanced"]:
            continue
        gold, given = question["answer"], data["predictions"].get(qid)
        count += 1
        right += given is not None and normal(given) == normal(gold)
        row = rows.setdefault(str(len(gold.split())), [0, 0])
        row[0] += given == gold
        row[1] += 1
    expected["metrics"]["exact_match"] = 100 * right / count
    expected["tables"]["answer_words"] = {k: {"accuracy": 100 * v[0] / v[1], "questions": v[1]}
                                          for k, v in rows.items()}
    return expected


# ---- Comparing. ----

def compare(name, ours, expected, printed=None, text=None):
    bad, looked, worst = [], 0, 0

    def number(what, a, b):
        nonlocal looked, worst
        looked += 1
        if a is None or not abs(a - b) <= 1e-9 * max(1, abs(b)):
            bad.append("%s: %s, official %s" % (what, a, b))
        else:
            worst = max(worst, abs(a - b))

    for metric, value in expected["metrics"].items():
        number(metric, ours["metrics"][metric], value)
    for table, rows in expected["tables"].items():
        if set(rows) != set(ours["tables"][table]):
            bad.append("%s: rows %s, official %s" % (table, sorted(ours["tables"][table]),
                                                     sorted(rows)))
            continue
        for row, value in rows.items():
            number("%s %s" % (table, row), ours["tables"][table][row]["accuracy"],
                   value["accuracy"])
            number("%s %s, count" % (table, row), ours["tables"][table][row]["questions"],
                   value["questions"])
    # The printed digits: every number with two decimals of the script must be in our table in the
    # same order, which is the script's.
    if printed:
        theirs = [line.split(":")[1].split("%")[0].split("(")[0].strip()
                  for line in printed.splitlines() if ": " in line and line.split(": ")[1][:1].isdigit()]
        lines = [l for l in text.split("\n\n", 1)[1].split("\n\nAccuracy / words of the answer")[0]
                 .splitlines() if not l.startswith("Exact")]
        mine = [part.split("%")[0].split("(")[0].strip() for part in
                (l.split(":")[-1] if l.startswith("  ") else l[14:] for l in lines) if part.strip()
                and part.strip()[0].isdigit()]
        looked += len(theirs)
        if theirs != mine:
            bad.append("printed numbers: %s, official %s" % (mine, theirs))
    print("%-28s %3d numbers, largest difference %.1e: %s" % (name, looked, worst,
                                                            "DIFFERENT" if bad else "equal"))
    for line in bad[:10]:
        print("   ", line)
    return not bad


def check_set(args, name, data, fixed, twice):
    ok = True
    with tempfile.TemporaryDirectory() as mine, tempfile.TemporaryDirectory() as theirs:
        write_set(mine, data, twice)
        write_set(theirs, fixed)
        expected, printed = run_official(args.script, theirs)
        own_numbers(data, expected)
        ok &= compare(name, run_ours(args.program, mine), expected, printed,
                      run_ours(args.program, mine, as_json=False))
        ok &= compare(name + ", two files",
                      run_ours(args.program, mine, questions="questions.json",
                               extra=["--all-questions", os.path.join(mine, "all_questions.json")]),
                      expected)
        # LLaVA's answers after LLaVA's conversion.
        plain = lambda d: {k: p.rstrip(".").lower() for k, p in d.items()}
        fixed = dict(fixed, predictions=plain(fixed["predictions"]))
        write_set(theirs, fixed)
        expected, printed = run_official(args.script, theirs)
        own_numbers(dict(data, predictions=plain(data["predictions"])), expected)
        ok &= compare(name + ", LLaVA's answers",
                      run_ours(args.program, mine, predictions="answers.jsonl"), expected)
    return ok


def load_world(r, folder):
    read = lambda name: json.load(open(os.path.join(folder, "test_%s.json" % name), encoding="utf-8"))
    data = {"questions": read("all_questions"), "choices": read("choices"),
            "scenes": read("sceneGraphs"), "predictions": {}, "attentions": {}}
    for qid, question in data["questions"].items():
        question["groups"]["global"] = question["types"]["detailed"]  # the world has none
        data["predictions"][qid] = make_answer(r, question, data["choices"][qid])
        if question["isBalanced"]:
            data["attentions"][qid] = make_map(r)
    return data


def write_golden(args, folder):
    r = random.Random(20)
    data, fixed = make_odd(r, make_set(r, 90))
    os.makedirs(folder, exist_ok=True)
    write_set(folder, data, twice=True)
    with tempfile.TemporaryDirectory() as theirs:
        write_set(theirs, fixed)
        expected, _ = run_official(args.script, theirs)
    own_numbers(data, expected)
    with open(os.path.join(folder, "expected.json"), "w", encoding="utf-8") as f:
        json.dump(expected, f, indent=1, sort_keys=True)
        f.write("\n")
    os.remove(os.path.join(folder, "questions.json"))
    size = sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
    print("%s: %d bytes" % (folder, size))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("script")
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--world")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--golden", action="store_true")
    args = parser.parse_args()
    ok = True
    if args.golden:
        write_golden(args, "tests/golden/gqa")
    for i in range(args.sets):
        r = random.Random(i)
        data = make_set(r, [12, 90, 700][i % 3])
        odd, fixed = make_odd(r, data) if i % 2 else (data, data)
        ok &= check_set(args, "set %d%s" % (i, ", odd" if i % 2 else ""), odd, fixed, twice=i % 2)
    if args.world:
        data = load_world(random.Random(5), args.world)
        ok &= check_set(args, "the small world", data, data, False)
    print("all equal" if ok else "THERE ARE DIFFERENCES")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
