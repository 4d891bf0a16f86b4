"""easyfirst: masked-diffusion language models that see.

    import easyfirst

    model = easyfirst.Model("model")
    print(model.ask("dog.jpg", "What colour is the dog?"))

    answer = model.translate("Ein Hund schläft.", "de", "en", on_step=print)
    print(answer.text, answer.score, [token.probability for token in answer.tokens])

    for answer in model.answer([easyfirst.Ask("dog.jpg", "Is it asleep?"), easyfirst.Complete("One, two,")]):
        print(answer.text or answer.error)

Over the shared library libeasyfirst (easyfirst.h says more of everything here), which is looked for where
EASYFIRST_LIBRARY says, beside the installed module, in the build folder of the source tree, and where the
system looks. Nothing is compiled, and nothing but Python is needed.

An image is an Image, a file's path (str or os.PathLike), the bytes of a file, or a numpy array (or anything
else with the buffer interface) of 8-bit numbers of shape (height, width, 3), RGB.

What fails raises easyfirst.Error, whose code says of what kind it is, a call that was cancelled
easyfirst.Cancelled. Threads may share a model:
calls wait for each other, and other Python threads run meanwhile.
"""

import ctypes
import math
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p

__all__ = [
    "Answer", "Answers", "Ask", "Cancellation", "Cancelled", "Choice", "Complete", "Error", "Hypothesis", "Image",
    "Model", "Step", "Summarize", "Token", "Translate", "version",
]  # fmt: skip


_CODES = (
    None, "failed", "cancelled", "no device", "device memory", "missing part", "no length", "too long", "skipped",
    "full", "closed", "timeout",
)  # fmt: skip


def _code(number):
    """An ef_code as a text; None where nothing failed."""
    return _CODES[number] if 0 <= number < len(_CODES) else "failed"


class Error(Exception):
    """One line: what was found, what was expected, a next step. code: "failed", "cancelled", "no device",
    "device memory", "missing part", "no length", "too long", "skipped", "full", "closed" or "timeout", as
    ef_code says."""

    def __init__(self, text, code="failed"):
        super().__init__(text)
        self.code = code


class Cancelled(Error):
    """A call was ended by Cancellation.cancel."""


# ---- The library. ----


class _Error(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 1024), ("code", c_int)]

    def exception(self, kind=Error):
        return kind(self.text.decode("utf-8", "replace"), _code(self.code))


_LoadCallback = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_size_t, c_size_t)
_FEATURE_LAYER_DEFAULT = -1000


class _ModelOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("vision", c_char_p), ("language", c_char_p), ("projector", c_char_p),
        ("length_predictor", c_char_p), ("device", c_char_p), ("dtype", c_int), ("threads", c_int),
        ("text_only", c_int), ("feature_layer", c_int), ("pad", c_int), ("from_", c_char_p), ("to", c_char_p),
        ("check_answers", c_int), ("answer_length", c_int), ("on_load", _LoadCallback), ("user", c_void_p),
        ("adapter", c_char_p),
    ]  # fmt: skip


class _Turn(ctypes.Structure):
    _fields_ = [("question", c_char_p), ("answer", c_char_p)]


class _Request(ctypes.Structure):
    _fields_ = [
        ("task", c_int), ("text", c_char_p), ("image", c_void_p), ("from_", c_char_p), ("to", c_char_p),
        ("length", c_int), ("turns", POINTER(_Turn)), ("turn_count", c_size_t), ("choices", POINTER(c_char_p)),
        ("choice_count", c_size_t), ("answer_template", c_char_p),
    ]  # fmt: skip


class _Token(ctypes.Structure):
    _fields_ = [
        ("id", c_int32), ("piece", c_char_p), ("probability", c_float), ("score", c_float), ("masked", c_int),
        ("fixed", c_int),
    ]  # fmt: skip


class _Step(ctypes.Structure):
    _fields_ = [
        ("request", c_size_t), ("hypothesis", c_int), ("step", c_int), ("steps", c_int), ("length", c_int),
        ("tokens", POINTER(_Token)), ("proposals", POINTER(_Token)), ("evaluated", c_int),
    ]  # fmt: skip


