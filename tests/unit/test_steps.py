"""A step outside of a flow run is the function itself; inside of one, see tests/end_to_end/test_prefect.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasks.steps import step


@step
def add_numbers(left: int, *, right: int = 1) -> int:
    """Add two numbers."""
    return left + right


def test_a_step_outside_of_a_flow_run_is_the_plain_function() -> None:
    assert add_numbers(1) == 2
    assert add_numbers(1, right=2) == 3
    assert (add_numbers.__name__, add_numbers.__doc__) == ("add_numbers", "Add two numbers.")


def test_a_step_passes_its_result_as_it_is() -> None:
    given = object()

    assert step(lambda: given)() is given


def test_a_step_raises_what_its_function_raises() -> None:
    failure = TimeoutError("too late")

    @step
    def fail() -> None:
        raise failure

    with pytest.raises(TimeoutError) as raised:
        fail()

    assert raised.value is failure


def test_a_step_outside_of_a_flow_run_imports_no_prefect() -> None:
    program = "import sys; from tasks.steps import step; step(print)('ran'); sys.exit('prefect' in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (0, "ran\n"), ended.stderr
