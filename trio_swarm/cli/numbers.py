"""A number that an option takes."""

import math
from typing import Any

import click


class Finite(click.FloatRange):
    """A range of numbers that are some: click's lets `nan` through, which is in every range, and `inf` without an end.

    Apart from the options of `serve`, which `tail` and `publish` need not import.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, and refuses what is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
