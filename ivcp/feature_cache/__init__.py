"""What a frozen model computed of each sample, kept on disk."""
