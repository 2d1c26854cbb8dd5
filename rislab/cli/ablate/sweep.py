"""`rislab ablate export-sweep` and `rislab ablate trial`: a table through wandb's agents."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rislab.cli.ablate.selection import Action, check_count, load, load_table


def add(action: Action) -> None:
    exported = action(
        "export-sweep",
        "print the table as a sweep for wandb agents: one point a row and seed",
        "cris --seeds 3 > sweeps/cris.yaml",
    )
    exported.add_argument("--threads", type=int, metavar="N", help="passed on to each trial")
    exported.set_defaults(run=export_sweep)

    trial = action(
        "trial",
        "run one trial of a table to its end, or log the finished one from its directory; what an agent calls. "
        "Further KEY=VALUE are switches over the row's: such trials go to RUNS/TABLE-search/",
        "cris row=con+dec3 seed=0 model.base_lr=1e-3 --wandb offline",
        chooses=False,
    )
    trial.add_argument("given", nargs="+", metavar="KEY=VALUE", help="row=NAME, seed=N, model.OPTION=VALUE ...")
    trial.add_argument("--threads", type=int, metavar="N", help="of the trial (default: 1 on a CPU, else the cores)")
    trial.add_argument("--retry", action="store_true", help="also repeat it if it failed or diverged")
    trial.add_argument(
        "--wandb",
        choices=("online", "offline", "disabled"),
        help="(default: $WANDB_MODE, or online in a sweep and disabled elsewhere)",
    )
    trial.set_defaults(run=run_trial)


def export_sweep(options: argparse.Namespace) -> int:
    from rislab.ablation import sweeps

    table, profile, seeds, planned = load(options)
    check_count("--threads", options.threads)
    passed = _typed(options, "tables", "data", "threads") + (
        ["--runs", str(options.runs)] if options.runs != Path("runs") else []
    )
    chosen = _typed(options, "profile", "seeds", "rows")
    rows = list(dict.fromkeys(cell.row.name for cell in planned))
    print(sweeps.export(table, profile, rows, seeds, [options.table, *chosen, *passed], passed), end="")
    return 0


def run_trial(options: argparse.Namespace) -> int:
    """Exit codes as of `run`: 0 done, 1 failed or diverged, 130 stopped, to go on with the same command."""
    from rislab.ablation import plan, sweeps
    from rislab.launch import table_run, trial_jobs, wandb_mirror

    check_count("--threads", options.threads)
    table, profile = load_table(options)
    fold, rest = sweeps.fold_of(profile, options.given)
    row, seed, given = sweeps.arguments(table, rest)
    table = sweeps.with_switches(table, profile, row, given)
    if given:  # the switches over the row's hold in place of the profile's, too
        profile = replace(profile, switches={})
    cells = sweeps.chain(table, profile, row.name, seed, fold, runs=options.runs, data=options.data)
    shown = wandb_mirror.Mirrors(cells, table, profile, wandb_mirror.mode(options.wandb))
    todo = trial_jobs.missing(cells, stale=False, retry=options.retry)
    stopped = False
    if todo and all(cell.state == "done" for cell in cells if cell not in todo):
        plan.require_data(todo, profile)
        for cell in todo:
            holder = cell.trial.holder()
            if holder is not None:
                print(f"{cell.name}: being run by process {holder['pid']} on {holder['host']}", flush=True)
        shown.follow()  # opens the run while the pool imports
        stopped = table_run.run_chain(todo, options.threads, shown.follow)
    shown.finish()
    state = next((cell for cell in cells if cell.state != "done"), cells[-1])
    print(f"{state.name}: {state.state}  {state.trial.path}")
    for line in shown.where:
        print(f"wandb: {line}")
    sys.stdout.flush()
    error = state.trial.status().get("error")
    if state.state in ("failed", "diverged"):
        print(f"  {error}\n  {state.trial.stdout}   again: --retry", file=sys.stderr)
    if stopped or state.state in ("interrupted", "lost"):
        return 130
    return 0 if state.state == "done" else 1


def _typed(options: argparse.Namespace, *names: str) -> list[str]:
    """Options as on the command line, those that were given."""
    given = [(name, getattr(options, name)) for name in names]
    return [text for name, value in given if value is not None for text in (f"--{name}", str(value))]
