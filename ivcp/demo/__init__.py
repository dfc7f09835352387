"""The sample data set and the tiny base model, so that nothing has to be downloaded."""
