"""Regular expressions that can be matched against an incomplete text, in bounded time.

tree.py         the syntax tree of an expression, and how many characters and steps decide about a match
open_ended.py   rewrites an expression for a text that goes on
expression.py   the questions that requirements ask an expression
scanners.py     scanners that ask them while the text comes
normal_text.py  the same under Unicode normalisation
"""
