"""Every method of the package, built small: each method's own test module offers `tiny()`."""

import importlib

from rislab.ablation import signature
from rislab.testing import Factory


def factories() -> dict[str, Factory]:
    """By the method's name. A method whose test module is missing, or offers no `tiny`, fails here."""
    return {name: importlib.import_module(f"tests.methods.test_{name}").tiny for name in signature.methods()}
