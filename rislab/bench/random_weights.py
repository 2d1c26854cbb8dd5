"""Methods with random weights, for measurements: nothing is fetched, and no file is needed."""

from pathlib import Path
from string import ascii_lowercase, digits
from tempfile import TemporaryDirectory
from typing import Any

from rislab.encoders.bert import tiny
from rislab.encoders.bert.tokens import SPECIAL
from rislab.methods.base import TextSegmenter
from rislab.training.inference import build, without_pretraining

PIECES = 30522
"""Of Google's BERTs."""


def with_random_weights(recipe: dict[str, Any]) -> TextSegmenter:
    """The method of a recipe, without pretrained weights.

    A BERT without a named vocabulary gets one of single characters and placeholders. Its sentences are cut or padded to a fixed
    number of tokens, and weights are random, so which pieces there are changes neither work nor time.

    Args:
        recipe: Class and options.
    """
    recipe = without_pretraining(recipe)
    options = recipe.get("init_args", {})
    bert = options.get("bert")
    if not isinstance(bert, dict) or bert.get("vocabulary") is not None or bert.get("name") == tiny.NAME:
        return build(recipe)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text("".join(f"{piece}\n" for piece in _pieces()))
        return build(recipe | {"init_args": options | {"bert": bert | {"vocabulary": str(file)}}})


def _pieces() -> list[str]:
    characters = ascii_lowercase + digits
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    return pieces + [f"[unused{number}]" for number in range(PIECES - len(pieces))]
