"""The ledger of claims: every claim of every table, with its verdict in every profile that has been run.

A verdict is what the table's report says of all seeds that have a result. It is computed once for each state of the trials
and kept in the cache, because what computes it takes seconds to import; nothing here imports it before it is needed.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rislab.ablation import lookup, plan
from rislab.ablation.plan import Planned
from rislab.ablation.sharing import listed
from rislab.ablation.table import Claim, Profile, Table
from rislab.files import cache_dir, read_json, write_json

NOT_READ = "source not read"
"""Stands where a verdict would: the claim was recalled, not read in a source, and counts for nothing."""
NOT_RUN = "not run"
NO_RESULT = "no trial has a result"
VERDICTS = ("replicated", "contradicted", "negligible", "inconclusive", "single seed", NOT_RUN, NOT_READ)
"""In the order in which they are counted."""

_TRIAL = re.compile(r"(?P<row>.+?)(--[^-].*)?--s(?P<seed>\d+)--[0-9a-f]{8}")
_JUDGING = ("report", "metrics", "evaluation/arithmetic.py", "ablation/integrity.py", "ablation/records.py")
"""Sources that decide what a verdict is, below the package."""
_EVIDENCE = ("metrics.json", "manifest.json", "identity.json", "config.yaml", "scores.parquet", "status.json")
"""Files of a trial that decide what is read of it."""


@dataclass(frozen=True)
class Entry:
    """A claim in one profile.

    Attributes:
        profile: its name.
        dataset: what it was measured on.
        split: of that.
        is_paper_dataset: whether that is the paper's.
        verdict: one of `VERDICTS`.
        measured: differences with their intervals, as reports print them; empty without a result.
        note: why there is no verdict, or what would decide it.
        tests: the comparisons in numbers: difference, low, high, line, p; in percent points.
        seeds: finished seeds of each row that is compared.
        report: the page that shows it, where it has been written; "" else.
        report_note: what is wrong with the page, or how to write it; "" where nothing.
    """

    profile: str
    dataset: str
    split: str
    is_paper_dataset: bool
    verdict: str
    measured: str
    note: str
    tests: tuple[Mapping[str, float | None], ...]
    seeds: Mapping[str, Sequence[int]]
    report: str
    report_note: str


@dataclass(frozen=True)
class Line:
    """A claim of a table and what became of it, profile by profile."""

    table: Table
    claim: Claim
    entries: tuple[Entry, ...]

    def as_json(self) -> dict[str, Any]:
        paper = self.table.paper
        return {
            "table": self.table.name,
            "file": str(self.table.path),
            "paper": {"method": paper.method, "title": paper.title, "venue": paper.venue, "year": paper.year}
            | ({"arxiv": paper.arxiv} if paper.arxiv else {}),
            "claim": self.claim.name,
            "text": self.claim.text,
            "holds": self.claim.holds,
            "source": self.claim.source,
            "source_read": self.claim.judged,
            "profiles": [asdict(entry) for entry in self.entries],
        }


def ledger(tables: Sequence[Table], runs: Path, reports: Path) -> list[Line]:
    """Every claim of the tables, in their order.

    Args:
        tables: as loaded.
        runs: the folder of trials.
        reports: the folder that `ablate report` writes to.
    """
    found = []
    started = begun_seeds(runs)
    for table in tables:
        by_claim: dict[str, list[Entry]] = {claim.name: [] for claim in table.claims}
        for profile in table.profiles.values() if table.claims else ():
            for name, entry in _entries(table, profile, runs, reports, started):
                by_claim[name].append(entry)
        found += [Line(table, claim, tuple(by_claim[claim.name])) for claim in table.claims]
    return found


def counts(lines: Sequence[Line], is_paper_dataset: bool) -> dict[str, int]:
    """How often each verdict was given, on the paper's data sets or on others; verdicts that do not occur are left out.

    A claim that is judged in several profiles of that kind counts in each.
    """
    tally = Counter(
        entry.verdict for line in lines for entry in line.entries if entry.is_paper_dataset == is_paper_dataset
    )
    return {verdict: tally[verdict] for verdict in VERDICTS if tally[verdict]}


def begun_seeds(runs: Path) -> dict[str, set[int]]:
    """Seeds of trial directories by the name of their row, over all tables: trials may lie in another table's folder."""
    found: dict[str, set[int]] = {}
    for folder in listed(runs):
        for name in listed(runs / folder):
            match = _TRIAL.fullmatch(name)
            if match is not None:
                found.setdefault(match["row"], set()).add(int(match["seed"]))
    return found


