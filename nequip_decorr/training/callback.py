"""The training callback: adds the loss term, sets its coefficient, logs, resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from nequip_decorr import __version__
from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training import logs, nequip_internals
from nequip_decorr.training.course import Course
from nequip_decorr.training.features import (
    Features,
    check_features,
    find_features,
    tap,
)
from nequip_decorr.training.options import read_options
from nequip_decorr.training.progress import read_progress
from nequip_decorr.training.stripping import strip_checkpoint, strip_hyperparameters
from nequip_decorr.training.terms import LossTerm, new_monitor

PACKAGE = "nequip_decorr"


class EdgeDecorrelation(Callback):
    r"""Lowers the correlation between a model's edge features during training.

    Adds an :class:`nequip_decorr.EdgeCorrelation` term to the loss of an Allegro model
    or NequIP GNN and sets its coefficient by a schedule. The coefficients of energy,
    forces and stress are exactly those of a training without it: the loss is
    :math:`\sum_k c_k L_k + \lambda\, L_\mathrm{corr}` with :math:`\sum_k c_k = 1` as
    NequIP normalises it. Checkpoints, packaged and compiled models contain no reference
    to this package. Features that a model does not output are added to its output by
    hooks during training, also with ``compile_mode: compile``.

    .. code-block:: yaml

        trainer:
          _target_: lightning.Trainer
          callbacks:
            - _target_: nequip_decorr.EdgeDecorrelation
              schedule:
                kind: cosine      # constant, linear, cosine, cyclical or target
                coeff: 3.0        # largest coefficient
                direction: down   # or up, bump
              sample: {edges: 1024, channels: 64, every: 1}
              penalty: {kind: square}
              features: null      # null: whichever the model has

    The same without editing the list: ``nequip-train -cn config
    +nequip_decorr=cosine``, with overrides such as ``nequip_decorr.schedule.coeff=1``.

    The coefficient follows the progress of the training: epochs and the fraction of the
    current one. At equal progress it is the same for any batch size, number of ranks,
    ``accumulate_grad_batches`` and ``limit_train_batches``, also when a restart changes
    them. A longer training (``max_epochs``) stretches a schedule whose ``stop`` is
    null or whose ``unit`` is ``fraction``, and the log says so. With ``relative: true``
    all of this holds for the multiple of the rest of the loss.

    For several terms, for example of edges and tensors, add several callbacks, each
    with its own ``name``.

    Logged under ``edge_correlation``: ``loss_coeff/`` and ``train_loss_step/`` at each
    step, ``train_loss_epoch/``, ``val0_epoch/`` and the diagnosis of each layer of the
    validation set at each epoch, the options as hyper-parameters.

    Args:
        schedule: how the coefficient changes: ``kind`` and the options of that kind,
            see :mod:`nequip_decorr.training.schedules` and, for ``target``,
            :mod:`nequip_decorr.training.feedback`. None: that of the preset
            ``default`` (the rest of the loss, applied every fourth step).
        sample: what a step draws, see :class:`nequip_decorr.training.options.Sample`.
            Validation uses all edges and channels.
        penalty: see :class:`nequip_decorr.training.options.Penalty`.
        features: ``edge``, ``radial``, ``messages``, ``tensors``, ``node`` or a field
            of the model's output, see
            :func:`nequip_decorr.training.features.find_features`.
        layer_dim: channels of one layer, for a field; None makes it one layer.
        layer_weights: one weight per layer; 0 leaves a layer out. None: equal.
        monitor: also measure each layer on the validation data.
        name: name of the term in the loss, in the logs and in checkpoints.

    Attributes:
        options: all options, checked.
        term: the term in the loss of a training; None before, and with a coefficient
            of 0 (monitor only).

    Raises:
        UserError: before the first step, for unknown options or values out of range, a
            schedule that does not fit the length of the training, a model without such
            features, a training without a loss, another metric or term of the same
            name, a ``guard_monitor`` that is not logged, SoftAdapt or ConFIG.
        FloatingPointError: in training, when the features drawn from a batch are not
            finite, before they reach the weights.
    """

    def __init__(
        self,
        schedule: Mapping[str, Any] | None = None,
        *,
        sample: Mapping[str, Any] | None = None,
        penalty: Mapping[str, Any] | None = None,
        features: str | None = None,
        layer_dim: int | None = None,
        layer_weights: Sequence[float] | None = None,
        monitor: bool = True,
        name: str = "edge_correlation",
        **unknown: Any,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in _NO_OPTIONS}
        super().__init__()
        self.options = read_options({**given, **unknown})
        check_features(features, layer_dim)
        self.name = name
        self._course = Course(self.options.schedule)
        self._restored_settings: dict[str, Any] | None = None
        self._found: Features | None = None
        self._taps: list[Any] = []
        self.term: LossTerm | None = None
        self._monitors: list[EdgeCorrelation] = []
        self._names: frozenset[str] = frozenset()
        self._loss: Any = None
        self._at_start = True

    @property
    def state_key(self) -> str:
        """By the term's name, so that a checkpoint has the state of several terms.

        By the instance before ``setup``: Lightning would refuse two of one name when
        it builds the Trainer, without saying what to do.
        """
        which = {"name": self.name} if self._names else {"id": id(self)}
        return str(self._generate_state_key(**which))

    # --- before training ---

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check what can be known now; add the term and the monitors once."""
        nequip_internals.check_names(trainer, pl_module)
        self._names = _names_of_terms(trainer, self.name)
        model = nequip_internals.sole_model(pl_module)
        options = self.options
        self._found = find_features(model, options.features, options.layer_dim)
        # in every stage, since the first that calls the model may compile it
        self._untap()
        self._taps = tap(model, self._found)
        strip_hyperparameters(pl_module, PACKAGE)
        if self._loss is not pl_module.loss:  # another training
            self._loss, self.term, self._monitors = pl_module.loss, None, []
            self._course, self._restored_settings = Course(options.schedule), None
        if stage == "fit" and options.schedule.coeff > 0:
            if self.term is None:
                _check_training(trainer, pl_module, self._course)
                self.term = LossTerm(options, self._found, pl_module.loss, self._names)
            self.term.attach()
        if options.monitor:
            managers = _managers(pl_module)
            if not self._monitors:
                self._monitors = [new_monitor(options, self._found) for _ in managers]
            for manager, metric in zip(managers, self._monitors, strict=True):
                nequip_internals.add_metric(manager, self.name, metric)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Log what is decorrelated."""
        self._at_start = True
        if self._found is None:  # pragma: no cover
            raise RuntimeError("`on_train_start` was called before `setup`")
        log = nequip_internals.rank_zero_logger(__name__)
        log.info(logs.start_line(__version__, self._found.title, self.options.schedule))
        widest = max(block.channels for block in self._found.blocks)
        if self._monitors and widest > logs.WIDE:
            log.warning(f"{PACKAGE}: {logs.wide_line(self.name, widest)}")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the term, the monitors and the hooks, for trainings without them."""
        self._remove(pl_module)

    def on_exception(
        self, trainer: Any, pl_module: Any, exception: BaseException
    ) -> None:
        """Remove the same: Lightning does not come to ``teardown``."""
        self._remove(pl_module)

    # --- in training ---

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Reset the term's epoch: NequIP resets only terms with a coefficient."""
        if self.term is not None:
            self.term.metric.reset()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the coefficient, whatever others have set in the meantime."""
        now = read_progress(trainer, batch_idx)
        self._course.locate(now, trainer.max_epochs, trainer.max_steps)
        if self._at_start:
            self._at_start = False
            settings = self._settings()
            _report(trainer, self.name, self._course, self._restored_settings, settings)
        if self.term is None:
            return
        coefficient = self._course.coefficient()
        self.term.start_batch(now, coefficient)
        if nequip_internals.will_log(trainer):
            pl_module.log(f"loss_coeff/{self.name}", coefficient)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Stop before a gradient that is not finite reaches the weights."""
        if self.term is not None:
            self.term.check_finite(
                f"step {trainer.global_step}, epoch {trainer.current_epoch}"
            )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure what the next coefficient depends on."""
        term, course = self.term, self._course
        if term is None:
            return
        stepped = term.has_stepped(trainer.global_step)
        if course.running_loss is not None:
            rest = term.rest()
            if trainer.world_size > 1 and term.differs_by_rank:
                value = torch.tensor(rest, device=pl_module.device)
                rest = float(trainer.strategy.reduce(value, reduce_op="mean"))
            course.running_loss.add(rest, stepped)
        if course.controller is not None and stepped:
            measured = term.measured()
            if measured is not None:
                course.controller.measured(measured)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Let NequIP log the epoch's value; warn if the term had no effect."""
        lacked = None if self.term is None else self.term.end_epoch()
        if lacked is not None and self._found is not None:
            rows, epoch = self._found.rows, trainer.current_epoch
            line = logs.idle_line(self.name, lacked, rows, epoch)
            nequip_internals.rank_zero_logger(__name__).warning(f"{PACKAGE}: {line}")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the diagnosis of each layer over the validation data."""
        for index, metric in enumerate(self._monitors):
            if trainer.num_val_batches[index] == 0:
                continue
            values = logs.block_values(f"val{index}_epoch/{self.name}", metric)
            pl_module.log_dict(values, on_epoch=True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Pass the validation force error to the controller."""
        controller = self._course.controller
        if controller is None or self.term is None or trainer.state.fn != "fit":
            return
        error = nequip_internals.guarded_error(trainer, controller.target.guard_monitor)
        if trainer.sanity_checking:
            return
        line = controller.validated(error, self._course.position)
        if line is not None:
            nequip_internals.rank_zero_logger(__name__).info(f"{PACKAGE}: {line}")

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """Settings and the state of :class:`nequip_decorr.training.course.Course`.

        Only Python numbers and strings, in lists and dictionaries.
        """
        return {"settings": self._settings(), **self._course.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the course; settings are those of the current config."""
        self._restored_settings = state_dict["settings"]
        self._course.restore(state_dict)

    def on_save_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Remove the term from the saved state of the metrics."""
        places = {"loss": self.term, "val_metrics": self._monitors}
        ours = [place for place, metrics in places.items() if metrics]
        strip_checkpoint(checkpoint, self.name, ours)

    def _settings(self) -> dict[str, Any]:
        """All options, with the position that a schedule was stretched to."""
        settings = self.options.settings()
        if self.options.schedule.open_ended:
            settings["schedule"]["stop"] = self._course.end
        if self._course.epochs:
            settings["schedule"]["epochs"] = self._course.epochs
        return settings

    def _remove(self, pl_module: Any) -> None:
        self._untap()
        if self.term is not None:
            self.term.detach()
        for manager, metric in zip(_managers(pl_module), self._monitors, strict=False):
            nequip_internals.remove_metric(manager, self.name, metric)

    def _untap(self) -> None:
        for handle in self._taps:
            handle.remove()
        self._taps = []


_NO_OPTIONS = {"self", "__class__", "unknown"}


def _managers(pl_module: Any) -> list[Any]:
    """The metrics of each validation set."""
    return [manager for manager in pl_module.val_metrics if manager is not None]


def _names_of_terms(trainer: Any, mine: str) -> frozenset[str]:
    """Names of all decorrelation terms of a training.

    Raises:
        UserError: when another has the name ``mine``.
    """
    terms = [each for each in trainer.callbacks if isinstance(each, EdgeDecorrelation)]
    names = [each.name for each in terms]
    if names.count(mine) > 1:
        raise UserError(
            f"two decorrelation terms are called '{mine}'; set another `name` for one "
            f"of them"
        )
    return frozenset(names)


def _check_training(trainer: Any, pl_module: Any, course: Course) -> None:
    """Refuse what can be known not to work before there are data.

    Raises:
        UserError: see :class:`EdgeDecorrelation`.
    """
    nequip_internals.refuse_unsupported(trainer, pl_module)
    course.check(trainer.max_epochs, trainer.max_steps)
    if course.controller is not None:
        monitor = course.controller.target.guard_monitor
        nequip_internals.check_guard(trainer, pl_module, monitor)


def _report(
    trainer: Any,
    name: str,
    course: Course,
    before: dict[str, Any] | None,
    settings: dict[str, Any],
) -> None:
    """Log at the first batch, when Lightning's counters are right, what changed."""
    log = nequip_internals.rank_zero_logger(__name__)
    schedule, end = course.schedule, course.end
    if schedule.coeff > 0 and schedule.delay >= end:
        log.warning(f"{PACKAGE}: {logs.off_line(name, schedule.delay, end)}")
    # not through the module's hyper-parameters, which go into checkpoints
    for logger in trainer.loggers:
        logger.log_hyperparams({name: settings})
    if trainer.ckpt_path is not None:
        line = logs.restart_line(before, settings, trainer.global_step)
        log.info(f"{PACKAGE}: {line}")
