"""What every method shares: one way to train a step, one way to answer with masks."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import UnionType
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.batch import Images, LabelledPictures
from rislab.data.geometry import Geometry
from rislab.data.stage_outputs import Outputs
from rislab.data.transforms import Transform
from rislab.encoders.clip.weights import fingerprint
from rislab.errors import ConfigError, DivergedError
from rislab.evaluation.base import Evaluation
from rislab.nn.matrix_products import fast_products
from rislab.nn.multi_scale import multi_scale_labels
from rislab.nn.sliding import NO_MARGINS, Margins, cut, label_map

TRUNK = "rislab_trunk"
"""Key of a checkpoint under which the sha256 of the frozen weights stands."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextSegmenter(L.LightningModule):
    """Masks from images and sentences.

    A subclass sets `geometry` and `mask_threshold`, and says `losses` and `segment`.

    Attributes:
        geometry: how an image gets into the network; the data layer asks for it.
        frozen: prefixes of state keys that are never trained and come with the trunk. Checkpoints leave them out and hold their
            sha256 instead; loading one takes the same trunk.
        frozen_options: options that name what `frozen` holds; loading a checkpoint fetches their weights, and no others'.
        unused: prefixes of state keys that official weights hold and nothing reads. They are loaded and exported again, and kept
            out of the optimiser and of DDP: the constructor takes their gradient away.
        vocabulary: the only class names that a method can answer, for one without a text encoder: its own ones first, then other
            spellings; None for all others. Of a class or, where options say it, of an instance.
        any_size: pictures of any height and width are taken as they are, not only those of the geometry's frame.
        multi_scale: whether the scores of scales may be added; False for a method that puts windows together in its own way.
        splits_batches: stages in which a batch may be computed in parts; see `rislab.ablation.signature.Signature`.
        trains_on: the batches that `losses` takes, a member of the family in `rislab.data.batch`, or several (`LabelMaps |
            Episodes`), the usual one first; None for a method without training.
        mask_threshold: a pixel is foreground when its probability is strictly greater; used for masks that people look at. Scores
            follow the benchmark's convention instead.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    frozen_options: ClassVar[tuple[str, ...]] = ("clip",)
    unused: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = False
    multi_scale: ClassVar[bool] = True
    vocabulary: tuple[str, ...] | None = None
    trains_on: ClassVar[type[Images] | UnionType | None] = None
    splits_batches: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    geometry: Geometry
    mask_threshold: float = 0.5
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def is_trained(self) -> bool:
        """Whether there is anything to train; a method without is scored as it is."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def training_steps(self) -> int:
        """Optimiser steps of the whole run, for schedules; 1 outside a Trainer."""
        return max(1, int(self.trainer.estimated_stepping_batches)) if self._trainer is not None else 1

    def is_frozen(self, key: str) -> bool:
        """Whether a state key belongs to the frozen trunk."""
        return key.startswith(self.frozen) if self.frozen else False

    @cached_property
    def trunk(self) -> str:
        """sha256 of the frozen weights."""
        return fingerprint({key: value for key, value in self.state_dict().items() if self.is_frozen(key)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {key: value for key, value in state.items() if not self.is_frozen(key)}
            checkpoint[TRUNK] = self.trunk

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the own trunk where the checkpoint left it out. Raises ConfigError when it is not the one trained with."""
        if TRUNK in checkpoint:
            if checkpoint[TRUNK] != self.trunk:
                raise ConfigError(
                    f"the checkpoint was trained on a trunk with sha256 {checkpoint[TRUNK][:12]}, this one has "
                    f"{self.trunk[:12]}: give the same clip.name and clip.pretrained"
                )
            own = {key: value for key, value in self.state_dict().items() if self.is_frozen(key)}
            checkpoint["state_dict"] = {**own, **checkpoint["state_dict"]}

    def start_from(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of an earlier stage: all that it trained. What is new here keeps its start.

        Raises:
            ConfigError: When the stage has something that this method has not, or has with another shape.
        """
        self.on_load_checkpoint(checkpoint)
        own, given = self.state_dict(), checkpoint["state_dict"]
        for key, value in given.items():
            if key not in own or own[key].shape != value.shape:
                here = f"shape {tuple(own[key].shape)}" if key in own else "nothing"
                raise ConfigError(
                    f"the earlier stage has {key} of shape {tuple(value.shape)}, this one has {here} there"
                )
        self.load_state_dict(given, strict=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [I, 3, H, W] -> float32 [I, 3, H, W]."""
        return (images.float() / 255.0 - self.mean) / self.std

    def train_transform(self) -> Transform | None:
        """What training does with a sample, run in loader processes; None: the evaluation's geometry and nothing else."""
        return None

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalar terms by name, already weighted, of a batch of `trains_on`. One that is off is absent and not computed."""

    @abstractmethod
    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Mask logits [N, h, w], at the network's own stride.

        Args:
            images: uint8 [I, 3, H, W].
            texts: N sentences.
            image_index: int64 [N].
        """

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Mask logits [I, C, h, w] of C class names: each as a sentence about each of the I images."""
        rows = images.shape[0]
        index = torch.arange(rows, device=images.device).repeat_interleave(len(names))
        logits = self.segment(images, list(names) * rows, index)
        return logits.view(rows, len(names), *logits.shape[1:])

    def window_scores(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Margins]:
        """`segment_vocabulary` at the network's own stride, and what it covers around the images.

        For a network that pads: cutting its margins off needs full size, which is not to be had for all classes at once.
        """
        return self.segment_vocabulary(images, names), NO_MARGINS

    def with_background(self, scores: Tensor) -> Tensor:
        """Scores of names [I, C, h, w] -> [I, 1 + C, h, w] with the background's first: here, where no mask would be drawn."""
        level = math.log(self.mask_threshold / (1 - self.mask_threshold))
        return torch.cat([torch.full_like(scores[:, :1], level), scores], dim=1)

    def label(self, batch: LabelledPictures) -> list[Tensor]:
        """The class of each pixel, int64 [h, w] at the original size, of each picture: the benchmark's windows and names."""

        def score_window(window: Tensor) -> tuple[Tensor, Margins]:
            if not self.any_size:
                frame = F.interpolate(window.float(), self.geometry.size, mode="bilinear", antialias=True)
                window = frame.round().clamp(0, 255).to(torch.uint8)
            scores, margins = self.window_scores(window, batch.names)
            return self.with_background(scores) if batch.has_background else scores, margins

        viewing = batch.viewing
        if viewing.multi_scale is not None:
            scales = viewing.multi_scale
            return [
                multi_scale_labels(
                    lambda window: self._unpadded(score_window, window), image, (label.shape[0], label.shape[1]), scales
                )
                for image, label in zip(batch.images, batch.labels, strict=True)
            ]
        return [
            label_map(score_window, image, (label.shape[0], label.shape[1]), viewing.window, viewing.stride)
            for image, label in zip(batch.images, batch.labels, strict=True)
        ]

    @staticmethod
    def _unpadded(score_window: Callable[[Tensor], tuple[Tensor, Margins]], window: Tensor) -> Tensor:
        """Scores of a window alone, at full size where the network covers more than the window."""
        scores, margins = score_window(window)
        if margins == NO_MARGINS:
            return scores
        above, below, left, right = margins
        height, width = window.shape[-2] + above + below, window.shape[-1] + left + right
        return cut(F.interpolate(scores, (height, width), mode="bilinear", align_corners=False), margins)

    def take_tokens(self, tokenizer: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        """Token ids that lie ready, by sentence, made by a tokenizer of this kind; a method that has such a one may take them."""

    def training_step(self, batch: Images, batch_idx: int) -> Tensor:
        with fast_products(self):
            terms = self.losses(batch)
        # One look at the device a step, for the sum; the terms are named only when something is wrong.
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            bad = [name for name, value in terms.items() if not torch.isfinite(value)]
            raise DivergedError(f"loss term {', '.join(bad) or 'sum'} is not finite at step {self.global_step}")
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        if len(terms) > 1:
            logged["train/loss"] = total.detach()
        self.log_dict(logged, batch_size=len(batch))
        return total

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        # In the evaluation's precision whatever training used: autocast moves pixels that lie near the threshold.
        evaluation = self.evaluation
        is_bfloat16 = evaluation.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16), fast_products(self):
            return evaluation.predict(self, batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        return self.validation_step(batch, batch_idx, dataloader_idx)

    @property
    def evaluation(self) -> Evaluation:
        """That of the data which the Trainer has."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer, unknown to its annotations
        found = data.evaluated.evaluation
        assert isinstance(found, Evaluation), "data modules own an evaluation"
        return found


class TrainingFree(TextSegmenter):
    """A method without training: it is scored as it is."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Raises ConfigError."""
        raise ConfigError(f"{type(self).__name__} has nothing to train; `rislab test` scores it")

    def configure_optimizers(self) -> None:
        return None


class FileMaker(TrainingFree):
    """A stage that makes files for a later one instead of training.

    It goes over what `predict_dataloader` of its data gives, batch by batch, on any number of processes. A file that an earlier
    start has made is not made again.

    Attributes:
        scored: whether the files are scored by the evaluation of their data; a table may then show metrics of the stage.
    """

    scored: ClassVar[bool] = False

    outputs: Outputs | None = None
    """Where the files go; set for the run that makes them."""

    @abstractmethod
    def produce(self, batch: Any) -> Mapping[str, Callable[[], bytes]]:
        """The files of a batch: names, each with a function that computes the content, called where the file is missing."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Write the files of a batch; outside of such a run, predict as any method does."""
        if self.outputs is None:
            return super().predict_step(batch, batch_idx, dataloader_idx)
        with fast_products(self):
            for name, content in self.produce(batch).items():
                if not self.outputs.has(name):
                    self.outputs.write(name, content())
        return {}


SHARPNESS = 12.0
"""Of `contrast_stretched`: the highest and the lowest point of a map get probabilities near 1 and 0."""


def contrast_stretched(maps: Tensor, threshold: float) -> Tensor:
    """Similarity maps [N, h, w] as mask logits: 0 where a map is `threshold` of the way from its minimum to its maximum.

    Raw cosines of CLIP lie in a narrow band far from any fixed threshold, so each map is compared with itself.
    """
    low, high = maps.flatten(1).amin(1)[:, None, None], maps.flatten(1).amax(1)[:, None, None]
    return SHARPNESS * ((maps - low) / (high - low).clamp_min(1e-12) - threshold)
