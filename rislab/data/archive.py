"""An archive of unlabelled pictures, by number: any folder, ImageNet's layout, or the pictures of a benchmark's split."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from filelock import FileLock
from torch import Tensor

from rislab.data import decoding
from rislab.data.benchmark_trees import Tree, benchmark
from rislab.data.square import Resampling, square
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.errors import ConfigError, DataError
from rislab.files import cache_dir
from rislab.paths import contents, user_path, visible

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class ArchiveSpec:
    """Where an archive's pictures lie: ``{root: data/imagenet/train, name: imagenet-train}``.

    Attributes:
        root: Folder; every picture in it and in its folders belongs to the archive. With `generate`, a relative one lies in the
            user's cache folder.
        name: What it is called: part of a trial's identity, as its place is not.
        folder: Below `root`, where only the pictures of one folder are meant.
        benchmark: A benchmark below `root` whose pictures are taken instead, without their labels.
        split: Of that benchmark.
        generate: A world to write into `root` when it is not there.
        workers: Threads that decode pictures.
    """

    neutral: ClassVar[tuple[str, ...]] = ("root", "workers")

    root: str
    name: str
    folder: str = ""
    benchmark: str | None = None
    split: str = "train"
    generate: ToyVocabulary | None = None
    workers: int = 4

    def __post_init__(self) -> None:
        if self.benchmark in ("None", "null"):  # jsonargparse makes a text of `--...benchmark=null`
            object.__setattr__(self, "benchmark", None)
        if self.workers < 1:
            raise ConfigError(f"archive.workers is {self.workers}, expected 1 or more")

    @property
    def place(self) -> Path:
        """The root's path.

        Raises:
            ConfigError: No path, or a relative path of a generated world that leaves the cache folder.
        """
        path = user_path(self.root)
        if self.generate is None or path.is_absolute():
            return path
        if ".." in path.parts:
            raise ConfigError(f"archive.root is {self.root!r}: a generated archive lies in the cache folder")
        return cache_dir() / path


class Archive:
    """Pictures in the order of their paths.

    Args:
        spec: Which.

    Attributes:
        paths: Of the pictures.

    Raises:
        DataError: No such folder, or no picture in it.
        ConfigError: No such benchmark.
    """

    def __init__(self, spec: ArchiveSpec) -> None:
        self.root, self.name, self.workers = spec.place, spec.name, spec.workers
        if spec.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                spec.generate.write(self.root)
        self.root /= spec.folder
        if not self.root.is_dir():
            raise DataError(f"archive {self.name}: no folder {self.root}")
        if spec.benchmark is not None:
            self.paths = [item.image for item in Tree(self.root, benchmark(spec.benchmark)).items(spec.split)]
        else:
            found = (path for path in self.root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
            self.paths = visible(found, self.root)
        if not self.paths:
            raise DataError(f"archive {self.name}: no pictures in {self.root}; expected {', '.join(SUFFIXES)}")

    def __len__(self) -> int:
        return len(self.paths)

    def digest(self) -> str:
        """What tells one content from another without reading it: sha256 of names, sizes and times of the files."""
        found = hashlib.sha256()
        for path in self.paths:
            stat = path.stat()
            found.update(f"{path.relative_to(self.root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return found.hexdigest()

    def pictures(self, numbers: Sequence[int], side: int, resampling: Resampling) -> Tensor:
        """Some pictures as squares, uint8 [n, 3, side, side]; see `square`.

        Raises:
            DataError: A file that cannot be read as a picture.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            return torch.stack(list(pool.map(lambda number: self._square(number, side, resampling), numbers)))

    def batches(self, numbers: Sequence[int], size: int, side: int, resampling: Resampling) -> Iterator[Tensor]:
        """The same in batches of `size`; while one is used, the next is decoded."""
        with ThreadPoolExecutor(1) as ahead:
            parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
            waiting = [ahead.submit(self.pictures, part, side, resampling) for part in parts[:1]]
            for at in range(len(parts)):
                ready = waiting.pop().result()
                if at + 1 < len(parts):
                    waiting.append(ahead.submit(self.pictures, parts[at + 1], side, resampling))
                yield ready

    def _square(self, number: int, side: int, resampling: Resampling) -> Tensor:
        path = self.paths[number]
        picture = decoding.picture(contents(path), str(path))
        return torch.from_numpy(square(picture, side, resampling)).permute(2, 0, 1)
