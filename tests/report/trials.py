"""Trial directories as a finished run leaves them, without training: for tests of what reads them."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rislab.ablation import plan, table
from rislab.ablation.integrity import seal
from rislab.ablation.plan import Planned
from rislab.data import masks
from rislab.files import write_json
from rislab.metrics import referring
from rislab.metrics.protocols import Protocol

IMAGES, PER_IMAGE = 60, 3


def planned_table(path: Path, runs: Path, seeds: list[int]) -> tuple[table.Table, list[Planned]]:
    loaded = table.load(path)
    return loaded, plan.plan(loaded, loaded.profile("toy"), seeds, runs)


def finish(cell: Planned, gain: float, text: str = "red circle", pictures: bool = True, is_dealt: bool = False) -> None:
    """Make `cell` done: IoUs around 0.4 + gain, hard and easy images alike for every row, seeds a point apart.

    Args:
        is_dealt: Whether each sentence belongs to another picture, some pictures having more than others.
    """
    cell.write()
    hard = np.random.default_rng(0).normal(0, 0.12, IMAGES).repeat(PER_IMAGE)
    rng = np.random.default_rng([cell.seed, zlib.crc32(cell.row.name.encode())])
    own = rng.normal(0, 0.01) + rng.normal(0, 0.03, IMAGES * PER_IMAGE)
    union = np.full(len(hard), 1000)
    intersection = (np.clip(0.4 + gain + hard + own, 0.01, 0.99) * union).astype(np.int64)
    ids = np.arange(len(union))
    columns = {
        "sent_id": ids,
        "ref_id": ids,
        "image_id": np.random.default_rng(5).permutation(ids) // PER_IMAGE if is_dealt else ids // PER_IMAGE,
        "intersection": intersection,
        "union": union,
        "target": union,
        "prediction": union,
        "no_target": np.zeros(len(union), np.int64),
    }
    if pictures:
        folder = cell.trial.path / "predictions"
        folder.mkdir()
        square = np.zeros((20, 20), np.uint8)
        square[4:12, 4:12] = 1
        Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(folder / "1.jpg")
        rle = masks.to_json(masks.encode(square))
        entry = {"sent_id": 1, "image_id": 1, "text": text, "image": "1.jpg", "target": rle, "prediction": rle}
        write_json(folder / "predictions.json", [entry])
    cell.trial.curves.parent.mkdir(exist_ok=True)
    cell.trial.curves.write_text("step,epoch,name,value\n9,0,val/miou_expr,20.5\n19,1,val/miou_expr,40.25\n29,1,val/mi")
    write_json(
        cell.trial.provenance_file,
        {
            "code": {"commit": "0" * 40, "dirty": None},
            "packages": {"torch": "2.9"},
            "python": "3.11",
            "hardware": {"gpus": [], "processor": "a processor"},
            "threads": 1,
            "seconds": {"fit": 60.0, "test": 6.0},
            "steps_per_second": 5.0,
            "peak_memory_mb": 700.0,
        },
    )
    record(cell, columns, "cris", ("miou_expr", "oiou", "pr@50"))


def record(cell: Planned, counts: referring.Table, protocol: str, metrics: Sequence[str], split: str = "val") -> None:
    """Write what a trial has measured, and that it is done."""
    convention = Protocol[protocol].convention
    number = len(counts["sent_id"])
    iou = referring.iou_per_expression(counts, convention)
    pq.write_table(pa.table({"split": [split] * number, **counts, "iou": iou}), cell.trial.scores_file)
    parts = {name: referring.PARTS[name](counts, convention) for name in metrics}
    scores = {name: 100 * float(top.sum() / bottom.sum()) for name, (top, bottom) in parts.items()}
    seal(
        cell.directory,
        {
            "benchmark": "toy world",
            "protocol": protocol,
            "splits": {split: scores | {"expressions": number, "images": len(np.unique(counts["image_id"]))}},
            "parameters": {"total": 5_000_000, "trainable": 4_000_000},
            "step": 20,
        },
    )
    cell.trial.update_status(state="done")
