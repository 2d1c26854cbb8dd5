"""rislab: text-driven segmentation under one data layer, one evaluation protocol and one ablation engine.

    import rislab

    model = rislab.load("runs/cris-components/con+dec3--s0--1a2b3c4d")
    answers = model.segment("photo.jpg", ["the red cup", "the chair on the left"])
    answers.save("photo-masks.png")

The names of `__all__` are the public ones; they are imported on first use.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rislab.api import Answer, Answers, Model, RislabError, Scored, TableResults, load, results, score

__all__ = [
    "Answer",
    "Answers",
    "Model",
    "RislabError",
    "Scored",
    "TableResults",
    "__version__",
    "load",
    "results",
    "score",
]


def __getattr__(name: str) -> Any:
    # A command line imports this file, too, and most commands need none of it.
    if name in __all__:
        from rislab import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
