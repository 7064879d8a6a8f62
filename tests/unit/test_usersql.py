"""Queries that users write: what is refused, what is warned of, and above all what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import SqlInvalid
from tasks.usersql import (
    Finding,
    Severity,
    expression_problem,
    judge,
    judge_condition,
    normalise,
    read_query,
    tables,
)

FEATURES = "SELECT b.customer_id, b.as_of, c.country FROM batch b JOIN shop.customers c USING (customer_id)"


def findings(text: str, supplied: str = "run", *, sampling: bool = False) -> list[Finding]:
    return judge(read_query(text, "query.sql"), supplied, sampling=sampling)


def codes(text: str, supplied: str = "run", *, sampling: bool = False) -> list[tuple[str, str]]:
    return [(str(found.severity), found.code) for found in findings(text, supplied, sampling=sampling)]


def only_message(text: str, supplied: str = "run") -> str:
    (found,) = findings(text, supplied)
    return found.message


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("SELECT 1; -- done", "SELECT 1"),
        ("SELECT 1 -- not; the end", "SELECT 1 -- not; the end"),
        ("SELECT ';'  ;\n\n", "SELECT ';'"),
        ("  \n SELECT 1 /* ; */ ; /* after; */", "SELECT 1 /* ; */"),
        ("SELECT 'é;', $q$;$q$; -- é", "SELECT 'é;', $q$;$q$"),
        ("\ufeffSELECT 1;", "SELECT 1"),
        ("-- before\nSELECT 1;;", "-- before\nSELECT 1"),
        (";\n; SELECT 1", "SELECT 1"),
        ("/* é; */; -- ü\n;SELECT 'ä' -- ;", "SELECT 'ä' -- ;"),
    ],
)
def test_a_semicolon_ends_the_query_where_the_parser_sees_one(text: str, kept: str) -> None:
    assert read_query(text, "query.sql").text == kept


def test_a_query_that_reads_its_relation_has_no_finding() -> None:
    assert codes(FEATURES, "batch") == []
    assert codes("SELECT c.customer_id FROM shop.customers c, run WHERE c.created_at <= run.as_of") == []
    assert codes("SELECT customer_id FROM shop.customers") == []
    assert codes("SELECT o.id FROM shop.orders o, since WHERE o.loaded_at > since.at", "since") == []


# One SELECT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "statements"),
        ("-- nothing", "statements"),
        ("SELECT 1; SELECT 2", "statements"),
        ("SELECT 1; DROP TABLE shop.customers", "statements"),
        ("DELETE FROM shop.customers", "not_select"),
        ("EXPLAIN SELECT 1", "not_select"),
        ("COPY shop.customers TO STDOUT", "not_select"),
        ("SELECT 1) AS features UNION ALL SELECT * FROM (SELECT 2", "syntax"),
        ("SELECT 1) AS features; DROP TABLE x; --", "syntax"),
        ("SELECT 1 AS x\x00) AS features UNION SELECT (2", "syntax"),
        ("SELECT 'open", "syntax"),
        ("SELECT 1 /* open", "syntax"),
        ("SELECT * INTO shop.copy FROM shop.customers", "into"),
        ("SELECT * FROM shop.customers FOR UPDATE", "locks"),
        ("SELECT * FROM (SELECT * FROM shop.customers FOR SHARE) c", "locks"),
        ("WITH gone AS (DELETE FROM shop.customers RETURNING id) SELECT id FROM gone", "writes"),
        ("WITH a AS (WITH b AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM b) SELECT * FROM a", "writes"),
        ("WITH u AS (UPDATE t SET a = 1 RETURNING a) SELECT a FROM u", "writes"),
        ("SELECT $1", "parameter"),
        pytest.param("SELECT 1" + "||1" * 20_000, "syntax", id="deep"),
        pytest.param("SELECT " + "(" * 50_000 + "1" + ")" * 50_000, "syntax", id="many parentheses"),
    ],
)
def test_what_is_not_exactly_one_reading_select_is_refused(text: str, code: str) -> None:
    assert ("error", code) in codes(text)


def test_other_spellings_of_a_select_are_welcome() -> None:
    for text in (
        "(SELECT 1 AS x)",
        "TABLE shop.customers",
        "VALUES (1), (2)",
        "WITH RECURSIVE t AS (SELECT 1) TABLE t",
    ):
        assert codes(text) == []


def test_a_syntax_error_names_the_line_also_behind_letters_of_several_bytes() -> None:
    assert only_message("SELECT 'äöü€' AS ä,\n  'ß' AS b\nFROM WHERE x").startswith(
        "query.sql line 3: syntax error at or near"
    )


def test_lines_count_from_the_start_of_the_file() -> None:
    assert "query.sql line 4:" in only_message("\n\n\nSELECT id FROM shop.customers LIMIT 10")
    assert "query.sql line 3:" in only_message(";\n\nSELECT id FROM shop.customers LIMIT 10; -- end\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT id FROM t WHERE at < %s", "read run.as_of from the relation run"),
        ("SELECT id FROM t WHERE at < %(as_of)s", "read run.as_of from the relation run"),
        ("SELECT id FROM t WHERE at < '{{ ds }}' AND x = {{ x }}", "Nothing fills templates in"),
        ("\\set x 1\nSELECT 1", "Commands of psql are no SQL; remove them"),
        ("SELECT id FROM t \\gexec", "Commands of psql are no SQL; remove them"),
    ],
)
def test_what_other_tools_fill_in_or_run_is_refused_with_a_word_about_it(text: str, words: str) -> None:
    (found,) = findings(text)
    assert (found.severity, found.code) == (Severity.ERROR, "syntax")
    assert words in found.message


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 5 % 2 AS x, '%s' AS y, b.id::text AS z FROM batch b",
        "SELECT b.id, ' :when ' AS a, '{{ ds }}' AS c, $$\\set$$ AS d FROM batch b WHERE b.x LIKE '100%' -- :as_of",
        "SELECT E'it\\'s :x' AS a, U&'d\\0061t' AS c, $x$ ) AS features $x$ AS d, '{}'::int[] AS e FROM batch b",
        'SELECT b."customerID", b."user", b."ключ", ключ AS größe FROM batch b /* nested /* ; */ ) */',
        "SELECT b.id FROM batch b -- the end) AS features; DROP TABLE x",
    ],
)
def test_signs_that_belong_to_sql_are_no_finding(text: str) -> None:
    assert codes(text, "batch") == []


def test_a_colon_parameter_is_answered_with_the_relation_to_read() -> None:
    assert "read run.as_of from the relation run" in only_message("SELECT 1 FROM t WHERE x < :data_as_of")


# Supplied relations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELECT customer_id FROM shop.customers",
        "SELECT 'batch' AS batch FROM shop.customers -- FROM batch",
        "SELECT b.batch FROM shop.customers batch JOIN shop.b b USING (id)",
        "SELECT * FROM public.batch",
        'SELECT * FROM "Batch"',
        "SELECT (SELECT 1) AS batch",
    ],
)
def test_a_feature_query_that_only_mentions_the_word_batch_is_refused(text: str) -> None:
    assert ("error", "unreferenced") in codes(text, "batch")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM BATCH",
        'SELECT * FROM "batch" AS b',
        "TABLE batch",
        "WITH asked AS (SELECT * FROM batch) SELECT * FROM asked",
        "SELECT * FROM shop.customers c WHERE EXISTS (SELECT FROM batch b WHERE b.id = c.id)",
        "SELECT 1 AS x UNION ALL SELECT id FROM batch",
    ],
)
def test_batch_counts_wherever_it_is_read_as_a_table(text: str) -> None:
    assert codes(text, "batch") == []


@pytest.mark.parametrize(
    ("text", "supplied", "named", "given"),
    [
        ("SELECT b.id, r.as_of FROM batch b, run r", "batch", "run", "batch.as_of"),
        ("SELECT b.id FROM batch b WHERE EXISTS (SELECT FROM SINCE s)", "batch", "since", "batch.as_of"),
        ("WITH x AS (TABLE run) SELECT * FROM x, since", "since", "run", "since.at"),
        ("SELECT id FROM batch", "run", "batch", "run.as_of"),
    ],
)
def test_a_relation_that_belongs_to_another_query_is_refused(text: str, supplied: str, named: str, given: str) -> None:
    """A run would find it in one kind of statement and not in the next, or read a table of the user's own."""
    assert only_message(text, supplied) == (
        f"query.sql line 1: reads the relation {named}, which it is not given; it is given {supplied}. Read {given}, or "
        "write the schema before the name if it is a table of yours"
    )


