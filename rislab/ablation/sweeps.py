"""wandb sweeps: a table as one that agents work through, and what a sweep's arguments mean for a trial.

A row is one point of the sweep, named by its id and resolved by the table: to wandb, rows are words. The grid of a table's
switches would be another thing than the table.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation import plan, stages
from rislab.ablation.switches import PARTS, dotted, mistake
from rislab.ablation.table import Profile, Row, Table
from rislab.errors import ConfigError, nearest

SEARCH = "-search"
"""Put behind a table's name: trials with switches of their own lie in a folder of their own, no row's cell is filled by one."""

HEADER = """\
# Written by `rislab ablate export-sweep {written_by}`; write it again when the table changes.
#
#   wandb sweep --project rislab {file}        # once; prints the name that agents are given, ENTITY/rislab/ID
#
# On each machine, in a checkout like this one with rislab's environment active, one agent a GPU (or a core):
#
#   WANDB_AGENT_DISABLE_FLAPPING=true WANDB_AGENT_MAX_INITIAL_FAILURES=1000000 wandb agent ENTITY/rislab/ID
#
# Both limits are needed: without the first an agent gives up after three failures in its first minute, without the second
# after five failed trials, though the fault may be a row's alone. docs/wandb.md says more.
"""

LIMITS = ("WANDB_AGENT_DISABLE_FLAPPING", "WANDB_AGENT_MAX_INITIAL_FAILURES")


def logged(metric: str) -> str:
    """A table's metric as wandb is told it: `patch:miou_expr` is patch/miou_expr."""
    return metric.replace(":", "/")


def export(
    table: Table,
    profile: Profile,
    rows: Sequence[str],
    seeds: Sequence[int],
    typed: Sequence[str],
    passed: Sequence[str],
) -> str:
    """The sweep over rows and seeds of a table, as YAML; equal arguments give equal bytes.

    Args:
        typed: the arguments of `export-sweep`; the first is the table.
        passed: options that each trial is given, too.
    """
    folds = {"fold": {"values": list(profile.folds)}} if profile.folds else {}
    sweep = {
        "name": f"{table.name}, {profile.name}",
        "description": table.title,
        "method": "grid",
        "metric": {"name": logged(table.metrics[0]), "goal": "maximize"},
        "parameters": {"row": {"values": list(rows)}, **folds, "seed": {"values": list(seeds)}},
        "command": command(typed[0], ["--profile", profile.name, *passed]),
    }
    header = HEADER.format(written_by=shlex.join(typed), file=f"sweeps/{Path(typed[0]).stem}.yaml")
    return header + yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=120)


def fold_of(profile: Profile, given: Sequence[str]) -> tuple[str, list[str]]:
    """(fold, the other arguments) of KEY=VALUE arguments; "" for a profile without folds. Raises ConfigError."""
    if not profile.folds:
        return "", list(given)
    named = [text.removeprefix("fold=") for text in given if text.startswith("fold=")]
    if len(named) != 1 or named[0] not in profile.folds:
        known = f"profile {profile.name!r} has the folds {', '.join(profile.folds)}"
        wrong = f"fold={named[0]}: no such fold{nearest(named[0], profile.folds)}" if named else "fold=NAME is missing"
        raise ConfigError(f"{'fold is given twice' if len(named) > 1 else wrong}; {known}")
    return named[0], [text for text in given if not text.startswith("fold=")]


def command(table: str, options: Sequence[str]) -> list[str]:
    """What an agent starts. Arguments arrive as KEY=VALUE: wandb's other forms drop what is false, or need a file."""
    trial = ["-m", "rislab.cli.main", "ablate", "trial", table, *options]
    return ["${env}", "${interpreter}", *trial, "${args_no_hyphens}"]


def arguments(table: Table, given: Sequence[str]) -> tuple[Row, int, dict[str, str]]:
    """(row, seed, switches as written) of KEY=VALUE arguments. Raises ConfigError naming the first that is wrong.

    Without a seed it is the table's first.
    """
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text!r}: expected KEY=VALUE, e.g. row={table.baseline} seed=0")
        if key in pairs:
            raise ConfigError(f"{key} is given twice: {pairs[key]!r} and {value!r}")
        pairs[key] = value
    if "row" not in pairs:
        raise ConfigError(f"row=NAME is missing; rows are {', '.join(row.name for row in table.rows)}")
    row, seed = table.row(pairs.pop("row")), pairs.pop("seed", str(table.seeds[0]))
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 10 and int(seed) < 2**32):
        raise ConfigError(f"seed={seed[:40]}: expected a whole number from 0 to {2**32 - 1}")
    for key in pairs:
        if "." not in key:
            raise ConfigError(
                f"{key}={pairs[key]}: expected row, seed or a switch like model.{key}{nearest(key, ('row', 'seed'))}"
            )
    return row, int(seed), pairs


def with_switches(table: Table, profile: Profile, row: Row, given: Mapping[str, str]) -> Table:
    """A table of one row: `row` with switches over those of the profile, as a search over hyper-parameters asks for.

    Raises ConfigError listing what is no option, or no value of one.

    Args:
        given: switches as written on a command line; the table itself for none.
    """
    if not given:
        return table
    first = plan.merged(profile)
    chain = profile.stages or stages.declared(first["model"]["class_path"]) or stages.ONLY
    configs = {stage.name: plan.merged(profile, stage) for stage in chain}
    parts = {name: {part: config[part] for part in PARTS} for name, config in configs.items()}
    switches, mistakes = dict(profile.of(row).switches), []
    for key, text in given.items():
        value = read(text)
        if value is None or text == "None":
            mistakes.append(
                f"{key}={text}: null cannot come through a sweep's argument (wandb writes it as the word None); "
                "leave the switch out of the sweep, or give a row of the table the null"
            )
            continue
        # A number may be meant as text; the option's type decides.
        wrong = mistake(key, value, parts)
        if wrong and mistake(key, text, parts):
            mistakes.append(f"{key}={text}: {wrong}")
        switches[dotted(key)] = text if wrong else value
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return replace(table, name=table.name + SEARCH, rows=(replace(row, switches=switches),))


def read(text: str) -> Any:
    """A value as wandb writes it, in Python's manner: True, 1e-05, [2, 4], a word."""
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def _numbers(value: Any) -> Any:
    """YAML takes 1e-05, a number without a point, for text."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def chain(table: Table, profile: Profile, row: str, seed: int, fold: str = "", **where: Any) -> list[plan.Planned]:
    """The trials of one row, seed and fold, stages in order, in the very directories that the whole table has for them.

    Args:
        where: runs and data, as of `plan`.
    """
    planned = plan.plan(table, profile, [seed], **where)
    answers = plan.answered_by(planned)
    mine = [cell for cell in planned if (cell.row.name, cell.fold) == (row, fold)]
    return [replace(answers[cell.name], row=cell.row, is_last=cell.is_last) for cell in mine]
