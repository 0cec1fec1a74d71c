"""Nine rules of lesson 4 as code that checks or stops.

>>> safety.check("my-folder")                           # a report; also `medimgen safety check my-folder`
>>> with safety.local_only(): ...                        # nothing leaves this kernel (not a sandbox)
>>> safety.require("nlm-reports", "redistribute")        # raises CourseError

What a check does not find may still be there. Not legal advice, not a medical device.
"""

LATER = {
    "egress": ("attempts", "guard", "local_only"),
    "safety.checking": ("Report", "check"),
    "safety.identity": ("deidentify",),
    "safety.record": ("claim2024", "methods"),
    "safety.rights": ("refuse", "require"),
    "safety.rules": ("Finding",),
}
__all__ = sorted(sum(LATER.values(), ()))


def __getattr__(name: str):
    """Loaded when it is first asked for (PEP 562)."""
    from importlib import import_module

    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(f"medimgen.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