@pytest.mark.parametrize(
    "text",
    [
        "SELECT b.id, 'run' AS run, b.since FROM batch b JOIN shop.run r USING (id) -- , since",
        'SELECT * FROM batch AS run, public.since, "Run"',
        "SELECT b.id, $$FROM run$$ AS x FROM batch b /* run */",
        "SELECT run(b.id) AS since FROM batch b, LATERAL since(b.id)",
    ],
)
def test_words_that_read_no_supplied_relation_are_no_finding(text: str) -> None:
    assert codes(text, "batch") == []


@pytest.mark.parametrize("name", ["batch", "run", "since", "BATCH", '"run"'])
@pytest.mark.parametrize(
    "text",
    [
        "WITH {0} AS (SELECT 1 AS a) SELECT a FROM batch",
        "SELECT * FROM batch b JOIN (WITH {0} AS (SELECT 1 AS id) SELECT * FROM {0}) x USING (id)",
        "WITH a AS (WITH {0} AS (SELECT 1) SELECT * FROM {0}) SELECT * FROM a, batch",
        "SELECT (WITH {0} AS (SELECT 1) SELECT * FROM {0}) FROM batch",
    ],
)
def test_a_cte_that_hides_a_supplied_relation_is_refused_at_any_level(name: str, text: str) -> None:
    assert ("error", "shadow") in codes(text.format(name), "batch")


