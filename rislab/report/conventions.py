"""What a report's numbers are: metrics by their titles, protocol, split, counts, choice of checkpoints, verdicts."""

from collections.abc import Sequence
from typing import Any

from rislab.ablation.table import Profile
from rislab.evaluation.arithmetic import protocol_of
from rislab.metrics.definitions import METRICS
from rislab.report.measurements import is_trained
from rislab.report.results import Cell, Results


def title(metric: str, profile: Profile | None = None) -> str:
    """`patch:miou_expr` -> "patch: mIoU (expr)"; with a profile also the split, where it is not the one of the table."""
    stage, colon, bare = metric.rpartition(":")
    split = "" if profile is None or profile.split_of(metric) == profile.split else f", {profile.split_of(metric)}"
    return f"{stage}{colon}{' ' if colon else ''}{METRICS[bare].title}{split}"


def selected_on(results: Results) -> list[str]:
    """Splits on which the checkpoints of the table's trained trials are chosen, from their configs."""
    cells = [cell for row in results.rows for last in row.cells for cell in (*last.earlier.values(), last)]
    return sorted({split for cell in cells if is_trained(cell) if (split := _selected_on(cell)) is not None})


def _selected_on(cell: Cell) -> str | None:
    """The split whose score picks a trial's checkpoint: the data's validation split, or its benchmark's."""
    options = cell.planned.config["data"].get("init_args") or {}
    scored = options.get("benchmark_data")
    if isinstance(scored, dict):
        options = scored.get("init_args") or scored
    found = options.get("val_split")
    return None if found is None else str(found)


def _listed(value: Any) -> str:
    """A field of metrics.json, or the several values that trials have of it, as those of folds do."""
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _stages(results: Results) -> list[tuple[str, str]]:
    """What the columns of earlier stages are: split, protocol, and what the scores' data say of threshold and CRF."""
    found: dict[str, list[str]] = {}
    for cell in results.cells:
        if cell.planned.is_last or cell.planned.split not in cell.metrics.get("splits", {}):
            continue
        said = [f"split {cell.planned.split}", f"protocol {protocol_of(cell.metrics)}"]
        if "threshold" in cell.metrics:
            said.append(f"background threshold {cell.metrics['threshold'] / 1000:g}")
        if "crf" in cell.metrics:
            said.append(f"CRF: {cell.metrics['crf']}")
        text = ", ".join(said)
        if text not in found.setdefault(cell.planned.stage, []):
            found[cell.planned.stage].append(text)
    return [(f"stage {name}", "; ".join(texts)) for name, texts in found.items()]


def conventions(results: Results) -> list[tuple[str, str]]:
    shown: Sequence[str] = results.table.metrics
    rows = [
        ("dataset", f"{_listed(results.common('benchmark')) or results.profile.dataset}, split {results.profile.split}")
    ]
    protocols = list(dict.fromkeys(filter(None, (protocol_of(cell.metrics) for cell in results.cells))))
    if protocols:
        rows.append(("protocol", f"{_listed(protocols)} (docs/conventions.md)"))
    rows += _stages(results)
    for unit in ("expressions", "images"):
        counted = {
            cell.metrics["splits"][results.profile.split].get(unit)
            for cell in results.cells
            if results.profile.split in cell.metrics.get("splits", {})
        } - {None}
        if counted:
            rows.append((unit, ", ".join(map(str, sorted(counted)))))
    bare = {metric.rpartition(":")[2] for metric in shown}
    rows += [(m.title, m.meaning) for m in METRICS.values() if m.name in bare and not m.name.startswith("pr@")]
    if any(name.startswith("pr@") for name in bare):
        rows.append(("Pr@X", "share of expressions whose IoU exceeds X percent"))
    chosen = selected_on(results)
    if chosen:
        rows.append(
            ("checkpoint", f"the best on {', '.join(chosen)} during training; reported on {results.profile.split}")
        )
    rows.append(("spread", "mean ± sample standard deviation over seeds; n is how many"))
    if results.profile.folds:
        rows.append(
            (
                "folds",
                "a row is one training a fold; its value for a seed is the mean over folds, each with classes of its own; the "
                "variances from the choice of pictures of the folds' differences add up",
            )
        )
    rows.append(
        (
            "verdicts",
            "paired over pictures (jackknife, all expressions of a picture together) and over seeds (the spread pooled over "
            "trained rows, or the compared rows' own where that is larger); p is two-sided from Student's t, adjusted by Holm "
            "over all comparisons of the table; a comparison is decided at p < 0.05; intervals hold together (95 %); "
            f"differences surely below {results.table.margin_of_interest:g} points are negligible (docs/conventions.md)",
        )
    )
    return rows
