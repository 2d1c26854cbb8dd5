"""TorchScript archives are read as data: names, types and numbers are torch's, and no code of theirs is run."""

import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rislab.errors import DataError
from rislab.nn.weight_files import is_torchscript, read_file, read_weights


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2, 3).half()
        self.register_buffer("count", torch.tensor(7))
        self.constant = torch.ones(2, 2)  # neither parameter nor buffer
        self.sizes = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x.to(self.lin.weight.dtype)).float()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Inner(), Inner()
        self.blocks = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3).bfloat16().float()))
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.tied = self.blocks[0].weight
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.a(x) + self.b(x)) * self.scale


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(Outer()), str(tmp_path / "a.pt"))
    return tmp_path / "a.pt"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("is_traced", [False, True])
def test_the_state_dict_is_torchs(tmp_path: Path, is_traced: bool) -> None:
    torch.manual_seed(0)
    model = Outer()
    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.trace(model, torch.ones(1, 2)) if is_traced else torch.jit.script(model), str(path))
    expected = torch.jit.load(str(path)).state_dict()
    found = read_weights(path)
    assert is_torchscript(path)
    assert list(found) == list(expected)
    assert not {"a.constant", "a.sizes"} & found.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key
    torch.save(found, path)
    assert not is_torchscript(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], extra: dict[str, bytes] | None = None) -> Path:
    """The same archive with other contents of its entries; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, how in entries:
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new, how)
        for name, content in (extra or {}).items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def test_code_is_not_run(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as TorchScript, which fails to compile here, nor as Python, nor by the pickles beside it."""
    monkeypatch.chdir(tmp_path)
    expected = read_weights(archive)
    attack = b"import os\nos.system('touch PWNED')\nopen('PWNED', 'w')\n"

    class Call:
        def __reduce__(self) -> object:
            return __import__("os").system, ("touch PWNED",)

    def change(name: str, content: bytes) -> bytes:
        if name.endswith(".py"):
            return attack + content + b"\nthis is no code at all (\n" + attack
        return pickle.dumps(Call()) if name.endswith(("constants.pkl", ".debug_pkl")) else content

    found = read_weights(rewritten(archive, change, {"a/code/__torch__/__init__.py": attack}))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    # A call in the pickle of the modules is a placeholder.
    call = pickle.dumps({"a": Call()}, 2)
    path = rewritten(archive, lambda name, content: call if name == "a/data.pkl" else content)
    with pytest.raises(DataError, match=r"a\.pt: a TorchScript archive without a module"):
        read_file(path)
    assert not (tmp_path / "PWNED").exists()


def test_without_declarations_every_tensor_counts(archive: Path) -> None:
    expected = read_weights(archive).keys() | {"a.constant", "b.constant"}
    assert read_weights(rewritten(archive, lambda n, c: None if "/code/" in n else c)).keys() == expected


def modules(count: int, last: bytes, shared: int) -> bytes:
    """A pickle of modules, each inside of the next one, `shared` times over; `last` is the attribute of the innermost."""
    new = b"c__torch__\nM\n)\x81}"
    content = b"\x80\x02" + new + last + b"bq\x00"
    for level in range(1, count):
        inside = b"".join(b"X\x01\x00\x00\x00" + bytes([97 + i]) + b"h" + bytes([level - 1]) for i in range(shared))
        content += new + b"(" + inside + b"ubq" + bytes([level])
    return content + b"."


@pytest.mark.parametrize(
    "content",
    [
        modules(40, b"", 2),  # 2^40 paths
        modules(200, b"", 1),  # deep
        b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",  # contains itself
        b"\x80\x02c__torch__\nM\n.",  # a class
        b"\x80\x02c__torch__\nM\n)\x81K\x01b.",  # no attributes
        b"\x80\x02)\x81.",
    ],
    ids=["shared", "deep", "itself", "class", "number", "nothing"],
)
def test_hostile_modules_end_at_once(archive: Path, content: bytes) -> None:
    path = rewritten(archive, lambda name, old: content if name == "a/data.pkl" else old)
    began = time.process_time()
    with pytest.raises(DataError, match=r"a\.pt: "):
        read_weights(path)
    assert time.process_time() - began < 10


def test_code_is_read_within_bounds(archive: Path) -> None:
    """A text of zeros is small in the archive and large outside."""
    bomb = bytes(200 << 20)
    path = rewritten(archive, lambda name, old: bomb if name == "a/code/__torch__/tests.py" else old)
    with zipfile.ZipFile(path) as opened:
        name = next(n for n in opened.namelist() if n.endswith(".py") and "nn" not in n)
    path = rewritten(archive, lambda entry, old: bomb if entry == name else old)
    with pytest.raises(DataError, match="more than 64 MiB of code"):
        read_weights(path)


def test_keys_that_are_slow_to_hash_do_not_stop_reading(tmp_path: Path) -> None:
    """Tuples that are shared level by level, and integers of one hash."""
    path = tmp_path / "a.pth"
    nested = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    same = b"".join(
        b"\x8a\x09" + ((2**61 - 1) * n + 5).to_bytes(9, "little", signed=True) + b"K\x01" for n in range(1, 60)
    )
    many = b"".join(
        b"\x8a\x0b" + ((2**61 - 1) * n + 5).to_bytes(11, "little", signed=True) + b"K\x01" for n in range(100, 60_000)
    )
    pairs = b"ccollections\nCounter\n](h\x3cK\x01\x86e\x85R"
    for content in (b"}h\x3cK\x01s", b"}(h\x3cK\x01u", b"(h\x3cK\x01d", pairs):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + nested + content + b".")
        began = time.process_time()
        read_file(path)
        assert time.process_time() - began < 5
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}(" + same + many + b"u.")
    began = time.process_time()
    read_file(path)
    assert time.process_time() - began < 20