_StepCallback = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_Step))


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("strategy", c_char_p), ("steps", c_int), ("beam", c_int), ("samples", c_int),
        ("length_weight", c_float), ("temperature", c_float), ("seed", c_uint64),
        ("long_prompts", c_int), ("batch_tokens", c_int), ("no_canvas_cache", c_int), ("no_kv_cache", c_int),
        ("on_step", _StepCallback), ("user", c_void_p), ("cancellation", c_void_p),
        ("early_stop", c_int),
        ("prefix_cache", c_int),
        ("guidance", c_float), ("choose_by", c_int), ("likelihood_samples", c_int),
    ]  # fmt: skip


class _Hypothesis(ctypes.Structure):
    _fields_ = [
        ("text", c_char_p), ("score", c_double), ("length", c_int), ("sample", c_int), ("steps", c_int),
        ("evaluations", c_int), ("tokens", POINTER(_Token)),
    ]  # fmt: skip


class _Choice(ctypes.Structure):
    _fields_ = [
        ("text", c_char_p), ("probability", c_double), ("score", c_double), ("length_score", c_double),
        ("length", c_int), ("tokens", POINTER(_Token)),
    ]  # fmt: skip


class _Work(ctypes.Structure):
    _fields_ = [
        *[(name, c_double) for name in ("encode_seconds", "prefix_seconds", "decode_seconds")],
        *[(name, c_int64) for name in (
            "images", "answered", "skipped", "shortened", "dropped_tokens", "steps", "evaluations", "forwards",
            "canvases", "rows", "prefix_rows",
        )],
    ]  # fmt: skip


class _Statistics(ctypes.Structure):
    _fields_ = [
        ("load_seconds", c_double), ("peak_memory", c_size_t), ("device_memory", c_size_t),
        ("device_memory_size", c_size_t), ("device_launches", c_uint64), ("device_bytes_up", c_uint64),
        ("device_bytes_down", c_uint64),
    ]  # fmt: skip


def _fields(structure):
    """A structure of numbers as a dict."""
    return {name: getattr(structure, name) for name, _ in structure._fields_}


_SONAME = "libeasyfirst.so.0.3"


def _find_library():
    named = os.environ.get("EASYFIRST_LIBRARY")
    if named:
        return named
    here = os.path.dirname(os.path.realpath(__file__))
    for folder in ("../..", "../../build"):  # from lib/python3/dist-packages, and from projector/python
        path = os.path.join(here, folder, _SONAME)
        if os.path.exists(path):
            return path
    return _SONAME


def _open_library():
    try:
        library = ctypes.CDLL(_find_library())
    except OSError as error:
        why = f"the library {_SONAME} cannot be opened: {error}; name its file in EASYFIRST_LIBRARY"
        raise ImportError(why) from None
    error, place = POINTER(_Error), POINTER(c_void_p)
    for name, result, *arguments in [
        ("version", c_char_p),
        ("model_open", c_int, c_char_p, POINTER(_ModelOptions), place, error),
        ("model_close", None, c_void_p),
        ("model_has_vision", c_int, c_void_p),
        ("model_sure_threshold", c_double, c_void_p),
        ("model_has_length_predictor", c_int, c_void_p),
        ("model_device", c_char_p, c_void_p),
        ("model_part", c_char_p, c_void_p, c_int),
        ("model_context", c_int, c_void_p),
        ("model_image_tokens", c_int, c_void_p),
        ("model_statistics", None, c_void_p, POINTER(_Statistics), c_size_t),
        ("image_open", c_int, c_char_p, place, error),
        ("image_open_for", c_int, c_void_p, c_char_p, place, error),
        ("image_decode", c_int, c_char_p, c_size_t, place, error),
        ("image_from_pixels", c_int, c_void_p, c_int, c_int, c_size_t, place, error),
        ("image_close", None, c_void_p),
        ("image_width", c_int, c_void_p),
        ("image_height", c_int, c_void_p),
        ("cancellation_new", c_int, place, error),
        ("cancellation_close", None, c_void_p),
        ("cancel", None, c_void_p),
        ("cancelled", c_int, c_void_p),
        ("answer", c_int, c_void_p, POINTER(_Request), c_size_t, POINTER(_Options), place, error),
        ("answers_close", None, c_void_p),
        ("answer_text", c_char_p, c_void_p, c_size_t),
        ("answer_error", c_char_p, c_void_p, c_size_t),
        ("answer_code", c_int, c_void_p, c_size_t),
        ("answer_score", c_double, c_void_p, c_size_t),
        ("answer_probability", c_double, c_void_p, c_size_t),
        ("answer_length", c_int, c_void_p, c_size_t),
        ("answer_tokens", POINTER(_Token), c_void_p, c_size_t),
        ("answer_prompt_tokens", c_int, c_void_p, c_size_t),
        ("answer_dropped_tokens", c_int, c_void_p, c_size_t),
        ("answer_dropped_turns", c_int, c_void_p, c_size_t),
        ("answer_evaluations", c_int, c_void_p, c_size_t),
        ("answer_hypotheses", c_int, c_void_p, c_size_t),
        ("answer_hypothesis", POINTER(_Hypothesis), c_void_p, c_size_t, c_int),
        ("answer_best", c_int, c_void_p, c_size_t),
        ("answer_choices", c_size_t, c_void_p, c_size_t),
        ("answer_choice", POINTER(_Choice), c_void_p, c_size_t, c_size_t),
        ("answer_chosen", c_int, c_void_p, c_size_t),
        ("answers_work", POINTER(_Work), c_void_p),
        ("check", c_int, c_void_p, POINTER(_Request), POINTER(_Options), POINTER(c_int), error),
        ("check_task", c_int, c_void_p, c_int, c_int, error),
    ]:
        function = getattr(library, "ef_" + name)
        function.restype = result
        function.argtypes = arguments
    return library


