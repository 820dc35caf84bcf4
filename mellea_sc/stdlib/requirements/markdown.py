"""Markdown line by line: in which block quotes and list items a line stands, and which fences it opens and closes.

The rules are those of CommonMark 0.31 (section 5 for what contains a line, 4.5 for fences, 4.6 for HTML). A
line's meaning depends on the lines before it and never on those after it, so one pass is enough. Left out
are definitions of links: such a line counts as one of a paragraph.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["Fence", "LineIs", "Lines", "may_open"]

LineIs: TypeAlias = Literal["plain", "opening", "inside"]
"""A line outside of fenced blocks, the first of one, another of one (its last too)."""

TAB: Final = 4
_FENCE: Final = re.compile(r"(`{3,})([^`]*)\Z|(~{3,})(.*)\Z", re.DOTALL)
_MARKER: Final = re.compile(r"(?:[-+*]|(\d{1,9})[.)])(?=[ \t]|\Z)", re.ASCII)
_BREAK: Final = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})\Z")
_UNDERLINE: Final = re.compile(r"(?:=+|-+)[ \t]*\Z")
_HEADING: Final = re.compile(r"#{1,6}(?:[ \t]|\Z)")
_BLANK: Final = re.compile(r"[ \t]*\Z")
_TAG: Final = (
    r"address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div"
    r"|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li"
    r"|link|main|menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td"
    r"|tfoot|th|thead|title|tr|track|ul"
)
_ATTRIBUTE: Final = (
    r"""[ \t]+[A-Za-z_:][\w:.-]*(?:[ \t]*=[ \t]*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
)
_HTML: Final = (  # what begins a block of HTML, and what ends it; a blank line where there is no such thing
    (
        re.compile(r"<(?:script|pre|style|textarea)(?=\s|>|\Z)", re.I),
        re.compile(r"</(?:script|pre|style|textarea)>", re.I),
    ),
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<![A-Za-z]"), re.compile(r">")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
    (re.compile(rf"</?(?:{_TAG})(?=\s|/?>|\Z)", re.I), None),
)
_ANY_TAG: Final = re.compile(
    rf"(?:<[A-Za-z][A-Za-z0-9-]*(?:{_ATTRIBUTE})*+[ \t]*/?>|</[A-Za-z][A-Za-z0-9-]*[ \t]*>)[ \t]*\Z"
)
_MAY_OPEN: Final = re.compile(
    r"(?:[ \t>]|[-+*](?=[ \t]|\Z)|\d{1,9}(?:[.)](?=[ \t]|\Z)|\Z))*+(?:`{0,2}|~{0,2}|`{3,}[^`]*|~{3,}.*)\Z",
    re.DOTALL | re.ASCII,
)


def may_open(beginning: str) -> bool:
    """Whether a line that begins so may turn out to open a fenced block."""
    return _MAY_OPEN.match(beginning) is not None


@attrs.frozen
class Fence:
    """The first line of a fenced block.

    Args:
        marks: Its backquotes or tildes.
        info: What stands behind them.
    """

    marks: str
    info: str

    def is_closed_by(self, said: str) -> bool:
        """Whether a line without its indentation closes the block."""
        said = said.rstrip(" \t")
        return len(said) >= len(self.marks) and not said.strip(self.marks[0])


@attrs.define
class _Box:
    """A block quote (``width`` is 0), or a list item whose lines are so far indented."""

    width: int
    is_empty: bool = False


class _Cursor:
    """A line, read from its beginning: ``at`` is its next character that is no white space.

    Columns are counted as tabs are seen; ``used`` is how many are read, which may end within a tab.
    """

    def __init__(self, line: str) -> None:
        self.line = line
        self.used = 0
        self.at = 0
        self.column = 0
        self._skip()

    def _skip(self) -> None:
        while self.at < len(self.line) and self.line[self.at] in " \t":
            is_tab = self.line[self.at] == "\t"
            self.column += TAB - self.column % TAB if is_tab else 1
            self.at += 1

    @property
    def indent(self) -> int:
        return self.column - self.used

    @property
    def is_blank(self) -> bool:
        return self.at == len(self.line)

    @property
    def rest(self) -> str:
        return self.line[self.at :]

    def take(self, count: int) -> None:
        """Read so many characters that are no white space."""
        self.at += count
        self.column += count
        self.used = self.column
        self._skip()

    def take_quote(self) -> bool:
        """Read the mark of a block quote, if there is one."""
        if self.indent >= TAB or self.is_blank or self.line[self.at] != ">":
            return False
        self.take(1)
        self.used += min(self.indent, 1)
        return True


