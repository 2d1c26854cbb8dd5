"""Which split a picture goes to: a function of the seed and the pictures' bytes, not of their names or their order."""

import hashlib
from collections.abc import Mapping, Sequence

from rislab.errors import ConfigError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def shares(text: str) -> dict[str, float]:
    """`train=0.8,val=0.1,test=0.1` as numbers. Raises ConfigError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not equals or not name.strip() or not 0 <= number <= 1:
            raise ConfigError(f"--splits: {part!r}, expected NAME=SHARE with a share from 0 to 1")
        if name.strip() in found:
            raise ConfigError(f"--splits: {name.strip()!r} is given more than once")
        found[name.strip()] = number
    if abs(sum(found.values()) - 1) > 1e-6:
        raise ConfigError(f"--splits {text!r}: shares add up to {sum(found.values()):g}, expected 1")
    return found


def counts(pictures: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that add up to `pictures`: the largest remainders are rounded up; no split with a share is empty where
    there are enough pictures."""
    exact = {name: share * pictures for name, share in wanted.items()}
    found = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in by_remainder[: pictures - sum(found.values())]:
        found[name] += 1
    for name in (
        name for name, share in wanted.items() if share > 0 and pictures >= sum(s > 0 for s in wanted.values())
    ):
        if not found[name]:
            found[max(found, key=lambda each: found[each])] -= 1
            found[name] = 1
    return found


def assigned(digests: Sequence[str], wanted: Mapping[str, float], seed: int) -> dict[str, str]:
    """Split by picture, given each picture's sha256."""
    order = sorted(digests, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
    names = [name for name, count in counts(len(order), wanted).items() for _ in range(count)]
    return dict(zip(order, names, strict=True))
