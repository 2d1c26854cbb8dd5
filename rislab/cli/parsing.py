"""Command lines: mistakes in one line with the nearest name, and the options that every command has."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rislab.errors import ConfigError, nearest

VERBOSITY = {"-q": -1, "--quiet": -1, "-v": 1, "--verbose": 1}


class Parser(argparse.ArgumentParser):
    """argparse's, with errors of ours: one line, the nearest name, and where the options are listed."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists what there is")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            name = action.metavar if isinstance(action, argparse._SubParsersAction) else None
            what = f"no {str(name).lower()} {value!r}" if name else f"{value!r}"
            names = "there are" if name else "expected one of"
            raise argparse.ArgumentError(
                action if not name else None, f"{what}{nearest(str(value), known)}; {names} {', '.join(known)}"
            )


def parsed(parser: argparse.ArgumentParser, given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Raises ConfigError that names the first one that the command does not have."""
    options, rest = parser.parse_known_args(given)
    if rest:
        inner = innermost(parser, given)
        known = [name for action in inner._actions for name in action.option_strings]
        name = next((each.partition("=")[0] for each in rest if each.startswith("-")), rest[0])
        hint = nearest(name, known, cutoff=0.6) if name.startswith("--") else ""
        inner.error(f"unknown {'option' if name.startswith('-') else 'argument'} {name!r}{hint}")
    return options


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands or actions of a parser, by name; none for one that has options alone."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def innermost(parser: argparse.ArgumentParser, given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command and action that a command line names."""
    for word in given:
        parser = subparsers(parser).get(word, parser)
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Parsers of commands that do something, those of training left out: LightningCLI has its own."""
    inner = subparsers(parser)
    if not inner and parser.add_help:
        yield parser
    for each in inner.values():
        yield from leaves(each)


def add_verbosity(root: argparse.ArgumentParser) -> None:
    """`-q` and `-v` for every command, before and behind its name."""
    for parser in (root, *leaves(root)):
        group = parser.add_mutually_exclusive_group()
        for short, long, value, text in (
            ("-q", "--quiet", -1, "no progress and no hints: results, warnings and errors only"),
            ("-v", "--verbose", 1, "also what libraries say, and the traceback of an error"),
        ):
            group.add_argument(
                short, long, action="store_const", const=value, dest="verbosity", default=argparse.SUPPRESS, help=text
            )


def taken_verbosity(given: Sequence[str]) -> tuple[int, list[str]]:
    """(level, the rest) of a command line of training, whose parser does not know these options.

    Those behind `--` and values of other options are no options of ours: none of theirs is spelt so.
    """
    levels = [VERBOSITY[word] for word in given if word in VERBOSITY]
    return (levels[-1] if levels else 0), [word for word in given if word not in VERBOSITY]
