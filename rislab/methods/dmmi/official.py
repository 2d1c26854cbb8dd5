"""Checkpoints of toggle1995/RIS-DMMI, into our modules and back.

A file is a dict with `model`, `bert_model`, optimiser, schedule, and the command line as an argparse.Namespace, which is read
without running code. Names differ by the tables below. Linear layers of the fusion are 1x1 convolutions there, and a k x k one of
ours is a linear layer over k x k unfolded pixels, in the order channel, row, column.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rislab.encoders.swin.names import with_buffers, without_buffers
from rislab.errors import DataError, about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_file, read_weights

PREFIX = "model."
"""Of our keys in a DMMITask."""
BERT = "bert_model."
REGIONS, TOKEN_WINDOWS = (1, 3, 5), (1, 2, 3)
"""Those of the release; others have no official names."""
CONVOLUTIONS = ("fusions.", "pooling.text.")
"""Where our linear layers, gates excepted, are 1x1 convolutions officially."""

Table = Sequence[tuple[str, str]]


def _fusion(ours: str, theirs: str) -> Table:
    """Names of one stage's fusion."""
    attention = f"{theirs}fusion.image_lang_att."
    regions = [
        (f"{ours}mba.pixels.regions.{i}.{part}.", f"{attention}refineimg{k}{k}.{name}.0.")
        for i, k in enumerate(REGIONS)
        for part, name in (("reduce", "f_query"), ("gather", "f_query2"), ("key", "f_key"))
    ]
    windows = [
        (f"{ours}mba.words.windows.{i}.{part}.", f"{attention}refinelan{n}1.{name}.0.")
        for i, n in enumerate(TOKEN_WINDOWS)
        for part, name in (("reduce", "f_query"), ("gather", "f_query2"), ("key", "f_key"))
    ]
    return [
        *regions,
        *windows,
        (f"{ours}mba.pixels.mixing.weight", f"{attention}vis_weight"),
        (f"{ours}mba.pixels.value.", f"{attention}f_value.0."),
        (f"{ours}mba.pixels.out.", f"{attention}W.0."),
        (f"{ours}mba.pixels.visual.", f"{theirs}fusion.vis_project.0."),
        (f"{ours}mba.pixels.project.", f"{theirs}fusion.project_mm.0."),
        (f"{ours}mba.words.mixing.weight", f"{attention}lan_weight"),
        (f"{ours}mba.words.value.", f"{attention}f_value_v.0."),
        (f"{ours}mba.words.out.", f"{attention}W2.0."),
        (f"{ours}gate.", f"{theirs}res_gate."),
        (f"{ours}text.", f"{theirs}W_l.0."),
    ]


COMMON: Table = (
    # ours                        official
    ("text.", BERT),
    *(
        (f"decoder.convolutions.{i}.{ours}.", f"model.classifier.{theirs}_{4 - i}.")
        for i in range(3)
        for ours, theirs in (("0", "conv1"), ("1", "bn1"), ("3", "conv2"), ("4", "bn2"))
    ),
    ("decoder.out.", "model.classifier.conv1_1."),
    ("decoder.attentions.0.", "model.classifier.transformer_fusion1.transformer_model.layers.0."),
    ("decoder.attentions.1.", "model.classifier.transformer_fusion2.transformer_model.layers.0."),
    ("recovery.conv.", "model.classifier.lan_func.conv1."),
    ("recovery.norm.", "model.classifier.lan_func.bn1."),
    ("recovery.attention.", "model.classifier.lan_func.transformer_model.layers.0."),
    ("unread.0.", "model.classifier.transformer_fusion1.decoder_layer."),
    ("unread.1.", "model.classifier.transformer_fusion2.decoder_layer."),
    ("unread.2.", "model.classifier.lan_func.decoder_layer."),
    ("pooling.middle.", "model.classifier.crossfuse1.linear."),
    ("pooling.fine.", "model.classifier.crossfuse2.linear."),
    ("pooling.text.", "model.contrastive.align_lan.0."),
)
SWIN: Table = (
    ("trunk.patch_embed.", "model.backbone.patch_embed."),
    ("trunk.layers.", "model.backbone.layers."),
    ("norms.*.", "model.backbone.norm*."),
    *(row for i in range(4) for row in _fusion(f"fusions.{i}.", f"model.backbone.layers.{i}.")),
)
RESNET: Table = (
    ("trunk.conv1.", "model.backbone.layer1.0."),
    ("trunk.bn1.", "model.backbone.layer1.1."),
    ("trunk.layer1.", "model.backbone.layer1.4."),
    *((f"trunk.layer{i}.", f"model.backbone.layer{i}.") for i in (2, 3, 4)),
    *(row for i in range(4) for row in _fusion(f"fusions.{i}.", f"model.backbone.all_fusion{i + 1}.")),
)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under the names of a DMMITask.

    Args:
        state: The file's entries, flat: ``model.<key>`` and ``bert_model.<key>``.

    Raises:
        DataError: Names that have no place here.
    """
    is_swin = any(key.startswith("model.backbone.patch_embed.") for key in state)
    found = renamed(without_buffers(state), [*COMMON, *(SWIN if is_swin else RESNET)], back=True)
    return {PREFIX + key: _as_ours(key, value) for key, value in found.items()}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse.

    Raises:
        DataError: Regions or windows that no release has.
    """
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    is_swin = any(key.startswith("trunk.patch_embed.") for key in bare)
    official = {key: _as_theirs(key, value) for key, value in bare.items()}
    return with_buffers(renamed(official, [*COMMON, *(SWIN if is_swin else RESNET)]))


def _as_ours(key: str, value: Tensor) -> Tensor:
    if not key.endswith(".weight") or value.ndim != 3 or not key.startswith(CONVOLUTIONS):
        return value
    if ".gather." not in key:
        return value[..., 0]
    which = int(key.split(".gather.")[0].rpartition(".")[2])
    if ".regions." in key:
        k = REGIONS[which]
        return value.reshape(len(value), -1, k, k)
    return value.reshape(len(value), -1, TOKEN_WINDOWS[which])


def _as_theirs(key: str, value: Tensor) -> Tensor:
    if ".gather." in key:
        which = int(key.split(".gather.")[0].rpartition(".")[2])
        sizes = REGIONS if ".regions." in key else TOKEN_WINDOWS
        if which >= len(sizes) or (key.endswith(".weight") and value.shape[-1] != sizes[which]):
            raise DataError(
                f"{key}: regions {list(REGIONS)} and token windows {list(TOKEN_WINDOWS)} have official names"
            )
        return value.flatten(1)[..., None] if key.endswith(".weight") else value
    is_linear = key.startswith(CONVOLUTIONS) and key.endswith(".weight") and value.ndim == 2 and ".gate." not in key
    return value[..., None] if is_linear else value


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file, or of a flat file of tensors, under our names.

    Raises:
        DataError: See `read_weights`; leftovers; a file without `bert_model`.
    """
    content = read_file(path)
    with about(path):
        parts = {name: content.get(name) for name in ("model", "bert_model")} if isinstance(content, dict) else {}
        if isinstance(parts.get("bert_model"), dict):
            flat = {f"{name}.{key}": value for name, part in parts.items() for key, value in dict(part or {}).items()}
        else:
            flat = read_weights(path)
        strange = [key for key, value in flat.items() if not isinstance(value, Tensor)]
        if strange:
            raise DataError(f"{strange[0]!r} is no tensor")
        if not any(key.startswith(BERT) for key in flat):
            raise DataError("no weights of BERT: expected bert_model beside the model")
        return from_official(flat)
