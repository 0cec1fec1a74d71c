"""Say whether a film is sharp enough to be read."""

import json
import urllib.request
from pathlib import Path

QUALITY = "https://quality.example/v1/score"


def is_sharp(path, limit=0.5):
    """Whether the quality score of the film at `path` is above `limit`."""
    request = urllib.request.Request(QUALITY, data=Path(path).read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        score = json.load(answer)["score"]
    return score > limit
