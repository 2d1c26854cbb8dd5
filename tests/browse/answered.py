"""Finished trials with answers, without training: masks that are the truth, bent in known ways."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from rislab.ablation import plan, table
from rislab.ablation.identity import resolve
from rislab.ablation.integrity import seal
from rislab.ablation.plan import Planned
from rislab.browse import trials
from rislab.data import masks
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.data.truth import Expressions, LabelMaps
from rislab.evaluation.arithmetic import ClassArithmetic
from rislab.evaluation.kept_answers import Answer, KeptAnswers
from rislab.evaluation.semantic import class_counts, compact_maps
from rislab.metrics.classes import IGNORE
from rislab.metrics.protocols import Protocol
from rislab.metrics.referring import COLUMNS, pixel_counts
from tests.report.trials import record
from tests.worlds import ROOT, tiny_table

Mask = NDArray[np.bool_]
Bend = Callable[[Mask, int, int], Mask]
"""(target, sent_id, seed) -> what a row answers."""

CLAIM = """claims:
- {name: up, text: better, holds: "miou_expr[full] > miou_expr[base]", source: s}
"""
ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}\nplain: {decoder_layers: 2}"


def moved(target: Mask, by: int) -> Mask:
    return np.roll(target, by, axis=1)


BENDS: dict[str, Bend] = {
    "base": lambda target, number, seed: moved(target, number % 5 + seed),
    "full": lambda target, number, seed: moved(target, number % 3),
    "plain": lambda target, number, seed: target if number % 2 else np.zeros_like(target),
}


def answered_table(
    folder: Path, seeds: Sequence[int] = (0,), rows: str = ROWS, **changes: object
) -> tuple[table.Table, list[Planned]]:
    """A table of a small world, planned; nothing of it is finished yet."""
    path = tiny_table(folder, rows, **changes)
    path.write_text(path.read_text().replace("claims: []", CLAIM))
    loaded = table.load(path)
    return loaded, plan.plan(loaded, loaded.profile("toy"), seeds, folder / "runs")


def truth_of(cell: Planned) -> Expressions:
    found = trials.truth_of(cell.config).read()
    assert isinstance(found, Expressions)
    return found


def answer(cell: Planned, bend: Bend, truth: Expressions, limit: int = 20_000_000, split: str = "val") -> None:
    """Make `cell` done: every sentence of the split answered, counted and kept."""
    cell.write()
    convention = Protocol[resolve(cell.config)["data"]["init_args"]["protocol"]].convention
    kept, rows = KeptAnswers(limit), []
    for sent_id, (_, reference) in sorted(truth.by_sent_id.items()):
        if reference.split != split:
            continue
        target = masks.decode(truth.target(reference, convention)).astype(bool)
        mask = bend(target, sent_id, cell.seed)
        ids = sent_id, reference.ref_id, reference.image_id
        rows.append((*ids, *pixel_counts(mask, target), int(not reference.ann_ids)))
        kept.offer(split, [Answer(sent_id, *mask.shape, masks.encode(mask)["counts"])])
    kept.gather([dict(kept.parts)])
    kept.write(cell.trial.path, "run lengths")
    columns = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))
    record(cell, columns, resolve(cell.config)["data"]["init_args"]["protocol"], ("miou_expr", "oiou", "pr@50"), split)


def answer_all(planned: Sequence[Planned], **options: int) -> None:
    truth = truth_of(planned[0])
    for cell in planned:
        answer(cell, BENDS[cell.row.name], truth, **options)


def labelled_table(folder: Path, size: int = 64) -> tuple[table.Table, list[Planned]]:
    """A table of two rows over a small benchmark of label maps."""
    path = tiny_table(folder, "low: {bg_thresh: 0.4}\nhigh: {bg_thresh: 0.6}")
    config = yaml.safe_load((ROOT / "experiments" / "maskclip" / "toy_voc.yaml").read_text())
    options = config["data"]["init_args"]
    options["root"] = str(folder / "vocabulary")
    options["generate"]["init_args"] = {"scenes": 20, "pairs": 1, "size": size, "seed": 3}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    ToyVocabulary(**options["generate"]["init_args"]).write(folder / "vocabulary")
    content = yaml.safe_load(path.read_text())
    content["profiles"]["toy"]["split"] = "test"
    content |= {"metrics": ["miou_class", "aacc"], "baseline": "low"}
    content["paper"]["method"] = "maskclip"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    loaded = table.load(path)
    return loaded, plan.plan(loaded, loaded.profile("toy"), [0], folder / "runs")


def label_all(cell: Planned, by: int) -> None:
    """Make `cell` done: every label map of the split answered by itself, moved to the right."""
    cell.write()
    truth = trials.truth_of(cell.config).read()
    assert isinstance(truth, LabelMaps)
    names = truth.names("mmseg")
    kept, rows = KeptAnswers(20_000_000), []
    for number, item in enumerate(truth.items("test")):
        label = truth.label(item, len(names))
        said = np.roll(np.where(label == IGNORE, 0, label), by, axis=1).astype(np.uint8)
        rows.append(class_counts(said, label, len(names), number))
        kept.offer("test", compact_maps([number], [said]))
    kept.gather([dict(kept.parts)])
    kept.write(cell.trial.path, "label maps")
    arithmetic = ClassArithmetic(names)
    counts = dict(zip(arithmetic.columns, np.concatenate(rows).T, strict=True))
    pq.write_table(pa.table({"split": ["test"] * len(counts["class"]), **counts}), cell.trial.scores_file)
    splits = {"test": arithmetic.scores(counts) | arithmetic.summary(counts)}
    facts = {"benchmark": "toy", "protocol": "toy", "names": "mmseg", "classes": len(names)}
    seal(cell.directory, {**facts, "splits": splits, "parameters": {"total": 1, "trainable": 0}, "step": 0})
    cell.trial.update_status(state="done")
