"""`rislab ablate verify`: finished trials once more, elsewhere, and whether they give the same."""

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.selection import Action, load, open_console
from rislab.errors import ConfigError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned


def add(action: Action) -> None:
    verify = action(
        "verify", "repeat finished trials elsewhere and say whether they give the same results", "cris --rows base"
    )
    verify.add_argument("--jobs", type=int, metavar="N", help="trials at once (default: as `run`)")
    verify.add_argument("--threads", type=int, metavar="N", help="threads of each (default: what each was made with)")
    verify.add_argument("--devices", metavar="N|A,B", help="GPUs: how many, or which (default: all)")
    verify.add_argument("--keep", type=Path, metavar="DIR", help="repeat them in DIR, and keep it")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """0 when every trial gave the same files, 1 when one did not."""
    from rislab.ablation import plan
    from rislab.launch.trial_jobs import require_space

    table, profile, seeds, planned = load(options)
    for name in ("jobs", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least 1")
    finished = [cell for cell in plan.distinct(planned) if cell.state == "done"]
    if not finished:
        raise ConfigError(f"{options.runs / table.name}: no trial of {table.name} is done, so there is none to repeat")
    plan.require_data(finished, profile)
    screen = open_console()
    with ExitStack() as stack:
        elsewhere = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rislab-verify-")))
        if elsewhere.exists() and any(elsewhere.iterdir()):
            raise ConfigError(f"--keep {elsewhere}: is not empty")
        require_space(elsewhere.absolute())
        rows = options.rows.split(",") if options.rows else None
        again = {cell.hash: cell for cell in plan.plan(table, profile, seeds, elsewhere, rows, options.data)}
        if _repeat(options, table, profile, [(cell, again[cell.hash]) for cell in finished]):
            return 130
        found = {cell.name: _differences(cell, again[cell.hash]) for cell in finished}
        equal = sum(not lines for lines in found.values())
        if options.json:
            trials = [{"trial": name, "equal": not lines, "differences": lines} for name, lines in found.items()]
            print(
                json.dumps({"table": table.name, "profile": profile.name, "equal": equal, "trials": trials}, indent=1)
            )
            return 0 if equal == len(finished) else 1
        for cell in finished:
            _say(screen, cell, found[cell.name])
        screen.print(f"{equal} of {len(finished)} trials are equal to the byte")
        if options.keep:
            screen.print(f"kept: {options.keep}", markup=False, soft_wrap=True)
    return 0 if equal == len(finished) else 1


def _repeat(options: argparse.Namespace, table: Any, profile: Any, pairs: "list[tuple[Planned, Planned]]") -> bool:
    """Run each again with as many threads and in as many parts as it was run with; True when the user stopped it."""
    from rislab.cli.ablate.run_view import RunView
    from rislab.launch.table_run import Request, TableRun, in_one_pool

    groups: dict[tuple[int, int], list[Planned]] = {}
    for made, cell in pairs:
        chain = [(made, cell)]
        while chain[0][1].parent is not None:  # a stage starts from what is repeated here, too
            earlier, before = chain[0][0].parent, chain[0][1].parent
            assert earlier is not None
            assert before is not None
            chain.insert(0, (earlier, before))
        for depth, (source, one) in enumerate(chain):
            group = groups.setdefault((depth, options.threads or _threads(source) or 0), [])
            if all(one.hash != other.hash for others in groups.values() for other in others):
                one.write()
                if source.trial.attempts.parts > 1:
                    one.trial.attempts.start_small(source.trial.attempts.parts)
                group.append(one)
    for (_, threads), cells in sorted(groups.items(), key=lambda item: item[0]):
        if cells:
            request = Request(options.runs, options.table, options.jobs, threads or None, options.devices)
            run = TableRun(table, profile, cells, request, RunView())
            if in_one_pool([run], cells) is not None:
                return True
    return False


def _threads(cell: "Planned") -> int | None:
    """Torch's threads in the trial; results are equal to the byte for equal numbers of them."""
    from rislab.ablation import records

    try:
        found = records.load(cell.trial.provenance_file, records.PROVENANCE)
    except (records.DamagedError, OSError):
        return None
    return int(found["threads"]) if found else None


def _differences(made: "Planned", again: "Planned") -> list[str]:
    """What is not equal, in words; nothing for equal trials."""
    from rislab.ablation.compare import differences

    state, found = made.trial.inspect(thorough=True)
    if state != "done":
        return [f"{state}: {found.reason}"]
    if again.state != "done":
        return [f"could not be repeated: {again.state}: {again.trial.status().get('error') or 'not run'}"]
    return [f"differs: {each}" for each in differences(made.directory, again.directory)]


def _say(screen: Any, made: "Planned", lines: list[str]) -> None:
    for line in lines or ["equal"]:
        screen.print(f"{made.name}: {line}", style="red" if lines else "green", markup=False, soft_wrap=True)
    changed = made.stale() if lines else []
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        screen.print(f"  made with other code: {changed[0]}{more}", style="dim", markup=False, soft_wrap=True)
