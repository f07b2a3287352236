"""How a command ends: a user's mistake is one message on stderr and exit status 2, never a traceback."""

import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fdsl.errors import FDSLError


def call(main: Callable[[], object]) -> None:
    """Run a Hydra command.

    Hydra itself prints a shortened traceback and exits; told to raise instead, it leaves the choice to us.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except (FDSLError, HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"{_message(error)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _message(error: BaseException) -> str:
    """Say an error; those of the configuration libraries on one line, without their internals."""
    if isinstance(error, FDSLError):
        return f"error: {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return "error: " + "; ".join(said)
