"""`rislab matrix`: every method on every benchmark, in one table."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.errors import ConfigError, DataError, nearest
from rislab.messages import result
from rislab.paths import absolute, user_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rislab.report.matrix import Cell

RECIPES = (".yaml", ".yml")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "matrix",
        help="score methods on benchmarks, each on each, into one report",
        description="Score each method on each benchmark. Methods for sentences get class names, methods for class "
        "names get sentences. A cell that is done is not run again.",
        epilog="example: rislab matrix --methods cris tcl maskclip --benchmarks toy-refcoco toy-voc --checkpoints ckpts.yaml",
    )
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME", help="folders of experiments/")
    parser.add_argument(
        "--benchmarks", nargs="+", required=True, metavar="NAME", help="files of experiments/benchmarks/"
    )
    parser.add_argument(
        "--checkpoints",
        type=user_path,
        metavar="FILE",
        help="YAML, `method: best.ckpt` a line, or `method: {official: FILE, config: RECIPE}` for the authors' weights; methods "
        "that are trained need one, others may name a recipe (.yaml)",
    )
    parser.add_argument("--data", metavar="DIR", help="root of real data sets")
    parser.add_argument("--runs", type=user_path, default=Path("runs/matrix"), metavar="DIR")
    parser.add_argument("--out", type=user_path, default=Path("reports/matrix"), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once")
    parser.add_argument("--json", action="store_true", help="print the files and what became of each cell as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.report import matrix

    listed = read_checkpoints(options.checkpoints)
    strangers = sorted(listed.keys() - set(options.methods))
    if strangers:
        raise ConfigError(
            f"{options.checkpoints}: {strangers[0]!r} is none of --methods{nearest(strangers[0], options.methods)}"
        )
    given = {method: weights(method, value, options.checkpoints, options.runs) for method, value in listed.items()}
    benchmarks = {name: benchmark_data(name, options.data) for name in options.benchmarks}
    models = {method: model_of(method, given.get(method)) for method in options.methods}
    trunks = {method: trunk_of(model) for method, model in models.items()}
    for method, model in models.items():
        for name, data in benchmarks.items():
            require_trunk(method, model, given.get(method), name, data)
    cells = [
        cell_of(options.runs, method, model, name, data, given.get(method), trunks[method])
        for method, model in models.items()
        for name, data in benchmarks.items()
    ]
    score(cells, options.jobs)
    written = matrix.build(cells, list(options.methods), list(options.benchmarks), options.out)
    failed = [cell for cell in cells if cell.trial.state() != "done"]
    reasons = {}
    for cell in failed:
        state, found = cell.trial.inspect()
        why = f"{found.reason} ({cell.trial.path})" if found.suspect else cell.trial.status().get("error") or "not run"
        reasons[cell.name] = f"{state}: {why}"
    if options.json:
        done = [cell.name for cell in cells if cell.name not in reasons]
        print(json.dumps({"files": [str(path) for path in written], "done": done, "not_done": reasons}, indent=1))
        return 1 if failed else 0
    for path in written:
        result(path)
    for name, reason in reasons.items():
        result(f"{name}: {reason}")
    return 1 if failed else 0


def score(cells: "Sequence[Cell]", jobs: int) -> bool:
    """Score the cells that have no result yet, some at once.

    Args:
        cells: of one folder or several.
        jobs: at once.

    Returns:
        Whether the user stopped it.
    """
    from rislab.ablation.trial import CLOSED
    from rislab.launch import trial_jobs
    from rislab.launch.local_pool import LocalPool, cores

    todo = [cell for cell in cells if cell.trial.state() not in CLOSED]
    if not todo:
        return False
    for cell in todo:
        cell.write()
    pool = LocalPool(jobs, max(1, cores() // jobs), [trial_jobs.TARGET])
    pool.run([trial_jobs.of_directory(cell.name, cell.trial) for cell in todo], lambda: None)
    return bool(pool.stop_requests)


def read_checkpoints(file: Path | None) -> dict[str, Any]:
    """What a file gives for each method, as `weights` takes it. Raises ConfigError."""
    from rislab.ablation.yaml_lines import read_yaml

    content = {} if file is None else read_yaml(file)
    if not isinstance(content, dict) or not all(isinstance(value, (str, dict)) for value in content.values()):
        raise ConfigError(f"{file}: expected `method: path` on each line")
    return {str(name): value for name, value in content.items()}


def weights(method: str, given: str | dict[str, Any], file: Path, runs: Path) -> Path:
    """The checkpoint or recipe that a file of checkpoints gives for a method.

    Args:
        given: a path, or `{official: FILE, config: RECIPE}`: the authors' weights, which are written in our form below `runs`.
        file: relative paths lie beside it; a recipe may also be given from the current folder.
        runs: of the matrix.

    Raises:
        ConfigError: Keys that are none, or files that are not there.
        DataError: Weights that cannot be read, or are another model's.
    """
    if isinstance(given, str):
        return beside(file, given)
    keys = ("official", "config")
    for key in given:
        if key not in keys:
            raise ConfigError(
                f"{file}: {method}: no key {key!r}{nearest(str(key), keys)}; keys are official and config"
            )
    if given.keys() != set(keys) or not all(isinstance(value, str) for value in given.values()):
        raise ConfigError(f"{file}: {method}: expected a path, or {{official: FILE, config: RECIPE.yaml}}")
    from rislab.ablation.integrity import sha256
    from rislab.report.comparison.scores import OFFICIAL
    from rislab.training.cli import quiet
    from rislab.training.official_weights import as_checkpoint

    quiet()
    release, recipe = beside(file, given["official"]), Path(given["config"])
    recipe = recipe if recipe.is_file() else beside(file, given["config"])
    for path in (release, recipe):
        if not path.is_file():
            raise ConfigError(f"{file}: {method}: no file {path}")
    stem = release.stem.replace("--", "-")
    target = runs / OFFICIAL / f"{method}--{stem}--{sha256(release)[:8]}.ckpt"
    if not target.exists():
        as_checkpoint(release, recipe, target)
    return target


def beside(file: Path, given: str) -> Path:
    """A path that a file names, beside it where it is relative."""
    path = user_path(given)
    return path if path.is_absolute() else file.parent / path


def is_training_free(class_path: str) -> bool:
    """Whether a method has nothing to train."""
    return "rislab.methods.base.TrainingFree" in _bases(class_path)


def benchmark_data(name: str, root: str | None) -> dict[str, Any]:
    import yaml

    from rislab.ablation import lookup

    known = {path.stem: path for path in lookup.files("experiments/benchmarks/*.yaml").values()}
    if name not in known:
        raise ConfigError(f"no benchmark {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    data: dict[str, Any] = yaml.safe_load(known[name].read_text())["data"]
    if data["init_args"].get("generate") is None and root is not None:
        from rislab.ablation.configs import relocated

        return relocated(data, Path(root).expanduser())
    return data


def model_of(method: str, checkpoint: Path | None) -> dict[str, Any]:
    """The recipe that a checkpoint was trained by, or the toy one of a method that needs no training."""
    import yaml

    from rislab.ablation import lookup, signature
    from rislab.training.inference import recipe_of

    known = signature.methods()
    if checkpoint is not None and checkpoint.suffix in RECIPES:
        return _recipe(method, checkpoint)
    if checkpoint is not None:
        if not checkpoint.exists():
            raise DataError(f"{checkpoint}: no such checkpoint (of {method})")
        recipe = recipe_of(checkpoint)
        if recipe["class_path"] != known.get(method):
            raise ConfigError(f"{checkpoint} is no checkpoint of {method}")
        return recipe
    if method not in known:
        raise ConfigError(f"no method {method!r}; there are {', '.join(known)}{nearest(method, known)}")
    toy = lookup.find(f"experiments/{method}/toy.yaml")
    if not toy.is_file():
        raise ConfigError(
            f"{method} has no {toy}: give its recipe or its checkpoint in --checkpoints FILE as `{method}: PATH`"
        )
    model: dict[str, Any] = yaml.safe_load(toy.read_text())["model"]
    if not is_training_free(model["class_path"]):
        raise ConfigError(
            f"{method} is trained: give its checkpoint in --checkpoints FILE as `{method}: PATH`. "
            f"`rislab fit --config {toy}` or a table (`rislab ablate run`) leaves one as checkpoints/best.ckpt"
        )
    return model


def _recipe(method: str, file: Path) -> dict[str, Any]:
    """The model of a config file, for a method that needs no training. Raises ConfigError."""
    from rislab.ablation import signature
    from rislab.ablation.yaml_lines import read_yaml

    content = read_yaml(file)
    model = content.get("model") if isinstance(content, dict) else None
    class_path = str(model.get("class_path")) if isinstance(model, dict) else ""
    if class_path != signature.methods().get(method):
        raise ConfigError(f"{file}: its model is no {method}")
    if not is_training_free(class_path):
        raise ConfigError(f"{file}: {method} is trained: a checkpoint is needed, and a recipe is none")
    assert isinstance(model, dict)
    return model


def _clip(model: dict[str, Any]) -> dict[str, Any]:
    """Name and weights of a method's trunk, defaults filled in; empty for a method without one."""
    from rislab.ablation import identity

    found = identity.resolve(model)["init_args"].get("clip")
    return found if isinstance(found, dict) else {}


