"""`rislab doctor --clip`: the checks of a file of CLIP weights, one line each, and what is wrong in one line."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.errors import DataError, RislabError

if TYPE_CHECKING:
    from rislab.encoders.clip.check import Agreement, Golden
    from rislab.encoders.clip.weights import CLIPFile

LIKELY = "LAION's and DataComp's were trained with GELU"
DECIDES = 1.0
"""Points of mean IoU by which one activation must beat the other on the pictures before they speak for it."""


def check(options: argparse.Namespace) -> int:
    """Print what each check found. Raises DataError with what is wrong, in one line, or prints that nothing is."""
    found: dict[str, Any] = {"clip": options.clip, "weights": str(options.weights)}

    def say(name: str, text: str, **values: Any) -> None:
        found[name] = {"text": text, **values}
        if not options.json:
            print(f"{name + ':':11} {text}", flush=True)

    wrong = ""
    try:
        quick = _check(options, say)
        known = quick is not None
        say("result", "fine" if known else "nothing wrong was found; the activation is not known: set clip.quick_gelu")
    except RislabError as error:
        wrong = str(error)
        if not options.json:
            raise
        say("result", wrong)
    if options.json:
        print(json.dumps({**found, "is_fine": not wrong}, indent=1))
    return DataError.exit_code if wrong else 0


def _check(options: argparse.Namespace, say: Callable[..., None]) -> bool | None:
    """Whether the weights need QuickGELU; None where nothing says. Raises RislabError with what is wrong."""
    from rislab.encoders.clip import check as weights
    from rislab.training.cli import quiet

    quiet()
    path, name = options.weights, weights.known_name(options.clip)
    embeddings = weights.golden(options.golden) if options.golden else weights.golden()
    content = weights.read(path)
    form = "an archive of OpenAI's" if content.is_openai_archive else "a state dict"
    say("file", f"whole; {form}, {len(content.state)} tensors", is_openai_archive=content.is_openai_archive)
    shape = weights.check_shape(path, content, name)
    say("size", f"of {name}: {shape}")
    given = None if options.quick_gelu is None else options.quick_gelu == "true"
    quick = _activation(path, content, name, embeddings, given, say)
    if options.benchmark is not None:
        _score(options, name, quick, say)
    return quick


def _activation(
    path: Path, content: "CLIPFile", name: str, of: "Golden", given: bool | None, say: Callable[..., None]
) -> bool | None:
    """Whether the weights need QuickGELU; None where nothing says. Raises DataError where it is not what is expected."""
    from rislab.encoders.clip import check as weights

    beside = weights.quick_gelu_beside(path)
    said = (True, "an archive of OpenAI's") if content.is_openai_archive else beside
    if name.removesuffix("-quickgelu") != of.name.removesuffix("-quickgelu"):
        say("text tower", f"not compared: the embeddings at hand are {of.name}'s")
        quick = said[0] if said is not None else given
    else:
        found = weights.agreement(path, content, name, of)
        quick = _compared(path, name, found, given, said, say)
    source = f", by {said[1]}" if said is not None and said[0] == quick else ""
    say(
        "activation",
        {None: "not known: nothing at hand says", True: "QuickGELU", False: "GELU"}[quick] + source,
        quick_gelu=quick,
    )
    if given is not None and quick is not None and given != quick:
        raise DataError(
            f"{path}: its weights need {_word(quick)}, clip.quick_gelu: {_yaml(given)} reads them with {_word(given)}: "
            f"set clip.quick_gelu: {_yaml(quick)}"
        )
    return quick


def _compared(
    path: Path,
    name: str,
    found: "Agreement",
    given: bool | None,
    said: tuple[bool, str] | None,
    say: Callable[..., None],
) -> bool | None:
    """The activation by which golden embeddings come out; of other weights, the one that is said of them."""
    cosines = (
        f"cosine with {found.rows} embeddings of OpenAI's weights: least {found.least_quick:.4f}, mean {found.mean_quick:.4f} "
        f"with QuickGELU; least {found.least_exact:.4f}, mean {found.mean_exact:.4f} with GELU"
    )
    figures = {
        "least_quick_gelu": found.least_quick,
        "mean_quick_gelu": found.mean_quick,
        "least_gelu": found.least_exact,
        "mean_gelu": found.mean_exact,
    }
    same = found.quick_gelu
    say(
        "text tower",
        f"{'the same' if same is not None else 'not the same'}; {cosines}",
        same=same is not None,
        **figures,
    )
    if same is not None:
        return same
    declared = said[0] if said is not None else given
    if declared is False:
        return False  # other weights, and known to be: golden embeddings do not apply
    best = max(found.mean_quick, found.mean_exact)
    raise DataError(
        f"{path}: these are not OpenAI's weights of {name}: mean cosine {best:.2f} with their text embeddings, expected 1.00. "
        f"Weights of another training stand under this name; {LIKELY}, and QuickGELU reads those wrongly: set "
        "clip.quick_gelu: false for them, or fetch OpenAI's"
    )


def _score(options: argparse.Namespace, name: str, quick: bool | None, say: Callable[..., None]) -> None:
    """CLIP and MaskCLIP on a benchmark; with both activations where nothing has decided between them."""
    from rislab.cli.doctor.score import score

    scores: dict[tuple[str, bool], float] = {}
    for method in ("CLIP", "MaskCLIP"):
        for each in (True, False) if quick is None else (quick,):
            result = score(method, name, options.weights, each, options)
            scores[method, each] = result["miou_class"]
            say(
                f"{method}" if quick is not None else f"{method}, {_word(each)}",
                f"mIoU (class) {result['miou_class']:.2f}, aAcc {result['aacc']:.2f} on {result['pictures']} pictures of "
                f"{result['benchmark']}, {options.split}, {result['seconds']:.0f} s",
                **result,
            )
    if quick is None:
        more = scores["MaskCLIP", True] - scores["MaskCLIP", False]
        text = "do not decide between them" if abs(more) < DECIDES else f"speak for {_word(more > 0)}"
        say("pictures", f"MaskCLIP scores {more:+.2f} points with QuickGELU against GELU: they {text}")


def _word(quick: bool) -> str:
    return "QuickGELU" if quick else "GELU"


def _yaml(value: bool) -> str:
    return str(value).lower()
