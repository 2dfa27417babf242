"""The usual faults of a machine, and the commands that mend them."""
