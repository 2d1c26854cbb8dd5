"""`rislab ablate plan|run|status|report TABLE`: a paper's table from YAML to verdicts."""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.errors import ConfigError, RislabError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table
    from rislab.launch.local import Job, LocalPool, Outcome

TARGET = "rislab.training.trial"
ROOM_BYTES = 512 << 20
COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "diverged": "red",
    "lost": "yellow",
    "interrupted": "yellow",
    "pending": "dim",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("ablate", help="plan, run, watch and report a paper's ablation table")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("table", metavar="TABLE", help="a name (cris: ablations/cris.yaml) or a file")
    common.add_argument("--profile", help="scale of the table (default: its first)")
    common.add_argument("--seeds", metavar="N|A,B", help="how many seeds, or which (default: the table's)")
    common.add_argument("--rows", metavar="A,B", help="only these rows")
    common.add_argument("--data", metavar="DIR", help="where the data set lies")
    common.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)")

    def action(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name, parents=[common], help=text, description=text, epilog=f"example: rislab ablate {name} {example}"
        )

    planned = action("plan", "show what would run, what is done and what it costs", "cris --profile refcoco --seeds 3")
    planned.add_argument("--json", action="store_true", help="as JSON")
    planned.set_defaults(run=show_plan)

    started = action("run", "run what is missing of a table; run it again to resume", "cris --seeds 3 --jobs 2")
    started.add_argument("--jobs", type=int, metavar="N", help="trials at once (default: one a core)")
    started.add_argument("--threads", type=int, metavar="N", help="threads of each (default: the cores, shared out)")
    started.add_argument("--stale", action="store_true", help="also repeat what was made with other code")
    started.add_argument("--retry", action="store_true", help="also repeat what failed or diverged")
    started.set_defaults(run=run_table)

    status = action("status", "show the state of every trial, from its files", "cris --watch")
    status.add_argument("--watch", action="store_true", help="keep showing until everything has ended")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=show_status)

    report = action("report", "write report.md, .csv, .tex and .html", "cris --seeds 3")
    report.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s")
    report.set_defaults(run=write_report)


def _load(options: argparse.Namespace) -> "tuple[Table, Profile, list[int], list[Planned]]":
    from rislab.ablation import plan, table

    loaded = table.load(table.find(options.table))
    profile = loaded.profile(options.profile or next(iter(loaded.profiles)))
    seeds = list(loaded.seeds) if options.seeds is None else _seeds(options.seeds)
    rows = options.rows.split(",") if options.rows else None
    return loaded, profile, seeds, plan.plan(loaded, profile, seeds, options.runs, rows, options.data)


def _seeds(text: str) -> list[int]:
    """`3` is 0, 1, 2; `3,5` is just that; `7,` is 7 alone."""
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: expected how many (3) or which (0,1,2)") from None
    result = numbers if "," in text else list(range(numbers[0])) if numbers else []
    if not result or min(result) < 0 or len(set(result)) < len(result):
        raise ConfigError(f"--seeds {text!r}: expected at least one seed, none negative, none twice")
    return result


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def show_plan(options: argparse.Namespace) -> int:
    from rich.table import Table as RichTable

    from rislab.ablation import plan

    table, profile, _, planned = _load(options)
    answers = plan.answered_by(planned)
    cells = [(cell, answers[cell.name], cell.state) for cell in planned]
    expected = plan.expected_seconds(planned)
    todo = [cell for cell in plan.distinct(planned) if cell.state != "done"]
    absent = plan.missing_data(planned)
    orphans = plan.orphans(table, planned, options.runs)
    if options.json:
        print(
            json.dumps(
                {
                    "table": table.name,
                    "profile": profile.name,
                    "trials": [
                        {
                            "row": c.row.name,
                            "seed": c.seed,
                            "stage": c.stage,
                            "hash": c.hash,
                            "directory": str(c.trial.path),
                            "state": state,
                            "expected_seconds": expected[c.name],
                        }
                        for c, _, state in cells
                    ],
                    "missing_data": absent,
                    "orphans": [str(path) for path in orphans],
                },
                indent=1,
            )
        )
        return 0
    console = _console()
    shown = RichTable(title=f"{table.title}\n{profile.dataset}, split {profile.split}", title_justify="left")
    staged = any(cell.stage for cell in planned)
    for column in ("row", "seed", *(["stage"] if staged else []), "hash", "state", "minutes", "switches"):
        shown.add_column(column)
    for cell, answer, state in cells:
        seconds = expected[cell.name]
        shown.add_row(
            cell.row.name,
            str(cell.seed),
            *([cell.stage] if staged else []),
            cell.hash[:8],
            f"[{COLOURS[state]}]{state}[/]" if answer is cell else f"same as {answer.name}",
            f"{'' if state == 'done' else '~'}{seconds / 60:.1f}" if seconds else "",
            ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.row.switches.items()),
        )
    console.print(shown)
    whole = len(plan.distinct(planned))
    shared = f" for {len(planned)} stages of rows: {len(planned) - whole} are shared" if staged else ""
    console.print(f"{whole} trials{shared}, {len(todo)} to run{_cost([expected[c.name] for c in todo])}")
    for path in orphans:
        console.print(f"no longer in the table (kept): {path}", style="yellow")
    if absent:
        console.print("data not there:", style="yellow")
        for name in absent:
            console.print(f"  {name}", style="yellow", soft_wrap=True)
    return 0


