"""What an evaluation is: how a benchmark is shown to a method, what is counted of its answers, and what is kept to look at."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.batch import LabelledPictures
from rislab.evaluation.arithmetic import Arithmetic
from rislab.evaluation.kept_answers import Answer, Form

Precision = Literal["float32", "bfloat16"]
"""Of a network's arithmetic while it is scored: all in float32, or what autocast computes in bfloat16."""

Outputs = dict[str, Any]
"""What a step hands to the callback."""


class Scored(Protocol):
    """What evaluations need of `rislab.methods.base.TextSegmenter`."""

    mask_threshold: float
    vocabulary: tuple[str, ...] | None
    multi_scale: ClassVar[bool]

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor: ...

    def label(self, batch: LabelledPictures) -> list[Tensor]: ...


class Pictures(Protocol):
    """What examples need of a data module."""

    def picture(self, image_id: int) -> tuple[str, bytes]: ...


class Examples(ABC):
    """A few answers that a trial keeps for people to look at, the same units in every trial of a table."""

    @abstractmethod
    def offer(self, batch: Any, answers: Sequence[NDArray[Any]]) -> None:
        """Keep what of a batch belongs to the few."""

    def inspect(self, method: Scored, batch: Any) -> None:  # noqa: B027  # most methods show no more than their answers
        """Keep what else a method shows of those pictures of a batch that are kept; called after `offer`."""

    @property
    @abstractmethod
    def kept(self) -> Mapping[int, Any]:
        """By rank, which orders units alike in every process."""

    @abstractmethod
    def gather(self, parts: Sequence[Mapping[int, Any]]) -> None:
        """Take what all processes have kept."""

    @abstractmethod
    def write(self, folder: Path, data: Any) -> None:
        """Write them into a folder."""


class Evaluation(ABC):
    """One protocol on one benchmark. A data module owns it.

    Attributes:
        arithmetic: from counts to scores.
        form: of the answers that `compact` gives; "" where it gives none.
        precision: of the network while it is scored.
    """

    precision: Precision = "float32"
    arithmetic: Arithmetic
    form: ClassVar[Form] = ""

    @property
    @abstractmethod
    def protocol(self) -> str:
        """Its name, as metrics.json and reports give it."""

    def facts(self) -> dict[str, Any]:
        """What belongs beside the scores in a result file."""
        return {}

    @abstractmethod
    def refuse(self, method: Scored) -> str | None:
        """Why a method cannot be scored by this evaluation, in one line; None for one that can."""

    @abstractmethod
    def predict(self, method: Scored, batch: Any) -> Outputs:
        """What a method says to a batch, as the network gives it."""

    @abstractmethod
    def answers(self, method: Scored, batch: Any, outputs: Outputs) -> list[NDArray[Any]]:
        """The answers of a step as the protocol compares them, one a query or picture."""

    @abstractmethod
    def rows(self, batch: Any, answers: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
        """Counts of the batch's units, int64 [R, columns], in the order of `arithmetic.columns`."""

    def compact(self, batch: Any, answers: Sequence[NDArray[Any]]) -> list[Answer]:
        """The answers of a batch as a trial keeps all of them."""
        return []

    @abstractmethod
    def examples(self, count: int) -> Examples:
        """An empty collection of up to `count` examples."""

    @abstractmethod
    def export(self, method: Scored, batch: Any, outputs: Outputs) -> list[dict[str, Any]]:
        """Answers as `rislab predict` writes them. Raises ConfigError where it cannot."""
