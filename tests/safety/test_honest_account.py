"""The run says what it did not test: skips fail in CI, skipped browser tests and missing tiers are counted."""

import os
import shutil
import subprocess
import sys

import pytest

from medimgen.paths import ROOT, cache_dir

XDIST = ("-n", "1", "--dist", "loadfile")
TESTS = """
import pytest

@pytest.mark.browser
def test_browser():
    pytest.skip("no Chromium")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected():
    assert False

def test_tier(tier):
    import os
    assert os.environ["MEDIMGEN_TIER"] == tier
"""


@pytest.fixture
def run(tmp_path):
    """Run the tests above, or others, under the course's conftest; returns (exit code, text)."""

    def with_environment(source=TESTS, *options, **environment):
        shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
        (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CI", "PYTEST", "MEDIMGEN_"))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:nbval", *options]
        nowhere = {"MEDIMGEN_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            command, cwd=tmp_path, env=clean | nowhere | environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    return with_environment


def test_by_hand_skips_are_counted(run):
    code, text = run(TESTS, *XDIST)
    assert code == 0
    assert "browser tests skipped: 1 (no Chromium)" in text
    assert "full tier not available on this machine: 1 tests ran on the pocket tier only" in text


def test_in_ci_a_skip_fails(run):
    code, text = run(TESTS, *XDIST, CI="true")
    assert code == 1
    assert "skipped, which CI does not allow: no Chromium" in text
    assert "1 failed" in text
    assert "1 xfailed" in text


def test_in_ci_a_skipped_module_fails(run):
    source = "import pytest\npytest.importorskip('no_such_module_at_all')\n"
    assert run(source)[0] == 5
    assert run(source, CI="1")[0] in (1, 2)


def test_ci_set_to_false_is_no_ci(run):
    assert run(CI="false")[0] == 0


def test_both_tiers_run_where_both_are(tier, run):
    """With the films in the mirror or the cache the message is gone and the test runs twice."""
    kept = {k: v for k, v in os.environ.items() if k == "MEDIMGEN_MIRROR"} | {"MEDIMGEN_CACHE": str(cache_dir())}
    code, text = run(TESTS, "-vv", **(kept if tier == "full" else {}))
    assert code == 0
    assert ("test_tier[full]" in text) == (tier == "full")
    assert ("full tier not available" in text) == (tier == "pocket")
