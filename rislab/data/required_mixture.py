"""What a mixture of label sets needs on the disk. Imports nothing heavy: a plan asks."""

from collections.abc import Iterator, Mapping
from typing import Any

from rislab.data.required_files import Missing, benchmark


def label_mixture(options: Mapping[str, Any]) -> Iterator[Missing]:
    """The trees of all sets that training reads; the benchmark itself says what validation reads."""
    scored = options.get("benchmark_data") or {}
    inner = scored.get("init_args", scored)
    for name in options["sets"]:
        yield from benchmark({**inner, "name": name, "val_split": options["train_split"]})
