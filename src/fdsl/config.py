"""The configuration's schema, and every check that needs neither data nor weights.

Types are checked when Hydra composes; what a value may be, and what may stand beside what, in :meth:`Config.check`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from fdsl.checks import check_disjoint, refuse_unknown
from fdsl.errors import ConfigError
from fdsl.local_features import SEARCHES
from fdsl.reference import DTYPES
from fdsl.scoring import FUSIONS, IMAGE_SCORES
from fdsl.windows import check_windows

WINMODES = ("nan", "mul", "onlywin")


@dataclass
class BackboneConfig:
    """Which frozen backbone, and what it is fed."""

    model: dict[str, Any] = MISSING
    image_size: int = MISSING
    mean: list[float] = MISSING
    std: list[float] = MISSING


@dataclass
class TrainingConfig:
    """How the head is trained on the auxiliary dataset; the defaults are the paper's."""

    epochs: int = 5
    batch_size: int = 8
    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])
    seed: int = 111
    references: int = 10
    pool: int | None = None
    save_every: int = 50
    resume: str | None = None


@dataclass
class MemoryConfig:
    """How reference tokens are kept and searched."""

    search: str = MISSING
    top_m: int | None = MISSING
    dtype: str = "fp32"
    save: bool = False
    load: str | None = None

    def check(self) -> None:
        """Refuse unknown choices, and a ``top_m`` that nothing would read."""
        _one_of("memory.search", self.search, SEARCHES)
        _one_of("memory.dtype", self.dtype, tuple(DTYPES))
        if self.search == "full":
            if self.top_m is not None:
                raise ConfigError(
                    f"memory.top_m={self.top_m}: the full memory picks no windows; set memory=full alone, or "
                    "memory=index with memory.search=own or union"
                )
        elif self.top_m is None:
            raise ConfigError(f"memory.top_m=null: memory.search={self.search} picks so many windows; give a number")
        else:
            _at_least("memory.top_m", self.top_m, 1)
        if self.load is not None and not Path(self.load).is_dir():
            raise ConfigError(f"memory.load={self.load}: no such folder; give the banks folder of a run")
        if self.load is not None and self.save:
            raise ConfigError("memory.save writes what was encoded, memory.load reads it instead; drop one of them")


@dataclass
class CacheConfig:
    """Features of whole images on disk."""

    features: str | None = None
    limit_gb: float = 50.0
    dtype: str = "fp32"
    aux: bool = False

    def check(self) -> None:
        """Refuse unknown choices, and a cache of auxiliary images where there is no cache."""
        _one_of("cache.dtype", self.dtype, tuple(DTYPES))
        if not self.limit_gb > 0:
            raise ConfigError(f"cache.limit_gb={self.limit_gb:g}: must be above 0; cache.features=null keeps nothing")
        if self.aux and self.features is None:
            raise ConfigError("cache.aux=true needs a folder: set cache.features")


