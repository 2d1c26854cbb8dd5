"""Constructors read from their source: options, types, defaults. Nothing is imported, so planning needs no torch.

This is possible because constructors here are flat, typed and have literal defaults; a class that breaks the habit is named.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from rislab.ablation import plugins
from rislab.errors import ConfigError, nearest
from rislab.moved_names import current, moved_option

REQUIRED = object()
PACKAGE = "rislab."


@dataclass(frozen=True)
class Option:
    """One constructor argument: its annotation as written, its default (or REQUIRED), its literal choices if any.

    Attributes:
        of: the class of ours that the annotation names, so that a plain mapping given for it can be filled in and checked.
    """

    name: str
    annotation: str
    default: Any
    choices: tuple[Any, ...] | None
    of: str | None = None


@dataclass(frozen=True)
class Signature:
    """What a class takes, and what it declares of its options.

    Attributes:
        absent_means: values that an option has in configs written before it existed.
        hashed_with: constants by their dotted path that count, each with the options it goes with; none for always. What code
            makes from a recipe changes with the code, and a version number says so.
        stages: values of the option `stage`, in the order in which they are trained, each from the one before.
        unused_in: options that change nothing in a stage, by its name: rows that differ in nothing else share it.
        splits_batches: stages ("" for a method without) in which a batch may be computed in parts with the same gradient, since
            no term and no normalisation looks across samples; each with the options that this takes.
        neutral: options that cannot change a result: where files lie, processes, caches.
        root_option: the option, dotted into a class inside, that says where the data lie; "" for a class that reads none.
        below_root: options that hold paths, of which those below the root move with it.
        required_files: function of `rislab.data.required_files`, by its dotted path, that says what must lie where; "" for none.
        folder_options: function of `rislab.data.required_files`, by its dotted path, that says which options follow from where
            data lie; "" for none.
        truth: function of `rislab.data.truth`, by its dotted path, that gives what was to be answered; "" for none.
        untrained_when: values of options with which nothing is trained, each alternative a mapping; an empty one for a method
            that trains nothing at all. Such a trial gives the same result with every seed.
        seed_option: the option that seeds what data draw, dotted into a class inside; "" where nothing is drawn.
        trains_on: the batches that a method's losses take, by the names of their classes; none for a method without training.
        gives: the batches that data give to training; "" for data that are only scored.
        from_stage: of data, the option that takes the folder of an earlier stage's outputs; "" for data that read none.
        produces: whether a method makes files for a later stage instead of training: its class defines `produce`.
        scored: whether what such a method makes is scored as well.
    """

    class_path: str
    options: dict[str, Option]
    absent_means: dict[str, Any] = field(default_factory=dict)
    hashed_with: dict[str, dict[str, Any]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    unused_in: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits_batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    neutral: tuple[str, ...] = ()
    root_option: str = ""
    below_root: tuple[str, ...] = ()
    required_files: str = ""
    truth: str = ""
    untrained_when: tuple[dict[str, Any], ...] = ()
    seed_option: str = ""
    trains_on: tuple[str, ...] = ()
    gives: str = ""
    from_stage: str = ""
    produces: bool = False
    scored: bool = False
    folder_options: str = ""


def source_file(module: str) -> Path:
    """File of one of our modules. Raises ConfigError when there is none."""
    found = plugins.source_of(module)
    if found is None:
        raise ConfigError(f"no module {module}")
    return found


@cache
def read(class_path: str) -> Signature:
    """Signature of `package.module.Class`, one of ours. Raises ConfigError for an unknown module or class."""
    module, _, name = current(class_path).rpartition(".")
    tree = ast.parse(source_file(module).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ConfigError(f"{module} has no class {name!r}{nearest(name, classes)}")
    node = classes[name]
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None and not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        raise ConfigError(f"{class_path} has no constructor of its own; its options cannot be read from its source")
    found = _from_init(init, class_path) if init is not None else _from_fields(node, class_path)
    ours = _classes_of_ours(tree, module)
    options = {option.name: replace(option, of=_named(option.annotation, ours)) for option in found}
    return Signature(
        class_path,
        options,
        _declared(node, "absent_means", {}),
        _declared(node, "hashed_with", {}),
        _declared(node, "stages", ()),
        _declared(node, "unused_in", {}),
        _declared(node, "splits_batches", {}),
        _declared(node, "neutral", ()),
        _declared(node, "root_option", ""),
        _declared(node, "below_root", ()),
        _declared(node, "required_files", ""),
        _declared(node, "truth", ""),
        _declared(node, "untrained_when", ()),
        _declared(node, "seed_option", ""),
        _declared_classes(node, "trains_on"),
        next(iter(_declared_classes(node, "gives")), ""),
        _declared(node, "from_stage", ""),
        any(isinstance(item, ast.FunctionDef) and item.name == "produce" for item in node.body),
        _declared(node, "scored", False),
        _declared(node, "folder_options", ""),
    )


def has_options(class_path: str) -> bool:
    """Whether a class has a constructor or fields to read; an enum has neither."""
    try:
        return bool(read(class_path).options)
    except ConfigError:
        return False


def trains_nothing(class_path: str, given: dict[str, Any]) -> bool:
    """Whether a method with these options is scored as it is, by what it declares; False for classes that are not ours."""
    if not is_described(class_path):
        return False
    known = read(class_path)
    full = {name: option.default for name, option in known.options.items()} | given
    return any(when.items() <= full.items() for when in known.untrained_when)


def _classes_of_ours(tree: ast.Module, module: str) -> dict[str, str]:
    """Class path by the name it goes by in a module: defined there, or imported from our package."""
    found = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and is_described(f"{node.module}."):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _named(annotation: str, ours: dict[str, str]) -> str | None:
    names = (node.id for node in ast.walk(ast.parse(annotation)) if isinstance(node, ast.Name))
    return next((ours[name] for name in names if name in ours), None)


def methods() -> dict[str, str]:
    """Class path of every method by name: ours by folder, the last class of task.py; then those of installed packages."""
    found = {}
    for path in sorted((source_file("rislab.methods").parent).glob("*/task.py")):
        classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        found[path.parent.name] = f"rislab.methods.{path.parent.name}.task.{classes[-1]}"
    return found | plugins.sound(plugins.METHODS, found)


def is_described(class_path: Any) -> TypeGuard[str]:
    """Whether a class declares its options in its source for us to read."""
    return isinstance(class_path, str) and (
        class_path.startswith(PACKAGE) or class_path.partition(".")[0] in plugins.packages()
    )


def data_modules() -> dict[str, str]:
    """Class path of every data module by the name of its class: classes of rislab.datamodules that have `gives` or a root."""
    found = {}
    for path in sorted(source_file("rislab.datamodules").parent.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and (
                _declared_classes(node, "gives") or _declared(node, "root_option", "")
            ):
                found[node.name] = f"rislab.datamodules.{path.stem}.{node.name}"
    return found | plugins.sound(plugins.DATASETS, found)


@cache
def constant(module: str, name: str) -> Any:
    """A literal that a module of ours assigns at its top level. Raises ConfigError when there is none."""
    for node in ast.parse(source_file(module).read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return _literal(node.value, f"{module}.{name}")
    raise ConfigError(f"{module} assigns no {name}")


def _from_init(init: ast.FunctionDef, class_path: str) -> list[Option]:
    arguments = init.args
    if arguments.vararg or arguments.kwarg:
        raise ConfigError(f"{class_path} takes *args or **kwargs: misspelt options would vanish in them")
    names = [a for a in (*arguments.posonlyargs, *arguments.args) if a.arg != "self"]
    missing = len(names) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(arguments.defaults)
    pairs = [*zip(names, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [_option(a.arg, a.annotation, default, class_path) for a, default in pairs]


def _from_fields(node: ast.ClassDef, class_path: str) -> list[Option]:
    """Fields of a dataclass."""
    return [
        _option(item.target.id, item.annotation, item.value, class_path)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    ]


def _option(name: str, annotation: ast.expr | None, default: ast.expr | None, class_path: str) -> Option:
    value = REQUIRED if default is None else _literal(default, f"{class_path}: default of {name}")
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body  # quoted
    return Option(name, ast.unparse(annotation) if annotation else "Any", value, _choices(annotation))


def _literal(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Attribute):
        return node.attr  # an enum's member goes by its name in a config
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ConfigError(f"{where} is not a literal: {ast.unparse(node)}") from None
    return list(value) if isinstance(value, tuple) else value


def _choices(annotation: ast.expr | None) -> tuple[Any, ...] | None:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        inner = annotation.slice
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return tuple(ast.literal_eval(item) for item in items)
    return None


def _declared(node: ast.ClassDef, name: str, default: Any) -> Any:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == name:
            return ast.literal_eval(item.value) if item.value else default
    return default


def _declared_classes(node: ast.ClassDef, name: str) -> tuple[str, ...]:
    """The names of the classes that a class variable is set to, one or `A | B`; none for None and where it is not declared."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == name:
            value = "None" if item.value is None else ast.unparse(item.value)
            return () if value == "None" else tuple(each.rpartition(".")[2] for each in value.split(" | "))
    return ()


