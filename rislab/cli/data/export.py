"""`rislab data export`: masks of a data set's sentences in the forms of annotation tools."""

import argparse
import json

from rislab.cli.data.selection import add_selection
from rislab.errors import ConfigError, DataError
from rislab.messages import progress, result, warn
from rislab.paths import user_path

FORMS = ("coco", "labelme", "png")


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "export",
        help="write predicted masks as COCO, labelme or PNG",
        description="Write the masks of a data set's sentences, exact to the pixel: those of PREDICTIONS (what `rislab predict "
        "--export` writes and `rislab score` reads), or with --truth the set's own. coco: one file, an annotation a sentence; "
        "labelme: a folder with a file a picture; png: a folder of <sent_id>.png, and a CSV file beside it that `data import` "
        "reads. Pictures are called as the imported file calls them.",
        epilog="example: rislab data export masks.json --data DATA/mine --split test --to labelme --out answers",
    )
    parser.add_argument(
        "predictions", type=user_path, nargs="?", metavar="PREDICTIONS", help="JSON file or folder of PNGs"
    )
    parser.add_argument("--truth", action="store_true", help="the masks of the set itself")
    parser.add_argument(
        "--data", type=user_path, required=True, metavar="DIR", help="data root, or the data set's own folder"
    )
    add_selection(parser)
    parser.add_argument("--split", metavar="NAME", help="only this split (default: all that have masks)")
    parser.add_argument("--to", choices=FORMS, required=True, help="the form")
    parser.add_argument("--out", type=user_path, required=True, metavar="PATH", help="a file for coco, else a folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    from rislab.data import masks
    from rislab.data.locate import locate
    from rislab.data.own import export
    from rislab.scoring.foreign import Predictions

    if (options.predictions is None) is not options.truth:
        raise ConfigError("give PREDICTIONS, or --truth for the masks of the set itself")
    is_file = options.to == "coco"
    if options.out.exists() and (
        options.out.is_dir() if is_file else not options.out.is_dir() or any(options.out.iterdir())
    ):
        raise ConfigError(
            f"--out {options.out}: is there already; --to {options.to} writes {'a file' if is_file else 'a folder'}"
        )
    index = options.out.with_name(f"{options.out.name}.csv")
    if options.to == "png" and index.exists():
        raise ConfigError(f"--out {options.out}: {index}, which says which mask is which, is there already")
    refer = locate(options.data, options.dataset, options.split_by).read()
    given = None if options.truth else Predictions(options.predictions)
    chosen = list(export.references(refer, options.split))
    answers: list[export.Answer] = []
    missing = 0
    with progress("reading masks") as show:
        for number, reference in enumerate(chosen):
            image = refer.images[reference.image_id]
            for expression in reference.expressions:
                reader = given.get(expression.sent_id) if given is not None else None
                if given is not None and reader is None:
                    missing += 1
                    continue
                mask = refer.target(reference) if reader is None else reader(image.height, image.width)
                answers.append(export.Answer(reference, expression, mask))
            show(number + 1, len(chosen))
    if not answers:
        where = f"split {options.split}" if options.split else "the set"
        raise DataError(f"{options.predictions}: has a mask for no sentence of {where}")
    written = export.WRITERS[options.to](options.out, refer, answers)
    empty = sum(not masks.area(answer.mask) for answer in answers)
    others = len(given) - len(answers) if given is not None else 0
    _tell(options, len(answers), len(written), empty, missing if options.split else 0, others)
    return 0


def _tell(options: argparse.Namespace, masks: int, files: int, empty: int, missing: int, others: int) -> None:
    if options.json:
        counts = {"masks": masks, "files": files, "empty": empty, "missing": missing, "of_other_sentences": others}
        print(json.dumps({"out": str(options.out), "form": options.to, **counts}, indent=1))
        return
    for count, what in (
        (empty, f"empty masks{'' if options.to == 'png' else f', for which {options.to} has no form: left out'}"),
        (missing, "sentences of the split without a mask"),
        (others, "masks of other sentences: left out"),
    ):
        if count:
            warn(f"{what}: {count}")
    result(
        f"{options.out}: {masks - (0 if options.to == 'png' else empty)} masks in {files} file{'s' if files > 1 else ''}"
    )