def test_aliases_and_columns_may_have_the_names_of_the_relations() -> None:
    assert (
        codes('SELECT b.run, b.since AS batch FROM batch b JOIN shop.x AS since USING (id), t AS "Run"', "batch") == []
    )
    assert codes('WITH "Batch" AS (SELECT 1) SELECT * FROM "Batch", batch', "batch") == []


# Columns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SELECT a, b.a FROM t, b", "a"),
        ("SELECT count(*), count(x) FROM t", "count"),
        ("SELECT x AS n, y AS n FROM t", "n"),
        ("SELECT 1, 2", "?column?"),
        ("SELECT a::text, (t.a) FROM t", "a"),
        ("SELECT CASE WHEN x THEN 1 END, CASE WHEN y THEN 2 END FROM t", "case"),
        ("SELECT coalesce(a, 1), coalesce(b, 1) FROM t", "coalesce"),
        ("SELECT 1::int, 2::int", "int4"),
        ("SELECT a, 1 AS a UNION SELECT 2, 3", "a"),
        ("SELECT (SELECT m FROM x LIMIT 1), m FROM t", "m"),
    ],
)
def test_columns_of_one_name_are_refused_and_the_name_is_said(text: str, name: str) -> None:
    (found,) = [found for found in findings(text) if found.code == "duplicate_column"]
    assert f"2 columns named {name}." in found.message


def test_columns_that_only_look_alike_are_welcome() -> None:
    assert codes('SELECT a, "A", count(*) AS n, count(x), t.*, u.* FROM t, u') == []
    assert codes("SELECT x FROM (SELECT 1 AS x, 2 AS y, 3 AS y2) q") == []


