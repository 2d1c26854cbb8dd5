"""`rislab completion bash|zsh`: a script that completes commands, options, and names of tables, rows, methods and profiles."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rislab.cli.parsing import subparsers
from rislab.errors import ConfigError, RislabError, nearest
from rislab.paths import user_path

SHELLS = ("bash", "zsh")
NAMES = "names"
"""What the scripts call: `rislab completion names KIND WORD...`, the words of the line as far as it is typed."""
_SEPARATED = ("rows",)
"""Kinds of which an option takes several, with commas between them."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "completion",
        help="print a script that completes what you type in bash or zsh",
        description="Print a script for SHELL that completes commands, options, files, and the names of tables, rows, profiles, "
        "methods and benchmarks of the working directory.",
        epilog='example: eval "$(rislab completion bash)", in ~/.bashrc; for zsh the same with zsh, behind compinit, or '
        "rislab completion zsh > FOLDER/_rislab, with FOLDER in $fpath",
    )
    parser.add_argument("shell", metavar="SHELL", help=f"{' or '.join(SHELLS)}; {NAMES} is what the scripts call")
    words = parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    words.required = False  # else the error for a missing SHELL names it, too
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.shell == NAMES and options.words:
        # A completion that fails says nothing: whatever is printed would stand on the user's command line.
        with suppress(RislabError, OSError):
            for name in names(options.words[0], options.words[1:]):
                print(name)
        return 0
    if options.shell not in SHELLS or options.words:
        hint = nearest(options.shell, SHELLS, cutoff=0.6)
        raise ConfigError(f"no completion for {options.shell!r}{hint}; there is one for {' and '.join(SHELLS)}")
    sys.stdout.write(script(options.shell) + "\n")
    return 0


def script(shell: str) -> str:
    """The whole script for a shell. Raises ConfigError without shtab."""
    from rislab.cli.main import parser

    try:
        import shtab
    except ImportError:
        raise ConfigError("completion needs shtab: pip install shtab") from None
    root = parser()
    _add_training_options(root)
    _mark(root, shtab.FILE, shtab.DIRECTORY)
    return str(shtab.complete(root, shell, root_prefix="_rislab", preamble=_functions(shell)))


def _functions(shell: str) -> str:
    """A function for each kind of names, which asks this command."""
    found = []
    for kind in KINDS:
        if shell == "bash":
            body = f'rislab completion {NAMES} {kind} "${{COMP_WORDS[@]:0:COMP_CWORD}}" "$1" 2>/dev/null'
        else:
            body = f'compadd -- ${{(f)"$(rislab completion {NAMES} {kind} "${{(@)words[1,CURRENT]}}" 2>/dev/null)"}}'
        found.append(f"_rislab_names_{kind}() {{\n  {body}\n}}")
    return "\n".join(found)


def _mark(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Say of every argument that takes a name or a path how it is completed."""
    for action in parser._actions:
        kind = _kind(parser, action)
        if kind:
            action.complete = dict.fromkeys(SHELLS, f"_rislab_names_{kind}")  # type: ignore[attr-defined]
        elif action.type is user_path:
            is_folder = "DIR" in str(action.metavar)
            action.complete = folder if is_folder else file  # type: ignore[attr-defined]
    for inner in subparsers(parser).values():
        _mark(inner, file, folder)


def _kind(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What kind of names an argument takes; "" for none."""
    if action.metavar == "TABLE":
        return "tables"
    if parser.prog.endswith(" methods") and action.dest == "name":
        return "methods"
    return {"rows": "rows", "profile": "profiles", "methods": "methods", "benchmarks": "benchmarks"}.get(
        action.dest, ""
    )


def _add_training_options(root: argparse.ArgumentParser) -> None:
    """Options of `fit` and the others, which LightningCLI parses and not this parser."""
    from rislab.cli.main import TRAINING
    from rislab.cli.training_options import COMMON, trainer_options

    for name in TRAINING:
        parser = subparsers(root)[name]
        for option in COMMON:
            parser.add_argument(option, type=user_path if option in ("--config", "--ckpt_path", "--export") else str)
        for option in sorted(trainer_options() - {"help"}):
            parser.add_argument(f"--trainer.{option}")


def names(kind: str, words: Sequence[str]) -> list[str]:
    """Names of a kind that begin as the last word does; rows and profiles are those of the table that an earlier word names.

    Args:
        kind: a key of `KINDS`.
        words: of the command line so far; the last one is being typed, and may be empty.

    Raises:
        ConfigError: A table that cannot be read.
    """
    if kind not in KINDS:
        return []
    *before, typed = words or [""]
    known = KINDS[kind](before)
    done, comma, start = typed.rpartition(",") if kind in _SEPARATED else ("", "", typed)
    taken = done.split(",")
    return [f"{done}{comma}{name}" for name in known if name.startswith(start) and name not in taken]


def _tables(words: Sequence[str]) -> list[str]:
    from rislab.ablation import lookup

    return list(lookup.every_table())


def _methods(words: Sequence[str]) -> list[str]:
    from rislab.ablation import signature

    return list(signature.methods())


def _rows(words: Sequence[str]) -> list[str]:
    return [str(row.get("name")) for row in _content(words).get("rows", []) if isinstance(row, dict)]


def _profiles(words: Sequence[str]) -> list[str]:
    return [str(name) for name in _content(words).get("profiles", {})]


def _content(words: Sequence[str]) -> dict[str, Any]:
    """The first table that a word names, as its file has it: it may be faulty elsewhere."""
    from rislab.ablation import lookup
    from rislab.ablation.yaml_lines import read_yaml

    known = lookup.every_table()
    files = (known.get(word) or Path(word) for word in words if word in known or word.endswith((".yaml", ".yml")))
    content = next((read_yaml(file) for file in files if file.is_file()), None)
    return content if isinstance(content, dict) else {}


def _benchmarks(words: Sequence[str]) -> list[str]:
    from rislab.ablation import lookup

    return sorted(path.stem for path in lookup.files("experiments/benchmarks/*.yaml").values())


KINDS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "tables": _tables,
    "rows": _rows,
    "profiles": _profiles,
    "methods": _methods,
    "benchmarks": _benchmarks,
}
