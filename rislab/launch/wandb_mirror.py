"""wandb as a mirror of trial directories, held by the launcher of the trials.

Nothing of it is inside the training process: results are the same to the bit with and without, a finished trial is logged
as a live one is, and what wandb misses (no network, a kill) is still in the directory and logged the next time.
"""

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from rislab.ablation.sweeps import logged
from rislab.ablation.trial import TrialDir
from rislab.files import read_json, write_json
from rislab.messages import warn

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table

MODES = ("online", "offline", "disabled")
PROJECT = "rislab"
"""wandb's project, where neither a sweep nor $WANDB_PROJECT names one."""

EVERY_SECONDS = 3.0
UPLOAD_SECONDS = 120
"""How long the end of one run may take to upload; what is not sent by then stays on disk for `wandb sync`."""

FINISH_SECONDS = 300
OVER = ("done", "failed", "diverged")


def mode(given: str | None) -> str:
    """online, offline or disabled: what was requested, else $WANDB_MODE, else online in a sweep and disabled elsewhere."""
    if given is not None:
        return given
    said = os.environ.get("WANDB_MODE")
    if said:
        return {"dryrun": "offline"}.get(said, said if said in MODES else "online")
    return "online" if in_sweep() else "disabled"


def in_sweep() -> bool:
    """Whether an agent of wandb started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


class Curve:
    """Steps of a `log/metrics.csv` that grows, and is cut back when its trial resumes. Each is handed out once, whole.

    Args:
        after: the last step that was handed out in an earlier life.
    """

    def __init__(self, path: Path, after: int = -1) -> None:
        self.path, self.step = path, after
        self._stamp: tuple[int, ...] = ()
        self._steps: dict[int, dict[str, float]] = {}

    def fresh(self, complete: bool) -> list[tuple[int, dict[str, float]]]:
        """(step, values by name), in order.

        validation scores are written some seconds after the losses of their step.

        Args:
            complete: nothing more is coming. Otherwise the newest step waits until a later one shows that it is whole:
        """
        self._read()
        newest = max(self._steps, default=-1)
        ready = [step for step in sorted(self._steps) if step > self.step and (complete or step < newest)]
        if ready:
            self.step = ready[-1]
        return [(step, self._steps[step]) for step in ready]

    def _read(self) -> None:
        try:
            stat = self.path.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if stamp == self._stamp:
                return
            text = self.path.read_text()
        except FileNotFoundError:
            return
        self._stamp, self._steps = stamp, {}
        for line in text[: text.rfind("\n") + 1].splitlines()[1:]:
            try:
                step, epoch, name, value = line.split(",")
                self._steps.setdefault(int(step), {"epoch": float(epoch)})[name] = float(value)
            except ValueError:
                continue  # a kill cut the line short, and the resumed trial wrote on behind it


class Record:
    """`wandb.json` of a trial: {"id": of its own run, "runs": {id: {"place", "step", "state"}}}.

    step: the last one sent to a run; state: what was sent at its end. A run's entry counts for the place
    (mode, entity, project) that it was written for: in another place nothing has been sent yet.
    """

    def __init__(self, trial: TrialDir) -> None:
        self.file = trial.mirror_file

    def id(self) -> str:
        """Of the trial's own run: kept, so that a requeue goes on in the run that there is."""
        found = self._read()
        if "id" not in found:
            found["id"] = secrets.token_hex(4)
            write_json(self.file, found)
        return str(found["id"])

    def sent(self, run: str, destination: str) -> dict[str, Any]:
        entry = self._read().get("runs", {}).get(run, {})
        return entry if entry.get("place") == destination else {}

    def mark_sent(self, run: str, destination: str, step: int, state: str | None) -> None:
        found = self._read()
        runs = found.setdefault("runs", {})
        entry = {"place": destination, "step": step, "state": state}
        if runs.get(run) != entry:
            runs[run] = entry
            write_json(self.file, found)

    def _read(self) -> dict[str, Any]:
        found = read_json(self.file)
        return found if isinstance(found, dict) else {}


@dataclass
class _Part:
    """A trial in a run. prefix: of its names, where the run holds a whole chain and this is an earlier stage."""

    cell: "Planned"
    record: Record
    prefix: str = ""
    curve: Curve | None = None
    acknowledged: int = -1
    """The step that was the last at the look before: what is younger may not have left for wandb yet."""
    scored: bool = False


