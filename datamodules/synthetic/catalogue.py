"""The products of either synthetic set, and the defects that each can have."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from datamodules.synthetic.consumables import biscuits, capsule
from datamodules.synthetic.damage import broken, crack, dent, hole, missing, warped
from datamodules.synthetic.defects import Defect
from datamodules.synthetic.electronics import circuit_board, connector
from datamodules.synthetic.frame import Frame
from datamodules.synthetic.marks import clogged, discoloured, fibre, scratch, specks, stain
from datamodules.synthetic.metalware import bottle_cap, hex_nut
from datamodules.synthetic.surface import Surface
from datamodules.synthetic.textures import brushed_steel, fabric, leather_hide, oak, terrazzo, wire_mesh

Draw = Callable[[Frame, np.random.Generator], Surface]


class Product(NamedTuple):
    """How to draw one piece of a product, and its kinds of defects by name, in the order they are made."""

    draw: Draw
    defects: dict[str, Defect]


def _product(draw: Draw, *kinds: Defect) -> Product:
    return Product(draw, {kind.__name__: kind for kind in kinds})


CATALOGUE = {
    "fabric": _product(fabric, hole, stain, fibre, warped, discoloured),
    "oak": _product(oak, scratch, crack, hole, stain),
    "brushed_steel": _product(brushed_steel, scratch, dent, stain, specks),
    "hex_nut": _product(hex_nut, scratch, broken, stain, crack, dent),
    "capsule": _product(capsule, crack, dent, hole, discoloured, scratch),
    "circuit_board": _product(circuit_board, missing, scratch, stain, fibre, specks),
    "leather_hide": _product(leather_hide, scratch, hole, stain, discoloured, crack),
    "wire_mesh": _product(wire_mesh, broken, warped, fibre, clogged),
    "terrazzo": _product(terrazzo, crack, discoloured, stain, scratch),
    "bottle_cap": _product(bottle_cap, scratch, dent, discoloured, stain, hole),
    "connector": _product(connector, missing, warped, broken, crack, specks),
    "biscuits": _product(biscuits, broken, crack, stain, missing, fibre),
}

MVTEC_LIKE = ("fabric", "oak", "brushed_steel", "hex_nut", "capsule", "circuit_board")
"""Products of the set in MVTec AD's layout."""
VISA_LIKE = ("leather_hide", "wire_mesh", "terrazzo", "bottle_cap", "connector", "biscuits")
"""Products of the set in VisA's layout; none is in the other set."""