def check(class_path: str, name: str, value: Any) -> str | None:
    """What is wrong with giving `value` to an option of a class, or None."""
    signature = read(class_path)
    short = class_path.rpartition(".")[2]
    option = signature.options.get(name)
    if option is None:
        moved = moved_option(class_path, name)
        return f"{name} is no option of {short}{moved or nearest(name, signature.options)}"
    if not _fits(ast.parse(option.annotation, mode="eval").body, value):
        wanted = f"one of {', '.join(map(repr, option.choices))}" if option.choices else option.annotation
        return f"{name} is {value!r}, {short} takes {wanted}"
    return None


PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _fits(node: ast.expr, value: Any) -> bool:
    """False when a value surely is nothing that an annotation allows. What only an import could tell is let through."""
    match node:
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(left, value) or _fits(right, value)
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id=name) if name in PLAIN:
            return isinstance(value, PLAIN[name]) and not isinstance(value, bool)
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            return _fits_generic(name, inner.elts if isinstance(inner, ast.Tuple) else [inner], value)
    return True


def _fits_generic(name: str, inner: list[ast.expr], value: Any) -> bool:
    match name:
        case "Literal":
            allowed = [ast.literal_eval(item) for item in inner]
            return any(value == each and type(value) is type(each) for each in allowed)
        case "Optional":
            return value is None or _fits(inner[0], value)
        case "Union":
            return any(_fits(item, value) for item in inner)
        case "list" | "Sequence":
            return isinstance(value, list) and all(_fits(inner[0], item) for item in value)
        case "tuple" if isinstance(inner[-1], ast.Constant) and inner[-1].value is ...:
            return isinstance(value, list) and all(_fits(inner[0], item) for item in value)
        case "tuple":
            return (
                isinstance(value, list)
                and len(value) == len(inner)
                and all(_fits(kind, item) for kind, item in zip(inner, value, strict=True))
            )
        case "dict" | "Mapping":
            return isinstance(value, dict) and all(_fits(inner[1], item) for item in value.values())
    return True


def check_config(
    class_path: str, given: dict[str, Any], takes_outputs: bool = False
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Mistakes in the options given to a class and to the classes inside them, each with its place below `given`.

    Args:
        takes_outputs: `from_stage` will be given by the plan.
    """
    known = read(class_path)
    for name, value in given.items():
        option = known.options.get(name)
        inner = value.get("class_path", option.of if option else None) if isinstance(value, dict) else None
        if option is None or not is_described(inner):
            wrong = check(class_path, name, value)
            if wrong:
                yield (name,), wrong
            continue
        options, path = (value.get("init_args", {}), (name, "init_args")) if "class_path" in value else (value, (name,))
        for position, wrong in check_config(inner, options):
            yield (*path, *position), wrong
    for option in known.options.values():
        if option.default is not REQUIRED or option.name in given:
            continue
        hint = ", which takes the outputs of a stage: a table writes `from: STAGE` and `takes: outputs`"
        is_taken = option.name == known.from_stage
        if not (is_taken and takes_outputs):
            yield (), f"{option.name} of {class_path.rpartition('.')[2]} is missing{hint if is_taken else ''}"
