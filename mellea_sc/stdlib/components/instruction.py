"""An instruction: a task, requirements, grounding texts, and examples. And a component of named texts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mellea_sc.core.base import CBlock, Component, Span, checked_texts, text_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.question import several
from mellea_sc.core.requirement import Requirement, as_requirement
from mellea_sc.stdlib.components._template import check_template, fill
from mellea_sc.stdlib.components.chat import Message


class Instruction(Component):
    """A task for a model.

    With ``user_variables``, these are templates (jinja2, sandboxed): the description, the examples, the prefix, the
    output prefix, and requirements that are a string or a plain ``Requirement``. Never a template are the values of
    the variables, the grounding, a ``CBlock``, and the descriptions of subclasses of ``Requirement``. Without
    ``user_variables`` nothing is a template.

    Args:
        description: The task.
        requirements: Requirements on the answer; those that are not ``check_only`` are written in the prompt.
        icl_examples: Examples of good answers.
        grounding_context: Named texts to rely on; may be thunks.
        user_variables: Named texts to fill in; may be thunks.
        prefix: A text before the description.
        output_prefix: The beginning of the answer, which is part of its text; the model continues it.

    Raises:
        InvalidOption: an argument is not usable: a string where there should be a list, say.
        PromptTemplateError: a template is not valid, or uses a variable that is not given.
    """

    def __init__(
        self,
        description: str | CBlock | None = None,
        requirements: Sequence[Requirement | str] | None = None,
        icl_examples: Sequence[str | CBlock] | None = None,
        grounding_context: Mapping[str, Span] | None = None,
        user_variables: Mapping[str, Span] | None = None,
        prefix: str | CBlock | None = None,
        output_prefix: str | CBlock | None = None,
    ) -> None:
        if description is not None and not isinstance(description, str | CBlock):
            raise InvalidOption(f"a description is a str or a CBlock, not {description!r}")
        self.description = description
        self.requirements: Sequence[Requirement] = tuple(
            map(as_requirement, several("requirements", requirements))
        )
        self.icl_examples: Sequence[str | CBlock] = tuple(several("icl_examples", icl_examples))
        named = [("prefix", prefix), ("output_prefix", output_prefix)]
        for name, text in [*named, *(("an example", one) for one in self.icl_examples)]:
            if text is not None and not isinstance(text, str | CBlock):
                raise InvalidOption(f"{name} must be a str or a CBlock, not {text!r}")
        self.grounding_context: dict[str, Span] = (
            {} if not grounding_context else checked_texts("grounding_context", grounding_context)
        )
        self.user_variables: dict[str, Span] | None = (
            None if user_variables is None else checked_texts("user_variables", user_variables)
        )
        self.prefix = prefix
        self.output_prefix = output_prefix
        if self.user_variables is not None:
            for template in self._templates():
                check_template(template, self.user_variables)

    def _templates(self) -> list[str]:
        own = [self.description, self.prefix, self.output_prefix, *self.icl_examples]
        said = [
            one.format_for_llm()
            for one in self.requirements
            if not one.check_only and type(one) is Requirement
        ]
        return [text for text in [*own, *said] if isinstance(text, str)]

    def _filled(self, text: str | CBlock | Requirement) -> str:
        if isinstance(text, CBlock):
            return text.value
        if isinstance(text, Requirement):
            said = text.format_for_llm()
            if type(text) is not Requirement:
                return said  # a subclass may have made it from a pattern with braces
            text = said
        return text if self.user_variables is None else fill(text, self.user_variables)

    def parts(self) -> Sequence[Span]:
        """The grounding and the variables."""
        return [*self.grounding_context.values(), *(self.user_variables or {}).values()]

    def summary(self) -> str:
        """The description, before templates are filled in."""
        return str(self.description or "an instruction")

    def format_for_llm(self, more: Sequence[str] = ()) -> str:
        """The prompt's text: sections, each only where there is something in it.

        The requirements stand before the task. Small models then answer the question, instead of continuing the
        list; measured in benchmarks/PROMPTING.md.

        Args:
            more: More lines in the list of requirements.
        """
        sections: list[str] = []
        lines = [self._filled(one) for one in self.requirements if not one.check_only]
        if lines or more:
            sections.append(listed([*lines, *more]))
        if self.prefix is not None:
            sections.append(self._filled(self.prefix))
        if self.description is not None:
            sections.append(self._filled(self.description))
        if self.icl_examples:
            examples = [
                f"<example>\n{self._filled(example)}\n</example>" for example in self.icl_examples
            ]
            sections.append("\n".join(["Examples of good answers:", *examples]))
        if self.grounding_context:
            texts = [
                f'<text name="{name}">\n{text_of(text)}\n</text>'
                for name, text in self.grounding_context.items()
            ]
            sections.append("\n".join(["Rely on these texts:", *texts]))
        return "\n\n".join(sections)

    def assistant_prefix(self) -> str | None:
        """The output prefix."""
        return None if self.output_prefix is None else self._filled(self.output_prefix)

    def for_copies(self) -> Component:
        """Without the requirements: what they validate with may be anything."""
        if not self.requirements:
            return self
        return Message(self.role, CBlock(self.format_for_llm()))


def listed(lines: Sequence[str]) -> str:
    """The list of requirements as a section of a prompt."""
    return "\n".join(["Requirements:", *map("- {}".format, lines)])


class SimpleComponent(Component):
    """Named texts, one after the other.

    Args:
        **kwargs: The texts by their names; may be thunks.
    """

    def __init__(self, **kwargs: Span) -> None:
        self._named = kwargs

    def parts(self) -> Sequence[Span]:
        """The texts."""
        return list(self._named.values())

    def format_for_llm(self) -> str:
        """The texts under their names."""
        return "\n\n".join(f"{name}:\n{text_of(text)}" for name, text in self._named.items())
