"""The size of COCO-Stuff's val: `make full-size` accumulates 5,000 label maps of 171 classes, and prints what that takes."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ACCUMULATE = """
import resource, time
from pathlib import Path
import numpy as np
from rislab.evaluation.arithmetic import ClassArithmetic
from rislab.evaluation.semantic import class_counts
from rislab.metrics.unit_counts import UnitCounts

def resident():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS:"))
    return int(line.split()[1]) / 2**10

def drawn(rng):
    '''A label map in patches, a tenth of it void, and a prediction that is right in half of them.'''
    label = rng.integers(0, 171, (15, 20)).astype(np.uint8).repeat(32, 0).repeat(32, 1)
    other = rng.integers(0, 171, (15, 20)).astype(np.int64).repeat(32, 0).repeat(32, 1)
    prediction = np.where(rng.random((15, 20)).repeat(32, 0).repeat(32, 1) < 0.5, label, other).astype(np.int64)
    label[rng.random(label.shape) < 0.1] = 255
    return prediction, label

rng = np.random.default_rng(0)
arithmetic = ClassArithmetic([str(c) for c in range(171)])
counts, seconds, pixels = UnitCounts(arithmetic.columns, arithmetic.key), 0.0, 0
for n in range(5000):
    prediction, label = drawn(rng)
    pixels += int((label != 255).sum())
    began = time.perf_counter()
    counts.update(class_counts(prediction, label, 171, n))
    seconds += time.perf_counter() - began
    if n == 99:
        start = resident()  # allocators have settled
table = counts.compute()
assert int(table["target"].sum()) == pixels
print(seconds, start, resident(), arithmetic.scores(table)["miou_class"])
"""


def test_five_thousand_maps_of_171_classes_in_half_a_minute_on_one_core() -> None:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", ACCUMULATE], capture_output=True, text=True, check=True, env={**os.environ, **threads}
    )
    seconds, start, end, miou = map(float, done.stdout.split())
    print(
        f"\n5,000 label maps of 640 x 480, 171 classes: accumulated in {seconds:.1f} s; resident {start:.1f} MiB at the start, "
        f"{end:.1f} MiB at the end"
    )
    assert seconds < 30
    assert end < start + 120, "rows of the classes of each picture: at most 7 kB a picture, and their sorted copy"
    assert 30 < miou < 40, "half of the patches are right"
