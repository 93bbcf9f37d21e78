"""Comparison of samplers: protocols, tables, figures and criteria."""
