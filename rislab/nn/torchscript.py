"""State dicts of TorchScript archives (`torch.jit.save`), read without running or compiling their code.

`data.pkl` holds the modules as script objects with their attributes. Which attributes are parameters and buffers is declared
in the text of their classes below `code/`, which is searched for these two lists and nothing else.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from functools import cache

from torch import Tensor

from rislab.nn.pickled_values import SCRIPTED, PickleError, ScriptObject

CODE_BYTES = 64 << 20
"""Most bytes of code that are read of an archive, after decompression."""
OBJECTS = 100_000
"""Most modules of an archive; one that is reached on two paths counts twice."""
DEPTH = 100

Declared = Callable[[str], frozenset[str] | None]
"""Class name -> names of its parameters and buffers; None where the archive does not say."""

_LISTS = r"^class {name}\([^\n]*\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$"


def is_archive(names: list[str], folder: str) -> bool:
    """Whether a zip archive of torch's with these entries below `folder/` comes from TorchScript."""
    return f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names)


def state_dict(root: ScriptObject, declared: Declared) -> dict[str, Tensor]:
    """The parameters and buffers of a module and of those inside it, by their dotted names.

    Args:
        root: The module of an archive.
        declared: Parameters and buffers of a class; where it returns None, all tensors count.

    Raises:
        PickleError: Modules that contain themselves, or too many of them.
    """
    return dict(_tensors(root, declared))


def _tensors(root: ScriptObject, declared: Declared) -> Iterator[tuple[str, Tensor]]:
    waiting = [("", root, 0)]
    count = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        count += 1
        if depth > DEPTH or count > OBJECTS:
            raise PickleError("its modules are nested too deeply, or are too many")
        own = declared(module.name)
        inner = []
        for name, value in module.attributes.items():
            if isinstance(value, Tensor) and (own is None or name in own):
                yield f"{prefix}{name}", value
            elif isinstance(value, ScriptObject):
                inner.append((f"{prefix}{name}.", value, depth + 1))
        waiting += reversed(inner)


def declarations(archive: zipfile.ZipFile, folder: str) -> Declared:
    """Looks up the parameters and buffers of the classes of an archive, whose entries lie below `folder/`."""
    left = CODE_BYTES
    entries = {info.filename: info for info in archive.infolist()}

    @cache
    def code(name: str) -> str:
        nonlocal left
        info = entries.get(name)
        if info is None or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return ""
        with archive.open(info) as file:
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise PickleError(f"more than {CODE_BYTES >> 20} MiB of code")
        return content.decode("utf-8", "replace")

    @cache
    def declared(name: str) -> frozenset[str] | None:
        module, _, last = name.rpartition(".")
        if not name.startswith(SCRIPTED):
            return None
        text = code(f"{folder}code/{module.replace('.', '/')}.py")
        found = re.search(_LISTS.format(name=re.escape(last)), text, re.MULTILINE)
        return None if found is None else frozenset(re.findall(r'"([^"]*)"', f"{found[1]} {found[2]}"))

    return declared
