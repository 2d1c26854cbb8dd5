"""Checkpoints of yz93/LAVT-RIS, into our modules and back.

A file of `lavt` is a dict with `model` and `bert_model`; one of `lavt_one` has BERT in `model`, as `text_encoder`. Both hold
optimiser, schedule and the command line as an argparse.Namespace, which is read without running code. Names differ by the table
below; linear layers of the fusion are 1x1 convolutions there.
"""

from pathlib import Path

from torch import Tensor

from rislab.encoders.swin.names import with_buffers, without_buffers
from rislab.errors import DataError, about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_file, read_weights

PREFIX = "model."
"""Of our keys in a LAVTTask."""
BESIDE, INSIDE = "bert_model.", "model.text_encoder."
"""BERT in a file of `lavt` and in one of `lavt_one`."""

FUSION = "model.backbone.layers.*.fusion."
NAMES = (
    # ours                       official
    ("text.", BESIDE),
    ("trunk.patch_embed.", "model.backbone.patch_embed."),
    ("trunk.layers.", "model.backbone.layers."),
    ("fusions.*.pwam.query.", f"{FUSION}image_lang_att.f_query.0."),
    ("fusions.*.pwam.key.", f"{FUSION}image_lang_att.f_key.0."),
    ("fusions.*.pwam.value.", f"{FUSION}image_lang_att.f_value.0."),
    ("fusions.*.pwam.out.", f"{FUSION}image_lang_att.W.0."),
    ("fusions.*.pwam.visual.", f"{FUSION}vis_project.0."),
    ("fusions.*.pwam.project.", f"{FUSION}project_mm.0."),
    ("fusions.*.gate.", "model.backbone.layers.*.res_gate."),
    ("norms.*.", "model.backbone.norm*."),
    ("decoder.stages.0.0.", "model.classifier.conv1_4."),
    ("decoder.stages.0.1.", "model.classifier.bn1_4."),
    ("decoder.stages.0.3.", "model.classifier.conv2_4."),
    ("decoder.stages.0.4.", "model.classifier.bn2_4."),
    ("decoder.stages.1.0.", "model.classifier.conv1_3."),
    ("decoder.stages.1.1.", "model.classifier.bn1_3."),
    ("decoder.stages.1.3.", "model.classifier.conv2_3."),
    ("decoder.stages.1.4.", "model.classifier.bn2_3."),
    ("decoder.stages.2.0.", "model.classifier.conv1_2."),
    ("decoder.stages.2.1.", "model.classifier.bn1_2."),
    ("decoder.stages.2.3.", "model.classifier.conv2_2."),
    ("decoder.stages.2.4.", "model.classifier.bn2_2."),
    ("decoder.out.", "model.classifier.conv1_1."),
    ("fusions.*.join.", "model.backbone.layers.*.join."),  # ours: there is no release without the sum
)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under the names of a LAVTTask.

    Args:
        state: The file's entries, flat: ``model.<key>`` and, for `lavt`, ``bert_model.<key>``.

    Raises:
        DataError: Names that have no place here.
    """
    beside = {BESIDE + k.removeprefix(INSIDE) if k.startswith(INSIDE) else k: v for k, v in state.items()}
    found = renamed(without_buffers(beside), NAMES, back=True)
    return {PREFIX + key: value[..., 0] if _is_linear(key, value) else value for key, value in found.items()}


def to_official(state: dict[str, Tensor], inside: bool = False) -> dict[str, Tensor]:
    """The inverse.

    Args:
        state: Of a LAVTTask.
        inside: Whether BERT is put into the model, as in files of `lavt_one`.
    """
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    convolutions = {k: v[..., None] if ".pwam." in k and k.endswith(".weight") else v for k, v in bare.items()}
    found = with_buffers(renamed(convolutions, NAMES))
    return {INSIDE + k.removeprefix(BESIDE) if inside and k.startswith(BESIDE) else k: v for k, v in found.items()}


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file, or of a flat file of tensors, under our names.

    Raises:
        DataError: See `read_weights`; leftovers; a file of `lavt` without `bert_model`.
    """
    content = read_file(path)
    with about(path):
        if isinstance(content, dict) and isinstance(content.get("bert_model"), dict):
            parts = {name: content.get(name) for name in ("model", "bert_model")}
            flat = {f"{name}.{key}": value for name, part in parts.items() for key, value in dict(part or {}).items()}
            strange = [key for key, value in flat.items() if not isinstance(value, Tensor)]
            if strange:
                raise DataError(f"{strange[0]!r} is no tensor")
            return from_official(flat)
        bare = read_weights(path)
        flat = bare if any(key.startswith(BESIDE) for key in bare) else {f"model.{k}": v for k, v in bare.items()}
        if not any(key.startswith((BESIDE, INSIDE)) for key in flat):
            raise DataError("no weights of BERT: neither bert_model (lavt) nor text_encoder in the model (lavt_one)")
        return from_official(flat)


def _is_linear(key: str, value: Tensor) -> bool:
    return ".pwam." in key and key.endswith(".weight") and value.ndim == 3
