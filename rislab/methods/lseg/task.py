"""How LSeg is trained: switches, losses, optimiser groups (official train_lseg.py, train.sh, lsegmentation_module*.py)."""

from collections.abc import Sequence
from dataclasses import replace
from types import UnionType
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from rislab.data.batch import IGNORED, Episodes, Images, LabelledPictures, LabelMaps
from rislab.data.geometry import Stretch
from rislab.data.transforms import LongSideScaleCrop, Transform
from rislab.encoders import imagenet
from rislab.encoders.clip.dense import Prompts
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.encoders.imagenet import ImageNetSpec
from rislab.errors import ConfigError, nearest
from rislab.methods.base import IMAGENET_MEAN, IMAGENET_STD, TextSegmenter
from rislab.methods.lseg.model import Activation, Block, LSeg, Readout, Regulariser, ResNetTrunk, ViTTrunk
from rislab.nn.enlarging import enlarged_cross_entropy

HALF = (0.5, 0.5, 0.5)
LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "vit_large_patch16_384": ((5, 11, 17, 23), (256, 512, 1024, 1024)),
    "vit_base_patch32_384": ((2, 5, 8, 11), (96, 192, 384, 768)),
    "rislab-tiny-ViT16": ((0, 1, 2, 3), (32, 48, 64, 96)),
}
"""Of a vision transformer: the blocks that are read, and the channels of the maps that are made of them."""


