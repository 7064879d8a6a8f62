"""`python -m flows.entrypoint COMMAND ...`: become a command, with the secrets that Prefect takes from variables only.

prescore reads its addresses from files by itself; Prefect does not. Containers and units of systemd start what belongs to
Prefect this way: what `<VARIABLE>_FILE` names becomes `<VARIABLE>` of this process and of nobody else.

Importing this module imports no Prefect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tasks.errors import PrescoreError, UsageError
from tasks.settings import read_secret

#: Settings of Prefect that are secrets, and what each looks like.
SECRETS = {
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://role:password@host:5432/database",
    "PREFECT_SERVER_API_AUTH_STRING": "user:password",
    "PREFECT_API_AUTH_STRING": "user:password",
}


def main() -> None:
    """Become the command that the arguments name."""
    try:
        if not sys.argv[1:]:
            raise UsageError(
                "No command was named. Nothing was started. Name one: python -m flows.entrypoint prefect version"
            )
        environment = with_secrets(os.environ)
        try:
            os.execvpe(sys.argv[1], sys.argv[1:], environment)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(
                f"{sys.argv[1]} cannot be started: {reason}. Nothing was started. Correct the command."
            ) from None
    except PrescoreError as error:
        print(f"prescore: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def with_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which each secret of Prefect is said, and no file is named any more.

    Raises
    ------
    UsageError
        When a secret is said twice, or its file does not hold one.
    """
    handed = dict(environ)
    for variable, example in SECRETS.items():
        secret = read_secret(variable, environ.get(variable), handed.pop(f"{variable}_FILE", None), example)
        if secret is not None:
            handed[variable] = secret
    return handed


if __name__ == "__main__":
    main()
