"""What is wrong with a file of CLIP weights: cut off, of another size, of another training, read with another activation.

Text embeddings of OpenAI's ViT-B/32 for COCO's class names (`golden/`) tell its weights, tokenizer and activation together.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from rislab.encoders.clip import tiny
from rislab.encoders.clip.dense import Prompts
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.encoders.clip.weights import CLIPFile, read_clip
from rislab.errors import ConfigError, DataError, nearest

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_OF = "ViT-B-32"
"""Whose embeddings a folder holds that does not say so in `model.txt`."""
SAME = 0.999
"""Least cosine of embeddings that are the same but for half precision, which alone leaves 0.9999."""


CLEAR = 3.0
"""So many times further off must the embeddings be with one activation for the other to be the right one."""
AGAIN = "it was not fetched whole: fetch it again"
SHORT = ("its storages are larger than the file", "it ends early")
"""What `nn.weight_files` says of a short file of torch's first format."""


@dataclass(frozen=True)
class Shape:
    """What of a CLIP's size its weights show.

    Attributes:
        text_width: Channels of the text tower.
        text_layers: Its blocks.
        embed_dim: Channels of the shared space.
        context: Most tokens of a text.
        vocabulary: Tokens that are known.
        tower: Of pictures, `ViT` or `ResNet`.
        width: Its channels; a ResNet's are those of its stem's last convolution.
        layers: Its blocks; a ResNet's by stage.
        patch: Side of a ViT's patch; 0 of a ResNet.
    """

    text_width: int
    text_layers: int
    embed_dim: int
    context: int
    vocabulary: int
    tower: str
    width: int
    layers: tuple[int, ...]
    patch: int

    def __str__(self) -> str:
        blocks = "-".join(map(str, self.layers))
        of_patch = f", patch {self.patch}" if self.patch else ""
        return (
            f"a text tower of {self.text_layers} blocks and width {self.text_width}, a {self.tower} of {blocks} blocks and "
            f"width {self.width}{of_patch}, {self.embed_dim} shared channels"
        )


