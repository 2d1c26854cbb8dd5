"""The base of all data modules."""

from abc import abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning as L

from rislab.data.batch import Images
from rislab.data.geometry import Geometry
from rislab.data.transforms import Transform
from rislab.evaluation.base import Evaluation


@runtime_checkable
class Method(Protocol):
    """What data modules need of `rislab.methods.base.TextSegmenter`."""

    geometry: Geometry

    def train_transform(self) -> Transform | None: ...


class EvaluatedData(L.LightningDataModule):
    """Data that a method is scored on, and maybe trained on.

    Attributes:
        gives: the batches that training gets, a member of the family in `rislab.data.batch`; None for data that are only scored.
        val_split: what validation during training reads.
        parts: into how many each training batch is split, in order; the Trainer adds up their gradients.
    """

    gives: ClassVar[type[Images] | None] = None
    val_split: str
    parts: int = 1

    @property
    @abstractmethod
    def benchmark(self) -> str:
        """What a report calls it."""

    @property
    @abstractmethod
    def evaluation(self) -> Evaluation:
        """How it is scored."""

    @property
    def validation(self) -> Evaluation:
        """How `val_split` is scored; another one where its classes are not those of the test."""
        return self.evaluation

    @property
    @abstractmethod
    def test_splits(self) -> list[str]:
        """In the order of `test_dataloader`."""

    @property
    def evaluated(self) -> "EvaluatedData":
        """The data that is scored; another one where training has data of its own."""
        return self

    def facts(self) -> dict[str, Any]:
        """What belongs beside the scores of this data in a result file."""
        evaluation = self.evaluation
        precision = {} if evaluation.precision == "float32" else {"precision": evaluation.precision}
        return evaluation.facts() | precision

    @property
    def rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    @property
    def is_on_gpu(self) -> bool:
        """Whether batches go to a GPU, so that loaders pin memory."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def method(self) -> "Method":
        """What is trained or scored; it has a geometry and a transform."""
        assert self.trainer is not None, "loaders are made for a Trainer and its method"
        method = self.trainer.lightning_module
        assert isinstance(method, Method), "a method has a geometry and a training transform"
        return method

    @property
    def geometry(self) -> Geometry:
        """How the method takes its images."""
        return self.method.geometry


class BenchmarkedData(EvaluatedData):
    """Training data of their own, scored on the benchmark of another data module.

    Attributes:
        scored: what validation and test read; it scores.
    """

    scored: EvaluatedData

    @property
    def evaluated(self) -> EvaluatedData:
        return self.scored

    @property
    def benchmark(self) -> str:
        return self.scored.benchmark

    @property
    def evaluation(self) -> Evaluation:
        return self.scored.evaluation

    @property
    def test_splits(self) -> list[str]:
        return self.scored.test_splits

    def prepare_data(self) -> None:
        self.scored.prepare_data()

    def setup(self, stage: str) -> None:
        """Look at everything that evaluation will need; subclasses look at what training needs."""
        self.scored.trainer = self.trainer
        self.scored.setup(stage)

    def val_dataloader(self) -> Any:
        return self.scored.val_dataloader()

    def test_dataloader(self) -> Any:
        return self.scored.test_dataloader()
