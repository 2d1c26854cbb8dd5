"""Learning curves as one plain file that survives a resume."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from rislab.files import replacing

HEADER = ("step", "epoch", "name", "value")


class CurveLogger(Logger):
    """Appends to `log/metrics.csv`, one value a line (step, epoch, name, value).

    Lightning's CSVLogger starts its file anew when a run resumes, and the curve before is lost. Here `cut` drops only
    what lies beyond the checkpoint that the run goes on from.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> int:
        return 0

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        return self.path

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The resolved config lies beside the log already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        epoch = int(metrics.get("epoch", 0))
        fresh = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(HEADER)
            writer.writerows((step, epoch, name, repr(float(v))) for name, v in metrics.items() if name != "epoch")

    @rank_zero_only
    def cut(self, step: int, unlogged: Mapping[str, Any] | None = None) -> None:
        """Drop the values logged at or after `step`, the number of steps that the checkpoint has done.

        A line that a kill cut short is dropped, too.

        Args:
            step: Of the checkpoint.
            unlogged: `step`, `epoch` and `values` of the step in which the checkpoint was written, before they were logged.
        """
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(HEADER)][1:]
        kept = [row for row in rows if int(row[0]) < step]
        if unlogged:
            last = [
                [str(unlogged["step"]), str(unlogged["epoch"]), name, repr(value)]
                for name, value in unlogged["values"].items()
            ]
            kept = [row for row in kept if row[:3] not in [each[:3] for each in last]] + last
        if not self.path.exists() and not kept:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *kept])
