"""What users compose: sessions, streams, components, requirements and strategies.

What Mellea exports from its ``stdlib`` can be imported from here, see ``__init__.pyi``, but for ``stream``, which is
a room here: that is in ``streaming``.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
