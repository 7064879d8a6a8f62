"""Another name for a pipeline: everything of it follows in one transaction, and so does what others built on it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from tasks.announcements import Event, announce
from tasks.belongings import DependentsInTheWay, belongings, control_tables, dependents, mentions
from tasks.database import literal, load_query, one, quote, raw_execute, rows
from tasks.errors import PrescoreError, UsageError
from tasks.fields import name_problem
from tasks.grants import give, read_grants
from tasks.health import PipelineNeverRan
from tasks.pipeline import FILE
from tasks.readers import (
    STORAGES,
    Objects,
    comment_on_lookup,
    define,
    definitions,
    digest_of,
    record_views,
    shortened,
    stored,
)
from tasks.removal import ArchivePlace, archive_places
from tasks.reshaping import patiently
from tasks.runs import hold_lock
from tasks.settings import Settings, os_user


class NameTaken(PrescoreError):
    """The new name of a pipeline belongs to something else."""

    def __init__(self, pipeline: str, taken: str, by: str) -> None:
        self.pipeline, self.taken = pipeline, taken
        super().__init__(
            f"{pipeline} cannot be called {taken}: {by}. Nothing was changed; what was published is still served. Choose another "
            f"name, or give up what has it: `prescore drop {taken}`."
        )


class ModelUnnamed(PrescoreError):
    """A pipeline's model has its name because the pipeline has."""

    def __init__(self, pipeline: str, model: str) -> None:
        self.pipeline, self.model = pipeline, model
        super().__init__(
            f"The model of {pipeline} is called {model} because its pipeline is: under another name no version would be found. "
            f'Nothing was changed; what was published is still served. Write name = "{model}" under [model] of its '
            "pipeline.toml (nothing is scored again for that), and rename it then."
        )


@dataclass(frozen=True, kw_only=True)
class RenamedPipeline:
    """What was renamed, and what is still to be done."""

    former: str
    pipeline: str
    #: It had the new name already; nothing was changed now.
    already: bool
    #: Views and a lookup of the old name still answer.
    kept_old_name: bool
    #: Where the folder is now; None when it was not there to be renamed.
    folder: Path | None = None
    #: Functions whose text names the views by the old name.
    mentions: tuple[str, ...] = ()
    #: Copies of earlier publications, which stay under the old name.
    archives: tuple[ArchivePlace, ...] = ()


def rename(settings: Settings, url: str, former: str, pipeline: str, *, keep_old_name: bool = False) -> RenamedPipeline:
    """Give a pipeline another name: rows, views, functions, indexes, records of every kind, and its folder if it is here.

    All but the folder in one transaction: a reader finds the one or the other. Views and functions that others built, and rights,
    follow by themselves. With ``keep_old_name`` views and a lookup of the old name go on answering, with the same rights.

    Raises
    ------
    UsageError, PipelineNeverRan, NameTaken, ModelUnnamed, RunInProgress, DependentsInTheWay, ReadersInTheWay
    """
    problem = name_problem(pipeline, suffixes=True)
    if problem or former == pipeline:
        raise UsageError(f"{problem or 'Both names are the same'}. Nothing was changed. Say another new name.")
    with hold_lock(url, former) as connection, hold_lock(url, pipeline):
        if _is_done(connection, former, pipeline):
            kept = one(connection, "find_former_name", former=former).use == "alias"
            connection.rollback()
            folder = _rename_folder(settings.pipelines_dir, former, pipeline)
            return RenamedPipeline(former=former, pipeline=pipeline, already=True, kept_old_name=kept, folder=folder)
        _require_free(connection, former, pipeline)
        _require_model(connection, settings.pipelines_dir / former, former)
        named = () if keep_old_name else tuple(mentions(connection, former))
        archives = archive_places(connection, former)
        connection.rollback()
        patiently(
            connection, former, "Renaming the views", lambda: _rename(connection, former, pipeline, keep_old_name)
        )
    return RenamedPipeline(
        former=former,
        pipeline=pipeline,
        already=False,
        kept_old_name=keep_old_name,
        folder=_rename_folder(settings.pipelines_dir, former, pipeline),
        mentions=named,
        archives=archives,
    )


