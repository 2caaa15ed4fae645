"""Composes configs of ``nequip-train`` with hydra, without starting a training.

Only what a study needs is read from them: seeds, data files, checkpoints. Nothing
is instantiated and NequIP is not imported, so that planning takes seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nequip_decorr.checks import is_finite
from nequip_decorr.errors import UserError
from nequip_decorr.species import configured_species_map
from nequip_decorr.study.seeds import leaves, seed_keys
from nequip_decorr.wording import one_line

#: Stands for the folder of a training until there is one.
OUTPUT = "/folder-of-the-training"

SECTIONS = ("data", "trainer", "training_module")


@dataclass(frozen=True)
class Composed:
    """The composed config of one variant, and what a study needs from it.

    Attributes:
        config: plain types, with interpolations as written.
        sources: config files that it is composed of.
        seed_keys: dotted keys of all values called ``seed`` that follow no other.
        data_files: files named in the data section.
        test_files: names of the test sets in the config.
        test_splits: names of test sets split off other data; NequIP numbers them after
            the others.
        inspect_file: validation data, or the next best; None if none is known.
        reads_files: whether test sets can be given as files.
        lists_tests: whether all test sets are those that the config names.
        data_format: format in which ase reads data files; None for its own guess.
        resumes: whether checkpoints are written from which a training can resume.
        species: elements of the model; None if unknown.
        species_map: element to atom type; None if types are called as the elements.
        cutoff_A: cutoff of the model; None if unknown.
    """

    config: dict[str, Any]
    sources: tuple[Path, ...]
    seed_keys: tuple[str, ...]
    data_files: tuple[Path, ...]
    test_files: tuple[str, ...]
    test_splits: tuple[str, ...]
    inspect_file: Path | None
    reads_files: bool
    lists_tests: bool
    resumes: bool
    species: tuple[str, ...] | None = None
    species_map: dict[str, str] | None = None
    cutoff_A: float | None = None
    data_format: str | None = None

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of all test sets, in NequIP's order."""
        return (*self.test_files, *self.test_splits)

    @property
    def has_logger(self) -> bool:
        """Whether the trainer has a logger of its own."""
        return "logger" in self.config["trainer"]

    @property
    def has_test_metrics(self) -> bool:
        """Whether the config defines test metrics."""
        return self.config["training_module"].get("test_metrics") is not None


class Composer:
    """Composes a config with overrides, as ``nequip-train`` does."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def compose(self, overrides: Sequence[str]) -> Composed:
        """The config with overrides.

        Raises:
            UserError: if hydra cannot compose it, something is missing, or a study
                could not find the output of its trainings.
        """
        from omegaconf import OmegaConf

        with self._composed(overrides) as composed:
            plain = self._known[tuple(overrides)] = _plain(composed)
            self._check(plain, sorted(_missing(plain)))
            data = _resolved(composed["data"])
            model = _resolved(composed["training_module"]).get("model") or {}
            callbacks = checkpoint_callbacks(plain)
            folders = {
                key: OmegaConf.select(composed, f"{key}.dirpath") for key in callbacks
            }
        self._check_folders(folders)
        species_map, module = _species_map(data), str(data.get("_target_", ""))
        return Composed(
            config=plain,
            sources=self._sources(overrides),
            seed_keys=tuple(seed_keys(plain)),
            data_files=tuple(dict.fromkeys(self._data_files(data))),
            test_files=_test_files(data),
            test_splits=_test_splits(data),
            inspect_file=_inspect_file(data),
            reads_files=module.endswith("ASEDataModule"),
            lists_tests=module.endswith(("ASEDataModule", ".NequIPDataModule")),
            resumes=any(each.get("save_last") for each in callbacks.values()),
            species=_elements(list(species_map or ()) or model.get("type_names")),
            species_map=species_map,
            cutoff_A=model.get("r_max") if is_finite(model.get("r_max")) else None,
            data_format=(data.get("ase_args") or {}).get("format"),
        )

    def plain(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Only the composed config, for comparing overrides."""
        key = tuple(overrides)
        if key not in self._known:
            with self._composed(overrides) as composed:
                self._known[key] = _plain(composed)
        return self._known[key]

    def _sources(self, overrides: Sequence[str]) -> tuple[Path, ...]:
        """The config file and those beside it that its defaults name."""
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        with self._hydra():
            loader = GlobalHydra.instance().config_loader()
            found = loader.compute_defaults_list(
                self.config.stem, list(overrides), RunMode.RUN
            ).defaults
        folder = self.config.parent.resolve()
        names = [each.config_path for each in found if each.config_path is not None]
        files = [folder / f"{name}.yaml" for name in names]
        return tuple(path for path in dict.fromkeys(files) if path.is_file())

    @contextmanager
    def _hydra(self) -> Iterator[None]:
        """Hydra, as it finds configs in the folder of this one."""
        from hydra import initialize_config_dir

        folder = str(self.config.parent.resolve())  # of a link, as nequip-train has it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with initialize_config_dir(folder, version_base=None):
                yield

    @contextmanager
    def _composed(self, overrides: Sequence[str]) -> Iterator[Any]:
        """The config, with the values that ``${hydra:...}`` needs."""
        from hydra import compose
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from omegaconf import open_dict
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            with self._hydra():
                composed = compose(
                    self.config.stem, list(overrides), return_hydra_config=True
                )
            with open_dict(composed.hydra):
                composed.hydra.runtime.cwd = str(Path.cwd())
                composed.hydra.runtime.output_dir = OUTPUT
            HydraConfig.instance().set_config(composed)
            yield composed
        except (
            HydraException,
            OmegaConfBaseException,
            UnicodeDecodeError,
            YAMLError,
        ) as error:
            raise UserError(
                f"hydra cannot compose {self.config} with {list(overrides)}: "
                f"{one_line(error)}"
            ) from error
        finally:
            HydraConfig.instance().cfg = None

    def _check(self, plain: Mapping[str, Any], missing: Sequence[str]) -> None:
        for section in SECTIONS:
            if not isinstance(plain.get(section), dict):
                raise UserError(
                    f"expected a config of nequip-train with a section `{section}`, "
                    f"got {self.config} without it"
                )
        if missing:
            raise UserError(
                f"expected a value for {missing[0]} in {self.config}, got ???; give it "
                "there or in each variant"
            )
        if plain.get("ckpt_path") is not None:
            raise UserError(
                "expected trainings that start from scratch, got ckpt_path in "
                f"{self.config}; remove it"
            )

    def _data_files(self, data: Mapping[str, Any]) -> Iterator[Path]:
        for key, value in leaves(data):
            if not isinstance(value, str) or key[-1] == "_target_":
                continue
            path = Path(value)
            named = [part for part in key if isinstance(part, str)][-1]
            if path.is_file():
                yield path.resolve()
            elif named.endswith("file_path"):
                raise UserError(
                    f"expected a data file for {'.'.join(map(str, ('data', *key)))}, "
                    f"got {value}: no such file (paths start at {Path.cwd()})"
                )

    def _check_folders(self, folders: Mapping[str, Any]) -> None:
        """Refuse checkpoint folders in which models would overwrite each other."""
        if not folders:
            raise UserError(
                f"expected a ModelCheckpoint in trainer.callbacks of {self.config}, "
                "got none; a study needs the best checkpoint of each training"
            )
        for key, folder in folders.items():
            if not str(folder or "").startswith(OUTPUT):
                raise UserError(
                    f"expected {key}.dirpath: ${{hydra:runtime.output_dir}} in "
                    f"{self.config}, got {folder!r}; trainings would overwrite each "
                    "other's checkpoints"
                )