# LIMIT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM t LIMIT 1000",
        "SELECT id FROM t ORDER BY id FETCH FIRST 10 ROWS ONLY",
        "SELECT id FROM t OFFSET 5",
        "(SELECT id FROM t LIMIT 5) UNION ALL SELECT id FROM u",
    ],
)
def test_a_limit_over_the_population_is_an_error_and_over_labels_a_warning(text: str) -> None:
    assert codes(text) == [("error", "limit")]
    assert codes(text, sampling=True) == [("warning", "limit")]


def test_a_limit_over_the_changes_is_an_error_and_over_the_features_a_warning() -> None:
    assert codes("SELECT id FROM t, since WHERE at > since.at LIMIT 10", "since") == [("error", "limit")]
    assert codes("SELECT b.id FROM batch b LIMIT 10", "batch") == [("warning", "limit")]
    assert "Remove it, or pick rows per entity, in LATERAL" in only_message("SELECT b.id FROM batch b LIMIT 1", "batch")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM (SELECT id FROM t LIMIT 10) x",
        "SELECT t.id, x.p FROM t JOIN LATERAL (SELECT p FROM (SELECT p FROM o LIMIT 5) q WHERE q.p = t.p) x ON true",
        "SELECT t.id, (SELECT avg(p) FROM (SELECT o.p FROM o JOIN u ON u.id = o.id LIMIT 5) q) FROM t",
        "SELECT t.id, (WITH few AS (SELECT p FROM o LIMIT 5) SELECT avg(few.p) FROM few WHERE few.p > t.p) FROM t",
        "WITH x AS (SELECT id FROM t LIMIT 10) SELECT id FROM x",
        "SELECT id FROM t WHERE id IN (SELECT id FROM u LIMIT 10)",
        "SELECT id FROM t WHERE id = ANY (ARRAY(SELECT id FROM u LIMIT 10))",
    ],
)
def test_a_limit_further_in_is_a_warning(text: str) -> None:
    assert codes(text) == [("warning", "limit")]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'LIMIT 1' AS a, \"limit\", t.limit AS b FROM t -- LIMIT 10",
        "SELECT id FROM t /* LIMIT 10 */",
        "SELECT id FROM t LIMIT ALL",
        "SELECT id FROM t LIMIT NULL OFFSET 0",
        "SELECT id, (SELECT p FROM o WHERE o.id = t.id ORDER BY at DESC LIMIT 1) FROM t",
        "SELECT id, ARRAY(SELECT p FROM o WHERE o.id = t.id ORDER BY at DESC LIMIT 5) FROM t",
        "SELECT id FROM t WHERE EXISTS (SELECT FROM o WHERE o.id = t.id LIMIT 1)",
        "SELECT t.id, o.p FROM t LEFT JOIN LATERAL (SELECT p FROM o WHERE o.id = t.id LIMIT 1) o ON true",
        "SELECT t.id, l.m FROM t JOIN LATERAL"
        " (SELECT avg(p) AS m FROM (SELECT o.p FROM o WHERE o.id = t.id ORDER BY o.at DESC LIMIT 5) q) l ON true",
        "SELECT t.id, (SELECT avg(p) FROM (SELECT o.p FROM o WHERE o.id = t.id LIMIT 5) q) FROM t",
        "SELECT t.id, (WITH f AS (SELECT o.p FROM o WHERE o.id = t.id LIMIT 5) SELECT avg(p) FROM f) FROM t",
    ],
)
def test_what_limits_nothing_or_picks_per_entity_is_no_finding(text: str) -> None:
    assert codes(text) == []