def trunk_of(model: dict[str, Any]) -> str:
    """The trunk as a cell shows it: `ViT-B-16 openai`, or with the sha256 of a file of weights."""
    from rislab.ablation.integrity import sha256

    clip = _clip(model)
    if not clip:
        return ""
    weights = clip.get("pretrained")
    if isinstance(weights, str) and Path(weights).is_file():
        weights = f"{Path(weights).name} {sha256(Path(weights))[:8]}"
    return f"{clip.get('name')} {weights or 'without pretrained weights'}"


def require_trunk(
    method: str, model: dict[str, Any], checkpoint: Path | None, benchmark: str, data: dict[str, Any]
) -> None:
    """Raises ConfigError where a score would be none of the method: a toy or random trunk on real pictures."""
    if _is_generated(data):
        return
    clip = _clip(model)
    trained = checkpoint is not None and checkpoint.suffix not in RECIPES
    is_toy = clip.get("pretrained") == "toy" or str(clip.get("name", "")).startswith("rislab-tiny")
    if is_toy or (clip and not trained and clip.get("pretrained") is None):
        where = checkpoint or f"experiments/{method}/toy.yaml"
        more = "" if trained else f" Give a recipe with a real trunk in --checkpoints FILE as `{method}: RECIPE.yaml`."
        raise ConfigError(
            f"{method} on {benchmark}: {where} has the trunk {trunk_of(model)}, made for generated worlds; "
            f"its score on real pictures would not be the method's.{more}"
        )


def _is_generated(data: Any) -> bool:
    """Whether data are a world that is made, at any depth of a config."""
    if not isinstance(data, dict):
        return False
    return data.get("generate") is not None or any(map(_is_generated, data.values()))


def _bases(class_path: str) -> set[str]:
    import importlib

    module, _, name = class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    return {f"{base.__module__}.{base.__name__}" for base in found.__mro__}


def cell_of(
    runs: Path,
    method: str,
    model: dict[str, Any],
    benchmark: str,
    data: dict[str, Any],
    checkpoint: Path | None,
    trunk: str,
) -> "Cell":
    from rislab.ablation.identity import identity
    from rislab.ablation.integrity import sha256
    from rislab.report.matrix import Cell

    if checkpoint is not None and checkpoint.suffix in RECIPES:
        checkpoint = None
    weights = None if checkpoint is None else sha256(checkpoint)
    config = {
        "seed_everything": 0,
        "trainer": {"accelerator": "auto", "devices": 1},
        "model": model,
        "data": data,
        "trial": {"train": False} | ({} if checkpoint is None else {"start_from": str(absolute(checkpoint))}),
    }
    return Cell(method, benchmark, runs, identity(config, weights), config, weights, trunk)
