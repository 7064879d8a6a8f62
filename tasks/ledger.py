"""The ledger of a storage: what is known of its rows without reading them, and who else wrote into them.

How many rows are served, and the sum of the hashes of their keys, stand in head; how old the oldest is, and how many have no
prediction, beside their storage. Each publication brings them up to date, so that a run need not read what is served to know
that it is complete and that nothing of it is due: it costs what changed. That holds as long as nobody else writes there.
Triggers note those who do, and then everything is scored anew; where triggers are missing or off, what is served is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tasks.database import literal, load_query
from tasks.transport import Session, quoted_table


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is known of the rows of a storage: bounds, which every publication keeps right."""

    #: None of them is older; None where that is not known.
    oldest_as_of: datetime | None = None
    #: At most so many have no prediction; None where that is not known.
    rejected: int | None = None

    def joined_by(self, others: Rows) -> Rows:
        """Return what is known once rows are put among these, or in the place of some."""
        known = [instant for instant in (self.oldest_as_of, others.oldest_as_of) if instant is not None]
        if len(known) < 2 or self.rejected is None or others.rejected is None:
            return Rows()
        return Rows(oldest_as_of=min(known), rejected=self.rejected + others.rejected)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a run finds written down about the storage that is served, in its snapshot."""

    rows: Rows
    #: Whether it is noted who else writes into it.
    watched: bool
    #: Whether somebody else did, since a run filled it.
    foreign: bool

    def shows_nobody_due(self, due_before: datetime) -> bool:
        """Say whether every row has a prediction, and one that was computed after an instant."""
        oldest = self.rows.oldest_as_of
        return self.watched and self.rows.rejected == 0 and oldest is not None and oldest > due_before


def read(session: Session, pipeline: str, storage_id: int) -> Ledger:
    """Read what is known of a storage, in the snapshot of a session."""
    fragments = {
        "pipeline": literal(pipeline),
        "storage_id": literal(storage_id),
        "rows": literal(quoted_table("prescore_rows", pipeline)),
        "storage": literal(quoted_table("prescore_rows", f"{pipeline}_{storage_id}")),
    }
    row = session.table(load_query("read_ledger", fragments), "Reading the ledger").to_pylist()[0]
    return Ledger(
        rows=Rows(oldest_as_of=row["oldest_as_of"], rejected=row["rejected"]),
        watched=row["watched"],
        foreign=row["foreign"],
    )


def forget_foreign_writes(connection: sa.Connection, pipeline: str, storage_id: int) -> None:
    """Forget, in the open transaction, who else wrote into a storage: before its rows go, for whoever writes meanwhile."""
    values = {"pipeline": pipeline, "storage_id": storage_id}
    connection.execute(sa.text(load_query("forget_foreign_writes")), values)
