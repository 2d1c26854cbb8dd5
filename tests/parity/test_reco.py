"""ReCo against its official code: retrieval, co-segmentation in both forms, inference in all settings, what the CRF gets."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rislab.data.square import square
from rislab.encoders.clip.dense import averaged
from rislab.encoders.clip.text import encode
from rislab.encoders.clip.trunk import CLIPSpec, build
from rislab.encoders.deit.load import DeiTSpec
from rislab.encoders.deit.model import PatchEncoder
from rislab.methods.reco import task
from rislab.methods.reco.cosegment import Cosegmentation, cosegment
from rislab.methods.reco.inference import picture_of
from rislab.methods.reco.model import EncodedImages, resized, scores, text_attention
from rislab.methods.reco.official import from_official, load_official, to_official
from rislab.methods.reco.references import Embedder, Making
from rislab.methods.reco.task import ReCoTask
from rislab.nn.dense_crf import Kernels
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("reco")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no cases below {ROOT}; set RISLAB_PARITY")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)

SETTINGS = {"none": (False, False), "text": (True, False), "context": (False, True), "text_context": (True, True)}
"""Language guidance and context elimination, by the names of the cases."""
COLUMNS = ("image", "official_slice")


def clip_of(at: dict[str, Any]) -> Any:
    text = {"context_length": at["context_length"], "vocab_size": at["vocab_size"], "width": at["text_width"]}
    text |= {"heads": at["text_heads"], "layers": at["text_layers"]}
    channels = at["width"] if at["kind"] == "vit" else 32 * at["width"]
    heads = at.get("image_heads", 1)  # of the dense tower's pool, whose attention nothing reads: any
    vision = {
        "image_size": at["image_size"],
        "layers": at["layers"],
        "width": at["width"],
        "patch_size": at.get("patch"),
    }
    vision["head_width"] = channels // heads
    return build(vision, text, at["out"])


@functools.cache
def model_of(case: Case) -> ReCoTask:
    """A method of the case's sizes that holds its weights."""
    at, weights = case.about["model"], case.weights
    pool = weights.get("dense_clip.visual.attnpool.positional_embedding", torch.zeros(2))
    own_size = {"image_size": 32 * round((len(pool) - 1) ** 0.5)}  # of a ResNet, by the table that nothing reads
    towers = {"dense": clip_of(own_size | at["dense"]), "retrieval": clip_of(at["retrieval"])}
    form = at["encoder"]
    heads = weights.get("encoder.head.weight")
    encoder = PatchEncoder(
        form["width"], form["depth"], form["heads"], form["patch"], form["pos_table"][0], form["mlp_ratio"],
        distilled="encoder.dist_token" in weights,
        classes=0 if heads is None else len(heads),
        rest="cut" if form["rest"] == "cut" else "pad",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "load", lambda spec: towers[spec.name])
        patch.setattr(task, "load_encoder", lambda spec: encoder)
        patch.setattr(task, "Tokenizer", lambda name: None)
        model = ReCoTask(CLIPSpec("dense"), CLIPSpec("retrieval"), DeiTSpec("encoder"))
    model.load_state_dict(from_official(weights))
    return model.eval()


class Tensors:
    """Stands in for an archive: its pictures are their own numbers, which the case's tensors are looked up by."""

    name = "parity"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def digest(self) -> str:
        return "parity"

    def batches(self, numbers: Sequence[int], size: int, side: int, resampling: str) -> Iterator[Tensor]:
        for start in range(0, len(numbers), size):
            yield torch.tensor(numbers[start : start + size])


@functools.cache
def pictures_of(case: Case) -> tuple[Tensor, Tensor]:
    """All archive pictures as the retrieval CLIP takes them, and as the encoder does; from raw pictures where there are some."""
    if "archive_images" in case.inputs:
        return case["index_images"], case["archive_images"]
    model = model_of(case)
    names = sorted(name for name in case.inputs if name.startswith("archive_raw/"))
    raw = [case[name].numpy() for name in names]
    side = case.about["model"]["archive_size"], case.about["model"]["retrieval"]["image_size"]

    def squares(size: int, how: Any) -> Tensor:
        return torch.stack([torch.from_numpy(square(one, size, how)).permute(2, 0, 1) for one in raw])

    index = (squares(side[1], "bicubic").float() / 255 - model.clip_mean) / model.clip_std
    return index, model.normalise(squares(side[0], "bilinear"))


@torch.no_grad()
def texts_of(case: Case, clip: Any) -> Tensor:
    tokens = case["text_tokens"]
    each = encode(clip, tokens.flatten(0, 1))[1].view(*tokens.shape[:2], -1)
    return averaged(each, unit_first=True)


