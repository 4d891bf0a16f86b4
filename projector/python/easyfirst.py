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

What fails raises easyfirst.Error, a call that was cancelled easyfirst.Cancelled. Threads may share a model:
calls wait for each other, and other Python threads run meanwhile.
"""

import ctypes
import math
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint64, c_void_p

__all__ = [
    "Answer", "Ask", "Cancellation", "Cancelled", "Complete", "Error", "Image", "Model", "Step", "Summarize", "Token",
    "Translate", "version",
]  # fmt: skip


class Error(Exception):
    """One line: what was found, what was expected, a next step."""


class Cancelled(Error):
    """A call was ended by Cancellation.cancel."""


# ---- The library. ----


class _Error(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 1024)]


class _ModelOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("vision", c_char_p), ("language", c_char_p), ("projector", c_char_p),
        ("length_predictor", c_char_p), ("device", c_char_p), ("dtype", c_char_p), ("threads", c_int),
        ("text_only", c_int),
    ]  # fmt: skip


class _Request(ctypes.Structure):
    _fields_ = [
        ("task", c_int), ("text", c_char_p), ("image", c_void_p), ("from_", c_char_p), ("to", c_char_p),
        ("length", c_int),
    ]  # fmt: skip


class _Token(ctypes.Structure):
    _fields_ = [("id", c_int32), ("piece", c_char_p), ("probability", c_float), ("masked", c_int)]


class _Step(ctypes.Structure):
    _fields_ = [
        ("request", c_size_t), ("hypothesis", c_int), ("step", c_int), ("steps", c_int), ("length", c_int),
        ("tokens", POINTER(_Token)),
    ]  # fmt: skip


_StepCallback = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_Step))


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("strategy", c_char_p), ("steps", c_int), ("beam", c_int), ("samples", c_int),
        ("length_weight", c_float), ("temperature", c_float), ("seed", c_uint64), ("keep_last", c_int),
        ("on_step", _StepCallback), ("user", c_void_p), ("cancellation", c_void_p),
    ]  # fmt: skip


_SONAME = "libeasyfirst.so.0"


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
        ("model_has_length_predictor", c_int, c_void_p),
        ("model_device", c_char_p, c_void_p),
        ("image_open", c_int, c_char_p, place, error),
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
        ("answer_score", c_double, c_void_p, c_size_t),
        ("answer_length", c_int, c_void_p, c_size_t),
        ("answer_tokens", POINTER(_Token), c_void_p, c_size_t),
    ]:
        function = getattr(library, "ef_" + name)
        function.restype = result
        function.argtypes = arguments
    return library


_library = _open_library()


def version():
    """The library's version, such as "0.2"."""
    return _library.ef_version().decode()


def _new(function, *arguments):
    """What a function gives through its last place but one, or its error, raised."""
    error, made = _Error(), c_void_p()
    if function(*arguments, byref(made), byref(error)):
        raise Error(error.text.decode("utf-8", "replace"))
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
    """An image, from a path, the bytes of a file, or pixels; see the module."""

    _closer = staticmethod(_library.ef_image_close)

    def __init__(self, source):
        if isinstance(source, (str, os.PathLike)):
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
    """One place of an answer: id, piece ("▁" for a space), probability (0 where masked), masked."""

    __slots__ = ("id", "masked", "piece", "probability")

    def __init__(self, token):
        self.id = token.id
        self.piece = token.piece.decode("utf-8", "replace")
        self.probability = token.probability
        self.masked = bool(token.masked)

    def __repr__(self):
        return f"Token({self.id}, {self.piece!r}, {self.probability:.3f})"


class Step:
    """A denoising step of one hypothesis: request and hypothesis (from 0), step (1 .. steps), tokens."""

    __slots__ = ("hypothesis", "request", "step", "steps", "tokens")

    def __init__(self, step):
        self.request, self.hypothesis = step.request, step.hypothesis
        self.step, self.steps = step.step, step.steps
        self.tokens = [Token(step.tokens[i]) for i in range(step.length)]

    def __repr__(self):
        return f"Step {self.step} of {self.steps}: " + " ".join(token.piece for token in self.tokens)


class Answer:
    """text (None without an answer), error (None with one), score (mean log-probability), tokens."""

    __slots__ = ("error", "score", "text", "tokens")

    def __init__(self, text=None, error=None, score=-math.inf, tokens=()):
        self.text, self.error, self.score, self.tokens = text, error, score, list(tokens)

    @classmethod
    def of(cls, answers, i):
        text, error = _library.ef_answer_text(answers, i), _library.ef_answer_error(answers, i)
        tokens = _library.ef_answer_tokens(answers, i)
        return cls(
            None if text is None else text.decode("utf-8", "replace"),
            None if error is None else error.decode("utf-8", "replace"),
            _library.ef_answer_score(answers, i),
            [Token(tokens[k]) for k in range(_library.ef_answer_length(answers, i))],
        )

    def __str__(self):
        return self.text if self.text is not None else ""

    def __repr__(self):
        return f"Answer({self.text!r})" if self.error is None else f"Answer(error={self.error!r})"