# Clock and chance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "now()",
        "NOW()",
        "pg_catalog.now()",
        "current_timestamp",
        "current_timestamp(3)",
        "current_date",
        "localtimestamp",
        "clock_timestamp()",
        "statement_timestamp()",
        "'now'::timestamptz",
        "CAST('today' AS date)",
        "date 'yesterday'",
        "transaction_timestamp()",
        "timeofday()",
        "current_time",
        "localtime(0)",
        "' NOW '::timestamp",
        "'today 12:00'::timestamptz",
        "'now'::text::timestamptz",
        "timestamptz('now')",
        "$$tomorrow$$::date",
        "age(b.born)",
        "(SELECT max(at) FROM o WHERE at > now())",
    ],
)
def test_reading_the_clock_is_a_warning_that_names_the_relation_to_read(expression: str) -> None:
    (found,) = findings(f"SELECT b.id, {expression} AS x FROM batch b", "batch")
    assert (found.severity, found.code) == (Severity.WARNING, "clock")
    assert "Write batch.as_of instead" in found.message


@pytest.mark.parametrize("expression", ["random()", "gen_random_uuid()", "setseed(0.5)"])
def test_chance_is_a_warning(expression: str) -> None:
    assert codes(f"SELECT b.id, {expression} AS x FROM batch b", "batch") == [("warning", "random")]


def test_a_sample_of_a_table_is_a_warning() -> None:
    assert codes("SELECT id FROM t TABLESAMPLE system (1)") == [("warning", "sample")]


@pytest.mark.parametrize(
    "expression",
    [
        "'now()'",
        "'now'",
        "'today'::text",
        'b."now"',
        'b."current_date"',
        "shop.now()",
        "b.random",
        "age(b.as_of, b.born)",
        "current_user",
        "to_char(b.as_of, 'now')",
        "$q$random()$q$",
        "'known now'::text",
        "'2026-01-01'::timestamptz",
        "'epoch'::timestamptz",
        "date('2026-01-01')",
        "to_char(b.as_of, 'now')::date",
    ],
)
def test_words_that_do_not_read_the_clock_are_no_finding(expression: str) -> None:
    assert codes(f"SELECT b.id, {expression} AS x /* now() */ FROM batch b -- random()", "batch") == []


# Functions that do something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("nextval('s')", "nextval(), which moves a sequence"),
        ("pg_catalog.setval('s', 1)", "setval(), which moves a sequence"),
        ("set_config('search_path', 'x', false)", "set_config(), which changes a setting of the session"),
        ("pg_sleep(1)", "pg_sleep(), which waits, and the run with it"),
        ("pg_sleep_for('1 minute')", "pg_sleep_for(), which waits"),
        ("pg_advisory_xact_lock(b.id)", "pg_advisory_xact_lock(), which takes or frees a lock"),
        ("pg_advisory_unlock_all()", "pg_advisory_unlock_all(), which takes or frees a lock"),
        ("PG_TRY_ADVISORY_LOCK(1)", "pg_try_advisory_lock(), which takes a lock"),
        ("pg_terminate_backend(1)", "ends another session"),
        ("pg_notify('c', 'x')", "sends a notification"),
        ("lo_import('/etc/passwd')", "creates a large object"),
        ("lo_export(1, '/tmp/x')", "writes a file on the server"),
        ("dblink_exec('host=x', 'DELETE FROM t')", "runs a statement in another database"),
        ("extensions.dblink_connect('host=x')", "opens a connection to another database"),
        ("pg_reload_conf()", "makes the server read its settings again"),
        ("pg_stat_reset()", "clears statistics of the server"),
        ("pg_create_restore_point('x')", "creates something on the server"),
        ("(SELECT max(nextval('s')) FROM o WHERE o.id = b.id)", "moves a sequence"),
    ],
)
def test_a_function_that_does_something_is_refused_wherever_it_stands(expression: str, words: str) -> None:
    text = f"WITH a AS (SELECT b.id, {expression} AS x FROM batch b)\nSELECT id FROM a"
    (found,) = findings(text, "batch")
    assert (found.severity, found.code) == (Severity.ERROR, "effect")
    assert words in found.message
    assert found.message.startswith("query.sql line 1: calls ")
    assert found.message.endswith("Remove it; a query only reads")