_library = _open_library()


def version():
    """The library's version, such as "0.3"."""
    return _library.ef_version().decode()


def _new(function, *arguments):
    """What a function gives through its last place but one, or its error, raised."""
    error, made = _Error(), c_void_p()
    if function(*arguments, byref(made), byref(error)):
        raise error.exception()
    return made


def _text(text, what):
    """UTF-8 for the library; None stays None."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{what} is a {type(text).__name__}, a str expected")
    if "\0" in text:
        raise Error(f"{what} has a NUL character, at {text.index(chr(0))}: not a text")
    return text.encode("utf-8", "surrogatepass")  # which the library refuses, with its place


_DTYPES = {"auto": 0, "f32": 1, "bf16": 2}
_PADS = {"default": 0, "on": 1, "off": 2}
_LONG_PROMPTS = {"refuse": 0, "skip": 1, "keep-last": 2}
_CHOOSE_BY = {"denoising": 0, "likelihood": 1}


def _choice(word, what, words):
    """The number of a word; None is the first one."""
    if word is None:
        return 0
    if word not in words:
        raise Error(f"{what} is {word!r}: expected one of {', '.join(words)}")
    return words[word]


def _path(path):
    if path is None:
        return None
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise Error("a path has a NUL character")
    return encoded


# ---- Objects. ----


class _Owner:
    """Something of the library's that is closed with the object, or before it by close() or `with`."""

    _handle = None

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            self._closer(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def _open(self):
        if self._handle is None:
            raise Error(f"this {type(self).__name__} is closed")
        return self._handle


class Image(_Owner):
    """An image, from a path, the bytes of a file, or pixels; see the module. With a model, which a path alone
    takes, only what that model sees is kept: large photos take no memory."""

    _closer = staticmethod(_library.ef_image_close)

    def __init__(self, source, model=None):
        if model is not None:
            self._handle = _new(_library.ef_image_open_for, model._open(), _path(source))
        elif isinstance(source, (str, os.PathLike)):
            self._handle = _new(_library.ef_image_open, _path(source))
        elif isinstance(source, (bytes, bytearray)):
            self._handle = _new(_library.ef_image_decode, bytes(source), len(source))
        else:
            self._handle = self._from_pixels(source)

    @staticmethod
    def _from_pixels(source):
        try:
            view = memoryview(source)
        except TypeError:
            kind = type(source).__name__
            raise TypeError(f"an image is a path, bytes, or an array of pixels, not a {kind}") from None
        if view.format != "B" or view.ndim != 3 or view.shape[2] != 3:
            raise Error(f"pixels of type {view.format!r} and shape {view.shape}: 8-bit (height, width, 3) expected")
        height, width, _ = view.shape
        return _new(_library.ef_image_from_pixels, view.tobytes(), width, height, 0)  # tobytes: rows without gaps

    @property
    def width(self):
        return _library.ef_image_width(self._open())

    @property
    def height(self):
        return _library.ef_image_height(self._open())


class Cancellation(_Owner):
    """Ends calls early, from another thread or from on_step: give it to them, then call cancel()."""

    _closer = staticmethod(_library.ef_cancellation_close)

    def __init__(self):
        self._handle = _new(_library.ef_cancellation_new)

    def cancel(self):
        _library.ef_cancel(self._open())

    @property
    def cancelled(self):
        return bool(_library.ef_cancelled(self._open()))


class Token:
    """One place of an answer: id, piece ("▁" for a space), probability (0 where masked), score (its logarithm),
    masked, fixed (given by a template)."""

    __slots__ = ("fixed", "id", "masked", "piece", "probability", "score")

    def __init__(self, token):
        self.id = token.id
        self.piece = token.piece.decode("utf-8", "replace")
        self.probability, self.score = token.probability, token.score
        self.masked, self.fixed = bool(token.masked), bool(token.fixed)

    def __repr__(self):
        return f"Token({self.id}, {self.piece!r}, {self.probability:.3f})"


class Step:
    """A denoising step of one hypothesis: request and hypothesis (from 0), step (1 .. steps), tokens, the model's
    proposals for each, and whether the network was evaluated."""

    __slots__ = ("evaluated", "hypothesis", "proposals", "request", "step", "steps", "tokens")

    def __init__(self, step):
        self.request, self.hypothesis = step.request, step.hypothesis
        self.step, self.steps = step.step, step.steps
        self.tokens = [Token(step.tokens[i]) for i in range(step.length)]
        self.proposals = [Token(step.proposals[i]) for i in range(step.length)]
        self.evaluated = bool(step.evaluated)

    def __repr__(self):
        return f"Step {self.step} of {self.steps}: " + " ".join(token.piece for token in self.tokens)


class Hypothesis:
    """One of the answers that were tried: text, score, tokens, sample, steps, evaluations."""

    __slots__ = ("evaluations", "sample", "score", "steps", "text", "tokens")

    def __init__(self, hypothesis):
        self.text, self.score = hypothesis.text.decode("utf-8", "replace"), hypothesis.score
        self.sample, self.steps, self.evaluations = hypothesis.sample, hypothesis.steps, hypothesis.evaluations
        self.tokens = [Token(hypothesis.tokens[k]) for k in range(hypothesis.length)]

    def __repr__(self):
        return f"Hypothesis({self.text!r}, {self.score:.3f})"


class Choice:
    """One of the given answers: text, probability (among them), score (log-likelihood), length_score (of its
    length, in it), tokens."""

    __slots__ = ("length_score", "probability", "score", "text", "tokens")

    def __init__(self, choice):
        self.text, self.probability = choice.text.decode("utf-8", "replace"), choice.probability
        self.score, self.length_score = choice.score, choice.length_score
        self.tokens = [Token(choice.tokens[k]) for k in range(choice.length)]

    def __repr__(self):
        return f"Choice({self.text!r}, {self.probability:.4f})"


class Answer:
    """text (None without an answer), error and code (None with one), score (mean log-probability), tokens;
    probability that it is right (nan without an answer, or a calibration in the model's folder);
    hypotheses, all that were tried, and best, which of them this is (-1 without an answer); choices, of a request
    that has some, and chosen, which of them this is (-1: none); evaluations of the network; prompt_tokens, and
    dropped_tokens of them that were not read; dropped_turns of the request's turns."""

    __slots__ = (
        "best", "choices", "chosen", "code", "dropped_tokens", "dropped_turns", "error", "evaluations", "hypotheses",
        "probability", "prompt_tokens", "score", "text", "tokens",
    )  # fmt: skip

    def __init__(self, error, code="failed"):
        self.text, self.error, self.code, self.score, self.tokens = None, error, code, -math.inf, []
        self.probability = math.nan
        self.hypotheses, self.best = [], -1
        self.choices, self.chosen = [], -1
        self.evaluations = self.prompt_tokens = self.dropped_tokens = self.dropped_turns = 0

    @classmethod
    def of(cls, answers, i):
        error = _library.ef_answer_error(answers, i)
        error = None if error is None else error.decode("utf-8", "replace")
        made = cls(error, _code(_library.ef_answer_code(answers, i)))
        count = _library.ef_answer_hypotheses(answers, i)
        made.hypotheses = [Hypothesis(_library.ef_answer_hypothesis(answers, i, h).contents) for h in range(count)]
        made.best = _library.ef_answer_best(answers, i)
        count = _library.ef_answer_choices(answers, i)
        made.choices = [Choice(_library.ef_answer_choice(answers, i, c).contents) for c in range(count)]
        made.chosen = _library.ef_answer_chosen(answers, i)
        made.evaluations = _library.ef_answer_evaluations(answers, i)
        made.prompt_tokens = _library.ef_answer_prompt_tokens(answers, i)
        made.dropped_tokens = _library.ef_answer_dropped_tokens(answers, i)
        made.dropped_turns = _library.ef_answer_dropped_turns(answers, i)
        if made.best >= 0:
            best = made.hypotheses[made.best]
            made.text, made.score, made.tokens = best.text, best.score, best.tokens
            made.probability = _library.ef_answer_probability(answers, i)
        return made

    def __str__(self):
        return self.text if self.text is not None else ""

    def __repr__(self):
        return f"Answer({self.text!r})" if self.error is None else f"Answer(error={self.error!r})"


class Answers(list):
    """A list of Answer; work is a dict of what the call did, as ef_work has it: seconds, images, steps, rows."""

    def __init__(self, answers, work):
        super().__init__(answers)
        self.work = work


# ---- Requests. ----


class _Asked:
    def __init__(
        self, task, text, image=None, source=None, target=None, length=0, turns=(), choices=None, template=None
    ):
        self.task, self.text, self.image, self.length, self.turns = task, text, image, length, turns
        self.source, self.target, self.choices, self.template = source, target, choices, template


def Complete(prompt, length=0, image=None, turns=(), choices=None, template=None):
    """A prompt as it is; length in tokens, 0: predicted; turns: earlier (question, answer) of a conversation. With
    choices, a list of texts, the answer is the likeliest of these, here and in the other requests. template: the
    answer's text with gaps to be filled in, as "The ___ is ___{2}." (ef_request says more); the prompt may be ""
    then."""
    return _Asked(0, prompt, image, length=length, turns=turns, choices=choices, template=template)


def Ask(image, question, length=0, turns=(), choices=None, template=None):
    return _Asked(1, question, image, length=length, turns=turns, choices=choices, template=template)


def Translate(text, source, target, length=0, choices=None):
    """From one language to another: codes ("de") or names ("German")."""
    return _Asked(2, text, source=source, target=target, length=length, choices=choices)


def Summarize(text, length=0, choices=None):
    return _Asked(3, text, length=length, choices=choices)


def _choices(choices):
    """The library's list of texts, at least one place long: an empty list is refused, not ignored."""
    if choices is None:
        return None, 0
    if isinstance(choices, (str, bytes)):
        raise TypeError(f"choices are a {type(choices).__name__}, a list of texts expected")
    texts = [_text(text, "a choice") for text in choices]
    return (c_char_p * (len(texts) + 1))(*texts), len(texts)


class _Batch:
    """Requests on their way to the library: those whose image or text cannot be had stay behind."""

    def __init__(self, requests):
        self.opened, self.images, self.requests, self.places, self.errors = [], {}, [], [], {}
        for i, asked in enumerate(requests):
            try:
                self.requests.append(self._request(asked))
                self.places.append(i)
            except Error as error:
                self.errors[i] = Answer(str(error), error.code)

    def _image(self, source):
        """The library's image; what is not one yet is opened once for all requests with the same object."""
        if source is None:
            return None
        if isinstance(source, Image):
            self.opened.append(source)  # which lives as long as the call
            return source._open()
        key = os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)
        if key not in self.images:
            self.images[key] = Image(source)
        return self.images[key]._open()

    def _request(self, asked):
        turns = [_Turn(_text(q, "a turn's question"), _text(a, "a turn's answer")) for q, a in asked.turns]
        return _Request(
            asked.task, _text(asked.text, "the text"), self._image(asked.image), _text(asked.source, "the language"),
            _text(asked.target, "the language"), asked.length, (_Turn * len(turns))(*turns), len(turns),
            *_choices(asked.choices), _text(asked.template, "the template"),
        )  # fmt: skip

    def array(self):
        return (_Request * len(self.requests))(*self.requests)

    def step(self, step):
        told = Step(step)
        told.request = self.places[step.request]
        return told

    def answers(self, handle):
        found = [Answer.of(handle, k) for k in range(len(self.requests))]
        made = {**dict(zip(self.places, found)), **self.errors}
        return Answers([made[i] for i in sorted(made)], _fields(_library.ef_answers_work(handle).contents))

    def close(self):
        for image in self.images.values():
            image.close()




