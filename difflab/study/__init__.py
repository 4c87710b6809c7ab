"""Studies: one declared question, a grid of cells, recorded rows, tables and figures."""
