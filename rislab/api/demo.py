"""A page on which one or two loaded methods answer the same picture (extra `demo`, gradio)."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rislab.api.model import Model
from rislab.errors import ConfigError, RislabError

if TYPE_CHECKING:
    from gradio import Blocks

SENTENCES, CLASSES = "sentences", "class names"


def require() -> None:
    """Raises ConfigError without gradio."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page works without a network
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ConfigError("rislab demo needs gradio: pip install 'rislab[demo]'") from None


def page(models: Mapping[str, Model]) -> "Blocks":
    """The page: a picture, sentences or class names, a threshold; of each model the drawing and its answers as COCO results.

    Args:
        models: By the name that is shown.

    Raises:
        ConfigError: gradio is not installed.
    """
    require()
    import gradio

    closed = [model.vocabulary for model in models.values() if model.vocabulary is not None]
    first = next(iter(models.values()))
    font = [gradio.themes.Font("system-ui"), gradio.themes.Font("sans-serif")]
    with gradio.Blocks(title="rislab", analytics_enabled=False) as made:
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(
                    type="filepath", image_mode=None, label="picture", sources=["upload", "clipboard"]
                )
                kind = gradio.Radio([SENTENCES, CLASSES], value=CLASSES if closed else SENTENCES, label="texts are")
                texts = gradio.Textbox(lines=3, label="texts, one a line", value="\n".join(closed[0]) if closed else "")
                background = gradio.Checkbox(label="with class names: a pixel may be none of them")
                own = gradio.Checkbox(True, label="each method's own threshold")
                threshold = gradio.Slider(
                    0.01,
                    0.99,
                    first.network.mask_threshold,
                    step=0.01,
                    label="else: foreground probability of a mask, above",
                )
                button = gradio.Button("segment", variant="primary")
            answers = []
            for name in models:
                with gradio.Column():
                    answers += [gradio.Image(label=name, format="png"), gradio.JSON(label=f"{name}: answers")]

        thresholds = [model.network.mask_threshold for model in models.values()]

        def answer(file: str | None, of: str, written: str, none: bool, of_method: bool, above: float) -> list[Any]:
            for model, usual in zip(models.values(), thresholds, strict=True):
                model.network.mask_threshold = usual if of_method else above
            try:
                return _answers(list(models.values()), file, of == CLASSES, written, none)
            except RislabError as error:
                raise gradio.Error(str(error), duration=None, print_exception=False) from None

        button.click(answer, [picture, kind, texts, background, own, threshold], answers, api_name="segment")
    made.theme = gradio.themes.Default(font=font, font_mono=font)
    return made


def _answers(models: Sequence[Model], file: str | None, has_classes: bool, written: str, background: bool) -> list[Any]:
    if file is None:
        raise ConfigError("choose a picture first")
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    found: list[Any] = []
    for model in models:
        given: dict[str, Any] = {"classes": lines, "background": background} if has_classes else {"texts": lines}
        of_model = model.segment(file, **given)
        found += [of_model.plot(), of_model.to_coco()]
    return found
