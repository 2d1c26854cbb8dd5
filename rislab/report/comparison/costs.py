"""What a picture costs: files that `rislab bench cost` has written, one a method and scale."""

from pathlib import Path
from typing import Any

from rislab.ablation import records
from rislab.ablation.records import COUNT, POSITIVE, TEXT, Listed, Record
from rislab.ablation.sharing import listed
from rislab.report.comparison.panels import Known
from rislab.report.document import Cell, Column, Grid, Row
from rislab.report.formatting import UNVERIFIED

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
OTHER_SIZE = "the paper's model has another size"


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
            published = _published(known, method) if scale == "paper" else Cell(reason=OTHER_SIZE)
            rows.append(Row(_cells(known.title(method), scale, found.get((method, scale)), published), number == 0))
    heads = (
        ("parameters", "M"),
        ("paper's", "M"),
        ("work", "GFLOP a picture"),
        ("time", "s a picture"),
        ("peak memory", "MiB"),
    )
    columns = [Column("method", kind="text"), Column("scale", kind="text"), Column("network input", kind="text")]
    columns += [Column(head, (unit,)) for head, unit in heads]
    columns.append(Column("measured on", kind="text"))
    return Grid("cost", "", tuple(columns), tuple(rows), "", (_MEANING,)), tuple(wrong)


_MEANING = (
    "One picture and one text (or all names of a closed vocabulary), text encoder included. Work is counted while the network "
    "runs, 2 for a multiplication with its addition. Memory is what the process takes at its peak beyond its libraries, weights "
    "included; on a GPU that of the GPU."
)


def _published(known: Known, method: str) -> Cell:
    """Parameters in millions that the paper's table gives for the whole method."""
    for training in known.trained:
        if training.method == method and training.expected:
            profile = next((p for p in training.table.profiles.values() if p.is_paper_dataset), None)
            cells = training.table.row(training.full.row).paper.get(profile.column, {}) if profile is not None else {}
            if "params_m" in cells:
                return Cell(f"{cells['params_m']:.2f}", cells["params_m"])
    return Cell(reason=UNVERIFIED)


def _cells(title: str, scale: str, cost: dict[str, Any] | None, published: Cell) -> tuple[Cell, ...]:
    if cost is None:
        missing = Cell(reason=NOT_MEASURED)
        return (Cell(title), Cell(scale), missing, missing, published, *(missing,) * 4)
    if "error" in cost:
        wrong = Cell(reason=cost["error"])
        return (Cell(title), Cell(scale), Cell(cost["config"]), wrong, published, *(wrong,) * 4)
    size = " x ".join(map(str, cost["picture"]))
    numbers = ((cost["parameters_m"], 2), (cost["gflops"], 3), (cost["seconds"], 4), (cost["memory_mb"], 0))
    measured = f"{cost['device']}, {cost['threads']} thread{'s' if cost['threads'] != 1 else ''}"
    parameters, *cells = (Cell(f"{value:.{digits}f}", float(value)) for value, digits in numbers)
    about = (Cell(title), Cell(scale), Cell(f"{size}, {cost['config']}"))
    return (*about, parameters, published, *cells, Cell(measured))
