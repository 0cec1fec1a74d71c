"""Where things lie: the checkout, the data cache and the optional mirror folder."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout. The package is always installed in editable mode, so this is where data_manifest.yml lies."""


def cache_dir() -> Path:
    """Folder for fetched data: `$MEDIMGEN_CACHE`, else the user's cache folder. Not created here."""
    import pooch

    return Path(os.environ.get("MEDIMGEN_CACHE") or pooch.os_cache("medimgen")).expanduser().resolve()


def mirror_dir() -> Path | None:
    """Folder that mirrors the data sets (`<id>/<path>`): `$MEDIMGEN_MIRROR`, else `mirror/` in the checkout.

    Returns None when neither exists. A workshop hands this folder round on a USB stick.
    """
    for candidate in (os.environ.get("MEDIMGEN_MIRROR"), ROOT / "mirror"):
        if candidate and (folder := Path(candidate).expanduser()).is_dir():
            return folder.resolve()
    return None
