"""What the README shows: its fenced examples, and a small world in which they hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:--|#) ([a-z_/]+\.(?:sql|py|toml))\n")

#: The chapter that leads from a table and a model to a schedule. It has a world of its own: test_ten_minutes.py.
CHAPTER = "Ten minutes: from your table and model to a scheduled pipeline"

#: The tables that the examples speak of: customers, products, and orders of most customers over the last 400 days.
SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    customer_id bigint PRIMARY KEY, name text NOT NULL, country text, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
INSERT INTO shop.customers
SELECT x, 'Customer ' || x, (ARRAY['FR', 'DE', 'IT'])[1 + x % 3], now() - interval '500 days', now() - interval '2 hours'
FROM generate_series(1, 150) AS x;
CREATE TABLE shop.products (product_id bigint PRIMARY KEY, name text NOT NULL);
INSERT INTO shop.products SELECT x, 'Product ' || x FROM generate_series(1, 30) AS x;
CREATE TABLE shop.orders (
    order_id bigint PRIMARY KEY, customer_id bigint NOT NULL, product_id bigint NOT NULL, amount numeric(10, 2) NOT NULL,
    ordered_at timestamptz NOT NULL, loaded_at timestamptz NOT NULL
);
INSERT INTO shop.orders
SELECT row_number() OVER (), x, 1 + (x + n * (x % 5)) % 30, 10 + x % 7, ordered_at, ordered_at + interval '10 minutes'
FROM generate_series(1, 140) AS x
CROSS JOIN LATERAL (
    SELECT n, now() - interval '1 hour' - x * interval '1 second' - n * (5 + x % 60) * interval '1 day' AS ordered_at
    FROM generate_series(0, 400 / (5 + x % 60)) AS n
) AS orders;
ANALYZE shop.customers, shop.orders
"""


@dataclass(frozen=True)
class Block:
    """One fenced example."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file of a pipeline that it shows, as its first line says; None for any other example."""
        found = _FILE.match(self.text)
        return found[1] if found else None


def _blocks(text: str) -> list[Block]:
    return [Block(language, block) for language, block in _FENCE.findall(text)]


BLOCKS = _blocks(README)


def chapter() -> list[Block]:
    """Return the examples of the chapter that leads from a table and a model to a schedule, in order."""
    return _blocks(section(CHAPTER))


def shown(language: str) -> list[Block]:
    """Return the examples in a language, in order."""
    return [block for block in BLOCKS if block.language == language]


def statements() -> list[Block]:
    """Return the SQL that readers and operators of the shop would send; the files of a pipeline are not among it."""
    return [block for block in shown("sql") if block.file is None and block not in chapter()]


def declarations() -> list[str]:
    """Return each pipeline.toml."""
    return [block.text for block in shown("toml") if block.file == "pipeline.toml"]


def pipeline_files() -> dict[str, str]:
    """Return the other files of the pipeline that the README builds: name and text."""
    return {
        block.file: block.text
        for block in BLOCKS
        if block.file not in {None, "pipeline.toml"} and block not in chapter()
    }


def section(title: str) -> str:
    """Return the text below a heading, up to the next one of the two upper levels."""
    found = re.search(rf"^#+ {re.escape(title)}$", README, re.MULTILINE)
    assert found, f"the README has no section {title}"
    # A comment in an example is no heading.
    examples = [example.span() for example in _FENCE.finditer(README)]
    ends = (heading.start() for heading in re.compile(r"^#{1,2} ", re.MULTILINE).finditer(README, found.end()))
    outside = (end for end in ends if not any(start < end < stop for start, stop in examples))
    return README[found.end() : next(outside, len(README))]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables in a text, headings and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {at for at, row in enumerate(cells) if all(re.fullmatch(r":?-+:?", cell) for cell in row)}
    return [row for at, row in enumerate(cells) if at not in rules and at + 1 not in rules]


def words(text: str) -> set[str]:
    """Return what stands between backticks, fenced examples left out."""
    return set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
