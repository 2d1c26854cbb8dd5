"""The one door: `rislab COMMAND ...`. Imports only what the command needs."""

import argparse
import os
import sys

from rislab import __version__
from rislab.errors import RislabError
from rislab.printable import printable

TRAINING = {
    "fit": "train a method from a config file, then score its test splits",
    "validate": "score the validation split",
    "test": "score the test splits and write metrics.json and scores.parquet",
    "predict": "run a method over a benchmark's images",
}


def parser() -> argparse.ArgumentParser:
    from rislab.cli import ablate, data, matrix, methods, packing, score, segment

    root = argparse.ArgumentParser(
        prog="rislab",
        description="Text-driven segmentation: train methods, score them by the official conventions, and repeat the "
        "papers' ablation tables with spread, significance and verdicts.",
        epilog="example: rislab ablate run cris --profile toy --seeds 3",
    )
    root.add_argument("--version", action="version", version=f"rislab {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in TRAINING.items():
        commands.add_parser(name, help=text, add_help=False)
    segment.add_parser(commands)
    score.add_parser(commands)
    data.add_parser(commands)
    packing.add_bench(commands)
    methods.add_parser(commands)
    ablate.add_parser(commands)
    matrix.add_parser(commands)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 a trial failed or a bug, 2 the user can mend it, 3 the loss diverged, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given and given[0] in TRAINING:
            from rislab.training.cli import main as train

            return train(given)
        options = parser().parse_args(given)
        return int(options.run(options))
    except RislabError as error:
        print(printable(f"rislab: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rislab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `rislab ... | head` closed our output; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