@pytest.mark.parametrize(
    "expression",
    [
        "'nextval(1)'",
        "shop.nextval('s')",
        "nextvalue(b.id)",
        "b.pg_sleep",
        "pg_size_pretty(b.id)",
        "$$pg_advisory_lock(1)$$",
        "lower(b.set_config)",
        "b.\"nextval('s')\"",
        "current_setting('TimeZone')",
        "shop.lo_put(b.id)",
    ],
)
def test_words_that_do_nothing_are_no_finding(expression: str) -> None:
    assert codes(f"SELECT b.id, {expression} AS x /* nextval('s') */ FROM batch b -- pg_sleep(1)", "batch") == []


def test_a_text_that_another_database_runs_is_a_warning() -> None:
    text = "SELECT b.id, d.x FROM batch b JOIN dblink('host=x', 'SELECT 1, now()') AS d(id int, x int) USING (id)"
    assert codes(text, "batch") == [("warning", "elsewhere")]
    assert codes("SELECT b.id, 'dblink(1)' AS dblink FROM batch b, shop.dblink", "batch") == []


# Tables -------------------------------------------------------------------------------------------------------------


def test_tables_are_those_that_are_read_not_ctes_nor_supplied_relations() -> None:
    query = read_query(
        """
        WITH recent AS (SELECT * FROM shop.orders), again AS (SELECT * FROM recent)
        SELECT * FROM batch b JOIN again USING (id) JOIN "Mixed"."Case" USING (id), run, since, lookup
        WHERE EXISTS (SELECT FROM shop.visits) AND b.id IN (WITH z AS (SELECT 1) TABLE z)
        """,
        "features.sql",
    )
    assert tables(query) == {("shop", "orders"), ("Mixed", "Case"), (None, "lookup"), ("shop", "visits")}


def test_a_cte_is_a_table_again_outside_of_its_scope() -> None:
    inner = read_query("SELECT * FROM (WITH z AS (SELECT 1) SELECT * FROM z) q, z", "q.sql")
    assert tables(inner) == {(None, "z")}
    earlier = read_query("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", "q.sql")
    assert tables(earlier) == {(None, "b")}
    recursive = read_query("WITH RECURSIVE a AS (SELECT 1 UNION SELECT * FROM a) SELECT * FROM a", "q.sql")
    assert tables(recursive) == set()
    schema = read_query("WITH a AS (SELECT 1) SELECT * FROM shop.a, a", "q.sql")
    assert tables(schema) == {("shop", "a")}


def test_tables_of_what_is_no_sql_are_not_guessed() -> None:
    with pytest.raises(SqlInvalid, match=r"q.sql line 1: syntax error"):
        tables(read_query("SELEC 1", "q.sql"))


# Normal form --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "select B.id,count(*) n from batch b where b.x<>'A'   and b.y>=1 group by b.id",
        "SELECT b.id, -- the key\n  count(*) AS n /* all */\nFROM batch b WHERE b.x != 'A' AND b.y >= 1\nGROUP BY b.id",
        '\tSELECT "b"."id", COUNT(*) AS n FROM batch AS "b" WHERE (b.x <> \'A\') AND ((b.y >= 1)) GROUP BY b.id;',
    ],
)
def test_layout_comments_and_case_of_keywords_do_not_change_the_normal_form(other: str) -> None:
    text = "SELECT b.id, count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id"
    assert normalise(other) == normalise(text)


