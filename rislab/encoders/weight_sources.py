"""Where pretrained weights come from: files that a config names, and the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rislab.errors import ConfigError, brief, one_line
from rislab.paths import user_path

_ONLINE: ContextVar[bool] = ContextVar("online", default=True)


@contextmanager
def without_network() -> Iterator[None]:
    """Inside, files of the hub come from its cache alone: for what needs shapes and no weights."""
    token = _ONLINE.set(False)
    try:
        yield
    finally:
        _ONLINE.reset(token)


def absent_for_none(spec: Any, *fields: str) -> None:
    """Set fields of a frozen dataclass that are "None" or "null" to None.

    jsonargparse makes the text "None" of `--model.init_args.clip.pretrained=null`.
    """
    for field in fields:
        if getattr(spec, field) in ("None", "null"):
            object.__setattr__(spec, field, None)


def named_file(option: str, value: str, expected: str) -> Path:
    """The file of weights that an option names.

    Args:
        option: `swin.pretrained`.
        value: As the user wrote it.
        expected: What else it may be, for the message: `one, hub, toy or null`.

    Raises:
        ConfigError: No such file.
    """
    path = user_path(value)
    if not path.exists():
        raise ConfigError(f"{option} {brief(value, 200)} is no file; expected {expected}")
    return path


def hub_file(repository: str, name: str, instead: str) -> Path:
    """A file of the Hugging Face hub, fetched now or before.

    Args:
        repository: `google-bert/bert-base-uncased`.
        name: Of the file.
        instead: The option that takes the file where there is no network: `bert.pretrained: /path/to/model.safetensors`.

    Raises:
        ConfigError: It can be neither fetched nor found in the hub's cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return Path(hf_hub_download(repository, name, local_files_only=not _ONLINE.get()))
    except MemoryError:
        raise
    except Exception as error:  # of the hub, the network and the cache folder
        raise ConfigError(
            f"{name} of {repository} is not available from the Hugging Face hub, and not in {HF_HUB_CACHE} "
            f"({one_line(error)[:200]}). Without a network, give it as {instead}"
        ) from error
