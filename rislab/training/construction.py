"""What a constructor raises, as one line for the person who wrote the config.

jsonargparse wraps it into an error of its own that prints every option of the class; its class is lost.
"""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rislab.errors import ConfigError, DataError, RislabError, chain, from_system, one_line, underlying

LONGEST = 60
"""Characters of a given value that a message shows."""


@contextmanager
def constructing(what: str) -> Iterator[None]:
    """Turn whatever is raised while objects are made from a config into a `RislabError`.

    Our own errors keep their class, a file system's become `DiskError` or `DataError`. All else is `ConfigError`, since the
    config is all that a constructor sees: it names the exception and the line that raised it, and keeps it as its cause.

    Args:
        what: the part of the config, `trainer`, for messages.
    """
    try:
        yield
    except (RislabError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        found = underlying(error)
        if isinstance(found, RislabError):
            raise found from found.__cause__
        if found is not None:
            raise from_system(found) from error
        raise ConfigError(_explained(what, error)) from error


@contextmanager
def running() -> Iterator[None]:
    """Turn what Lightning says of a wrong option, or torch of weights that do not fit, into a `RislabError`."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {one_line(error)}") from error
    except ValueError as error:
        if not str(error).startswith("loaded state dict "):  # of an optimiser
            raise
        raise DataError(f"the checkpoint's optimiser is not this model's: {one_line(error)}") from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict for "):
            raise
        raise DataError(f"the checkpoint's weights are not this model's: {one_line(error)}") from error


def _explained(what: str, error: Exception) -> str:
    root = list(chain(error))[-1]
    frames = traceback.extract_tb(root.__traceback__)
    told = parse_message(str(error))
    if told is not None and (not frames or "jsonargparse" in frames[-1].filename):
        return told
    where = f" ({'/'.join(frames[-1].filename.split('/')[-3:])}:{frames[-1].lineno})" if frames else ""
    return f"{what}: {type(root).__name__}: {one_line(root)}{where}"


_NOISE = ("Does not validate against any", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'NoneType'>")


def parse_message(text: str) -> str | None:
    """jsonargparse's tree of reasons on one line: `data.protocol: Expected a member of ...`; None when it is no such tree."""
    if "Parser key" not in text and "Does not validate against any" not in text:
        return None
    path: list[str] = []
    reasons: list[str] = []
    given = ""
    for line in text.splitlines():
        words = line.strip().removeprefix("- ").strip()
        key = re.fullmatch(r"Parser key \"?([^\"]+)\"?:(.*)", words)
        if key is not None:
            path += [key.group(1)]
            words = key.group(2).strip()
        if words.startswith("Given value: "):
            given = given or words.removeprefix("Given value: ")
        elif words and not words.startswith(_NOISE):
            reasons.append(re.sub(r"<(?:class|enum) '([^']+)'>", r"\1", words).replace("typing.", ""))
    told = re.sub(
        r"Expected a (int|float|bool|str|list|dict|Literal)\b",
        r"Expected \1",
        "; ".join(dict.fromkeys(reasons)).replace(":; ", ": "),
    )
    if given and len(given) <= LONGEST and "Got value" not in told:
        told = f"{told}. Got value: {given}"
    return f"{'.'.join(path)}: {told}" if path else told
