"""The model registry: immutable versions, their bundles in PostgreSQL, and aliases with their history.

What is written here becomes true with the caller's transaction: a promotion is part of whatever else that does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks.database import connect, load_query, one, rows
from tasks.errors import AliasMoved, BundleTampered, ModelInUse, ModelNotFound, NothingBefore, PickleNotTrusted

if TYPE_CHECKING:
    from tasks.bundle import Bundle
    from tasks.pipeline import Pipeline
from tasks.settings import os_user

#: A chunk is one row and one message of the protocol; 4 MiB keeps both ends' buffers small at no cost in speed.
CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a model as the registry has it."""

    name: str
    #: Counts up from 1.
    version: int
    #: SHA-256 of the bundle, 64 hex digits.
    digest: str
    created_at: datetime
    #: Database role that registered it.
    created_by: str
    #: A training run or a file.
    source: str
    #: End of the data that it was fitted on; model age counts from here.
    train_data_until: datetime
    logic_digest: str | None
    metrics: dict[str, Any]
    #: Library -> version that made it.
    environment: dict[str, str]
    #: Key, feature and prediction columns with their SQL types.
    signature: dict[str, Any]
    probes: dict[str, Any]
    #: A person vouched for a pickle or joblib file.
    trusted_pickle: bool
    size_bytes: int
    #: Database role that vouched for it; None for a skops file.
    trusted_by: str | None = None
    #: User of the operating system who did, where it is known.
    trusted_os_user: str | None = None
    trusted_at: datetime | None = None
    #: SHA-256 of the file that they vouched for, 64 hex digits; None if that was not recorded yet.
    trusted_sha256: str | None = None
    #: Aliases that name it now; filled by list_versions only.
    aliases: tuple[str, ...] = ()

    @property
    def trust(self) -> str | None:
        """Who vouched for a pickle, when, and for which file, in words; None for a skops file, which needs nobody."""
        if not self.trusted_pickle:
            return None
        user = f" (user {self.trusted_os_user})" if self.trusted_os_user else ""
        at = f" at {self.trusted_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if self.trusted_at else ""
        file = f"its SHA-256 is {self.trusted_sha256}" if self.trusted_sha256 else "its SHA-256 was not recorded"
        return f"a pickle, which can run any code: {self.trusted_by}{user} vouched for the file{at}; {file}"

    @classmethod
    def from_row(cls, row: Any) -> ModelVersion:
        """Return the version of a row of prescore.models."""
        fields = dict(row._mapping)
        fields["name"] = fields.pop("model")
        fields["aliases"] = tuple(fields.get("aliases") or ())
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class AliasSpan:
    """A stretch of time in which an alias named one version."""

    alias: str
    version: int
    since: datetime
    #: None for the current one.
    until: datetime | None
    set_by: str
    because: str
    #: A rollback returned to it; a promotion otherwise.
    went_back: bool = False


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What promoting did."""

    version: int
    #: Version that the alias named before; None when it named nothing.
    before: int | None

    @property
    def moved(self) -> bool:
        """Whether the alias names another version now."""
        return self.version != self.before


@dataclass(frozen=True, kw_only=True)
class StepBack:
    """Where an alias would go back to."""

    alias: str
    current: ModelVersion
    #: Since when the alias names it.
    since: datetime
    to: ModelVersion


@dataclass(frozen=True, kw_only=True)
class ModelUser:
    """A pipeline that scores with an alias of a model."""

    pipeline: str
    #: A rollback of its publication refuses runs until somebody resumes it.
    pinned: bool
    #: Version of this model whose predictions are served; None while there are none.
    model_version: int | None


def register(
    connection: sa.Connection,
    bundle: Bundle,
    *,
    source: str,
    trusted_pickle: bool = False,
    note: str | None = None,
    data: bytes | None = None,
) -> ModelVersion:
    """Store a bundle as the next version of its model, and return that version.

    The same bytes registered again are the version that they were: nothing is stored. Two registrations at once wait
    for each other and get two numbers. Belongs to the caller's transaction.

    Parameters
    ----------
    source
        Where the version comes from, for people.
    trusted_pickle
        A person vouched for the pickle or joblib file inside; who, and for which file, is recorded.
    note
        Appended to the source.
    data
        The bundle's bytes, when they are at hand.

    Raises
    ------
    PickleNotTrusted
        For a pickle or joblib file that nobody vouched for.
    """
    from tasks.bundle_file import digest_of, dumps, signature

    trusted = trusted_pickle and bundle.loader != "skops"
    if bundle.loader != "skops" and not trusted:
        raise PickleNotTrusted(bundle.loader)
    data = dumps(bundle) if data is None else data
    digest = digest_of(data)
    connection.execute(sa.text(load_query("lock_model")), {"model": bundle.name})
    known = one(connection, "find_model_by_digest", model=bundle.name, digest=digest)
    if known is not None:
        return ModelVersion.from_row(known)
    row = one(
        connection,
        "insert_model_version",
        model=bundle.name,
        digest=digest,
        source=f"{source}; {note}" if note else source,
        train_data_until=bundle.train_data_until,
        logic_digest=bundle.logic_digest,
        metrics=json.dumps(bundle.metrics),
        environment=json.dumps(bundle.environment),
        signature=json.dumps(signature(bundle)),
        probes=json.dumps(bundle.probes),
        trusted_pickle=trusted,
        trusted_os_user=os_user() if trusted else None,
        trusted_sha256=digest_of(bundle.estimator_file or b"") if trusted else None,
        size_bytes=len(data),
    )
    made = ModelVersion.from_row(row)
    _store(connection, made.name, made.version, data)
    return made


def find_version(connection: sa.Connection, name: str, which: int | str) -> ModelVersion:
    """Return a version by its number, or the one that an alias names now.

    Raises
    ------
    ModelNotFound
        Listing the versions and aliases that are there.
    """
    if isinstance(which, int):
        row = one(connection, "find_model_version", model=name, version=which)
        asked = f"version {which}"
    else:
        row = one(connection, "find_aliased_version", model=name, alias=which, at=None)
        asked = f"alias {which}"
    if row is None:
        raise ModelNotFound(name, asked, _there(connection, name))
    return ModelVersion.from_row(row)


def require_alias(connection: sa.Connection, name: str, alias: str) -> ModelVersion:
    """Return the version that an alias names now.

    Raises
    ------
    ModelNotFound
        When it names nothing.
    """
    return find_version(connection, name, alias)


def load_bundle(connection: sa.Connection, name: str, which: int | str, pipeline: Pipeline | None) -> Bundle:
    """Read the bundle of a version, by number or alias; its digest is checked before anything is read from it.

    ``pipeline`` is the one whose own classes the model may use; its code is imported. Without one, none may be used.

    Raises
    ------
    ModelNotFound, BundleTampered, TypesRefused, PickleNotTrusted, ModelUnreadable
    """
    from tasks import bundle_file

    version = find_version(connection, name, which)
    return bundle_file.loads(
        _read(connection, version),
        pipeline_module=None if pipeline is None else import_pipeline_code(pipeline),
        former_modules=[] if pipeline is None else _former_modules(connection, pipeline),
        expect_digest=version.digest,
        trusted_pickle=version.trusted_pickle,
        trusted_file=version.trusted_sha256,
        what=f"Model {name} version {version.version}",
    )


def load_profile(connection: sa.Connection, name: str, which: int | str) -> dict[str, Any]:
    """Read the training profile of a version, by number or alias, without making its estimator; the digest is checked.

    Raises
    ------
    ModelNotFound, BundleTampered, ModelUnreadable
    """
    from tasks import bundle_file

    version = find_version(connection, name, which)
    return bundle_file.read_profile(
        _read(connection, version), expect_digest=version.digest, what=f"Model {name} version {version.version}"
    )


def registered_digest(connection: sa.Connection, name: str, version: int) -> str | None:
    """Return the digest that is recorded for a version now; None when there is no such version."""
    row = one(connection, "find_model_version", model=name, version=version)
    return None if row is None else str(row.digest)


def _former_modules(connection: sa.Connection, pipeline: Pipeline) -> list[str]:
    """Return what the package of a pipeline's code was called before the pipeline was renamed."""
    from tasks import pipeline_code

    former = rows(connection, "list_former_names", pipeline=pipeline.name)
    return [f"{pipeline_code.PACKAGE}.{row.former}" for row in former]


