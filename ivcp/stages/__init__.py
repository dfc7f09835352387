"""What can be trained: one folder for each stage, behind one protocol."""
