"""Balance a set of films with synthetic ones: count, plan, fill, review, export.

>>> wanted = plan(analyse(table, by=["subtype"]), target="even")      # prompts, numbers, minutes; wanted.edit()
>>> filled = fill(wanted, "runs/viral", progress=True).result()
>>> export("runs/viral", "runs/viral-dicom", kind="dicom")            # after review("runs/viral", "reader one")

Synthetic films are for training and for teaching, never for measuring a model. Not a medical device.
"""

from medimgen.balance.counting import Balance, analyse, films, show_balance
from medimgen.balance.planning import DESCRIBE, Item, Plan, plan

LATER = {
    "gates": ("Gates",),
    "filling": ("Filled", "Filling", "fill"),
    "exporting": ("distance_to_test", "export", "official_test_films"),
    "reviewing": ("agreement", "decide", "decisions", "review"),
}
__all__ = ["DESCRIBE", "Balance", "Item", "Plan", "analyse", "films", "plan", "show_balance", *sum(LATER.values(), ())]


def __getattr__(name: str):
    """What draws, writes or shows, loaded when it is first asked for (PEP 562)."""
    from importlib import import_module

    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(f"medimgen.balance.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
