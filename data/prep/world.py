#!/usr/bin/python3
"""The small world: scenes of images with names, captions, conversations, and questions in GQA's
format, all from Debian's packages. The same arguments and packages give the same bytes."""

import argparse
import collections
import json
import multiprocessing
import os
import random
import shutil
import sys

NEEDED = (("/usr/share/tuxpaint/stamps", "tuxpaint-stamps-default"),
          ("/usr/share/tuxpaint/templates", "tuxpaint-data"),
          ("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", "fonts-noto-color-emoji"))
SHORT, SHORT_DE = "Answer with a word or phrase.", "Antworte mit einem Wort."
CAPTION, CAPTION_DE = "Describe the picture.", "Beschreibe das Bild."
GERMAN = 0.15  # of the scenes' conversations and captions
SENTENCES = 0.25  # of the answers
SPLITS = ("train", "valid", "test")
SPLIT_DIGIT = {"train": "1", "valid": "2", "test": "3"}


def packages_check():
    missing = [package for path, package in NEEDED if not os.path.exists(path)]
    if not shutil.which("rsvg-convert"):
        missing.append("librsvg2-bin")
    for module, package in (("PIL", "python3-pil"), ("fontTools", "python3-fonttools")):
        try:
            __import__(module)
        except ImportError:
            missing.append(package)
    if missing:
        sys.exit(f"world.py: not installed: {', '.join(missing)}; "
                 f"run: apt-get install {' '.join(missing)}")


