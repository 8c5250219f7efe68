"""The model card of a bundle."""

from __future__ import annotations

from typing import Any

_ON_WHOLE = (
    "\nWhole photographs too: `run_model.py` finds each face, restores it and puts it back; all else stays. `--faces`"
    " says which photos are whole where their look does not."
)


def model_card(about: dict[str, Any]) -> str:
    """README.md of a bundle, from the contents of its bundle.json."""
    parity, fidelity, size = about["parity"], about["fidelity"], about["size"]
    takes = f"any batch of {size} by {size} pixels and no other size" if about["one_size"] else "any batch and size"
    worst = max(item["largest"] for item in parity)
    tried = "batches" if about["one_size"] else "sizes and batches"
    undecided = sum(item["undecided"] for item in parity)
    whole = about.get("whole")
    left_out = f"Left out: {undecided} photos where two codes are so near that rounding chooses between them."
    lines = [
        "# A face restorer adapted to one kind of damage",
        "",
        f"Architecture: {about['architecture']}, for aligned face photographs of {size} px"
        f" with the damage it was adapted to; `run_model.py` resizes to {size} x {size}, other programs must. On other"
        " damage it may do worse than a general restorer.",
        *([_ON_WHOLE] if whole else []),
        "",
        "## Use",
        "",
        "    pip install onnxruntime numpy Pillow",
        f"    python run_model.py PHOTOS OUT{' --fidelity W' if fidelity else ''}",
        "",
        f"`model.onnx` takes `{about['input']['name']}`, float32 {about['input']['shape']}, RGB in [0, 1], {takes}, and"
        f" gives `{about['output']['name']}` of the same shape; clamp it to [0, 1]. `model.safetensors` holds the same"
        " weights under the architecture's public names. `run_model.py` sends nothing anywhere; in programs of your own"
        " set `ORT_DISABLE_TELEMETRY=1` before onnxruntime is imported, or it keeps events to be sent.",
        "",
        *(_on_fidelity(fidelity) if fidelity else []),
        "## How it was made",
        "",
        *[f"- {key}: {value}" for key, value in about["source"].items()],
        "",
        "## Checked",
        "",
        f"onnxruntime against PyTorch on {len(parity)} inputs of other {tried} than the traced one"
        f"{', at fidelities from 0 to 1' if fidelity else ''}: largest difference {worst:.1g}.",
        *([left_out] if undecided else []),
        *([f"- {name}: {worst:.1g}" for name, worst in whole.items()] if whole else []),
        "",
    ]
    measured = about["evaluation"]
    if measured:
        figures = [f"- {key}: {value}" for key, value in measured.items()] if isinstance(measured, dict) else [measured]
        lines += ["## Measured", "", *figures, ""]
    lines += [
        "## Licence",
        "",
        *[f"- {item}" for item in about["licences"]],
        "",
        "## Limits",
        "",
        "A restorer invents what the damage took away. Do not use its output to identify anybody.",
        "",
    ]
    return "\n".join(lines)


def _on_fidelity(fidelity: dict[str, Any]) -> list[str]:
    """What the second input does, and how to give it."""
    return [
        f"Its second input `{fidelity['name']}`, float32 {fidelity['shape']}, is w in [0, 1]: how far the result keeps"
        " to the photo. At 0 it shows what faces look like (quality: the sharpest, and the furthest from the person);"
        " at 1 what the photo shows (fidelity: the nearest, with more of the damage). The default is"
        f" {fidelity['default']:g}. Choose an output folder for each w; the runner refuses one of another.",
        "",
    ]
