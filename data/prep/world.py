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
GERMAN = 0.15  # of the scenes' conversations
# Sets of scenes: what of the objects' combinations they may have, and how many objects.
SETS = {"1": ("train", "1"), "2": ("train", "2"), "many": ("train", "many"),
        "valid": ("valid", "many"), "test": ("test", "many"), "unknown": ("test", "many"),
        "known": ("test", "many")}
SET_DIGIT = {name: str(number) for number, name in enumerate(SETS, 1)}


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


def conversation(scene, questions, rng, german):
    """One record in LLaVA's format: a question a turn, all of them about the same image."""
    from world_wordings import casual

    turns = []
    for question in questions:
        wordings = question.de_wordings if german else question.en_wordings
        # the plainest wording is asked as often as two others
        text = casual(rng.choice([wordings[0], *wordings]), rng)
        if not german and rng.random() < 0.3:
            text = text.replace("color", "colour")
        if not turns:
            text = "<image>\n" + text
        turns += [{"from": "human", "value": text},
                  {"from": "gpt", "value": question.de_answer if german else question.en_answer}]
    return {"id": scene["id"] + ("-de" if german else ""), "image": scene["id"] + ".jpg",
            "conversations": turns}


def caption(scene, facts, rng, german):
    """One record for the stage that joins the parts: a description alone."""
    from world_describe import describe, see

    question = rng.choice((describe, see))(facts, rng)
    record = conversation(scene, [question], rng, german)
    record["id"] += "-caption"
    return record


def nameless_make(images, unknown, split, rng):
    """(cut-out, mean colour) of something that has no name: from the packages, or an odd shape."""
    from world_images import mean_colour, trimmed
    from world_unknown import shape_make

    if rng.random() < 0.7:
        return images.sprites[rng.choice(unknown[split])]
    shape = trimmed(shape_make(rng))
    return shape, mean_colour(shape)


def image_make(name, index, rng):
    """(image, scene) of one number of a set; some are of what the model is not to know."""
    from world_images import PLANS, scene_make
    from world_unknown import noise_make

    options, things, images, unknown, _ = world_state
    split, plan = SETS[name]
    plan, nameless, way = PLANS[plan], None, "known"
    if name == "unknown":
        way = rng.choices(("noise", "alone", "beside", "known"), (12, 43, 20, 25))[0]
    elif split == "train" and rng.random() < options.nameless:
        way = rng.choices(("noise", "alone", "beside"), (20, 45, 35))[0]
    if way == "noise" or (way == "beside" and name == "1"):
        scene = {"id": f"{name}/{index:06d}", "size": options.size, "objects": [],
                 "background": {"pattern": "noise", "colour": None}}
        return noise_make(options.size, rng), scene
    if way in ("alone", "beside"):
        nameless = nameless_make(images, unknown, split, rng)
        plan = PLANS["1"] if way == "alone" else ((1, (1, 1)),)
    return scene_make(images, things, (name, split, index), plan, options.size, rng, nameless)


def questions_make(name, facts, rng):
    import world_select

    options = world_state[0]
    if SETS[name][0] == "train":
        return world_select.questions_train(facts, options.turns, rng)
    if name == "unknown":
        return world_select.questions_unknown(facts, 2, rng)
    if name == "known":
        return world_select.questions_known(facts, 2, rng)
    questions = world_select.questions_test(facts, options.questions, rng)
    for question in questions:  # the tests ask in every wording, as a person would
        at = rng.randrange(len(question.en_wordings))
        english = question.en_wordings
        question.en_wordings = [english[at], english[at - 1]]
    return questions


def scene_work(job):
    """Makes one scene, writes its image, and returns its texts. All randomness comes from the
    seed and the scene's own number, so that it does not matter who makes it, or when."""
    from world_facts import Scene
    from world_gqa import question_records, scene_graph

    name, index = job
    options, things, _, _, weights = world_state
    rng = random.Random(f"{options.seed}/{name}/{index}")
    image, scene = image_make(name, index, rng)
    image.save(os.path.join(options.out, "images", scene["id"] + ".jpg"), quality=90)
    facts = Scene(scene, things, weights)
    train = SETS[name][0] == "train"
    german = rng.random() < GERMAN
    questions = questions_make(name, facts, rng)
    result = {
        "graph": (scene["id"], scene_graph(scene)), "captions": [], "talks": [],
        "stats": [(q.structural, q.semantic, q.detailed, q.en_answer) for q in questions],
        "unseen": any(one["unseen"] for one in scene["objects"]),
        "set": tuple(sorted(facts.present)), "things": len(scene["objects"])}
    if not questions:
        return result
    result["talks"].append(conversation(scene, questions, rng, german and train))
    if train and facts.known:
        result["captions"].append(caption(scene, facts, rng, german))
    elif not train:
        if german and name == "test":
            result["talks"].append(conversation(scene, questions, rng, True))
        first = f"{SET_DIGIT[name]}{index:06d}"
        result["gqa"] = question_records(scene, questions, first,
                                         sorted(thing.name for thing in things))
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


