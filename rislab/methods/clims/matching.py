"""CLIMS's four loss terms of a batch (section 3.3): what the judge says of each map, and the size of the maps."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rislab.encoders.clip.trunk import CLIPSpec
from rislab.losses.text_matching import matched, suppressed, suppressed_own, unmatched
from rislab.methods.clims.judge import Cosines, Judge, Statistics, judge_of, own_background
from rislab.methods.clims.variants import Variant, by_class, numbers
from rislab.ranks import world


class Matching(nn.Module):
    """The terms OTM, BTM, CBS and REG.

    Over several processes the terms are those of the whole batch, as on one process: a mean is over the instances of all, and
    the sum of CBS, whose weight is tuned for a batch of 16, is not divided by the number of processes.

    Args:
        judge: See there.
        settings: Weights and forms of the terms; a weight of 0 switches a term off.
        weights: Of each class in OTM and BTM, [K].
        own: Which background prompts belong to a class, bool [K, L]; None where all classes share them.
        threshold: Of a cosine in the shared CBS.
    """

    weights: Tensor
    own: Tensor | None

    def __init__(self, judge: Judge, settings: Variant, weights: Tensor, own: Tensor | None, threshold: float) -> None:
        super().__init__()
        self.judge, self.settings, self.threshold = judge, settings, threshold
        self.register_buffer("weights", weights)
        self.register_buffer("own", own)

    def forward(self, pixels: Tensor, maps: Tensor, present: Tensor) -> tuple[dict[str, Tensor], Cosines | None]:
        """The weighted terms by name, and the cosines that they are made of; None where no term needs CLIP.

        Args:
            pixels: [B, 3, H, W], normalised as the network's pictures are.
            maps: P, [B, K, h, w].
            present: bool [B, K].
        """
        at = self.settings
        terms: dict[str, Tensor] = {}
        cosines = None
        if at.alpha or at.beta or at.gamma:
            cosines = self.judge(pixels, maps, present, outside=bool(at.beta), background=bool(at.gamma))
            terms = self._of_cosines(cosines, maps)
        if at.delta:
            terms["reg"] = at.delta * maps.mean()
        return terms, cosines

    def _of_cosines(self, cosines: Cosines, maps: Tensor) -> dict[str, Tensor]:
        at, count, ranks = self.settings, len(cosines.classes), world()[1]
        total = torch.tensor(count, device=maps.device)
        if ranks > 1:
            dist.all_reduce(total)
        if not count:  # of this process: 0 with a gradient of 0, so that every process has one of every weight
            used = {"otm": at.alpha, "btm": at.beta, "cbs": at.gamma}
            return {name: 0.0 * maps.sum() for name, weight in used.items() if weight}
        share = count * ranks / total  # 1 on one process
        weights = self.weights[cosines.classes]
        terms = {}
        if at.alpha:
            terms["otm"] = at.alpha * share * matched(cosines.s_oo, weights, at.clamp)
        if cosines.s_bo is not None:
            terms["btm"] = at.beta * share * unmatched(cosines.s_bo, weights, at.clamp)
        if cosines.s_ob is not None:
            if self.own is None:
                found = suppressed(cosines.s_ob, self.threshold)
            else:
                found = suppressed_own(cosines.s_ob, self.own[cosines.classes])
            terms["cbs"] = at.gamma * ranks * found
        return terms


def matching_of(
    clip: CLIPSpec,
    settings: Variant,
    variant: Variant,
    names: Sequence[str],
    threshold: float,
    given: Statistics,
    seen: Statistics,
) -> Matching:
    """The terms of a task.

    Args:
        clip: The judge.
        settings: Of the task.
        variant: The version, whose settings may speak of classes that are not there.
        names: Of the classes.
        threshold: See `Matching`.
        given: How the network's pictures are normalised.
        seen: How CLIP's are.

    Raises:
        ConfigError: A text of no class; what `judge_of` raises.
    """
    renames = by_class(settings.renames, names, "renames", variant.renames)
    weights = by_class(settings.class_weights, names, "class_weights", variant.class_weights)
    own, background = None, list(settings.background_prompts)
    if settings.background == "per_class":
        texts = by_class(settings.background_prompts, names, "background_prompts", variant.background_prompts)
        background, own = own_background(texts, names)
    prompts = [settings.prompt.format(renames.get(name, [name])[-1]) for name in names]
    judge = judge_of(clip, prompts, [settings.prompt.format(text) for text in background], given, seen)
    factors = torch.tensor(numbers(weights, names, "class_weights"))
    return Matching(judge, settings, factors, own, threshold)
