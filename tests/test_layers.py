"""The layers of docs/architecture.md: a package imports only what is below it, and the light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"cli"},
    {"api", "browse"},
    {"report", "launch", "bench", "testing"},
    {"training", "scoring"},
    {"ablation", "methods", "datamodules"},
    {"evaluation", "encoders"},
    {"data"},
    {"nn", "losses", "metrics"},
    {"paths", "moved_names"},
    {"messages"},
    {"files", "errors", "ranks", "printable"},
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FORBIDDEN = {("report", "methods"), ("launch", "methods"), ("report", "data"), ("launch", "data")}
HEAVY = ("torch", "lightning", "cv2", "albumentations", "textblob", "wandb", "open_clip", "transformers")
LINES = 500


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("rislab.")}


def sources() -> list[Path]:
    return sorted((ROOT / "rislab").rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_imports_only_what_is_below(path: Path) -> None:
    parts = path.relative_to(ROOT / "rislab").with_suffix("").parts
    package = parts[0]
    if package == "__init__":
        return
    for name in imports(path):
        other = name.split(".")[1]
        if other == package or other not in LEVEL:
            continue
        assert LEVEL[other] > LEVEL[package], f"{path}: {package} must not import {other} ({name})"
        assert (package, other) not in FORBIDDEN, f"{path}: {package} must not import {other} ({name})"


def test_no_method_imports_another() -> None:
    for path in (ROOT / "rislab" / "methods").glob("*/*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[1] == "methods" and len(parts) > 2 and parts[2] != "base":
                assert parts[2] == path.parent.name, f"{path} imports {name}"


def test_wandb_stays_with_the_launcher() -> None:
    """A mirror of trial directories: were it inside of training, a fault of wandb's could be a trial's."""
    found = {
        str(path.relative_to(ROOT / "rislab"))
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "wandb" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wandb")
    }
    assert found == {"launch/wandb_mirror.py"}


def test_every_package_has_a_layer() -> None:
    packages = {p.stem for p in (ROOT / "rislab").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert packages - {"__init__"} == set(LEVEL)


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text().splitlines())) > LINES}
    assert not long


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ablate", "plan", "cris"],
        ["ablate", "status", "cris"],
        ["ablate", "run", "--help"],
        ["ablate", "trial", "--help"],
        ["ablate", "export-sweep", "cris"],
        ["data", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from rislab.cli.main import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    runs = ["--runs", str(tmp_path)] if arguments[-1] == "cris" else []
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, *runs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("[]"), done.stderr
