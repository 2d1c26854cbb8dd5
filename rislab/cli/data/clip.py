"""`rislab data clip`: zero-shot retrieval of the tiny CLIP."""

import argparse
import json


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def show_clip(options: argparse.Namespace) -> int:
    from rislab.encoders.clip import tiny

    figures = tiny.retrieval(options.name)
    if options.json:
        print(json.dumps(figures, indent=1))
        return 0
    print(f"{options.name}: retrieval among {figures['candidates']} unseen pairs, in percent")
    print(f"{'':14}{'R@1':>8}{'R@5':>8}")
    for way in ("image to text", "text to image", "chance"):
        print(f"{way:14}{figures[way]['R@1']:8.1f}{figures[way]['R@5']:8.1f}")
    return 0
