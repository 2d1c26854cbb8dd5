"""What a picture costs: files that `rislab bench cost` has written, one a method and scale."""

from pathlib import Path
from typing import Any

from rislab.ablation import records
from rislab.ablation.records import COUNT, POSITIVE, TEXT, Listed, Record
from rislab.ablation.sharing import listed
from rislab.report.comparison.panels import Known
from rislab.report.document import Cell, Column, Grid, Row

ABOUT = Record({"method": TEXT, "scale": TEXT, "config": TEXT}, {"error": TEXT})
"""Of every file."""
COST = Record(
    {
        "picture": Listed(COUNT),
        "parameters_m": POSITIVE,
        "gflops": POSITIVE,
        "seconds": POSITIVE,
        "memory_mb": POSITIVE,
        "device": TEXT,
        "threads": COUNT,
    }
)
"""Of one without an error."""
SCALES = ("toy", "paper")
NOT_MEASURED = "not measured: rislab bench cost"


def of_costs(known: Known, folder: Path) -> tuple[Grid, tuple[str, ...]]:
    """The grid, and files that cannot be read, each with its reason."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    wrong = []
    for name in listed(folder):
        if not name.endswith(".json"):
            continue
        try:
            content = records.load(folder / name, ABOUT)
            if "error" not in content:
                content = records.load(folder / name, COST)
        except (records.DamagedError, OSError) as error:
            wrong.append(f"{name}: {error}")
            continue
        found[content["method"], content["scale"]] = content
    rows = []
    for method in known.methods:
        scales = [scale for scale in SCALES if scale == "toy" or (method, scale) in found]
        for number, scale in enumerate(scales):
            rows.append(Row(_cells(known.title(method), scale, found.get((method, scale))), number == 0))
    heads = (("parameters", "M"), ("work", "GFLOP a picture"), ("time", "s a picture"), ("peak memory", "MiB"))
    columns = [Column("method", kind="text"), Column("scale", kind="text"), Column("network input", kind="text")]
    columns += [Column(head, (unit,)) for head, unit in heads]
    columns.append(Column("measured on", kind="text"))
    return Grid("cost", "", tuple(columns), tuple(rows), "", (_MEANING,)), tuple(wrong)


_MEANING = (
    "One picture and one text (or all names of a closed vocabulary), text encoder included. Work is counted while the network "
    "runs, 2 for a multiplication with its addition. Memory is what the process takes at its peak beyond its libraries, weights "
    "included; on a GPU that of the GPU."
)


def _cells(title: str, scale: str, cost: dict[str, Any] | None) -> tuple[Cell, ...]:
    if cost is None:
        return (Cell(title), Cell(scale), *(Cell(reason=NOT_MEASURED) for _ in range(6)))
    if "error" in cost:
        return (Cell(title), Cell(scale), Cell(cost["config"]), *(Cell(reason=cost["error"]) for _ in range(5)))
    size = " x ".join(map(str, cost["picture"]))
    numbers = ((cost["parameters_m"], 2), (cost["gflops"], 3), (cost["seconds"], 4), (cost["memory_mb"], 0))
    measured = f"{cost['device']}, {cost['threads']} thread{'s' if cost['threads'] != 1 else ''}"
    cells = (Cell(f"{value:.{digits}f}", float(value)) for value, digits in numbers)
    return (Cell(title), Cell(scale), Cell(f"{size}, {cost['config']}"), *cells, Cell(measured))
