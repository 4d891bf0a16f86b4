#!/usr/bin/env python3
"""What evaluate.sh gives to `easyfirst eval` and `easyfirst score` for comparisons that these do not
make themselves: the same questions about a gray image and about another scene's, in German, by
length, by what they ask for; the commonest answers; a source's copy and its first words.

usage: evaluate_inputs.py images WORLD SET FOLDER LIMIT MODEL
       evaluate_inputs.py text FILE.jsonl FOLDER LIMIT
"""
import collections
import json
import os
import re
import struct
import subprocess
import sys
import zlib

from answers_score import SUBJECT_OF

SEEN, UNSEEN = "no object kept from training", "objects' images kept from training"

# The words of the presets around a source.
TEMPLATES = (re.compile(r"Translate the sentences into \w+\.  \w+: (.*) \w+:\s*", re.DOTALL),
             re.compile(r"Write a short summary of the text\.  Text: (.*) Summary:\s*", re.DOTALL))


def give_up(message):
    sys.exit(f"evaluate_inputs.py: {message}")


def json_read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def optional_read(path):
    return json_read(path) if os.path.exists(path) else {}


def json_write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


def spread(items, limit):
    """`limit` of the items (0: all), evenly spaced."""
    items = list(items)
    if not limit or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def type_name(record):
    types = record.get("types", {})
    return "/".join(types.get(part) or "-" for part in ("structural", "semantic", "detailed"))


# ---- questions about images

def questions_group(questions, choices, graphs):
    """{id: {way: group}}: five ways to divide the questions, each of them in one group of each."""
    groups = {}
    for key, record in questions.items():
        valid = set(choices.get(key, {}).get("valid") or ())
        objects = graphs.get(record["imageId"], {}).get("objects", {})
        about = {name for part in record.get("annotations", {}).values() for name in part.values()}
        types = record.get("types", {})
        groups[key] = {
            "all": "all",
            "answer": "yes or no" if valid == {"yes", "no"} else
                      "one of two" if len(valid) == 2 else "open",
            "objects": UNSEEN if any(objects.get(name, {}).get("unseen") for name in about)
                       else SEEN,
            "subject": SUBJECT_OF.get(types.get("detailed"), "other"),
            "form": types.get("structural") or "-",
            "type": type_name(record)}
    return groups


def groups_write(prefix, questions, groups, choices):
    """Files of the questions with groups in the place of GQA's types, so that `score gqa` counts
    each group; and what one of the possible answers, drawn blindly, would get of each."""
    for ways in (("subject", "type"), ("answer", "objects"), ("form", "all")):
        json_write(f"{prefix}.{'-'.join(ways)}.json", {
            key: {"question": record["question"], "imageId": record["imageId"],
                  "answer": record["answer"], "isBalanced": True,
                  "types": {"structural": groups[key][ways[0]], "semantic": groups[key][ways[1]],
                            "detailed": ""}} for key, record in questions.items()})
    shares = collections.defaultdict(list)
    for key, ways in groups.items():
        valid = choices.get(key, {}).get("valid")
        for way, group in ways.items():
            shares[way, group].append(1 / len(valid) if valid else None)
    chance = collections.defaultdict(dict)
    for (way, group), values in shares.items():
        chance[way][group] = None if None in values else 100 * sum(values) / len(values)
    json_write(f"{prefix}.chance.json", chance)


def commonest_write(prefix, questions, every):
    """To each type of questions its commonest answer in the whole set, as predictions."""
    counts = collections.defaultdict(collections.Counter)
    for record in every.values():
        counts[type_name(record)][record["answer"]] += 1
    commonest = {name: min(count.items(), key=lambda item: (-item[1], item[0]))[0]
                 for name, count in counts.items()}
    json_write(f"{prefix}.commonest.json", [
        {"questionId": key, "prediction": commonest[type_name(record)]}
        for key, record in questions.items()])
    json_write(f"{prefix}.commonest-answers.json", commonest)


