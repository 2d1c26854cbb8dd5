"""`rislab ablate plan`."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate import screen_tables
from rislab.cli.ablate.selection import COLOURS, Action, load, open_console

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table


def add(action: Action) -> None:
    from rislab.cli.ablate.cluster_options import add_cluster_options

    planned = action("plan", "show what would run, what is done and what it costs", "cris --profile refcoco --seeds 3")
    planned.add_argument("--json", action="store_true", help="as JSON")
    add_cluster_options(planned)
    planned.set_defaults(run=show_plan)


def show_plan(options: argparse.Namespace) -> int:
    from rislab.ablation import plan, switches
    from rislab.ablation.configs import seed_key
    from rislab.ablation.integrity import SUSPECT

    table, profile, _, planned = load(options)
    answers = plan.answered_by(planned)
    findings = plan.inspected(planned)
    cells = [(cell, answers[cell.name], state) for cell, (state, _) in zip(planned, findings, strict=True)]
    suspect = {
        f"{cell.name}: {state}: {found.reason}"
        for cell, (state, found) in zip(planned, findings, strict=True)
        if state in SUSPECT and answers[cell.name] is cell
    }
    expected = plan.expected_seconds(planned)
    todo = [cell for cell, answer, state in cells if answer is cell and state != "done" and state not in SUSPECT]
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
                            "fold": c.fold,
                            "hash": c.hash,
                            "directory": str(c.directory),
                            "state": state,
                            "shared_with": c.shared_with,
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
    screen = open_console()
    staged, folded = any(cell.stage for cell in planned), bool(profile.folds)
    columns: list[screen_tables.Column] = [("row", "left"), ("seed", "left")]
    columns += [(name, "left") for name, shown in (("fold", folded), ("stage", staged)) if shown]
    columns += [("hash", "left"), ("state", "left"), ("minutes", "right"), ("switches", "fold")]
    rows: list[list[screen_tables.Cell]] = []
    for cell, answer, state in cells:
        seconds = expected[cell.name]
        shared = f", shared with {cell.shared_with}" if cell.shared_with else ""
        rows.append(
            [
                cell.row.name,
                str(cell.seed),
                *([cell.fold] if folded else []),
                *([cell.stage] if staged else []),
                cell.hash[:8],
                (state + shared, COLOURS.get(state, "magenta")) if answer is cell else f"same as {answer.name}",
                f"{'' if state == 'done' else '~'}{seconds / 60:.1f}" if seconds else "",
                ", ".join([*switches.shown(cell.row.switches), *(f"without {name}" for name in cell.row.without)]),
            ]
        )
    screen_tables.show(screen, columns, rows, f"{table.title}\n{profile.dataset}, split {profile.split}")
    whole = len(plan.distinct(planned))
    rest = f" for {len(planned)} stages of rows: {len(planned) - whole} are shared" if staged else ""
    screen.print(f"{whole} trials{rest}, {len(todo)} to run{_cost([expected[c.name] for c in todo])}")
    unseeded = {
        cell.config["data"]["class_path"].rpartition(".")[2] for cell in planned if not seed_key(cell.config["data"])
    }
    for name in sorted(unseeded):
        screen.print(f"{name} draws nothing: a seed is the method's alone")
    for text in sorted(suspect):
        screen.print(text, style="red", soft_wrap=True, markup=False)
    for path in orphans:
        screen.print(f"no longer in the table (kept): {path}", style="yellow")
    if options.launcher == "slurm" and todo:
        _show_jobs(options, screen, table, profile, todo)
    if absent:
        screen.print("data not there:", style="yellow")
        for name in absent:
            screen.print(f"  {name}", style="yellow", soft_wrap=True)
    return 0


def _show_jobs(
    options: argparse.Namespace, screen: Any, table: "Table", profile: "Profile", todo: "list[Planned]"
) -> None:
    """The batch scripts as they would be submitted, and what they cost."""
    from rislab.ablation import plan
    from rislab.cli.ablate.cluster_options import cluster_of
    from rislab.launch import slurm_table

    cluster = cluster_of(options, profile)
    expected, most = slurm_table.gpu_hours(cluster, todo, plan.expected(todo))
    for title, text in slurm_table.scripts(options.runs, table, cluster, todo):
        screen.print(f"\n{title}:", style="bold")
        screen.print(text.rstrip(), markup=False, soft_wrap=True)
    known = "never measured" if expected is None else f"about {expected:.1f}"
    screen.print(f"\nGPU hours: {known}; at most {most:.1f} by the time limit", style="bold")


def _cost(expected: list[float | None]) -> str:
    """What is left to run, reckoned from trials that have been measured."""
    known = [seconds for seconds in expected if seconds is not None]
    if not known:
        return ""
    unknown = len(expected) - len(known)
    total = sum(known) + unknown * sum(known) / len(known)
    guessed = f", {unknown} of them never measured" if unknown else ""
    return f": about {max(1, round(total / 60))} minutes of trials, one after the other{guessed}"