def set_write(options, name, results):
    """Writes one set's files; returns its statistics."""
    def path(name):
        return os.path.join(options.out, name)

    graphs = JsonWriter(path(f"gqa/{name}_sceneGraphs.json"), "{}")
    talks = JsonWriter(path(f"scenes-{name}.json"), "[]")
    writers = [graphs, talks]
    if SETS[name][0] == "train":
        captions = JsonWriter(path(f"captions-{name}.json"), "[]")
        writers.append(captions)
    else:
        balanced = JsonWriter(path(f"gqa/{name}_questions.json"), "{}")
        every = JsonWriter(path(f"gqa/{name}_all_questions.json"), "{}")
        choices = JsonWriter(path(f"gqa/{name}_choices.json"), "{}")
        writers += [balanced, every, choices]
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


def report(name, stats, train_sets):
    print(f"{name}: {stats['scenes']} scenes, {stats['turns']} questions, "
          f"{stats['unseen']} scenes with an image kept from training, "
          f"{len(stats['sets'] & train_sets)} of {len(stats['sets'])} sets of objects also in "
          f"training scenes before")
    print("  " + ", ".join(f"{name} {count}" for name, count in stats["written"]))
    unknown = sum(sum(counts.values()) for key, counts in stats["answers"].items()
                  if key[2].startswith("unknown"))
    print(f"  {100 * unknown / max(1, stats['turns']):.1f} % about what is not known")
    print("  type                       questions  commonest answer")
    right = 0
    for key in sorted(stats["answers"]):
        counts = stats["answers"][key]
        total = sum(counts.values())
        answer, number = min(counts.items(), key=lambda item: (-item[1], item[0]))
        right += number
        print(f"  {'/'.join(key):30} {total:6}  {100 * number / total:5.1f} %  {answer}")
    print(f"  {'all':30} {stats['turns']:6}  {100 * right / max(1, stats['turns']):5.1f} %",
          flush=True)


def main():
    global world_state
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", metavar="OUT", help="folder, made if it is not there")
    parser.add_argument("--one", dest="1", metavar="N", type=int, default=12000,
                        help="training scenes of one object")
    parser.add_argument("--two", dest="2", metavar="N", type=int, default=12000, help="of two")
    parser.add_argument("--many", type=int, default=26000, help="of one to four")
    parser.add_argument("--start", type=int, default=0,
                        help="number of the first training scene: fresh ones for another run")
    parser.add_argument("--valid", type=int, default=1000, help="held-out scenes for validation")
    parser.add_argument("--test", type=int, default=2550, help="held-out scenes for the test")
    parser.add_argument("--unknown", type=int, default=500,
                        help="held-out scenes about what is not known, and as many about what is")
    parser.add_argument("--nameless", metavar="SHARE", type=float, default=0.04,
                        help="of the training scenes that show something that has no name, or nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="side of an image, pixels")
    parser.add_argument("--turns", type=int, default=14, help="questions a training scene")
    parser.add_argument("--questions", type=int, default=4, help="questions a held-out scene")
    parser.add_argument("--processes", type=int, default=2, help="the output is the same")
    options = parser.parse_args()
    packages_check()
    counts = {name: getattr(options, name, options.unknown) for name in SETS}
    if min(*counts.values(), options.start) < 0 or options.processes < 1 or \
            not 48 <= options.size <= 1024 or options.start + max(counts.values()) > 1000000:
        parser.error("numbers must not be negative, --size 48 to 1024, scenes below 1000000")
    if not 0 <= options.nameless <= 1:
        parser.error("--nameless is a share from 0 to 1")
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from world_images import Images
    from world_names import things_read, unknown_read

    for folder in ("gqa", *(f"images/{name}" for name in SETS)):
        os.makedirs(os.path.join(options.out, folder), exist_ok=True)
    things, unknown = things_read(), unknown_read()
    images = Images(things, unknown)
    held_out = sum(unseen for thing in things for _, _, unseen in thing.images)
    print(f"{len(things)} objects, {len(images.sprites)} images, {held_out} of them only in "
          f"held-out scenes; {len(unknown['train'])} images without a name for training, "
          f"{len(unknown['test'])} for the test", flush=True)
    world_state = options, things, images, unknown, colour_weights(things)
    train_sets = set()
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for name, (split, _) in SETS.items():
            start = options.start if split == "train" else 0
            jobs = [(name, start + i) for i in range(counts[name])]
            if not jobs:
                continue
            stats = set_write(options, name, pool.imap(scene_work, jobs, chunksize=50))
            report(name, stats, train_sets)
            if split == "train":
                train_sets |= stats["sets"]


if __name__ == "__main__":
    main()
