"""The REFER layout, written small: the official fields in the official containers."""

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch

from rislab.data.batch import MaskQueries
from rislab.data.geometry import Letterbox
from rislab.data.transforms import Transform


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


class SmallSet:
    """Records that a test bends before it writes them.

    images: pictures a split. Image k has k % 3 + 1 references, reference r has r % 3 + 1 sentences.
    """

    def __init__(self, images: dict[str, int], height: int = 24, width: int = 32) -> None:
        self.size = (height, width)
        self.pictures: dict[int, str] = {}
        self.refs: list[dict[str, Any]] = []
        self.instances: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
        number = 0
        for split, count in images.items():
            for _ in range(count):
                self._image(number, split)
                number += 1

    def _image(self, number: int, split: str) -> None:
        image_id, (height, width) = 100 + number, self.size
        name = f"COCO_train2014_{image_id:012d}.jpg"
        self.pictures[image_id] = name
        self.instances["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        for _ in range(number % 3 + 1):
            r = len(self.refs)
            polygon = square(2 + r % 9, 3 + r % 5, 8 + r % 4)
            self.instances["annotations"].append(
                {"id": 1000 + r, "image_id": image_id, "category_id": 1, "iscrowd": 0, "segmentation": [polygon]}
            )
            first = sum(len(ref["sentences"]) for ref in self.refs)
            sentences = [
                {
                    "sent_id": first + s,
                    "sent": f"thing {first + s} ",
                    "raw": f"Thing #{first + s}!",
                    "tokens": ["thing", str(first + s)],
                }
                for s in range(r % 3 + 1)
            ]
            self.refs.append(
                {
                    "ref_id": r,
                    "ann_id": 1000 + r,
                    "image_id": image_id,
                    "category_id": 1,
                    "file_name": name.replace(".jpg", f"_{r}.jpg"),
                    "split": split,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )

    def write(self, root: Path, dataset: str = "refcoco", split_by: str = "unc") -> Path:
        folder = root / dataset
        folder.mkdir(parents=True)
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(self.refs, protocol=2))
        (folder / "instances.json").write_text(json.dumps(self.instances))
        pictures = root / "images" / "train2014"
        pictures.mkdir(parents=True)
        for image_id, name in self.pictures.items():  # as they were, whatever a test has made of the records
            rng = np.random.default_rng(image_id)
            pixels = rng.integers(0, 256, (*self.size, 3), np.uint8)
            assert cv2.imwrite(str(pictures / name), pixels)
        return root


class Recorder(L.LightningModule):
    """The least that can be trained; keeps the sentences of every batch that it was given."""

    def __init__(self, size: int = 16, transform: Transform | None = None) -> None:
        super().__init__()
        self.transform = transform
        self.geometry = Letterbox(size)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.evaluated: dict[int, list[int]] = {}

    def train_transform(self) -> Transform | None:
        return self.transform

    def training_step(self, batch: MaskQueries, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.sent_ids)
        return self.weight * batch.images.float().mean()

    def on_validation_epoch_start(self) -> None:
        self.evaluated = {}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: MaskQueries, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluated.setdefault(dataloader_idx, []).extend(batch.sent_ids)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**changes: Any) -> L.Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "use_distributed_sampler": False,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    return L.Trainer(**(options | changes))
