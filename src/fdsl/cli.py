"""How a command ends: a user's mistake is a message on stderr and exit status 2, never a traceback."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from fdsl.errors import FDSLError, InterruptedRunError
from fdsl.sweep import ERROR_FILE

log = logging.getLogger(__name__)

APPEND_HINT = "To append to your config"  # would make of a typing error a key that nothing reads
INTERNALS = (
    "full_key:",
    "object_type=",
    "reference_type=",
    "provider=",
    "Config search path",
    APPEND_HINT,
)


def call(main: Callable[[], object]) -> None:
    """Run a Hydra command; what Hydra and OmegaConf refuse is said on one line, without their internals.

    Hydra itself prints a shortened traceback and exits; told to raise instead, it leaves the choice to us.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        causes = [error] if error.__cause__ is None else [error, error.__cause__]
        lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
        fail("; ".join(line for line in dict.fromkeys(lines) if line and not line.startswith(INTERNALS)))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def job(work: Callable[[], object]) -> None:
    """Run the body of a Hydra job; what we refuse ends the process before Hydra adds lines of its own.

    A job of a multirun leaves the reason in its folder instead, and the others go on, see :mod:`fdsl.sweep`. But when a
    person interrupts one, the others are not begun.
    """
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is not None and hydra.mode == RunMode.MULTIRUN:
        (Path(hydra.runtime.output_dir) / ERROR_FILE).unlink(missing_ok=True)  # of an earlier try
    try:
        work()
    except InterruptedRunError as error:
        fail(str(error))
    except Exception as error:
        known = isinstance(error, FDSLError)
        if hydra is not None and hydra.mode == RunMode.MULTIRUN:
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            log.error("%s", reason, exc_info=not known)
            (Path(hydra.runtime.output_dir) / ERROR_FILE).write_text(reason + "\n", encoding="utf-8")
        elif known:
            fail(str(error))
        else:
            raise


def numbers(text: str) -> list[int]:
    """Read ``1,2,4`` as Hydra's multirun writes lists; for argparse.

    Raises:
        ValueError: if a part is no whole number.
    """
    return [int(part) for part in text.split(",")]


def fail(message: str) -> NoReturn:
    """Say what was wrong, and exit."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
