"""BERTs by name and weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from rislab.encoders.bert import tiny
from rislab.encoders.bert.model import BERT, Sizes
from rislab.encoders.bert.names import from_transformers
from rislab.encoders.bert.tokens import WordPiece, read_vocabulary
from rislab.encoders.weight_sources import absent_for_none, hub_file, named_file
from rislab.errors import ConfigError, DataError, brief, nearest
from rislab.nn.weight_files import fits, read_weights
from rislab.paths import user_path

SIZES: dict[str, Sizes] = {
    "bert-base-uncased": {"width": 768, "layers": 12, "heads": 12, "hidden": 3072},
    "bert-large-uncased": {"width": 1024, "layers": 24, "heads": 16, "hidden": 4096},
    tiny.NAME: tiny.SIZES,
}
HUB = "google-bert"
"""Owner of Google's weights on the Hugging Face hub."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PIECES = "vocab.txt"


@dataclass(frozen=True)
class BERTSpec:
    """A BERT by name and weights: ``{name: bert-base-uncased, pretrained: hub}``.

    Attributes:
        name: `bert-base-uncased`, `bert-large-uncased` or `rislab-tiny-BERT`.
        pretrained: `hub` for Google's weights from the Hugging Face hub; a file of weights with transformers' names, or the
            folder with it; `toy` for the tiny one; None for random weights.
        vocabulary: A `vocab.txt`. None: the one in the folder of the weights, else the hub's; the tiny one has its own.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {
        "rislab.encoders.bert.tiny.VERSION": {"name": "rislab-tiny-BERT"}
    }

    name: str
    pretrained: str | None = None
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained", "vocabulary")


def load(
    spec: BERTSpec,
    max_tokens: int = 20,
    keeps_end: bool = False,
    pooler: bool = False,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
) -> BERT:
    """The named BERT in float32, with its tokenizer.

    Args:
        spec: Which.
        max_tokens: Tokens of a sentence, [CLS] and [SEP] included.
        keeps_end: Whether a sentence that is cut ends with [SEP].
        pooler: Whether the sentence goes through the pooler.
        dropout: See `BERT`.
        attention_dropout: See `BERT`.

    Raises:
        ConfigError: Unknown name, unavailable weights or vocabulary, or more tokens than positions.
        DataError: A file without weights or vocabulary of this BERT.
    """
    if spec.name not in SIZES:
        raise ConfigError(f"bert.name {brief(spec.name)} is none of {', '.join(SIZES)}{nearest(str(spec.name), SIZES)}")
    if spec.pretrained == "toy" and spec.name != tiny.NAME:
        raise ConfigError(f"bert.pretrained 'toy' belongs to {tiny.NAME}, {spec.name} has no toy weights")
    file = _weights(spec)
    path, pieces = _vocabulary(spec, file)
    vocab_size = len(pieces) if spec.name == tiny.NAME else 30522
    if len(pieces) != vocab_size:
        raise DataError(f"{path}: {len(pieces)} word pieces, {spec.name} has {vocab_size}")
    model = BERT(
        WordPiece(pieces, keeps_end),
        max_tokens,
        pooler=pooler,
        dropout=dropout,
        attention_dropout=attention_dropout,
        vocab_size=vocab_size,
        **SIZES[spec.name],
    )
    positions = model.embeddings.position_embeddings.num_embeddings
    if not 2 <= max_tokens <= positions:
        raise ConfigError(
            f"{max_tokens} tokens a sentence: {spec.name} has {positions} positions, expected 2 to {positions}"
        )
    if file is not None:
        state: dict[str, Tensor] = from_transformers(read_weights(file), pooler)
        fits(file, state, model.state_dict())
        model.load_state_dict(state)
    return model


def _weights(spec: BERTSpec) -> Path | None:
    """The file of weights; None for random ones.

    Raises:
        ConfigError: Neither a file nor a known word; weights that cannot be fetched.
    """
    if spec.pretrained is None:
        return None
    if spec.pretrained == "toy":
        return tiny.pretrained_path()
    if spec.pretrained == "hub":
        return _fetched(spec.name, WEIGHTS[0], "bert.pretrained: /path/to/model.safetensors")
    path = user_path(spec.pretrained)
    if path.is_dir():
        found = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"bert.pretrained {spec.pretrained!r}: a folder with none of {', '.join(WEIGHTS)}")
        return found
    return named_file("bert.pretrained", spec.pretrained, "one, a folder, hub, toy or null")


def _vocabulary(spec: BERTSpec, weights: Path | None) -> tuple[Path, list[str]]:
    """The word pieces and their file."""
    if spec.name == tiny.NAME:
        path = tiny.VOCABULARY
    elif spec.vocabulary is not None:
        path = user_path(spec.vocabulary)
    elif weights is not None and (weights.parent / PIECES).is_file():
        path = weights.parent / PIECES
    else:
        path = _fetched(spec.name, PIECES, "bert.vocabulary: /path/to/vocab.txt")
    return path, read_vocabulary(path)


def _fetched(name: str, file: str, instead: str) -> Path:
    """A file of Google's BERT, from the hub or its cache.

    Raises:
        ConfigError: The file is in neither, or the tiny BERT is meant, which the hub does not have.
    """
    if name == tiny.NAME:
        raise ConfigError(f"bert.pretrained 'hub': {name} has only toy weights")
    return hub_file(f"{HUB}/{name}", file, instead)
