"""Options of `fit`, `validate`, `test` and `predict`, checked from sources: a slip costs no import of torch.

Only what is surely wrong is refused here. Whatever cannot be known without an import is left to LightningCLI's own parser.
"""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rislab.ablation import lookup, plugins, signature
from rislab.ablation.yaml_lines import read_yaml
from rislab.errors import ConfigError, nearest
from rislab.moved_names import MOVED_OPTIONS, current
from rislab.paths import user_path

COMMON = (
    "--help",
    "--config",
    "--print_config",
    "--seed_everything",
    "--trainer",
    "--model",
    "--data",
    "--trial",
    "--export",
    "--ckpt_path",
    "--weights_only",
    "--optimizer",
    "--lr_scheduler",
    "--verbose",
    "--return_predictions",
    "--version",
)
"""Options and groups of options that LightningCLI has for these commands."""
FILES = ("--ckpt_path", "--trial.start_from")
WORDS = ("best", "last", "hpc", "null", "None")
"""What stands for a checkpoint without being a file."""
PARTS = ("model", "data")
TRIAL = "rislab.training.cli.TrialOptions"
_WORDS = ("class_path", "init_args", "dict_kwargs", "help")


def check(arguments: Sequence[str]) -> None:
    """Look at the options of a training command.

    Args:
        arguments: behind the command's name.

    Raises:
        ConfigError: A config file or a checkpoint that is not there, an option that does not exist and is near to one that does,
            an option that the class of the model or of the data does not have.
    """
    given = list(_options(arguments))
    _check_files(given)
    configs = [value for name, value in given if name in ("--config", "-c") and value is not None]
    classes = _classes(configs, given)
    for name, _ in given:
        if not name.startswith("--"):
            continue
        group, _, rest = name.removeprefix("--").partition(".")
        if f"--{group}" not in COMMON:
            hint = nearest(f"--{group}", COMMON, cutoff=0.6)
            if hint:
                raise ConfigError(f"unknown option {name!r}{hint}")
            continue
        key = rest.removeprefix("init_args.").partition(".")[0] if group in PARTS else rest.partition(".")[0]
        known = _known(group, classes)
        if rest and known and key not in known and key.removesuffix("+") not in known:
            where = f"--{group}.init_args." if group in PARTS else f"--{group}."
            of = classes.get(group, group.capitalize()).rpartition(".")[2]
            raise ConfigError(
                f"unknown option {name!r}: {of} has no {key!r}{nearest(key, known, cutoff=0.5)}; given as {where}NAME"
            )


def check_begun(arguments: Sequence[str]) -> None:
    """Raises ConfigError for a command line that names neither a config file nor a class of a method."""
    names = {name.partition(".")[0] for name, _ in _options(arguments)}
    if not names & {"--config", "-c", "--model", "--help", "-h", "--print_config"}:
        raise ConfigError(
            "no --config FILE, such as experiments/cris/toy.yaml; `rislab methods NAME` lists a method's recipes"
        )


def _check_files(given: Sequence[tuple[str, str | None]]) -> None:
    """Raises ConfigError for weights that are not there, before anything is drawn or pretrained."""
    for name, value in given:
        if name not in FILES or value is None or value in WORDS:
            continue
        if ":" in value or value.startswith(
            "-"
        ):  # a URL or an entry of a registry; the next option, where there is no value
            continue
        if not user_path(value).exists():
            raise ConfigError(f"{name} {value}: no such file")


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of each option; a value that stands behind its option as a word of its own is taken as its."""
    for at, word in enumerate(arguments):
        if word == "--":
            return
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.partition("=")
            following = arguments[at + 1] if at + 1 < len(arguments) else None
            yield name, value if equals else following


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _classes(configs: Sequence[str], given: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """Class path of the model and of the data, as far as files and options say; a part without one is left out."""
    found: dict[str, str] = {}
    for name in configs:
        file = lookup.find(user_path(name)) if "\n" not in name else None  # may be one of rislab's recipes
        if file is None or not file.is_file():
            continue  # LightningCLI says what is wrong with it; it may also be text
        content = read_yaml(file)
        for part in PARTS:
            class_path = _class_path(content, part)
            if class_path:
                found[part] = class_path
    for name, value in given:
        part = name.removeprefix("--").removesuffix(".class_path")
        if part in PARTS and value is not None:
            found[part] = value
    return {part: current(path) for part, path in found.items() if signature.is_described(current(path))}


def _class_path(content: Any, part: str) -> str:
    inner = content.get(part) if isinstance(content, dict) else None
    class_path = inner.get("class_path") if isinstance(inner, dict) else None
    return class_path if isinstance(class_path, str) else ""


def _known(group: str, classes: dict[str, str]) -> frozenset[str]:
    """Names of the options in a group; none where they are not known."""
    if group in classes:
        moved = MOVED_OPTIONS.get(classes[group], {})
        return frozenset(signature.read(classes[group]).options) | set(moved) | set(_WORDS)
    if group == "trial":
        return frozenset(signature.read(TRIAL).options) | {"help"}
    if group == "trainer":
        return trainer_options()
    return frozenset()


@cache
def trainer_options() -> frozenset[str]:
    """Arguments of Lightning's Trainer, from its source; none where it cannot be found."""
    found = plugins.source_of("lightning.pytorch.trainer.trainer")
    if found is None:
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(found).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == "Trainer":
            init = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
            names = {argument.arg for argument in (*init.args.args, *init.args.kwonlyargs)} - {"self"}
    return frozenset(names | {"help"} if names else names)
