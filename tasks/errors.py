"""Every exception of prescore.

Each message says what differed, what is still true and what to do, in that order; the facts are attributes. No message
holds a secret or a data value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class PrescoreError(Exception):
    """Something that prescore refuses or could not do; ``exit_code`` is what the command returns."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it travel from a worker as it is: its message was made already, of facts that not all travel."""
        return _again, (type(self), self.args, {name: fact for name, fact in vars(self).items() if _plain(fact)})


def _again(class_: type[PrescoreError], args: tuple[Any, ...], facts: dict[str, Any]) -> PrescoreError:
    error = class_.__new__(class_, *args)
    vars(error).update(facts)
    return error


def _plain(fact: object) -> bool:
    if isinstance(fact, list | tuple):
        return all(_plain(each) for each in fact)
    return fact is None or isinstance(fact, str | int | float)


def printable(name: str) -> str:
    """Return a name that a stranger chose as a message may show it: short, on one line, without control characters."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name[:LONGEST]
    )
    return shown + ("..." if len(name) > LONGEST else "")


#: Characters of a stranger's name that a message shows, and names that it lists.
LONGEST, MOST = 120, 10


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

    def __init__(self, action: str, log_folder: Path | None, reason: str) -> None:
        self.action = action
        self.log_folder = log_folder
        self.reason = reason
        super().__init__(
            f"The embedded PostgreSQL did not {action}: {reason or 'it gave no reason'}. The data was left as it is. "
            + (f"Its log is in {log_folder}." if log_folder else "Remove the cause and run the command again.")
        )


class DemoIsRunning(PrescoreError):
    """Another demo works in the demo's database."""

    def __init__(self, database: str) -> None:
        self.database = database
        super().__init__(
            f"Another demo is working in the database {database}, which each one makes anew. Nothing was changed. "
            "Wait until it has ended, or end it."
        )


class DemoStopped(PrescoreError):
    """A run of the demo did not publish, so that there is nothing to go on with."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} The demo stops here; its database stays as it is. Start the demo again.")


class ScheduleInvalid(PrescoreError, ValueError):
    """A cron expression or a time zone that cannot be meant."""


class SqlInvalid(PrescoreError):
    """A query of a pipeline that PostgreSQL's grammar does not know; ``line`` counts from the start of its file."""

    def __init__(self, origin: str, line: int | None, reason: str) -> None:
        self.origin, self.line, self.reason = origin, line, reason
        place = origin if line is None else f"{origin} line {line}"
        super().__init__(f"{place}: {reason}. Nothing was run. Correct the query.")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing in a pipeline's folder that is not as it must be."""

    #: File and, in pipeline.toml, table and key: ``churn/pipeline.toml [serve] stale_after``.
    place: str
    #: What was found and expected, and what to write instead.
    message: str

    def __str__(self) -> str:
        # What was declared is repeated here: no sign of it shall move the cursor or turn the text of a terminal around.
        text = f"{self.place}: {self.message}"
        return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class PipelineInvalid(PrescoreError):
    """A pipeline's folder does not declare a pipeline; every problem that was found is listed."""

    def __init__(self, pipeline: str, problems: Sequence[Problem]) -> None:
        self.pipeline = pipeline
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"Pipeline {pipeline} cannot be used, {count}:\n{lines}\nNothing was run or changed; what is published is "
            f"still served. Correct these, then try `prescore check`."
        )


class PipelineNotFound(UsageError):
    """There is no pipeline of this name, or no folder of pipelines."""


class PipelineExists(PrescoreError):
    """A pipeline was to be written where something is already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"{folder} is there already. Nothing was written. Choose another name, or move it away first.")


class PipelineCodeFailed(PrescoreError):
    """The Python code of a pipeline could not be imported; the cause is chained."""

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        self.file, self.line, self.reason = file, line, reason
        place = file if line is None else f"{file} line {line}"
        super().__init__(
            f"{place}: {reason}. Nothing was run or changed; what is published is still served. Correct the code, or "
            "install what it imports."
        )


class ModelUnreadable(PrescoreError):
    """A model file is damaged, of another kind, or holds what cannot be written."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        super().__init__(
            f"{what[0].upper()}{what[1:]}. No model was registered or replaced; what was published is still "
            f"served. {remedy}"
        )


