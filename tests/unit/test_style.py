"""The pre-commit hooks pass on every file, and each of them can fail."""

import re
import shlex
import subprocess
import sys

import nbformat
import pytest
import restricted
import yaml

from medimgen.paths import ROOT

CONFIG = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
HOOKS = {hook["id"]: hook for repo in CONFIG["repos"] for hook in repo["hooks"]}
ENDINGS = {"python": (".py",), "pyi": (".pyi",), "jupyter": (".ipynb",)}


def files_for(hook):
    """The repository's files that pre-commit would hand to a hook."""
    wanted = hook.get("types", hook.get("types_or"))
    files = []
    for path in restricted.repository_files(ROOT):
        name = path.relative_to(ROOT).as_posix()
        if "exclude" in hook and re.search(hook["exclude"], name):
            continue
        if wanted == ["text"]:
            fits = restricted.readable(path.read_bytes()) is not None
        else:
            fits = path.suffix in {ending for kind in wanted for ending in ENDINGS[kind]}
        files += [name] if fits else []
    return files


def run(hook, files):
    """What a hook says about files: (exit code, text)."""
    command = [sys.executable if word == "python" else word for word in shlex.split(hook["entry"])]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", HOOKS)
def test_hook_passes(name):
    files = files_for(HOOKS[name])
    assert files
    code, text = run(HOOKS[name], files)
    assert code == 0, text


def bad_notebook():
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")])
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("ruff-check", "a.py", "import os\n"),
        ("ruff-format", "a.py", "x=1\n"),
        ("nbstripout", "a.ipynb", bad_notebook()),
        ("notebook-lint", "a.ipynb", bad_notebook()),
        ("codespell", "a.md", "This is t" + "eh wrong way.\n"),
    ],
)
def test_hook_can_fail(name, file, text, tmp_path):
    (tmp_path / file).write_text(text, encoding="utf-8")
    code, said = run(HOOKS[name], [str(tmp_path / file)])
    assert code != 0 and file in said, said


def test_every_hook_is_local_and_shown_to_fail():
    assert [repo["repo"] for repo in CONFIG["repos"]] == ["local"]
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
    assert set(HOOKS) == {"ruff-check", "ruff-format", "nbstripout", "notebook-lint", "codespell"}


def test_kept_outputs_survive_nbstripout(tmp_path):
    from test_lint import good, write

    file = tmp_path / "good.ipynb"
    file.write_text(write(good()), encoding="utf-8")
    assert run(HOOKS["nbstripout"], [str(file)])[0] == 0
    assert run(HOOKS["notebook-lint"], [str(file)])[0] == 0
