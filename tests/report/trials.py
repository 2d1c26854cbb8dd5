"""Trial directories as a finished run leaves them, without training: for tests of what reads them."""

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rislab.ablation import plan, table
from rislab.ablation.evidence import seal
from rislab.ablation.plan import Planned
from rislab.data import masks
from rislab.files import write_json

IMAGES, PER_IMAGE = 60, 3


def planned_table(path: Path, runs: Path, seeds: list[int]) -> tuple[table.Table, list[Planned]]:
    loaded = table.load(path)
    return loaded, plan.plan(loaded, loaded.profile("toy"), seeds, runs)


def finish(cell: Planned, gain: float, text: str = "red circle", pictures: bool = True) -> None:
    """Make `cell` done: IoUs around 0.4 + gain, hard and easy images alike for every row, seeds a point apart."""
    cell.write()
    hard = np.random.default_rng(0).normal(0, 0.12, IMAGES).repeat(PER_IMAGE)
    rng = np.random.default_rng([cell.seed, zlib.crc32(cell.row.name.encode())])
    own = rng.normal(0, 0.01) + rng.normal(0, 0.03, IMAGES * PER_IMAGE)
    union = np.full(len(hard), 1000)
    intersection = (np.clip(0.4 + gain + hard + own, 0.01, 0.99) * union).astype(np.int64)
    iou = intersection / union
    ids = np.arange(len(iou))
    columns = {
        "split": ["val"] * len(iou),
        "sent_id": ids,
        "ref_id": ids,
        "image_id": ids // PER_IMAGE,
        "intersection": intersection,
        "union": union,
        "target": union,
        "prediction": union,
        "no_target": np.zeros(len(iou), np.int64),
        "iou": iou,
    }
    pq.write_table(pa.table(columns), cell.trial.scores_file)
    scores = {
        "miou_expr": 100 * float(iou.mean()),
        "oiou": 100 * float(intersection.sum() / union.sum()),
        "pr@50": 100 * float((iou > 0.5).mean()),
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
    seal(
        cell.place,
        {
            "benchmark": "toy world",
            "protocol": "cris",
            "splits": {"val": scores | {"expressions": len(iou), "images": IMAGES}},
            "parameters": {"total": 5_000_000, "trainable": 4_000_000},
            "step": 20,
        },
    )
    cell.trial.update_status(state="done")
