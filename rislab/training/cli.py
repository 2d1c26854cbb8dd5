"""`rislab fit|validate|test|predict`: LightningCLI with the callbacks that every trial carries."""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from rislab import messages, moved_names
from rislab.ablation import lookup
from rislab.ablation.compatibility import check_batches
from rislab.ablation.trial import TrialDir
from rislab.ablation.yaml_lines import Loader
from rislab.datamodules.base import EvaluatedData
from rislab.errors import ConfigError, DataError, RislabError, about, from_system, nearest, one_line, underlying
from rislab.methods.base import FileMaker, TextSegmenter
from rislab.paths import user_path
from rislab.training import cluster, provenance, rank_failures
from rislab.training.callbacks import LoaderPosition, StepSeed, TrialStatus
from rislab.training.checkpoints import (
    UNLOGGED,
    LastCheckpoint,
    UntrainedWeights,
    WholeCheckpointIO,
    read_checkpoint,
    require_same_model,
    resume_point,
)
from rislab.training.construction import constructing, parse_message, running
from rislab.training.curve_logger import CurveLogger
from rislab.training.graceful_stop import EvaluationInStep, GracefulStop, StopRequest, take_over_signals
from rislab.training.score_callback import ScoreCallback, write_metrics

WRITING = ("fit", "validate", "test")
"""Commands that write results or curves into the trial's directory."""


@dataclass(frozen=True)
class TrialOptions:
    """How a run is computed and kept on disk; nothing here changes its result, but for rounding where it says so.

    Attributes:
        checkpoint_every_n_steps: what a kill can cost at most.
        parts: compute each batch in so many parts and add their gradients up, for a GPU that is too small for it.
        compile: training losses and their gradients through `torch.compile`, for GPUs: one minute or more at the start, and other
            rounding. Each shape is compiled anew: batches should be alike.
        channels_last: convolutions in that memory format, for GPUs with bf16-mixed; other rounding.
        start_from: checkpoint of the stage before this one; whose it is counts, where it lies does not.
        predictions: expressions whose masks are kept for the qualitative figure.
        answers_mb: limit of the answers to all test splits that are kept for `rislab ablate browse`, in MB; splits beyond it are
            left out, and 0 keeps none.
        test: score all test splits with the best checkpoint after `fit`.
        train: off, what `start_from` holds is scored as it is.
        grace_seconds: what a run has after a stop request until its next step boundary, and from there until its end.
    """

    checkpoint_every_n_steps: int = 500
    predictions: int = 8
    test: bool = True
    train: bool = True
    start_from: str | None = None
    parts: int = 1
    compile: bool = False
    channels_last: bool = False
    grace_seconds: float = 120.0
    answers_mb: float = 20.0


class UsageError(ConfigError):
    """What a parser says of an option or a value."""


