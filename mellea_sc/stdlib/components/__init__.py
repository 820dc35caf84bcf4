"""What a user asks a model with; see ``__init__.pyi``."""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
