"""The bench page in Markdown, from the files of the pieces of work. No torch."""

from collections.abc import Mapping
from typing import Any

from rislab.bench.works import SOURCE, WORKS, Work

COLUMNS = (
    "method",
    "work",
    "CPU s",
    "plain",
    "x",
    "bound",
    "official CPU s",
    "x",
    "wanted",
    "its bound",
    "MiB",
    "plain",
    "official",
    "GFLOP",
    "of the rate",
    "answers",
)


def written(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: What a work's file holds, by its name; None where there is no file.
    """
    measured = {name: each for name, each in found.items() if _is_measured(each)}
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(_cells(WORKS[name], each) for name, each in measured.items())]
    table = [f"| {' | '.join(row)} |" for row in rows]
    missing = [_missing(WORKS[name], each) for name, each in found.items() if name not in measured]
    return "\n".join(["# Every method's work at full size", "", *_legend(measured), "", *table, "", *missing, ""])


def _is_measured(entry: Any) -> bool:
    return isinstance(entry, dict) and "fault" not in entry and "rislab" in entry


def _legend(measured: Mapping[str, dict[str, Any]]) -> list[str]:
    rates = [entry["matrix_rate"] for entry in measured.values()]
    rate = f"{min(rates):.0f} to {max(rates):.0f} GFLOP" if rates else "nothing"
    machines = "; ".join(sorted({entry["machine"] for entry in measured.values()}))
    return [
        f"- {len(measured)} of {len(WORKS)} pieces of work measured, random weights, noise, float32, on the CPU ({machines}).",
        "- plain: the way of the official code, or a plain loop, on this machine, in a process of its own right after ours. "
        "x: its CPU seconds over ours. bound: its operations over ours.",
        f"- official: the figure of the project's notes ({SOURCE}). x: over ours. wanted: what x is to be. its bound: by "
        "counting operations.",
        "- MiB: peak of resident memory over what was there before.",
        f"- of the rate: GFLOP a CPU second, as a share of that of matrix products here ({rate} a CPU second).",
        "- answers: equal labels, or the largest difference as a share of the largest value. tests: tests compare both ways.",
    ]


def _cells(work: Work, entry: dict[str, Any]) -> tuple[str, ...]:
    ours, plain, official = entry["rislab"], entry["plain"], work.official
    theirs = ("", "", "", "", "")
    if official is not None:
        memory = "" if official.grown_mb is None else f"{official.grown_mb:.0f}"
        ratio = official.cpu_seconds / ours["cpu_seconds"]
        theirs = (f"{official.cpu_seconds:g}", f"{ratio:.2f}", f"{official.goal:g}", official.bound, memory)
    answers = "tests"
    if "same_label_percent" in entry:
        answers = f"{entry['same_label_percent']:.2f} %"
    elif "difference" in entry:
        answers = f"{entry['difference']:.0e}"
    return (
        work.method,
        work.title,
        f"{ours['cpu_seconds']:.2f}",
        f"{plain['cpu_seconds']:.2f}",
        f"{entry['ratio']['cpu_seconds']:.2f}",
        f"{entry['bound']:.2f}",
        *theirs[:4],
        f"{ours['grown_mb']:.0f}",
        f"{plain['grown_mb']:.0f}",
        theirs[4],
        f"{ours['gflop']:.0f}",
        f"{100 * entry['share_of_rate']:.0f} %",
        answers,
    )


def _missing(work: Work, entry: Any) -> str:
    reason = entry["fault"] if isinstance(entry, dict) and "fault" in entry else "no file"
    return f"- {work.method}, {work.title} (`{work.name}`): not measured: {reason}"
