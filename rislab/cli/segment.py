"""`rislab segment IMAGE TEXT...`: masks of sentences in a picture, drawn and as data."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rislab.errors import ConfigError, DataError
from rislab.files import replacing, write_text
from rislab.paths import user_path

if TYPE_CHECKING:
    from rislab.training.inference import Segment


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "segment",
        help="segment what sentences name in a picture",
        description="Segment what each sentence names in a picture; draw the masks and write them as PNG and COCO RLE.",
        epilog='example: rislab segment photo.jpg "red cup" chair --checkpoint best.ckpt --out masks.png --json -, or '
        'rislab segment photo.jpg --classes "dog, cat, sky" --checkpoint best.ckpt --out labels.png',
    )
    parser.add_argument(
        "image",
        type=user_path,
        metavar="IMAGE",
        help="JPEG or PNG; turned as its EXIF orientation says, and so are the masks",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a sentence in quotes; several are answered together")
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help='instead of sentences: class names, "dog, cat, sky"; each pixel gets one of them',
    )
    parser.add_argument("--background", action="store_true", help="with --classes: a pixel may be none of them")
    parser.add_argument("--checkpoint", type=user_path, required=True, metavar="FILE", help="a trial's best.ckpt")
    parser.add_argument("--out", type=user_path, metavar="PNG", help="picture with the masks drawn over it")
    parser.add_argument(
        "--masks", type=user_path, metavar="DIR", help="one black-and-white PNG a sentence: 0.png, 1.png, ..."
    )
    parser.add_argument("--json", metavar="FILE", help="COCO RLE of every mask; - prints it")
    parser.add_argument(
        "--official",
        action="store_true",
        help="the checkpoint is the authors' release; --config says which model it holds",
    )
    parser.add_argument("--config", type=user_path, metavar="YAML", help="with --official: experiments/METHOD/*.yaml")
    parser.add_argument(
        "--trunk",
        type=user_path,
        metavar="FILE",
        help="weights of a frozen CLIP, where the trial took them from a file",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not (options.out or options.masks or options.json):
        raise ConfigError("nothing to write: give --out PNG, --masks DIR or --json FILE")
    if not options.image.exists():
        raise DataError(f"{options.image}: no such image")
    names = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ConfigError(f"--classes: {twice!r} is given more than once; a pixel gets one of the names")
    if bool(names) == bool(options.texts):
        raise ConfigError('give sentences, or --classes "dog, cat, sky"')
    if options.background and not names:
        raise ConfigError("--background belongs to --classes")
    if options.official != (options.config is not None):
        raise ConfigError("--official and --config belong together")
    if options.official and options.trunk is not None:
        raise ConfigError("--trunk belongs to a checkpoint of a trial; with --official, --config names the trunk")

    from rislab.training import inference
    from rislab.training.cli import quiet

    quiet()
    if options.official:
        model = inference.load_official(options.checkpoint, inference.read_recipe(options.config))
    else:
        model = inference.load_method(options.checkpoint, options.trunk)
    image = inference.read_image(options.image)
    segments = (
        inference.segment_classes(model, image, names, options.background)
        if names
        else inference.segment(model, image, options.texts)
    )

    if options.out:
        from rislab.cli.drawing import overlay

        drawn = overlay(image, [s.mask for s in segments], [s.text for s in segments])
        with replacing(options.out) as temporary:
            drawn.save(temporary, format="PNG")
    if options.masks:
        _write_masks(options.masks, segments)
    if options.json:
        text = json.dumps([s.as_json() for s in segments], indent=1, ensure_ascii=False) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            write_text(user_path(options.json), text)
    return 0


def _write_masks(folder: Path, segments: "list[Segment]") -> None:
    from PIL import Image

    for number, found in enumerate(segments):
        with replacing(folder / f"{number}.png") as temporary:
            Image.fromarray(found.mask).save(temporary, format="PNG")
