"""CLIP weights under transformers' names: there and back, and the same features."""

from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from rislab.encoders.clip.transformers_names import from_transformers, to_transformers
from rislab.encoders.clip.trunk import CLIPSpec, build, load
from rislab.errors import DataError

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 99, "width": 32, "heads": 4, "layers": 3}


def clip() -> "open_clip.CLIP":
    torch.manual_seed(0)
    model = build(VISION, TEXT, embed_dim=24)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval()


def test_there_and_back() -> None:
    state = clip().state_dict()
    theirs = to_transformers(state)
    assert theirs["vision_model.encoder.layers.1.self_attn.k_proj.weight"].equal(
        state["visual.transformer.resblocks.1.attn.in_proj_weight"][64:128]
    )
    assert theirs["text_projection.weight"].shape == (24, 32)
    assert len(theirs) == len(state) + 2 * 2 * (2 + 3), "three matrices and biases for one, in each block"
    back = from_transformers(theirs | {"text_model.embeddings.position_ids": torch.arange(12)[None]})
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    del theirs["text_model.encoder.layers.0.self_attn.q_proj.bias"]
    with pytest.raises(DataError, match="needs queries, keys and values, the file has k, v of q, k, v"):
        from_transformers(theirs)


def test_a_file_with_their_names_gives_the_same_clip(tmp_path: Path) -> None:
    model = load(CLIPSpec("rislab-tiny-ViT"))
    path = tmp_path / "model.safetensors"
    save_file(to_transformers(model.state_dict()), path)
    again = load(CLIPSpec("rislab-tiny-ViT", str(path), quick_gelu=True))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    save_file({"vision_model.nonsense": torch.ones(1)}, path)
    with pytest.raises(
        DataError, match=r"model\.safetensors: 1 keys of the checkpoint have no place .*vision_model\.nonsense"
    ):
        load(CLIPSpec("rislab-tiny-ViT", str(path), quick_gelu=True))


def layer(state: dict[str, Tensor], prefix: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """A block as transformers computes it, from its three attention matrices."""

    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"])

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"])

    y = norm("layer_norm1", x)
    q, k, v = (linear(f"self_attn.{n}_proj", y).unflatten(-1, (heads, -1)).transpose(1, 2) for n in "qkv")
    logits = q @ k.transpose(-1, -2) * (x.shape[-1] // heads) ** -0.5
    weights = (logits if mask is None else logits + mask).softmax(-1)
    x = x + linear("self_attn.out_proj", (weights @ v).transpose(1, 2).flatten(2))
    hidden = linear("mlp.fc1", norm("layer_norm2", x))
    return x + linear("mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))


def test_the_names_mean_what_transformers_means() -> None:
    """Both towers written down anew, from transformers' names alone."""
    model = clip()
    state = to_transformers(model.state_dict())
    pixels, ids = torch.randn(2, 3, 32, 32), torch.tensor([[97, 5, 6, 98, 0, 0, 0, 0, 0, 0, 0, 0]])

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    patches = F.conv2d(pixels, state["vision_model.embeddings.patch_embedding.weight"], stride=8).flatten(2).mT
    x = torch.cat([state["vision_model.embeddings.class_embedding"].expand(2, 1, -1), patches], 1)
    x = norm("vision_model.pre_layrnorm", x + state["vision_model.embeddings.position_embedding.weight"])
    for number in range(2):
        x = layer(state, f"vision_model.encoder.layers.{number}", x, 4, None)
    image = norm("vision_model.post_layernorm", x[:, 0]) @ state["visual_projection.weight"].T
    x = state["text_model.embeddings.token_embedding.weight"][ids]
    x = x + state["text_model.embeddings.position_embedding.weight"]
    for number in range(3):
        causal = torch.full((12, 12), -torch.inf).triu(1)
        x = layer(state, f"text_model.encoder.layers.{number}", x, 4, causal)
    text = norm("text_model.final_layer_norm", x)[:, 3] @ state["text_projection.weight"].T
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_image(pixels), image, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode_text(ids), text, atol=1e-5, rtol=1e-5)


def test_transformers_computes_the_same() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    text = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    text |= {"max_position_embeddings": 12, "eos_token_id": 98, "bos_token_id": 97, "pad_token_id": 0}
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8}
    theirs = transformers.CLIPModel(transformers.CLIPConfig(text, vision, projection_dim=24)).eval()
    ours = clip()
    theirs.load_state_dict(to_transformers(ours.state_dict()), strict=False)
    ids = torch.tensor([[97, 5, 6, 98, 0, 0, 0, 0, 0, 0, 0, 0], [97, 8, 98, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        out = theirs(input_ids=ids, pixel_values=pixels)

    def unit(x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    with torch.inference_mode():
        torch.testing.assert_close(unit(ours.encode_image(pixels)), unit(out.image_embeds), atol=1e-5, rtol=0)
        torch.testing.assert_close(unit(ours.encode_text(ids)), unit(out.text_embeds), atol=1e-5, rtol=0)
