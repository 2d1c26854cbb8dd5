"""`rislab.load`: a method with its weights, from whatever names it."""

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.api.model import Model
from rislab.errors import ConfigError, DataError, nearest, one_line
from rislab.paths import is_file, path_text, user_path

if TYPE_CHECKING:
    from rislab.methods.base import TextSegmenter

Named = str | os.PathLike[str]


def load(
    source: Named,
    *,
    method: str | None = None,
    config: Named | None = None,
    trunk: Named | None = None,
    profile: str | None = None,
    seed: int | None = None,
    fold: str | None = None,
    data: Named | None = None,
    runs: Named = "runs",
    tables: Named | None = None,
    device: str = "auto",
) -> Model:
    """Load a method with its weights, ready to segment.

    Args:
        source: A trial's directory, its best.ckpt, a finished row of a table ("cris:con+dec3"), or a file that the authors of a
            method released.
        method: Of a released file: whose it is, as `rislab methods` lists them. The recipes of that method are tried.
        config: Of a released file: the recipe that says which model it holds (experiments/cris/refcoco_r50.yaml).
        trunk: File of a frozen trunk's weights, where the trial took them from a file.
        profile: Of a row: the table's profile. Default: the table's first.
        seed: Of a row. Default: the table's first.
        fold: Of a row, where its profile has folds.
        data: Of a row: where the data set lies, as `--data` said it when the table was run.
        runs: Of a row: where trials lie.
        tables: Of a row: folder of more tables.
        device: `cpu`, `cuda`, `cuda:1`; `auto` is a GPU if there is one.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConfigError: No such table, row, method or device; a row that is not finished; options that do not belong together.
        DataError: A file that is missing, damaged, or holds another model.
    """
    path = user_path(source)
    of_row = {"profile": profile, "seed": seed, "fold": fold, "data": data, "tables": tables}
    if not path.exists() and ":" in os.fspath(source):
        if method is not None or config is not None:
            raise ConfigError(f"{source}: method and config belong to a file that the authors of a method released")
        chosen_tables = user_path(tables) if tables is not None else None
        place = None if data is None else path_text(data)
        path = _of_row(os.fspath(source), profile, seed, fold, place, user_path(runs), chosen_tables)
    elif given := [name for name, value in of_row.items() if value is not None]:
        raise ConfigError(f"{source}: {given[0]} belongs to a row of a table, such as 'cris:con+dec3'")
    if path.is_dir():
        path = _of_directory(path)
    if not is_file(path):
        raise DataError(f"{path}: no such file, directory or row of a table (TABLE:ROW)")
    target = _device(device)
    is_released = method is not None or config is not None
    if is_released and trunk is not None:
        raise ConfigError("trunk belongs to a checkpoint of a trial; of a released file, the recipe names the trunk")
    with _hidden_notice():
        if is_released:
            network = _official(path, method, user_path(config) if config is not None else None)
        else:
            from rislab.training import inference

            network = inference.load_method(path, user_path(trunk) if trunk is not None else None)
    return Model(network.to(target), _method_of(network))


@contextmanager
def _hidden_notice() -> Iterator[None]:
    """open_clip logs that weights are random when a network is built; then those of the file take their place."""

    def is_shown(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_shown)
    try:
        yield
    finally:
        root.removeFilter(is_shown)


