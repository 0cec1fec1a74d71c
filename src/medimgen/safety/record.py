"""What a paper needs out of the log of calls (`medimgen.calls`): a Methods paragraph and the CLAIM 2024 checklist.

>>> generator("chest x-ray, normal", n=4)          # adds a line to runs/calls.jsonl in the working folder
>>> print(record.methods("to teach radiographers"))             # a Methods paragraph out of the log
>>> record.claim2024().to_csv("claim.csv")         # the 44 items of CLAIM 2024, filled in as far as the log goes

Water: what power plants evaporate, WATER litres a kWh, the average of the United States (Li et al. 2023, arXiv
2304.03271); other grids differ several-fold, and a computer at home is not cooled by it.
"""

from pathlib import Path
from typing import Any

from medimgen.calls import WATTS, Record, calls

WATER, OWN = 3.142, "[yours to write]"


def _listed(x) -> list:
    return x if isinstance(x, list) else [x]


def _facts(records: list[Record]) -> dict[str, Any]:
    """What the log says of all calls together, as texts and numbers for paragraph and checklist."""
    drawn = [r for r in records if "seeds" in r.parameters]
    seeds = sorted(s for r in drawn for s in r.parameters["seeds"])
    texts = list(dict.fromkeys(p for r in drawn for p in _listed(r.parameters.get("prompt", ""))))
    weights = sorted({r.inputs["weights"] for r in drawn if r.inputs})
    versions = {name: value for r in records for name, value in r.versions.items()}
    others = [r.what for r in records if r not in drawn]
    settings = {f"{r.parameters.get('steps')} steps and guidance {r.parameters.get('guidance', 1):g}" for r in drawn}
    adapters = sorted({a for r in drawn if (a := r.parameters.get("adapter_sha256"))})
    return {
        "calls": len(records), "images": len(seeds), "prompts": texts, "settings": "; ".join(sorted(settings)),
        "seeds": f"seeds {seeds[0]} to {seeds[-1]}" if seeds else "no seeds", "weights": ", ".join(weights),
        "adapter": f"; adapter SHA-256 {', '.join(adapters)}" if adapters else "",
        "derived": sum(len(r.parameters["seeds"]) for r in drawn if r.parameters.get("patient_derived")),
        "version": ", ".join(sorted({r.code_version for r in records})),
        "python": ", ".join(sorted({r.python for r in records})),
        "software": ", ".join(f"{name} {value}" for name, value in sorted(versions.items())),
        "others": ", ".join(f"{n} ({(k := others.count(n))} call{'s' * (k > 1)})" for n in sorted(set(others))),
        "failed": sum(r.outcome != "ok" for r in records), "seconds": sum(r.seconds for r in records),
        "days": " to ".join(sorted({records[0].started[:10], records[-1].started[:10]})),
        "wh": [sum(r.facts["energy_wh"][k] for r in records) for k in range(3)],
    }  # fmt: skip


def methods(purpose: str = "", path: Path | None = None, since: str = "") -> str:
    """A paragraph for a paper's Methods: model, weights, prompts, settings, versions, time, energy, and what for.

    purpose : the exact application, in your words; without it the text has a gap, for no log knows it.
    """
    f = _facts(calls(path, since))
    low, middle, high = f["wh"]
    shown = "; ".join(f'"{text}"' for text in f["prompts"][:8])
    more = f"; and {len(f['prompts']) - 8} more in the log" if len(f["prompts"]) > 8 else ""
    parts = [
        f"{f['images']} synthetic images were generated on a local computer ({f['days']}) by a text-to-image diffusion "
        f"model (weights SHA-256 {f['weights']}{f['adapter']}) with {f['settings']}, {f['seeds']}, from "
        f"{len(f['prompts'])} prompt{'s' * (len(f['prompts']) > 1)}: {shown}{more}." * bool(f["images"]),
        f"{f['derived']} of them are patient-derived and stay on that computer." * bool(f["derived"]),
        f"Other models were used: {f['others']}." * bool(f["others"]),
        f"Software: medimgen {f['version']}, Python {f['python']}, {f['software']}.",
        f"{f['calls']} calls, {f['failed']} of them failed, took {f['seconds']:.0f} s and an estimated {middle:.2g} Wh "
        f"({low:.2g} to {high:.2g} Wh at {WATTS[0]:g} to {WATTS[2]:g} W for each busy core), for which power plants "
        f"evaporate about {middle * WATER:.2g} ml of water (average of the United States, Li et al. 2023).",
        f"The tools were used {purpose or 'for ' + OWN}. Nothing made was used for diagnosis.",
    ]
    return " ".join(part for part in parts if part)


def claim2024(path: Path | None = None, since: str = ""):
    """CLAIM 2024 as a table: item, section, what it asks (our words), answer, page (of your paper: yours to fill in).

    Tejani et al. 2024, Radiology: Artificial Intelligence 6(4) e240300, doi 10.1148/ryai.240300, its table of 44 items.
    Answers come from the log and speak of the course's generator; read each, for it is your study.
    """
    import pandas as pd

    from medimgen.safety.rights import require

    f = _facts(calls(path, since))
    told = f | {"data": require("kermany-cxr-224", "derive"), "weights": f"weights SHA-256 {f['weights']}"}
    table = pd.read_csv(Path(__file__).with_name("claim2024.tsv"), sep="\t", keep_default_na=False)
    table["answer"] = [text.format(**told) or OWN for text in table.pop("prefilled")]
    return table.assign(page="").set_index("item")
