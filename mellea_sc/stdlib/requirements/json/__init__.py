"""The parts of :class:`~mellea_sc.ValidJSON`.

text.py           decides character by character whether a text is JSON
schema.py         validates a complete JSON text against a schema
schema_checks.py  validates the schema itself
"""