def _entries(
    table: Table, profile: Profile, runs: Path, reports: Path, started: Mapping[str, set[int]]
) -> Iterator[tuple[str, Entry]]:
    """(claim, its entry) of a profile."""
    # A trial that two tables share has the name of a row of one of them only, so every seed is looked for.
    seeds = sorted(set().union(*started.values())) if started else []
    planned = plan.plan(table, profile, seeds, runs) if seeds else []
    finished = {cell.seed for cell in planned if cell.trial.metrics_file.exists()}
    planned = [cell for cell in planned if cell.seed in finished]
    judged = _judged(table, profile, sorted(finished), planned) if planned else {}
    page = reports / (table.name if profile.name == next(iter(table.profiles)) else f"{table.name}-{profile.name}")
    report, report_note = _report(page, planned, f"{_named(table)} --profile {profile.name}", sorted(finished))
    nothing: dict[str, Any] = {"verdict": NOT_RUN, "measured": "", "note": NO_RESULT, "tests": [], "seeds": {}}
    for claim in table.claims:
        # Whether the source was read is the table's word of today, whatever was judged before.
        unread = {"verdict": NOT_READ, "measured": "", "note": "recalled, not read in a source: no verdict"}
        said = judged.get(claim.name, nothing) if claim.judged else nothing | unread
        yield (
            claim.name,
            Entry(
                profile.name,
                profile.dataset,
                profile.split,
                profile.is_paper_dataset,
                said["verdict"],
                said["measured"],
                said["note"],
                tuple(said["tests"]),
                said["seeds"],
                report,
                report_note,
            ),
        )


def _named(table: Table) -> str:
    return lookup.shown_name(table.path)


def _report(folder: Path, planned: Sequence[Planned], options: str, seeds: Sequence[int]) -> tuple[str, str]:
    """The page that shows a profile, and what is wrong with it."""
    if not planned:
        return "", ""
    listed_seeds = ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")
    write = f"rislab ablate report {options} --seeds {listed_seeds}"
    page, values = folder / "report.html", folder / "report.csv"
    if not page.is_file():
        return "", f"no report: {write}"
    try:
        with values.open(newline="") as file:
            shown = {line["trial"] for line in csv.DictReader(file) if line.get("source") == "ours"}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        return str(page), f"its report.csv cannot be read: {write}"
    done = {cell.directory.name for cell in planned if cell.trial.metrics_file.exists()}
    return str(page), "" if shown == done else f"it shows other trials: {write}"


def _judged(
    table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned]
) -> dict[str, dict[str, Any]]:
    """Verdict, evidence and seeds of each judged claim, from the cache or computed now."""
    state = [str(table.path.resolve()), hashlib.sha256(table.path.read_bytes()).hexdigest(), profile.name, _sources()]
    state += [f"{cell.name} {cell.hash} {_stats(cell.directory)}" for cell in planned]
    file = cache_dir() / "claims" / f"{hashlib.sha256(chr(10).join(state).encode()).hexdigest()[:32]}.json"
    kept = read_json(file)
    if isinstance(kept, dict):
        return kept
    found = _judge(table, profile, seeds, planned)
    with suppress(OSError):  # where nothing can be kept, it is computed again next time
        write_json(file, found)
    return found


def _judge(
    table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned]
) -> dict[str, dict[str, Any]]:
    # Half a second of imports each: pyarrow and scipy.
    from rislab.report.formatting import evidence
    from rislab.report.results import collect
    from rislab.report.verdicts import judge

    results = collect(table, profile, seeds, planned)
    done = {row.row.name: [cell.seed for cell in row.done] for row in results.rows}
    found = {}
    for judged in judge(results):
        rows = dict.fromkeys(term.row for comparison in judged.claim.comparisons for term in comparison.terms)
        found[judged.claim.name] = {
            "verdict": judged.verdict,
            "measured": evidence(judged) if judged.tests else "",
            "note": judged.why,
            "tests": [
                {"difference": test.difference, "low": test.low, "high": test.high, "line": test.line, "p": test.p}
                for test in judged.tests
            ],
            "seeds": {row: done.get(row, []) for row in rows},
        }
    return found


def _stats(directory: Path) -> str:
    """Sizes and times of the files that decide what is read of a trial."""
    found = []
    for name in _EVIDENCE:
        try:
            status = (directory / name).stat()
            found.append(f"{name} {status.st_size} {status.st_mtime_ns}")
        except OSError:
            found.append(f"{name} -")
    return " ".join(found)


@cache
def _sources() -> str:
    """Digest of the code that judges."""
    package = Path(__file__).parents[1]
    files = [
        file for name in _JUDGING for file in ((package / name).glob("*.py") if "." not in name else [package / name])
    ]
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.read_bytes())
    return total.hexdigest()
