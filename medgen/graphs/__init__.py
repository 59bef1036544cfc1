"""How the minds are wired."""
