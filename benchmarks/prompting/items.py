"""The questions, what their answers have to hold, and the rules that say whether they do.

A question is easy: without any requirement the embedded model answers most of them. Each has one
requirement, in turn, and every fourth a second one; some of these a rule can check, some not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "BEGINNINGS",
    "QUESTIONS",
    "RULES",
    "WRITINGS",
    "Item",
    "has_met",
    "is_parroted",
    "sentences",
]


def sentences(text: str) -> int:
    """How many sentences there are, by their last marks."""
    return max(1, len(re.findall(r"[.!?]+[\"')]*(?=\s|$)", text))) if text.strip() else 0


RULES: dict[str, Callable[[str], bool] | None] = {
    "at most 2 sentences": lambda text: sentences(text) <= 2,
    "at most 3 sentences": lambda text: sentences(text) <= 3,
    "be polite": None,
    "at most 20 words": lambda text: len(text.split()) <= 20,
    "no exclamation marks": lambda text: "!" not in text,
    "use simple words that a child understands": None,
    "no lists": lambda text: not re.search(r"^\s*(?:[-*]|\d+\.)\s", text, re.MULTILINE),
    "answer in one full sentence": lambda text: sentences(text) == 1 and len(text.split()) >= 4,
    "use a formal tone": None,
}
"""Requirements, and what tells whether an answer meets them, where a rule can."""

_QUESTIONS = """
What is the capital of France? | paris
What is the capital of Japan? | tokyo
What is the capital of Italy? | rome
What is the capital of Egypt? | cairo
What is the capital of Germany? | berlin
What is the capital of Spain? | madrid
What is the capital of Russia? | moscow
What is the capital of China? | beijing
What is the capital of England? | london
What is the capital of Canada? | ottawa
What is the largest planet of our solar system? | jupiter
Which planet is known as the Red Planet? | mars
Which planet is closest to the sun? | mercury
What star does the Earth go around? | sun\\b
What is the largest ocean on Earth? | pacific
What is the tallest mountain in the world? | everest
Which continent is the Sahara desert in? | africa
Which country has the Great Wall? | china
In which city is the Eiffel Tower? | paris
In which country are the pyramids of Giza? | egypt
Who wrote Romeo and Juliet? | shakespeare
Who painted the Mona Lisa? | vinci|leonardo
Who discovered gravity when an apple fell? | newton
Who developed the theory of relativity? | einstein
Who was the first president of the United States? | washington
Who was the first person on the moon? | armstrong
What gas do plants take in for photosynthesis? | carbon dioxide|co2
What gas do people need to breathe? | oxygen
What is the chemical formula of water? | h2o|h\u2082o
What is the chemical symbol of gold? | \\bau\\b
What is frozen water called? | \\bice\\b
At how many degrees Celsius does water boil? | \\b100\\b|hundred
How many days are in a week? | \\b7\\b|seven
How many months are in a year? | \\b12\\b|twelve
How many hours are in a day? | \\b24\\b|twenty.four
How many minutes are in an hour? | \\b60\\b|sixty
How many legs does a spider have? | \\b8\\b|eight
How many sides does a triangle have? | \\b3\\b|three
What is 2 plus 2? | \\b4\\b|four
What is 5 plus 3? | \\b8\\b|eight
What color is the sky on a clear day? | blue
What color is grass? | green
What color do you get from mixing blue and yellow? | green
What color is a ripe banana? | yellow
What color is snow? | white
What is the opposite of hot? | cold
What is the opposite of up? | down
What is the opposite of big? | small|little|tiny
What animal gives us milk and says moo? | cow
What animal says meow? | \\bcats?\\b
What is a young dog called? | pup
What is a young cat called? | kitten
What do bees make? | honey
Which organ pumps blood through the body? | heart
Which organ do we think with? | brain
Which sense do we use our ears for? | hear|sound
What do we call a doctor for teeth? | dentist
What do we use to cut paper? | scissor
What is bread made of? | flour|wheat
What fruit is wine made of? | grape
What language do people speak in Brazil? | portuguese
What language do people speak in France? | french
What is the first month of the year? | january
Which season comes after winter? | spring
"""

_TOPICS = """
the water cycle | evaporat|condens|precipit|rain|ocean|vapor
photosynthesis | light|sun
the life of a butterfly | caterpillar|egg|cocoon|pupa|larva|metamorph
the moon | earth|orbit
the sun | star|light|energy|heat
the Second World War | 19\\d\\d|german|war
the Roman Empire | rome|roman
the human heart | blood
gravity | force|mass|attract|pull
the seasons of the year | summer|winter|spring
the story of Cinderella | prince|girl|slipper|step
the city of Paris | france|french|city|eiffel
the Amazon rainforest | tree|species|river|biodiv
honey bees | hive|pollin|colon|queen
climate change | temperature|warm|gas|weather
the planet Mars | red|sun|water
"""

BEGINNINGS = """
Explain how a volcano erupts.
Explain how a rainbow forms.
Explain how bread is made.
Explain how birds fly.
Explain how plants use sunlight.
Explain why people should drink enough water.
Tell a story about a lost dog.
Tell a story about a brave mouse.
Tell a story about a king who cannot sleep.
Tell the history of the bicycle.
Describe the planet Mars.
Describe the city of Tokyo.
""".strip().splitlines()
"""What answers are to be gone on with: each after its first sentence, and in the middle of it."""


@dataclass(frozen=True)
class Item:
    """A question.

    Args:
        question: What is asked.
        fact: A pattern that a right answer has a match of.
        requirements: What must hold, in words.
    """

    question: str
    fact: str
    requirements: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the fact is in it, and none of the prompt's own words."""
        found = re.search(self.fact, answer, re.IGNORECASE) is not None
        return found and not is_parroted(self.requirements, answer)


def is_parroted(requirements: tuple[str, ...], answer: str) -> bool:
    """Whether an answer says a requirement, or speaks of requirements."""
    said = _plain(answer)
    return "requirement" in said or any(f" {_plain(one).strip()} " in said for one in requirements)


def has_met(requirements: tuple[str, ...], answer: str) -> bool | None:
    """Whether an answer meets the requirements that a rule can check; ``None``: no rule can."""
    rules = [rule for one in requirements if (rule := RULES[one]) is not None]
    return all(rule(answer) for rule in rules) if rules else None


def _plain(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def _questions() -> list[Item]:
    items: list[Item] = []
    known = [rule for rule in RULES if rule != "at most 3 sentences"]
    for number, line in enumerate(_QUESTIONS.strip().splitlines()):
        question, _, fact = line.partition(" | ")
        first = known[number % len(known)]
        second = known[(number + 3) % len(known)]
        items.append(Item(question, fact, (first,) if number % 4 else (first, second)))
    return items


QUESTIONS = _questions()


@dataclass(frozen=True)
class Writing(Item):
    """Something to write, of two sentences; three are allowed."""

    def is_right(self, answer: str) -> bool:
        """Whether it is that, to its end, and has a word in it that it cannot do without."""
        ended = answer.rstrip("\"' ").endswith((".", "!"))
        return super().is_right(answer) and ended and 2 <= sentences(answer) <= 3


WRITINGS = [
    Writing(f"Write a two-sentence summary of {topic}.", fact, ("at most 3 sentences",))
    for topic, _, fact in (line.partition(" | ") for line in _TOPICS.strip().splitlines())
]
