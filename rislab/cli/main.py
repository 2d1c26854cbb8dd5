"""The command line: `rislab COMMAND ...`. Imports only what the command needs."""

import argparse
import os
import sys
import traceback
from contextlib import suppress

from rislab import __version__, messages
from rislab.cli.parsing import Parser, add_verbosity, parsed, taken_verbosity
from rislab.errors import DISK_ERRORS, DiskError, RislabError, from_system, is_about_a_file, one_line
from rislab.printable import printable

TRAINING = {
    "fit": "train a method from a config file, then score its test splits",
    "validate": "score the validation split",
    "test": "score the test splits and write metrics.json and scores.parquet",
    "predict": "run a method over a benchmark's images",
}


def parser() -> argparse.ArgumentParser:
    from rislab.cli import (
        ablate,
        bench,
        claims,
        compare,
        completion,
        data,
        demo,
        doctor,
        init,
        matrix,
        methods,
        score,
        segment,
    )

    root: argparse.ArgumentParser = Parser(
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
    demo.add_parser(commands)
    score.add_parser(commands)
    data.add_parser(commands)
    bench.add_parser(commands)
    methods.add_parser(commands)
    ablate.add_parser(commands)
    init.add_parser(commands)
    matrix.add_parser(commands)
    compare.add_parser(commands)
    claims.add_parser(commands)
    doctor.add_parser(commands)
    completion.add_parser(commands)
    add_verbosity(root)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 a trial failed or a bug, 2 the user can mend it, 3 the loss diverged, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return _flushed(_command(given))
    except SystemExit as stop:
        # rich and Lightning end the process themselves when the output is closed and on Ctrl-C.
        if isinstance(stop.__context__, BrokenPipeError):
            return _output_closed()
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _told("interrupted", 130)
        try:
            _flushed(0)
        except OSError as error:
            return _output_closed() if isinstance(error, BrokenPipeError) else _output_failed(error)
        raise
    except RislabError as error:
        if messages.is_verbose():
            traceback.print_exception(error)
        return _told(one_line(error) if _is_from_loader(error) else str(error), error.exit_code)
    except KeyboardInterrupt:
        return _told("interrupted", 130)
    except BrokenPipeError:
        return _output_closed()
    except OSError as error:
        if error.filename is None and error.errno in DISK_ERRORS:
            return _output_failed(error)
        if not is_about_a_file(error):
            raise
        found = from_system(error)
        return _told(str(found), found.exit_code)


def _command(given: list[str]) -> int:
    level, rest = taken_verbosity(given)
    if rest and rest[0] in TRAINING:
        from rislab.cli import training_options

        messages.set_level(level)
        training_options.check(rest[1:])
        training_options.check_begun(rest[1:])
        from rislab.training.cli import main as train

        return train(rest)
    options = parsed(parser(), given)
    messages.set_level(getattr(options, "verbosity", 0))
    return int(options.run(options))


def _told(message: str, code: int) -> int:
    with suppress(OSError, ValueError):  # the output is closed
        print(printable(f"rislab: {message}"), file=sys.stderr)
    return code


def _is_from_loader(error: RislabError) -> bool:
    """A loader process's error is the text of its traceback."""
    return str(error).startswith("Caught ")


def _flushed(code: int) -> int:
    """Write out what was printed now, where a full disk can still be reported."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _output_closed() -> int:
    """`rislab ... | head` closed our output; nothing more can be printed."""
    _discard_output()
    return 141


def _output_failed(error: OSError) -> int:
    _discard_output()
    return _told(f"standard output: {error.strerror}", DiskError.exit_code)


def _discard_output() -> None:
    """What is still in the buffer must not fail once more when Python ends."""
    with suppress(OSError, ValueError):  # a stand-in of a test has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
