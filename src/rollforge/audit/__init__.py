"""Whether an environment can be trusted: its contract."""