# ---- Requests. ----


class _Asked:
    def __init__(self, task, text, image=None, source=None, target=None, length=0):
        self.task, self.text, self.image, self.length = task, text, image, length
        self.source, self.target = source, target


def Complete(prompt, length=0, image=None):
    """A prompt as it is; length in tokens, 0: predicted."""
    return _Asked(0, prompt, image, length=length)


def Ask(image, question, length=0):
    return _Asked(1, question, image, length=length)


def Translate(text, source, target, length=0):
    """From one language to another: codes ("de") or names ("German")."""
    return _Asked(2, text, source=source, target=target, length=length)


def Summarize(text, length=0):
    return _Asked(3, text, length=length)


class _Batch:
    """Requests on their way to the library: those whose image or text cannot be had stay behind."""

    def __init__(self, requests):
        self.opened, self.images, self.requests, self.places, self.errors = [], {}, [], [], {}
        for i, asked in enumerate(requests):
            try:
                self.requests.append(self._request(asked))
                self.places.append(i)
            except Error as error:
                self.errors[i] = str(error)

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
        return _Request(
            asked.task, _text(asked.text, "the text"), self._image(asked.image), _text(asked.source, "the language"),
            _text(asked.target, "the language"), asked.length,
        )  # fmt: skip

    def array(self):
        return (_Request * len(self.requests))(*self.requests)

    def step(self, step):
        told = Step(step)
        told.request = self.places[step.request]
        return told

    def answers(self, handle):
        found = [Answer.of(handle, k) for k in range(len(self.requests))]
        made = {**dict(zip(self.places, found)), **{i: Answer(error=error) for i, error in self.errors.items()}}
        return [made[i] for i in sorted(made)]

    def close(self):
        for image in self.images.values():
            image.close()


class Model(_Owner):
    """A model folder, opened. Options: vision, language, projector, length_predictor (paths in place of the
    folder's parts), device ("auto", "cpu", "cuda:N"), dtype ("auto", "f32", "bf16"), threads, text_only."""

    _closer = staticmethod(_library.ef_model_close)

    def __init__(self, folder=None, *, vision=None, language=None, projector=None, length_predictor=None,
                 device=None, dtype=None, threads=0, text_only=False):  # fmt: skip
        options = _ModelOptions(size=ctypes.sizeof(_ModelOptions))
        options.vision, options.language, options.projector = _path(vision), _path(language), _path(projector)
        options.length_predictor = _path(length_predictor)
        options.device, options.dtype = _text(device, "device"), _text(dtype, "dtype")
        options.threads, options.text_only = threads, text_only
        self._handle = _new(_library.ef_model_open, _path(folder), byref(options))

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

    def answer(self, requests, *, strategy=None, steps=0, beam=0, samples=0, length_weight=0.0, temperature=0.0,
               seed=0, keep_last=False, on_step=None, cancellation=None):  # fmt: skip
        """The answers to any number of requests (Ask, Complete, Translate, Summarize), in their order. One that
        cannot be answered has an error, the others are answered as without it. The options are those of
        ef_options; on_step is called with each Step, and what it raises ends the call (and cancels the
        cancellation that was given)."""
        stop, raised = cancellation or Cancellation(), []

        def told(_, step):
            try:
                if not raised:
                    on_step(batch.step(step.contents))
            except BaseException as error:  # KeyboardInterrupt, too: nothing passes through C
                raised.append(error)
                stop.cancel()

        options = _Options(size=ctypes.sizeof(_Options))
        options.strategy, options.steps, options.beam = _text(strategy, "strategy"), steps, beam
        options.samples, options.length_weight, options.temperature = samples, length_weight, temperature
        options.seed, options.keep_last, options.cancellation = seed, keep_last, stop._open()
        if on_step is not None:
            options.on_step = _StepCallback(told)
        batch, error, answers = _Batch(requests), _Error(), c_void_p()
        handle, array = self._open(), batch.array()
        try:
            failed = _library.ef_answer(handle, array, len(array), byref(options), byref(answers), byref(error))
            if raised:
                raise raised[0]
            if failed:
                raise (Cancelled if stop.cancelled else Error)(error.text.decode("utf-8", "replace"))
            return batch.answers(answers)
        finally:
            _library.ef_answers_close(answers)
            batch.close()

    def _one(self, request, options):
        (answer,) = self.answer([request], **options)
        if answer.error is not None:
            raise Error(answer.error)
        return answer

    def ask(self, image, question, length=0, **options):
        """The answer to a question about an image; options as for answer."""
        return self._one(Ask(image, question, length), options)

    def complete(self, prompt, length=0, image=None, **options):
        return self._one(Complete(prompt, length, image), options)

    def translate(self, text, source, target, length=0, **options):
        return self._one(Translate(text, source, target, length), options)

    def summarize(self, text, length=0, **options):
        return self._one(Summarize(text, length), options)
