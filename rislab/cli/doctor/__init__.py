"""`rislab doctor`: this installation on one page; whether a file of CLIP weights is what it is taken for."""

import argparse
import json

from rislab.errors import ConfigError
from rislab.paths import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor",
        help="describe this installation on a page, or check a file of CLIP weights",
        description="Without --clip: versions, devices, caches, data, SLURM and wandb, a page to paste into an issue, "
        "without users' names and keys. With --clip: whether a file holds the weights of that CLIP: whole, of its size, "
        "with the text embeddings that OpenAI's have, with which activation; and how CLIP and MaskCLIP score with it on "
        "a small benchmark. What is wrong is said in one line, and the exit code is 2.",
        epilog="example: rislab doctor --clip ViT-B-32 --weights ViT-B-32.pt",
    )
    parser.add_argument("--data", type=user_path, metavar="DIR", help="where data lie (default: data)")
    parser.add_argument("--clip", metavar="NAME", help="an open_clip model, ViT-B-32, or OpenAI's name of it, ViT-B/32")
    parser.add_argument(
        "--weights", type=user_path, metavar="FILE", help="an archive of OpenAI's, a file of open_clip or transformers"
    )
    parser.add_argument(
        "--quick-gelu",
        choices=("true", "false"),
        help="what clip.quick_gelu is in your config (default: not given)",
    )
    parser.add_argument(
        "--golden",
        type=user_path,
        metavar="DIR",
        help="text embeddings to compare with: NAME_names.txt, NAME_clip_a+cname.npy, and model.txt, the CLIP that made them "
        "(default: 80 of OpenAI's ViT-B/32)",
    )
    parser.add_argument(
        "--benchmark", type=user_path, metavar="DIR", help="root of a benchmark that CLIP and MaskCLIP are scored on"
    )
    parser.add_argument(
        "--benchmark-name", default="coco_object", metavar="NAME", help="which benchmark it is (default: %(default)s)"
    )
    parser.add_argument("--split", default="val", help="of the benchmark (default: %(default)s)")
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N of its pictures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.pictures is not None and options.pictures < 1:
        raise ConfigError(f"--pictures {options.pictures}: expected at least 1")
    if (options.clip is None) != (options.weights is None):
        raise ConfigError("--clip and --weights belong together")
    if options.clip is None:
        for name in ("benchmark", "golden", "quick_gelu", "pictures"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} belongs to --clip")
        from rislab.cli.doctor.environment import page, page_text

        found = page(options.data)
        print(json.dumps(found, indent=1) if options.json else page_text(found))
        return 0
    from rislab.cli.doctor.clip import check

    return check(options)
