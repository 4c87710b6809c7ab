"""What a network can be made of: one row per primitive, one table per kind."""
