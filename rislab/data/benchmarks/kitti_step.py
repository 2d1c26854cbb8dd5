"""KITTI-STEP, the 19 classes of Cityscapes on the frames of val; the class is the first channel of its panoptic maps."""

from rislab.data.benchmark_trees import Benchmark

BENCHMARK = Benchmark(
    title="KITTI-STEP (19)",
    folders=("kitti_step", "kitti-step"),
    images="{split}/{}.png",
    labels="panoptic_maps/{split}/{}.png",
    names="cityscapes",
    label_channel=0,
    counts={"val": 2981, "train": 5027},
    get="cvlibs.net/datasets/kitti/eval_step.php; frames by sequence in train and val, panoptic_maps beside them",
)
