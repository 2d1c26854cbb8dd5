"""What must lie on the disk before data can be read, and where to get it. Imports nothing heavy: a plan asks.

A data class names its function here in `required_files`; the function takes the class's options, defaults filled in.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rislab.files import read_json
from rislab.paths import user_path

REFER = "Annotations: github.com/lichengunc/refer; pictures: COCO train2014 (cocodataset.org)."
OWN, IMPORT = "own", "import.json"
"""Partition of an imported set, and the file in which it says what it is made of."""
OWN_PICTURES = "Your own pictures and sentences: rislab data import FILE --out DATA/NAME."
SHARDS = "Image-text pairs: tar shards as img2dataset writes them."


@dataclass(frozen=True)
class Missing:
    """A path that is not there. get: where to get it, one sentence."""

    path: str
    get: str


def referring(options: Mapping[str, Any]) -> Iterator[Missing]:
    """Annotations and pictures of a referring data set, in the layout that the options name."""
    if options.get("generate") is not None:
        return
    root, dataset = user_path(options["root"]), str(options["dataset"])
    if options.get("layout") == "lmdb":
        splits = (options.get("train_split"), options.get("val_split"), *(options.get("test_splits") or ()))
        for path in (root / "lmdb" / dataset / f"{split}.lmdb" for split in dict.fromkeys(filter(None, splits))):
            if not path.exists():
                yield Missing(str(path), "LMDB files: made by CRIS's tools from the release.")
        return
    folder = root / dataset
    is_own = options["split_by"] == OWN
    get = OWN_PICTURES if is_own else REFER
    names = [name.format(options["split_by"]) for name in _literal("published", "REFERENCE_FILES")]
    if not (folder / "instances.json").exists():
        yield Missing(str(folder / "instances.json"), get)
    if not any((folder / name).exists() for name in names):
        yield Missing(str(folder / names[0]), get)
    if is_own:
        if not (root / "images" / dataset).is_dir():
            yield Missing(str(root / "images" / dataset), get)
        return
    folders = [root / name for name in _literal("images", "IMAGE_FOLDERS")]
    if not any(each.is_dir() and _has_jpeg(each) for each in folders):
        yield Missing(f"{folders[0]}/COCO_train2014_*.jpg", REFER)


def own_set(options: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Options that follow from where a referring set lies: its version, if `rislab data import` has written it.

    A config of `split_by: own` takes whichever imported set a folder is; one of a published set keeps its name.

    Args:
        options: of the class, as a config gives them.
        folder: what `--data` names: a data root, or the set's own folder; None without it.
    """
    if options.get("generate") is not None or "root" not in options:
        return {}
    found: dict[str, Any] = {}
    root, dataset = user_path(options["root"]), str(options.get("dataset", ""))
    if folder is not None and (folder / "instances.json").is_file():
        is_own = (folder / IMPORT).is_file() and options.get("split_by") == OWN
        if is_own or folder.name == dataset:
            root, dataset = folder.parent, folder.name
            found = {"root": str(root), "dataset": dataset}
    imported = read_json(root / dataset / IMPORT) if dataset else None
    if isinstance(imported, dict) and isinstance(imported.get("version"), str):
        found["version"] = imported["version"]
    return found


def _has_jpeg(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".jpg") for entry in entries)


def benchmark(options: Mapping[str, Any]) -> Iterator[Missing]:
    """The tree of a benchmark of label maps."""
    if options.get("generate") is not None:
        return
    root, known = user_path(options["root"]), _benchmark(str(options["name"]))
    if known is None:
        return  # no such benchmark; the data class says so
    get = f"{known['title']}: {known['get']}." if known.get("get") else f"{known['title']}."
    wanted = [str(known["images"]).split("/")[0].format(split=options["val_split"])]
    if known.get("list_file"):
        wanted.append(str(known["list_file"]).format(split=options["val_split"]))
    folders = [root / name for name in known["folders"]]
    # The root may be the benchmark's own folder.
    folder = next((each for each in (*folders, root) if (each / wanted[0]).is_dir()), folders[0])
    for name in wanted:
        if not (folder / name).exists():
            yield Missing(str(folder / name), get)


def pairs(options: Mapping[str, Any]) -> Iterator[Missing]:
    """Shards, of which the first of each pattern has to be there; others that are missing are counted in training."""
    scored = options.get("benchmark_data") or {}
    if (scored.get("init_args", scored)).get("generate") is not None:
        return
    for pattern in options["shards"]:
        first = re.sub(r"\{(\d+)\.\.\d+\}", r"\1", str(pattern))
        folder = user_path(first).parent
        if not user_path(first).exists() and not (folder.is_dir() and any(folder.glob("*.tar"))):
            yield Missing(str(pattern), SHARDS)


def label_maps(options: Mapping[str, Any]) -> Iterator[Missing]:
    """What training on a benchmark's label maps reads; the benchmark itself says what validation reads."""
    scored = options.get("benchmark_data") or {}
    inner = scored.get("init_args", scored)
    yield from benchmark({**inner, "val_split": options["train_split"]})


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((Path(__file__).parent / f"{module}.py").read_text())


@cache
def _literal(module: str, name: str) -> Any:
    """What a module beside this one assigns; it imports much, so it is read and not imported."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return ast.literal_eval(node.value)
    raise LookupError(f"{module} assigns no {name}")


@cache
def _benchmark(name: str) -> dict[str, Any] | None:
    """Literal arguments of a benchmark; of one that is another with changes, those of both."""
    if not (Path(__file__).parent / "benchmarks" / f"{name}.py").is_file() or not name.isidentifier():
        return None
    found: dict[str, Any] = {}
    for node in _tree(f"benchmarks/{name}").body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rislab.data.benchmarks."):
            found |= _benchmark(str(node.module).rpartition(".")[2]) or {}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for keyword in node.value.keywords:
                if isinstance(keyword.value, (ast.Constant, ast.Tuple)):
                    found[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return found
