"""The sample data set and the tiny base model that the demo runs on."""
