"""`rislab bench precision`: what scoring in bfloat16 changes of trained networks."""

import argparse
import json
from pathlib import Path
from typing import Any

from rislab.errors import ConfigError
from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    precision = actions.add_parser(
        "precision",
        help="a finished trial scored in float32 and in bfloat16: each score, and the time",
        description="Score the test splits of finished trials again, in float32 and in bfloat16, each in a process of its own. "
        "The trials stay as they are. What is found is written to RESULTS, and stands on the page of `rislab bench page`.",
        epilog="example: rislab bench precision runs/cris-components/con+dec3--s0--2eb614b5\n"
        "example: rislab bench precision runs/tcl/full--s0--0a1b2c3d --benchmark coco_object --data data",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    precision.add_argument("trials", nargs="+", type=user_path, metavar="TRIAL", help="directory of a finished trial")
    precision.add_argument(
        "--results",
        type=user_path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="of the files (default: %(default)s)",
    )
    precision.add_argument(
        "--benchmark",
        metavar="NAME",
        help="score this file of experiments/benchmarks/, or the section `data` of another config (.yaml), instead",
    )
    precision.add_argument("--data", type=user_path, metavar="DIR", help="root of the benchmark's files")
    precision.add_argument("--json", action="store_true", help="print JSON")
    precision.set_defaults(run=run_precision)


def run_precision(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.bench.precision import compared, largest

    if options.data is not None and options.benchmark is None:
        raise ConfigError("--data is the root of a benchmark's files: --benchmark NAME is missing")
    data = None if options.benchmark is None else _data(options.benchmark, options.data)
    name = "" if data is None else Path(options.benchmark).stem
    found = []
    for trial in options.trials:
        with Console(stderr=True).status(f"scoring {trial.name}"):
            found.append(compared(trial.absolute(), options.results, data, name))
        if not options.json:
            where = f" on {name}" if name else ""
            print(f"{found[-1]['trial']}{where}: largest change {largest(found[-1]):.3f} points")
    if options.json:
        print(json.dumps(found, indent=1))
    return 0


def _data(benchmark: str, root: Path | None) -> dict[str, Any]:
    """The section `data` of a benchmark or of a config file, read in the process that computes, as its seconds are counted."""
    from rislab.ablation.configs import relocated
    from rislab.ablation.yaml_lines import read_yaml
    from rislab.cli.matrix import RECIPES, benchmark_data

    if Path(benchmark).suffix in RECIPES:
        content = read_yaml(user_path(benchmark))
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, dict) or "class_path" not in data:
            raise ConfigError(f"{benchmark}: expected a section data with a class_path")
        data = data if root is None else relocated(data, root)
    else:
        data = benchmark_data(benchmark, None if root is None else str(root))
    workers = {"num_workers": 0} if "num_workers" in data.get("init_args", {}) else {}
    return data | {"init_args": {**data.get("init_args", {}), **workers}}
