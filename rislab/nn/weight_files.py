"""Tensors of files from elsewhere: torch's zip format, the one before it, TorchScript, safetensors. No code in them is run."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from rislab.errors import DataError
from rislab.nn import torchscript
from rislab.nn.pickled_values import PickleError, Placeholder, ScriptClass, ScriptObject
from rislab.nn.unpickling import interpret

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys of the weights in training checkpoints, beside optimiser and options."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before every name."""
NAMED = 5
"""Most names in an error message."""


def read_file(path: Path) -> Any:
    """The content of a file of tensors, on the CPU.

    Args:
        path: Of `torch.save`, `torch.jit.save` or safetensors.

    Returns:
        The saved value, with a `Placeholder` for whatever is neither a tensor nor plain; of a TorchScript archive, its state
        dict.

    Raises:
        DataError: The file is missing, a directory, damaged, or larger than its parts.
    """
    if not path.exists():
        raise DataError(f"{path}: no such checkpoint")
    if not path.is_file():
        raise DataError(f"{path}: a directory, expected a file of weights")
    try:
        return _read(path)
    except (PickleError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a checkpoint that can be read ({error})") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # every library has its own errors for a damaged file
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{path}: not a checkpoint that can be read ({reason})") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of weights, bare or beside an optimiser and options.

    Args:
        path: See `read_file`.

    Returns:
        Tensors by name, without the prefixes of DistributedDataParallel and torch.compile.

    Raises:
        DataError: See `read_file`; the file holds no state dict, or an entry that is no tensor.
    """
    state, inside = read_file(path), ""
    for _ in range(3):
        inner = next((key for key in WRAPPERS if isinstance(state, dict) and key in state), None)
        if inner is None or (isinstance(state[inner], Tensor) and not inside):
            break
        state, inside = state[inner], f"{inside}[{inner!r}]"
    if not isinstance(state, dict):
        where = f" under {inside}" if inside else ""
        raise DataError(f"{path}: expected a dict with 'state_dict', or one of tensors; found {_kind(state)}{where}")
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise DataError(f"{path}: expected names of parameters as keys, found {_kind(key)}")
        if not isinstance(value, (Tensor, np.ndarray)):
            hint = "" if inside else f"; none of {', '.join(map(repr, WRAPPERS))} is there"
            raise DataError(
                f"{path}: expected a tensor as {key!r}{' of ' + inside if inside else ''}, found {_kind(value)}{hint}"
            )
        bare = _bare(key)
        if bare in found:
            raise DataError(f"{path}: {bare!r} is there twice, with and without {' or '.join(PREFIXES)}")
        found[bare] = value if isinstance(value, Tensor) else torch.from_numpy(_native(value))
    if not found:
        raise DataError(f"{path}: holds no tensor")
    return found


def fits(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Check that a state dict has all tensors of a model, in their shapes, and no others.

    Args:
        path: File of the state dict, for the message.
        state: The state dict.
        own: The model's.

    Raises:
        DataError: Keys are missing, unknown, or of another shape or type; the message names them.
    """
    missing, strange = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or strange:
        wrong = [
            f"{len(keys)} {what}: {_named(keys)}" for keys, what in ((missing, "missing"), (strange, "unknown")) if keys
        ]
        raise DataError(f"{path}: its weights are not this model's; {'; '.join(wrong)}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise DataError(
                f"{path}: {key} has shape {tuple(value.shape)}, this model has {tuple(own[key].shape)} there"
            )
        if value.is_complex() or (own[key].is_floating_point() and not value.is_floating_point()):
            raise DataError(f"{path}: {key} is of type {value.dtype}, this model has {own[key].dtype} there")


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`, by its list of entries; False for an unreadable one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(
        torchscript.is_archive(names, name.removesuffix("data.pkl")) for name in names if name.endswith("/data.pkl")
    )


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")


def _bare(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _native(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A writable copy in the machine's byte order."""
    return np.array(value, value.dtype.newbyteorder("="))


def _kind(value: Any) -> str:
    return (
        f"a {value.name}"
        if isinstance(value, (Placeholder, ScriptClass, ScriptObject))
        else f"a {type(value).__name__.lstrip('_')}"
    )


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file:
        start = file.read(4)
        if not start:
            raise DataError(f"{path}: an empty file")
        file.seek(0)
        return _read_zip(path, file) if start == b"PK\x03\x04" else _read_legacy(file, path.stat().st_size)


def _read_zip(path: Path, file: IO[bytes]) -> Any:
    """Read `NAME/data.pkl` and one entry `NAME/data/KEY` a storage, all uncompressed."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"{path}: a zip archive, but none that torch.save has written")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(entries[f"{folder}byteorder"]) != b"little":
            raise DataError(f"{path}: written on a big-endian machine, which is not read")
        used = [info for name, info in entries.items() if name == pickles[0] or name.startswith(f"{folder}data/")]
        if any(info.compress_type != zipfile.ZIP_STORED for info in used) or path.stat().st_size < sum(
            info.file_size for info in used
        ):
            raise DataError(f"{path}: its tensors are compressed, which torch.save does not do")
        known: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if key not in known:
                info = entries.get(f"{folder}data/{key}")
                if info is None:
                    raise PickleError(f"storage {key[:40]} is missing")
                known[key] = (
                    torch.frombuffer(bytearray(archive.read(info)), dtype=torch.uint8) if info.file_size else _EMPTY
                )
            if len(known[key]) != count * dtype.itemsize:
                raise PickleError(f"storage {key[:40]} has {len(known[key])} bytes, expected {count * dtype.itemsize}")
            return known[key].view(dtype)

        with archive.open(entries[pickles[0]]) as content:
            found = interpret(content, entries[pickles[0]].file_size, storage)
        if not torchscript.is_archive(list(entries), folder):
            return found
        if not isinstance(found, ScriptObject):
            raise DataError(f"{path}: a TorchScript archive without a module")
        return torchscript.state_dict(found, torchscript.declarations(archive, folder))


_EMPTY = torch.empty(0, dtype=torch.uint8)


def _read_legacy(file: IO[bytes], size: int) -> Any:
    """Read three small pickles, the content, the order of the storages, then each storage as its length and bytes."""
    known: dict[str, tuple[Tensor, torch.dtype]] = {}
    taken = 0

    def nothing(key: str, dtype: torch.dtype, count: int) -> Tensor:
        raise PickleError("a storage where none belongs")

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal taken
        if key not in known:
            taken += count * dtype.itemsize
            if taken > size:
                raise PickleError("its storages are larger than the file")
            known[key] = torch.empty(count, dtype=dtype), dtype
        values, kind = known[key]
        if kind != dtype or len(values) != count:
            raise PickleError(f"storage {key[:40]} is there in two ways")
        return values

    try:
        magic = interpret(file, size, nothing)
    except PickleError:
        magic = None
    if magic != LEGACY_MAGIC:
        raise PickleError("no file of torch.save")
    interpret(file, size, nothing)  # version of the protocol
    machine = interpret(file, size, nothing)
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise PickleError("written on a big-endian machine, which is not read")
    content = interpret(file, size, storage)
    order = interpret(file, size, nothing)
    if not isinstance(order, list) or not all(isinstance(key, str) for key in order) or set(order) != known.keys():
        raise PickleError("the list of its storages is damaged")
    for key in order:
        values, dtype = known[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != len(values):
            raise PickleError(f"storage {key[:40]} has {count} elements, expected {len(values)}")
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise PickleError("it ends early")
        if count:
            values.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return content
