"""The command line of `ivcp import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ivcp.cli.terminal import say
from ivcp.imports.layouts import LAYOUTS

if TYPE_CHECKING:
    from ivcp.imports.importing import ImportRequest, ImportResult

Pairs = list[str] | None
_LAYOUT, _PROMPTS = "Of some layouts", "Questions"


def import_command(
    layout: Annotated[
        str,
        typer.Argument(help=f"How annotations and videos are laid out (docs/data.md): {', '.join(LAYOUTS)}."),
    ],
    sources: Annotated[
        list[str], typer.Argument(help="Files or a folder; train=FILE, val=FILE and test=FILE as well.")
    ],
    name: Annotated[str, typer.Option(help="What the data set is called in dataset_info.json.")],
    dataset_dir: Annotated[Path, typer.Option(help="Folder of dataset_info.json.")] = Path("data"),
    videos: Annotated[str | None, typer.Option(help="Videos' folder or s3:// prefix; default: the source's.")] = None,
    label_names: Annotated[Path | None, typer.Option(help="The classes in their order: JSON or text.")] = None,
    use_split: Annotated[Pairs, typer.Option(metavar="NAME=SPLIT", help="E.g. validation=test.")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Keep rows without a video.")] = False,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Leave rows without a video out.")] = False,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave wrong rows out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of this name.")] = False,
    relative: Annotated[bool, typer.Option("--relative", help="Paths below --videos, for media_dir.")] = False,
    language: Annotated[str, typer.Option(help="en or zh.", rich_help_panel=_PROMPTS)] = "en",
    templates: Annotated[Path | None, typer.Option(help="Your own, YAML.", rich_help_panel=_PROMPTS)] = None,
    seed: Annotated[int, typer.Option(help="Chooses the question of each row.", rich_help_panel=_PROMPTS)] = 0,
    action_token: Annotated[str, typer.Option(help="As in the run.", rich_help_panel=_PROMPTS)] = "<ACTION>",
    column: Annotated[
        Pairs, typer.Option(metavar="OURS=YOURS", help="E.g. path=file.", rich_help_panel=_LAYOUT)
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="One character, or tab.", rich_help_panel=_LAYOUT)] = None,
    encoding: Annotated[str | None, typer.Option(help="E.g. gbk.", rich_help_panel=_LAYOUT)] = None,
    split_number: Annotated[int | None, typer.Option(help="Official split, 1 to 3.", rich_help_panel=_LAYOUT)] = None,
    frame_name: Annotated[str | None, typer.Option(help="E.g. img_{:05}.jpg.", rich_help_panel=_LAYOUT)] = None,
    label_map: Annotated[
        Path | None, typer.Option(help="A class for each video: JSON or CSV.", rich_help_panel=_LAYOUT)
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(help=r"Finds a video's group in its path: 'person(\d+)'.", rich_help_panel=_LAYOUT),
    ] = None,
) -> None:
    """Make a data set of annotations and videos that you have, in the layout they have.

    Examples: `ivcp import folders my_videos --name mine`,
    `ivcp import ucf101 ucfTrainTestlist --videos UCF-101 --name ucf101 --split-number 1`
    """
    from ivcp.imports.importing import ImportRequest, import_dataset
    from ivcp.imports.listing import ImportRefusedError, LayoutOptions

    if allow_missing and skip_missing:
        raise ImportRefusedError("--allow-missing keeps rows and --skip-missing leaves them out: say one of them")
    options = LayoutOptions(
        columns=_pairs(column, "--column"),
        delimiter=delimiter,
        encoding=encoding,
        split_number=split_number,
        frame_name=frame_name,
        label_map=label_map,
        group_pattern=group_pattern,
    )
    request = ImportRequest(
        layout=layout,
        sources=tuple(sources),
        name=name,
        dataset_dir=dataset_dir,
        videos=videos,
        options=options,
        label_names=label_names,
        use_split=_pairs(use_split, "--use-split"),
        language=language,
        templates=templates,
        seed=seed,
        action_token=action_token,
        missing="keep" if allow_missing else "skip" if skip_missing else "refuse",
        skip_bad_rows=skip_bad_rows,
        overwrite=overwrite,
        relative=relative,
    )
    _show(import_dataset(request), request)


def _pairs(words: Pairs, option: str) -> dict[str, str] | None:
    if not words:
        return None
    wrong = [word for word in words if "=" not in word]
    if wrong:
        from ivcp.imports.listing import ImportRefusedError

        raise ImportRefusedError(f"{option} {wrong[0]!r}: expected NAME=NAME")
    return {first.strip(): second.strip() for first, _, second in (word.partition("=") for word in words)}


def _show(result: ImportResult, request: ImportRequest) -> None:
    classes = f", {result.num_classes} classes" if result.num_classes else ""
    absent = {"skip": "left out", "keep": "kept, their videos are absent", "refuse": ""}[request.missing]
    missing = f", {result.num_missing:,} rows {absent}" if result.num_missing else ""
    total = sum(result.rows.values())
    say(f"{total:,} rows{classes}{missing}, in {request.dataset_dir / request.name}")
    for name, count in result.rows.items():
        say(f"  {name}: {count:,}")
    for note in result.notes:
        say(f"note: {note}")
    if result.num_classes or not any("no row has a class" in note for note in result.notes):
        say(f"next: ivcp validate {' '.join(shlex.quote(word) for word in _settings(result, request))}")


def _settings(result: ImportResult, request: ImportRequest) -> list[str]:
    """What a run with this data set says."""
    keys = {"train": "dataset", "val": "eval_dataset", "test": "test_dataset"}
    named = {keys.get(name.removeprefix(request.name).removeprefix("_"), "dataset"): name for name in result.rows}
    settings = [f"{key}={name}" for key, name in named.items()] + [f"dataset_dir={request.dataset_dir}"]
    if result.media_dir:
        settings.append(f"media_dir={result.media_dir}")
    if request.action_token != "<ACTION>":
        settings.append(f"action_token={request.action_token}")
    return settings
