"""Reads Markdown line by line, to find its fenced code blocks in block quotes and list items.

The rules are those of CommonMark 0.31 (section 5 for containers, 4.5 for fences, 4.6 for HTML). The meaning of a line
never depends on later lines, so one pass is enough. Link reference definitions are not recognised: they count as
paragraphs.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import attrs

LineIs: TypeAlias = Literal["plain", "opening", "inside"]
"""A line outside of fenced blocks, the first line of one, or another line of one, including the last."""

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
_HTML: Final = (  # the beginning and the end of an HTML block; without an end it ends at a blank line
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
    """Whether a line with this beginning may open a fenced block."""
    return _MAY_OPEN.match(beginning) is not None


@attrs.frozen
class Fence:
    """The first line of a fenced block.

    Args:
        marks: Its backticks or tildes.
        info: The text after them.
    """

    marks: str
    info: str

    def is_closed_by(self, line: str) -> bool:
        """Whether a line without its indentation closes the block."""
        line = line.rstrip(" \t")
        return len(line) >= len(self.marks) and not line.strip(self.marks[0])


@attrs.define
class _Container:
    """A block quote (``width`` is 0), or a list item whose lines are indented by ``width`` columns."""

    width: int
    is_empty: bool = False


class _Cursor:
    """A line that is read from its beginning; ``at`` is the position of the next character that is no white space.

    Columns are counted with tabs expanded. ``used`` is the number of columns read, and may end inside of a tab.
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
        """Read ``count`` characters that are no white space."""
        self.at += count
        self.column += count
        self.used = self.column
        self._skip()

    def take_quote(self) -> bool:
        """Read the marker of a block quote, if there is one."""
        if self.indent >= TAB or self.is_blank or self.line[self.at] != ">":
            return False
        self.take(1)
        self.used += min(self.indent, 1)
        return True


class Lines:
    """The state between two lines.

    Attributes:
        fence: The fence of the open block.
    """

    def __init__(self) -> None:
        self.fence: Fence | None = None
        self._containers: list[_Container] = []
        self._has_paragraph = False
        self._is_html = False
        self._html_ends: re.Pattern[str] | None = None

    def is_inside(self, beginning: str) -> bool:
        """Whether a line belongs to the open block, judging by its beginning: at least its first word."""
        return self.fence is not None and self._within(_Cursor(beginning)) == len(self._containers)

    def read(self, line: str) -> LineIs:
        """Read a line without its line break; of a long line the beginning is enough."""
        if not (line or self._containers or self.fence):
            self._has_paragraph = False
            self._is_html = self._is_html and self._html_ends is not None
            return "plain"
        cursor = _Cursor(line)
        matched = self._within(cursor)
        if matched == len(self._containers):
            if self.fence is not None:
                if cursor.indent < TAB and self.fence.is_closed_by(cursor.rest):
                    self.fence = None
                return "inside"
            if self._is_html:
                self._end_html(cursor)
                return "plain"
        return self._open(cursor, matched)

    def _within(self, cursor: _Cursor) -> int:
        """Read the markers of the open containers; returns how many of them contain the line."""
        for matched, container in enumerate(self._containers):
            if not container.width:
                if not cursor.take_quote():
                    return matched
            elif cursor.is_blank:
                if container.is_empty:
                    return matched
            elif cursor.indent >= container.width:
                cursor.used += container.width
            else:
                return matched
        return len(self._containers)

    def _end_html(self, cursor: _Cursor) -> None:
        ends = self._html_ends
        self._is_html = not (cursor.is_blank if ends is None else ends.search(cursor.rest))

    def _open(self, cursor: _Cursor, matched: int) -> LineIs:
        containers = self._containers[:matched]
        is_left = matched < len(self._containers)
        continues = self._has_paragraph and not is_left
        while not cursor.is_blank and cursor.indent < TAB:
            if cursor.take_quote():
                containers.append(_Container(0))
            elif fence := _FENCE.match(cursor.rest):
                self._begin_leaf(containers)
                self.fence = Fence(fence[1] or fence[3], fence[2] or fence[4] or "")
                return "opening"
            elif self._opens_html(cursor, self._has_paragraph and len(containers) == matched):
                self._begin_leaf(containers)
                self._is_html = True
                self._end_html(cursor)
                return "plain"
            elif self._is_line_alone(cursor, continues):
                self._begin_leaf(containers)
                return "plain"
            elif (item := _item(cursor, continues)) is not None:
                containers.append(item)
            else:
                break
            continues = False
        opened = len(containers) > matched
        if cursor.is_blank:
            self._containers = containers
            self._end_leaf()
        elif is_left and not opened and self._has_paragraph:
            pass  # a lazy continuation line: the paragraph goes on without the markers of its containers
        else:
            self._begin_leaf(containers)
            self._has_paragraph = continues or cursor.indent < TAB
        return "plain"

    def _begin_leaf(self, containers: list[_Container]) -> None:
        """Begin a leaf block in these containers; the others are closed."""
        for container in containers:
            container.is_empty = False
        self._containers = containers
        self._end_leaf()

    def _end_leaf(self) -> None:
        """End the current leaf block: a block of code or HTML, or a paragraph."""
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
        """Whether the line is a heading or a thematic break."""
        rest = cursor.rest
        if continues and _UNDERLINE.match(rest):
            return True
        return bool(_HEADING.match(rest) or _BREAK.match(rest))


def _item(cursor: _Cursor, continues: bool) -> _Container | None:
    """The list item that begins here, if there is one.

    Args:
        cursor: The line.
        continues: Whether the line would otherwise continue a paragraph.
    """
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
    return _Container(before + marker.end() + spaces, is_empty)