def gray_write(path):
    """An image that shows nothing: one pixel of middle gray. It is a PNG, whatever its name: images
    are recognized by their content, and `eval gqa` asks for imageId.jpg."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + \
            struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" +
                   chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(bytes([0, 128, 128, 128]))) + chunk(b"IEND", b""))


def lengths_write(folder, questions, model):
    """A file of questions for each length in tokens of the expected answers. The program counts."""
    answers = sorted({record["answer"] for record in questions.values()})
    done = subprocess.run(
        [os.environ.get("EASYFIRST", "build/easyfirst"), "text", "-m", model, "--raw", "--file",
         "-", "--length", "1", "--steps", "1", "--json", "--quiet"], check=False, text=True,
        encoding="utf-8", input="".join(answer + "\n" for answer in answers), capture_output=True)
    counted = [json.loads(line) for line in done.stdout.splitlines()]
    if len(counted) != len(answers):
        give_up(f"the answers' tokens could not be counted: {done.stderr.strip()}")
    length_of = {answer: max(1, one.get("prompt_tokens", 1))
                 for answer, one in zip(answers, counted, strict=True)}
    parts = collections.defaultdict(dict)
    for key, record in questions.items():
        parts[length_of[record["answer"]]][key] = record
    for length, part in parts.items():
        json_write(os.path.join(folder, f"length-{length}.json"), part)


def german_questions(conversations, questions):
    """{id: record}: the questions of the scenes that have them in German, turn by turn as in
    English. Answers are in lower case, as predictions are."""
    by_image = collections.defaultdict(list)
    for key, record in questions.items():
        by_image[record["imageId"]].append((key, record))
    found = {}
    for talk in conversations:
        same = by_image.get(talk["id"].removesuffix("-de"))
        if not talk["id"].endswith("-de") or not same:
            continue
        turns = [turn["value"] for turn in talk["conversations"]]
        if len(turns) != 2 * len(same):
            give_up(f"{talk['id']}: {len(turns) // 2} German questions, {len(same)} English ones: "
                    "files of one run of world.py belong together")
        for number, (key, record) in enumerate(same):
            found[key] = {**record, "answer": turns[2 * number + 1].rstrip(".").lower(),
                          "question": turns[2 * number].removeprefix("<image>\n")}
    return found


def german_write(folder, questions, image):
    """LLaVA's lines, which `eval gqa` asks as they are."""
    name = "german-gray.jsonl" if image else "german.jsonl"
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        for key, record in questions.items():
            file.write(json.dumps({"question_id": key, "text": record["question"], "image":
                                   image or record["imageId"] + ".jpg"}, ensure_ascii=False) + "\n")


def images_write(world, name, folder, limit, model):
    gqa = os.path.join(world, "gqa", name)
    every = {key: record for key, record in json_read(f"{gqa}_questions.json").items()
             if record.get("isBalanced", True)}
    choices = optional_read(f"{gqa}_choices.json")
    graphs = optional_read(f"{gqa}_sceneGraphs.json")
    images = spread(dict.fromkeys(record["imageId"] for record in every.values()), limit)
    half = max(1, len(images) // 2)
    other = dict(zip(images, images[half:] + images[:half], strict=True))
    questions = {key: record for key, record in every.items() if record["imageId"] in other}
    if not questions:
        give_up(f"{gqa}_questions.json: no balanced questions")

    json_write(f"{folder}/questions.json", questions)
    json_write(f"{folder}/other.json", {key: {**record, "imageId": other[record["imageId"]]}
                                        for key, record in questions.items()})
    json_write(f"{folder}/gray.json", {key: {**record, "imageId": "gray"}
                                       for key, record in questions.items()})
    gray_write(f"{folder}/gray.jpg")
    lengths_write(folder, questions, model)
    groups = questions_group(questions, choices, graphs)
    groups_write(f"{folder}/english", questions, groups, choices)
    commonest_write(f"{folder}/english", questions, every)
    talks = optional_read(f"{world}/scenes-{name}.json") or []
    german = german_questions(talks, every)
    asked = {key: record for key, record in german.items() if key in questions}
    if asked:
        german_write(folder, asked, None)
        german_write(folder, asked, "gray.jpg")
        groups_write(f"{folder}/german", asked, {key: groups[key] for key in asked}, choices)
        commonest_write(f"{folder}/german", asked, german)


# ---- texts

def source_of(text):
    """The text that is to be translated or summarized, without the words around it."""
    for template in TEMPLATES:
        match = template.fullmatch(text)
        if match:
            return match.group(1)
    return text


def text_write(path, folder, limit):
    """References and sources a line each, and as many first words of each source as references
    have on average."""
    sources, targets = [], []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                sources.append(" ".join(source_of(record["inputs"]).split()))
                targets.append(" ".join(record["targets"].split()))
            except (ValueError, KeyError, TypeError, AttributeError):
                give_up(f"{path}: line {number} is not an object with inputs and targets")
            if number == limit:
                break
    if not targets:
        give_up(f"{path}: no lines")
    words = round(sum(len(target.split()) for target in targets) / len(targets))
    first = [" ".join(source.split()[:words]) for source in sources]
    for name, lines in (("targets", targets), ("copy", sources), ("first", first)):
        with open(os.path.join(folder, f"{name}.txt"), "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)


def main():
    words = sys.argv[1:]
    try:
        if len(words) == 6 and words[0] == "images":
            os.makedirs(words[3], exist_ok=True)
            images_write(*words[1:4], int(words[4]), words[5])
        elif len(words) == 4 and words[0] == "text":
            os.makedirs(words[2], exist_ok=True)
            text_write(words[1], words[2], int(words[3]))
        else:
            sys.exit(__doc__)
    except (OSError, ValueError) as error:
        give_up(error)


if __name__ == "__main__":
    main()
