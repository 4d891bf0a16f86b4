"""The small world's questions as GQA's files: questions, choices, scene graphs."""

import re


def question_records(scene, questions, first_id, names):
    """(records, choices) of one scene, both by question id: every question, which is scored, then
    another wording of it, which counts for consistency only."""
    records, choices = {}, {}
    number = 0

    def add(question, wording, balanced):
        nonlocal number
        key = f"{first_id}{number:03d}"
        number += 1
        answer = question.en_answer.rstrip(".").lower()  # as predictions are compared
        records[key] = {
            "question": question.en_wordings[wording],
            "imageId": scene["id"],
            "answer": answer,
            "fullAnswer": question.en_sentence,
            "isBalanced": balanced,
            "groups": {"global": question.group if question.structural == "query" else None,
                       "local": local_group(question)},
            "entailed": [],
            "equivalent": [],
            "types": {"structural": question.structural, "semantic": question.semantic,
                      "detailed": question.detailed},
            "annotations": {"question": regions(question, question.en_wordings[wording]),
                            "answer": regions(question, answer, whole=True),
                            "fullAnswer": regions(question, question.en_sentence)},
            "semantic": [],
        }
        valid = [choice.lower() for choice in question.choices or names]
        if answer not in valid:
            valid = [*valid, answer]
        choices[key] = {"valid": valid, "plausible": valid}
        return key

    for question in questions:
        keys = [add(question, wording, not wording) for wording in (0, 1)]
        for key in keys:
            records[key]["equivalent"] = records[key]["entailed"] = keys
    return records, choices


def local_group(question):
    """Open questions that ask the same: GQA counts answers in them to balance."""
    if question.structural != "query":
        return None
    return f"{question.detailed}-{question.en_wordings[0].rstrip('?').lower().replace(' ', '_')}"


def regions(question, text, whole=False):
    """Words of the text (numbers from 0; "a:b" for several) that name an object: its id."""
    found = {}
    words = [re.sub(r"[^\w-]", "", word).lower() for word in text.split()]
    for one in question.things:
        if not one["thing"]:
            continue
        for name in (one["thing"].name, one["thing"].plural):
            parts = name.lower().split()
            for at in range(len(words) - len(parts) + 1):
                if words[at:at + len(parts)] == parts:
                    key = str(at) if len(parts) == 1 else f"{at}:{at + len(parts)}"
                    found.setdefault(key, one["id"])
    if whole and not found and len(question.things) == 1 and question.structural == "query":
        found["0"] = question.things[0]["id"]
    return found


def scene_graph(scene):
    """GQA's scene graph of one image; "picture" and "unseen" (kept from training) are ours."""
    objects = {}
    for one in scene["objects"]:
        relations = []
        for other in scene["objects"]:
            if other is one:
                continue
            dx, dy = other["cx"] - one["cx"], other["cy"] - one["cy"]
            if abs(dx) >= abs(dy):
                name = "to the left of" if dx > 0 else "to the right of"
            else:
                name = "above" if dy > 0 else "below"
            relations.append({"name": name, "object": other["id"]})
        objects[one["id"]] = {
            "name": one["thing"].name if one["thing"] else "unknown",
            "x": one["x"], "y": one["y"], "w": one["w"], "h": one["h"],
            "attributes": [one["colour"]] if one["colour"] else [], "relations": relations,
            "kinds": one["thing"].kinds() if one["thing"] else [],
            "picture": one["image"], "unseen": one["unseen"]}
    return {"width": scene["size"], "height": scene["size"], "background": scene["background"],
            "objects": objects}
