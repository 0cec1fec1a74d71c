"""torchvision stays out, and nothing in the repository names the machine it was made on."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import restricted

from medimgen.paths import ROOT

TORCH_INDEX = "download." + "pytorch.org"
TORCH_INDEX_FILES = {"recipes/setup_env.py", "environment.yml"}
OTHER_INDEX = re.compile(
    r"https?://[^\s\"'<>)]*/simple\b|https?://(?:pypi|files|test\.pypi)\.(?:org|pythonhosted\.org)"
    r"|--(?:extra-)?index-url|registry\.npmjs\.org|conda\.anaconda\.org|\bhuggingface\.co/[^\s\"'<>)]*/resolve/"
)
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:home|Users|root|work|tmp|mnt|srv)/[\w.-]+|(?<!\w)[A-Z]:\\{1,2}(?:Users|Temp)"
)


def requirements(distribution):
    """Names of what a distribution needs without extras."""
    needed = [r for r in distribution.requires or [] if not re.search(r";.*\bextra\s*==", r)]
    return {re.match(r"[\w.-]+", r).group().lower() for r in needed}


def distributions_with_torchvision(distributions):
    return [
        d.metadata["Name"]
        for d in distributions
        if (d.metadata["Name"] or "").lower() == "torchvision" or "torchvision" in requirements(d)
    ]


class Fake:
    def __init__(self, name, requires):
        self.metadata, self.requires = {"Name": name}, requires


def test_no_torchvision():
    assert distributions_with_torchvision(importlib.metadata.distributions()) == []


def test_the_torchvision_check_can_fail():
    bad = [Fake("torchvision", None), Fake("a", ["torch", "torchvision>=0.2 ; python_version > '3'"])]
    good = [Fake("b", ["torchvision; extra == 'vision'"])]
    assert distributions_with_torchvision(bad + good) == ["torchvision", "a"]


def test_no_module_imports_torchvision(tmp_path):
    """Importing every module of the package leaves torchvision out; of a package with one that does, it does not."""
    walk = (
        "import importlib, pkgutil, sys\n"
        "package = importlib.import_module(sys.argv[1])\n"
        "for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    m.name.endswith('__main__') or importlib.import_module(m.name)\n"
        "sys.exit('torchvision' in sys.modules)\n"
    )
    (tmp_path / "planted" / "below").mkdir(parents=True)
    for name, text in (("planted/below/a.py", "import torchvision"), ("planted/below/__init__.py", ""),
                       ("planted/__init__.py", ""), ("torchvision.py", "")):  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
    codes = [
        subprocess.run([sys.executable, "-c", walk, package], cwd=folder, check=False).returncode
        for package, folder in (("medimgen", ROOT), ("planted", tmp_path))
    ]
    assert codes == [0, 1]


def workplace_words(name: str, text: str) -> list[str]:
    """What a text says about the machine or the package indexes that it should not say."""
    found = [m.group() for m in MACHINE_PATH.finditer(text)] + [m.group() for m in OTHER_INDEX.finditer(text)]
    if name in TORCH_INDEX_FILES:
        found = [f for f in found if "index-url" not in f]
    elif TORCH_INDEX in text:
        found.append(TORCH_INDEX)
    return [f"{name}: {word}" for word in found]


def test_no_workplace_words():
    complaints = []
    for path in restricted.repository_files(ROOT):
        text = restricted.readable(path.read_bytes())
        if text is not None and path != Path(__file__):
            complaints += workplace_words(path.relative_to(ROOT).as_posix(), text)
    assert complaints == []


@pytest.mark.parametrize(
    "text",
    [
        "open('/home/" + "ann/x.png')",
        "see /work/" + "main",
        "C:\\" + "Users\\ann",
        "pip install --extra-" + "index-url x",
        "https://pypi" + ".org/simple/numpy",
        "https://mirror.example" + "/simple",
        TORCH_INDEX,
    ],
)
def test_the_check_for_workplace_words_can_fail(text):
    assert workplace_words("lessons/a.md", text)


def test_what_is_allowed():
    assert workplace_words("environment.yml", f"--extra-index-url https://{TORCH_INDEX}/whl/cpu") == []
    assert workplace_words("lessons/a.md", "notebooks/work/tmp and ~/home, see https://a.org/home/x") == []