@dataclass
class Config:
    """Everything a run depends on. See ``conf/config.yaml`` for what each key means."""

    data: dict[str, Any] = MISSING
    aux: dict[str, Any] = MISSING
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    trainer: dict[str, Any] = MISSING
    logger: Any = None
    kshots: Any = 1
    seed: int = 0
    seeds: list[int] | None = None
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    winmode: str = "nan"
    nam: bool = True
    win_size: int = 13
    win_stride: int = 2
    win_weight: float = 0.5
    win_batch_size: int = 32
    fusion: str = "asl"
    fusion_weight: float = 0.5
    image_score: str = "transductive"
    reference_sampling: str = "without_replacement"
    references: str | None = None
    train: bool = True
    retrain: bool = False
    force: bool = False
    store: str | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    ckpt: str | None = None
    map_size: int = 240
    overlays: int = 3
    progress: bool = True
    run_dir: str = MISSING

    @property
    def title(self) -> str:
        """Name the run by what its figures depend on most."""
        fusion = self.fusion if self.fusion == "asl" else f"{self.fusion} {self.fusion_weight:g}"
        winmode = self.winmode
        if winmode != "nan":
            weight = f" x {self.win_weight:g}" if winmode == "mul" else ""
            search = f"{self.memory.search} {self.memory.top_m or ''}".strip()
            winmode += f"{weight} (size {self.win_size}, stride {self.win_stride}, memory {search})"
        return f"{self.kshots}-shot, seed {self.seed}, winmode {winmode}, NAM {self.nam}, fusion {fusion}"

    def check(self) -> None:
        """Refuse what cannot be run, and resolve the paths of files.

        Raises:
            ConfigError: naming the key, what is wrong with it and what it may be.
        """
        _one_of("winmode", self.winmode, WINMODES)
        _one_of("fusion", self.fusion, FUSIONS)
        _one_of("image_score", self.image_score, IMAGE_SCORES)
        _one_of("reference_sampling", self.reference_sampling, ("without_replacement", "with_replacement"))
        self._check_settings()
        for key in ("win_size", "win_stride", "win_batch_size", "map_size"):
            _at_least(key, getattr(self, key), 1)
        for key in ("epochs", "batch_size", "references", "save_every"):
            _at_least(f"training.{key}", getattr(self.training, key), 1)
        if self.training.pool is not None:
            _at_least("training.pool", self.training.pool, 1)
        _at_least("seed", self.seed, 0)
        _at_least("training.seed", self.training.seed, 0)
        _at_least("overlays", self.overlays, 0)
        for key in ("fusion_weight", "win_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key}={getattr(self, key)}: must lie in [0, 1]")
        if self.winmode == "mul" and self.win_weight in (0, 1):
            same = "onlywin" if self.win_weight else "nan"
            raise ConfigError(f"win_weight={self.win_weight:g} with winmode=mul: set winmode={same} instead")
        if not self.training.lr > 0:
            raise ConfigError(f"training.lr={self.training.lr}: must be above 0")
        if len(self.training.betas) != 2 or not all(0 <= b < 1 for b in self.training.betas):
            raise ConfigError(f"training.betas={self.training.betas}: two values in [0, 1)")
        self._resolve_files()
        self.memory.check()
        self.cache.check()
        self._check_files()
        self._check_nodes()

    def _check_settings(self) -> None:
        several = {"kshots": self.kshots, "seeds": self.seeds}
        if not isinstance(self.kshots, list):
            several["kshots"] = [self.kshots]
        if self.seeds is None:
            del several["seeds"]
        for key, values in several.items():
            least = 1 if key == "kshots" else 0
            if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
                raise ConfigError(
                    f"{key}={getattr(self, key)}: must be a whole number, at least {least}, or a list of them"
                )
            if len(set(values)) < len(values):
                raise ConfigError(f"{key}={getattr(self, key)}: names a value twice")
        if self.seeds is not None and self.seed != 0:
            raise ConfigError(f"seed={self.seed} and seeds={self.seeds}: give one of them")
        if any(len(values) > 1 for values in several.values()):
            for key, value in (("references", self.references), ("memory.load", self.memory.load)):
                if value is not None:
                    raise ConfigError(f"{key} is of one set of references: give one kshots and one seed with it")
            if self.memory.save:
                raise ConfigError("memory.save writes one set of references: give one kshots and one seed with it")

    def check_grid(self, grid: int) -> None:
        """Refuse window settings that do not fit a grid of ``grid`` x ``grid`` patches.

        Raises:
            ConfigError: if windows would leave cells uncovered.
        """
        if self.winmode != "nan":
            check_windows(grid, self.win_size, self.win_stride)

    def _check_files(self) -> None:
        if not self.train and self.ckpt is None:
            raise ConfigError("train=false needs a trained head: ckpt=PATH of a .ckpt, .safetensors or upstream .pth")
        if not self.train and self.training.resume is not None:
            raise ConfigError(
                "training.resume goes on training, so it cannot stand beside train=false; drop one of them"
            )
        if self.retrain and not self.train:
            raise ConfigError("retrain=true trains, so it cannot stand beside train=false; drop one of them")
        if self.train and self.ckpt is not None:
            raise ConfigError("ckpt is a head to test, so add train=false; to go on training use training.resume=PATH")
        named = {"ckpt": self.ckpt, "references": self.references, "training.resume": self.training.resume}
        for key, path in named.items():
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"{key}={path}: no such file")

    def _resolve_files(self) -> None:
        """Follow ``~`` and links now: a path through outputs/latest means what that is before this run."""
        self.ckpt, self.references = _resolved(self.ckpt), _resolved(self.references)
        self.data["references"] = _resolved(self.data.get("references"))
        self.training.resume = _resolved(self.training.resume)
        self.memory.load = _resolved(self.memory.load)

    def _check_nodes(self) -> None:
        for key in ("mean", "std"):
            if len(getattr(self.backbone, key)) != 3:
                raise ConfigError(f"backbone.{key}={getattr(self.backbone, key)}: three values, one for each channel")
        if not isinstance(self.backbone.model.get("blocks"), list):
            raise ConfigError(f"backbone.model.blocks={self.backbone.model.get('blocks')}: a list, such as [3,6,9,12]")
        homes = {
            "image_size": ("backbone.image_size", self.backbone.image_size),
            "map_size": ("map_size", self.map_size),
        }
        for name, node in (("data", self.data), ("aux", self.aux)):
            for key, (home, value) in homes.items():
                if node.get(key) != value:
                    raise ConfigError(f"{name}.{key}={node.get(key)}: set {home} instead, it is {value}")
        tested, trained = self.data.get("categories"), self.aux.get("categories")
        if self.train and isinstance(tested, list) and isinstance(trained, list):
            check_disjoint(tested, trained, "aux.categories")


def _resolved(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().resolve())


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(choices)}")


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{key}={value}: must be at least {least}")


def typed(config: DictConfig) -> Config:
    """Turn a composed configuration into a checked :class:`Config`.

    Raises:
        ConfigError: see :meth:`Config.check`.
    """
    refuse_unknown(config, Config)
    made = OmegaConf.to_object(config)
    if not isinstance(made, Config):
        raise TypeError(f"not composed over the schema: {type(made).__name__}")
    made.check()
    return made


def register() -> None:
    """Make the schema known to Hydra, as ``schema`` in a defaults list."""
    ConfigStore.instance().store(name="schema", node=Config)
