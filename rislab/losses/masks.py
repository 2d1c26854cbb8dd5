"""What TCL asks of a mask besides its text: how large it is, and how smooth. Cha et al., CVPR 2023; weights are the caller's."""

from torch import Tensor


def area(shares: Tensor, prior: float) -> Tensor:
    """| mean(shares) - prior |: shares in [0, 1] of the picture, of any number of masks.

    The mean comes first, so it is the batch whose masks cover the prior, not every mask of it. Without masks: 0.
    """
    return (shares.mean() - prior).abs() if shares.numel() else shares.sum()


def total_variation(x: Tensor) -> Tensor:
    """mean |x(v, u+1) - x(v, u)| + mean |x(v+1, u) - x(v, u)| of maps [..., h, w].

    Source: Rudin, Osher and Fatemi 1992, in its anisotropic form.
    """
    return x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()
