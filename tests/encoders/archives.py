"""TorchScript archives as OpenAI has released them, made of any state dict."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rislab.encoders.clip.weights import OPENAI_EXTRAS


class Holder(nn.Module):
    """Parameters and modules by name; its forward pass is the identity."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def scripted(state: dict[str, Tensor], path: Path) -> None:
    """Save parameters, at their dotted names, by `torch.jit.save`."""
    root = Holder()
    for key, value in state.items():
        *inside, name = key.split(".")
        module: nn.Module = root
        for part in inside:
            if part not in module._modules:
                module.add_module(part, Holder())
            module = module._modules[part]  # type: ignore[assignment]
        if value.is_floating_point():
            module.register_parameter(name, nn.Parameter(value, False))
        else:
            module.register_buffer(name, value)
    torch.jit.save(torch.jit.script(root), str(path))


def openai_archive(state: dict[str, Tensor], path: Path, extras: bool = True) -> None:
    """Half precision, and the three numbers beside the weights."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    scripted(half | ({name: torch.tensor(224) for name in OPENAI_EXTRAS} if extras else {}), path)
