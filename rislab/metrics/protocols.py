"""The official evaluation conventions, as named objects.

The same prediction gets different numbers in different papers. A convention says which text is read, how logits become
a mask and at which size it is compared, what the target is, and how expressions are averaged. It is named in the config
and printed beside every number. docs/conventions.md compares them.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

PRECISION_AT = (50, 60, 70, 80, 90)
PRECISIONS = tuple(f"pr@{x}" for x in PRECISION_AT)


@dataclass(frozen=True)
class Convention:
    """How one official code base scores a prediction.

    Attributes:
        title: what a report prints.
        text_field: which text of the annotation file is read, the cleaned `sent` or the typed `raw`.
        interpolation, aligned_corners, sigmoid_first: how a logit map is enlarged, and whether as probabilities.
        threshold: a pixel is foreground when its probability is strictly greater; None leaves it to the method.
        undo: kernel of the way back from a method's frame to the original size.
        side: masks are compared on a square of this side that the picture is stretched to; None: at the original size.
        overlaps: pixels under several polygons of a target belong to it (`union`), or do not (`holes`, see `lavt`).
        redraws_polygons: targets are polygons stretched and drawn at `side`, not stretched masks.
        skips_crowds: crowd annotations are no part of a target.
        iou_eps: added to the union.
        strict_precision: Pr@X counts IoU > X / 100 (strict) or IoU >= X / 100.
        zero_target: expressions without a referent are scored like any other (`counted`: IoU 0), leave the IoUs and have an
            accuracy of their own (`apart`), or enter as in generalised RES (`generalised`, see `rislab.metrics.referring`).
        no_target_min_pixels: a mask of fewer pixels says "nothing there".
        averages: what is computed; those that need zero-target expressions are left out where there are none.
        source: where the convention was read.
    """

    title: str
    text_field: Literal["sent", "raw"]
    interpolation: Literal["bicubic", "bilinear"]
    aligned_corners: bool
    sigmoid_first: bool
    threshold: float | None
    undo: Literal["cubic", "linear"]
    side: int | None
    overlaps: Literal["union", "holes"]
    redraws_polygons: bool
    skips_crowds: bool
    iou_eps: float
    strict_precision: bool
    zero_target: Literal["counted", "apart", "generalised"]
    averages: tuple[str, ...]
    source: str
    no_target_min_pixels: int = 1


NATIVE = Convention(
    title="native: original size, union of all polygons, all sentences, IoU >= X, zero targets apart",
    text_field="sent",
    interpolation="bilinear",
    aligned_corners=False,
    sigmoid_first=True,
    threshold=None,
    undo="linear",
    side=None,
    overlaps="union",
    redraws_polygons=False,
    skips_crowds=False,
    iou_eps=0.0,
    strict_precision=False,
    zero_target="apart",
    averages=("miou_expr", "oiou", *PRECISIONS, "acc", "giou", "ciou", "n_acc", "t_acc"),
    source="ours: what the official conventions have in common, without their resizing",
)

CRIS = Convention(
    title="CRIS: letterbox undone, original size, p > 0.35, mean IoU over all expressions",
    text_field="sent",
    interpolation="bicubic",
    aligned_corners=True,
    sigmoid_first=True,
    threshold=0.35,
    undo="cubic",
    side=None,
    overlaps="union",
    redraws_polygons=False,
    skips_crowds=False,
    iou_eps=1e-6,
    strict_precision=True,
    zero_target="counted",
    averages=("miou_expr", "oiou", *PRECISIONS),
    source="DerrickWang005/CRIS.pytorch, engine/engine.py (inference), utils/dataset.py; oiou is ours",
)

LAVT = Convention(
    title="LAVT: everything stretched to 480 x 480, argmax, pixels under two polygons are background, IoU >= X",
    text_field="raw",
    interpolation="bilinear",
    aligned_corners=True,
    sigmoid_first=False,
    threshold=0.5,
    undo="linear",
    side=480,
    overlaps="holes",
    redraws_polygons=False,
    skips_crowds=False,
    iou_eps=0.0,
    strict_precision=False,
    zero_target="counted",
    averages=("miou_expr", "oiou", *PRECISIONS),
    source="yz93/LAVT-RIS, test.py, data/dataset_refer_bert.py",
)

DMMI = replace(
    LAVT,
    title="DMMI: everything stretched to 480 x 480, argmax, IoU >= X over targeted sentences, accuracy over the others",
    overlaps="union",
    zero_target="apart",
    averages=("miou_expr", "oiou", *PRECISIONS, "acc"),
    source="toggle1995/RIS-DMMI, train.py, test.py, data/dataset_zom.py",
)

RELA = replace(
    DMMI,
    title="ReLA: polygons drawn at 480 x 480, generalised IoU over all sentences",
    aligned_corners=False,
    sigmoid_first=True,
    redraws_polygons=True,
    skips_crowds=True,
    zero_target="generalised",
    averages=("giou", "ciou", "pr@70", "pr@80", "pr@90", "n_acc", "t_acc"),
    source="henghuiding/ReLA, gres_model/evaluation/refer_evaluation.py, gres_model/data",
)


class Protocol(Enum):
    """The conventions by the name that a config gives: ``protocol: cris``."""

    native = NATIVE
    cris = CRIS
    lavt = LAVT
    dmmi = DMMI
    rela = RELA

    @property
    def convention(self) -> Convention:
        return self.value
