"""Every exception of prescore.

Each message says what differed, what is still true and what to do, in that order; the facts are attributes. No message
holds a secret or a data value.
"""

from __future__ import annotations

from pathlib import Path


class PrescoreError(Exception):
    """Something that prescore refuses or could not do; ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(PrescoreError):
    """A command was called with words or settings that cannot be meant."""

    exit_code = 2


class OutputNotOffered(PrescoreError):
    """A declared output asks the model for a method, class or output that it does not have."""

    def __init__(self, *, output: str, asked: str, offered: str, remedy: str) -> None:
        self.output = output
        self.asked = asked
        self.offered = offered
        super().__init__(f"Output {output} asks for {asked}; {offered}. Nothing was published. {remedy}")


class OutputRefused(PrescoreError):
    """A model returned something else than its declared output: another length, shape or type."""

    def __init__(self, *, output: str, expected: str, found: str) -> None:
        self.output = output
        self.expected = expected
        self.found = found
        super().__init__(
            f"Output {output} expects {expected}; the model returned {found}. Nothing was published. Correct the "
            "declaration in [predictions], or promote a model that returns this."
        )


class EmbeddedDatabaseError(PrescoreError):
    """The embedded PostgreSQL could not be created, started or stopped."""


class EmbeddedServerUnavailable(EmbeddedDatabaseError):
    """This machine cannot run the embedded PostgreSQL at all."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"The embedded PostgreSQL cannot run here: {reason}. Nothing was changed. "
            "Set PRESCORE_DATABASE_URL to a PostgreSQL 15 to 18."
        )


class DataFolderUnusable(EmbeddedDatabaseError):
    """The data folder cannot hold a database."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder = folder
        self.reason = reason
        super().__init__(
            f"The data folder {folder} cannot be used: {reason}. No database was changed. "
            "Set PRESCORE_DATA_DIR to a folder that you can write to."
        )


class DataFolderForeign(EmbeddedDatabaseError):
    """The data folder belongs to another user than the caller."""

    def __init__(self, folder: Path, owner: str, caller: str) -> None:
        self.folder = folder
        self.owner = owner
        self.caller = caller
        super().__init__(
            f"The data folder {folder} belongs to {owner}, this command runs as {caller}. Nothing was changed. "
            f"Run the command as {owner}, or set PRESCORE_DATA_DIR to a folder of your own."
        )


class DataFolderUnreachable(EmbeddedDatabaseError):
    """The server does not run as root, and its account cannot pass a folder on the way."""

    def __init__(self, folder: Path, blocked: Path, account: str) -> None:
        self.folder = folder
        self.blocked = blocked
        self.account = account
        super().__init__(
            f"PostgreSQL refuses to run as root, so it runs as {account}, who cannot reach {folder}: {blocked} is "
            f"closed to others. Nothing was changed. Set PRESCORE_DATA_DIR to a folder below open ones, such as "
            f"/var/lib/prescore, or open that one yourself with `chmod o+x {blocked}`."
        )


class ServerAccountMissing(EmbeddedDatabaseError):
    """Root needs a system account for the server, and it could not be created."""

    def __init__(self, account: str, reason: str) -> None:
        self.account = account
        self.reason = reason
        super().__init__(
            f"PostgreSQL refuses to run as root and its account {account} could not be created: {reason}. Nothing was "
            f"changed. Create it with `useradd --system {account}`, run prescore as an ordinary user, or set "
            "PRESCORE_DATABASE_URL."
        )


class ClusterIncomplete(EmbeddedDatabaseError):
    """A folder stands where the database belongs, and it is none."""

    def __init__(self, cluster: Path) -> None:
        self.cluster = cluster
        super().__init__(
            f"{cluster} exists and holds no complete PostgreSQL database. It was left as it is. "
            "Restore it, or move it away and run the command again for a new, empty database."
        )


class ClusterVersionDiffers(EmbeddedDatabaseError):
    """The database files were made by another major version."""

    def __init__(self, cluster: Path, made_by: str, needed: str) -> None:
        self.cluster = cluster
        self.made_by = made_by
        self.needed = needed
        super().__init__(
            f"{cluster} was made by PostgreSQL {made_by}, the embedded one is {needed}. It was left as it is. Upgrade "
            "it with pg_upgrade, or set PRESCORE_DATA_DIR to another folder."
        )


class EmbeddedPasswordLost(EmbeddedDatabaseError):
    """The server runs, and the file with its password is gone."""

    def __init__(self, password_file: Path) -> None:
        self.password_file = password_file
        super().__init__(
            f"The embedded PostgreSQL runs, but {password_file} with its password is missing. The data is intact. Run "
            "`prescore database stop`: the next command starts it with a new password."
        )


class EmbeddedServerFailed(EmbeddedDatabaseError):
    """A program of PostgreSQL ended with an error."""

    def __init__(self, action: str, log_folder: Path, reason: str) -> None:
        self.action = action
        self.log_folder = log_folder
        self.reason = reason
        super().__init__(
            f"The embedded PostgreSQL did not {action}: {reason or 'it gave no reason'}. The data was left as it is. "
            f"Its log is in {log_folder}."
        )


class DemoIsRunning(PrescoreError):
    """Another demo works in the demo's database."""

    def __init__(self, database: str) -> None:
        self.database = database
        super().__init__(
            f"Another demo is working in the database {database}, which each one makes anew. Nothing was changed. "
            "Wait until it has ended, or end it."
        )