class Parser(LightningArgumentParser):
    """An argument parser whose errors are one line, and name the nearest option for a misspelt one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        hidden = underlying(ex) if ex is not None else None
        # A parser of a nested class has said what is wrong; only the message of this one says where.
        if hidden is not None and not isinstance(hidden, UsageError):
            raise (hidden if isinstance(hidden, RislabError) else from_system(hidden)) from hidden.__cause__
        text = parse_message(str(message)) or " ".join(str(message).split())
        known = [action.dest for action in self._actions]
        given = re.findall(r"--([\w.]+)|ption '([\w.]+)'", text)
        for option in (one or other for one, other in given):
            hint = nearest(option, known) if option not in known and "did you mean" not in text else ""
            if hint:
                text = f"{text}{hint}"
                break
        raise UsageError(text)


class RislabCLI(LightningCLI):
    """One config file is one run.

    `fit` goes on from the last sound checkpoint in `trainer.default_root_dir`, and ends with the test splits scored by
    the best checkpoint; whatever is in that directory afterwards is a trial as docs/architecture.md describes it.
    """

    def __init__(self, arguments: list[str], run: bool = True, request: StopRequest | None = None) -> None:
        self.request = request or StopRequest()
        self.arguments = arguments
        self.seconds: dict[str, float] = {}
        self.status: TrialStatus
        with running():
            self._run(arguments, run)

    def _run(self, arguments: list[str], run: bool) -> None:
        kwargs = {"allow_abbrev": False}
        super().__init__(
            model_class=TextSegmenter,
            datamodule_class=EvaluatedData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            parser_kwargs={**kwargs, **({name: dict(kwargs) for name in self.subcommands()} if run else {})},
            run=run,
            trainer_defaults={
                "use_distributed_sampler": False,  # the data layer shards: nothing padded, nothing repeated
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "logger": False,
            },
            args=arguments,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--trial", type=TrialOptions, default=TrialOptions())
        parser.add_argument(
            "--export",
            type=str | None,
            default=None,
            metavar="FILE",
            help="predict: where every mask goes, as `rislab score` reads it; predictions/masks.json of the run by default",
        )

    @property
    def options(self) -> TrialOptions:
        options: TrialOptions = self._get(self.config_init, "trial")
        return options

    @property
    def _answers_bytes(self) -> int:
        given = self.options.answers_mb
        if not 0 <= given < float("inf"):
            raise ConfigError(f"trial.answers_mb is {given}, expected a number of MB, 0 or more")
        return round(given * 1e6)

    @property
    def _export(self) -> Path | None:
        given = self._get(self.config, "export")
        return user_path(given) if given is not None else None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        moved_names.register()
        with constructing("config"):
            super().parse_arguments(parser, as_of_today(args))

    def instantiate_classes(self) -> None:
        with constructing("config"):
            super().instantiate_classes()

    def before_instantiate_classes(self) -> None:
        """Refuse data that give other batches than the method trains on, and a directory that has a result.

        Nothing is written into such a directory: it is the evidence of its numbers.
        """
        if self.subcommand == "fit":
            check_batches(_plain(self.config["fit"]))
        if self.subcommand in WRITING:
            folder = Path(self._get(self.config, "trainer")["default_root_dir"] or ".")
            if TrialDir(folder).metrics_file.exists():
                raise ConfigError(
                    f"{folder} holds a finished trial, and nothing was changed. Another directory: "
                    "--trainer.default_root_dir=DIR; to see whether a table's trial repeats: rislab ablate verify TABLE"
                )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        folder = user_path(self._get(self.config, "trainer")["default_root_dir"] or ".")
        self.trial = TrialDir(folder)
        self.status = TrialStatus(self.trial)
        self.curves = CurveLogger(folder / "log" / "metrics.csv")
        self.best = ModelCheckpoint(
            dirpath=folder / "checkpoints",
            filename="best",
            monitor=f"val/{self.datamodule.evaluated.evaluation.arithmetic.metrics[0]}",
            mode="max",
            save_weights_only=True,
            enable_version_counter=False,
        )
        parts = self.options.parts
        self.datamodule.parts = parts
        if parts > 1:
            kwargs["accumulate_grad_batches"] = parts * self._get(self.config, "trainer")["accumulate_grad_batches"]
        callbacks: list[L.Callback] = [
            StepSeed(),
            LoaderPosition(),
            self.status,
            ScoreCallback(self.datamodule, folder, self.options.predictions, self._export, self._answers_bytes),
            LastCheckpoint(self.options.checkpoint_every_n_steps),
            self.best,
            EvaluationInStep(),
            GracefulStop(self.request),
        ]
        bar = self._progress_bar()
        kwargs["enable_progress_bar"] = bar is not None
        callbacks += [bar] if bar is not None else []
        plugins = [WholeCheckpointIO(_plain(self._get(self.config, "model"))), *cluster.environment()]
        with constructing("trainer"):
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        trainer.loggers = [*trainer.loggers, self.curves]
        self._join(trainer)
        return trainer

    def _progress_bar(self) -> L.Callback | None:
        """A bar on stderr for a terminal. Lightning's own is on stdout, where results are."""
        is_off = self._get(self.config_init, "trainer")["enable_progress_bar"] is False
        return (
            None
            if is_off or messages.is_quiet() or not sys.stderr.isatty()
            else RichProgressBar(console_kwargs={"stderr": True})
        )

    def _join(self, trainer: L.Trainer) -> None:
        """Make the run one of its ranks: how it ends is decided together, and written down by the first."""
        take_over_signals(trainer)
        self.request.grace = self.options.grace_seconds
        if not self.request.grace >= 0:
            raise ConfigError(f"trial.grace_seconds is {self.request.grace}, expected 0 or more")
        if self.subcommand == "fit" and trainer.is_global_zero:
            self.request.trial = self.trial
        cluster.check(trainer)
        if trainer.world_size > 1:
            self.request.join(rank_failures.joined(self.trial.path, trainer.global_rank))

    def fit(self, model: TextSegmenter, datamodule: EvaluatedData, ckpt_path: str | None = None, **_: Any) -> None:
        """Train from the given checkpoint, or from where this directory stands; then score the test splits."""
        with self._alone():
            self._fit(model, datamodule, ckpt_path)

    def test(self, model: TextSegmenter, datamodule: EvaluatedData, verbose: bool = False, **given: Any) -> None:
        """Score the test splits. What is printed at the end is ours: Lightning's table would say it twice.

        Args:
            model: the method.
            datamodule: what it is scored on.
            verbose: of Lightning; its table is printed with it.
            given: the other arguments of `Trainer.test`, which the parser has checked.
        """
        self.trainer.test(model, datamodule=datamodule, verbose=verbose and messages.is_verbose(), **given)

    def before_test(self) -> None:
        """Say it where a method that is trained gets no trained weights: its scores would look like any others."""
        if self._get(self.config, "ckpt_path") is None and self.model.is_trained and self.trainer.is_global_zero:
            messages.warn(f"no --ckpt_path: {type(self.model).__name__} has the weights that its training starts from")

    before_validate = before_predict = before_test

    def after_predict(self) -> None:
        """Name the file of masks."""
        if self.trainer.is_global_zero:
            scoring = next(each for each in self.trainer.callbacks if isinstance(each, ScoreCallback))  # type: ignore[attr-defined]
            messages.result(scoring.export_file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the directory, as a launcher does that has started this run, and say in it how the run stands."""
        if not self.trainer.is_global_zero or self.trial.is_ours():
            yield
            return
        with self.trial.locked():
            self.trial.update_status(state="running", started=time.time(), error=None, kind=None, traceback=None)
            yield
            self.trial.update_status(state="done", stage="test", ended=time.time())

    def _fit(self, model: TextSegmenter, datamodule: EvaluatedData, ckpt_path: str | None) -> None:
        resume = user_path(ckpt_path) if ckpt_path not in (None, "last") else resume_point(self.trial.checkpoints)
        if resume is not None and ckpt_path in (None, "last"):
            require_same_model(resume, _plain(self._get(self.config, "model")))
        began = time.monotonic()
        if self.trainer.is_global_zero:
            self.trial.clear()
            self.trial.update_status(stage="fit")
            provenance.begin(self.trial.path, self.arguments)
        # What an earlier start logged beyond what it could save is logged again.
        self.curves.cut(*(_step_of(resume) if resume is not None else (0, None)))
        if resume is None and self.options.start_from is not None:
            start = user_path(self.options.start_from)
            checkpoint = read_checkpoint(start)
            with about(start):
                if "state_dict" not in checkpoint:
                    raise DataError("no checkpoint of a training run; expected a dict with 'state_dict'")
                model.start_from(checkpoint)
        if isinstance(model, FileMaker):
            self._produce(model, datamodule)
        elif model.is_trained and self.options.train:
            self._prepare(model)
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        self.seconds["fit"] = time.monotonic() - began
        if self.options.test and not self.trainer.interrupted:
            began = time.monotonic()
            best = self.best.best_model_path or None
            if not model.is_trained:
                self.trainer.callbacks.append(UntrainedWeights())  # type: ignore[attr-defined]  # a list
            self.trainer.test(model, datamodule=datamodule, ckpt_path=best, verbose=False, weights_only=True)
            self.seconds["test"] = time.monotonic() - began
        elif isinstance(model, FileMaker) and not self.trainer.interrupted and self.trainer.is_global_zero:
            write_metrics(self.trial.path, datamodule, {}, model)  # there is nothing to score: the files are the result
        if self.trainer.is_global_zero:
            self._write_provenance()

    def _prepare(self, model: TextSegmenter) -> None:
        """How training is computed, by the options; names of weights stay as they are."""
        if self.options.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.options.compile:
            # A class of layers is compiled once for each width that it has; beyond the limit it would be left as it is.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
            model.losses = torch.compile(model.losses, dynamic=False)  # type: ignore[method-assign]

    def _produce(self, model: FileMaker, datamodule: EvaluatedData) -> None:
        """Make the files of a stage, and their manifest once all ranks have made theirs."""
        model.outputs = self.trial.outputs
        if self.trainer.is_global_zero:
            model.outputs.manifest.unlink(missing_ok=True)
        self.trainer.predict(model, datamodule=datamodule, return_predictions=False)
        self.trainer.strategy.barrier("outputs")
        if self.trainer.is_global_zero:
            model.outputs.seal()

    def _write_provenance(self) -> None:
        provenance.end(
            self.trial.path,
            self.seconds,
            parts=self.options.parts,
            steps_per_second=round(self.status.fit_steps / max(self.status.fit_seconds, 1e-9), 3),
        )


def as_of_today(arguments: list[str]) -> list[str]:
    """A command line whose config files of before, which give options where they no longer are, are replaced by their content.

    Raises:
        ConfigError: A config file that is not readable YAML, named with its line, which jsonargparse does not.
    """
    found = list(arguments)
    for at, argument in enumerate(arguments):
        option, has_value, value = argument.partition("=")
        if option not in ("--config", "-c"):
            continue
        where = at if has_value else at + 1
        given = value if has_value else next(iter(arguments[where : where + 1]), "")
        file = lookup.find(given)  # may be one of rislab's recipes
        if not file.is_file():
            continue  # jsonargparse says what is wrong with others
        if file != Path(given):
            found[where] = (f"{option}=" if has_value else "") + str(file)
        content = _yaml_of(file)
        if isinstance(content, dict):
            with about(file):
                moved = moved_names.with_options_moved(content)
            if moved != content:
                found[where] = (f"{option}=" if has_value else "") + yaml.safe_dump(moved)
    return found


def _yaml_of(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise ConfigError(
            f"{where}: not a readable YAML file ({getattr(error, 'problem', None) or one_line(error)})"
        ) from error


def _step_of(path: Path) -> tuple[int, Any]:
    """The steps that a checkpoint has done, and what of the last one was not yet logged when it was written."""
    checkpoint = read_checkpoint(path)
    step = checkpoint.get("global_step")
    if type(step) is not int or step < 0:
        raise DataError(f"{path}: no checkpoint of a training run; expected its step as 'global_step'")
    return step, checkpoint.get(UNLOGGED)


def _plain(value: Any) -> Any:
    """A parsed config as builtins, as a checkpoint may hold them."""
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name  # as a config gives it
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def quiet() -> None:
    """Nothing is printed unless something is wrong: hush what libraries say at every start. With `-v` they speak."""
    if messages.is_verbose():
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # open_clip logs to the root when a model is built without weights, as a checkpoint's model is.
    logging.getLogger().addFilter(lambda record: "No pretrained weights loaded" not in record.getMessage())
    for message in (
        ".*does not have many workers.*",  # a choice of the config
        ".*srun.*available.*",  # a login node of a cluster
        ".*args parameter is intended to run from within Python.*",  # which is what happens here
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # inside lightning, for torch >= 2.15
        ".*Checkpoint directory .* exists and is not empty.*",  # resuming is the normal case
        ".*use `self.log.*sync_dist=True.*",  # what we log is the same on every process, or a loss to look at
        ".*resuming from a checkpoint that ended before the epoch ended.*",  # our loader resumes there exactly
    ):
        warnings.filterwarnings("ignore", message=message)


def main(arguments: list[str]) -> int:
    """A command typed by hand."""
    from rislab.training.trial import run_command

    return run_command(arguments)
