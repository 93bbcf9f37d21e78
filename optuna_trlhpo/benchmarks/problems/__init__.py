"""What is searched: problems as objectives, with known optima where there are tables.."""
