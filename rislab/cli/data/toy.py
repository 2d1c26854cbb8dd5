"""`rislab data toy`: write the toy world in the official file formats."""

import argparse
import json

from rislab.messages import progress, result
from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    toy.add_argument("--json", action="store_true", help="print JSON")
    toy.set_defaults(run=write_toy)


def write_toy(options: argparse.Namespace) -> int:
    from rislab.data.toy.world import ToyWorld

    world = ToyWorld(options.scenes, options.size, options.seed)
    with progress("scenes") as show:
        world.write(options.out, show)
    if options.json:
        recipe = {"scenes": options.scenes, "size": options.size, "seed": options.seed}
        print(json.dumps({"folder": str(options.out), **recipe}, indent=1))
        return 0
    result(f"{options.out}: {options.scenes} scenes of {options.size} pixels, seed {options.seed}")
    return 0
