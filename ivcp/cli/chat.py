"""The command line of `ivcp chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ivcp.cli.model_options import TrustRemoteCode
from ivcp.cli.paths import checked_model_dir, checked_videos
from ivcp.cli.terminal import complain, say

if TYPE_CHECKING:
    from ivcp.inference.chat import Chat
    from ivcp.records import MediumKind
    from ivcp.settings import RunConfig
    from ivcp.video import ClipFrames

_HELP = (
    "A line is a question; /video PATH and /image PATH show one with the next, /audio PATH plays one, /new starts "
    "anew, an empty line or Ctrl-D ends."
)
_COMMANDS: dict[str, MediumKind] = {"/video": "video", "/image": "image", "/audio": "audio"}
_ENDINGS: dict[MediumKind, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    "audio": (".wav", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".flac", ".aac", ".amr", ".aiff", ".aif", ".caf"),
}
"""Of names; files of all others are videos."""
_GREEDY = {"do_sample": False, "max_new_tokens": 256}
"""Unless the words say otherwise: the same question has the same answer."""


def chat_command(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIDEO|IMAGE|SOUND]... [NAME=VALUE]...",
            help="Clips, images and sounds of the first question, and settings.",
            show_default=False,
        ),
    ] = None,
    model_dir: Annotated[
        str, typer.Option(help="What training or export wrote, or a base model.", envvar="IVCP_MODEL_URI")
    ] = "runs/latest/model",
    question: Annotated[str | None, typer.Option(help="Ask this alone; default: ask what is typed.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the first question.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model that writes, about clips, images, sounds or nothing.

    Settings are those of generation and of frames, such as `do_sample=true temperature=0.7 max_new_tokens=64` and, for
    a base model, `video_num_frames=16`.

    Examples: `ivcp chat clip.mp4 --question 'What happens here?'`, `ivcp chat --model-dir models/base do_sample=true`
    """
    from ivcp.settings import load_config, parse_overrides

    words = videos or []
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    clips = checked_videos([word for word in words if word not in settings])
    config = load_config(None, _GREEDY | {"trust_remote_code": trust_remote_code} | parse_overrides(settings))
    place = Path(checked_model_dir(model_dir))
    chat = _opened(place, config)
    if system is not None:
        from ivcp.records import Message

        chat.messages.append(Message(role="system", content=system))
    if question is not None:
        _ask(chat, question, _read(chat, clips))
        return
    say(_HELP)
    _talk(chat, clips)


def _talk(chat: Chat, clips: list[Path]) -> None:
    """Answers lines until they end; what is wrong with one does not end the conversation."""
    from ivcp.data.prompts import PromptError
    from ivcp.video import VideoError

    shown = _read(chat, clips)
    for line in _lines():
        command, _, rest = line.partition(" ")
        try:
            if command == "/new":
                chat.clear()
                shown = []
            elif command in _COMMANDS:
                shown += _read(chat, checked_videos([_named(command, rest)]), kind=_COMMANDS[command])
            else:
                _ask(chat, line, shown)
                shown = []
        except (VideoError, PromptError, OSError, ValueError) as error:
            complain(str(error))


def _named(command: str, rest: str) -> str:
    """The path behind `/video`, `/image` or `/audio`, which may stand in quotes."""
    path = rest.strip().strip("'\"")
    if not path:
        raise ValueError(f"{command} gives one with the next question: write its path behind it")
    return path


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _read(chat: Chat, files: list[Path], *, kind: MediumKind | None = None) -> list[ClipFrames]:
    """What the model sees and hears of files; null tells what each one is by the end of its name."""
    return [_read_one(chat, file, kind or _kind_of(file)) for file in files]


def _kind_of(file: Path) -> MediumKind:
    found = (kind for kind, endings in _ENDINGS.items() if file.suffix.lower() in endings)
    return next(found, "video")


def _read_one(chat: Chat, file: Path, kind: MediumKind) -> ClipFrames:
    from ivcp.video import load_clip, load_image, load_sound

    processor = chat.writer.processor
    if kind == "image":
        return load_image(file, processor=processor)
    return load_sound(file, processor=processor) if kind == "audio" else load_clip(str(file), processor=processor)


def _ask(chat: Chat, question: str, shown: list[ClipFrames]) -> None:
    chat.ask(question, shown, on_text=lambda piece: typer.echo(piece, nl=False))
    typer.echo()


def _opened(place: Path, config: RunConfig) -> Chat:
    """A conversation with the model in a folder.

    Raises:
        ValueError: it does not write.
        FileNotFoundError: there is no model.
    """
    from ivcp.inference.chat import Chat
    from ivcp.inference.compute import Compute
    from ivcp.inference.generation import Writer
    from ivcp.stages.model_info import is_model_directory

    if not is_model_directory(place):
        from ivcp.models.load import load_base_model
        from ivcp.models.processor import Processor

        here = Compute.here()
        model = load_base_model(place, settings=config.model).eval().to(here.device)
        trusted = config.model.trust_remote_code
        processor = Processor.from_pretrained(place, video=config.video, trust_remote_code=trusted)
        return Chat(Writer(model, processor, config.generation), here)
    from ivcp.stages.directory import load_directory

    loaded = load_directory(place, machine=config.model, device=str(Compute.here().device))
    if not loaded.stage.writes:
        instead = "`ivcp predict` asks it" if loaded.stage.rows == "labels" else "give a model that writes"
        raise ValueError(f"{place}: stage {loaded.config.method.stage} trained it, and it writes no answers: {instead}")
    if config.video != type(config.video)():
        complain(f"{place} sees frames as in its training: settings of frames have no effect", style="yellow")
    return Chat(Writer(loaded.module.backbone, loaded.processor, config.generation), loaded.compute)
