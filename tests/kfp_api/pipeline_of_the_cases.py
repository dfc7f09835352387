"""The pipeline whose runs were kept from a real server, in its tasks and their order; its steps do nothing.

The project's own pipeline changes; what a server made of this one does not.
"""

import functools

from kfp import dsl

component = functools.partial(dsl.component, base_image="python:3.11")


@component
def run_end(status: dsl.PipelineTaskFinalStatus) -> None:
    pass


@component
def run_start() -> None:
    pass


@component
def data_validation() -> None:
    pass


@component
def preprocessing_plan() -> list[str]:
    return ["part"]


@component
def preprocessing_part(part: str) -> None:
    pass


@component
def preprocessing() -> bool:
    return True


@component
def training() -> None:
    pass


@component
def evaluation() -> bool:
    return True


@component
def export() -> None:
    pass


@component
def serving() -> None:
    pass


@dsl.pipeline(name="action-cls")
def action_cls(deploy: bool = True) -> None:
    """As it was on 28 November 2026."""
    ended = run_end()
    with dsl.ExitHandler(ended, name="run"):
        started = run_start()
        valid = data_validation().after(started)
        plan = preprocessing_plan().after(valid)
        with dsl.ParallelFor(plan.output) as part:
            one = preprocessing_part(part=part)
            one.after(valid)
        clips = preprocessing().after(valid, started, one)
        with dsl.If(clips.output == True, name="changed"):  # noqa: E712
            trained = training().after(started)
            measured = evaluation().after(trained)
            with dsl.If(measured.output == True, name="gate"):  # noqa: E712
                exported = export().after(trained)
                with dsl.If(deploy == True, name="deploy"):  # noqa: E712
                    serving().after(exported)
