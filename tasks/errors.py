"""Every exception of prescore.

Each message says what differed, what is still true and what to do, in that order; the facts are attributes. No message
holds a secret or a data value.
"""

from __future__ import annotations


class PrescoreError(Exception):
    """Something that prescore refuses or could not do; ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(PrescoreError):
    """A command was called with words or settings that cannot be meant."""

    exit_code = 2