def _plain(composed: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(composed, resolve=False)
    return {str(key): value for key, value in found.items() if key != "hydra"}


def _missing(plain: Mapping[str, Any]) -> Iterator[str]:
    for key, value in leaves(plain):
        if value == "???":
            yield ".".join(map(str, key))


def _resolved(node: Any) -> Any:
    """A node, interpolated as far as possible without NequIP's own resolvers."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def value(key: Any) -> Any:
        try:
            return _resolved(node[key])
        except OmegaConfBaseException:
            return None

    if OmegaConf.is_dict(node):
        return {str(key): value(key) for key in node}
    if OmegaConf.is_list(node):
        return [value(index) for index in range(len(node))]
    return node


def checkpoint_callbacks(plain: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Options of each ModelCheckpoint, by its key in the config."""
    found = plain["trainer"].get("callbacks") or []
    items = found.items() if isinstance(found, dict) else enumerate(found)
    return {
        f"trainer.callbacks[{key}]": each
        for key, each in items
        if isinstance(each, dict)
        and str(each.get("_target_", "")).endswith("ModelCheckpoint")
    }


def _species_map(data: Mapping[str, Any]) -> dict[str, str] | None:
    """The map that a compiled model must be given, if there is one."""
    found = configured_species_map(data)
    if found is None or all(element == name for element, name in found.items()):
        return None
    return found


def _elements(names: Any) -> tuple[str, ...] | None:
    from ase.data import atomic_numbers

    if not isinstance(names, list) or not names:
        return None
    known = all(name in atomic_numbers for name in names)
    return tuple(names) if known else None


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _test_files(data: Mapping[str, Any]) -> tuple[str, ...]:
    files = [str(path) for path in _as_list(data.get("test_file_path"))]
    stems = [Path(path).stem for path in files]
    names = stems if len(set(stems)) == len(stems) else files
    given = range(len(_as_list(data.get("test_dataset"))))
    return (*names, *(f"test{len(names) + i}" for i in given))


def _test_splits(data: Mapping[str, Any]) -> tuple[str, ...]:
    splits = [s for s in _as_list(data.get("split_dataset")) if "test" in s]
    if len(splits) == 1:
        return ("split",)
    return tuple(f"split{i}" for i in range(len(splits)))


def _inspect_file(data: Mapping[str, Any]) -> Path | None:
    splits = [s.get("file_path") for s in _as_list(data.get("split_dataset"))]
    named = [
        *_as_list(data.get("val_file_path")),
        *_as_list(data.get("test_file_path")),
    ]
    files = [Path(path) for path in [*named, *splits] if path is not None]
    return next((path.resolve() for path in files if path.is_file()), None)
