"""The stage after CLIMS: refined activation maps of the training pictures, as label maps for a segmentation network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from rislab.data.geometry import Stretch
from rislab.data.image_labels import WeakPictures
from rislab.data.vocabularies import Vocabulary
from rislab.encoders.resnet import ResNetSpec, load
from rislab.errors import ConfigError
from rislab.evaluation.activation_maps import in_vocabulary
from rislab.methods.base import FileMaker
from rislab.methods.clims.inference import activation_maps, labelled
from rislab.methods.clims.model import FORMS, CAMNetwork, HeadName
from rislab.methods.clims.random_walk import refined
from rislab.methods.clims.refinement import by_colour, colour_boundary
from rislab.methods.clims.variants import STATISTICS, Normalisation, settings_of
from rislab.nn.dense_crf import Kernels

CRF = "rislab.nn.dense_crf: mean field on the permutohedral lattice, 1"
"""Which CRF it is; a part of the identity where one is run."""


class PseudoMasks(FileMaker):
    """Pseudo masks from the weights of a classifier or of CLIMS: `N.png` of picture number N of the training split.

    Args:
        trunk: of the activation network, whose weights come from the stage before.
        stride: its total stride.
        classes: a file of rislab/data/names, or the names themselves.
        variant: the authors' later code, or the paper's: sets `head` and `normalisation`.
        scales: of the pictures, each with its mirror image.
        refine: `random_walk` lets the maps spread within edges of colour; `none` takes them as they are.
        threshold: value of the background, 0 to 1; official: 0.2 after a random walk (COCO 0.25).
        beta: power of the affinity.
        doublings: the walk has 2^doublings steps.
        boundary_srgb: difference of neighbouring colours, in grey levels, that is 0.39 of a boundary.
        crf: run a fully connected CRF on the label map, with IRN's settings.
        crf_iterations: mean-field updates.
        crf_srgb: standard deviation of its appearance kernel in grey levels.
        crf_sxy: the same in pixels.
    """

    scored: ClassVar[bool] = True
    any_size: ClassVar[bool] = True
    hashed_with: ClassVar[dict[str, dict[str, object]]] = {
        "rislab.methods.clims.variants.VERSION": {},
        "rislab.methods.clims.pseudo_masks.CRF": {"crf": True},
    }

    def __init__(
        self,
        trunk: ResNetSpec,
        stride: Literal[8, 16] = 16,
        classes: str | tuple[str, ...] = "voc",
        variant: Literal["repo", "paper"] = "repo",
        head: HeadName | None = None,
        normalisation: Normalisation | None = None,
        scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0),
        refine: Literal["none", "random_walk"] = "random_walk",
        threshold: float = 0.2,
        beta: float = 10.0,
        doublings: int = 8,
        boundary_srgb: float = 30.0,
        crf: bool = False,
        crf_iterations: int = 10,
        crf_srgb: float = 5.0,
        crf_sxy: float = 50.0,
    ) -> None:
        at = settings_of(variant, head=head, normalisation=normalisation)
        super().__init__(*STATISTICS[at.normalisation])
        if not scales or min(scales) <= 0:
            raise ConfigError(f"model.scales {list(scales)}: expected one or more, each above 0")
        if not 0 <= threshold < 1:
            raise ConfigError(f"model.threshold is {threshold}, expected a number from 0 to 1, 1 excluded")
        for name, value in (("boundary_srgb", boundary_srgb), ("crf_srgb", crf_srgb), ("crf_sxy", crf_sxy)):
            if not value > 0:
                raise ConfigError(f"model.{name} is {value}, expected a number above 0")
        if not 0 <= doublings <= 12 or crf_iterations < 1:
            raise ConfigError("model.doublings: expected 0 to 12; model.crf_iterations: expected 1 or more")
        self.words = Vocabulary(classes)
        self.vocabulary = self.words.known
        network = CAMNetwork(load(trunk, **FORMS[stride]), len(self.words.names), at.head)
        self.model = network.to(memory_format=torch.channels_last).requires_grad_(False)
        self.geometry = Stretch(512)
        self.scales, self.refine, self.threshold = scales, refine, threshold
        self.beta, self.doublings, self.boundary_srgb = beta, doublings, boundary_srgb
        self.crf_iterations = crf_iterations if crf else 0
        self.kernels = Kernels(
            near_sxy=3.0, near_weight=3.0, alike_sxy=crf_sxy, alike_srgb=crf_srgb, alike_weight=10.0
        )  # fmt: skip

    @property
    def crf_title(self) -> str:
        """What of a CRF is part of the masks, for result files."""
        return f"{self.crf_iterations} iterations" if self.crf_iterations else "none"

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Logits of the activation maps, at one scale. Raises ConfigError for a text that is no class."""
        columns = torch.tensor(self.words.columns(texts), device=images.device)
        return self.model(self._pixels(images))[image_index, columns]

    def mask(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """uint8 [H, W] of a picture uint8 [3, H, W]: 0 for the background, 1 + the position in `names` for a class."""
        height, width = image.shape[-2:]
        if not names:
            return torch.zeros(height, width, dtype=torch.uint8, device=image.device)
        columns = torch.tensor(self.words.columns(names), dtype=torch.int64, device=image.device)
        maps = activation_maps(self.model, lambda one: self._pixels(one[None])[0], image, columns, self.scales)
        full = maps.full
        if self.refine == "random_walk":
            small = (maps.small.shape[-2], maps.small.shape[-1])
            boundary = colour_boundary(image, small, self.boundary_srgb)
            full = refined(maps.small, boundary, (height, width), self.beta, self.doublings)
        mask = labelled(full, torch.arange(len(names), device=image.device), self.threshold).to(torch.uint8)
        if self.crf_iterations:
            mask = by_colour(mask, image, len(names) + 1, self.kernels, self.crf_iterations)
        return mask

    def produce(self, batch: WeakPictures) -> Mapping[str, Callable[[], bytes]]:
        return {
            f"{number}.png": partial(self._file, image, batch.names, present)
            for number, image, present in zip(batch.ids, batch.images, batch.present, strict=True)
        }

    @torch.inference_mode()
    def _file(self, image: Tensor, names: Sequence[str], present: Sequence[int]) -> bytes:
        with torch.autocast(image.device.type, enabled=False):  # as it is scored
            found = in_vocabulary(self.mask(image, [names[number] for number in present]), present)
        _, data = cv2.imencode(".png", found.cpu().numpy().astype(np.uint8))
        return bytes(data)

    def _pixels(self, images: Tensor) -> Tensor:
        return self.normalise(images).contiguous(memory_format=torch.channels_last)
