"""`rislab data show`: samples of a data set, drawn on one sheet."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rislab.cli.data.selection import add_selection
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.messages import result, warn
from rislab.paths import user_path

if TYPE_CHECKING:
    from PIL import Image

    from rislab.data.annotations import Reference
    from rislab.data.refer import Refer


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = actions.add_parser(
        "show",
        help="draw samples with their masks and sentences",
        description="Draw references, their masks and all their sentences on one sheet. A picture that is not on disk is drawn "
        "grey.",
        epilog="example: rislab data show DATA --dataset refcocog --split val --n 12 --out sheet.png",
    )
    show.add_argument("folder", type=user_path, metavar="DIR", help="data root, or the data set's own folder")
    add_selection(show)
    show.add_argument("--split", metavar="NAME", help="(default: the first in the file)")
    show.add_argument("--n", type=int, default=12, metavar="N", help="samples (default: %(default)s)")
    show.add_argument("--seed", type=int, default=0, metavar="K", help="which samples (default: %(default)s)")
    show.add_argument("--out", type=user_path, required=True, metavar="PNG")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run_show)


def run_show(options: argparse.Namespace) -> int:
    import numpy as np

    from rislab.data.locate import locate

    if options.n < 1:
        raise ConfigError(f"--n is {options.n}, expected 1 or more")
    refer = locate(options.folder, options.dataset, options.split_by).read()
    references = refer.split(options.split or refer.splits[0])
    order = np.random.default_rng(options.seed).permutation(len(references))[: options.n]
    drawn = [references[i] for i in sorted(order.tolist())]
    sheet = _sheet(refer, drawn)
    with replacing(options.out) as temporary:
        sheet.save(temporary, format="PNG")
    if options.json:
        drawn_ids = [reference.ref_id for reference in drawn]
        print(json.dumps({"file": str(options.out), "ref_ids": drawn_ids, "references": len(references)}, indent=1))
    else:
        result(f"{options.out}: {len(order)} of {len(references)} references")
    grey = sum(refer.store.find(refer.images[i]) is None for i in {reference.image_id for reference in drawn})
    for said in (f"{grey} pictures are not there, and drawn grey" if grey else "", refer.left_out(references[0].split)):
        if said:
            warn(said)
    return 0


COLUMNS = 4
GAP = 12


def _sheet(refer: "Refer", references: "Sequence[Reference]") -> "Image.Image":
    """Samples in rows of four, each as wide as the others, a row as high as its highest."""
    from PIL import Image

    tiles = [_tile(refer, reference) for reference in references]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    width = max(sum(tile.width + GAP for tile in row) for row in rows) + GAP
    sheet = Image.new("RGB", (width, sum(max(tile.height for tile in row) + GAP for row in rows) + GAP), "white")
    y = GAP
    for row in rows:
        x = GAP
        for tile in row:
            sheet.paste(tile, (x, y))
            x += tile.width + GAP
        y += max(tile.height for tile in row) + GAP
    return sheet


TILE = 400


def _tile(refer: "Refer", reference: "Reference") -> "Image.Image":
    """One picture at a common width, its mask, and all its sentences below."""
    import cv2
    import numpy as np

    from rislab.api.drawing import captioned
    from rislab.data import masks

    record = refer.images[reference.image_id]
    size = (TILE, max(1, round(TILE * record.height / record.width)))
    if refer.store.find(record) is None:
        picture = np.full((size[1], size[0], 3), 150, np.uint8)
    else:
        picture = np.asarray(cv2.resize(refer.image(reference.image_id), size, interpolation=cv2.INTER_AREA), np.uint8)
    mask = cv2.resize(masks.decode(refer.target(reference)), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return captioned(picture, mask, [expression.raw for expression in reference.expressions])
