"""Texts that repeat themselves: loops of small models, and text that is meant so.

Those in ``said_by_small_model.json`` were said by SmolLM2-135M-Instruct at temperature 0; the others are
made after what models and people write.
"""

from __future__ import annotations

import json
from pathlib import Path

_SAID = json.loads(Path(__file__).with_name("said_by_small_model.json").read_text("utf-8"))

_VERSE = "Oh, the river runs down to the sea,\nand it carries the morning to me.\n"
_CHORUS = "Sing it loud, sing it low,\nlet the whole wide valley know.\n"

LOOPS: dict[str, str] = {
    **{f"said: {name}": text for name, text in _SAID["loops"].items()},
    "a word": "It is very " + "very " * 200,
    "a word with a comma": "The sky is blue, " + "blue, " * 180,
    "a sentence": "Thank you for asking. " + "I am happy to help you with that. " * 40,
    "a short sentence": "Yes. " + "I see. " * 150,
    "two sentences": "I am a man. You are a man. " * 50,
    "a question": "What is love? " * 80,
    "an apology": "I'm sorry for any confusion. I'm here to help with any kind of writing. " * 20,
    "a list item": "Steps:\n" + "- Add the flour and mix well.\n" * 40,
    "a bullet without text": "Names:\n" + "- Anna\n" * 150,
    "a paragraph": (
        "The company has grown over the years, and it is now one of the largest in the country. It has "
        "offices in many cities, and it employs thousands of people who work on new products.\n\n"
    )
    * 6,
    "a long paragraph": (
        "In conclusion, it is important to note that the history of the region is long and complex, and "
        "that many different people have lived there. They have brought their own culture, their own "
        "language and their own food, and all of this has made it what it is today.\n\n"
    )
    * 6,
    "a heading": "## Summary\n\n" * 60,
    "a code line": "```python\n" + "    x = x + 1\n" * 60,
    "a function": "def add(a, b):\n    return a + b\n\n" * 25,
    "an import": "import numpy as np\n" * 50,
    "a digit": "The answer is 0." + "0" * 700,
    "a period of digits": "One divided by seven is 0." + "142857" * 120,
    "a row of a table": "| Name | Price |\n|---|---|\n" + "| Apple | $1.00 |\n" * 50,
    "a cell": "| " + "apple | " * 120,
    "an object": '{"users": [' + '{"name": "John", "age": 30}, ' * 40,
    "a key": "{" + '"name": "John Doe", ' * 60,
    "a closing tag": "<div>" * 150,
    "an emoji with a letter": "so nice 😀 " * 90,
    "Chinese": "我们" + "非常感谢您的支持和理解。" * 50,
    "Japanese": "はい、" + "そうです。" * 120,
    "German": "Das ist eine gute Frage. " * 40,
    "Arabic": "شكرا جزيلا لك. " * 60,
    "Hindi": "यह बहुत अच्छा है। " * 50,
    "a link": "See https://example.com/page for more. " * 30,
    "a turn of a dialogue": "User: Hello\nAssistant: Hello\n" * 40,
    "a special token": "The end.<|im_end|>" + "<|im_end|>" * 80,
    "a role": "assistant\n" * 100,
    "a step": "Let me think about it again. Wait, that is not right. " * 25,
}

