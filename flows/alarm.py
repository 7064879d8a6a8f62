"""The watcher: look at health from outside, and tell somebody when it is bad. Read ``watch`` first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tasks.alarms import Alarm, NotDelivered, look, post, raise_alarm, require_webhook, run, unreadable
from tasks.errors import PrescoreError
from tasks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Whom to look at, and whom to tell."""

    settings: Settings
    #: None for all.
    pipeline: str | None = None
    webhook: str | None = None
    command: str | None = None
    #: Prints what is wrong; and what is wrong with telling.
    tell: Callable[[Alarm], None]
    warn: Callable[[str], None]


def watch_once(watch: Watch) -> int:
    """Look once, tell what is wrong, and return the exit code: 0 well, 3 something is wrong, 1 nothing could be read."""
    require(watch)
    alarm, code = see(watch)
    if not alarm.well:
        watch.tell(alarm)
        deliver(watch, alarm)
    return code


def watch_on(watch: Watch, every: float) -> None:
    """Look every so many seconds until interrupted; tell when what is wrong changes, and when all is well again.

    What could not be delivered is tried again with the next look.
    """
    require(watch)
    told: frozenset[tuple[str, str]] = frozenset()
    while True:
        alarm, _ = see(watch)
        if alarm.about != told:
            watch.tell(alarm)
            if deliver(watch, alarm):
                told = alarm.about
        time.sleep(every)


def require(watch: Watch) -> None:
    """Refuse a webhook that nothing can be posted to, before anything is looked at."""
    if watch.webhook is not None:
        require_webhook(watch.webhook)


def see(watch: Watch) -> tuple[Alarm, int]:
    """Return what is wrong, with the exit code; that nothing can be read is an alarm too."""
    try:
        alarm = raise_alarm(look(watch.settings, watch.pipeline))
    except PrescoreError as error:
        return unreadable(error), 1
    return alarm, 0 if alarm.well else 3


def deliver(watch: Watch, alarm: Alarm) -> bool:
    """Tell webhook and command, each whatever becomes of the other, and return whether both heard it."""
    heard = True
    for address, way in ((watch.webhook, post), (watch.command, run)):
        if address is not None:
            try:
                way(address, alarm)
            except NotDelivered as error:
                watch.warn(str(error))
                heard = False
    return heard
