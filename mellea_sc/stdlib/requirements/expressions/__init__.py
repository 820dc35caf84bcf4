"""Regular expressions that can be matched against an incomplete text, in bounded time.

tree.py         an expression as a tree of our own
size.py         how far it reaches, and in how many ways
open_ended.py   written so that the end of what is known is told from the end of the text
expression.py   the questions that requirements ask
scanners.py     scanners that ask them while the text comes
normal_text.py  the same under Unicode normalisation
"""
