"""The mount daemon and the employee's commands."""