def import_pipeline_code(pipeline: Pipeline) -> str:
    """Import the code that a pipeline declares, and model.py, and return the name of the package it is in."""
    from tasks import pipeline_code

    pipeline.preprocess_function()
    pipeline.estimator_function()
    pipeline.model_module()
    return f"{pipeline_code.PACKAGE}.{pipeline.name}"


def list_versions(connection: sa.Connection, name: str | None = None) -> list[ModelVersion]:
    """Return the versions of a model, or of all models, newest first, each with the aliases that name it now."""
    return [ModelVersion.from_row(row) for row in rows(connection, "list_model_versions", model=name)]


def current_alias(connection: sa.Connection, name: str, alias: str, at: datetime | None = None) -> ModelVersion | None:
    """Return the version that an alias names now, or named at an instant; None when it names nothing."""
    row = one(connection, "find_aliased_version", model=name, alias=alias, at=at)
    return None if row is None else ModelVersion.from_row(row)


def alias_history(connection: sa.Connection, name: str) -> list[AliasSpan]:
    """Return which version each alias of a model named when, oldest first."""
    return [
        AliasSpan(**{field: getattr(row, field) for field in AliasSpan.__dataclass_fields__})
        for row in rows(connection, "list_aliases", model=name)
    ]


def promote(
    connection: sa.Connection,
    name: str,
    version: int,
    alias: str,
    because: str,
    *,
    if_vacant: bool = False,
    went_back: bool = False,
) -> Promotion:
    """Let an alias name a version, and keep in its history what it named before. Belongs to the caller's transaction.

    Promoting what the alias names already changes nothing. With ``if_vacant`` an alias that names something stays.
    ``went_back`` says that a rollback does this, so that the next one goes further back.

    Raises
    ------
    ModelNotFound
        When there is no such version.
    """
    connection.execute(sa.text(load_query("lock_model")), {"model": name})
    find_version(connection, name, version)
    current = current_alias(connection, name, alias)
    before = None if current is None else current.version
    if before == version:
        return Promotion(version=version, before=before)
    if if_vacant and before is not None:
        return Promotion(version=before, before=before)
    ended = one(connection, "end_alias", model=name, alias=alias)
    values = {"model": name, "alias": alias, "version": version, "because": because, "went_back": went_back}
    since = None if ended is None else ended.until
    connection.execute(sa.text(load_query("insert_alias")), {**values, "since": since})
    return Promotion(version=version, before=before)


