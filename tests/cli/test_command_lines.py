"""What every command line has in common: near matches, verbosity, completion, results on stdout and the rest on stderr."""

import argparse
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rislab import messages
from rislab.cli import completion, training_options
from rislab.cli.ablate.run_view import RunView
from rislab.cli.main import TRAINING, parser
from rislab.cli.parsing import leaves, subparsers
from tests.worlds import ROOT, rislab_here, tiny_table

TOY = "experiments/cris/toy.yaml"


@pytest.fixture(autouse=True)
def _usual_level() -> None:
    messages.set_level(0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fitt", "no command 'fitt' (did you mean 'fit'?)"),
        ("methodes", "did you mean 'methods'"),
        ("ablate rnu cris", "no action 'rnu' (did you mean 'run'?)"),
        ("ablate plan cris --sedes 3", "unknown option '--sedes' (did you mean '--seeds'?)"),
        ("ablate plan cris --profile", "argument --profile: expected one argument"),
        ("score x --data d --split v --protocol criss", "'criss' (did you mean 'cris'?)"),
        ("data chek DATA", "did you mean 'check'"),
        ("data show DATA", "the following arguments are required: --out"),
        ("doctor extra", "unknown argument 'extra'"),
        ("completion bsh", "no completion for 'bsh' (did you mean 'bash'?)"),
        (f"fit --confg {TOY}", "unknown option '--confg' (did you mean '--config'?)"),
        (f"fit --config {TOY} --model.init_args.decoder_layer=1", "did you mean 'decoder_layers'"),
        (f"fit --config={TOY} --model.decoder_layer=1", "did you mean 'decoder_layers'"),
        (f"test --config {TOY} --data.init_args.datset refcoco", "did you mean 'dataset'"),
        ("fit", "no --config FILE, such as experiments/cris/toy.yaml"),
        (f"test --config {TOY} --ckpt_path gone.ckpt", "--ckpt_path gone.ckpt: no such file"),
        (f"fit --config {TOY} --trial.start_from=gone.ckpt", "--trial.start_from gone.ckpt: no such file"),
        (f"fit --config {TOY} --trainer.max_epoch 3", "did you mean 'max_epochs'"),
        (f"fit --config {TOY} --trial.tests=false", "did you mean 'test'"),
    ],
)
def test_a_slip_is_one_line_with_the_nearest_name_and_no_torch(line: str, said: str) -> None:
    code = (
        "import sys\nfrom rislab.cli.main import main\ncode = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_recipe_of_rislab_is_known_in_every_folder(tmp_path: Path) -> None:
    done = rislab_here("fit", "--config", TOY, "--model.init_args.decoder_layer=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'decoder_layers'" in done.stderr


def test_the_early_check_knows_every_option_of_the_real_parser() -> None:
    """Nothing that LightningCLI takes may be refused before it is imported."""
    from lightning import Trainer
    from lightning.pytorch.cli import LightningCLI

    from rislab.training.cli import RislabCLI

    class Unparsed(RislabCLI):
        def parse_arguments(self, parser: argparse.ArgumentParser, args: object) -> None:  # type: ignore[override]
            raise StopIteration(parser)

    assert issubclass(Unparsed, LightningCLI)
    with pytest.raises(StopIteration) as stopped:
        Unparsed(["fit"])
    real = stopped.value.value
    for name in TRAINING:
        actions = real._subcommands_action._name_parser_map[name]._actions
        options = [option for action in actions for option in action.option_strings if option.startswith("--")]
        assert len(options) > 40
        training_options.check([option.replace("--no_", "--") for option in options])
    import inspect

    assert training_options.trainer_options() - {"help"} == set(inspect.signature(Trainer).parameters)


def test_options_that_are_right_or_cannot_be_known_are_let_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {class_path: other.package.Method}\n")
    for given in (
        ["--config", TOY, "--model.init_args.decoder_layers", "-1", "--model.clip.name=x", "--data.root", "--trainer"],
        ["--config", str(mine), "--model.init_args.anything=1"],
        ["--model", "CRISTask", "--model.decoder_layer=1"],
        ["--config", str(tmp_path / "missing.yaml")],
        ["--config", TOY, "--trainer.callbacks+=x", "--trainer.logger.init_args.name", "a", "--optimizer", "Adam"],
        ["--config", TOY, "--data.init_args.flip=true"],
        ["--", "--confg"],
    ):
        training_options.check(given)


def test_every_command_is_quiet_or_verbose_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    for each in (parser(), *leaves(parser())):
        options = {name for action in each._actions for name in action.option_strings}
        assert {"-q", "--quiet", "-v", "--verbose"} <= options, each.prog
    for line, level in ((["-q", "ablate", "plan", "nope"], -1), (["ablate", "plan", "nope", "-v"], 1)):
        done = rislab_here(*line)
        assert done.returncode == 2
        assert messages.is_quiet() == (level < 0)
        assert ("Traceback" in done.stderr) == (level > 0)
        assert "no table 'nope'" in done.stderr
    refused = rislab_here("ablate", "plan", "cris", "-q", "-v")
    assert "not allowed with argument" in refused.stderr


def test_what_is_prepared_is_announced_with_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    messages.preparing("pretraining it", 61, "/cache")
    messages.preparing("nothing to speak of", 1)
    messages.set_level(-1)
    messages.preparing("silence", 100)
    said = capsys.readouterr()
    assert said.err == "rislab: pretraining it: about 1 minute, once; kept in /cache\n"
    assert said.out == ""
    assert [messages.duration(s) for s in (6, 24, 100, 5000, 7200)] == [
        "some seconds",
        "about 20 seconds",
        "about 2 minutes",
        "about 83 minutes",
        "about 2 hours",
    ]


def test_one_broken_table_hides_no_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablations").mkdir()
    tiny_table(tmp_path).rename(tmp_path / "ablations" / "good.yaml")
    (tmp_path / "ablations" / "bad.yaml").write_text("name: bad\nrowz: []\n")
    monkeypatch.chdir(tmp_path)
    for arguments in (("methods", "--json"), ("methods",)):
        done = rislab_here(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "bad.yaml is left out" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    found = {one["name"]: one["tables"] for one in json.loads(rislab_here("methods", "--json", cwd=tmp_path).stdout)}
    assert found["cris"] == ["cris", "good"]
    assert len(found) > 10


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tables", "rislab", "ablate", "run", "cri"], ["cris"]),
        (
            ["rows", "rislab", "ablate", "run", "cris", "--rows", "con+"],
            ["con+dec1", "con+dec2", "con+dec3", "con+dec4"],
        ),
        (["rows", "rislab", "ablate", "run", "cris", "--rows", "base,dec"], ["base,dec1"]),
        (["rows", "rislab", "ablate", "run", "nope", "--rows", ""], []),
        (["profiles", "rislab", "ablate", "plan", "cris", "--profile", "own"], ["own", "own-r50"]),
        (["methods", "rislab", "methods", "tc"], ["tcl"]),
        (["benchmarks", "rislab", "matrix", "--benchmarks", "toy-v"], ["toy-voc"]),
        (["stars", ""], []),
    ],
)
def test_names_are_completed(words: list[str], expected: list[str]) -> None:
    done = rislab_here("completion", "names", *words)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.split() == expected


def in_bash(script: Path, line: str, folder: Path) -> list[str]:
    """What bash offers for a line that ends where the cursor is."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        f"source '{script}'\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n"
        "name=$(complete -p rislab | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        f"$name rislab '{words[-1]}' '{words[-2]}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    return done.stdout.split()


def own_command(folder: Path) -> None:
    """`rislab` of this tree, as a command in a folder."""
    command = folder / "rislab"
    paths = ":".join(path for path in sys.path if path)
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{paths}" exec {sys.executable} -m rislab.cli.main "$@"\n')
    command.chmod(0o755)


def test_bash_completes_commands_options_and_names(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    done = rislab_here("completion", "bash")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "rislab.bash"
    script.write_text(done.stdout)
    own_command(tmp_path)
    assert in_bash(script, "rislab abl", tmp_path) == ["ablate"]
    assert in_bash(script, "rislab ablate pl", tmp_path) == ["plan"]
    assert in_bash(script, "rislab ablate plan --laun", tmp_path) == ["--launcher"]
    assert in_bash(script, "rislab ablate plan cri", tmp_path) == ["cris"]
    assert in_bash(script, "rislab ablate plan cris --rows con+dec", tmp_path) == [f"con+dec{n}" for n in range(1, 5)]
    assert in_bash(script, "rislab fit --conf", tmp_path) == ["--config"]
    assert "experiments/cris/own.yaml" in in_bash(script, "rislab fit --config experiments/cris/o", tmp_path)


def in_zsh(folder: Path, lines: list[str]) -> list[str]:
    """What each line is after a Tab at its end, in an interactive zsh with `_rislab` and `rislab` of a folder."""
    said = folder / "said"
    said.touch()
    start = (
        f"cd '{ROOT}'; PROMPT= RPROMPT=; PATH='{folder}':/usr/bin:/bin; fpath=('{folder}' $fpath)\n"
        f"autoload -Uz compinit && compinit -u -d '{folder}/dump'\n"
        f"told() {{ print -r -- \"$BUFFER\" >> '{said}'; BUFFER= }}; zle -N told; bindkey '^X' told; bindkey '^I' complete-word\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {"TERM": "dumb", "HOME": str(folder), "PATH": "/usr/bin:/bin"})
    try:
        os.write(terminal, start.encode())
        for number, line in enumerate(lines, 1):
            os.write(terminal, f"{line}\t\x18".encode())
            end = time.monotonic() + 60
            while len(said.read_text().splitlines()) < number:
                assert time.monotonic() < end, said.read_text()
                if select.select([terminal], [], [], 0.05)[0]:
                    os.read(terminal, 65536)
        return said.read_text().splitlines()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
def test_zsh_completes_commands_options_and_names(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    (tmp_path / "_rislab").write_text(completion.script("zsh"))
    own_command(tmp_path)
    expected = {
        "rislab abl": "rislab ablate ",
        "rislab ablate pl": "rislab ablate plan ",
        "rislab ablate plan --laun": "rislab ablate plan --launcher ",
        "rislab ablate plan cri": "rislab ablate plan cris ",
        "rislab ablate plan cris --rows con+dec1,bas": "rislab ablate plan cris --rows con+dec1,base ",
        "rislab methods tc": "rislab methods tcl ",
        "rislab fit --conf": "rislab fit --config ",
        "rislab fit --config experiments/cris/own.": "rislab fit --config experiments/cris/own.yaml ",
    }
    found = in_zsh(tmp_path, list(expected))
    assert [line.rstrip() for line in found] == [line.rstrip() for line in expected.values()]


REPORTING = {
    "score", "methods", "claims", "doctor", "matrix", "check", "leaks", "show", "pack", "toy", "clip", "import", "export",
    "plan", "run", "status", "report", "verify", "retry", "cancel", "gc", "browse", "compare", "cost",
}  # fmt: skip
"""Commands and actions that report something; `export-sweep` and `completion` print what other programs read."""


def test_every_command_that_reports_has_json() -> None:
    found = {}
    for each in leaves(parser()):
        found[each.prog.split()[-1]] = any("--json" in action.option_strings for action in each._actions)
    assert {name for name in REPORTING if not found[name]} == set()
    assert subparsers(parser()).keys() >= {"score", "methods"}


def test_waiting_for_another_process_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    cells: Any = [SimpleNamespace(name="full s0", state="running"), SimpleNamespace(name="base s0", state="done")]
    with RunView().following(cells) as show:
        for _ in range(3):
            show({"full s0": "held by process 7"})
        show({})
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["full s0: held by process 7", "base s0: done", "full s0: running"]
