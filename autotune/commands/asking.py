"""Questions at a terminal for what cannot be guessed; without a terminal they become problems that name the option."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from autotune.drafting.guess import Guess
from autotune.drafting.study_writer import printable
from autotune.errors import ConfigError, Problem, nearest

T = TypeVar("T")
Name = TypeVar("Name", bound=str)
SAID = "as you said"


class Asker:
    """``terminal``: there is someone to ask. ``trusting``: every guess is taken as it is, sure or not."""

    def __init__(self, *, terminal: bool, trusting: bool) -> None:
        self.terminal = terminal and not trusting
        self._trusting = trusting
        self._problems: list[Problem] = []

    def settle(
        self, option: str, question: str, guess: Guess[T] | None, parse: Callable[[str], T], show: Callable[[T], str],
        accepted: str,
    ) -> Guess[T]:
        """The guess if it is sure, else the answer of who is asked; ``parse`` raises ValueError for none.

        Without a terminal the guess goes on as if it were taken, and ``finish`` says what has to be passed.
        Raises ConfigError where there is not even a guess to go on with.
        """
        if guess and (guess.sure or self._trusting):
            return guess
        if self.terminal:
            if guess:
                typer.echo(f"{show(guess.value)}? Only a guess: {guess.why}.")
            answer = typer.prompt(question, default=show(guess.value) if guess else None, value_proc=_asking(parse))
            return Guess(answer, SAID, True)
        found = f"{show(guess.value)} is only a guess: {guess.why}" if guess else "nothing that it could be"
        self._problems.append(Problem(option, "", found, accepted + ", or --yes for the guess" * (guess is not None)))
        if guess is None:
            raise ConfigError(self._problems)
        return guess

    def finish(self) -> None:
        """Raises ConfigError with everything that has to be said and was not."""
        if self._problems:
            raise ConfigError(self._problems)

    def limit(self, question: str, most: float = math.inf) -> float | None:
        """A number of at least 0, or None for no limit; None too where nobody is asked."""
        if not self.terminal:
            return None

        def parse(text: str) -> float | None:
            if not text.strip():
                return None
            try:
                value = float(text.replace(",", "."))
            except ValueError:
                raise ValueError(f"{text.strip()!r} is no number") from None
            if not 0 <= value <= most:
                raise ValueError(f"{value:g}; accepted: 0 to {most:g}")
            return value

        found: float | None = typer.prompt(f"{question} (empty: no limit)", default="", show_default=False,
                                           value_proc=_asking(parse))
        return found


def one_of(names: Sequence[Name]) -> Callable[[str], Name]:
    """A parser that takes one of the names."""
    known = {str(name): name for name in names}

    def parse(text: str) -> Name:
        found = text if text in known else text.strip()
        if found not in known:
            raise ValueError(f"no {found!r}{nearest(found, known)}; accepted: {', '.join(map(printable, known))}")
        return known[found]
    return parse


def some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser that takes names with commas between them."""
    one = one_of(names)

    def parse(text: str) -> tuple[str, ...]:
        return (text,) if text in names else tuple(dict.fromkeys(one(part) for part in text.split(",")))
    return parse


def _asking(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The parser as typer wants it, which asks again after a BadParameter."""
    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return checked