def _options(strategy=None, steps=0, beam=0, samples=0, length_weight=0.0, temperature=0.0, seed=0,
             long_prompts="refuse", batch_tokens=0, canvas_cache=True, kv_cache=True, early_stop=0,
             prefix_cache=0, guidance=0.0, choose_by="denoising", likelihood_samples=0):  # fmt: skip
    """ef_options, without callback and cancellation."""
    options = _Options(size=ctypes.sizeof(_Options))
    options.strategy, options.steps, options.beam = _text(strategy, "strategy"), steps, beam
    options.samples, options.length_weight, options.temperature = samples, length_weight, temperature
    options.seed, options.long_prompts, options.batch_tokens = seed, _choice(long_prompts, "long_prompts", _LONG_PROMPTS), batch_tokens
    options.early_stop = early_stop
    options.prefix_cache, options.guidance = prefix_cache, guidance
    options.choose_by = _choice(choose_by, "choose_by", _CHOOSE_BY)
    options.likelihood_samples = likelihood_samples
    options.no_canvas_cache, options.no_kv_cache = not canvas_cache, not kv_cache
    return options


class Model(_Owner):
    """A model folder, opened. Options: vision, language, projector, length_predictor (paths in place of the
    folder's parts), device ("auto", "cpu", "cuda:N"), dtype ("auto", "f32", "bf16"), threads, text_only,
    feature_layer (of the vision tower), pad ("on", "off"), source and target (languages that it must translate),
    answer_length (tokens of answers that it must be able to give, 0: of predicted length), on_load, called
    with (path, done, all) while large weights are loaded, and adapter (a folder with a LoRA adapter in PEFT's
    format, merged into the weights)."""

    _closer = staticmethod(_library.ef_model_close)

    def __init__(self, folder=None, *, vision=None, language=None, projector=None, length_predictor=None,
                 device=None, dtype=None, threads=0, text_only=False, feature_layer=None, pad=None, source=None,
                 target=None, answer_length=None, on_load=None, adapter=None):  # fmt: skip
        options = _ModelOptions(size=ctypes.sizeof(_ModelOptions))
        options.vision, options.language, options.projector = _path(vision), _path(language), _path(projector)
        options.length_predictor, options.adapter = _path(length_predictor), _path(adapter)
        options.device, options.dtype = _text(device, "device"), _choice(dtype, "dtype", _DTYPES)
        options.threads, options.text_only = threads, text_only
        options.feature_layer = _FEATURE_LAYER_DEFAULT if feature_layer is None else feature_layer
        options.pad, options.from_, options.to = _choice(pad, "pad", _PADS), _text(source, "source"), _text(target, "target")
        options.check_answers, options.answer_length = answer_length is not None, answer_length or 0
        raised = []

        def told(_, path, done, size):
            try:
                on_load(None if path is None else os.fsdecode(path), done, size)
            except BaseException as error:  # nothing passes through C
                raised.append(error)

        if on_load is not None:
            options.on_load = _LoadCallback(told)
        self._handle = _new(_library.ef_model_open, _path(folder), byref(options))
        if raised:
            self.close()
            raise raised[0]

    @property
    def device(self):
        """What it computes on, as "CPU, 2 threads, avx512, bf16"."""
        return _library.ef_model_device(self._open()).decode()

    @property
    def has_vision(self):
        return bool(_library.ef_model_has_vision(self._open()))

    @property
    def has_length_predictor(self):
        return bool(_library.ef_model_has_length_predictor(self._open()))

    @property
    def sure_threshold(self):
        """The probability below which it is not sure of an answer about an image; nan without a calibration."""
        return _library.ef_model_sure_threshold(self._open())

    @property
    def context(self):
        """Tokens that it reads at most: <s>, image, prompt, answer and </s> together."""
        return _library.ef_model_context(self._open())

    @property
    def image_tokens(self):
        return _library.ef_model_image_tokens(self._open())

    @property
    def parts(self):
        """A line about each part that it has: a dict."""
        names = ("language", "vision", "projector", "length_predictor")
        lines = [_library.ef_model_part(self._open(), i) for i in range(len(names))]
        return {name: line.decode("utf-8", "replace") for name, line in zip(names, lines) if line is not None}

    @property
    def statistics(self):
        """Seconds of loading, memory, work of the GPU: a dict, as ef_statistics has it."""
        statistics = _Statistics()
        _library.ef_model_statistics(self._open(), byref(statistics), ctypes.sizeof(statistics))
        return _fields(statistics)

    def check(self, request, **options):
        """The number of tokens of a request's prompt, or why it could not be answered, raised. Nothing is
        computed; an Ask may have None for its image, which stands for any."""
        tokens, error, batch, made = c_int(), _Error(), _Batch([]), _options(**options)
        try:
            asked = batch._request(request)
            if _library.ef_check(self._open(), byref(asked), byref(made), byref(tokens), byref(error)):
                raise error.exception()
            return tokens.value
        finally:
            batch.close()

    def answer(self, requests, *, on_step=None, cancellation=None, **options):
        """The answers to any number of requests (Ask, Complete, Translate, Summarize), in their order. One that
        cannot be answered has an error, the others are answered as without it. The options are those of
        ef_options: strategy, steps, beam, samples, length_weight, temperature, seed, long_prompts ("refuse",
        "skip", "keep-last"), batch_tokens, canvas_cache, kv_cache, early_stop, prefix_cache, guidance,
        choose_by ("denoising", "likelihood"), likelihood_samples; on_step is called with each Step, and what it
        raises ends the call (and cancels the cancellation that was given)."""
        made = _options(**options)
        stop, raised = cancellation or Cancellation(), []

        def told(_, step):
            try:
                if not raised:
                    on_step(batch.step(step.contents))
            except BaseException as error:  # KeyboardInterrupt, too: nothing passes through C
                raised.append(error)
                stop.cancel()

        made.cancellation = stop._open()
        if on_step is not None:
            made.on_step = _StepCallback(told)
        batch, error, answers = _Batch(requests), _Error(), c_void_p()
        handle, array = self._open(), batch.array()
        try:
            failed = _library.ef_answer(handle, array, len(array), byref(made), byref(answers), byref(error))
            if raised:
                raise raised[0]
            if failed:
                raise error.exception(Cancelled if stop.cancelled else Error)
            return batch.answers(answers)
        finally:
            _library.ef_answers_close(answers)
            batch.close()

    def _one(self, request, options):
        (answer,) = self.answer([request], **options)
        if answer.error is not None:
            raise Error(answer.error, answer.code)
        return answer

    def ask(self, image, question, length=0, **options):
        """The answer to a question about an image; options as for answer."""
        return self._one(Ask(image, question, length), options)

    def complete(self, prompt, length=0, image=None, **options):
        return self._one(Complete(prompt, length, image), options)

    def choose(self, text, choices, image=None, **options):
        """The likeliest of the choices as the answer to a question about an image, or to a prompt; its choices have
        the probability of each."""
        request = Complete(text, choices=choices) if image is None else Ask(image, text, choices=choices)
        return self._one(request, options)

    def translate(self, text, source, target, length=0, **options):
        return self._one(Translate(text, source, target, length), options)

    def summarize(self, text, length=0, **options):
        return self._one(Summarize(text, length), options)
