"""`rislab.results`: what the trials of a table have come to, as data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from rislab.errors import ConfigError, DataError, nearest, one_line
from rislab.paths import absolute, path_text, user_path

if TYPE_CHECKING:
    from rislab.ablation.table import Profile, Table
    from rislab.report.results import Cell, Results, RowResult


class TableResults:
    """A table with the numbers of its finished trials; `rislab.results` makes it.

    Args:
        results: As a report reads them: damaged trials show no number.
    """

    def __init__(self, results: "Results") -> None:
        self._results = results

    @property
    def name(self) -> str:
        """The table's own name: the folder of its trials."""
        return self._results.table.name

    @property
    def profile(self) -> str:
        """The profile that is shown."""
        return self._results.profile.name

    @property
    def split(self) -> str:
        """The split that the numbers are measured on."""
        return self._results.profile.split

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the table's metrics; all are in percent."""
        return self._results.table.metrics

    def rows(self) -> list[dict[str, Any]]:
        """One entry a row, in the table's order; `pandas.DataFrame` takes them.

        Returns:
            row, label, seeds (finished), states (of each trial), parameters (millions, or None), and of each metric: its mean
            over seeds in percent (None without a result), `<metric>_sd` (standard deviation over seeds, None below two),
            `<metric>_paper` (the paper's verified number, or None).
        """
        return [self._row(result) for result in self._results.rows]

    def _row(self, result: "RowResult") -> dict[str, Any]:
        from rislab.report.statistics import spread

        found: dict[str, Any] = {
            "row": result.row.name,
            "label": result.row.label,
            "seeds": result.finished_seeds,
            "states": [cell.state for cell in result.cells],
            "parameters": result.parameters,
        }
        published = result.row.paper.get(self._results.profile.column, {})
        for metric in self.metrics:
            of_seeds = spread(result.values(self.split, metric))
            found[metric] = None if of_seeds is None else of_seeds.mean
            found[f"{metric}_sd"] = None if of_seeds is None else of_seeds.sd
            found[f"{metric}_paper"] = published.get(metric)
        return found

    def expressions(self, row: str, seed: int | None = None, fold: str | None = None) -> dict[str, NDArray[Any]]:
        """Counts of one trial, one entry a unit (an expression, or a class in a picture), as columns.

        Args:
            row: Name of a row.
            seed: Default: the first that is finished.
            fold: Default: the first that is finished.

        Returns:
            Columns of the trial's scores.parquet on this split; of expressions sent_id, ref_id, image_id, intersection, union,
            target, prediction (pixels), no_target (0 or 1), iou (0 to 1).

        Raises:
            ConfigError: No such row; no finished trial of it.
            DataError: Its file of scores is gone or damaged.
        """
        names = [result.row.name for result in self._results.rows]
        if row not in names:
            raise ConfigError(f"{self.name}: no row {row!r}{nearest(str(row), names)}; rows are {', '.join(names)}")
        cells = [
            cell
            for cell in self._results.rows[names.index(row)].cells
            if seed in (None, cell.seed) and fold in (None, cell.planned.fold)
        ]
        cell = next((cell for cell in cells if cell.state == "done"), None)
        if cell is None:
            which = "" if seed is None else f", seed {seed}"
            states = ", ".join(sorted({cell.state for cell in cells})) or "not among those read"
            raise ConfigError(f"{self.name}: row {row!r}{which} has no result ({states})")
        return self._columns(cell)

    def _columns(self, cell: "Cell") -> dict[str, NDArray[Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = cell.planned.trial.scores_file
        try:
            table = pq.read_table(path, filters=[("split", "=", cell.planned.split)])
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read ({one_line(error)})") from None
        return {
            name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names if name != "split"
        }

    def __repr__(self) -> str:
        done = sum(cell.state == "done" for cell in self._results.cells)
        return f"TableResults({self.name}, {self.profile}: {done} of {len(self._results.cells)} trials done)"

    def __str__(self) -> str:
        """The table as text, a line a row."""
        rows = self.rows()
        heads = ["row", "seeds", *self.metrics]
        lines = [heads] + [
            [row["row"], str(row["seeds"]), *(_shown(row, name) for name in self.metrics)] for row in rows
        ]
        widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([f"{self.name}, {self.profile}, {self.split} (percent)", *body])


def _shown(row: dict[str, Any], metric: str) -> str:
    if row[metric] is None:
        return "-"
    sd = row[f"{metric}_sd"]
    return f"{row[metric]:.2f}" if sd is None else f"{row[metric]:.2f} ± {sd:.2f}"


def results(
    table: str | os.PathLike[str],
    profile: str | None = None,
    seeds: Sequence[int] | int | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    tables: str | os.PathLike[str] | None = None,
) -> TableResults:
    """What the trials of a table have come to.

    Args:
        table: Its name ("cris") or file.
        profile: Default: the table's first.
        seeds: How many, or which. Default: every seed that there is a trial of, else the table's own.
        data: Where the data set lies, as `--data` said it when the table was run: an imported set is part of a trial's hash.
        runs: Where trials lie.
        tables: Folder of more tables.

    Returns:
        The results; rows without a finished trial have no numbers.

    Raises:
        ConfigError: No such table or profile; no seeds.
    """
    from rislab.ablation import plan
    from rislab.ablation import table as table_files
    from rislab.report.results import collect

    folder = user_path(tables) if tables is not None else None
    loaded = table_files.load(table_files.find(path_text(table), folder))
    chosen = loaded.profile(profile or next(iter(loaded.profiles)))
    where, place = absolute(runs), None if data is None else path_text(data)
    numbers = _seeds(seeds) if seeds is not None else _finished(loaded, chosen, where, place)
    return TableResults(collect(loaded, chosen, numbers, plan.plan(loaded, chosen, numbers, where, data=place)))


def _seeds(given: Sequence[int] | int) -> list[int]:
    numbers = list(range(given)) if isinstance(given, int) else list(given)
    is_sound = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in numbers)
    if isinstance(given, (bool, str)) or not numbers or not is_sound or len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds is {given!r}, expected how many (3) or which ([0, 1, 2])")
    return numbers


def _finished(table: "Table", profile: "Profile", runs: Path, data: str | None) -> list[int]:
    """Seeds of which there is a result in this profile; the table's own where there is none."""
    from rislab.ablation import plan
    from rislab.report.claims import begun_seeds

    # A trial that two tables share has the name of a row of one of them only, so every seed is looked for.
    begun = sorted(set().union(*begun_seeds(runs).values()))
    cells = plan.plan(table, profile, begun, runs, data=data) if begun else []
    return sorted({cell.seed for cell in cells if cell.trial.metrics_file.exists()}) or list(table.seeds)
