"""The model card of a bundle."""

from __future__ import annotations

from typing import Any


def model_card(about: dict[str, Any]) -> str:
    """README.md of a bundle, from the contents of its bundle.json."""
    parity = about["parity"]
    worst = max(item["largest"] for item in parity)
    lines = [
        "# A face restorer adapted to one kind of damage",
        "",
        f"Architecture: {about['architecture']}, for aligned face photographs of {about['size']} px"
        " with the damage it was adapted to; resize to that size first. On other damage it may do worse than a general"
        " restorer.",
        "",
        "## Use",
        "",
        "    pip install onnxruntime numpy Pillow",
        "    python run_model.py PHOTOS OUT",
        "",
        f"`model.onnx` takes `{about['input']['name']}`, float32 (B, 3, H, W), RGB in [0, 1], any batch and size, and"
        f" gives `{about['output']['name']}` of the same shape; clamp it to [0, 1]. `model.safetensors` holds the same"
        " weights under the architecture's public names.",
        "",
        "## How it was made",
        "",
        *[f"- {key}: {value}" for key, value in about["source"].items()],
        "",
        "## Checked",
        "",
        f"onnxruntime against PyTorch on {len(parity)} inputs of other sizes and batches than the traced one:"
        f" largest difference {worst:.1g}.",
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
