"""From a network to code for its gradient: derived by SymPy, shared, simplified, counted, printed, compiled."""
