"""The synthetic pair as a datamodule: writes an official layout first, then is read like the real thing."""

from typing import Any, Literal

from datamodules.base import FewShotDataModule
from datamodules.mvtec import read_mvtec
from datamodules.samples import Reading
from datamodules.synthetic import write_mvtec, write_visa
from datamodules.visa import read_visa
from fdsl.errors import ConfigError

LAYOUTS = {"mvtec": (write_mvtec, read_mvtec), "visa": (write_visa, read_visa)}


class SyntheticDataModule(FewShotDataModule):
    """Rendered products with rendered defects, for trying things out without any download.

    Args:
        root: folder to write to, and read from if it is already written.
        layout: ``mvtec`` or ``visa``; the two hold different products.
        write: what to write, see :func:`datamodules.synthetic.write_mvtec`.
        kwargs: as for :class:`FewShotDataModule`.
    """

    def __init__(
        self, root: str, layout: Literal["mvtec", "visa"], write: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        super().__init__(root, **kwargs)
        self.layout = layout
        self.name = f"synthetic_{layout}"
        self._write = dict(write or {})

    def prepare_data(self) -> None:
        """Write the dataset, unless it is already there."""
        try:
            LAYOUTS[self.layout][0](self.root, **self._write, progress=self.progress)
        except ValueError as error:
            raise ConfigError(f"synthetic data: {error}") from error

    def read(self) -> Reading:
        """Read the written dataset by its layout."""
        return LAYOUTS[self.layout][1](self.root)
