"""`rislab segment IMAGE... TEXT...`: masks of sentences or class names in pictures, drawn and as data."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rislab.cli.tables_option import add_tables_option
from rislab.errors import ConfigError
from rislab.files import json_text, write_text
from rislab.messages import result, warn
from rislab.paths import contents, is_file, user_path

if TYPE_CHECKING:
    from rislab.api import Answers

FOLDER = Path("masks")
"""Where drawings of several pictures go unless the user says otherwise."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "segment",
        help="segment what sentences name in pictures",
        description="Segment what each sentence names in each picture; draw the masks, and write them as PNG and COCO RLE. "
        "Without --out, --masks and --json the drawing goes into the working directory, and its name is printed.",
        epilog='example: rislab segment photo.jpg "red cup" chair --checkpoint best.ckpt, '
        'rislab segment a.jpg photos/ --text "red cup" --text chair --checkpoint cris:con+dec3 --out drawn, or '
        'rislab segment photo.jpg --classes "dog, cat, sky" --checkpoint best.ckpt --out labels.jpg',
    )
    parser.add_argument(
        "image",
        type=user_path,
        metavar="IMAGE",
        help="picture, or folder of pictures; turned as its EXIF orientation says, and so are the masks",
    )
    parser.add_argument(
        "more",
        nargs="*",
        metavar="TEXT",
        help="sentences in quotes, answered together; with --text or --classes: more pictures and folders",
    )
    parser.add_argument("--text", action="append", metavar="TEXT", help="a sentence; may be given several times")
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help='instead of sentences: class names, "dog, cat, sky"; each pixel gets one of them',
    )
    parser.add_argument("--background", action="store_true", help="with --classes: a pixel may be none of them")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE",
        help="a trial's best.ckpt, its directory, or a finished row of a table (cris:con+dec3)",
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="FILE",
        help="picture with the masks drawn over it, in the format that its suffix names; of several pictures: a folder",
    )
    parser.add_argument(
        "--masks",
        type=user_path,
        metavar="DIR",
        help="one black-and-white PNG a sentence: 0.png, 1.png, ...; of several pictures: in a folder each",
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
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)"
    )
    add_tables_option(parser)
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: a GPU if there is one)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    given, texts, names = _pictures_and_texts(options)
    if options.official != (options.config is not None):
        raise ConfigError("--official and --config belong together")
    if options.official and options.trunk is not None:
        raise ConfigError("--trunk belongs to a checkpoint of a trial; with --official, --config names the trunk")

    from rislab.api import pictures
    from rislab.data import decoding

    files, others = pictures.listed(given)
    several = len(files) > 1 or any(path.is_dir() for path in given)
    outputs = _Outputs(options, files, several)
    for folder, left in others.items():
        some = ", ".join(file.name for file in left[:3]) + (", ..." if len(left) > 3 else "")
        are = "file is no picture and was" if len(left) == 1 else "files are no pictures and were"
        warn(f"{folder}: {len(left)} {are} left out ({some})")

    for file in files:  # before seconds go into a model, and before anything is written
        decoding.header(contents(file), str(file), noun="image")

    import rislab
    from rislab.training.cli import quiet

    quiet()
    model = rislab.load(
        options.checkpoint,
        config=options.config,
        trunk=options.trunk,
        runs=options.runs,
        tables=options.tables,
        device=options.device,
    )
    for file in files:
        answers = model.segment(file, texts or None, classes=names or None, background=options.background)
        outputs.write(file, answers)
    outputs.finish()
    return 0


def _pictures_and_texts(options: argparse.Namespace) -> tuple[list[Path], list[str], list[str]]:
    """What the positional arguments are: pictures alone where texts or classes come by an option. Raises ConfigError."""
    names = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ConfigError(f"--classes: {twice!r} is given more than once; a pixel gets one of the names")
    if options.background and not names:
        raise ConfigError("--background belongs to --classes")
    if options.text and names:
        raise ConfigError("--text and --classes are both given; expected one of them")
    empty = next(
        (n for n, text in enumerate(options.text or ([] if names else options.more), 1) if not text.strip()), None
    )
    if empty is not None:
        raise ConfigError(f"sentence {empty} is empty, expected a text")
    if options.text or names:
        option = "--text" if options.text else "--classes"
        stray = next((each for each in options.more if not user_path(each).exists()), None)
        if stray is not None:
            raise ConfigError(f"{stray}: no such image or folder; with {option}, all other arguments are pictures")
        return [options.image, *map(user_path, options.more)], options.text or [], names
    if not options.more:
        raise ConfigError('give sentences, or --classes "dog, cat, sky"')
    file = next((text for text in options.more if is_file(Path(text)) or text.endswith("/")), None)
    if file is not None:
        raise ConfigError(f"{file} is a file, not a sentence; for several pictures give each sentence by --text")
    return [options.image], options.more, []


class _Outputs:
    """Where the answers go. Nothing is written before all names are known to be sound.

    Args:
        options: Of the command line.
        files: The pictures.
        several: Whether there may be more than one.
    """

    def __init__(self, options: argparse.Namespace, files: Sequence[Path], several: bool) -> None:
        from rislab.api.answers import DRAWN, check_suffix

        self.masks: Path | None = options.masks
        self.json: str | None = options.json
        self.several = several
        self.entries: list[dict[str, object]] = []
        self.names = dict(zip(files, _distinct([file.stem for file in files]), strict=True))
        self.drawings: dict[Path, Path] = {}
        if several and (options.out or not (options.masks or options.json)):
            folder = options.out or FOLDER
            if folder.suffix.lower() in DRAWN or is_file(folder):
                raise ConfigError(f"--out {folder}: {len(files)} pictures need a folder, not a file")
            self.drawings = {file: folder / f"{name}.png" for file, name in self.names.items()}
        elif options.out:
            check_suffix(options.out, DRAWN)
            self.drawings = dict.fromkeys(files, options.out)
        elif not (options.masks or options.json):
            self.drawings = {file: Path(f"{file.stem}-masks.png") for file in files}
        own = {file.resolve() for file in files}
        target = next((path for path in self.drawings.values() if path.resolve() in own), None)
        if target is not None:
            raise ConfigError(f"--out: {target} is one of the pictures, and would be overwritten")

    def write(self, file: Path, answers: "Answers") -> None:
        """The drawing and the masks of a picture; prints the name of the drawing."""
        if file in self.drawings:
            answers.save(self.drawings[file])
            if self.json != "-":
                result(self.drawings[file])
        if self.masks is not None:
            folder = self.masks / self.names[file] if self.several else self.masks
            for number, answer in enumerate(answers):
                answer.save_mask(folder / f"{number}.png")
        if self.json is not None:
            # `pixels` is what earlier releases call the area.
            self.entries += [entry | {"pixels": entry["area"]} for entry in answers.to_coco()]

    def finish(self) -> None:
        """The JSON of all pictures."""
        if self.json is None:
            return
        text = json_text(self.entries)
        if self.json == "-":
            sys.stdout.write(text)
        else:
            write_text(user_path(self.json), text)


def _distinct(stems: Sequence[str]) -> list[str]:
    """Names of files, each once: `a`, `a-2`, `b` for a.jpg, a.png and b.jpg."""
    found: list[str] = []
    for stem in stems:
        name, number = stem, 1
        while name in found:
            number += 1
            name = f"{stem}-{number}"
        found.append(name)
    return found
