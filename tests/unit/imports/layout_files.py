"""Files of a layout, and what a run reads after their import."""

from pathlib import Path


def by_video(annotations):
    """Video's name → class, split, group, start, end."""
    names = annotations.labels.label_names
    return {
        Path(row.video if isinstance(row.video, str) else row.video[0]).name: (
            names[row.label],
            row.split,
            row.group,
            row.start_seconds,
            row.end_seconds,
        )
        for row in annotations.rows
    }


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
