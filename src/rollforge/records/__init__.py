"""What crosses a boundary: items, tasks, rollouts, and the rows they are stored as."""
