"""The pieces of work of the bench page, at full size, with what the official codes take for them. No torch."""

from dataclasses import dataclass, field
from typing import Any

SOURCE = "official modules with random weights, float32, two shared cores with AVX-512 at 83 GFLOP a CPU second"
"""How the official figures were measured; they are of the project's notes on performance, not of this machine."""


@dataclass(frozen=True)
class Official:
    """What the official code takes.

    Attributes:
        cpu_seconds: Of all threads.
        gflop: Operations.
        bound: Official operations over those of the best possible way, at an equal rate.
        goal: How many times as fast rislab is to be.
        grown_mb: MiB of resident memory over what was there before.
    """

    cpu_seconds: float
    gflop: float
    bound: str
    goal: float
    grown_mb: float | None = None


@dataclass(frozen=True)
class Work:
    """One line of the page.

    Attributes:
        name: Of its file.
        method: Which does it.
        title: What is done.
        config: Recipe, with random weights.
        module: Whose `measure` does it.
        options: Of `measure`, in both ways.
        ours, plain: Of `measure`, in one way; both empty where it runs both in one process.
        keeps: Option of `measure` that names a file for the answer.
        compare: Function of the module that compares two such files; its number is in percent of equal labels where its name
            says `same` or `agreement`, else a difference.
        official: Figures of the official code.
    """

    name: str
    method: str
    title: str
    config: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    keeps: str = ""
    compare: str = ""
    official: Official | None = None


def _method(name: str, title: str, config: str, work: str, count: int, official: Official | None = None) -> Work:
    """A piece of work of `bench method`, both ways in one process."""
    method = config.split("/")[1]
    options = {"work": work, "count": count, "repeats": 2}
    return Work(name, method, title, config, "rislab.bench.method_costs", options, official=official)


def _labels(classes: int, official: Official) -> Work:
    return Work(
        f"tcl-labels-{classes}",
        "tcl",
        f"label map, 448, {classes} names",
        "experiments/tcl/cc12m.yaml",
        "rislab.bench.label_maps",
        {"classes": classes, "height": 448, "width": 448},
        {"how": "rislab"},
        {"how": "official"},
        "labels",
        "agreement",
        official,
    )


def _names(trunk: str, config: str, work: str, official: Official) -> Work:
    title = "window of 480 and its mirror image, 150 names" if work == "window" else "training, 1 picture of 480"
    return Work(
        f"lseg-{work}-{trunk}",
        "lseg",
        f"{title}, {trunk}",
        f"experiments/lseg/{config}.yaml",
        "rislab.bench.class_names",
        {"work": work, "names": 150, "side": 480},
        {"way": "rislab"},
        {"way": "official"},
        official=official,
    )


def _savings(method: str, work: str, plain: list[str], official: Official | None) -> Work:
    title = "masks of 7 sentences, 480" if work == "sentences" else "training, 2 pictures of 480"
    return Work(
        f"{method}-{work}",
        method,
        title,
        f"experiments/{method}/refcoco.yaml",
        "rislab.bench.savings",
        {"work": work, "images": 2, "sentences": 7},
        {"plain": [], "one_by_one": False},
        {"plain": plain, "one_by_one": True},
        official=official,
    )


def _weak(what: str, title: str, size: dict[str, int], official: Official) -> Work:
    return Work(
        f"clims-{what}",
        "clims",
        title,
        "experiments/clims/voc.yaml",
        "rislab.bench.weak_supervision",
        {"what": what, "images": 4, **size},
        {"how": "rislab"},
        {"how": "plain"},
        "result",
        "largest_difference",
        official,
    )


def _grouping(what: str, title: str, sizes: dict[str, int], compare: str, official: Official) -> Work:
    return Work(
        f"groupvit-{what}",
        "groupvit",
        title,
        "experiments/groupvit/gcc.yaml",
        "rislab.bench.grouping",
        {"what": what, **sizes},
        {"how": "rislab"},
        {"how": "plain"},
        "kept",
        compare,
        official,
    )


WITH_OFFICIAL_FIGURES = (
    _method("cris-sentences", "masks of 7 sentences, 416", "experiments/cris/refcoco_r101.yaml", "sentences", 7,
            Official(10.6, 924, "1.57", 1.63)),
    _labels(21, Official(8.1, 516, "1.02; 1.25 with convolutions before the doubling", 1.45, 230)),
    _labels(171, Official(24.3, 534, "1.05", 3.9, 1521)),
    _grouping("labels", "label map, 448, 20 names and background", {"classes": 20, "height": 448, "width": 448},
              "same_labels", Official(1.08, 55, "2.0", 2.2)),
    _grouping("texts", "training, 8 pictures of 224, 4 texts each", {"batch": 8}, "difference",
              Official(5.05, 338, "1.35 to 1.6", 1.3)),
    _names("b32", "ade20k", "window", Official(34, 2149, "6.0", 6.0)),
    _names("l16", "ade20k_l16", "window", Official(49, 3405, "2.1", 2.2)),
    _names("b32", "ade20k", "step", Official(49, 3234, "6.1", 5.5, 7800)),
    _names("l16", "ade20k_l16", "step", Official(75, 5156, "2.1", 2.1, 9100)),
    _savings("lavt", "sentences", ["windows"], Official(41, 2786, "1.03", 1.1)),
    _savings("dmmi", "sentences", ["regions", "pixels", "attention", "windows"], Official(78, 5830, "1.10", 1.15)),
    _weak("step", "training, 4 pictures of 512", {"height": 512, "width": 512}, Official(39, 1869, "1.78", 2.3)),
    _weak("maps", "activation maps, 375 x 500, 4 scales and mirror images", {"height": 375, "width": 500},
          Official(12.5, 709, "1.0", 1.4)),
)  # fmt: skip
"""The pieces of work whose official figures are known."""

OTHERS = (
    _savings("dmmi", "step", ["regions", "pixels", "attention", "windows"], None),
    _savings("lavt", "step", ["windows"], None),
    _method("cris-train", "training, 1 picture with 7 sentences", "experiments/cris/refcoco_r101.yaml", "train", 7),
    _method("tcl-train", "training, 2 pictures", "experiments/tcl/cc12m.yaml", "train", 1),
    _method("risclip-sentences", "masks of 7 sentences, 480", "experiments/risclip/refcocog_b.yaml", "sentences", 7),
    _method("risclip-train", "training, 1 picture with 7 sentences", "experiments/risclip/refcocog_b.yaml", "train", 7),
    _method("clip-classes", "scores of 20 names", "experiments/clip/refcocog.yaml", "classes", 20),
    _method("maskclip-classes", "scores of 20 names", "experiments/maskclip/refcocog.yaml", "classes", 20),
    _method("reco-classes", "scores of 20 names", "experiments/reco/voc21.yaml", "classes", 20),
    _method("deeplab-classes", "scores of 20 names", "experiments/deeplab/voc.yaml", "classes", 20),
    _method("deeplab-train", "training, 2 pictures", "experiments/deeplab/voc.yaml", "train", 1),
)  # fmt: skip
"""The others. No official code was measured beside them."""

WORKS = {work.name: work for work in (*WITH_OFFICIAL_FIGURES, *OTHERS)}
