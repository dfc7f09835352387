"""What a classifier is compared with, without being asked: answers that need no training of the model."""