def shape_of(path: Path, state: Mapping[str, Tensor]) -> Shape:
    """The size of the CLIP whose weights these are.

    Args:
        path: Of the weights, for the message.
        state: Under OpenAI's names.

    Raises:
        DataError: No weights of a CLIP with a text tower of its own.
    """
    try:
        vocabulary, text_width = state["token_embedding.weight"].shape
        embed_dim = state["text_projection"].shape[1]
        context = len(state["positional_embedding"])
        text_layers = _count(state, "transformer.resblocks.")
        if "visual.layer1.0.conv1.weight" in state:
            stages = tuple(_count(state, f"visual.layer{number}.") for number in range(1, 5))
            width = len(state["visual.conv3.weight"])
            return Shape(text_width, text_layers, embed_dim, context, vocabulary, "ResNet", width, stages, 0)
        width, _, patch, _ = state["visual.conv1.weight"].shape
        layers = (_count(state, "visual.transformer.resblocks."),)
        return Shape(text_width, text_layers, embed_dim, context, vocabulary, "ViT", width, layers, patch)
    except (KeyError, ValueError, IndexError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else "its tensors have other dimensions"
        raise DataError(f"{path}: no weights of a CLIP with a text tower: {what}") from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Blocks whose names begin with a prefix and a number."""
    return len({key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)})


def shape_of_model(name: str) -> Shape | None:
    """The size of an open_clip model; None of one that is no CLIP of OpenAI's kind."""
    config = open_clip.get_model_config(name) or {}
    text, vision = config.get("text_cfg", {}), config.get("vision_cfg", {})
    layers, width = vision.get("layers"), vision.get("width")
    is_plain = (
        not config.get("custom_text")
        and "multimodal_cfg" not in config
        and not vision.get("timm_model_name")
        and {"width", "layers", "vocab_size", "context_length"} <= text.keys()
    )
    if not is_plain or not isinstance(width, int) or not isinstance(layers, (int, list)):
        return None
    is_resnet = isinstance(layers, list)
    return Shape(
        text["width"],
        text["layers"],
        config["embed_dim"],
        text["context_length"],
        text["vocab_size"],
        "ResNet" if is_resnet else "ViT",
        width,
        tuple(layers) if isinstance(layers, list) else (layers,),
        0 if is_resnet else int(vision["patch_size"]),
    )


def known_name(name: str) -> str:
    """The open_clip model of a name; OpenAI's own, `ViT-L/14@336px`, are taken too.

    Raises:
        ConfigError: No such model, or one with another text tower.
    """
    tiny.register_configs()
    found, known = name.replace("/", "-").replace("@336px", "-336"), open_clip.list_models()
    if found not in known:
        raise ConfigError(f"--clip {name!r} is no open_clip model{nearest(found, known)}")
    if shape_of_model(found) is None:
        raise ConfigError(f"--clip {name!r} is no CLIP of OpenAI's kind, which the methods here read")
    return found


def check_shape(path: Path, content: CLIPFile, name: str) -> Shape:
    """The size of a file's CLIP, which must be that of the named model.

    Raises:
        DataError: It is another; the message says which models have it.
    """
    found, wanted = shape_of(path, content.state), shape_of_model(name)
    assert wanted is not None, "a known name"
    if found == wanted:
        return found
    fields = (
        ("text_width", "width of the text tower"),
        ("text_layers", "blocks of the text tower"),
        ("width", "width of the image tower"),
        ("layers", "blocks of the image tower"),
        ("patch", "patch"),
        ("embed_dim", "shared channels"),
        ("context", "most tokens of a text"),
        ("vocabulary", "tokens"),
        ("tower", "image tower"),
    )
    wrong = [
        f"{title} {_plain(getattr(found, field))} instead of {_plain(getattr(wanted, field))}"
        for field, title in fields
        if getattr(found, field) != getattr(wanted, field)
    ]
    fitting = [model for model in open_clip.list_models() if shape_of_model(model) == found]
    of = f"it has the size of {', '.join(fitting[:4])}" if fitting else f"no model here has its size: {found}"
    raise DataError(f"{path}: not of {name}'s size: {', '.join(wrong)}; {of}")


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def read(path: Path) -> CLIPFile:
    """The weights in a file.

    Raises:
        DataError: It cannot be read; the message says in one line whether it is cut off, or no weights at all.
    """
    fault = _fault(path)
    if fault:
        raise DataError(f"{path}: {fault}")
    try:
        return read_clip(path)
    except DataError as error:
        if any(reason in str(error) for reason in SHORT):  # torch's first format has its tensors at its end
            size = path.stat().st_size
            raise DataError(f"{path}: cut off: tensors are missing after {size:,} bytes; {AGAIN}") from error
        raise


def _fault(path: Path) -> str:
    """What can be said of an unreadable file by its first and last bytes, or ""."""
    if not path.is_file():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights: fetch them with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "a web page, not weights: the address needs a login or is wrong"
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path):
                return ""
        except zipfile.BadZipFile:
            return f"cut off: the directory at the end of the archive is missing after {size:,} bytes; {AGAIN}"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        expected = _safetensors_size(path, head, size)
        if expected > size:
            return f"cut off: {size:,} bytes of {expected:,}; {AGAIN}"
    return ""


