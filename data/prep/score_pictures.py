"""Questions about pictures: how many are answered right, with and without the picture."""

import collections
import json
import os
import struct
import sys
import tempfile
import time
import zlib

from score_run import answer_text, json_write, lines_write, spread
from world import SHORT, SHORT_DE

# What the questions of the small world are about, by GQA's detailed type.
SUBJECTS = {
    "existence": ("exist", "existKind", "existAnd", "existOr", "existChoose"),
    "naming": ("categoryThis", "categoryName", "colourName", "placeName", "relName"),
    "kind": ("kindOf", "kindChoose", "sameKind"),
    "colour": ("color", "chooseColor", "verifyColor", "verifyAttrAnd", "twoSame"),
    "background": ("backgroundColor", "backgroundPattern"),
    "number": ("count", "countAll", "verifyMore"),
    "place": ("positionChoose",),
    "relation": ("relPlace", "relVerify", "relChoose"),
    "size": ("chooseLarger", "verifyLarger"),
}
SUBJECT_OF = {detailed: name for name, types in SUBJECTS.items() for detailed in types}
SEEN, UNSEEN = "no object kept from training", "objects' pictures kept from training"


def normal(text):
    """GQA's way to compare: lower case, no full stop at the end."""
    text = " ".join(text.lower().split())
    return text[:-1].rstrip() if text.endswith(".") else text


def world_read(path):
    if not os.path.exists(path):
        sys.exit(f"score.py: {path}: there is no such file; make it with data/prep/world.py")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def wording_of(model):
    """How the model words a question (its folder's easyfirst.json)."""
    try:
        with open(os.path.join(model, "easyfirst.json"), encoding="utf-8") as file:
            return json.load(file).get("prompts", {}).get("ask", "{question}")
    except FileNotFoundError:
        return "{question}"


def questions_read(world, set_name, language, limit):
    """(scenes, commonest answers): the scored questions, those of a scene together, in the order
    of the file."""
    folder = os.path.join(world, "gqa")
    records = world_read(os.path.join(folder, f"{set_name}_questions.json"))
    choices_path = os.path.join(folder, f"{set_name}_choices.json")
    choices = world_read(choices_path) if os.path.exists(choices_path) else {}
    graphs_path = os.path.join(folder, f"{set_name}_sceneGraphs.json")
    graphs = world_read(graphs_path) if os.path.exists(graphs_path) else {}
    scenes = collections.OrderedDict()
    for key, record in records.items():
        if not record.get("isBalanced", True):
            continue
        valid = choices.get(key, {}).get("valid") or []
        objects = graphs.get(record["imageId"], {}).get("objects", {})
        about = {name for part in record.get("annotations", {}).values() for name in part.values()}
        scenes.setdefault(record["imageId"], []).append({
            "id": key, "imageId": record["imageId"], "question": record["question"],
            "expected": record["answer"], "types": record["types"], "choices": len(valid),
            "sides": "yes or no" if set(valid) == {"yes", "no"} else
                     "one of two" if len(valid) == 2 else "open",
            "unseen": any(objects.get(name, {}).get("unseen") for name in about)})
    if language == "de":
        scenes = german(world, set_name, scenes)
    return ([scenes[name] for name in spread(list(scenes), limit)],
            commonest_answers(q for scene in scenes.values() for q in scene))


def commonest_answers(questions):
    """{type: its commonest answer}, of the whole set, however few of it are asked."""
    counts = collections.defaultdict(collections.Counter)
    for question in questions:
        counts[type_name(question)][normal(question["expected"])] += 1
    return {name: min(count.items(), key=lambda item: (-item[1], item[0]))[0]
            for name, count in counts.items()}


def german(world, set_name, scenes):
    """The same questions in German, of the scenes that have them: turn by turn as in English."""
    found = collections.OrderedDict()
    for record in world_read(os.path.join(world, f"{set_name}_conversations.json")):
        if not record["id"].endswith("-de"):
            continue
        scene = scenes[record["id"][:-len("-de")]]
        turns = record["conversations"]
        if len(turns) != 2 * len(scene):
            sys.exit(f"score.py: {record['id']}: {len(turns) // 2} German questions, {len(scene)} "
                     "English ones: files of one run of world.py belong together")
        texts = [turn["value"].replace("<image>\n", "").replace("\n" + SHORT_DE, "")
                 for turn in turns]
        found[record["id"]] = [
            {**question, "id": question["id"] + "-de", "question": texts[2 * i],
             "expected": texts[2 * i + 1]} for i, question in enumerate(scene)]
    return found


def answer_scenes(program, name, scenes, pictures, suffix, lengths=None):
    """{question id: answer}: each scene's questions about the picture that stands beside it."""
    jobs = []
    for questions, picture in zip(scenes, pictures):
        groups = {}
        for question in questions:
            length = lengths[question["expected"]] if lengths else None
            groups.setdefault(length, []).append(question)
        jobs += [(picture, group, length) for length, group in groups.items()]
    parts = program.map(name, lambda picture, group, length: program.ask(
        picture, [q["question"] + suffix for q in group], length), jobs)
    return {q["id"]: answer for (_, group, _), part in zip(jobs, parts)
            for q, answer in zip(group, part)}


