"""How fast training samples come, decoded from files and read from a pack, in one run on one machine."""

import json
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data import pack, sampling
from rislab.data.geometry import Letterbox
from rislab.data.loader import PlannedLoader
from rislab.data.queries import Queries
from rislab.data.refer import Refer
from rislab.metrics.protocols import NATIVE

HEIGHT, WIDTH = 480, 640
BATCH = 8


@dataclass(frozen=True)
class Speed:
    """Training samples a second with this many loader processes (0: in the training process itself)."""

    workers: int
    decoded: float
    packed: float
    kilobytes: float

    @property
    def ratio(self) -> float:
        return self.packed / self.decoded

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Colours that vary at every scale, as hard to compress as COCO's photographs, whose mean is about 160 kB."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for scale, weight in ((4, 60.0), (16, 35.0), (64, 20.0), (256, 14.0), (640, 12.0)):
        grain = rng.normal(0, weight, (max(2, scale * HEIGHT // WIDTH), scale, 3)).astype(np.float32)
        image += cv2.resize(grain, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def write_set(root: Path, images: int) -> float:
    """A RefCOCO-like set with one reference a picture; returns the mean size of a picture in kB."""
    rng = np.random.default_rng(0)
    folder, pictures = root / "refcoco", root / "images" / "train2014"
    folder.mkdir()
    pictures.mkdir(parents=True)
    refs: list[dict[str, Any]] = []
    instances: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    total = 0
    for number in range(images):
        name = f"COCO_train2014_{number:012d}.jpg"
        done, data = cv2.imencode(".jpg", picture(rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert done
        (pictures / name).write_bytes(data.tobytes())
        total += len(data)
        angle = np.sort(rng.random(40)) * 2 * np.pi
        x, y = 320 + 140 * np.cos(angle), 240 + 110 * np.sin(angle)
        outline = np.stack([x, y], 1).reshape(-1).round(2).tolist()
        instances["images"].append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        instances["annotations"].append({"id": number, "image_id": number, "segmentation": [outline]})
        sentence = {"sent_id": number, "sent": f"the man on the left number {number}", "raw": "", "tokens": []}
        refs.append({"ref_id": number, "ann_id": number, "image_id": number, "split": "train", "sentences": [sentence]})
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return total / images / 1000


def measure(size: int, images: int, epochs: int, workers: Sequence[int]) -> list[Speed]:
    """Decoded and packed in turn for every number of workers; nothing is kept in memory, and the first pass is not counted."""
    cv2.setNumThreads(0)  # one process is one thread, as in training
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kilobytes = write_set(root, images)
        refer = Refer(root, "refcoco", "unc")
        geometry = Letterbox(size)
        pack.write(refer, "refcoco", "unc", geometry, "none", lambda text: [len(text)])
        packed = pack.Pack.open(refer, "refcoco", "unc", geometry)
        assert packed is not None
        references = refer.split("train")
        ways = {
            "decoded": Queries(refer, references, geometry, NATIVE, training=True, capacity=0),
            "packed": Queries(refer, references, geometry, NATIVE, training=True, capacity=0, pack=packed),
        }
        plan = sampling.training_plan(references, BATCH, 1, 0, 0)
        found = []
        for count in workers:
            speeds = {name: _samples_a_second(queries, plan, count, epochs) for name, queries in ways.items()}
            found.append(Speed(count, **speeds, kilobytes=kilobytes))
        return found


def _samples_a_second(queries: Queries, plan: sampling.Plan, workers: int, epochs: int) -> float:
    loader = PlannedLoader(queries, plan, num_workers=workers, persistent=True)
    for _ in loader:
        pass  # starts the workers, fills the page cache
    began = time.perf_counter()
    samples = sum(len(batch) for _ in range(epochs) for batch in loader)
    seconds = time.perf_counter() - began
    loader.close()
    return samples / seconds
