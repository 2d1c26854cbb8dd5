"""Activation maps under the protocol of weak supervision: only the classes that a picture's own label names are answered.

Source: IRN, step/eval_cam.py, and CLIMS, evaluate.py of its previous version: a constant background plane beside the maps, the
largest wins, IoU over the whole split. A fixed threshold is the repository's (0.15), the best of fifteen the paper's. No CRF.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.batch import LabelledPictures
from rislab.data.image_labels import WeakPictures
from rislab.errors import ConfigError
from rislab.evaluation.arithmetic import SweptArithmetic
from rislab.evaluation.base import Evaluation, Outputs, Scored
from rislab.evaluation.kept_answers import Answer, Form
from rislab.evaluation.label_examples import LabelExamples
from rislab.evaluation.semantic import SemanticEvaluation, class_counts, compact_maps


class Maps(Protocol):
    """What a method answers. full: float32 [k, H, W], each with a maximum of about 1."""

    @property
    def full(self) -> Tensor: ...


@runtime_checkable
class Activating(Protocol):
    """A method with activation maps."""

    vocabulary: tuple[str, ...] | None

    def activation_maps(self, image: Tensor, names: Sequence[str]) -> Maps:
        """Maps of the named classes, in their order, of a picture uint8 [3, H, W]."""


@runtime_checkable
class Masking(Protocol):
    """A method that makes a label map of a picture from what the picture shows."""

    vocabulary: tuple[str, ...] | None

    def mask(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """uint8 [H, W] of a picture uint8 [3, H, W]: 0 for the background, 1 + the position in `names` for a class."""


def in_vocabulary(mask: Tensor, present: Sequence[int]) -> Tensor:
    """A mask of the classes that a picture shows, as labels of the whole vocabulary, uint8 [H, W]; see `Masking.mask`.

    Args:
        mask: 0 for the background, 1 + the position in `present`.
        present: Numbers of the classes.
    """
    table = torch.tensor([0, *(number + 1 for number in present)], dtype=torch.uint8, device=mask.device)
    return table[mask.long()]


class PseudoMaskEvaluation(SemanticEvaluation):
    """Scores the label maps that a method makes for another one to be trained on. Nothing is swept: these are the files.

    Args:
        names: Classes by label, background first.
        crf: What of a CRF was part of them, for the result file.
    """

    def __init__(self, names: Sequence[str], crf: str = "none") -> None:
        super().__init__("pseudo_masks", "mmseg", names)
        self.crf = crf

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"crf": self.crf}

    def refuse(self, method: Scored) -> str | None:
        return super().refuse(method) if isinstance(method, Masking) else "it makes no masks from image-level labels"

    def predict(self, method: Scored, batch: LabelledPictures) -> Outputs:
        assert isinstance(method, Masking), "others are refused"
        assert isinstance(batch, WeakPictures), "its data give no others"
        found = [
            in_vocabulary(method.mask(image, [batch.names[number] for number in present]), present)
            for image, present in zip(batch.images, batch.present, strict=True)
        ]
        return {"labels": found}


class ActivationMapEvaluation(Evaluation):
    """Scores activation maps as label maps.

    Args:
        names: Classes by label, background first.
        threshold: Value of the background plane, 0 to 1.
        sweep: Others that are tried.
    """

    form: ClassVar[Form] = "label maps"

    def __init__(self, names: Sequence[str], threshold: float, sweep: Sequence[float]) -> None:
        self.names = tuple(names)
        self.fixed = round(1000 * threshold)
        self.thresholds = [self.fixed, *sorted({round(1000 * each) for each in sweep} - {self.fixed})]
        self.arithmetic = SweptArithmetic(self.names, self.fixed)

    @property
    def protocol(self) -> str:
        return "cam"

    def facts(self) -> dict[str, Any]:
        return {"classes": len(self.names), "threshold": self.fixed, "crf": "none"}

    def refuse(self, method: Scored) -> str | None:
        if not isinstance(method, Activating):
            return "it makes no activation maps"
        known = method.vocabulary
        missing = [] if known is None else [name for name in self.names if name not in known]
        return f"it answers its own class names only, and not {missing[0]!r}" if missing else None

    def predict(self, method: Scored, batch: WeakPictures) -> Outputs:
        assert isinstance(method, Activating), "others are refused"
        found = [
            method.activation_maps(image, [batch.names[number] for number in present]).full
            for image, present in zip(batch.images, batch.present, strict=True)
        ]
        return {"labels": [self._labels(maps, present) for maps, present in zip(found, batch.present, strict=True)]}

    def _labels(self, maps: Tensor, present: Sequence[int]) -> Tensor:
        """Label maps of all thresholds, the fixed one first: uint8 [T, H, W]."""
        levels = torch.tensor(self.thresholds, device=maps.device)[:, None, None] / 1000
        if not present:
            return torch.zeros(len(levels), *maps.shape[1:], dtype=torch.uint8, device=maps.device)
        largest, which = maps.max(0)
        classes = torch.tensor(present, dtype=torch.uint8, device=maps.device) + 1
        return torch.where(largest > levels, classes[which], torch.zeros_like(classes[0]))

    def answers(self, method: Scored, batch: WeakPictures, outputs: Outputs) -> list[NDArray[Any]]:
        return [labels.cpu().numpy() for labels in outputs["labels"]]

    def rows(self, batch: WeakPictures, answers: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
        found = [
            np.insert(class_counts(answer, label, len(self.names), number), 1, threshold, axis=1)
            for number, label, of_picture in zip(batch.ids, batch.labels, answers, strict=True)
            for threshold, answer in zip(self.thresholds, of_picture, strict=True)
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.arithmetic.columns)), np.int64)

    def compact(self, batch: WeakPictures, answers: Sequence[NDArray[Any]]) -> list[Answer]:
        return compact_maps(batch.ids, [answer[0] for answer in answers])  # at the fixed threshold

    def examples(self, count: int) -> LabelExamples:
        return _AtFixed(count, self.names)

    def export(self, method: Scored, batch: WeakPictures, outputs: Outputs) -> list[dict[str, Any]]:
        raise ConfigError("predict writes masks of sentences; activation maps are scored by `rislab test`")


class _AtFixed(LabelExamples):
    """Label maps at the fixed threshold."""

    def offer(self, batch: Any, answers: Sequence[NDArray[Any]]) -> None:
        super().offer(batch, [answer[0] for answer in answers])
