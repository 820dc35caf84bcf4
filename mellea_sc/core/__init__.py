"""Values and contracts: no tasks, no I/O. Imports nothing of ours but itself.

What Mellea exports from its ``core`` can be imported from here, and values that the root does not have; see
``__init__.pyi``. The modules have more.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
