"""Public names that are imported when they are first used, so that an import costs what is used.

A package's stub, the ``__init__.pyi`` beside its ``__init__.py``, is the one list of them: type checkers and editors
read it as it is, and the interpreter reads here which module has which name. A name that only a package inside has is
found too, with a warning that says from where to import it: what has moved from one list to the other still runs.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, cast

_IMPORT: Final = re.compile(r"^from (\S+) import (\w+) as \w+$", re.MULTILINE)


def exported(package: str, inside: str = "") -> Mapping[str, str]:
    """The names in the stub of a package, or of the one inside it, each with the module that has it."""
    stub = pkgutil.get_data(package, f"{inside}/__init__.pyi" if inside else "__init__.pyi")
    assert stub is not None
    return {name: module for module, name in _IMPORT.findall(stub.decode())}


def export_lazily(package: str) -> None:
    """Give a package that is being imported its public names: ``__all__``, ``__getattr__`` and ``__dir__``."""
    modules = exported(package)
    namespace = vars(sys.modules[package])

    def get(name: str) -> object:
        if name in modules:
            # as an import statement has it, for the name may be that of a module
            value: object = getattr(__import__(modules[name], fromlist=[name]), name)
            namespace[name] = value
            return value
        room = _room_of(name, package)
        if room is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        warnings.warn(
            f"{name} is not listed in {package}; import it from {room}",
            DeprecationWarning,
            stacklevel=2,
        )
        return cast("object", getattr(importlib.import_module(room), name))

    namespace["__all__"] = [*modules]
    namespace["__getattr__"] = get
    namespace["__dir__"] = lambda: sorted({*namespace, *modules})


def _room_of(name: str, package: str) -> str | None:
    """The package inside this one that has a name."""
    if name.startswith("_"):  # tools that inspect modules ask for many of these
        return None
    for module in pkgutil.iter_modules(sys.modules[package].__path__):
        with suppress(OSError):  # it has no stub; no FileNotFoundError inside a zip archive
            if module.ispkg and name in exported(package, module.name):
                return f"{package}.{module.name}"
    return None