@pytest.mark.parametrize(
    "other",
    [
        "SELECT b.id, count(*) AS n FROM batch b WHERE b.x <> 'a' AND b.y >= 1 GROUP BY b.id",
        "SELECT b.id, count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 2 GROUP BY b.id",
        "SELECT b.id, count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y > 1 GROUP BY b.id",
        "SELECT b.id, count(*) AS m FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id",
        "SELECT b.\"ID\", count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id",
        "SELECT b.id, count(b.*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id",
        "SELECT DISTINCT b.id, count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id",
        "SELECT b.id, count(*) AS n FROM batch b LEFT JOIN t ON true WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id",
    ],
)
def test_whatever_may_change_a_value_changes_the_normal_form(other: str) -> None:
    text = "SELECT b.id, count(*) AS n FROM batch b WHERE b.x <> 'A' AND b.y >= 1 GROUP BY b.id"
    assert normalise(other) != normalise(text)


def test_intervals_and_zero_are_part_of_the_normal_form() -> None:
    assert normalise("SELECT interval '90 days'") != normalise("SELECT interval '30 days'")
    assert normalise("SELECT 0") != normalise("SELECT 1")
    assert normalise("SELECT true") != normalise("SELECT false")
    assert normalise("SELECT NULL") != normalise("SELECT ''")
    assert normalise("SELECT 1.0") != normalise("SELECT 1.00")


def test_the_normal_form_of_what_is_no_sql_is_refused() -> None:
    with pytest.raises(SqlInvalid, match="line 2"):
        normalise("SELECT 1\nFROM WHERE")
    with pytest.raises(SqlInvalid, match="nested too deeply"):
        normalise("SELECT 1" + "||1" * 20_000)


# Conditions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["a = 1", "(a OR b) AND c -- so", "x IN (SELECT 1)", "t ~ '\\)'", "row(1, 2) = r", "'('=p"]
)
def test_one_condition_is_an_expression(text: str) -> None:
    assert expression_problem(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a) OR (b",
        "a, b",
        "true) FROM t WHERE (true",
        "true) UNION SELECT (1",
        "a; DROP TABLE t",
        "a ORDER BY b",
        "a AS b",
        "'open",
        "a /* open",
        "a\x00",
        "SELECT 1",
    ],
)
def test_what_would_leave_its_parentheses_is_no_expression(text: str) -> None:
    assert expression_problem(text) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id IN (SELECT id FROM t FOR UPDATE)", "locks rows"),
        ("nextval('s') > 0", "moves a sequence"),
        ("at > $1", "There are no parameters; write the value"),
        ("at > (SELECT as_of FROM run)", "reads the relation run, which it is not given. Remove it"),
        pytest.param("a" + "||1" * 3_000, "nested too deeply", id="deep"),
    ],
)
def test_a_condition_only_reads_what_it_names(text: str, words: str) -> None:
    assert words in (expression_problem(text) or "")


def test_a_condition_that_reads_the_clock_is_a_warning() -> None:
    (found,) = judge_condition("at > now() - interval '1 day'")
    assert (found.severity, found.code) == (Severity.WARNING, "clock")
    assert "Leave time to watermark, warn_after and fail_after" in found.sentence
    assert judge_condition("note <> 'now()' AND at > '2026-01-01' -- now()") == []


# Anything -----------------------------------------------------------------------------------------------------------

PIECES = """
SELECT FROM WHERE batch run now() LIMIT 1 x . , ( ) ' " ; -- /* */ * $$ $1 WITH AS UNION é € :a é.b OFFSET LATERAL
INSERT INTO t VALUES IN EXISTS CASE WHEN THEN END :: int + - % FOR UPDATE
"""
WORDS = ["\n", "\t", *PIECES.split()]


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(max_size=40))
def test_any_text_is_judged_and_never_crashes(text: str) -> None:
    clean = text.encode("utf-8", "ignore").decode("utf-8")
    query = read_query(clean, "any.sql")
    refused = [found for found in judge(query, "batch") if found.severity is Severity.ERROR]
    if not refused:
        assert "batch" in clean
        assert normalise(query.text) == normalise(f"\n{query.text}\n-- end")
    assert expression_problem(clean) is None or expression_problem(clean)
