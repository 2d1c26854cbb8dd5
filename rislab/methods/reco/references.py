"""From an archive and class names to reference vectors. Needs no label, and no picture that is to be segmented.

`Embedder.references` is all of it, and `References` what it leaves: a file by itself, so that it can be made once and handed on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rislab.data.archive import Archive
from rislab.encoders.clip.weights import fingerprint
from rislab.encoders.pretrained import is_whole
from rislab.errors import ConfigError, DataError, one_line
from rislab.files import cache_dir, replacing
from rislab.messages import preparing, progress
from rislab.methods.reco.cosegment import Columns, OwnImage, RefType, cosegment
from rislab.methods.reco.model import ReCo, text_attention
from rislab.nn.weight_files import read_file

CONTEXTS = ("tree", "sky", "building", "road", "person")
STANDS_FOR = {"vegetation": "tree"}
"""A class that takes the vector of a context of another name, as the released code has it."""
TOGETHER = 32
"""Pictures that go through a network at once."""
SECONDS_A_PICTURE = 0.05
"""A rough figure for one core, said before an index is made; the bar then knows better."""
KEPT = 1024
"""Archive pictures whose features are kept for other classes: some 450 MB of DeiT-S/16's and RN50x16's."""
PART = 4096
"""Pictures in a file of the index: so many are lost when it is interrupted."""
FILE = "references.safetensors"
"""The name of references in a folder: the outputs of a stage that makes them."""
VERSION = 1
"""Raise it when the same archive and weights would give another index."""

Encode = Callable[[Sequence[str]], Tensor]
"""Class names -> unit vectors [K, D]."""


@dataclass(frozen=True)
class Making:
    """How references are made; the official defaults, but for `coseg_columns`.

    Attributes:
        k: Pictures of a class.
        archive_size: Side of the square that archive pictures are shown as, in pixels.
        retrieval_size: The same for the retrieval CLIP.
        text_attention: Language guidance.
        context_elimination: Whether patches that look like a context count less.
        contexts: Their names; they are made first, in this order, each without those before it.
        coseg_columns: See `cosegment`.
        own_image: See `cosegment`.
        ref_type: See `cosegment`.
    """

    k: int = 50
    archive_size: int = 224
    retrieval_size: int = 336
    text_attention: bool = True
    context_elimination: bool = True
    contexts: tuple[str, ...] = CONTEXTS
    coseg_columns: Columns = "image"
    own_image: OwnImage = "keep"
    ref_type: RefType = "avg"


@dataclass(frozen=True, eq=False)
class References:
    """A vector for each of K class names.

    Attributes:
        names: The class names.
        vectors: Unit vectors float32 [K, D], on the CPU.
        last_similarity: Cosine of a name and the last of its k pictures, float32 [K]: low where the archive lacks the class.
            NaN where a context's vector was taken, or where it is not known.
        settings: What they were made with.
    """

    names: tuple[str, ...]
    vectors: Tensor
    last_similarity: Tensor
    settings: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        about = {"names": json.dumps(self.names), "settings": json.dumps(self.settings, sort_keys=True)}
        tensors = {"references": self.vectors.contiguous(), "last_similarity": self.last_similarity.contiguous()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, about)


def load(path: Path, width: int) -> References:
    """References of a file: ours, or the official `*_cat_to_img_feature_k*.pkl`, of which no code is run.

    Args:
        path: Of the file, or of a folder with `references.safetensors`.
        width: Channels that they must have: the encoder's.

    Raises:
        DataError: The file is missing, damaged, or holds something else.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: no such file of reference embeddings")
    found = _own(path) if path.suffix == ".safetensors" else _official(path)
    names, vectors = found.names, found.vectors
    if vectors.ndim != 2 or len(names) != len(vectors) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: {len(names)} names and vectors {tuple(vectors.shape)}, expected a vector [D] a name")
    if vectors.shape[1] != width:
        raise DataError(f"{path}: vectors of {vectors.shape[1]} channels, the encoder has {width}")
    if not torch.isfinite(vectors).all() or ((vectors.norm(dim=1) - 1).abs() > 1e-2).any():
        raise DataError(f"{path}: vectors are not of unit length")
    return found


def _own(path: Path) -> References:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        tensors = load_file(path)
        names, settings = tuple(json.loads(about["names"])), json.loads(about["settings"])
        return References(names, tensors["references"], tensors["last_similarity"], settings)
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{path}: no reference embeddings ({one_line(error)[:200]})") from error


