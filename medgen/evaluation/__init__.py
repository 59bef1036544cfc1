"""How good it is: scorers that no loop optimised."""
