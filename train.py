"""Train the score head on the auxiliary dataset and test it, k-shot, on the target: ``python train.py key=value ...``.

``-m`` runs every combination of comma-separated values: ``python train.py kshots=1,2,4 nam=true,false -m``.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from fdsl import cli
from fdsl.config import register, typed
from fdsl.run import run

register()


@hydra.main(config_path=str(Path(__file__).parent / "conf"), config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    """One job: see conf/config.yaml for the keys."""
    cli.job(lambda: run(typed(config)))


if __name__ == "__main__":
    cli.call(main)