class Mirror:
    """One run of wandb that says what trial directories say: one trial's, or in a sweep those of a chain.

    Args:
        cells: of one row and seed, stages in order. Raises whatever wandb raises.
    """

    def __init__(self, cells: "Sequence[Planned]", table: "Table", profile: "Profile", mode: str) -> None:
        self.table, self.profile, self.mode = table, profile, mode
        self.sweep = in_sweep()
        self.parts = [
            _Part(cell, Record(cell.trial), f"{cell.stage}/" if cell is not cells[-1] else "") for cell in cells
        ]
        self.run: Any = None
        self.where = ""
        """Address of the run, or the folder that `wandb sync` sends."""
        self.destination = ""
        self._lock: FileLock | None = None

    @property
    def state(self) -> str:
        """Of the chain: that of its first stage that is not done."""
        return next((state for state in (part.cell.state for part in self.parts) if state != "done"), "done")

    def follow(self) -> None:
        """Log what is new; open the run when there is something to say, close it when all has been said."""
        state = self.state
        if self.run is None and not (self._has_news(state) and self._open()):
            return
        self._log()
        if state in OVER:
            self.close(state)

    def close(self, state: str | None = None) -> None:
        """End the run; the next one to follow the trial goes on with it."""
        if self.run is None:
            return
        state = state or self.state
        self._log()
        unfinished = next((part for part in self.parts if part.cell.state != "done"), self.parts[-1])
        error = None if state == "done" else unfinished.cell.trial.status().get("error")
        self.run.summary.update({"state": state, "error": error})
        run, self.run = self.run, None
        try:
            run.finish(exit_code=0 if state == "done" else 1)
            for part in self.parts:
                if part.curve is not None:
                    part.record.mark_sent(run.id, self.destination, part.curve.step, state)
        finally:
            if self._lock is not None:
                self._lock.release()

    def _has_news(self, state: str) -> bool:
        if self.sweep:
            return True  # the sweep waits for a run
        if state == "pending":
            return False
        part = self.parts[0]
        sent = part.record.sent(part.record.id(), self._own_destination())
        return sent.get("state") != state

    def _own_destination(self) -> str:
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        return f"{self.mode} {os.environ.get('WANDB_ENTITY', '')}/{project}"

    def _open(self) -> bool:
        """False while another launcher mirrors the trial: its run has one writer."""
        import wandb

        last = self.parts[-1].cell
        where: dict[str, Any] = {}
        if not self.sweep:
            own = self.parts[0]
            self._lock = FileLock(own.cell.trial.path / ".wandb.lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return False
            where = {"project": os.environ.get("WANDB_PROJECT") or PROJECT, "id": own.record.id()}
        if self.mode == "online":
            where["resume"] = "allow"
        stage = last.stage if not self.sweep else ""
        tags = [
            self.table.name,
            last.row.name,
            f"seed {last.seed}",
            self.profile.name,
            *filter(None, (last.fold, stage)),
        ]
        self.run = wandb.init(
            **where,
            mode=self.mode,  # type: ignore[arg-type]  # one of MODES
            name=" ".join(filter(None, (last.row.name, f"s{last.seed}", last.fold, stage))),
            group=self.table.name,
            job_type=stage or "train",
            tags=[tag[:64] for tag in tags],  # wandb's limit
            config=self._config(),
            reinit="create_new",
            settings=_settings(wandb),
        )
        self.where = str(self.run.url or Path(self.run.dir).parent)
        self.destination = (
            f"{self.mode} {self.run.entity}/{self.run.project}" if self.sweep else self._own_destination()
        )
        for part in self.parts:
            sent = part.record.sent(self.run.id, self.destination)
            part.acknowledged = int(sent.get("step", -1))
            part.curve = Curve(part.cell.trial.curves, part.acknowledged)
            part.scored = False
        return True

    def _config(self) -> dict[str, Any]:
        """What was hashed, and where in the table it stands."""
        last = self.parts[-1].cell
        facts: dict[str, Any] = {"table": self.table.name, "profile": self.profile.name, "hash": last.hash}
        if self.sweep:  # which gives the row and the seed itself, and holds on to them
            facts["stages"] = {part.cell.stage: part.cell.identity for part in self.parts[:-1]}
        else:
            facts |= {"row": last.row.name, "seed": last.seed, "fold": last.fold, "stage": last.stage}
        return last.identity | {name: value for name, value in facts.items() if value not in ("", {})}

    def _log(self) -> None:
        before = 0
        for part in self.parts:
            assert part.curve is not None
            state = part.cell.state
            unsure = part.curve.step
            for step, values in part.curve.fresh(complete=state in OVER):
                # The result's digits come from metrics.json: what Lightning logs is rounded to float32.
                curves = {part.prefix + name: v for name, v in values.items() if not name.startswith("test/")}
                self.run.log(curves, step=before + step)
            part.record.mark_sent(self.run.id, self.destination, part.acknowledged, None)
            part.acknowledged = unsure
            if state != "done":
                return
            metrics = read_json(part.cell.trial.metrics_file)
            if metrics is None:
                return  # it is being repeated at this moment
            if not part.scored:
                part.scored = True
                self._score(part, metrics, before + int(metrics["step"]))
            before += int(metrics["step"]) + 1  # wandb's steps go on through the stages

    def _score(self, part: _Part, metrics: dict[str, Any], step: int) -> None:
        """A finished trial's result: every score of every split, the table's own metrics, masks."""
        cell, splits = part.cell, metrics["splits"]
        shown: dict[str, Any] = {}
        for metric in self.table.metrics:
            stage, _, name = metric.rpartition(":")
            if (stage == cell.stage if stage else cell.is_last) and name in splits.get(cell.split, {}):
                shown[logged(metric)] = splits[cell.split][name]
        scores = {f"test/{split}/{name}": value for split, found in splits.items() for name, value in found.items()}
        provenance = read_json(cell.trial.provenance_file) or {}
        facts: dict[str, Any] = {
            **{f"parameters/{name}": count for name, count in metrics["parameters"].items()},
            **{f"seconds/{name}": seconds for name, seconds in provenance.get("seconds", {}).items()},
            **{name: provenance.get(name) for name in ("steps_per_second", "peak_memory_mb")},
            "step": metrics["step"],
            "commit": provenance.get("code", {}).get("commit"),
        }
        masks = panel(cell.trial.path / "predictions")
        content = scores | ({"predictions": masks} if masks else {})
        self.run.log(
            shown | {part.prefix + name: v for name, v in content.items() if not isinstance(v, dict)}, step=step
        )
        self.run.summary.update({part.prefix + name: v for name, v in facts.items() if v is not None})


def panel(folder: Path) -> list[Any]:
    """The kept expressions as wandb's images, with masks of the ground truth and the prediction to switch on and off."""
    import numpy as np
    import wandb
    from PIL import Image
    from pycocotools import mask as coco_mask

    images = []
    for entry in read_json(folder / "predictions.json") or []:
        truth, found = (np.asarray(coco_mask.decode(entry[name])) for name in ("target", "prediction"))
        with Image.open(folder / Path(entry["image"]).name) as file:
            picture = file.convert("RGB")
        if picture.size != truth.shape[::-1]:  # some conventions compare on a square
            picture = picture.resize((truth.shape[1], truth.shape[0]))
        masks = {
            "ground_truth": {"mask_data": truth, "class_labels": {1: "ground truth"}},
            "prediction": {"mask_data": found, "class_labels": {1: "prediction"}},
        }
        images.append(wandb.Image(picture, caption=entry["text"], masks=masks))
    return images


def _settings(wandb: Any) -> Any:
    """No output, no capture of ours, no figures of this process: the trial is elsewhere."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        x_disable_stats=True,
        x_save_requirements=False,
        finish_timeout=UPLOAD_SECONDS,
    )


class Mirrors:
    """The mirrors of many trials, in a thread of their own: neither a slow network nor an error of wandb holds a launcher up.

    Args:
        cells: trials, each once.
        mode: one of MODES; disabled does not even import wandb.
        say: gets one line on why the mirror stays behind.
    """

    def __init__(
        self,
        cells: "Iterable[Planned]",
        table: "Table",
        profile: "Profile",
        mode: str,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.mode = mode
        self._say = say or warn
        groups: dict[Any, list[Planned]] = {}
        for cell in cells:
            # An agent has one run for a row and seed, whatever its stages.
            groups.setdefault((cell.row.name, cell.seed) if in_sweep() else cell.trial.path, []).append(cell)
        self._mirrors = [Mirror(group, table, profile, mode) for group in groups.values()]
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    @property
    def where(self) -> list[str]:
        """Addresses of the runs, or the folders that `wandb sync` sends."""
        return [mirror.where for mirror in self._mirrors if mirror.where]

    def follow(self) -> None:
        """Keep up with the trials from now on; for a launcher's `watch`. Returns at once and raises nothing."""
        if self._thread is None and self.mode != "disabled":
            self._thread = threading.Thread(target=self._work, name="wandb mirror", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Say what is left to say, and wait until it is sent, for five minutes at most."""
        self._ended.set()
        self.follow()
        if self._thread is not None:
            self._thread.join(FINISH_SECONDS)
            if self._thread.is_alive():
                self._warn(f"still not sent after {FINISH_SECONDS} s")

    def _work(self) -> None:
        try:
            self._log_in()
        except Exception as error:  # wandb's, of any kind: it is never worth a trial
            self._warn(_one_line(error))
            return
        ended = False
        while self._mirrors and not ended:
            ended = self._ended.is_set()
            self._mirrors = [mirror for mirror in self._mirrors if self._turn(mirror, ended)]
            if not ended:
                self._ended.wait(EVERY_SECONDS)

    def _turn(self, mirror: Mirror, ended: bool) -> bool:
        """Whether to go on with this one."""
        try:
            mirror.follow()
            if ended:
                mirror.close()
        except Exception as error:  # as above
            self._warn(_one_line(error))
            return False
        return mirror.run is not None or mirror.state != "done"

    def _log_in(self) -> None:
        """Raises RuntimeError where there is no wandb, and where it would ask for a key, or wait for one to be typed."""
        try:
            import wandb
        except ModuleNotFoundError:
            raise RuntimeError("not installed: pip install 'rislab[wandb]'") from None

        wandb.setup(wandb.Settings(mode=self.mode, silent=True))  # type: ignore[arg-type]  # one of MODES
        if self.mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError("no key: `wandb login`, or WANDB_API_KEY; or --wandb offline")

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._say(f"wandb: {text}. The trials go on; the same command logs from their directories what is missing")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