def _rename(connection: sa.Connection, former: str, pipeline: str, keep_old_name: bool) -> None:
    """Rename everything in the database, in the open transaction."""
    before = stored(connection, former)
    if before is not None:
        _drop_alias(connection, before, pipeline)
        before = replace(before, former=tuple(name for name in before.former if name != pipeline))
        _rename_objects(connection, before, before.named(pipeline))
    tables = control_tables(connection)
    updates = ", ".join(
        f"t{at} AS ({load_query('rename_in_table', {'table': table})})" for at, table in enumerate(tables)
    )
    names = {"former": former, "pipeline": pipeline}
    connection.execute(sa.text(load_query("delete_former_name")), {"pipeline": former, "former": pipeline})
    connection.execute(sa.text(load_query("rename_records", {"updates": updates})), names)
    values = {**names, "aliased": keep_old_name and before is not None, "os_user": os_user()}
    connection.execute(sa.text(load_query("insert_former_name")), values)
    if before is not None:
        kept = (former,) if keep_old_name else ()
        after = replace(before.named(pipeline), former=(*before.former, *kept), renamed_from=former)
        keeps = any(each.name == after.history_view for each in belongings(connection, after))
        after = replace(after, keeps_history=keeps)
        define(connection, after)
        _describe(connection, former, after)
        if keep_old_name:
            _share(connection, after, after.named(former))
        record_views(connection, after, digest_of(definitions(after)))
    announce(connection, pipeline, Event.RENAMED, former=former)


def _is_done(connection: sa.Connection, former: str, pipeline: str) -> bool:
    if one(connection, "find_pipeline", pipeline=former) is not None:
        return False
    found = one(connection, "find_former_name", former=former)
    if found is None:
        raise PipelineNeverRan(former, [row.pipeline for row in rows(connection, "list_pipelines")])
    if found.pipeline != pipeline:
        raise NameTaken(former, pipeline, f"{former} is a former name of {found.pipeline}: rename that")
    return True


def _require_free(connection: sa.Connection, former: str, pipeline: str) -> None:
    if one(connection, "find_pipeline", pipeline=pipeline) is not None:
        raise NameTaken(former, pipeline, f"there is a pipeline {pipeline}")
    had = one(connection, "find_former_name", former=pipeline)
    if had is not None and had.pipeline != former:
        raise NameTaken(former, pipeline, f"it is a former name of {had.pipeline}")
    before = stored(connection, former)
    if before is None or pipeline in before.former:
        return
    there = belongings(connection, before.named(pipeline))
    if there:
        raise NameTaken(former, pipeline, f"there is {there[0].kind} {there[0].shown}")


def _require_model(connection: sa.Connection, folder: Path, pipeline: str) -> None:
    """Refuse where the model is named by the pipeline alone, by its folder or, where that is not here, by its last run."""
    known = one(connection, "find_registered", pipeline=pipeline)
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except OSError:
        text = known.contract_text
    try:
        declared = tomllib.loads(text).get("model", {})
    except tomllib.TOMLDecodeError:
        return  # no run of it can take place before it is mended
    if known.versions and not (isinstance(declared, dict) and "name" in declared):
        raise ModelUnnamed(pipeline, known.model)


def _drop_alias(connection: sa.Connection, objects: Objects, name: str) -> None:
    """Remove the views of a name that the pipeline is to have again."""
    if name not in objects.former:
        return
    alias = replace(objects.named(objects.pipeline), former=(name,))
    mine = {each for own in alias.aliases for each in (own.signature, own.usable, own.view)}
    there = [each for each in belongings(connection, alias) if each.name in mine]
    others = dependents(connection, there)
    if others:
        raise DependentsInTheWay(objects.pipeline, f"Removing the views of its former name {name}", others)
    for each in there:
        raw_execute(connection, load_query("drop_object", {"kind": each.kind.upper(), "name": each.name}))


