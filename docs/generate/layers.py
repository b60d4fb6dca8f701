"""Diagram of the package's layers, drawn from the import contract in pyproject.toml."""

import tomllib
from pathlib import Path

from svg import document

WIDTH, HEIGHT, GAP = 460, 22, 6


def write_layers(docs: Path, contract: Path) -> None:
    """Write the diagram."""
    (docs / "images").mkdir(exist_ok=True)
    (docs / "images" / "layers.svg").write_text(layers_picture(layers_of(contract)))


def layers_of(contract: Path) -> list[list[str]]:
    """Return the layers of the contract, top to bottom; the modules of one layer do not import each other."""
    contracts = tomllib.loads(contract.read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.replace(":", "|").split("|")] for layer in layers]


def layers_picture(layers: list[list[str]]) -> str:
    """Draw a row for each layer and a box for each module; a module imports only from rows below its own."""
    body = []
    for row, names in enumerate(layers):
        width = (WIDTH - GAP * (len(names) - 1)) / len(names)
        y = row * (HEIGHT + GAP)
        for column, name in enumerate(names):
            x = column * (width + GAP)
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="3" fill="#1f4e9c" fill-opacity="0.15" stroke="#1f4e9c"/>'
            )
            body.append(f'<text x="{x + width / 2:.1f}" y="{y + 15}" text-anchor="middle">{name}</text>')
    height = len(layers) * (HEIGHT + GAP)
    body.append(
        f'<path d="M{WIDTH + 14} 4V{height - 16}m-4 -7l4 8l4 -8" stroke="#888" fill="none"/>'
        f'<text x="{WIDTH + 22}" y="14">imports</text>'
    )
    return document(
        -4,
        -4,
        WIDTH + 80,
        height + 8,
        "".join(body),
        "Layers of the package: a module imports only what stands below it",
    )
