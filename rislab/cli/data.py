"""`rislab data ...`: look at data sets, write the embedded world, look at the tiny CLIP."""

import argparse
import json

from rislab.cli import checking, datasets, packing
from rislab.paths import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("data", help="check, compare and draw data sets; write the toy world")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    checking.add_parser(actions)
    datasets.add_parsers(actions)
    packing.add_parser(actions)

    toy = actions.add_parser(
        "toy",
        help="write the toy world in the official file formats",
        description="Write scenes as RefCOCO-, RefCOCO+- and RefCOCOg-like sets: refs(*).p, instances.json, JPEGs.",
        epilog="example: rislab data toy --out toy --scenes 2000 --size 96 --seed 0",
    )
    toy.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder to create")
    toy.add_argument("--scenes", type=int, default=4000, metavar="N", help="pictures (default: %(default)s)")
    toy.add_argument("--size", type=int, default=96, metavar="S", help="side in pixels (default: %(default)s)")
    toy.add_argument("--seed", type=int, default=0, metavar="K", help="same seed, same bytes (default: %(default)s)")
    toy.set_defaults(run=write_toy)

    clip = actions.add_parser(
        "clip",
        help="zero-shot retrieval of the tiny CLIP against chance",
        description="Show how well the tiny CLIP matches captions with unseen pictures; pretrain it if need be.",
        epilog="example: rislab data clip --name rislab-tiny-RN",
    )
    clip.add_argument(
        "--name", default="rislab-tiny-RN", help="rislab-tiny-RN or rislab-tiny-ViT (default: %(default)s)"
    )
    clip.add_argument("--json", action="store_true", help="print the figures as JSON")
    clip.set_defaults(run=show_clip)


def write_toy(options: argparse.Namespace) -> int:
    from rich.progress import Progress

    from rislab.data.toy.world import ToyWorld

    world = ToyWorld(options.scenes, options.size, options.seed)
    with Progress(transient=True) as bar:
        task = bar.add_task("scenes", total=options.scenes)
        world.write(options.out, lambda done, total: bar.update(task, completed=done, total=total))
    print(f"{options.out}: {options.scenes} scenes of {options.size} pixels, seed {options.seed}")
    return 0


def show_clip(options: argparse.Namespace) -> int:
    from rislab.clip import tiny

    figures = tiny.retrieval(options.name)
    if options.json:
        print(json.dumps(figures, indent=1))
        return 0
    print(f"{options.name}: retrieval among {figures['candidates']} unseen pairs, in percent")
    print(f"{'':14}{'R@1':>8}{'R@5':>8}")
    for way in ("image to text", "text to image", "chance"):
        print(f"{way:14}{figures[way]['R@1']:8.1f}{figures[way]['R@5']:8.1f}")
    return 0