def remove(url: str, name: str, version: int) -> int:
    """Remove a version that nothing uses or may return to, with its bundle, and return its size in bytes.

    Raises
    ------
    ModelNotFound
    ModelInUse
        Naming what uses it.
    """
    with connect(url) as connection:
        connection.execute(sa.text(load_query("lock_model")), {"model": name})
        find_version(connection, name, version)
        uses = [row.use for row in rows(connection, "list_uses_of_version", model=name, version=version)]
        if uses:
            raise ModelInUse(name, version, uses)
        size: int = one(connection, "delete_model_version", model=name, version=version).size_bytes
        connection.commit()
        return size


def promote_now(url: str, name: str, version: int, alias: str, because: str) -> Promotion:
    """Promote in a transaction of its own: what `prescore models promote` does."""
    with connect(url, "prescore models") as connection:
        promotion = promote(connection, name, version, alias, because)
        connection.commit()
    return promotion


def step_back(connection: sa.Connection, name: str, alias: str) -> StepBack:
    """Return where an alias would go back to.

    Raises
    ------
    ModelNotFound
        When the alias names nothing.
    NothingBefore
        When it named nothing before, or every promotion of it was undone already.
    """
    current = require_alias(connection, name, alias)
    history = alias_history(connection, name)
    before = version_before(history, alias)
    if before is None:
        raise NothingBefore(name, alias, current.version, _there(connection, name))
    since = next(entry.since for entry in history if entry.alias == alias and entry.until is None)
    return StepBack(alias=alias, current=current, since=since, to=find_version(connection, name, before))


