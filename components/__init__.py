"""What the pipeline is made of: a folder is one step, a file is shared by two steps or more."""
