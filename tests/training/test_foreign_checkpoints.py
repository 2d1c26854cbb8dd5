"""Files of weights that others have written: read as they are, without running them, or refused in one line."""

import argparse
import collections
import contextlib
import enum
import importlib
import pickle
import random
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from rislab.errors import ConfigError, DataError, RislabError
from rislab.methods.base import TRUNK
from rislab.methods.cris.official import to_official
from rislab.nn.weight_files import read_file, read_weights
from rislab.training import inference
from rislab.training.checkpoints import WholeCheckpointIO
from tests.methods.every import factories
from tests.worlds import rislab_here

CRIS = {
    "class_path": "rislab.methods.cris.task.CRISTask",
    "init_args": {
        "clip": {"name": "rislab-tiny-RN", "pretrained": None},
        "image_size": 64,
        "word_len": 8,
        "fpn_out": [16, 32, 16],
        "decoder_layers": 1,
        "num_head": 2,
        "dim_ffn": 32,
        "dropout": 0.0,
    },
}
OFFICIAL = ("clip", "cris", "maskclip", "risclip", "tcl")


class Level(enum.Enum):
    HIGH = 1


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """A CRIS under the official names, behind DDP's prefix."""
    torch.manual_seed(0)
    return {f"module.{key}": value for key, value in to_official(factories()["cris"]().state_dict()).items()}


@pytest.fixture
def omegaconf(monkeypatch: pytest.MonkeyPatch) -> type[dict[str, Any]]:
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig(dict[str, Any]):
        pass

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    return DictConfig


