"""`rislab score PREDICTIONS`: given masks, under every convention."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.console import open_console
from rislab.cli.data.selection import add_selection
from rislab.errors import ConfigError, DataError
from rislab.messages import progress, warn
from rislab.metrics.protocols import Protocol
from rislab.paths import absolute, user_path

if TYPE_CHECKING:
    from rislab.data.locate import DataFolder
    from rislab.data.refer import Refer
    from rislab.scoring.foreign import Predictions
    from rislab.scoring.score import Scores


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "score",
        help="score given masks, under every convention",
        description="Score given masks of a split: the chosen protocol, all others beside it, what is missing, and where the "
        'points are lost. PREDICTIONS is a JSON list of {"sent_id": 1, "segmentation": {"size": [h, w], "counts": "..."}} with '
        "COCO run lengths at the original image size, or a folder of <sent_id>.png. A sentence without a mask counts as an "
        "empty mask.",
        epilog="example: rislab score masks.json --data DATA --dataset refcoco --split testA --protocol cris",
    )
    parser.add_argument("predictions", type=user_path, metavar="PREDICTIONS", help="JSON file or folder of PNGs")
    parser.add_argument(
        "--data", type=user_path, required=True, metavar="DIR", help="data root, or the data set's own folder"
    )
    add_selection(parser)
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="as the annotation file calls it: val, testA, ..."
    )
    parser.add_argument(
        "--protocol",
        choices=list(Protocol.__members__),
        default=Protocol.native.name,
        help="the convention of the breakdown, the file and the JSON (default: %(default)s); docs/conventions.md",
    )
    parser.add_argument(
        "--no-target-min-pixels",
        type=int,
        default=1,
        metavar="N",
        help="a mask of fewer pixels says that there is no referent (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="FILE",
        help="per-expression scores, parquet (default: PREDICTIONS.scores.parquet)",
    )
    parser.add_argument(
        "--against",
        type=user_path,
        metavar="PREDICTIONS",
        help="other masks of the same split: differences of the chosen protocol, with intervals over pictures",
    )
    parser.add_argument(
        "--browse",
        type=user_path,
        metavar="DIR",
        help="write a folder of pages that show every mask beside the truth, and beside those of --against",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.data.locate import locate
    from rislab.scoring import foreign, score

    if options.no_target_min_pixels < 1:
        raise ConfigError(f"--no-target-min-pixels {options.no_target_min_pixels}: expected 1 or more")
    answers = foreign.Predictions(options.predictions)
    other_answers = foreign.Predictions(options.against) if options.against is not None else None
    data_folder = locate(options.data, options.dataset, options.split_by)
    refer = data_folder.read()
    _refuse_strangers(options.predictions, data_folder.title, answers, refer)
    if other_answers is not None:
        _refuse_strangers(options.against, data_folder.title, other_answers, refer)

    def scored(given: foreign.Predictions) -> "Scores":
        with progress("scoring") as show:
            return score.score(
                refer, options.split, given, list(Protocol.__members__), options.no_target_min_pixels, show
            )

    scores = scored(answers)
    other_scores = scored(other_answers) if other_answers is not None else None
    if options.json:
        found = _as_json(options, data_folder, scores, answers.others, refer.without_sentences[options.split])
        print(json.dumps(found | _against_as_json(options, scores, other_scores), indent=1))
    else:
        _show(options, data_folder, scores, answers.others, refer.left_out(options.split))
        if other_scores is not None:
            _show_against(options, scores, other_scores)
    sys.stdout.flush()
    given = absolute(options.predictions)
    out = options.out or given.with_name(f"{given.name}.scores.parquet")
    try:
        score.write_table(out, scores, options.protocol)
    except OSError as error:
        # The numbers are printed, and worth more than the file: they must not be lost with it.
        why = os.strerror(error.errno) if error.errno else error
        warn(f"{out}: could not be written ({why}); the scores above are whole")
        return DataError.exit_code
    if not options.json:
        Console(highlight=False).print(f"per expression: {out}", soft_wrap=True, markup=False)
    if options.browse is not None:
        from rislab.browse import given_masks
        from rislab.browse.write import write

        sides = [given_masks.Given(options.predictions.name, answers, scores)]
        if other_answers is not None and other_scores is not None:
            sides.append(given_masks.Given(options.against.name, other_answers, other_scores))
        title = f"{data_folder.title}: " + " beside ".join(each.label for each in sides)
        shown = given_masks.contents(title, refer, options.split, sides, options.protocol, lambda: None)
        page = write(shown, options.browse)
        if not options.json:
            Console(highlight=False).print(f"answer by answer: {page}", soft_wrap=True, markup=False)
    return 0


def _refuse_strangers(file: Path, title: str, answers: "Predictions", refer: "Refer") -> None:
    """Raises DataError when the data set has none of the ids: scores of nothing but missing masks would say nothing."""
    known = [expression.sent_id for reference in refer.references for expression in reference.expressions]
    if any(sent_id in answers for sent_id in known):
        return
    some = ", ".join(map(str, sorted(answers)[:5])) + (", ..." if len(answers) > 5 else "")
    raise DataError(
        f"{file}: none of its {len(answers)} ids ({some}) is a sent_id of {title}, which has "
        f"{min(known)} to {max(known)}; another data set or partition?"
    )


def _as_json(
    options: argparse.Namespace, data_folder: "DataFolder", scores: "Scores", others: list[str], without_sentences: int
) -> dict[str, object]:
    from rislab.scoring.score import breakdown

    return {
        **scores.averages(options.protocol),
        "protocol": options.protocol,
        "data_set": data_folder.title,
        "split": options.split,
        "expressions": len(scores.features.sentence),
        "zero_target": int((scores.features.objects == 0).sum()),
        "missing": list(scores.missing),
        "unknown": list(scores.unknown),
        "of_other_splits": scores.elsewhere,
        "other_files": len(others),
        "references_without_sentences": without_sentences,
        "protocols": {name: scores.averages(name) for name in scores.tables},
        "breakdown": breakdown(scores, options.protocol),
    }


def _show(
    options: argparse.Namespace, data_folder: "DataFolder", scores: "Scores", others: list[str], left_out: str
) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from rislab.scoring.score import breakdown

    console = open_console()
    of = scores.features
    nothing = int((of.objects == 0).sum())
    console.print(
        f"{data_folder.title}, split {options.split}: {len(of.sentence)} expressions"
        + (f", {nothing} of them without a referent" if nothing else "")
    )
    for ids, text in ((scores.missing, "have no mask: counted as empty"), (scores.unknown, "are unknown: left out")):
        if ids:
            some = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
            console.print(f"[yellow]{len(ids)} sentence ids {text} ({some})[/yellow]")
    if left_out:
        console.print(f"{left_out}: they ask nothing")
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        console.print(
            f"[yellow]{len(others)} files that are no PNG were left alone[/yellow] ({escape(some)})", soft_wrap=True
        )
    if scores.elsewhere:
        console.print(f"{scores.elsewhere} masks belong to other splits and were left alone")

    look: dict[str, Any] = {"title_justify": "left", "box": box.SIMPLE_HEAD}
    each = {name: scores.averages(name) for name in scores.tables}
    metrics = list(dict.fromkeys(metric for found in each.values() for metric in found))
    table = Table("percent", *each, title="under every convention", **look)
    for column, name in zip(table.columns[1:], each, strict=True):
        column.justify = "right"
        column.style = "bold" if name == options.protocol else ""
    for metric in metrics:
        table.add_row(metric, *(f"{found[metric]:.2f}" if metric in found else "" for found in each.values()))
    console.print(table)

    shown = [metric for metric in metrics if metric in each[options.protocol]][:3]
    parts = Table("", "expressions", *shown, title=f"where the points are lost, {options.protocol}", **look)
    for column in parts.columns[1:]:
        column.justify = "right"
    for by, named in breakdown(scores, options.protocol).items():
        parts.add_row(f"[bold]{by}[/bold]")
        for part, found in named.items():
            values = [f"{found[metric]:.2f}" if metric in found else "" for metric in shown]
            parts.add_row(f"  {part}", str(found["expressions"]), *values)
    console.print(parts)


def _against_as_json(options: argparse.Namespace, scores: "Scores", other: "Scores | None") -> dict[str, object]:
    if other is None:
        return {}
    from rislab.browse.differences import differences

    found = differences(scores, other, options.protocol)
    return {
        "against": {
            **other.averages(options.protocol),
            "missing": list(other.missing),
            "unknown": list(other.unknown),
            "differences": {
                name: {"difference": each.difference, "interval": each.interval} for name, each in found.items()
            },
        }
    }


def _show_against(options: argparse.Namespace, scores: "Scores", other: "Scores") -> None:
    from rich import box
    from rich.table import Table

    from rislab.browse.differences import differences

    console = open_console()
    for ids, text in (
        (other.missing, "have no mask there: counted as empty"),
        (other.unknown, "are unknown: left out"),
    ):
        if ids:
            console.print(f"[yellow]{options.against.name}: {len(ids)} sentence ids {text}[/yellow]")
    title = f"against {options.against.name}, {options.protocol}; intervals (95 %) over pictures"
    table = Table(
        "percent", "masks", "against", "difference", "interval", title=title, title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in table.columns[1:]:
        column.justify = "right"
    mine, theirs = scores.averages(options.protocol), other.averages(options.protocol)
    for name, each in differences(scores, other, options.protocol).items():
        reach = "one picture" if each.interval is None else f"{each.interval[0]:+.2f} to {each.interval[1]:+.2f}"
        table.add_row(name, f"{mine[name]:.2f}", f"{theirs[name]:.2f}", f"{each.difference:+.2f}", reach)
    console.print(table)
