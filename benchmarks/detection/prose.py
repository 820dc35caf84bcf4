"""How many characters are held back while ordinary text streams, letter by letter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from mellea_sc import CodeBlocks, NoPII, NoSecrets, Requirement
from mellea_sc.stdlib.requirements.scanned import Scanner

__all__ = ["ORDINARY", "Held", "held_back"]

ORDINARY: Final[Mapping[str, str]] = {
    "English prose": (
        "The lighthouse was built in 1874, when 12 ships had been lost on the rocks within a single winter. Its keeper "
        "kept a diary, and what he wrote about the weather is still of use: in March the wind turns to the north-west, "
        "and for three or four days nobody can land. A path of about 2.5 km leads from the harbour to the tower; "
        'visitors are welcome from 10:00 to 16:30, except on Mondays. "It is not the height," he wrote, "but the '
        'silence that one has to get used to." Most people who climb the 199 steps agree with him. '
    ),
    "German prose": (
        "Der Leuchtturm wurde 1874 gebaut, nachdem in einem einzigen Winter zwölf Schiffe an den Klippen zerschellt "
        "waren. Sein Wärter führte ein Tagebuch, und seine Wetterbeobachtungen sind bis heute brauchbar: Im März dreht "
        "der Wind auf Nordwest, und drei oder vier Tage lang kann niemand anlegen. Vom Hafen führt ein etwa 2,5 km "
        "langer Weg zum Turm; Besichtigungen sind von 10:00 bis 16:30 Uhr möglich, außer montags. Die meisten, die die "
        "199 Stufen hinaufsteigen, geben ihm recht, auch wenn Höhenangst und Donaudampfschifffahrt nicht jedem liegen. "
    ),
    "Chinese prose": (
        "这座灯塔建于1874年，那年冬天有12艘船在礁石上失事。守塔人写日记，他对天气的记录至今仍然有用：三月里风转向西北，"
        "三四天之内谁也无法靠岸。从港口到灯塔有一条大约2.5公里的小路；除星期一外，每天10:00到16:30欢迎参观。"
        "他写道：“要习惯的不是高度，而是寂静。”登上199级台阶的人大多同意他的话。"
    ),
    "Arabic prose": (
        "بنيت المنارة عام 1874 بعد أن فقدت 12 سفينة على الصخور في شتاء واحد. كان حارسها يكتب يوميات، وما كتبه عن الطقس "
        "ما زال مفيدا: في مارس تتحول الريح إلى الشمال الغربي، ولا يستطيع أحد أن يرسو ثلاثة أيام أو أربعة. يمتد طريق طوله "
        "نحو 2.5 كم من الميناء إلى البرج؛ والزيارة متاحة من 10:00 إلى 16:30 ما عدا يوم الاثنين. "
    ),
    "code": (
        "def merge(left: list[int], right: list[int]) -> list[int]:\n"
        '    """Merge two sorted lists into one."""\n'
        "    merged, i, j = [], 0, 0\n"
        "    while i < len(left) and j < len(right):\n"
        "        if left[i] <= right[j]:\n"
        "            merged.append(left[i])\n"
        "            i += 1\n"
        "        else:\n"
        "            merged.append(right[j])\n"
        "            j += 1\n"
        "    return [*merged, *left[i:], *right[j:]]\n\n\n"
        "const total = items.filter((item) => item.price > 9.99).reduce((sum, item) => sum + item.price, 0);\n"
        'console.log(`total: ${total.toFixed(2)} of ${items.length}`, {"id": 1042, "tags": ["a", "b"]});\n'
    ),
}


@attrs.frozen
class Held:
    """Characters that have come and are not given away, after each character."""

    median: int
    most: int
    """In 95 of 100 cases it is no more."""


def held_back() -> dict[str, dict[str, Held]]:
    """For each text, those of each requirement."""
    made: list[Requirement] = [NoPII(), NoSecrets(), CodeBlocks(["python"])]
    return {
        name: {type(one).__name__: _held(one, text) for one in made}
        for name, text in ORDINARY.items()
    }


def _held(requirement: Requirement, text: str) -> Held:
    assert isinstance(requirement.chunking, Scanner)
    watch = requirement.chunking.fresh()
    given = 0
    held: list[int] = []
    for come, char in enumerate(text, 1):
        given += sum(map(len, watch.feed(char)))
        held.append(come - given)
    held.sort()
    return Held(held[len(held) // 2], held[len(held) * 95 // 100])
