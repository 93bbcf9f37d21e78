"""Problems as objectives, with known optima where a table is complete."""
