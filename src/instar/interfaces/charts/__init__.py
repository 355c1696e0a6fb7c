"""Charts as SVG for pages that people look at when a stage has something to show: coordinates and text, no script."""
