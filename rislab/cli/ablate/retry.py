"""`rislab ablate retry`: let trials that have ended without a result be run again."""

import argparse
import json
from typing import get_args

from rislab.cli.ablate.selection import Action, load, open_console, refusal
from rislab.errors import ConfigError, RislabError, nearest


def add(action: Action) -> None:
    retry = action("retry", "let failed, diverged and cancelled trials be run again", "cris --kind oom,lost")
    retry.add_argument("--kind", metavar="A,B", help="only these kinds of failure (default: all)")
    retry.add_argument("--fresh", action="store_true", help="from the start, not from the last checkpoint")
    retry.add_argument("--json", action="store_true", help="print JSON")
    retry.set_defaults(run=run_retry)


def run_retry(options: argparse.Namespace) -> int:
    """Nothing is started: the next `run`, or one that is watching, takes them up."""
    from rislab.ablation import plan
    from rislab.ablation.trial import TrialBusyError

    _, _, _, planned = load(options)
    kinds = _kinds(options.kind)
    screen = open_console(stderr=options.json)
    found: list[str] = []
    refused = 0
    for cell in plan.distinct(planned):
        state, _ = cell.trial.inspect()
        status = {} if state == "unreadable" else cell.trial.status()
        kind = "cancelled" if state == "cancelled" else status.get("kind")
        if state not in ("failed", "diverged", "cancelled") or (kinds and kind not in kinds):
            continue
        try:
            if options.fresh:
                cell.trial.reset()
                cell.write()
            else:
                cell.trial.clear_cancel()
        except TrialBusyError as error:
            screen.print(f"{cell.name}: left alone: {error}", style="yellow", soft_wrap=True, markup=False)
            continue
        except (OSError, RislabError) as error:
            screen.print(refusal(cell, error), style="red", soft_wrap=True, markup=False)
            refused += 1
            continue
        found.append(cell.name)
        where = "the start" if options.fresh else "its last checkpoint"
        screen.print(f"{cell.name}: was {state} ({kind}), goes on from {where}", markup=False, soft_wrap=True)
    if options.json:
        print(json.dumps({"retried": found, "refused": refused}, indent=1))
        return 2 if refused else 0
    screen.print(f"{len(found)} trials to run: rislab ablate run {options.table}" if found else "nothing to retry")
    return 2 if refused else 0


def _kinds(text: str | None) -> set[str]:
    from rislab.ablation.attempts import Kind

    if text is None:
        return set()
    known = get_args(Kind)
    for name in text.split(","):
        if name not in known:
            raise ConfigError(f"--kind {name!r}{nearest(name, known)}; kinds are {', '.join(known)}")
    return set(text.split(","))