class TypesRefused(PrescoreError):
    """A model file names types outside the list of those that prescore loads; none of them was imported."""

    def __init__(self, types: Sequence[str], why: Sequence[str] = ()) -> None:
        self.types = tuple(types)
        more = f" and {len(self.types) - MOST} more" if len(self.types) > MOST else ""
        super().__init__(
            f"The model file holds {', '.join(printable(name) for name in self.types[:MOST])}{more}, outside the types that "
            f"prescore loads. {''.join(f'{sentence} ' for sentence in why)}Nothing was loaded from it and no model was "
            "registered or replaced; what was published is still served. Use scikit-learn's own estimators, define your "
            "classes and functions in the pipeline's model.py, or, for a file that you made yourself, save it with joblib "
            "and register it with --trust-pickle."
        )


class PickleNotTrusted(PrescoreError):
    """A pickle or joblib file that nobody vouched for; it was not opened."""

    def __init__(self, loader: str) -> None:
        self.loader = loader
        super().__init__(
            "The model is a pickle or joblib file, or none that prescore knows: opening it can run any code. It was not "
            "opened, and no model was registered or replaced; what was published is still served. Save the model with "
            "skops.io.dump, or, if you made the file yourself, register it with --trust-pickle."
        )


class BundleTampered(PrescoreError):
    """A bundle's bytes are not those that were registered."""

    def __init__(self, *, what: str, expected: str, found: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            f"{what} has the digest {found[:12]}, registered was {expected[:12]}. Nothing was loaded from it; what was "
            "published is still served. Register the model again or promote another version, and find out who changed "
            "prescore.model_chunks."
        )


class ColumnsMissing(PrescoreError):
    """Preprocessing built other columns than the model was fitted on."""

    def __init__(self, *, model: str, expected: Sequence[str], found: Sequence[str]) -> None:
        self.missing = tuple(name for name in expected if name not in found)
        self.added = tuple(name for name in found if name not in expected)
        more = f"; not expected: {', '.join(self.added)}" if self.added else ""
        super().__init__(
            f"Model {model} expects {len(expected)} features, {len(found)} columns were built (missing: "
            f"{', '.join(self.missing)}{more}). Nothing was published; what was published is still served. Add the missing "
            "columns to features.sql or preprocess, or promote a version that was trained on these."
        )