def _safetensors_size(path: Path, head: bytes, size: int) -> int:
    """How long a safetensors file should be, by its header; 0 where there is none."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > 100_000_000:
        return 0
    if 8 + length > size:
        return 8 + length
    with path.open("rb") as file:
        file.seek(8)
        try:
            entries = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return 0
    return 8 + length + max(ends, default=0)


def quick_gelu_beside(path: Path) -> tuple[bool, str] | None:
    """What a config beside the weights says of the activation, and the file that says it: transformers' or open_clip's."""
    for name in ("config.json", "open_clip_config.json"):
        try:
            config = json.loads((path.parent / name).read_text())
            if name == "config.json":
                acts = {config[part]["hidden_act"] for part in ("text_config", "vision_config") if part in config}
                if acts == {"quick_gelu"} or acts == {"gelu"}:
                    return acts == {"quick_gelu"}, name
            elif isinstance(config.get("model_cfg"), dict):
                return bool(config["model_cfg"].get("quick_gelu", False)), name
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


@dataclass(frozen=True, eq=False)
class Golden:
    """Text embeddings of one CLIP.

    Attributes:
        name: The open_clip model that made them.
        texts: N sentences.
        vectors: float32 [N, D], not normalised.
    """

    name: str
    texts: tuple[str, ...]
    vectors: NDArray[np.float32]


def golden(folder: Path = GOLDEN) -> Golden:
    """The embeddings in a folder: `X_names.txt`, a name a line, and `X_clip_a+cname.npy`, the embeddings of "a " + name.

    `model.txt` names the open_clip model that made them; without it, it is `GOLDEN_OF`.

    Raises:
        DataError: None there, or files that do not belong together.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no folder of embeddings")
    texts: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    for path in sorted(folder.glob("*_names.txt")):
        file = path.with_name(f"{path.name.removesuffix('_names.txt')}_clip_a+cname.npy")
        names = path.read_text().splitlines()
        try:
            found = np.load(file, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file}: embeddings of {path.name} cannot be read ({error})") from error
        if found.ndim != 2 or len(found) != len(names):
            raise DataError(f"{file}: shape {found.shape}, expected {len(names)} rows, one a line of {path.name}")
        texts += [f"a {name}" for name in names]
        vectors.append(found)
    if not vectors:
        raise DataError(f"{folder}: no NAME_names.txt with NAME_clip_a+cname.npy")
    if len({found.shape[1] for found in vectors}) > 1:
        raise DataError(f"{folder}: its embeddings have different widths")
    said = folder / "model.txt"
    return Golden(said.read_text().strip() if said.is_file() else GOLDEN_OF, tuple(texts), np.concatenate(vectors))


def with_activation(model: nn.Module, quick: bool) -> None:
    """Give every block of both towers QuickGELU or exact GELU, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (QuickGELU, nn.GELU)):
                setattr(module, name, QuickGELU() if quick else nn.GELU())


@torch.no_grad()
def cosines(model: "open_clip.CLIP", name: str, of: Golden) -> NDArray[np.float64]:
    """Cosine of each golden embedding with what the model's text tower says, float64 [N]."""
    prompts = Prompts(model, Tokenizer(name))
    made = torch.cat([prompts.raw(some) for some in _parts(of.texts, 64)])
    return F.cosine_similarity(made.double(), torch.from_numpy(of.vectors).double(), dim=1).numpy()


def _parts(values: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))


@dataclass(frozen=True)
class Agreement:
    """How far golden embeddings and a file agree: least and mean cosine with QuickGELU, and with exact GELU."""

    rows: int
    least_quick: float
    mean_quick: float
    least_exact: float
    mean_exact: float

    @property
    def is_same(self) -> bool:
        """Whether the file holds the weights that made the embeddings."""
        return max(self.least_quick, self.least_exact) >= SAME

    @property
    def quick_gelu(self) -> bool | None:
        """The activation with which the embeddings come out clearly better; None for other weights, and where neither does."""
        off_quick, off_exact = 1 - self.mean_quick, 1 - self.mean_exact
        if not self.is_same or max(off_quick, off_exact) < CLEAR * min(off_quick, off_exact):
            return None
        return off_quick < off_exact


def agreement(path: Path, content: CLIPFile, name: str, of: Golden) -> Agreement:
    """Compare a file's text tower with golden embeddings, once with each activation.

    Raises:
        DataError: The file does not fit the model.
    """
    model = load(CLIPSpec(name, str(path), quick_gelu=None if is_decided(content, name) else True)).eval()
    found = []
    for quick in (True, False):
        with_activation(model, quick)
        each = cosines(model, name, of)
        found += [float(each.min()), float(each.mean())]
    return Agreement(len(of.texts), *found)


def is_decided(content: CLIPFile, name: str) -> bool:
    """Whether the file's form, or the model's name, says which activation it has."""
    return content.is_openai_archive or name.endswith("-quickgelu")
