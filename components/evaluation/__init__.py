"""Measures an adapter on the prepared test split and decides the gate."""
