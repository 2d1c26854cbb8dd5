"""The wheel is the product: in an empty folder it plans the same trials as the checkout, and `make wheel` runs one."""

import email
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import rislab
from rislab.ablation import plan, table
from rislab.ablation.trial import TrialDir
from tests.worlds import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked files of this tree, as they are."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without the build backend here, pip fetches it.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = ["wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (found,) = folder.glob("*.whl")
    return found


class Installed:
    """The wheel alone in a folder, and its command in another, empty one."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.site, self.work = folder / "site", folder / "work"
        self.work.mkdir()
        install = ["install", "--quiet", "--no-deps", "--target", str(self.site), str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)

    def rislab(self, *arguments: str, cwd: Path | None = None, code: int = 0) -> str:
        return self.python(str(self.site / "bin" / "rislab"), *arguments, cwd=cwd, code=code)

    def python(self, *arguments: str, cwd: Path | None = None, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.work,
            env=os.environ | {"PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def hashes(text: str) -> dict[str, str]:
    return {f"{each['row']} {each['stage']}": each["hash"] for each in json.loads(text)["trials"]}


def of_checkout(name: str) -> dict[str, str]:
    loaded = table.load(ROOT / "ablations" / f"{name}.yaml")
    cells = plan.plan(loaded, next(iter(loaded.profiles.values())), loaded.seeds, Path("runs"))
    return {f"{cell.row.name} {cell.stage}": cell.hash for cell in cells}


@pytest.mark.parametrize("name", ["cris", "clims"])
def test_an_empty_folder_plans_the_checkouts_trials(name: str, installed: Installed) -> None:
    assert installed.python("-c", "import rislab; print(rislab.__file__)").startswith(str(installed.site))
    assert hashes(installed.rislab("ablate", "plan", name, "--json")) == of_checkout(name)
    assert list(installed.work.iterdir()) == []


def test_every_file_of_the_checkout_is_there(installed: Installed) -> None:
    for folder in ("ablations", "experiments"):
        tracked = subprocess.run(
            ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, tracked.stdout.split("\0")):
            assert (installed.site / "rislab" / "resources" / name).read_bytes() == (ROOT / name).read_bytes(), name
    shown = json.loads(installed.rislab("methods", "--json"))
    assert "experiments/cris/toy.yaml" in next(each for each in shown if each["name"] == "cris")["experiments"]
    said = installed.rislab("ablate", "plan", "criss", code=2)
    assert "did you mean 'cris'" in said
    assert len(said.splitlines()) == 1


def test_a_copied_table_keeps_its_hashes_until_it_is_edited(installed: Installed, tmp_path: Path) -> None:
    said = installed.rislab("init", str(tmp_path / "study"), "cris", "clims")
    assert said.splitlines()[-1].endswith("rislab ablate plan cris")
    study = tmp_path / "study"
    assert hashes(installed.rislab("ablate", "plan", "clims", "--json", cwd=study)) == of_checkout("clims")
    config = study / "experiments" / "cris" / "toy.yaml"
    config.write_text(config.read_text().replace("max_epochs: 5", "max_epochs: 6"))
    edited = hashes(installed.rislab("ablate", "plan", "cris", "--json", cwd=study))
    assert not set(edited.values()) & set(of_checkout("cris").values())
    shown = installed.rislab("ablate", "plan", "cris", "--json", "--tables", str(study))
    assert hashes(shown) == edited, "--tables comes before the package"
    assert "is there already, and differs; nothing was written" in installed.rislab("init", str(study), code=2)
    table_file = study / "ablations" / "cris.yaml"
    text = table_file.read_text().replace("name: base\n", "name: bare\n").replace("[base]", "[bare]")
    table_file.write_text(text.replace("baseline: base", "baseline: bare"))
    assert "bare " in hashes(installed.rislab("ablate", "plan", "cris", "--json", "--tables", str(study)))
    assert "no such folder" in installed.rislab("ablate", "plan", "cris", "--tables", "gone", code=2)


def test_extras_name_what_is_not_required(wheel: Path, installed: Installed) -> None:
    """A package that only an extra brings is imported where it is used, and its error names the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {line.partition(">")[0].partition("[")[0] for line in project["dependencies"]}
    assert not required & {"wandb", "textblob", "lmdb", "submitit"}
    missing = (
        "import sys, importlib.metadata as m\nsys.modules.update({'textblob': None, 'textblob.en': None, 'nltk': None})\n"
        "from rislab.data import nouns\nfrom rislab.errors import ConfigError\n"
        "try:\n    print(nouns.nouns('a red circle'))\nexcept ConfigError as error:\n    print(error)"
    )
    assert installed.python("-c", missing).strip() == "nouns of sentences need a tagger: pip install 'rislab[nouns]'"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {project["version"], cited["version"]} == {rislab.__version__}
    assert project["license"] == cited["license"]


def test_an_address_is_stated_everywhere_or_nowhere(wheel: Path) -> None:
    """Before the first publication there is none; CONTRIBUTING says where it goes."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text()).get("repository-code")
    assert (cited is None) == (not urls)
    assert cited is None or cited in urls.values()
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(opened.read(metadata))
    assert set(said.get_all("Project-URL", [])) == {f"{name}, {url}" for name, url in urls.items()}
    assert all(url.startswith("https://") for url in urls.values())


def test_the_workflow_runs_what_a_person_runs() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert commands == {".ci/run", "make wheel"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_row_runs_to_its_report_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """As a user does it: an environment of its own with the wheel, an empty folder, one row of a table, its report.

    Dependencies are those of this environment, seen through a path file: this checkout is not.
    """
    home, work = tmp_path / "venv", tmp_path / "work"
    work.mkdir()
    venv.create(home, with_pip=False)
    (site,) = (home / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [
        str(home / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--ignore-installed",
        str(wheel),
    ]
    subprocess.run(install, check=True, env=environment)
    command = str(home / "bin" / "rislab")

    def rislab(*arguments: str) -> str:
        done = subprocess.run(
            [command, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import rislab; print(rislab.__file__)"],
        cwd=work, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    rislab("ablate", "run", "cris", "--rows", "base")
    rislab("ablate", "report", "cris", "--rows", "base")
    (trial,) = (work / "runs" / "cris-components").glob("base--s0--*")
    assert TrialDir(trial).inspect(thorough=True)[0] == "done"
    assert json.loads((trial / "identity.json").read_text())["hash"] == of_checkout("cris")["base "]
    shown = json.loads((trial / "metrics.json").read_text())["splits"]["test"]
    assert (work / "reports" / "cris-components" / "report.html").is_file()
    code = (
        "import rislab\nmodel = rislab.load('cris:base')\n"
        f"print(model.segment({str(ROOT / 'docs' / 'report.png')!r}, 'red circle').save('x.jpg'), rislab.results('cris'))"
    )
    done = subprocess.run(
        [str(home / "bin" / "python"), "-c", code],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    print(done.stdout, shown)
    assert (work / "x.jpg").is_file()
