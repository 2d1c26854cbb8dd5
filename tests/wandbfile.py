"""What an offline run of wandb wrote, for tests alone: there is no supported way to read a `run-*.wandb` back."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 << 10
HEADER = 7  # of the file, and of each piece of a record: crc32, length, kind (1 whole, 2 first, 3 middle, 4 last)


@dataclass
class Run:
    """history: one dict a step. config, summary: flat, dotted where nested."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    sweep: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def records(data: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log; what a kill cut short is left out."""
    place, begun = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        piece = data[place + HEADER : place + HEADER + length]
        if len(piece) < length or kind == 0:
            return
        place += HEADER + length
        begun = piece if kind in (1, 2) else begun + piece
        if kind in (1, 4):
            yield begun


def read(folder: Path) -> Run:
    """The run in `offline-run-*`."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    run = Run()
    for raw in records(file.read_bytes()):
        record = Record.FromString(raw)
        match record.WhichOneof("record_type"):
            case "run":
                said = record.run
                run.id, run.name, run.group, run.sweep = said.run_id, said.display_name, said.run_group, said.sweep_id
                run.job_type, run.tags = said.job_type, list(said.tags)
                run.config |= _values(said.config.update)
            case "config":
                run.config |= _values(record.config.update)
            case "history":
                run.history.append(_values(record.history.item))
            case "summary":
                run.summary |= _values(record.summary.update)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