def embedder_of(case: Case, making: Making) -> Embedder:
    model = model_of(case)
    index, pixels = pictures_of(case)
    row = {name: at for at, name in enumerate(case.about["text_names"])}

    def encoder_of(clip: Any) -> Any:
        known = texts_of(case, clip)
        return lambda names: known[[row[name] for name in names]]

    return Embedder(
        model.model,
        Tensors(len(index)),  # type: ignore[arg-type]
        encoder_of(model.retrieval_prompts.clip),
        encoder_of(model.prompts.clip),
        lambda numbers: index[numbers],
        lambda numbers: pixels[numbers],
        making,
    )


def making_of(case: Case, setting: str, **changes: Any) -> Making:
    text, context = SETTINGS[setting]
    at = {"k": case.about["k"], "contexts": tuple(case.about["contexts"])} | changes
    return Making(text_attention=text, context_elimination=context, **at)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))


@each_case
@torch.no_grad()
def test_retrieval(case: Case) -> None:
    model, tolerance = model_of(case), case.tolerance["default"]
    index, pixels = pictures_of(case)
    for name, ours in (("retrieval/index_images_first", index), ("archive/images_first", pixels)):
        if name in case.outputs:
            close(ours[: len(case[name])], case[name], name, case.tolerance["images_first"]["atol"])
    embedder = embedder_of(case, making_of(case, "none"))
    texts = texts_of(case, model.retrieval_prompts.clip)
    close(embedder.index, case["retrieval/index_embeddings"], "index_embeddings", **tolerance)
    close(texts, case["retrieval/text_embeddings"], "text_embeddings", **tolerance)
    close(texts @ embedder.index.T, case["retrieval/similarity"], "similarity", **tolerance)
    k = case.about["k"]
    for name, similarity, ranked in zip(
        case.about["text_names"], case["retrieval/similarity"], case["retrieval/ranked"], strict=True
    ):
        numbers, last = embedder.retrieved(name)
        assert numbers == ranked[:k].tolist(), name
        assert last == pytest.approx(float(similarity[ranked[k - 1]]), abs=1e-5)
    close(texts_of(case, model.prompts.clip), case["text/dense_embeddings"], "text/dense_embeddings", **tolerance)


@each_case
@torch.no_grad()
def test_features(case: Case) -> None:
    model, tolerance = model_of(case).model, case.tolerance
    _, pixels = pictures_of(case)
    for where, given in (("archive", pixels), ("inference", case["images"])):
        close(model.features(given), case[f"{where}/features"], f"{where}/features", **tolerance["default"])
        name = f"{where}/dense_features"
        close(model.dense_features(given), case[name], name, **tolerance["dense_features"])


@torch.no_grad()
def found_in(case: Case, embedder: Embedder, name: str) -> Cosegmentation:
    """What co-segmentation finds of a name, with the references that the embedder has made before."""
    making = embedder.making
    embedder([name])
    contexts = list(making.contexts) if making.context_elimination else []
    before = contexts[: contexts.index(name)] if name in contexts else contexts
    numbers, _ = embedder.retrieved(name)
    features, dense = embedder.features(numbers)
    attention = None if dense is None else text_attention(dense, embedder.dense_texts([name]))[:, 0]
    vectors = torch.stack([embedder([other])[0] for other in before]) if before else features.new_zeros(0, 1)
    found = cosegment(features, attention, vectors, making.coseg_columns, making.own_image, making.ref_type)
    close(embedder([name])[0], found.reference, f"reference of {name}", 1e-6)
    return found


def check_coseg(case: Case, embedder: Embedder, prefix: str, names: Sequence[str]) -> None:
    """Every tensor that a case stores of these names below a prefix."""
    assert names, prefix
    for name in names:
        there = case.names(f"{prefix}/{name}/")
        if there == ["reference"]:  # it takes a context's vector
            close(embedder([name])[0], case[f"{prefix}/{name}/reference"], f"{name}", **case.tolerance["default"])
            continue
        found = found_in(case, embedder, name)
        for tensor in there:
            ours, official = getattr(found, tensor), case[f"{prefix}/{name}/{tensor}"]
            if tensor == "seeds":
                assert torch.equal(ours, official), f"{prefix}/{name}: seeds"
            else:
                close(ours, official, f"{prefix}/{name}/{tensor}", **case.tolerance["default"])


def below(case: Case, prefix: str) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in case.names(f"{prefix}/")))


