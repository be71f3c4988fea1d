"""Hand-off: rollouts become data, configuration, launch script and a check report for a named trainer."""