def answer_blind(program, scenes, wording, suffix, lengths=None):
    """The same without any picture: the very words that `ask` would give to the model."""
    questions = [q for scene in scenes for q in scene]
    found = program.text_all(
        "without", [wording.replace("{question}", q["question"] + suffix) for q in questions],
        [lengths[q["expected"]] for q in questions] if lengths else None)
    return {q["id"]: answer for q, answer in zip(questions, found)}


def grey_picture(path):
    """A picture in which nothing is: one pixel of middle grey, as PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + \
            struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(bytes([0, 128, 128, 128]))) + chunk(b"IEND", b""))
    return path


def answer_grey(program, scenes, suffix, lengths=None):
    """The same about a picture that shows nothing."""
    with tempfile.TemporaryDirectory() as folder:
        picture = grey_picture(os.path.join(folder, "grey.png"))
        return answer_scenes(program, "grey", scenes, [picture] * len(scenes), suffix, lengths)


def row(name, part, questions, answers, commonest):
    """Shares in percent of one group of questions."""
    def share(values):
        return 100 * sum(values) / len(questions)

    result = {"part": part, "name": name, "questions": len(questions)}
    for column, found in answers.items():
        result[column] = share(is_right(q, found[q["id"]]) for q in questions)
    result["commonest"] = share(normal(q["expected"]) == commonest[type_name(q)] for q in questions)
    result["chance"] = share(1 / q["choices"] for q in questions) \
        if all(q["choices"] for q in questions) else None
    return result


def is_right(question, answer):
    return normal(answer_text(answer)) == normal(question["expected"])


def type_name(question):
    types = question["types"]
    return f"{types['structural']}/{types['semantic']}/{types['detailed']}"


def rows_make(questions, answers, commonest):
    """All, then the questions divided in five ways; each question is once in each way."""
    ways = (("subject", list(SUBJECTS) + ["other"],
             lambda q: SUBJECT_OF.get(q["types"]["detailed"], "other")),
            ("answer", ["yes or no", "one of two", "open"], lambda q: q["sides"]),
            ("form", ["verify", "query", "choose", "compare", "logical"],
             lambda q: q["types"]["structural"]),
            ("objects", [SEEN, UNSEEN], lambda q: UNSEEN if q["unseen"] else SEEN),
            ("type", sorted(commonest), type_name))
    rows = [row("all", "all", questions, answers, commonest)]
    for part, names, group_of in ways:
        for name in names:
            chosen = [q for q in questions if group_of(q) == name]
            if chosen:
                rows.append(row(name, part, chosen, answers, commonest))
                if part == "type":
                    rows[-1]["commonest_answer"] = commonest[name]
    return rows


def pictures_score(program, options):
    """The command `pictures`: asks, writes predictions and pictures.json into options.out."""
    started = time.monotonic()
    scenes, commonest = questions_read(options.world, options.set, options.language, options.limit)
    if not scenes:
        sys.exit(f"score.py: {options.world}: no {options.language} questions in {options.set}")
    questions = [q for scene in scenes for q in scene]
    wording, short = wording_of(program.model), SHORT_DE if options.language == "de" else SHORT
    suffix = "" if short in wording else "\n" + short
    folder = options.images or os.path.join(options.world, "images")
    pictures = [os.path.join(folder, scene[0]["imageId"] + ".jpg") for scene in scenes]
    half = max(1, len(pictures) // 2)
    tokens = program.token_counts(q["expected"] for q in questions)
    lengths = tokens if options.length_oracle else None

    asked = time.monotonic()
    answers = {"picture": answer_scenes(program, "pictures", scenes, pictures, suffix, lengths)}
    asked = time.monotonic() - asked
    if not options.picture_only:
        answers["without"] = answer_blind(program, scenes, wording, suffix, lengths)
        answers["grey"] = answer_grey(program, scenes, suffix, lengths)
        answers["other"] = answer_scenes(program, "other pictures", scenes,
                                         pictures[half:] + pictures[:half], suffix, lengths)
    result = {
        "command": "pictures", "set": options.set, "language": options.language,
        "pictures": len(scenes), "questions": len(questions),
        "settings": program.settings(), "length_oracle": options.length_oracle,
        "unanswered": sum("error" in answer for answer in answers["picture"].values()),
        "length_right": 100 * sum(answers["picture"][q["id"]].get("length") ==
                                  tokens[q["expected"]] for q in questions) / len(questions),
        "evaluations": sum(a.get("evaluations", 0) for a in answers["picture"].values()),
        "seconds_picture": round(asked, 2), "seconds": round(time.monotonic() - started, 2),
        "rows": rows_make(questions, answers, commonest)}
    if options.out:
        for column, found in answers.items():
            name = "predictions.json" if column == "picture" else f"predictions_{column}.json"
            json_write(options.out, name, [
                {"questionId": q["id"], "prediction": normal(answer_text(found[q["id"]]))}
                for q in questions])
        lines_write(options.out, "answers.jsonl", (
            {"id": q["id"], "image": q["imageId"] + ".jpg", "question": q["question"],
             "type": type_name(q), "expected": q["expected"],
             "right": is_right(q, answers["picture"][q["id"]]),
             **{column: answer_text(found[q["id"]]) for column, found in answers.items()}}
            for q in questions))
        json_write(options.out, "pictures.json", result)
    return result
