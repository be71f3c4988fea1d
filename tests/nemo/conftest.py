"""`servers/` has server code in the shape of NeMo Gym's, with test suites of its own: `ng_test` runs those."""

collect_ignore = ["servers"]