GOOD: dict[str, str] = {
    **{f"said: {name}": text for name, text in _SAID["good"].items()},
    "a table of equal rows": "| day | open | late |\n|---|---|---|\n" + "| yes | yes | no |\n" * 7,
    "a table with zeros": "| a | b | c | d |\n|---|---|---|---|\n" + "| 0 | 0 | 0 | 0 |\n" * 12,
    "a wide table": "|" + " x |" * 24 + "\n|" + "---|" * 24 + "\n" + ("|" + " 0 |" * 24 + "\n") * 3,
    "a table of prices": "".join(f"| Apple {n} | $1.00 | in stock |\n" for n in range(40)),
    "a timetable": "".join(f"| {h:02}:00 | open | open | open | open |\n" for h in range(24)),
    "a table with empty cells": "| name | | | |\n" + "| | | | |\n" * 40,
    "equal JSON rows": "[\n" + '  {"x": 0, "y": 0},\n' * 12 + '  {"x": 1, "y": 0}\n]',
    "JSON rows that differ": json.dumps([{"id": n, "name": "user", "on": True} for n in range(60)]),
    "a JSON array of zeros": json.dumps([0] * 100),
    "a JSON array of true": json.dumps({"open": [True] * 31}),
    "a matrix": json.dumps([[0] * 8] * 8),
    "a matrix of ones": "\n".join(" ".join(["1.0"] * 10) for _ in range(8)),
    "an identity matrix": "\n".join(
        " ".join("1" if a == b else "0" for b in range(12)) for a in range(12)
    ),
    "JSON of empty lists": json.dumps({"days": [{"from": None, "to": None}] * 7}),
    "CSV": "date,open,closed\n" + "".join(f"2024-01-{n:02},yes,no\n" for n in range(1, 32)),
    "equal CSV rows": "n,a,b\n" + "true,false,false\n" * 12,
    "a refrain": (_VERSE + _CHORUS * 2) * 3 + _CHORUS * 3,
    "a refrain of one line": "We will, we will go home!\n" * 8,
    "la la la": "And then we sang: " + "la la la " * 20 + "la!\n",
    "na na na": ("Na na na na, na na na na, hey hey, good day!\n" * 4 + "And once again:\n") * 3,
    "hey": "Hey, " + "hey, hey, " * 15 + "come to me!",
    "row, row": "Row, row, row your boat,\ngently down the stream.\n" * 4 + "Merrily!\n",
    "ten bottles": "".join(
        f"{n} green bottles hanging on the wall,\n" * 2 + "and if one should fall,\n"
        for n in range(10, 0, -1)
    ),
    "a mantra": "Om mani padme hum. " * 12,
    "a litany": "".join(f"{name}, pray for us.\n" for name in ["Anna", "Bert", "Carl", "Dora"] * 6),
    "laughing": "He laughed: " + "ha" * 60 + "!",
    "a scream": "A" * 120 + "!",
    "a long no": "No" + "o" * 200 + "!",
    "no, no": "No, " * 12 + "that will not do.",
    "lines of code": "".join(f"    self.x{n} = 0\n" for n in range(30)),
    "equal lines of code": "def bounce():\n" + "    move(1)\n    turn(90)\n" * 8,
    "a byte string": "data = bytes([" + "0x00, " * 48 + "0xff])",
    "a hex dump": "".join(f"{n * 16:08x}  00 00 00 00 00 00 00 00\n" for n in range(12)),
    "closing brackets": "    }\n" * 6 + "  end\n" * 6 + "})" * 10,
    "a switch": "".join(f"case {n}:\n    return 0;\n    break;\n" for n in range(20)),
    "closing tags": "</div>\n" * 12,
    "table cells in HTML": "<tr>" + "<td>0</td>" * 20 + "</tr>\n",
    "options in HTML": "".join(f'<option value="{n}">x</option>\n' for n in range(40)),
    "an SQL insert": "INSERT INTO t VALUES " + "(0, 'x', NULL), " * 15 + "(1, 'y', NULL);",
    "a list": "".join(f"{n}. Write a test for it.\n" for n in range(1, 30)),
    "a to-do list": "- [ ] open\n" * 12 + "- [x] done\n" * 6,
    "a placeholder": "Lorem ipsum dolor sit amet. " * 8,
    "lines to be filled in": "Name: ____\nDate: ____\n" * 8,
    "a rule": "-" * 400 + "\n" + "=" * 400 + "\n" + "- " * 300,
    "dots in a table of contents": "".join(f"Part {n} {'.' * 60} {n}\n" for n in range(12)),
    "a board": ("." * 8 + "\n") * 8 + "x.x.x.x.\n.x.x.x.x\n" * 4,
    "binary": "01" * 32 + " " + "0" * 128 + " " + "1" * 64,
    "a third": "1/3 = 0." + "3" * 100 + "…",
    "DNA": "TTAGGG" * 30,
    "Morse": "... --- ... " * 20 + "SOS " * 20,
    "an empty schedule": "".join(
        f"{day}: free\n" for day in ["Mon", "Tue", "Wed", "Thu", "Fri"] * 6
    ),
    "chess": "".join(f"{n}. Nf3 Nf6 {n + 1}. Ng1 Ng8 " for n in range(1, 40, 2)),
    "a log": "".join(f"12:00:{n:02} INFO request handled in 5 ms\n" for n in range(60)),
    "equal log lines": "INFO retry in 5 s\n" * 12 + "ERROR gave up\n",
    "dialogue": "- Yes?\n- Yes.\n" * 10 + "- Good.\n",
    "Chinese": "加油\uff01" * 20 + "我们一定能赢。",
    "prose": "The sea is a place where people dream. " * 3
    + "It is wide, and blue, and it is cold.",
}
