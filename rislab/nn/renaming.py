"""Renaming the keys of foreign checkpoints by one table, both ways."""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
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


def with_joined_attention(state: Mapping[str, Tensor], joined: str, where: str = r".+\.attn\.") -> dict[str, Tensor]:
    """A state dict whose queries, keys and values are one projection instead of three.

    Args:
        state: Three projections are `...attn.q_proj.`, `k_proj.` and `v_proj.`.
        joined: Name of the one behind `...attn.`, up to `weight` or `bias`: `in_proj_`.
        where: Regular expression of the attention's name; others stay as they are.

    Raises:
        DataError: Attention without all of the three.
    """
    of_one = re.compile(rf"({where})([qkv])_proj\.(weight|bias)")
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part = of_one.fullmatch(key)
        if part is None:
            found[key] = value
        else:
            parts.setdefault(f"{part[1]}{joined}{part[3]}", {})[part[2]] = value
    for key, three in parts.items():
        if three.keys() != {"q", "k", "v"}:
            raise DataError(f"{key} needs queries, keys and values, the file has {', '.join(sorted(three))} of q, k, v")
        found[key] = torch.cat([three["q"], three["k"], three["v"]])
    return found


def with_split_attention(state: Mapping[str, Tensor], joined: str, where: str = r".+\.attn\.") -> dict[str, Tensor]:
    """The inverse of `with_joined_attention`."""
    whole = re.compile(rf"({where}){re.escape(joined)}(weight|bias)")
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        match = whole.fullmatch(key)
        if match is None:
            found[key] = value
        else:
            three = zip("qkv", value.chunk(3), strict=True)
            found |= {f"{match[1]}{name}_proj.{match[2]}": part.clone() for name, part in three}
    return found