def _cost(expected: list[float | None]) -> str:
    """What is left to run, reckoned from trials that have been measured."""
    known = [seconds for seconds in expected if seconds is not None]
    if not known:
        return ""
    unknown = len(expected) - len(known)
    total = sum(known) + unknown * sum(known) / len(known)
    guessed = f", {unknown} of them never measured" if unknown else ""
    return f": about {max(1, round(total / 60))} minutes of trials, one after the other{guessed}"


def run_table(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.ablation.table import PARTS
    from rislab.launch import local

    table, profile, _, planned = _load(options)
    for name in ("jobs", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least 1")
    cells = plan.distinct(planned)
    todo = [cell for cell in cells if _to_run(cell, options.stale, options.retry)]
    console = _console()
    if not todo:
        _say_result(console, cells)
        return _exit_code(cells)
    plan.require_data(planned, profile)
    _require_room(options.runs)
    for cell in todo:
        _make_ready(cell)

    cores = local.cores()
    jobs = options.jobs or (cores if _on_cpu(todo) else 1)
    threads = options.threads or max(1, cores // jobs)
    slots = min(jobs, len(todo))
    console.print(f"{table.title}: {len(todo)} of {len(cells)} trials to run, {slots} at once", style="bold")
    began = time.monotonic()
    preload = [TARGET, *sorted({cell.config[part]["class_path"].rpartition(".")[0] for cell in todo for part in PARTS})]
    console.print("preparing data and pretrained trunk (made once, then cached)", style="dim")
    inputs = {json.dumps(_inputs(cell.config), sort_keys=True): cell for cell in todo}
    pool = local.LocalPool(1, cores, preload)
    ready = pool.run(
        [local.Job(f"prepare {n}", f"{TARGET}:prepare", str(c.trial.config)) for n, c in enumerate(inputs.values())],
        lambda: None,
    )
    if pool.stops_asked:
        return 130
    if set(ready.states.values()) != {"done"}:
        raise RislabError("preparing failed; see the message above")
    expected = plan.expected_seconds(todo)
    queue = [
        (
            local.Job(
                cell.name,
                f"{TARGET}:run_trial",
                str(cell.trial.path),
                cell.trial,
                ("fit", "--config", str(cell.trial.config)),
                cell.parent.trial if cell.parent is not None else None,
            ),
            expected[cell.name],
        )
        for cell in todo
    ]
    pool = local.LocalPool(slots, threads, preload)
    outcome = _watched(console, pool, local.longest_first(queue), cells)
    if outcome.stopped_by:
        console.print(f"stopped early: {outcome.stopped_by}", style="red", markup=False)
    _say_result(console, cells)
    console.print(f"{time.monotonic() - began:.0f} s", style="dim")
    return 130 if pool.stops_asked else _exit_code(cells)


def _make_ready(cell: "Planned") -> None:
    """A directory from which the trial can start, or go on; one that another launcher is running stays as it is."""
    from rislab.ablation.trial import TrialBusyError

    try:
        if cell.state == "done":  # made with other code
            cell.trial.forget()
        elif cell.state in ("failed", "diverged"):
            cell.trial.excuse()
        cell.write()
    except TrialBusyError:
        return
    except OSError as error:
        raise RislabError(f"{error.filename or cell.trial.path}: cannot be written: {error.strerror}") from None


def _on_cpu(cells: "list[Planned]") -> bool:
    """Whether trials may run side by side unasked: those on a GPU would fight for its memory."""
    return all(cell.config.get("trainer", {}).get("accelerator") == "cpu" for cell in cells)


def _inputs(config: dict[str, Any]) -> Any:
    """What a trial needs made before it starts."""
    data = config["data"]["init_args"]
    data = data.get("benchmark_data", {}).get("init_args", data)
    return [data.get("generate"), config["model"]["init_args"].get("clip")]


def _to_run(cell: "Planned", stale: bool, retry: bool) -> bool:
    state = cell.state
    if state == "done":
        return stale and bool(cell.stale())
    if state == "diverged":
        return retry
    if state == "failed":
        # What the machine did to a trial (killed, out of memory) is no fault of its row: just go on.
        return retry or cell.trial.status().get("kind") in ("lost", "oom")
    return True


def _require_room(folder: Path) -> None:
    from rislab.launch import local

    free = local.free_space(folder)
    if free < ROOM_BYTES:
        raise ConfigError(f"{folder}: {free >> 20} MiB free, a table needs at least {ROOM_BYTES >> 20} MiB")


def _watched(console: Any, pool: "LocalPool", jobs: "list[Job]", cells: "list[Planned]") -> "Outcome":
    """Run the jobs with a live table on a terminal, or with one line a change elsewhere."""
    told: dict[str, str] = {}

    def tell(name: str, what: str) -> None:
        if told.get(name) != what:
            told[name] = what
            console.print(f"{time.strftime('%H:%M:%S')} {name}: {what}", markup=False, soft_wrap=True)

    def watch_stop() -> None:
        if pool.stops_asked:
            tell(
                "stopping", "trials write a checkpoint and end; the same command goes on from there (again: kill them)"
            )

    if console.is_terminal:
        from rich.live import Live

        def show() -> None:
            watch_stop()
            live.update(_status_table(cells))

        with Live(_status_table(cells), console=console, refresh_per_second=2, transient=True) as live:
            return pool.run(jobs, show)

    def print_changes() -> None:
        watch_stop()
        for cell in cells:
            state = cell.state
            if state != "pending":
                tell(cell.name, state)

    return pool.run(jobs, print_changes)


def _status_table(cells: "list[Planned]") -> "RichTable":
    from rich.table import Table as RichTable

    shown = RichTable()
    for column in ("trial", "state", "step", "epoch", "steps/s", "miou_expr", "left", "note"):
        number = column in ("step", "epoch", "steps/s", "miou_expr", "left")
        shown.add_column(column, justify="right" if number else "left", no_wrap=column != "note")
    for cell in cells:
        row = _status(cell)
        left = _left(row)
        shown.add_row(
            row["trial"],
            f"[{COLOURS[row['state']]}]{row['state']}[/]",
            f"{row['step']}/{row['max_steps']}" if row["step"] is not None else "",
            "" if row["epoch"] is None else str(row["epoch"]),
            "" if row["speed"] is None else f"{row['speed']:.1f}",
            "" if row["miou_expr"] is None else f"{row['miou_expr']:.1f}",
            left,
            row["note"],
        )
    return shown


def _left(row: dict[str, Any]) -> str:
    if row["state"] != "running" or not row["speed"] or not row["max_steps"]:
        return ""
    return f"{(row['max_steps'] - row['step']) / row['speed'] / 60:.1f} min"


def _status(cell: "Planned") -> dict[str, Any]:
    """One line of status, from the trial's files alone."""
    status, state = cell.trial.status(), cell.state
    note = status.get("error") or ""
    if state == "done":
        note = ""
        changed = cell.stale()
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            note = f"code changed: {changed[0]}{more}"
    elif state == "running" and status.get("stage") != "fit":
        note = status.get("stage", "")
    elif state == "interrupted":
        note = ""
    metric = status.get("metrics", {}).get("miou_expr")
    return {
        "trial": cell.name,
        "hash": cell.hash[:8],
        "directory": str(cell.trial.path),
        "state": state,
        # The status is written once a second at most, so its last step is rarely the last one.
        "step": status.get("max_steps") if state == "done" else status.get("step"),
        "max_steps": status.get("max_steps"),
        "epoch": status.get("epoch"),
        "speed": status.get("speed"),
        "miou_expr": metric,
        "note": note,
    }


def show_status(options: argparse.Namespace) -> int:
    from rislab.ablation import plan

    _, _, _, planned = _load(options)
    cells = plan.distinct(planned)
    if options.json:
        print(json.dumps([_status(cell) for cell in cells], indent=1))
        return 0
    console = _console()
    if not options.watch:
        console.print(_status_table(cells))
        return 0
    from rich.live import Live

    with Live(_status_table(cells), console=console, refresh_per_second=1) as live:
        while any(cell.state in ("running", "pending") for cell in cells):
            time.sleep(1)
            live.update(_status_table(cells))
    return 0


def _say_result(console: Any, cells: "list[Planned]") -> None:
    counts = Counter(cell.state for cell in cells)
    console.print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for cell in cells:
        if cell.state in ("failed", "diverged"):
            error = cell.trial.status().get("error")
            console.print(f"{cell.name}: {cell.state}: {error}", style="red", soft_wrap=True, markup=False)
            console.print(f"  {cell.trial.stdout}   again: --retry", style="dim", soft_wrap=True)


def _exit_code(cells: "list[Planned]") -> int:
    states = {cell.state for cell in cells}
    if states & {"interrupted", "lost"}:
        return 130
    return 0 if states == {"done"} else 1


def write_report(options: argparse.Namespace) -> int:
    from rislab.report.build import build

    table, profile, seeds, planned = _load(options)
    written = build(table, profile, seeds, planned, options.out)
    for path in written:
        print(path)
    sys.stdout.flush()
    return 0