class Lines:
    """The state between two lines.

    Attributes:
        fence: That of the block which is open.
    """

    def __init__(self) -> None:
        self.fence: Fence | None = None
        self._boxes: list[_Box] = []
        self._has_paragraph = False
        self._is_html = False
        self._html_ends: re.Pattern[str] | None = None

    def is_inside(self, beginning: str) -> bool:
        """Whether a line that begins so belongs to the open block: its first word, or all, is known."""
        return self.fence is not None and self._within(_Cursor(beginning)) == len(self._boxes)

    def read(self, line: str) -> LineIs:
        """Take a line, without its end; of a long one the beginning is enough."""
        if not (line or self._boxes or self.fence):
            self._has_paragraph = False
            self._is_html = self._is_html and self._html_ends is not None
            return "plain"
        cursor = _Cursor(line)
        matched = self._within(cursor)
        if matched == len(self._boxes):
            if self.fence is not None:
                if cursor.indent < TAB and self.fence.is_closed_by(cursor.rest):
                    self.fence = None
                return "inside"
            if self._is_html:
                self._end_html(cursor)
                return "plain"
        return self._open(cursor, matched)

    def _within(self, cursor: _Cursor) -> int:
        """In how many of the boxes a line stands; reads their marks."""
        for matched, box in enumerate(self._boxes):
            if not box.width:
                if not cursor.take_quote():
                    return matched
            elif cursor.indent >= box.width:
                cursor.used += box.width
            elif not cursor.is_blank or box.is_empty:
                return matched
        return len(self._boxes)

    def _end_html(self, cursor: _Cursor) -> None:
        ends = self._html_ends
        self._is_html = not (cursor.is_blank if ends is None else ends.search(cursor.rest))

    def _open(self, cursor: _Cursor, matched: int) -> LineIs:
        boxes = self._boxes[:matched]
        is_left = matched < len(self._boxes)
        continues = self._has_paragraph and not is_left
        while not cursor.is_blank and cursor.indent < TAB:
            if cursor.take_quote():
                boxes.append(_Box(0))
            elif fence := _FENCE.match(cursor.rest):
                self._settle(boxes)
                self.fence = Fence(fence[1] or fence[3], fence[2] or fence[4] or "")
                return "opening"
            elif self._opens_html(cursor, self._has_paragraph and len(boxes) == matched):
                self._settle(boxes)
                self._is_html = True
                self._end_html(cursor)
                return "plain"
            elif self._is_line_alone(cursor, continues):
                self._settle(boxes)
                return "plain"
            elif (box := _item(cursor, continues)) is not None:
                boxes.append(box)
            else:
                break
            continues = False
        opened = len(boxes) > matched
        if cursor.is_blank:
            self._boxes = boxes
            self._leave_leaf()
        elif is_left and not opened and self._has_paragraph:
            pass  # a lazy line: the paragraph goes on without the marks of its boxes
        else:
            self._settle(boxes)
            self._has_paragraph = continues or cursor.indent < TAB
        return "plain"

    def _settle(self, boxes: list[_Box]) -> None:
        """A line with text in these boxes; the others are closed."""
        for box in boxes:
            box.is_empty = False
        self._boxes = boxes
        self._leave_leaf()

    def _leave_leaf(self) -> None:
        """What lines of text stand in is over: a block of code or HTML, or a paragraph."""
        self.fence = None
        self._has_paragraph = self._is_html = False

    def _opens_html(self, cursor: _Cursor, has_paragraph: bool) -> bool:
        rest = cursor.rest
        if rest[0] != "<":
            return False
        for begins, ends in _HTML:
            if begins.match(rest):
                self._html_ends = ends
                return True
        self._html_ends = None
        return not has_paragraph and _ANY_TAG.match(rest) is not None

    def _is_line_alone(self, cursor: _Cursor, continues: bool) -> bool:
        """Whether it is a heading or a thematic break."""
        rest = cursor.rest
        if continues and _UNDERLINE.match(rest):
            return True
        return bool(_HEADING.match(rest) or _BREAK.match(rest))


def _item(cursor: _Cursor, continues: bool) -> _Box | None:
    """The list item that begins here, if one does; ``continues``: in the middle of a paragraph."""
    marker = _MARKER.match(cursor.rest)
    if marker is None:
        return None
    is_empty = _BLANK.match(cursor.rest, marker.end()) is not None
    if continues and (is_empty or (marker[1] is not None and int(marker[1]) != 1)):
        return None
    before = cursor.indent
    cursor.take(marker.end())
    spaces = cursor.indent if not is_empty and cursor.indent <= TAB else 1
    cursor.used += min(spaces, cursor.indent)
    return _Box(before + marker.end() + spaces, is_empty)
