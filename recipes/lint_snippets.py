"""What two linters say of the three programs of lesson 4, beside what is wrong with each.

    python recipes/lint_snippets.py       prints the table and writes results/generated_code.json

ruff runs with every rule it has and its own settings, bandit with all of its tests. Nothing is executed. A fault counts
as "named" if a message on its line is about it; which messages are is written here, by a person, for each snippet.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from medimgen import report
from medimgen.paths import ROOT

FOLDER = ROOT / "lessons/assets/generated-code"
RESULT = report.RESULTS / "generated_code.json"
FAULTS = {  # file: what is wrong, a piece of the line where it is, rules whose message is about it
    "1.py": ("a patient's name and a date go into the log", "film.PatientName", set()),
    "2.py": ("the last slice is left out", "len(mask) - 1", set()),
    "3.py": ("the film is sent to a server that nobody mentioned", "urlopen", {"S310", "B310"}),
}


def by_ruff(path: Path) -> list[tuple[int, str, str]]:
    """(line, rule, message) for every rule of ruff."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--select", "ALL"]
    done = subprocess.run([*command, "--output-format", "json", path], capture_output=True, check=True)
    return [(m["location"]["row"], m["code"], m["message"]) for m in json.loads(done.stdout)]


def by_bandit(path: Path) -> list[tuple[int, str, str]]:
    """(line, test, message) for every test of bandit."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--exit-zero", "--format", "json", path]
    done = subprocess.run(command, capture_output=True, check=True)
    return [(r["line_number"], r["test_id"], r["issue_text"]) for r in json.loads(done.stdout)["results"]]


def look(path: Path) -> dict:
    """A snippet's fault and its line; for each linter how much it says, what of that line, and whether that is it."""
    fault, piece, about = FAULTS[path.name]
    line = next(k for k, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if piece in text)
    row = {"fault": fault, "line": line}
    for name, messages in (("ruff", by_ruff(path)), ("bandit", by_bandit(path))):
        there = [f"{rule}: {text}" for where, rule, text in messages if where == line]
        named = any(rule in about for where, rule, _ in messages if where == line)
        row[name] = {"messages": len(messages), "on_the_line": there, "named": named}
    return row


def main() -> dict:
    return {
        "command": "python recipes/lint_snippets.py",
        "versions": {name: version(name) for name in ("ruff", "bandit")},
        "snippets": {name: look(FOLDER / name) for name in FAULTS},
    }


if __name__ == "__main__":
    document = main()
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    for name, row in document["snippets"].items():
        print(f"{name}, line {row['line']}: {row['fault']}")
        for linter in ("ruff", "bandit"):
            said = row[linter]
            print(
                f"  {linter}: {said['messages']} messages; on that line: {'; '.join(said['on_the_line']) or 'nothing'}"
            )
