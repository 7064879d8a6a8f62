"""Questions: what each check asks, why, where its limits are set, and what to do when the answer is bad.

It imports no check, so that telling of one loads neither a model library nor Prefect. A test keeps it equal to the checks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one check asks."""

    check_id: str
    #: Its place in the taxonomy: S source, M model, D distribution, R rows, P performance, T time.
    code: str
    question: str
    why: str
    #: What to do when the answer is bad.
    remedy: str
    #: Keys of pipeline.toml that set its limits; none where the limits are fixed.
    keys: tuple[str, ...] = ()


def _ask(check_id: str, code: str, question: str, why: str, remedy: str, *keys: str) -> Question:
    return Question(check_id=check_id, code=code, question=question, why=why, remedy=remedy, keys=keys)


#: Every check, in the order of the taxonomy.
QUESTIONS: tuple[Question, ...] = (
    _ask(
        "source.age",
        "S1",
        "How old is the newest row of each source?",
        "Predictions are as old as their data. A loader that stopped is seen here although every run succeeds.",
        "Find out why the source is not loaded; runs publish again once it is.",
        "[[source]] warn_after",
        "[[source]] fail_after",
    ),
    _ask(
        "source.future",
        "S2",
        "Are there rows from the future, or without a date?",
        "One row dated next year makes a source look fresh for a year.",
        "Correct these rows, declare the zone of the watermark, or declare another watermark.",
        "[[source]] zone",
        "[[source]] kind",
    ),
    _ask(
        "source.rows",
        "S3",
        "Did about as many rows arrive as usual?",
        "Half a load has current timestamps and looks complete.",
        "See whether the load ended; load what is missing, then score again.",
        "[[source]] rows",
    ),
    _ask(
        "source.every",
        "S3",
        "Is every expected part of a source there, such as every region?",
        "A part that is missing may be too small to be seen in the total.",
        "Load the missing part, then score again.",
        "[[source]] every",
    ),
    _ask(
        "source.late",
        "S3",
        "Did rows arrive behind the point that the last run had read up to?",
        "A transaction that began early and ended late leaves rows that an incremental run would never see.",
        "Declare how late rows may come, so that runs look back as far.",
        "[[source]] late_by",
    ),
    _ask(
        "population.size",
        "S3",
        "Is the population empty, or suddenly small?",
        "A population that shrank is more often a broken load than a shop without customers.",
        "Look at what [entity] query returns now.",
        "[coverage] shrink",
    ),
    _ask(
        "features.age",
        "S4",
        "How old are the features of each entity?",
        "A source may be fresh for most entities and years old for some.",
        "Refresh the source of these features, or declare a longer time to live for a slow one.",
        "[features]",
    ),
    _ask(
        "schema",
        "S5",
        "Do the features have the names and types that the model expects?",
        "A renamed or retyped column makes predictions of something else.",
        "Let features.sql return what the model expects, or promote a version that was trained without it.",
    ),
    _ask(
        "logic",
        "S6",
        "When the logic changed: do remembered rows still get the same features?",
        "An edited query changes what the model sees, without an error.",
        "Restore the query, or train on what it returns now.",
        "[logic] files",
        "[model] golden",
    ),
    _ask(
        "model.age",
        "M1",
        "How old is the data that the model was trained on?",
        "The world moves on; a model knows it as it was.",
        "Train a new version, compare its metrics, promote it.",
        "[model] warn_age",
        "[model] fail_age",
    ),
    _ask(
        "model.identity",
        "M2",
        "Does the alias still name the version that was used?",
        "A promotion during a run leaves predictions of the version before.",
        "Run again: the next run uses the new version.",
    ),
    _ask(
        "model.environment",
        "M3",
        "Are the libraries those of training?",
        "Another version of a library may load a model and predict something else.",
        "Install the versions that the message names, or train with those installed.",
        "[model] environment",
    ),
    _ask(
        "model.golden",
        "M4",
        "Do remembered rows still get the predictions they had?",
        "It sees what no schema sees: two columns swapped, another default, another library.",
        "Promote another version of the model, or train again.",
        "[model] golden",
    ),
    _ask(
        "model.sentinels",
        "M4",
        "Do remembered rows get the predictions they had when they are scored among the others?",
        "It sees mistakes of the bulk path: rows that moved, columns that shifted at the border of a batch.",
        "Look for a preprocess or a model that keeps something between batches.",
    ),
    _ask(
        "drift.input",
        "D1",
        "Is a feature still distributed as in training?",
        "A model answers for the rows that it was trained on. Far from them its number means little.",
        "Look at the source of the feature. If the change is real, train on newer data.",
        "[drift] warn",
        "[drift] fail",
        "[drift.feature.<name>]",
    ),
    _ask(
        "drift.inputs",
        "D1",
        "Did so many important features drift that the model no longer fits?",
        "One unimportant column says little; much of the importance drifting asks for a new model.",
        "Train a new version on newer data, compare its metrics, promote it.",
        "[drift] fail",
    ),
    _ask(
        "drift.step",
        "D2",
        "Did a feature change suddenly, against the last runs?",
        "A step overnight is more often a broken load than a change of the world.",
        "Look at what changed in the source between the last two loads.",
        "[drift] slot",
        "[drift.feature.<name>]",
    ),
    _ask(
        "input.nulls",
        "D3",
        "Is a feature empty more often than in training?",
        "A join that finds nothing gives NULL, and the model answers all the same.",
        "Look for the join or the load that lost the values.",
        "[drift] null_delta",
        "[drift.feature.<name>]",
    ),
    _ask(
        "input.range",
        "D3",
        "Do values lie outside the range of training?",
        "A unit that changed moves a few values far away, and hardly moves the distribution.",
        "Look for another unit, a default such as -1, or a wrong sign.",
        "[drift] out_of_range",
        "[drift.feature.<name>]",
    ),
    _ask(
        "input.unseen",
        "D3",
        "Are there categories that training did not see?",
        "A model has nothing to say of a category that it never saw.",
        "Correct the spelling at the source, or train on data that holds the category.",
        "[drift] unseen",
        "[drift.feature.<name>]",
    ),
    _ask(
        "input.infinite",
        "D3",
        "Are there infinite values?",
        "They come of a division by zero, and no model means them.",
        "Look for a division in features.sql.",
    ),
    _ask(
        "input.constant",
        "D3",
        "Does a feature have a single value that varied in training?",
        "A column that stands still is a default, or a load that failed.",
        "Look at the source of the feature.",
    ),
    _ask(
        "drift.output",
        "D4",
        "Are predictions still distributed as in training?",
        "It sees what several small changes of the features come to.",
        "See which features drifted; they say why.",
        "[drift] warn",
        "[drift] fail",
    ),
    _ask(
        "outputs.non_finite",
        "D4",
        "Were predictions NaN or infinite?",
        "Such rows are rejected, and many of them are a fault of the model or of its input.",
        "Look at the features of the rejected entities.",
    ),
    _ask(
        "output.rate",
        "D4",
        "Does the share of positive predictions stay where it was?",
        "Whoever acts on the positive ones gets another number of them.",
        "See which features drifted; they say why.",
        "[drift] warn",
        "[drift] fail",
    ),
    _ask(
        "outputs.constant",
        "D3",
        "Does everybody get the same score?",
        "A model that says the same of all has lost its input.",
        "Look at the features of a few entities; if they are right, promote another version of the model.",
    ),
    _ask(
        "outputs.frozen",
        "D5",
        "Are input and output exactly those of the last run, although the sources say they moved?",
        "A job that succeeds every night on a cached input is the fault that nobody sees.",
        "Look for a cache, a copied table or a view that is not refreshed.",
    ),
    _ask(
        "outputs.flips",
        "D5",
        "Do many more entities change their class than usual?",
        "A jump from one run to the next is seldom the world.",
        "See which features changed between the two runs.",
    ),
    _ask(
        "performance.metric",
        "P1",
        "Is the model as good as it was, by the labels that are known by now?",
        "It is the only check that knows whether predictions are right.",
        "Train a new version, compare its metrics, promote it.",
        "[performance] metric",
        "[performance] baseline",
        "[performance] tolerance",
        "[performance] maturity",
        "[performance] min_label_coverage",
    ),
    _ask(
        "performance.estimate",
        "P2",
        "How good is the model likely to be, by its own scores, before labels are known?",
        "Labels come late. The estimate cannot see that the meaning of the features changed.",
        "See which features drifted, and wait for the labels.",
        "[performance] tolerance",
    ),
    _ask(
        "performance.calibration",
        "P3",
        "Do scores still mean what they say: of those at 0.7, did seven of ten happen?",
        "Whoever reckons with a score needs it, and so does the estimate without labels.",
        "Train a new version, or calibrate the model.",
        "[performance] maturity",
    ),
    _ask(
        "rows.age",
        "R1",
        "How old are the predictions themselves?",
        "An incremental run leaves rows as they are; each has an as_of of its own.",
        "Run prescore score with --full, or shorten valid_for.",
        "[serve] aging_after",
        "[serve] stale_after",
    ),
    _ask(
        "rows.missing",
        "R2",
        "How many entities have no features?",
        "An entity that a join dropped would keep no prediction, or an old one.",
        "Look for a LIMIT in features.sql and the views it reads, or a join that drops entities.",
        "[coverage] missing",
    ),
    _ask(
        "rows.rejected",
        "R2",
        "How many entities could not be scored?",
        "A few are data; many are a fault.",
        "Mend what the reasons name, or train a model that accepts it.",
    ),
    _ask(
        "rows.orphaned",
        "R3",
        "How many served entities are gone?",
        "They are removed. Very many at once are more likely a broken population.",
        "Look at what [entity] query returns now.",
    ),
    _ask(
        "rows.torn",
        "R4",
        "Is what was written what was read?",
        "Count and checksum of the keys must agree, or rows were lost or doubled on the way.",
        "Let features.sql return exactly one row for each (key, as_of) of batch.",
    ),
    _ask(
        "rows.skipped",
        "R4",
        "Does a sample of the skipped entities still score the same?",
        "An incremental run trusts changes.sql to name every change. This proves it on a sample.",
        "Let changes.sql name every table that features.sql reads; run prescore score with --full once.",
    ),
    _ask(
        "storage.space",
        "R5",
        "Does what this run is about to write fit on the disk of the server?",
        "A disk that fills up in the middle of a load stops the whole server, readers too.",
        "Free disk space of the database server, or give it more.",
    ),
    _ask(
        "storage.bloat",
        "R6",
        "How many times what its rows need does the storage that is served take?",
        "Merged rows leave the old ones behind; without VACUUM scans and disks pay for rows that nobody sees.",
        "Look for transactions and replication slots that stay open for hours: VACUUM removes nothing that they may still see.",
    ),
    _ask(
        "schedule.missed",
        "T1",
        "Did a scheduled run not happen?",
        "A schedule that nobody starts makes no error anywhere.",
        "See whether the scheduler is alive (prescore serve, the worker, cron). A manual run does not make up for it.",
        "[schedule] grace",
    ),
    _ask(
        "runs.hung",
        "T2",
        "Is a run at work that gives no sign of life?",
        "It holds the lock of the pipeline, and no other run can start.",
        "See what its process waits for; end it with `prescore cancel RUN --force`, then start the next run.",
    ),
    _ask(
        "clock.offset",
        "T3",
        "Do the clocks of database and host agree?",
        "Freshness is judged by the clock of the database. A wrong one makes everything fresh, or nothing.",
        "Set the clock of the database server (NTP).",
    ),
    _ask(
        "checks.complete",
        "T4",
        "Was every check asked?",
        "A check that did not run is no check that passed.",
        "Read the log of the run: the check that raised is named there.",
    ),
    _ask(
        "archive.owed",
        "T5",
        "Is what is served archived, too?",
        "Clients of the lake read copies. One that is not there lets them go on with the one before, and nobody tells them.",
        "Look at the address in [archive], its rights and its free space; the next run writes what is owed.",
        "archive.url",
    ),
)

_BY_ID = {question.check_id: question for question in QUESTIONS}


def question_of(check_id: str) -> Question | None:
    """Return what a check asks; None for one that this version does not know."""
    return _BY_ID.get(check_id)


def remedy_of(check_id: str) -> str:
    """Return what to do when a check is not content; empty for one that this version does not know."""
    found = _BY_ID.get(check_id)
    return "" if found is None else found.remedy


def matching(word: str, also: Iterable[str] = ()) -> list[str]:
    """Return the ids of the checks that a word means: an id, a code such as D1, or a glob such as ``drift.*``.

    ``also`` are ids that are stored and that this version may not know.
    """
    known = [*_BY_ID, *sorted(set(also) - set(_BY_ID))]
    by_code = [question.check_id for question in QUESTIONS if question.code == word.upper()]
    return by_code or [each for each in known if fnmatchcase(each, word.lower())]


def nearest(word: str) -> list[str]:
    """Return the ids that are spelt most like a word, or of which it is a part; at most three."""
    parts = [each for each in _BY_ID if word.lower() and word.lower() in each]
    return list(dict.fromkeys([*difflib.get_close_matches(word.lower(), _BY_ID, n=3, cutoff=0.5), *parts]))[:3]
