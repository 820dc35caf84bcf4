"""What users compose: sessions, streams, components, requirements and strategies.

What Mellea exports from its ``stdlib`` can be imported from here, and what the root does not have of these rooms; see
``__init__.pyi``.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
