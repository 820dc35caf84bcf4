"""What :class:`~mellea_sc.ValidJSON` is made of.

text.py           whether a text is JSON as far as it goes, character by character
around.py         where it stands: alone, in a fence, in prose
schema.py         what it has to fit, once it is whole
schema_checks.py  whether a schema can be asked for at all
"""
