"""Where addresses come from: a variable, or a file that a variable names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import UsageError
from tasks.settings import read_settings

ADDRESS = "postgresql://runner:hush@db.example.com/shop"
NAMES = ("PRESCORE_DATABASE_URL", "PRESCORE_SOURCE_URL")


@pytest.mark.parametrize("name", NAMES)
def test_an_address_is_read_from_the_file_that_is_named(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{ADDRESS}\n")

    found = read_settings({f"{name}_FILE": str(secret), name: ""})

    assert (found.database_url, found.source_url) == ((ADDRESS, None) if name == NAMES[0] else (None, ADDRESS))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds nothing"),
        (b"\xff\xfe", "holds nothing"),
        (f"{ADDRESS}\n{ADDRESS}".encode(), "holds more than one word"),
    ],
)
def test_a_file_without_an_address_is_refused_and_nothing_of_it_is_shown(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)

    with pytest.raises(UsageError) as refused:
        read_settings({f"{name}_FILE": str(secret)})

    assert f"{name}_FILE names {secret}, which {told}." in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_and_a_file_cannot_both_be_meant(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} and {name}_FILE are both set"):
        read_settings({name: ADDRESS, f"{name}_FILE": str(tmp_path)})
