"""Small books in a temporary folder, under the course's own configuration."""

from pathlib import Path

import build_book
import yaml

WHOLE_BOOK = ("bibtex_bibfiles", "bibtex_reference_style", "html_additional_pages", "templates_path")


def configure(folder: Path, names: list[str], assets: bool = False, run: bool = True) -> None:
    """Write _config.yml and _toc.yml of a book of these pages, the first its root.

    Logo, bibliography and page 404 are left out. assets: whether `folder` has lessons/assets, styles and scripts;
    run: whether its notebooks are run.
    """
    config = yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["html"].pop("favicon")
    if not run:
        config["execute"]["execute_notebooks"] = "off"
    options = config["sphinx"]["config"]
    options["extensions"].remove("sphinxcontrib.bibtex")
    options["html_theme_options"].pop("logo")
    for key in WHOLE_BOOK:
        options.pop(key)
    if not assets:
        options.update(html_static_path=[], html_css_files=[], html_js_files=[])
    toc = {"format": "jb-book", "root": names[0]}
    if names[1:]:
        toc["chapters"] = [{"file": name} for name in names[1:]]
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