class LSegTask(TextSegmenter):
    """LSeg as a Lightning module. Defaults are the official ADE20K recipe at one picture a device.

    Args:
        clip: Whose text tower is used, frozen (ablation table, text encoders).
        trunk: `vit_large_patch16_384`, `vit_base_patch32_384` or `resnet101`.
        image_size: Side of the network's frame, a multiple of 32.
        features: Width of the decoder.
        readout: What becomes of the class token; no effect with a ResNet.
        reg_block: Spatial regularisation (ablation table). The pair form, trained on episodes, has none.
        reg_depth: How often the block is applied, with the same weights; 0 with `none`.
        reg_activation: Between applications.
        background: Word for what no name of a benchmark with background is.
        others: Word beside the one class of an episode, and beside the sentence of `segment`.
        augment: `official`: flip, long side drawn from `long_side`, padding, crop; `none`: stretched to the frame.
        long_side: Bounds of the scaled picture's long side in pixels.
        flip: Probability of a mirrored picture.
        optimiser: `sgd` with momentum, or `adam` (official option `--midasproto`).
        base_lr: Of the trunk, reassembling included. The official rule is 0.004 / 16 times the pictures a device, whatever the
            number of devices and of accumulated batches.
        lr_multi: Factor of the rate for decoder, head and regularisation block.
        momentum: Of `sgd`.
        weight_decay: Of all.
        power: Rates are multiplied by (1 - epoch / max_epochs)^power, once an epoch.
    """

    unused: ClassVar[tuple[str, ...]] = (
        "prompts.clip.visual.",
        "prompts.clip.logit_scale",
        "model.decoder.fusion.3.of_level.",
        "model.trunk.vit.norm.",
        "model.trunk.vit.head.",
    )
    frozen: ClassVar[tuple[str, ...]] = ("prompts.",)
    trains_on: ClassVar[type[Images] | UnionType | None] = LabelMaps | Episodes

    def __init__(
        self,
        clip: CLIPSpec,
        trunk: ImageNetSpec,
        image_size: int = 480,
        features: int = 256,
        readout: Readout = "project",
        reg_block: Block = "none",
        reg_depth: Literal[0, 1, 2, 4] = 0,
        reg_activation: Activation = "lrelu",
        background: str = "other",
        others: str = "others",
        augment: Literal["none", "official"] = "official",
        long_side: tuple[int, int] = (260, 1040),
        flip: float = 0.5,
        optimiser: Literal["sgd", "adam"] = "sgd",
        base_lr: float = 2.5e-4,
        lr_multi: float = 10.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        power: float = 0.9,
    ) -> None:
        if image_size % 32:
            raise ConfigError(f"model.image_size {image_size} is no multiple of 32")
        if (reg_block == "none") != (reg_depth == 0):
            raise ConfigError(
                f"model.reg_depth {reg_depth} with reg_block {reg_block}: `none` has depth 0, a block 1 or more"
            )
        made = trunk_of(trunk, readout)
        super().__init__(*((IMAGENET_MEAN, IMAGENET_STD) if isinstance(made, ResNetTrunk) else (HALF, HALF)))
        towers = load(clip)
        embed_dim = int(towers.text_projection.shape[1])
        block = Regulariser(reg_block, reg_depth, reg_activation) if reg_depth else None
        self.model = LSeg(made, features, embed_dim, block).to(memory_format=torch.channels_last)
        self.prompts = Prompts(towers, Tokenizer(clip.name)).requires_grad_(False)
        for name, parameter in self.named_parameters():
            if name.startswith(self.unused):
                parameter.requires_grad_(False)
        self.geometry = Stretch(image_size)
        self.background, self.others = background, others
        self.augment, self.long_side, self.flip = augment, long_side, flip
        self.optimiser, self.base_lr, self.lr_multi = optimiser, base_lr, lr_multi
        self.momentum, self.weight_decay, self.power = momentum, weight_decay, power

    def train(self, mode: bool = True) -> "LSegTask":
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        self.prompts.eval()
        return self

    def train_transform(self) -> Transform | None:
        """Padding is black before normalisation, as in the official code, and its labels are ignored."""
        if self.augment == "none":
            return None
        return LongSideScaleCrop(self.geometry.size, self.long_side, flip=self.flip)

    def losses(self, batch: LabelMaps | Episodes) -> dict[str, Tensor]:
        """One term, `cross_entropy`, over the vocabulary of label maps or over (others, class) of each episode.

        Raises:
            ConfigError: Episodes with a regularisation block, which their form does not have.
        """
        pixels = self.normalise(batch.images)
        if isinstance(batch, Episodes):
            if self.model.regulariser is not None:
                raise ConfigError("episodes train the pair form, which has no regularisation block: reg_block none")
            names = [batch.names[number] for number in batch.class_index.tolist()]
            logits = self.model.logits(self.model.embed(pixels), self.pairs(names))
            # Ignored pixels are the rest here; they are taken out at scoring.
            return {"cross_entropy": enlarged_cross_entropy(logits, batch.masks == 1, None)}
        texts = self.prompts((self.background, *batch.names) if batch.has_background else batch.names)
        return {"cross_entropy": enlarged_cross_entropy(self.model(pixels, texts), batch.labels, IGNORED)}

    def pairs(self, names: Sequence[str]) -> Tensor:
        """Unit texts [N, 2, C]: the word for others, and each of N names."""
        return torch.stack([self.prompts([self.others] * len(names)), self.prompts(names)], dim=1)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Logit of each sentence against `others`, the zero-shot form; pixels are embedded once a picture."""
        vectors, embedded = self.model.embed(self.normalise(images)), self.prompts([self.others, *texts])
        height, width = vectors.shape[-2:]
        found = vectors.new_zeros(len(texts), 2 * height, 2 * width, dtype=torch.float32)
        for picture in image_index.unique().tolist():
            mine = image_index == picture
            both = torch.cat([embedded[:1], embedded[1:][mine]])
            logits = self.model.logits(vectors[picture : picture + 1], both)[0]
            found[mine] = logits[1:] - logits[:1]
        return found

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits [I, C, H/2, W/2] of C class names against each other."""
        return self.model(self.normalise(images), self.prompts(names))

    def label(self, batch: LabelledPictures) -> list[Tensor]:
        """As every method, with a word in the place of background: it competes as a name, and takes part in the block."""
        if batch.has_background:
            batch = replace(batch, names=(self.background, *batch.names), has_background=False)
        return super().label(batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in trained if name.startswith("trunk.")], "lr": self.base_lr},
            {"params": [p for name, p in trained if not name.startswith("trunk.")], "lr": self.lr_multi * self.base_lr},
        ]
        optimiser: torch.optim.Optimizer
        if self.optimiser == "adam":
            optimiser = torch.optim.Adam(groups, lr=self.base_lr, weight_decay=self.weight_decay, fused=True)
        else:
            optimiser = torch.optim.SGD(
                groups, lr=self.base_lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
            )
        epochs = max(1, self.trainer.max_epochs or 1) if self._trainer is not None else 1

        def factor(epoch: int) -> float:
            return float(max(0.0, 1 - epoch / epochs) ** self.power)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


def trunk_of(spec: ImageNetSpec, readout: Readout) -> ViTTrunk | ResNetTrunk:
    """The trunk of a spec. Raises ConfigError for a vision transformer without a layout; see `imagenet.load`."""
    if spec.name not in LAYOUTS and spec.name not in imagenet.RESNETS:
        known = [*LAYOUTS, *imagenet.RESNETS]
        raise ConfigError(f"model.trunk.name {spec.name!r} is none of {', '.join(known)}{nearest(spec.name, known)}")
    net = imagenet.load(spec)
    return ViTTrunk(net, *LAYOUTS[spec.name], readout) if isinstance(net, VisionTransformer) else ResNetTrunk(net)
