"""The action classifier: the hidden state at the action token through a decoder to class logits."""
