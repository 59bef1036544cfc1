"""The verifier: a panel of checks that measure an image against the user's own request."""

from medgen.agents.verifier.checks import Abstain, Check, Measured
from medgen.agents.verifier.panel import Panel

__all__ = ["Abstain", "Check", "Measured", "Panel"]