def _of_row(
    given: str,
    profile: str | None,
    seed: int | None,
    fold: str | None,
    data: str | None,
    runs: Path,
    tables: Path | None,
) -> Path:
    """The directory of a finished trial of `TABLE:ROW`. Raises ConfigError."""
    from rislab.ablation import plan, table

    named, _, row = given.rpartition(":")
    loaded = table.load(table.find(named, tables))
    chosen = loaded.profile(profile or next(iter(loaded.profiles)))
    loaded.row(row)
    if chosen.folds and fold not in chosen.folds:
        raise ConfigError(f"{given}: profile {chosen.name!r} has folds: fold is one of {', '.join(chosen.folds)}")
    if fold is not None and not chosen.folds:
        raise ConfigError(f"{given}: profile {chosen.name!r} has no folds")
    number = loaded.seeds[0] if seed is None else seed
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f"seed is {number!r}, expected a whole number from 0")
    # The whole table is planned: a row may be answered by another row's trial.
    planned = plan.plan(loaded, chosen, [number], runs, data=data)
    answers = plan.answered_by(planned)
    last = next(c for c in planned if c.row.name == row and c.is_last and c.fold == (fold or ""))
    cell = answers[last.name]
    state, found = cell.trial.inspect()
    if state != "done":
        why = f": {found.reason}" if found.reason else ""
        place = f" --data {shlex.quote(data)}" if data is not None else ""
        more = f" --profile {chosen.name}{place} --seeds {number}, --rows {row}"
        raise ConfigError(
            f"{given} ({chosen.name}, seed {number}) is {state}{why}; `rislab ablate run {named}{more}` trains it"
        )
    return cell.trial.path


def _of_directory(folder: Path) -> Path:
    """The checkpoint of a trial's directory. Raises DataError."""
    from rislab.ablation.trial import TrialDir

    trial = TrialDir(folder)
    _, found = trial.inspect()
    if found.suspect:
        raise DataError(f"{folder} is {found.suspect}: {found.reason}")
    best = trial.checkpoints / "best.ckpt"
    if not best.is_file():
        raise DataError(f"{folder}: no trial with weights; expected checkpoints/best.ckpt in it")
    return best


def _device(name: str) -> str:
    """The device that is meant. Raises ConfigError for one that torch has not."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(name)
    except (RuntimeError, TypeError):
        known = ("auto", "cpu", "cuda", "cuda:1")
        raise ConfigError(f"no device {name!r}{nearest(name, known)}; expected {', '.join(known)}") from None
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"device {name!r}: {one_line(error).partition('. ')[0]}; expected auto, cpu or cuda"
        ) from None
    return name


def _method_of(network: "TextSegmenter") -> str:
    from rislab.ablation import signature

    class_path = f"{type(network).__module__}.{type(network).__qualname__}"
    return next((name for name, known in signature.methods().items() if known == class_path), class_path)


def _official(path: Path, method: str | None, config: Path | None) -> "TextSegmenter":
    """The model in a released file. Raises ConfigError, DataError."""
    from rislab.ablation import signature
    from rislab.training import inference

    known = signature.methods()
    if method is not None and method not in known:
        raise ConfigError(f"no method {method!r}{nearest(method, known)}; methods are {', '.join(known)}")
    if config is None:
        assert method is not None, "one of the two was given"
        config = _recipe_that_fits(path, method)
    recipe = inference.read_recipe(config)
    if method is not None and recipe["class_path"] != known[method]:
        raise ConfigError(f"{config}: its model is no {method}")
    return inference.load_official(path, recipe)


def _recipe_that_fits(path: Path, method: str) -> Path:
    """The one recipe of a method whose model has the shapes of a released file.

    Raises:
        ConfigError: None fits, or several that differ in an option of the model: the file cannot say which is meant.
    """
    from rislab.ablation import lookup, signature
    from rislab.training import inference

    class_path = signature.methods()[method]
    recipes = {
        name: recipe
        for name, file in lookup.files(f"experiments/{method}/*.yaml").items()
        if not file.stem.startswith("toy") and (recipe := _model_of(file, class_path)) is not None
    }
    fitting = inference.fitting_recipes(path, class_path, recipes)
    if not fitting:
        tried = ", ".join(recipes) or "none"
        raise ConfigError(f"{path}: its weights fit no recipe of {method} (tried: {tried}); give yours as config")
    if any(recipes[name] != recipes[fitting[0]] for name in fitting):
        raise ConfigError(
            f"{path}: its weights fit recipes of {method} whose models differ otherwise; give the right one as config: "
            f"{', '.join(fitting)}"
        )
    return lookup.find(fitting[0])


def _model_of(file: Path, class_path: str) -> dict[str, Any] | None:
    """The model in a recipe, or None for one of another class or without a model, such as what a second stage puts over it."""
    from rislab.ablation.yaml_lines import read_yaml

    content = read_yaml(file)
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, dict) and model.get("class_path") == class_path else None
