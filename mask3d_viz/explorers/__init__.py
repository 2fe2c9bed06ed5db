"""Live views over one shared session."""
