"""What is proven of a network's derivatives: sweeps in ball arithmetic, and what floating point may say of them."""
