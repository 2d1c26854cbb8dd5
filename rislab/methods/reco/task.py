"""ReCo as a method: nothing is trained; how references are made and how they are used are switches."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rislab.data.archive import Archive, ArchiveSpec
from rislab.data.batch import LabelledPictures
from rislab.data.geometry import Stretch
from rislab.encoders.clip.dense import TEMPLATES, Prompts, TemplateName, dense
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.encoders.deit.load import DeiTSpec
from rislab.encoders.deit.load import load as load_encoder
from rislab.errors import ConfigError, brief, nearest
from rislab.methods.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, TrainingFree, contrast_stretched
from rislab.methods.reco.inference import SHARPNESS, label_map, picture_of
from rislab.methods.reco.model import EncodedImages, ReCo, scores
from rislab.methods.reco.references import Embedder, Making, References
from rislab.methods.reco.references import load as load_references
from rislab.nn.sliding import boxes
from rislab.paths import user_path


class ReCoTask(TrainingFree):
    """ReCo. Defaults are the official configuration, but for `coseg_columns`.

    Args:
        clip: dense CLIP; one of CLIP's ResNets in the paper.
        retrieval_clip: what ranks the archive.
        encoder: where references lie.
        archive: unlabelled pictures.
        references: a file of embeddings, ours or the official one, for the names that it has; the archive is not touched for
            them, and may be null.
        image_size: side of the square that pictures of referring data are stretched to.
        archive_size: that of archive pictures.
        k: pictures of a class.
        text_attention: language guidance of co-segmentation ("LGC" in the paper's table).
        context_elimination, contexts: what surrounds things is kept out of co-segmentation ("CE"); names of such contexts, which
            are made first, in their order.
        coseg_columns: where the best match in a picture is looked for: in that picture, or as the released code slices.
        own_image: whether a picture's match with itself counts ("ours").
        ref_type: how the pictures' patches become one vector.
        dense_clip_inference: whether scores are multiplied by closeness to the name in dense CLIP.
        crf: whether label maps go through a fully connected CRF, at the size at which the benchmark shows pictures.
        templates: prompts that a name, or a sentence, is put into, for both CLIPs.
        map_threshold: where between the lowest and the highest score of a sentence's map foreground begins.
        bg_thresh: softmax(100 score) below which a pixel is background, where a benchmark has one; the paper has no such rule.
    """

    frozen: ClassVar[tuple[str, ...]] = ("model.", "retrieval_prompts.", "prompts.")
    frozen_options: ClassVar[tuple[str, ...]] = ("clip", "retrieval_clip", "encoder")
    any_size: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = False
    untrained_when: ClassVar[tuple[dict[str, object], ...]] = ({},)
    clip_mean: Tensor
    clip_std: Tensor

    def __init__(
        self,
        clip: CLIPSpec,
        retrieval_clip: CLIPSpec,
        encoder: DeiTSpec,
        archive: ArchiveSpec | None = None,
        references: str | None = None,
        image_size: int = 320,
        archive_size: int = 224,
        k: int = 50,
        text_attention: bool = True,
        context_elimination: bool = True,
        contexts: tuple[str, ...] = ("tree", "sky", "building", "road", "person"),
        coseg_columns: Literal["image", "official_slice"] = "image",
        own_image: Literal["keep", "drop"] = "keep",
        ref_type: Literal["avg", "weighted", "winner"] = "avg",
        dense_clip_inference: bool = True,
        crf: bool = True,
        templates: TemplateName = "scene85",
        map_threshold: float = 0.5,
        bg_thresh: float = 0.5,
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("clip_mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("clip_std", torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)
        if len(set(contexts)) < len(contexts):
            raise ConfigError(f"model.contexts {', '.join(contexts)}: a name stands there twice")
        dense_towers, retrieval_towers = load(clip), load(retrieval_clip)
        side = retrieval_towers.visual.image_size
        self.model = ReCo(retrieval_towers.visual, load_encoder(encoder), dense(dense_towers.visual))
        del dense_towers.visual, retrieval_towers.visual  # they live in the model
        self.retrieval_prompts = Prompts(retrieval_towers, Tokenizer(retrieval_clip.name))
        self.prompts = Prompts(dense_towers, Tokenizer(clip.name))
        self.templates = TEMPLATES[templates]
        self.geometry = Stretch(image_size)
        self.making = Making(
            k=k,
            archive_size=archive_size,
            retrieval_size=side[0] if isinstance(side, tuple) else side,
            text_attention=text_attention,
            context_elimination=context_elimination,
            contexts=tuple(contexts),
            coseg_columns=coseg_columns,
            own_image=own_image,
            ref_type=ref_type,
        )
        self.archive = archive
        named = references not in (None, "None", "null")
        self.given = load_references(user_path(str(references)), self.model.encoder.width) if named else None
        self.dense_clip_inference, self.crf = dense_clip_inference, crf
        self.map_threshold, self.bg_thresh = map_threshold, bg_thresh
        self.freeze()

    @cached_property
    def embedder(self) -> Embedder:
        """Makes references from the archive. Raises ConfigError without one."""
        if self.archive is None:
            raise ConfigError(
                "model.archive is null: reference embeddings need an archive of pictures, or model.references"
            )
        return Embedder(
            self.model,
            Archive(self.archive),
            lambda names: self.retrieval_prompts(names, self.templates),
            lambda names: self.prompts(names, self.templates),
            lambda images: (images.to(self.device).float() / 255.0 - self.clip_mean) / self.clip_std,
            lambda images: self.normalise(images.to(self.device)),
            self.making,
        )

    def embed(self, names: Sequence[str]) -> References:
        """Archive and names -> reference embeddings, for a file: what a stage of its own does."""
        return self.embedder.references(names)

    def references(self, names: Sequence[str]) -> Tensor:
        """Unit vectors [C, D] of C names, each made once: those of the file, others from the archive."""
        if self.given is None:
            return self.embedder(names)
        row = {name: at for at, name in enumerate(self.given.names)}
        missing = [name for name in dict.fromkeys(names) if name not in row]
        if missing and self.archive is None:
            raise ConfigError(
                f"model.references has no {brief(missing[0])}{nearest(missing[0], row)}, and model.archive is null"
            )
        own = dict(zip(missing, self.embedder(missing), strict=True)) if missing else {}
        vectors = self.given.vectors.to(self.device)
        return torch.stack([own[name] if name in own else vectors[row[name]] for name in names])

    def texts(self, names: Sequence[str]) -> Tensor:
        """The names in dense CLIP, unit vectors [C, D']. A class that takes another's reference keeps its own name here."""
        return self.prompts(names, self.templates)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Score maps [N, H, W] of sentences, each taken as a class name, stretched between their own extremes."""
        references, names, encoded = self.references(texts), self.texts(texts), self.encode_images(images)
        order = torch.argsort(image_index, stable=True)
        found = []
        for i in range(len(images)):
            rows = order[image_index[order] == i]
            found.append(scores(encoded[i], references[rows], names[rows])[0])
        return contrast_stretched(torch.cat(found)[torch.argsort(order)], self.map_threshold)

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Scores [I, C, H, W] in (0, 1) at the size of the images; the class is the largest."""
        return self.scores(self.encode_images(images), names)

    def encode_images(self, images: Tensor) -> EncodedImages:
        """All that `scores` needs of the images; it does not depend on the names."""
        return self.model.encode_images(self.normalise(images), self.dense_clip_inference)

    def scores(self, encoded: EncodedImages, names: Sequence[str]) -> Tensor:
        """`segment_vocabulary` of encoded images."""
        return scores(encoded, self.references(names), self.texts(names))

    def with_background(self, scores: Tensor) -> Tensor:
        """Probabilities over the names, and the background's threshold before them."""
        found = (SHARPNESS * scores).softmax(1)
        return torch.cat([torch.full_like(found[:, :1], self.bg_thresh), found], dim=1)

    def label(self, batch: LabelledPictures) -> list[Tensor]:
        references, texts = self.references(batch.names), self.texts(batch.names)
        found = []
        for image, label in zip(batch.images, batch.labels, strict=True):
            pixels = self.normalise(image[None])
            height, width = pixels.shape[-2:]
            where = boxes(height, width, batch.viewing.window, batch.viewing.stride)
            windows = [
                self.model.encode_images(pixels[:, :, y1:y2, x1:x2], self.dense_clip_inference)
                for y1, y2, x1, x2 in where
            ]
            found.append(
                label_map(
                    windows,
                    where,
                    (height, width),
                    (label.shape[0], label.shape[1]),
                    references,
                    texts,
                    picture_of(pixels[0], self.mean, self.std) if self.crf else None,
                    self.bg_thresh if batch.has_background else None,
                )
            )
        return found