def test_releases_as_users_have_them_give_the_same_masks(
    tmp_path: Path, weights: dict[str, Tensor], omegaconf: type[dict[str, Any]]
) -> None:
    base = {"epoch": 7, "best_iou": 0.5, "prec": {"Pr@50": 0.5}, "state_dict": weights}
    bare = {key.removeprefix("module."): value for key, value in weights.items()}
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    contents: dict[str, Any] = {
        "plain": base,
        "legacy": base,
        "half": base | {"state_dict": half},
        "bare": bare,
        "counter": base | {"scheduler": {"milestones": collections.Counter({35: 1})}},
        "numpy": base | {"best_iou": np.float64(0.5), "cur": np.float32(0.5), "curve": np.arange(3.0)},
        "namespace": base | {"args": argparse.Namespace(lr=1e-4, level=Level.HIGH, path=Path("x"))},
        "omegaconf": base | {"config": omegaconf(a=1)},
        "wrapped": {"model": bare},
        "compiled": {"state_dict": {f"module._orig_mod.{key}": value for key, value in bare.items()}},
        "parameters": {
            "state_dict": collections.OrderedDict((k, torch.nn.Parameter(v, False)) for k, v in bare.items())
        },
    }
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8))
    logits = {}
    for name, content in contents.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=name != "legacy")
        with torch.inference_mode():
            logits[name] = inference.load_official(path, CRIS).segment(
                image, ["red cup"], torch.zeros(1, dtype=torch.int64)
            )
    for name in contents.keys() - {"half"}:
        assert torch.equal(logits[name], logits["plain"]), name
    assert torch.allclose(logits["half"], logits["plain"], atol=0.05)
    assert not torch.equal(logits["half"], logits["plain"])


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_every_kind_are_read_to_the_bit(tmp_path: Path, protocol: int, is_zip: bool) -> None:
    whole = torch.randn(6, 7)
    kinds = [
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.uint16,
        torch.complex64,
    ]
    given: dict[str, Any] = {str(kind): torch.arange(5).to(kind) for kind in [*kinds, torch.float8_e4m3fn]}
    given |= {"transposed": whole.T, "part": whole[2:4, 1:], "shared": whole, "empty": torch.empty(0, 3)}
    given |= {
        "scalar": torch.tensor(3.0),
        "expanded": torch.ones(1).expand(9),
        "array": np.random.default_rng(0).random((3, 2)),
    }
    given["fortran"] = np.asfortranarray(given["array"])
    path = tmp_path / "a.pth"
    torch.save({"state_dict": given}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    found = read_weights(path)
    for name, value in given.items():
        tensor = torch.as_tensor(value)
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tolist() == tensor.tolist(), name


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


CONTENTS: dict[str, Callable[[Path], object]] = {
    "int keys": lambda path: torch.save({0: torch.ones(1)}, path),
    "directory": lambda path: path.mkdir(),
    "tensor": lambda path: torch.save(torch.ones(3), path),
    "list": lambda path: torch.save([1, 2], path),
    "nothing": lambda path: torch.save({}, path),
    "text": lambda path: path.write_text("<html>404</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "other zip": other_zip,
    "list as state dict": lambda path: torch.save({"state_dict": [1]}, path),
    "options only": lambda path: torch.save({"args": {"lr": 1}}, path),
    "object among the weights": lambda path: torch.save({"state_dict": {"args": argparse.Namespace(a=1)}}, path),
    "plain pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_holds_no_weights_of_ours_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "foreign.pth"
    CONTENTS[kind](path)
    for method in OFFICIAL:
        with pytest.raises(DataError, match=r"foreign\.pth") as said:
            importlib.import_module(f"rislab.methods.{method}.official").load_official(path)
        assert "\n" not in str(said.value)
    with pytest.raises((DataError, ConfigError), match=r"foreign\.pth") as said:
        inference.load_method(path)
    assert "\n" not in str(said.value)


def own(path: Path, **changes: Any) -> Path:
    """A checkpoint as a trial writes it, with another recipe or other weights."""
    torch.manual_seed(0)
    state = factories()["cris"]().state_dict()
    WholeCheckpointIO(changes.pop("recipe", CRIS)).save_checkpoint(
        {"state_dict": state, "global_step": 1} | changes, path
    )
    return path


def recipe(**changes: Any) -> dict[str, Any]:
    return {**CRIS, "init_args": {**CRIS["init_args"], **changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": recipe(clip="elsewhere.yaml")}, "'clip' of its recipe is a str, expected a mapping"),
        ({"recipe": recipe(clip={"name": "local-dir:/elsewhere"})}, "no open_clip model"),
        ({"recipe": recipe(num_head={"class_path": "os.system"})}, "'num_head' of its recipe is a dict"),
        ({"recipe": recipe(nonsense=3)}, "'nonsense' is not accepted"),
        ({"recipe": recipe(image_size=97)}, "image_size 97 is no multiple of 32"),
        ({"recipe": recipe(num_head=3)}, "embed_dim must be divisible by num_heads"),
        ({"recipe": {**CRIS, "dict_kwargs": {"a": 1}}}, "its recipe has dict_kwargs"),
        ({"recipe": {**CRIS, "class_path": "rislab.methods.cris.task.Unknown"}}, "is no method of rislab"),
        ({"recipe": {**CRIS, "class_path": "os.system"}}, "is no method of rislab"),
        ({"recipe": recipe(fpn_out=[16, 32, 8])}, "this model has"),
        ({"recipe": recipe(decoder_layers=2)}, "missing: "),
        ({"rislab_trunk": "0" * 64, "recipe": recipe(clip={"name": "RN50", "pretrained": "elsewhere.pt"})}, "has none"),
        ({"state_dict": [1]}, "expected a dict with 'state_dict'"),
        ({"state_dict": {"a": 1}}, "its state dict holds a int"),
    ],
)
def test_a_checkpoint_decides_nothing_but_its_model(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = own(tmp_path / "best.ckpt", **changes)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    done = rislab_here(
        "segment", str(tmp_path / "photo.png"), "cup", "--checkpoint", str(path), "--json", "-", cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert str(path) in done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_frozen_trunk_is_never_a_file_that_the_checkpoint_names(tmp_path: Path) -> None:
    """The user names it, and its sha256 still has to be the one that was trained on."""
    torch.manual_seed(0)
    method = factories()["risclip"]()
    clip = {
        key.removeprefix("model.towers.clip."): v for key, v in method.state_dict().items() if ".towers.clip." in key
    }
    clip |= {
        f"visual.{key.removeprefix('model.towers.image.visual.')}": value
        for key, value in method.state_dict().items()
        if key.startswith("model.towers.image.visual.")
    }
    trunk = tmp_path / "trunk.safetensors"
    save_file({key: value.clone().contiguous() for key, value in clip.items()}, trunk)
    options = {"image_size": 64, "word_len": 12, "stage": "joint", "ske_layers": 1, "ske_mlp": 32, "heads": 4}
    options |= {"decoder_levels": [1, 2], "decoder_width": [16, 8], "base_lr": 3e-3}
    checkpoint: dict[str, Any] = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    made = {"class_path": "rislab.methods.risclip.task.RISCLIPTask", "init_args": options}
    made["init_args"] |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": str(trunk)}}  # type: ignore[operator]
    path = tmp_path / "best.ckpt"
    WholeCheckpointIO(made).save_checkpoint(checkpoint, path)
    with pytest.raises(ConfigError, match=r"cannot name a file: .* --trunk FILE"):
        inference.load_method(path)
    found = inference.load_method(path, trunk)
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in method.state_dict().items())
    save_file({key: value + 1 for key, value in clip.items()}, trunk)
    with pytest.raises(ConfigError, match=r"best\.ckpt: the checkpoint was trained on a trunk with sha256"):
        inference.load_method(path, trunk)


def test_every_frozen_trunk_of_a_method_is_named_by_its_own_option(tmp_path: Path) -> None:
    """ReCo has three, one of which is no CLIP. A checkpoint names none of them as a file."""
    spec: dict[str, Any] = {"name": "rislab-tiny-ViT", "pretrained": "toy"}
    options = {"clip": spec, "retrieval_clip": spec, "encoder": {"name": "rislab-tiny-DeiT", "pretrained": "toy"}}
    path, content = tmp_path / "best.ckpt", {"state_dict": {}, TRUNK: "0" * 64}
    made = {"class_path": "rislab.methods.reco.task.ReCoTask", "init_args": options}
    WholeCheckpointIO(made).save_checkpoint(content, path)
    named = inference.recipe_of(path)["init_args"]
    assert [named[name]["pretrained"] for name in options] == ["toy"] * 3
    for name, given in options.items():
        changed = {**made, "init_args": {**options, name: {**given, "pretrained": "../other.pt"}}}
        WholeCheckpointIO(changed).save_checkpoint(content, path)
        with pytest.raises(ConfigError, match=r"frozen trunk comes from '\.\./other\.pt'.* --trunk FILE"):
            inference.recipe_of(path)
        with pytest.raises(ConfigError, match="ReCoTask has 3 frozen trunks"):
            inference.load_method(path, tmp_path / "other.pt")


def zipped(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def bomb(end: bytes) -> bytes:
    """A list shared 34 times over, as a pickle of a few hundred bytes; 2^34 elements for a walk through it."""
    levels = b"".join(
        b"]" + b"q" + bytes([n]) + b"(" + b"h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"e" for n in range(1, 35)
    )
    return b"\x80\x02" + b"]q\x00" + levels + end + b"."


@pytest.mark.parametrize(
    "content",
    [
        bomb(b""),
        b"\x80\x02" + b"".join(b"(" for _ in range(20_000)) + b"t" * 20_000 + b".",  # nested, as a tuple
        b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(34)) + b"}h\x22K\x01s.",
        b"\x80\x02]q\x00" + b"cbuiltins\nlist\nh\x00\x85R0" * 1000 + b"h\x00.",
        b"\x80\x02X\x00\x00\x08\x00"
        + b"a" * 0x80000
        + b"q\x00"
        + b"c_codecs\nencode\nq\x010"
        + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R0" * 50_000
        + b".",
        b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch PWNED\x85R.",
        b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        b"\x80\x02.",
        b"\x80\x02h\x05.",
        b"(" * 1000,
    ],
    ids=["bomb", "nested", "hash", "calls", "encode", "system", "long", "stack", "memo", "marks"],
)
def test_hostile_pickles_end_at_once(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = zipped(tmp_path / "hostile.pth", content)
    for load in (read_weights, inference.load_method):
        with pytest.raises(RislabError, match=r"hostile\.pth") as said:
            load(path)
        assert len(str(said.value)) < 500
    assert not (tmp_path / "PWNED").exists()


def test_sizes_are_bounded_by_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"

    def saved(size: tuple[int, ...], stride: tuple[int, ...], offset: int, count: int) -> Path:
        class Forged:
            def __reduce__(self) -> Any:
                storage = torch.zeros(8).untyped_storage()
                typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
                return torch._utils._rebuild_tensor_v2, (typed, offset, size, stride, False, collections.OrderedDict())

        torch.save({"state_dict": {"a": Forged()}}, path)
        return path

    assert read_weights(saved((2, 4), (4, 1), 0, 8))["a"].shape == (2, 4)
    for size, stride, offset in (
        ((9,), (1,), 0),
        ((2,), (8,), 0),
        ((1,), (1,), 8),
        ((10**12,), (0,), 0),
        ((1,), (1,), -1),
    ):
        with pytest.raises(DataError, match=r"a\.pth: .*a tensor"):
            read_weights(saved(size, stride, offset, 8))


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_files_are_refused_and_nothing_else_happens(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "a.pth"
    content = {"state_dict": {"a": torch.randn(4), "b": torch.arange(3)}, "args": argparse.Namespace(a=[1, {"b": 2}])}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(whole[: rng.choice([len(whole), len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_file(path)
    for _ in range(100):
        path.write_bytes(rng.randbytes(rng.randrange(200)))
        with pytest.raises(DataError):
            read_weights(path)