def _official(path: Path) -> References:
    """A pickled or torch-saved dict of category to vector [D]; its order is the order of labels."""
    content = read_file(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected a dict of class names and vectors, found a {type(content).__name__}")
    vectors = [torch.as_tensor(value) if not isinstance(value, Tensor) else value for value in content.values()]
    nothing = torch.full((len(vectors),), torch.nan)
    if len({tuple(vector.shape) for vector in vectors}) > 1:
        raise DataError(f"{path}: vectors of {len({v.shape for v in vectors})} shapes")
    return References(tuple(content), torch.stack(vectors).float(), nothing, {})


class Embedder:
    """Makes references of class names, each once.

    Args:
        model: The image sides of the networks, in evaluation mode.
        archive: Where pictures come from.
        retrieval_texts: The retrieval CLIP's vectors of class names.
        dense_texts: Dense CLIP's.
        retrieval_pixels: uint8 [n, 3, S, S] -> pictures as the retrieval CLIP takes them.
        pixels: The same for the encoder and dense CLIP.
        making: How.

    Raises:
        ConfigError: The archive has fewer than k pictures.
    """

    def __init__(
        self,
        model: ReCo,
        archive: Archive,
        retrieval_texts: Encode,
        dense_texts: Encode,
        retrieval_pixels: Callable[[Tensor], Tensor],
        pixels: Callable[[Tensor], Tensor],
        making: Making,
    ) -> None:
        if not 1 <= making.k <= len(archive):
            raise ConfigError(f"model.k is {making.k}, and archive {archive.name} has {len(archive)} pictures")
        self.model, self.archive, self.making = model, archive, making
        self.retrieval_texts, self.dense_texts = retrieval_texts, dense_texts
        self.retrieval_pixels, self.pixels = retrieval_pixels, pixels
        self._made: dict[str, tuple[Tensor, float]] = {}
        self._features: dict[int, tuple[Tensor, Tensor | None]] = {}

    @torch.no_grad()
    def __call__(self, names: Sequence[str]) -> Tensor:
        """References [K, D] of K names, on the model's device."""
        for name in self.making.contexts if self.making.context_elimination else ():
            self._make(name, is_context=True)
        for name in names:
            self._make(name, is_context=False)
        return torch.stack([self._made[self._taken(name)][0] for name in names])

    def references(self, names: Sequence[str]) -> References:
        """References of K names, to be saved."""
        vectors = self(names).cpu()
        known = [self._made[name][1] if name == self._taken(name) else torch.nan for name in names]
        settings = asdict(self.making) | {"archive": self.archive.name, "pictures": len(self.archive)}
        return References(tuple(names), vectors, torch.tensor(known), settings)

    @cached_property
    def index(self) -> Tensor:
        """Unit embeddings [N, D] of all pictures of the archive, on the CPU; kept in the cache folder."""
        return torch.cat([load_file(path)["index"] for path in index_files(self)])

    def retrieved(self, name: str) -> tuple[list[int], float]:
        """Numbers of the k pictures that are nearest to a name, nearest first, and the similarity of the last."""
        similarity = self.index @ self.retrieval_texts([name])[0].cpu()
        best = similarity.topk(self.making.k)
        return best.indices.tolist(), float(best.values[-1])

    def _taken(self, name: str) -> str:
        """The name whose vector a class takes: its own, or a context's that stands for it."""
        other = STANDS_FOR.get(name)
        has_other = self.making.context_elimination and other in self.making.contexts
        return other if other is not None and has_other and name not in self.making.contexts else name

    def _make(self, name: str, is_context: bool) -> None:
        name = name if is_context else self._taken(name)
        if name in self._made:
            return
        making = self.making
        others = making.contexts if making.context_elimination else ()
        if is_context:
            others = others[: others.index(name)]
        numbers, last = self.retrieved(name)
        features, dense = self.features(numbers)
        attention = None if dense is None else text_attention(dense, self.dense_texts([name]))[:, 0]
        contexts = torch.stack([self._made[other][0] for other in others]) if others else features.new_zeros(0, 1)
        found = cosegment(features, attention, contexts, making.coseg_columns, making.own_image, making.ref_type)
        self._made[name] = found.reference, last

    def features(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Encoder features [n, D, h, w] of pictures, and dense CLIP's unit ones where names guide. Classes may share pictures."""
        new = [number for number in dict.fromkeys(numbers) if number not in self._features]
        at = 0
        for some in self.archive.batches(new, TOGETHER, self.making.archive_size, "bilinear"):
            pixels = self.pixels(some)
            features = self.model.features(pixels)
            dense = F.normalize(self.model.dense_features(pixels), dim=1) if self.making.text_attention else None
            for i, number in enumerate(new[at : at + len(some)]):
                self._features[number] = features[i], None if dense is None else dense[i]
            at += len(some)
        found = [self._features[number] for number in numbers]
        dense_found = [dense for _, dense in found if dense is not None]
        self._trim()
        return torch.stack([features for features, _ in found]), torch.stack(dense_found) if dense_found else None

    def _trim(self) -> None:
        """Keep the features of the last pictures only: a large archive has more than memory holds."""
        for number in list(self._features)[: max(0, len(self._features) - KEPT)]:
            del self._features[number]


def index_files(of: Embedder) -> list[Path]:
    """Files with the archive's embeddings by the retrieval CLIP, in order; those that are missing are made now.

    The folder's name holds what they depend on: the archive's files and the tower's weights. Other processes wait meanwhile.
    """
    weights = fingerprint(of.model.retrieval.state_dict())
    side = of.making.retrieval_size
    name = f"{of.archive.digest()[:16]}-{weights[:16]}-{side}-{PART}-v{VERSION}"
    folder = cache_dir() / "archives" / name
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(len(of.archive))
    parts = {folder / f"{start:09d}.safetensors": numbers[start : start + PART] for start in numbers[::PART]}
    if not all(is_whole(path) for path in parts):
        made = sum(len(part) for path, part in parts.items() if is_whole(path))
        preparing(f"index of archive {of.archive.name}", SECONDS_A_PICTURE * (len(numbers) - made), str(folder.parent))
        with FileLock(folder.with_suffix(".lock")), progress(f"index of archive {of.archive.name}") as show:
            for path, part in parts.items():
                if not is_whole(path):
                    batches = of.archive.batches(part, TOGETHER, side, "bicubic")
                    found = torch.cat([of.model.index(of.retrieval_pixels(some)).cpu() for some in batches])
                    with replacing(path) as temporary:
                        save_file({"index": found}, temporary)
                show(part[-1] + 1, len(numbers))
    return list(parts)
