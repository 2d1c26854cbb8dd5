"""`rislab matrix`: every method on every benchmark, through the same two questions, in one table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.errors import ConfigError, DataError, nearest
from rislab.paths import absolute, user_path

if TYPE_CHECKING:
    from rislab.report.matrix import Cell

TARGET = "rislab.training.trial"
EXPERIMENTS = Path("experiments")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "matrix",
        help="score methods on benchmarks, each on each, into one report",
        description="Score each method on each benchmark. Methods for sentences are asked class names, methods for class "
        "names are asked sentences. A cell that is done is not run again.",
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
        help="YAML, `method: best.ckpt` a line; methods that are trained need one",
    )
    parser.add_argument("--data", metavar="DIR", help="root of real data sets")
    parser.add_argument("--runs", type=user_path, default=Path("runs/matrix"), metavar="DIR")
    parser.add_argument("--out", type=user_path, default=Path("reports/matrix"), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.launch.local import Job, LocalPool, cores
    from rislab.report import matrix

    given = _checkpoints(options.checkpoints)
    strangers = sorted(given.keys() - set(options.methods))
    if strangers:
        raise ConfigError(
            f"{options.checkpoints}: {strangers[0]!r} is none of --methods{nearest(strangers[0], options.methods)}"
        )
    benchmarks = {name: _benchmark(name, options.data) for name in options.benchmarks}
    cells = [
        _cell(options.runs, method, _model(method, given.get(method)), name, data, given.get(method))
        for method in options.methods
        for name, data in benchmarks.items()
    ]
    todo = [cell for cell in cells if cell.trial.state() != "done"]
    if todo:
        threads = max(1, cores() // options.jobs)
        for cell in todo:
            cell.write()
        jobs = [
            Job(
                cell.name,
                f"{TARGET}:run_trial",
                str(cell.trial.path),
                cell.trial,
                ("fit", "--config", str(cell.trial.config)),
            )
            for cell in todo
        ]
        LocalPool(options.jobs, threads, [TARGET]).run(jobs, lambda: None)
    for path in matrix.build(cells, list(options.methods), list(options.benchmarks), options.out):
        print(path)
    failed = [cell for cell in cells if cell.trial.state() != "done"]
    for cell in failed:
        print(f"{cell.name}: {cell.trial.state()}: {cell.trial.status().get('error') or 'not run'}")
    return 1 if failed else 0


def _checkpoints(file: Path | None) -> dict[str, Path]:
    if file is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not a readable YAML file ({error})") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ConfigError(f"{file}: expected `method: path` on each line")
    # Beside the file, where they are relative, as a reader of the file would take them.
    return {
        str(name): path if (path := user_path(value)).is_absolute() else file.parent / path
        for name, value in content.items()
    }


def _benchmark(name: str, root: str | None) -> dict[str, Any]:
    import yaml

    folder = EXPERIMENTS / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no benchmark {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    data: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())["data"]
    if data["init_args"].get("generate") is None and root is not None:
        data["init_args"]["root"] = root
    return data


def _model(method: str, checkpoint: Path | None) -> dict[str, Any]:
    """The recipe that a checkpoint was trained by, or the toy one of a method that needs no training."""
    import yaml

    from rislab.training.checkpoints import RECIPE, read_checkpoint

    if checkpoint is not None:
        if not checkpoint.exists():
            raise DataError(f"{checkpoint}: no such checkpoint (of {method})")
        recipe = read_checkpoint(checkpoint).get(RECIPE)
        if not isinstance(recipe, dict) or f"rislab.methods.{method}." not in str(recipe.get("class_path")):
            raise ConfigError(f"{checkpoint} is no checkpoint of {method}")
        return recipe
    known = sorted(path.name for path in EXPERIMENTS.iterdir() if path.is_dir() and path.name != "benchmarks")
    if method not in known:
        raise ConfigError(f"no method {method!r}; there are {', '.join(known)}{nearest(method, known)}")
    toy = EXPERIMENTS / method / "toy.yaml"
    model: dict[str, Any] = yaml.safe_load(toy.read_text())["model"]
    if "rislab.methods.base.TrainingFree" not in _bases(model["class_path"]):
        raise ConfigError(
            f"{method} is trained: give its checkpoint in --checkpoints FILE as `{method}: PATH`. "
            f"`rislab fit --config {toy}` or a table (`rislab ablate run`) leaves one as checkpoints/best.ckpt"
        )
    return model


def _bases(class_path: str) -> set[str]:
    import importlib

    module, _, name = class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    return {f"{base.__module__}.{base.__name__}" for base in found.__mro__}


def _cell(
    runs: Path, method: str, model: dict[str, Any], benchmark: str, data: dict[str, Any], checkpoint: Path | None
) -> "Cell":
    import hashlib

    from rislab.ablation.identity import digest, identity
    from rislab.report.matrix import Cell

    weights = None if checkpoint is None else hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    config = {
        "seed_everything": 0,
        "trainer": {"accelerator": "auto", "devices": 1},
        "model": model,
        "data": data,
        "trial": {"train": False} | ({} if checkpoint is None else {"start_from": str(absolute(checkpoint))}),
    }
    return Cell(method, benchmark, runs, digest(identity(config, weights))[:8], config, weights)
