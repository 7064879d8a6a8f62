"""What was granted to whom, as statements."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flows.show.parts import print_json, say

if TYPE_CHECKING:
    from tasks.roles import Granted


def show_granted(done: Granted, *, as_json: bool) -> None:
    """Print the statements on stdout, each with its semicolon, and what else there is to say on stderr."""
    if as_json:
        print_json(done)
        return
    for statement in done.statements:
        sys.stdout.write(f"{statement};\n")
    for note in done.notes:
        say(note)
    say(f"{len(done.statements)} statements " + ("were run." if done.done else "would be run; nothing was changed."))
