"""The training callback: adds the loss term, sets its coefficient, logs, resumes."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import Tensor

from nequip_decorr import __version__
from nequip_decorr._validation import as_list, is_whole, plain
from nequip_decorr.correlation.functional import VARIANCE_FLOOR
from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.correlation.sampled import (
    MAX_CHANNELS,
    MAX_EDGES,
    SampledCorrelation,
)
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.features import (
    Features,
    check_kind,
    check_layers,
    find_features,
    tap,
)
from nequip_decorr.training.logs import block_values, idle_line, restart_line
from nequip_decorr.training.progress import read_progress
from nequip_decorr.training.schedules import (
    OPTIONS,
    SCHEDULES,
    ControlLaw,
    Schedule,
    refuse_unused,
)
from nequip_decorr.training.steering import Course, Scheduled, Steering, Targeted

PACKAGE = "nequip_decorr"


class EdgeDecorrelation(Callback):
    r"""Lowers the correlation between a model's edge features during training.

    Adds an :class:`nequip_decorr.EdgeCorrelation` term to the loss of an Allegro model
    or NequIP GNN and sets its coefficient by a schedule. The coefficients of energy,
    forces and stress stay exactly what they are without it: the loss is
    :math:`\sum_k c_k L_k + \lambda\, L_\mathrm{corr}` with :math:`\sum_k c_k = 1` as
    NequIP normalises it. Checkpoints, packaged and compiled models hold nothing of this
    package: where a model does not output the features itself, hooks on the model in
    training add them to its output, with ``compile_mode: compile`` too.

    .. code-block:: yaml

        trainer:
          _target_: lightning.Trainer
          callbacks:
            - _target_: nequip_decorr.EdgeDecorrelation
              schedule: cosine    # constant, linear, cosine, cyclical or target
              direction: down     # up, down or bump
              coeff: 3.0          # the largest coefficient
              unit: step          # or epoch: delay, start, stop, horizon are in these
              horizon: null       # null: the end of the training
              delay: 0            # the term is off before this
              floor: 0.0          # the smallest coefficient once it is on
              features: null      # or messages, tensors, node; see below

    The same without editing the list: ``nequip-train -cn config
    +nequip_decorr=cosine``.

    The coefficient follows the progress of the training, epochs and the fraction of the
    present one. It is the same at equal progress for any batch size, number of ranks,
    ``accumulate_grad_batches`` and ``limit_train_batches``, also when a restart changes
    them. A longer training (``max_epochs``) stretches a schedule without ``horizon`` or
    ``stop``, and the log says so.

    Several terms, for example of edges and tensors or of different layers, are several
    callbacks with a different ``name`` each.

    Logged: ``loss_coeff/edge_correlation`` and ``train_loss_step/edge_correlation`` at
    each step, ``train_loss_epoch/edge_correlation`` and ``val0_epoch/edge_correlation``
    at each epoch, and for each layer of the validation set
    ``val0_epoch/edge_correlation_layer0_mean_abs_rho``, ``..._mean_rho2_debiased``,
    ``..._effective_rank`` and ``..._dead_fraction``. Other features than Allegro's
    scalars are named: ``..._layer0_radial_...``, ``..._layer0_tensors_1o_...``.
    The options are logged as hyper-parameters, under the term's name.

    Args:
        schedule: how the coefficient changes; ``target`` holds a level by feedback.
        coeff: largest coefficient (``target``: the initial one). 0 only monitors.
        direction: ``up``, ``down`` or ``bump``, for linear, cosine and cyclical.
        unit: what ``delay``, ``start``, ``stop`` and ``horizon`` count: ``epoch``, also
            fractions of one, or ``step``, optimizer steps as long as they were when the
            training (or the term, at a restart) started. For a loader without a length,
            ``global_step`` or whole epochs.
        horizon: when the schedule ends; null takes the end of the training, by
            ``trainer.max_epochs`` or ``trainer.max_steps``, whichever comes first.
        delay: the term is off before this.
        start: where the shape begins (default: at ``delay``).
        stop: where the shape ends (default: at ``horizon``).
        floor: smallest coefficient once the term is on.
        cycles: number of periods of ``cyclical``.
        target: for ``target``: the debiased mean rho^2 to hold, in (0, 1).
        rate: for ``target``: gain, see
            :class:`nequip_decorr.training.schedules.ControlLaw`.
        max_coeff: for ``target``: largest coefficient.
        guard_monitor: for ``target``: logged validation force error to guard;
            ``val0_`` is the first validation set.
        guard_band: for ``target``: how far it may be above its best, relatively.
        name: name of the term in the loss, in the logs and in checkpoints.
        monitor: also measure on the validation data.
        features: what is decorrelated. null takes the scalar edge features of an
            Allegro model (``edge``) or the radial weights of a NequIP GNN (``radial``,
            which weight its tensor products edge by edge). By choice: ``messages``
            (what these products return), ``tensors`` (those of Allegro's layers) or
            ``node`` (node features of a NequIP GNN, atom by atom, for comparison).
            Tensors correlate by irrep, see :mod:`nequip_decorr.correlation.channels`.
        field: another field that the model outputs, made of scalars.
        layer_dim: channels of one layer of it; null makes it one layer.
        layers, layer_weights, penalty, variance_floor, seed: as
            :class:`nequip_decorr.EdgeCorrelation`.
        max_edges, max_channels: the term takes at most this many edges of each rank's
            batch, and channels of each layer, drawn anew at each step; null takes all.
            Beyond them its cost does not grow. For what they do to its accuracy see
            :class:`nequip_decorr.correlation.sampled.SampledCorrelation`; validation
            uses all.
        every_n_steps: the term enters every so many optimizer steps, there with its
            coefficient times this number, so that it weighs the same on average and
            costs less (lazy regularisation, arXiv:1912.04958). Each epoch begins one
            step later, so that in this many epochs it enters once for each batch of a
            loader that does not shuffle. For small coefficients:
            against each step, 4 cost 2 % in forces with 0.3, 7 % with a cosine from 3
            (``benchmarks/hfox``). ``target`` measures at these steps. What is logged as
            coefficient is the average.

    A warning says when, in an epoch, the term met no edges or only constant channels.

    Raises:
        UserError: before the first step, for options out of range, a schedule that
            does not fit the length of the training, a model without such features, a
            training without a loss, another metric or term of the same name, a
            ``guard_monitor`` that is not logged, SoftAdapt or ConFIG.
        FloatingPointError: in training, when what was drawn of a batch is not finite,
            before it reaches the weights.
    """

    def __init__(
        self,
        schedule: str = "cosine",
        coeff: float = 3.0,
        *,
        direction: str = "down",
        unit: str = "step",
        horizon: float | None = None,
        delay: float = 0,
        start: float | None = None,
        stop: float | None = None,
        floor: float = 0.0,
        cycles: int = 4,
        target: float | None = None,
        rate: float = 0.01,
        max_coeff: float = 10.0,
        guard_monitor: str = "val0_epoch/forces_rmse",
        guard_band: float = 0.05,
        name: str = "edge_correlation",
        monitor: bool = True,
        features: str | None = None,
        field: str | None = None,
        layer_dim: int | None = None,
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        penalty: str = "square",
        variance_floor: float = VARIANCE_FLOOR,
        max_edges: int | None = MAX_EDGES,
        max_channels: int | None = MAX_CHANNELS,
        every_n_steps: int = 1,
        seed: int = 0,
    ) -> None:
        options = {k: v for k, v in locals().items() if k not in {"self", "__class__"}}
        super().__init__()
        if not (is_whole(every_n_steps) and every_n_steps >= 1):
            raise UserError(
                f"expected a whole `every_n_steps` of at least 1, got {every_n_steps!r}"
            )
        if schedule not in SCHEDULES:
            raise UserError(
                f"expected `schedule` to be one of {SCHEDULES}, got '{schedule}'"
            )
        refuse_unused(schedule, options, _defaults())
        self.steering: Steering
        if schedule == "target":
            if target is None:
                raise UserError(
                    "expected `target` (the debiased mean rho^2 to hold) for schedule "
                    "target, got none; set for example target: 0.05"
                )
            law = ControlLaw(target=target, rate=rate, maximum=max_coeff)
            self.steering = Targeted(law, coeff, delay, guard_band)
        else:
            self.steering = Scheduled(
                Schedule(schedule, coeff, direction, floor, delay, start, stop, cycles)
            )
        self._course = Course(self.steering, unit, horizon)
        self.schedule = schedule
        self.delay = delay
        self.coeff = coeff
        self.guard_monitor = guard_monitor
        self.name = name
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        check_kind(features, field, layer_dim)
        self.features = features
        self.field = field
        self.layer_dim = layer_dim
        self._layers = as_list("layers", layers)
        if self._layers is not None and not all(map(is_whole, self._layers)):
            raise UserError(f"expected whole numbers as `layers`, got {layers}")
        self._metric_options: dict[str, Any] = {
            "layer_weights": layer_weights,
            "penalty": penalty,
            "variance_floor": variance_floor,
            "seed": seed,
        }
        self._limits: dict[str, Any] = {
            "max_edges": max_edges,
            "max_channels": max_channels,
        }
        # options are checked here, before data are read and a model is built
        SampledCorrelation(**self._limits, **self._metric_options)
        self._settings = {name: plain(value) for name, value in options.items()}
        self._restored_settings: dict[str, Any] | None = None
        self._found: Features | None = None
        self._taps: list[Any] = []
        self._loss_term: SampledCorrelation | None = None
        self._monitors: list[EdgeCorrelation] = []
        self._names: frozenset[str] = frozenset()
        self._at_start = True
        self._said_idle = False
        self._step_of_batch = 0
        self._coefficient = 0.0

    @property
    def state_key(self) -> str:
        """By the term's name, so that several terms have their state in a checkpoint.

        By the instance before ``setup``: Lightning would refuse two of one name when
        it builds the Trainer, without saying what to do.
        """
        which = {"name": self.name} if self._names else {"id": id(self)}
        return str(self._generate_state_key(**which))

    # --- before training ---

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check what can be known now; add the term and the monitors once."""
        names = [each.name for each in _terms(trainer)]
        if names.count(self.name) > 1:
            raise UserError(
                f"expected decorrelation terms of different names, got two called "
                f"'{self.name}'; set another `name` for one of them"
            )
        self._names = frozenset(names)
        model = nequip_internals.sole_model(pl_module)
        self._found = find_features(model, self.features, self.field, self.layer_dim)
        given = self._metric_options["layer_weights"]
        check_layers(self._found, self._layers, given)
        if self._layers is not None:
            weights = [0.0] * self._found.layers
            for i, layer in enumerate(self._layers):
                weights[layer] = 1.0 if given is None else given[i]
            self._metric_options["layer_weights"] = weights
            self._layers = None
        # in every stage, since the first that calls the model may compile it
        self._untap()
        self._taps = tap(model, self._found)
        nequip_internals.strip_hyperparameters(pl_module, PACKAGE)
        if stage == "fit" and self._loss_term is None and self.coeff > 0:
            nequip_internals.refuse_unsupported(trainer, pl_module)
            if pl_module.loss is None:
                raise UserError(
                    "expected `training_module.loss` to be a loss, got null; configure "
                    "one, for example nequip.train.EnergyForceLoss"
                )
            restarts = trainer.ckpt_path is not None
            self._course.check(trainer.max_epochs, trainer.max_steps, restarts)
            if self.steering.needs_measurement:
                nequip_internals.check_guard(trainer, pl_module, self.guard_monitor)
            self._loss_term = SampledCorrelation(
                blocks=self._found.blocks,
                dist_sync_on_step=True,
                **self._limits,
                **self._metric_options,
            )
            self._loss_term.checked_by_callback = True
            nequip_internals.add_metric(pl_module.loss, self.name, self._loss_term)
            self._set_coefficient(pl_module, 0.0)
        if self.monitor and not self._monitors:
            for manager in pl_module.val_metrics:
                if manager is not None:
                    metric = EdgeCorrelation(
                        blocks=self._found.blocks, **self._metric_options
                    )
                    metric.checked_by_callback = True
                    nequip_internals.add_metric(manager, self.name, metric)
                    self._monitors.append(metric)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Say what will happen."""
        self._at_start = True
        if self._found is None:  # pragma: no cover
            raise RuntimeError("expected `setup` to have run before `on_train_start`")
        nequip_internals.rank_zero_logger(__name__).info(
            f"{PACKAGE} {__version__}: {self._found.title}; "
            f"schedule {self.schedule}, coefficient {self.coeff}"
            + ("" if self.coeff > 0 else " (monitor only)")
        )

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the model as it was."""
        self._untap()

    # --- in training ---

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the batches of the epoch before: NequIP resets terms in use only."""
        if self._loss_term is not None:
            self._loss_term.reset()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the coefficient, by whatever others have set in the meantime."""
        now = read_progress(trainer, batch_idx)
        self._course.locate(now, trainer.max_epochs, trainer.max_steps)
        if self._loss_term is not None:
            self._coefficient = self._course.coefficient()
        if self._at_start:
            self._at_start = False
            self._report(trainer)
        if self._loss_term is None:
            return
        every = self.every_n_steps
        enters = now.enters(every)
        self._set_coefficient(pl_module, self._coefficient * every * enters)
        step = now.global_step
        self._step_of_batch = step
        self._loss_term.step = step
        if nequip_internals.will_log(trainer):
            pl_module.log(f"loss_coeff/{self.name}", self._coefficient)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Stop before a gradient that is not finite reaches the weights."""
        value = nequip_internals.last_value(pl_module.loss, self.name)
        if self._loss_term is not None and value is not None:
            self._loss_term.check_finite(
                value, f"step {trainer.global_step}, epoch {trainer.current_epoch}"
            )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell a controller what the step that was just made has seen."""
        stepped = trainer.global_step > self._step_of_batch
        term = self._loss_term
        if not (stepped and self.steering.needs_measurement and term is not None):
            return
        if term.update_called and self.name in pl_module.loss.entries:
            self.steering.measured(float(term.last_mean_square()))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Have NequIP log the epoch's value though the last step may be without it."""
        term = self._loss_term
        if term is None or not term.update_called:
            return
        self._set_coefficient(pl_module, self._coefficient)
        lacked = None if self._said_idle else term.idle()
        if lacked is not None and self._found is not None:
            self._said_idle = True
            line = idle_line(self.name, lacked, self._found.rows, trainer.current_epoch)
            nequip_internals.rank_zero_logger(__name__).warning(f"{PACKAGE}: {line}")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the diagnosis of each layer over the validation data."""
        for index, metric in enumerate(self._monitors):
            values = block_values(f"val{index}_epoch/{self.name}", metric)
            pl_module.log_dict(values, on_epoch=True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell a controller the validation force error."""
        steered = self.steering.needs_measurement and self._loss_term is not None
        if not (steered and trainer.state.fn == "fit"):
            return
        metrics = trainer.callback_metrics
        if self.guard_monitor not in metrics:
            raise UserError(
                f"expected `guard_monitor` to be a logged metric, got "
                f"'{self.guard_monitor}'; set it to one of "
                f"{sorted(name for name in metrics if name.startswith('val'))}"
            )
        if trainer.sanity_checking:
            return
        line = self.steering.validated(float(metrics[self.guard_monitor]))
        if line is not None:
            nequip_internals.rank_zero_logger(__name__).info(f"{PACKAGE}: {line}")

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """Settings and what :class:`nequip_decorr.training.steering.Course` needs.

        Python numbers and strings only.
        """
        return {"settings": self._ran_with(), **self._course.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the course; settings are those of the present config."""
        self._restored_settings = state_dict["settings"]
        self._course.restore(state_dict)

    def on_save_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Leave nothing of the term in the state of the metrics."""
        nequip_internals.strip_checkpoint(checkpoint, self.name)

    # --- helpers ---

    def _ran_with(self) -> dict[str, Any]:
        """Settings, with the horizon that the schedule was stretched to."""
        if "horizon" not in OPTIONS[self.schedule]:
            return self._settings
        return {**self._settings, "horizon": self._course.horizon}

    def _untap(self) -> None:
        for handle in self._taps:
            handle.remove()
        self._taps = []

    def _set_coefficient(self, pl_module: Any, coeff: float) -> None:
        nequip_internals.set_coefficient(pl_module.loss, self.name, coeff, self._names)

    def _report(self, trainer: Any) -> None:
        """Say at the first batch, when Lightning's counters are right, what changed."""
        log = nequip_internals.rank_zero_logger(__name__)
        if self.coeff > 0 and self.delay >= self._course.end:
            log.warning(
                f"{PACKAGE}: '{self.name}' stays off, its `delay` {self.delay} is "
                f"not before the end of the training, at {self._course.end:g}"
            )
        # not through the module's hyper-parameters, which go into checkpoints
        for logger in trainer.loggers:
            logger.log_hyperparams({self.name: self._ran_with()})
        if trainer.ckpt_path is not None:
            line = restart_line(
                self._restored_settings, self._ran_with(), trainer.global_step
            )
            log.info(f"{PACKAGE}: {line}")


def _terms(trainer: Any) -> list[EdgeDecorrelation]:
    return [each for each in trainer.callbacks if isinstance(each, EdgeDecorrelation)]


def _defaults() -> dict[str, Any]:
    parameters = signature(EdgeDecorrelation.__init__).parameters
    return {name: each.default for name, each in parameters.items()}
