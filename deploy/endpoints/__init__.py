"""Endpoints: made, updated step by step, turned back, scaled and called."""
