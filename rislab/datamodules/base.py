"""What the rest of the house asks of any data module, whatever it holds."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import lightning as L

from rislab.data.geometry import Geometry
from rislab.errors import ConfigError
from rislab.files import cache_dir
from rislab.paths import user_path


def data_root(root: str, is_generated: bool) -> Path:
    """Where `root` is: as written, or below the user's cache folder where a world is generated and `root` is relative.

    Raises:
        ConfigError: No path, or a relative path of a generated world that leaves the cache folder.
    """
    path = user_path(root)
    if not is_generated or path.is_absolute():
        return path
    if ".." in path.parts:
        raise ConfigError(
            f"root is {root!r}: a generated world lies in the cache folder ({cache_dir()}), or at an absolute path"
        )
    return cache_dir() / path


class EvaluatedData(L.LightningDataModule):
    """Data that a method is scored on, and maybe trained on.

    val_split: what validation during training reads.
    parts: into how many each training batch is split, in order; the Trainer adds up their gradients.
    """

    val_split: str
    parts: int = 1

    @property
    @abstractmethod
    def benchmark(self) -> str:
        """What a report calls it."""

    @property
    @abstractmethod
    def protocol_name(self) -> str:
        """The convention that scores it."""

    @property
    @abstractmethod
    def averages(self) -> tuple[str, ...]:
        """Scores by name; the first decides which checkpoint is best."""

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
        return {}

    @property
    def place(self) -> tuple[int, int]:
        """(rank, world size)."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    @property
    def geometry(self) -> Geometry:
        """How the method wants its images; it is asked, nobody guesses."""
        assert self.trainer is not None, "loaders are made for a Trainer and its method"
        geometry = self.trainer.lightning_module.geometry
        assert isinstance(geometry, Geometry), "a method has a geometry"
        return geometry
