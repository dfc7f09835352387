"""What happens to a request around its answer: who may ask, how much at a time, how it is read, and what is noted."""
