"""Binder: each notebook's page leads to the same notebook on mybinder.org, or says why it does not.

    make book REPOSITORY=https://github.com/you/your-fork

The address is not guessed from git: Binder sees public repositories only, and whether one is public, and may be shown
in the pages, its owner knows. Without an address no page has a button. A notebook that by its badge takes more memory
than a core notebook may has none either, and says so, with or without an address: Binder gives 2 GB, and JupyterLab
needs some of them. The form of the links: BinderHub's documentation, "Repository Providers", and JupyterLab's, "URLs".
"""

import json
from pathlib import Path
from urllib.parse import quote, urlsplit

from measure_notebooks import BUDGET

from medimgen.errors import CourseError

BUTTON = (
    "[Run on Binder]({url}){{.sd-btn .sd-btn-outline-primary}} This notebook in your browser, on "
    "[somebody else's computer](setup-binder)."
)
TOO_LARGE = (
    "*Not on Binder: this notebook takes {gb:.1f} GB. JupyterLab comes on top, and Binder gives 2 GB for both. "
    "Run it on your own machine.*"
)


def launch(repository: str, notebook: str) -> str:
    """The address that starts a repository's newest state on Binder and opens a notebook of it in JupyterLab.

    Raises CourseError for what is no public https address of a repository: a password in it would end up in the pages.
    """
    parts = urlsplit(repository.strip().rstrip("/").removesuffix(".git"))
    path = parts.path.strip("/")
    if parts.scheme != "https" or "/" not in path or "@" in parts.netloc or parts.query or parts.fragment:
        next = "give one that anybody can open, such as https://github.com/you/your-fork"
        raise CourseError("REPOSITORY is not the https address of a repository", next=next)
    whole = quote(f"https://{parts.netloc}/{path}", safe="")
    form = {"github.com": f"gh/{quote(path)}", "gitlab.com": f"gl/{quote(path, safe='')}"}
    where = form.get(parts.netloc, f"git/{whole}")
    return f"https://mybinder.org/v2/{where}/HEAD?urlpath=lab/tree/{quote(notebook)}"


def line_for(facts: dict, notebook: str, repository: str) -> str:
    """What a page says of Binder below its badge; "" where there is nothing to say. facts: the badge's."""
    if facts["peak_mb"] > BUDGET["peak_mb"]:
        return TOO_LARGE.format(gb=facts["peak_mb"] / 1000)
    return BUTTON.format(url=launch(repository, notebook)) if repository else ""


def install(sources: Path, repository: str = "") -> None:
    """Put that line into each notebook of a copy of the sources that wears a badge."""
    if repository:
        launch(repository, "")
    for file in sorted(sources.rglob("*.ipynb")):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        facts = notebook["metadata"].get("medimgen", {})
        line = "peak_mb" in facts and line_for(facts, file.relative_to(sources).as_posix(), repository)
        if line:
            lines = "".join(notebook["cells"][0]["source"]).split("\n")
            badge = next(number for number, text in enumerate(lines) if text.startswith("**") and " GB · " in text)
            notebook["cells"][0]["source"] = "\n".join([*lines[: badge + 1], "", line, *lines[badge + 1 :]])
            file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
