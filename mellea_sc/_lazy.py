"""Public names that are imported when they are first used, so that an import costs what is used.

A package's stub, the ``__init__.pyi`` beside its ``__init__.py``, is the one list of them: type checkers and editors
read it as it is, and the interpreter reads here which module has which name.
"""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["export_lazily", "exported"]

_IMPORT: Final = re.compile(r"^from (\S+) import (\w+) as \w+$", re.MULTILINE)


def exported(package: str) -> Mapping[str, str]:
    """The names in a package's stub, each with the module that has it."""
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None
    return {name: module for module, name in _IMPORT.findall(stub.decode())}


def export_lazily(package: str) -> None:
    """Give a package that is being imported its public names: ``__all__``, ``__getattr__`` and ``__dir__``."""
    modules = exported(package)
    namespace = vars(sys.modules[package])

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # as an import statement has it, for the name may be that of a module
        value: object = getattr(__import__(modules[name], fromlist=[name]), name)
        namespace[name] = value
        return value

    namespace["__all__"] = [*modules]
    namespace["__getattr__"] = get
    namespace["__dir__"] = lambda: sorted({*namespace, *modules})
