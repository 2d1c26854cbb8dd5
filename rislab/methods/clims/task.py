"""How CLIMS, and the baseline classifier before it, are trained: switches, losses, optimiser groups (official code)."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rislab.data.batch import ImageLabels
from rislab.data.geometry import Stretch
from rislab.data.transforms import LongSideScaleCrop
from rislab.data.vocabularies import Vocabulary
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.encoders.resnet import ResNetSpec, load
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.methods.clims.inference import ActivationMaps, activation_maps
from rislab.methods.clims.matching import Matching, matching_of
from rislab.methods.clims.model import FORMS, CAMNetwork, HeadName
from rislab.methods.clims.optimisation import configured
from rislab.methods.clims.variants import STATISTICS, VARIANTS, BackgroundMode, Normalisation, settings_of


class CLIMSTask(TextSegmenter):
    """CLIMS as a Lightning module, and the classifier whose weights it starts from. Options that are None are the variant's.

    Args:
        clip: the judge, a part of the loss alone: `classifier` does not load it, and no checkpoint holds it.
        trunk: of the activation network.
        stride: its total stride.
        classes: a file of rislab/data/names, or the names themselves.
        stage: `classifier` trains the baseline CAM by the multi-label soft margin; `clims` trains its maps by what CLIP says.
        variant: the authors' later code, or the paper's. See `rislab.methods.clims.variants.Variant` for what it sets.
        otm, btm, cbs, reg: the loss terms (ablation table).
        alpha, beta, gamma, delta: their weights; 0 is the same as off.
        background: whether all classes have the same background prompts in CBS, or each its own.
        background_prompts: their names; `CLASS: NAME` where each class has its own.
        prompt: of a class and of a background, `{}` for its name.
        renames: `CLASS: NAME`, what a prompt calls a class.
        class_weights: `CLASS: WEIGHT` in OTM and BTM; 1 for others.
        clamp: keep the cosines in OTM and BTM away from 0 and 1.
        head: a 1x1 convolution, or a bottleneck before it; see `rislab.methods.clims.model.Head`.
        normalisation: mean and standard deviation of the network's pictures.
        train_norms, train_stem: whether factors and shifts of batch norm, and the stem, are trained.
        cbs_threshold: cosine above which a shared background prompt is suppressed; 0.26 for VOC, 0.285 for COCO.
        judge_normalisation: what CLIP sees; None: what the network sees.
        batch_norm: `batch` statistics in training, or `frozen` ones; None: frozen in `classifier`, batch in `clims`.
        image_size, long_side, augment: of training: long side drawn between two bounds, mirrored, cut out of a canvas.
        head_lr_multi: rate of the head as a multiple of the trunk's.
        base_lr, weight_decay, momentum: SGD's. The official optimiser takes the weight decay for the momentum: in effect none.
        scales: of the inference of activation maps, each with its mirror image.
    """

    trains_on: ClassVar[type[ImageLabels]] = ImageLabels
    any_size: ClassVar[bool] = True
    stages: ClassVar[tuple[str, ...]] = ("classifier", "clims")
    unused_in: ClassVar[dict[str, tuple[str, ...]]] = {
        "classifier": (
            "clip", "otm", "btm", "cbs", "reg", "alpha", "beta", "gamma", "delta", "background", "background_prompts",
            "cbs_threshold", "class_weights", "prompt", "renames", "clamp", "head", "judge_normalisation",
        ),
    }  # fmt: skip
    hashed_with: ClassVar[dict[str, dict[str, object]]] = {"rislab.methods.clims.variants.VERSION": {}}
    matching: Matching | None

    def __init__(
        self,
        clip: CLIPSpec,
        trunk: ResNetSpec,
        classes: str | tuple[str, ...] = "voc",
        stage: Literal["classifier", "clims"] = "clims",
        variant: Literal["repo", "paper"] = "repo",
        otm: bool = True,
        btm: bool = True,
        cbs: bool = True,
        reg: bool = True,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        delta: float | None = None,
        background: BackgroundMode | None = None,
        background_prompts: tuple[str, ...] | None = None,
        cbs_threshold: float = 0.26,
        class_weights: tuple[str, ...] | None = None,
        prompt: str | None = None,
        renames: tuple[str, ...] | None = None,
        clamp: bool | None = None,
        head: HeadName | None = None,
        normalisation: Normalisation | None = None,
        judge_normalisation: Normalisation | None = None,
        stride: Literal[8, 16] = 16,
        batch_norm: Literal["batch", "frozen"] | None = None,
        train_norms: bool | None = None,
        train_stem: bool | None = None,
        image_size: int = 512,
        long_side: tuple[int, int] = (320, 640),
        augment: Literal["none", "official"] = "official",
        base_lr: float = 2.5e-4,
        head_lr_multi: float | None = None,
        weight_decay: float = 1e-4,
        momentum: float = 0.0,
        scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0),
    ) -> None:
        at = settings_of(
            variant, head=head, normalisation=normalisation, prompt=prompt, renames=renames, background=background,
            background_prompts=background_prompts, class_weights=class_weights, clamp=clamp,
            alpha=alpha if otm else 0.0, beta=beta if btm else 0.0, gamma=gamma if cbs else 0.0, delta=delta if reg else 0.0,
            head_lr_multi=head_lr_multi, train_norms=train_norms, train_stem=train_stem,
        )  # fmt: skip
        super().__init__(*STATISTICS[at.normalisation])
        if not scales or min(scales) <= 0:
            raise ConfigError(f"model.scales {list(scales)}: expected one or more, each above 0")
        if not 0 < long_side[0] <= long_side[1]:
            raise ConfigError(f"model.long_side {list(long_side)}: expected two lengths, the smaller one first")
        if stage == "clims" and not (at.alpha or at.beta or at.gamma or at.delta):
            raise ConfigError(
                "model.otm, btm, cbs and reg are all off, or have a weight of 0: nothing would be trained"
            )
        self.words = Vocabulary(classes)
        self.vocabulary = self.words.known
        self.model = CAMNetwork(
            load(trunk, **FORMS[stride]), len(self.words.names), at.head if stage == "clims" else "linear"
        ).to(memory_format=torch.channels_last)
        self.stage, self.scales = stage, scales
        self.freezes_norms = (batch_norm or {"classifier": "frozen", "clims": "batch"}[stage]) == "frozen"
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(at.train_norms)
        for module in () if at.train_stem else (self.model.trunk.conv1, self.model.trunk.bn1):
            module.requires_grad_(False)
        # No submodule: what only the loss reads is no part of the method's state, and inference needs no CLIP.
        self.__dict__["matching"] = None
        if stage == "clims":
            seen_with = STATISTICS[judge_normalisation or at.normalisation]
            self.__dict__["matching"] = matching_of(
                clip, at, VARIANTS[variant], self.words.names, cbs_threshold, STATISTICS[at.normalisation], seen_with
            )
        self.geometry = Stretch(image_size)
        self.long_side, self.augment = long_side, augment
        self.base_lr, self.head_lr_multi = base_lr, at.head_lr_multi
        self.weight_decay, self.momentum = weight_decay, momentum
        self.train()  # a Trainer keeps the modes that it finds

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "CLIMSTask":
        """To another device or type, with the judge."""
        if self.matching is not None:
            self.matching._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "CLIMSTask":
        """Norms that are frozen keep their running statistics."""
        super().train(mode)
        if self.freezes_norms:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def start_from(self, checkpoint: dict[str, Any]) -> None:
        """Take the classifier's weights. A head of another form begins anew, as in the paper's code."""
        if self.model.head.bottleneck is not None:
            state = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith("model.head.")}
            checkpoint = {**checkpoint, "state_dict": state}
        super().start_from(checkpoint)

    def train_transform(self) -> LongSideScaleCrop | None:
        if self.augment == "none":
            return None
        red, green, blue = (round(255 * mean) for mean in self.mean.flatten().tolist())
        size, fill = self.geometry.size, (red, green, blue)
        return LongSideScaleCrop(size, self.long_side, fill=fill, cubic=True, pad_at="random")

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Logits of P, at one scale. Raises ConfigError for a text that is no class."""
        columns = torch.tensor(self.words.columns(texts), device=images.device)
        return self.model(self._pixels(images))[image_index, columns]

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self.model(self._pixels(images), torch.tensor(self.words.columns(names), device=images.device))

    def activation_maps(self, image: Tensor, names: Sequence[str]) -> ActivationMaps:
        """Maps of the classes that a picture shows, uint8 [3, H, W], in the order of their names; all scales with mirrors."""
        columns = torch.tensor(self.words.columns(names), dtype=torch.int64, device=image.device)
        return activation_maps(self.model, lambda one: self._pixels(one[None])[0], image, columns, self.scales)

    def losses(self, batch: ImageLabels) -> dict[str, Tensor]:
        """`soft_margin` of the classifier; of CLIMS `otm`, `btm`, `cbs`, `reg`, those that are on."""
        pixels = self._pixels(batch.images)
        present = batch.present.new_zeros(len(pixels), len(self.words.names))
        present[:, self.words.columns(batch.names)] = batch.present
        if self.matching is None:
            return {"soft_margin": F.multilabel_soft_margin_loss(self.model.classify(pixels), present.float())}
        maps = self.model(pixels).sigmoid()
        terms, cosines = self.matching(pixels, maps, present)
        if self._trainer is not None and present.any():  # no losses: what tells a collapse, and what the judge says
            shown = {"area": maps[present]} | ({} if cosines is None else cosines.by_name())
            means = {f"train/{name}": value.detach().mean() for name, value in shown.items()}
            self.log_dict(means, batch_size=len(batch))
        return terms

    def _pixels(self, images: Tensor) -> Tensor:
        return self.normalise(images).contiguous(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        rates = self.base_lr, self.head_lr_multi * self.base_lr
        return configured(self.model, self.model.head, *rates, self.momentum, self.weight_decay, self.training_steps)
