"""Renaming the keys of foreign checkpoints by one table, both ways."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from rislab.errors import DataError


def rename(keys: Iterable[str], table: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Old key -> new key by the first prefix of `table` that fits, the longest first; `*` stands for one part of a name.

    Raises:
        DataError: Keys that no prefix fits, and two keys that would get one name.
    """
    rules = [
        (re.compile(re.escape(old).replace(r"\*", r"([^.]+)")), new)
        for old, new in sorted(table, key=lambda rule: len(rule[0]), reverse=True)
    ]
    renamed: dict[str, str] = {}
    leftover = []
    for key in keys:
        for pattern, new in rules:
            match = pattern.match(key)
            if match:
                for part in match.groups():
                    new = new.replace("*", part, 1)
                renamed[key] = new + key[match.end() :]
                break
        else:
            leftover.append(key)
    if leftover:
        raise DataError(f"{len(leftover)} keys of the checkpoint have no place in the model: {', '.join(leftover[:5])}")
    if len(set(renamed.values())) < len(renamed):
        raise DataError("two keys of the checkpoint would get the same name")
    return renamed


def renamed(state: Mapping[str, Tensor], table: Sequence[tuple[str, str]], back: bool = False) -> dict[str, Tensor]:
    """The tensors of `state` under their new names. back: from right to left. Raises DataError, see `rename`."""
    rules = [(new, old) for old, new in table] if back else table
    return {new: state[old] for old, new in rename(state, rules).items()}
