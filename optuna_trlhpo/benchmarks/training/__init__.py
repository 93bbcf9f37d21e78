"""How fast networks are trained, and what training less costs.."""
