"""The chains of steps, and what each step gets on a cluster."""
