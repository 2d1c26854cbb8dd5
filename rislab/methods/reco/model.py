"""ReCo: Retrieve and Co-segment for Zero-shot Transfer. Shin, Xie, Albanie, NeurIPS 2022, arXiv 2206.07045.

Official code: github.com/NoelShin/reco. Parity: tests/parity, every case of `reco`. Tables it can run: ablations/reco.yaml.
No training. For every class name, k pictures are retrieved with CLIP, a patch that all of them have is found in each
(cosegment.py), and these patches are averaged to a reference in the space of a frozen encoder (references.py). A pixel's score
for a class is its closeness to the reference times its closeness to the name in dense CLIP.

The body of the paper could not be read, so we follow the released code; where we do not:
- co-segmentation reads the columns of one picture; the code cuts them too long (`coseg_columns`, a switch);
- towers compute in float32; the code runs CLIP in half precision on a GPU;
- `vegetation` is a class of its own without context elimination, where the code fails.
"DenseCLIP" in code and tables is MaskCLIP, its ResNet reading (`rislab.encoders.clip.dense`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.dense import DenseResNet, DenseViT
from rislab.encoders.deit.model import PatchEncoder

TEMPERATURE = 10.0
"""Of cosines with texts in dense CLIP. Cosines of encoder features have none."""


@dataclass(frozen=True)
class EncodedImages:
    """Pictures without their texts: all that scores of any class need of them.

    Attributes:
        features: Encoder features at unit length, [I, D, h, w].
        dense: Dense CLIP's at unit length, [I, D', h', w'], where they are used.
        size: Height and width of the pictures.
    """

    features: Tensor
    dense: Tensor | None
    size: tuple[int, int]

    def __getitem__(self, i: int) -> "EncodedImages":
        """The picture of number i alone."""
        dense = None if self.dense is None else self.dense[i : i + 1]
        return EncodedImages(self.features[i : i + 1], dense, self.size)


class ReCo(nn.Module):
    """The image sides of the frozen networks.

    Args:
        retrieval: CLIP's image tower that ranks the archive; it pools.
        encoder: In whose space references lie.
        dense: CLIP's image tower, read at every patch.
    """

    def __init__(self, retrieval: nn.Module, encoder: PatchEncoder, dense: DenseViT | DenseResNet) -> None:
        super().__init__()
        self.retrieval = retrieval
        self.encoder = encoder
        self.dense = dense

    def index(self, pixels: Tensor) -> Tensor:
        """Pictures with CLIP's mean and deviation [N, 3, S, S] -> unit embeddings [N, D]."""
        return F.normalize(self.retrieval(pixels).float(), dim=-1)

    def features(self, pixels: Tensor) -> Tensor:
        """Pictures with ImageNet's mean and deviation [I, 3, H, W] -> encoder features [I, D, h, w], not normalised."""
        return self.encoder(pixels).float()

    def dense_features(self, pixels: Tensor) -> Tensor:
        """The same pictures -> dense CLIP's features [I, D', h', w'], not normalised. The official code gives both one tensor."""
        return self.dense(pixels)[0].float()

    def encode_images(self, pixels: Tensor, uses_dense: bool) -> EncodedImages:
        """What scores need of pictures [I, 3, H, W]. uses_dense: whether dense CLIP is a part of them."""
        size = (pixels.shape[-2], pixels.shape[-1])
        units = F.normalize(self.features(pixels), dim=1)
        return EncodedImages(units, F.normalize(self.dense_features(pixels), dim=1) if uses_dense else None, size)


def cosines(units: Tensor, vectors: Tensor) -> Tensor:
    """Unit features [I, D, h, w], unit vectors [C, D] -> [I, C, h, w]."""
    return torch.einsum("idhw,cd->ichw", units, vectors)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [I, C, h, w] at another size, bilinear. They cover the whole picture, also where the encoder has cut its rest off."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def text_attention(dense: Tensor, texts: Tensor) -> Tensor:
    """t: closeness to names in dense CLIP, on its grid: unit [I, D', h', w'] and [C, D'] -> [I, C, h', w'] in (0, 1)."""
    return (TEMPERATURE * cosines(dense, texts)).sigmoid()


def scores(encoded: EncodedImages, references: Tensor, texts: Tensor) -> Tensor:
    """u t, or u where pictures were looked at without dense CLIP: [I, C, H, W] in (0, 1).

    Args:
        encoded: Pictures.
        references: Unit vectors [C, D] of C classes.
        texts: Their names in dense CLIP, unit vectors [C, D'].
    """
    u = resized(cosines(encoded.features, references).sigmoid(), encoded.size)
    return u if encoded.dense is None else u.mul_(resized(text_attention(encoded.dense, texts), encoded.size))
