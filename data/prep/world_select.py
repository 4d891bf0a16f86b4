"""Which questions a scene is asked: in training often what is hard, in tests every subject."""

from world_describe import describe, see
from world_places import (
    height_query,
    relation_choose,
    relation_name,
    relation_query,
    relation_verify,
    side_query,
    side_verify,
    size_choose,
    size_most,
    size_verify,
    where_query,
)
from world_questions import (
    background_colour,
    background_pattern,
    background_verify,
    choose_colour,
    choose_this,
    colour_on_side,
    colour_query,
    count_all,
    count_kind,
    count_several,
    count_thing,
    count_verify,
    exist_alias_pair,
    exist_choose,
    exist_kind_pair,
    exist_pair,
    kind_choose,
    kind_query,
    name_beside,
    name_of_colour,
    name_of_kind,
    name_of_kind_on_side,
    name_on_side,
    name_only,
    nothing_on_side,
    pattern_verify,
    verify_colour,
    verify_this_pair,
)
from world_unknown import existence_denied, not_there, unanswerable, unnamed, unnamed_seen

# subject: how often training asks it, how often a test does, makers with their shares
SUBJECTS = {
    "existence": (1.2, 1.3, ((exist_pair, 5), (exist_alias_pair, 1.5), (exist_kind_pair, 2),
                             (exist_choose, 1),
                             (verify_this_pair, 2), (choose_this, 1))),
    "naming": (2.4, 1.5, ((name_only, 3), (name_on_side, 4), (name_of_kind, 2), (name_of_colour, 1),
                          (name_of_kind_on_side, 1), (name_beside, 0.5),
                          (relation_name, 2), (nothing_on_side, 0.5))),
    "kind": (0.5, 0.4, ((kind_query, 1), (kind_choose, 1))),
    "number": (1.6, 1.5, ((count_thing, 3), (count_all, 2), (count_kind, 1), (count_verify, 1),
                          (count_several, 0.6))),
    "colour": (1.2, 0.8, ((colour_query, 3), (colour_on_side, 1), (verify_colour, 1),
                          (choose_colour, 1))),
    "background": (0.8, 1.2, ((background_colour, 3), (background_pattern, 2),
                              (background_verify, 1), (pattern_verify, 1))),
    "position": (3.0, 1.3, ((side_query, 2), (height_query, 2), (where_query, 2),
                            (side_verify, 2))),
    "relation": (3.2, 2.2, ((relation_verify, 3), (relation_choose, 2), (relation_query, 2))),
    "size": (1.3, 2.6, ((size_choose, 3), (size_verify, 2), (size_most, 1))),
    "description": (1.2, 0.0, ((describe, 1), (see, 2))),
    "unknown": (0.3, 0.0, ((not_there, 3), (unanswerable, 2))),
}
# What is asked of images in which nothing is known.
NAMELESS = ((unnamed, 3), (unnamed_seen, 2), (unanswerable, 1), (existence_denied, 1),
            (background_colour, 1))
UNKNOWN_TEST = ((not_there, 3), (unanswerable, 2))
# Questions with an answer, in the wordings of those without.
KNOWN_TEST = ((name_only, 3), (name_on_side, 3), (colour_query, 2), (where_query, 2),
              (side_query, 1), (height_query, 1), (relation_verify, 1), (size_choose, 1))


def draw(options, rng):
    return rng.choices([one for one, _ in options], [weight for _, weight in options])[0]


def collect(found, made):
    """Adds a question, or several that belong together, unless something like it was asked."""
    made = made if isinstance(made, list) else [made]
    made = [question for question in made if question]
    old = {question.key for question in found if question.things}
    texts = {question.en_wordings[0] for question in found}
    if any(q.key in old or q.en_wordings[0] in texts for q in made):
        return False
    found += made
    return bool(made)


def questions_train(scene, number, rng):
    """About `number` questions."""
    found = []
    if not scene.known:
        while len(found) < number // 2 and collect(found, draw(NAMELESS, rng)(scene, rng)):
            pass
        return found
    options = [(name, weight) for name, (weight, _, _) in SUBJECTS.items()]
    for _ in range(4 * number):
        if len(found) >= number:
            break
        collect(found, draw(SUBJECTS[draw(options, rng)][2], rng)(scene, rng))
    rng.shuffle(found)
    return found


def questions_test(scene, number, rng):
    """Of each subject one question at most; of those that come in pairs one of the two."""
    found, options = [], [(name, weight) for name, (_, weight, _) in SUBJECTS.items() if weight]
    while len(found) < number and options:
        name = draw(options, rng)
        options = [option for option in options if option[0] != name]
        for _ in range(6):
            made = draw(SUBJECTS[name][2], rng)(scene, rng)
            if isinstance(made, list):
                made = rng.choice(made) if made else None
            if made:
                found.append(made)
                break
    return found


def questions_listed(scene, number, makers, rng, wanted=None):
    """Questions of these makers alone; wanted: a test that they have to pass."""
    found = []
    for _ in range(30):
        if len(found) >= number:
            break
        maker = draw(makers, rng)
        made = unanswerable(scene, rng, True) if maker is unanswerable else maker(scene, rng)
        if made and (wanted is None or wanted(made)):
            collect(found, made)
    return found


def questions_unknown(scene, number, rng):
    """What the model does not know, for the test of that."""
    def is_unknown(question):
        return question.detailed.startswith("unknown")
    if not scene.known:
        return questions_listed(scene, number, ((unnamed, 3), (unnamed_seen, 1)), rng)
    if any(not one["thing"] for one in scene.objects):
        return questions_listed(scene, 1, ((name_on_side, 1),), rng, is_unknown) or \
            questions_listed(scene, number, UNKNOWN_TEST, rng)
    return questions_listed(scene, number, UNKNOWN_TEST, rng)


def questions_known(scene, number, rng):
    return questions_listed(scene, number, KNOWN_TEST, rng)
