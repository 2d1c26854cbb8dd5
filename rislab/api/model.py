"""A loaded method that answers texts about pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from rislab.api.answers import Answer, Answers
from rislab.api.pictures import Picture, check, name_of, read
from rislab.errors import ConfigError, brief

if TYPE_CHECKING:
    from rislab.methods.base import TextSegmenter

SEVERAL = (list, tuple)
"""What counts as several pictures or texts; a text is a sequence, too, and is one text."""


class Model:
    """A method with its weights; `rislab.load` makes it.

    Args:
        network: In evaluation mode, on its device.
        method: Its name, as `rislab methods` lists it.
    """

    def __init__(self, network: "TextSegmenter", method: str) -> None:
        self.network, self.method = network, method

    def __repr__(self) -> str:
        return f"Model({self.method} on {self.device})"

    @property
    def device(self) -> str:
        """`cpu`, `cuda:0` ..."""
        return str(self.network.device)

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The class names of a method that knows no others; None for one that takes any text."""
        return self.network.vocabulary

    @overload
    def segment(
        self,
        picture: Picture,
        texts: str | Sequence[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        background: bool = False,
    ) -> Answers: ...

    @overload
    def segment(
        self,
        picture: list[Picture] | tuple[Picture, ...],
        texts: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        classes: Sequence[str] | None = None,
        background: bool = False,
    ) -> list[Answers]: ...

    def segment(
        self,
        picture: Picture | list[Picture] | tuple[Picture, ...],
        texts: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        classes: Sequence[str] | None = None,
        background: bool = False,
    ) -> Answers | list[Answers]:
        """Masks of sentences, or one class name for each pixel.

        Args:
            picture: A path, a PIL image, a uint8 array [h, w, 3] in RGB; or a list of pictures.
            texts: One sentence; a list of sentences, for each picture the same; for a list of pictures also one list a picture.
            classes: Class names in place of sentences: each pixel gets one of them.
            background: With classes: a pixel may be none of them.

        Returns:
            Answers of the picture, or a list of them for a list of pictures.

        Raises:
            ConfigError: No texts, empty ones, wrong types; a name that is no class of a closed vocabulary.
            DataError: A picture that is missing or damaged.
        """
        several = isinstance(picture, SEVERAL)
        pictures = list(picture) if isinstance(picture, SEVERAL) else [picture]
        if not several:
            check(picture)
        names = _class_names(classes, texts, background)
        wanted = [[]] * len(pictures) if names else _texts_of(texts, len(pictures), several)
        found = [
            self._segment(each, f"picture {number}" if several else "picture", mine, names, background)
            for number, (each, mine) in enumerate(zip(pictures, wanted, strict=True))
        ]
        return found if several else found[0]

    def _segment(self, given: Picture, where: str, texts: list[str], names: list[str], background: bool) -> Answers:
        from rislab.training import inference

        image, name = read(given, where), name_of(given)
        segments = (
            inference.segment_classes(self.network, image, names, background)
            if names
            else inference.segment(self.network, image, texts)
        )
        return Answers(image, name, [Answer(each.text, each.mask, each.score, name, image) for each in segments])


def _class_names(classes: object, texts: object, background: bool) -> list[str]:
    """The class names that were given; empty where sentences were. Raises ConfigError."""
    if classes is None:
        if texts is None:
            raise ConfigError('nothing to segment: give texts="the red cup", or classes=["dog", "cat"]')
        if background:
            raise ConfigError("background belongs to classes")
        return []
    if texts is not None:
        raise ConfigError("texts and classes are both given; expected one of them")
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ConfigError(f"classes is {brief(classes)}, expected a list of names")
    names = [_checked(name, f"classes[{number}]").strip() for number, name in enumerate(classes)]
    if not names:
        raise ConfigError("classes is empty, expected at least one name")
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ConfigError(f"classes: {twice!r} is given more than once; a pixel gets one of the names")
    return names


def _texts_of(texts: object, pictures: int, several: bool) -> list[list[str]]:
    """The texts of each picture. Raises ConfigError."""
    if isinstance(texts, str):
        return [[_checked(texts, "texts")]] * pictures
    if not isinstance(texts, Sequence):
        raise ConfigError(f"texts is a {type(texts).__name__}, expected a text or a list of texts")
    if not texts:
        raise ConfigError("texts is empty, expected at least one text")
    nested = [isinstance(each, SEVERAL) for each in texts]
    if not any(nested):
        return [[_checked(text, f"texts[{number}]") for number, text in enumerate(texts)]] * pictures
    if not all(nested):
        mixed = nested.index(nested[0] is False)
        raise ConfigError(f"texts[{mixed}] is {brief(texts[mixed])}: expected texts alone, or lists of texts alone")
    if not several:
        raise ConfigError("texts is a list of lists, which belongs to a list of pictures; expected a list of texts")
    if len(texts) != pictures:
        raise ConfigError(f"texts has {len(texts)} lists for {pictures} pictures; expected one list a picture")
    for number, each in enumerate(texts):
        if not each:
            raise ConfigError(f"texts[{number}] is empty, expected at least one text")
    return [[_checked(text, f"texts[{i}][{k}]") for k, text in enumerate(each)] for i, each in enumerate(texts)]


def _checked(text: object, where: str) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"{where} is a {type(text).__name__}, expected a text")
    if not text.strip():
        raise ConfigError(f"{where} is empty, expected a text")
    return text
