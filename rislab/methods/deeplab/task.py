"""How DeepLabV2 is trained on label maps: switches, losses, optimiser groups (kazuto1011/deeplab-pytorch, as CLIMS has it)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rislab.data.batch import IGNORED, LabelMaps
from rislab.data.geometry import Stretch
from rislab.data.scale_set import ScaleSetCrop
from rislab.data.vocabularies import Vocabulary
from rislab.encoders.resnet import ResNetSpec, load
from rislab.errors import ConfigError
from rislab.losses.balanced import balanced_cross_entropy, mean_cross_entropy
from rislab.methods.base import IMAGENET_MEAN, IMAGENET_STD, TextSegmenter
from rislab.methods.deeplab.model import FORM, DeepLabV2
from rislab.methods.deeplab.official import begin
from rislab.paths import user_path

CAFFE = (tuple(mean / 255 for mean in (122.675, 116.669, 104.008)), (1 / 255, 1 / 255, 1 / 255))
"""The mean colour is taken away, and that is all."""


class DeepLabTask(TextSegmenter):
    """DeepLabV2 as a Lightning module. Defaults are the recipe of CLIMS for ImageNet weights.

    Args:
        trunk: a ResNet under torchvision's names.
        pretrained: a file under deeplab-pytorch's names instead, with ASPP or without.
        classes: a file of rislab/data/names, or the names themselves; no others are answered.
        background: whether label 0 is background.
        rates: dilations of ASPP.
        scales: of the smaller pictures that are looked at as well (MSC).
        balanced: background and classes weigh the same in the loss; off: every pixel does (the recipe for COCO weights).
        batch_norm: `frozen` statistics, factors and shifts, or those of the batch.
        form: whose the trunk's weights are: `caffe`: BGR from 0 to 255 without the mean colour, a block's stride on its first
            convolution; `torchvision`: RGB in ImageNet's units, the stride on the 3x3.
        image_size, augment, augment_scales: of training: scaled, mirrored, cut out.
        base_lr, weight_decay, momentum: SGD's.
        head_lr_multi: rate of ASPP's weights as a multiple of the trunk's; its biases have twice that, and no decay. The official
            10 is for a pretrained trunk: beside one that begins at random, features are large and the head overshoots.
        power, lr_every: the rate falls as (1 - step / steps) ^ power, anew every so many steps.
    """

    trains_on: ClassVar[type[LabelMaps]] = LabelMaps
    any_size: ClassVar[bool] = True
    absent_means: ClassVar[dict[str, Any]] = {"head_lr_multi": 10.0}

    def __init__(
        self,
        trunk: ResNetSpec,
        pretrained: str | None = None,
        classes: str | tuple[str, ...] = "voc",
        background: bool = True,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        scales: tuple[float, ...] = (0.5, 0.75),
        balanced: bool = True,
        batch_norm: Literal["frozen", "batch"] = "frozen",
        form: Literal["caffe", "torchvision"] = "caffe",
        image_size: int = 321,
        augment: Literal["none", "official"] = "official",
        augment_scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
        base_lr: float = 2.5e-4,
        weight_decay: float = 5e-4,
        momentum: float = 0.9,
        power: float = 0.9,
        lr_every: int = 10,
        head_lr_multi: float = 10.0,
    ) -> None:
        super().__init__(*(CAFFE if form == "caffe" else (IMAGENET_MEAN, IMAGENET_STD)))
        for name, value in (("rates", rates), ("augment_scales", augment_scales)):
            if not value or min(value) <= 0:
                raise ConfigError(f"model.{name} {list(value)}: expected one or more, each above 0")
        if form == "caffe" and trunk.pretrained == "imagenet":
            raise ConfigError(
                "model.form is caffe, and trunk.pretrained `imagenet` is torchvision's: set form to torchvision"
            )
        if not head_lr_multi > 0:
            raise ConfigError(f"model.head_lr_multi is {head_lr_multi}, expected a number above 0")
        if lr_every < 1:
            raise ConfigError(f"model.lr_every is {lr_every}, expected 1 or more")
        self.words = Vocabulary(classes)
        self.vocabulary = self.words.known
        count = len(self.words.names) + background
        self.is_caffe = form == "caffe"
        network = DeepLabV2(load(trunk, **FORM, stride_first=self.is_caffe), count, rates, scales)
        if pretrained is not None:
            begin(network, user_path(pretrained))
        self.model = network.to(memory_format=torch.channels_last)
        self.background, self.balanced = background, balanced
        self.freezes_norms = batch_norm == "frozen"
        if self.freezes_norms:
            for module in self._norms():
                module.requires_grad_(False)
        self.geometry = Stretch(image_size)
        self.augment, self.augment_scales = augment, augment_scales
        self.base_lr, self.head_lr_multi = base_lr, head_lr_multi
        self.weight_decay, self.momentum = weight_decay, momentum
        self.power, self.lr_every = power, lr_every
        self.train()  # a Trainer keeps the modes that it finds

    def _norms(self) -> list[_BatchNorm]:
        return [module for module in self.model.modules() if isinstance(module, _BatchNorm)]

    def train(self, mode: bool = True) -> "DeepLabTask":
        """Norms that are frozen keep their running statistics."""
        super().train(mode)
        for module in self._norms() if self.freezes_norms else []:
            module.eval()
        return self

    def train_transform(self) -> ScaleSetCrop | None:
        if self.augment == "none":
            return None
        red, green, blue = (round(255 * mean) for mean in self.mean.flatten().tolist())
        return ScaleSetCrop(self.geometry.size, self.augment_scales, (red, green, blue))

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = self.normalise(images)
        return (pixels.flip(1) if self.is_caffe else pixels).contiguous(memory_format=torch.channels_last)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Log-odds of a class against the background, or against all others. Raises ConfigError for a text that is no class."""
        columns = torch.tensor(self.words.columns(texts), device=images.device)
        return self._odds(images)[image_index, columns]

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """The same [I, C, h, w] of C names: the largest is that of the logits, and 0 is the background's."""
        return self._odds(images)[:, self.words.columns(names)]

    def _odds(self, images: Tensor) -> Tensor:
        logits = self.model(self._pixels(images)).float()
        if self.background:
            return logits[:, 1:] - logits[:, :1]
        return torch.logit(logits.softmax(1), eps=1e-6)

    def losses(self, batch: LabelMaps) -> dict[str, Tensor]:
        """`cross_entropy_100`; with smaller scales `cross_entropy_50` and so on, and `cross_entropy_max`."""
        labels = self._own_labels(batch)
        scales = (1.0, *self.model.scales)
        names = [f"cross_entropy_{round(100 * scale)}" for scale in scales] + ["cross_entropy_max"] * (len(scales) > 1)
        loss = balanced_cross_entropy if self.balanced and self.background else mean_cross_entropy
        terms = {}
        for name, logits in zip(names, self.model.pyramid(self._pixels(batch.images)), strict=True):
            size = logits.shape[-2:]
            small = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].long()
            terms[name] = loss(logits, small, IGNORED)
        return terms

    def _own_labels(self, batch: LabelMaps) -> Tensor:
        """Labels of the batch's names as those of this method, int64 [I, H, W]."""
        if batch.has_background != self.background:
            given = "has" if batch.has_background else "has no"
            raise ConfigError(f"model.background is {str(self.background).lower()}, and the data {given} background")
        table = torch.full((256,), IGNORED)
        own = torch.tensor(self.words.columns(batch.names)) + self.background
        table[: self.background] = 0
        table[int(self.background) : int(self.background) + len(own)] = own
        return table.to(batch.labels.device)[batch.labels.long()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trunk = [p for p in self.model.trunk.parameters() if p.requires_grad]
        weights = [conv.weight for conv in self.model.aspp.convs]
        biases = [conv.bias for conv in self.model.aspp.convs]
        groups: list[dict[str, Any]] = [
            {"params": trunk, "lr": self.base_lr},
            {"params": weights, "lr": self.head_lr_multi * self.base_lr},
            {"params": biases, "lr": 2 * self.head_lr_multi * self.base_lr, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.SGD(groups, lr=self.base_lr, momentum=self.momentum, weight_decay=self.weight_decay)
        steps = self.training_steps

        def factor(step: int) -> float:
            return float(max(0.0, 1 - step // self.lr_every * self.lr_every / steps) ** self.power)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