def _rename_objects(connection: sa.Connection, before: Objects, after: Objects) -> None:
    """Rename tables, storages, indexes, views and functions; what rests on them follows."""
    there = belongings(connection, replace(before, former=()))
    indexes = rows(connection, "list_indexes", tables=[each.oid for each in there if each.kind == "table"])
    for each in there:
        _rename_one(connection, each.kind, each.name, _bare(each.name), before, after)
    for storage_id in STORAGES:
        _rename_one(connection, "table", before.storage(storage_id), before.storage_name(storage_id), before, after)
    for index in indexes:
        _rename_one(connection, "index", before.qualified(quote(index.name)), index.name, before, after)


def _rename_one(connection: sa.Connection, kind: str, name: str, bare: str, before: Objects, after: Objects) -> None:
    if not bare.startswith(before.pipeline):
        return
    new_name = _known_indexes(before, after).get(bare) or shortened(after.pipeline + bare.removeprefix(before.pipeline))
    fragments = {"kind": kind.upper(), "name": name, "new_name": quote(new_name)}
    raw_execute(connection, load_query("rename_object", fragments))


def _known_indexes(before: Objects, after: Objects) -> dict[str, str]:
    """Return the names of indexes on outputs, which are cut short where they are long, as they were and as they will be."""
    outputs = tuple(column.name for column in before.outputs)
    was, will_be = replace(before, indexed=outputs), replace(after, indexed=outputs)
    return {
        old: new
        for storage_id in STORAGES
        for old, new in zip(was.output_indexes(storage_id), will_be.output_indexes(storage_id), strict=True)
    }


def _bare(name: str) -> str:
    """Return the name of an object without schema, types and quotes."""
    return name.partition("(")[0].rpartition(".")[2].strip('"')


def _describe(connection: sa.Connection, former: str, objects: Objects) -> None:
    """Mend comments that name the pipeline, and say of views of the old name what they are."""
    texts = {
        objects.usable: f"Rows of {objects.pipeline} that may be used now, for ranking and filtering with an index."
    }
    described = one(connection, "describe_comment", relation=objects.view).comment
    if described == f"Predictions of {former}.":
        texts[objects.view] = f"Predictions of {objects.pipeline}."
    for alias in objects.aliases:
        for view, of in ((alias.view, objects.view), (alias.usable, objects.usable)):
            texts[view] = f"Deprecated: {of.replace(chr(34), '')} by an old name; use that."
        comment_on_lookup(connection, alias)
    for view, text in texts.items():
        raw_execute(connection, load_query("comment_on_view", {"view": view, "comment": literal(text)}))


def _share(connection: sa.Connection, objects: Objects, alias: Objects) -> None:
    """Give the views and the lookup of the old name the rights of the new ones."""
    pairs = [(objects.view, alias.view), (objects.usable, alias.usable), (objects.signature, alias.signature)]
    found = {each.name: each for each in belongings(connection, objects)}
    rights = read_grants(
        connection,
        relations=[found[name].oid for pair in pairs[:2] for name in pair],
        functions=[found[name].oid for name in pairs[2]],
    )
    for of, name in pairs:
        target = f"FUNCTION {name}" if found[name].kind == "function" else name
        columns = {grant.column for grant in rights[found[of].oid] if grant.column is not None}
        give(connection, {target: rights[found[of].oid]}, {target: rights[found[name].oid]}, columns)


def _rename_folder(directory: Path, former: str, pipeline: str) -> Path | None:
    """Rename the folder of a pipeline unless it is not here, or the new one is; return where it is now."""
    old, new = directory / former, directory / pipeline
    if new.exists():
        return new if not old.exists() else None
    try:
        old.rename(new)
    except OSError:
        return None
    return new
