"""Execution of studies: samplers by name, processes, rows, and parts that all commands share."""
