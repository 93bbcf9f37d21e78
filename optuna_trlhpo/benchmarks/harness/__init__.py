"""How studies are run: samplers by name, processes, rows, and what every command has in common.."""
