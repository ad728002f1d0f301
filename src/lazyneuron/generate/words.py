"""Text from tokens that come one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Words:
    """Turns tokens into text as they come: a character of several tokens is shown once it is whole.

    Args:
        tokenizer: the model's.
        show: called with every new piece of text.

    Attributes:
        text: all of it so far.
    """

    def __init__(self, tokenizer: Any, show: Callable[[str], None]) -> None:
        self._tokenizer, self._show = tokenizer, show
        self._tokens: list[int] = []
        self.text = ""

    def add(self, tokens: list[int]) -> None:
        """More tokens are there."""
        self._tokens += tokens
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            self._up_to(text)

    def end(self) -> None:
        """No more tokens come."""
        self._up_to(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def _up_to(self, text: str) -> None:
        self._show(text[len(self.text) :])
        self.text = text