def colour_weights(things):
    """How readily an object's colour is asked after: less for the common colours."""
    often = collections.Counter()
    for thing in things:
        seen = [colour for _, colour, held_out in thing.images if not held_out]
        for colour in seen:
            if colour:
                often[colour] += 1 / len(seen)
    middle = sorted(often.values())[len(often) // 3]
    return {colour: min(1.0, middle / number) for colour, number in often.items()}


def conversation(scene, questions, rng, german, sentences):
    """One record in LLaVA's format: an answer a turn, short ones after an instruction."""
    turns = []
    for question in questions:
        wordings, answer, full = (
            (question.de_wordings, question.de_answer, question.de_sentence) if german else
            (question.en_wordings, question.en_answer, question.en_sentence))
        text = wordings[0 if not sentences or rng.random() < 0.7 else 1]
        if sentences and not german and rng.random() < 0.3:
            text = text.replace("colour", "color")
        if rng.random() < sentences:
            answer = full
        else:
            text += "\n" + (SHORT_DE if german else SHORT)
        if not turns:
            text = "<image>\n" + text
        turns += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {"id": scene["id"] + ("-de" if german else ""), "image": scene["id"] + ".jpg",
            "conversations": turns}


def scene_work(job):
    """Makes one scene, writes its image, and returns its texts. All randomness comes from the
    seed and the scene's own number, so that it does not matter who makes it, or when."""
    from world_captions import caption
    from world_facts import Scene
    from world_gqa import question_records, scene_graph
    from world_images import scene_make
    from world_questions import questions_make

    split, index = job
    options, things, images, weights = world_state
    rng = random.Random(f"{options.seed}/{split}/{index}")
    image, scene = scene_make(images, things, split, index, options.size, rng)
    path = os.path.join(options.out, "images", scene["id"] + ".jpg")
    image.save(path, quality=92, subsampling=0)
    facts = Scene(scene, things, weights)
    train = split == "train"
    german = rng.random() < GERMAN
    questions = questions_make(facts, options.turns if train else options.questions, rng)
    result = {
        "split": split, "graph": (scene["id"], scene_graph(scene)), "captions": [], "talks": [],
        "stats": [(q.structural, q.semantic, q.detailed, q.en_answer) for q in questions],
        "unseen": any(one["unseen"] for one in scene["objects"]),
        "set": tuple(sorted(facts.present)), "things": len(scene["objects"])}
    if train:
        result["talks"].append(conversation(scene, questions, rng, german, SENTENCES))
        for number in range(rng.choice((1, 2))):
            in_german = german if number == 0 else rng.random() < GERMAN
            text = caption(facts, rng, in_german)
            if any(text == old["conversations"][1]["value"] for old in result["captions"]):
                continue
            result["captions"].append({
                "id": f"{scene['id']}-{number}", "image": scene["id"] + ".jpg",
                "conversations": [
                    {"from": "human",
                     "value": (CAPTION_DE if in_german else CAPTION) + "\n<image>"},
                    {"from": "gpt", "value": text}]})
    else:
        result["talks"].append(conversation(scene, questions, rng, False, 0))
        if german:
            result["talks"].append(conversation(scene, questions, rng, True, 0))
        first = f"{SPLIT_DIGIT[split]}{index:06d}"
        names = sorted(thing.name for thing in things)
        result["gqa"] = question_records(scene, questions, first, names)
    return result


class JsonWriter:
    """A JSON array or object, written an element at a time, one a line; close() ends the file."""

    def __init__(self, path, brackets):
        self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        self.brackets, self.count = brackets, 0
        self.file.write(brackets[0])

    def add(self, value, key=None):
        self.file.write(",\n" if self.count else "\n")
        if key is not None:
            self.file.write(json.dumps(key) + ": ")
        self.file.write(json.dumps(value, ensure_ascii=False))
        self.count += 1

    def close(self):
        self.file.write("\n" + self.brackets[1] + "\n")
        self.file.close()


def split_write(options, split, results):
    """Writes one split's files; returns its statistics."""
    def path(name):
        return os.path.join(options.out, name)

    graphs = JsonWriter(path(f"gqa/{split}_sceneGraphs.json"), "{}")
    writers = [graphs]
    if split == "train":
        talks = JsonWriter(path("conversations.json"), "[]")
        captions = JsonWriter(path("captions.json"), "[]")
        writers += [talks, captions]
    else:
        talks = JsonWriter(path(f"{split}_conversations.json"), "[]")
        balanced = JsonWriter(path(f"gqa/{split}_questions.json"), "{}")
        every = JsonWriter(path(f"gqa/{split}_all_questions.json"), "{}")
        choices = JsonWriter(path(f"gqa/{split}_choices.json"), "{}")
        writers += [talks, balanced, every, choices]
    answers = collections.defaultdict(collections.Counter)
    sets, unseen, scenes = set(), 0, 0
    for result in results:
        scenes += 1
        unseen += result["unseen"]
        if len(result["set"]) > 1:
            sets.add(result["set"])
        graphs.add(result["graph"][1], result["graph"][0])
        for talk in result["talks"]:
            talks.add(talk)
        for text in result["captions"]:
            captions.add(text)
        for structural, semantic, detailed, answer in result["stats"]:
            answers[structural, semantic, detailed][answer] += 1
        if "gqa" in result:
            records, allowed = result["gqa"]
            for key, record in records.items():
                every.add(record, key)
                if record["isBalanced"]:
                    balanced.add(record, key)
                choices.add(allowed[key], key)
    for writer in writers:
        writer.close()
    return {"scenes": scenes, "unseen": unseen, "sets": sets, "answers": answers,
            "turns": sum(sum(c.values()) for c in answers.values()),
            "written": [(os.path.basename(w.file.name), w.count) for w in writers]}


def report(split, stats, train_sets):
    print(f"{split}: {stats['scenes']} scenes, {stats['turns']} questions, "
          f"{stats['unseen']} scenes with an image kept from training, "
          f"{len(stats['sets'] & train_sets) if train_sets is not None else '-'} of "
          f"{len(stats['sets'])} sets of objects also in train")
    print("  " + ", ".join(f"{name} {count}" for name, count in stats["written"]))
    if split == "valid":
        return
    print("  type                       questions  commonest answer")
    right = 0
    for key in sorted(stats["answers"]):
        counts = stats["answers"][key]
        total = sum(counts.values())
        answer, number = min(counts.items(), key=lambda item: (-item[1], item[0]))
        right += number
        print(f"  {'/'.join(key):30} {total:6}  {100 * number / total:5.1f} %  {answer}")
    print(f"  {'all':30} {stats['turns']:6}  {100 * right / max(1, stats['turns']):5.1f} %")


def main():
    global world_state
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", metavar="OUT", help="folder, made if it is not there")
    parser.add_argument("--scenes", type=int, default=20000, help="for training")
    parser.add_argument("--start", type=int, default=0,
                        help="number of the first training scene: fresh ones for another run")
    parser.add_argument("--held-out", type=int, default=1000, help="scenes in valid and in test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128, help="side of an image, pixels")
    parser.add_argument("--turns", type=int, default=8, help="questions a training scene")
    parser.add_argument("--questions", type=int, default=10, help="questions a held-out scene")
    parser.add_argument("--processes", type=int, default=2, help="the output is the same")
    options = parser.parse_args()
    packages_check()
    if min(options.scenes, options.start, options.held_out) < 0 or options.processes < 1 or \
            not 48 <= options.size <= 1024 or options.start + options.scenes > 1000000:
        parser.error("numbers must not be negative, --size 48 to 1024, scenes below 1000000")
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from world_images import Images
    from world_names import things_read

    for folder in ("gqa", *(f"images/{split}" for split in SPLITS)):
        os.makedirs(os.path.join(options.out, folder), exist_ok=True)
    things = things_read()
    images = Images(things)
    held_out = sum(unseen for thing in things for _, _, unseen in thing.images)
    print(f"{len(things)} objects, {len(images.sprites)} images, {held_out} of them only in "
          f"held-out scenes")
    world_state = options, things, images, colour_weights(things)
    train_sets = None
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for split in SPLITS:
            jobs = [(split, options.start + i) for i in range(options.scenes)] \
                if split == "train" else [(split, i) for i in range(options.held_out)]
            if not jobs:
                continue
            stats = split_write(options, split, pool.imap(scene_work, jobs, chunksize=50))
            report(split, stats, None if split == "train" else train_sets)
            if split == "train":
                train_sets = stats["sets"]


if __name__ == "__main__":
    main()
