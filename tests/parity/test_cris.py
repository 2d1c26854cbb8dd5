"""CRIS against the official code: every case found, every tensor stored in it, within the case's own tolerances."""

import functools

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from rislab.data.geometry import Letterbox
from rislab.encoders.clip.text import CLIPTextEncoder
from rislab.encoders.clip.trunk import ResNetPyramid, build
from rislab.losses.text_to_pixel import text_to_pixel
from rislab.methods.cris.model import CRIS
from rislab.methods.cris.official import PREFIX, from_official, to_official
from rislab.metrics.predictions import enlarged, predictions
from rislab.metrics.protocols import PRECISIONS, Protocol
from rislab.metrics.referring import COLUMNS, averages, iou_per_expression, pixel_counts
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("cris")
CONVENTION = Protocol.cris.convention
pytestmark = pytest.mark.skipif(not CASES, reason=f"no parity cases under {ROOT / 'cris'} (set RISLAB_PARITY)")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)


def model_of(case: Case) -> CRIS:
    """A CRIS of the case's sizes, holding its weights."""
    sizes = case.about["model"]
    vision = {
        "image_size": sizes["image_resolution"],
        "layers": sizes["vision_layers"],
        "width": sizes["vision_width"],
        "head_width": sizes["vision_width"] * 32 // sizes["attnpool_heads"],
        "patch_size": None,
    }
    text = {
        "context_length": sizes["context_length"],
        "vocab_size": sizes["vocab_size"],
        "width": sizes["transformer_width"],
        "heads": sizes["text_heads"],
        "layers": sizes["transformer_layers"],
    }
    towers = build(vision, text, sizes["embed_dim"])
    model = CRIS(
        ResNetPyramid(towers.visual, sizes["embed_dim"]),
        CLIPTextEncoder(towers),
        tuple(sizes["fpn_out"]),
        text_to_pixel=True,
        decoder_layers=sizes["num_layers"],
        num_head=sizes["num_head"],
        dim_ffn=sizes["dim_ffn"],
        dropout=sizes["dropout"],
        kernel_size=sizes["projector_kernel"],
    )
    state = {key.removeprefix(PREFIX): value for key, value in from_official(case.weights).items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


@functools.cache
def evaluated(case: Case) -> dict[str, Tensor]:
    """Every named intermediate of one forward pass in evaluation mode."""
    model = model_of(case)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        # ReLUs work in place: what is not copied now will have changed by the end.
        return lambda _module, _inputs, output: found.__setitem__(name, output.clone())

    model.neck.register_forward_hook(keep("neck_fq"))
    if model.decoder is not None:
        model.decoder.layers[0].register_forward_hook(keep("decoder_layer0"))
        model.decoder.register_forward_hook(keep("decoder_out"))
    model.projector.out.register_forward_hook(keep("projector_visual"))
    model.trunk.register_forward_hook(
        lambda _m, _i, levels: found.update(zip(("c3", "c4", "c5"), (x.clone() for x in levels), strict=True))
    )
    model.text.register_forward_hook(lambda _m, _i, out: found.update(words=out[0].clone(), state=out[1].clone()))
    image, word = case["image"], case["word"]
    with torch.no_grad():
        found["logits"] = model(image, word, torch.arange(len(word)))
    height, width = found["neck_fq"].shape[-2:]
    layer0 = found["decoder_layer0"]
    found["decoder_layer0"] = layer0.transpose(1, 2).reshape(len(word), -1, height, width)
    found["logits"] = found["logits"][:, None]
    return found


@each_case
def test_intermediates_and_logits(case: Case) -> None:
    ours = evaluated(case)
    tolerance = case.tolerance
    for name in case.names("eval/"):
        if name != "probability_input_size":
            close(ours[name], case[f"eval/{name}"], name, tolerance["atol"], tolerance["rtol"])


@each_case
def test_pipeline(case: Case) -> None:
    frame = Letterbox(tuple(case["image"].shape[-2:]))
    for i in range(len(case["image"])):
        raw, mask = case[f"raw_image_{i}"].numpy(), case[f"raw_mask_{i}"].numpy()
        placement = frame.place(*raw.shape[:2])
        close(placement.matrix, case[f"pipeline/matrix_{i}"], "matrix", 1e-6)
        close(placement.inverse, case[f"pipeline/matrix_inverse_{i}"], "matrix_inverse", 1e-6)
        close(frame.image(raw, placement), case[f"pipeline/warped_image_{i}"], "warped_image", 2)
        close(frame.mask((mask > 0).astype(np.uint8), placement), case["mask"][i, 0], "mask", 2 / 255)


@each_case
def test_probabilities_and_scores(case: Case) -> None:
    tolerance = case.tolerance
    logits = evaluated(case)["logits"][:, 0]
    size = tuple(case["image"].shape[-2:])
    probabilities = enlarged(logits, size, CONVENTION)
    close(probabilities, case["eval/probability_input_size"], "probability", tolerance["atol"], tolerance["rtol"])
    rows = []
    for i, probability in enumerate(probabilities.numpy()):
        truth = case[f"raw_mask_{i}"].numpy() > 0
        placement = Letterbox(size).place(*truth.shape)
        official = case[f"pipeline/probability_original_{i}"]
        close(placement.undo(probability), official, "probability_original", 1e-3, tolerance["rtol"])
        found = predictions(logits[i : i + 1], [placement], CONVENTION, 0.5)[0]
        rows.append((i, i, i, *pixel_counts(found, truth), 0))
    table = dict(zip(COLUMNS, np.array(rows).T, strict=True))
    iou = iou_per_expression(table, CONVENTION)
    close(iou, case["metric/iou"], "iou", tolerance["metric/iou"]["atol"])
    close(iou.mean(keepdims=True), case["metric/mean_iou"], "mean iou", tolerance["metric/iou"]["atol"])
    ours = averages(table, CONVENTION)
    shares = np.array([ours[name] / 100 for name in PRECISIONS])
    close(shares, case["metric/pr50_60_70_80_90"], "pr@X", 1e-6)


@each_case
@pytest.mark.parametrize("mode", ["eval_norm", "train"])
def test_loss_gradients_and_running_statistics(case: Case, mode: str) -> None:
    model = model_of(case).train(mode == "train")
    logits = model(case["image"], case["word"], torch.arange(len(case["word"])))
    loss = text_to_pixel(logits, case["mask"][:, 0])
    tolerance = case.tolerance | case.tolerance.get(mode, {})
    if f"{mode}/logits" in case.outputs:
        close(logits[:, None], case[f"{mode}/logits"], "logits", **tolerance["logits"])
    close(loss.view(1), case[f"{mode}/loss"], "loss", **tolerance["loss"])
    loss.backward()
    ours = {PREFIX + name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    gradients = to_official(ours)
    allowed = case.tolerance["gradients"][mode]["atol_relative_to_max"]
    for name in case.names(f"{mode}/grad/"):
        official = case[f"{mode}/grad/{name}"]
        close(gradients[name], official, f"gradient of {name}", allowed * float(official.abs().max()))
    buffers = to_official({PREFIX + name: value for name, value in model.named_buffers() if "attn_mask" not in name})
    for statistic in ("running_mean", "running_var"):
        for name in case.names(f"{mode}/{statistic}_after/"):
            bounds = tolerance["running_statistics"]
            close(
                buffers[f"{name}.{statistic}"],
                case[f"{mode}/{statistic}_after/{name}"],
                f"{statistic} of {name}",
                **bounds,
            )


@each_case
def test_round_trip_is_strict(case: Case) -> None:
    ours = from_official({f"module.{key}": value for key, value in case.weights.items()})
    back = to_official(ours)
    assert back.keys() == case.weights.keys()
    for key in back.keys() - {"backbone.logit_scale"}:
        assert torch.equal(back[key], case.weights[key]), key


@each_case
def test_tokenizer(case: Case) -> None:
    tokenizer = open_clip.get_tokenizer("RN50")
    for example in case.about.get("tokenizer_examples", []):
        ids = tokenizer([example["text"]], context_length=example["length"])[0]
        assert ids.tolist() == example["ids"], example["text"]
