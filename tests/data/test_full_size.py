"""RefCOCO's real size without its data: `make full-size` prints what loading and scoring take, and holds the limits.

The set has the published counts (19,994 images, 50,000 references, 142,209 sentences and as many annotations as COCO has for such
images), polygons of COCO's usual length, and small JPEGs.
"""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rislab.data.published import known
from tests.worlds import rislab

ANNOTATIONS_PER_IMAGE = 10
HEIGHT, WIDTH = 480, 640
pytestmark = pytest.mark.slow


def polygon(rng: np.random.Generator) -> list[float]:
    """A star-shaped outline of 10 to 60 points, as people draw around an object."""
    points = int(rng.integers(10, 60))
    angle = np.sort(rng.random(points)) * 2 * np.pi
    radius = rng.uniform(20, 120) * rng.uniform(0.7, 1, points)
    x = np.clip(rng.uniform(0, WIDTH) + radius * np.cos(angle), 0, WIDTH)
    y = np.clip(rng.uniform(0, HEIGHT) + radius * np.sin(angle), 0, HEIGHT)
    return np.round(np.stack([x, y], 1).reshape(-1), 2).tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full")
    rng = np.random.default_rng(0)
    pictures = root / "images" / "train2014"
    pictures.mkdir(parents=True)
    done, jpeg = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 120, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 10])
    assert done
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    sent_id = 0
    for split, counts in known()["refcoco"].partitions["unc"].items():
        assert None not in counts
        ids = range(len(images) + 1, len(images) + counts.images + 1)
        for image_id in ids:
            name = f"COCO_train2014_{image_id:012d}.jpg"
            (pictures / name).write_bytes(jpeg.tobytes())
            images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
            for _ in range(ANNOTATIONS_PER_IMAGE):
                number = len(annotations) + 1
                annotations.append(
                    {
                        "id": number,
                        "image_id": image_id,
                        "category_id": int(rng.integers(1, 91)),
                        "iscrowd": 0,
                        "segmentation": [polygon(rng)],
                    }
                )
        lengths = np.full(counts.references, 2)
        lengths[rng.permutation(counts.references)[: counts.sentences - lengths.sum()]] += 1
        for number, sentences in enumerate(lengths.tolist()):
            image_id = ids[number % counts.images]
            ann_id = (image_id - 1) * ANNOTATIONS_PER_IMAGE + 1 + number // counts.images
            texts = []
            for _ in range(sentences):
                text = " ".join(rng.choice(["left", "man", "red", "shirt", "second", "dog", "the", "in"], 4))
                texts.append({"sent_id": sent_id, "sent": text, "raw": text.upper(), "tokens": text.split()})
                sent_id += 1
            record = {"ref_id": len(refs), "ann_id": ann_id, "image_id": image_id, "category_id": 1}
            ids_of = [text["sent_id"] for text in texts]
            refs.append(record | {"file_name": "x", "split": split, "sent_ids": ids_of, "sentences": texts})
    folder = root / "refcoco"
    folder.mkdir()
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return root


LOAD = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from rislab.data.refer import Refer
refer = Refer(Path(sys.argv[1]), "refcoco", "unc")
seconds = time.perf_counter() - began
assert len(refer.images) == 19994 and len(refer.references) == 50000
assert sum(len(r.expressions) for r in refer.references) == 142210
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_loads_in_ten_seconds_and_a_gigabyte_and_a_half(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD, str(root)], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    print(f"\n142,210 expressions loaded in {seconds:.1f} s, {gigabytes:.2f} GB at most")
    assert seconds < 10
    assert gigabytes < 1.5


WRITE = """
import json, sys
from pathlib import Path
import numpy as np
from rislab.data import masks
from rislab.data.refer import Refer
refer = Refer(Path(sys.argv[1]), "refcoco", "unc")
rng = np.random.default_rng(1)
answers = []
for reference in refer.split("val"):
    target = masks.decode(refer.target(reference))
    for expression in reference.expressions:
        moved = np.roll(target, rng.integers(-20, 20, 2), (0, 1))
        answers.append({"sent_id": expression.sent_id, "segmentation": masks.to_json(masks.encode(moved))})
json.dump(answers, open(sys.argv[2], "w"))
"""


def test_ten_thousand_masks_are_scored_in_a_minute_on_one_core(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "masks.json"
    subprocess.run([sys.executable, "-c", WRITE, str(root), str(file)], check=True)
    began = time.perf_counter()
    done = rislab("score", str(file), "--data", str(root), "--split", "val", "--json", fresh=True, OMP_NUM_THREADS="1")
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"\n{found['expressions']} masks under {len(found['protocols'])} conventions in {seconds:.1f} s")
    assert found["expressions"] == 10834
    assert not found["missing"]
    assert seconds < 60
