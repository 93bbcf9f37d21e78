"""What samplers find: protocols, tables, figures, criteria.."""
