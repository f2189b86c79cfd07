"""The heatmap laid over the photo, with a colour bar, as PNG."""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# readable with every common colour blindness and in grey (Nunez, Anderton and Renslow 2018, PLOS
# ONE)
COLOURS = "viridis"
OPACITY = 0.55  # of the strongest evidence; the weakest is clear, so that the skin stays visible
LONGEST_SIDE_INCHES, DOTS_PER_INCH = 5.0, 192


def draw_overlay(photo: np.ndarray, heatmap: np.ndarray, label: str) -> bytes:
    """Draws a photo under its heatmap.

    Args:
        photo: uint8 (height, width, 3), upright.
        heatmap: float32 (height, width) in [0, 1]; all zero for no evidence, which is written on
            the picture.
        label: Of the colour bar.

    Returns:
        A PNG file.
    """
    height_px, width_px = heatmap.shape
    scale = LONGEST_SIDE_INCHES / max(height_px, width_px)
    figure = Figure(
        figsize=(max(width_px * scale, 3.0) + 1.2, max(height_px * scale, 3.0)),
        dpi=DOTS_PER_INCH,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(photo)
    colours = axes.imshow(heatmap, cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY * heatmap)
    axes.set_axis_off()
    bar = figure.colorbar(colours, ax=axes, fraction=0.05, pad=0.02, label=label, ticks=[0, 1])
    bar.ax.set_yticklabels(["none", "most"])
    bar.solids.set_alpha(1)
    if not heatmap.any():
        axes.set_title("no evidence found in the photo", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # same map, same bytes
    return buffer.getvalue()
