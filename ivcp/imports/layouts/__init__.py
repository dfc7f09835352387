"""The layouts that can be imported, one module each."""
