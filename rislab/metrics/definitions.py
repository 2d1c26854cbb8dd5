"""Every metric once: its name, how it is printed and what it means. Help, reports, schema and documentation read it here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A ratio of two sums over the units of a split.

    Attributes:
        name: as configs, tables and files give it; it carries the convention.
        title: as reports print it.
        meaning: what it is, in one sentence.
        unit: of its values.
        higher_is_better: whether a larger value is a better one.
    """

    name: str
    title: str
    meaning: str
    unit: str = "%"
    higher_is_better: bool = True


def _precision(percent: int) -> Metric:
    return Metric(f"pr@{percent}", f"Pr@{percent}", f"share of expressions whose IoU exceeds {percent} percent")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("miou_expr", "mIoU (expr)", "mean over expressions of the IoU of each (what CRIS prints as IoU)"),
        Metric("oiou", "oIoU", "sum of intersections over sum of unions, over the split"),
        *map(_precision, (50, 60, 70, 80, 90)),
        Metric("acc", "Acc", "share of sentences without a referent that were answered with an empty mask"),
        Metric("giou", "gIoU", "mean over all sentences of the IoU of each; 1 for a recognised zero target"),
        Metric(
            "ciou",
            "cIoU",
            "sum of intersections over sum of unions; zero targets add what was wrongly predicted to the unions",
        ),
        Metric("n_acc", "N-acc", "share of sentences without a referent that were recognised as such"),
        Metric("t_acc", "T-acc", "share of sentences with a referent that were answered with a mask"),
        Metric(
            "miou_class",
            "mIoU (class)",
            "mean over classes, background included, of the IoU of each over all pictures of the split together",
        ),
        Metric(
            "miou_class_best",
            "mIoU (class), best threshold",
            "the same at the background threshold that is best for the split, of those that were tried",
        ),
        Metric("macc_class", "mAcc (class)", "mean over classes of the share of its pixels that were recognised"),
        Metric("aacc", "aAcc", "share of pixels that were recognised"),
        Metric(
            "miou_fold",
            "mIoU (fold)",
            "mean over the classes of a fold of the IoU of each over all its episodes; 0 for a class that none has",
        ),
        Metric("fb_iou", "FB-IoU", "mean of the IoU of the class and of the rest, each over all episodes together"),
        Metric("miou_episode", "mIoU (episode)", "mean over episodes of the IoU of the class"),
    )
}
"""By name, in the order in which they are listed."""