class PreprocessRefused(PrescoreError):
    """Preprocessing did not give one row for each row, in order."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"preprocess {what}. Nothing was registered or published. {remedy}")


class RegistrationRefused(PrescoreError):
    """A model cannot be registered: it does not behave as a batch model must, or its sample does not fit."""

    def __init__(self, model: str, what: str, remedy: str) -> None:
        self.model = model
        super().__init__(f"Model {model}: {what}. No version was registered; the aliases are unchanged. {remedy}")


class ModelNotFound(PrescoreError):
    """The registry has no such model, version or alias."""

    def __init__(self, model: str, asked: str, there: str) -> None:
        self.model = model
        super().__init__(
            f"The registry has no {asked} of model {model}; {there}. Nothing was changed. Train one with `prescore train`, "
            "register one with `prescore models register`, or name one that is there (`prescore models list`)."
        )


class ModelInUse(PrescoreError):
    """A version is to be removed that something uses or may return to."""

    def __init__(self, model: str, version: int, uses: list[str]) -> None:
        self.model, self.version, self.uses = model, version, uses
        super().__init__(
            f"Version {version} of {model} is in use: {'; '.join(uses)}. Nothing was removed. Remove a version that nothing uses "
            "(`prescore doctor` lists them), or wait until [retention] has removed the last publication of it."
        )


class NothingBefore(PrescoreError):
    """An alias has no version to go back to."""

    def __init__(self, model: str, alias: str, version: int, there: str) -> None:
        self.model, self.alias, self.version = model, alias, version
        super().__init__(
            f"{model} {alias} has nothing to go back to: version {version} is the first that it named, or every promotion "
            f"since was undone already; {there}. Nothing was changed. Name a version yourself: "
            f"`prescore models promote {model} VERSION{'' if alias == 'champion' else f' --alias {alias}'}`."
        )


class VersionUnfit(PrescoreError):
    """The version that an alias would go back to cannot score a pipeline as it stands."""

    def __init__(self, model: str, alias: str, current: int, version: int, problems: Sequence[str]) -> None:
        self.model, self.alias, self.version, self.problems = model, alias, version, tuple(problems)
        super().__init__(
            f"{model} {alias} cannot go back to version {version}: {'; '.join(problems).rstrip('.')}. The alias still names "
            f"version {current}, and what is published is still served. Put back what the version was made with, promote "
            f"another one (`prescore models list {model}`), or train again."
        )


class AliasMoved(PrescoreError):
    """Somebody else moved an alias at the same time."""

    def __init__(self, model: str, alias: str, expected: int, found: int, who: str) -> None:
        self.model, self.alias, self.expected, self.found = model, alias, expected, found
        super().__init__(
            f"{model} {alias} named version {expected} when this began and was moved meanwhile; it names version {found} now "
            f"({who}). Nothing was changed by this command. Look with `prescore models show {model} {alias}`, and run it "
            "again if you mean to go back from there."
        )


class TrainingRefused(PrescoreError):
    """There is nothing that a model could be trained or evaluated on."""

    def __init__(self, pipeline: str, what: str, remedy: str) -> None:
        self.pipeline = pipeline
        super().__init__(f"Pipeline {pipeline} cannot be trained: {what}. No version was registered. {remedy}")


class PrefectUnreachable(PrescoreError):
    """The Prefect server does not answer."""

    def __init__(self, server: str, reason: str) -> None:
        self.server = server
        super().__init__(
            f"The Prefect server at {server} does not answer ({reason}). What was deployed before stays as it is. Start it, or "
            "correct PREFECT_API_URL."
        )


class PrefectForbids(PrescoreError):
    """The Prefect server asks for a password or key, and got none or another."""

    def __init__(self, server: str) -> None:
        self.server = server
        super().__init__(
            f"The Prefect server at {server} does not let us in. What was deployed before stays as it is. Set "
            "PREFECT_API_AUTH_STRING (user:password; Prefect Cloud: PREFECT_API_KEY) to what the server expects, or name a "
            "file that holds it in PREFECT_API_AUTH_STRING_FILE and begin the command with python -m flows.entrypoint."
        )


class WorkPoolRefused(PrescoreError):
    """There is no work pool that prescore can deploy to."""

    def __init__(self, pool: str, what: str, remedy: str) -> None:
        self.pool = pool
        super().__init__(f"The work pool {pool} {what}. Nothing was deployed. {remedy}")


class DeploymentRefused(PrescoreError):
    """A deployment cannot be made or changed."""

    def __init__(self, name: str, what: str, remedy: str) -> None:
        self.name = name
        super().__init__(f"The deployment {name} was not made: {what}. It was left as it is. {remedy}")


class NothingToServe(PrescoreError):
    """No folder declares a pipeline that could be run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"No folder in {folder} declares a pipeline that can be run. Nothing was started. Mend one, or set "
            "PRESCORE_PIPELINES to the folder that holds the pipelines."
        )


class ServedAlready(PrescoreError):
    """Another `prescore serve` works with the same data folder."""

    def __init__(self, folder: Path, process_id: str) -> None:
        self.folder = folder
        super().__init__(
            f"The pipelines are being served already, by process {process_id or 'unknown'} in {folder}. Nothing was started. End "
            "that one first, or set PRESCORE_DATA_DIR to another folder."
        )


class PortTaken(PrescoreError):
    """Something else listens where the server is to listen."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(
            f"Port {port} of 127.0.0.1 is taken. Nothing was started. Choose another with --port; or, if a Prefect server of "
            f"yours is there, set PREFECT_API_URL=http://127.0.0.1:{port}/api and it will be used."
        )


class ProgramGivenUp(PrescoreError):
    """A program ended again and again as soon as it was started."""

    def __init__(self, what: str, deaths: int, code: int | None, log: Path | None) -> None:
        self.what = what
        where = f"Its log says why: {log}." if log is not None else "What it said is above."
        super().__init__(
            f"{what} ended {deaths} times as soon as it was started (exit code {code}). It is not started again, and no scheduled "
            f"run takes place; what was published is still served. {where}"
        )
