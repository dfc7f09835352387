"""One clip of the sample data set: what happens in it, how it is drawn, how it is written as H.264."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ivcp.demo.actions import ACTIONS, GRASP_PHASE, Style, pick_up, sample_style, sit_down
from ivcp.demo.draw import Frames, Scene, add_chair, draw_frames, sample_background
from ivcp.demo.figure import JOINT_INDEX, Body, Pose, joint_positions, mirror, sample_body

FRAME_SIZES = (96, 112, 128)
FRAME_RATES = (12, 12, 15, 15, 20, 25)
_MARGIN = 4
_TRAVELLING = ("walk_left", "walk_right")
_WITH_BOX = ("pick_up", "put_down")
_WITH_CHAIR = ("sit_down", "stand_up")


@dataclass(frozen=True)
class Performer:
    """One person: the body and the way it moves."""

    body: Body
    style: Style


@dataclass(frozen=True)
class Take:
    """The circumstances of one clip, the same for every frame."""

    phases: NDArray[np.float64]
    """The action's phase in each frame, shape (frames,)."""
    fps: int
    mirrored: bool
    scene: Scene


def sample_performer(seed: int, performer: int) -> Performer:
    """The performer with this number; the same one for the same seed."""
    rng = np.random.default_rng([seed, 1, performer])
    return Performer(sample_body(rng), sample_style(rng))


def draw_clip(label: str, performer: Performer, rng: np.random.Generator) -> tuple[Frames, int]:
    """Draw one clip: frames of shape (frames, size, size, 3), and the frame rate per second."""
    take = _sample_take(label, performer, rng)
    motion = ACTIONS[label].motion
    poses = [motion(phase, performer.style) for phase in take.phases]
    joints = np.stack([_joints(pose, performer, take) for pose in poses])
    boxes = _boxes(label, joints, performer, take) if label in _WITH_BOX else None
    return draw_frames(joints, performer.body, take.scene, rng, boxes=boxes), take.fps


def write_clip(path: Path, frames: Frames, fps: int) -> None:
    """Encode frames of shape (frames, height, width, 3) as H.264 in an mp4 file."""
    height, width = frames.shape[1:3]
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # a file's bytes then do not depend on the machine's cores
        stream.options = {"preset": "superfast", "crf": "23", "g": "12", "bf": "2"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def sample_phases(cycles: tuple[float, float] | None, num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The phase of each frame, shape (num_frames,).

    A motion that runs once gets a window whose ends vary alike, so that a clip and its reverse are equally
    likely; a repeated one starts anywhere.
    """
    if cycles is None:
        start, end = rng.uniform(-0.08, 0.12), 1.0 - rng.uniform(-0.08, 0.12)
    else:
        start = rng.uniform(0, 1)
        end = start + rng.uniform(*cycles)
    return np.linspace(start, end, num_frames)


def _sample_take(label: str, performer: Performer, rng: np.random.Generator) -> Take:
    size, fps = int(rng.choice(FRAME_SIZES)), int(rng.choice(FRAME_RATES))
    phases = sample_phases(ACTIONS[label].cycles, round(fps * rng.uniform(1.5, 2.2)), rng)
    mirrored = label not in _TRAVELLING and bool(rng.integers(2))
    scene = sample_scene(size, len(phases), rng, sway=0.03 if label in _TRAVELLING else 0.1)
    if label in _WITH_CHAIR or rng.random() < 0.3:
        scene = _with_chair(scene, performer, mirrored, shift=0.0 if label in _WITH_CHAIR else rng.uniform(-0.4, 0.4))
    return Take(phases, fps, mirrored, scene)


def sample_scene(size: int, num_frames: int, rng: np.random.Generator, *, sway: float) -> Scene:
    """Draw the circumstances of a clip.

    Args:
        size: Width and height of a frame in pixels.
        num_frames: Frames of the clip.
        rng: Source of randomness.
        sway: How far from the middle the figure may stand, in frame widths.
    """
    height = size * rng.uniform(0.64, 0.76)
    ground = (size * (0.5 + rng.uniform(-sway, sway)), size * rng.uniform(0.86, 0.95))
    return Scene(
        size=size,
        background=sample_background(size + 2 * _MARGIN, rng),
        figure_height=height,
        ground=ground,
        shake=_sample_shake(num_frames, size, rng),
        noise=rng.uniform(0, 5),
    )


def _sample_shake(num_frames: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    strength = rng.uniform(0, 0.012) * size
    steps = rng.normal(size=(num_frames, 2)) * strength
    return np.clip(np.rint(steps), -_MARGIN, _MARGIN).astype(np.int64)


def _joints(pose: Pose, performer: Performer, take: Take) -> NDArray[np.float64]:
    return joint_positions(mirror(pose) if take.mirrored else pose, performer.body)


def _boxes(label: str, joints: NDArray[np.float64], performer: Performer, take: Take) -> NDArray[np.float64]:
    """Where the box is, shape (frames, 2): in the hands that hold it, before that where they grasp it."""
    hands = [JOINT_INDEX["left_hand"], JOINT_INDEX["right_hand"]]
    grasp = _joints(pick_up(GRASP_PHASE, performer.style), performer, take)[hands].mean(axis=0)
    phases = take.phases if label == "pick_up" else 1.0 - take.phases
    held = joints[:, hands].mean(axis=1)
    boxes: NDArray[np.float64] = np.where(phases[:, None] < GRASP_PHASE, grasp, held)
    return boxes


def _with_chair(scene: Scene, performer: Performer, mirrored: bool, *, shift: float) -> Scene:
    pose = sit_down(1.0, performer.style)
    hip = joint_positions(mirror(pose) if mirrored else pose, performer.body)[JOINT_INDEX["hip"]]
    drop = performer.body.torso_thickness / 2
    seat = (
        scene.ground[0] + (hip[0] + shift) * scene.figure_height + scene.margin,
        scene.ground[1] + (hip[1] + drop) * scene.figure_height + scene.margin,
    )
    background = add_chair(
        scene.background,
        seat=seat,
        length=0.26 * scene.figure_height,
        height=-(hip[1] + drop) * scene.figure_height,
        facing=-1 if mirrored else 1,
    )
    return replace(scene, background=background)