def go_back(connection: sa.Connection, step: StepBack, because: str) -> None:
    """Let an alias go back, unless somebody moved it since the step was found. Belongs to the caller's transaction.

    Raises
    ------
    AliasMoved
        Two who go back at once mean the same step, and not two.
    """
    name = step.to.name
    connection.execute(sa.text(load_query("lock_model")), {"model": name})
    now = next(entry for entry in alias_history(connection, name) if entry.alias == step.alias and entry.until is None)
    if (now.version, now.since) != (step.current.version, step.since):
        raise AliasMoved(name, step.alias, step.current.version, now.version, f"{now.set_by}: {now.because}")
    promote(connection, name, step.to.version, step.alias, because, went_back=True)


def list_users(connection: sa.Connection, name: str, alias: str) -> tuple[ModelUser, ...]:
    """Return the pipelines that score with an alias, as far as they ran here."""
    found = rows(connection, "list_model_users", model=name, alias=alias)
    return tuple(ModelUser(pipeline=r.pipeline, pinned=r.pinned, model_version=r.model_version) for r in found)


def version_before(history: Sequence[AliasSpan], alias: str) -> int | None:
    """Return the version that an alias goes back to: what it named before its last promotion that still stands.

    A step back undoes a promotion, so it takes it out of what stands: 1, 2, 3 and a step back leave 1, 2, and the next
    step leads to 1.
    """
    standing: list[int] = []
    for entry in history:
        if entry.alias != alias:
            continue
        if entry.went_back and entry.version in standing:
            while standing[-1] != entry.version:
                standing.pop()
        else:
            standing.append(entry.version)
    return standing[-2] if len(standing) > 1 else None


def require_intact(connection: sa.Connection, version: ModelVersion) -> None:
    """Compare the digest of a version's bundle with what was registered; nothing is read from it.

    Raises
    ------
    BundleTampered
    """
    from tasks.bundle_file import digest_of

    found = digest_of(_read(connection, version))
    if found != version.digest:
        raise BundleTampered(
            what=f"Model {version.name} version {version.version}", expected=version.digest, found=found
        )


def read_data(connection: sa.Connection, name: str, version: int) -> bytes:
    """Return the bytes of a version's bundle, as they were registered.

    Raises
    ------
    ModelNotFound, BundleTampered
    """
    from tasks.bundle_file import digest_of

    found = find_version(connection, name, version)
    data = _read(connection, found)
    if digest_of(data) != found.digest:
        raise BundleTampered(what=f"Model {name} version {version}", expected=found.digest, found=digest_of(data))
    return data


def replace_data(connection: sa.Connection, name: str, version: int, data: bytes) -> None:
    """Give a version other bytes and their digest: only what it remembers of an entity may go. The caller's transaction."""
    from tasks.bundle_file import digest_of

    connection.execute(sa.text(load_query("lock_model")), {"model": name})
    known = {"model": name, "version": version}
    connection.execute(sa.text(load_query("delete_model_chunks")), known)
    _store(connection, name, version, data)
    changed = {**known, "digest": digest_of(data), "size_bytes": len(data)}
    connection.execute(sa.text(load_query("replace_model_digest")), changed)


def _store(connection: sa.Connection, name: str, version: int, data: bytes) -> None:
    statement = sa.text(load_query("insert_model_chunk"))
    for chunk, start in enumerate(range(0, len(data), CHUNK_BYTES)):
        part = data[start : start + CHUNK_BYTES]
        connection.execute(statement, {"model": name, "version": version, "chunk": chunk, "data": part})


def _read(connection: sa.Connection, version: ModelVersion) -> bytes:
    """Return the bytes of a version's bundle; never more of them than were registered."""
    parts: list[bytes] = []
    size = 0
    while size < version.size_bytes:
        row = one(connection, "read_model_chunk", model=version.name, version=version.version, chunk=len(parts))
        if row is None:
            break  # the digest of what is there says it
        parts.append(bytes(row.data))
        size += len(parts[-1])
    return b"".join(parts)


def _there(connection: sa.Connection, name: str) -> str:
    versions = list_versions(connection, name)
    if not versions:
        others = sorted({version.name for version in list_versions(connection)})
        return f"it has no versions at all; models there: {', '.join(others) or 'none'}"
    numbers = ", ".join(str(version.version) for version in versions[:10])
    aliases = [f"{alias} = {version.version}" for version in versions for alias in version.aliases]
    return f"its versions are {numbers}" + (f" ({', '.join(aliases)})" if aliases else " (no aliases)")