@each_case
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_cosegmentation(case: Case, columns: Any, setting: str) -> None:
    embedder = embedder_of(case, making_of(case, setting, coseg_columns=columns))
    check_coseg(case, embedder, f"coseg/{columns}/{setting}", below(case, f"coseg/{columns}/{setting}"))


@each_case
def test_order_of_contexts_counts(case: Case) -> None:
    prefix = "coseg_swapped/image/text_context"
    if not below(case, prefix):
        pytest.skip("no such tensors")
    first, second, *others = case.about["contexts"]
    embedder = embedder_of(case, making_of(case, "text_context", contexts=(second, first, *others)))
    check_coseg(case, embedder, prefix, below(case, prefix))


@each_case
@pytest.mark.parametrize(
    ("prefix", "changes"),
    [
        ("ref_type/weighted", {"ref_type": "weighted"}),
        ("ref_type/winner", {"ref_type": "winner"}),
        ("variant/own_drop", {"own_image": "drop"}),
    ],
)
def test_variants(case: Case, prefix: str, changes: dict[str, Any]) -> None:
    """The class itself is made in another way, from contexts that are made as ever."""
    if not below(case, prefix):
        pytest.skip("no such tensors")
    contexts = embedder_of(case, making_of(case, "text_context"))
    contexts(case.about["contexts"])
    embedder = embedder_of(case, making_of(case, "text_context", **changes))
    embedder._made = dict(contexts._made)
    check_coseg(case, embedder, prefix, below(case, prefix))


def labels_agree(ours: Tensor, official: Tensor, gap: float, name: str) -> None:
    """Scores [I, C, H, W] give the official labels, but for pixels whose two best ones are nearly equal."""
    best = ours.topk(2, dim=1).values
    free = (best[:, 0] - best[:, 1]) < gap
    wrong = (ours.argmax(1) != official.long()) & ~free
    assert not wrong.any(), f"{name}: {int(wrong.sum())} pixels have another label"
    assert free.float().mean() < 0.01, name


@each_case
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("columns", COLUMNS)
@torch.no_grad()
def test_inference(case: Case, columns: Any, setting: str) -> None:
    embedder, model, tolerance = (
        embedder_of(case, making_of(case, setting, coseg_columns=columns)),
        model_of(case).model,
        case.tolerance,
    )
    names = case.about["classes"]
    references, texts = embedder(names), embedder.dense_texts(names)
    for kind in ("plain", "dense"):
        seen = model.encode_images(case["images"], uses_dense=kind == "dense")
        ours = scores(seen, references, texts)
        name = f"score/{columns}/{setting}/{kind}"
        if name in case.outputs:
            close(ours, case[name], name, **tolerance["score"])
        name = f"labels/{columns}/{setting}/{kind}"
        labels_agree(ours, case[name], tolerance["labels"]["free_below_gap"], name)
        if kind == "dense" and f"crf/{columns}/probability" in case.outputs and setting == "text_context":
            name = f"crf/{columns}/probability"
            close(ours[0].softmax(0), case[name], name, **tolerance["score"])


@each_case
@torch.no_grad()
def test_attention_to_texts_and_what_the_crf_gets(case: Case) -> None:
    model, tolerance = model_of(case), case.tolerance
    texts = texts_of(case, model.prompts.clip)
    rows = [case.about["text_names"].index(name) for name in case.about["classes"]]
    seen: EncodedImages = model.model.encode_images(case["images"], uses_dense=True)
    assert seen.dense is not None
    t = resized(text_attention(seen.dense, texts[rows]), seen.size)
    close(t, case["inference/text_attention"], "text_attention", **tolerance["default"])
    picture = picture_of(case["images"][0], model.mean, model.std)
    close(picture, case["crf/image"], "crf/image", tolerance["crf/image"]["atol"])
    said, ours = case.about["crf"], Kernels()
    assert said["gaussian"] == {"sxy": ours.near_sxy, "compat": ours.near_weight}
    assert said["bilateral"] == {"sxy": ours.alike_sxy, "srgb": ours.alike_srgb, "compat": ours.alike_weight}


@each_case
def test_names_go_both_ways(case: Case, tmp_path: Path) -> None:
    counters = {key for key in model_of(case).state_dict() if key.endswith("num_batches_tracked")}
    assert from_official(case.weights).keys() | counters == model_of(case).state_dict().keys()
    back = to_official({key: value for key, value in model_of(case).state_dict().items() if key not in counters})
    assert back.keys() == case.weights.keys()
    assert all(torch.equal(back[key], case.weights[key]) for key in back)
    save_file(case.weights, tmp_path / "all.safetensors")
    assert load_official(tmp_path / "all.safetensors").keys() == model_of(case).state_dict().keys()
