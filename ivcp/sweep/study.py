"""Runs a sweep: Optuna proposes settings, trials train in processes of their own, and the worse are given up early."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from ivcp.checks.settings import check_protocol
from ivcp.distributed.rank import world_size
from ivcp.kubernetes.api import Termination, ends_on_sigterm
from ivcp.records import CLIPS_DIR, INDEX_FILE, RUN_CONFIG_FILE
from ivcp.settings import ConfigError, RunConfig, config_from_settings, save_config
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import writable_folder, write_whole
from ivcp.storage.owner import owned
from ivcp.sweep.result import BEST_FILE, SWEEP_FILE, SweepResult, TrialResult, TrialState
from ivcp.sweep.space import Choice, Range, Space, check_space
from ivcp.sweep.tracked import TrackedTrials
from ivcp.sweep.trial_files import MODEL_DIR, STOP_FILE, read_values
from ivcp.tracking import RunStatus

log = logging.getLogger(__name__)

STORE_FILE, LOG_FILE, _TRIALS = "optuna.db", "trial.log", "trials"
_POLL_SECONDS = 0.5
_RANDOM_TRIALS = 5
"""Trials before the sampler follows what it has seen, and before one is given up."""
_OF_A_TRIAL = {
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
    "plot_loss": False,
    "train_launcher": "inline",
    "checkpoints_uri": None,
    "resume_from_checkpoint": None,
}
_LOG_LINES = 15
_FAILURES = 3
"""So many failures, and nothing else, end a sweep."""


class SweepError(RuntimeError):
    """No trial came to its end."""


@dataclass
class _Running:
    trial: optuna.Trial
    chosen: dict[str, Any]
    folder: Path
    process: subprocess.Popen[bytes]
    device: int
    """The place that it has among those that run at once."""
    told: int = 0
    """Values that Optuna knows."""
    is_given_up: bool = False

    def values(self) -> list[tuple[int, float]]:
        """Step and value of each validation."""
        return read_values(self.folder)

    def drop_weights(self) -> None:
        """Nobody needs them."""
        shutil.rmtree(self.folder / MODEL_DIR, ignore_errors=True)


def run_sweep(settings: Mapping[str, Any], space: Space, *, trials: int, jobs: int, folder: Path) -> SweepResult:
    """Trains until `trials` have ended, `jobs` at a time, and writes `sweep.json` and `best.yaml` to `folder`.

    `settings` are flat, as of a file. Clips are prepared once, in `folder`. What an interrupted sweep has in `folder`
    counts: its trials are not run again, but for those that were under way.

    Raises:
        ConfigError: the settings, or what is searched of them, cannot be used; there is no validation split; or
            another sweep is in `folder`; or a training of them needs several processes.
        InUseError: another process works in `folder`.
        SweepError: all trials fail.
    """
    check_space(space, settings)
    config = config_from_settings({**settings, "output_dir": str(folder)})
    _check_trained_alone(config)
    with owned(writable_folder(folder), advice="wait for its end, or name another --folder"):
        sweep = _Sweep(settings, space, config, folder=folder, jobs=jobs)
        with ends_on_sigterm(anywhere=False) as termination:
            return sweep.run(trials, termination)


def _check_trained_alone(config: RunConfig) -> None:
    """Checks that a trial is one training, in one process, that is validated.

    Raises:
        ConfigError: it is not.
    """
    check_protocol(config, has_classes=stage_of(config).rows == "labels")
    asked = config.train.deepspeed or config.train.fsdp
    if asked or config.launch.num_processes > 1 or world_size() > 1:
        raise ConfigError(
            f"a trial trains in one process ({asked or max(config.launch.num_processes, world_size())} is asked for): "
            "leave train_nodes, train_processes_per_node, deepspeed and fsdp out, and start `ivcp sweep` without "
            "torchrun; --jobs trains one trial on each GPU. Processes multiply the batch: a sweep finds the learning "
            "rate of per_device_train_batch_size times gradient_accumulation_steps"
        )
    if config.train.eval_strategy == "no":
        raise ConfigError("eval_strategy = no: a sweep compares trials by validation; remove it, for one each epoch")


class _Sweep:
    def __init__(
        self, settings: Mapping[str, Any], space: Space, config: RunConfig, *, folder: Path, jobs: int
    ) -> None:
        from ivcp.training.arguments import metric_for_best_model

        self._settings, self._space, self._folder, self._jobs = dict(settings), space, folder, jobs
        metric = metric_for_best_model(stage_of(config))
        self._result = self._found(
            SweepResult(
                metric=metric,
                less_is_better=metric == "loss",
                space={key: str(values) for key, values in space.items()},
                settings=json.loads(json.dumps(self._settings, default=str)),
            )
        )
        self._index = self._prepared(config)
        self._study = self._opened()
        self._runs = TrackedTrials(config, self._result)

    def run(self, trials: int, termination: Termination) -> SweepResult:
        """Until so many trials have ended."""
        running: list[_Running] = []
        status: RunStatus = "KILLED"
        try:
            while True:
                while len(running) < self._jobs and len(self._result.trials) + len(running) < trials:
                    if (begun := self._begin({one.device for one in running})) is not None:
                        running.append(begun)
                if not running:
                    result = self._concluded()
                    status = "FINISHED"
                    return result
                termination.sleep(_POLL_SECONDS)
                for one in list(running):
                    has_ended = one.process.poll() is not None
                    self._follow(one)
                    if has_ended:
                        running.remove(one)
                        self._end(one)
        except SweepError:
            status = "FAILED"
            raise
        finally:
            for one in running:
                with suppress(ProcessLookupError):  # with its workers; it has nothing to save
                    os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
                one.drop_weights()
            self._runs.end(status)

    def _found(self, new: SweepResult) -> SweepResult:
        """This sweep with the trials that an earlier call left."""
        file = self._folder / SWEEP_FILE
        there = SweepResult.read(file) if file.exists() else new
        is_same = there.model_copy(update={"trials": ()}) == new
        if not there.trials and not (is_same and file.exists()):  # of another one, which got nowhere
            (self._folder / STORE_FILE).unlink(missing_ok=True)
            new.write(file)
            return new
        if not is_same:
            raise ConfigError(
                f"{self._folder} has a sweep of {_words(there.space)}, or with other settings: go on with the same "
                "command, or name another --folder"
            )
        return there

    def _prepared(self, config: RunConfig) -> Path:
        from ivcp.steps import prepare

        if not prepare(config).num_clips.get("val"):
            raise ConfigError("a sweep compares trials on the validation split, and there is none: set val_size")
        return self._folder / CLIPS_DIR / INDEX_FILE

    def _opened(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{self._folder / STORE_FILE}",
            study_name="sweep",
            direction="minimize" if self._result.less_is_better else "maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_RANDOM_TRIALS),
        )
        # Seeded by how far it is: with the same seed, a sweep that goes on would propose its first trials again.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=len(study.trials))
        known = {trial.number: trial for trial in self._result.trials}
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # the sweep was killed
            if trial.number in known:
                _tell(study, known[trial.number])
                continue
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            shutil.rmtree(self._folder / _TRIALS / f"{trial.number:03d}" / MODEL_DIR, ignore_errors=True)
            study.enqueue_trial(trial.params)
        return study

    def _begin(self, devices: set[int]) -> _Running | None:
        """A trial that trains; null for settings that cannot stand together, which is a failure."""
        trial = self._study.ask()
        chosen = {key: _suggested(trial, key, values) for key, values in self._space.items()}
        folder = self._folder / _TRIALS / f"{trial.number:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        given = {**self._settings, **chosen, **_OF_A_TRIAL, "output_dir": str(folder / MODEL_DIR)}
        try:
            save_config(config_from_settings(given), folder / RUN_CONFIG_FILE)
        except ConfigError as error:
            self._record(TrialResult(number=trial.number, settings=chosen, state="failed", value=None), [], str(error))
            return None
        device = next(number for number in range(self._jobs) if number not in devices)
        log.info("trial %d begins: %s", trial.number, _words(chosen))
        with (folder / LOG_FILE).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ivcp.sweep.trial", str(folder), str(self._index), str(os.getpid())],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | _device(device),
                start_new_session=True,  # Ctrl-C is the sweep's
            )
        return _Running(trial, chosen, folder, process, device)

    def _follow(self, one: _Running) -> None:
        """Tells Optuna what validation has found since the last time, and gives the trial up where it says so."""
        for step, value in one.values()[one.told :]:
            one.told += 1
            if math.isfinite(value):
                one.trial.report(value, step)
        if not one.is_given_up and one.told and one.process.poll() is None and one.trial.should_prune():
            one.is_given_up = True
            (one.folder / STOP_FILE).touch()

    def _end(self, one: _Running) -> None:
        values = [(step, value) for step, value in one.values() if math.isfinite(value)]
        best = (min if self._result.less_is_better else max)(values, key=lambda pair: pair[1], default=None)
        state: TrialState = "pruned" if one.is_given_up else "complete"
        if one.process.returncode != 0 or best is None:
            state = "failed"
        one.drop_weights()
        step, value = best or (None, None)
        ended = TrialResult(number=one.trial.number, settings=one.chosen, state=state, value=value, step=step)
        self._record(ended, one.values(), self._why(one) if state == "failed" else "")

    def _record(self, ended: TrialResult, values: list[tuple[int, float]], why: str) -> None:
        """Notes a trial that has ended; `why` it failed, if it has.

        Raises:
            SweepError: all so far have.
        """
        self._result = self._result.with_trial(ended)
        self._result.write(self._folder / SWEEP_FILE)
        _tell(self._study, ended)
        self._runs.log(ended, values)
        log.info("trial %d %s: %s = %s", ended.number, ended.state, self._result.metric, ended.value)
        if why:
            log.warning("trial %d failed: %s", ended.number, why)
        if len(self._result.trials) >= _FAILURES and all(each.state == "failed" for each in self._result.trials):
            raise SweepError(
                f"{len(self._result.trials)} trials failed and none has come to its end; the last one: {why}"
            )

    def _why(self, one: _Running) -> str:
        if one.process.returncode == 0:
            found = "found no finite" if one.values() else "ended before the first validation, which gives"
            return f"it {found} {self._result.metric}: see learning_rate, eval_steps, max_steps"
        file, code = one.folder / LOG_FILE, one.process.returncode
        how = f"signal {-code} (9: perhaps the machine had no memory left)" if code < 0 else f"exit code {code}"
        return f"{how}; its log, {file}, ends with:\n{tail(file)}"

    def _concluded(self) -> SweepResult:
        best = self._result.best
        if best is None:
            raise SweepError(f"no trial has come to its end: see {self._folder / 'trials'}")
        text = yaml.safe_dump({**self._result.settings, **best.settings}, sort_keys=False, allow_unicode=True)
        figure = f"{self._result.metric} {best.value:.4g} on validation"
        head = f"# Trial {best.number} of {len(self._result.trials)}: {figure}\n"
        write_whole(self._folder / BEST_FILE, head + text)
        return self._result


def tail(file: Path) -> str:
    """The last lines of a log."""
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])


def _suggested(trial: optuna.Trial, key: str, values: Choice | Range) -> Any:
    if isinstance(values, Choice):
        return trial.suggest_categorical(key, values.values)
    if values.is_whole:
        return trial.suggest_int(key, int(values.low), int(values.high), log=values.is_log)
    return trial.suggest_float(key, values.low, values.high, log=values.is_log)


def _tell(study: optuna.Study, ended: TrialResult) -> None:
    if ended.state == "complete":
        study.tell(ended.number, ended.value)
        return
    states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
    study.tell(ended.number, state=states[ended.state])


def _device(number: int) -> dict[str, str]:
    """Of several GPUs each job has one."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(each) for each in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": names[number % len(names)]} if names else {}


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in settings.items()
    )
