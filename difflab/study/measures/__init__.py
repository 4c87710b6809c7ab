"""What a cell measures: one file per measure, each a function from a subject to columns of its row."""
