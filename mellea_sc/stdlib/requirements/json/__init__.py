"""The parts of :class:`~mellea_sc.ValidJSON`.

text.py           decides character by character whether a text is JSON
schema.py         validates a complete JSON text against a schema
keywords.py       keywords of schemas that take bounded time
schema_checks.py  validates the schema itself
"""
